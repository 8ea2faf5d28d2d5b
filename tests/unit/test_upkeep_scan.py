"""Scans: first start, lost position, overflow, operator's snapshots; killed at every step; in virtual time."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from consumer.events import LossWindow
from consumer.tracking.arrivals import Arrival, Closed, Purpose, RowsRead
from consumer.upkeep.scan import ScanJob
from consumer.upkeep.scan_reading import moved_since
from consumer.upkeep.scan_state import Scan
from tests.fake_org import (
    ENTITY,
    HOUR,
    PACE,
    SECOND,
    Durable,
    FakeOrg,
    Harness,
    facts_for,
    record_id,
    running,
    state_of,
)
from tests.fakes import CHANNEL, virtual

DAY = 24 * HOUR


def lost(org: FakeOrg, reason: str = "position_lost", **given: Any) -> LossWindow:
    """A window over everything."""
    now = org.now_ms()
    return LossWindow(f"w:{reason}", f"changes:{CHANNEL}", reason, now - HOUR, now, (), ENTITY, **given)


def put_state(rig: Harness, key: str, **given: Any) -> None:
    """Make a record known as the org has it now."""
    rig.store.put(state_of(rig.org._row(key, rig.org.rows[key]), **given))


def images(durable: Durable, entity: str = ENTITY) -> dict[str, str]:
    """Status by id of the live records that are known."""
    return {key: state.image["Status"] for (of, key), state in durable.states.items() if of == entity and state.image}


def truth(org: FakeOrg, entity: str = ENTITY) -> dict[str, str]:
    """Status by id of the org's live records."""
    return {key: row.status for key, row in org.table(entity).items() if row.deleted_ms is None}


def until_closed(rig: Harness) -> Any:
    """Wait until no window and no scan is left."""
    return rig.until(lambda: not rig.durable.windows and not rig.durable.progress)


def test_a_scan_reads_every_row_finds_deletes_and_closes_every_open_window() -> None:
    async def main() -> None:
        org = FakeOrg()
        rig = Harness(org)
        for number in range(25):
            put_state(rig, org.save(number))
        for number in range(20, 35):
            org.save(number, "Active")
        org.delete(record_id(3), purge=True)
        org.delete(record_id(4))
        for reason in ("position_lost", "position_forced", "wildcard"):
            rig.open(lost(org, reason))
        await running(ScanJob(rig.context).run, until_closed(rig))
        assert images(rig.durable) == truth(org)
        assert {key for (_, key), state in rig.durable.states.items() if state.deleted} == {record_id(3), record_id(4)}
        reads = [each for each in rig.arrivals(RowsRead) if each.rows and not each.missing]
        assert [each.last for each in reads] == [False, False, False, True]
        assert {each.purpose for each in reads} == {Purpose.RESYNC}
        assert org.calls.count("scan") == 4
        closings = [each for closed in rig.arrivals(Closed) for each in closed.closings]
        assert sorted(each.window_id for each in closings) == ["w:position_forced", "w:position_lost", "w:wildcard"]
        assert {each.repaired for each in closings} == {17}
        assert rig.told.complete == [(reads[0].job_id, ENTITY, 33)]
        assert not rig.marks

    virtual(main())


def test_a_first_start_is_a_snapshot() -> None:
    async def main() -> None:
        org = FakeOrg()
        rig = Harness(org)
        org.save(1)
        rig.open(replace(lost(org, "no_snapshot"), from_ms=None, to_ms=None))
        await running(ScanJob(rig.context).run, until_closed(rig))
        assert [each.purpose for each in rig.arrivals(RowsRead)] == [Purpose.SNAPSHOT]

    virtual(main())


def test_retained_events_come_before_the_scan() -> None:
    async def main() -> None:
        org = FakeOrg()
        rig = Harness(org)
        rig.ready.clear()
        org.save(1)
        rig.open(lost(org))

        async def story() -> None:
            await asyncio.sleep(600)
            assert not org.calls
            rig.ready.set()
            await until_closed(rig)

        await running(ScanJob(rig.context).run, story())

    virtual(main())


