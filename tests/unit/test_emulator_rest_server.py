"""The emulated org's REST API over HTTP: pages, describes, replication, refusals, faults."""

from __future__ import annotations

import asyncio
import datetime as dt
import email.utils
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from consumer.emulator.org import Change
from consumer.emulator.rest_answers import MAX_CURSORS
from consumer.emulator.rest_describe import MAX_IDS, Replication
from consumer.emulator.rest_errors import RestError
from consumer.emulator.rest_quota import ApiUsage
from consumer.emulator.rest_tables import tables_of
from consumer.errors import EmulatorError
from tests.unit.emulator_client import until
from tests.unit.emulator_rest import ROOT, SESSION, Answer, Rest, rest, update

ALL = "SELECT Id, Status FROM MessagingSession"
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def batches(size: int) -> dict[str, Any]:
    return {"headers": {"Sforce-Query-Options": f"batchSize={size}"}}


async def first_page(org: Rest, size: int = 200) -> Answer:
    return await org.query(ALL, **batches(size))


# Pages


async def test_a_result_comes_in_pages_of_at_most_the_wished_size_and_all_of_it() -> None:
    async with rest() as org:
        made = org.create(4100)
        default = await org.query(ALL)
        assert (default.body["totalSize"], len(default.body["records"]), default.body["done"]) == (4100, 2000, False)
        assert default.body["nextRecordsUrl"].endswith("-2000")
        for wished, size in ((500, 500), (1, 200), (9999, 2000)):
            page = await first_page(org, wished)
            assert len(page.body["records"]) == size
        assert [row["Id"] for row in await org.rows(ALL, **batches(700))] == made
        last = await org.query(ALL + " LIMIT 3")
        assert last.body["done"]
        assert "nextRecordsUrl" not in last.body


async def test_later_pages_are_as_old_as_the_first() -> None:
    async with rest() as org:
        made = org.create(300, Status="New")
        page = await first_page(org)
        update(org.org.model, made[-1], org.org.state.now_ms(), Status="Ended")
        org.org.model.commit([Change("delete", SESSION, made[-2])], org.org.state.now_ms())
        rest_of_it = await org.ask(page.body["nextRecordsUrl"], **batches(200))
        assert [row["Id"] for row in rest_of_it.body["records"]] == made[200:]
        assert {row["Status"] for row in rest_of_it.body["records"]} == {"New"}
        again = await org.ask(page.body["nextRecordsUrl"].replace("/query/", "/queryAll/"))
        assert again.body["records"] == rest_of_it.body["records"]


async def test_short_pages_lose_nothing_and_come_from_scenario_or_fault() -> None:
    for settings in ({"short_pages": True}, {}):
        async with rest(**settings) as org:
            made = org.create(5000)
            if not settings:
                await org.org.fault("short_pages")
            assert [row["Id"] for row in await org.rows(ALL)] == made
            assert org.org.stats.rest_calls["query_more"] > 2
            await org.org.fault("short_pages", on=False)
            page = await org.query(ALL)
            assert (len(page.body["records"]) < 2000) == bool(settings)


async def test_cursors_end_by_fault_by_age_and_never_existed() -> None:
    async with rest() as org:
        org.create(300)
        page = await first_page(org)
        locator = page.body["nextRecordsUrl"]
        for wrong in (f"{ROOT}/query/01gxx0000000001AAA-200", locator.replace("-200", "-x"), f"{locator}99"):
            assert (await org.ask(wrong)).code == "INVALID_QUERY_LOCATOR"
        await org.org.fault("rest_error", error="locator_gone")
        assert (await first_page(org)).status == 200
        assert (await org.ask(locator)).code == "INVALID_QUERY_LOCATOR"
        assert (await org.ask(locator)).status == 200
        await org.org.fault("expire_cursors")
        assert (await org.ask(locator)).code == "INVALID_QUERY_LOCATOR"
        locators = [(await first_page(org)).body["nextRecordsUrl"] for _ in range(MAX_CURSORS + 1)]
        assert [(await org.ask(each)).status for each in locators] == [400, *[200] * MAX_CURSORS]


# What every answer carries


