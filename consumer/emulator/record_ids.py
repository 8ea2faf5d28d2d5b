"""Salesforce record ids: 15 case-sensitive characters, and 3 that make them safe to compare in any case."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SUFFIX: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
_INSTANCE: Final = "5g0000"
"""Characters 4 to 9 of every id of the emulated org: the instance and the reserved part, which is all digits."""

PREFIXES: Final = {
    "Account": "001",
    "AgentWork": "0Bz",
    "BotDefinition": "0Xx",
    "Campaign": "701",
    "Case": "500",
    "Contact": "003",
    "Conversation": "0dw",
    "FeedItem": "0D5",
    "FeedTrackedChange": "0D6",
    "Group": "00G",
    "GroupMember": "011",
    "Lead": "00Q",
    "MessagingChannel": "0Mj",
    "MessagingEndUser": "0PA",
    "MessagingSession": "0Mw",
    "MessagingSessionOwnerSharingRule": "0Yo",
    "MessagingSessionShare": "02c",
    "Opportunity": "006",
    "Organization": "00D",
    "PendingServiceRouting": "0JR",
    "QueueSobject": "03g",
    "RecordType": "012",
    "ServiceChannel": "0N9",
    "User": "005",
    "UserRole": "00E",
    "Widget__c": "a00",
}
"""Key prefix by object API name; those of share and sharing rule objects are not known, and chosen here."""

PLACEHOLDER_ID: Final = "000000000000000AAA"
"""The only record id of an overflow event (CDC developer guide, "Overflow Events")."""


@lru_cache(maxsize=4096)
def _suffix_char(five: str) -> str:
    """Return the check character of five id characters: bit n tells whether character n is upper case."""
    return _SUFFIX[sum(1 << place for place, char in enumerate(five) if "A" <= char <= "Z")]


def id18(id15: str) -> str:
    """Return the 18-character form of a 15-character id."""
    return id15 + _suffix_char(id15[:5]) + _suffix_char(id15[5:10]) + _suffix_char(id15[10:15])


def is_id18(text: str) -> bool:
    """Return whether ``text`` is an 18-character id whose check characters are right."""
    return len(text) == 18 and all(char in _BASE62 for char in text) and id18(text[:15]) == text


_PAIRS: Final = tuple(first + second for first in _BASE62 for second in _BASE62)
_UPPER: Final = tuple(("A" <= pair[0] <= "Z") + 2 * ("A" <= pair[1] <= "Z") for pair in _PAIRS)


def numbered_id(prefix: str, number: int) -> str:
    """Return the 18-character id of the ``number``-th record with this key prefix."""
    # Made once for every row of every kind, so digits and check characters come two at a time out of tables.
    number, low = divmod(number, 3844)
    high, middle = divmod(number, 3844)
    high %= 3844
    upper = _UPPER[high]
    start = prefix + _INSTANCE
    return (
        start
        + _PAIRS[high]
        + _PAIRS[middle]
        + _PAIRS[low]
        + _suffix_char(start[:5])
        + _SUFFIX[(upper & 1) << 4]
        + _SUFFIX[upper >> 1 | _UPPER[middle] << 1 | _UPPER[low] << 3]
    )


def field_id(number: int) -> str:
    """Return a 15-character custom field id, as it stands in the ``doc`` of a writer schema."""
    return numbered_id("00N", number)[:15]