def test_a_window_that_opens_during_a_scan_gets_a_scan_of_its_own() -> None:
    async def main() -> None:
        org = FakeOrg()
        rig = Harness(org)
        for number in range(25):
            org.save(number)
        rig.open(lost(org))
        late = replace(lost(org), window_id="late")

        def on_take(arrival: Arrival) -> None:
            if isinstance(arrival, RowsRead) and "late" not in rig.durable.windows and not seen:
                seen.append(arrival)
                rig.open(late)

        seen: list[Arrival] = []
        rig.on_take = on_take
        await running(ScanJob(rig.context).run, until_closed(rig))
        assert org.calls.count("scan") == 6
        first, second = (each.closings[0].window_id for each in rig.arrivals(Closed) if each.closings)
        assert (first, second) == ("w:position_lost", "late")

    virtual(main())


def test_a_scan_waits_for_the_history_poll_but_not_with_the_next_scan() -> None:
    async def main() -> None:
        org = FakeOrg()
        facts = facts_for(has_history=True, tracked=frozenset({"Status"}))
        rig = Harness(org, facts={ENTITY: facts})
        org.save(1)
        rig.open(lost(org))

        async def story() -> None:
            await asyncio.sleep(60)
            rig.open(lost(org, "wildcard"))
            await asyncio.sleep(60)
            assert len(rig.durable.windows) == 2
            assert org.calls.count("scan") == 2
            rig.durable.progress[f"poll:history:{ENTITY}"] = {"complete_to_ms": org.now_ms()}
            await rig.until(lambda: not rig.durable.windows)

        await running(ScanJob(rig.context).run, story())
        assert all(each.tracked_history for closed in rig.arrivals(Closed) for each in closed.closings)

    virtual(main())


@pytest.mark.parametrize("bulk", [False, True])
def test_a_scan_killed_at_every_step_resumes_at_its_chunk(bulk: bool) -> None:
    """Nothing is read twice but the chunk under way, and the end is the same."""

    async def main() -> None:
        pace = replace(PACE, bulk_above=0 if bulk else 10**6)
        steps = 1
        kill_after = -1
        while kill_after < steps:
            org = FakeOrg()
            durable = Durable()
            first = Harness(org, durable, pace=pace, kill_after=kill_after)
            for number in range(57):
                put_state(first, org.save(number))
            for number in range(0, 65, 3):
                org.save(number, "Active")
            org.delete(record_id(5), purge=True)
            org.delete(record_id(50))
            await asyncio.sleep(10)
            first.open(lost(org))
            if kill_after >= 0:
                await running(ScanJob(first.context).run, first.killed.wait())
            second = Harness(org, durable, pace=pace)
            await running(ScanJob(second.context).run, until_closed(second))
            assert images(durable) == truth(org)
            closings = [each for closed in second.arrivals(Closed) for each in closed.closings]
            assert [each.repaired for each in closings] == [24]
            assert org.calls.count("bulk_start") <= (2 if bulk and kill_after == 0 else int(bulk))
            assert org.calls.count("scan" if not bulk else "bulk_page") <= (7 if not bulk else 3)
            steps = len(durable.taken)
            kill_after += 1
        assert steps > 8 if not bulk else steps > 6

    virtual(main())


def test_a_store_that_was_rebuilt_begins_the_scan_again() -> None:
    """What was seen is forgotten with the store: going on would take every record seen before for gone."""

    async def main() -> None:
        org = FakeOrg()
        durable = Durable()
        first = Harness(org, durable, kill_after=3)
        for number in range(40):
            put_state(first, org.save(number))
        first.open(lost(org))
        await running(ScanJob(first.context).run, first.killed.wait())
        durable.generation = "g2"
        durable.seen.clear()
        second = Harness(org, durable)
        await running(ScanJob(second.context).run, until_closed(second))
        assert org.calls.count("scan") == 3 + 4
        assert "rows_by_id" not in org.calls
        assert images(durable) == truth(org)

    virtual(main())


