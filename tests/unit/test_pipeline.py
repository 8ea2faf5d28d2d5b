"""One generation of the pipeline: what it commits, when it cuts, and how it ends. Time is virtual."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import pytest

from consumer.errors import (
    FloodError,
    PositionLostError,
    ProducerFencedError,
    SchemaRefusedError,
    SchemaUnavailableError,
    TransactionFailedError,
)
from consumer.events import StreamItem
from consumer.pipeline import Pipeline
from consumer.pipeline_parts import Limits
from consumer.position import Position, Preset
from consumer.tasks import task_group
from tests.fakes import (
    LIMITS,
    CommitFault,
    FakeBus,
    FakeKafka,
    FakeSchemas,
    FakeSink,
    PlainProcessor,
    Recorder,
    clocks,
    event,
    internal_records,
    keepalive,
    memory_store,
    replay_id,
    virtual,
)


class Bench:
    """A pipeline on fakes."""

    def __init__(self, items: Iterable[StreamItem] = (), limits: Limits = LIMITS, burst: int = 3) -> None:
        self.kafka = FakeKafka()
        self.bus = FakeBus(items, burst=burst)
        self.schemas = FakeSchemas()
        self.told = Recorder()
        self.sink: FakeSink = self.kafka.sink()
        store = memory_store()
        self.pipeline = Pipeline(
            stream=self.bus.stream(),
            schemas=self.schemas,
            sink=self.sink,
            processor=PlainProcessor(store=store),
            store=store,
            read_unknown=None,
            encode_position=internal_records().position,
            limits=limits,
            clocks=clocks(),
            observer=self.told,
        )

    async def run(self, start: Position | None = None) -> None:
        try:
            restored = await self.sink.open()
            await self.pipeline.run(restored, start or restored.position or Position())
        finally:
            await self.sink.close()

    async def drained(self, *event_ids: str, start: Position | None = None) -> None:
        """Run until these events are processed, then drain."""
        async with task_group() as group:
            task = group.create_task(self.run(start))
            await self.told.until(lambda: set(event_ids) <= set(self.told.ids("processed")))
            self.pipeline.drain()
            await task

    @property
    def committed(self) -> list[str]:
        return self.kafka.event_ids()

    @property
    def position(self) -> Position | None:
        return self.kafka.restored().position


def names(first: int, last: int) -> list[str]:
    return [f"e{number}" for number in range(first, last + 1)]


async def _seconds(seconds: float) -> None:
    await asyncio.sleep(seconds)


def test_a_drain_commits_everything_that_was_received() -> None:
    async def main() -> None:
        bench = Bench([event(number) for number in range(1, 36)])
        await bench.drained("e35")
        assert bench.committed == names(1, 35)
        assert bench.position == Position(replay_id(34), beyond_replay_id=replay_id(35), beyond=("e35",))

    virtual(main())


def test_a_drain_before_the_first_step_ends_the_run() -> None:
    """A reader that is cancelled before it began can't tell that nothing will come."""

    async def main() -> None:
        bench = Bench([event(1)])
        bench.pipeline.drain()
        await bench.run()
        assert not bench.kafka.batches
        other = Bench([event(1)])
        restored = await other.sink.open()
        async with task_group() as group:
            task = group.create_task(other.pipeline.run(restored, Position()))
            group.create_task(_drain(other.pipeline))  # runs after run()'s first step, before its children's
            await task

    virtual(main())


async def _drain(pipeline: Pipeline) -> None:
    pipeline.drain()


def test_batches_are_cut_by_count_between_events() -> None:
    async def main() -> None:
        bench = Bench([event(number) for number in range(1, 26)], burst=25)
        await bench.drained("e25")
        assert [batch.events for batch in bench.kafka.batches] == [10, 10, 5]

    virtual(main())


def test_batches_are_cut_by_bytes() -> None:
    async def main() -> None:
        bench = Bench([event(number) for number in range(1, 10)], replace(LIMITS, max_bytes=20))
        await bench.drained("e9")
        assert {batch.events for batch in bench.kafka.batches} <= {1, 2, 3}
        assert bench.committed == names(1, 9)

    virtual(main())


def test_a_lonely_event_is_committed_when_its_age_is_over() -> None:
    async def main() -> None:
        bench = Bench([event(1)])
        async with task_group() as group:
            task = group.create_task(bench.run())
            began = asyncio.get_running_loop().time()
            await bench.told.until(lambda: bench.told.count("committed") == 1)
            assert 0.1 <= asyncio.get_running_loop().time() - began < 0.2
            bench.pipeline.drain()
            await task

    virtual(main())


