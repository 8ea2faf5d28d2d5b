"""Owed reads, polls and sweeps of share rows, in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest

from consumer.delivery.headers import iso_utc
from consumer.errors import SalesforceUnavailableError
from consumer.pages import OrgDefault, SharesPage
from consumer.tracking.access import AccessState, ShareCause, SharesDue
from consumer.tracking.arrivals import SharesRead
from consumer.tracking.sharing_budget import calls_of_sweep
from consumer.tracking.values import LedgerEntry, RecordState
from consumer.upkeep.share_budget import DAY_MS, ShareBudget
from consumer.upkeep.shares import SharesJob
from consumer.upkeep.sweep_state import Sweep
from tests.fake_org import ENTITY, HOUR, SECOND, Durable, record_id, running
from tests.fake_sharing import QUEUE, REP, SHARED, SHARING, TEAM, SharedHarness, SharedOrg
from tests.fakes import virtual

MINUTE = 60 * SECOND


def swept(rig: SharedHarness) -> int:
    """When the last complete sweep began."""
    found: int = rig.durable.progress.get(f"swept:{ENTITY}", {}).get("begun_ms", 0)
    return found


def owned(rig: SharedHarness, number: int, due: SharesDue | None = None) -> str:
    """Make a record known, and a read of its rows owed."""
    key = record_id(number)
    rig.store.put(RecordState(ENTITY, key, {"OwnerId": QUEUE}, b""))
    if due is not None:
        rig.store.put_ledger(LedgerEntry(ENTITY, key, shares=due))
    return key


def told_in(story: Callable[[SharedOrg, SharedHarness], Awaitable[None]], **given: object) -> SharedHarness:
    """Run the job until a story is over, in an org of twelve sessions with an owner's row each."""

    async def main() -> SharedHarness:
        org = SharedOrg()
        for number in range(12):
            org.share(record_id(number), QUEUE, "Owner", "All", ago_ms=HOUR)
        rig = SharedHarness(org, **given)  # type: ignore[arg-type]  # passed through
        await running(SharesJob(rig.context, rig.sharing).run, story(org, rig))
        return rig

    return virtual(main())


def test_the_first_sweep_is_the_baseline_and_tells_every_share_once() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        await rig.until(lambda: swept(rig) > 0)
        await asyncio.sleep(1)

    rig = told_in(story)
    assert rig.facts_told() == [("granted", QUEUE, "All", "baseline")] * 12
    assert {each["grantee_name"] for each in rig.records["sharing"]} == {"Support"}
    assert {each["not_before"] for each in rig.records["sharing"]} == {None}
    assert rig.told.swept_rows == [12]
    assert len(rig.durable.accesses) == 12
    assert rig.durable.progress[f"org-default:{ENTITY}"]["internal"] == "Private"
    assert f"sweep:{ENTITY}" not in rig.durable.progress


def test_sweeps_follow_each_other_as_wanted_and_find_what_was_revoked() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        await rig.until(lambda: swept(rig) > 0)
        first = swept(rig)
        org.unshare(record_id(3), QUEUE, "Owner")
        await rig.until(lambda: any(each[0] == "revoked" for each in rig.facts_told()))
        assert org.now_ms() - first >= SHARING.sweep, "no poll could have found it"
        await rig.until(lambda: swept(rig) > first)
        assert swept(rig) - first < SHARING.sweep + 2 * MINUTE

    rig = told_in(story)
    assert rig.facts_told()[12:] == [("revoked", QUEUE, "All", "sweep")]
    (fact,) = rig.records["sharing"][12:]
    assert fact["record_id"] == record_id(3)


def test_a_record_whose_rows_are_all_gone_is_read_by_id() -> None:
    """No page of a sweep names it any more."""

    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        await rig.until(lambda: swept(rig) > 0)
        org.shares = {key: row for key, row in org.shares.items() if key[0] != record_id(11)}
        await rig.until(lambda: ("revoked", QUEUE, "All", "sweep") in rig.facts_told())

    rig = told_in(story)
    assert (record_id(11),) in rig.org.asked


