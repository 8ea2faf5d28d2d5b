"""Reads that are owed to records: sessions that have ended, and records of which something is not known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from consumer.changes.rows import RowPlan
from consumer.errors import QueryRefusedError
from consumer.tracking.arrivals import MetricsRead, Purpose, RowsRead
from consumer.upkeep.asking import IDS_A_READ, RESPITE_S, Asking, Refusals
from consumer.upkeep.context import Context

_AGAIN_MS: Final = 30_000
"""A record that is still due after its answer was taken in is not asked for at once: nothing would be gained."""


class RefreshJob:
    """Reads due records by id, the metrics of ended sessions before their rows (see ``tracking.refresh``).

    Args:
        context: what the job works with.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._asking = Asking(context, "refresh")
        self._refusals = Refusals(context)
        self._asked_ms: dict[tuple[str, str], int] = {}

    async def run(self) -> None:
        """Run until cancelled; a backlog of the stream goes first."""
        await self._context.caught_up()
        while True:
            full = False
            for entity in self._context.entities():
                full |= await self._refresh(entity) == IDS_A_READ
            if not full:
                await self._context.sleep(RESPITE_S * max(1.0, self._context.source.pace_factor))

    async def _refresh(self, entity: str) -> int:
        """Read what is due of an object; returns how many records were."""
        context = self._context
        now_ms = context.now_ms()
        self._asked_ms = {key: ms for key, ms in self._asked_ms.items() if now_ms - ms < _AGAIN_MS}
        plan = context.plan(entity)
        if plan is None or self._refusals.barred("refresh", entity):
            return 0
        due = context.store.due_refreshes(entity, now_ms, IDS_A_READ)
        keys = [key for key in due if key not in self._asked_ms]
        if not keys:
            return 0
        try:
            await self._read(entity, plan, [record_id for _, record_id in keys])
        except QueryRefusedError as error:
            self._refusals.note("refresh", entity, error)
            return 0
        self._refusals.answered("refresh", entity)
        self._asked_ms.update(dict.fromkeys(keys, context.now_ms()))
        await context.inbox.settled()
        return len(keys)

    async def _read(self, entity: str, plan: RowPlan, record_ids: Sequence[str]) -> None:
        context = self._context
        facts = context.facts(entity)
        ended = [each for each in record_ids if self._has_ended(entity, each)]
        if ended and facts is not None and facts.has_metrics:
            await self._read_metrics(entity, ended)
        source = context.source
        reading = await self._asking.rows(lambda: source.rows_by_id(plan, record_ids, repair=False))
        page = reading.page
        await context.inbox.put(
            RowsRead(Purpose.REFRESH, entity, tuple(page.rows), page.answered_ms, reading.mark, missing=page.missing)
        )

    def _has_ended(self, entity: str, record_id: str) -> bool:
        entry = self._context.store.ledger((entity, record_id))
        return entry is not None and entry.refresh is not None and entry.refresh.reason == "ended"

    async def _read_metrics(self, entity: str, record_ids: Sequence[str]) -> None:
        try:
            metrics, answered_ms = await self._asking.ask(lambda: self._context.source.metrics(record_ids))
        except QueryRefusedError as error:
            self._refusals.tell("metrics", entity, error)
            return
        self._refusals.answered("metrics", entity)
        await self._context.inbox.put(MetricsRead(entity, metrics, tuple(record_ids), answered_ms))
