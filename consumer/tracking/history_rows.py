"""History rows become facts, or confirm those that events told.

Rows of one field are taken together, because several changes of one second have no promised order: values are
matched as multisets, the best pairs first. Of a lookup, the row of ids is the truth; the row of names only adds
names, and only where it is certain whose they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from consumer.changes.fields import MASK
from consumer.tracking.arrivals import HistoryRead
from consumer.tracking.history_book import (
    Book,
    fact_of_names,
    fact_of_row,
    has_main,
    has_names,
    told_by,
    with_main,
    with_names,
    without_names,
)
from consumer.tracking.history_fields import SPECIAL, event_field, is_lookup
from consumer.tracking.history_match import ENTITY_ID, Told, assign, fit, is_near, pair_labels, told_by_row
from consumer.tracking.values import EntityFacts, HistoryFact, HistoryRow


class FieldRows:
    """New rows of one field of one record.

    Args:
        book: the record's facts.
        history_field: the field, by Salesforce's name.
        rows: its rows that were not read before.
        read: what they came with.
        facts: what is known of the object.
    """

    __slots__ = ("_book", "_facts", "_field", "_history_field", "_lookup", "_main", "_names", "_read")

    def __init__(
        self, book: Book, history_field: str, rows: Sequence[HistoryRow], read: HistoryRead, facts: EntityFacts | None
    ) -> None:
        ids = any(row.data_type == ENTITY_ID for row in rows)
        self._book = book
        self._read = read
        self._facts = facts
        self._history_field = history_field
        self._lookup = (
            ids
            or is_lookup(history_field, facts)
            or any(fact.value_type == ENTITY_ID for _, fact in book.of_field(history_field))
        )
        self._main = [row for row in rows if not self._lookup or row.data_type == ENTITY_ID]
        self._names = [row for row in rows if self._lookup and row.data_type != ENTITY_ID]
        self._field = event_field(history_field, facts, ids=ids)

    def take(self) -> None:
        """Put the rows into the book."""
        said = [told_by_row(row, empty_is_said=self._history_field in SPECIAL) for row in self._main]
        chosen = assign([self._wishes(row, words) for row, words in zip(self._main, said, strict=True)])
        for row, words, number in zip(self._main, said, chosen, strict=True):
            if number is not None:
                self._confirm(number, row, words)
            elif not _says_nothing(row):
                self._add(
                    fact_of_row(
                        row,
                        self._field,
                        words,
                        self._read.answered_ms,
                        lookup=self._lookup,
                        backfill=self._read.backfill,
                    )
                )
        by_stamp: dict[tuple[int, str], list[HistoryRow]] = {}
        for row in self._names:
            by_stamp.setdefault((row.created_ms, row.created_by), []).append(row)
        for rows in by_stamp.values():
            self._take_names(rows)

    def _confirm(self, number: int, row: HistoryRow, said: Told) -> None:
        fact = self._book.facts[number]
        keep_names = False
        if not _names_are_others(fact, row):
            keep_names = self._names_are_sure(fact)
        elif fact.row_ms is not None:
            # Names had been read alone, and were another change's; a later poll brings them to their own fact.
            fact = without_names(fact)
        self._book.facts[number] = with_main(fact, row, said, lookup=self._lookup, keep_names=keep_names)

    def _wishes(self, row: HistoryRow, said: Told) -> list[tuple[tuple[int, ...], int]]:
        wishes: list[tuple[tuple[int, ...], int]] = []
        for number, fact in self._book.of_field(self._history_field):
            if has_main(fact, lookup=self._lookup):
                continue
            suits = _same_stamp(row, fact) if fact.event_id is None else is_near(row.created_ms, fact.changed_ms)
            how_well = fit(told_by(fact), said) if suits else None
            if how_well is not None:
                others = _names_are_others(fact, row)
                if others and fact.event_id is None:
                    continue
                apart = abs(row.created_ms - fact.changed_ms // 1000 * 1000)
                rank = (fact.final, others, how_well, apart, fact.changed_by != row.created_by)
                wishes.append((rank, number))
        return wishes

    def _names_are_sure(self, fact: HistoryFact) -> bool:
        """Whether names that came before their ids can only be of the one change of that second."""
        others = {
            (other.old_label, other.new_label)
            for _, other in self._book.of_field(self._history_field)
            if has_names(other) and not has_main(other, lookup=True) and is_near(other.changed_ms, fact.changed_ms)
        }
        changes = {(row.old, row.new) for row in self._main if is_near(row.created_ms, fact.changed_ms)}
        return len(others) <= 1 and len(changes) == 1

    def _take_names(self, rows: list[HistoryRow]) -> None:
        """Put a lookup's rows of names, all of one second, to facts: to those with rows of that second first.

        What is left is a fact of its own only where nothing else happened near it. Else it is nobody's yet: a
        later poll's overlap brings it again when its row of ids is there, and names alone never count twice.
        """
        for closeness in (_same_stamp, _waits_near):
            numbers = [
                number
                for number, fact in self._book.of_field(self._history_field)
                if not has_names(fact) and closeness(rows[0], fact)
            ]
            facts = [self._book.facts[number] for number in numbers]
            pairs = pair_labels(rows, facts)
            for index, which, sure in pairs:
                number = numbers[which]
                self._book.facts[number] = with_names(self._book.facts[number], rows[index], sure=sure)
            taken = {index for index, _, _ in pairs}
            rows = [row for index, row in enumerate(rows) if index not in taken]
            if not rows:
                return
        for row in rows:
            near = any(is_near(row.created_ms, fact.changed_ms) for _, fact in self._book.of_field(self._history_field))
            if not near and not _says_nothing(row):
                self._add(fact_of_names(row, self._field, self._read.answered_ms, backfill=self._read.backfill))

    def _add(self, fact: HistoryFact) -> None:
        self._book.facts.append(fact)


def _same_stamp(row: HistoryRow, fact: HistoryFact) -> bool:
    """Whether a fact has a row of the same CreatedDate, by the same user if no event came in between."""
    return fact.row_ms == row.created_ms and (fact.event_id is not None or fact.changed_by == row.created_by)


def _names_are_others(fact: HistoryFact, row: HistoryRow) -> bool:
    """Whether the names that a fact has got already can't be those of a row's ids."""
    if fact.row_ms is None:
        return False
    if fact.row_ms != row.created_ms:
        return True
    if fact.old_label is None and fact.new_label is None:
        return False
    return (fact.old_label is None, fact.new_label is None) != (row.old is None, row.new is None)


def _waits_near(row: HistoryRow, fact: HistoryFact) -> bool:
    """Whether an event's fact that has no row yet may be of this one."""
    return fact.row_ms is None and fact.event_id is not None and is_near(row.created_ms, fact.changed_ms)


def _says_nothing(row: HistoryRow) -> bool:
    """Whether a row tells that a value was replaced by the same one; masked values only look so."""
    return row.old is not None and row.old == row.new and row.old != MASK
