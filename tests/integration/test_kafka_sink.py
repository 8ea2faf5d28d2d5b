"""KafkaSink on a real broker: what is committed is read back, once; what is not committed is not there."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2

from consumer.delivery.headers import HeaderTemplate
from consumer.delivery.names import Topics
from consumer.delivery.positions import CommittedPosition, Meta, decode_entry, encode_entry, window_closed
from consumer.delivery.windows import window_for_first_start
from consumer.errors import ForeignStateError, KafkaRefusedError, ProducerFencedError, TransactionFailedError
from consumer.events import OutboundRecord
from consumer.kafka.connection import Cluster
from consumer.kafka.sink import KafkaSink, Subscription
from consumer.kafka.topics import cluster_id, ensure_topics, planned_specs
from consumer.ports import Batch
from consumer.position import Position
from consumer.settings import KafkaSettings
from tests.broker import Broker
from tests.kafka_reader import read_committed_all

pytestmark = pytest.mark.kafka

ORG = "00D000000000001AAA"
CHANNEL = "/data/MessagingSessionChangeEvent"
OTHER = "/data/AgentWorkChangeEvent"
KEY = b"0Mw000000000001AAA"


class World:
    """One deployment's topics on the broker of the session."""

    def __init__(self, broker: Broker, prefix: str, *channels: str, **settings: object) -> None:
        values = {"bootstrap_servers": broker.bootstrap, "topic_prefix": prefix, **settings}
        self.broker = broker
        self.cluster = Cluster(KafkaSettings.model_validate({"partitions": 3, "transaction_timeout": "10s"} | values))
        self.topics = Topics(prefix, channels or (CHANNEL,))

    def subscription(self, channel: str = CHANNEL, org: str = ORG) -> Subscription:
        return Subscription("svc", org, channel, self.topics)

    @asynccontextmanager
    async def sink(self, subscription: Subscription | None = None) -> AsyncIterator[KafkaSink]:
        sink = KafkaSink(self.cluster, subscription or self.subscription())
        try:
            yield sink
        finally:
            await sink.close()

    def change(self, event: int, key: bytes = KEY, size: int = 100) -> OutboundRecord:
        headers = HeaderTemplate(ORG, "MessagingSession", "changes").build(f"e{event}:{key.decode()}", key, 0, 0)
        value = (b'{"n":%d,"x":"' % event) + b"x" * size + b'"}'
        return OutboundRecord(self.topics.changes("MessagingSession"), key, value, headers)

    def batch(self, *records: OutboundRecord, at: int = 1, channel: str = CHANNEL) -> Batch:
        position = Position(replay_id=b"%d" % at)
        entry = encode_entry(self.topics, CommittedPosition(channel, position, 5, 6, "worker"))
        return Batch([*records, entry], len(records), position)


@pytest.fixture
async def world(kafka_broker: Broker, topic_prefix: str) -> World:
    made = World(kafka_broker, topic_prefix, CHANNEL, OTHER)
    await ensure_topics(made.cluster, planned_specs(made.topics, made.cluster.settings))
    return made


async def test_first_start_finds_nothing_and_claims_the_topics_with_the_first_batch(world: World) -> None:
    async with world.sink() as sink:
        restored = await sink.open()
        assert restored.position is None
        assert not restored.windows
        assert not restored.recent_event_ids
        assert not await read_committed_all(world.broker.bootstrap, world.topics.positions)
        await sink.commit(world.batch(world.change(1)))
        await sink.commit(world.batch(world.change(2), at=2))
    records = await read_committed_all(world.broker.bootstrap, world.topics.positions)
    entries = [decode_entry(each.key, each.value) for each in records]
    metas = [each for each in entries if isinstance(each, Meta)]
    assert [(each.org_id, each.contract) for each in metas] == [(ORG, 1)], "once, with the first batch"
    assert metas[0].cluster_id


async def test_position_windows_and_event_ids_come_back_after_a_restart(world: World) -> None:
    window = window_for_first_start(CHANNEL, 1)
    closed = window_for_first_start(CHANNEL, 2)
    foreign = window_for_first_start(OTHER, 3)
    async with world.sink() as sink:
        await sink.open()
        entries = [encode_entry(world.topics, each) for each in (window, closed, foreign)]
        await sink.commit(world.batch(world.change(1), *entries, at=1))
        gone = encode_entry(world.topics, window_closed(closed.window_id))
        await sink.commit(world.batch(world.change(2), gone, at=2))
    async with world.sink() as sink:
        restored = await sink.open()
    assert restored.position == Position(replay_id=b"2")
    assert (restored.last_event_ms, restored.committed_ms) == (5, 6)
    assert restored.recent_event_ids == {"e1", "e2"}
    assert dict(restored.windows) == {window.window_id: window}


