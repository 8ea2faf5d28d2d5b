"""The REST client: one token, bounded retries, the org's time, the daily calls, and errors that say what to do."""

from __future__ import annotations

import asyncio
import json
from email.utils import formatdate

import pytest

from consumer.errors import (
    LoginRejectedError,
    QueryRefusedError,
    QuotaError,
    SalesforceApiError,
    SalesforceUnavailableError,
)
from consumer.salesforce import rest as rest_module
from consumer.salesforce.rest import MAX_REQUEST_BYTES, Call
from tests.unit.login_server import TOKEN
from tests.unit.rest_org import BASE, DATE, NOW_MS, fault, scripted_org

LIMITS = Call("GET", "/limits")
WHERE_TO = {"x": "1"}


async def test_a_call_carries_token_version_and_client_name() -> None:
    async with scripted_org() as bench:
        bench.org.answer(WHERE_TO)
        answer = await bench.rest.json(Call("GET", "/query/", {"q": "SELECT Id FROM A WHERE B = 'c+d' AND E > 1"}))
    (asked,) = bench.org.asked
    assert asked.path == f"{BASE}/query/"
    assert asked.soql == "SELECT Id FROM A WHERE B = 'c+d' AND E > 1"
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}1"
    assert asked.headers["Sforce-Call-Options"] == "client=messaging-session-consumer"
    assert answer.body == WHERE_TO


async def test_a_refused_session_is_renewed_once() -> None:
    async with scripted_org() as bench:
        bench.org.answer(fault("INVALID_SESSION_ID"), 401).answer(WHERE_TO)
        assert (await bench.rest.json(LIMITS)).body == WHERE_TO
    assert [asked.headers["Authorization"][-1] for asked in bench.org.asked] == ["1", "2"]


async def test_a_new_session_that_is_refused_ends_it() -> None:
    """Asking on and on would lock the user out."""
    async with scripted_org() as bench:
        for _ in range(3):
            bench.org.answer(fault("INVALID_SESSION_ID", f"for {TOKEN}2"), 401)
        with pytest.raises(LoginRejectedError) as raised:
            await bench.rest.json(LIMITS)
    assert bench.logins.made == 2
    assert len(bench.org.asked) == 2
    assert TOKEN not in str(raised.value)
    assert raised.value.code == "INVALID_SESSION_ID"


async def test_a_newer_session_is_not_thrown_away() -> None:
    """A refusal of the old token does not cost a login that someone else has made meanwhile."""
    async with scripted_org() as bench:
        bench.org.answer(fault("INVALID_SESSION_ID"), 401).answer(fault("INVALID_SESSION_ID"), 401)
        bench.org.answer(WHERE_TO).answer(WHERE_TO)
        first, second = await asyncio.gather(bench.rest.json(LIMITS), bench.rest.json(LIMITS))
    assert first.body == second.body == WHERE_TO
    assert bench.logins.made == 2


@pytest.mark.parametrize("status", [408, 420, 429, 500, 502, 503])
async def test_what_passes_is_asked_again_after_a_pause(status: int) -> None:
    async with scripted_org() as bench:
        bench.org.answer("<html>busy</html>", status).answer("", status).answer(WHERE_TO)
        assert (await bench.rest.json(LIMITS)).body == WHERE_TO
    assert bench.time.slept == [0.25, 0.5]


async def test_a_lost_connection_is_asked_again() -> None:
    async with scripted_org() as bench:
        bench.org.hang_up().answer(WHERE_TO)
        assert (await bench.rest.json(LIMITS)).body == WHERE_TO


async def test_retries_end() -> None:
    async with scripted_org() as bench:
        for _ in range(20):
            bench.org.answer(fault("SERVER_UNAVAILABLE"), 503)
        with pytest.raises(SalesforceUnavailableError) as raised:
            await bench.rest.json(LIMITS)
    assert len(bench.org.asked) == 6
    assert raised.value.code == "SERVER_UNAVAILABLE"


