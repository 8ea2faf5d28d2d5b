"""One suite for both orgs: what upkeep tests rely on in the fake's sharing and feed is true of what REST reads.

The fake is in memory; the other is :class:`consumer.salesforce.records.SalesforceRecords` against the emulated org.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol, TypeVar

import pytest

from consumer.changes.record_ids import to_18
from consumer.pages import FeedPage, SharesPage
from consumer.ports import RecordSource
from consumer.tracking.access import OWNER, Grantee, ShareRow
from consumer.tracking.feed_values import FeedItem
from tests.fake_org import ENTITY
from tests.fake_sharing import QUEUE, REP, TEAM, SharedOrg
from tests.unit.test_rest_emulated import Reading, reading

Key = tuple[str, str, str, str]
NOBODY, NO_RECORD, NO_ITEM = map(to_18, ("00G000000000999", "0Mw000000000999", "0D5000000000999"))
SECOND = 1_000
LITTLE_MS = 5_000
"""More than what passes while the org is asked."""

P = TypeVar("P", SharesPage, FeedPage)


class World(Protocol):
    """An org in which no time to speak of passes between two calls of ``later``.

    Attributes:
        source: reads it.
        team: a grantee that no row is for at first.
        records: ids of its records, each with some row.
    """

    source: RecordSource
    team: str
    records: list[str]

    def now_ms(self) -> int:
        """Return the org's time."""
        ...

    async def later(self, seconds: int) -> None:
        """Let time pass."""
        ...

    def held(self) -> set[Key]:
        """Return the rows there are."""
        ...

    async def share(self, records: Collection[str], level: str = "Read") -> None:
        """Share records with the team, or change at which level they are."""
        ...

    async def unshare(self, records: Collection[str]) -> None:
        """Take it back."""
        ...

    async def rule(self, name: str) -> None:
        """Create an owner sharing rule."""
        ...

    async def unrule(self, rule_id: str) -> None:
        """Delete one."""
        ...

    async def post(self, record: str) -> None:
        """Post on a record's feed."""
        ...

    async def unpost(self, item_id: str) -> None:
        """Remove a feed item."""
        ...


class FakeWorld:
    """The org that upkeep tests use."""

    def __init__(self) -> None:
        self._org = SharedOrg(answer_s=0, pages=2000, known={TEAM: Grantee("Regular", "Team")})
        self.source: RecordSource = self._org
        self.team = TEAM
        self.records = [self._org.save(number) for number in range(1, 41)]
        for number, each in enumerate(self.records):
            self._org.share(each, REP, OWNER, "All")
            if number % 3 == 0:
                self._org.share(each, QUEUE)
        self._posts = 0

    def now_ms(self) -> int:
        return self._org.now_ms()

    async def later(self, seconds: int) -> None:
        self._org.skew_ms += seconds * SECOND

    def held(self) -> set[Key]:
        return {_key(row) for row in self._org.shares.values()}

    async def share(self, records: Collection[str], level: str = "Read") -> None:
        for each in records:
            self._org.share(each, TEAM, "Manual", level)

    async def unshare(self, records: Collection[str]) -> None:
        for each in records:
            self._org.unshare(each, TEAM, "Manual")

    async def rule(self, name: str) -> None:
        self._org.rule(len(self._org.rules) + 1, name)

    async def unrule(self, rule_id: str) -> None:
        self._org.unrule(rule_id)

    async def post(self, record: str) -> None:
        self._posts += 1
        self._org.post(self._posts, record)

    async def unpost(self, item_id: str) -> None:
        self._org.unpost(item_id)


class EmulatedWorld:
    """An emulated org, read by REST."""

    def __init__(self, read: Reading) -> None:
        self._read = read
        self._org = read.org
        self.source = read.records
        self.team = read.org.model.sharing.directory.find("Supervisors")
        live = read.org.model.records(ENTITY)
        self.records = sorted(each for each in live if read.org.model.sharing.rows.of(each))[:40]

    def now_ms(self) -> int:
        return self._org.state.now_ms()

    async def later(self, seconds: int) -> None:
        await self._org.fault("advance_clock", seconds=seconds)

    def held(self) -> set[Key]:
        rows = self._org.model.sharing.rows
        found = (row for each in self._org.model.records(ENTITY) for row in rows.of(each))
        return {(row.parent_id, row.grantee, row.cause, row.level) for row in found}

    async def share(self, records: Collection[str], level: str = "Read") -> None:
        await self._org.fault("share", record_ids=list(records), to=self.team, level=level)

    async def unshare(self, records: Collection[str]) -> None:
        await self._org.fault("unshare", record_ids=list(records), to=self.team)

    async def rule(self, name: str) -> None:
        await self._org.fault("rule_create", name=name, source="Queue_1", target="Supervisors")

    async def unrule(self, rule_id: str) -> None:
        await self._org.fault("rule_delete", rule=rule_id)

    async def post(self, record: str) -> None:
        await self._org.fault("feed_post", record_ids=[record])

    async def unpost(self, item_id: str) -> None:
        await self._org.fault("feed_delete", item_ids=[item_id])