async def test_records_keep_their_order_however_many_batches_they_fill(world: World) -> None:
    """3 MB of one key are more than one record batch may hold."""
    async with world.sink() as sink:
        await sink.open()
        await sink.commit(world.batch(*[world.change(n, size=30_000) for n in range(100)]))
    records = await read_committed_all(world.broker.bootstrap, world.topics.changes("MessagingSession"))
    assert [each.headers["ce_id"] for each in records] == [f"e{n}:{KEY.decode()}".encode() for n in range(100)]
    assert len({each.partition for each in records}) == 1


async def test_the_key_decides_the_partition_as_in_java_and_equally_in_every_topic(world: World) -> None:
    keys = [b"0Mw%015d" % n for n in range(30)]
    async with world.sink() as sink:
        await sink.open()
        changes = [world.change(n, key) for n, key in enumerate(keys)]
        twins = [OutboundRecord(world.topics.quarantine, key, b"x") for key in keys]
        await sink.commit(world.batch(*changes, *twins))
    names = (world.topics.changes("MessagingSession"), world.topics.quarantine)
    read = [{r.key: r.partition for r in await read_committed_all(world.broker.bootstrap, n)} for n in names]
    # The client's own implementation is the oracle for ours.
    assert read[0] == read[1] == {key: (murmur2(key) & 0x7FFFFFFF) % 3 for key in keys}
    assert set(read[0].values()) == {0, 1, 2}


async def test_a_zombie_is_fenced_and_what_it_sent_is_never_read(world: World) -> None:
    async with world.sink() as zombie, world.sink() as heir:
        await zombie.open()
        await zombie.commit(world.batch(world.change(1), at=1))
        producer = zombie._producer
        await producer.begin_transaction()
        built = producer.create_batch()
        built.append(timestamp=1, key=KEY, value=b"zombie")
        topic = world.topics.changes("MessagingSession")
        await (await producer.send_batch(built, topic, partition=0))
        # Reading before fencing would wait here until the broker ends the zombie's transaction after 10 s.
        async with asyncio.timeout(5):
            restored = await heir.open()
        assert restored.position == Position(replay_id=b"1"), "read to the end, past the zombie's open transaction"
        await heir.commit(world.batch(world.change(2), at=2))
        with pytest.raises(ProducerFencedError):
            await producer_commit(zombie, world)
    values = [each.value for each in await read_committed_all(world.broker.bootstrap, topic)]
    assert b"zombie" not in values
    assert len(values) == 2


async def producer_commit(zombie: KafkaSink, world: World) -> None:
    """Let the zombie go on where it stood: it takes its transaction for open."""
    zombie._producer._txn_manager.state = type(zombie._producer._txn_manager.state).READY
    await zombie.commit(world.batch(world.change(9), at=9))


async def test_a_fenced_worker_that_commits_a_new_batch_is_told_so(world: World) -> None:
    async with world.sink() as old, world.sink() as new:
        await old.open()
        await new.open()
        with pytest.raises(ProducerFencedError):
            await old.commit(world.batch(world.change(1)))
        with pytest.raises(TransactionFailedError):
            await old.commit(world.batch(world.change(1)))
        await new.commit(world.batch(world.change(2)))
    records = await read_committed_all(world.broker.bootstrap, world.topics.changes("MessagingSession"))
    assert [each.headers["ce_id"] for each in records] == [f"e2:{KEY.decode()}".encode()]


async def test_the_position_behind_a_foreign_open_transaction_is_found(world: World) -> None:
    """Another subscription's open transaction in the same partition holds the last stable offset back."""
    async with world.sink() as sink:
        await sink.open()
        await sink.commit(world.batch(world.change(1), at=1))
    count = world.cluster.settings.partitions
    foreign = AIOKafkaProducer(bootstrap_servers=world.broker.bootstrap, transactional_id=f"{world.topics.prefix}x")
    await foreign.start()
    try:
        await foreign.begin_transaction()
        for partition in range(count):
            await (await foreign.send(world.topics.positions, b"{}", key=b"x", partition=partition))
        async with world.sink() as sink:
            producer = AIOKafkaProducer(
                bootstrap_servers=world.broker.bootstrap,
                transactional_id=world.subscription().transactional_id,
            )
            async with producer:
                await producer.begin_transaction()
                late = world.batch(at=2).records[0]
                for partition in range(count):
                    await (await producer.send(late.topic, late.value, key=late.key, partition=partition))
                await producer.commit_transaction()
            async with asyncio.TaskGroup() as group:
                opening = group.create_task(sink.open())
                done, _ = await asyncio.wait([opening], timeout=2.0)
                assert not done, "it must wait for what may still hide its position"
                await foreign.abort_transaction()
            assert opening.result().position == Position(replay_id=b"2")
    finally:
        await foreign.stop()


