"""From a received event and its schema to one change event in canonical form (CDC developer guide)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from consumer.changes.record_ids import scope_of, split_ids
from consumer.changes.schema import EventSchema
from consumer.changes.shapes import FieldShape
from consumer.errors import BitmapError, PayloadError
from consumer.events import ChangeEvent, ChangeHeader, Json, ReceivedEvent

_ADVICE = "The event goes to quarantine with its raw bytes."


def normalise(event: ReceivedEvent, schema: EventSchema) -> ChangeEvent:
    """Decode an event and say what it carries.

    A non-null field whose changed bit is clear (enrichment) is still in ``values``. A nulled field or part
    that the body gives a value nevertheless keeps that value. The values are in schema order.

    Args:
        event: the event as received.
        schema: the writer schema with the event's own ``schema_id``.

    Raises:
        PayloadError: the bytes contradict the schema, or the header names no record, or what is no id.
        BitmapError: a bitmap contradicts the schema.
        NotAChangeEventError: the record has no change event header.
    """
    decoded = schema.decode(event.payload)
    header = decoded.header
    record_ids, wildcard_ids = _ids(header)
    try:
        changed = schema.bitmaps.names(header.changed_bitmaps)
        nulled = schema.bitmaps.names(header.nulled_bitmaps)
        diffs = schema.bitmaps.names(header.diff_bitmaps)
    except BitmapError as error:
        ids = scope_of(header.record_ids)
        raise BitmapError(error.message, error.advice, record_ids=ids) from error
    values = schema.canonical(decoded.values)
    if nulled:
        values = _with_nulls(values, nulled, schema.fields)
    change_type = header.change_type
    fields = schema.schema_fields
    return ChangeEvent(event, header, change_type, record_ids, wildcard_ids, fields, values, changed, nulled, diffs)


def _ids(header: ChangeHeader) -> tuple[tuple[str, ...], tuple[str, ...]]:
    try:
        real, wild = split_ids(header.record_ids)
    except ValueError as error:
        raise PayloadError("A change event header holds a record id that is none", _ADVICE) from error
    if not (real or wild):
        raise PayloadError("A change event header names no record", _ADVICE)
    return real, wild


def _with_nulls(values: Mapping[str, Json], nulled: Iterable[str], fields: Iterable[FieldShape]) -> dict[str, Json]:
    """Return the values with nulled fields and parts as None, in schema order."""
    whole: set[str] = set()
    parts: dict[str, set[str]] = {}
    for name in nulled:
        field_name, _, part_name = name.partition(".")
        if part_name:
            parts.setdefault(field_name, set()).add(part_name)
        else:
            whole.add(field_name)
    result: dict[str, Json] = {}
    for field in fields:
        name = field.name
        if name in parts:
            result[name] = _compound_with_nulls(values.get(name), parts[name], field.parts)
        elif name in values:
            result[name] = values[name]
        elif name in whole:
            result[name] = None
    return result


def _compound_with_nulls(value: Json, nulled: set[str], parts: Iterable[str]) -> Json:
    if value is not None and not isinstance(value, dict):
        return value  # the text form of a switchable person name has no parts
    carried = value or {}
    return {part: carried.get(part) for part in parts if part in carried or part in nulled}