def test_records_of_an_owner_change_are_read_together_some_seconds_later_and_once_more() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        await rig.until(lambda: swept(rig) > 0)
        org.asked.clear()
        now_ms = org.now_ms()
        for number in (2, 5):
            owned(rig, number, SharesDue(now_ms + 3_000, ShareCause.OWNER_CHANGE, now_ms, now_ms, 1))
            org.unshare(record_id(number), QUEUE, "Owner")
            org.share(record_id(number), REP, "Owner", "All")
        await rig.until(lambda: len(rig.facts_told()) >= 14)
        assert org.now_ms() - now_ms < MINUTE
        await rig.until(lambda: len(rig.facts_told()) >= 16)
        assert org.now_ms() - now_ms < 2 * MINUTE

    rig = told_in(story)
    told = Counter(rig.facts_told()[12:])
    assert told == {
        ("granted", REP, "All", "owner_change"): 2,
        ("revoked", QUEUE, "All", "owner_change"): 2,
    }
    assert rig.org.asked[:2] == [(record_id(2), record_id(5))] * 2, "each call reads both"
    assert not rig.durable.ledgers


def test_polls_find_grants_between_sweeps() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        await rig.until(lambda: swept(rig) > 0)
        for number in range(12):  # more than a page
            org.share(record_id(number), TEAM, "Manual", "Edit")
        made_ms = org.now_ms()
        await rig.until(lambda: len(rig.facts_told()) >= 24)
        assert org.now_ms() - made_ms <= SHARING.poll + 10 * SECOND

    rig = told_in(story)
    assert rig.facts_told()[12:] == [("granted", TEAM, "Edit", "incremental")] * 12


def test_the_newest_rows_do_not_count_as_read() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        await rig.until(lambda: "polls" in rig.durable.progress.get(f"poll:shares:{ENTITY}", {}))
        poll = rig.durable.progress[f"poll:shares:{ENTITY}"]
        assert poll["complete_to_ms"] <= poll["polls"][-1][0] - SHARING.settle + SECOND

    told_in(story)


def test_after_a_restart_the_last_sweep_still_says_since_when_a_share_may_be_there() -> None:
    async def main() -> None:
        org = SharedOrg()
        org.share(record_id(1), QUEUE, "Owner", "All", ago_ms=HOUR)
        durable = Durable()
        rig = SharedHarness(org, durable)
        await running(SharesJob(rig.context, rig.sharing).run, rig.until(lambda: swept(rig) > 0))
        org.share(record_id(2), QUEUE, "Owner", "All")
        again = SharedHarness(org, durable)
        await running(SharesJob(again.context, again.sharing).run, again.until(lambda: bool(again.facts_told())))
        assert again.facts_told() == [("granted", QUEUE, "All", "incremental")]
        assert again.records["sharing"][0]["not_before"] is not None

    virtual(main())


def test_a_row_that_is_committed_late_with_an_older_stamp_is_found_by_the_overlap() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        await rig.until(lambda: swept(rig) > 0)
        await asyncio.sleep(600)
        row = org.share(record_id(1), TEAM, "Manual")
        org.shares[record_id(1), TEAM, "Manual"] = replace(row, modified_ms=(row.modified_ms or 0) - 90 * SECOND)
        await rig.until(lambda: len(rig.facts_told()) >= 13)

    assert told_in(story).facts_told()[12:] == [("granted", TEAM, "Read", "incremental")]


def test_a_restart_goes_on_with_the_sweep_where_it_was() -> None:
    async def main() -> None:
        org = SharedOrg(pages=3)
        for number in range(30):
            org.share(record_id(number), QUEUE, "Owner", "All", ago_ms=HOUR)
        durable = Durable()
        rig = SharedHarness(org, durable, kill_after=9)
        await running(SharesJob(rig.context, rig.sharing).run, rig.killed.wait())
        begun = durable.progress[f"sweep:{ENTITY}"]
        assert begun["cursor"] is not None
        scans = org.calls.count("shares_scan")
        again = SharedHarness(org, durable)
        await running(SharesJob(again.context, again.sharing).run, again.until(lambda: swept(again) > 0))
        assert durable.progress[f"swept:{ENTITY}"]["begun_ms"] == begun["begun_ms"]
        assert org.calls.count("shares_scan") - scans <= 30 // 2 - scans + 3, "not from the beginning"
        told = rig.records["sharing"] + again.records["sharing"]
        assert len({each["id"] for each in told}) == len(told) == 30

    virtual(main())