async def test_every_answer_tells_the_calls_used_and_the_time_of_the_org() -> None:
    async with rest(api_limit=1000) as org:
        org.org.state.clock.advance(3 * 86_400)
        for path in ("query?q=" + quote(ALL), "query?q=x", "limits", "sobjects"):
            answer = await org.ask(path)
            date = email.utils.parsedate_to_datetime(answer.headers["Date"]).timestamp() * 1000
            assert abs(date - org.org.state.now_ms()) < 5000
        assert answer.headers["Sforce-Limit-Info"] == "api-usage=4/1000"
        limits = await org.ask("limits")
        assert limits.body["DailyApiRequests"] == {"Max": 1000, "Remaining": 995}


def test_calls_are_counted_over_a_rolling_day() -> None:
    usage = ApiUsage(3)
    for _ in range(3):
        usage.count(0)
    assert (usage.left(0), usage.header(0)) == (0, "api-usage=3/3")
    assert usage.left(23 * HOUR_MS) == 0
    assert usage.left(24 * HOUR_MS) == 3
    usage.used_up = True
    assert usage.left(25 * HOUR_MS) == 0


async def test_answers_travel_as_long_as_ordered_and_are_as_old_as_that() -> None:
    async with rest(rest_latency_ms=30) as org:
        loop = asyncio.get_running_loop()
        (one,) = org.create(1, Status="New")
        begun = loop.time()
        assert (await org.ask("limits")).status == 200
        assert loop.time() - begun >= 0.029
        await org.org.fault("rest_latency", ms=150)
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(org.query(ALL))
            await until(lambda: org.org.stats.rest_rows == 1)
            update(org.org.model, one, org.org.state.now_ms(), Status="Ended")
        assert answer.result().body["records"][0]["Status"] == "New"


# Refusals


async def test_a_session_is_needed_and_an_api_version_that_exists() -> None:
    async with rest() as org:
        org.org.state.sessions.revoke_all()
        answer = await org.query(ALL)
        assert (answer.status, answer.code) == (401, "INVALID_SESSION_ID")
        assert org.org.stats.bad_tokens == 1
        for path in ("/services/data/v12.0/query", "/services/data/v99.0/limits", "/services/data/v62.0"):
            assert (await org.ask(path)).status in {401, 404}
    async with rest() as org:
        for path in ("/services/data/v12.0/query", "nothing", "sobjects/Nothing/describe", "sobjects/A/B/C"):
            answer = await org.ask(path)
            assert (answer.status, answer.code) == (404, "NOT_FOUND")
        wrong = await org.ask("query", "POST")
        assert (wrong.status, wrong.code) == (405, "METHOD_NOT_ALLOWED")
        assert (await org.ask("query")).code == "MALFORMED_QUERY"
        assert (await org.query("SELECT Nothing FROM MessagingSession")).code == "INVALID_FIELD"
        assert org.org.stats.rest_errors["NOT_FOUND"] == 4


async def test_the_daily_calls_run_out_and_come_back() -> None:
    async with rest(api_limit=2) as org:
        assert [(await org.ask("limits")).status for _ in range(3)] == [200, 200, 403]
        assert (await org.ask("limits")).code == "REQUEST_LIMIT_EXCEEDED"
        org.org.state.clock.advance(25 * 3600)
        assert (await org.ask("limits")).status == 200
        await org.org.fault("api_limit")
        refused = await org.ask("limits")
        assert refused.headers["Sforce-Limit-Info"] == "api-usage=2/2"
        assert refused.status == 403
        await org.org.fault("api_limit", limit=50)
        assert (await org.ask("limits")).status == 200
        await org.org.fault("api_limit")
        await org.org.fault("clear")
        assert (await org.ask("limits")).status == 200


async def test_uri_and_headers_together_have_a_bound() -> None:
    async with rest() as org:
        names = ", ".join(f"'{each}'" for each in org.create(800))
        assert (await org.query(f"SELECT Id FROM MessagingSession WHERE Id IN ({names})")).status == 414
        some = names[: 300 * 22 - 2]
        assert len((await org.query(f"SELECT Id FROM MessagingSession WHERE Id IN ({some})")).body["records"]) == 300


# Objects


