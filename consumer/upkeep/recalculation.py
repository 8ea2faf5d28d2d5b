"""Signs that Salesforce recalculates sharing: then a sweep before its time finds what was revoked.

A rule or membership change is carried out in the background, long after it was made; rows go and rows come, and only
those that come can be polled for (sharing guide). So a sweep waits until the polls have been quiet.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from consumer.tracking.access import OWNER, ShareCause, ShareRow
from consumer.tracking.arrivals import Progress
from consumer.tracking.sharing import SWEEP_WANTED
from consumer.tracking.sharing_bounds import SECOND_MS
from consumer.tracking.values import Key, RecordState
from consumer.upkeep.context import Context
from consumer.upkeep.scope import count

_WITH_THE_OWNER_MS: Final = 60_000
"""A row this close to its record's owner change, or to its creation, came with it."""

_BY_HAND: Final = frozenset({OWNER, "Manual"})
_BY_CODE: Final = "__c"
"""Sharing reasons of an org's own Apex code end so: their rows come and go at any time (Apex managed sharing)."""

_QUIET_POLLS: Final = 2


class Recalculations:
    """Watches for recalculations, and says when a sweep should follow.

    Args:
        context: what the job works with.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def told_apart_to(self, complete_ms: int) -> int:
        """Return up to when rows can be told from those of owner changes, epoch milliseconds: whose events came.

        Rows that the next poll does not bring again are looked at all the same.

        Args:
            complete_ms: up to when a poll has everything.
        """
        pace = self._context.pace.sharing
        overlap_ms = 0 if pace is None else pace.overlap
        return max(min(complete_ms, self._context.delivered_to()), complete_ms - overlap_ms)

    def shown_by(self, entity: str, rows: Iterable[ShareRow], from_ms: int, to_ms: int) -> bool:
        """Return whether rows of a poll were made by a recalculation and not with a change of owner.

        Args:
            entity: the shared object.
            rows: the poll's rows.
            from_ms: older ones were looked at already, epoch milliseconds.
            to_ms: later ones are looked at with the next poll.
        """
        return any(
            row.row_cause not in _BY_HAND
            and not row.row_cause.endswith(_BY_CODE)
            and row.modified_ms is not None
            and from_ms <= row.modified_ms < to_ms
            and not self._explained((entity, row.record_id), row.modified_ms)
            for row in rows
        )

    def _explained(self, key: Key, modified_ms: int) -> bool:
        """Return whether a row came with an owner, or its record was read whole since: what else went is known."""
        store = self._context.store
        access, entry = store.access(key), store.ledger(key)
        if access is not None and access.complete and access.as_of_ms >= modified_ms + SECOND_MS:
            return True
        if entry is not None and entry.shares is not None and entry.shares.cause is ShareCause.OWNER_CHANGE:
            return True
        return _came_with_owner(store.get(key), modified_ms)

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
