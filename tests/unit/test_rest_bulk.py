"""Bulk query jobs: waited for, read by locator to its end, resumed from it, and removed."""

from __future__ import annotations

import json

import pytest

from consumer.errors import QueryRefusedError, RowError, SalesforceUnavailableError
from consumer.salesforce.bulk import CsvRows
from tests.unit.rest_org import BASE, NOW_MS, fault, scripted_org, widget_id, widget_plan

PLAN = widget_plan()
JOB = "750000000000001AAA"
STAMP = "2026-11-22T09:00:00.000Z"
HEAD = "Id,IsDeleted,SystemModstamp,Name,Weight__c,Notes__c"
TEXT = "application/json"


def csv(*lines: str) -> str:
    return "".join(f"{line}\n" for line in (HEAD, *lines))


def line(number: int, name: str = "n", weight: str = "1.5", notes: str = "") -> str:
    return f'{widget_id(number)},false,{STAMP},{name},{weight},"{notes}"'


async def test_a_job_is_made_of_what_bulk_can_read() -> None:
    async with scripted_org() as bench:
        bench.org.answer({"id": JOB, "state": "UploadComplete"})
        assert await bench.records().bulk_start(PLAN, where="Active__c = true") == JOB
    (asked,) = bench.org.asked
    order = json.loads(asked.body)
    assert (asked.method, asked.path, order["operation"]) == ("POST", f"{BASE}/jobs/query", "queryAll")
    assert order["query"] == f"SELECT {', '.join(PLAN.bulk_select)} FROM Widget__c WHERE (Active__c = true)"
    assert "Ship__c," not in order["query"]
    assert "Ship__Street__s" in order["query"]


async def test_pages_follow_the_locator_to_its_end_which_is_the_text_null() -> None:
    async with scripted_org() as bench:
        records = bench.records()
        for state in ("UploadComplete", "InProgress", "InProgress", "JobComplete"):
            bench.org.answer({"id": JOB, "state": state})
        bench.org.answer(csv(line(1), line(2)), Sforce_Locator="MjAw", Sforce_NumberOfRecords="2")
        bench.org.answer(csv(line(3)), Sforce_Locator="null", Sforce_NumberOfRecords="1")
        first = await records.bulk_page(PLAN, JOB, None, limit=2)
        second = await records.bulk_page(PLAN, JOB, first.cursor, limit=2)
    assert [row.record_id for row in (*first.rows, *second.rows)] == [widget_id(number) for number in (1, 2, 3)]
    assert (first.cursor, second.cursor) == ("MjAw", None)
    assert first.answered_ms == NOW_MS + 1000
    waits = bench.time.slept
    assert len(waits) == 3
    assert waits == sorted(waits)
    assert waits[0] >= 1
    results = [asked for asked in bench.org.asked if asked.path.endswith("/results")]
    assert [asked.query for asked in results] == [{"maxRecords": "2"}, {"maxRecords": "2", "locator": "MjAw"}]
    assert results[0].headers["Accept"] == "text/csv"


async def test_reading_goes_on_from_job_and_locator_alone() -> None:
    async with scripted_org() as bench:
        bench.org.answer({"state": "JobComplete"}).answer(csv(line(3)), Sforce_Locator="null")
        found = await bench.records().bulk_page(PLAN, JOB, "MjAw")
    assert len(found.rows) == 1
    assert bench.org.asked[1].query == {"maxRecords": "20000", "locator": "MjAw"}


async def test_an_empty_result_is_a_header_line() -> None:
    async with scripted_org() as bench:
        bench.org.answer({"state": "JobComplete"}).answer(csv(), Sforce_Locator="null", Sforce_NumberOfRecords="0")
        found = await bench.records().bulk_page(PLAN, JOB, None)
    assert (list(found.rows), found.cursor) == ([], None)


@pytest.mark.parametrize("state", ["Failed", "Aborted"])
async def test_a_job_that_ended_otherwise_is_refused(state: str) -> None:
    async with scripted_org() as bench:
        bench.org.answer({"state": state, "errorMessage": "InvalidBatch"})
        with pytest.raises(QueryRefusedError) as raised:
            await bench.records().bulk_page(PLAN, JOB, None)
    assert raised.value.code == f"JOB_{state.upper()}"
    assert "InvalidBatch" in raised.value.message


