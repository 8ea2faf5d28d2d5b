"""Reading shares, rules, grantees and feeds of an org that answers awkwardly: cuts, refusals, clocks, counts."""

from __future__ import annotations

from email.utils import formatdate
from typing import Any

import pytest

from consumer.changes.fields import FieldPolicy
from consumer.errors import QueryRefusedError, QuotaError, SalesforceUnavailableError
from consumer.pages import OrgDefault
from consumer.ports import RecordSource
from consumer.salesforce.companions import COLUMNS
from consumer.salesforce.describes import WHOLE_AGAIN_MS
from consumer.tracking.access import Grantee
from consumer.tracking.feed_values import TrackedField
from tests.unit.rest_org import BASE, NOW_MS, Bench, fault, page, scripted_org

SESSION, SHARE, FEED = "MessagingSession", "MessagingSessionShare", "MessagingSessionFeed"
SESSION_1, SESSION_2 = "0Mw000000000001AAA", "0Mw000000000002AAA"
USER, QUEUE, ROLE = "005000000000001AAA", "00G000000000001AAA", "00G000000000002AAA"
ITEM = "0D5000000000001AAA"
STAMP = "2026-11-22T09:00:00.000+0000"


def columns(what: Any, *hidden: str) -> dict[str, object]:
    """Return a companion's describe."""
    names = (*COLUMNS[what].needed, *COLUMNS[what].wanted)
    return {"fields": [{"name": each, "type": "string", "length": 255} for each in names if each not in hidden]}


def share(number: int, record: str = SESSION_1, **values: object) -> dict[str, object]:
    row = {"Id": f"02c{number:012d}AAA", "ParentId": record, "UserOrGroupId": USER, "AccessLevel": "Read"}
    return {**row, "RowCause": "Rule", "LastModifiedDate": STAMP, "LastModifiedById": USER, **values}


def item(*changes: dict[str, object], following: str | None = None, **values: object) -> dict[str, object]:
    row = {"Id": ITEM, "ParentId": SESSION_1, "Type": "TrackedChange", "CreatedDate": STAMP, "SystemModstamp": STAMP}
    tracked = page(changes, following) if changes else None
    return {**row, "IsDeleted": False, "FeedTrackedChanges": tracked, **values}


def change(field: str, old: object = None, new: object = None) -> dict[str, object]:
    return {"FieldName": field, "OldValue": old, "NewValue": new}


def date(offset_s: int) -> str:
    return formatdate(NOW_MS / 1000 + offset_s, usegmt=True)


# Between which times rows were true


@pytest.mark.parametrize("ahead_ms", [0, 5_000])
async def test_rows_were_asked_for_before_the_first_answer_even_if_our_clock_is_ahead(ahead_ms: int) -> None:
    """What was committed after the first answer may be missing, however late the last one came."""
    async with scripted_org() as bench:
        bench.org.answer(columns("shares"), Date=date(0))
        bench.org.answer(page([share(1)], "/query/x-1"), Date=date(1)).answer(page([share(2)]), Date=date(90))
        records = bench.records()
        await records.hidden_columns(SESSION, "shares")
        bench.clock.observe(NOW_MS + ahead_ms)
        found = await records.shares_of(SESSION, [SESSION_1], repair=False)
    assert found.asked_ms == (NOW_MS - 1_000 if ahead_ms == 0 else NOW_MS + 1_000)
    assert found.answered_ms == NOW_MS + 91_000


async def test_rows_of_a_record_are_only_good_together() -> None:
    async with scripted_org() as bench:
        bench.org.answer(columns("shares")).answer(page([share(1)], "/query/x-1"))
        bench.org.answer(fault("INVALID_QUERY_LOCATOR"), 400)
        with pytest.raises(SalesforceUnavailableError):
            await bench.records().shares_of(SESSION, [SESSION_1], repair=False)


# Refusals


async def test_what_all_rows_can_not_be_ordered_by_is_said() -> None:
    async with scripted_org() as bench:
        bench.org.answer(columns("shares")).answer(fault("MALFORMED_QUERY", "field ParentId can not be sorted"), 400)
        with pytest.raises(QueryRefusedError, match=rf"All rows of {SHARE} can't be read in the order") as caught:
            await bench.records().shares_scan(SESSION, None)
    assert "ParentId" in caught.value.message
    assert caught.value.code == "MALFORMED_QUERY"


async def test_a_column_that_was_just_taken_away_is_not_taken_for_the_order() -> None:
    async with scripted_org() as bench:
        bench.org.answer(columns("shares")).answer(fault("INVALID_FIELD", "No such column 'LastModifiedById'"), 400)
        bench.org.answer(columns("shares", "LastModifiedById")).answer(page([share(1)]))
        records = bench.records()
        with pytest.raises(QueryRefusedError, match=r"LastModifiedById") as caught:
            await records.shares_scan(SESSION, None)
        assert "in the order" not in caught.value.message
        assert len((await records.shares_scan(SESSION, None)).rows) == 1
    assert "LastModifiedById" not in bench.org.asked[-1].soql


