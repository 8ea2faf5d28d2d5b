"""The supervisor of one channel: generations, pauses, halts, lost positions, retries. Time is virtual."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import orjson
import pytest

from consumer.errors import (
    FloodError,
    ForeignStateError,
    KafkaUnavailableError,
    PositionLostError,
    ProducerFencedError,
    SchemaRefusedError,
    SchemaUnavailableError,
    TopicRefusedError,
    TransactionFailedError,
)
from consumer.events import OutboundRecord
from consumer.position import Position, Preset
from consumer.subscription import Choices
from consumer.tasks import task_group
from tests.fakes import TOPICS, CommitFault, Rig, clocks, event, keepalive, replay_id, virtual


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[asyncio.Task[None]]:
    """Run the rig's supervisor in the background and stop it at the end."""
    async with task_group() as group:
        task = group.create_task(rig.subscription.run())
        yield task
        rig.subscription.stop()
        await task
    assert rig.kafka.open_sinks == 0, "a producer was left open"


def names(first: int, last: int) -> list[str]:
    return [f"e{number}" for number in range(first, last + 1)]


def test_a_stop_commits_what_is_decoded_and_a_restart_goes_on_after_it() -> None:
    async def main() -> None:
        rig = Rig([event(number) for number in range(1, 16)])
        async with running(rig):
            await rig.told.until(lambda: rig.told.count("processed") == 15)
        assert rig.kafka.event_ids() == names(1, 15)
        rig.bus.publish(event(16))
        rig.restarted()
        async with running(rig):
            await rig.until_committed("e16")
        assert rig.kafka.event_ids() == names(1, 16)
        assert rig.bus.starts[-1].replay_id == replay_id(14)

    virtual(main())


@pytest.mark.parametrize("fault", [CommitFault.NOT_COMMITTED, CommitFault.UNKNOWN])
def test_a_failed_transaction_costs_and_doubles_nothing(fault: CommitFault) -> None:
    async def main() -> None:
        rig = Rig([event(number) for number in range(1, 60)])
        rig.kafka.faults.extend([None, fault, None, fault])
        async with running(rig):
            await rig.until_committed("e59")
        assert rig.kafka.event_ids() == names(1, 59)
        assert rig.kafka.opens == 3

    virtual(main())


def test_kafka_that_is_down_is_tried_again_ever_more_slowly() -> None:
    async def main() -> None:
        rig = Rig([event(1)])
        rig.kafka.open_errors.extend(KafkaUnavailableError("down") for _ in range(8))
        async with running(rig):
            await rig.until_committed("e1")
        delays = [what[3] for what in rig.told.told if what[0] == "failed"]
        assert delays == sorted(delays)
        assert (len(delays), max(delays)) == (8, 15.0)

    virtual(main())


def test_a_commit_ends_the_growth_of_delays() -> None:
    async def main() -> None:
        rig = Rig([event(1)])
        rig.kafka.open_errors.extend(KafkaUnavailableError("down") for _ in range(5))
        async with running(rig):
            await rig.until_committed("e1")
            rig.kafka.faults.append(CommitFault.NOT_COMMITTED)
            rig.bus.publish(event(2))
            await rig.until_committed("e2")
        assert [what[3] for what in rig.told.told if what[0] == "failed"][-1] == 0.25

    virtual(main())


def test_a_fenced_worker_steps_down() -> None:
    async def main() -> None:
        rig = Rig([event(1)])
        async with task_group() as group:
            task = group.create_task(_fenced(rig))
            await rig.until_committed("e1")
            rig.kafka.epoch += 1
            rig.bus.publish(event(2))
            await task
        assert rig.kafka.event_ids() == ["e1"]
        assert not rig.subscription.running

    virtual(main())


async def _fenced(rig: Rig) -> None:
    with pytest.raises(ProducerFencedError):
        await rig.subscription.run()


def test_a_pause_commits_takes_nothing_and_a_resume_goes_on() -> None:
    async def main() -> None:
        rig = Rig([event(1), event(2)])
        async with running(rig):
            await rig.told.until(lambda: rig.told.count("processed") == 2)
            rig.subscription.pause()
            await rig.told.until(lambda: "paused" in rig.told.names())
            assert rig.kafka.event_ids() == ["e1", "e2"]
            assert rig.kafka.open_sinks == 0
            rig.bus.publish(event(3))
            await asyncio.sleep(3600)
            assert rig.kafka.event_ids() == ["e1", "e2"]
            rig.subscription.resume()
            await rig.until_committed("e3")
        assert rig.kafka.event_ids() == names(1, 3)

    virtual(main())


