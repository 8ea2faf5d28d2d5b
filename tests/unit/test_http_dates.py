"""The ``Date`` of every answer is told, so that the org's time is known; what is no date is passed over."""

from __future__ import annotations

import time

import pytest
from aiohttp import web
from pydantic import SecretStr

from consumer.salesforce.http import open_http, request
from consumer.salesforce.login import build_login
from consumer.settings import SalesforceSettings
from tests.unit.login_server import LoginHost, login_host, token_answer

DATE = "Mon, 21 Sep 2026 14:13:20 GMT"
DATE_MS = 1_790_000_000_000


async def dates(date: str | None, status: int = 200) -> list[int]:
    """Return what is told of one answer."""
    told: list[int] = []
    async with login_host() as host, open_http(total_timeout_s=5, on_date=told.append) as http:
        _dated(host, date, status)
        answer = await request(http, "GET", host.url)
        assert answer.status == status
    return told


def _dated(host: LoginHost, date: str | None, status: int) -> None:
    async def respond(asked: web.Request) -> web.StreamResponse:
        if date is not None:
            return web.Response(status=status, headers={"Date": date})
        assert asked.transport is not None
        asked.transport.write(b"HTTP/1.1 %d OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)
        asked.transport.close()
        return web.Response()

    host.script.append(respond)


@pytest.mark.parametrize("status", [200, 302, 401, 500])
async def test_the_date_of_every_answer_is_told(status: int) -> None:
    assert await dates(DATE, status) == [DATE_MS]


@pytest.mark.parametrize(
    "date",
    [
        None,
        "",
        "soon",
        "Mon, 99 Sep 2026 14:13:20 GMT",
        "Mon, 21 Sep 99999999999999999999 14:13:20 GMT",
        "Mon, 21 Sep 2026 14:13:20 +9999999999999",
    ],
)
async def test_an_answer_without_a_readable_date_is_an_answer_all_the_same(date: str | None) -> None:
    assert await dates(date) == []


@pytest.mark.parametrize("date", ["Mon, 21 Sep 2026 14:13:20 -0000", "Mon, 21 Sep 2026 16:13:20 +0200"])
async def test_the_zone_of_a_date_counts_and_none_is_utc(date: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert await dates(date) == [DATE_MS]
    finally:
        monkeypatch.undo()
        time.tzset()


async def test_a_login_tells_the_date_too() -> None:
    """A worker that only streams makes no other request, and its windows are in the org's time."""
    told: list[int] = []
    async with login_host() as host, open_http(total_timeout_s=5, on_date=told.append) as http:
        host.answer(token_answer(instance_url=host.url), Date=DATE)
        settings = SalesforceSettings(login_url=host.url, client_id="key", client_secret=SecretStr("s"))
        await build_login(settings, http, lambda: DATE_MS / 1000).login()
    assert told == [DATE_MS]
