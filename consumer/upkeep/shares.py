"""Reads share rows: of records whose owner changed, those modified lately, and all of them now and then.

The three take turns in one task, so that answers are handed over in the order of their questions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from consumer.errors import QueryRefusedError
from consumer.pages import SharesPage
from consumer.tracking.access import ShareCause, ShareRow
from consumer.tracking.arrivals import Closed, Progress, RecordShares, SharesRead
from consumer.tracking.sharing import SHARES_POLL, SWEEP_WANTED, SWEPT
from consumer.upkeep.asking import IDS_A_READ, RESPITE_S, Asking, Refusals, paced, wait
from consumer.upkeep.context import Context, SharingPace
from consumer.upkeep.grantees import Grantees
from consumer.upkeep.recalculation import Recalculations
from consumer.upkeep.scope import count
from consumer.upkeep.share_budget import ShareBudget
from consumer.upkeep.sweep_state import ORG_DEFAULT, SWEEP, Sweep
from consumer.upkeep.sweeping import Sweeping, pieces, whole_records

_TURN_S: Final = 2.0
"""Longest rest between two looks at what is due, seconds."""

_AHEAD_MS: Final = 60_000
"""How far behind the org's clock ours may be without a poll missing the newest rows."""

_OWED_A_TURN: Final = 5 * IDS_A_READ
"""Records that are owed a read and read in one turn: polls and sweeps go on beside a backlog of them."""

_CYCLE_MS: Final = 10_000
"""Records whose owner changed are read together, so often at most."""


