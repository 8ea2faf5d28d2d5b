"""The values that travel on the arrows between the stages; every one is frozen and slotted.

``salesforce`` yields :data:`StreamItem`; ``changes`` turns a :class:`ReceivedEvent` into a
:class:`ChangeEvent`; ``delivery`` turns that into :class:`OutboundRecord` values; ``kafka`` commits them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

import orjson

from consumer.frozen import frozen

Json: TypeAlias = Any
"""A value as orjson writes it: None, bool, int within 2^53, finite float, str, list, dict with str keys."""


def json_bytes(value: Json) -> bytes:
    """Return the JSON of a value that is kept for a while.

    What ``orjson.dumps`` returns can hold ten times its length in memory: the room it was written into.
    """
    return b"".join((orjson.dumps(value), b""))  # two parts, because one alone is given back and not copied


class ChangeType(StrEnum):
    """``ChangeEventHeader.changeType`` (CDC developer guide), and VANISHED for records found gone."""

    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    UNDELETE = "UNDELETE"
    GAP_CREATE = "GAP_CREATE"
    GAP_UPDATE = "GAP_UPDATE"
    GAP_DELETE = "GAP_DELETE"
    GAP_UNDELETE = "GAP_UNDELETE"
    GAP_OVERFLOW = "GAP_OVERFLOW"
    SNAPSHOT = "SNAPSHOT"


@frozen()
class ReceivedEvent:
    """One event as the Pub/Sub API delivered it, undecoded.

    Attributes:
        topic: channel it was received on, such as ``/data/MessagingSessionChangeEvent``.
        event_id: the event's UUID, equal for every subscriber; the only key for recognising repeats.
        schema_id: opaque id of the writer schema of this very event.
        payload: Avro binary body, no container and no magic byte.
        headers: the producer's reserved headers, passed through.
        replay_id: opaque position; several events can share one.
        received_ms: when it was received, epoch milliseconds.
        window_id: the loss window this event's retry belongs to, None on the normal path.
    """

    topic: str
    event_id: str
    schema_id: str
    payload: bytes
    replay_id: bytes
    received_ms: int
    headers: tuple[tuple[str, bytes], ...] = ()
    window_id: str | None = None


@dataclass(frozen=True, slots=True)
class Keepalive:
    """An empty response: everything up to ``replay_id`` has been delivered.

    Attributes:
        topic: channel it was received on.
        replay_id: the server's ``latest_replay_id``.
        received_ms: when it was received, epoch milliseconds.
    """

    topic: str
    replay_id: bytes
    received_ms: int


StreamItem: TypeAlias = ReceivedEvent | Keepalive


@dataclass(frozen=True, slots=True)
class ReceivedSchema:
    """A writer schema as fetched; travels only into recordings."""

    topic: str
    schema_id: str
    schema_json: str
    received_ms: int


@dataclass(frozen=True, slots=True)
class StreamFault:
    """A stream end or refused call; travels only into recordings and logs.

    Attributes:
        error: class name of the error.
        code: Pub/Sub error code without prefix, empty when there was none.
        message: the error's sentence; holds no secret.
    """

    topic: str
    error: str
    code: str
    message: str
    received_ms: int


TapItem: TypeAlias = ReceivedEvent | Keepalive | ReceivedSchema | StreamFault


@frozen()
class ChangeHeader:
    """The ChangeEventHeader of one event; the bitmap lists are still as written.

    Attributes:
        record_ids: 18-character ids; may hold a wildcard such as ``001*`` or the all-zero placeholder.
        change_type: text, because a new release may send one this version does not know.
        commit_ms: epoch milliseconds, observed with second precision.
        commit_number: 64-bit, often beyond 2^53.
    """

    entity: str
    record_ids: tuple[str, ...]
    change_type: str
    change_origin: str
    transaction_key: str
    sequence_number: int
    commit_ms: int
    commit_number: int
    commit_user: str
    nulled_bitmaps: tuple[str, ...]
    diff_bitmaps: tuple[str, ...]
    changed_bitmaps: tuple[str, ...]


@frozen()
class DecodedEvent:
    """A payload decoded with its writer schema.

    Attributes:
        header: the change event header.
        values: the body's non-null fields in schema order, as raw Avro values (compounds are dicts of their
            non-null parts).
    """

    header: ChangeHeader
    values: Mapping[str, Any]


@frozen()
class ChangeEvent:
    """One normalised change event; still one value for all its record ids.

    Attributes:
        received: the event as received (its payload is what a quarantine record or raw copy holds).
        header: header as decoded.
        change_type: the header's, or its raw text when unknown.
        record_ids: real 18-character ids, without wildcards and placeholders, in order, no repeats.
        wildcard_ids: ids that name no single record (``001*``, all zeros).
        schema_fields: every body field of the writer schema, in order; compounds by their top name.
        values: canonical JSON values of the fields the event carries; a nulled field is present as None;
            a compound is a dict of the parts the event carries.
        changed_fields: names from the bitmap, parts of a compound as ``Field.Part``.
        nulled_fields: likewise.
        diff_fields: likewise; their value is a unified diff, kept as text.
    """

    received: ReceivedEvent
    header: ChangeHeader
    change_type: str
    record_ids: tuple[str, ...]
    wildcard_ids: tuple[str, ...]
    schema_fields: tuple[str, ...]
    values: Mapping[str, Json]
    changed_fields: tuple[str, ...]
    nulled_fields: tuple[str, ...]
    diff_fields: tuple[str, ...]


@frozen()
class OutboundRecord:
    """One Kafka record, ready to be sent.

    Attributes:
        topic: full topic name.
        key: raw key bytes.
        value: value bytes, or None for a tombstone of a compacted topic.
        headers: Kafka headers in order.
        partition: fixed partition, or None to let the key decide (Java-compatible murmur2).
    """

    topic: str
    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class LossWindow:
    """A span that can't be proven delivered, until a repair closes it.

    Attributes:
        window_id: stable: the same fact gives the same id.
        stream: ``changes:<channel>``.
        reason: one of the reasons listed in ``schemas/coverage.json``.
        from_ms: start of the span, epoch milliseconds, None when unknown.
        to_ms: end of the span, epoch milliseconds, None while open-ended.
        record_ids: the ids in scope; empty means the whole entity or channel.
        entity: object API name, None for a whole channel.
        event_id: the event that opened it, None if it was no event.
        detail: facts for the operator.
    """

    window_id: str
    stream: str
    reason: str
    from_ms: int | None
    to_ms: int | None
    record_ids: tuple[str, ...] = ()
    entity: str | None = None
    event_id: str | None = None
    detail: Mapping[str, Json] = field(default_factory=dict)
