"""What a loss window asks for, and when it can be closed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Final

from consumer.events import LossWindow
from consumer.tracking.arrivals import Closing
from consumer.tracking.history_fields import history_name, is_tracked
from consumer.tracking.values import EntityFacts
from consumer.upkeep.asking import HOUR_MS
from consumer.upkeep.context import Context

BOUNDED_MS: Final = 15 * 24 * HOUR_MS
"""How far back deletions can be asked for (REST API guide, getDeleted); an older window needs everything read."""

OVERFLOW_MARGIN_MS: Final = 60_000
"""A transaction too large to report can have begun to stamp its rows this long before its commit."""

RECEIPT_MARGIN_MS: Final = 600_000
"""An unreadable event can have been committed this long before it was received."""

HISTORY_POLL: Final = "poll:history:"
"""Name of the history poll's progress, before the object's."""

_BOUNDED_REASONS: Final[Mapping[str, int]] = {
    "gap_overflow": OVERFLOW_MARGIN_MS,
    "gap_create": OVERFLOW_MARGIN_MS,
    "gap_update": OVERFLOW_MARGIN_MS,
    "gap_undelete": OVERFLOW_MARGIN_MS,
    "unknown_change_type": OVERFLOW_MARGIN_MS,
    "schema_unreadable": RECEIPT_MARGIN_MS,
    "schema_refused": RECEIPT_MARGIN_MS,
    "schema_unavailable": RECEIPT_MARGIN_MS,
    "payload_undecodable": RECEIPT_MARGIN_MS,
    "bitmap_invalid": RECEIPT_MARGIN_MS,
    "not_a_change_event": RECEIPT_MARGIN_MS,
    "event": RECEIPT_MARGIN_MS,
}
_STAMPS: Final = frozenset({"LastModifiedDate", "LastModifiedById"})


class Scope(Enum):
    """What has to be read for a window."""

    RECORDS = "the records it names"
    MODIFIED = "what was modified since it began"
    ALL = "everything"


def scope_of(window: LossWindow, now_ms: int) -> Scope:
    """Return what has to be read; reasons this version does not know want everything."""
    if window.record_ids:
        return Scope.RECORDS
    began_ms = modified_since(window)
    if began_ms is None or now_ms - began_ms >= BOUNDED_MS or window.detail.get("wildcard_ids"):
        return Scope.ALL
    return Scope.MODIFIED


def modified_since(window: LossWindow) -> int | None:
    """Return from when on modified rows can hold what the window lost, None if only everything does."""
    margin_ms = _BOUNDED_REASONS.get(window.reason)
    if margin_ms is None or window.from_ms is None:
        return None
    return window.from_ms - margin_ms


def end_of(window: LossWindow) -> int:
    """Return a window's end in epoch milliseconds; 0 if it is open-ended: then any read that began later covers it."""
    return 0 if window.to_ms is None else window.to_ms


def entity_of_ids(context: Context, record_ids: Sequence[str]) -> str | None:
    """Return the object that ids belong to by their key prefix, None if no record of it is known yet."""
    for entity in dict.fromkeys((*context.store.entities(), *context.entities())):
        known = context.store.unseen(entity, "", "", 1)
        if known and all(each[:3] == known[0][:3] for each in record_ids):
            return entity
    return None


def history_is_polled(facts: EntityFacts) -> bool:
    """Return whether history rows tell the tracked fields' steps; if nobody says which are tracked, they may."""
    return facts.has_history and facts.tracked != frozenset()


def history_complete_to(context: Context, entity: str) -> int:
    """Return the time up to which history is read, epoch milliseconds; 0 if it was never."""
    reached = context.progress.get(HISTORY_POLL + entity, {}).get("complete_to_ms")
    return reached if isinstance(reached, int) else 0


def closing_of(
    context: Context, window: LossWindow, entities: Iterable[str], *, read_from_ms: int, repaired: int
) -> Closing | None:
    """Return how a window whose rows are all read is closed; None while history is not read past its end.

    Args:
        context: what the job works with.
        window: the window.
        entities: the objects in its scope.
        read_from_ms: when the reads for it began; an open-ended window ends there.
        repaired: records emitted for it so far.
    """
    end_ms = read_from_ms if window.to_ms is None else window.to_ms
    tracked_everywhere = window.from_ms is not None or context.pace.backfill > 0
    lost: dict[str, None] = {}
    for entity in entities:
        facts, schema = context.facts(entity), context.schema(entity)
        if facts is None or schema is None:
            return None
        if not history_is_polled(facts):
            tracked_everywhere = False
        elif history_complete_to(context, entity) < end_ms:
            return None
        lost.update(dict.fromkeys(_untracked(facts, schema.schema_fields)))
    return Closing(
        window.window_id,
        tracked_history=tracked_everywhere,
        unrecoverable_fields=tuple(lost),
        repaired=repaired,
        to_ms=end_ms,
    )


def count(state: Mapping[str, object], name: str) -> int:
    """Return a number of a progress entry, 0 if it is not there."""
    value = state.get(name)
    return value if isinstance(value, int) else 0


def _untracked(facts: EntityFacts, schema_fields: Sequence[str]) -> list[str]:
    names = [each for each in schema_fields if each not in _STAMPS]
    return [each for each in names if not is_tracked(each, history_name(each, facts), facts)]
