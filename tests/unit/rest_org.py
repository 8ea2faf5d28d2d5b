"""An org's REST API on loopback that answers from a script, and a client of it, for the REST tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
from aiohttp import web

from consumer.changes.fields import FieldPolicy
from consumer.changes.rows import FieldInfo, RowPlan
from consumer.changes.schema import compile_schema
from consumer.org_clock import OrgClock
from consumer.salesforce.bulk import BulkJobs
from consumer.salesforce.governor import Governor
from consumer.salesforce.http import open_http
from consumer.salesforce.records import SalesforceRecords
from consumer.salesforce.rest import RestClient
from consumer.salesforce.session import Session
from consumer.salesforce.tokens import TokenSource
from tests.change_schemas import WIDGET
from tests.unit.login_server import ORG, TOKEN, USER

NOW_MS = 1_795_341_600_000
"""2026-11-22T10:00:00Z."""

DATE = formatdate(NOW_MS / 1000, usegmt=True)
BASE = "/services/data/v62.0"

WIDGET_TYPES: dict[str, str] = {
    "Id": "id",
    "IsDeleted": "boolean",
    "SystemModstamp": "datetime",
    "OwnerId": "reference",
    "Name": "string",
    "LastModifiedDate": "datetime",
    "Weight__c": "double",
    "Active__c": "boolean",
    "Due__c": "date",
    "Alarm__c": "time",
    "Place__c": "location",
    "Ship__c": "address",
    "Notes__c": "textarea",
}
WIDGET_PARTS = {
    "Place__c": ("Latitude", "Longitude"),
    "Ship__c": ("Street", "City", "PostalCode", "CountryCode", "Latitude", "Longitude"),
}


def widget_fields() -> dict[str, FieldInfo]:
    """Return a describe of the Widget, without some fields its event schema has."""
    fields = [FieldInfo(name, kind) for name, kind in WIDGET_TYPES.items()]
    for compound, parts in WIDGET_PARTS.items():
        stem = compound.removesuffix("__c")
        fields += [FieldInfo(f"{stem}__{part}__s", "string", compound=compound) for part in parts]
    return {field.name: field for field in fields}


def widget_plan() -> RowPlan:
    return RowPlan("Widget__c", compile_schema("w", WIDGET), widget_fields())


def widget_id(number: int) -> str:
    """Return an id whose check characters are those of digits only."""
    return f"a00{number:012d}AAA"


def record(number: int, stamp: str = "2026-11-22T09:00:00.000+0000", **values: Any) -> dict[str, Any]:
    """Return a record as REST writes it."""
    return {"Id": widget_id(number), "IsDeleted": False, "SystemModstamp": stamp, "Name": f"W-{number}", **values}


def page(records: Iterable[Mapping[str, Any]], following: str | None = None) -> dict[str, Any]:
    """Return one answer of a query."""
    rows = list(records)
    answer: dict[str, Any] = {"totalSize": len(rows), "done": following is None, "records": rows}
    return answer if following is None else {**answer, "nextRecordsUrl": f"{BASE}{following}"}


def fault(code: str, message: str = "no") -> list[dict[str, str]]:
    """Return the body of a refusal."""
    return [{"message": message, "errorCode": code}]


@dataclass
class Asked:
    """One request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: str
    size: int

    @property
    def soql(self) -> str:
        return self.query["q"]


@dataclass
class ScriptedOrg:
    """Answers each request with the next scripted answer; a request too many is answered with 418."""

    url: str = ""
    script: list[Callable[[web.Request], web.StreamResponse]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    def answer(self, body: object = None, status: int = 200, **headers: str) -> ScriptedOrg:
        """Add an answer: JSON for dicts and lists, else text or bytes as they are."""
        text = json.dumps(body) if isinstance(body, dict | list) else body or ""
        data = text if isinstance(text, bytes) else str(text).encode()
        fixed = {"Date": DATE} | {name.replace("_", "-"): value for name, value in headers.items()}
        self.script.append(lambda _: web.Response(body=data, status=status, headers=fixed))
        return self

    def hang_up(self) -> ScriptedOrg:
        """Add a connection that is closed without an answer."""

        def close(request: web.Request) -> web.StreamResponse:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

        self.script.append(close)
        return self

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        raw = request.raw_path
        size = len(raw) + sum(len(name) + len(value) + 4 for name, value in request.raw_headers)
        body = (await request.read()).decode()
        path, _, query = raw.partition("?")
        self.asked.append(Asked(request.method, path, dict(parse_qsl(query)), request.headers.copy(), body, size))
        if not self.script:
            return web.Response(status=418, text="[]")
        return self.script.pop(0)(request)  # type: ignore[arg-type]  # a Server hands out BaseRequest


class Logins:
    """A login that yields a new token each time."""

    flow = "scripted"
    renewable = True

    def __init__(self, url: str) -> None:
        self.url = url
        self.made = 0

    async def login(self) -> Session:
        self.made += 1
        return Session(f"{TOKEN}{self.made}", self.url, ORG, USER)


class Time:
    """Time moved by hand; waiting moves it and is noted."""

    def __init__(self) -> None:
        self.s = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.s += seconds
        await asyncio.sleep(0)


@dataclass
class Bench:
    """A scripted org and a client of it."""

    org: ScriptedOrg
    rest: RestClient
    logins: Logins
    time: Time
    clock: OrgClock
    governor: Governor

    def records(self, policy: FieldPolicy | None = None) -> SalesforceRecords:
        return SalesforceRecords(self.rest, policy or FieldPolicy(), BulkJobs(self.rest, lambda: 0.5, self.time))


@asynccontextmanager
async def scripted_org(reserve: float = 0.1) -> AsyncIterator[Bench]:
    """Run a scripted org on an ephemeral loopback port."""
    org, time = ScriptedOrg(), Time()
    runner = web.ServerRunner(web.Server(org.handle, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        org.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        logins = Logins(org.url)
        clock, governor = OrgClock(lambda: NOW_MS), Governor(reserve, time)
        async with open_http() as http, asyncio.TaskGroup() as tasks:
            tokens = TokenSource(logins, tasks, monotonic_s=time, random=lambda: 0.5)
            rest = _client(http, tokens, clock, governor, time)
            yield Bench(org, rest, logins, time, clock, governor)
    finally:
        await runner.cleanup()


def _client(
    http: aiohttp.ClientSession, tokens: TokenSource, clock: OrgClock, governor: Governor, time: Time
) -> RestClient:
    return RestClient(
        http,
        tokens,
        "62.0",
        governor=governor,
        clock=clock,
        random=lambda: 0.5,
        monotonic_s=time,
        sleep=time.sleep,
    )
