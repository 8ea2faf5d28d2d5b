"""Whom the ids of share rows and rules stand for: resolved in batches, remembered for a day."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from consumer.errors import QueryRefusedError
from consumer.tracking.access import Grantee
from consumer.upkeep.asking import HOUR_MS, IDS_A_READ, Asking, Refusals
from consumer.upkeep.context import Context

_KEPT_MS: Final = 24 * HOUR_MS
"""Names and group types seldom change; a share is identified by the id alone."""

_AGAIN_MS: Final = HOUR_MS
"""How long an id that could not be resolved is left alone."""

_MOST: Final = 100_000


class Grantees:
    """Resolves users and groups for one job.

    Args:
        context: what the job works with.
        asking: puts its questions.
        refusals: what the org will not answer.
    """

    def __init__(self, context: Context, asking: Asking, refusals: Refusals) -> None:
        self._context = context
        self._asking = asking
        self._refusals = refusals
        self._known: dict[str, tuple[Grantee | None, int]] = {}

    async def of(self, entity: str, ids: Iterable[str]) -> Mapping[str, Grantee]:
        """Return whom these ids stand for; ids nobody knows, or that may not be read, are left out.

        Args:
            entity: the object they are wanted for, named when they can't be read.
            ids: user and group ids.
        """
        wanted = list(dict.fromkeys(ids))
        now_ms = self._context.now_ms()
        missing = [each for each in wanted if self._known.get(each, (None, 0))[1] <= now_ms]
        if missing and not self._refusals.barred("grantees", entity):
            await self._resolve(entity, missing, now_ms)
        found = ((each, self._known.get(each, (None, 0))[0]) for each in wanted)
        return {each: grantee for each, grantee in found if grantee is not None}

    async def _resolve(self, entity: str, ids: list[str], now_ms: int) -> None:
        if len(self._known) > _MOST:
            self._known.clear()
        source = self._context.source
        for start in range(0, len(ids), IDS_A_READ):
            some = ids[start : start + IDS_A_READ]
            try:
                found = await self._asking.ask(lambda some=some: source.grantees(some))  # type: ignore[misc]
            except QueryRefusedError as error:
                self._refusals.note("grantees", entity, error)
                return
            self._refusals.answered("grantees", entity)
            for each in some:
                grantee = found.get(each)
                self._known[each] = (grantee, now_ms + (_AGAIN_MS if grantee is None else _KEPT_MS))
