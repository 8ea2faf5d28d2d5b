"""Field history: facts told by events at once, then confirmed, completed or joined by Salesforce's own rows.

A fact that an event told waits for its row in the record's ledger entry; a row whose event did not come is a
fact of its own, which an event that comes later takes over. Final facts stay in the ledger for as long as a
poll's overlap can bring their rows again, so that one change is told as one fact.

Decided here: a row whose old and new value are the same, and which no event told, is no change and says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from consumer.tracking.arrivals import HistoryRead
from consumer.tracking.changes import TrackedChange
from consumer.tracking.history_book import (
    Book,
    has_main,
    told_by,
    with_event,
)
from consumer.tracking.history_fields import history_name, is_lookup, is_tracked
from consumer.tracking.history_match import ENTITY_ID, Values, fit, is_near, nulls_agree
from consumer.tracking.history_rows import FieldRows
from consumer.tracking.history_settle import Settling
from consumer.tracking.states import States
from consumer.tracking.values import EntityFacts, FieldChange, HistoryFact, HistoryRow, Key, LedgerEntry, Match

_AUDIT = frozenset({"LastModifiedDate", "LastModifiedById", "SystemModstamp"})

_NOT_TRACKED: Final = Match.NOT_TRACKED
_PENDING: Final = Match.PENDING

_REPLAYABLE_MS = 73 * 3_600_000
"""Events younger than this can still come (the Pub/Sub API keeps them 72 h), so their rows are remembered."""


class HistoryTracker:
    """Tells each change of a field once, in revisions that only get better.

    Args:
        states: where the ledger is.
        confirm_within_ms: how long a fact waits for its row, or a row for its event.
        overlap_ms: how far each poll reaches back.
        window_of: returns the loss window that owns up to a change of a record (object, id, time) of which only a row
            tells; None if none does.
    """

    def __init__(
        self,
        states: States,
        *,
        confirm_within_ms: int,
        overlap_ms: int,
        window_of: Callable[[str, str, int], str | None] | None = None,
    ) -> None:
        self._states = states
        self._confirm_within_ms = confirm_within_ms
        self._overlap_ms = overlap_ms
        self._window_of = window_of
        self._names: dict[str, _Names] = {}

    def on_change(
        self,
        entity: str,
        tracked: TrackedChange,
        facts: EntityFacts | None,
        *,
        event_id: str | None,
        commit_ms: int,
        user: str | None,
        seen_ms: int,
    ) -> list[HistoryFact]:
        """Return the facts of one change of one record.

        Args:
            entity: object API name.
            tracked: the change; ``fields`` are what it tells of.
            facts: what is known of the object.
            event_id: the event, None for a row that was read.
            commit_ms: the event's commit time or the row's SystemModstamp, epoch milliseconds.
            user: who made the change.
            seen_ms: when it was received, epoch milliseconds of the org's time.
        """
        if not tracked.fields:
            return []
        if event_id is None:
            return _resynced(tracked, facts, commit_ms, user, seen_ms)
        key = (entity, tracked.record_id)
        entry = self._states.ledger(key)
        book = Book(entry)
        known, rows_wait = _told_before(book, event_id)
        names = self._names.get(entity)
        if names is None or names.facts is not facts:
            names = self._names[entity] = _Names(facts)
        final: list[HistoryFact] = []
        for change in tracked.fields:
            if change.field in _AUDIT:
                continue
            name = names[change.field]
            fact = _told_by_event(change, name, tracked, event_id, commit_ms, user, seen_ms)
            if fact.change_id in known or (rows_wait and _take_over(book, fact, facts)):
                continue
            if fact.final and not names.rows_come:
                final.append(fact)
            else:
                book.facts.append(fact)
        told = book.told()
        self._keep(key, entry, book)
        return told + final

    def on_rows(self, read: HistoryRead, facts: EntityFacts | None) -> list[HistoryFact]:
        """Return the facts that history rows confirm, complete or state by themselves.

        Args:
            read: the rows; those that were read before say nothing.
            facts: what is known of the object.
        """
        by_record: dict[str, list[HistoryRow]] = {}
        for row in read.rows:
            by_record.setdefault(row.record_id, []).append(row)
        told: list[HistoryFact] = []
        for record_id, rows in by_record.items():
            told += self._on_record_rows((read.entity, record_id), rows, read, facts)
        return told

    def settle(
        self,
        entity: str,
        keys: Iterable[Key],
        *,
        complete_to_ms: int,
        stream_to_ms: int,
        now_ms: int,
        facts: EntityFacts | None,
    ) -> list[HistoryFact]:
        """Return the revisions of facts that nothing more is to come for, and forget what can't come again.

        Args:
            entity: object API name; keys of others are left alone.
            keys: records with facts in the ledger.
            complete_to_ms: every history row with an earlier CreatedDate was read, epoch milliseconds.
            stream_to_ms: every event with an earlier commit time was delivered, epoch milliseconds.
            now_ms: the org's time.
            facts: what is known of the object.
        """
        settling = Settling(
            complete_to_ms=complete_to_ms,
            stream_to_ms=stream_to_ms,
            now_ms=now_ms,
            confirm_within_ms=self._confirm_within_ms,
            overlap_ms=self._overlap_ms,
            facts=facts,
        )
        told: list[HistoryFact] = []
        for key in keys:
            entry = self._states.ledger(key) if key[0] == entity else None
            if entry is None or not entry.facts:
                continue
            book = Book(entry)
            book.facts = [settling.settled(fact) for fact in book.facts]
            told += book.told()
            # A row without an event is no loss beside an event of its record, which must be known until then.
            rows_wait = any(fact.match is Match.ROW_ONLY and not fact.final for fact in book.facts)
            kept = [
                fact for fact in book.facts if not settling.is_over(fact) or (rows_wait and fact.event_id is not None)
            ]
            if book.changed or len(kept) != len(book.facts):
                self._states.put_ledger(_with_facts(key, entry, tuple(kept)))
        return told

    def _on_record_rows(
        self, key: Key, rows: Sequence[HistoryRow], read: HistoryRead, facts: EntityFacts | None
    ) -> list[HistoryFact]:
        entry = self._states.ledger(key)
        book = Book(entry)
        known = {history_id for fact in book.facts for history_id in fact.history_ids}
        by_field: dict[str, list[HistoryRow]] = {}
        for row in rows:
            if row.history_id not in known:
                known.add(row.history_id)
                by_field.setdefault(row.history_field, []).append(row)
        for history_field, fresh in by_field.items():
            FieldRows(book, history_field, fresh, read, facts).take()
        if self._window_of is not None:
            book.facts = [self._owned_up(key[0], fact) for fact in book.facts]
        told = book.told()
        self._keep(key, entry, book, forget_before_ms=read.answered_ms - _REPLAYABLE_MS)
        return told

    def _owned_up(self, entity: str, fact: HistoryFact) -> HistoryFact:
        """Return a fact that no event told with the loss window that owns up to it, if there is one."""
        if fact.match is not Match.ROW_ONLY or fact.final or fact.window_id is not None or self._window_of is None:
            return fact
        window_id = self._window_of(entity, fact.record_id, fact.changed_ms)
        return fact if window_id is None else replace(fact, window_id=window_id)

    def _keep(self, key: Key, entry: LedgerEntry | None, book: Book, forget_before_ms: int | None = None) -> None:
        if not book.changed:
            return
        kept = tuple(book.facts)
        if forget_before_ms is not None:
            kept = tuple(
                fact
                for fact in kept
                if not (fact.final and fact.match is Match.BACKFILL and fact.changed_ms < forget_before_ms)
            )
        if kept or entry is not None:
            self._states.put_ledger(_with_facts(key, entry, kept))


def _with_facts(key: Key, entry: LedgerEntry | None, facts: tuple[HistoryFact, ...]) -> LedgerEntry:
    """Return a ledger entry with other facts; what else is owed to the record, or remembered of it, stays."""
    if entry is None:
        return LedgerEntry(*key, facts)
    return LedgerEntry(*key, facts, entry.refresh, entry.shares, entry.feed)


class _Names(dict[str, tuple[str, bool]]):
    """History name of each field and whether it is known to be untracked; worked out once for what is known.

    Args:
        facts: what is known of the object.
    """

    def __init__(self, facts: EntityFacts | None) -> None:
        super().__init__()
        self.facts = facts
        self.rows_come = facts is not None and bool(facts.tracked)

    def __missing__(self, field: str) -> tuple[str, bool]:
        history_field = history_name(field, self.facts)
        name = self[field] = (history_field, is_tracked(field, history_field, self.facts) is False)
        return name


def _told_by_event(
    change: FieldChange,
    name: tuple[str, bool],
    tracked: TrackedChange,
    event_id: str,
    commit_ms: int,
    user: str | None,
    seen_ms: int,
) -> HistoryFact:
    history_field, off = name
    # By position, because a call with 22 names costs as much as all the rest.
    return HistoryFact(
        f"{event_id}:{tracked.record_id}:{change.field}",
        1,
        off,
        tracked.record_id,
        change.field,
        history_field,
        change.old if change.old_known else None,
        change.new if change.new_known else None,
        None,
        _values(change),
        None,
        None,
        commit_ms,
        "ms",
        user,
        "change_event",
        _NOT_TRACKED if off else _PENDING,
        (),
        event_id,
        tracked.window_id,
        seen_ms,
    )


def _told_before(book: Book, event_id: str) -> tuple[set[str], bool]:
    """Return the ids of the facts that this event told already, and whether a row waits for its event."""
    known: set[str] = set()
    rows_wait = False
    for fact in book.facts:
        if fact.event_id is None:
            rows_wait = True
        elif fact.event_id == event_id:
            known.add(fact.change_id)
    return known, rows_wait


def _values(change: FieldChange) -> Values:
    if not change.new_known:
        return "not_stored"
    return "known" if change.old_known else "old_unknown"


def _take_over(book: Book, fact: HistoryFact, facts: EntityFacts | None) -> bool:
    """Join an event's fact to one that its row stated already; False if there is none."""
    lookup = is_lookup(fact.history_field, facts)
    words = told_by(fact)
    best: tuple[tuple[int, ...], int] | None = None
    waiting = 0
    for number, row_fact in book.of_field(fact.history_field):
        if row_fact.event_id is not None or not is_near(row_fact.changed_ms, fact.changed_ms):
            continue
        waiting += 1
        names_only = not has_main(row_fact, lookup=lookup)
        if names_only and not nulls_agree(row_fact.old_label, row_fact.new_label, fact):
            continue
        how_well = fit(words, told_by(row_fact))
        if how_well is not None:
            apart = abs(row_fact.changed_ms - fact.changed_ms // 1000 * 1000)
            rank = (row_fact.final, how_well, apart, row_fact.changed_by != fact.changed_by)
            best = min(best, (rank, number)) if best is not None else (rank, number)
    if best is None:
        return False
    row_fact = book.facts[best[1]]
    lookup = lookup or row_fact.value_type == ENTITY_ID
    sure = waiting == 1 or has_main(row_fact, lookup=lookup)
    book.facts[best[1]] = with_event(row_fact, fact, lookup=lookup, keep_names=sure)
    return True


def _resynced(
    tracked: TrackedChange, facts: EntityFacts | None, stamp_ms: int, user: str | None, seen_ms: int
) -> list[HistoryFact]:
    """Return facts of a row that was read; of tracked fields, history rows tell every step instead."""
    prefix = "resync:" + tracked.change_id.removeprefix("row:")
    told = []
    for change in tracked.fields:
        history_field = history_name(change.field, facts)
        if change.field in _AUDIT or is_tracked(change.field, history_field, facts) is not False:
            continue
        told.append(
            HistoryFact(
                change_id=f"{prefix}:{change.field}",
                revision=1,
                final=True,
                record_id=tracked.record_id,
                field=change.field,
                history_field=history_field,
                old=change.old if change.old_known else None,
                new=change.new if change.new_known else None,
                value_type=None,
                values=_values(change),
                old_label=None,
                new_label=None,
                changed_ms=stamp_ms,
                precision="s",
                changed_by=user,
                origin="resync",
                match=Match.NOT_TRACKED,
                window_id=tracked.window_id,
                seen_ms=seen_ms,
            )
        )
    return told
