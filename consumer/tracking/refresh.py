"""Reads by id that are owed to a record: after a session has ended, or because something of it is not known."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Final

from consumer.tracking.changes import TrackedChange
from consumer.tracking.values import EntityFacts, RecordState, Refresh

SESSION: Final = "MessagingSession"
ENDED: Final = "Ended"

_AGAIN_MS: Final = (60_000, 300_000, 1_800_000)
"""After each read without metrics; the platform makes them some time after the end (Object Reference)."""


def after_event(
    entity: str,
    change: TrackedChange,
    state: RecordState | None,
    refresh_after_ms: int,
    *,
    facts: EntityFacts | None = None,
    owed: Refresh | None = None,
) -> Refresh | None:
    """Return the read that a change makes due, None if it makes none due.

    Args:
        entity: object API name.
        change: what became of the record.
        state: its state since then.
        refresh_after_ms: how long after its end a session is read.
        facts: what is known of the object: fields that events never carry, or that the user may not see, are no
            reason to read.
        owed: what is owed already; a read after the end is not put before it.
    """
    if state is None or state.deleted:
        return None
    if entity == SESSION and state.image.get("Status") == ENDED and _just_ended(change, state, refresh_after_ms):
        return Refresh(change.stamp_ms + refresh_after_ms, 0, "ended")
    if owed is not None or change.record_index is None or not _wanting(state, facts):
        return None
    return Refresh(change.stamp_ms, 0, "unknown")


def may_be_due(entity: str, state: RecordState | None, facts: EntityFacts | None) -> bool:
    """Return whether a change can make a read due at all, whatever it was: most records are known and go on."""
    if state is None or state.deleted:
        return False
    return (entity == SESSION and state.image.get("Status") == ENDED) or _wanting(state, facts)


def after_read(refresh: Refresh, answered_ms: int, *, have_metrics: bool | None) -> Refresh | None:
    """Return what is still owed after an answer, None for nothing.

    The metrics of a session are read before its row, so that the row's answer ends what is owed, unless the metrics
    have put it off; a change that came meanwhile can have put it off too.

    Args:
        refresh: what was owed.
        answered_ms: the answer's ``Date`` + 1 s, epoch milliseconds.
        have_metrics: whether metrics came; None for the answer with the row.
    """
    if refresh.due_ms > answered_ms:
        return refresh
    if have_metrics is None:
        return None
    if have_metrics or refresh.reason == "unknown":
        return refresh
    if refresh.tries >= len(_AGAIN_MS):
        return None
    return replace(refresh, due_ms=answered_ms + _AGAIN_MS[refresh.tries], tries=refresh.tries + 1)


def _just_ended(change: TrackedChange, state: RecordState, refresh_after_ms: int) -> bool:
    """Whether the change brought the end, or is the first sight of a record whose row was read soon after it.

    What the platform computes after the end moves no event; a first row that is older than that has everything.
    """
    if change.op == "c":
        return True
    if change.version == 1 and state.row_read_ms is not None and change.stamp_ms + refresh_after_ms > state.row_read_ms:
        return True
    if change.op == "r" and change.before is None:
        return False
    named = any(each.field == "Status" for each in change.fields)
    return named or "Status" in (change.changed_fields or ())


def _wanting(state: RecordState, facts: EntityFacts | None) -> bool:
    """Whether a read would tell something that is not known; suspect fields have a repair of their own."""
    unknown = state.unknown
    if not unknown or facts is None:
        return bool(unknown)
    if facts.visible is None:
        return not facts.not_in_events.issuperset(unknown)
    return not _readable(facts.visible, facts.not_in_events).isdisjoint(unknown)


@lru_cache(maxsize=64)
def _readable(visible: frozenset[str], not_in_events: frozenset[str]) -> frozenset[str]:
    return visible - not_in_events
