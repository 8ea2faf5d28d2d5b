"""Share rows, rules, grantees and feeds of an emulated org, read by REST."""

from __future__ import annotations

from typing import Any

import pytest

from consumer.changes.fields import FieldPolicy
from consumer.changes.record_ids import to_18
from consumer.errors import QueryRefusedError, SalesforceUnavailableError
from consumer.pages import OrgDefault
from consumer.salesforce.companions import companion_of, converted
from consumer.tracking.access import OWNER, ShareRow
from tests.unit.test_rest_emulated import Reading, reading

SESSION = "MessagingSession"
Key = tuple[str, str, str, str]


def keys(rows: Any) -> list[Key]:
    return [(row.record_id, row.user_or_group_id, row.row_cause, row.access_level) for row in rows]


def held(read: Reading, *record_ids: str) -> set[Key]:
    """Return the rows the org has."""
    wanted = record_ids or tuple(read.org.model.records(SESSION))
    rows = (row for record_id in wanted for row in read.org.model.sharing.rows.of(record_id))
    return {(row.parent_id, row.grantee, row.cause, row.level) for row in rows}


async def act(read: Reading, kind: str, **parameters: Any) -> None:
    """Let something happen in the org."""
    await read.org.fault(kind, **parameters)


async def scanned(read: Reading, limit: int) -> list[ShareRow]:
    rows: list[ShareRow] = []
    cursor = None
    while True:
        page = await read.records.shares_scan(SESSION, cursor, limit=limit)
        rows += page.rows
        if page.cursor is None:
            return rows
        cursor = page.cursor


@pytest.mark.parametrize("short_pages", [False, True])
async def test_a_scan_reads_every_row_record_by_record(short_pages: bool) -> None:
    async with reading(preload=600, short_pages=short_pages, sharing={"eager": True}) as read:
        rows = await scanned(read, 200)
        assert set(keys(rows)) == held(read)
        assert len(rows) == len(held(read)) == await read.records.count_shares(SESSION)
        order = [row.record_id for row in rows]
        assert order == sorted(order), "a record's rows stand together"
        assert read.records.sharing_calls >= len(rows) // 200


async def test_rows_of_records_come_together_and_those_without_any_are_left_out() -> None:
    async with reading(preload=600, sharing={"eager": True}) as read:
        ids = list(read.org.model.records(SESSION))[:250]
        before_ms = read.salesforce.clock.now_ms()
        page = await read.records.shares_of(SESSION, [*ids, "0Mw000000000000CAA"], repair=False)
        assert set(keys(page.rows)) == held(read, *ids)
        assert page.cursor is None
        assert page.asked_ms <= before_ms < page.answered_ms
        row = page.rows[0]
        assert row.modified_ms is not None
        assert row.modified_ms % 1000 == 0
        assert row.modified_by is not None


async def test_modified_rows_are_read_in_their_order_page_by_page() -> None:
    async with reading(preload=600, sharing={"eager": True}) as read:
        now_ms = read.org.state.now_ms()
        ids = list(read.org.model.records(SESSION))[:40]
        await act(read, "share", record_ids=ids, to="Supervisors", level="Edit")
        rows: list[ShareRow] = []
        cursor = None
        while True:
            page = await read.records.shares_modified(SESSION, now_ms - 1000, now_ms + 60_000, cursor, limit=15)
            rows += page.rows
            cursor = page.cursor
            if cursor is None:
                break
        made = [row for row in rows if row.row_cause == "Manual"]
        assert {row.record_id for row in made} == set(ids)
        assert len(made) == len(ids)
        assert [row.modified_ms or 0 for row in rows] == sorted(row.modified_ms or 0 for row in rows)


async def test_a_column_that_is_hidden_is_named_and_left_out() -> None:
    hidden = {"MessagingSessionShare": ["LastModifiedById"], "MessagingSessionFeed": ["Body"]}
    async with reading(preload=200, sharing={"eager": True}, hidden_fields=hidden) as read:
        assert await read.records.hidden_columns(SESSION, "shares") == ("MessagingSessionShare.LastModifiedById",)
        assert "MessagingSessionFeed.Body" in await read.records.hidden_columns(SESSION, "feed")
        rows = await scanned(read, 200)
        assert set(keys(rows)) == held(read)
        assert {row.modified_by for row in rows} == {None}


