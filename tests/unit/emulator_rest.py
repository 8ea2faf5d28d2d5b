"""A plain HTTP client for the emulated org's REST side, with none of the service's own code in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from consumer.emulator.org import Change, OrgModel
from consumer.emulator.rest_query import Plan, Result
from consumer.emulator.rest_tables import tables_of
from consumer.emulator.scenario import Scenario
from consumer.emulator.server import EmulatedOrg, emulated_org

ROOT = "/services/data/v62.0"
SESSION = "MessagingSession"


@dataclass
class Answer:
    """Status, headers and body of an answer."""

    status: int
    headers: Any
    body: Any

    @property
    def code(self) -> str:
        """The errorCode of a refusal."""
        assert self.status >= 400, self.body
        return str(self.body[0]["errorCode"])


@dataclass
class Rest:
    """An org and a session with it."""

    org: EmulatedOrg
    http: aiohttp.ClientSession

    async def ask(self, path: str, method: str = "GET", **options: Any) -> Answer:
        """Send a request below the API version; text that is no JSON comes as text."""
        where = path if path.startswith("/services") else f"{ROOT}/{path}"
        async with self.http.request(method, where, **options) as response:
            text = await response.text()
            is_json = response.content_type == "application/json"
            return Answer(response.status, response.headers, await response.json() if is_json else text)

    async def query(self, soql: str, which: str = "query", **options: Any) -> Answer:
        """Ask a question."""
        return await self.ask(which, params={"q": soql}, **options)

    async def rows(self, soql: str, which: str = "query", **options: Any) -> list[dict[str, Any]]:
        """Return all rows of a question, page by page."""
        answer = await self.query(soql, which, **options)
        found = list(answer.body["records"])
        while not answer.body["done"]:
            answer = await self.ask(answer.body["nextRecordsUrl"], **options)
            found += answer.body["records"]
        assert answer.body["totalSize"] == len(found)
        return found

    def create(self, count: int, **fields: Any) -> list[str]:
        """Create sessions, and return their ids."""
        return create(self.org.model, count, self.org.state.now_ms(), **fields)


@asynccontextmanager
async def rest(**settings: Any) -> AsyncIterator[Rest]:
    """Run an org and log in."""
    async with emulated_org(Scenario.model_validate(settings)) as org:
        headers = {"Authorization": f"Bearer {org.state.sessions.issue()}"}
        async with aiohttp.ClientSession(org.rest, headers=headers) as http:
            yield Rest(org, http)


def create(model: OrgModel, count: int, now_ms: int, entity: str = SESSION, **fields: Any) -> list[str]:
    """Create records in one transaction, and return their ids."""
    ids = [model.new_id(entity) for _ in range(count)]
    model.commit([Change("create", entity, each, fields) for each in ids], now_ms)
    return ids


def update(model: OrgModel, record_id: str, now_ms: int, entity: str = SESSION, **fields: Any) -> None:
    """Change a record."""
    model.commit([Change("update", entity, record_id, fields)], now_ms)


async def run(model: OrgModel, soql: str, now_ms: int = 0, *, deleted: bool = False) -> Result:
    """Run a query without a server."""
    return await Plan(soql, tables_of(model)).run(now_ms, deleted=deleted)


async def ids(model: OrgModel, where: str, *, deleted: bool = False) -> list[Any]:
    """Return the ids of the sessions that a WHERE finds, in the order given."""
    result = await run(model, f"SELECT Id FROM MessagingSession {where}", deleted=deleted)
    return [result.fields[0].value(row) for row in result.rows]
