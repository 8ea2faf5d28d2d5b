"""The shape of a recording: an Avro object container file with one item per received thing.

Any Avro tool can read it. The writer schemas of the events are items of the same file, before the first event
that needs them, so a recording is complete in itself. Each item carries a checksum of itself and of all items before
it, because the container has none: damage is always found, and never replayed as if it had been received.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from consumer.errors import RecordingError
from consumer.events import Keepalive, ReceivedEvent, ReceivedSchema, StreamFault, TapItem

VERSION = 1

ORG_ID_META = "consumer.org_id"
"""Metadata key of the file's head that holds the org id."""

_NULLABLE_TEXT = ["null", "string"]

ITEM_SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "RecordedItem",
    "namespace": "consumer.recording.v1",
    "doc": "One thing received from the Pub/Sub API; which fields are set depends on kind.",
    "fields": [
        {
            "name": "kind",
            "type": {"type": "enum", "name": "Kind", "symbols": ["EVENT", "KEEPALIVE", "SCHEMA", "FAULT"]},
        },
        {"name": "received_ms", "type": "long", "doc": "epoch milliseconds"},
        {"name": "topic", "type": "string", "doc": "channel it was received on"},
        {"name": "event_id", "type": _NULLABLE_TEXT, "default": None, "doc": "EVENT"},
        {"name": "replay_id", "type": ["null", "bytes"], "default": None, "doc": "EVENT, KEEPALIVE"},
        {"name": "schema_id", "type": _NULLABLE_TEXT, "default": None, "doc": "EVENT, SCHEMA"},
        {"name": "payload", "type": ["null", "bytes"], "default": None, "doc": "EVENT: Avro binary body"},
        {
            "name": "headers",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "Header",
                    "fields": [{"name": "key", "type": "string"}, {"name": "value", "type": "bytes"}],
                },
            },
            "default": [],
            "doc": "EVENT: the producer's headers",
        },
        {"name": "schema_json", "type": _NULLABLE_TEXT, "default": None, "doc": "SCHEMA"},
        {"name": "error", "type": _NULLABLE_TEXT, "default": None, "doc": "FAULT: class of the error"},
        {"name": "code", "type": _NULLABLE_TEXT, "default": None, "doc": "FAULT: Pub/Sub error code"},
        {"name": "message", "type": _NULLABLE_TEXT, "default": None, "doc": "FAULT: one sentence"},
        {"name": "check", "type": "long", "doc": "CRC-32 of all items up to this one"},
    ],
}

ITEM_SCHEMA_JSON = json.dumps(ITEM_SCHEMA)

_EMPTY: dict[str, Any] = {
    "event_id": None,
    "replay_id": None,
    "schema_id": None,
    "payload": None,
    "headers": [],
    "schema_json": None,
    "error": None,
    "code": None,
    "message": None,
}


def to_datum(item: TapItem) -> dict[str, Any]:
    """Return the Avro datum of an item."""
    common = {**_EMPTY, "received_ms": item.received_ms, "topic": item.topic}
    match item:
        case ReceivedEvent():
            headers = [{"key": key, "value": value} for key, value in item.headers]
            return common | {
                "kind": "EVENT",
                "event_id": item.event_id,
                "replay_id": item.replay_id,
                "schema_id": item.schema_id,
                "payload": item.payload,
                "headers": headers,
            }
        case Keepalive():
            return common | {"kind": "KEEPALIVE", "replay_id": item.replay_id}
        case ReceivedSchema():
            return common | {"kind": "SCHEMA", "schema_id": item.schema_id, "schema_json": item.schema_json}
        case StreamFault():
            return common | {"kind": "FAULT", "error": item.error, "code": item.code, "message": item.message}


def checksum(datum: Mapping[str, Any], before: int) -> int:
    """Return the CRC-32 of a datum and of everything before it.

    Every value counts with its field's name and its length, so that none can move into its neighbour.

    Args:
        datum: an item's datum; its own ``check`` does not count.
        before: the checksum of the item before it, 0 for the first one.

    Raises:
        TypeError: a value is of no type that items have.
    """
    crc = before
    for chunk in _chunks(datum):
        crc = zlib.crc32(chunk, zlib.crc32(len(chunk).to_bytes(8, "big"), crc))
    return crc


def _chunks(datum: Mapping[str, Any]) -> Iterator[bytes]:
    for name, value in sorted(datum.items()):
        if value is None or name in {"check", "headers"}:
            continue
        yield name.encode()
        yield _as_bytes(value)
    for header in datum.get("headers", ()):
        yield _as_bytes(header["key"])
        yield _as_bytes(header["value"])


def _as_bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str | int):
        return str(value).encode()
    message = f"{type(value).__name__} is no type of an item's field"
    raise TypeError(message)


def from_datum(datum: dict[str, Any]) -> TapItem:
    """Return the item of a datum.

    Raises:
        RecordingError: a field that its kind needs is missing.
    """
    topic, received_ms = datum["topic"], datum["received_ms"]

    def needed(name: str) -> Any:
        value = datum[name]
        if value is None:
            raise RecordingError(f"The recording has an item of kind {datum['kind']} without {name}", "Record again.")
        return value

    match datum["kind"]:
        case "EVENT":
            return ReceivedEvent(
                topic=topic,
                event_id=needed("event_id"),
                schema_id=needed("schema_id"),
                payload=needed("payload"),
                replay_id=needed("replay_id"),
                received_ms=received_ms,
                headers=tuple((header["key"], header["value"]) for header in datum["headers"]),
            )
        case "KEEPALIVE":
            return Keepalive(topic, needed("replay_id"), received_ms)
        case "SCHEMA":
            return ReceivedSchema(topic, needed("schema_id"), needed("schema_json"), received_ms)
        case _:
            return StreamFault(topic, needed("error"), datum["code"] or "", datum["message"] or "", received_ms)
