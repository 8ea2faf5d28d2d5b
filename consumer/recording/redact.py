"""Taking the content out of a recording: every value is replaced by one of the same type.

Kept is what a recording is good for: which fields and parts an event has, how long texts are, booleans, values of
Salesforce's own restricted picklists, the header's times, numbers and keys, event ids, and the schemas. Every record
id becomes another one, the same one wherever it occurs, so that it can still be seen which events are about one
record; its key prefix, which tells the object, stays. Everything else is replaced: texts, picklist values of the
org's own, numbers, dates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from consumer.changes.record_ids import names_no_record, to_18
from consumer.changes.schema import HEADER_FIELD, EventSchema, compile_schema
from consumer.errors import EventError
from consumer.events import ReceivedEvent, ReceivedSchema, StreamFault, TapItem
from consumer.recording.oracle import FAILURES, Oracle

_KEPT_TYPES = frozenset({"StaticEnum", "Boolean"})
"""Doc types whose values are Salesforce's own."""

_SOME_DAY_MS = 946_684_800_000
"""2000-01-01, for calendar dates, which may be birthdays."""

_PREFIX = 3
_ID_LENGTHS = (15, 18)
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Redactor:
    """Redacts items in the order they were received; learns schemas as they pass.

    Args:
        salt: makes the ids of this recording unlike those of any other; random and not kept, or ids that can be
            guessed could be found again.
    """

    def __init__(self, salt: bytes) -> None:
        self._salt = salt
        self._schemas: dict[str, tuple[EventSchema, Oracle]] = {}

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
        schema, oracle = known
        try:
            payload = oracle.write(self._values(schema, schema.decode_full(item.payload)))
        except (EventError, *FAILURES):
            return _dropped(item)
        return ReceivedEvent(
            topic=item.topic,
            event_id=item.event_id,
            schema_id=item.schema_id,
            payload=payload,
            replay_id=item.replay_id,
            received_ms=item.received_ms,
        )

    def redact_id(self, text: str) -> str:
        """Return another id with the same key prefix, always the same for the same id; no id becomes ``x``.

        Wildcards and the placeholder, which name no record, stay.
        """
        if names_no_record(text):
            return text
        if len(text) not in _ID_LENGTHS or not (text.isascii() and text.isalnum()):
            return "x" * len(text)
        digest = hashlib.blake2b(text[:15].encode(), key=self._salt, digest_size=12).digest()
        short = text[:_PREFIX] + "".join(_DIGITS[byte % len(_DIGITS)] for byte in digest)
        return short if len(text) == _ID_LENGTHS[0] else to_18(short)

    def _learn(self, item: ReceivedSchema) -> None:
        try:
            self._schemas[item.schema_id] = (compile_schema(item.schema_id, item.schema_json), Oracle(item.schema_json))
        except EventError:
            return  # events of it are dropped, as of any schema that is not known

    def _values(self, schema: EventSchema, values: Mapping[str, Any]) -> dict[str, Any]:
        types = {field.name: field.doc_type for field in schema.fields}
        header = values.get(HEADER_FIELD)
        commit_ms = header.get("commitTimestamp") if isinstance(header, Mapping) else None
        now_ms = commit_ms if isinstance(commit_ms, int) else _SOME_DAY_MS
        redacted = {name: self._replaced(value, types.get(name, ""), now_ms) for name, value in values.items()}
        if isinstance(header, Mapping):
            redacted[HEADER_FIELD] = self._header(header)
        return redacted

    def _header(self, header: Mapping[str, Any]) -> dict[str, Any]:
        """Return the header with other ids; its origin keeps the API and loses the client's name."""
        redacted = dict(header)
        for name, value in header.items():
            if name == "recordIds":
                redacted[name] = [self.redact_id(record_id) for record_id in value]
            elif name == "commitUser":
                redacted[name] = self.redact_id(value)
            elif name == "changeOrigin":
                api, sign, client = value.partition(";client=")
                redacted[name] = f"{api}{sign}{'x' * len(client)}"
        return redacted

    def _replaced(self, value: Any, doc_type: str, now_ms: int) -> Any:
        """Return a value of the same type, and of the same length where that is told in characters."""
        if value is None or isinstance(value, bool) or doc_type in _KEPT_TYPES:
            return value
        if isinstance(value, Mapping):
            return {name: self._replaced(part, "", now_ms) for name, part in value.items()}
        if isinstance(value, list):
            return [self._replaced(part, "", now_ms) for part in value]
        if isinstance(value, str):
            return self.redact_id(value) if doc_type == "EntityId" else "x" * len(value)
        if isinstance(value, int):
            return {"DateTime": now_ms, "DateOnly": _SOME_DAY_MS, "Birthday": _SOME_DAY_MS}.get(doc_type, 1)
        return _some(value)


def _some(value: object) -> object:
    if isinstance(value, bytes):
        return b"x" * len(value)
    if isinstance(value, float):
        return 1.5
    message = f"{type(value).__name__} can't be redacted"
    raise TypeError(message)


def _dropped(event: ReceivedEvent) -> StreamFault:
    return StreamFault(
        event.topic,
        "RedactionError",
        "",
        f"event {event.event_id} with schema {event.schema_id} could not be decoded, so it was left out",
        event.received_ms,
    )
