"""Field names of events and of history rows: ``OwnerId`` is ``Owner`` there, ``BillingAddress.City`` ``BillingCity``.

Lookups lose their ``Id`` in history, some change their name; parts of compounds stand alone under the name they
have in queries; custom fields keep theirs (values of ``MessagingSessionHistory.Field`` in describes).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from consumer.tracking.values import EntityFacts

CREATED = "created"
"""Field of the row, and of the fact, that tells of a record's creation."""

SPECIAL = frozenset(
    {CREATED, "ownerAccepted", "ownerAssignment", "locked", "unlocked", "feedEvent"}
    | {"individualMerged", "customPersonMerged"}
)
"""History fields that are no fields of the object; events say nothing of them but for ``created``."""

_RENAMED: Mapping[str, str] = {"EndUserAccountId": "Account", "EndUserContactId": "Contact"}
_RENAMED_BACK: Mapping[str, str] = {"Owner": "OwnerId", **{new: old for old, new in _RENAMED.items()}}

_NAME_PARTS = frozenset({"Salutation", "FirstName", "MiddleName", "LastName", "Suffix", "InformalName"})
_ADDRESS_PARTS = (
    *("StateCode", "CountryCode", "GeocodeAccuracy", "PostalCode", "Street", "City", "State", "Country"),
    *("Latitude", "Longitude"),
)
_ADDRESSES = frozenset(
    {"Address", "BillingAddress", "ShippingAddress", "MailingAddress", "OtherAddress"}
    | {"PersonMailingAddress", "PersonOtherAddress"}
)
_CUSTOM = "__c"
_CUSTOM_PART = "__s"


def history_name(field: str, facts: EntityFacts | None) -> str:
    """Return Salesforce's history field name of an event's field or path.

    Args:
        field: API name, or path of a compound's part.
        facts: what is known of the object; without it a standard field that ends in ``Id`` is taken for a lookup.
    """
    return _history_name(field, may_be_lookup=facts is None or not facts.lookups or field in facts.lookups)


@lru_cache(maxsize=4096)
def _history_name(field: str, *, may_be_lookup: bool) -> str:
    compound, dot, part = field.partition(".")
    if dot:
        return _part_name(compound, part)
    if field in _RENAMED:
        return _RENAMED[field]
    if may_be_lookup and field.endswith("Id") and len(field) > 2:
        return field[:-2]
    return field


def _part_name(compound: str, part: str) -> str:
    if compound.endswith(_CUSTOM):
        return f"{compound.removesuffix(_CUSTOM)}__{part}{_CUSTOM_PART}"
    if compound.endswith("Address"):
        return compound.removesuffix("Address") + part
    return part


def event_field(history_field: str, facts: EntityFacts | None, *, ids: bool = False) -> str:
    """Return the event's name or path of a history field; names that stand for no field stay as they are.

    Args:
        history_field: Salesforce's name.
        facts: what is known of the object.
        ids: whether a row of it holds ids, so that it must be a lookup.
    """
    if history_field in SPECIAL:
        return history_field
    lookups = facts.lookups if facts is not None else frozenset()
    known = _by_history_name(lookups).get(history_field)
    if known is not None:
        return known
    back = _RENAMED_BACK.get(history_field)
    if back is not None and (not lookups or back == "OwnerId" or ids):
        return back
    if ids and not history_field.endswith((_CUSTOM, "Id")):
        return f"{history_field}Id"
    return _part_path(history_field, facts.visible if facts is not None else None)


@lru_cache(maxsize=256)
def _by_history_name(lookups: frozenset[str]) -> Mapping[str, str]:
    """Return history names of lookups; a renamed one gives way to a field that has the name by right."""
    renamed_first = sorted(lookups, key=lambda field: (field not in _RENAMED, field))
    return {_history_name(field, may_be_lookup=True): field for field in renamed_first}


@lru_cache(maxsize=4096)
def _part_path(name: str, visible: frozenset[str] | None) -> str:
    if name.endswith(_CUSTOM_PART):
        stem, _, part = name.removesuffix(_CUSTOM_PART).rpartition("__")
        return f"{stem}{_CUSTOM}.{part}" if stem else name
    if visible is not None and name in visible:
        return name
    if name in _NAME_PARTS:
        return f"Name.{name}"
    for part in _ADDRESS_PARTS:
        if name.endswith(part):
            compound = name.removesuffix(part) + "Address"
            return f"{compound}.{part}" if compound in (visible or _ADDRESSES) else name
    return name


def is_lookup(history_field: str, facts: EntityFacts | None) -> bool:
    """Whether Salesforce writes two rows for a change of a history field, as far as is known."""
    if facts is not None and facts.lookups:
        return history_field in _by_history_name(facts.lookups)
    return history_field in _RENAMED_BACK


def is_tracked(field: str, history_field: str, facts: EntityFacts | None) -> bool | None:
    """Return whether history tracking is on for a field, None while that is not known.

    Args:
        field: the event's name or path.
        history_field: Salesforce's name of it.
        facts: what is known of the object.
    """
    if facts is None:
        return None
    tracked = facts.tracked
    if tracked is None:
        return False if facts.visible is not None and not facts.has_history else None
    if field == CREATED:
        return bool(tracked)
    return history_field in tracked or field in tracked or field.partition(".")[0] in tracked