def _key(row: ShareRow) -> Key:
    return row.record_id, row.user_or_group_id, row.row_cause, row.access_level


@asynccontextmanager
async def _emulated() -> AsyncIterator[World]:
    async with reading(preload=200, sharing={"eager": True}) as read:
        yield EmulatedWorld(read)


@pytest.fixture(params=["fake", "rest"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield FakeWorld() if request.param == "fake" else await stack.enter_async_context(_emulated())


async def pages(ask: Callable[[str | None], Awaitable[P]]) -> AsyncIterator[P]:
    cursor: str | None = None
    while True:
        page = await ask(cursor)
        yield page
        cursor = page.cursor
        if cursor is None:
            return


async def test_a_scan_brings_every_row_once_and_a_record_s_rows_together(world: World) -> None:
    found: list[ShareRow] = []
    calls = world.source.sharing_calls
    asked = 0
    async for page in pages(lambda cursor: world.source.shares_scan(ENTITY, cursor, limit=7)):
        assert len(page.rows) <= 7
        found += page.rows
        asked += 1
    assert len(found) == len(world.held()) == await world.source.count_shares(ENTITY)
    assert set(map(_key, found)) == world.held()
    order = [row.record_id for row in found]
    assert [each for at, each in enumerate(order) if each not in order[:at]] == list(dict.fromkeys(order))
    assert sum(order[at] != order[at - 1] for at in range(1, len(order))) == len(set(order)) - 1
    assert world.source.sharing_calls - calls >= asked


async def test_a_scan_ends_with_the_record_it_shall_end_with(world: World) -> None:
    whole = [row async for page in pages(lambda at: world.source.shares_scan(ENTITY, at)) for row in page.rows]
    last = await world.source.last_shared(ENTITY)
    assert last == whole[-1].record_id
    bounded = [row async for page in pages(lambda at: world.source.shares_scan(ENTITY, at, last)) for row in page.rows]
    assert list(map(_key, bounded)) == list(map(_key, whole))
    middle = whole[len(whole) // 2].record_id
    wanted = [_key(row) for row in whole[: 1 + max(at for at, row in enumerate(whole) if row.record_id == middle)]]
    found: list[ShareRow] = []
    async for page in pages(lambda at: world.source.shares_scan(ENTITY, at, middle, limit=7)):
        found += page.rows
    assert list(map(_key, found)) == wanted


async def test_a_scan_goes_on_behind_any_row_even_if_that_row_is_gone(world: World) -> None:
    chosen = world.records[5]
    await world.share([chosen])
    whole = [row async for page in pages(lambda at: world.source.shares_scan(ENTITY, at)) for row in page.rows]
    at = max(number for number, row in enumerate(whole) if row.record_id == chosen)
    cursor = f"{chosen}:{whole[at].share_id}"
    await world.unshare([chosen])
    rest = await world.source.shares_scan(ENTITY, cursor)
    assert list(map(_key, rest.rows)) == list(map(_key, whole[at + 1 :]))


async def test_rows_of_records_are_all_there_at_one_time_and_unknown_records_have_none(world: World) -> None:
    chosen = world.records[3:9]
    await world.share(chosen[:2])
    before_ms = world.now_ms()
    page = await world.source.shares_of(ENTITY, [*chosen, NO_RECORD], repair=False)
    assert set(map(_key, page.rows)) == {key for key in world.held() if key[0] in chosen}
    assert page.cursor is None
    assert page.asked_ms < page.answered_ms
    assert page.asked_ms <= world.now_ms()
    assert before_ms <= page.answered_ms
    await world.unshare(chosen[:2])
    after = await world.source.shares_of(ENTITY, chosen, repair=True)
    assert world.team not in {row.user_or_group_id for row in after.rows}


async def test_modified_rows_come_in_their_order_and_only_those_of_the_span(world: World) -> None:
    await world.later(60)
    first_ms = world.now_ms() // SECOND * SECOND
    await world.share(world.records[:6])
    await world.later(10)
    second_ms = world.now_ms() // SECOND * SECOND
    await world.share(world.records[6:10])
    to_ms = second_ms + LITTLE_MS
    span = await world.source.shares_modified(ENTITY, first_ms, second_ms, None)
    assert {row.record_id for row in span.rows} == set(world.records[:6])
    found: list[ShareRow] = []
    async for page in pages(lambda at: world.source.shares_modified(ENTITY, first_ms, to_ms, at, limit=3)):
        assert len(page.rows) <= 3
        found += page.rows
    assert len(found) == len({row.record_id for row in found}) == 10
    assert [row.modified_ms for row in found] == sorted(row.modified_ms or 0 for row in found)
    assert all(row.modified_ms is not None and row.modified_ms % SECOND == 0 for row in found)


async def test_a_row_that_moves_between_two_pages_hides_no_other(world: World) -> None:
    await world.later(60)
    from_ms = world.now_ms() // SECOND * SECOND
    await world.share(world.records[:6])
    await world.later(10)
    first = await world.source.shares_modified(ENTITY, from_ms, from_ms + 60_000, None, limit=3)
    last = first.rows[-1].record_id
    await world.share([last], "Edit")
    rest: list[ShareRow] = []
    cursor = first.cursor
    while cursor is not None:
        page = await world.source.shares_modified(ENTITY, from_ms, from_ms + 60_000, cursor, limit=3)
        rest += page.rows
        cursor = page.cursor
    assert {row.record_id for row in (*first.rows, *rest)} == set(world.records[:6])
    assert [row.access_level for row in rest if row.record_id == last] == ["Edit"]


async def test_rules_are_all_told_and_deleted_ones_are_in_the_log(world: World) -> None:
    before_ms = world.now_ms()
    await world.rule("Ours")
    page = await world.source.sharing_rules(ENTITY)
    (rule,) = [each for each in page.rules if each.values["Name"] == "Ours"]
    assert rule.modified_ms is not None
    assert page.asked_ms <= world.now_ms()
    await world.later(120)
    deleted_ms = world.now_ms()
    await world.unrule(rule.rule_id)
    await world.later(120)
    assert rule.rule_id not in {each.rule_id for each in (await world.source.sharing_rules(ENTITY)).rules}
    log = await world.source.deleted_rules(ENTITY, before_ms, world.now_ms())
    assert abs(log.ids[rule.rule_id] - deleted_ms) <= LITTLE_MS


async def test_a_grantee_is_known_or_left_out(world: World) -> None:
    found = await world.source.grantees([world.team, NOBODY])
    assert set(found) == {world.team}
    assert found[world.team].kind == "Regular"


async def test_an_org_wide_default_is_told_for_both_kinds_of_users(world: World) -> None:
    default = await world.source.org_default(ENTITY)
    assert (default.internal, default.external) == ("Private", "Private")


async def feed_of(world: World, from_ms: int, to_ms: int, limit: int) -> list[FeedItem]:
    found: list[FeedItem] = []
    async for page in pages(lambda cursor: world.source.feed(ENTITY, from_ms, to_ms, cursor, limit=limit)):
        assert len(page.items) <= limit
        found += page.items
    return found


async def test_feed_items_come_by_their_stamp_and_removed_ones_with_the_time_of_that(world: World) -> None:
    await world.later(60)
    from_ms = world.now_ms() // SECOND * SECOND
    for each in world.records[:5]:
        await world.post(each)
    await world.later(10)
    items = await feed_of(world, from_ms, world.now_ms(), 2)
    assert sorted(item.record_id or "" for item in items) == sorted(world.records[:5])
    assert not any(item.deleted for item in items)
    removed_ms = world.now_ms() // SECOND * SECOND
    await world.unpost(items[0].item_id)
    await world.later(120)
    (gone,) = await feed_of(world, removed_ms, removed_ms + LITTLE_MS, 2)
    assert (gone.item_id, gone.deleted) == (items[0].item_id, True)
    assert removed_ms <= gone.stamp_ms < removed_ms + LITTLE_MS
    assert items[0].item_id not in {each.item_id for each in await feed_of(world, from_ms, removed_ms, 2)}
    again = await world.source.feed_items(ENTITY, [items[0].item_id, NO_ITEM])
    assert [(item.item_id, item.deleted) for item in again.items] == [(gone.item_id, True)]
    assert again.cursor is None
    log = await world.source.deleted_feed_items(ENTITY, from_ms, world.now_ms())
    assert list(log.ids) == [gone.item_id]
    assert abs(log.ids[gone.item_id] - removed_ms) <= LITTLE_MS


async def test_every_question_is_a_call(world: World) -> None:
    source, now_ms = world.source, world.now_ms()
    questions: list[Callable[[], Awaitable[Any]]] = [
        lambda: source.shares_of(ENTITY, world.records[:2], repair=False),
        lambda: source.shares_modified(ENTITY, now_ms - SECOND, now_ms, None),
        lambda: source.shares_scan(ENTITY, None),
        lambda: source.count_shares(ENTITY),
        lambda: source.last_shared(ENTITY),
        lambda: source.sharing_rules(ENTITY),
        lambda: source.deleted_rules(ENTITY, now_ms - 60_000, now_ms),
        lambda: source.grantees([world.team]),
        lambda: source.org_default(ENTITY),
        lambda: source.feed(ENTITY, now_ms - SECOND, now_ms, None),
        lambda: source.deleted_feed_items(ENTITY, now_ms - 60_000, now_ms),
        lambda: source.feed_items(ENTITY, [NO_ITEM]),
    ]
    for each in questions:
        before = source.sharing_calls
        await each()
        assert source.sharing_calls > before
