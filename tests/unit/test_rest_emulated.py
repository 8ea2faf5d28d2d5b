"""Reading an emulated org by REST and Bulk: what comes back is what the org holds, however awkwardly it answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from consumer.changes.fields import FieldPolicy
from consumer.changes.rows import RowPlan
from consumer.changes.schema import EventSchema, compile_schema
from consumer.connections import Salesforce, open_salesforce
from consumer.emulator.scenario import Scenario
from consumer.emulator.server import EmulatedOrg, emulated_org
from consumer.errors import QueryRefusedError, QuotaError
from consumer.ports import RecordSource
from consumer.settings import Settings
from consumer.tracking.images import whole
from consumer.tracking.values import HistoryRow, Row

SESSION = "MessagingSession"
PERSONS = ("Account", SESSION)


@dataclass(frozen=True)
class Reading:
    """An emulated org and our reader of it."""

    org: EmulatedOrg
    salesforce: Salesforce
    records: RecordSource

    def schema(self, entity: str) -> EventSchema:
        schema_id = self.org.model.current_schema_id(entity)
        return compile_schema(schema_id, self.org.model.schema_json(schema_id) or "")

    async def plan(self, entity: str) -> RowPlan:
        return RowPlan(entity, self.schema(entity), await self.records.describe(entity))

    def held(self, entity: str, plan: RowPlan) -> dict[str, bytes]:
        """Return what the org holds, as an image that knows all would have it."""
        schema = self.schema(entity)
        found = {}
        for record_id, record in self.org.model.records(entity).items():
            values = schema.canonical({name: value for name, value in record.items() if value is not None})
            found[record_id] = image({name: values.get(name) for name in plan.fields})
        return found


def image(values: Any) -> bytes:
    return orjson.dumps({name: whole(value) for name, value in values.items()}, option=orjson.OPT_SORT_KEYS)


def images(rows: list[Row]) -> dict[str, bytes]:
    return {row.record_id: image(row.values) for row in rows}


@asynccontextmanager
async def reading(preload: int = 1500, **scenario: Any) -> AsyncIterator[Reading]:
    traffic = {"preload": preload, "paused": True}
    async with emulated_org(Scenario.model_validate({"traffic": traffic, "bulk_s": 0.05, **scenario})) as org:
        settings = Settings.model_validate(
            {
                "salesforce": {
                    "login_url": org.login_url,
                    "client_id": org.scenario.auth.client_id,
                    "client_secret": org.scenario.auth.client_secret,
                },
                "pubsub": {"endpoint": org.pubsub, "tls": False},
                "kafka": {"bootstrap_servers": "127.0.0.1:1"},
            }
        )
        async with open_salesforce(settings) as salesforce:
            yield Reading(org, salesforce, salesforce.records(FieldPolicy()))


async def scan_all(read: Reading, plan: RowPlan, limit: int) -> list[Row]:
    rows: list[Row] = []
    cursor = None
    while True:
        page = await read.records.scan(plan, cursor, limit=limit, repair=True)
        rows += page.rows
        if page.cursor is None:
            return rows
        cursor = page.cursor


@pytest.mark.parametrize("short_pages", [False, True])
async def test_a_scan_reads_every_live_record_as_it_is(short_pages: bool) -> None:
    async with reading(short_pages=short_pages) as read:
        for entity in (*PERSONS, "AgentWork", "MessagingEndUser"):
            plan = await read.plan(entity)
            rows = await scan_all(read, plan, 200)
            assert images(rows) == read.held(entity, plan)
            assert len(rows) == len({row.record_id for row in rows}) == await read.records.count(entity)


async def test_bulk_reads_the_same() -> None:
    """But for empty text, which Bulk can't tell from null."""
    async with reading(short_pages=True) as read:
        for entity in PERSONS:
            plan = await read.plan(entity)
            job = await read.records.bulk_start(plan)
            rows: list[Row] = []
            cursor, more = None, True
            while more:
                page = await read.records.bulk_page(plan, job, cursor, limit=150)
                rows += page.rows
                cursor, more = page.cursor, page.cursor is not None
            assert images([row for row in rows if not row.deleted]) == read.held(entity, plan)
            await read.records.bulk_end(job)
            with pytest.raises(QueryRefusedError):
                await read.records.bulk_page(plan, job, None)


async def test_rows_by_id_tell_deleted_and_purged_ones_apart() -> None:
    async with reading() as read:
        plan = await read.plan(SESSION)
        ids = sorted(read.org.model.records(SESSION))[:300]
        await read.org.fault("silent_delete", record_ids=ids[:2])
        await read.org.fault("silent_delete", record_ids=ids[2:3], purge=True)
        page = await read.records.rows_by_id(plan, ids, repair=True)
        assert page.missing == tuple(ids[2:3])
        assert {row.record_id for row in page.rows if row.deleted} == set(ids[:2])
        assert len(page.rows) == len(ids) - 1 > 200
        await read.org.fault("advance_clock", seconds=120)  # the newest minute is not in the log yet
        await read.records.count(SESSION)
        now_ms = read.salesforce.clock.now_ms()
        log = await read.records.deleted_ids(SESSION, now_ms - 3_600_000, now_ms + 60_000)
        assert log.ids.keys() >= set(ids[:3])


