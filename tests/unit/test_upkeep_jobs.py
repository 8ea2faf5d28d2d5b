"""Refreshes, reconciliation, expiry, and all jobs together, in virtual time."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from consumer.errors import SalesforceUnavailableError, StoreError
from consumer.events import LossWindow
from consumer.tracking.arrivals import Arrival, Closed, Expired, FactsRead, MetricsRead, Purpose, Reconciled, RowsRead
from consumer.tracking.changes import TrackedChange
from consumer.tracking.refresh import after_event, after_read
from consumer.tracking.values import FieldChange, LedgerEntry, RecordState, Refresh, Row
from consumer.upkeep.expire import ExpireJob
from consumer.upkeep.reconcile import ReconcileJob, agrees, agrees_gone, digest_of
from consumer.upkeep.refresh import RefreshJob
from consumer.upkeep.upkeep import Upkeep
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
PROGRESS = f"poll:reconcile:{ENTITY}"


# Refresh


def owing(rig: Harness, key: str, refresh: Refresh) -> None:
    """Make a read of a record owed."""
    rig.store.put_ledger(LedgerEntry(ENTITY, key, refresh=refresh))


def judged(rig: Harness) -> None:
    """Judge what is owed as the pipeline does."""

    def take(arrival: Arrival) -> None:
        match arrival:
            case RowsRead():
                done: dict[str, bool | None] = dict.fromkeys(
                    (*(row.record_id for row in arrival.rows), *arrival.missing)
                )
            case MetricsRead():
                done = {each: each in arrival.metrics for each in arrival.asked}
            case _:
                return
        for key, have in done.items():
            entry = rig.store.ledger((ENTITY, key))
            if entry is not None and entry.refresh is not None:
                left = after_read(entry.refresh, arrival.answered_ms, have_metrics=have)
                rig.store.put_ledger(replace(entry, refresh=left))

    rig.on_take = take


def test_ended_sessions_are_read_again_and_their_metrics_joined() -> None:
    async def main() -> None:
        org = FakeOrg()
        rig = Harness(org, facts={ENTITY: facts_for(has_metrics=True)})
        judged(rig)
        keys = [org.save(number, "Ended") for number in range(450)]
        org.metrics_rows = {key: {"AgentMessageCount": 3} for key in keys}
        for key in keys[:-1]:
            owing(rig, key, Refresh(org.now_ms(), 0, "ended"))
        owing(rig, keys[-1], Refresh(org.now_ms() + HOUR, 0, "ended"))

        async def story() -> None:
            await rig.until(lambda: len(rig.durable.ledgers) == 1)
            assert org.now_ms() < 10**15
            assert [len(each.asked) for each in rig.arrivals(MetricsRead)] == [200, 200, 49]
            assert {each.purpose for each in rig.arrivals(RowsRead)} == {Purpose.REFRESH}
            kinds = [type(each) for each in rig.durable.taken[:2]]
            assert kinds == [MetricsRead, RowsRead]
            await rig.until(lambda: not rig.durable.ledgers)

        await running(RefreshJob(rig.context).run, story())
        assert not rig.marks

    virtual(main())


def test_metrics_that_are_late_are_asked_for_after_1_5_and_30_minutes_and_given_up() -> None:
    async def main() -> None:
        org = FakeOrg()
        rig = Harness(org, facts={ENTITY: facts_for(has_metrics=True)})
        judged(rig)
        begun = org.now_ms()
        owing(rig, org.save(1, "Ended"), Refresh(begun, 0, "ended"))
        await running(RefreshJob(rig.context).run, rig.until(lambda: not rig.durable.ledgers))
        minutes = [round((each.answered_ms - begun) / 60_000) for each in rig.arrivals(MetricsRead)]
        assert minutes == [0, 1, 6, 36]

    virtual(main())


def test_a_record_that_stays_due_is_not_asked_for_without_end() -> None:
    async def main() -> None:
        org = FakeOrg()
        rig = Harness(org, facts={ENTITY: facts_for(has_metrics=True)})
        owing(rig, org.save(1, "Ended"), Refresh(org.now_ms(), 0, "unknown"))
        await running(RefreshJob(rig.context).run, asyncio.sleep(600))
        assert 10 <= org.calls.count("rows_by_id") <= 21
        assert "metrics" not in org.calls

    virtual(main())


def state(status: str, **given: Any) -> RecordState:
    """A state with a status."""
    return RecordState(ENTITY, record_id(1), {"Status": status}, b"{}", **given)


def change(op: Any = "u", *fields: str, **given: Any) -> TrackedChange:
    """A change of some fields by an event."""
    told = tuple(FieldChange(each, None, None) for each in fields)
    given = {"record_index": 0, "before": b"{}", **given}
    kinds: Any = {"before_kind": "full", "after_kind": "full", "unknown_fields": (), "version": 1}
    return TrackedChange(
        record_id=record_id(1), change_id="c", op=op, change_type=None, after=b"{}", stamp_ms=5000, fields=told,
        **kinds, **given,
    )  # fmt: skip


def test_what_makes_a_read_due() -> None:
    ended = Refresh(65_000, 0, "ended")
    assert after_event(ENTITY, change("u", "Status"), state("Ended"), 60_000) == ended
    assert after_event(ENTITY, change("c"), state("Ended"), 60_000) == ended
    assert after_event(ENTITY, change("u", "CaseId"), state("Ended"), 60_000) is None
    assert after_event(ENTITY, change("u", "Status"), state("Active"), 60_000) is None
    assert after_event("Case", change("u", "Status"), state("Ended"), 60_000) is None
    assert after_event(ENTITY, change("d"), state("Ended", deleted=True), 60_000) is None
    assert after_event(ENTITY, change("d"), None, 60_000) is None
    row = change("r", record_index=None, changed_fields=("Status",))
    assert after_event(ENTITY, row, state("Ended"), 60_000) == ended
    assert after_event(ENTITY, replace(row, before=None), state("Ended"), 60_000) is None
    first = replace(row, before=None)
    assert after_event(ENTITY, first, state("Ended", row_read_ms=64_999), 60_000) == ended, "read too soon"
    assert after_event(ENTITY, first, state("Ended", row_read_ms=65_000), 60_000) is None
    unknown = Refresh(5000, 0, "unknown")
    assert after_event(ENTITY, change("u", "CaseId"), state("Active", unknown=("Origin",)), 60_000) == unknown
    assert after_event(ENTITY, row, state("Active", unknown=("Origin",)), 60_000) is None


def test_fields_that_events_or_the_user_never_have_are_no_reason_to_read() -> None:
    facts = facts_for(not_in_events=frozenset({"PreviewDetails"}), visible=frozenset({"PreviewDetails", "Status"}))
    partial = state("Active", unknown=("PreviewDetails", "Secret__c"))
    assert after_event(ENTITY, change("c"), partial, 60_000, facts=facts) is None
    owed = Refresh(9, 0, "ended")
    assert after_event(ENTITY, change("u"), state("Ended", unknown=("A",)), 60_000, owed=owed) is None


def test_what_is_owed_after_an_answer() -> None:
    owed = Refresh(1000, 0, "ended")
    assert after_read(owed, 1000, have_metrics=None) is None
    assert after_read(owed, 999, have_metrics=None) == owed
    assert after_read(owed, 2000, have_metrics=True) == owed
    assert after_read(owed, 2000, have_metrics=False) == Refresh(62_000, 1, "ended")
    assert after_read(Refresh(62_000, 1, "ended"), 2000, have_metrics=None) == Refresh(62_000, 1, "ended")
    assert after_read(Refresh(1, 3, "ended"), 2000, have_metrics=False) is None


# Reconciliation


def row(key: str, stamp_ms: int, *, deleted: bool = False) -> Row:
    """A row with only its stamps."""
    org = FakeOrg()
    org.save(1, at_ms=stamp_ms)
    return replace(org._row(key, next(iter(org.rows.values()))), record_id=key, deleted=deleted)


def test_what_agrees() -> None:
    key, stamp = record_id(1), 1_790_000_000_000
    known = state_of(row(key, stamp))
    assert agrees(known, row(key, stamp))
    assert agrees(state_of(row(key, stamp + SECOND)), row(key, stamp))
    assert not agrees(state_of(row(key, stamp - SECOND)), row(key, stamp))
    assert not agrees(None, row(key, stamp))
    assert not agrees(replace(known, deleted=True, deleted_ms=stamp - 1), row(key, stamp))
    assert agrees(replace(known, deleted=True, deleted_ms=stamp + 5000), row(key, stamp))
    assert agrees(state_of(row(key, stamp - SECOND), stale=True), row(key, stamp))
    other = replace(known, image={**known.image, "Status": "Lost"})
    assert not agrees(other, row(key, stamp)), "equal stamps prove nothing: a lost change can lie behind a later one"
    assert agrees(other, row(key, stamp), frozenset({"Status"})), "no event carries a derived field"
    assert agrees(replace(other, incomplete=frozenset({"Status"})), row(key, stamp))
    assert agrees(replace(known, image={}), row(key, stamp)), "what is unknown is not wrong"
    gone = row(key, stamp + SECOND, deleted=True)
    assert not agrees(known, gone)
    assert agrees(replace(known, deleted=True), gone)
    assert agrees(None, gone)
    assert agrees_gone(state_of(row(key, stamp + 9000)), stamp + SECOND)


def test_the_digest_is_over_sorted_ids_and_times() -> None:
    assert digest_of([("b", 2), ("a", 1)]) == sha256(b"a:1\nb:2\n").hexdigest()


def test_each_closed_hour_is_compared_once_and_differences_are_named() -> None:
    async def main() -> None:
        org = FakeOrg(pages=2)
        await asyncio.sleep(HOUR / 1000 - org.now_ms() % HOUR / 1000 + 60)
        rig = Harness(org)
        hour = org.now_ms() // HOUR * HOUR

        async def story() -> None:
            await rig.until(lambda: PROGRESS in rig.durable.progress)
            assert rig.durable.progress[PROGRESS]["to_ms"] == hour
            for number in range(7):
                key = org.save(number)
                rig.store.put(state_of(org._row(key, org.rows[key])))
            org.save(3, "Missed", at_ms=org.now_ms() + SECOND)
            org.save(9, "Never heard of")
            org.delete(record_id(5), purge=True)
            moved = org.now_ms() + HOUR
            org.save(6, "Later", at_ms=moved)
            await rig.until(lambda: bool(rig.arrivals(Reconciled)))
            (first,) = rig.arrivals(Reconciled)
            assert (first.from_ms, first.to_ms) == (hour, hour + HOUR)
            assert org.now_ms() >= hour + HOUR + PACE.reconcile_after
            assert set(first.differing) == {record_id(3), record_id(5), record_id(9)}
            assert first.records == 6
            assert org.calls == ["deleted_ids", "modified"]
            key = record_id(6)
            rig.store.put(state_of(org._row(key, org.rows[key])))
            await rig.until(lambda: len(rig.arrivals(Reconciled)) == 2)
            second = rig.arrivals(Reconciled)[1]
            assert (second.from_ms, second.differing, second.records) == (hour + HOUR, (), 1)

        await running(ReconcileJob(rig.context).run, story())

    virtual(main())


def test_no_hour_is_judged_while_the_whole_object_is_in_doubt() -> None:
    async def main() -> None:
        org = FakeOrg()
        rig = Harness(org)
        now = org.now_ms()
        rig.open(LossWindow("w", f"changes:{CHANNEL}", "position_lost", now, now, (), None))

        async def story() -> None:
            await asyncio.sleep(4 * 3600)
            assert not rig.durable.taken
            rig.durable.windows.clear()
            rig.open(LossWindow("g", f"changes:{CHANNEL}", "gap_update", now, now, (record_id(1),), ENTITY))
            await rig.until(lambda: bool(rig.durable.taken))
            assert rig.durable.progress[PROGRESS]["to_ms"] == org.now_ms() // HOUR * HOUR

        await running(ReconcileJob(rig.context).run, story())

    virtual(main())


def test_an_hour_whose_delete_log_is_purged_asks_for_a_look_at_everything() -> None:
    async def main() -> None:
        org = FakeOrg()
        now = org.now_ms()
        rig = Harness(org, Durable(progress={PROGRESS: {"to_ms": now // HOUR * HOUR - 20 * DAY}}))
        org.log_from_ms = now - 10 * DAY
        await running(ReconcileJob(rig.context).run, rig.until(lambda: len(rig.durable.progress) == 2))
        assert not rig.arrivals(Reconciled)
        assert rig.durable.progress[PROGRESS]["to_ms"] == org.now_ms() // HOUR * HOUR
        (request,) = [each for each in rig.durable.progress if each.startswith("snapshot:")]
        assert rig.durable.progress[request] == {"entity": ENTITY, "where": ""}

    virtual(main())


def test_a_delete_log_that_is_not_complete_yet_is_waited_for() -> None:
    async def main() -> None:
        org = FakeOrg(log_lag_ms=30 * 60_000)
        now = org.now_ms()
        rig = Harness(org, Durable(progress={PROGRESS: {"to_ms": now // HOUR * HOUR}}))
        await running(ReconcileJob(rig.context).run, rig.until(lambda: bool(rig.arrivals(Reconciled))))
        (read,) = rig.arrivals(Reconciled)
        assert org.now_ms() >= read.to_ms + 30 * 60_000

    virtual(main())


def test_reconciliation_can_be_switched_off() -> None:
    async def main() -> None:
        rig = Harness(FakeOrg(), pace=replace(PACE, reconcile=False))
        await ReconcileJob(rig.context).run()

    virtual(main())


# Expiry


def test_states_of_deleted_records_go_after_the_grace() -> None:
    async def main() -> None:
        org = FakeOrg()
        rig = Harness(org)
        for number in range(1200):
            key = org.save(number)
            rig.store.put(
                replace(state_of(org._row(key, org.rows[key])), deleted=number > 0, deleted_ms=org.now_ms() - number)
            )

        async def story() -> None:
            await asyncio.sleep(6 * 86_400)
            assert not rig.durable.taken
            await rig.until(lambda: len(rig.durable.states) == 1)
            assert org.now_ms() >= PACE.delete_grace
            assert [len(each.record_ids) for each in rig.arrivals(Expired)] == [500, 500, 199]

        await running(ExpireJob(rig.context).run, story())

    virtual(main())


# Everything


def test_all_jobs_run_side_by_side_through_an_outage_of_the_org() -> None:
    async def main() -> None:
        org = FakeOrg()
        for name in ("describe", "rows_by_id", "scan", "history", "metrics", "count"):
            org.errors[name] = deque([SalesforceUnavailableError("down")] * 5)
        facts = facts_for(has_history=True, has_metrics=True, tracked=frozenset({"Status"}))
        rig = Harness(org, facts={ENTITY: facts})
        keys = [org.save(number, "Active") for number in range(30)]
        now = org.now_ms()
        rig.open(LossWindow("start", f"changes:{CHANNEL}", "no_snapshot", None, now, (), ENTITY))
        rig.open(LossWindow("gap", f"changes:{CHANNEL}", "gap_update", now, now, (keys[0],), ENTITY))
        await running(Upkeep(rig.context).run, rig.until(lambda: not rig.durable.windows))
        assert {key for _, key in rig.durable.states} == set(keys)
        closings = [each for read in rig.arrivals(Closed) for each in read.closings]
        assert {each.window_id for each in closings} == {"start", "gap"}
        assert all(each.tracked_history for each in closings)
        assert rig.arrivals(FactsRead)
        assert {job for job, _, _ in rig.told.failed} >= {"facts", "repair", "scan", "history"}
        assert not rig.told.unavailable

    virtual(main())


@pytest.mark.parametrize("kill_after", range(8))
def test_all_jobs_go_on_after_a_kill(kill_after: int) -> None:
    async def main() -> None:
        org = FakeOrg()
        facts = facts_for(has_history=True, tracked=frozenset({"Status"}))
        durable = Durable()
        rig = Harness(org, durable, facts={ENTITY: facts}, kill_after=kill_after)
        keys = [org.save(number, "Active") for number in range(30)]
        now = org.now_ms()
        rig.open(LossWindow("start", f"changes:{CHANNEL}", "no_snapshot", None, now, (), ENTITY))
        rig.open(LossWindow("gap", f"changes:{CHANNEL}", "gap_update", now, now, (keys[0],), ENTITY))
        await running(Upkeep(rig.context).run, rig.killed.wait())
        rig = Harness(org, durable, facts={ENTITY: facts})
        await running(Upkeep(rig.context).run, rig.until(lambda: not durable.windows))
        assert {key for _, key in durable.states} == set(keys)
        assert not [each for each in durable.progress if each.startswith(("scan:", "repair:"))]

    virtual(main())


def test_a_pipeline_that_fails_ends_the_jobs() -> None:
    async def main() -> None:
        rig = Harness(FakeOrg())

        def fail(_: Arrival) -> None:
            raise StoreError("the disk is full")

        rig.on_take = fail
        with pytest.raises(StoreError):
            await Upkeep(rig.context).run()

    virtual(main())
