"""Raw Avro values to canonical JSON values: one form for what an event, a query and a stored image say.

=====================  ==========================================================================
``doc`` type           canonical form
=====================  ==========================================================================
DateTime               ``2026-11-22T10:00:03.000Z`` (UTC)
DateOnly, Birthday     ``2026-11-22``, the UTC day of the instant
TimeOnly               ``10:00:03.000Z``
any other, unknown     by its Avro type
=====================  ==========================================================================

By Avro type: text (the empty one too), booleans and nulls stay; whole numbers stay within 2^53 and are
decimal text beyond; floating-point numbers stay, non-finite ones are ``"NaN"``, ``"Infinity"``,
``"-Infinity"``; a record is an object with the parts it carries; bytes are base64 text; decimals are decimal
text. A date outside the years 1 to 9999, or a time outside of one day, stays the number it was.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import math
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from consumer.changes.shapes import (
    NULL,
    ArrayShape,
    EnumShape,
    FieldShape,
    MapShape,
    PrimitiveShape,
    RecordShape,
    Shape,
    UnionShape,
)
from consumer.events import Json

Convert: TypeAlias = Callable[[Any], Json]

MAX_JSON_INTEGER = 2**53
"""Largest whole number that every JSON reader keeps exact."""

_DAY_MS = 86_400_000
_EPOCH_ORDINAL = dt.date(1970, 1, 1).toordinal()
_LAST_ORDINAL = dt.date.max.toordinal()
_TWO_DIGITS = tuple(f"{number:02d}" for number in range(60))


def integer(value: int) -> Json:
    """Return a whole number, as decimal text when it is beyond 2^53."""
    return value if -MAX_JSON_INTEGER <= value <= MAX_JSON_INTEGER else str(value)


def floating(value: float) -> Json:
    """Return a floating-point number, as text when it is not finite."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


@lru_cache(maxsize=4096)
def _day_text(day: int) -> str | None:
    """Return the date ``day`` days after 1970-01-01, None outside the years 1 to 9999."""
    ordinal = _EPOCH_ORDINAL + day
    return dt.date.fromordinal(ordinal).isoformat() if 1 <= ordinal <= _LAST_ORDINAL else None


