"""States of deleted records go when their grace is over."""

from __future__ import annotations

from typing import Final

from consumer.tracking.arrivals import Expired
from consumer.upkeep.asking import HOUR_MS
from consumer.upkeep.context import Context

_AT_ONCE: Final = 500


class ExpireJob:
    """Looks every hour for records found gone longer ago than the grace.

    Args:
        context: what the job works with.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            for entity in self._context.entities():
                await self._expire(entity)
            await self._context.sleep(HOUR_MS / 1000)

    async def _expire(self, entity: str) -> None:
        context = self._context
        before: tuple[str, ...] = ()
        while True:
            ids = tuple(context.store.expired(entity, context.now_ms() - context.pace.delete_grace, _AT_ONCE))
            if not ids or ids == before:
                return
            await context.inbox.put(Expired(entity, ids))
            await context.inbox.settled()
            before = ids
