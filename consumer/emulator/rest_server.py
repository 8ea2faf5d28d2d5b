"""REST and Bulk API of the emulated org: queries, describes, updated and deleted records, query jobs.

All of it answers from the same records as the event stream, in the org's time. Sources: REST API and Bulk API 2.0
developer guides.
"""

from __future__ import annotations

import asyncio
import email.utils
import re
from typing import Any, Final

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from consumer.emulator.login_server import API_VERSIONS, HTML_FAULT
from consumer.emulator.org import OrgModel
from consumer.emulator.org_sharing import SHARE
from consumer.emulator.rest_answers import MAX_PAGE, Cursors, csv_page
from consumer.emulator.rest_bulk import MAX_RESULTS, BulkJobs, Job, locator_of
from consumer.emulator.rest_describe import Replication, describe, id_limit
from consumer.emulator.rest_errors import RestError, locator_gone, malformed, not_found
from consumer.emulator.rest_query import Plan
from consumer.emulator.rest_tables import Table, tables_of
from consumer.emulator.state import ServerState

MAX_HEAD_BYTES: Final = 16_384
"""URI and headers of a request together."""
_ROOT: Final = "/services/data/"
_VERSION: Final = re.compile(r"/services/data/(v\d+\.0)/")
_BATCH_SIZE: Final = re.compile(r"\bbatchSize\s*=\s*(\d+)", re.IGNORECASE)
_EDGE: Final = ("html502", "empty500", "unavailable503")
_GATE: Final = ("invalid_session", "request_limit")