async def test_aborted_records_are_neither_read_back_nor_restored(world: World) -> None:
    async with world.sink() as sink:
        await sink.open()
        await sink.commit(world.batch(world.change(1), at=1))
        topic = world.topics.changes("MessagingSession")
        too_large = OutboundRecord(topic, KEY, random.Random(1).randbytes(2_000_000))
        with pytest.raises(KafkaRefusedError, match="MessageSizeTooLarge"):
            await sink.commit(world.batch(world.change(2), too_large, at=2))
        restored = await sink.open()
        assert restored.position == Position(replay_id=b"1")
        assert restored.recent_event_ids == {"e1"}
        await sink.commit(world.batch(world.change(4), at=4))
    records = await read_committed_all(world.broker.bootstrap, world.topics.changes("MessagingSession"))
    assert [each.headers["ce_id"][:2] for each in records] == [b"e1", b"e4"]


@pytest.mark.parametrize("what", ["org", "contract", "cluster"])
async def test_topics_of_somebody_else_are_refused(world: World, what: str) -> None:
    async with world.sink() as sink:
        await sink.open()
        await sink.commit(world.batch(world.change(1)))
        if what != "org":
            meta = Meta("another-cluster", ORG) if what == "cluster" else Meta(await cluster_id(world.cluster), ORG, 99)
            await sink.commit(world.batch(encode_entry(world.topics, meta)))
    org = "00D000000000002AAA" if what == "org" else ORG
    async with world.sink(world.subscription(org=org)) as sink:
        with pytest.raises(ForeignStateError, match={"org": ORG, "contract": "99", "cluster": "another"}[what]):
            await sink.open()


async def test_redelivery_reads_all_ids_back_and_not_only_the_tail(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.kafka.readback.TAIL_OFFSETS", 4)
    async with world.sink() as sink:
        await sink.open()
        for n in range(10):
            await sink.commit(world.batch(world.change(n), at=n))
        tail = (await sink.open()).recent_event_ids
        assert "e9" in tail
        assert "e0" not in tail
        position = Position(replay_id=b"9", redelivery_ms=sink._now_ms())
        entry = encode_entry(world.topics, CommittedPosition(CHANNEL, position, 5, 6, "worker"))
        await sink.commit(Batch([entry], 0, position))
        assert (await sink.open()).recent_event_ids == {f"e{n}" for n in range(10)}


async def test_ids_come_from_quarantine_and_coverage_too(world: World) -> None:
    headers = (("ce_id", b"e7:quarantine"),)
    quarantined = OutboundRecord(world.topics.quarantine, b"e7", b"raw", headers)
    gap = OutboundRecord(world.topics.coverage, CHANNEL.encode(), b'{"event_id":"e8"}', (("ce_id", b"gap:e8:opened"),))
    async with world.sink() as sink:
        await sink.open()
        await sink.commit(world.batch(quarantined, gap))
        assert (await sink.open()).recent_event_ids == {"e7", "e8"}


async def test_topics_of_further_objects_are_made_when_the_first_record_comes(
    kafka_broker: Broker, topic_prefix: str
) -> None:
    world = World(kafka_broker, topic_prefix, "/data/ChangeEvents", CHANNEL)
    await ensure_topics(world.cluster, planned_specs(world.topics, world.cluster.settings))
    topic = world.topics.changes("Case")
    record = OutboundRecord(topic, b"500000000000001AAA", b"{}", (("ce_id", b"e1:500"),))
    async with world.sink(world.subscription("/data/ChangeEvents")) as sink:
        await sink.open()
        await sink.commit(world.batch(record, channel="/data/ChangeEvents"))
        assert (await sink.open()).recent_event_ids == {"e1"}
    async with world.sink() as sink:
        assert not (await sink.open()).recent_event_ids, "another subscription's events are not ours"
        await sink.commit(world.batch(world.change(2)))
    async with world.sink(world.subscription("/data/ChangeEvents")) as sink:
        assert (await sink.open()).recent_event_ids == {"e1"}, "nor are ours its own"


def test_the_transactional_id_is_of_safe_characters() -> None:
    topics = Topics("p.", (CHANNEL,))
    assert Subscription("svc", ORG, "/data/ChangeEvents", topics).transactional_id == f"svc.{ORG}.ChangeEvents"