@pytest.mark.parametrize("what", ["shares", "feed", "rules"])
async def test_a_needed_column_that_is_hidden_is_named_with_its_object(what: Any) -> None:
    needed = COLUMNS[what].needed[-1]
    async with scripted_org() as bench:
        bench.org.answer(columns(what, needed))
        with pytest.raises(QueryRefusedError, match=needed) as caught:
            await bench.records().hidden_columns(SESSION, what)
    assert SESSION in caught.value.message
    assert caught.value.advice


# Calls


async def test_every_call_counts_describes_and_halved_delete_logs_included() -> None:
    async with scripted_org() as bench:
        records: RecordSource = bench.records()
        bench.org.answer(columns("shares")).answer(page([share(1)], "/query/x-1")).answer(page([share(2)]))
        await records.shares_of(SESSION, [SESSION_1], repair=False)
        assert records.sharing_calls == 3
        log = {"deletedRecords": [], "earliestDateAvailable": STAMP, "latestDateCovered": STAMP}
        bench.org.answer(fault("EXCEEDED_ID_LIMIT"), 400).answer(log)
        await records.deleted_rules(SESSION, NOW_MS - 3_600_000, NOW_MS - 1_800_000)
        assert records.sharing_calls == len(bench.org.asked) == 5, "the first half covers nothing, so that it ends"
        bench.org.answer(fault("INVALID_TYPE"), 400)
        with pytest.raises(QueryRefusedError):
            await records.count_shares(SESSION)
        assert records.sharing_calls == 6
        bench.org.answer({"fields": []})
        await records.describe(SESSION)
        assert records.sharing_calls == 6, "what is read beside"


async def _everything(records: RecordSource) -> list[Any]:
    return [
        records.shares_modified(SESSION, 0, NOW_MS, None),
        records.shares_scan(SESSION, None),
        records.shares_of(SESSION, [SESSION_1], repair=False),
        records.count_shares(SESSION),
        records.sharing_rules(SESSION),
        records.deleted_rules(SESSION, NOW_MS - 60_000, NOW_MS),
        records.grantees([USER]),
        records.grantees([QUEUE]),
        records.org_default(SESSION),
        records.feed(SESSION, 0, NOW_MS, None),
        records.feed_items(SESSION, [ITEM]),
        records.deleted_feed_items(SESSION, NOW_MS - 60_000, NOW_MS),
        records.hidden_columns(SESSION, "rules"),
    ]


async def test_the_reserve_is_kept_for_repairs_and_what_is_held_back_is_no_call() -> None:
    async with scripted_org(reserve=0.5) as bench:
        records: RecordSource = bench.records()
        for what in COLUMNS:
            bench.org.answer(columns(what), Sforce_Limit_Info="api-usage=60/100")
        for what in COLUMNS:
            bench.governor.observe("api-usage=1/100")
            await records.hidden_columns(SESSION, what)
        calls = records.sharing_calls
        for question in await _everything(records):
            with pytest.raises(QuotaError):
                await question
        assert records.sharing_calls == calls == 3
        bench.org.answer(page([share(1)]))
        assert (await records.shares_of(SESSION, [SESSION_1], repair=True)).rows


# Grantees


def group(number: int, **values: object) -> dict[str, object]:
    return {"Id": f"00G{number:012d}AAA", "Name": None, "DeveloperName": f"Group_{number}", "Type": "Role", **values}


async def test_a_role_group_is_named_by_its_role_and_by_its_own_if_that_is_refused() -> None:
    async with scripted_org() as bench:
        records = bench.records()
        bench.org.answer(page([group(2, Related={"Name": "Team Oslo"})]))
        assert await records.grantees([ROLE]) == {ROLE: Grantee("Role", "Team Oslo")}
        assert "Related.Name" in bench.org.asked[-1].soql
        bench.org.answer(fault("INVALID_FIELD"), 400).answer(page([group(2)]))
        assert await records.grantees([ROLE]) == {ROLE: Grantee("Role", "Group_2")}
        bench.org.answer(page([group(2)]))
        await records.grantees([ROLE])
        assert "Related.Name" not in bench.org.asked[-1].soql, "not asked for in vain each time"
        bench.clock.observe(NOW_MS + WHOLE_AGAIN_MS + 1_000)
        bench.org.answer(page([group(2, Related={"Name": "Team Oslo"})]))
        assert await records.grantees([ROLE]) == {ROLE: Grantee("Role", "Team Oslo")}
        assert "Related.Name" in bench.org.asked[-1].soql, "an hour later it is"