def test_a_keepalive_alone_moves_the_position() -> None:
    async def main() -> None:
        bench = Bench([keepalive(7)])
        async with task_group() as group:
            task = group.create_task(bench.run())
            await bench.told.until(lambda: bench.told.count("committed") == 1)
            bench.pipeline.drain()
            await task
        assert bench.position == Position(replay_id(7))
        assert [batch.events for batch in bench.kafka.batches] == [0]

    virtual(main())


def test_an_idle_pipeline_commits_nothing() -> None:
    async def main() -> None:
        bench = Bench([])
        async with task_group() as group:
            task = group.create_task(bench.run())
            await _seconds(3600)
            bench.pipeline.drain()
            await task
        assert not bench.kafka.batches

    virtual(main())


def test_nothing_is_committed_before_latest_has_a_position() -> None:
    """Resuming at LATEST would miss what came between; the first event with a second replay id makes it safe."""

    async def main() -> None:
        bench = Bench()
        start = Position(preset=Preset.LATEST)
        async with task_group() as group:
            task = group.create_task(bench.run(start))
            await _seconds(1)
            bench.bus.publish(event(1))
            await _seconds(3600)
            assert not bench.kafka.batches
            bench.bus.publish(event(2))
            await _seconds(1)
            assert bench.committed == ["e1", "e2"]
            bench.pipeline.drain()
            await task

    virtual(main())


def test_a_drain_before_latest_has_a_position_commits_nothing() -> None:
    async def main() -> None:
        bench = Bench()
        async with task_group() as group:
            task = group.create_task(bench.run(Position(preset=Preset.LATEST)))
            await _seconds(1)
            bench.bus.publish(event(1))
            await bench.told.until(lambda: bench.told.count("processed") == 1)
            bench.pipeline.drain()
            await task
        assert not bench.kafka.batches

    virtual(main())


def test_repeats_are_dropped_and_told() -> None:
    async def main() -> None:
        bench = Bench([event(1), event(2), replace(event(1), replay_id=replay_id(3)), event(4)])
        await bench.drained("e4")
        assert bench.committed == ["e1", "e2", "e4"]
        assert ("repeated", "e1") in bench.told.told

    virtual(main())


def test_a_slow_kafka_fills_the_buffer_and_not_the_memory() -> None:
    async def main() -> None:
        limits = replace(LIMITS, buffer_events=20, max_records=5)
        bench = Bench([event(number) for number in range(1, 501)], limits, burst=50)
        bench.kafka.commit_s = 1.0
        async with task_group() as group:
            task = group.create_task(bench.run())
            await _seconds(10)
            done = len(bench.committed)
            processed = bench.told.count("processed")
            assert processed - done <= 4 * limits.max_records
            assert bench.pipeline.buffer.events <= 20
            bench.pipeline.drain()
            await task
        assert bench.committed == names(1, len(bench.committed))

    virtual(main())


@pytest.mark.parametrize("fault", [CommitFault.NOT_COMMITTED, CommitFault.UNKNOWN])
def test_a_failed_commit_ends_the_generation_and_no_later_batch_is_tried(fault: CommitFault) -> None:
    async def main() -> None:
        bench = Bench([event(number) for number in range(1, 100)])
        bench.kafka.faults.extend([None, fault])
        with pytest.raises(TransactionFailedError):
            await bench.run()
        assert bench.committed == names(1, 10 if fault is CommitFault.NOT_COMMITTED else 20)
        assert bench.kafka.open_sinks == 0

    virtual(main())


def test_a_fenced_producer_ends_the_generation() -> None:
    async def main() -> None:
        bench = Bench([event(number) for number in range(1, 100)])
        async with task_group() as group:
            group.create_task(_take_over(bench))
            with pytest.raises(ProducerFencedError):
                await bench.run()

    virtual(main())


async def _take_over(bench: Bench) -> None:
    await bench.told.until(lambda: bench.told.count("committed") > 0)
    bench.kafka.epoch += 1


def test_what_was_decoded_before_the_stream_failed_is_committed_first() -> None:
    async def main() -> None:
        bench = Bench([event(number) for number in range(1, 16)])
        bench.bus.errors[15] = PositionLostError("lost")
        with pytest.raises(PositionLostError):
            await bench.run()
        assert bench.committed == names(1, 15)

    virtual(main())


def test_twenty_bad_in_a_row_halt_before_the_first_with_all_good_ones_committed() -> None:
    async def main() -> None:
        good = [event(number) for number in range(1, 6)]
        bench = Bench([*good, *(event(number, bad=True) for number in range(6, 40))])
        with pytest.raises(FloodError):
            await bench.run()
        assert bench.committed == names(1, 5)
        assert bench.position is not None
        assert "e6" not in bench.position.beyond

    virtual(main())


