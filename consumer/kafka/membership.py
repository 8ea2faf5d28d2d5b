"""Active worker and standbys: one Kafka group, whose partitions of ``positions`` say who runs what.

The group only decides who should work. That two workers never commit for one subscription is the transactional
id's business, whatever the group believes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn, Self

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupIdNotFound,
    GroupLoadInProgressError,
    NoError,
    NotCoordinatorForGroupError,
    for_code,
)

from consumer.kafka.assignor import stay_assignor
from consumer.kafka.connection import CLIENT_ERRORS, CONNECT_LIMIT_S, REQUEST_TIMEOUT_MS, Cluster, asking, translate
from consumer.kafka.reading import stop_consumer
from consumer.kafka.topics import admin_client

_POLL_MS = 1_000
_REBALANCE_MS = 10_000
"""How long members have to join again, milliseconds; one that is silent for the session timeout is left out."""
_RETRY_S = 0.1
_PASSING = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)


def group_id(service: str, org_id: str) -> str:
    """Return the group of a deployment: ``<service>.<org id>``."""
    return f"{service}.{org_id}"


@dataclass(frozen=True, slots=True)
class Member:
    """A worker as the group's coordinator sees it.

    Attributes:
        member_id: given by the coordinator.
        client_id: what the worker calls itself.
        host: where it connected from.
        partitions: partitions of ``positions`` assigned to it; empty for a standby.
    """

    member_id: str
    client_id: str
    host: str
    partitions: frozenset[int]


class Membership:
    """This worker's membership; ``async with`` joins and leaves.

    ``run`` must run all the time: it keeps a fetch pending, without which the client leaves the group. Partitions
    kept across a rebalance are reported as nothing at all, so the work on them goes on.

    Args:
        cluster: its ``client_id`` is what other workers see of this one.
        group: from :func:`group_id`.
        topic: the ``positions`` topic.
    """

    def __init__(self, cluster: Cluster, group: str, topic: str) -> None:
        settings = cluster.settings
        self._cluster = cluster
        self._topic = topic
        self._owned: frozenset[int] | None = None
        self._changed = asyncio.Event()
        session_ms = settings.session_timeout
        rebalance_ms = max(session_ms, _REBALANCE_MS)
        options = cluster.reader_options() | {
            # A join is answered only when all members have joined.
            "request_timeout_ms": max(REQUEST_TIMEOUT_MS, rebalance_ms + 5_000),
            # Nothing is read here; the group only decides.
            "auto_offset_reset": "latest",
        }
        self._consumer = AIOKafkaConsumer(
            **options,
            group_id=group,
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=max(1, session_ms // 3),
            rebalance_timeout_ms=rebalance_ms,
            partition_assignment_strategy=(stay_assignor(lambda: self.member_id),),
        )

    async def __aenter__(self) -> Self:
        """Join.

        Raises:
            KafkaUnavailableError: no broker answered in time.
            KafkaRefusedError: the credentials are not accepted.
        """
        try:
            async with asking(self._cluster, "joining the group"):
                await self._consumer.start()
                self._consumer.subscribe([self._topic], listener=_Listener(self))
        except BaseException:
            await self.leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave()

    @property
    def owned(self) -> frozenset[int]:
        """Partitions assigned to this worker now; stays as it is while the group rebalances."""
        return self._owned or frozenset()

    @property
    def member_id(self) -> str:
        """The id the coordinator gave, empty before the first assignment."""
        coordinator = self._consumer._coordinator  # noqa: SLF001  # the client shows its member id nowhere else
        return str(coordinator.member_id) if coordinator is not None else ""

    async def run(self) -> NoReturn:
        """Keep the membership alive, for ever.

        Raises:
            KafkaRefusedError: the group may not be used by this principal.
            KafkaUnavailableError: the client gave up.
        """
        while True:
            try:
                # Every partition is paused, so this only waits.
                await self._consumer.getmany(timeout_ms=_POLL_MS)
            except CLIENT_ERRORS as error:
                raise translate(error, "being a member of the group", self._cluster) from error

    async def assignments(self) -> AsyncIterator[frozenset[int]]:
        """Yield this worker's partitions when they are first known and whenever they change."""
        told: frozenset[int] | None = None
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._owned is not None and self._owned != told:
                told = self._owned
                yield told

    async def leave(self) -> None:
        """Leave the group, bounded in time, so that a standby takes over at once."""
        await stop_consumer(self._consumer)

    def _assigned(self, pairs: Collection[Any]) -> None:
        if pairs:
            self._consumer.pause(*pairs)
        self._owned = frozenset(pair.partition for pair in pairs)
        self._changed.set()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """Tells the membership what it was assigned."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        """Do nothing: with this protocol all is revoked at every rebalance, and most of it comes back."""

    def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        """Take note; this is the moment from which others may own what was revoked."""
        self._membership._assigned(assigned)  # noqa: SLF001  # the two are one thing


async def active_members(cluster: Cluster, group: str) -> list[Member]:
    """Return the group's members as its coordinator sees them; none for a group that does not exist.

    Raises:
        KafkaUnavailableError: no answer in time.
        KafkaRefusedError: the group may not be described by this principal.
    """
    async with admin_client(cluster) as admin, asking(cluster, "describing the group", CONNECT_LIMIT_S):
        while True:
            try:
                return await _members(admin, group)
            except _PASSING:
                # The very first group of a cluster waits for its topic, any group for a coordinator that moves.
                await asyncio.sleep(_RETRY_S)


async def _members(admin: Any, group: str) -> list[Member]:
    members: list[Member] = []
    for response in await admin.describe_consumer_groups([group]):
        for described in response.to_object()["groups"]:
            error = for_code(described["error_code"])
            # Newer brokers call a group that does not exist an error, older ones an empty group.
            if error not in {NoError, GroupIdNotFound}:
                raise error(group)
            members += [_member(each) for each in described["members"]]
    return sorted(members, key=lambda each: each.member_id)


def _member(described: dict[str, Any]) -> Member:
    data = described["member_assignment"]
    pairs = ConsumerProtocolMemberAssignment.decode(data).partitions() if data else []
    partitions = frozenset(pair.partition for pair in pairs)
    return Member(described["member_id"], described["client_id"], described["client_host"], partitions)
