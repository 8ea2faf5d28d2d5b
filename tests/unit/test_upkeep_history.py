"""The history poll and its back-fill, in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from consumer.tracking.arrivals import HistoryRead, SettleDue
from consumer.tracking.values import EntityFacts, HistoryFact, LedgerEntry, Match
from consumer.upkeep.history_poll import HistoryJob
from tests.fake_org import ENTITY, HOUR, PACE, SECOND, Durable, FakeOrg, Harness, facts_for, record_id, running
from tests.fakes import virtual

TRACKED = facts_for(has_history=True, tracked=frozenset({"Status"}))
NAME = f"poll:history:{ENTITY}"
DAY = 24 * HOUR


def harness(org: FakeOrg, durable: Durable | None = None, *, facts: EntityFacts = TRACKED, **given: object) -> Harness:
    """A harness of an object with tracked history."""
    return Harness(org, durable, facts={ENTITY: facts}, **given)  # type: ignore[arg-type]  # passed through


def complete_to(rig: Harness) -> int:
    """How far the poll says it is complete."""
    found: int = rig.durable.progress.get(NAME, {}).get("complete_to_ms", 0)
    return found


def fact(number: int) -> LedgerEntry:
    """A ledger entry with one fact."""
    said = HistoryFact(
        f"c{number}", 1, False, record_id(number), "Status", "Status", None, "a", None, "known", None, None, 0, "ms",
        None, "change_event", Match.PENDING,
    )  # fmt: skip
    return LedgerEntry(ENTITY, record_id(number), (said,))


def test_a_first_start_reads_what_was_before_and_then_polls() -> None:
    async def main() -> None:
        org = FakeOrg()
        start = org.now_ms()
        old = [org.tell(number, record_id(number), start - DAY + HOUR + number * 7 * SECOND) for number in range(23)]
        org.tell(99, record_id(9), start - 2 * DAY)
        rig = harness(org)

        async def story() -> None:
            await rig.until(lambda: complete_to(rig) > 0)
            new = org.tell(50, record_id(1), org.now_ms())
            await rig.until(lambda: complete_to(rig) > new.created_ms)
            reads = rig.arrivals(HistoryRead)
            assert [row for each in reads if each.backfill for row in each.rows] == old
            assert [row for each in reads if not each.backfill for row in each.rows] == [new]
            assert all(each.complete_to_ms is None for each in reads if each.backfill)

        await running(HistoryJob(rig.context).run, story())

    virtual(main())


def test_a_backfill_killed_at_every_page_neither_misses_nor_repeats_a_row() -> None:
    """Several rows share a second, and a page ends inside of it."""

    async def main() -> None:
        for kill_after in range(1, 9):
            org = FakeOrg(pages=4)
            start = org.now_ms()
            for number in range(30):
                org.tell(number, record_id(number), start - HOUR + number // 7 * 5 * SECOND)
            durable = Durable()
            first = harness(org, durable, kill_after=kill_after)
            await running(HistoryJob(first.context).run, first.killed.wait())
            await asyncio.sleep(90)
            second = harness(org, durable)
            await running(HistoryJob(second.context).run, second.until(lambda rig=second: complete_to(rig) > 0))  # type: ignore[misc]  # bound now
            told = Counter(
                row.history_id for each in second.arrivals(HistoryRead) if each.backfill for row in each.rows
            )
            assert len(told) == 30
            assert set(told.values()) == {1}

    virtual(main())


def test_without_a_backfill_nothing_from_before_the_start_is_read() -> None:
    async def main() -> None:
        org = FakeOrg()
        org.tell(1, record_id(1), org.now_ms() - 10 * SECOND)
        rig = harness(org, pace=replace(PACE, backfill=0))

        async def story() -> None:
            await asyncio.sleep(5)
            new = org.tell(2, record_id(1), org.now_ms())
            await rig.until(lambda: complete_to(rig) > new.created_ms)
            assert {row.history_id for each in rig.arrivals(HistoryRead) for row in each.rows} == {new.history_id}

        await running(HistoryJob(rig.context).run, story())

    virtual(main())


def test_rows_committed_late_are_read_by_the_overlap_and_young_ones_wait() -> None:
    async def main() -> None:
        org = FakeOrg(pages=100)
        rig = harness(org)

        async def story() -> None:
            await rig.until(lambda: complete_to(rig) > 0)
            await asyncio.sleep(600)
            late = org.tell(1, record_id(1), org.now_ms() - 240 * SECOND)
            young = org.tell(2, record_id(2), org.now_ms())
            before = len(rig.durable.taken)
            await rig.until(lambda: any(late in each.rows for each in rig.arrivals(HistoryRead)))
            (read,) = [each for each in rig.durable.taken[before:] if isinstance(each, HistoryRead)][:1]
            assert late in read.rows
            for each in rig.arrivals(HistoryRead):
                if each.complete_to_ms is not None:
                    assert each.complete_to_ms <= each.answered_ms - SECOND - PACE.history_settle
            await rig.until(lambda: complete_to(rig) > young.created_ms)
            assert any(young in each.rows for each in rig.arrivals(HistoryRead))

        await running(HistoryJob(rig.context).run, story())

    virtual(main())


def test_the_newest_seconds_are_left_out_because_they_may_still_be_filling() -> None:
    async def main() -> None:
        org = FakeOrg(pages=100)
        rig = harness(org, Durable(progress={NAME: {"complete_to_ms": org.now_ms() - HOUR, "floor_ms": 0}}))

        def tell(_: str) -> None:
            org.tell(len(org.calls), record_id(1), org.now_ms() - 10 * SECOND)

        org.before = tell
        await running(HistoryJob(rig.context).run, asyncio.sleep(600))
        ages = [each.answered_ms - row.created_ms for each in rig.arrivals(HistoryRead) for row in each.rows]
        assert len(ages) > 8
        assert min(ages) >= PACE.history_settle

    virtual(main())


def test_the_watermark_moves_only_with_the_last_page_and_a_kill_repeats_the_window() -> None:
    async def main() -> None:
        org = FakeOrg(pages=3)
        durable = Durable(progress={NAME: {"complete_to_ms": org.now_ms() - HOUR, "floor_ms": 0}})
        rows = [org.tell(number, record_id(number), org.now_ms() - 50 * 60 * SECOND + number) for number in range(10)]
        first = harness(org, durable, kill_after=3)
        began = complete_to(first)
        await running(HistoryJob(first.context).run, first.killed.wait())
        assert complete_to(first) == began
        second = harness(org, durable)
        await running(HistoryJob(second.context).run, second.until(lambda: complete_to(second) > began))
        reads = second.arrivals(HistoryRead)
        assert [each.complete_to_ms is None for each in reads] == [True] * 6 + [False]
        assert [row for each in reads[3:] for row in each.rows] == rows

    virtual(main())


def test_an_expired_cursor_restarts_the_window() -> None:
    async def main() -> None:
        org = FakeOrg(pages=3)
        durable = Durable(progress={NAME: {"complete_to_ms": org.now_ms() - HOUR, "floor_ms": 0}})
        rows = {org.tell(n, record_id(n), org.now_ms() - 50 * 60 * SECOND).history_id for n in range(10)}
        org.cursors_valid = False
        rig = harness(org, durable)
        began = complete_to(rig)
        await running(HistoryJob(rig.context).run, rig.until(lambda: complete_to(rig) > began))
        assert {row.history_id for each in rig.arrivals(HistoryRead)[1:] for row in each.rows} == rows
        assert [job for job, _, _ in rig.told.failed] == ["history"]
        assert not rig.told.unavailable

    virtual(main())


def test_a_clock_ahead_of_the_org_claims_nothing_that_has_not_settled() -> None:
    async def main() -> None:
        org = FakeOrg()
        durable = Durable(progress={NAME: {"complete_to_ms": org.now_ms() - HOUR, "floor_ms": 0}})
        rig = harness(org, durable)
        rig.context = replace(rig.context, now_ms=lambda: org.now_ms() + 300 * SECOND)
        began = complete_to(rig)
        await running(HistoryJob(rig.context).run, rig.until(lambda: complete_to(rig) > began))
        assert complete_to(rig) <= org.now_ms() - PACE.history_settle

    virtual(main())


def test_tracking_that_is_off_is_told_once_and_its_facts_are_settled() -> None:
    async def main() -> None:
        org = FakeOrg()
        rig = harness(org, facts=facts_for(has_history=True))
        rig.store.put_ledger(fact(1))

        async def story() -> None:
            await asyncio.sleep(7200)
            assert rig.told.unavailable == [("history tracking", ENTITY)]
            assert not org.calls
            due = rig.arrivals(SettleDue)
            assert due[0].record_ids == (record_id(1),)
            rig.facts[ENTITY] = TRACKED
            await rig.until(lambda: complete_to(rig) > 0)

        await running(HistoryJob(rig.context).run, story())

    virtual(main())


def test_facts_are_settled_after_each_poll_as_long_as_that_makes_way() -> None:
    async def main() -> None:
        org = FakeOrg()
        durable = Durable(progress={NAME: {"complete_to_ms": org.now_ms() - HOUR, "floor_ms": 0}})
        rig = harness(org, durable)
        for number in range(2500):
            rig.store.put_ledger(fact(number))

        def settle(arrival: object) -> None:
            if isinstance(arrival, SettleDue):
                for key in arrival.record_ids[: 1000 if len(durable.ledgers) > 2000 else 0]:
                    rig.store.put_ledger(LedgerEntry(ENTITY, key))

        rig.on_take = settle
        began = complete_to(rig)

        async def story() -> None:
            await rig.until(lambda: complete_to(rig) > began)
            await asyncio.sleep(30)
            due = rig.arrivals(SettleDue)
            assert [len(each.record_ids) for each in due] == [1000, 1000]
            assert {each.complete_to_ms for each in due} == {complete_to(rig)}

        await running(HistoryJob(rig.context).run, story())

    virtual(main())


@pytest.mark.parametrize("factor", [1.0, 4.0])
def test_polls_slow_down_as_calls_run_out(factor: float) -> None:
    async def main() -> None:
        org = FakeOrg(pace_factor=factor)
        durable = Durable(progress={NAME: {"complete_to_ms": org.now_ms() - HOUR, "floor_ms": 0}})
        rig = harness(org, durable)
        await running(HistoryJob(rig.context).run, asyncio.sleep(3600))
        assert abs(org.calls.count("history") - 60 / factor) <= 2

    virtual(main())


def test_refused_history_is_told_once_and_asked_again_hourly() -> None:
    async def main() -> None:
        org = FakeOrg(refused={"history"})
        rig = harness(org)

        async def story() -> None:
            await asyncio.sleep(2.5 * 3600)
            assert org.calls.count("history") == 3
            assert rig.told.unavailable == [("history", ENTITY)]
            org.refused.clear()
            await rig.until(lambda: complete_to(rig) > 0)

        await running(HistoryJob(rig.context).run, story())

    virtual(main())