def test_what_an_aborted_scan_saw_does_not_count_for_the_next() -> None:
    """A record purged between the two, without an event, is found gone."""

    async def main() -> None:
        org = FakeOrg()
        durable = Durable()
        first = Harness(org, durable, kill_after=1)
        for number in range(5):
            put_state(first, org.save(number))
        first.open(lost(org))
        await running(ScanJob(first.context).run, first.killed.wait())
        durable.progress.clear()
        await asyncio.sleep(1)
        org.delete(record_id(2), purge=True)
        second = Harness(org, durable)
        await running(ScanJob(second.context).run, until_closed(second))
        assert durable.states[ENTITY, record_id(2)].deleted

    virtual(main())


def test_an_overflow_reads_what_was_modified_and_deleted_since() -> None:
    async def main() -> None:
        org = FakeOrg()
        rig = Harness(org)
        now = org.now_ms() // SECOND * SECOND
        for number in range(50):
            put_state(rig, org.save(number, at_ms=now - DAY))
        for number in range(20, 42):
            org.save(number, "Active", at_ms=now - 61 * SECOND + number * SECOND)
        org.delete(record_id(1), at_ms=now, purge=True)
        org.delete(record_id(2), at_ms=now)
        window = LossWindow("o", f"changes:{CHANNEL}", "gap_overflow", now, now + 999, (), ENTITY)
        rig.open(window)
        await running(ScanJob(rig.context).run, until_closed(rig))
        assert images(rig.durable) == truth(org)
        assert "scan" not in org.calls
        assert org.calls.count("modified") == 3
        assert org.calls.count("deleted_ids") == 1

    virtual(main())


def test_a_record_that_moves_while_an_overflow_is_read_is_still_read() -> None:
    """Its event tells only the newest change; what the overflow hid of it is in the row alone."""

    async def main() -> None:
        org = FakeOrg()
        rig = Harness(org)
        now = org.now_ms() // SECOND * SECOND
        for number in range(25):
            put_state(rig, org.save(number, at_ms=now - DAY))
            org.save(number, "Lost", at_ms=now)

        def move(name: str) -> None:
            if name == "modified" and org.rows[record_id(24)].stamp_ms == now:
                org.save(24, "Lost and moved", at_ms=now + 30 * SECOND)

        org.before = move
        rig.open(LossWindow("o", f"changes:{CHANNEL}", "gap_overflow", now, now + 999, (), ENTITY))
        await running(ScanJob(rig.context).run, until_closed(rig))
        assert images(rig.durable)[record_id(24)] == "Lost and moved"
        assert images(rig.durable) == truth(org)

    virtual(main())


def test_a_purged_delete_log_makes_an_overflow_read_everything() -> None:
    async def main() -> None:
        org = FakeOrg()
        rig = Harness(org)
        now = org.now_ms() // SECOND * SECOND
        for number in range(25):
            put_state(rig, org.save(number, at_ms=now - DAY))
        org.delete(record_id(1), at_ms=now, purge=True)
        org.log_from_ms = now - 30 * SECOND
        del org.rows[record_id(1)]
        rig.open(LossWindow("o", f"changes:{CHANNEL}", "gap_overflow", now, now + 999, (), ENTITY))
        await running(ScanJob(rig.context).run, until_closed(rig))
        assert org.calls.count("scan") == 3
        assert images(rig.durable) == truth(org)

    virtual(main())


def test_a_delete_log_that_lags_is_waited_for() -> None:
    async def main() -> None:
        org = FakeOrg(log_lag_ms=60_000)
        rig = Harness(org)
        now = org.now_ms() // SECOND * SECOND
        rig.open(LossWindow("o", f"changes:{CHANNEL}", "gap_overflow", now, now + 999, (), ENTITY))
        await running(ScanJob(rig.context).run, until_closed(rig))
        assert org.now_ms() >= now + 999 + 60_000

    virtual(main())


