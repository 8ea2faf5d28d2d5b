"""One suite for every sink and every stream: what the tests of the pipeline rely on in the fakes is true of the real.

The fakes run in memory; ``KafkaSink`` runs on a real broker and ``PubSubStream`` on the emulated org's gRPC server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

import pytest

from consumer.buffer import EventBuffer
from consumer.delivery.names import Topics
from consumer.delivery.positions import encode_entry, window_closed
from consumer.delivery.windows import window_for_first_start
from consumer.emulator.scenario import Scenario
from consumer.emulator.server import EmulatedOrg, emulated_org
from consumer.errors import PositionLostError, ProducerFencedError, TransactionFailedError
from consumer.events import Keepalive, OutboundRecord, ReceivedEvent, StreamItem
from consumer.kafka.connection import Cluster
from consumer.kafka.sink import KafkaSink, Subscription
from consumer.kafka.topics import ensure_topics, planned_specs
from consumer.ports import Batch, EventStream, Mirror, Offsets, Restored, Sink
from consumer.position import Position, Preset
from consumer.salesforce.channel import pubsub_channel
from consumer.salesforce.session import Session
from consumer.salesforce.stream import PubSubStream
from consumer.settings import KafkaSettings
from consumer.store.memory import MemoryStore
from consumer.tracking.arrivals import Progress
from consumer.tracking.values import LedgerEntry
from tests.broker import Broker
from tests.fakes import CHANNEL, NOW_MS, ORG, FakeBus, FakeKafka, change_record, event, internal_records, keepalive
from tests.kafka_reader import read_committed_all
from tests.store_values import ENTITY, codec_of, contents, entry, key, record_id, state
from tests.unit.emulator_client import until

LIMIT_S = 20.0


class SinkWorld(Protocol):
    """Where a sink writes, and what a reader of committed records sees there."""

    topics: Topics

    def sink(self, mirror: Mirror | None = None) -> Sink:
        """Return a new sink of the same subscription."""
        ...

    async def ends(self, topics: Sequence[str]) -> Offsets:
        """Return the offset after the last committed record of each partition that has one."""
        ...

    async def committed(self, topic: str) -> list[OutboundRecord]:
        """Return what is committed to a topic, in order."""
        ...


class FakeSinkWorld:
    """The fake."""

    def __init__(self) -> None:
        self._kafka = FakeKafka()
        self.topics = self._kafka.topics

    def sink(self, mirror: Mirror | None = None) -> Sink:
        return self._kafka.sink(mirror)

    async def ends(self, topics: Sequence[str]) -> Offsets:
        return self._kafka.ends(topics)

    async def committed(self, topic: str) -> list[OutboundRecord]:
        return self._kafka.on(topic)


class RealSinkWorld:
    """A real broker."""

    def __init__(self, broker: Broker, prefix: str) -> None:
        self._broker = broker
        self.topics = Topics(prefix, [CHANNEL])
        settings = {"bootstrap_servers": broker.bootstrap, "topic_prefix": prefix, "partitions": 2}
        self.cluster = Cluster(KafkaSettings.model_validate(settings | {"transaction_timeout": "10s"}))

    def sink(self, mirror: Mirror | None = None) -> Sink:
        return KafkaSink(self.cluster, Subscription("svc", ORG, CHANNEL, self.topics), mirror=mirror)

    async def ends(self, topics: Sequence[str]) -> Offsets:
        records = await read_committed_all(self._broker.bootstrap, *topics)
        ends: dict[tuple[str, int], int] = {}
        for each in records:
            ends[each.topic, each.partition] = max(ends.get((each.topic, each.partition), 0), each.offset + 1)
        return ends

    async def committed(self, topic: str) -> list[OutboundRecord]:
        records = await read_committed_all(self._broker.bootstrap, topic)
        return [OutboundRecord(topic, each.key, each.value) for each in records]


@pytest.fixture(params=["fake", pytest.param("kafka", marks=pytest.mark.kafka)])
async def world(request: pytest.FixtureRequest, topic_prefix: str) -> SinkWorld:
    if request.param == "fake":
        return FakeSinkWorld()
    made = RealSinkWorld(request.getfixturevalue("kafka_broker"), topic_prefix)
    await ensure_topics(made.cluster, planned_specs(made.topics, made.cluster.settings))
    return made


def batch(world: SinkWorld, *event_ids: str, at: int, more: Sequence[OutboundRecord] = ()) -> Batch:
    """Return a batch of these events whose position is ``at``."""
    position = Position(b"%d" % at)
    moved = internal_records(world.topics).position(position, NOW_MS, NOW_MS + at)
    records = [change_record(each, each.encode(), world.topics) for each in event_ids]
    return Batch([*records, *more, moved], len(event_ids), position)


async def changes(world: SinkWorld) -> list[bytes | None]:
    """Return the values of the committed changes."""
    return [each.value for each in await world.committed(world.topics.changes("MessagingSession"))]


@asynccontextmanager
async def opened(world: SinkWorld) -> AsyncIterator[tuple[Sink, Restored]]:
    """Hold a new sink open."""
    sink = world.sink()
    try:
        yield sink, await sink.open()
    finally:
        await sink.close()


async def test_nothing_is_restored_before_the_first_commit(world: SinkWorld) -> None:
    async with opened(world) as (_, restored):
        assert restored == Restored(None)
    async with opened(world) as (_, restored):
        assert restored == Restored(None), "opening commits nothing"


async def test_position_records_and_event_ids_come_back_together(world: SinkWorld) -> None:
    async with opened(world) as (sink, _):
        await sink.commit(batch(world, "e1", "e2", at=1))
        await sink.commit(batch(world, "e3", at=2))
    async with opened(world) as (_, restored):
        assert restored.position == Position(b"2")
        assert restored.recent_event_ids == {"e1", "e2", "e3"}
        assert (restored.last_event_ms, restored.committed_ms) == (NOW_MS, NOW_MS + 2)
    assert await changes(world) == [b"e1", b"e2", b"e3"]


async def test_windows_come_back_until_they_are_closed(world: SinkWorld) -> None:
    kept, closed = window_for_first_start(CHANNEL, 1), window_for_first_start(CHANNEL, 2)
    entries = [encode_entry(world.topics, each, 0) for each in (kept, closed)]
    async with opened(world) as (sink, _):
        await sink.commit(batch(world, at=1, more=entries))
    async with opened(world) as (sink, restored):
        assert dict(restored.windows) == {kept.window_id: kept, closed.window_id: closed}
        await sink.commit(batch(world, at=2, more=[encode_entry(world.topics, window_closed(closed.window_id), 0)]))
    async with opened(world) as (_, restored):
        assert dict(restored.windows) == {kept.window_id: kept}


async def test_progress_comes_back_until_it_is_done(world: SinkWorld) -> None:
    records = internal_records(world.topics)
    at = {"cursor": "0Mw1", "rows": 7}
    async with opened(world) as (sink, _):
        begun = [records.progress(Progress(name, at)) for name in ("scan:1", "poll:history:MessagingSession")]
        await sink.commit(batch(world, at=1, more=begun))
    async with opened(world) as (sink, restored):
        assert dict(restored.progress) == {"scan:1": at, "poll:history:MessagingSession": at}
        await sink.commit(batch(world, at=2, more=[records.progress(Progress("scan:1", done=True))]))
    async with opened(world) as (_, restored):
        assert dict(restored.progress) == {"poll:history:MessagingSession": at}


async def test_a_commit_tells_the_offset_after_its_last_record_of_each_partition(world: SinkWorld) -> None:
    async with opened(world) as (sink, _):
        await sink.commit(batch(world, "e1", "e2", at=1))
        told = await sink.commit(batch(world, "e3", "e4", "e5", at=2))
    assert dict(told) == await world.ends([world.topics.changes("MessagingSession"), world.topics.positions])


async def test_states_of_earlier_batches_are_in_the_mirror_once_a_sink_is_open(world: SinkWorld) -> None:
    codec = codec_of(world.topics)
    writer = MemoryStore(codec)
    async with opened(world) as (sink, _):
        for at, numbers in enumerate([(1, 2, 3), (2, 4)], 1):
            for number in numbers:
                writer.put(state(number, version=at))
                writer.put_ledger(entry(number, due_ms=at))
            if at == 2:
                writer.remove(key(1))
                writer.put_ledger(LedgerEntry(ENTITY, record_id(3)))
            delta = writer.cut()
            writer.merge(delta, await sink.commit(batch(world, at=at, more=delta.records)))
    mirror = MemoryStore(codec)
    sink = world.sink(mirror)
    try:
        await sink.open()
    finally:
        await sink.close()
    assert contents(mirror, 6) == contents(writer, 6) == {2: (2, 2), 3: (1, None), 4: (2, 2), 1: (None, 1)}
    assert all(mirror.offsets()[pair] >= offset for pair, offset in writer.offsets().items())


async def test_a_second_owner_fences_the_first_whose_batch_leaves_nothing(world: SinkWorld) -> None:
    async with opened(world) as (first, _):
        await first.commit(batch(world, "e1", at=1))
        async with opened(world) as (second, restored):
            assert restored.position == Position(b"1")
            with pytest.raises(ProducerFencedError):
                await first.commit(batch(world, "lost", at=9))
            await second.commit(batch(world, "e2", at=2))
    async with opened(world) as (_, restored):
        assert restored.position == Position(b"2")
    assert await changes(world) == [b"e1", b"e2"]


async def test_a_cancelled_commit_leaves_nothing_and_costs_the_producer(world: SinkWorld) -> None:
    async with opened(world) as (sink, _):
        await sink.commit(batch(world, "e1", at=1))
        async with asyncio.TaskGroup() as group:
            committing = group.create_task(sink.commit(batch(world, "e2", at=2)))
            await asyncio.sleep(0)
            committing.cancel()
        with pytest.raises(TransactionFailedError):
            await sink.commit(batch(world, "e3", at=3))
        assert (await sink.open()).position == Position(b"1")
        await sink.commit(batch(world, "e2", at=2))
    assert await changes(world) == [b"e1", b"e2"]


async def test_a_sink_that_is_not_open_commits_nothing(world: SinkWorld) -> None:
    sink = world.sink()
    with pytest.raises(TransactionFailedError):
        await sink.commit(batch(world, "e1", at=1))
    await sink.close()
    async with opened(world) as (_, restored):
        assert restored.position is None


# The stream.


class Org(Protocol):
    """An org that publishes on one channel."""

    def stream(self) -> EventStream:
        """Return a new stream of the channel."""
        ...

    async def publish(self, count: int) -> None:
        """Publish so many events."""
        ...

    def published(self) -> list[str]:
        """Return the ids of all events, in order."""
        ...

    async def keepalive(self) -> None:
        """See to it that a subscriber who has everything gets a keep-alive."""
        ...

    async def armed(self) -> None:
        """Wait until a subscriber receives new events."""
        ...

    async def forget(self, position: Position) -> None:
        """Refuse this position from now on."""
        ...


class FakeOrg:
    """The fake."""

    def __init__(self) -> None:
        self._bus = FakeBus(burst=2)
        self._numbers = 0

    def stream(self) -> EventStream:
        return self._bus.stream()

    async def publish(self, count: int) -> None:
        self._bus.publish(*(event(self._numbers + each) for each in range(1, count + 1)))
        self._numbers += count

    def published(self) -> list[str]:
        return [item.event_id for item in self._bus.items if isinstance(item, ReceivedEvent)]

    async def keepalive(self) -> None:
        self._bus.publish(keepalive(self._numbers))

    async def armed(self) -> None:
        await until(lambda: bool(self._bus.listeners))

    async def forget(self, position: Position) -> None:
        assert position.replay_id is not None
        self._bus.lost.add(position.replay_id)


class Tokens:
    """One session, always."""

    def __init__(self, org: EmulatedOrg) -> None:
        metadata = dict(org.metadata())
        self._session = Session(metadata["accesstoken"], org.login_url, org.org_id)

    async def get(self) -> Session:
        return self._session

    def invalidate(self, session: Session) -> None:
        raise AssertionError("the session is good")


class RealOrg:
    """The emulated org behind its real gRPC server."""

    def __init__(self, org: EmulatedOrg, make: Callable[[], EventStream]) -> None:
        self._org = org
        self.stream = make

    async def publish(self, count: int) -> None:
        for _ in range(count):
            await self._org.fault("commit", changes=[{"op": "create", "entity": "MessagingSession"}])

    def published(self) -> list[str]:
        return [entry.event_id for entry in self._org.ledger]

    async def keepalive(self) -> None:
        """The server sends them by itself."""

    async def armed(self) -> None:
        await until(lambda: any(call.describe()["events_behind"] == 0 for call in self._org.state.calls))

    async def forget(self, position: Position) -> None:
        await self._org.fault("expire_positions")


@pytest.fixture(params=["fake", "pubsub"])
async def org(request: pytest.FixtureRequest) -> AsyncIterator[Org]:
    async with AsyncExitStack() as stack:
        if request.param == "fake":
            yield FakeOrg()
            return
        scenario = Scenario.model_validate({"time_scale": 600.0, "latest_arming_s": 0})
        emulated = await stack.enter_async_context(emulated_org(scenario))
        channel = await stack.enter_async_context(pubsub_channel(emulated.pubsub, tls=False))
        tokens = Tokens(emulated)
        yield RealOrg(emulated, lambda: PubSubStream(channel, CHANNEL, tokens))


class Reading:
    """A stream that is read into a list.

    Attributes:
        items: what came.
        position: where a subscriber who has done all of it stands.
    """

    def __init__(self, start: Position, buffer_events: int = 100) -> None:
        self.items: list[StreamItem] = []
        self.position = start
        self.buffer = EventBuffer(buffer_events, 1 << 20)

    @property
    def ids(self) -> list[str]:
        return [item.event_id for item in self.items if isinstance(item, ReceivedEvent)]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Take items one by one until the condition is true."""
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                await self.buffer.wait_filled()
                for item in self.buffer.take(1):
                    self.items.append(item)
                    if isinstance(item, ReceivedEvent):
                        self.position = self.position.after_event(item.event_id, item.replay_id)
                    else:
                        self.position = self.position.after_keepalive(item.replay_id)