class SharesJob:
    """Keeps the known shares of a channel's objects up to date.

    Args:
        context: what the job works with.
        pace: how often and how far.
    """

    def __init__(self, context: Context, pace: SharingPace) -> None:
        self._context = context
        self._pace = pace
        self._asking = Asking(context, "shares")
        self._refusals = Refusals(context)
        self._grantees = Grantees(context, self._asking, self._refusals)
        self._sweeping = Sweeping(context, self._asking, self._grantees, self._refusals)
        self._recalculations = Recalculations(context)
        self._budget = ShareBudget(context, pace)
        self._sweeps: dict[str, Sweep] = {}
        self._due_ms: dict[tuple[str, str], float] = {}

    async def run(self) -> None:
        """Run until cancelled; a backlog of the stream goes first."""
        await self._context.caught_up()
        while True:
            self._context.changed.clear()
            worked = False
            for entity in self._entities():
                worked |= await self._turn(entity)
            if not worked:
                await wait(self._context, _TURN_S)

    def _entities(self) -> list[str]:
        context = self._context
        shared = []
        for entity in context.entities():
            facts = context.facts(entity)
            if entity in self._pace.objects and facts is not None and facts.has_shares:
                shared.append(entity)
        return shared

    async def _turn(self, entity: str) -> bool:
        """Do what is due for an object; returns whether anything was."""
        if self._refusals.barred("shares", entity):
            return False
        try:
            worked = await self._owed(entity)
            worked |= await self._poll(entity)
            worked |= await self._sweep(entity)
        except QueryRefusedError as error:
            self._refusals.note("shares", entity, error)
            return False
        if worked:
            self._refusals.answered("shares", entity)
        return worked

    def _is_due(self, what: str, entity: str, every_ms: float) -> bool:
        """Return whether it is time for something, and take note that it is done now."""
        now_ms = self._context.now_ms()
        if now_ms < self._due_ms.get((what, entity), 0.0):
            return False
        self._due_ms[what, entity] = now_ms + every_ms
        return True

    # Records whose owner changed, and those with a row that was missed

    async def _owed(self, entity: str) -> bool:
        context = self._context
        if not self._is_due("owed", entity, min(_CYCLE_MS, self._pace.settle / 2) * self._budget.stretch):
            return False
        await context.inbox.settled()
        due = [each for _, each in context.store.due_shares(entity, context.now_ms(), _OWED_A_TURN)]
        for start in range(0, len(due), IDS_A_READ):
            ids = due[start : start + IDS_A_READ]
            page = await self._asking.ask(lambda ids=ids: context.source.shares_of(entity, ids, repair=False))  # type: ignore[misc]
            await self._hand_over(entity, whole_records(ids, page.rows), page, whole=True, cause=None)
            sweep = self._sweeps.get(entity)
            if sweep is not None:
                # What is read as a whole meanwhile need not be read by the sweep again, which might never end else.
                context.store.see(entity, ids, sweep.seen_as)
        if len(due) == _OWED_A_TURN:
            self._due_ms.pop(("owed", entity))  # the rest comes at once, but polls and sweeps have their turn first
        return bool(due)

    async def _hand_over(
        self,
        entity: str,
        records: Iterable[RecordShares],
        page: SharesPage,
        *,
        whole: bool,
        cause: ShareCause | None,
        polled_ms: int | None = None,
        progress: tuple[Progress, ...] = (),
    ) -> None:
        grantees = await self._grantees.of(entity, (row.user_or_group_id for row in page.rows))
        read = SharesRead(
            entity,
            tuple(records),
            whole=whole,
            cause=cause,
            asked_ms=page.asked_ms,
            answered_ms=page.answered_ms,
            grantees=grantees,
            polled_ms=polled_ms,
            progress=progress,
        )
        for piece in pieces(read):
            await self._context.inbox.put(piece)

    # Rows that were modified lately

    async def _poll(self, entity: str) -> bool:
        context, pace = self._context, self._pace
        if self._refusals.barred("modified shares", entity):
            return False
        if not self._is_due("poll", entity, paced(context, pace.poll) * 1000 * self._budget.stretch):
            return False
        state = context.progress.get(SHARES_POLL + entity)
        now_ms = context.now_ms()
        watermark_ms = _second(now_ms - pace.settle) if state is None else count(state, "complete_to_ms")
        try:
            judged_ms = watermark_ms if state is None else count(state, "judged_to_ms") or watermark_ms
            judged_ms = max(judged_ms, self._swept_from_ms(entity, now_ms))
            await self._read_modified(entity, watermark_ms, judged_ms, max(now_ms + _AHEAD_MS, watermark_ms))
        except QueryRefusedError as error:
            self._refusals.note("modified shares", entity, error)
            return False
        self._refusals.answered("modified shares", entity)
        return True

    def _swept_from_ms(self, entity: str, now_ms: int) -> int:
        """Return when the newest sweep began, which reads what a recalculation did before; the first is to come."""
        for name in (SWEEP, SWEPT):
            sweep = self._context.progress.get(name + entity)
            if sweep is not None:
                return count(sweep, "begun_ms")
        return now_ms

    async def _read_modified(self, entity: str, watermark_ms: int, judged_ms: int, to_ms: int) -> None:
        """Read up to now, though only what has settled counts as read: a row that is modified moves to its new second.

        So whatever is there when this asks is seen by it, and what it does not see came later. Of what has settled,
        rows are looked at for recalculations from ``judged_ms`` on.
        """
        source, from_ms = self._context.source, watermark_ms - self._pace.overlap
        asked_ms = until_ms = 0
        cursor, recalculated = None, False
        while True:
            page = await self._asking.ask(
                lambda cursor=cursor: source.shares_modified(entity, from_ms, to_ms, cursor)  # type: ignore[misc]
            )
            if cursor is None:
                asked_ms = page.asked_ms
                complete_ms = max(_second(asked_ms - self._pace.settle), watermark_ms)
                until_ms = max(self._recalculations.told_apart_to(complete_ms), judged_ms)
            recalculated |= self._recalculations.shown_by(entity, page.rows, judged_ms, until_ms)
            cursor = page.cursor
            if cursor is None:
                break
            await self._hand_over(entity, _by_record(page.rows), page, whole=False, cause=ShareCause.INCREMENTAL)
        reached = {"complete_to_ms": complete_ms, "judged_to_ms": until_ms}
        progress = [Progress(SHARES_POLL + entity, reached)]
        if recalculated:
            progress.append(self._recalculations.wish(entity))
        await self._hand_over(
            entity,
            _by_record(page.rows),
            page,
            whole=False,
            cause=ShareCause.INCREMENTAL,
            polled_ms=asked_ms,
            progress=tuple(progress),
        )

    # All rows

    async def _sweep(self, entity: str) -> bool:
        """Go on with a sweep, or begin one that is due."""
        sweep = self._sweeps.get(entity) or await self._begun(entity)
        began_ms = self._context.now_ms()
        if sweep is None or not self._is_due("chunk", entity, 0.0):
            return False
        began_rows, began_calls = sweep.rows, self._context.source.sharing_calls
        try:
            moved = await self._sweeping.step(sweep)
        except QueryRefusedError as error:
            del self._sweeps[entity]
            self._refusals.note("sweep of shares", entity, error)
            self._due_ms["sweep", entity] = self._context.now_ms() + RESPITE_S * 1000
            return False
        worked_ms = self._context.now_ms() - began_ms
        self._due_ms["chunk", entity] = self._context.now_ms() + self._budget.chunk_rest_ms(sweep, worked_ms)
        self._refusals.answered("sweep of shares", entity)
        self._budget.swept(self._context.source.sharing_calls - began_calls)
        observer = self._context.observer
        if moved is None:
            del self._sweeps[entity]
            observer.swept(entity, sweep.rows, sweep.begun_ms, self._context.now_ms())
        else:
            self._sweeps[entity] = moved
            observer.sweeping(entity, moved.rows, moved.total, max(0, moved.rows - began_rows))
        return True

    async def _begun(self, entity: str) -> Sweep | None:
        """Return the sweep to go on with: one that a restart interrupted, one that is due, or None."""
        context = self._context
        if self._refusals.barred("sweep of shares", entity):
            return None
        running = context.progress.get(SWEEP + entity)
        if running is not None:
            self._sweeps[entity] = Sweep.read(running)
            return self._sweeps[entity]
        if not self._is_due("sweep", entity, RESPITE_S * 1000):
            return None
        cause = self._wanted(entity)
        if cause is None:
            return None
        await self._note_org_default(entity)
        wish = context.progress.get(SWEEP_WANTED + entity)
        sweep = await self._sweeping.begin(Sweep(entity, cause, context.now_ms(), context.store.generation))
        if wish is not None:
            fulfilled = Progress(SWEEP_WANTED + entity, done=True)
            await context.inbox.put(Closed(entity, context.now_ms(), progress=(fulfilled,)))
        await context.inbox.settled()
        self._sweeps[entity] = sweep
        return sweep

    def _wanted(self, entity: str) -> ShareCause | None:
        """Return why a sweep is due now, None if none is."""
        context = self._context
        last = context.progress.get(SWEPT + entity)
        if last is None:
            return ShareCause.BASELINE
        now_ms = context.now_ms()
        since_ms = now_ms - count(last, "begun_ms")
        if self._recalculations.wants(entity) and since_ms >= self._budget.least_between_ms():
            return ShareCause.RULE_CHANGE
        return ShareCause.SWEEP if since_ms >= self._budget.between_ms() else None

    async def _note_org_default(self, entity: str) -> None:
        """Keep the org-wide default, which the share rows do not tell, where `timeline` finds it."""
        context = self._context
        try:
            default = await self._asking.ask(lambda: context.source.org_default(entity))
        except QueryRefusedError as error:
            self._refusals.tell("org-wide default", entity, error)
            return
        state = {"internal": default.internal, "external": default.external, "as_of_ms": context.now_ms()}
        await context.inbox.put(Closed(entity, context.now_ms(), progress=(Progress(ORG_DEFAULT + entity, state),)))


def _by_record(rows: Iterable[ShareRow]) -> list[RecordShares]:
    found: dict[str, list[ShareRow]] = {}
    for row in rows:
        found.setdefault(row.record_id, []).append(row)
    return [RecordShares(record_id, tuple(some)) for record_id, some in found.items()]


def _second(ms: int) -> int:
    return ms // 1000 * 1000