def test_a_single_bad_event_goes_to_quarantine_with_its_window_after_the_suspicion() -> None:
    async def main() -> None:
        bench = Bench([event(1), event(2, bad=True), event(3)])
        async with task_group() as group:
            task = group.create_task(bench.run())
            await _seconds(2)
            assert bench.committed == ["e1"], "held back in case a flood follows"
            await _seconds(4)
            assert bench.committed == ["e1", "e2", "e3"]
            bench.pipeline.drain()
            await task
        assert list(bench.kafka.restored().windows) == ["quarantine:e2"]

    virtual(main())


def test_many_good_events_clear_a_suspicion_before_its_time() -> None:
    async def main() -> None:
        bench = Bench([event(1, bad=True), *(event(number) for number in range(2, 400))], burst=50)
        async with task_group() as group:
            task = group.create_task(bench.run())
            await _seconds(1)
            assert len(bench.committed) == 399
            bench.pipeline.drain()
            await task

    virtual(main())


def test_a_missing_schema_holds_the_stream_and_not_what_came_before() -> None:
    async def main() -> None:
        bench = Bench([event(1), event(2), event(3, schema_id="s2"), event(4)])
        async with task_group() as group:
            task = group.create_task(bench.run())
            await bench.told.until(lambda: bench.told.count("processed") == 2)
            bench.schemas.forever = SchemaUnavailableError("down")
            await _seconds(60)
            assert bench.committed == ["e1", "e2"]
            assert bench.told.count("waiting_for_schema") >= 2
            bench.schemas.forever = None
            await _seconds(60)
            assert bench.committed == names(1, 4)
            bench.pipeline.drain()
            await task

    virtual(main())


def test_what_came_before_an_unknown_schema_is_committed_while_it_is_fetched() -> None:
    async def main() -> None:
        bench = Bench([event(1), event(2, schema_id="s2")])
        async with task_group() as group:
            bench.schemas.slow["s2"] = 30.0
            task = group.create_task(bench.run())
            await _seconds(5)
            assert bench.committed == ["e1"]
            await _seconds(60)
            assert bench.committed == ["e1", "e2"]
            bench.pipeline.drain()
            await task

    virtual(main())


def test_a_drain_leaves_the_event_without_schema_to_the_next_generation() -> None:
    async def main() -> None:
        bench = Bench([event(1), event(2, schema_id="s2"), event(3)])
        async with task_group() as group:
            task = group.create_task(bench.run())
            await bench.told.until(lambda: bench.told.count("processed") == 1)
            bench.schemas.forever = SchemaUnavailableError("down")
            await bench.told.until(lambda: bench.told.count("waiting_for_schema") == 3)
            bench.pipeline.drain()
            await task
        assert bench.committed == ["e1"]
        assert bench.position is not None
        assert bench.position.beyond == ("e1",)

    virtual(main())


def test_a_refused_schema_sends_its_events_to_quarantine_at_once() -> None:
    async def main() -> None:
        bench = Bench([event(1, schema_id="s2"), event(2)])
        bench.schemas.errors.append(SchemaRefusedError("never"))
        await bench.drained("e2")
        (record,) = bench.kafka.on(bench.kafka.topics.quarantine)
        assert ("reason", b"schema_refused") in record.headers
        assert bench.committed == ["e1", "e2"]

    virtual(main())


def test_a_schema_that_is_missing_for_hours_is_given_up() -> None:
    async def main() -> None:
        bench = Bench([event(1, schema_id="s2"), event(2, schema_id="s2")])
        bench.schemas.forever = SchemaUnavailableError("down")
        async with task_group() as group:
            task = group.create_task(bench.run())
            await _seconds(6 * 3600 - 60)
            assert bench.committed == []
            await _seconds(120)
            assert bench.committed == ["e1", "e2"]
            bench.pipeline.drain()
            await task
        (first, _) = bench.kafka.on(bench.kafka.topics.quarantine)
        assert ("reason", b"schema_unavailable") in first.headers

    virtual(main())


def test_a_cancelled_run_leaves_no_task_and_nothing_half() -> None:
    async def main() -> None:
        bench = Bench([event(number) for number in range(1, 100)])
        bench.kafka.commit_s = 5.0
        async with task_group() as group:
            task = group.create_task(bench.run())
            await _seconds(7)
            task.cancel()
        assert bench.committed == names(1, 10)
        assert bench.kafka.open_sinks == 0

    virtual(main())