async def test_a_describe_names_the_visible_fields_and_their_properties() -> None:
    async with rest(hidden_fields={SESSION: ["ChannelIntent"]}) as org:
        answer = await org.ask("sobjects/messagingsession/describe")
        fields = {field["name"]: field for field in answer.body["fields"]}
        assert "ChannelIntent" not in fields
        assert fields["AgentMessageCount"]["filterable"] is False
        assert fields["AgentMessageCount"]["calculated"] is True
        assert (fields["Name"]["type"], fields["Status"]["type"], fields["Notes__c"]["type"]) == (
            "string",
            "picklist",
            "textarea",
        )
        assert fields["OwnerId"]["referenceTo"] == ["Group", "User"]
        assert fields["OwnerId"]["relationshipName"] == "Owner"
        assert fields["VisitAddress__City__s"]["compoundFieldName"] == "VisitAddress__c"
        assert fields["VisitAddress__c"]["compoundFieldName"] is None
        assert fields["SystemModstamp"]["nillable"] is False
        account = await org.ask("sobjects/Account/describe")
        names = {field["name"]: field["compoundFieldName"] for field in account.body["fields"]}
        assert names["FirstName"] == names["Name"] == "Name"
        listed = await org.ask("sobjects")
        assert {"MessagingSession", "MessagingSessionHistory", "Widget__History"} <= {
            each["name"] for each in listed.body["sobjects"]
        }


async def test_a_describe_is_not_repeated_until_it_changes() -> None:
    async with rest() as org:
        path = f"sobjects/{SESSION}/describe"
        since = {"headers": {"If-Modified-Since": (await org.ask(path)).headers["Last-Modified"]}}
        assert (await org.ask(path, **since)).status == 304
        await org.org.fault("schema_change", entity=SESSION, add=[{"name": "Mood__c"}])
        changed = await org.ask(path, **since)
        assert "Mood__c" in {field["name"] for field in changed.body["fields"]}
        since["headers"]["If-Modified-Since"] = changed.headers["Last-Modified"]
        assert (await org.ask(path, **since)).status == 304


