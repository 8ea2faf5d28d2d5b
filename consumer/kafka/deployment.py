"""What Kafka knows about a deployment, without taking part in it: for `status`, `check`, `position` and the like."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from consumer.delivery.names import Topics
from consumer.delivery.positions import CommittedPosition, Meta, ProgressEntry
from consumer.events import Json, LossWindow
from consumer.kafka.connection import Cluster
from consumer.kafka.membership import Member, active_members, group_id
from consumer.kafka.reading import CommittedReader
from consumer.kafka.sink import read_entries
from consumer.telemetry import POSITION_LIFETIME_MS

_SPAN = "span:changes:"
_SCAN = "scan:"
_REQUEST = "snapshot:"
_HISTORY = "poll:history:"
_RECONCILE = "poll:reconcile:"


@dataclass(frozen=True, slots=True)
class Deployment:
    """Everything committed to the ``positions`` topic, and who works.

    Attributes:
        meta: whose topics these are, None before the first commit.
        positions: by channel.
        windows: open loss windows by id, of all channels.
        members: the workers of the group; those with partitions are active, the others standbys.
        progress: how far jobs and polls got, by channel and name.
    """

    meta: Meta | None
    positions: Mapping[str, CommittedPosition]
    windows: Mapping[str, LossWindow]
    members: tuple[Member, ...]
    progress: Mapping[str, Mapping[str, Mapping[str, Json]]] = field(default_factory=dict)

    @property
    def active(self) -> tuple[Member, ...]:
        """The members that were assigned something."""
        return tuple(member for member in self.members if member.partitions)


async def read_deployment(cluster: Cluster, topics: Topics, service: str) -> Deployment:
    """Read the deployment's state.

    Args:
        cluster: the cluster.
        topics: the deployment's topic names.
        service: ``service.name``.

    Raises:
        KafkaUnavailableError: no broker answered in time.
        KafkaRefusedError: the topics don't exist or may not be read.
        ForeignStateError: something else, or a newer version, writes to the topic.
    """
    async with CommittedReader(cluster) as reader:
        entries = (await read_entries(reader, topics)).values()
    meta = next((entry for entry in entries if isinstance(entry, Meta)), None)
    members = await active_members(cluster, group_id(service, meta.org_id)) if meta is not None else []
    progress: dict[str, dict[str, Mapping[str, Json]]] = {}
    for entry in entries:
        if isinstance(entry, ProgressEntry):
            progress.setdefault(entry.channel, {})[entry.name] = entry.state
    return Deployment(
        meta=meta,
        positions={entry.channel: entry for entry in entries if isinstance(entry, CommittedPosition)},
        windows={entry.window_id: entry for entry in entries if isinstance(entry, LossWindow)},
        members=tuple(members),
        progress=progress,
    )


def describe_position(committed: CommittedPosition, now_ms: int) -> dict[str, object]:
    """Return a committed position as JSON values that people can read."""
    position = committed.position
    age_ms = now_ms - position.as_of_ms(committed.last_event_ms, committed.committed_ms)
    return {
        "channel": committed.channel,
        "replay_id": None if position.replay_id is None else base64.b64encode(position.replay_id).decode(),
        "preset": None if position.replay_id is not None else position.preset.value,
        "events_beyond": len(position.beyond),
        "committed_at": _iso(committed.committed_ms),
        "last_event_at": None if committed.last_event_ms is None else _iso(committed.last_event_ms),
        "expires_in_hours": round((POSITION_LIFETIME_MS - age_ms) / 3_600_000, 1),
        "worker": committed.worker,
    }


def describe_progress(channel: str, progress: Mapping[str, Mapping[str, Json]]) -> dict[str, Json]:
    """Return what a channel's jobs and polls committed, as JSON values that people can read.

    Args:
        channel: the channel.
        progress: its entries by name (see :class:`consumer.tracking.arrivals.Progress`).

    Returns:
        ``delivered_to``: end of the last span proven delivered; ``scans``: snapshots and resyncs under way or asked
        for; ``history_to`` and ``reconciled_to``: by object, how far its history rows are read and its hours are
        compared with Salesforce. Times are ISO 8601, None while there is none.
    """
    scans = {name.removeprefix(_SCAN): _scan(state) for name, state in progress.items() if name.startswith(_SCAN)}
    for name, state in progress.items():
        if name.startswith(_REQUEST):
            scans.setdefault(name.removeprefix(_REQUEST), _request(state))
    return {
        "delivered_to": _moment(progress.get(f"{_SPAN}{channel}", {}).get("to_ms")),
        "scans": [{"job": job, **scan} for job, scan in sorted(scans.items())],
        "history_to": _by_object(progress, _HISTORY, "complete_to_ms"),
        "reconciled_to": _by_object(progress, _RECONCILE, "to_ms"),
    }


def _scan(state: Mapping[str, Json]) -> dict[str, Json]:
    left = state.get("left") or state.get("entities") or [None]
    asked = state.get("kind") == "request"
    return {
        "purpose": "snapshot asked for" if asked else state.get("purpose"),
        "entity": left[0],
        "phase": state.get("phase"),
        "rows": state.get("rows"),
        "total": state.get("total"),
        "where": state.get("where") or None,
        "windows": list(state.get("windows") or ()),
    }


def _request(state: Mapping[str, Json]) -> dict[str, Json]:
    return {
        "purpose": "snapshot asked for",
        "entity": state.get("entity"),
        "phase": "queued",
        "rows": 0,
        "total": None,
        "where": state.get("where") or None,
        "windows": [],
    }


def _by_object(progress: Mapping[str, Mapping[str, Json]], prefix: str, field_name: str) -> dict[str, str | None]:
    return {
        name.removeprefix(prefix): _moment(state.get(field_name))
        for name, state in sorted(progress.items())
        if name.startswith(prefix)
    }


def _moment(ms: Json) -> str | None:
    return _iso(ms) if isinstance(ms, int) else None


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