async def test_retry_after_is_kept_and_a_long_one_is_the_callers_business() -> None:
    async with scripted_org() as bench:
        bench.org.answer("", 503, Retry_After="7").answer("", 503, Retry_After="600").answer(WHERE_TO)
        with pytest.raises(SalesforceUnavailableError) as raised:
            await bench.rest.json(LIMITS)
    assert [round(seconds) for seconds in bench.time.slept] == [7]
    assert raised.value.retry_after_s == 600


async def test_a_pause_can_be_cancelled() -> None:
    async with scripted_org() as bench:
        waiting = asyncio.Event()

        async def sleep(_: float) -> None:
            waiting.set()
            await asyncio.Event().wait()

        bench.rest.sleep = sleep
        bench.org.answer("", 503)
        async with asyncio.TaskGroup() as tasks:
            call = tasks.create_task(bench.rest.json(LIMITS))
            await waiting.wait()
            call.cancel()
        assert call.cancelled()


async def test_what_may_not_be_repeated_is_not_when_no_answer_came() -> None:
    """A job could have been made by the call whose answer was lost; a refusal with a code has made none."""
    call = Call("POST", "/jobs/query", json={}, repeatable=False)
    async with scripted_org() as bench:
        bench.org.hang_up().answer(WHERE_TO)
        with pytest.raises(SalesforceUnavailableError):
            await bench.rest.json(call)
        assert len(bench.org.asked) == 1
        bench.org.script.clear()
        bench.org.answer(fault("SERVER_UNAVAILABLE"), 503).answer(WHERE_TO)
        assert (await bench.rest.json(call)).body == WHERE_TO


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (403, fault("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."), QuotaError, "REQUEST_LIMIT_EXCEEDED"),
        (403, fault("API_DISABLED_FOR_ORG"), QueryRefusedError, "API_DISABLED_FOR_ORG"),
        (403, fault("INSUFFICIENT_ACCESS_OR_READONLY"), QueryRefusedError, "INSUFFICIENT_ACCESS_OR_READONLY"),
        (400, fault("MALFORMED_QUERY"), QueryRefusedError, "MALFORMED_QUERY"),
        (400, fault("INVALID_FIELD"), QueryRefusedError, "INVALID_FIELD"),
        (400, fault("INVALID_TYPE"), QueryRefusedError, "INVALID_TYPE"),
        (400, fault("EXCEEDED_ID_LIMIT"), QueryRefusedError, "EXCEEDED_ID_LIMIT"),
        (400, fault("INVALID_QUERY_LOCATOR"), QueryRefusedError, "INVALID_QUERY_LOCATOR"),
        (404, fault("NOT_FOUND"), QueryRefusedError, "NOT_FOUND"),
        (409, fault("VERSION_MISMATCH"), QueryRefusedError, "VERSION_MISMATCH"),
        (400, {"error": "unsupported", "error_description": "no"}, QueryRefusedError, "unsupported"),
    ],
)
async def test_refusals_are_not_repeated(status: int, body: object, kind: type[SalesforceApiError], code: str) -> None:
    async with scripted_org() as bench:
        bench.org.answer(body, status).answer(WHERE_TO)
        with pytest.raises(kind) as raised:
            await bench.rest.json(LIMITS)
    assert type(raised.value) is kind
    assert raised.value.code == code
    assert raised.value.advice
    assert len(bench.org.asked) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, fault("QUERY_TIMEOUT")),
        (409, fault("UNABLE_TO_LOCK_ROW")),
        (403, "<html>proxy</html>"),
        (400, ""),
        (302, ""),
        (200, "<html>maintenance</html>"),
        (403, fault("REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests (Concurrent API Requests) Limit exceeded.")),
    ],
)
async def test_what_says_nothing_lasting_is_asked_again(status: int, body: object) -> None:
    async with scripted_org() as bench:
        bench.org.answer(body, status).answer(WHERE_TO)
        assert (await bench.rest.json(LIMITS)).body == WHERE_TO
        assert bench.governor.pace_factor == 1


