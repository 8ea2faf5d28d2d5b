"""Salesforce record ids: 15 to 18 characters, and telling records from wildcards and placeholders."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

_CHECK_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
_PLACEHOLDER = "0" * 15
_SHORT, _LONG = 15, 18


def to_18(record_id: str) -> str:
    """Return the 18-character form of a record id.

    Each of the three chunks of five characters gives one check character: bit *i* of its number says that
    character *i* is upper-case. An id that has 18 characters is returned as it is; its check characters are
    the server's business.

    Args:
        record_id: 15 or 18 ASCII letters and digits.

    Raises:
        ValueError: it is not an id; the message does not repeat it.
    """
    if not (record_id.isascii() and record_id.isalnum()):
        message = "A record id consists of 15 or 18 letters and digits"
        raise ValueError(message)
    if len(record_id) == _LONG:
        return record_id
    if len(record_id) != _SHORT:
        message = "A record id has 15 or 18 characters"
        raise ValueError(message)
    return record_id + "".join(_check_character(record_id[start : start + 5]) for start in (0, 5, 10))


def _check_character(chunk: str) -> str:
    return _CHECK_CHARACTERS[sum(1 << place for place, char in enumerate(chunk) if "A" <= char <= "Z")]


def names_no_record(record_id: str) -> bool:
    """Return True for a wildcard such as ``001*`` and for the all-zero placeholder of an overflow event."""
    return "*" in record_id or record_id.startswith(_PLACEHOLDER)


def split_ids(record_ids: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split a header's ids into real 18-character ids and ids that name no single record.

    Order is kept, repeats are removed; the second part stays as written.

    Raises:
        ValueError: one of them is neither.
    """
    ids = tuple(record_ids)
    return _split_one(ids[0]) if len(ids) == 1 else _split(ids)


@lru_cache(maxsize=4096)
def _split_one(record_id: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split the one id that nearly every event has; a record's events come soon after each other."""
    return _split((record_id,))


def _split(ids: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    real: dict[str, None] = {}
    wild: dict[str, None] = {}
    for record_id in ids:
        if names_no_record(record_id):
            wild[record_id] = None
        else:
            real[to_18(record_id)] = None
    return tuple(real), tuple(wild)


def scope_of(record_ids: Iterable[str]) -> tuple[str, ...]:
    """Return the ids a loss window of an unreadable event is about; empty stands for the whole entity.

    One wildcard, placeholder or unreadable id widens the scope to the whole entity, so that it is never
    understated.
    """
    try:
        real, wild = split_ids(record_ids)
    except ValueError:
        return ()
    return () if wild else real