async def test_results_that_are_gone_are_refused() -> None:
    async with scripted_org() as bench:
        bench.org.answer(fault("NOT_FOUND"), 404)
        with pytest.raises(QueryRefusedError):
            await bench.records().bulk_page(PLAN, JOB, "MjAw")


async def test_a_page_with_fewer_rows_than_it_says_is_no_page() -> None:
    """A cut answer must not pass for the whole."""
    async with scripted_org() as bench:
        bench.org.answer({"state": "JobComplete"})
        bench.org.answer(csv(line(1)), Sforce_Locator="null", Sforce_NumberOfRecords="2")
        with pytest.raises(SalesforceUnavailableError):
            await bench.records().bulk_page(PLAN, JOB, None)


async def test_a_finished_job_is_deleted_and_a_running_one_aborted_first() -> None:
    async with scripted_org() as bench:
        bench.org.answer({"state": "JobComplete"}).answer("", 204)
        await bench.records().bulk_end(JOB)
        bench.org.answer({"state": "InProgress"}).answer({"state": "Aborted"}).answer("", 204)
        await bench.records().bulk_end(JOB)
        bench.org.answer({"state": "Failed"}).answer("", 204)
        await bench.records().bulk_end(JOB)
        bench.org.answer(fault("NOT_FOUND"), 404)
        await bench.records().bulk_end(JOB)
    methods = [asked.method for asked in bench.org.asked]
    assert methods == ["GET", "DELETE", "GET", "PATCH", "DELETE", "GET", "DELETE", "GET"]
    assert json.loads(bench.org.asked[3].body) == {"state": "Aborted"}


async def test_ids_of_jobs_are_checked() -> None:
    async with scripted_org() as bench:
        with pytest.raises(QueryRefusedError):
            await bench.records().bulk_page(PLAN, "../sobjects", None)
        bench.org.answer({"id": "../x"})
        with pytest.raises(SalesforceUnavailableError):
            await bench.records().bulk_start(PLAN)


def rows_of(data: bytes, *, pieces: int) -> list[tuple[object, object, object]]:
    reader = CsvRows(PLAN.csv_row)
    for start in range(0, len(data), pieces):
        reader.feed(data[start : start + pieces])
    return [(row.values["Name"], row.values["Weight__c"], row.values["Notes__c"]) for row in reader.end()]


@pytest.mark.parametrize("pieces", [1, 2, 3, 7, 50, 10_000])
def test_rows_are_read_however_the_answer_is_cut(pieces: int) -> None:
    """Line ends and quotes inside of values, and characters of several bytes, survive any cut."""
    data = csv(
        line(1, '"a\nb\r\nc"', notes='say ""hi"",\n\n""'),
        line(2, '""""', "", ""),
        line(3, "Zoë €", "-2E3", "plain"),
    ).encode()
    assert rows_of(data, pieces=pieces) == [
        ("a\nb\r\nc", 1.5, 'say "hi",\n\n"'),
        ('"', None, None),
        ("Zoë €", -2000.0, "plain"),
    ]
    assert rows_of(data.rstrip(b"\n"), pieces=pieces)[2][0] == "Zoë €"


def test_empty_text_is_null() -> None:
    assert rows_of(csv(line(1, '""', "", "")).encode(), pieces=10_000) == [(None, None, None)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        csv(f'{widget_id(1)},false,{STAMP},"open').encode(),
        csv(f"{widget_id(1)},false").encode(),
        csv(line(1)).encode() + b"\xff\n",
        csv(line(1)).encode() + b"\xe2\x82",
    ],
)
def test_what_is_no_complete_csv_is_no_answer(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any ValueError is "no answer" to the client
        rows_of(data, pieces=5)


def test_a_value_that_does_not_fit_is_told() -> None:
    with pytest.raises(RowError):
        rows_of(csv(line(1, weight="heavy")).encode(), pieces=100)


def test_a_value_of_any_length_is_read() -> None:
    """A rich text field holds as many characters as the csv module allows by itself."""
    assert rows_of(csv(line(1, notes="x" * 200_000)).encode(), pieces=4096)[0][2] == "x" * 200_000
