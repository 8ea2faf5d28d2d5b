"""The embedded broker of the demonstration carries the whole Kafka side, as far as it can."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from consumer.delivery.names import Topics
from consumer.delivery.positions import CommittedPosition, encode_entry
from consumer.events import OutboundRecord
from consumer.kafka.connection import Cluster
from consumer.kafka.control import ControlTail, send_command
from consumer.kafka.embedded import EmbeddedBroker
from consumer.kafka.membership import Membership
from consumer.kafka.sink import KafkaSink, Subscription
from consumer.kafka.topics import ensure_topics, planned_specs
from consumer.ports import Batch
from consumer.position import Position
from consumer.settings import KafkaSettings
from tests.kafka_reader import read_committed_all

pytest.importorskip("confluent_kafka", reason="the embedded broker needs the package confluent-kafka")

CHANNEL = "/data/ChangeEvents"
TOPICS = Topics("p.", (CHANNEL,))


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


async def test_commit_restart_membership_and_commands(broker: EmbeddedBroker) -> None:
    settings = KafkaSettings.model_validate({"bootstrap_servers": broker.bootstrap, "partitions": 2})
    cluster = Cluster(settings, embedded=broker)
    await ensure_topics(cluster, planned_specs(TOPICS, settings))
    await ensure_topics(cluster, planned_specs(TOPICS, settings))
    async with Membership(cluster, "g", TOPICS.positions) as membership, asyncio.TaskGroup() as group:
        keeping = group.create_task(membership.run())
        async for owned in membership.assignments():
            assert owned == {0, 1}
            break
        keeping.cancel()
    sink = KafkaSink(cluster, Subscription("svc", "00D000000000001AAA", CHANNEL, TOPICS))
    position = Position(replay_id=b"1")
    entry = encode_entry(TOPICS, CommittedPosition(CHANNEL, position, 1, 2, "w"))
    change = OutboundRecord(TOPICS.changes("Case"), b"k", b"v", (("ce_id", b"e1:k"),))
    try:
        await sink.open()
        await sink.commit(Batch([change, entry], 1, position))
        restored = await sink.open()
    finally:
        await sink.close()
    assert restored.position == position
    assert restored.recent_event_ids == {"e1"}
    records = await read_committed_all(broker.bootstrap, TOPICS.changes("Case"), check_crcs=False)
    assert [each.value for each in records] == [b"v"]
    await send_command(cluster, OutboundRecord(TOPICS.control, b"pause:*", b"{}"))
    async with ControlTail(cluster, TOPICS.control) as tail:
        assert [each.value for each in await tail.past()] == [b"{}"]
