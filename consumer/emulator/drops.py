"""Events that are committed and never published: a loss of the event bus that nothing tells of."""

from __future__ import annotations

from collections.abc import Sequence

from consumer.emulator.bus import Publishable
from consumer.emulator.org import OrgEvent, OrgModel
from consumer.emulator.state import ServerState


class Dropper:
    """Takes events away before they reach the bus, as long as a fault says so.

    Args:
        state: its conditions say how many events, or until when.
        model: hears of each.
    """

    def __init__(self, state: ServerState, model: OrgModel) -> None:
        self._state = state
        self._model = model

    def __call__(self, events: Sequence[Publishable]) -> Sequence[Publishable]:
        """Return the events to publish; those that share one replay id go or stay together."""
        conditions = self._state.conditions
        if not conditions.drop_next and not conditions.drop_until:
            return events
        kept: list[Publishable] = []
        dropped = False
        for event in events:
            dropped = dropped if event.shares_replay_id else self._takes(event)
            if not dropped:
                kept.append(event)
                continue
            self._state.stats.dropped += 1
            if isinstance(event, OrgEvent):
                self._model.note_drop(event)
        return kept

    def _takes(self, event: Publishable) -> bool:
        conditions = self._state.conditions
        if conditions.drop_entity not in {"", event.entity} or event.entity.endswith("__e"):
            return False
        if conditions.drop_until > self._state.now():
            return True
        if not conditions.drop_next:
            return False
        conditions.drop_next -= 1
        return True
