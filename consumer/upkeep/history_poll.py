"""Reads Salesforce's own history rows: once backwards at the first start, then as they come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from consumer.errors import QueryRefusedError
from consumer.events import Json
from consumer.pages import HistoryPage
from consumer.tracking.arrivals import HistoryRead, Progress, SettleDue
from consumer.tracking.values import EntityFacts
from consumer.upkeep.asking import HOUR_MS, RESPITE_S, Asking, Refusals, asked_before_ms, paced, wait
from consumer.upkeep.context import Context
from consumer.upkeep.scope import HISTORY_POLL, count, history_is_polled

_BACKFILL_STEP_MS: Final = 30 * 24 * HOUR_MS
"""One question's span: a longer one can run into the org's query timeout."""

_SETTLE_LIMIT: Final = 1000
_OFF_ADVICE: Final = "Turn it on in Setup > Object Manager > Fields & Relationships > Set History Tracking."


class HistoryJob:
    """Polls history objects in windows that overlap the one before and leave the newest seconds out.

    The progress of an object is ``{complete_to_ms, floor_ms}``, and during the back-fill
    ``{backfill_to_ms, at_ms, ids}``: rows before ``at_ms`` are handed over, and of its very second those in ``ids``.

    Args:
        context: what the job works with.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._asking = Asking(context, "history")
        self._refusals = Refusals(context)
        self._began_ms = _second(context.now_ms())
        self._due_ms: dict[str, float] = {}

    async def run(self) -> None:
        """Run until cancelled; a backlog of the stream goes first."""
        await self._context.caught_up()
        while True:
            self._context.changed.clear()
            entities = self._context.entities()
            for entity in entities:
                if self._due_ms.get(entity, 0.0) <= self._context.now_ms():
                    respite_s = await self._turn(entity)
                    self._due_ms[entity] = self._context.now_ms() + respite_s * 1000
            now_ms = self._context.now_ms()
            left_s = min(((self._due_ms[each] - now_ms) / 1000 for each in entities), default=60.0)
            if left_s > 0:
                await wait(self._context, left_s)

    async def _turn(self, entity: str) -> float:
        """Do what is due for an object; returns the seconds until its next turn."""
        facts = self._context.facts(entity)
        if facts is None:
            return RESPITE_S
        every_s = paced(self._context, self._context.pace.history_poll)
        if not history_is_polled(facts):
            self._tell_off(facts)
            await self._settle(entity, self._context.now_ms())
            return every_s
        self._refusals.answered("history tracking", entity)
        if self._refusals.barred("history", entity):
            return every_s
        try:
            return await self._go_on(entity, every_s)
        except _CursorGoneError as gone:
            self._context.observer.api_call_failed("history", gone.error, RESPITE_S)
            return RESPITE_S
        except QueryRefusedError as error:
            self._refusals.note("history", entity, error)
            return every_s

    def _tell_off(self, facts: EntityFacts) -> None:
        if facts.has_history:
            error = QueryRefusedError(f"Field history tracking is off for {facts.entity}", _OFF_ADVICE)
            self._refusals.tell("history tracking", facts.entity, error)

    async def _go_on(self, entity: str, every_s: float) -> float:
        state = self._context.progress.get(HISTORY_POLL + entity)
        if state is None or "backfill_to_ms" in state:
            await self._backfill(entity, self._backfilling(state))
            return 0.0
        return await self._poll(entity, state, every_s)

    async def _page(self, entity: str, from_ms: int, to_ms: int, cursor: str | None) -> HistoryPage:
        source = self._context.source
        try:
            return await self._asking.ask(lambda: source.history(entity, from_ms, to_ms, cursor))
        except QueryRefusedError as error:
            if cursor is None:
                raise
            raise _CursorGoneError(error) from error

    # Back-fill

    def _backfilling(self, state: Mapping[str, object] | None) -> dict[str, Json]:
        if state is not None:
            return dict(state)
        at_ms = max(0, _second(self._began_ms - self._context.pace.backfill))
        return {"backfill_to_ms": self._began_ms, "at_ms": at_ms, "ids": []}

    async def _backfill(self, entity: str, state: dict[str, Json]) -> None:
        """Read one span of rows from before the first start, page by page."""
        end_ms, from_ms = int(state["backfill_to_ms"]), int(state["at_ms"])
        to_ms = min(from_ms + _BACKFILL_STEP_MS, end_ms)
        done_ids = frozenset(map(str, state["ids"]))
        at_ms, ids = from_ms, done_ids
        cursor: str | None = None
        while True:
            page = await self._read_or_skip(entity, from_ms, to_ms, cursor)
            cursor = page.cursor
            if cursor is None:
                at_ms, ids = to_ms, frozenset()
            elif page.rows:
                newest_ms = page.rows[-1].created_ms
                same = frozenset(row.history_id for row in page.rows if row.created_ms == newest_ms)
                at_ms, ids = newest_ms, same | (ids if newest_ms == at_ms else frozenset())
            rows = tuple(row for row in page.rows if row.history_id not in done_ids)
            progress = self._backfilled(entity, end_ms, at_ms, sorted(ids))
            read = HistoryRead(entity, rows, None, page.answered_ms, backfill=True, progress=(progress,))
            await self._context.inbox.put(read)
            if cursor is None:
                break
        await self._context.inbox.settled()

    async def _read_or_skip(self, entity: str, from_ms: int, to_ms: int, cursor: str | None) -> HistoryPage:
        if from_ms >= to_ms:
            return HistoryPage((), self._context.now_ms())
        return await self._page(entity, from_ms, to_ms, cursor)

    def _backfilled(self, entity: str, end_ms: int, at_ms: int, ids: list[str]) -> Progress:
        name = HISTORY_POLL + entity
        if at_ms < end_ms:
            return Progress(name, {"backfill_to_ms": end_ms, "at_ms": at_ms, "ids": ids})
        pace = self._context.pace
        floor_ms = end_ms if pace.backfill == 0 else 0
        return Progress(name, {"complete_to_ms": end_ms - pace.history_settle, "floor_ms": floor_ms})

    # Poll

    async def _poll(self, entity: str, state: Mapping[str, object], every_s: float) -> float:
        pace = self._context.pace
        watermark_ms, floor_ms = count(state, "complete_to_ms"), count(state, "floor_ms")
        to_ms = _second(self._context.now_ms() - pace.history_settle)
        from_ms = max(watermark_ms - pace.history_overlap, floor_ms)
        if to_ms <= max(watermark_ms, from_ms):
            return RESPITE_S
        cursor: str | None = None
        complete_ms = to_ms
        while True:
            page = await self._page(entity, from_ms, to_ms, cursor)
            # The org's own clock decides what has settled; ours may be ahead of it.
            complete_ms = min(complete_ms, _second(asked_before_ms(page.answered_ms) - pace.history_settle))
            cursor = page.cursor
            if cursor is None:
                break
            await self._context.inbox.put(HistoryRead(entity, tuple(page.rows), None, page.answered_ms))
        complete_ms = max(complete_ms, watermark_ms)
        progress = Progress(HISTORY_POLL + entity, {"complete_to_ms": complete_ms, "floor_ms": floor_ms})
        await self._context.inbox.put(
            HistoryRead(entity, tuple(page.rows), complete_ms, page.answered_ms, progress=(progress,))
        )
        self._refusals.answered("history", entity)
        await self._settle(entity, complete_ms)
        return every_s

    async def _settle(self, entity: str, complete_to_ms: int) -> None:
        """Have the facts judged that wait longest, for as long as that makes way for others."""
        context = self._context
        before: tuple[str, ...] = ()
        while True:
            await context.inbox.settled()
            ids = tuple(record_id for _, record_id in context.store.unsettled(entity, _SETTLE_LIMIT))
            if not ids or ids == before:
                return
            await context.inbox.put(SettleDue(entity, ids, complete_to_ms, context.now_ms()))
            if len(ids) < _SETTLE_LIMIT:
                return
            before = ids


class _CursorGoneError(Exception):
    """A page's cursor is not valid any more: the window is read again."""

    def __init__(self, error: QueryRefusedError) -> None:
        super().__init__(error.message)
        self.error = error


def _second(ms: int) -> int:
    return ms // 1000 * 1000
