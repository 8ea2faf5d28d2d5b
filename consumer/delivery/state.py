"""Records of the ``state`` topics: the latest image of one record (``schemas/state.json``).

They are read by the outside and by this service itself, which restores from them. What has its usual value is left
out of the fields that only the restore needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from zlib import crc32

import orjson

from consumer.delivery.envelope import MAX_RECORD_BYTES
from consumer.delivery.headers import HeaderTemplate, iso_utc
from consumer.delivery.internal import VERSION, InternalRecord, key_text
from consumer.delivery.names import Topics
from consumer.events import Json, OutboundRecord, json_bytes
from consumer.tracking.values import RecordState, SourceVersion

_NULL = orjson.Fragment(b"null")
_CUT_UNKNOWN = 1_000
"""Names of unknown fields that are kept when even they are too many; no object of Salesforce has more fields."""


@dataclass(frozen=True, slots=True)
class _Route:
    topic: str
    headers: HeaderTemplate


@lru_cache(maxsize=1024)
def _route(topics: Topics, org_id: str, entity: str) -> _Route:
    return _Route(topics.of(entity, "state"), HeaderTemplate(org_id, entity, "state"))


def encode_state(
    topics: Topics, org_id: str, state: RecordState, *, max_record_bytes: int = MAX_RECORD_BYTES
) -> OutboundRecord:
    """Return the record of a state.

    Its ``image`` is the very bytes of ``RecordState.image_json``. A state that would be too large loses its largest
    fields: they are unknown then, and it is marked ``truncated``.

    Args:
        topics: the deployment's topic names.
        org_id: 18-character org id.
        state: the state.
        max_record_bytes: limit of the value, bytes.

    Raises:
        ConfigError: the object's name is not one that a topic can have.
    """
    route = _route(topics, org_id, state.entity)
    fields = _fields(state)
    value = json_bytes(fields)
    if len(value) > max_record_bytes:
        value = _cut(state, fields, max_record_bytes)
    key = state.record_id.encode()
    moved_ms = _moved_ms(state)
    state_id = f"state:{state.record_id}:{state.version}:{crc32(value):08x}"
    return OutboundRecord(route.topic, key, value, route.headers.build(state_id, key, moved_ms, moved_ms))


def state_tombstone(topics: Topics, entity: str, record_id: str) -> OutboundRecord:
    """Return the record that removes a state; it has no headers.

    Raises:
        ConfigError: the object's name is not one that a topic can have.
    """
    return OutboundRecord(topics.of(entity, "state"), record_id.encode(), None)


def decode_state(key: bytes, value: bytes) -> RecordState:
    """Return the state of a record as read; the tracked values, and the image's bytes, are those that were encoded.

    Raises:
        ForeignStateError: it is of a newer version, or not one of this service.
    """
    record_id = key_text(key)
    record = InternalRecord(record_id, value)
    image: dict[str, Json] = {}
    image_json = b""
    suspect: Mapping[str, Json] = record.mapping("suspect") if record.has("suspect") else {}
    if not record.flag("deleted"):
        image = dict(record.mapping("image"))
        image_json = json_bytes(image)
        if image.pop("Id", None) != record_id:
            record.refuse("its image has another id")
        image.update(suspect)
    since = record.mapping("since")
    return RecordState(
        record.text("entity"),
        record_id,
        image,
        image_json,
        tuple(name for name in record.texts("unknown_fields") if name not in suspect),
        frozenset(suspect),
        record.number("record_version"),
        _source(record),
        record.optional_number("row_stamp_ms"),
        record.optional_number("row_read_ms"),
        {name: str(at) for name, at in since.items()},
        record.flag("deleted"),
        record.optional_number("deleted_ms"),
        record.flag("completed"),
        record.mapping("metrics") if record.has("metrics") else None,
        record.optional_text("gap"),
        frozenset(record.optional_texts("incomplete") or ()),
        frozenset(record.optional_texts("ahead") or ()),
    )


def _source(record: InternalRecord) -> SourceVersion | None:
    if not record.has("source_version"):
        return None
    given = record.mapping("source_version")
    try:
        return SourceVersion(
            int(given["epoch"]),
            int(given["commit_number"]),
            int(given["sequence_number"]),
            int(given["commit_ts_ms"]),
        )
    except (KeyError, TypeError, ValueError):
        record.refuse("its source_version is not one")


def _fields(state: RecordState) -> dict[str, Json]:
    source = state.source
    fields: dict[str, Json] = {
        "v": VERSION,
        "entity": state.entity,
        "record_id": state.record_id,
        "deleted": state.deleted,
        "stale": state.stale,
        "record_version": state.version,
        "source_version": None
        if source is None
        else {
            "epoch": source.epoch,
            "commit_number": str(source.commit_number),
            "sequence_number": source.sequence_number,
            "commit_ts_ms": source.commit_ms,
        },
        "since": state.since,
        "read_at": None if state.row_read_ms is None else iso_utc(state.row_read_ms),
        "unknown_fields": (*state.unknown, *sorted(state.suspect)) if state.suspect else state.unknown,
        "metrics": state.metrics,
        "image": _NULL if state.deleted else orjson.Fragment(state.image_json),
    }
    if state.row_read_ms is not None:
        fields["row_read_ms"] = state.row_read_ms
    if state.row_stamp_ms is not None:
        fields["row_stamp_ms"] = state.row_stamp_ms
    if state.deleted_ms is not None:
        fields["deleted_ms"] = state.deleted_ms
    if state.completed:
        fields["completed"] = True
    if state.suspect:
        fields["suspect"] = {name: value for name, value in state.image.items() if name in state.suspect}
    if state.gap is not None:
        fields["gap"] = state.gap
    if state.incomplete:
        fields["incomplete"] = sorted(state.incomplete)
    if state.ahead:
        fields["ahead"] = sorted(state.ahead)
    return fields


def _cut(state: RecordState, fields: Mapping[str, Json], limit: int) -> bytes:
    """Encode again without the largest fields, as many as need be; then without metrics."""
    sizes = sorted((len(orjson.dumps(value)), name) for name, value in state.image.items())
    image = dict(state.image)
    small: dict[str, Json] = {**fields, "truncated": True}
    value = b""
    while True:
        name = sizes.pop()[1] if sizes else None
        if name is not None:
            del image[name]
        dropped = [each for each in state.image if each not in image]
        certain = {each: item for each, item in image.items() if each not in state.suspect}
        small["image"] = None if state.deleted else {"Id": state.record_id, **certain}
        small["unknown_fields"] = [
            *state.unknown,
            *(each for each in dropped if each not in state.suspect),
            *sorted(state.suspect),
        ][:_CUT_UNKNOWN]
        for kind, names in (("incomplete", state.incomplete), ("ahead", state.ahead)):
            small[kind] = sorted(names & image.keys())
        small["suspect"] = {each: item for each, item in image.items() if each in state.suspect}
        if name is None:
            small["metrics"] = None
        value = orjson.dumps(small)
        if len(value) <= limit or name is None:
            return value


def _moved_ms(state: RecordState) -> int:
    """Return when it became what it is, epoch milliseconds: by the newest event or row."""
    commit_ms = 0 if state.source is None else state.source.commit_ms
    return max(commit_ms, state.row_stamp_ms or 0, state.deleted_ms or 0)
