"""Reading records: a page's end is not the object's end, cursors stand behind the last row, missing is proven."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

import pytest

from consumer.changes.fields import FieldPolicy
from consumer.errors import QueryRefusedError, RowError, SalesforceUnavailableError
from tests.unit.rest_org import BASE, DATE, NOW_MS, Bench, fault, page, record, scripted_org, widget_id, widget_plan

PLAN = widget_plan()
STAMP_MS = NOW_MS - 3_600_000
DAY_MS = 86_400_000


def describe(*fields: Mapping[str, object]) -> dict[str, object]:
    return {"name": "Widget__c", "fields": [{"name": "Id", "type": "id", "length": 18}, *fields]}


async def test_describe_is_read_once_and_then_only_if_modified() -> None:
    field = {"name": "OwnerId", "type": "reference", "length": 18, "compoundFieldName": None, "filterable": False}
    async with scripted_org() as bench:
        records = bench.records()
        bench.org.answer(describe(field)).answer("", 304).answer(describe())
        first = await records.describe("Widget__c")
        assert await records.describe("Widget__c") is first
        assert first["OwnerId"].type == "reference"
        assert first["OwnerId"].compound is None
        assert not first["OwnerId"].filterable
        assert "If-Modified-Since" not in bench.org.asked[0].headers
        assert bench.org.asked[1].headers["If-Modified-Since"] == DATE
        bench.clock.observe(NOW_MS + 3_600_001)
        assert list(await records.describe("Widget__c")) == ["Id"]
        assert "If-Modified-Since" not in bench.org.asked[2].headers, "permissions may not count as a modification"


async def test_a_refused_field_makes_the_describe_be_read_whole() -> None:
    async with scripted_org() as bench:
        records = bench.records()
        bench.org.answer(describe()).answer(fault("INVALID_FIELD"), 400).answer(describe())
        await records.describe("Widget__c")
        with pytest.raises(QueryRefusedError):
            await records.scan(PLAN, None, repair=False)
        await records.describe("Widget__c")
        assert "If-Modified-Since" not in bench.org.asked[2].headers


async def test_tracked_fields_and_count() -> None:
    async with scripted_org() as bench:
        bench.org.answer(page([{"QualifiedApiName": "OwnerId"}, {"QualifiedApiName": "Status"}]))
        bench.org.answer({"totalSize": 7, "done": True, "records": []})
        assert await bench.records().tracked_fields("MessagingSession") == {"OwnerId", "Status"}
        assert await bench.records().count("Widget__c", "Active__c = true") == 7
    assert bench.org.asked[0].soql == (
        "SELECT QualifiedApiName FROM FieldDefinition WHERE EntityDefinition.QualifiedApiName = 'MessagingSession' "
        "AND IsFieldHistoryTracked = true"
    )
    assert bench.org.asked[1].soql == "SELECT COUNT() FROM Widget__c WHERE (Active__c = true)"


async def test_rows_by_id_asks_queryall_and_tells_what_is_missing() -> None:
    ids = [widget_id(1), widget_id(2), widget_id(1), widget_id(3)]
    async with scripted_org() as bench:
        bench.org.answer(page([record(3), record(1, IsDeleted=True)]))
        found = await bench.records().rows_by_id(PLAN, ids, repair=True)
    assert bench.org.asked[0].path == f"{BASE}/queryAll/"
    assert bench.org.asked[0].soql.endswith(f"WHERE Id IN ('{ids[0]}','{ids[1]}','{ids[3]}')")
    assert [(row.record_id, row.deleted) for row in found.rows] == [(widget_id(1), True), (widget_id(3), False)]
    assert found.missing == (widget_id(2),)
    assert found.rows[0].stamp_ms == STAMP_MS
    assert found.answered_ms == NOW_MS + 1000


async def test_a_record_on_a_later_page_is_not_missing() -> None:
    """A short page is not the end, and without the end nothing is proven gone."""
    ids = [widget_id(1), widget_id(2)]
    async with scripted_org() as bench:
        bench.org.answer(page([record(1)], "/query/x-1")).answer(page([record(2)]))
        assert not (await bench.records().rows_by_id(PLAN, ids, repair=True)).missing
        bench.org.answer(page([record(1)], "/query/x-1")).answer(fault("INVALID_QUERY_LOCATOR"), 400)
        with pytest.raises(SalesforceUnavailableError):
            await bench.records().rows_by_id(PLAN, ids, repair=True)


async def test_no_ids_cost_no_call() -> None:
    async with scripted_org() as bench:
        found = await bench.records().rows_by_id(PLAN, [], repair=True)
        assert (list(found.rows), found.missing, bench.org.asked) == ([], (), [])


async def scan_all(bench: Bench, limit: int) -> tuple[list[str], list[str]]:
    ids, cursor, first = [], None, True
    while first or cursor is not None:
        found = await bench.records().scan(PLAN, cursor, where="Active__c = true", limit=limit, repair=False)
        ids += [row.record_id for row in found.rows]
        cursor, first = found.cursor, False
    return ids, [asked.soql.partition("WHERE ")[2] for asked in bench.org.asked if "q" in asked.query]


async def test_a_scan_goes_on_behind_the_last_id_until_a_complete_query_is_short() -> None:
    async with scripted_org() as bench:
        bench.org.answer(page([record(1)], "/query/x-1")).answer(page([record(2)], "/query/x-2"))
        bench.org.answer(page([record(3)]))
        bench.org.answer(page([record(4)], "/query/y-1")).answer(page([record(5), record(6)]))
        bench.org.answer(page([record(7)]))
        ids, questions = await scan_all(bench, 3)
    assert ids == [widget_id(number) for number in range(1, 8)]
    tail = "(Active__c = true) ORDER BY Id LIMIT 3"
    assert questions == [tail, f"Id > '{widget_id(3)}' AND {tail}", f"Id > '{widget_id(6)}' AND {tail}"]
    assert bench.org.asked[0].path == f"{BASE}/query/"
    assert bench.org.asked[1].path == f"{BASE}/query/x-1"
    assert bench.org.asked[0].headers["Sforce-Query-Options"] == "batchSize=200"


async def test_a_scan_of_exactly_full_pages_ends_with_an_empty_one() -> None:
    async with scripted_org() as bench:
        bench.org.answer(page([record(1), record(2)])).answer(page([]))
        ids, _ = await scan_all(bench, 2)
    assert len(ids) == 2


async def test_an_expired_cursor_goes_on_behind_what_was_read() -> None:
    async with scripted_org() as bench:
        bench.org.answer(page([record(1)], "/query/x-1")).answer(fault("INVALID_QUERY_LOCATOR"), 400)
        bench.org.answer(page([record(2)]))
        ids, _ = await scan_all(bench, 3)
    assert ids == [widget_id(1), widget_id(2)]


async def test_the_next_page_is_only_asked_of_the_org() -> None:
    """The token must not follow an address out of it."""
    for following in ("@evil.example/x", "https://evil.example/services/data/", "//evil.example", "", 5, None):
        async with scripted_org() as bench:
            bench.org.answer({"totalSize": 9, "done": False, "records": [], "nextRecordsUrl": following})
            with pytest.raises(SalesforceUnavailableError):
                await bench.records().scan(PLAN, None, repair=False)
            assert len(bench.org.asked) == 1


async def test_modified_rows_are_asked_behind_stamp_and_id() -> None:
    async with scripted_org() as bench:
        bench.org.answer(page([record(9), record(3)])).answer(page([]))
        first = await bench.records().modified(PLAN, STAMP_MS, STAMP_MS + 60_000, None, limit=2, repair=True)
        second = await bench.records().modified(PLAN, STAMP_MS, STAMP_MS + 60_000, first.cursor, limit=2, repair=True)
    assert bench.org.asked[0].path == f"{BASE}/queryAll/"
    window = "SystemModstamp >= 2026-11-22T09:00:00Z AND SystemModstamp < 2026-11-22T09:01:00Z"
    order = "ORDER BY SystemModstamp, Id LIMIT 2"
    assert bench.org.asked[0].soql.partition("WHERE ")[2] == f"{window} {order}"
    assert bench.org.asked[1].soql.partition("WHERE ")[2] == (
        f"{window} AND ((SystemModstamp = 2026-11-22T09:00:00Z AND Id > '{widget_id(3)}') "
        f"OR SystemModstamp > 2026-11-22T09:00:00Z) {order}"
    )
    assert second.cursor is None


def deleted_log(ids: dict[str, str], earliest: str, covered: str) -> dict[str, object]:
    items = [{"id": key, "deletedDate": value} for key, value in ids.items()]
    return {"deletedRecords": items, "earliestDateAvailable": earliest, "latestDateCovered": covered}


OLD, LATE = "2026-11-01T00:00:00.000+0000", "2026-11-22T09:58:00.000+0000"


async def test_the_delete_log_is_asked_in_whole_minutes_and_15_days_back() -> None:
    async with scripted_org() as bench:
        bench.org.answer(deleted_log({widget_id(1): "2026-11-22T09:30:00.000+0000"}, OLD, LATE)).answer(
            deleted_log({}, OLD, LATE)
        )
        found = await bench.records().deleted_ids("Widget__c", STAMP_MS + 1, NOW_MS - 1)
        assert found.ids == {widget_id(1): STAMP_MS + 1_800_000}
        assert found.covered_to_ms == NOW_MS - 120_000
        assert bench.org.asked[0].query == {"start": "2026-11-22T09:00:00+00:00", "end": "2026-11-22T10:00:00+00:00"}
        found = await bench.records().deleted_ids("Widget__c", NOW_MS - 30 * DAY_MS, NOW_MS)
        assert bench.org.asked[1].query["start"] == "2026-11-07T10:05:00+00:00"
        assert found.earliest_ms == NOW_MS - 15 * DAY_MS + 300_000, "what lies before was not asked for"


async def test_the_delete_log_reaches_no_further_than_the_org_says() -> None:
    async with scripted_org() as bench:
        bench.org.answer(deleted_log({}, "2026-11-22T09:10:00.000+0000", LATE))
        found = await bench.records().deleted_ids("Widget__c", STAMP_MS, NOW_MS)
    assert found.earliest_ms == STAMP_MS + 600_000


async def test_a_delete_log_with_too_many_ids_is_asked_in_halves() -> None:
    full = "2026-11-22T10:00:00.000+0000"
    async with scripted_org() as bench:
        bench.org.answer(fault("EXCEEDED_ID_LIMIT"), 400)
        bench.org.answer(deleted_log({widget_id(1): OLD}, OLD, full)).answer(
            deleted_log({widget_id(2): OLD}, OLD, LATE)
        )
        found = await bench.records().deleted_ids("Widget__c", STAMP_MS, NOW_MS)
    assert set(found.ids) == {widget_id(1), widget_id(2)}
    assert found.covered_to_ms == NOW_MS - 120_000
    assert [asked.query["start"][11:16] for asked in bench.org.asked] == ["09:00", "09:00", "09:30"]


async def test_halves_are_covered_only_without_a_hole() -> None:
    async with scripted_org() as bench:
        bench.org.answer(fault("EXCEEDED_ID_LIMIT"), 400)
        bench.org.answer(deleted_log({}, OLD, "2026-11-22T09:20:00.000+0000"))
        found = await bench.records().deleted_ids("Widget__c", STAMP_MS, NOW_MS)
    assert found.covered_to_ms == STAMP_MS + 1_200_000
    assert len(bench.org.asked) == 2


async def test_a_minute_with_too_many_ids_is_refused() -> None:
    async with scripted_org() as bench:
        bench.org.answer(fault("EXCEEDED_ID_LIMIT"), 400)
        with pytest.raises(QueryRefusedError) as raised:
            await bench.records().deleted_ids("Widget__c", STAMP_MS, STAMP_MS + 60_000)
    assert raised.value.code == "EXCEEDED_ID_LIMIT"


def history_row(number: int, **changes: object) -> dict[str, object]:
    row: dict[str, object] = {
        "Id": f"017{number:012d}AAA",
        "ParentId": widget_id(1),
        "Field": "Owner",
        "DataType": "EntityId",
        "OldValue": "00Gxx0000000001",
        "NewValue": None,
        "CreatedById": "005xx0000000001AAA",
        "CreatedDate": "2026-11-22T09:00:00.000+0000",
    }
    return row | changes


async def test_history_rows_are_read_in_order_and_made_canonical() -> None:
    rows = [
        history_row(2),
        history_row(1, Field="Weight__c", DataType="Double", OldValue=5, NewValue=1.5),
        history_row(3, Field="Due__c", DataType="DateTime", OldValue="2026-11-22T10:00:00.000+0000", NewValue="odd"),
        history_row(4, Field="created", DataType=None, OldValue=None),
    ]
    async with scripted_org() as bench:
        bench.org.answer(page(rows)).answer(page([]))
        found = await bench.records().history("Widget__c", STAMP_MS, NOW_MS, None, limit=4)
        await bench.records().history("Widget__c", STAMP_MS, NOW_MS, found.cursor, limit=4)
    assert bench.org.asked[0].path == f"{BASE}/queryAll/"
    assert bench.org.asked[0].soql == (
        "SELECT Id, ParentId, Field, DataType, OldValue, NewValue, CreatedById, CreatedDate FROM Widget__History "
        "WHERE CreatedDate >= 2026-11-22T09:00:00Z AND CreatedDate < 2026-11-22T10:00:00Z "
        "ORDER BY CreatedDate, Id LIMIT 4"
    )
    assert "Id > '017000000000004AAA') OR CreatedDate > 2026" in bench.org.asked[1].soql
    assert [(row.old, row.new) for row in found.rows] == [
        ("00Gxx0000000001EAA", None),
        (5.0, 1.5),
        ("2026-11-22T10:00:00.000Z", "odd"),
        (None, None),
    ]
    assert type(found.rows[1].old) is float
    assert found.rows[0].created_ms == STAMP_MS


async def test_metrics_come_by_session_and_type() -> None:
    row = {"MessagingSessionId": "0Mw000000000001", "MessagingSessionMetricType": "A", "MessagingSessionMetricValue": 3}
    async with scripted_org() as bench:
        bench.org.answer(page([row, row | {"MessagingSessionMetricType": "B", "MessagingSessionMetricValue": None}]))
        metrics, answered_ms = await bench.records().metrics(["0Mw000000000001CAA", "0Mw000000000002CAA"])
    assert metrics == {"0Mw000000000001CAA": {"A": 3, "B": None}}
    assert answered_ms == NOW_MS + 1000
    assert bench.org.asked[0].path == f"{BASE}/query/"


async def test_what_may_use_the_reserve() -> None:
    """Polls stop at the reserve; repairs, and what they can't do without, go on."""
    async with scripted_org(reserve=0.5) as bench:
        records = bench.records()
        bench.governor.observe("api-usage=900/1000")
        for poll in (
            records.scan(PLAN, None, repair=False),
            records.modified(PLAN, 0, 1, None, repair=False),
            records.rows_by_id(PLAN, [widget_id(1)], repair=False),
            records.history("Widget__c", 0, 1, None),
            records.metrics([widget_id(1)]),
        ):
            with pytest.raises(Exception, match="reserve"):
                await poll
        assert not bench.org.asked
        for _ in range(3):
            bench.org.answer(page([]))
        await records.scan(PLAN, None, repair=True)
        await records.modified(PLAN, 0, 1, None, repair=True)
        await records.rows_by_id(PLAN, [widget_id(1)], repair=True)
        bench.org.answer(describe()).answer(deleted_log({}, OLD, LATE)).answer({"id": "750000000000001AAA"})
        await records.describe("Widget__c")
        await records.deleted_ids("Widget__c", STAMP_MS, NOW_MS)
        await records.bulk_start(PLAN)
        assert records.pace_factor == 16


