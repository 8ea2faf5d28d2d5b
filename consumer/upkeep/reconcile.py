"""Every hour, what is tracked is compared with what Salesforce has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Final

from consumer.changes.rows import RowPlan
from consumer.errors import QueryRefusedError
from consumer.events import Json
from consumer.pages import RowsPage
from consumer.tracking.arrivals import Closed, Progress, Reconciled
from consumer.tracking.images import same, whole
from consumer.tracking.values import RecordState, Row
from consumer.upkeep.asking import HOUR_MS, RESPITE_S, Asking, Refusals, wait
from consumer.upkeep.context import Context
from consumer.upkeep.scan_state import SNAPSHOT
from consumer.upkeep.scope import count

_RECONCILE: Final = "poll:reconcile:"
_STAMP: Final = "LastModifiedDate"


class ReconcileJob:
    """Compares the rows that changed in each closed hour of the org's time with the tracked images, field by field.

    That waits until the stream has delivered the hour, or what is still to come would count as missing.
    An hour costs one query for 2,000 changed rows and one look at the delete log. Hours are not judged while a window
    over the whole object is open, because its scan answers for them; the first hour is that in which none is open.
    Records that changed again later belong to a later hour: their SystemModstamp has moved there.

    Args:
        context: what the job works with.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._asking = Asking(context, "reconcile")
        self._refusals = Refusals(context)

    async def run(self) -> None:
        """Run until cancelled; returns at once if the settings say so."""
        while self._context.pace.reconcile:
            self._context.changed.clear()
            worked = False
            for entity in self._context.entities():
                worked |= await self._turn(entity)
            if worked:
                await self._context.sleep(max(1.0, self._context.source.pace_factor) - 1.0)
            else:
                await wait(self._context, 60.0)

    async def _turn(self, entity: str) -> bool:
        """Judge the next hour of an object if it is due; returns whether it was."""
        context = self._context
        if (
            context.plan(entity) is None
            or context.facts(entity) is None
            or self._refusals.barred("reconcile", entity)
            or self._in_doubt(entity)
        ):
            return False
        now_ms = context.now_ms()
        state = context.progress.get(_RECONCILE + entity)
        if state is None:
            await self._begin(entity, now_ms)
            return True
        from_ms = count(state, "to_ms")
        if min(now_ms - context.pace.reconcile_after, context.delivered_to()) < from_ms + HOUR_MS:
            return False
        await context.caught_up()
        try:
            await self._judge(entity, from_ms, from_ms + HOUR_MS)
        except QueryRefusedError as error:
            self._refusals.note("reconcile", entity, error)
            return False
        self._refusals.answered("reconcile", entity)
        await context.inbox.settled()
        return True

    def _in_doubt(self, entity: str) -> bool:
        windows = self._context.windows().values()
        return any(not each.record_ids and each.entity in {None, entity} for each in windows)

    async def _begin(self, entity: str, now_ms: int, *more: Progress) -> None:
        progress = Progress(_RECONCILE + entity, {"to_ms": now_ms // HOUR_MS * HOUR_MS})
        await self._context.inbox.put(Closed(entity, now_ms, progress=(progress, *more)))
        await self._context.inbox.settled()

    async def _judge(self, entity: str, from_ms: int, to_ms: int) -> None:
        source, context, plan = self._context.source, self._context, self._context.plan(entity)
        if plan is None:
            return
        log = await self._asking.ask(lambda: source.deleted_ids(entity, from_ms, to_ms))
        if log.earliest_ms > from_ms:
            # The log no longer tells what was deleted in that hour: only a look at everything does.
            request = Progress(f"{SNAPSHOT}reconcile-{entity}-{from_ms}", {"entity": entity, "where": ""})
            await self._begin(entity, context.now_ms(), request)
            context.changed.set()
            return
        if log.covered_to_ms < to_ms:
            await context.sleep(RESPITE_S)
            return
        facts = context.facts(entity)
        derived = frozenset() if facts is None else facts.not_in_events
        seals: list[tuple[str, int]] = []
        differing: dict[str, None] = {}
        cursor: str | None = None
        while True:
            page = await self._page(plan, from_ms, to_ms, cursor)
            for row in page.rows:
                seals.append((row.record_id, _modified_ms(row.values, row.stamp_ms)))
                if not agrees(context.store.get((entity, row.record_id)), row, derived):
                    differing[row.record_id] = None
            cursor = page.cursor
            if cursor is None:
                break
        for record_id, deleted_ms in log.ids.items():
            if not agrees_gone(context.store.get((entity, record_id)), deleted_ms):
                differing[record_id] = None
        progress = Progress(_RECONCILE + entity, {"to_ms": to_ms})
        await context.inbox.put(
            Reconciled(
                entity,
                from_ms,
                to_ms,
                len(seals),
                digest_of(seals),
                tuple(differing),
                page.answered_ms,
                progress=(progress,),
            )
        )

    async def _page(self, plan: RowPlan, from_ms: int, to_ms: int, cursor: str | None) -> RowsPage:
        source = self._context.source
        return await self._asking.ask(lambda: source.modified(plan, from_ms, to_ms, cursor, repair=False))


def digest_of(seals: Iterable[tuple[str, int]]) -> str:
    """Return the hex SHA-256 over ids and LastModifiedDate (epoch milliseconds), in the order of the ids."""
    lines = (f"{record_id}:{modified_ms}\n" for record_id, modified_ms in sorted(seals))
    return sha256("".join(lines).encode()).hexdigest()


def agrees(state: RecordState | None, row: Row, derived: Collection[str] = ()) -> bool:
    """Return whether what is tracked of a record is what a row says, or newer.

    A record under repair is not judged: its window tells of it already.

    Args:
        state: what is tracked.
        row: what Salesforce has.
        derived: fields that no event carries: a difference in them is no loss.
    """
    if row.deleted:
        return agrees_gone(state, row.stamp_ms)
    if state is None:
        return False
    if state.deleted:
        return (state.deleted_ms or 0) > row.stamp_ms
    if state.stale or _newest_ms(state) > row.stamp_ms:
        return True
    image = state.image
    return all(
        same(image[name], whole(value))
        for name, value in row.values.items()
        if name in image and name not in derived and name not in state.incomplete
    )


def agrees_gone(state: RecordState | None, deleted_ms: int) -> bool:
    """Return whether a record that was deleted is known to be gone, was never known, or has come back since."""
    return state is None or state.deleted or state.stale or _newest_ms(state) > deleted_ms


def _newest_ms(state: RecordState) -> int:
    return max(0 if state.source is None else state.source.commit_ms, state.row_stamp_ms or 0)


def _modified_ms(values: Mapping[str, Json], otherwise: int) -> int:
    """Return LastModifiedDate in epoch milliseconds; the field policy can have made it unreadable."""
    text = values.get(_STAMP)
    if not isinstance(text, str):
        return otherwise
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        return otherwise
