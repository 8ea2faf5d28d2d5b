"""Records of the ``positions`` topic: positions, open loss windows, meta (``schemas/positions.json``).

Keys are ``meta``, ``position:<channel>``, ``window:<window id>`` and ``progress:<channel>:<name>``. A window's
tombstone says that it is closed, that of progress that the job is done.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import orjson

from consumer.delivery.headers import CONTRACT
from consumer.delivery.internal import VERSION, InternalRecord, broken, key_text
from consumer.delivery.names import Topics
from consumer.errors import ForeignStateError
from consumer.events import Json, LossWindow, OutboundRecord
from consumer.position import Position, Preset
from consumer.tracking.arrivals import Progress

META_KEY = "meta"
POSITION_KEY = "position:"
WINDOW_KEY = "window:"
PROGRESS_KEY = "progress:"


@dataclass(frozen=True, slots=True)
class Meta:
    """Whose topics these are.

    Attributes:
        cluster_id: id of the Kafka cluster.
        org_id: 18-character org id.
        contract: version of the record shapes.
    """

    cluster_id: str
    org_id: str
    contract: int = CONTRACT


@dataclass(frozen=True, slots=True)
class CommittedPosition:
    """A position as it stands in Kafka.

    Attributes:
        channel: the channel.
        position: where it stands.
        last_event_ms: commit time of the last committed event, epoch milliseconds, None if there was none.
        committed_ms: when it was committed, epoch milliseconds.
        worker: name of the worker that committed it.
    """

    channel: str
    position: Position
    last_event_ms: int | None
    committed_ms: int
    worker: str


@dataclass(frozen=True, slots=True)
class ProgressEntry:
    """How far a job or poll of a channel got; see :class:`consumer.tracking.arrivals.Progress`.

    Attributes:
        channel: the channel; never holds a colon.
        name: the job's or poll's name, colons allowed.
        state: what it needs to go on.
    """

    channel: str
    name: str
    state: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Removed:
    """A tombstone.

    Attributes:
        key: the whole key, such as ``window:gap:…``.
    """

    key: str


PositionsEntry: TypeAlias = Meta | CommittedPosition | LossWindow | ProgressEntry | Removed


def encode_entry(topics: Topics, entry: PositionsEntry, partition: int | None = None) -> OutboundRecord:
    """Return the record of an entry.

    Args:
        topics: the deployment's topic names.
        entry: what to store.
        partition: the subscription's partition of the topic; None lets the key decide.
    """
    match entry:
        case Meta():
            key = META_KEY
            fields = {"cluster_id": entry.cluster_id, "org_id": entry.org_id, "contract": entry.contract}
        case CommittedPosition():
            key, fields = POSITION_KEY + entry.channel, _position_fields(entry)
        case LossWindow():
            key, fields = WINDOW_KEY + entry.window_id, _window_fields(entry)
        case ProgressEntry():
            key = _progress_key(entry.channel, entry.name)
            fields = {"channel": entry.channel, "name": entry.name, "state": dict(entry.state)}
        case Removed():
            return OutboundRecord(topics.positions, entry.key.encode(), None, (), partition)
    return OutboundRecord(topics.positions, key.encode(), orjson.dumps({"v": VERSION, **fields}), (), partition)


def window_closed(window_id: str) -> Removed:
    """Return the entry that removes a window."""
    return Removed(WINDOW_KEY + window_id)


def progress_entry(channel: str, progress: Progress) -> ProgressEntry | Removed:
    """Return the entry that remembers how far a channel's job or poll got, or removes it when it is done."""
    if progress.done:
        return Removed(_progress_key(channel, progress.name))
    return ProgressEntry(channel, progress.name, progress.state)


def decode_entry(key: bytes, value: bytes | None) -> PositionsEntry:
    """Return the entry of a record.

    Raises:
        ForeignStateError: a newer version wrote it, or not this service at all.
    """
    name = key_text(key)
    if value is None:
        return Removed(name)
    record = InternalRecord(name, value)
    if name == META_KEY:
        return Meta(record.text("cluster_id"), record.text("org_id"), record.number("contract"))
    if name.startswith(POSITION_KEY):
        return _position(record, name.removeprefix(POSITION_KEY))
    if name.startswith(WINDOW_KEY):
        return _window(record, name.removeprefix(WINDOW_KEY))
    if name.startswith(PROGRESS_KEY):
        return _progress(record, name)
    raise broken(name, "its key is none this version knows")