def _clock_text(day_ms: int) -> str:
    seconds, millis = divmod(day_ms, 1000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{_TWO_DIGITS[hour]}:{_TWO_DIGITS[minute]}:{_TWO_DIGITS[second]}.{millis:03d}Z"


@lru_cache(maxsize=4096)
def date_time(epoch_ms: int) -> Json:
    """Return epoch milliseconds as ISO 8601 text with milliseconds."""
    day, day_ms = divmod(epoch_ms, _DAY_MS)
    text = _day_text(day)
    return integer(epoch_ms) if text is None else f"{text}T{_clock_text(day_ms)}"


def date_only(epoch_ms: int) -> Json:
    """Return the UTC day of epoch milliseconds as ``YYYY-MM-DD``."""
    text = _day_text(epoch_ms // _DAY_MS)
    return integer(epoch_ms) if text is None else text


def time_only(day_ms: int) -> Json:
    """Return milliseconds since midnight as ``HH:MM:SS.mmmZ``."""
    return _clock_text(day_ms) if 0 <= day_ms < _DAY_MS else integer(day_ms)


_BY_DOC_TYPE: dict[str, Convert] = {
    "DateTime": date_time,
    "DateOnly": date_only,
    "Birthday": date_only,
    "TimeOnly": time_only,
}


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _iso_moment(value: dt.datetime) -> str:
    return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _iso_time(value: dt.time) -> str:
    return value.isoformat(timespec="milliseconds") + "Z"


_LOGICAL: dict[str, Convert] = {
    "date": dt.date.isoformat,
    "time-millis": _iso_time,
    "time-micros": _iso_time,
    "timestamp-millis": _iso_moment,
    "timestamp-micros": _iso_moment,
    "decimal": str,
}
_PRIMITIVES: dict[str, Convert] = {
    "long": integer,
    "float": floating,
    "double": floating,
    "bytes": _base64,
    "fixed": _base64,
}


def canonical_converter(fields: Iterable[FieldShape]) -> Callable[[Mapping[str, Any]], dict[str, Json]]:
    """Compile the conversion of an event's body.

    The returned function takes the fields an event carries (a field may be None) and returns a new dict in
    the same order. It does not fail on any value that the schema's decoder returns.
    """
    builder = _Builder()
    converters = {
        field.name: convert for field in fields if (convert := builder.of(field.shape, field.doc_type)) is not None
    }
    return _fields_converter(converters)


def _fields_converter(converters: Mapping[str, Convert]) -> Callable[[Mapping[str, Any]], dict[str, Json]]:
    find = converters.get

    def convert(values: Mapping[str, Any]) -> dict[str, Json]:
        result = {}
        for name, value in values.items():
            change = find(name)
            result[name] = value if change is None or value is None else change(value)
        return result

    return convert


class _Builder:
    """Finds the conversion of each type; None where the raw value is canonical already."""

    def __init__(self) -> None:
        self._records: dict[int, Convert] = {}

    def of(self, shape: Shape, doc_type: str = "") -> Convert | None:
        if isinstance(shape, PrimitiveShape):
            return _primitive(shape, doc_type)
        if isinstance(shape, EnumShape):
            return None
        if isinstance(shape, RecordShape):
            return self._record(shape)
        if isinstance(shape, UnionShape):
            return self._union(shape, doc_type)
        return self._container(shape, doc_type)

    def _record(self, record: RecordShape) -> Convert:
        known = self._records.get(id(record))
        if known is not None:
            return known
        converters: dict[str, Convert] = {}
        # Known before its parts are looked at, because a record can hold itself.
        convert = self._records[id(record)] = _fields_converter(converters)
        for part in record.fields:
            change = self.of(part.shape, part.doc_type)
            if change is not None:
                converters[part.name] = change
        return convert

    def _container(self, shape: ArrayShape | MapShape, doc_type: str) -> Convert | None:
        change = self.of(shape.items if isinstance(shape, ArrayShape) else shape.values, doc_type)
        if change is None:
            return None
        each = _none_stays(change)
        if isinstance(shape, ArrayShape):
            return lambda items: [each(item) for item in items]
        return lambda items: {key: each(value) for key, value in items.items()}

    def _union(self, shape: UnionShape, doc_type: str) -> Convert | None:
        """Choose by the value's Python type where that tells branches apart, else convert without the schema."""
        branches = [branch for branch in shape.branches if branch != NULL]
        if len(branches) == 1:
            return self.of(branches[0], doc_type)
        changes: dict[type, Convert] = {}
        seen: set[type] = set()
        for branch in branches:
            python_type = _python_type(branch)
            if python_type is None or python_type in seen:
                return plain
            seen.add(python_type)
            change = self.of(branch, doc_type)
            if change is not None:
                changes[python_type] = change
        return _by_type(changes) if changes else None


def _primitive(shape: PrimitiveShape, doc_type: str) -> Convert | None:
    if shape.logical:
        return _LOGICAL.get(shape.logical)
    if shape.name in {"int", "long"} and doc_type in _BY_DOC_TYPE:
        return _BY_DOC_TYPE[doc_type]
    return _PRIMITIVES.get(shape.name)


def _none_stays(change: Convert) -> Convert:
    return lambda value: None if value is None else change(value)


def _by_type(changes: Mapping[type, Convert]) -> Convert:
    def convert(value: Any) -> Json:
        change = changes.get(type(value))
        return value if change is None else change(value)

    return convert


_PYTHON_TYPES: dict[str, type] = {
    "boolean": bool,
    "int": int,
    "long": int,
    "float": float,
    "double": float,
    "string": str,
    "bytes": bytes,
    "fixed": bytes,
}


def _python_type(shape: Shape) -> type | None:
    """Return the type that raw values of a branch have, None for a logical type."""
    if isinstance(shape, PrimitiveShape):
        return None if shape.logical else _PYTHON_TYPES.get(shape.name)
    if isinstance(shape, EnumShape):
        return str
    return list if isinstance(shape, ArrayShape) else dict


def plain(value: Any) -> Json:
    """Return any raw Avro value in canonical form, by its Python type alone (no dates by ``doc``)."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    for python_type, change in _PLAIN:
        if isinstance(value, python_type):
            return change(value)
    return value


_PLAIN: tuple[tuple[type, Convert], ...] = (
    (bool, bool),
    (int, integer),
    (float, floating),
    (bytes, _base64),
    (dt.datetime, _iso_moment),
    (dt.date, dt.date.isoformat),
    (dt.time, _iso_time),
    (decimal.Decimal, str),
)