def test_an_old_overflow_reads_everything() -> None:
    async def main() -> None:
        org = FakeOrg()
        rig = Harness(org)
        now = org.now_ms()
        org.save(1)
        rig.open(LossWindow("o", f"changes:{CHANNEL}", "gap_overflow", now - 16 * DAY, now - 16 * DAY, (), ENTITY))
        await running(ScanJob(rig.context).run, until_closed(rig))
        assert "modified" not in org.calls

    virtual(main())


def test_an_expired_cursor_restarts_the_object() -> None:
    async def main() -> None:
        org = FakeOrg()
        rig = Harness(org)
        now = org.now_ms() // SECOND * SECOND
        for number in range(25):
            org.save(number, at_ms=now)
        org.cursors_valid = False

        def heal(_: str) -> None:
            if org.calls.count("modified") == 3:
                org.cursors_valid = True

        org.before = heal
        rig.open(LossWindow("o", f"changes:{CHANNEL}", "gap_overflow", now, now + 999, (), ENTITY))
        await running(ScanJob(rig.context).run, until_closed(rig))
        assert images(rig.durable) == truth(org)
        assert not rig.told.unavailable
        assert [job for job, _, _ in rig.told.failed] == ["scan"]

    virtual(main())


def test_an_operators_snapshot_with_a_condition_finds_no_deletes_and_closes_nothing() -> None:
    async def main() -> None:
        org = FakeOrg()
        rig = Harness(org)
        for number in range(25):
            put_state(rig, org.save(number))
        for number in range(12, 25):
            org.save(number, "Active")
        org.delete(record_id(1), purge=True)
        rig.durable.progress["snapshot:s-1"] = {"where": "Active", "entity": ENTITY}
        await running(ScanJob(rig.context).run, until_closed(rig))
        assert len(rig.arrivals(RowsRead)) == 2
        assert rig.arrivals(RowsRead)[0].job_id == "s-1"
        assert record_id(1) in images(rig.durable)
        assert not [each for closed in rig.arrivals(Closed) for each in closed.closings]

    virtual(main())


def test_an_operators_whole_snapshot_finds_deletes_and_survives_a_kill() -> None:
    async def main() -> None:
        org = FakeOrg()
        durable = Durable()
        first = Harness(org, durable, kill_after=2)
        for number in range(25):
            put_state(first, org.save(number))
        org.delete(record_id(1), purge=True)
        durable.progress["snapshot:s-1"] = {"where": None, "entity": None}
        await running(ScanJob(first.context).run, first.killed.wait())
        second = Harness(org, durable)
        await running(ScanJob(second.context).run, until_closed(second))
        assert images(durable) == truth(org)
        assert {each.job_id for each in second.arrivals(RowsRead)} == {"s-1"}

    virtual(main())


def test_a_condition_the_org_refuses_ends_the_request() -> None:
    async def main() -> None:
        rig = Harness(FakeOrg())
        rig.durable.progress["snapshot:s-1"] = {"where": "broken", "entity": ENTITY}
        await running(ScanJob(rig.context).run, until_closed(rig))
        assert rig.told.unavailable == [("snapshot where broken", ENTITY)]

    virtual(main())


def test_a_channel_of_several_objects_is_scanned_object_by_object() -> None:
    async def main() -> None:
        org = FakeOrg(refused={"scan:Contact"})
        rig = Harness(org, entity=None, entities=("Contact", ENTITY, "Account"))
        for number in range(15):
            org.save(number)
            org.save(number, entity="Account")
            org.save(number, entity="Contact")
        rig.open(replace(lost(org), entity=None))

        async def story() -> None:
            await asyncio.sleep(1800)
            assert images(rig.durable) == truth(org)
            assert images(rig.durable, "Account") == truth(org, "Account")
            assert rig.durable.windows
            assert rig.told.unavailable == [("scan", "Contact")]
            org.refused.clear()
            await until_closed(rig)

        await running(ScanJob(rig.context).run, story())
        assert images(rig.durable, "Contact") == truth(org, "Contact")

    virtual(main())


# Bulk


