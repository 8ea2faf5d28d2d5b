"""Reads owner sharing rules: all of them each time, because there are few, and what went with the delete log."""

from __future__ import annotations

from typing import Final

from consumer.errors import QueryRefusedError
from consumer.tracking.arrivals import RulesRead
from consumer.tracking.sharing_rules import RULES, KnownRules
from consumer.upkeep.asking import RESPITE_S, Asking, Refusals, paced
from consumer.upkeep.context import Context, SharingPace
from consumer.upkeep.grantees import Grantees
from consumer.upkeep.scope import BOUNDED_MS

_IDS: Final = ("GroupId", "UserOrGroupId")


class RulesJob:
    """Polls the sharing rules of a channel's objects.

    Args:
        context: what the job works with.
        pace: how often.
    """

    def __init__(self, context: Context, pace: SharingPace) -> None:
        self._context = context
        self._pace = pace
        self._asking = Asking(context, "sharing rules")
        self._refusals = Refusals(context)
        self._grantees = Grantees(context, self._asking, self._refusals)
        self._due_ms: dict[str, float] = {}

    async def run(self) -> None:
        """Run until cancelled."""
        await self._context.caught_up()
        while True:
            for entity in self._context.entities():
                await self._turn(entity)
            await self._context.sleep(min(RESPITE_S, self._pace.poll / 1000))

    async def _turn(self, entity: str) -> None:
        context, facts = self._context, self._context.facts(entity)
        if entity not in self._pace.objects or facts is None or not facts.has_rules:
            return
        if context.now_ms() < self._due_ms.get(entity, 0.0) or self._refusals.barred("sharing rules", entity):
            return
        self._due_ms[entity] = context.now_ms() + paced(context, self._pace.poll) * 1000
        try:
            await self._read(entity)
        except QueryRefusedError as error:
            self._refusals.note("sharing rules", entity, error)
        else:
            self._refusals.answered("sharing rules", entity)

    async def _read(self, entity: str) -> None:
        source = self._context.source
        known = KnownRules.read(self._context.progress.get(RULES + entity))
        page = await self._asking.ask(lambda: source.sharing_rules(entity))
        ids = {rule.rule_id for rule in page.rules}
        deleted = {} if ids.issuperset(known.rules) else await self._deleted(entity, known.as_of_ms, page.answered_ms)
        named = (rule.values.get(name) for rule in (*page.rules, *known.rules.values()) for name in _IDS)
        grantees = await self._grantees.of(entity, (each for each in named if each))
        await self._context.inbox.put(
            RulesRead(entity, tuple(page.rules), deleted, page.asked_ms, page.answered_ms, grantees)
        )

    async def _deleted(self, entity: str, since_ms: int | None, to_ms: int) -> dict[str, int]:
        """Return when rules that are gone were deleted, as far as the log says; it reaches back 15 days."""
        source = self._context.source
        from_ms = max(since_ms or 0, to_ms - BOUNDED_MS)
        try:
            log = await self._asking.ask(lambda: source.deleted_rules(entity, from_ms, to_ms))
        except QueryRefusedError as error:
            self._refusals.tell("deleted sharing rules", entity, error)
            return {}
        return dict(log.ids)