class RestServer:
    """Routes of REST and Bulk, and what every one of their answers carries.

    Args:
        state: what all servers share.
        org: the records.
        bulk_s: real seconds a query job takes.
        delete_log_days: how far back getDeleted knows.
        latency_s: how long answers travel, seconds, besides what a fault adds.
        short_pages: whether pages are shorter than asked for, by chance.
    """

    def __init__(
        self,
        state: ServerState,
        org: OrgModel,
        *,
        bulk_s: float = 5.0,
        delete_log_days: float = 15.0,
        latency_s: float = 0.0,
        short_pages: bool = False,
    ) -> None:
        self._state = state
        self._org = org
        self._now_ms = state.now_ms
        self._latency_s = latency_s
        self._short_pages = short_pages
        self._tables = tables_of(org)
        self._cursors = Cursors(state.seed)
        self._jobs = BulkJobs(state.now, state.now_ms, bulk_s)
        self._replication = Replication(delete_log_days)
        self._described: dict[str, tuple[object, int]] = {}
        state.expire_cursors = self._cursors.drop

    def routes(self) -> list[web.RouteDef]:
        """Return the routes for the application."""
        root = "/services/data/{version}"
        found: list[web.RouteDef] = []
        for slash in ("", "/"):
            found += [
                web.get(f"{root}/{{query:query|queryAll}}{slash}", self.query),
                web.get(f"{root}/{{query:query|queryAll}}/{{locator}}{slash}", self.query_more),
                web.get(f"{root}/sobjects{slash}", self.sobjects),
                web.get(f"{root}/sobjects/{{name}}/describe{slash}", self.describe),
                web.get(f"{root}/sobjects/{{name}}/updated{slash}", self.updated),
                web.get(f"{root}/sobjects/{{name}}/deleted{slash}", self.deleted),
                web.post(f"{root}/jobs/query{slash}", self.bulk_create),
                web.get(f"{root}/jobs/query/{{job}}{slash}", self.bulk_get),
                web.get(f"{root}/jobs/query/{{job}}/results{slash}", self.bulk_results),
                web.patch(f"{root}/jobs/query/{{job}}{slash}", self.bulk_abort),
                web.delete(f"{root}/jobs/query/{{job}}{slash}", self.bulk_delete),
            ]
        return found

    @property
    def middleware(self) -> Middleware:
        """What stands around every request of the HTTP side: the org's time, and for REST also its rules."""

        @web.middleware
        async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path.startswith("/control"):
                return await handler(request)
            is_rest = request.path.startswith(_ROOT) and request.path != _ROOT
            response = await (self._rest(request, handler) if is_rest else handler(request))
            response.headers.setdefault("Date", self._date())
            return await self._travel(request, response) if is_rest else response

        return around

    def _date(self) -> str:
        return email.utils.formatdate(self._now_ms() // 1000, usegmt=True)

    async def _travel(self, request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
        latency_s = self._latency_s + self._state.conditions.rest_latency_s
        if latency_s:
            await asyncio.sleep(latency_s)
        if self._fault(request, "cut"):
            self._state.stats.rest_errors["cut"] += 1
            return await _cut(request, response)
        return response

    def _fault(self, request: web.Request, *among: str) -> str:
        """Use up a fault of these kinds that concerns the request, by its path and SOQL; empty when there is none."""
        faults = self._state.conditions
        return faults.take_rest_fault(f"{request.path}?{request.query.get('q', '')}", frozenset(among))

    async def _rest(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        edge = self._edge(request)
        if edge is not None:
            self._state.stats.rest_errors[str(edge.status)] += 1
            return edge
        response: web.StreamResponse
        try:
            self._check(request)
            response = await handler(request)
        except RestError as error:
            self._state.stats.rest_errors[error.code] += 1
            response = _json(error.body(), error.status)
        except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
            refused = not_found() if error.status == 404 else _wrong_method(request)
            self._state.stats.rest_errors[refused.code] += 1
            response = _json(refused.body(), refused.status)
        response.headers["Sforce-Limit-Info"] = self._state.api.header(self._now_ms())
        return response

    def _edge(self, request: web.Request) -> web.Response | None:
        """Return what a proxy in front of the org answers in its place, None if it lets the request pass."""
        conditions = self._state.conditions
        if self._state.now() < conditions.rest_down_until:
            return _html(503)
        head = len(request.raw_path) + sum(len(name) + len(value) + 4 for name, value in request.raw_headers)
        if head > MAX_HEAD_BYTES:
            return web.Response(status=414, reason="URI Too Long", text="", content_type="text/html")
        fault = self._fault(request, *_EDGE)
        if fault == "html502":
            return _html(502)
        if fault == "empty500":
            return web.Response(status=500)
        if fault == "unavailable503":
            body = [{"message": "The server is temporarily unavailable", "errorCode": "SERVER_UNAVAILABLE"}]
            return _json(body, 503)
        return None

    def _check(self, request: web.Request) -> None:
        """Check version, session and quota, and count the call.

        Raises:
            RestError: one of them forbids it.
        """
        version = _VERSION.match(request.path + "/")
        if version is None or version.group(1) not in {f"v{major}.0" for major in API_VERSIONS}:
            raise not_found()
        fault = self._fault(request, *_GATE)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ").removeprefix("OAuth ")
        if fault == "invalid_session" or not self._state.sessions.accepts(token):
            self._state.stats.bad_tokens += 1
            raise RestError(401, "INVALID_SESSION_ID", "Session expired or invalid")
        now_ms = self._now_ms()
        if fault == "request_limit" or self._state.api.left(now_ms) == 0:
            raise RestError(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
        self._state.api.count(now_ms)
        self._state.stats.rest_calls[_operation(request)] += 1

    @property
    def _short(self) -> bool:
        return self._short_pages or self._state.conditions.short_pages

    def _page_size(self, request: web.Request) -> int:
        found = _BATCH_SIZE.search(request.headers.get("Sforce-Query-Options", ""))
        return self._cursors.page_size(int(found.group(1)) if found else MAX_PAGE, short=self._short)

    def _plan(self, text: str) -> Plan:
        return Plan(text, self._tables)

    # Queries

    async def query(self, request: web.Request) -> web.Response:
        """Answer ``GET /query?q=`` and ``/queryAll?q=``: the first page."""
        text = request.query.get("q", "")
        if not text.strip():
            raise malformed("unexpected token: '<EOF>'" if "q" in request.query else "SOQL query is missing")
        plan = self._plan(text)
        if self._fault(request, "query_timeout"):
            raise RestError(400, "QUERY_TIMEOUT", "Your query request was running for too long.")
        self._ready(plan)
        result = await plan.run(self._now_ms(), deleted=request.match_info["query"] == "queryAll")
        return self._page(await self._cursors.first(result, request.match_info["version"], self._page_size(request)))

    def _ready(self, plan: Plan) -> None:
        """Let the platform's own work be done; share rows are kept once somebody asks for them."""
        now_ms = self._now_ms()
        if plan.table.name == SHARE:
            self._org.sharing.begin(now_ms)
        self._org.settle(now_ms)

    async def query_more(self, request: web.Request) -> web.Response:
        """Answer a nextRecordsUrl; both ``/query/`` and ``/queryAll/`` know all cursors."""
        if self._fault(request, "locator_gone"):
            raise locator_gone()
        return self._page(
            await self._cursors.next(
                request.match_info["locator"], request.match_info["version"], self._page_size(request)
            )
        )

    def _page(self, page: dict[str, Any]) -> web.Response:
        self._state.stats.rest_rows += len(page["records"])
        return _json(page)

    # Objects

    def _table(self, request: web.Request) -> Table:
        table = self._tables.get(request.match_info["name"].lower())
        if table is None or table.access:
            raise not_found()
        return table

    async def sobjects(self, request: web.Request) -> web.Response:
        """List the objects."""
        version = request.match_info["version"]
        listed = [
            {
                "name": table.name,
                "label": table.name,
                "keyPrefix": table.prefix or None,
                "queryable": True,
                "replicateable": table.replicates,
                "urls": {"describe": f"/services/data/{version}/sobjects/{table.name}/describe"},
            }
            for table in self._tables.values()
            if not table.access
        ]
        return _json({"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": listed})

    async def describe(self, request: web.Request) -> web.Response:
        """Answer a describe; 304 when nothing has changed since ``If-Modified-Since``."""
        table = self._table(request)
        changed_ms = self._changed_ms(table)
        since = request.if_modified_since
        headers = {"Last-Modified": email.utils.formatdate(changed_ms // 1000, usegmt=True)}
        if since is not None and since.timestamp() * 1000 >= changed_ms:
            return web.Response(status=304, headers=headers)
        return _json(describe(table, request.match_info["version"]), headers=headers)

    def _changed_ms(self, table: Table) -> int:
        """Return when an object's describe was changed last, as far as anyone has seen: whole seconds, never twice."""
        columns = table.columns()
        known = self._described.get(table.name)
        if known is None or known[0] is not columns:
            second_ms = self._now_ms() // 1000 * 1000
            known = (columns, second_ms if known is None else max(second_ms, known[1] + 1000))
            self._described[table.name] = known
        return known[1]

    async def updated(self, request: web.Request) -> web.Response:
        """Answer getUpdated."""
        if self._fault(request, "id_limit"):
            raise id_limit()
        start, end = request.query.get("start", ""), request.query.get("end", "")
        return _json(self._replication.updated(self._table(request), start, end, self._now_ms()))

    async def deleted(self, request: web.Request) -> web.Response:
        """Answer getDeleted."""
        if self._fault(request, "id_limit"):
            raise id_limit()
        start, end = request.query.get("start", ""), request.query.get("end", "")
        return _json(self._replication.deleted(self._table(request), start, end, self._now_ms()))

    # Bulk API 2.0

    async def bulk_create(self, request: web.Request) -> web.Response:
        """Create a query job."""
        order = await _body(request)
        job = self._jobs.create(order, self._plan, request.match_info["version"], self._state.sessions.user_id)
        return _json(self._jobs.describe(job))

    async def _job(self, request: web.Request) -> Job:
        job = self._jobs.get(request.match_info["job"])
        self._ready(job.plan)
        await self._jobs.advance(job, lambda: bool(self._fault(request, "bulk_failed")))
        return job

    async def bulk_get(self, request: web.Request) -> web.Response:
        """Show a query job."""
        return _json(self._jobs.describe(await self._job(request)))

    async def bulk_results(self, request: web.Request) -> web.Response:
        """Answer a part of a job's rows as CSV."""
        job = await self._job(request)
        locator, most = request.query.get("locator", ""), request.query.get("maxRecords", "")
        if most and (not most.isdigit() or int(most) == 0):
            raise RestError(400, "INVALIDJOB", "InvalidJob : maxRecords must be a positive number")
        if locator and self._fault(request, "locator_gone"):
            raise locator_gone("InvalidLocator : the locator is unknown")
        wanted = int(most) if most else MAX_RESULTS
        if self._short:
            wanted = self._cursors.some(wanted)
        version = request.match_info["version"]
        result, start, stop = self._jobs.results(job, version, locator, wanted)
        text = await csv_page(result, result.rows[start:stop], job.delimiter, job.line_end)
        self._state.stats.rest_rows += stop - start
        headers = {
            "Sforce-NumberOfRecords": str(stop - start),
            "Sforce-Locator": locator_of(stop) if stop < result.total else "null",
        }
        return web.Response(body=text.encode(), content_type="text/csv", charset="UTF-8", headers=headers)

    async def bulk_abort(self, request: web.Request) -> web.Response:
        """Abort a job."""
        job = await self._job(request)
        if (await _body(request)).get("state") != "Aborted":
            raise RestError(400, "INVALIDJOB", "InvalidJob : state must be Aborted")
        self._jobs.abort(job)
        return _json(self._jobs.describe(job))

    async def bulk_delete(self, request: web.Request) -> web.Response:
        """Delete a job."""
        self._jobs.delete(await self._job(request))
        return web.Response(status=204)


def _operation(request: web.Request) -> str:
    """Return what a request asks, for the counters: its path without version, names and ids."""
    words = request.path.removeprefix(_ROOT).strip("/").split("/")[1:]
    if words[:1] == ["sobjects"] and len(words) > 2:
        return words[2]
    if words[:2] == ["jobs", "query"]:
        return "bulk_results" if words[-1] == "results" else "bulk"
    if len(words) == 2 and words[0] in {"query", "queryAll"}:
        return "query_more"
    return words[0] if words else ""


def _wrong_method(request: web.Request) -> RestError:
    return RestError(405, "METHOD_NOT_ALLOWED", f"HTTP Method '{request.method}' not allowed.")


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.read())
    except orjson.JSONDecodeError:
        raise RestError(400, "JSON_PARSER_ERROR", "The body is no JSON") from None
    if not isinstance(body, dict):
        raise RestError(400, "JSON_PARSER_ERROR", "The body is no JSON object")
    return body


async def _cut(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Send the head and half of the body, and close the connection."""
    whole = response.body if isinstance(response, web.Response) and isinstance(response.body, bytes) else b""
    half = web.StreamResponse(status=response.status, headers=response.headers)
    half.content_length = len(whole) + 1
    await half.prepare(request)
    await half.write(whole[: len(whole) // 2])
    if request.transport is not None:
        request.transport.close()
    return half


def _html(status: int) -> web.Response:
    return web.Response(status=status, text=HTML_FAULT.format(status=status), content_type="text/html")


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=orjson.dumps(body), status=status, content_type="application/json", charset="UTF-8", headers=headers
    )