async def test_no_redirect_is_followed() -> None:
    """It would carry the token to a host nobody configured."""
    async with scripted_org() as bench:
        for _ in range(6):
            bench.org.answer("", 302, Location=f"{bench.org.url}/elsewhere")
        with pytest.raises(SalesforceUnavailableError):
            await bench.rest.json(LIMITS)
    assert {asked.path for asked in bench.org.asked} == {f"{BASE}/limits"}


async def test_a_message_never_shows_the_token_and_is_short() -> None:
    async with scripted_org() as bench:
        bench.org.answer(fault("X", f"bad {TOKEN}1\nSELECT {'a' * 500}"), 400)
        with pytest.raises(QueryRefusedError) as raised:
            await bench.rest.json(LIMITS)
    assert TOKEN not in str(raised.value)
    assert "bad *** SELECT aaa" in raised.value.message
    assert len(raised.value.message) < 300


async def test_used_up_calls_stop_all_further_ones() -> None:
    async with scripted_org() as bench:
        bench.org.answer(fault("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."), 403)
        for _ in range(2):
            with pytest.raises(QuotaError) as raised:
                await bench.rest.json(Call("GET", "/limits", repair=True))
            assert raised.value.retry_after_s > 299
    assert len(bench.org.asked) == 1


async def test_the_reserve_is_for_repairs() -> None:
    async with scripted_org(reserve=0.1) as bench:
        bench.org.answer(WHERE_TO, Sforce_Limit_Info="api-usage=901/1000").answer(WHERE_TO)
        await bench.rest.json(LIMITS)
        with pytest.raises(QuotaError):
            await bench.rest.json(LIMITS)
        await bench.rest.json(Call("GET", "/limits", repair=True))
    assert len(bench.org.asked) == 2


async def test_the_time_of_an_answer_is_its_date_and_a_second() -> None:
    async with scripted_org() as bench:
        later = formatdate(NOW_MS / 1000 + 4 * 86_400, usegmt=True)
        bench.org.answer(WHERE_TO, Date=later)
        answer = await bench.rest.json(LIMITS)
    assert answer.answered_ms == NOW_MS + 4 * 86_400_000 + 1000
    assert bench.clock.now_ms() == NOW_MS + 4 * 86_400_000


@pytest.mark.parametrize("date", ["", "soon", "Thu, 01 Jan 1970 00:00:00 GMT", "Sun, 22 Nov 2526 10:00:00 GMT"])
async def test_without_a_date_of_a_clock_our_own_time_holds(date: str) -> None:
    async with scripted_org() as bench:
        bench.org.answer(WHERE_TO, Date=formatdate(NOW_MS / 1000 + 3600, usegmt=True)).answer(WHERE_TO, Date=date)
        await bench.rest.json(LIMITS)
        answer = await bench.rest.json(LIMITS)
    assert answer.answered_ms == NOW_MS + 3_600_000 + 1000
    assert bench.clock.now_ms() == NOW_MS + 3_600_000


async def test_a_question_that_is_too_long_is_not_sent() -> None:
    async with scripted_org() as bench:
        bench.org.answer(WHERE_TO)
        with pytest.raises(QueryRefusedError) as raised:
            await bench.rest.json(Call("GET", "/query/", {"q": "a" * MAX_REQUEST_BYTES}))
        assert raised.value.code == "URI_TOO_LONG"
        assert not bench.org.asked


async def test_an_answer_that_is_too_large_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_module, "MAX_ANSWER_BYTES", 100)
    async with scripted_org() as bench:
        for _ in range(6):
            bench.org.answer({"x": "y" * 200})
        with pytest.raises(SalesforceUnavailableError):
            await bench.rest.json(LIMITS)


async def test_bodies_are_json() -> None:
    async with scripted_org() as bench:
        bench.org.answer("", 204, Date=DATE)
        answer = await bench.rest.json(Call("PATCH", "/jobs/query/x", json={"state": "Aborted"}))
    assert answer.body is None
    assert json.loads(bench.org.asked[0].body) == {"state": "Aborted"}
    assert bench.org.asked[0].headers["Content-Type"] == "application/json"