def require_same(stored: Meta | None, own: Meta) -> None:
    """Check that the topics belong to this deployment's cluster, org and contract.

    Raises:
        ForeignStateError: they don't.
    """
    if stored is None:
        return
    if stored.org_id != own.org_id:
        raise ForeignStateError(
            f"the topics belong to org {stored.org_id}, and this service reads org {own.org_id}",
            "Give each org its own kafka.topic_prefix and service.name, or correct the login.",
        )
    if stored.cluster_id != own.cluster_id:
        raise ForeignStateError(
            f"the positions were written on Kafka cluster {stored.cluster_id}, and this is {own.cluster_id}",
            "Offsets and transactions do not move between clusters; start with a new kafka.topic_prefix.",
        )
    if stored.contract > own.contract:
        raise ForeignStateError(
            f"the topics follow contract version {stored.contract}, and this service knows {own.contract}",
            "Start the newer version of the service, or use another kafka.topic_prefix.",
        )


def _position_fields(entry: CommittedPosition) -> dict[str, object]:
    position = entry.position
    return {
        "channel": entry.channel,
        "replay_id": _to_base64(position.replay_id),
        "preset": position.preset.value,
        "beyond_replay_id": _to_base64(position.beyond_replay_id),
        "beyond": position.beyond,
        "redelivery_ms": position.redelivery_ms,
        "epoch": position.epoch,
        "last_event_ms": entry.last_event_ms,
        "committed_ms": entry.committed_ms,
        "worker": entry.worker,
    }


def _position(record: InternalRecord, channel: str) -> CommittedPosition:
    if record.text("channel") != channel:
        record.refuse("key and channel differ")
    try:
        preset = Preset(record.text("preset"))
    except ValueError:
        record.refuse("preset is neither latest nor earliest")
    beyond_replay_id = _from_base64(record, "beyond_replay_id")
    beyond = record.texts("beyond")
    if (beyond_replay_id is None) != (not beyond):
        record.refuse("beyond and beyond_replay_id contradict each other")
    position = Position(
        replay_id=_from_base64(record, "replay_id"),
        preset=preset,
        beyond_replay_id=beyond_replay_id,
        beyond=beyond,
        redelivery_ms=record.optional_number("redelivery_ms"),
        epoch=record.optional_number("epoch") or 0,
    )
    return CommittedPosition(
        channel,
        position,
        record.optional_number("last_event_ms"),
        record.number("committed_ms"),
        record.text("worker"),
    )


def _window_fields(window: LossWindow) -> dict[str, object]:
    return {
        "window_id": window.window_id,
        "stream": window.stream,
        "reason": window.reason,
        "from_ms": window.from_ms,
        "to_ms": window.to_ms,
        "record_ids": window.record_ids,
        "entity": window.entity,
        "event_id": window.event_id,
        "detail": dict(window.detail),
    }


def _window(record: InternalRecord, window_id: str) -> LossWindow:
    if record.text("window_id") != window_id:
        record.refuse("key and window_id differ")
    return LossWindow(
        window_id=window_id,
        stream=record.text("stream"),
        reason=record.text("reason"),
        from_ms=record.optional_number("from_ms"),
        to_ms=record.optional_number("to_ms"),
        record_ids=record.texts("record_ids"),
        entity=record.optional_text("entity"),
        event_id=record.optional_text("event_id"),
        detail=record.mapping("detail"),
    )


def _progress_key(channel: str, name: str) -> str:
    return f"{PROGRESS_KEY}{channel}:{name}"


def _progress(record: InternalRecord, key: str) -> ProgressEntry:
    entry = ProgressEntry(record.text("channel"), record.text("name"), record.mapping("state"))
    if key != _progress_key(entry.channel, entry.name):
        record.refuse("key and content differ")
    return entry


def _to_base64(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode("ascii")


def _from_base64(record: InternalRecord, name: str) -> bytes | None:
    text = record.optional_text(name)
    if text is None:
        return None
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        record.refuse(f"{name} is not base64")