def _iso(epoch_ms: int) -> str:
    return dt.datetime.fromtimestamp(epoch_ms / 1000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")


async def span(org: Rest, what: str, from_ms: int, to_ms: int, name: str = SESSION) -> Answer:
    return await org.ask(f"sobjects/{name}/{what}", params={"start": _iso(from_ms), "end": _iso(to_ms)})


async def test_updated_and_deleted_ids_of_a_span_whose_newest_minute_is_never_covered() -> None:
    async with rest() as org:
        model, clock = org.org.model, org.org.state.clock
        clock.advance(60 - org.org.state.now_ms() / 1000 % 60)
        begun = org.org.state.now_ms() // 60_000 * 60_000
        kept, gone, purged = org.create(3)
        model.commit([Change("delete", SESSION, gone), Change("purge", SESSION, purged)], org.org.state.now_ms())
        early = await span(org, "updated", begun - 60_000, begun + 600_000)
        assert early.body == {"ids": [], "latestDateCovered": _iso(begun).replace("+00:00", ".000+0000")}
        clock.advance(60)
        updated = await span(org, "updated", begun + 59_000, begun + 600_000)
        assert updated.body["ids"] == [kept], "seconds are ignored"
        deleted = await span(org, "deleted", begun, begun + 600_000)
        assert {row["id"] for row in deleted.body["deletedRecords"]} == {gone, purged}
        assert deleted.body["latestDateCovered"] == _iso(begun + 60_000).replace("+00:00", ".000+0000")
        assert (await span(org, "deleted", begun - 120_000, begun)).body["deletedRecords"] == []


async def test_spans_reach_back_30_and_15_days_at_most_and_less_when_the_log_is_shorter() -> None:
    async with rest(delete_log_days=2) as org:
        now = org.org.state.now_ms()
        (gone,) = org.create(1)
        org.org.model.commit([Change("delete", SESSION, gone)], now)
        org.org.state.clock.advance(3 * 86_400)
        now = org.org.state.now_ms()
        answer = await span(org, "deleted", now - 14 * DAY_MS, now)
        assert answer.body["deletedRecords"] == []
        assert answer.body["earliestDateAvailable"].startswith(_iso(now - 2 * DAY_MS)[:16])
        for what, from_ms, to_ms in (
            ("deleted", now - 16 * DAY_MS, now),
            ("updated", now - 31 * DAY_MS, now),
            ("updated", now, now),
        ):
            assert (await span(org, what, from_ms, to_ms)).code == "INVALID_REPLICATION_DATE"
        assert (await span(org, "updated", now - 16 * DAY_MS, now)).status == 200
        for start in ("yesterday", "2026-05-01T10:00:00"):
            answer = await org.ask(f"sobjects/{SESSION}/updated", params={"start": start, "end": start})
            assert answer.code == "INVALID_REPLICATION_DATE"
        assert (await span(org, "updated", now - DAY_MS, now, "MessagingSessionHistory")).status == 404
        await org.org.fault("rest_error", error="id_limit", times=2)
        assert (await span(org, "updated", now - DAY_MS, now)).code == "EXCEEDED_ID_LIMIT"
        assert (await span(org, "deleted", now - DAY_MS, now)).code == "EXCEEDED_ID_LIMIT"


async def test_more_than_600_000_ids_are_refused() -> None:
    async with rest() as org:
        table = org.org.model.store.table(SESSION)
        (one,) = org.create(1)
        now = org.org.state.now_ms()
        table.update({str(number): table[one] for number in range(MAX_IDS)})
        replication = Replication(15)
        with pytest.raises(RestError) as refused:
            replication.updated(
                tables_of(org.org.model)[SESSION.lower()], _iso(now - DAY_MS), _iso(now + HOUR_MS), now + DAY_MS
            )
        assert refused.value.code == "EXCEEDED_ID_LIMIT"


# Faults


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        ("html502", 502, "<html>"),
        ("empty500", 500, ""),
        ("unavailable503", 503, "SERVER_UNAVAILABLE"),
        ("query_timeout", 400, "QUERY_TIMEOUT"),
        ("invalid_session", 401, "INVALID_SESSION_ID"),
        ("request_limit", 403, "REQUEST_LIMIT_EXCEEDED"),
    ],
)
async def test_ordered_errors_hit_as_many_requests_as_ordered(error: str, status: int, code: str) -> None:
    async with rest() as org:
        await org.org.fault("rest_error", error=error, times=2)
        for _ in range(2):
            answer = await org.query(ALL)
            assert answer.status == status
            assert code in (answer.code if isinstance(answer.body, list) else answer.body)
        assert (await org.query(ALL)).status == 200


async def test_an_ordered_error_can_wait_for_a_request_that_fits() -> None:
    async with rest() as org:
        await org.org.fault("rest_error", error="html502", path="MessagingSessionHistory")
        assert (await org.query(ALL)).status == 200
        assert (await org.query("SELECT Id FROM MessagingSessionHistory")).status == 502
        assert (await org.query("SELECT Id FROM MessagingSessionHistory")).status == 200


async def test_an_answer_can_be_cut_off() -> None:
    async with rest() as org:
        org.create(100)
        await org.org.fault("rest_error", error="cut")
        with pytest.raises(aiohttp.ClientError):
            await org.query(ALL)
        assert (await org.query(ALL)).status == 200


async def test_rest_is_down_for_a_while_and_the_login_is_not() -> None:
    async with rest() as org:
        await org.org.fault("rest_down", seconds=60)
        answer = await org.query(ALL)
        assert answer.status == 503
        assert answer.headers["Content-Type"].startswith("text/html")
        assert "Sforce-Limit-Info" not in answer.headers
        form = {"grant_type": "client_credentials", "client_id": "emulated", "client_secret": "emulated"}
        assert (await org.ask("/services/oauth2/token", "POST", data=form)).status == 200
        await org.org.fault("clear")
        assert (await org.query(ALL)).status == 200


async def test_an_unknown_error_can_not_be_ordered() -> None:
    async with rest() as org:
        with pytest.raises(EmulatorError, match="rest_error"):
            await org.org.fault("rest_error", error="plague")


async def test_the_control_api_shows_what_rest_was_asked() -> None:
    async with rest() as org:
        org.create(3)
        await org.query(ALL)
        async with org.http.get("/control/stats") as response:
            shown = await response.json()
        assert shown["rest_calls"] == {"query": 1}
        assert shown["rest_rows"] == 3
