"""An org in memory behind :class:`consumer.ports.RecordSource`, and a pipeline and store that take what jobs read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from consumer.changes.rows import FieldInfo, RowPlan
from consumer.changes.schema import EventSchema, compile_schema
from consumer.delivery.headers import iso_utc
from consumer.emulator.event_schemas import standard_schemas
from consumer.errors import QueryRefusedError, ServiceError
from consumer.events import LossWindow
from consumer.pages import DeletedIds, HistoryPage, RowsPage
from consumer.ports import Companion, Delta, Offsets
from consumer.tracking.access import AccessState
from consumer.tracking.arrivals import (
    COUNTED,
    Arrival,
    Closed,
    Expired,
    FactsRead,
    HistoryRead,
    MetricsRead,
    Progress,
    Reconciled,
    RowsRead,
    SettleDue,
)
from consumer.tracking.values import EntityFacts, HistoryRow, Key, LedgerEntry, RecordState, Row, SourceVersion
from consumer.upkeep.context import Context, Pace
from tests.fakes import CHANNEL, NOW_MS

ENTITY = "MessagingSession"
SECOND = 1_000
HOUR = 3_600_000
PACE = Pace(
    history_poll=60_000,
    history_overlap=300_000,
    history_settle=30_000,
    confirm_within=600_000,
    backfill=86_400_000,
    refresh_after=60_000,
    reconcile=True,
    reconcile_after=15 * 60_000,
    chunk_rows=10,
    bulk_above=1_000_000,
    delete_grace=7 * 86_400_000,
)
SCHEMA_JSON = standard_schemas()[ENTITY].json
SCHEMA = compile_schema("schema-1", SCHEMA_JSON)
FIELDS: Mapping[str, FieldInfo] = {
    "Id": FieldInfo("Id", "id", 18),
    **{each: FieldInfo(each, "reference" if each.endswith("Id") else "string", 255) for each in SCHEMA.schema_fields},
}


def record_id(number: int, prefix: str = "0Mw") -> str:
    """Return an id; ids are in the order of their numbers."""
    return f"{prefix}{number:012d}AAA"


@dataclass
class OrgRow:
    """A record of the fake org; ``purged`` ones answer to nothing but getDeleted."""

    status: str
    stamp_ms: int
    modified_ms: int
    deleted_ms: int | None = None
    purged: bool = False


@dataclass
class FakeOrg:
    """Records, history and metrics; implements :class:`consumer.ports.RecordSource`.

    Attributes:
        skew_ms: how far the org's clock is ahead of the loop's.
        answer_s: virtual seconds an answer takes.
        errors: raised by the next calls of a name, in order.
        refused: names of calls that are always refused, or ``name:entity``.
        calls: names of all calls, in order.
        before: called before an answer is made, with the call's name; for changes under a reader's hands.
        log_from_ms: how far back the delete log reaches.
        log_lag_ms: how far behind the delete log is.
        pages: how many rows a page of history or stamps has.
    """

    rows: dict[str, OrgRow] = field(default_factory=dict)
    other: dict[str, dict[str, OrgRow]] = field(default_factory=dict)
    history_rows: list[HistoryRow] = field(default_factory=list)
    metrics_rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    fields: Mapping[str, FieldInfo] = field(default_factory=lambda: FIELDS)
    tracked: frozenset[str] = frozenset({"Status", "OwnerId"})
    skew_ms: int = 0
    answer_s: float = 0.05
    errors: dict[str, deque[ServiceError]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    before: Callable[[str], None] = lambda _name: None
    log_from_ms: int = 0
    log_lag_ms: int = 0
    pages: int = 5
    cursors_valid: bool = True
    bulk_rows: dict[str, list[Row]] = field(default_factory=dict)
    bulk_ended: list[str] = field(default_factory=list)
    pace_factor: float = 1.0
    hidden: tuple[str, ...] = ()

    def now_ms(self) -> int:
        """The org's time."""
        return NOW_MS + int(asyncio.get_running_loop().time() * 1000) + self.skew_ms

    def table(self, entity: str) -> dict[str, OrgRow]:
        """Rows of an object."""
        return self.rows if entity == ENTITY else self.other.setdefault(entity, {})

    # What happens in the org

    def save(self, number: int, status: str = "New", at_ms: int | None = None, entity: str = ENTITY) -> str:
        """Create or update a record."""
        stamp = (self.now_ms() if at_ms is None else at_ms) // SECOND * SECOND
        key = record_id(number, "0Mw" if entity == ENTITY else "001")
        self.table(entity)[key] = OrgRow(status, stamp, stamp)
        return key

    def delete(self, key: str, at_ms: int | None = None, *, purge: bool = False) -> None:
        """Put a record into the recycle bin, or remove it for good."""
        row = self.rows[key]
        row.deleted_ms = self.now_ms() if at_ms is None else at_ms
        row.stamp_ms = row.deleted_ms // SECOND * SECOND
        row.purged = purge

    def tell(self, number: int, key: str, at_ms: int, name: str = "Status", new: str = "Active") -> HistoryRow:
        """Add a history row."""
        row = HistoryRow(f"017{number:015d}", key, name, "DynamicEnum", "New", new, at_ms // SECOND * SECOND, "005")
        self.history_rows.append(row)
        return row

    # RecordSource

    async def hidden_columns(self, entity: str, what: Companion) -> tuple[str, ...]:
        await self._answer(f"hidden {what}", entity)
        return self.hidden

    async def _answer(self, name: str, entity: str = "") -> int:
        self.calls.append(name)
        await asyncio.sleep(self.answer_s)
        waiting = self.errors.get(name)
        if waiting:
            raise waiting.popleft()
        if name in self.refused or f"{name}:{entity}" in self.refused:
            raise QueryRefusedError(f"{name} is refused", code="INVALID_TYPE")
        self.before(name)
        return self.now_ms() // SECOND * SECOND + SECOND

    def _row(self, key: str, row: OrgRow) -> Row:
        values = {"Status": row.status, "LastModifiedDate": iso_utc(row.modified_ms)}
        return Row(key, values, row.stamp_ms, row.deleted_ms is not None)

    def _live(self, entity: str) -> list[str]:
        return sorted(key for key, row in self.table(entity).items() if row.deleted_ms is None)

    async def describe(self, entity: str) -> Mapping[str, FieldInfo]:
        await self._answer("describe", entity)
        return self.fields

    async def tracked_fields(self, entity: str) -> frozenset[str]:
        await self._answer("tracked_fields", entity)
        return self.tracked

    async def count(self, entity: str, where: str = "") -> int:
        await self._answer("count", entity)
        return len(self._live(entity))

    async def rows_by_id(self, plan: RowPlan, record_ids: Sequence[str], *, repair: bool) -> RowsPage:
        assert len(record_ids) <= 200
        assert len(set(record_ids)) == len(record_ids)
        answered = await self._answer("rows_by_id", plan.entity)
        self.asked.append(tuple(record_ids))
        table = self.table(plan.entity)
        there = {key: table[key] for key in record_ids if key in table and not table[key].purged}
        rows = [self._row(key, row) for key, row in there.items()]
        return RowsPage(rows, answered, None, tuple(key for key in record_ids if key not in there))

    async def scan(
        self, plan: RowPlan, cursor: str | None, *, where: str = "", limit: int = 2000, repair: bool
    ) -> RowsPage:
        answered = await self._answer("scan", plan.entity)
        if where == "broken":
            raise QueryRefusedError("The condition is broken", code="MALFORMED_QUERY")
        table = self.table(plan.entity)
        keys = [key for key in self._live(plan.entity) if key > (cursor or "")]
        if where:
            keys = [key for key in keys if table[key].status == where]
        page = keys[:limit]
        after = page[-1] if len(keys) > limit else None
        return RowsPage([self._row(key, table[key]) for key in page], answered, after)

    async def modified(
        self, plan: RowPlan, from_ms: int, to_ms: int, cursor: str | None, *, limit: int = 2000, repair: bool
    ) -> RowsPage:
        answered = await self._answer("modified", plan.entity)
        if cursor is not None and not self.cursors_valid:
            raise QueryRefusedError("The cursor is gone", code="INVALID_QUERY_LOCATOR")
        return self._modified(plan.entity, from_ms, to_ms, cursor, limit, answered)

    def _modified(
        self, entity: str, from_ms: int, to_ms: int, cursor: str | None, limit: int, answered: int
    ) -> RowsPage:
        found = sorted(
            (row.stamp_ms, key)
            for key, row in self.table(entity).items()
            if from_ms <= row.stamp_ms < to_ms and not row.purged
        )
        found = [each for each in found if cursor is None or f"{each[0]}|{each[1]}" > cursor]
        page = found[:limit]
        after = f"{page[-1][0]}|{page[-1][1]}" if len(found) > limit else None
        return RowsPage([self._row(key, self.table(entity)[key]) for _, key in page], answered, after)

    async def deleted_ids(self, entity: str, from_ms: int, to_ms: int) -> DeletedIds:
        answered = await self._answer("deleted_ids", entity)
        times = {key: row.deleted_ms for key, row in self.table(entity).items() if row.deleted_ms is not None}
        ids = {key: at_ms for key, at_ms in times.items() if from_ms <= at_ms < to_ms}
        return DeletedIds(ids, self.log_from_ms, min(to_ms, answered - SECOND - self.log_lag_ms))

    async def history(
        self, entity: str, from_ms: int, to_ms: int, cursor: str | None, *, limit: int = 2000
    ) -> HistoryPage:
        answered = await self._answer("history", entity)
        if cursor is not None and not self.cursors_valid:
            self.cursors_valid = True
            raise QueryRefusedError("The cursor is gone", code="INVALID_QUERY_LOCATOR")
        found = [row for row in self.history_rows if from_ms <= row.created_ms < to_ms]
        found.sort(key=lambda row: (row.created_ms, row.history_id))
        start = int(cursor or 0)
        size = min(limit, self.pages)
        after = str(start + size) if len(found) > start + size else None
        return HistoryPage(found[start : start + size], answered, after)

    async def metrics(self, record_ids: Sequence[str]) -> tuple[Mapping[str, Mapping[str, Any]], int]:
        answered = await self._answer("metrics")
        return {key: self.metrics_rows[key] for key in record_ids if key in self.metrics_rows}, answered

    async def bulk_start(self, plan: RowPlan, *, where: str = "") -> str:
        await self._answer("bulk_start", plan.entity)
        table = self.table(plan.entity)
        job = f"750{len(self.bulk_rows):03d}"
        self.bulk_rows[job] = [self._row(key, row) for key, row in sorted(table.items()) if not row.purged]
        return job

    async def bulk_page(self, plan: RowPlan, job_id: str, cursor: str | None, *, limit: int = 20_000) -> RowsPage:
        answered = await self._answer("bulk_page", plan.entity)
        rows = self.bulk_rows[job_id]
        start = int(cursor or 0)
        after = str(start + limit) if len(rows) > start + limit else None
        return RowsPage(rows[start : start + limit], answered, after)

    async def bulk_end(self, job_id: str) -> None:
        await self._answer("bulk_end")
        self.bulk_ended.append(job_id)


class FakePlan:
    """A read plan that only knows its object."""

    def __init__(self, entity: str) -> None:
        self.entity = entity


@dataclass
class Durable:
    """What survives a kill: states, ledger, progress, windows and the store's memory of seen records.

    Attributes:
        taken: arrivals that were committed, in order.
    """

    states: dict[Key, RecordState] = field(default_factory=dict)
    ledgers: dict[Key, LedgerEntry] = field(default_factory=dict)
    accesses: dict[Key, AccessState] = field(default_factory=dict)
    progress: dict[str, dict[str, Any]] = field(default_factory=dict)
    windows: dict[str, LossWindow] = field(default_factory=dict)
    seen: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    generation: str = "g1"
    taken: list[Arrival] = field(default_factory=list)


class FakeStore:
    """Implements :class:`consumer.ports.Store` over what is durable."""

    def __init__(self, durable: Durable) -> None:
        self._durable = durable

    @property
    def generation(self) -> str:
        return self._durable.generation

    def get(self, key: Key) -> RecordState | None:
        return self._durable.states.get(key)

    def put(self, state: RecordState) -> None:
        self._durable.states[state.entity, state.record_id] = state

    def remove(self, key: Key) -> None:
        self._durable.states.pop(key, None)

    def ledger(self, key: Key) -> LedgerEntry | None:
        return self._durable.ledgers.get(key)

    def put_ledger(self, entry: LedgerEntry) -> None:
        key = (entry.entity, entry.record_id)
        if entry.empty:
            self._durable.ledgers.pop(key, None)
        else:
            self._durable.ledgers[key] = entry

    def access(self, key: Key) -> AccessState | None:
        return self._durable.accesses.get(key)

    def put_access(self, access: AccessState) -> None:
        self._durable.accesses[access.entity, access.record_id] = access

    def remove_access(self, key: Key) -> None:
        self._durable.accesses.pop(key, None)

    def due_shares(self, entity: str, now_ms: int, limit: int) -> Sequence[Key]:
        due = [
            (entry.shares.due_ms, key)
            for key, entry in self._durable.ledgers.items()
            if key[0] == entity and entry.shares is not None and entry.shares.due_ms <= now_ms
        ]
        return [key for _, key in sorted(due)[:limit]]

    def unseen_access(self, entity: str, job_id: str, after_id: str, limit: int) -> Sequence[str]:
        seen = self._durable.seen.get((entity, job_id), set())
        known = sorted(key[1] for key in self._durable.accesses if key[0] == entity)
        return [each for each in known if each > after_id and each not in seen][:limit]

    def accesses(self, entity: str) -> int:
        return sum(1 for key in self._durable.accesses if key[0] == entity)

    def cut(self) -> Delta:
        return Delta()

    def merge(self, delta: Delta, offsets: Offsets) -> None:
        """Everything is durable at once here."""

    def drop(self) -> None:
        """Nothing is ever under way here."""

    def due_refreshes(self, entity: str, now_ms: int, limit: int) -> Sequence[Key]:
        due = [
            (entry.refresh.due_ms, key)
            for key, entry in self._durable.ledgers.items()
            if key[0] == entity and entry.refresh is not None and entry.refresh.due_ms <= now_ms
        ]
        return [key for _, key in sorted(due)[:limit]]

    def unsettled(self, entity: str, limit: int) -> Sequence[Key]:
        return [key for key, entry in self._durable.ledgers.items() if key[0] == entity and entry.facts][:limit]

    def expired(self, entity: str, deleted_before_ms: int, limit: int) -> Sequence[str]:
        return [
            key[1]
            for key, state in self._durable.states.items()
            if key[0] == entity and state.deleted and (state.deleted_ms or 0) < deleted_before_ms
        ][:limit]

    def see(self, entity: str, record_ids: Iterable[str], job_id: str) -> None:
        self._durable.seen.setdefault((entity, job_id), set()).update(record_ids)

    def unseen(self, entity: str, job_id: str, after_id: str, limit: int) -> Sequence[str]:
        seen = self._durable.seen.get((entity, job_id), set())
        live = sorted(key[1] for key, state in self._durable.states.items() if key[0] == entity and not state.deleted)
        return [each for each in live if each > after_id and each not in seen][:limit]

    def entities(self) -> Sequence[str]:
        return sorted({key[0] for key in self._durable.states})

    def records(self, entity: str) -> int:
        return sum(1 for key in self._durable.states if key[0] == entity)


class Told:
    """Implements :class:`consumer.upkeep.context.UpkeepObserver`."""

    def __init__(self) -> None:
        self.failed: list[tuple[str, ServiceError, float]] = []
        self.scans: list[tuple[str, str, int]] = []
        self.complete: list[tuple[str, str, int]] = []
        self.unavailable: list[tuple[str, str]] = []
        self.sweeps: list[tuple[int, int | None]] = []
        self.swept_rows: list[int] = []

    def api_call_failed(self, job: str, error: ServiceError, delay_s: float) -> None:
        self.failed.append((job, error, delay_s))

    def scanning(self, job: str, entity: str, rows: int, total: int | None) -> None:
        self.scans.append((job, entity, rows))

    def scanned(self, job: str, entity: str, rows: int, seconds: float) -> None:
        self.complete.append((job, entity, rows))

    def sweeping(self, entity: str, rows: int, total: int | None, more: int) -> None:
        self.sweeps.append((rows, total))

    def swept(self, entity: str, rows: int, begun_ms: int, ended_ms: int) -> None:
        self.swept_rows.append(rows)

    def not_available(self, what: str, entity: str, error: ServiceError) -> None:
        self.unavailable.append((what, entity))


class Harness:
    """One generation: a context over the fakes, and a pipeline that applies arrivals.

    Args:
        org: the org.
        durable: what earlier generations left.
        kill_after: arrivals that are committed before the process is killed; None for never.
        facts: of the objects; by default all are known, and history is not tracked.
    """

    def __init__(
        self,
        org: FakeOrg,
        durable: Durable | None = None,
        *,
        entity: str | None = ENTITY,
        entities: tuple[str, ...] = (ENTITY,),
        pace: Pace = PACE,
        kill_after: int | None = None,
        facts: Mapping[str, EntityFacts] | None = None,
    ) -> None:
        self.org = org
        self.durable = durable or Durable()
        self.store = FakeStore(self.durable)
        self.told = Told()
        self.kill_after = kill_after
        self.facts = {each: facts_for(each) for each in entities} if facts is None else dict(facts)
        self.plans = set(entities)
        self.schemas: dict[str, EventSchema] = dict.fromkeys(entities, SCHEMA)
        self.marks: set[int] = set()
        self.next_mark = 0
        self.touched: dict[str, int] = {}
        self.ready = asyncio.Event()
        self.ready.set()
        self.caught_up_asked = 0
        self.news = asyncio.Event()
        self.killed = asyncio.Event()
        self.delivered_to: Callable[[], int] = org.now_ms
        self.on_take: Callable[[Arrival], None] = lambda _arrival: None
        self.context = Context(
            channel=CHANNEL,
            entity=entity,
            source=org,
            store=self.store,
            inbox=self,
            reads=self,
            now_ms=org.now_ms,
            progress=self.durable.progress,
            entities=lambda: entities,
            schema=self.schemas.get,
            plan=lambda each: FakePlan(each) if each in self.plans else None,  # type: ignore[arg-type,return-value]  # only its object counts
            facts=self.facts.get,
            windows=lambda: self.durable.windows,
            caught_up=self.caught_up,
            delivered_to=lambda: self.delivered_to(),  # noqa: PLW0108  # tests replace it
            changed=asyncio.Event(),
            sleep=asyncio.sleep,
            pace=pace,
            random=lambda: 0.5,
            observer=self.told,
        )

    # Context's parts

    async def caught_up(self) -> None:
        self.caught_up_asked += 1
        await self.ready.wait()

    def begin_read(self) -> int:
        self.next_mark += 1
        self.marks.add(self.next_mark)
        return self.next_mark

    def end_read(self, mark: int) -> None:
        self.marks.remove(mark)

    async def settled(self) -> None:
        await asyncio.sleep(0)

    async def put(self, arrival: Arrival) -> None:
        await asyncio.sleep(0.001)
        if self.kill_after is not None and len(self.durable.taken) >= self.kill_after:
            self.killed.set()
            await asyncio.Event().wait()
        self._take(arrival)
        self.durable.taken.append(arrival)
        self.on_take(arrival)
        self.news.set()

    # The pipeline

    def event(self, state: RecordState) -> None:
        """Take in an event: reads that are under way do not undo it."""
        self.touched[state.record_id] = self.next_mark
        self.store.put(state)

    def open(self, window: LossWindow) -> None:
        """Open a loss window."""
        self.durable.windows[window.window_id] = window
        self.context.changed.set()

    def _take(self, arrival: Arrival) -> None:
        emitted = 0
        match arrival:
            case RowsRead():
                if arrival.mark is not None:
                    self.end_read(arrival.mark)
                emitted = sum(self._apply(arrival, row) for row in arrival.rows)
                emitted += sum(self._gone(arrival, key) for key in arrival.missing)
                self._finish(arrival.progress, [each.window_id for each in arrival.closings], emitted)
            case HistoryRead() | Closed():
                self._finish(arrival.progress, [each.window_id for each in arrival.closings], 0)
            case Reconciled():
                self._finish(arrival.progress, [], 0)
            case FactsRead():
                self.facts[arrival.facts.entity] = arrival.facts
            case Expired():
                for key in arrival.record_ids:
                    self.store.remove((arrival.entity, key))
            case MetricsRead() | SettleDue():
                return

    def _finish(self, progress: Iterable[Progress], closed: Iterable[str], emitted: int) -> None:
        for window_id in closed:
            del self.durable.windows[window_id]
        for each in progress:
            if each.done:
                self.durable.progress.pop(each.name, None)
                continue
            state = dict(each.state)
            if each.name.startswith(COUNTED):
                state["repaired"] = self.durable.progress.get(each.name, {}).get("repaired", 0) + emitted
            self.durable.progress[each.name] = state

    def _apply(self, read: RowsRead, row: Row) -> int:
        key = (read.entity, row.record_id)
        before = self.store.get(key)
        if read.mark is not None and self.touched.get(row.record_id, -1) >= read.mark:
            return 0
        if row.deleted:
            return self._gone(read, row.record_id)
        if before is not None and not before.deleted and not before.suspect and before.image == row.values:
            return 0
        self.store.put(state_of(row, entity=read.entity, read_ms=read.answered_ms))
        return 1

    def _gone(self, read: RowsRead, key: str) -> int:
        state = self.store.get((read.entity, key))
        if state is None or state.deleted:
            return 0
        self.store.put(replace(state, image={}, deleted=True, deleted_ms=read.answered_ms))
        return 1

    # For tests

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that was taken has made the condition true, an hour of virtual time at most."""
        async with asyncio.timeout(48 * 3600):
            while not condition():
                self.news.clear()
                await self.news.wait()

    def arrivals(self, kind: type[Any]) -> list[Any]:
        """What was taken of a kind."""
        return [each for each in self.durable.taken if isinstance(each, kind)]


def facts_for(entity: str = ENTITY, **given: Any) -> EntityFacts:
    """Facts of an object without history."""
    return EntityFacts(entity, **{"visible": frozenset(FIELDS), "tracked": frozenset(), **given})


def state_of(
    row: Row, *, entity: str = ENTITY, read_ms: int | None = None, commit_ms: int | None = None, stale: bool = False
) -> RecordState:
    """The state that a row leaves."""
    source = None if commit_ms is None else SourceVersion(0, 1, 1, commit_ms)
    return RecordState(
        entity,
        row.record_id,
        dict(row.values),
        b"{}",
        suspect=frozenset({"Status"}) if stale else frozenset(),
        version=1,
        source=source,
        row_stamp_ms=row.stamp_ms,
        row_read_ms=read_ms,
    )


async def running(job: Callable[[], Coroutine[Any, Any, None]], until: Awaitable[Any]) -> None:
    """Run a job until something has happened, then cancel it."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(job())
        await until
        task.cancel()