def test_a_pause_before_the_start_holds_the_start() -> None:
    async def main() -> None:
        rig = Rig([event(1)])
        rig.subscription.pause()
        async with running(rig):
            await asyncio.sleep(60)
            assert rig.kafka.opens == 0
            rig.subscription.resume()
            await rig.until_committed("e1")

    virtual(main())


def test_a_pause_and_resume_in_one_breath_lose_nothing() -> None:
    async def main() -> None:
        rig = Rig([event(number) for number in range(1, 200)])
        async with running(rig):
            for _ in range(20):
                await asyncio.sleep(0.013)
                rig.subscription.pause()
                rig.subscription.resume()
            await rig.until_committed("e199")
        assert rig.kafka.event_ids() == names(1, 199)

    virtual(main())


@pytest.mark.parametrize("steps", range(12))
def test_a_stop_at_any_moment_of_the_start_ends_the_run(steps: int) -> None:
    async def main() -> None:
        rig = Rig([event(1), event(2)])
        async with running(rig):
            for _ in range(steps):
                await asyncio.sleep(0.002 if steps % 2 else 0)
        assert rig.kafka.event_ids() in ([], ["e1", "e2"])

    virtual(main())


def test_a_stop_ends_a_pause_a_halt_and_a_back_off() -> None:
    async def main() -> None:
        paused, halted, failing = Rig(), Rig(), Rig()
        paused.subscription.pause()
        halted.kafka.open_errors.append(ForeignStateError("another org's topics"))
        failing.kafka.open_errors.extend(KafkaUnavailableError("down") for _ in range(100))
        for rig, word in ((paused, "paused"), (halted, "halted"), (failing, "failed")):
            async with running(rig):
                await rig.told.until(lambda rig=rig, word=word: word in rig.told.names())  # type: ignore[misc]

    virtual(main())


def test_a_flood_halts_until_resumed_and_skips_nothing() -> None:
    async def main() -> None:
        rig = Rig([event(1), *(event(number, bad=True) for number in range(2, 30))])
        async with running(rig):
            await rig.told.until(lambda: rig.told.count("halted") == 1)
            await asyncio.sleep(3600)
            assert (rig.told.count("streaming"), rig.kafka.event_ids()) == (1, ["e1"])
            rig.subscription.resume()
            await rig.told.until(lambda: rig.told.count("halted") == 2)
            assert rig.kafka.event_ids() == ["e1"]
            rig.mended = True
            rig.subscription.resume()
            await rig.until_committed("e29")
        assert rig.kafka.event_ids() == names(1, 29)
        assert isinstance(rig.told.told[rig.told.names().index("halted")][1], FloodError)

    virtual(main())


def test_an_accepted_flood_goes_into_quarantine_and_the_next_one_halts_again() -> None:
    async def main() -> None:
        first = [event(number, bad=True) for number in range(2, 30)]
        good = [event(number) for number in range(30, 240)]
        second = [event(number, bad=True) for number in range(240, 270)]
        rig = Rig([event(1), *first, *good, *second])
        async with running(rig):
            await rig.told.until(lambda: rig.told.count("halted") == 1)
            rig.subscription.resume(accept_flood=True)
            await rig.told.until(lambda: rig.told.count("halted") == 2)
        assert set(names(1, 239)) <= set(rig.kafka.event_ids())
        assert "e240" not in rig.kafka.event_ids()

    virtual(main())


def test_accepting_a_flood_when_there_is_none_means_nothing() -> None:
    """An old command that is read again at a start must not accept the next flood."""

    async def main() -> None:
        rig = Rig([event(1), *(event(number, bad=True) for number in range(2, 30))])
        rig.subscription.resume(accept_flood=True)
        async with running(rig):
            await rig.told.until(lambda: rig.told.count("halted") == 1)
        assert rig.kafka.event_ids() == ["e1"]

    virtual(main())