async def test_a_value_that_does_not_fit_is_told_without_being_shown() -> None:
    async with scripted_org() as bench:
        bench.org.answer(page([record(1, Weight__c="heavy secret")]))
        with pytest.raises(RowError) as raised:
            await bench.records().scan(PLAN, None, repair=False)
    assert "Widget__c.Weight__c" in raised.value.message
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("change", [{"Id": None}, {"Id": "x"}, {"SystemModstamp": None}, {"SystemModstamp": "now"}])
async def test_a_row_without_id_or_stamp_is_none(change: dict[str, object]) -> None:
    async with scripted_org() as bench:
        bench.org.answer(page([record(1) | change]))
        with pytest.raises(RowError):
            await bench.records().scan(PLAN, None, repair=False)


KEY = b"a key of sixteen bytes"


def keyed(text: bytes) -> str:
    return hmac.digest(KEY, text, hashlib.sha256).hex()


async def test_the_policy_comes_before_anything_leaves() -> None:
    policy = FieldPolicy(drop=["Name", "Ship__c.City"], hash=["OwnerId"], mask=["Notes__c"], hash_key=KEY)
    owner = "005xx0000000001AAA"
    ship = {"street": "s", "city": "c", "postalCode": None}
    row = record(1, OwnerId=owner, Notes__c="n", Ship__c=ship, Weight__c=1)
    async with scripted_org() as bench:
        records = bench.records(policy)
        bench.org.answer(page([row])).answer(page([row]))
        for found in (
            await records.scan(PLAN, None, repair=False),
            await records.rows_by_id(PLAN, [widget_id(1)], repair=False),
        ):
            values = found.rows[0].values
            assert "Name" not in values
            assert values["OwnerId"] == keyed(f'"{owner}"'.encode())
            assert values["Notes__c"] == "***"
            assert values["Ship__c"]["Street"] == "s"
            assert "City" not in values["Ship__c"]
            assert values["Weight__c"] == 1.0


