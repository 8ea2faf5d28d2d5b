"""What Kafka knows about a deployment, without taking part in it: for `status`, `check`, `position` and the like."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from consumer.delivery.names import Topics
from consumer.delivery.positions import CommittedPosition, Meta
from consumer.events import LossWindow
from consumer.kafka.connection import Cluster
from consumer.kafka.membership import Member, active_members, group_id
from consumer.kafka.reading import CommittedReader
from consumer.kafka.sink import read_entries
from consumer.telemetry import POSITION_LIFETIME_MS


@dataclass(frozen=True, slots=True)
class Deployment:
    """Everything committed to the ``positions`` topic, and who works.

    Attributes:
        meta: whose topics these are, None before the first commit.
        positions: by channel.
        windows: open loss windows by id, of all channels.
        members: the workers of the group; those with partitions are active, the others standbys.
    """

    meta: Meta | None
    positions: Mapping[str, CommittedPosition]
    windows: Mapping[str, LossWindow]
    members: tuple[Member, ...]

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
    return Deployment(
        meta=meta,
        positions={entry.channel: entry for entry in entries if isinstance(entry, CommittedPosition)},
        windows={entry.window_id: entry for entry in entries if isinstance(entry, LossWindow)},
        members=tuple(members),
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


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