async def test_rows_whose_time_is_hidden_can_be_swept_but_not_polled() -> None:
    hidden = {"MessagingSessionShare": ["LastModifiedDate"]}
    async with reading(preload=200, sharing={"eager": True}, hidden_fields=hidden) as read:
        assert set(keys(await scanned(read, 200))) == held(read)
        with pytest.raises(QueryRefusedError, match="LastModifiedDate"):
            await read.records.shares_modified(SESSION, 0, 1_000_000, None)


async def test_a_column_without_which_nothing_can_be_told_is_refused() -> None:
    hidden = {"MessagingSessionShare": ["RowCause"]}
    async with reading(preload=50, sharing={"eager": True}, hidden_fields=hidden) as read:
        with pytest.raises(QueryRefusedError, match="MessagingSessionShare can't be read without RowCause"):
            await read.records.hidden_columns(SESSION, "shares")


async def test_an_org_without_sharing_objects_refuses() -> None:
    async with reading(preload=50, sharing={"enabled": False}) as read:
        with pytest.raises(QueryRefusedError):
            await read.records.hidden_columns(SESSION, "shares")


@pytest.mark.parametrize("api", ["invalid_type", "no_access"])
async def test_rules_that_are_closed_refuse_and_shares_go_on(api: str) -> None:
    async with reading(preload=50, sharing={"eager": True, "rules_api": api}) as read:
        with pytest.raises(QueryRefusedError):
            await read.records.sharing_rules(SESSION)
        assert await scanned(read, 200)


async def test_rules_are_read_and_the_delete_log_knows_those_that_went() -> None:
    async with reading(preload=50, sharing={"eager": True}) as read:
        first = (await read.records.sharing_rules(SESSION)).rules
        rules = read.org.model.sharing.rules
        assert {rule.rule_id for rule in first} == set(rules)
        assert {rule.values["Name"] for rule in first} == {rule.name for rule in rules.values()}
        assert all(rule.modified_ms and rule.modified_by for rule in first)
        gone = first[0]
        await act(read, "rule_delete", rule=gone.rule_id)
        now_ms = read.org.state.now_ms()
        await act(read, "advance_clock", seconds=120)
        assert gone.rule_id not in {rule.rule_id for rule in (await read.records.sharing_rules(SESSION)).rules}
        log = await read.records.deleted_rules(SESSION, now_ms - 60_000, now_ms + 60_000)
        assert gone.rule_id in log.ids


async def test_grantees_are_resolved_and_unknown_ones_left_out() -> None:
    async with reading(preload=200, sharing={"eager": True}) as read:
        ids = {row.user_or_group_id for row in await scanned(read, 200)}
        unknown = [to_18("00G000000000000"), to_18("005000000000000"), to_18("0Mw000000000000")]
        found = await read.records.grantees([*ids, *unknown, "no id"])
        assert set(found) == ids
        kinds = {grantee.kind for grantee in found.values()}
        assert {"User", "Queue"} <= kinds
        assert all(grantee.name for grantee in found.values())


async def test_role_groups_have_the_name_of_their_role() -> None:
    async with reading(preload=10, sharing={"eager": True}) as read:
        group = read.org.model.sharing.directory.find("RoleAndSubordinates:Region_North")
        (grantee,) = (await read.records.grantees([group])).values()
        assert grantee.kind == "RoleAndSubordinates"
        assert grantee.name


async def test_the_org_wide_default_is_read() -> None:
    async with reading(preload=10, sharing={"internal": "Read", "external": "Private"}) as read:
        assert await read.records.org_default(SESSION) == OrgDefault("Read", "Private")
        assert await read.records.org_default("Nothing__c") == OrgDefault(None, None)


# Feed