def test_a_sweep_does_not_read_again_what_was_read_as_a_whole_meanwhile() -> None:
    """Where records come faster than it reads by id, it would never end."""

    async def main() -> None:
        org = SharedOrg(pages=3)
        for number in range(10, 40):
            org.share(record_id(number), QUEUE, "Owner", "All", ago_ms=HOUR)
        rig = SharedHarness(org)

        async def story() -> None:
            await rig.until(lambda: rig.durable.progress.get(f"sweep:{ENTITY}", {}).get("cursor") is not None)
            now_ms = org.now_ms()
            org.share(record_id(1), QUEUE, "Owner", "All")  # behind the sweep
            owned(rig, 1, SharesDue(now_ms, ShareCause.OWNER_CHANGE, now_ms - 5_000, now_ms - 5_000, 1, created=True))
            await rig.until(lambda: swept(rig) > 0)

        await running(SharesJob(rig.context, rig.sharing).run, story())
        assert rig.facts_told().count(("granted", QUEUE, "All", "owner_change")) == 1
        assert [each for each in org.asked if record_id(1) in each] == [(record_id(1),)]

    virtual(main())


def test_a_sweep_rests_longer_than_it_works() -> None:
    """So that the stream waits for its pages a small part of the time only, however fast they could come."""

    async def main() -> None:
        rig = SharedHarness(SharedOrg())
        budget = ShareBudget(rig.context, replace(SHARING, sweep=60_000))
        sweep = Sweep(ENTITY, ShareCause.SWEEP, 0, "", total=1_000_000)
        assert budget.chunk_rest_ms(sweep, 0.0) == 100.0
        assert budget.chunk_rest_ms(sweep, 300.0) == 1_200.0
        assert budget.chunk_rest_ms(sweep, 30_000.0) == 2_500.0, "it must come to its end"
        assert budget.chunk_rest_ms(replace(sweep, phase="unseen"), 30_000.0) == 100.0, "and records come as it works"

    virtual(main())


def test_what_a_sweep_works_is_what_its_page_took(monkeypatch: pytest.MonkeyPatch) -> None:
    worked: list[float] = []

    def noted(_self: ShareBudget, _sweep: Sweep, worked_ms: float) -> float:
        worked.append(worked_ms)
        return 0.0

    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        org.answer_s = 0.7
        await rig.until(lambda: swept(rig) > 0)

    monkeypatch.setattr(ShareBudget, "chunk_rest_ms", noted)
    told_in(story)
    assert 700 <= max(worked) < 2_000


def test_what_one_turn_leaves_of_a_backlog_is_read_at_once() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        await rig.until(lambda: swept(rig) > 0)
        org.asked.clear()
        now_ms = org.now_ms()
        for number in range(1_100):
            owned(rig, number, SharesDue(now_ms, ShareCause.OWNER_CHANGE, now_ms - 5_000, now_ms - 5_000, 1))
        await rig.until(lambda: len(org.asked) >= 1)
        first_ms = org.now_ms()
        await rig.until(lambda: sum(map(len, org.asked)) >= 1_100)
        assert org.now_ms() - first_ms < 8 * SECOND

    told_in(story)


def test_polls_and_sweeps_go_on_beside_owner_changes_that_come_faster_than_their_rows_are_read() -> None:
    async def main() -> None:
        org = SharedOrg()
        org.share(record_id(1), QUEUE, "Owner", "All", ago_ms=HOUR)
        rig = SharedHarness(org)

        def always(entity: str, now_ms: int, limit: int) -> list[tuple[int, str]]:
            return [(now_ms, record_id(number)) for number in range(limit)]

        async def story() -> None:
            await rig.until(lambda: swept(rig) > 0 and f"poll:shares:{ENTITY}" in rig.durable.progress)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rig.store, "due_shares", always)
            await running(SharesJob(rig.context, rig.sharing).run, story())

    virtual(main())