def test_a_batch_that_kafka_will_never_take_halts() -> None:
    async def main() -> None:
        rig = Rig([event(1)])
        rig.kafka.faults.extend([None, None, CommitFault.REFUSED])
        async with running(rig):
            await rig.until_committed("e1")
            rig.bus.publish(event(2))
            await rig.told.until(lambda: "halted" in rig.told.names())
            rig.subscription.resume()
            await rig.until_committed("e2")

    virtual(main())


def test_a_new_assignment_ends_a_halt() -> None:
    """Another worker had the channel meanwhile; a memory of our own halt would leave it to nobody, unsaid."""

    async def main() -> None:
        rig = Rig([event(1)])
        rig.kafka.open_errors.append(ForeignStateError("another org's topics"))
        async with task_group() as group:
            task = group.create_task(rig.subscription.run())
            await rig.told.until(lambda: "halted" in rig.told.names())
            task.cancel()
        assert not rig.subscription.running
        async with running(rig):
            await rig.until_committed("e1")

    virtual(main())


@pytest.mark.parametrize("accepted_before", [True, False])
def test_what_was_said_of_a_flood_does_not_outlive_an_assignment(accepted_before: bool) -> None:
    async def main() -> None:
        rig = Rig([event(number, bad=True) for number in range(1, 30)])
        async with task_group() as group:
            task = group.create_task(rig.subscription.run())
            await rig.told.until(lambda: rig.told.count("halted") == 1)
            if accepted_before:
                rig.subscription.resume(accept_flood=True)
            else:
                rig.subscription.pause()
            task.cancel()
        async with running(rig):
            if not accepted_before:
                await rig.told.until(lambda: "paused" in rig.told.names())
                rig.subscription.resume(accept_flood=True)
            await rig.told.until(lambda: rig.told.count("halted") == 2)
        assert not rig.kafka.event_ids()

    virtual(main())


def test_a_cancelled_run_can_be_run_again() -> None:
    async def main() -> None:
        rig = Rig([event(number) for number in range(1, 100)])
        for round_number in range(4):
            async with task_group() as group:
                task = group.create_task(rig.subscription.run())
                await asyncio.sleep(0.021 + 0.007 * round_number)
                task.cancel()
            assert rig.kafka.open_sinks == 0
        async with running(rig):
            await rig.until_committed("e99")
        assert rig.kafka.event_ids() == names(1, 99)

    virtual(main())


def test_a_topic_refused_before_anything_worked_ends_the_run() -> None:
    async def main() -> None:
        rig = Rig()
        rig.bus.errors[0] = TopicRefusedError("no permission")
        with pytest.raises(TopicRefusedError):
            await rig.subscription.run()
        assert rig.kafka.open_sinks == 0

    virtual(main())


def test_a_topic_refused_later_or_after_a_restart_is_waited_out() -> None:
    async def main() -> None:
        rig = Rig([event(1), keepalive(1)])
        rig.bus.errors[2] = TopicRefusedError("no permission")
        async with running(rig):
            await rig.told.until(lambda: "failed" in rig.told.names())
        rig.bus.errors[2] = TopicRefusedError("no permission")
        rig.restarted()
        async with running(rig):
            await rig.told.until(lambda: rig.told.count("failed") == 2)
            rig.bus.publish(event(2))
            began = asyncio.get_running_loop().time()
            await rig.until_committed("e2")
            assert asyncio.get_running_loop().time() - began >= 60

    virtual(main())


@pytest.mark.parametrize(("start", "reasons"), [("snapshot", ["no_snapshot"]), ("earliest", []), ("latest", [])])
def test_the_first_start_is_made_durable_with_its_loss_window(start: str, reasons: list[str]) -> None:
    async def main() -> None:
        rig = Rig(choices=Choices(start, "resync"))  # type: ignore[arg-type]
        async with running(rig):
            await rig.told.until(lambda: "streaming" in rig.told.names())
            restored = rig.kafka.restored()
        assert restored.position == Position(preset=Preset.EARLIEST if start == "earliest" else Preset.LATEST)
        assert [each.reason for each in restored.windows.values()] == reasons

    virtual(main())