async def test_feed_items_come_with_the_changes_they_track_removed_ones_included() -> None:
    async with reading(preload=800, feed={"tracking": True}) as read:
        now_ms = read.org.state.now_ms()
        await act(read, "feed_post", records=5)
        items: dict[str, Any] = {}
        cursor = None
        while True:
            page = await read.records.feed(SESSION, 0, now_ms + 60_000, cursor, limit=200)
            items |= {item.item_id: item for item in page.items}
            cursor = page.cursor
            if cursor is None:
                break
        there = {item.item_id: item for item in read.org.model.feed.items()}
        assert set(items) == set(there)
        tracked = [item for item in items.values() if item.type == "TrackedChange"]
        assert tracked
        assert any(each.field.endswith("Status") for item in tracked for each in item.tracked)
        post = next(item for item in items.values() if item.type == "TextPost")
        assert post.values["Body"]
        await act(read, "feed_delete", item_ids=[post.item_id])
        (gone,) = (await read.records.feed_items(SESSION, [post.item_id])).items
        assert gone.deleted
        await act(read, "advance_clock", seconds=120)
        log = await read.records.deleted_feed_items(SESSION, now_ms - 60_000, now_ms + 60_000)
        assert post.item_id in log.ids


async def test_a_feed_that_is_closed_refuses() -> None:
    async with reading(preload=20, feed={"access": "none"}) as read:
        with pytest.raises(QueryRefusedError):
            await read.records.hidden_columns(SESSION, "feed")


# The field policy


async def test_what_the_policy_hides_is_hidden_here_too() -> None:
    key = b"k" * 16
    policy = FieldPolicy(
        drop=["Status", "MessagingSessionFeed:Body"], hash=["OwnerId"], mask=["LastModifiedById"], hash_key=key
    )
    async with reading(preload=600, sharing={"eager": True}, feed={"tracking": True}) as read:
        await act(read, "feed_post", records=2)
        records = read.salesforce.records(policy)
        ids = list(read.org.model.records(SESSION))[:30]
        page = await records.shares_of(SESSION, ids, repair=False)
        owners = {row.user_or_group_id for row in page.rows if row.row_cause == OWNER}
        hashed = {
            policy.apply_values(SESSION, {"OwnerId": owner})["OwnerId"]
            for _, owner, cause, _ in held(read, *ids)
            if cause == OWNER
        }
        assert owners == hashed
        assert {row.modified_by for row in page.rows} == {"***"}
        items = (await records.feed(SESSION, 0, read.org.state.now_ms() + 60_000, None)).items
        fields = {each.field.rpartition(".")[2] for item in items for each in item.tracked}
        assert fields
        assert "Status" not in fields
        assert all("Body" not in item.values for item in items)
        told = [each for item in items for each in item.tracked if each.field.endswith("Owner") and each.new]
        assert all(len(each.new or "") == 64 for each in told), "hashed"


async def test_a_dropped_owner_leaves_no_owner_row() -> None:
    async with reading(preload=100, sharing={"eager": True}) as read:
        records = read.salesforce.records(FieldPolicy(drop=["OwnerId"]))
        page = await records.shares_of(SESSION, list(read.org.model.records(SESSION))[:30], repair=False)
        assert OWNER not in {row.row_cause for row in page.rows}


# Small things


def test_custom_objects_have_companions_of_their_own_kind() -> None:
    assert companion_of("Widget__c", "shares") == "Widget__Share"
    assert companion_of("Widget__c", "feed") == "Widget__Feed"
    assert companion_of(SESSION, "rules") == "MessagingSessionOwnerSharingRule"


def test_a_row_without_its_ids_is_no_answer() -> None:
    with pytest.raises(SalesforceUnavailableError, match="MessagingSessionShare"):
        converted("MessagingSessionShare", lambda record: record["Id"], {})


async def test_a_foreign_cursor_is_refused() -> None:
    async with reading(preload=10, sharing={"eager": True}) as read:
        for cursor in ("x", "0Mw000000000001AAA", "0Mw000000000001AAA:'; x", "a:b"):
            with pytest.raises(QueryRefusedError):
                await read.records.shares_scan(SESSION, cursor)
