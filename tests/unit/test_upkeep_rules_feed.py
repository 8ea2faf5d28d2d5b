"""Polls of sharing rules and of feeds, in virtual time; and what facts say of companions."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

from consumer.tracking.access import SharingRule
from consumer.tracking.arrivals import FactsRead, FeedRead, SettleDue
from consumer.upkeep.facts import FactsJob
from consumer.upkeep.feed_poll import FeedJob
from consumer.upkeep.rules import RulesJob
from tests.fake_org import ENTITY, HOUR, SECOND, Durable, record_id, running
from tests.fake_sharing import FEED, QUEUE, REP, SHARED, SHARING, SharedHarness, SharedOrg
from tests.fakes import virtual

DAY = 24 * HOUR
RULE = SharingRule(
    "0Yo000000000001AAA", {"Name": "Team", "AccessLevel": "Read", "GroupId": QUEUE, "UserOrGroupId": REP}, 1, REP
)


def rules_told(story: Callable[[SharedOrg, SharedHarness], Awaitable[None]], **given: object) -> SharedHarness:
    """Run the rules' job until a story is over."""

    async def main() -> SharedHarness:
        rig = SharedHarness(SharedOrg(), **given)  # type: ignore[arg-type]  # passed through
        await running(RulesJob(rig.context, rig.sharing).run, story(rig.org, rig))  # type: ignore[arg-type]
        return rig

    return virtual(main())


def kinds(rig: SharedHarness) -> list[str]:
    """What ``sharing-rules`` says."""
    return [each["kind"] for each in rig.records["sharing-rules"]]


def test_rules_are_told_and_their_changes_ask_for_a_sweep() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        org.rules[RULE.rule_id] = RULE
        await rig.until(lambda: len(kinds(rig)) == 1)
        assert f"sweep-wanted:{ENTITY}" not in rig.durable.progress, "what was there changes nothing"
        org.rules[RULE.rule_id] = replace(RULE, values={**RULE.values, "AccessLevel": "Edit"}, modified_ms=2)
        await rig.until(lambda: len(kinds(rig)) == 2)
        assert f"sweep-wanted:{ENTITY}" in rig.durable.progress
        deleted_ms = org.now_ms()
        del org.rules[RULE.rule_id]
        org.rule_log[RULE.rule_id] = deleted_ms
        await rig.until(lambda: len(kinds(rig)) == 3)

    rig = rules_told(story)
    assert kinds(rig) == ["created", "changed", "deleted"]
    first, _, last = rig.records["sharing-rules"]
    assert (first["baseline"], first["group_type"], first["group_name"]) == (True, "Queue", "Support")
    assert last["changed_at"] is not None, "the delete log knows when"


def test_a_restart_tells_no_rule_again() -> None:
    async def main() -> None:
        org, durable = SharedOrg(), Durable()
        org.rules[RULE.rule_id] = RULE
        rig = SharedHarness(org, durable)
        await running(RulesJob(rig.context, rig.sharing).run, rig.until(lambda: len(kinds(rig)) == 1))
        again = SharedHarness(org, durable)

        async def story() -> None:
            await asyncio.sleep(300)
            assert kinds(again) == []

        await running(RulesJob(again.context, again.sharing).run, story())

    virtual(main())


def test_rules_that_are_closed_are_told_once_and_asked_again() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        org.refused = {"sharing_rules"}
        await asyncio.sleep(3 * HOUR / 1000)
        assert 3 <= org.calls.count("sharing_rules") <= 5, "every hour"
        org.refused, org.rules = set(), {RULE.rule_id: RULE}
        await rig.until(lambda: kinds(rig) == ["created"])

    assert rules_told(story).told.unavailable == [("sharing rules", ENTITY)]


def test_a_delete_log_that_is_closed_leaves_the_time_unknown() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        org.rules, org.refused = {RULE.rule_id: RULE}, {"deleted_rules"}
        await rig.until(lambda: len(kinds(rig)) == 1)
        org.rules = {}
        await rig.until(lambda: len(kinds(rig)) == 2)

    rig = rules_told(story)
    assert rig.records["sharing-rules"][1]["changed_at"] is None
    assert rig.told.unavailable == [("deleted sharing rules", ENTITY)]


def test_an_object_whose_rules_are_not_to_be_had_is_not_asked_for_them() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        await asyncio.sleep(HOUR / 1000)
        assert not org.calls

    rules_told(story, facts=replace(SHARED, has_rules=False))


# Feed


def fed(story: Callable[[SharedOrg, SharedHarness], Awaitable[None]], **given: object) -> SharedHarness:
    """Run the feed's job until a story is over."""

    async def main() -> SharedHarness:
        rig = SharedHarness(SharedOrg(), **given)  # type: ignore[arg-type]  # passed through
        await running(FeedJob(rig.context, rig.feed_pace).run, story(rig.org, rig))  # type: ignore[arg-type]
        return rig

    return virtual(main())


def complete_to(rig: SharedHarness) -> int:
    """How far the feed is read."""
    found: int = rig.durable.progress.get(f"poll:feed:{ENTITY}", {}).get("complete_to_ms", 0)
    return found


def test_a_first_start_reads_the_past_day_by_day_and_then_polls() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        start = org.now_ms()
        for number in range(25):
            org.post(number, record_id(number % 3), created_ms=start - 3 * DAY + (number + 1) * 2 * HOUR)
        org.post(90, record_id(1), created_ms=start - 5 * DAY)
        await rig.until(lambda: complete_to(rig) >= start - 2 * FEED.settle)
        new = org.post(50, record_id(1))
        await rig.until(lambda: ("created", new.item_id) in rig.feed_told())

    rig = fed(story)
    told = rig.records["feed"]
    assert len(told) == 26
    assert [each["backfill"] for each in told] == [True] * 25 + [False]
    assert len([each for each in rig.arrivals(FeedRead) if each.complete_to_ms is not None]) >= 4