def test_latest_that_begins_a_second_time_owns_up_to_what_it_skips() -> None:
    async def main() -> None:
        rig = Rig(choices=Choices("latest", "resync"))
        async with running(rig):
            await rig.told.until(lambda: "streaming" in rig.told.names())
            await asyncio.sleep(1)
            rig.bus.publish(event(1))
            await rig.told.until(lambda: rig.told.count("processed") == 1)
        assert not rig.kafka.event_ids()
        for _ in range(2):
            rig.restarted()
            async with running(rig):
                await rig.told.until(lambda: rig.told.names()[-1] == "streaming")
            (window,) = rig.kafka.restored().windows.values()
            assert (window.reason, window.to_ms) == ("no_snapshot", None)
        rig.restarted()
        async with running(rig):
            await rig.told.until(lambda: rig.told.names()[-1] == "streaming")
            await asyncio.sleep(1)
            rig.bus.publish(event(2), event(3))
            await rig.until_committed("e3")
        rig.restarted()
        async with running(rig):
            await rig.told.until(lambda: rig.told.names()[-1] == "streaming")
        assert len(rig.kafka.restored().windows) == 1, "a resumable position skips nothing"

    virtual(main())


@pytest.mark.parametrize(("choice", "again"), [("resync", True), ("earliest", True), ("latest", False)])
def test_a_lost_position_opens_a_window_and_goes_on_without_repeats(choice: str, again: bool) -> None:
    async def main() -> None:
        rig = Rig([event(1), event(2), event(3)], choices=Choices("earliest", choice))  # type: ignore[arg-type]
        async with running(rig):
            await rig.until_committed("e3")
        rig.bus.publish(event(4))
        rig.bus.lost.add(replay_id(2))
        rig.restarted()
        async with running(rig):
            await rig.told.until(lambda: rig.told.count("streaming") == 3)
            await asyncio.sleep(1)
            rig.bus.publish(event(5), event(6))
            await rig.until_committed("e6")
            restored = rig.kafka.restored()
        assert rig.kafka.event_ids() == ["e1", "e2", "e3", *(["e4"] if again else []), "e5", "e6"]
        if again:
            assert not restored.windows, "the oldest retained event was committed before: nothing is lost"
            closed = orjson.loads(rig.kafka.on(TOPICS.coverage)[-1].value or b"")
            assert (closed["kind"], closed["restored"]["all_changes"]) == ("loss_closed", True)
        else:
            (window,) = restored.windows.values()
            assert (window.reason, window.to_ms) == ("position_lost", None)
        assert restored.position is not None
        assert restored.position.redelivery_ms is not None
        assert restored.position.epoch == 1

    virtual(main())


def test_what_a_lost_position_lost_ends_with_the_oldest_retained_event() -> None:
    async def main() -> None:
        rig = Rig([event(1), event(2), event(3)])
        async with running(rig):
            await rig.until_committed("e3")
        rig.bus.publish(event(4), event(5))
        rig.bus.lost.add(replay_id(2))
        del rig.bus.items[:4]
        rig.restarted()
        async with running(rig):
            await rig.until_committed("e5")
            (window,) = rig.kafka.restored().windows.values()
        assert (window.reason, window.to_ms) == ("position_lost", event(5).received_ms)
        assert window.from_ms is not None
        assert window.from_ms <= window.to_ms

    virtual(main())


@pytest.mark.parametrize("choice", ["resync", "latest"])
def test_the_window_of_a_lost_position_never_ends_before_it_begins(choice: str) -> None:
    """The org's clock is only known to some seconds: what was committed last can be ahead of it."""

    async def main() -> None:
        ahead = event(5_000_000)
        rig = Rig([event(1), ahead], choices=Choices("earliest", choice))  # type: ignore[arg-type]
        async with running(rig):
            await rig.until_committed("e5000000")
        rig.bus.lost.update({ahead.replay_id, replay_id(1)})
        rig.bus.items.clear()
        rig.restarted()
        async with running(rig):
            await rig.told.until(lambda: rig.told.count("streaming") == 3)
            assert clocks().org_ms() < ahead.received_ms
            (window,) = rig.kafka.restored().windows.values()
        to_ms = ahead.received_ms if choice == "resync" else None
        assert (window.reason, window.from_ms, window.to_ms) == ("position_lost", ahead.received_ms, to_ms)

    virtual(main())


