"""The facts of one record while they are worked on, and how a row becomes or confirms one of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from operator import is_not

from consumer.tracking.history_fields import SPECIAL
from consumer.tracking.history_match import ENTITY_ID, Told, merged
from consumer.tracking.values import HistoryFact, HistoryRow, LedgerEntry, Match


class Book:
    """Facts of one record; however often one is replaced, it is told once, as one revision.

    Final facts may be replaced too, so that the ledger knows their rows; they are not told again.
    """

    __slots__ = ("_before", "facts")

    def __init__(self, entry: LedgerEntry | None) -> None:
        self._before = () if entry is None else entry.facts
        self.facts = list(self._before)

    def of_field(self, history_field: str) -> Iterator[tuple[int, HistoryFact]]:
        """Return the facts of a field with their numbers."""
        for number, fact in enumerate(self.facts):
            if fact.history_field == history_field:
                yield number, fact

    def told(self) -> list[HistoryFact]:
        """Return new facts and revisions that a reader must get; numbers the revisions."""
        told = self.facts[len(self._before) :]
        for number, before in enumerate(self._before):
            fact = self.facts[number]
            if fact is not before and not before.final and _visible(fact) != _visible(before):
                fact = self.facts[number] = replace(fact, revision=before.revision + 1)
                told.append(fact)
        return told

    @property
    def changed(self) -> bool:
        """Whether the ledger must be written."""
        return len(self.facts) != len(self._before) or any(map(is_not, self.facts, self._before))


def _visible(fact: HistoryFact) -> HistoryFact:
    return replace(fact, revision=0, seen_ms=0, row_ms=None, history_ids=fact.history_ids[:1])


def has_main(fact: HistoryFact, *, lookup: bool) -> bool:
    """Whether the row that holds the values was read: the only one, or a lookup's row of ids."""
    return fact.value_type == ENTITY_ID if lookup else bool(fact.history_ids)


def has_names(fact: HistoryFact) -> bool:
    """Whether a lookup's row of names was read."""
    return len(fact.history_ids) > (fact.value_type == ENTITY_ID)


def is_whole(fact: HistoryFact, *, lookup: bool) -> bool:
    """Whether no further row of it is to come."""
    return has_main(fact, lookup=lookup) and (not lookup or has_names(fact))


def told_by(fact: HistoryFact) -> Told:
    """Return what a fact says."""
    return Told(fact.old, fact.new, fact.values)


def with_main(fact: HistoryFact, row: HistoryRow, said: Told, *, lookup: bool, keep_names: bool) -> HistoryFact:
    """Return a fact with the row that holds its values."""
    best = merged(told_by(fact), said)
    attached = replace(
        fact,
        old=best.old,
        new=best.new,
        values=best.values,
        value_type=ENTITY_ID if lookup else row.data_type,
        history_ids=(row.history_id, *fact.history_ids),
        row_ms=row.created_ms,
        old_label=fact.old_label if keep_names else None,
        new_label=fact.new_label if keep_names else None,
    )
    return _confirmed(fact, attached, lookup=lookup)


def with_names(fact: HistoryFact, row: HistoryRow, *, sure: bool) -> HistoryFact:
    """Return a fact with a lookup's row of names; names that may be another change's are left out."""
    attached = replace(
        fact,
        history_ids=(*fact.history_ids, row.history_id),
        row_ms=row.created_ms,
        old_label=row.old if sure else None,
        new_label=row.new if sure else None,
    )
    return _confirmed(fact, attached, lookup=True)


def without_names(fact: HistoryFact) -> HistoryFact:
    """Return a fact that lets go of its row of names, which turned out to be another change's."""
    return replace(fact, history_ids=(), old_label=None, new_label=None, row_ms=None)


def _confirmed(fact: HistoryFact, attached: HistoryFact, *, lookup: bool) -> HistoryFact:
    if fact.final:
        return attached
    if fact.event_id is not None:
        return replace(attached, match=Match.CONFIRMED, final=is_whole(attached, lookup=lookup))
    if fact.match is Match.BACKFILL:
        return replace(attached, final=is_whole(attached, lookup=lookup))
    return attached


def fact_of_row(row: HistoryRow, field: str, said: Told, seen_ms: int, *, lookup: bool, backfill: bool) -> HistoryFact:
    """Return the fact that a row states by itself.

    It is final at once when no event and no second row can come: a row of before our time, or one that stands
    for no field.
    """
    fact = HistoryFact(
        change_id=f"row:{row.history_id}",
        revision=1,
        final=False,
        record_id=row.record_id,
        field=field,
        history_field=row.history_field,
        old=said.old,
        new=said.new,
        value_type=ENTITY_ID if lookup else row.data_type,
        values=said.values,
        old_label=None,
        new_label=None,
        changed_ms=row.created_ms,
        precision="s",
        changed_by=row.created_by,
        origin="history_row",
        match=Match.BACKFILL if backfill else Match.ROW_ONLY,
        history_ids=(row.history_id,),
        seen_ms=seen_ms,
        row_ms=row.created_ms,
    )
    alone = row.history_field in SPECIAL and row.history_field != "created"
    return replace(fact, final=alone or (backfill and is_whole(fact, lookup=lookup)))


def fact_of_names(row: HistoryRow, field: str, seen_ms: int, *, backfill: bool) -> HistoryFact:
    """Return the fact that a lookup's row of names states as long as the row of ids was not read."""
    alone = fact_of_row(row, field, Told(None, None, "not_stored"), seen_ms, lookup=False, backfill=backfill)
    return replace(alone, final=False, old_label=row.old, new_label=row.new)


def with_event(row_fact: HistoryFact, event_fact: HistoryFact, *, lookup: bool, keep_names: bool) -> HistoryFact:
    """Return a fact that was first seen as a row, now that its event came.

    A final one only remembers the event.
    """
    if row_fact.final:
        return replace(row_fact, event_id=event_fact.event_id)
    best = merged(told_by(event_fact), told_by(row_fact))
    return replace(
        row_fact,
        field=event_fact.field,
        old=best.old,
        new=best.new,
        values=best.values,
        old_label=row_fact.old_label if keep_names else None,
        new_label=row_fact.new_label if keep_names else None,
        changed_ms=event_fact.changed_ms,
        precision=event_fact.precision,
        changed_by=event_fact.changed_by,
        origin="change_event",
        event_id=event_fact.event_id,
        window_id=event_fact.window_id,
        match=Match.CONFIRMED,
        final=is_whole(row_fact, lookup=lookup),
    )
