"""Checks of what is read of an object by REST: fields, history, metrics, and the API calls that costs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from consumer.changes.rows import FieldInfo, RowPlan
from consumer.changes.schema import EventSchema
from consumer.checks.findings import Finding, Level, failed, ok, skipped, warn
from consumer.errors import QueryRefusedError, ServiceError
from consumer.ports import RecordSource
from consumer.settings import Settings
from consumer.upkeep.facts import METRICS_OF, NO_SESSION, hidden_fields, listed

_METRICS: Final = "MessagingSessionMetrics"
_DAY_S: Final = 86_400
_DAY_MS: Final = _DAY_S * 1000
_REFRESH_EVERY_S: Final = 5
"""Sessions that ended within this time are read again with one question (``consumer.upkeep.refresh``)."""

_BULK_PAGE: Final = 20_000
_FACTS_A_DAY: Final = 24 * 4
_SETS: Final = "Setup > Permission Sets > Object Settings"
_TRACKING: Final = "Setup > Object Manager > {} > Fields & Relationships > Set History Tracking"


@dataclass(frozen=True, slots=True)
class Expected:
    """API calls to expect for one object.

    Attributes:
        daily: a day, at most.
        snapshot: of one snapshot.
        rows: records the object has.
    """

    daily: int
    snapshot: int
    rows: int


def object_names(entity: str) -> tuple[str, ...]:
    """Return the names of an object's findings, for when they can't be made."""
    names = (f"{entity} rows", f"{entity} history")
    return (*names, _METRICS) if entity == METRICS_OF else names


async def check_object(
    source: RecordSource, entity: str, schema: EventSchema, now_ms: int, found: dict[str, dict[str, int]]
) -> AsyncIterator[Finding]:
    """Yield the findings of one object.

    Args:
        source: the org's records.
        entity: object API name.
        schema: its event schema.
        now_ms: the org's time, epoch milliseconds.
        found: is told by object how many records it has (``rows``) and how many are new a day (``new``), and whether
            its history is polled (``history``, 0 or 1).
    """
    counted = found.setdefault(entity, {"rows": 0, "new": 0, "history": 0})
    rows = f"{entity} rows"
    try:
        fields = await source.describe(entity)
        counted |= await _counts(source, entity, now_ms)
    except QueryRefusedError as error:
        yield Finding(rows, Level.FAIL, error.message, f"Give the user Read and View All on {entity} ({_SETS}).")
        for name in object_names(entity)[1:]:
            yield skipped(name, "the object can't be read")
        return
    except ServiceError as error:
        yield failed(rows, error)
        for name in object_names(entity)[1:]:
            yield skipped(name, "the object can't be read")
        return
    yield _fields(rows, RowPlan(entity, schema, fields), schema, fields, counted["rows"])
    history = await _history(source, entity, now_ms)
    counted["history"] = int(history.advice == "")
    yield history
    if entity == METRICS_OF:
        yield await _metrics(source)


async def counts(source: RecordSource, entity: str, now_ms: int) -> dict[str, int]:
    """Return the numbers of an object that is not checked otherwise, as :func:`check_object` tells them; 0 if unknown.

    Args:
        source: the org's records.
        entity: object API name.
        now_ms: the org's time, epoch milliseconds.
    """
    counted = {"rows": 0, "new": 0, "history": 0}
    try:
        return counted | await _counts(source, entity, now_ms)
    except ServiceError:
        return counted  # what is checked of the object tells the fault


async def _counts(source: RecordSource, entity: str, now_ms: int) -> dict[str, int]:
    rows = await source.count(entity)
    return {"rows": rows, "new": await source.count(entity, f"CreatedDate >= {_soql_time(now_ms - _DAY_MS)}")}


def _fields(name: str, plan: RowPlan, schema: EventSchema, fields: Mapping[str, FieldInfo], records: int) -> Finding:
    wanted = schema.schema_fields
    hidden = hidden_fields(schema, fields)
    seen = f"{records:,} records; {len(plan.fields)} of {len(wanted)} fields of the events can be read"
    if not hidden:
        return ok(name, seen)
    return warn(
        name,
        f"{seen}, hidden: {listed(hidden)}",
        f"Give the user Read on them ({_SETS}); until then they stay unknown.",
    )


async def _history(source: RecordSource, entity: str, now_ms: int) -> Finding:
    name = f"{entity} history"
    without = "Without it field history comes from events alone, and an outage's steps between can't be restored."
    try:
        await source.history(entity, now_ms - _DAY_MS, now_ms, None, limit=1)
    except QueryRefusedError as error:
        return warn(name, f"history rows can't be read: {error.message}", f"{without} {_allow(entity)}")
    except ServiceError as error:
        return failed(name, error)
    try:
        tracked = await source.tracked_fields(entity)
    except QueryRefusedError as error:
        return ok(name, f"readable; which fields are tracked can't be read ({error.message})")
    except ServiceError as error:
        return failed(name, error)
    if not tracked:
        return warn(name, "history tracking is off", f"Choose fields in {_TRACKING.format(_label(entity))}. {without}")
    return ok(name, f"{len(tracked)} fields tracked: {listed(sorted(tracked))}")


def _allow(entity: str) -> str:
    return f"Turn tracking on in {_TRACKING.format(_label(entity))}, and give the user Read on the object."


async def _metrics(source: RecordSource) -> Finding:
    try:
        await source.metrics([NO_SESSION])
    except QueryRefusedError as error:
        return warn(
            _METRICS, f"can't be read: {error.message}", "Give the user Read on it; sessions then lack metrics."
        )
    except ServiceError as error:
        return failed(_METRICS, error)
    return ok(_METRICS, "readable")


def expected_calls(settings: Settings, counted: Mapping[str, int]) -> Expected:
    """Return the API calls to expect for one object, from the settings and its numbers of records.

    Args:
        settings: the configuration.
        counted: ``rows``, ``new`` a day and ``history``, as :func:`check_object` tells them, and the calls a day for
            what stands beside it (``companions``).
    """
    tracking, history = settings.tracking, settings.history
    new, rows = counted["new"], counted["rows"]
    daily = counted.get("companions", 0) + _FACTS_A_DAY + 2 * min(new, _DAY_S // _REFRESH_EVERY_S)
    if counted["history"]:
        daily += _DAY_MS // max(1, history.poll)
    if tracking.reconcile:
        daily += 24 * 2 + new // 2000
    chunk = _BULK_PAGE if rows > tracking.bulk_above else tracking.chunk_rows
    return Expected(daily, rows // chunk + 2, rows)


def calls_finding(settings: Settings, usage: tuple[int, int] | None, found: Mapping[str, Mapping[str, int]]) -> Finding:
    """Return the finding about the org's daily API calls.

    Args:
        settings: the configuration.
        usage: calls used and allowed, as the last answer told them; None if none did.
        found: by object, as :func:`check_object` tells it.
    """
    name = "API calls"
    if usage is None:
        return skipped(name, "no answer told how many are left")
    used, limit = usage
    each = [expected_calls(settings, counted) for counted in found.values()]
    daily, snapshot = sum(one.daily for one in each), sum(one.snapshot for one in each)
    rows = sum(one.rows for one in each)
    seen = f"{limit - used:,} of {limit:,} left in the rolling 24 h"
    if each:
        seen += f"; at most some {daily:,} a day expected, and {snapshot:,} for a snapshot of {rows:,} records"
    if daily + snapshot > (limit - used) * (1 - settings.tracking.api_reserve):
        return warn(
            name,
            seen,
            "Polls will slow down; raise history.poll, find who uses the calls (Setup > System Overview), or buy more.",
        )
    return ok(name, seen)


def _label(entity: str) -> str:
    return "Messaging Session" if entity == METRICS_OF else entity


def _soql_time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