@asynccontextmanager
async def reading(org: Org, start: Position, buffer_events: int = 100) -> AsyncIterator[Reading]:
    """Read the channel from a position."""
    reader = Reading(start, buffer_events)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(org.stream().run(start, reader.buffer))
        try:
            yield reader
        finally:
            task.cancel()


async def test_earliest_gives_everything_in_order_without_gaps(org: Org) -> None:
    await org.publish(7)
    async with reading(org, Position()) as reader:
        await reader.until(lambda: len(reader.ids) == 7)
        await org.publish(5)
        await reader.until(lambda: len(reader.ids) == 12)
    assert reader.ids == org.published()


async def test_a_small_buffer_is_never_overfilled_and_loses_nothing(org: Org) -> None:
    await org.publish(25)
    async with reading(org, Position(), buffer_events=3) as reader:
        while len(reader.ids) < 25:
            count = len(reader.ids) + 1
            await reader.until(lambda count=count: len(reader.ids) == count)  # type: ignore[misc]
            assert reader.buffer.events <= 3
    assert reader.ids == org.published()


async def test_a_keepalive_says_that_all_before_it_was_given(org: Org) -> None:
    await org.publish(3)
    async with reading(org, Position()) as reader:
        await reader.until(lambda: len(reader.ids) == 3)
        await org.keepalive()
        await reader.until(lambda: isinstance(reader.items[-1], Keepalive))
    assert reader.ids == org.published()
    assert reader.position.beyond == ()
    assert reader.position.replay_id == reader.items[-1].replay_id