def test_a_lost_store_has_the_sweep_begin_anew() -> None:
    async def main() -> None:
        org = SharedOrg(pages=3)
        for number in range(30):
            org.share(record_id(number), QUEUE, "Owner", "All", ago_ms=HOUR)
        durable = Durable()
        rig = SharedHarness(org, durable, kill_after=9)
        await running(SharesJob(rig.context, rig.sharing).run, rig.killed.wait())
        begun_ms = durable.progress[f"sweep:{ENTITY}"]["begun_ms"]
        durable.generation, durable.seen = "g2", {}
        org.share(record_id(40), QUEUE, "Owner", "All", ago_ms=HOUR)
        again = SharedHarness(org, durable)
        await running(SharesJob(again.context, again.sharing).run, again.until(lambda: swept(again) > 0))
        assert swept(again) > begun_ms
        assert (ENTITY, record_id(40)) in durable.accesses, "it ends with the last record there is by then"

    virtual(main())


def test_a_sweep_ends_although_new_records_come_as_fast_as_it_reads() -> None:
    class Busy(SharedOrg):
        async def shares_scan(
            self, entity: str, cursor: str | None, through: str | None = None, *, limit: int = 2000
        ) -> SharesPage:
            for _ in range(self.pages):
                self.share(record_id(self.made), QUEUE, "Owner", "All")
            return await super().shares_scan(entity, cursor, through, limit=limit)

    async def main() -> None:
        org = Busy(pages=3)
        for number in range(9):
            org.share(record_id(number), QUEUE, "Owner", "All", ago_ms=HOUR)
        rig = SharedHarness(org)
        async with asyncio.timeout(HOUR / SECOND):
            await running(SharesJob(rig.context, rig.sharing).run, rig.until(lambda: swept(rig) > 0))
        assert rig.durable.progress[f"swept:{ENTITY}"]["rows"] == 9

    virtual(main())


def test_a_sweep_ends_although_records_become_known_while_it_looks_at_what_it_has_not_seen() -> None:
    class Busy(SharedOrg):
        learn: Callable[[], None]

        async def shares_of(self, entity: str, record_ids: Sequence[str], *, repair: bool) -> SharesPage:
            self.learn()
            return await super().shares_of(entity, record_ids, repair=repair)

    async def main() -> None:
        org = Busy()
        org.share(record_id(1), QUEUE, "Owner", "All", ago_ms=HOUR)
        rig = SharedHarness(org)

        def learn() -> None:
            org.made += 1
            rig.store.put_access(AccessState(ENTITY, record_id(10 + org.made), (), complete=True, as_of_ms=1))

        org.learn = learn
        learn()
        async with asyncio.timeout(HOUR / SECOND):
            await running(SharesJob(rig.context, rig.sharing).run, rig.until(lambda: swept(rig) > 0))
        assert len(org.asked) == 1

    virtual(main())


def test_a_row_made_anew_behind_the_cursor_is_not_all_there_is_of_its_record() -> None:
    """Rows come in the order of their ids, and a recalculation between two pages gives new ones."""

    class Recalculated(SharedOrg):
        async def shares_scan(
            self, entity: str, cursor: str | None, through: str | None = None, *, limit: int = 2000
        ) -> SharesPage:
            if cursor is not None and self.calls.count("shares_scan") == 1:
                self.share(record_id(10), TEAM)
            return await super().shares_scan(entity, cursor, through, limit=limit)

    async def main() -> None:
        org = Recalculated(pages=3)
        for number in range(10, 14):
            org.share(record_id(number), QUEUE, "Owner", "All", ago_ms=HOUR)
            org.share(record_id(number), TEAM, ago_ms=HOUR)
        rig = SharedHarness(org)
        await running(SharesJob(rig.context, rig.sharing).run, rig.until(lambda: swept(rig) > 0))
        assert org.shares[record_id(10), TEAM, "Rule"].share_id > org.shares[record_id(13), TEAM, "Rule"].share_id
        await running(SharesJob(rig.context, rig.sharing).run, asyncio.sleep(60))
        assert not any(record_id(10) in each for each in org.asked), "no row of it is missed, or looked for again"
        assert len(rig.facts_told()) == 8

    virtual(main())


