"""When a fact of history is final although nothing came, and when it can be forgotten."""

from __future__ import annotations

from dataclasses import dataclass, replace

from consumer.tracking.history_book import is_whole
from consumer.tracking.history_fields import is_lookup, is_tracked
from consumer.tracking.history_match import ENTITY_ID, TOLERANCE_MS
from consumer.tracking.values import EntityFacts, HistoryFact, Match


@dataclass(frozen=True, slots=True)
class Settling:
    """How far stream and poll got.

    Attributes:
        complete_to_ms: every history row with an earlier CreatedDate was read, epoch milliseconds.
        stream_to_ms: every event with an earlier commit time was delivered, epoch milliseconds.
        now_ms: the org's time.
        confirm_within_ms: how long a fact waits for its row, or a row for its event.
        overlap_ms: how far each poll reaches back.
        facts: what is known of the object.
    """

    complete_to_ms: int
    stream_to_ms: int
    now_ms: int
    confirm_within_ms: int
    overlap_ms: int
    facts: EntityFacts | None

    def settled(self, fact: HistoryFact) -> HistoryFact:
        """Return the fact, made final if nothing more is to come for it."""
        if fact.final:
            return fact
        if fact.match is Match.PENDING:
            if is_tracked(fact.field, fact.history_field, self.facts) is False:
                return replace(fact, match=Match.NOT_TRACKED, final=True)
            return replace(fact, match=Match.EVENT_ONLY, final=True) if self._rows_are_in(fact) else fact
        if fact.match is Match.ROW_ONLY:
            lookup = fact.value_type == ENTITY_ID or is_lookup(fact.history_field, self.facts)
            over = fact.changed_ms + self.confirm_within_ms < self.stream_to_ms
            over = over and (is_whole(fact, lookup=lookup) or self._rows_are_in(fact))
        else:
            over = self._rows_are_in(fact)
        return replace(fact, final=True) if over else fact

    def is_over(self, fact: HistoryFact) -> bool:
        """Whether neither a row nor an event of a fact can come any more."""
        if not fact.final:
            return False
        reach_ms = max(2 * self.overlap_ms, self.overlap_ms + 2 * TOLERANCE_MS)
        if fact.changed_ms >= self.complete_to_ms - reach_ms:
            return False
        return fact.event_id is not None or fact.changed_ms + TOLERANCE_MS < self.stream_to_ms

    def _rows_are_in(self, fact: HistoryFact) -> bool:
        """Whether a row of the fact would have been read by now."""
        since_ms = max(fact.changed_ms, fact.seen_ms)
        return since_ms + self.confirm_within_ms <= self.now_ms and fact.changed_ms + TOLERANCE_MS < self.complete_to_ms