def test_a_lost_position_halts_if_that_was_chosen() -> None:
    async def main() -> None:
        rig = Rig([event(1), keepalive(1)], choices=Choices("earliest", "halt"))
        async with running(rig):
            await rig.until_committed("e1")
        rig.bus.lost.add(replay_id(1))
        rig.restarted()
        async with running(rig):
            await rig.told.until(lambda: "halted" in rig.told.names())
        assert not rig.kafka.restored().windows

    virtual(main())


def test_a_position_that_is_lost_over_and_over_halts_instead_of_spinning() -> None:
    async def main() -> None:
        rig = Rig([event(1)])
        rig.bus.presets_lost = True
        async with running(rig):
            await rig.told.until(lambda: "halted" in rig.told.names())
            assert rig.told.count("streaming") == 2
            rig.bus.presets_lost = False
            rig.subscription.resume()
            await rig.until_committed("e1")

    virtual(main())


def test_a_position_lost_on_the_way_is_recovered_after_all_decoded_is_committed() -> None:
    async def main() -> None:
        rig = Rig([event(number) for number in range(1, 30)])
        rig.bus.errors[17] = PositionLostError("lost")
        async with running(rig):
            await rig.until_committed("e29")
        assert rig.kafka.event_ids() == names(1, 29)

    virtual(main())


async def _with_two_quarantined(rig: Rig) -> None:
    async with running(rig):
        await rig.until_committed("e4")
    assert sorted(rig.kafka.restored().windows) == ["quarantine:e2", "quarantine:e3"]


def _two_bad() -> Rig:
    return Rig([event(1), event(2, bad=True), event(3, bad=True, schema_id="s2"), event(4)])


def _changes(rig: Rig) -> list[str]:
    return [dict(each.headers)["ce_id"].decode().partition(":")[0] for each in rig.kafka.on(rig.changes)]


def test_a_retry_sends_what_works_now_and_closes_its_window_in_one_transaction() -> None:
    async def main() -> None:
        rig = _two_bad()
        await _with_two_quarantined(rig)
        rig.mended = True
        rig.restarted()
        finished = rig.subscription.retry(["quarantine:e3"])
        async with running(rig):
            await finished.wait()
            assert list(rig.kafka.restored().windows) == ["quarantine:e2"]
            await rig.subscription.retry([]).wait()
            assert not rig.kafka.restored().windows
            await rig.subscription.retry([]).wait()
            rig.bus.publish(event(5))
            await rig.until_committed("e5")
        assert _changes(rig) == ["e1", "e4", "e3", "e2", "e5"]
        opened = b"window:quarantine:e3"
        (closing,) = [
            batch
            for batch in rig.kafka.batches
            if OutboundRecord(rig.kafka.topics.positions, opened, None, (), 0) in batch.records
        ]
        assert [each.topic for each in closing.records] == [
            rig.changes,
            rig.kafka.topics.coverage,
            rig.kafka.topics.positions,
        ]

    virtual(main())


def test_a_retry_leaves_the_age_of_the_position_alone() -> None:
    async def main() -> None:
        rig = _two_bad()
        await _with_two_quarantined(rig)
        before = rig.kafka.restored().committed_ms
        rig.mended = True
        rig.restarted()
        finished = rig.subscription.retry([])
        async with running(rig):
            await asyncio.sleep(5)
            await finished.wait()
        assert rig.kafka.restored().committed_ms == before

    virtual(main())


def test_what_is_still_bad_stays_open_and_is_not_quarantined_twice() -> None:
    async def main() -> None:
        rig = _two_bad()
        await _with_two_quarantined(rig)
        rig.restarted()
        finished = rig.subscription.retry([])
        async with running(rig):
            await finished.wait()
        assert sorted(rig.kafka.restored().windows) == ["quarantine:e2", "quarantine:e3"]
        assert len(rig.kafka.on(rig.kafka.topics.quarantine)) == 2
        assert rig.told.ids("retried") == ["e2", "e3"]

    virtual(main())


@pytest.mark.parametrize("error", [SchemaRefusedError("no"), SchemaUnavailableError("down")])
def test_a_schema_that_is_not_to_be_had_does_not_hold_the_stream_for_a_retry(error: Exception) -> None:
    async def main() -> None:
        rig = _two_bad()
        await _with_two_quarantined(rig)
        rig.mended = True
        rig.restarted()
        rig.schemas.errors.extend([error, error])  # type: ignore[list-item]
        finished = rig.subscription.retry([])
        async with running(rig):
            await finished.wait()
            rig.bus.publish(event(5))
            await rig.until_committed("e5")
        assert len(rig.kafka.restored().windows) == 2

    virtual(main())