async def test_groups_that_can_not_be_read_at_all_are_not_taken_for_a_refused_role() -> None:
    async with scripted_org() as bench:
        records = bench.records()
        bench.org.answer(fault("INVALID_TYPE"), 400).answer(fault("INVALID_TYPE"), 400)
        with pytest.raises(QueryRefusedError):
            await records.grantees([ROLE])
        bench.org.answer(page([group(2, Related={"Name": "Team Oslo"})]))
        assert await records.grantees([ROLE]) == {ROLE: Grantee("Role", "Team Oslo")}
        assert "Related.Name" in bench.org.asked[-1].soql


async def test_a_rule_for_names_hides_the_names_of_users_and_groups() -> None:
    async with scripted_org() as bench:
        records = bench.records(FieldPolicy(mask=["User:Name"], drop=["Group:Name"]))
        bench.org.answer(page([{"Id": USER, "Name": "Ada"}])).answer(page([group(1, Name="Support", Type="Queue")]))
        assert await records.grantees([USER, QUEUE]) == {USER: Grantee("User", "***"), QUEUE: Grantee("Queue", None)}


async def test_an_object_without_a_definition_has_no_default_to_tell() -> None:
    async with scripted_org() as bench:
        bench.org.answer(page([]))
        assert await bench.records().org_default(SESSION) == OrgDefault(None, None)
        bench.org.answer(page([{"QualifiedApiName": SESSION, "InternalSharingModel": "Private"}]))
        assert await bench.records().org_default(SESSION) == OrgDefault("Private", None)
    with pytest.raises(QueryRefusedError):
        await bench.records().org_default("x'; y")


# Feed


async def test_tracked_changes_that_were_cut_are_read_to_their_end() -> None:
    async with scripted_org() as bench:
        row = item(change("MessagingSession.Status", "New", "Active"), following="/query/c-1")
        bench.org.answer(columns("feed")).answer(page([row]))
        bench.org.answer(page([change("MessagingSession.Owner", "A", "B")], "/query/c-2"))
        bench.org.answer(page([change("created"), change("MessagingSession.Weight__c", 1.5, True)]))
        records = bench.records()
        (found,) = (await records.feed(SESSION, 0, NOW_MS, None)).items
    assert found.tracked == (
        TrackedField("MessagingSession.Status", "New", "Active"),
        TrackedField("MessagingSession.Owner", "A", "B"),
        TrackedField("created", None, None),
        TrackedField("MessagingSession.Weight__c", "1.5", "true"),
    )
    assert bench.org.asked[1].path == f"{BASE}/queryAll/"
    assert [asked.path for asked in bench.org.asked[2:]] == [f"{BASE}/query/c-1", f"{BASE}/query/c-2"]
    assert records.sharing_calls == 4


@pytest.mark.parametrize("after", [0, 1])
async def test_tracked_changes_whose_cursor_is_gone_are_asked_for_again_not_left_out(after: int) -> None:
    async with scripted_org() as bench:
        bench.org.answer(columns("feed")).answer(page([item(change("created"), following="/query/c-1")]))
        if after:
            bench.org.answer(page([change("created")], "/query/c-2"))
        bench.org.answer(fault("INVALID_QUERY_LOCATOR"), 400)
        with pytest.raises(SalesforceUnavailableError):
            await bench.records().feed(SESSION, 0, NOW_MS, None)


@pytest.mark.parametrize(
    "tracked",
    [
        {"done": False, "records": [], "totalSize": 3},
        {"done": False, "records": [], "totalSize": 3, "nextRecordsUrl": "https://evil.example/services/data/"},
        {"records": []},
        {"done": True},
        [],
        "x",
    ],
)
async def test_tracked_changes_that_are_no_page_are_no_answer(tracked: object) -> None:
    async with scripted_org() as bench:
        bench.org.answer(columns("feed")).answer(page([item(FeedTrackedChanges=tracked)]))
        with pytest.raises(SalesforceUnavailableError):
            await bench.records().feed(SESSION, 0, NOW_MS, None)
        assert len(bench.org.asked) == 2, "the token follows no address out of the org"


async def test_a_feed_without_tracked_changes_is_read_all_the_same_and_says_what_is_missing() -> None:
    async with scripted_org() as bench:
        records = bench.records()
        bench.org.answer(columns("feed")).answer(fault("INVALID_TYPE", "FeedTrackedChange"), 400).answer(page([item()]))
        assert len((await records.feed(SESSION, 0, NOW_MS, None)).items) == 1
        bench.org.answer(columns("feed"))
        assert await records.hidden_columns(SESSION, "feed") == (f"{FEED}.FeedTrackedChanges",)
        bench.org.answer(page([item()]))
        await records.feed(SESSION, 0, NOW_MS, None)
        assert "FeedTrackedChanges" not in bench.org.asked[-1].soql
        bench.clock.observe(NOW_MS + WHOLE_AGAIN_MS + 1_000)
        bench.org.answer(page([item(change("created"))]))
        assert (await records.feed(SESSION, 0, NOW_MS, None)).items[0].tracked, "asked for again after an hour"
        bench.org.answer(columns("feed"))
        assert await records.hidden_columns(SESSION, "feed") == ()


