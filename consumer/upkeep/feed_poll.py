"""Reads feed items: from some time before the first start on, in spans, then as they come.

Progress moves at the end of a span only; what was told of it before stands in the ledger, so that a span that is read
again after a kill tells nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from consumer.errors import QueryRefusedError
from consumer.events import Json
from consumer.pages import DeletedIds, FeedPage
from consumer.tracking.arrivals import FeedRead, Progress
from consumer.tracking.feed import FEED_POLL
from consumer.tracking.feed_values import FeedItem
from consumer.upkeep.asking import HOUR_MS, IDS_A_READ, RESPITE_S, Asking, Refusals, asked_before_ms, paced
from consumer.upkeep.context import Context, FeedPace
from consumer.upkeep.scope import BOUNDED_MS, count

_STEP_MS: Final = 24 * HOUR_MS
"""One span of the past: its items wait in the ledger until it is read."""


class FeedJob:
    """Polls the feeds of a channel's objects.

    Args:
        context: what the job works with.
        pace: how often and how far.
    """

    def __init__(self, context: Context, pace: FeedPace) -> None:
        self._context = context
        self._pace = pace
        self._asking = Asking(context, "feed")
        self._refusals = Refusals(context)
        self._began_ms = _second(context.now_ms())
        self._due_ms: dict[str, float] = {}

    async def run(self) -> None:
        """Run until cancelled; a backlog of the stream goes first."""
        await self._context.caught_up()
        while True:
            behind = False
            for entity in self._context.entities():
                behind |= await self._turn(entity)
            if not behind:
                await self._context.sleep(min(RESPITE_S, self._pace.poll / 1000))

    async def _turn(self, entity: str) -> bool:
        """Read the next span of an object if it is due; returns whether there is more to be read at once."""
        context, facts = self._context, self._context.facts(entity)
        if entity not in self._pace.objects or facts is None or not facts.has_feed:
            return False
        if context.now_ms() < self._due_ms.get(entity, 0.0) or self._refusals.barred("feed", entity):
            return False
        try:
            behind = await self._span(entity, self._state(entity))
        except QueryRefusedError as error:
            self._refusals.note("feed", entity, error)
            return False
        self._refusals.answered("feed", entity)
        every_ms = 0.0 if behind else paced(context, self._pace.poll) * 1000
        self._due_ms[entity] = context.now_ms() + every_ms
        return behind

    def _state(self, entity: str) -> dict[str, Json]:
        """Return how far the polls got: ``complete_to_ms``, ``deleted_to_ms``, and ``began_ms`` of the first start."""
        known: Mapping[str, Json] | None = self._context.progress.get(FEED_POLL + entity)
        if known is not None:
            return dict(known)
        floor_ms = max(0, self._began_ms - self._pace.backfill)
        return {"began_ms": self._began_ms, "complete_to_ms": floor_ms, "deleted_to_ms": self._began_ms}

    async def _span(self, entity: str, state: dict[str, Json]) -> bool:
        context, pace = self._context, self._pace
        watermark_ms, began_ms = count(state, "complete_to_ms"), count(state, "began_ms")
        now_to_ms = _second(context.now_ms() - pace.settle)
        to_ms = min(now_to_ms, max(watermark_ms, watermark_ms + _STEP_MS))
        from_ms = watermark_ms - pace.overlap if context.progress.get(FEED_POLL + entity) else watermark_ms
        if to_ms <= watermark_ms:
            return False
        cursor: str | None = None
        complete_ms = to_ms
        while True:
            page = await self._page(entity, from_ms, to_ms, cursor)
            complete_ms = min(complete_ms, _second(asked_before_ms(page.answered_ms) - pace.settle))
            cursor = page.cursor
            if cursor is None:
                break
            await self._hand_over(entity, page, began_ms)
        removed, deleted_to_ms = await self._deleted(entity, count(state, "deleted_to_ms"), complete_ms)
        # What is told is remembered as far back as the delete log is asked, should that be behind.
        complete_ms = max(min(complete_ms, deleted_to_ms), watermark_ms)
        moved = {"began_ms": began_ms, "complete_to_ms": complete_ms, "deleted_to_ms": deleted_to_ms}
        last = replace(page, items=(*page.items, *removed))
        await self._hand_over(entity, last, began_ms, complete_ms, (Progress(FEED_POLL + entity, moved),))
        await context.inbox.settled()
        return to_ms < now_to_ms

    async def _page(self, entity: str, from_ms: int, to_ms: int, cursor: str | None) -> FeedPage:
        source = self._context.source
        return await self._asking.ask(lambda: source.feed(entity, from_ms, to_ms, cursor))

    async def _hand_over(
        self,
        entity: str,
        page: FeedPage,
        began_ms: int,
        complete_to_ms: int | None = None,
        progress: tuple[Progress, ...] = (),
    ) -> None:
        """Hand items over, those of before the first start apart."""
        past = tuple(item for item in page.items if item.stamp_ms < began_ms)
        present = tuple(item for item in page.items if item.stamp_ms >= began_ms)
        if past:
            await self._context.inbox.put(FeedRead(entity, past, None, page.answered_ms, backfill=True))
        if present or complete_to_ms is not None:
            await self._context.inbox.put(
                FeedRead(entity, present, complete_to_ms, page.answered_ms, progress=progress)
            )

    # Items that no query returns any more

    async def _deleted(self, entity: str, from_ms: int, to_ms: int) -> tuple[list[FeedItem], int]:
        """Return the items that the delete log has since a time, and up to when it was read."""
        if to_ms <= from_ms:
            return [], from_ms
        source = self._context.source
        start_ms = max(from_ms - self._pace.overlap, to_ms - BOUNDED_MS)
        try:
            log = await self._asking.ask(lambda: source.deleted_feed_items(entity, start_ms, to_ms))
        except QueryRefusedError as error:
            self._refusals.tell("deleted feed items", entity, error)
            return [], to_ms
        items: list[FeedItem] = []
        # The log ignores seconds, and names what was removed before the question's time too.
        ids = sorted(each for each, deleted_ms in log.ids.items() if deleted_ms >= start_ms)
        for begin in range(0, len(ids), IDS_A_READ):
            items += await self._by_id(entity, ids[begin : begin + IDS_A_READ], log)
        return items, max(from_ms, min(to_ms, log.covered_to_ms))

    async def _by_id(self, entity: str, ids: list[str], log: DeletedIds) -> list[FeedItem]:
        source = self._context.source
        page = await self._asking.ask(lambda: source.feed_items(entity, ids))
        found = {item.item_id: item for item in page.items}
        # One that was undeleted meanwhile is there again, and an earlier log entry says nothing of it.
        there = [item for item in page.items if item.deleted]
        gone = [FeedItem(each, None, None, None, log.ids[each], deleted=True, values={}) for each in ids]
        return [*there, *(item for item in gone if item.item_id not in found)]


def _second(ms: int) -> int:
    return ms // 1000 * 1000