@pytest.mark.parametrize("done", [1, 4, 8])
async def test_after_a_position_exactly_the_rest_comes(org: Org, done: int) -> None:
    await org.publish(8)
    async with reading(org, Position()) as first:
        await first.until(lambda: len(first.ids) == done)
    await org.publish(2)
    async with reading(org, first.position) as second:
        await second.until(lambda: len(second.ids) == 10 - done)
    assert first.ids + second.ids == org.published()


async def test_after_a_keepalive_exactly_the_rest_comes(org: Org) -> None:
    await org.publish(3)
    async with reading(org, Position()) as first:
        await first.until(lambda: len(first.ids) == 3)
        await org.keepalive()
        await first.until(lambda: isinstance(first.items[-1], Keepalive))
    await org.publish(2)
    async with reading(org, first.position) as second:
        await second.until(lambda: len(second.ids) == 2)
    assert first.ids + second.ids == org.published()


async def test_latest_gives_only_what_is_new(org: Org) -> None:
    await org.publish(3)
    async with reading(org, Position(preset=Preset.LATEST)) as reader:
        await org.armed()
        await org.publish(2)
        await reader.until(lambda: len(reader.ids) == 2)
    assert reader.ids == org.published()[3:]


async def test_a_position_that_is_not_known_any_more_is_an_error_of_its_own(org: Org) -> None:
    await org.publish(3)
    async with reading(org, Position()) as reader:
        await reader.until(lambda: len(reader.ids) == 3)
    await org.forget(reader.position)
    with pytest.raises(PositionLostError):
        async with asyncio.timeout(LIMIT_S):
            await org.stream().run(reader.position, EventBuffer(10, 1000))
