"""The local store caught up from a real broker: whatever became of the file or the topics, it ends equal to Kafka."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from structlog.testing import capture_logs

from consumer import clock
from consumer.errors import ForeignStateError
from consumer.events import OutboundRecord
from consumer.kafka.reading import CommittedReader
from consumer.kafka.topics import describe_topics
from consumer.ports import Store
from consumer.store.file import Owner
from consumer.store.memory import MemoryStore
from consumer.store.sqlite import SqliteStore
from consumer.tracking.values import LedgerEntry
from tests.broker import Broker
from tests.kafka_reader import read_committed_all
from tests.restore_world import CHANNEL, EVERYTHING, LIMIT_S, Value, World, committed_raw, recreated, world_of
from tests.store_values import ENTITY, ORG, contents, entry, key, record_id, state

pytestmark = pytest.mark.kafka


@pytest.fixture
async def world(kafka_broker: Broker, topic_prefix: str, tmp_path: Path) -> World:
    return await world_of(kafka_broker, topic_prefix, tmp_path, CHANNEL)


FIRST: list[Value] = [state(1), state(2), state(3), entry(1, due_ms=1), entry(2, facts=1)]
SECOND: list[Value] = [state(2, version=2), state(4), key(3), entry(1, due_ms=9), LedgerEntry(ENTITY, record_id(2))]
BOTH = {1: (1, 9), 2: (2, None), 4: (1, None)}


async def test_a_lost_file_is_filled_from_kafka(world: World) -> None:
    await world.write(MemoryStore(world.codec), FIRST, SECOND)
    store = world.file()
    assert (await world.restored(store))["loaded"] == 10
    assert contents(store, 6) == BOTH
    assert list(store.entities()) == [ENTITY]
    assert store.due_refreshes(ENTITY, 10, 9) == [key(1)]
    store.close()


async def test_a_file_that_saw_every_commit_loads_nothing(world: World) -> None:
    store = world.file()
    await world.write(store, FIRST, SECOND)
    assert await world.restored(store) == {"loaded": 0, "why": []}
    assert contents(store, 6) == BOTH
    store.close()


async def test_a_file_that_saw_half_loads_the_rest_and_no_more(world: World) -> None:
    store = world.file()
    await world.write(store, FIRST)
    store.close()
    await world.write(MemoryStore(world.codec), SECOND)
    store = world.file()
    assert contents(store, 6) == {1: (1, 1), 2: (1, None), 3: (1, None)}
    # The memory store knew of no ledger entry of record 2, so it left no tombstone for it.
    assert await world.restored(store) == {"loaded": 4, "why": []}
    assert contents(store, 6) == BOTH
    assert await world.restored(store) == {"loaded": 0, "why": []}
    store.close()


async def test_what_was_committed_and_not_merged_is_caught_up(world: World) -> None:
    store = world.file()
    await world.write(store, FIRST)
    await world.write(store, SECOND, merge=False)
    assert contents(store, 6) == {1: (1, 1), 2: (1, None), 3: (1, None)}
    assert await world.restored(store) == {"loaded": 5, "why": []}
    assert contents(store, 6) == BOTH
    store.close()


async def test_what_was_aborted_is_not_loaded(world: World) -> None:
    async with world.at_work(None) as sink:
        producer = sink._producer
        await producer.begin_transaction()
        record = world.codec.encode_state(key(9), state(9))
        await producer.send_and_wait(record.topic, record.value, key=record.key, partition=0)
        await producer.abort_transaction()
    await world.write(MemoryStore(world.codec), FIRST)
    store = world.file()
    await world.restored(store)
    assert set(contents(store, 10)) == {1, 2, 3}
    store.close()


async def test_many_records_are_loaded_in_pieces_with_the_newest_of_each(world: World) -> None:
    batches = [[state(number, version=at) for number in range(at, 900, 2)] for at in range(1, 13)]
    await world.write(MemoryStore(world.codec), *batches)
    store = world.file()
    assert (await world.restored(store))["loaded"] == sum(map(len, batches))
    expected: dict[int, tuple[int, None]] = {}
    for at, batch in enumerate(batches, 1):
        expected |= {int(each.record_id[3:]): (at, None) for each in batch}
    assert contents(store, 900) == expected
    store.close()


async def test_a_store_stands_at_the_topics_ends_once_it_is_caught_up(world: World) -> None:
    """Also past the marks of transactions: nothing is left to be read, and the file counts as fresh."""
    await world.write(MemoryStore(world.codec), FIRST)
    store = world.file()
    await world.restored(store)
    async with CommittedReader(world.cluster) as reader:
        topics = [world.topics.of(ENTITY, "state"), world.topics.ledger]
        spans = await reader.spans(await reader.partitions(topics))
    assert dict(store.offsets()) == {(each.topic, each.number): span.end for each, span in spans.items()}
    store.close()


async def test_offsets_of_a_topic_that_is_not_read_any_more_empty_the_file(world: World) -> None:
    store = world.file()
    await world.write(store, FIRST)
    store.merge(store.cut(), {("t.other.ledger", 0): 5})
    restored = await world.restored(store)
    assert restored["why"] == ["it holds t.other.ledger-0, which is not read any more"]
    assert contents(store, 6) == {1: (1, 1), 2: (1, None), 3: (1, None)}
    store.close()


async def test_a_topic_that_was_made_anew_empties_the_file(world: World) -> None:
    store = world.file()
    await world.write(store, FIRST, SECOND)
    await recreated(world, world.topics.of(ENTITY, "state"))
    restored = await world.restored(store)
    assert len(restored["why"]) == 1
    assert "made anew" in restored["why"][0]
    assert contents(store, 6) == {1: (None, 9)}, "the ledger is read again from its beginning"
    store.close()


async def test_a_topic_that_was_made_anew_and_has_grown_past_the_stored_offset_empties_the_file(world: World) -> None:
    owner = Owner("svc", ORG, CHANNEL, world.topics.prefix, world.topics.channels)
    # The store's clock is two minutes behind, as if all this had taken its time.
    past = SqliteStore(world.directory, owner, world.codec, now_ms=lambda: clock.now_ms() - 120_000)
    await world.write(past, [state(number) for number in range(10)])
    past.close()
    await recreated(world, world.topics.of(ENTITY, "state"))
    await world.write(
        MemoryStore(world.codec), *([state(20 + number, version=at) for number in range(20)] for at in (1, 2))
    )
    store = world.file()
    restored = await world.restored(store)
    assert "younger records" in restored["why"][0]
    assert set(contents(store, 50)) == set(range(20, 40))
    store.close()


async def test_compaction_and_its_tombstones_leave_the_same(world: World) -> None:
    topic = world.topics.of(ENTITY, "state")
    await compacting(world, topic)
    half = world.file()
    await world.write(half, [state(number) for number in range(50)])
    half.close()
    writer = MemoryStore(world.codec)
    await world.write(writer, [state(number) for number in range(50)])
    await world.write(writer, *([state(number, version=at) for number in range(25)] for at in range(2, 6)))
    await world.write(writer, [key(number) for number in range(10)])
    await compacted(world, topic, writer)
    expected = contents(writer, 60)
    assert set(expected) == set(range(10, 50))
    stores = {"half-way": world.file()}
    await world.restored(stores["half-way"])
    assert contents(stores["half-way"], 60) == expected, "tombstones reach a store that was there before"
    stores["half-way"].close()
    stores["half-way"].path.unlink()
    empty = world.file()
    await world.restored(empty)
    assert contents(empty, 60) == expected
    assert await world.restored(empty) == {"loaded": 0, "why": []}, "offsets that compaction left empty are passed"
    empty.close()


async def compacting(world: World, topic: str) -> None:
    """Make the topic again, so that the broker compacts it at once but keeps tombstones."""
    admin = AIOKafkaAdminClient(bootstrap_servers=world.broker.bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([topic])
        async with asyncio.timeout(LIMIT_S):
            while topic in await describe_topics(world.cluster, [topic]):  # noqa: ASYNC110  # a broker sets no event
                await asyncio.sleep(0.05)
        configs = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.001"}
        await admin.create_topics([NewTopic(topic, 2, 1, topic_configs=configs)])
        async with asyncio.timeout(LIMIT_S):
            while topic not in await describe_topics(world.cluster, [topic]):  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.05)
    finally:
        await admin.close()


async def compacted(world: World, topic: str, store: Store) -> None:
    """Write until the broker has compacted: a segment is only closed by the next record."""
    async with asyncio.timeout(LIMIT_S), world.at_work(None) as sink:
        while True:
            await world.commit(sink, store, [state(number, version=99) for number in (48, 49)])
            if len(await read_committed_all(world.broker.bootstrap, topic)) < 100:
                return
            await asyncio.sleep(0.2)


async def test_a_channel_of_several_objects_restores_those_no_other_channel_owns(
    kafka_broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    world = await world_of(kafka_broker, topic_prefix, tmp_path, CHANNEL, EVERYTHING)
    own: list[Value] = [state(1), entry(1, facts=1)]
    others: list[Value] = [state(2, entity="Case"), entry(2, facts=1, entity="Case"), state(3, entity="Lead")]
    writer = MemoryStore(world.codec)
    await world.write(writer, own)
    async with world.at_work(None, EVERYTHING) as sink:
        await world.commit(sink, writer, others)
    session, rest = world.file(), world.file(EVERYTHING)
    await world.restored(session)
    await world.restored(rest, EVERYTHING)
    assert list(session.entities()) == [ENTITY]
    assert session.unsettled(ENTITY, 9) == [key(1)]
    assert list(session.unsettled("Case", 9)) == []
    assert list(rest.entities()) == ["Case", "Lead"]
    assert rest.unsettled("Case", 9) == [key(2, "Case")]
    assert list(rest.unsettled(ENTITY, 9)) == []
    # Tombstones tell no object: they must reach the right one, and only there where it is owned.
    async with world.at_work(None, EVERYTHING) as sink:
        await world.commit(sink, writer, [key(2, "Case"), LedgerEntry("Case", record_id(2))])
    assert (await world.restored(rest, EVERYTHING))["loaded"] == 2
    assert list(rest.entities()) == ["Lead"]
    assert list(rest.unsettled("Case", 9)) == []
    session.close()
    rest.close()


async def test_a_value_of_somebody_else_halts_with_advice(world: World) -> None:
    await committed_raw(world, OutboundRecord(world.topics.of(ENTITY, "state"), b"\xff\xfe", b"x"))
    store = world.file()
    with pytest.raises(ForeignStateError):
        await world.restored(store)
    store.close()


async def test_another_deployments_channel_list_empties_the_file(world: World) -> None:
    store = world.file()
    await world.write(store, FIRST)
    store.close()
    owner = Owner("svc", ORG, CHANNEL, world.topics.prefix, (CHANNEL, EVERYTHING))
    with capture_logs() as logs:
        store = SqliteStore(world.directory, owner, world.codec)
    assert [each["reason"] for each in logs if "reason" in each] == ["it was written for another value of channels"]
    assert replace(owner, channels=(EVERYTHING, CHANNEL)).fields() == owner.fields(), "their order says nothing"
    await world.restored(store)
    assert contents(store, 5) == {1: (1, 1), 2: (1, None), 3: (1, None)}
    store.close()
