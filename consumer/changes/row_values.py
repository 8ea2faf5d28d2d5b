"""Values of REST and Bulk answers, one by one, to the canonical form of ``changes.canonical``.

REST writes JSON (``2026-11-22T10:00:03.000+0000``, ``100`` for a double), Bulk writes text (``true``, ``1500000.0``).
Which form a value takes is decided by the event schema's type and ``doc``, never by the value, so that a row and
an event that say the same are the same bytes.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

from consumer.changes import canonical
from consumer.changes.record_ids import to_18
from consumer.changes.shapes import NULL, EnumShape, FieldShape, PrimitiveShape, Shape
from consumer.events import Json

Read: TypeAlias = Callable[[Json], Json]
"""Converts a value that is not null; raises one of :data:`MISFIT` when it does not fit."""

MISFIT = (ValueError, TypeError, OverflowError)

_DAY_MS = 86_400_000
_EPOCH_DAY = dt.date(1970, 1, 1).toordinal()
_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)", re.ASCII)
_TIME = re.compile(r"(\d\d):(\d\d):(\d\d)(?:\.(\d{1,3})\d*)?Z?", re.ASCII)
_ZONE = re.compile(r"Z|([+-])(\d\d):?(\d\d)", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def epoch_ms(text: str) -> int:
    """Return a dateTime of REST, Bulk or a header of theirs as epoch milliseconds.

    Args:
        text: ISO 8601 with an offset: ``…Z``, ``…+0000`` or ``…+05:30``.

    Raises:
        ValueError: it is no such text.
    """
    day, clock = _day(text[:10]), _TIME.match(text, 11)
    if text[10:11] != "T" or clock is None:
        raise ValueError("no dateTime")
    # The pattern of times takes the Z along, which stands for the zone here.
    zone = _ZONE.fullmatch(text, clock.end() - (text[clock.end() - 1] == "Z"))
    if zone is None:
        raise ValueError("a dateTime without an offset")
    offset_ms = 0
    if zone[1]:
        offset_ms = (int(zone[2]) * 60 + int(zone[3])) * (60_000 if zone[1] == "+" else -60_000)
    return day * _DAY_MS + _clock_ms(clock) - offset_ms


@lru_cache(maxsize=4096)
def _day(text: str) -> int:
    found = _DATE.fullmatch(text)
    if found is None:
        raise ValueError("no date")
    return dt.date(int(found[1]), int(found[2]), int(found[3])).toordinal() - _EPOCH_DAY


def _clock_ms(found: re.Match[str]) -> int:
    hours, minutes, seconds = int(found[1]), int(found[2]), int(found[3])
    if hours > 23 or minutes > 59 or seconds > 59:
        raise ValueError("no time of day")
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + int((found[4] or "0").ljust(3, "0"))


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _date_time(value: Json) -> Json:
    return canonical.date_time(epoch_ms(_text(value)))


def _date(value: Json) -> Json:
    return canonical.date_only(_day(_text(value)) * _DAY_MS)


def _time(value: Json) -> Json:
    found = _TIME.fullmatch(_text(value))
    if found is None:
        raise ValueError("no time of day")
    return canonical.time_only(_clock_ms(found))


def _id(value: Json) -> Json:
    return to_18(_text(value))


def _boolean(value: Json) -> Json:
    if not isinstance(value, bool):
        raise TypeError("no boolean")
    return value


def _integer(value: Json) -> Json:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ValueError("no whole number")
    return canonical.integer(int(value))


def _double(value: Json) -> Json:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("no number")
    return canonical.floating(float(value))


_TIMES: dict[str, Read] = {
    "DateTime": _date_time,
    "DateOnly": _date,
    "Birthday": _date,
    "TimeOnly": _time,
}
_PRIMITIVES: dict[str, Read] = {
    "boolean": _boolean,
    "int": _integer,
    "long": _integer,
    "float": _double,
    "double": _double,
    "string": _text,
}


def reader(shape: Shape, doc_type: str) -> Read | None:
    """Return the conversion of a field's JSON values; None for a type that a row can't show canonically."""
    if isinstance(shape, EnumShape):
        return _text
    if not isinstance(shape, PrimitiveShape) or shape.logical:
        return None
    if shape.name in {"int", "long"} and doc_type in _TIMES:
        return _TIMES[doc_type]
    if shape.name == "string" and doc_type == "EntityId":
        return _id
    return _PRIMITIVES.get(shape.name)


def plain_reader(field: FieldShape) -> Read | None:
    """Return the conversion for the one branch of a field that is neither null nor a record, None without one."""
    branches = [branch for branch in field.branches if branch != NULL and branch is not field.record]
    return reader(branches[0], field.doc_type) if len(branches) == 1 else None


def from_text(read: Read) -> Read:
    """Return the conversion of a Bulk column's text for a field whose JSON values ``read`` converts."""
    parse = _PARSERS.get(read)
    return read if parse is None else lambda text: read(parse(text))


def _parse_boolean(text: str) -> Json:
    if text not in {"true", "false"}:
        raise ValueError("no boolean")
    return text == "true"


def _parse_integer(text: str) -> Json:
    return int(text) if _WHOLE.fullmatch(text) else _parse_double(text)


def _parse_double(text: str) -> Json:
    if _NUMBER.fullmatch(text) is None:
        raise ValueError("no number")
    return float(text)


_PARSERS: dict[Read, Callable[[str], Json]] = {
    _boolean: _parse_boolean,
    _integer: _parse_integer,
    _double: _parse_double,
}

_HISTORY: dict[str, Read] = {
    "DateTime": _date_time,
    "DateOnly": _date,
    "TimeOnly": _time,
    "EntityId": _id,
    "Double": _double,
    "Currency": _double,
    "Percent": _double,
}


def history_value(value: Json, data_type: str | None) -> Json:
    """Return OldValue or NewValue of a history row in canonical form.

    The column is an anyType, whose ``DataType`` is a hint: what does not fit it stays as it came.
    """
    read = _HISTORY.get(data_type or "")
    if value is None or read is None:
        return value
    try:
        return read(value)
    except MISFIT:
        return value