async def test_modified_rows_are_a_partition_of_the_window() -> None:
    async with reading(short_pages=True) as read:
        plan = await read.plan(SESSION)
        everything = {row.record_id for row in await scan_all(read, plan, 2000)}
        rows: list[Row] = []
        cursor, more = None, True
        while more:
            page = await read.records.modified(plan, 0, page_end(read), cursor, limit=200, repair=True)
            rows += page.rows
            cursor, more = page.cursor, page.cursor is not None
        live = [row for row in rows if not row.deleted]
        assert {row.record_id for row in live} == everything
        assert len(rows) == len({row.record_id for row in rows})
        stamps = [row.stamp_ms for row in rows]
        assert stamps == sorted(stamps)


def page_end(read: Reading) -> int:
    return read.salesforce.clock.now_ms() + 60_000


async def test_history_is_read_in_order_to_its_end() -> None:
    async with reading(late_history_rows=0.0) as read:
        assert await read.records.tracked_fields(SESSION) == read.org.model.tracked_fields(SESSION)
        rows: list[HistoryRow] = []
        cursor, more = None, True
        end_ms = page_end(read)
        while more:
            page = await read.records.history(SESSION, 0, end_ms, cursor, limit=250)
            rows += page.rows
            cursor, more = page.cursor, page.cursor is not None
        assert len(rows) == len({row.history_id for row in rows}) > 250
        assert [row.created_ms for row in rows] == sorted(row.created_ms for row in rows)
        assert {row.history_field for row in rows} >= {"Status", "Owner", "created"}


async def test_hidden_fields_are_not_asked_for() -> None:
    async with reading(hidden_fields={SESSION: ("CaseId", "VisitAddress__c")}) as read:
        plan = await read.plan(SESSION)
        assert not {"CaseId", "VisitAddress__c"} & set(plan.select)
        assert await scan_all(read, plan, 2000)


@pytest.mark.parametrize("error", ["html502", "empty500", "unavailable503", "cut", "query_timeout", "invalid_session"])
async def test_a_scan_gets_over_a_passing_error(error: str) -> None:
    async with reading(preload=300) as read:
        plan = await read.plan(SESSION)
        await read.org.fault("rest_error", error=error, path="/query")
        assert images(await scan_all(read, plan, 2000)) == read.held(SESSION, plan)


async def test_a_cut_page_of_bulk_results_is_read_anew() -> None:
    """What arrived of the first attempt is thrown away, or its rows would come twice."""
    async with reading(preload=300) as read:
        plan = await read.plan(SESSION)
        job = await read.records.bulk_start(plan)
        await read.records.bulk_page(plan, job, None)
        await read.org.fault("rest_error", error="cut", path="/results")
        page = await read.records.bulk_page(plan, job, None)
        assert len(page.rows) == len({row.record_id for row in page.rows}) > 0
        assert images([row for row in page.rows if not row.deleted]) == read.held(SESSION, plan)
        assert read.org.stats.rest_errors["cut"] == 1


async def test_a_failed_bulk_job_is_told() -> None:
    async with reading(preload=50) as read:
        plan = await read.plan(SESSION)
        await read.org.fault("rest_error", error="bulk_failed")
        job = await read.records.bulk_start(plan)
        with pytest.raises(QueryRefusedError) as raised:
            await read.records.bulk_page(plan, job, None)
        assert raised.value.code == "JOB_FAILED"
        await read.records.bulk_end(job)


async def test_an_expired_cursor_loses_nothing() -> None:
    async with reading(short_pages=True) as read:
        plan = await read.plan(SESSION)
        await read.org.fault("rest_error", error="locator_gone", times=3)
        assert images(await scan_all(read, plan, 300)) == read.held(SESSION, plan)


async def test_used_up_calls_are_told() -> None:
    async with reading(preload=100) as read:
        plan = await read.plan(SESSION)
        await read.org.fault("api_limit", exceeded=True)
        with pytest.raises(QuotaError):
            await read.records.scan(plan, None, repair=True)


async def test_the_orgs_clock_is_followed() -> None:
    async with reading(preload=100) as read:
        await read.org.fault("advance_clock", seconds=4 * 86_400)
        before = read.salesforce.clock.now_ms()
        page = await read.records.scan(await read.plan(SESSION), None, repair=True)
        assert 4 * 86_400_000 - 5_000 < read.salesforce.clock.now_ms() - before < 4 * 86_400_000 + 5_000
        assert abs(page.answered_ms - 1000 - read.salesforce.clock.now_ms()) < 3_000


async def test_metrics_come_after_the_end() -> None:
    async with reading() as read:
        await read.org.fault("advance_clock", seconds=3600)
        ended = [key for key, row in read.org.model.records(SESSION).items() if row["Status"] == "Ended"]
        metrics, _ = await read.records.metrics(ended)
        assert metrics
        assert set(metrics) <= set(ended)
        assert all(kinds.keys() >= {"AgentMessageCount"} for kinds in metrics.values())