async def test_the_policy_covers_history_of_lookups_under_their_other_name() -> None:
    """Salesforce's row of names says as much as the one of ids, and neither bears the field's name."""
    owner = {"name": "OwnerId", "type": "reference"}
    case = {"name": "CaseId", "type": "reference"}
    rows = [
        history_row(1, OldValue="00Gxx0000000001EAA"),
        history_row(2, DataType="Text", OldValue="Queue"),
        history_row(3, Field="Case", DataType="Text", OldValue="00001", NewValue="00002"),
        history_row(4, Field="Case", DataType="EntityId", OldValue="500000000000001AAA"),
        history_row(5, Field="Weight__c", DataType="Double", OldValue=1),
    ]
    async with scripted_org() as bench:
        records = bench.records(FieldPolicy(drop=["CaseId"], hash=["Widget__c:OwnerId"], hash_key=KEY))
        bench.org.answer(page(rows)).answer(describe(owner, case))
        found = await records.history("Widget__c", STAMP_MS, NOW_MS, None, limit=5)
    assert [row.history_field for row in found.rows] == ["Owner", "Owner", "Weight__c"]
    assert found.rows[0].old == keyed(b'"00Gxx0000000001EAA"')
    assert found.rows[1].old == keyed(b'"Queue"')
    assert found.rows[0].new is None
    assert found.cursor is not None
    assert "017000000000005AAA" in found.cursor, "a dropped row moves the cursor too"


async def test_the_policy_covers_metrics_of_the_same_name() -> None:
    row = {
        "MessagingSessionId": "0Mw000000000001CAA",
        "MessagingSessionMetricType": "AgentMessageCount",
        "MessagingSessionMetricValue": 3,
    }
    async with scripted_org() as bench:
        bench.org.answer(page([row]))
        metrics, _ = await bench.records(FieldPolicy(drop=["AgentMessageCount"])).metrics(["0Mw000000000001CAA"])
    assert metrics == {"0Mw000000000001CAA": {}}