def test_a_bulk_scan_reads_again_what_moved_since_the_job_was_made() -> None:
    """Rows of a job are as old as the job; events and gaps that came since must not be undone by them."""

    async def main() -> None:
        org = FakeOrg()
        rig = Harness(org, pace=replace(PACE, bulk_above=20))
        for number in range(120):
            put_state(rig, org.save(number, at_ms=org.now_ms() - DAY), commit_ms=org.now_ms() - DAY)
        await asyncio.sleep(10)

        def move(name: str) -> None:
            if name == "bulk_page" and org.rows[record_id(7)].status == "New":
                for number in (7, 8, 99):
                    put_state(rig, org.save(number, "Moved"), commit_ms=org.now_ms())
                org.save(9, "Silently")
                put_state(rig, record_id(9), stale=True)

        org.before = move
        rig.open(lost(org))
        await running(ScanJob(rig.context).run, until_closed(rig))
        assert images(rig.durable) == truth(org)
        assert org.asked == [(record_id(7), record_id(8), record_id(9)), (record_id(99),)]
        chunks = [each for each in rig.arrivals(RowsRead) if len(each.rows) > 3]
        assert [len(each.rows) for each in chunks] == [7] + [10] * 8 + [9] + [10] * 2
        assert all(each.mark is not None for each in chunks)
        assert org.bulk_ended == ["750000"]
        assert not rig.marks

    virtual(main())


@pytest.mark.parametrize("refused", ["bulk_start", "bulk_page"])
def test_without_bulk_the_rest_api_is_used(refused: str) -> None:
    async def main() -> None:
        org = FakeOrg(refused={refused})
        rig = Harness(org, pace=replace(PACE, bulk_above=20))
        for number in range(30):
            org.save(number)
        rig.open(lost(org))
        await running(ScanJob(rig.context).run, until_closed(rig))
        assert images(rig.durable) == truth(org)
        assert org.calls.count("scan") == 3
        assert org.calls.count(refused) == (1 if refused == "bulk_start" else 2)

    virtual(main())


def test_a_bulk_scan_reads_again_what_ended_just_before_the_job() -> None:
    """What the platform computes after the end comes without an event; the job's rows may be older than that."""

    async def main() -> None:
        org = FakeOrg()
        rig = Harness(org, pace=replace(PACE, bulk_above=20))
        for number in range(40):
            org.save(number, "Ended" if number % 2 else "Active", at_ms=org.now_ms() - (DAY if number < 38 else 0))
        rig.open(lost(org))
        await running(ScanJob(rig.context).run, until_closed(rig))
        assert images(rig.durable) == truth(org)
        assert org.asked == [(record_id(39),)]

    virtual(main())


def test_a_state_moved_since_a_job_was_made() -> None:
    row = FakeOrg()._row
    org = FakeOrg()

    async def main() -> None:
        key = org.save(1)
        base = state_of(row(key, org.rows[key]))
        assert not moved_since(base, 100_000)
        assert not moved_since(state_of(row(key, org.rows[key]), commit_ms=97_999), 100_000)
        assert moved_since(state_of(row(key, org.rows[key]), commit_ms=98_000), 100_000)
        assert moved_since(state_of(row(key, org.rows[key]), read_ms=100_000), 100_000)
        assert moved_since(replace(base, deleted=True), 100_000)
        assert moved_since(replace(base, suspect=frozenset({"Status"})), 100_000)

    virtual(main())


def test_progress_survives_json_and_what_the_pipeline_adds() -> None:
    scan = Scan("j", "all", Purpose.RESYNC, ("w",), (ENTITY,), (ENTITY,), 5, "g", cursor="c", bulk="b", total=None)
    state = {**scan.progress().state, "repaired": 7, "windows": ["w"], "entities": [ENTITY], "left": [ENTITY]}
    assert Scan.read(state) == scan


# Random worlds


