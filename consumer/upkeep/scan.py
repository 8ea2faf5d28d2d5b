"""Scans for loss windows that name no records, and snapshots an operator asks for; which one is next, and its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from consumer.errors import QueryRefusedError
from consumer.events import LossWindow
from consumer.tracking.arrivals import Closed, Closing, Progress, Purpose
from consumer.upkeep.asking import RESPITE_S, Refusals, wait
from consumer.upkeep.context import Context
from consumer.upkeep.scan_reading import ScanReading
from consumer.upkeep.scan_state import SCAN, SNAPSHOT, Scan, job_id
from consumer.upkeep.scope import Scope, closing_of, count, end_of, modified_since, scope_of


class ScanJob:
    """Runs scans one after the other; each serves all windows that are open when it begins.

    Every chunk's progress travels with its rows, so that a scan goes on at its next chunk after a restart. It begins
    again when the store was rebuilt meanwhile, because the store remembers which records were seen.

    Args:
        context: what the job works with.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._refusals = Refusals(context)
        self._reading = ScanReading(context)
        self._scans: dict[str, Scan] = {}
        self._closed: set[str] = set()

    async def run(self) -> None:
        """Run until cancelled."""
        for name, state in self._context.progress.items():
            if name.startswith(SCAN):
                resumed = Scan.read(state)
                self._scans[resumed.job] = resumed
        while True:
            self._context.changed.clear()
            if await self._close():
                continue
            scan = self._active() or await self._begin()
            if scan is not None and await self._step(scan):
                continue
            await wait(self._context, self._respite_s())

    # Which one

    def _active(self) -> Scan | None:
        return next((each for each in self._scans.values() if each.phase != "waiting"), None)

    def _uncovered(self) -> list[LossWindow]:
        """Return the windows that want a scan and have none."""
        windows = self._context.windows()
        self._closed &= windows.keys()
        covered = self._closed.union(*(each.windows for each in self._scans.values()))
        return [each for each in windows.values() if not each.record_ids and each.window_id not in covered]

    async def _begin(self) -> Scan | None:
        """Return a new scan if one is wanted; events the server retains come before the rows that are newer."""
        context = self._context
        wanted = self._uncovered()
        if any(scope_of(each, context.now_ms()) is Scope.ALL for each in wanted):
            await context.caught_up()
            wanted = self._uncovered()
        now_ms = context.now_ms()
        wanted = [each for each in wanted if end_of(each) < now_ms]
        scan = self._for_windows(wanted, now_ms) if wanted else self._for_request(now_ms)
        if scan is None or not scan.left:
            return None
        self._scans[scan.job] = scan
        return scan

    def _for_windows(self, windows: Sequence[LossWindow], now_ms: int) -> Scan:
        everything = any(scope_of(each, now_ms) is Scope.ALL for each in windows)
        entities = self._scope(windows)
        ids = tuple(each.window_id for each in windows)
        first = any(each.reason == "no_snapshot" for each in windows)
        return Scan(
            job=job_id(ids),
            kind="all" if everything else "modified",
            purpose=Purpose.SNAPSHOT if first else Purpose.RESYNC,
            windows=ids,
            entities=entities,
            left=entities,
            channel_wide=any(each.entity is None for each in windows),
            begun_ms=now_ms,
            generation=self._context.store.generation,
            from_ms=0 if everything else min(modified_since(each) or 0 for each in windows),
        )

    def _for_request(self, now_ms: int) -> Scan | None:
        for name, state in sorted(self._context.progress.items()):
            job = name.removeprefix(SNAPSHOT)
            if job == name or job in self._scans:
                continue
            entity, where = state.get("entity"), state.get("where")
            entities = (entity,) if isinstance(entity, str) else self._context.entities()
            return Scan(
                job=job,
                kind="request",
                purpose=Purpose.SNAPSHOT,
                windows=(),
                entities=entities,
                left=entities,
                channel_wide=not isinstance(entity, str),
                begun_ms=now_ms,
                generation=self._context.store.generation,
                where=where if isinstance(where, str) else "",
            )
        return None

    def _scope(self, windows: Sequence[LossWindow]) -> tuple[str, ...]:
        if any(each.entity is None for each in windows):
            return tuple(dict.fromkeys((*(each.entity for each in windows if each.entity), *self._context.entities())))
        return tuple(dict.fromkeys(each.entity for each in windows if each.entity))

    def _open(self, scan: Scan) -> list[LossWindow]:
        windows = self._context.windows()
        return [windows[each] for each in scan.windows if each in windows]

    def _respite_s(self) -> float:
        """Return how long to wait at most: windows that end in the future and waiting scans want a look soon."""
        return RESPITE_S if self._scans or self._uncovered() else 60.0

    # One step

    async def _step(self, scan: Scan) -> bool:
        """Read the next piece of a scan; returns whether there was anything that could be read."""
        context = self._context
        if scan.generation != context.store.generation:
            scan = scan.again(context.now_ms(), context.store.generation)
        ready = self._ready(scan)
        self._scans[scan.job] = scan if ready is None else ready
        if ready is None:
            return False
        end_ms = max((end_of(each) for each in self._open(ready)), default=0)
        try:
            self._scans[ready.job] = await self._reading.step(ready, end_ms)
        except QueryRefusedError as error:
            await self._refused(ready, error)
            return True
        self._refusals.answered("scan", ready.entity)
        return True

    def _ready(self, scan: Scan) -> Scan | None:
        """Return the scan with an object first that can be read now, None if there is none."""
        for _ in scan.left:
            if self._context.plan(scan.entity) is not None and not self._refusals.barred("scan", scan.entity):
                return scan
            scan = scan.rotated()
        return None

    async def _refused(self, scan: Scan, error: QueryRefusedError) -> None:
        if not scan.fresh:
            self._context.observer.api_call_failed("scan", error, RESPITE_S)
            self._scans[scan.job] = scan.object_again()
            await self._context.sleep(RESPITE_S)
        elif scan.where:
            self._refusals.tell(f"snapshot where {scan.where}", scan.entity, error)
            await self._end(scan, (), ())
        else:
            self._refusals.note("scan", scan.entity, error)
            self._scans[scan.job] = scan.rotated()

    # The end

    async def _close(self) -> bool:
        """Close what can be closed of one scan that has read everything; returns whether it did."""
        for scan in self._scans.values():
            if scan.phase != "waiting":
                continue
            windows = self._open(scan)
            closings = [each for each in (self._closing(scan, window) for window in windows) if each is not None]
            if closings or not windows:
                closed = {each.window_id for each in closings}
                left = tuple(each.window_id for each in windows if each.window_id not in closed)
                await self._end(scan, closings, left)
                return True
        return False

    def _closing(self, scan: Scan, window: LossWindow) -> Closing | None:
        entities = scan.entities if window.entity is None else (window.entity,)
        repaired = count(self._context.progress.get(scan.name, {}), "repaired")
        return closing_of(self._context, window, entities, read_from_ms=scan.begun_ms, repaired=repaired)

    async def _end(self, scan: Scan, closings: Sequence[Closing], left: tuple[str, ...]) -> None:
        progress: tuple[Progress, ...]
        if left:
            self._scans[scan.job] = replace(scan, windows=left)
            progress = (self._scans[scan.job].progress(),)
        else:
            del self._scans[scan.job]
            progress = (scan.done(),)
            if scan.kind == "request":
                progress += (Progress(SNAPSHOT + scan.job, done=True),)
        self._closed.update(each.window_id for each in closings)
        entity = scan.entities[0]
        await self._context.inbox.put(Closed(entity, self._context.now_ms(), tuple(closings), progress))
        await self._context.inbox.settled()
