"""Share rows, rules and feed items of the org in memory, and a pipeline that tells what jobs read of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import orjson

from consumer.companions import CompanionEncoders, Companions, CompanionTimes
from consumer.delivery.feed import Feed
from consumer.delivery.sharing import Sharing
from consumer.delivery.sharing_rules import SharingRules
from consumer.pages import DeletedIds, FeedPage, OrgDefault, RulesPage, SharesPage
from consumer.tracking.access import Grantee, ShareRow, SharingRule
from consumer.tracking.arrivals import Arrival, FeedRead, RulesRead, SettleDue, SharesRead
from consumer.tracking.feed_values import FeedItem
from consumer.tracking.values import EntityFacts
from consumer.upkeep.context import FeedPace, SharingPace
from tests.delivery_values import ORG, TOPICS
from tests.fake_org import ENTITY, PACE, SECOND, Durable, FakeOrg, Harness, facts_for

T = TypeVar("T")

SHARING = SharingPace(
    objects=(ENTITY,), poll=60_000, overlap=120_000, settle=20_000, sweep=3_600_000, api_calls_per_day=100_000
)
FEED = FeedPace(objects=(ENTITY,), poll=60_000, overlap=120_000, settle=20_000, backfill=3 * 86_400_000)
SHARED = facts_for(has_shares=True, has_rules=True, has_feed=True)
QUEUE, TEAM, REP = "00G000000000001AAA", "00G000000000002AAA", "005000000000001AAA"


@dataclass
class SharedOrg(FakeOrg):
    """An org with companions.

    Attributes:
        shares: rows by record, grantee and cause.
        rules, rule_log: rules by id; deleted ones' ids with the time.
        items, item_log: feed items by id; deleted ones' ids with the time.
        known: whom ids stand for.
        default: org-wide default.
        sharing_calls: calls for all of this.
    """

    shares: dict[tuple[str, str, str], ShareRow] = field(default_factory=dict)
    rules: dict[str, SharingRule] = field(default_factory=dict)
    rule_log: dict[str, int] = field(default_factory=dict)
    items: dict[str, FeedItem] = field(default_factory=dict)
    item_log: dict[str, int] = field(default_factory=dict)
    known: dict[str, Grantee] = field(default_factory=lambda: {QUEUE: Grantee("Queue", "Support")})
    default: OrgDefault = field(default_factory=lambda: OrgDefault("Private", "Private"))
    sharing_calls: int = 0
    made: int = 0

    # What happens in the org

    def share(
        self, record: str, grantee: str, cause: str = "Rule", level: str = "Read", *, ago_ms: int = 0
    ) -> ShareRow:
        """Make a row, anew if there is one."""
        self.made += 1
        stamp = (self.now_ms() - ago_ms) // SECOND * SECOND
        row = ShareRow(record, f"02c{self.made:012}AAA", grantee, cause, level, stamp, REP)
        self.shares[record, grantee, cause] = row
        return row

    def unshare(self, record: str, grantee: str, cause: str = "Rule") -> None:
        """Delete a row."""
        del self.shares[record, grantee, cause]

    def post(self, number: int, record: str, *, created_ms: int | None = None, stamp_ms: int | None = None) -> FeedItem:
        """Post on a record's feed."""
        created = (self.now_ms() if created_ms is None else created_ms) // SECOND * SECOND
        stamp = created if stamp_ms is None else stamp_ms // SECOND * SECOND
        item = FeedItem(f"0D5{number:012}AAA", record, "TextPost", created, stamp, deleted=False, values={"Body": "x"})
        self.items[item.item_id] = item
        return item

    def unpost(self, item_id: str, *, purge: bool = False) -> None:
        """Remove a feed item, into the recycle bin or for good."""
        self.item_log[item_id] = self.now_ms() // SECOND * SECOND
        item = self.items.pop(item_id)
        if not purge:
            self.items[item_id] = replace(item, deleted=True, stamp_ms=self.item_log[item_id])

    def rule(self, number: int, name: str) -> SharingRule:
        """Create an owner sharing rule, or give it another name."""
        stamp = self.now_ms() // SECOND * SECOND
        values = {"Name": name, "AccessLevel": "Read", "GroupId": QUEUE, "UserOrGroupId": TEAM}
        rule = SharingRule(f"0Uo{number:012}AAA", values, stamp, REP)
        self.rules[rule.rule_id] = rule
        return rule

    def unrule(self, rule_id: str) -> None:
        """Delete an owner sharing rule."""
        del self.rules[rule_id]
        self.rule_log[rule_id] = self.now_ms() // SECOND * SECOND

    # RecordSource

    async def _asked(self, name: str) -> tuple[int, int]:
        asked_ms = self.now_ms() - SECOND
        self.sharing_calls += 1
        answered_ms = await self._answer(name)
        return asked_ms, answered_ms

    async def shares_of(self, entity: str, record_ids: Sequence[str], *, repair: bool) -> SharesPage:
        asked_ms, answered_ms = await self._asked("shares_of")
        self.asked.append(tuple(record_ids))
        return SharesPage([row for row in self.shares.values() if row.record_id in record_ids], asked_ms, answered_ms)

    async def shares_modified(
        self, entity: str, from_ms: int, to_ms: int, cursor: str | None, *, limit: int = 2000
    ) -> SharesPage:
        asked_ms, answered_ms = await self._asked("shares_modified")
        rows = [row for row in self.shares.values() if from_ms <= (row.modified_ms or 0) < to_ms]
        some, following = _page(rows, lambda row: (row.modified_ms or 0, row.share_id), cursor, min(limit, self.pages))
        return SharesPage(some, asked_ms, answered_ms, following)

    async def shares_scan(
        self, entity: str, cursor: str | None, through: str | None = None, *, limit: int = 2000
    ) -> SharesPage:
        asked_ms, answered_ms = await self._asked("shares_scan")
        rows = [row for row in self.shares.values() if through is None or row.record_id <= through]
        some, following = _page(rows, lambda row: (row.record_id, row.share_id), cursor, min(limit, self.pages))
        return SharesPage(some, asked_ms, answered_ms, following)

    async def last_shared(self, entity: str) -> str | None:
        await self._asked("last_shared")
        return max((row.record_id for row in self.shares.values()), default=None)

    async def count_shares(self, entity: str) -> int:
        await self._asked("count_shares")
        return len(self.shares)

    async def sharing_rules(self, entity: str) -> RulesPage:
        asked_ms, answered_ms = await self._asked("sharing_rules")
        return RulesPage(list(self.rules.values()), asked_ms, answered_ms)

    async def deleted_rules(self, entity: str, from_ms: int, to_ms: int) -> DeletedIds:
        await self._asked("deleted_rules")
        return DeletedIds({each: ms for each, ms in self.rule_log.items() if from_ms <= ms < to_ms}, 0, to_ms)

    async def grantees(self, ids: Sequence[str]) -> Mapping[str, Grantee]:
        await self._asked("grantees")
        return {each: self.known[each] for each in ids if each in self.known}

    async def org_default(self, entity: str) -> OrgDefault:
        await self._asked("org_default")
        return self.default

    async def feed(self, entity: str, from_ms: int, to_ms: int, cursor: str | None, *, limit: int = 2000) -> FeedPage:
        _, answered_ms = await self._asked("feed")
        items = [item for item in self.items.values() if from_ms <= item.stamp_ms < to_ms]
        some, following = _page(items, lambda item: (item.stamp_ms, item.item_id), cursor, min(limit, self.pages))
        return FeedPage(some, answered_ms, following)

    async def deleted_feed_items(self, entity: str, from_ms: int, to_ms: int) -> DeletedIds:
        await self._asked("deleted_feed_items")
        minute = from_ms // 60_000 * 60_000  # the log ignores seconds
        covered_ms = min(to_ms, self.now_ms() - self.log_lag_ms)
        return DeletedIds({each: ms for each, ms in self.item_log.items() if minute <= ms < to_ms}, 0, covered_ms)

    async def feed_items(self, entity: str, item_ids: Sequence[str]) -> FeedPage:
        _, answered_ms = await self._asked("feed_items")
        return FeedPage([self.items[each] for each in item_ids if each in self.items], answered_ms)