def test_a_record_with_more_rows_than_a_page_is_read_as_a_whole() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        for number in range(17):
            org.share(record_id(4), f"005{number:012}BBB", "Manual", ago_ms=HOUR)
        await rig.until(lambda: swept(rig) > 0)

    rig = told_in(story)
    reads = [each for read in rig.arrivals(SharesRead) for each in read.records if each.record_id == record_id(4)]
    assert {len(each.rows) for each in reads if each.rows} == {18}, "never a part of them as if it were all"
    assert sum(each[3] == "baseline" for each in rig.facts_told()) == 12 + 17


def test_rows_of_a_recalculation_bring_a_sweep_before_its_time() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        org.share(record_id(1), TEAM)
        org.share(record_id(2), TEAM)
        for number in range(12):
            owned(rig, number)
        await rig.until(lambda: swept(rig) > 0)
        first = swept(rig)
        await asyncio.sleep(300)
        org.share(record_id(1), TEAM)  # made anew
        org.unshare(record_id(2), TEAM)  # and gone, which no poll can see
        await rig.until(lambda: swept(rig) > first)
        assert swept(rig) - first < SHARING.sweep / 2
        await rig.until(lambda: ("revoked", TEAM, "Read", "rule_change") in rig.facts_told())

    rig = told_in(story)
    assert f"sweep-wanted:{ENTITY}" not in rig.durable.progress
    assert Counter(each[0] for each in rig.facts_told()) == {"granted": 14, "revoked": 1}


def test_rows_that_come_with_an_owner_are_no_recalculation() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        await rig.until(lambda: swept(rig) > 0)
        await asyncio.sleep(300)
        row = org.share(record_id(1), TEAM)
        since = {"OwnerId": iso_utc(row.modified_ms or 0) or ""}
        rig.store.put(RecordState(ENTITY, record_id(1), {"OwnerId": QUEUE}, b"", since=since))
        await rig.until(lambda: len(rig.facts_told()) >= 13)
        await asyncio.sleep(120)
        assert f"sweep-wanted:{ENTITY}" not in rig.durable.progress

    told_in(story)


def test_few_calls_a_day_put_sweeps_further_apart() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        await rig.until(lambda: swept(rig) > 0)
        first = swept(rig)
        await rig.until(lambda: swept(rig) > first)
        assert swept(rig) - first > 2 * SHARING.sweep

    told_in(story, sharing=replace(SHARING, api_calls_per_day=300))


def test_small_pages_make_a_sweep_dearer() -> None:
    async def main() -> None:
        rig = SharedHarness(SharedOrg())
        calls = calls_of_sweep(1_000, rig.context.pace.chunk_rows)
        pace = replace(SHARING, api_calls_per_day=1)  # what the polls leave is one call a day
        rig.durable.progress[f"swept:{ENTITY}"] = {"rows": 1_000}
        assert ShareBudget(rig.context, pace).between_ms() == calls * DAY_MS

    virtual(main())


def test_sweeps_of_several_objects_share_what_the_calls_leave_for_them() -> None:
    async def main() -> None:
        rig = SharedHarness(SharedOrg())
        calls = calls_of_sweep(3_000, rig.context.pace.chunk_rows)
        pace = replace(SHARING, objects=(ENTITY, "VoiceCall"), api_calls_per_day=1)
        rig.durable.progress |= {f"swept:{ENTITY}": {"rows": 1_000}, "swept:VoiceCall": {"rows": 2_000}}
        assert ShareBudget(rig.context, pace).between_ms() == calls * DAY_MS

    virtual(main())


