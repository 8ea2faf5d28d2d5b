"""Repair of loss windows that name their records: each is read again by id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from consumer.changes.rows import RowPlan
from consumer.errors import QueryRefusedError
from consumer.events import LossWindow
from consumer.tracking.arrivals import Closed, Closing, Progress, Purpose, RowsRead
from consumer.upkeep.asking import IDS_A_READ, RESPITE_S, Asking, Reading, Refusals, wait
from consumer.upkeep.context import Context
from consumer.upkeep.scope import closing_of, count, end_of, entity_of_ids

REPAIR: Final = "repair:"
"""Name of a repair's progress, before the window's id."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The next ids of one window that a read takes along.

    Attributes:
        window: the window.
        done: how many of its ids were read before.
        take: how many of them this read asks for.
    """

    window: LossWindow
    done: int
    take: int

    @property
    def record_ids(self) -> tuple[str, ...]:
        """The ids asked for."""
        return self.window.record_ids[self.done : self.done + self.take]

    @property
    def completes(self) -> bool:
        """Whether every id of the window is read then."""
        return self.done + self.take == len(self.window.record_ids)


class RepairJob:
    """Reads the records of open windows again, up to 200 of several windows at once, and closes the windows.

    How many of a window's ids are read is kept as progress, so that neither a restart nor the wait for history reads
    them twice. A window stays open until the history poll has passed its end, if history is tracked.

    Args:
        context: what the job works with.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._asking = Asking(context, "repair")
        self._refusals = Refusals(context)
        self._closed: set[str] = set()
        self._swept: set[str] = set()
        self._begun_ms: dict[str, int] = {}

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            self._context.changed.clear()
            windows = self._open()
            work = self._work(windows)
            closings, entity = self._closings(windows)
            leftovers = self._leftovers()
            if work is not None:
                await self._read(*work)
            elif closings or leftovers:
                await self._settle(entity, closings, leftovers)
            else:
                await wait(self._context, self._respite_s(windows))

    def _respite_s(self, windows: Iterable[LossWindow]) -> float:
        """Return how long to wait at most: until a window ends, or is likely to be closed."""
        now_ms = self._context.now_ms()
        ends = [RESPITE_S if end_of(each) < now_ms else (end_of(each) - now_ms + 1) / 1000 for each in windows]
        return max(0.05, min(ends, default=60.0))

    def _open(self) -> list[LossWindow]:
        """Return the windows that are this job's, oldest first."""
        windows = self._context.windows()
        self._closed &= windows.keys()
        mine = [each for each in windows.values() if each.record_ids and each.window_id not in self._closed]
        return sorted(mine, key=lambda each: (end_of(each), each.window_id))

    def _done(self, window: LossWindow) -> int:
        state = self._context.progress.get(REPAIR + window.window_id, {})
        return count(state, "done") if count(state, "of") == len(window.record_ids) else 0

    def _entity(self, window: LossWindow) -> str | None:
        entity = window.entity or entity_of_ids(self._context, window.record_ids)
        if entity is None:
            error = QueryRefusedError(
                f"The records of loss window {window.window_id} can't be told to be of an object",
                "The window stays open until a record with the same key prefix has been seen.",
            )
            self._refusals.tell(f"window {window.window_id}", "", error)
        return entity

    def _work(self, windows: Iterable[LossWindow]) -> tuple[str, RowPlan, list[_Part]] | None:
        """Return the next read: an object, how it is read, and which ids of which windows."""
        chosen: tuple[str, RowPlan] | None = None
        parts: list[_Part] = []
        room = IDS_A_READ
        for window in windows:
            done = self._done(window)
            if done == len(window.record_ids) or end_of(window) >= self._context.now_ms():
                continue
            entity = self._entity(window)
            plan = None if entity is None or self._refusals.barred("repair", entity) else self._context.plan(entity)
            if entity is None or plan is None or (chosen is not None and chosen[0] != entity):
                continue
            chosen = (entity, plan)
            parts.append(_Part(window, done, min(room, len(window.record_ids) - done)))
            room -= parts[-1].take
            if room == 0:
                break
        return None if chosen is None else (*chosen, parts)

    async def _read(self, entity: str, plan: RowPlan, parts: list[_Part]) -> None:
        record_ids = tuple(dict.fromkeys(each for part in parts for each in part.record_ids))
        for part in parts:
            self._begun_ms.setdefault(part.window.window_id, self._context.now_ms())
        source = self._context.source
        try:
            reading = await self._asking.rows_after(
                max(end_of(part.window) for part in parts),
                lambda: source.rows_by_id(plan, record_ids, repair=True),
            )
        except QueryRefusedError as error:
            self._refusals.note("repair", entity, error)
            return
        self._refusals.answered("repair", entity)
        await self._hand_over(entity, parts, reading)

    async def _hand_over(self, entity: str, parts: list[_Part], reading: Reading) -> None:
        closings: list[Closing] = []
        progress: list[Progress] = []
        for part in parts:
            name = REPAIR + part.window.window_id
            before = self._context.progress.get(name, {})
            closing = None
            if part.completes:
                closing = self._closing(part.window, entity, count(before, "repaired"))
            if closing is None:
                progress.append(Progress(name, self._state(part, before)))
            else:
                closings.append(closing)
                if before:
                    progress.append(Progress(name, done=True))
        page = reading.page
        self._closed.update(each.window_id for each in closings)
        await self._context.inbox.put(
            RowsRead(
                Purpose.REPAIR,
                entity,
                tuple(page.rows),
                page.answered_ms,
                reading.mark,
                missing=page.missing,
                window_ids=tuple(part.window.window_id for part in parts),
                progress=tuple(progress),
                closings=tuple(closings),
            )
        )
        await self._context.inbox.settled()

    def _state(self, part: _Part, before: Mapping[str, object]) -> dict[str, object]:
        return {
            "done": part.done + part.take,
            "of": len(part.window.record_ids),
            "repaired": count(before, "repaired"),
            "begun_ms": count(before, "begun_ms") or self._begun_ms[part.window.window_id],
        }

    def _closing(self, window: LossWindow, entity: str, repaired: int) -> Closing | None:
        state = self._context.progress.get(REPAIR + window.window_id, {})
        begun_ms = count(state, "begun_ms") or self._begun_ms.get(window.window_id, 0)
        return closing_of(self._context, window, (entity,), read_from_ms=begun_ms, repaired=repaired)

    def _closings(self, windows: Iterable[LossWindow]) -> tuple[list[Closing], str]:
        """Return how windows whose records are all read can be closed now, and an object of one of them."""
        closings: list[Closing] = []
        of = ""
        for window in windows:
            if self._done(window) == len(window.record_ids):
                entity = self._entity(window)
                state = self._context.progress.get(REPAIR + window.window_id, {})
                closing = None if entity is None else self._closing(window, entity, count(state, "repaired"))
                if entity is not None and closing is not None:
                    closings.append(closing)
                    of = entity
        return closings, of

    def _leftovers(self) -> list[str]:
        """Return progress of windows that something else has closed."""
        windows = self._context.windows()
        names = {name for name in self._context.progress if name.startswith(REPAIR)}
        self._swept &= names
        return sorted(each for each in names - self._swept if each.removeprefix(REPAIR) not in windows)

    async def _settle(self, entity: str, closings: list[Closing], leftovers: list[str]) -> None:
        names = [REPAIR + each.window_id for each in closings] + leftovers
        self._closed.update(each.window_id for each in closings)
        self._swept.update(names)
        await self._context.inbox.put(
            Closed(
                entity or self._context.entity or "",
                self._context.now_ms(),
                tuple(closings),
                tuple(Progress(name, done=True) for name in names),
            )
        )
        await self._context.inbox.settled()
