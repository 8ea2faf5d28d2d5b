"""How one scan reads: chunks by REST or Bulk, then the records it did not see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from consumer.changes.rows import RowPlan
from consumer.errors import QueryRefusedError
from consumer.pages import RowsPage
from consumer.tracking import refresh
from consumer.tracking.arrivals import Closed, Progress, RowsRead
from consumer.tracking.values import RecordState, Row
from consumer.upkeep.asking import HOUR_MS, IDS_A_READ, RESPITE_S, Asking
from consumer.upkeep.context import Context
from consumer.upkeep.scan_state import Scan

_BULK_MARGIN_MS: Final = 2_000
"""Commit times have whole seconds, and our notion of the org's time is as wrong as an answer is slow."""

_CLOCK_MARGIN_MS: Final = 3_000
_BULK_CHUNKS: Final = 5
"""Chunks in one page of a Bulk job."""

_BULK_FAILURES: Final = 2
_AHEAD_MS: Final = 24 * HOUR_MS
"""Rows that are modified while a scan reads by time move to its end: it reads until there are no more."""


class ScanReading:
    """Reads the pieces of scans and hands them over with the progress they make.

    Args:
        context: what the job works with.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._asking = Asking(context, "scan")

    async def step(self, scan: Scan, end_ms: int) -> Scan:
        """Read the next piece and return the scan as it stands then.

        Args:
            scan: a scan whose current object has a plan.
            end_ms: every row must be read after this time.

        Raises:
            QueryRefusedError: the object can't be read, or a cursor is gone.
        """
        plan = self._context.plan(scan.entity)
        if plan is None:
            return scan
        if scan.phase == "deletes":
            if scan.kind == "modified":
                return await self._logged_deletes(scan, plan, end_ms)
            return await self._unseen(scan, plan, end_ms)
        if not scan.opened:
            return await self._open(scan, plan, end_ms)
        if scan.bulk is not None:
            return await self._bulk_chunks(scan, plan, scan.bulk)
        return await self._chunk(scan, plan, end_ms)

    # How

    async def _open(self, scan: Scan, plan: RowPlan, end_ms: int) -> Scan:
        source, context = self._context.source, self._context
        moved = replace(scan, opened=True)
        if scan.kind != "modified":
            total = await self._asking.ask(lambda: source.count(scan.entity, scan.where))
            moved = replace(moved, total=total)
            if total > context.pace.bulk_above and scan.bulk_failures < _BULK_FAILURES:
                moved = await self._bulk_opened(moved, plan, end_ms)
        context.observer.scanning(scan.job, scan.entity, 0, moved.total)
        return await self._told(moved)

    async def _bulk_opened(self, scan: Scan, plan: RowPlan, end_ms: int) -> Scan:
        while self._context.now_ms() <= end_ms + _CLOCK_MARGIN_MS:
            await self._context.sleep(1.0)
        bulk_ms = self._context.now_ms()
        try:
            bulk = await self._asking.ask(lambda: self._context.source.bulk_start(plan, where=scan.where))
        except QueryRefusedError as error:
            self._context.observer.not_available("bulk", scan.entity, error)
            return replace(scan, bulk_failures=_BULK_FAILURES)
        return replace(scan, bulk=bulk, bulk_ms=bulk_ms)

    async def _told(self, scan: Scan) -> Scan:
        """Make a scan's progress durable without rows."""
        entity = scan.entities[0] if not scan.left else scan.entity
        await self._context.inbox.put(Closed(entity, self._context.now_ms(), progress=(scan.progress(),)))
        return scan

    # Rows

    async def _chunk(self, scan: Scan, plan: RowPlan, end_ms: int) -> Scan:
        limit, repair = self._context.pace.chunk_rows, scan.kind != "request"
        source = self._context.source

        async def question() -> RowsPage:
            if scan.kind == "modified":
                to_ms = scan.begun_ms + _AHEAD_MS
                return await source.modified(plan, scan.from_ms, to_ms, scan.cursor, limit=limit, repair=repair)
            return await source.scan(plan, scan.cursor, where=scan.where, limit=limit, repair=repair)

        reading = await self._asking.rows_after(end_ms, question)
        page = reading.page
        moved = replace(scan, cursor=page.cursor)
        return await self._hand_over(scan, moved, page.rows, page, reading.mark, last=page.cursor is None)

    async def _bulk_chunks(self, scan: Scan, plan: RowPlan, bulk: str) -> Scan:
        chunk_rows = self._context.pace.chunk_rows
        source = self._context.source
        try:
            page = await self._asking.ask(
                lambda: source.bulk_page(plan, bulk, scan.cursor, limit=_BULK_CHUNKS * chunk_rows)
            )
        except QueryRefusedError as error:
            failures = scan.bulk_failures + 1
            self._context.observer.api_call_failed("bulk", error, 0.0)
            return await self._told(replace(scan.object_again(), bulk_failures=failures))
        while True:
            rows = page.rows[scan.skip : scan.skip + chunk_rows]
            of_page = scan.skip + len(rows)
            ends_page = of_page >= len(page.rows)
            last = ends_page and page.cursor is None
            moved = replace(scan, skip=0, cursor=page.cursor) if ends_page else replace(scan, skip=of_page)
            # The mark is taken before the states are looked at: whatever moves them later is under its protection.
            mark = self._context.reads.begin_read()
            moving = {row.record_id for row in rows if self._moved_since(scan, row)}
            kept = [row for row in rows if row.record_id not in moving]
            try:
                await self._read_again(scan, plan, sorted(moving))
            except BaseException:
                self._context.reads.end_read(mark)
                raise
            scan = await self._hand_over(scan, moved, kept, page, mark, last=last, read=len(rows), seen=rows)
            if ends_page:
                break
        if last:
            await self._context.inbox.settled()
            await self._bulk_end(bulk)
        return scan

    def _moved_since(self, scan: Scan, row: Row) -> bool:
        state = self._context.store.get((scan.entity, row.record_id))
        if state is not None and moved_since(state, scan.bulk_ms):
            return True
        return ended_just_before(scan.entity, row, scan.bulk_ms, self._context.pace.refresh_after)

    async def _read_again(self, scan: Scan, plan: RowPlan, record_ids: Sequence[str]) -> None:
        """Read by id what moved since the Bulk job was made: its rows may be older than images, or the org."""
        for start in range(0, len(record_ids), IDS_A_READ):
            await self._by_id(scan, plan, record_ids[start : start + IDS_A_READ], 0, (scan.progress(),))

    async def _bulk_end(self, bulk: str) -> None:
        try:
            await self._asking.ask(lambda: self._context.source.bulk_end(bulk))
        except QueryRefusedError as error:
            self._context.observer.api_call_failed("bulk", error, 0.0)

    async def _hand_over(
        self,
        scan: Scan,
        moved: Scan,
        rows: Sequence[Row],
        page: RowsPage,
        mark: int,
        *,
        last: bool,
        read: int | None = None,
        seen: Sequence[Row] | None = None,
    ) -> Scan:
        """Hand a chunk over; returns the scan that follows it.

        Args:
            scan: before the chunk.
            moved: after the chunk, but for its counts and phase.
            rows: what is handed over.
            page: the answer they are of.
            mark: of the request.
            last: whether it is the object's last chunk.
            read: how many rows the chunk had, if more than are handed over.
            seen: the chunk's rows, if more than are handed over.
        """
        context = self._context
        if scan.finds_deletes and scan.kind != "modified":
            there = rows if seen is None else seen
            context.store.see(scan.entity, [row.record_id for row in there], scan.seen_as)
        moved = replace(moved, rows=scan.rows + (len(rows) if read is None else read), chunk=scan.chunk + 1)
        told = moved
        if last:
            moved = replace(moved, phase="deletes", cursor=None, bulk=None)
            moved = moved if moved.finds_deletes else moved.after_object(context.entities())
        await context.inbox.put(
            RowsRead(
                scan.purpose,
                scan.entity,
                tuple(rows),
                page.answered_ms,
                mark,
                window_ids=scan.windows,
                job_id=scan.job,
                last=last,
                progress=(moved.progress(),),
            )
        )
        context.observer.scanning(scan.job, scan.entity, told.rows, scan.total)
        if last and not scan.finds_deletes:
            self._tell_scanned(told)
        return moved

    # Deletes

    async def _unseen(self, scan: Scan, plan: RowPlan, end_ms: int) -> Scan:
        """Read by id what is known and was not seen: it is gone, or newer than the chunk it belongs to."""
        unseen = self._context.store.unseen(scan.entity, scan.seen_as, scan.after, IDS_A_READ)
        if not unseen:
            return await self._object_done(scan)
        moved = replace(scan, after=unseen[-1])
        await self._by_id(scan, plan, unseen, end_ms, (moved.progress(),))
        return moved

    async def _logged_deletes(self, scan: Scan, plan: RowPlan, end_ms: int) -> Scan:
        """Read by id what the delete log names and is not known to be gone."""
        source, context = self._context.source, self._context
        log = await self._asking.ask(lambda: source.deleted_ids(scan.entity, scan.from_ms, context.now_ms()))
        if log.earliest_ms > scan.from_ms:
            return await self._told(replace(scan.again(context.now_ms(), context.store.generation), kind="all"))
        if log.covered_to_ms < end_ms:
            await context.sleep(RESPITE_S)
            return scan
        states = {each: context.store.get((scan.entity, each)) for each in log.ids}
        alive = [each for each, state in states.items() if state is not None and not state.deleted]
        for start in range(0, len(alive), IDS_A_READ):
            await self._by_id(scan, plan, alive[start : start + IDS_A_READ], end_ms, (scan.progress(),))
        return await self._object_done(scan)

    async def _object_done(self, scan: Scan) -> Scan:
        self._tell_scanned(scan)
        return await self._told(scan.after_object(self._context.entities()))

    def _tell_scanned(self, scan: Scan) -> None:
        seconds = (self._context.now_ms() - scan.begun_ms) / 1000
        self._context.observer.scanned(scan.job, scan.entity, scan.rows, seconds)

    async def _by_id(
        self, scan: Scan, plan: RowPlan, record_ids: Sequence[str], end_ms: int, progress: tuple[Progress, ...]
    ) -> None:
        source = self._context.source
        reading = await self._asking.rows_after(
            end_ms, lambda: source.rows_by_id(plan, record_ids, repair=scan.kind != "request")
        )
        await self._context.inbox.put(
            RowsRead(
                scan.purpose,
                scan.entity,
                tuple(reading.page.rows),
                reading.page.answered_ms,
                reading.mark,
                missing=reading.page.missing,
                window_ids=scan.windows,
                job_id=scan.job,
                progress=progress,
            )
        )


def ended_just_before(entity: str, row: Row, since_ms: int, refresh_after_ms: int) -> bool:
    """Return whether a row of a Bulk job may lack what the platform computes after a session's end.

    No event tells of that, and by its answer's time the row passes for one that was read long after the end.
    """
    ended = entity == refresh.SESSION and row.values.get("Status") == refresh.ENDED
    return ended and row.stamp_ms + refresh_after_ms > since_ms


def moved_since(state: RecordState, since_ms: int) -> bool:
    """Return whether a record's image may be newer than a row read some time after ``since_ms``.

    A stale one counts: what made it so can be newer than the row, which would pass for its repair.
    """
    if state.deleted or state.stale:
        return True
    moved_ms = 0 if state.source is None else state.source.commit_ms
    return moved_ms >= since_ms - _BULK_MARGIN_MS or (state.row_read_ms or 0) >= since_ms