def test_an_org_that_runs_out_of_calls_is_swept_less_often() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        await rig.until(lambda: swept(rig) > 0)
        org.pace_factor = 4.0
        first = swept(rig)
        await rig.until(lambda: swept(rig) > first)
        assert swept(rig) - first >= 4 * SHARING.sweep

    told_in(story)


def test_failed_reads_are_asked_again() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        org.errors["shares_scan"] = deque([SalesforceUnavailableError("down")] * 3)
        await rig.until(lambda: swept(rig) > 0)

    rig = told_in(story)
    assert [job for job, _, _ in rig.told.failed] == ["shares"] * 3
    assert len(rig.facts_told()) == 12


def test_what_the_org_refuses_is_told_once_and_the_rest_goes_on() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        org.refused = {"shares_modified", "org_default", "count_shares", "grantees"}
        await rig.until(lambda: swept(rig) > 0)
        await asyncio.sleep(3 * HOUR / 1000)

    rig = told_in(story)
    assert len(rig.facts_told()) == 12
    assert sorted(what for what, _ in rig.told.unavailable) == [
        "count of shares",
        "grantees",
        "modified shares",
        "org-wide default",
    ]
    assert {each["grantee_type"] for each in rig.records["sharing"]} == {None}


def test_an_object_without_shares_is_left_alone() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        await asyncio.sleep(HOUR / 1000)
        assert not org.calls

    told_in(story, facts=replace(SHARED, has_shares=False))
    told_in(story, sharing=replace(SHARING, objects=("Case",)))


def test_a_refused_sweep_is_asked_again_after_an_hour() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        org.refused = {"shares_scan"}
        await asyncio.sleep(HOUR / 1000)
        assert not rig.facts_told()
        org.refused = set()
        await rig.until(lambda: swept(rig) > 0)

    rig = told_in(story)
    assert rig.told.unavailable == [("sweep of shares", ENTITY)]


def test_the_org_wide_default_is_read_with_each_sweep() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        await rig.until(lambda: swept(rig) > 0)
        org.default = OrgDefault("ReadWrite", None)
        first = swept(rig)
        await rig.until(lambda: swept(rig) > first)

    assert told_in(story).durable.progress[f"org-default:{ENTITY}"]["internal"] == "ReadWrite"


def test_a_backlog_of_the_stream_goes_first() -> None:
    async def main() -> None:
        org = SharedOrg()
        org.share(record_id(1), QUEUE, "Owner", "All")
        rig = SharedHarness(org)
        rig.ready.clear()

        async def story() -> None:
            await asyncio.sleep(60)
            assert not org.calls
            rig.ready.set()
            await rig.until(lambda: swept(rig) > 0)

        await running(SharesJob(rig.context, rig.sharing).run, story())

    virtual(main())


def test_rows_of_a_record_that_was_read_whole_since_are_no_recalculation() -> None:
    """They came with an owner, and stay with the next one, who is in the same group: the time of that is not theirs."""

    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        await rig.until(lambda: swept(rig) > 0)
        first = swept(rig)
        await asyncio.sleep(300)
        stamp = org.share(record_id(1), TEAM).modified_ms or 0
        owned(rig, 1, SharesDue(stamp + 3 * SECOND, ShareCause.OWNER_CHANGE, stamp, stamp, 1))
        await asyncio.sleep(600)
        assert ("granted", TEAM, "Read", "owner_change") in rig.facts_told()
        assert swept(rig) == first

    told_in(story)


def test_rows_of_a_record_that_is_owed_a_read_are_no_recalculation() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        await rig.until(lambda: swept(rig) > 0)
        first = swept(rig)
        await asyncio.sleep(300)
        stamp = org.share(record_id(1), TEAM).modified_ms or 0
        owned(rig, 1, SharesDue(stamp + HOUR, ShareCause.OWNER_CHANGE, stamp, stamp, 1))
        await asyncio.sleep(600)
        assert ("granted", TEAM, "Read", "incremental") in rig.facts_told(), "a poll brought it"
        assert swept(rig) == first

    told_in(story)