def test_a_retry_whose_commit_fails_is_carried_out_again() -> None:
    async def main() -> None:
        rig = _two_bad()
        await _with_two_quarantined(rig)
        rig.mended = True
        for fault in (CommitFault.NOT_COMMITTED, CommitFault.UNKNOWN):
            rig.restarted()
            rig.kafka.faults.append(fault)
            finished = rig.subscription.retry(["quarantine:e2" if fault is CommitFault.UNKNOWN else "quarantine:e3"])
            async with running(rig):
                await finished.wait()
        assert not rig.kafka.restored().windows
        assert sorted(_changes(rig)) == ["e1", "e2", "e3", "e4"]

    virtual(main())


def test_a_retry_asked_for_while_another_runs_is_not_forgotten() -> None:
    async def main() -> None:
        rig = _two_bad()
        await _with_two_quarantined(rig)
        rig.mended = True
        rig.kafka.commit_s = 1.0
        rig.restarted()
        first = rig.subscription.retry(["quarantine:e2"])
        async with running(rig):
            await rig.told.until(lambda: rig.told.count("retried") == 1)
            second = rig.subscription.retry(["quarantine:e3"])
            await first.wait()
            assert not second.is_set()
            await second.wait()
        assert not rig.kafka.restored().windows

    virtual(main())


def test_all_and_one_asked_for_together_mean_all() -> None:
    async def main() -> None:
        rig = _two_bad()
        await _with_two_quarantined(rig)
        rig.mended = True
        rig.restarted()
        everything, one = rig.subscription.retry([]), rig.subscription.retry(["quarantine:e2"])
        async with running(rig):
            await everything.wait()
            await one.wait()
        assert not rig.kafka.restored().windows

    virtual(main())


def test_a_retry_waits_for_the_end_of_a_pause() -> None:
    async def main() -> None:
        rig = _two_bad()
        await _with_two_quarantined(rig)
        rig.mended = True
        rig.restarted()
        rig.subscription.pause()
        finished = rig.subscription.retry([])
        async with running(rig):
            await asyncio.sleep(60)
            assert not finished.is_set()
            rig.subscription.resume()
            await finished.wait()

    virtual(main())


def test_a_stop_in_the_middle_of_a_retry_leaves_the_rest_to_the_next_start() -> None:
    async def main() -> None:
        rig = _two_bad()
        await _with_two_quarantined(rig)
        rig.mended = True
        rig.schemas.slow["s1"] = 5.0
        rig.restarted()
        finished = rig.subscription.retry([])
        async with running(rig):
            await asyncio.sleep(1)
        assert not finished.is_set()
        assert list(rig.kafka.restored().windows) == ["quarantine:e3"]
        async_again = rig.restarted().retry([])
        async with running(rig):
            await async_again.wait()
        assert sorted(_changes(rig)) == ["e1", "e2", "e3", "e4"]

    virtual(main())


def test_merged_events_with_one_replay_id_survive_a_restart_between_them() -> None:
    async def main() -> None:
        rig = Rig([event(1), replace(event(2), replay_id=replay_id(9)), replace(event(3), replay_id=replay_id(9))])
        rig.limits = replace(rig.limits, max_records=2)
        rig.kafka.faults.extend([None, None, CommitFault.NOT_COMMITTED])
        rig.restarted()
        async with running(rig):
            await rig.until_committed("e3")
        assert rig.kafka.event_ids() == names(1, 3)

    virtual(main())


def test_a_failure_while_stopping_ends_the_run_all_the_same() -> None:
    async def main() -> None:
        rig = Rig([event(1), event(2)])
        rig.kafka.faults.extend([None, CommitFault.NOT_COMMITTED])
        async with running(rig):
            await rig.told.until(lambda: rig.told.count("processed") == 2)
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 0.2, "a stop does not wait for a back-off"
        (failure,) = [what[1] for what in rig.told.told if what[0] == "failed"]
        assert isinstance(failure, TransactionFailedError)

    virtual(main())
