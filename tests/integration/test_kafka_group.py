"""Membership and control on a real broker: who runs what, and what workers are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from consumer.delivery.names import Topics
from consumer.errors import KafkaRefusedError
from consumer.events import OutboundRecord
from consumer.kafka.connection import Cluster
from consumer.kafka.control import ControlRecord, ControlTail, send_command
from consumer.kafka.membership import Membership, active_members, group_id
from consumer.kafka.topics import ensure_topics, planned_specs
from consumer.settings import KafkaSettings
from tests.broker import Broker

pytestmark = pytest.mark.kafka

CHANNEL = "/data/MessagingSessionChangeEvent"
LIMIT_S = 20.0


@pytest.fixture
async def cluster(kafka_broker: Broker, topic_prefix: str) -> Cluster:
    settings = KafkaSettings.model_validate(
        {
            "bootstrap_servers": kafka_broker.bootstrap,
            "topic_prefix": topic_prefix,
            "partitions": 3,
            "session_timeout": "3s",
        }
    )
    made = Cluster(settings)
    await ensure_topics(made, planned_specs(Topics(topic_prefix, (CHANNEL,)), settings))
    return made


class Worker:
    """A member that notes every assignment it is told of."""

    def __init__(self, membership: Membership) -> None:
        self.membership = membership
        self.told: list[frozenset[int]] = []
        self._news = asyncio.Event()

    async def listen(self) -> None:
        async for owned in self.membership.assignments():
            self.told.append(owned)
            self._news.set()

    async def told_of(self, *owned: int) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not self.told or self.told[-1] != frozenset(owned):
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def working(cluster: Cluster, name: str) -> AsyncIterator[Worker]:
    prefix = cluster.settings.topic_prefix
    named = Cluster(cluster.settings, name)
    async with Membership(named, group_id(prefix, "org"), Topics(prefix, (CHANNEL,)).positions) as membership:
        worker = Worker(membership)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(membership.run()), group.create_task(worker.listen())]
            try:
                yield worker
            finally:
                for task in tasks:
                    task.cancel()


async def test_a_standby_that_starts_takes_nothing_it_need_not_and_takes_over_what_is_left(
    cluster: Cluster,
) -> None:
    group = group_id(cluster.settings.topic_prefix, "org")
    assert await active_members(cluster, group) == []
    async with working(cluster, "standby") as standby:
        async with working(cluster, "active") as active:
            await _settled(standby, active)
            kept = active.membership.owned
            members = {each.client_id: each.partitions for each in await active_members(cluster, group)}
            assert members == {"active": kept, "standby": standby.membership.owned}
            assert kept | standby.membership.owned == {0, 1, 2}
            assert not kept & standby.membership.owned
        await standby.told_of(0, 1, 2)
    assert await active_members(cluster, group) == []


async def _settled(*workers: Worker) -> None:
    async with asyncio.timeout(LIMIT_S):
        while sum(len(each.membership.owned) for each in workers) != 3 or not all(each.told for each in workers):  # noqa: ASYNC110  # two workers' news
            await asyncio.sleep(0.02)


async def test_kept_partitions_are_no_news(cluster: Cluster) -> None:
    """A rebalance that leaves a worker what it has must not stop its work, nor be told."""
    async with working(cluster, "active") as active:
        await active.told_of(0, 1, 2)
        async with working(cluster, "a-first-in-the-alphabet") as standby:
            await _settled(active, standby)
            assert standby.membership.owned == frozenset(), "it found everything taken"
        assert active.told == [frozenset({0, 1, 2})]


async def test_commands_of_before_and_of_now_arrive_in_order(cluster: Cluster) -> None:
    topic = Topics(cluster.settings.topic_prefix, (CHANNEL,)).control
    for number in range(3):
        await send_command(cluster, OutboundRecord(topic, b"pause:*", b"%d" % number, (("h", b"1"),)))
    async with ControlTail(cluster, topic) as tail:
        past = await tail.past()
        assert [each.value for each in past] == [b"0", b"1", b"2"]
        assert past[0].headers == (("h", b"1"),)
        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
            first = group.create_task(_first_of(tail))
            await send_command(cluster, OutboundRecord(topic, b"pause:*", None))
            assert (await first).value is None


async def _first_of(tail: ControlTail) -> ControlRecord:
    async for record in tail.follow():
        return record
    raise AssertionError("it follows for ever")


async def test_a_missing_control_topic_is_an_error_and_not_silence(cluster: Cluster) -> None:
    async with ControlTail(cluster, f"{cluster.settings.topic_prefix}nowhere") as tail:
        with pytest.raises(KafkaRefusedError, match="does not exist"):
            await tail.past()