def test_rows_of_an_orgs_own_code_are_no_recalculation() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        owned(rig, 1)
        await rig.until(lambda: swept(rig) > 0)
        first = swept(rig)
        await asyncio.sleep(300)
        org.share(record_id(1), TEAM, "Escalation__c")
        await asyncio.sleep(600)
        assert ("granted", TEAM, "Read", "incremental") in rig.facts_told(), "a poll brought it"
        assert swept(rig) == first

    told_in(story)


@pytest.mark.parametrize("event_comes", [True, False])
def test_rows_wait_for_the_events_of_their_time_before_they_are_taken_for_a_recalculations(event_comes: bool) -> None:
    """The stream can lag, or be ahead of nothing: a row is read before the owner change it came with is known."""

    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        owned(rig, 1)
        await rig.until(lambda: swept(rig) > 0)
        first = swept(rig)
        await asyncio.sleep(300)
        stamp = org.share(record_id(1), TEAM).modified_ms or 0
        rig.delivered_to = lambda: stamp
        await asyncio.sleep(130)
        assert ("granted", TEAM, "Read", "incremental") in rig.facts_told(), "a poll brought it"
        assert f"sweep-wanted:{ENTITY}" not in rig.durable.progress
        if event_comes:
            since = {"OwnerId": iso_utc(stamp) or ""}
            rig.store.put(RecordState(ENTITY, record_id(1), {"OwnerId": QUEUE}, b"", since=since))
        rig.delivered_to = org.now_ms
        await asyncio.sleep(60)
        assert (f"sweep-wanted:{ENTITY}" in rig.durable.progress) is not event_comes
        if not event_comes:
            await rig.until(lambda: swept(rig) > first)

    told_in(story)


def test_rows_that_no_later_poll_brings_are_taken_for_a_recalculations_before_their_events_come() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        owned(rig, 1)
        await rig.until(lambda: swept(rig) > 0)
        await asyncio.sleep(300)
        stamp = org.share(record_id(1), TEAM).modified_ms or 0
        rig.delivered_to = lambda: stamp
        await asyncio.sleep((SHARING.overlap + SHARING.settle + 2 * SHARING.poll) / SECOND)
        assert f"sweep-wanted:{ENTITY}" in rig.durable.progress

    told_in(story)


def test_a_restart_looks_at_rows_that_waited_for_their_events() -> None:
    durable = Durable()

    async def before(org: SharedOrg, rig: SharedHarness) -> None:
        owned(rig, 1)
        await rig.until(lambda: swept(rig) > 0)
        await asyncio.sleep(300)
        stamp = org.share(record_id(1), TEAM).modified_ms or 0
        rig.delivered_to = lambda: stamp
        await asyncio.sleep(100)
        assert f"sweep-wanted:{ENTITY}" not in durable.progress
        again = SharedHarness(org, durable)
        again.store.put(RecordState(ENTITY, record_id(1), {"OwnerId": QUEUE}, b""))

        async def after() -> None:
            await again.until(lambda: f"sweep-wanted:{ENTITY}" in durable.progress)

        await running(SharesJob(again.context, again.sharing).run, after())

    told_in(before, durable=durable)


@pytest.mark.parametrize(("ago_ms", "again"), [(30 * SECOND, False), (0, True)])
def test_rows_of_before_a_sweep_began_bring_no_other_one(ago_ms: int, again: bool) -> None:
    """A rule that was made just before the first start has its rows in the first sweep."""

    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        org.answer_s = 10.0  # a poll comes while the sweep is on its way
        await rig.until(lambda: f"sweep:{ENTITY}" in rig.durable.progress)
        for number in range(12):
            owned(rig, number)
            org.share(record_id(number), TEAM, ago_ms=ago_ms)
        await rig.until(lambda: swept(rig) > 0)
        first = swept(rig)
        await asyncio.sleep(600)
        assert (swept(rig) > first) is again

    told_in(story)