def test_edits_and_removals_are_told_once_however_often_they_are_read() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        await rig.until(lambda: complete_to(rig) > 0)
        one, two = org.post(1, record_id(1)), org.post(2, record_id(2))
        await rig.until(lambda: len(rig.feed_told()) == 2)
        org.items[one.item_id] = replace(one, stamp_ms=org.now_ms() // SECOND * SECOND)
        await rig.until(lambda: len(rig.feed_told()) == 3)
        gone_ms = org.now_ms() // SECOND * SECOND
        org.items[one.item_id] = replace(one, stamp_ms=gone_ms, deleted=True)
        del org.items[two.item_id]
        org.item_log = {one.item_id: gone_ms, two.item_id: gone_ms}
        await rig.until(lambda: len(rig.feed_told()) == 5)
        for _ in range(20):
            ids = tuple(each for _, each in rig.store._durable.ledgers)
            await rig.put(SettleDue(ENTITY, ids, org.now_ms(), org.now_ms()))
            await asyncio.sleep(60)

    rig = fed(story)
    one, two = "0D5000000000001AAA", "0D5000000000002AAA"
    assert Counter(rig.feed_told()) == {
        ("created", one): 1,
        ("created", two): 1,
        ("changed", one): 1,
        ("removed", one): 1,
        ("removed", two): 1,
    }
    assert rig.records["feed"][-1]["record_id"] is None or rig.records["feed"][-2]["record_id"] is None
    assert not rig.durable.ledgers, "what no poll can bring again is forgotten"


def test_a_delete_log_that_lags_is_waited_for() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        org.log_lag_ms = 400 * SECOND
        await rig.until(lambda: complete_to(rig) > 0)
        one = org.post(1, record_id(1))
        await rig.until(lambda: len(rig.feed_told()) == 1)
        org.item_log[one.item_id] = org.now_ms()
        del org.items[one.item_id]
        await rig.until(lambda: len(rig.feed_told()) == 2)
        await asyncio.sleep(1200)

    assert fed(story).feed_told() == [("created", "0D5000000000001AAA"), ("removed", "0D5000000000001AAA")]


def test_a_kill_in_the_middle_of_a_span_tells_nothing_twice() -> None:
    async def main() -> None:
        org, durable = SharedOrg(), Durable()
        start = org.now_ms()
        for number in range(23):
            org.post(number, record_id(number), created_ms=start - DAY + number * HOUR // 2)
        rig = SharedHarness(org, durable, kill_after=6)
        await running(FeedJob(rig.context, rig.feed_pace).run, rig.killed.wait())
        again = SharedHarness(org, durable)
        await running(
            FeedJob(again.context, again.feed_pace).run,
            again.until(lambda: complete_to(again) >= start - 2 * FEED.settle),
        )
        told = rig.feed_told() + again.feed_told()
        assert len(told) == len(set(told)) == 23

    virtual(main())


def test_an_org_without_a_feed_is_left_alone_and_a_closed_one_told_once() -> None:
    async def alone(org: SharedOrg, rig: SharedHarness) -> None:
        await asyncio.sleep(HOUR / 1000)
        assert not org.calls

    fed(alone, facts=replace(SHARED, has_feed=False))

    async def closed(org: SharedOrg, rig: SharedHarness) -> None:
        org.refused = {"feed"}
        await asyncio.sleep(3 * HOUR / 1000)

    assert fed(closed).told.unavailable == [("feed", ENTITY)]


def test_without_a_delete_log_the_rest_of_the_feed_is_told() -> None:
    async def story(org: SharedOrg, rig: SharedHarness) -> None:
        org.refused = {"deleted_feed_items"}
        await rig.until(lambda: complete_to(rig) > 0)
        org.post(1, record_id(1))
        await rig.until(lambda: len(rig.feed_told()) == 1)

    assert fed(story).told.unavailable == [("deleted feed items", ENTITY)]


# Facts


def test_facts_say_which_companions_can_be_read_and_what_of_them_is_hidden() -> None:
    async def main() -> None:
        org = SharedOrg(hidden=("MessagingSessionShare.LastModifiedById", "MessagingSessionShare.LastModifiedDate"))
        org.refused = {"hidden rules"}
        rig = SharedHarness(org)
        await running(FactsJob(rig.context).run, rig.until(lambda: bool(rig.arrivals(FactsRead))))
        facts = rig.facts[ENTITY]
        assert (facts.has_shares, facts.has_rules, facts.has_feed) == (True, False, True)
        told = Counter(what for what, _ in rig.told.unavailable)
        assert told["MessagingSessionShare.LastModifiedById"] == 1
        assert told["MessagingSessionShare.LastModifiedDate"] == 0, "the poll that needs it tells more"
        assert told["sharing rules"] == 1

    virtual(main())


def test_companions_that_nobody_wants_are_not_looked_for() -> None:
    async def main() -> None:
        org = SharedOrg()
        rig = SharedHarness(org, sharing=replace(SHARING, objects=()), feed=replace(FEED, objects=()))
        await running(FactsJob(rig.context).run, rig.until(lambda: bool(rig.arrivals(FactsRead))))
        assert not [each for each in org.calls if each.startswith("hidden")]
        assert not rig.facts[ENTITY].has_shares

    virtual(main())
