"""Taking the content out of a recording: every value is replaced by one of the same type.

Kept are ids, picklist values, times of the platform and the shape of every event (which fields, which parts, how
long), because these are what a recording is good for. Replaced are texts, numbers and calendar dates.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import fastavro

from consumer.changes.schema import HEADER_FIELD, EventSchema, compile_schema
from consumer.errors import EventError
from consumer.events import ReceivedEvent, ReceivedSchema, StreamFault, TapItem

_KEPT_TYPES = frozenset({"EntityId", "StaticEnum", "DynamicEnum", "DateTime", "Boolean", "ComplexValueType"})
"""Doc types whose values tell what happened rather than who it was about."""

_SOME_DAY_MS = 946_684_800_000
"""2000-01-01, for calendar dates, which may be birthdays."""


class Redactor:
    """Redacts items in the order they were received; learns schemas as they pass."""

    def __init__(self) -> None:
        self._schemas: dict[str, tuple[EventSchema, Any]] = {}

    def redact(self, item: TapItem) -> TapItem:
        """Return the item without content.

        An event that can't be decoded can't be redacted either: a fault that names it takes its place.
        """
        if isinstance(item, ReceivedSchema):
            self._learn(item)
            return item
        if not isinstance(item, ReceivedEvent):
            return item
        known = self._schemas.get(item.schema_id)
        if known is None:
            return _dropped(item)
        schema, writer_schema = known
        try:
            values = schema.decode_full(item.payload)
        except EventError:
            return _dropped(item)
        redacted = {
            name: value if name == HEADER_FIELD else _replaced(value, _doc_type(schema, name))
            for name, value in values.items()
        }
        out = io.BytesIO()
        fastavro.schemaless_writer(out, writer_schema, redacted)
        return ReceivedEvent(
            topic=item.topic,
            event_id=item.event_id,
            schema_id=item.schema_id,
            payload=out.getvalue(),
            replay_id=item.replay_id,
            received_ms=item.received_ms,
        )

    def _learn(self, item: ReceivedSchema) -> None:
        try:
            schema = compile_schema(item.schema_id, item.schema_json)
        except EventError:
            return  # events of it are dropped, as of any schema that is not known
        self._schemas[item.schema_id] = (schema, fastavro.parse_schema(json.loads(item.schema_json)))


def _replaced(value: Any, doc_type: str) -> Any:
    """Return a value of the same type, and of the same length where that is told in bytes."""
    if doc_type in _KEPT_TYPES or value is None or isinstance(value, bool):
        return value
    if isinstance(value, str | bytes):
        return (b"x" if isinstance(value, bytes) else "x") * len(value)
    if isinstance(value, float):
        return 1.5
    if isinstance(value, int):
        return _SOME_DAY_MS if abs(value) > 1 << 32 else 1
    if isinstance(value, Mapping):
        return {name: _replaced(part, "") for name, part in value.items()}
    return [_replaced(part, "") for part in value]


def _doc_type(schema: EventSchema, name: str) -> str:
    return next((field.doc_type for field in schema.fields if field.name == name), "")


def _dropped(event: ReceivedEvent) -> StreamFault:
    return StreamFault(
        event.topic,
        "RedactionError",
        "",
        f"event {event.event_id} with schema {event.schema_id} could not be decoded, so it was left out",
        event.received_ms,
    )
