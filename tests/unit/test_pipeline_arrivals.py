"""What reads of the org bring to the pipeline, and the states that travel with each batch. Time is virtual."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.delivery.headers import event_id_of
from consumer.delivery.positions import CommittedPosition, ProgressEntry, decode_entry
from consumer.errors import TransactionFailedError
from consumer.events import StreamItem
from consumer.inbox import ROOM, Inbox
from consumer.pipeline import Pipeline
from consumer.pipeline_parts import Limits, ReadUnknown
from consumer.ports import Batch
from consumer.position import Position, Preset
from consumer.tasks import task_group
from consumer.tracking.arrivals import Closed, Progress, Purpose, RowsRead
from consumer.tracking.values import Row
from tests.fakes import (
    LIMITS,
    NOW_MS,
    RECORDS,
    TOPICS,
    CommitFault,
    FakeBus,
    FakeKafka,
    FakeSchemas,
    Recorder,
    TrackingProcessor,
    clocks,
    event,
    internal_records,
    keepalive,
    memory_store,
    record_of,
    virtual,
)

ENTITY = "MessagingSession"
CHANGES, STATE = TOPICS.changes(ENTITY), TOPICS.of(ENTITY, "state")
LIVE = 2_000_000
"""Number of an event that is committed after the pipeline has begun: its time is as many milliseconds later."""


class Bench:
    """A pipeline on fakes, with states and an upkeep."""

    def __init__(
        self,
        items: Iterable[StreamItem] = (),
        *,
        limits: Limits = LIMITS,
        burst: int = 3,
        read_unknown: ReadUnknown | None = None,
    ) -> None:
        self.kafka = FakeKafka()
        self.bus = FakeBus(items, burst=burst)
        self.told = Recorder()
        self.store = memory_store()
        self.sink = self.kafka.sink(self.store)
        self.processor = TrackingProcessor(store=self.store)
        self.pipeline = Pipeline(
            stream=self.bus.stream(),
            schemas=FakeSchemas(),
            sink=self.sink,
            processor=self.processor,
            store=self.store,
            read_unknown=read_unknown,
            encode_position=internal_records().position,
            limits=limits,
            clocks=clocks(),
            observer=self.told,
        )

    async def run(self, start: Position | None = None, upkeep: Callable[[], Awaitable[None]] | None = None) -> None:
        try:
            restored = await self.sink.open()
            await self.pipeline.run(restored, start or restored.position or Position(), upkeep=upkeep)
        finally:
            await self.sink.close()

    async def with_upkeep(self, upkeep: Callable[[], Awaitable[None]], start: Position | None = None) -> None:
        """Run until the upkeep is through, then drain."""

        async def through() -> None:
            await upkeep()
            self.pipeline.drain()
            await asyncio.Event().wait()

        await self.run(start, through)

    async def put(self, number: int) -> None:
        """Put an arrival that makes progress."""
        await self.pipeline.inbox.put(Closed(ENTITY, NOW_MS, progress=(Progress("job", {"n": number}),)))

    @property
    def progress(self) -> list[int]:
        """What is durable of the job, transaction by transaction."""
        entries = [decode_entry(each.key, each.value) for each in self.kafka.on(TOPICS.positions)]
        return [int(each.state["n"]) for each in entries if isinstance(each, ProgressEntry) and each.name == "job"]


def statuses(records: Iterable[tuple[str, bytes | None]]) -> dict[str, str]:
    """Return the newest status of each record, of its state records."""
    return {key: orjson.loads(value or b"")["image"]["Status"] for key, value in records}


def states_of(batch: Batch) -> dict[str, str]:
    return statuses((each.key.decode(), each.value) for each in batch.records if each.topic == STATE)


def events_of(batch: Batch) -> list[str]:
    return [event_id_of(each.headers) or "" for each in batch.records if each.topic == CHANGES]


def last_of_each(event_ids: Iterable[str]) -> dict[str, str]:
    return {record_of(each): each for each in event_ids}


# Batches and states


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 12), st.integers(1, 50), st.sets(st.integers(1, 40), max_size=3), st.booleans()
)
def test_a_batch_brings_the_states_of_its_own_events_and_no_others(
    events: int, max_records: int, burst: int, bad: set[int], merged: bool
) -> None:
    """Whoever restores after any batch sees exactly the images that its events, and those before, led to."""

    async def main() -> None:
        items = [
            event(each, bad=each in bad, replay=each // 2 + 1 if merged else None) for each in range(1, events + 1)
        ]
        bench = Bench(items, limits=replace(LIMITS, max_records=max_records), burst=burst)
        async with task_group() as group:
            task = group.create_task(bench.run())
            await bench.told.until(lambda: bench.told.count("processed") == events)
            bench.pipeline.drain()
            await task
        for batch in bench.kafka.batches:
            assert states_of(batch) == last_of_each(events_of(batch))
        told = [each for batch in bench.kafka.batches for each in events_of(batch)]
        assert told == [f"e{each}" for each in range(1, events + 1) if each not in bad]

    virtual(main())


@pytest.mark.parametrize("fault", [CommitFault.NOT_COMMITTED, CommitFault.UNKNOWN])
@pytest.mark.parametrize("failing", range(5))
def test_after_a_failed_commit_the_store_shows_committed_states_only(fault: CommitFault, failing: int) -> None:
    """What later batches did to the same records is forgotten; what was committed unseen is read back."""

    async def main() -> None:
        bench = Bench([event(each) for each in range(1, 60)], limits=replace(LIMITS, max_records=8), burst=50)
        bench.kafka.faults.extend([*[None] * failing, fault])
        with pytest.raises(TransactionFailedError):
            await bench.run()
        seen = bench.kafka.batches[:failing]
        assert _stored(bench) != last_of_each(each for batch in seen for each in events_of(batch)), "nothing was ahead"
        bench.store.drop()
        assert _stored(bench) == last_of_each(each for batch in seen for each in events_of(batch))
        await bench.kafka.sink(bench.store).open()
        assert _stored(bench) == last_of_each(each for batch in bench.kafka.batches for each in events_of(batch))
        assert len(bench.kafka.batches) == failing + (fault is CommitFault.UNKNOWN)

    virtual(main())


def _stored(bench: Bench) -> dict[str, str]:
    keys = [(ENTITY, f"0Mw00000000000{number}AAA") for number in range(RECORDS)]
    found = [bench.store.get(key) for key in keys]
    return {state.record_id: str(state.image["Status"]) for state in found if state is not None}


# The inbox


def test_arrivals_are_committed_in_order_each_with_its_progress_and_a_position() -> None:
    async def main() -> None:
        bench = Bench([event(each) for each in range(1, 60)])

        async def upkeep() -> None:
            for number in range(40):
                await bench.put(number)
                await asyncio.sleep(0.01 * (number % 3))
            await bench.pipeline.inbox.settled()

        await bench.with_upkeep(upkeep)
        assert bench.progress == list(range(40))
        assert bench.kafka.restored().progress["job"] == {"n": 39}
        assert len(bench.kafka.batches) > 2
        for batch in bench.kafka.batches:
            entries = [decode_entry(each.key, each.value) for each in batch.records if each.topic == TOPICS.positions]
            assert isinstance(entries[-1], CommittedPosition)

    virtual(main())


def test_settled_waits_for_the_commit_of_what_was_put_before_it() -> None:
    """A batch under way does not settle what came after it was cut."""

    async def main() -> None:
        bench = Bench([keepalive(1)])
        bench.kafka.commit_s = 5.0

        async def upkeep() -> None:
            await bench.put(1)
            await asyncio.sleep(1)  # the first batch is cut by age, and being committed
            await bench.put(2)
            began = asyncio.get_running_loop().time()
            await bench.pipeline.inbox.settled()
            assert bench.progress == [1, 2]
            assert asyncio.get_running_loop().time() - began > 5

        await bench.with_upkeep(upkeep)

    virtual(main())


def test_nothing_put_is_settled_at_once() -> None:
    async def main() -> None:
        bench = Bench()

        async def upkeep() -> None:
            async with asyncio.timeout(1):
                await bench.pipeline.inbox.settled()

        await bench.with_upkeep(upkeep)
        assert not bench.kafka.batches

    virtual(main())


def test_an_arrival_in_a_failed_transaction_never_settles() -> None:
    async def main() -> None:
        bench = Bench()
        bench.kafka.faults.append(CommitFault.UNKNOWN)
        settled = []

        async def upkeep() -> None:
            await bench.put(1)
            await bench.pipeline.inbox.settled()
            settled.append(1)

        with pytest.raises(TransactionFailedError):
            await bench.with_upkeep(upkeep)
        assert not settled

    virtual(main())


def test_a_reader_is_only_a_few_arrivals_ahead() -> None:
    async def main() -> None:
        woken: list[int] = []
        inbox = Inbox(lambda: woken.append(1))
        arrivals = [Closed(ENTITY, number) for number in range(ROOM + 1)]
        for each in arrivals[:ROOM]:
            await inbox.put(each)
        async with task_group() as group:
            late = group.create_task(inbox.put(arrivals[ROOM]))
            await asyncio.sleep(60)
            assert not late.done()
            assert inbox.take() is arrivals[0]
            await late
        assert [inbox.take() for _ in range(ROOM)] == arrivals[1:]
        assert (inbox.take(), inbox.taken, inbox.empty, len(woken)) == (None, ROOM + 1, True, ROOM + 1)

    virtual(main())


def test_a_drain_ends_although_the_inbox_never_runs_dry() -> None:
    async def main() -> None:
        bench = Bench([event(each) for each in range(1, 30)])

        async def upkeep() -> None:
            for number in range(1_000_000):
                await bench.put(number)

        async with task_group() as group:
            task = group.create_task(bench.run(upkeep=upkeep))
            await bench.told.until(lambda: bench.told.count("processed") == 29)
            arrived = bench.told.count("arrived")
            bench.pipeline.drain()
            async with asyncio.timeout(1):
                await task
        assert bench.told.count("arrived") - arrived <= 2 * ROOM
        # What was taken is committed all the same.
        assert bench.progress == list(range(bench.told.count("arrived")))

    virtual(main())


def test_events_flow_although_the_inbox_never_runs_dry() -> None:
    async def main() -> None:
        bench = Bench()

        async def upkeep() -> None:
            for number in range(1_000_000):
                await bench.put(number)
                await asyncio.sleep(0.001)

        async with task_group() as group:
            task = group.create_task(bench.run(upkeep=upkeep))
            await asyncio.sleep(1)
            bench.bus.publish(event(1))
            async with asyncio.timeout(1):
                await bench.told.until(lambda: "e1" in bench.kafka.event_ids())
            bench.pipeline.drain()
            await task

    virtual(main())


def test_what_was_read_does_not_wait_for_the_first_position_of_latest() -> None:
    """A first start reads its snapshot while nothing happens; no position comes that could be waited for."""

    async def main() -> None:
        bench = Bench()

        async def upkeep() -> None:
            await bench.put(1)
            async with asyncio.timeout(5):
                await bench.pipeline.inbox.settled()

        await bench.with_upkeep(upkeep, Position(preset=Preset.LATEST))
        position = bench.kafka.restored().position
        assert position is not None
        assert not position.resumable, "the next start must know that it misses what came between"
        assert bench.progress == [1]

    virtual(main())


# Caught up


def _caught_up_after(items: Iterable[StreamItem], start: Position, publish: Mapping[float, StreamItem]) -> float:
    """Return the virtual seconds after which the stream has caught up."""
    found: list[float] = []

    async def main() -> None:
        bench = Bench(items)
        began = asyncio.get_running_loop().time()

        async def upkeep() -> None:
            async with task_group() as group:
                for at, item in publish.items():
                    group.create_task(_publish(bench, at, item))
                await bench.pipeline.caught_up()
                found.append(asyncio.get_running_loop().time() - began)

        await bench.with_upkeep(upkeep, start)

    virtual(main())
    return found[0]


async def _publish(bench: Bench, at: float, item: StreamItem) -> None:
    await asyncio.sleep(at)
    bench.bus.publish(item)


def test_a_resumed_stream_has_nothing_to_catch_up() -> None:
    assert _caught_up_after([keepalive(1)], Position(keepalive(1).replay_id), {}) < 0.1


def test_the_first_event_that_is_younger_than_the_start_says_that_all_older_ones_came() -> None:
    old = [event(each) for each in range(1, 6)]
    publish = {4.0: event(6), 8.0: event(7), 12.0: event(8), 16.0: event(LIVE)}
    assert 16 <= _caught_up_after(old, Position(), publish) < 17


def test_a_keepalive_says_that_nothing_is_outstanding() -> None:
    assert 4 <= _caught_up_after([event(1)], Position(), {4.0: keepalive(1)}) < 5


def test_a_stream_that_is_quiet_for_ten_seconds_has_caught_up() -> None:
    """LATEST takes effect some seconds late, and an org at night sends nothing to tell that it did."""
    assert 10 <= _caught_up_after([], Position(preset=Preset.LATEST), {}) < 11
    assert 20 <= _caught_up_after([], Position(preset=Preset.LATEST), {6.0: event(1)}) < 31


# Records that nothing is known of


class Lookup:
    """Reads records nobody knows, and remembers what it was asked for."""

    def __init__(self, found: bool = True) -> None:
        self.asked: list[dict[str, list[str]]] = []
        self._found = found

    async def __call__(self, wanted: Mapping[str, Sequence[str]]) -> Sequence[RowsRead]:
        self.asked.append({entity: list(ids) for entity, ids in wanted.items()})
        await asyncio.sleep(0.01)
        if not self._found:
            return ()
        # Older than every event, so that each of them still moves the image.
        stamp_ms = NOW_MS - 60_000
        rows = tuple(
            Row(record_id, {"Status": "read", "Origin": "Chat"}, stamp_ms) for record_id in wanted.get(ENTITY, ())
        )
        return [RowsRead(Purpose.UNKNOWN, ENTITY, rows, stamp_ms, None)]


def _changes(bench: Bench) -> list[dict[str, object]]:
    return [orjson.loads(each.value or b"") for each in bench.kafka.on(CHANGES)]


def test_records_nobody_knows_are_read_once_for_all_events_that_came_together() -> None:
    async def main() -> None:
        lookup = Lookup()
        bench = Bench([event(each) for each in range(1, 21)], burst=50, read_unknown=lookup)
        async with task_group() as group:
            task = group.create_task(bench.run())
            await bench.told.until(lambda: bench.told.count("processed") == 20)
            bench.bus.publish(*(event(each) for each in range(21, 30)))
            await bench.told.until(lambda: bench.told.count("processed") == 29)
            bench.pipeline.drain()
            await task
        assert lookup.asked == [{ENTITY: [record_of("e1"), record_of("e2"), record_of("e3")]}]
        changes = _changes(bench)
        assert len(changes) == 29, "the rows themselves are no changes"
        for change in changes[:RECORDS]:
            assert change["before"]["Status"] == "read"  # type: ignore[index]
            assert change["after"]["Origin"] == "Chat"  # type: ignore[index]

    virtual(main())


def test_a_record_that_is_created_in_the_same_breath_is_not_read() -> None:
    async def main() -> None:
        lookup = Lookup()
        created = replace(event(1), payload=b"good new")
        bench = Bench([created, event(4), event(2)], burst=50, read_unknown=lookup)
        async with task_group() as group:
            task = group.create_task(bench.run())
            await bench.told.until(lambda: bench.told.count("processed") == 3)
            bench.pipeline.drain()
            await task
        assert lookup.asked == [{ENTITY: [record_of("e2")]}]

    virtual(main())


def test_a_read_in_vain_leaves_the_changes_partial() -> None:
    async def main() -> None:
        bench = Bench([event(1)], read_unknown=Lookup(found=False))
        async with task_group() as group:
            task = group.create_task(bench.run())
            await bench.told.until(lambda: bench.told.count("processed") == 1)
            bench.pipeline.drain()
            await task
        (change,) = _changes(bench)
        assert change["before"] == {"Id": record_of("e1")}
        assert change["source"]["unknown_fields"] == ["Origin"]  # type: ignore[index]

    virtual(main())