async def test_a_feed_that_is_refused_as_a_whole_is_not_taken_for_its_tracked_changes() -> None:
    async with scripted_org() as bench:
        records = bench.records()
        bench.org.answer(columns("feed"))
        bench.org.answer(fault("MALFORMED_QUERY"), 400).answer(fault("MALFORMED_QUERY"), 400)
        with pytest.raises(QueryRefusedError):
            await records.feed(SESSION, 0, NOW_MS, None)
        bench.org.answer(page([item(change("created"))]))
        assert (await records.feed(SESSION, 0, NOW_MS, None)).items[0].tracked


async def test_items_by_id_are_asked_for_in_lists_that_fit_and_prove_nothing_when_cut() -> None:
    ids = [f"0D5{number:012d}AAA" for number in range(450)]
    async with scripted_org() as bench:
        records = bench.records()
        bench.org.answer(columns("feed"))
        for _ in range(3):
            bench.org.answer(page([]))
        assert not (await records.feed_items(SESSION, [*ids, *ids])).items
        assert [asked.soql.count("'0D5") for asked in bench.org.asked[1:]] == [200, 200, 50]
        assert max(asked.size for asked in bench.org.asked) < 16_384
        bench.org.answer(page([item()], "/query/x-1")).answer(fault("INVALID_QUERY_LOCATOR"), 400)
        with pytest.raises(SalesforceUnavailableError):
            await records.feed_items(SESSION, ids[:2])
        asked = len(bench.org.asked)
        assert not (await records.feed_items(SESSION, [])).items
        assert len(bench.org.asked) == asked, "no ids cost no call"


async def test_a_cut_window_goes_on_behind_what_was_read() -> None:
    async with scripted_org() as bench:
        bench.org.answer(columns("feed")).answer(page([item()], "/query/x-1"))
        bench.org.answer(fault("INVALID_QUERY_LOCATOR"), 400).answer(page([]))
        records = bench.records()
        first = await records.feed(SESSION, 0, NOW_MS, None)
        assert (await records.feed(SESSION, 0, NOW_MS, first.cursor)).cursor is None
    assert f"Id > '{ITEM}'" in bench.org.asked[-1].soql


@pytest.mark.parametrize("name", ["Status", "MessagingSession.Status"])
async def test_no_rule_is_passed_by_through_the_feed(name: str) -> None:
    policy = FieldPolicy(drop=["Status"], hash=["OwnerId"], mask=["Origin", f"{FEED}:Body"], hash_key=b"k" * 16)
    described = {"fields": [{"name": each, "type": "string", "length": 255} for each in ("Status", "Origin")]}
    described["fields"].append({"name": "OwnerId", "type": "reference", "length": 18})
    async with scripted_org() as bench:
        changes = (change(name, "New", "secret"), change("MessagingSession.Owner", USER, "Ada"))
        bench.org.answer(columns("feed"))
        bench.org.answer(page([item(*changes, change("MessagingSession.Origin", None, "Phone"), Body="secret")]))
        bench.org.answer(described)
        (found,) = (await bench.records(policy).feed(SESSION, 0, NOW_MS, None)).items
    owner, origin = found.tracked
    assert origin == TrackedField("MessagingSession.Origin", None, "***")
    assert owner.field == "MessagingSession.Owner"
    assert [len(each or "") for each in (owner.old, owner.new)] == [64, 64]
    assert found.values["Body"] == "***"


async def test_shares_are_asked_for_by_the_bench_of_the_companions_alone() -> None:
    """A companion's describe is not the object's: one that is refused forgets only its own."""
    async with scripted_org() as bench:
        await _describe_and_refuse(bench)
    assert [asked.path.rpartition("/sobjects/")[2] for asked in bench.org.asked if "describe" in asked.path] == [
        f"{SESSION}/describe",
        f"{SHARE}/describe",
        f"{SHARE}/describe",
    ]


async def _describe_and_refuse(bench: Bench) -> None:
    records = bench.records()
    bench.org.answer({"fields": []}).answer(columns("shares")).answer(fault("INVALID_FIELD"), 400)
    await records.describe(SESSION)
    with pytest.raises(QueryRefusedError):
        await records.shares_of(SESSION, [SESSION_1], repair=False)
    bench.org.answer(columns("shares")).answer(page([share(1), share(2, SESSION_2, UserOrGroupId=QUEUE)]))
    assert len((await records.shares_of(SESSION, [SESSION_1, SESSION_2], repair=False)).rows) == 2
