"""Bulk API 2.0 query jobs of the emulated org."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from consumer.emulator.org import Change, OrgModel
from consumer.emulator.rest_bulk import BulkJobs
from consumer.emulator.rest_errors import RestError
from consumer.emulator.rest_query import Plan
from consumer.emulator.rest_tables import tables_of
from tests.unit.emulator_rest import ROOT, SESSION, Answer, Rest, create, rest, update

NOW = 1_790_000_000_000
JOBS = "jobs/query"
SOQL = "SELECT Id, Status FROM MessagingSession"


async def ordered(org: Rest, soql: str = SOQL, **order: Any) -> Answer:
    return await org.ask(JOBS, "POST", json={"operation": "query", "query": soql, **order})


async def made(org: Rest, soql: str = SOQL, **order: Any) -> str:
    """Create a job in an org whose jobs take no time, and let it run."""
    answer = await ordered(org, soql, **order)
    job = f"{JOBS}/{answer.body['id']}"
    assert (await org.ask(job)).body["state"] == "JobComplete"
    return job


def lines(answer: Answer, **dialect: Any) -> list[list[str]]:
    return list(csv.reader(io.StringIO(answer.body, newline=""), **dialect))


async def test_a_job_waits_runs_and_is_complete_with_the_rows_of_the_moment_it_ran() -> None:
    model = OrgModel(1)
    (one,) = create(model, 1, NOW, Status="New")
    now_s = 0.0
    jobs = BulkJobs(lambda: now_s, lambda: NOW, 10.0)
    tables = tables_of(model)
    job = jobs.create({"operation": "query", "query": SOQL}, lambda text: Plan(text, tables), "v62.0", "005")
    states = []
    for now_s, status in ((1.0, "Waiting"), (4.0, "Active"), (9.0, "Ended"), (10.0, "Ended")):  # noqa: B007 - read above
        await jobs.advance(job, lambda: False)
        states.append(jobs.state(job))
        if states[-1] != "JobComplete":
            with pytest.raises(RestError, match="available yet"):
                jobs.results(job, "v62.0", "", None)
        update(model, one, NOW, Status=status)
    assert states == ["UploadComplete", "InProgress", "InProgress", "JobComplete"]
    result, start, stop = jobs.results(job, "v62.0", "", None)
    assert [result.fields[1].value(row) for row in result.rows[start:stop]] == ["Waiting"]


async def test_results_come_in_parts_whose_last_locator_is_the_text_null() -> None:
    async with rest(bulk_s=0) as org:
        ids = org.create(25, Status="New")
        job = await made(org)
        seen, locator = [], ""
        counts = []
        while locator != "null":
            answer = await org.ask(f"{job}/results", params={"maxRecords": "10", "locator": locator})
            assert answer.headers["Content-Type"].startswith("text/csv")
            counts.append(answer.headers["Sforce-NumberOfRecords"])
            locator = answer.headers["Sforce-Locator"]
            head, *rows = lines(answer)
            assert head == ["Id", "Status"]
            seen += [row[0] for row in rows]
        assert seen == ids
        assert counts == ["10", "10", "5"]
        shown = (await org.ask(job)).body
        assert (shown["numberRecordsProcessed"], shown["object"], shown["apiVersion"]) == (25, SESSION, 62.0)


async def test_csv_writes_all_as_text_and_loses_nulls() -> None:
    async with rest(bulk_s=0) as org:
        text = 'he said "no, never"\nand left'
        (one,) = org.create(1, Notes__c=text, CSAT_Score__c=12_345_678.5, VIP__c=False, EndTime=NOW, FollowUp__c=NOW)
        job = await made(
            org,
            "SELECT Id, Notes__c, CSAT_Score__c, VIP__c, EndTime, FollowUp__c, CaseId, Owner.Name "
            "FROM MessagingSession",
        )
        assert lines(await org.ask(f"{job}/results")) == [
            ["Id", "Notes__c", "CSAT_Score__c", "VIP__c", "EndTime", "FollowUp__c", "CaseId", "Owner.Name"],
            [one, text, "1.23456785E7", "false", "2026-09-21T14:13:20.000Z", "2026-09-21", "", ""],
        ]


async def test_an_empty_result_has_its_header_line_and_the_dialect_that_was_asked_for() -> None:
    async with rest(bulk_s=0) as org:
        job = await made(org, lineEnding="CRLF", columnDelimiter="PIPE")
        answer = await org.ask(f"{job}/results")
        assert answer.body == '"Id"|"Status"\r\n'
        assert (answer.headers["Sforce-NumberOfRecords"], answer.headers["Sforce-Locator"]) == ("0", "null")


async def test_query_all_jobs_see_deleted_rows() -> None:
    async with rest(bulk_s=0) as org:
        (gone,) = org.create(1)
        org.org.model.commit([Change("delete", SESSION, gone)], org.org.state.now_ms())
        for operation, count in (("query", 0), ("queryAll", 1)):
            job = await made(org, "SELECT Id, IsDeleted FROM MessagingSession", operation=operation)
            assert lines(await org.ask(f"{job}/results"))[1:] == [[gone, "true"]] * count


async def test_results_are_read_with_the_version_that_made_the_job_and_when_it_is_complete() -> None:
    async with rest(bulk_s=3600) as org:
        job = f"{JOBS}/{(await ordered(org)).body['id']}"
        assert (await org.ask(f"{job}/results")).code == "INVALIDJOBSTATE"
        assert (await org.ask(job, "DELETE")).code == "INVALIDJOBSTATE"
        aborted = await org.ask(job, "PATCH", json={"state": "Aborted"})
        assert aborted.body["state"] == "Aborted"
        assert (await org.ask(job, "PATCH", json={"state": "Aborted"})).code == "INVALIDJOBSTATE"
        assert (await org.ask(f"{job}/results")).code == "INVALIDJOBSTATE"
    async with rest(bulk_s=0) as org:
        job = await made(org)
        other = await org.ask(f"/services/data/v63.0/{job}/results")
        assert other.status == 409
        assert (await org.ask(f"{job}/results", params={"locator": "nonsense"})).code == "INVALID_QUERY_LOCATOR"
        assert (await org.ask(job, "DELETE")).status == 204
        for path in (job, f"{job}/results"):
            assert (await org.ask(path)).status == 404


async def test_compounds_fail_a_job_and_their_parts_do_not() -> None:
    async with rest(bulk_s=0) as org:
        job = f"{JOBS}/{(await ordered(org, 'SELECT Id, VisitAddress__c FROM MessagingSession')).body['id']}"
        failed = (await org.ask(job)).body
        assert failed["state"] == "Failed"
        assert "compound data not supported" in failed["errorMessage"]
        org.create(1, VisitAddress__c={"City": "Lyon"})
        job = await made(org, "SELECT VisitAddress__City__s FROM MessagingSession")
        assert lines(await org.ask(f"{job}/results"))[1:] == [["Lyon"]]


@pytest.mark.parametrize(
    ("order", "code"),
    [
        ({"operation": "insert"}, "INVALIDJOB"),
        ({"query": "SELECT COUNT() FROM MessagingSession"}, "INVALIDJOB"),
        ({"columnDelimiter": "SPACE"}, "INVALIDJOB"),
        ({"query": "SELECT Nothing FROM MessagingSession"}, "INVALID_FIELD"),
        ({"query": "nonsense"}, "MALFORMED_QUERY"),
    ],
)
async def test_orders_that_are_refused(order: dict[str, str], code: str) -> None:
    async with rest() as org:
        assert (await ordered(org, **{"soql": order.pop("query", SOQL), **order})).code == code


async def test_a_body_must_be_a_json_object() -> None:
    async with rest() as org:
        for body in (b"{", b"[]"):
            assert (await org.ask(JOBS, "POST", data=body)).code == "JSON_PARSER_ERROR"


async def test_faults_make_jobs_fail_lose_locators_and_shorten_parts() -> None:
    async with rest(bulk_s=0) as org:
        org.create(200)
        await org.org.fault("rest_error", error="bulk_failed")
        failed = await org.ask(f"{JOBS}/{(await ordered(org)).body['id']}")
        assert failed.body["state"] == "Failed"
        job = await made(org)
        part = await org.ask(f"{job}/results", params={"maxRecords": "100"})
        await org.org.fault("rest_error", error="locator_gone")
        again = {"locator": part.headers["Sforce-Locator"]}
        assert (await org.ask(f"{ROOT}/{job}/results", params=again)).code == "INVALID_QUERY_LOCATOR"
        assert (await org.ask(f"{job}/results", params=again)).status == 200
        await org.org.fault("short_pages")
        counts = [
            int((await org.ask(f"{job}/results", params={"maxRecords": "100"})).headers["Sforce-NumberOfRecords"])
            for _ in range(5)
        ]
        assert min(counts) < 100
