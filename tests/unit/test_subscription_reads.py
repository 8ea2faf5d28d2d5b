"""The supervisor and the reads beside the stream: snapshots by command, and where a lost position's loss ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from consumer.delivery.control import TakeSnapshot, command_key
from consumer.pipeline import Pipeline
from consumer.position import Preset
from consumer.processor import Processor
from consumer.subscription import Choices
from consumer.tracking.arrivals import Closed, Progress, RowsRead
from tests.fakes import CommitFault, Rig, event, replay_id, virtual
from tests.unit.test_subscription import running

SNAPSHOT = TakeSnapshot("s1", "MessagingSession", "Status = 'Active'", 5, "anna")
ENTRY: Mapping[str, Any] = {"entity": "MessagingSession", "where": "Status = 'Active'", "issued_ms": 5}


class Reader:
    """Reads nothing; with ``busy`` it makes progress all the time."""

    def __init__(self, *, busy: bool = False) -> None:
        self._busy = busy

    async def run(self, pipeline: Pipeline, processor: Processor) -> None:
        number = 0
        while self._busy:
            number += 1
            await pipeline.inbox.put(Closed("MessagingSession", 1, progress=(Progress("poll", {"n": number}),)))
            await asyncio.sleep(0.01)
        await asyncio.Event().wait()

    async def read_unknown(self, processor: Processor, wanted: Mapping[str, Sequence[str]]) -> Sequence[RowsRead]:
        return ()


def test_a_snapshot_by_command_is_durable_before_it_is_accepted() -> None:
    """The command is withdrawn once it is accepted: a worker that dies then must find it in ``positions``."""

    async def main() -> None:
        rig = Rig([event(1)], aside=Reader)
        rig.kafka.commit_s = 2.0
        async with running(rig):
            await rig.told.until(lambda: "streaming" in rig.told.names())
            accepted = rig.subscription.snapshot(SNAPSHOT)
            await asyncio.sleep(1)
            assert not accepted.is_set()
            await accepted.wait()
            assert rig.kafka.restored().progress["snapshot:s1"] == ENTRY

    virtual(main())


@pytest.mark.parametrize("fault", [CommitFault.NOT_COMMITTED, CommitFault.UNKNOWN])
def test_a_snapshot_whose_commit_fails_is_asked_for_again(fault: CommitFault) -> None:
    async def main() -> None:
        rig = Rig(aside=Reader)
        async with running(rig):
            await rig.told.until(lambda: "streaming" in rig.told.names())
            rig.kafka.faults.append(fault)
            accepted = rig.subscription.snapshot(SNAPSHOT)
            await rig.told.until(lambda: rig.told.count("failed") == 1)
            assert not accepted.is_set()
            await accepted.wait()
            assert rig.kafka.restored().progress["snapshot:s1"] == ENTRY
        assert rig.told.count("streaming") == 2

    virtual(main())


def test_a_standby_a_pause_and_a_stop_keep_the_snapshot_for_the_time_when_it_works() -> None:
    async def main() -> None:
        rig = Rig([event(1)], aside=Reader)
        accepted = rig.subscription.snapshot(SNAPSHOT)
        rig.subscription.pause()
        async with running(rig):
            await rig.told.until(lambda: "paused" in rig.told.names())
            await asyncio.sleep(60)
            assert not accepted.is_set()
            rig.subscription.resume()
            await accepted.wait()
        assert rig.kafka.restored().progress["snapshot:s1"] == ENTRY

    virtual(main())


def test_a_standby_forgets_a_snapshot_that_another_worker_has_taken_over() -> None:
    async def main() -> None:
        rig = Rig([event(1)], aside=Reader)
        accepted = rig.subscription.snapshot(SNAPSHOT)
        rig.subscription.withdrawn("snapshot:another")
        assert not accepted.is_set()
        rig.subscription.withdrawn(command_key(SNAPSHOT))
        assert accepted.is_set(), "who waits to withdraw it must not wait for ever"
        async with running(rig):
            await rig.until_committed("e1")
            await asyncio.sleep(5)
        assert "snapshot:s1" not in rig.kafka.restored().progress

    virtual(main())


def test_several_snapshots_are_accepted_each() -> None:
    async def main() -> None:
        rig = Rig(aside=lambda: Reader(busy=True))
        async with running(rig):
            commands = [TakeSnapshot(f"s{number}", None, "", number, "anna") for number in range(5)]
            first = [rig.subscription.snapshot(each) for each in commands[:2]]
            await asyncio.sleep(0.05)
            for each in (*first, *(rig.subscription.snapshot(each) for each in commands[2:])):
                await each.wait()
            found = [name for name in rig.kafka.restored().progress if name.startswith("snapshot:")]
            assert found == [f"snapshot:s{number}" for number in range(5)]
            await asyncio.sleep(1)
            await rig.subscription.snapshot(TakeSnapshot("s5", None, "", 6, "anna")).wait()
        asked = [each[1].progress[0].name for each in rig.told.told if each[0] == "arrived"]
        assert Counter(each for each in asked if each.startswith("snapshot:")) == Counter([*found, "snapshot:s5"]), (
            "each is asked for once"
        )

    virtual(main())


def test_a_stop_ends_although_the_reader_never_rests() -> None:
    async def main() -> None:
        rig = Rig([event(1), event(2)], aside=lambda: Reader(busy=True))
        async with running(rig):
            await rig.until_committed("e2")
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 1

    virtual(main())


def test_a_reader_goes_on_behind_what_it_made_durable_after_a_failure() -> None:
    async def main() -> None:
        rig = Rig(aside=lambda: Reader(busy=True), choices=Choices("latest", "resync"))
        async with running(rig):
            await rig.told.until(lambda: rig.told.count("committed") == 3)
            before = rig.kafka.restored().progress["poll"]["n"]
            rig.kafka.faults.append(CommitFault.NOT_COMMITTED)
            await rig.told.until(lambda: rig.told.count("failed") == 1)
            assert rig.kafka.restored().progress["poll"]["n"] == before
            restored = next(what[1] for what in reversed(rig.told.told) if what[0] == "restored")
            assert restored.progress.get("poll", {}).get("n", 0) <= before

    virtual(main())


def test_an_unreadable_oldest_event_does_not_hide_where_the_retained_ones_begin() -> None:
    """It can't say when it was committed; the next one can, and the loss ends there at the latest."""

    async def main() -> None:
        rig = Rig([event(1), event(2), event(3)])
        async with running(rig):
            await rig.until_committed("e3")
        rig.bus.publish(event(4), event(5, bad=True), event(6))
        rig.bus.lost.add(replay_id(2))
        del rig.bus.items[:4]
        rig.restarted()
        async with running(rig):
            await rig.until_committed("e6")
            windows = rig.kafka.restored().windows.values()
        (lost,) = [each for each in windows if each.reason == "position_lost"]
        assert lost.to_ms == event(6).received_ms
        assert lost.detail["continued_at"] == Preset.EARLIEST.value

    virtual(main())


def test_a_repeat_that_can_not_be_read_any_more_proves_as_well_that_nothing_is_lost() -> None:
    async def main() -> None:
        rig = Rig([event(1, bad=True), event(2), event(3)])
        async with running(rig):
            await rig.until_committed("e3")
        rig.bus.lost.add(replay_id(2))
        rig.restarted()
        async with running(rig):
            await rig.told.until(lambda: rig.told.count("repeated") == 3)
            rig.bus.publish(event(4))
            await rig.until_committed("e4")
            assert [each.reason for each in rig.kafka.restored().windows.values()] == ["payload_undecodable"]

    virtual(main())