def _page(
    rows: Iterable[T], order: Callable[[T], tuple[int | str, str]], cursor: str | None, limit: int
) -> tuple[list[T], str | None]:
    """Return the rows behind a cursor in an order, and the cursor of the last; a row that moves loses no other."""
    after: tuple[int | str, str] | None = None
    if cursor is not None:
        first, _, second = cursor.partition(":")
        after = (int(first) if first.isdigit() else first, second)
    rest = sorted((row for row in rows if after is None or order(row) > after), key=order)
    some = rest[:limit]
    return some, ":".join(map(str, order(some[-1]))) if len(rest) > limit else None


class SharedHarness(Harness):
    """A harness whose pipeline tells what companions bring.

    Attributes:
        told: values of the records of ``sharing``, ``sharing-rules`` and ``feed``, by kind.
    """

    def __init__(
        self,
        org: SharedOrg,
        durable: Durable | None = None,
        *,
        sharing: SharingPace = SHARING,
        feed: FeedPace = FEED,
        facts: EntityFacts = SHARED,
        kill_after: int | None = None,
    ) -> None:
        pace = replace(PACE, sharing=sharing, feed=feed)
        super().__init__(org, durable, pace=pace, facts={ENTITY: facts}, kill_after=kill_after)
        times = CompanionTimes(frozenset(sharing.objects), sharing.settle, sharing.overlap, feed.overlap)
        encoders = CompanionEncoders(Sharing(ORG, TOPICS), SharingRules(ORG, TOPICS), Feed(ORG, TOPICS))
        self.companions = Companions(self.store, times, encoders, self.durable.progress)
        self.sharing, self.feed_pace = sharing, feed
        self.records: dict[str, list[Any]] = {"sharing": [], "sharing-rules": [], "feed": []}

    def _take(self, arrival: Arrival) -> None:
        match arrival:
            case SharesRead():
                records, progress = self.companions.shares(arrival)
                self._keep("sharing", records)
                self._finish(progress, [], 0)
            case RulesRead():
                records, progress = self.companions.rules(arrival)
                self._keep("sharing-rules", records)
                self._finish(progress, [], 0)
            case FeedRead():
                self._keep("feed", self.companions.feed(arrival))
                self._finish(arrival.progress, [], 0)
            case SettleDue():
                for record_id in arrival.record_ids:
                    entry = self.store.ledger((arrival.entity, record_id))
                    if entry is not None:
                        self.store.put_ledger(self.companions.settled(entry))
            case _:
                super()._take(arrival)

    def _keep(self, kind: str, records: Sequence[Any]) -> None:
        self.records[kind] += [orjson.loads(record.value) for record in records]

    def facts_told(self) -> list[tuple[str, str, str | None, str]]:
        """Return kind, grantee, level and cause of what ``sharing`` says."""
        return [
            (each["kind"], each["user_or_group_id"], each["access_level"], each["cause"])
            for each in self.records["sharing"]
        ]

    def feed_told(self) -> list[tuple[str, str]]:
        """Return kind and item of what ``feed`` says."""
        return [(each["kind"], each["feed_item_id"]) for each in self.records["feed"]]