class World:
    """An org in which things happen at random while it is read.

    Args:
        seed: the same seed gives the same world.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.reason = self.random.choice(["position_lost", "wildcard", "gap_overflow"])
        self.org = FakeOrg()
        self.durable = Durable()
        bulk_above = self.random.choice([0, 10**6])
        self.pace = replace(PACE, bulk_above=bulk_above, chunk_rows=self.random.choice([3, 10]))
        self.rig = self.next_generation()

    def next_generation(self, kill_after: int | None = None) -> Harness:
        """The process as it was started again."""
        self.rig = Harness(self.org, self.durable, pace=self.pace, kill_after=kill_after)
        return self.rig

    def populate(self) -> None:
        """Records, most of them known, and losses that no event told."""
        now = self.org.now_ms()
        for number in range(self.random.randint(0, 60)):
            key = self.org.save(number, self.random.choice("ab"), at_ms=now - DAY)
            if self.reason == "gap_overflow" or self.random.random() < 0.8:
                put_state(self.rig, key)
                if self.random.random() < 0.2:
                    self.org.save(number, "changed", at_ms=now - 2000)
        for key in [key for key in self.org.rows if self.random.random() < 0.1]:
            self.org.delete(key, at_ms=now - 2000, purge=self.random.random() < 0.5)
        self.org.before = self.happen

    def happen(self, _name: str) -> None:
        """Change something while a question is answered; its event is told."""
        if self.random.random() >= 0.4:
            return
        number = self.random.randint(0, 70)
        row = self.org.rows.get(record_id(number))
        if row is not None and row.deleted_ms is not None:
            return
        if row is not None and self.random.random() < 0.3:
            self.delete(record_id(number))
            return
        key = self.org.save(number, f"event {self.random.random()}")
        self.rig.event(state_of(self.org._row(key, self.org.rows[key]), commit_ms=self.org.now_ms()))

    def delete(self, key: str) -> None:
        """Delete a record, with its event."""
        self.org.delete(key)
        state = self.rig.store.get((ENTITY, key))
        if state is not None:
            self.rig.event(replace(state, image={}, deleted=True, deleted_ms=self.org.now_ms()))

    async def run_until_killed(self) -> None:
        """Run a generation that is killed after a few arrivals, if it lasts that long."""
        rig = self.next_generation(kill_after=len(self.durable.taken) + self.random.randint(0, 4))
        async with asyncio.TaskGroup() as tasks:
            waits = [tasks.create_task(rig.killed.wait()), tasks.create_task(until_closed(rig))]
            job = tasks.create_task(ScanJob(rig.context).run())
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for each in (*waits, job):
                each.cancel()

    @property
    def done(self) -> bool:
        """Whether nothing is left to scan."""
        return not self.durable.windows and not self.durable.progress


@pytest.mark.parametrize("seed", range(25))
def test_whatever_happens_under_a_scan_the_images_end_as_the_org_has_them(seed: int) -> None:
    """Records change, come and go between the chunks; kills interrupt; events tell what moved."""

    async def main() -> None:
        world = World(seed)
        world.populate()
        await asyncio.sleep(10)
        world.rig.open(lost(world.org, world.reason))
        for _ in range(world.random.randint(0, 4)):
            if not world.done:
                await world.run_until_killed()
        if not world.done:
            rig = world.next_generation()
            await running(ScanJob(rig.context).run, until_closed(rig))
        assert images(world.durable) == truth(world.org)

    virtual(main())


def test_an_object_that_is_not_described_yet_does_not_hold_up_the_others() -> None:
    async def main() -> None:
        org = FakeOrg()
        rig = Harness(org, entity=None, entities=("Contact", ENTITY))
        rig.plans.discard("Contact")
        org.save(1)
        org.save(1, entity="Contact")
        rig.open(replace(lost(org), entity=None))

        async def story() -> None:
            await asyncio.sleep(60)
            assert images(rig.durable) == truth(org)
            assert rig.durable.windows
            rig.plans.add("Contact")
            await until_closed(rig)

        await running(ScanJob(rig.context).run, story())
        assert images(rig.durable, "Contact") == truth(org, "Contact")

    virtual(main())
