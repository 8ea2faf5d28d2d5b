"""Signs that Salesforce recalculates sharing: then a sweep before its time finds what was revoked.

A rule or membership change is carried out in the background, long after it was made; rows go and rows come, and only
those that come can be polled for (sharing guide). So a sweep waits until the polls have been quiet.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from consumer.tracking.access import OWNER, ShareRow
from consumer.tracking.arrivals import Progress
from consumer.tracking.sharing import SWEEP_WANTED
from consumer.tracking.values import RecordState
from consumer.upkeep.context import Context
from consumer.upkeep.scope import count

_WITH_THE_OWNER_MS: Final = 60_000
"""A row this close to its record's owner change, or to its creation, came with it."""

_BY_HAND: Final = frozenset({OWNER, "Manual"})
_QUIET_POLLS: Final = 2


class Recalculations:
    """Watches for recalculations, and says when a sweep should follow.

    Args:
        context: what the job works with.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def shown_by(self, entity: str, rows: Iterable[ShareRow], since_ms: int) -> bool:
        """Return whether rows of a poll were made by a recalculation and not with a change of owner.

        Args:
            entity: the shared object.
            rows: the poll's rows.
            since_ms: older ones were looked at already, epoch milliseconds.
        """
        return any(
            row.row_cause not in _BY_HAND
            and row.modified_ms is not None
            and row.modified_ms >= since_ms
            and not _came_with_owner(self._context.store.get((entity, row.record_id)), row.modified_ms)
            for row in rows
        )

    def wish(self, entity: str) -> Progress:
        """Return the durable wish for a sweep, put off until polls are quiet."""
        now_ms = self._context.now_ms()
        known = self._context.progress.get(SWEEP_WANTED + entity)
        since_ms = now_ms if known is None else count(known, "since_ms")
        return Progress(SWEEP_WANTED + entity, {"since_ms": since_ms, "last_ms": now_ms})

    def wants(self, entity: str) -> bool:
        """Return whether a wish for a sweep has waited long enough."""
        known, pace = self._context.progress.get(SWEEP_WANTED + entity), self._context.pace.sharing
        if known is None or pace is None:
            return False
        now_ms = self._context.now_ms()
        quiet = now_ms - count(known, "last_ms") >= _QUIET_POLLS * pace.poll
        return quiet or now_ms - count(known, "since_ms") >= pace.sweep / 4


def _came_with_owner(state: RecordState | None, modified_ms: int) -> bool:
    if state is None:
        return True  # nothing is known of the record: its own first reading tells
    times = [state.since.get("OwnerId"), state.image.get("CreatedDate")]
    if state.source is not None and abs(state.source.commit_ms - modified_ms) <= _WITH_THE_OWNER_MS:
        return True
    return any(abs(_ms(each) - modified_ms) <= _WITH_THE_OWNER_MS for each in times if isinstance(each, str))


def _ms(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp() * 1000
    except ValueError:
        return 0.0
