"""Stretches of time in which a field of one record had one value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from consumer.events import Json
from consumer.tracking.coverage_report import Window
from consumer.tracking.timeline_values import LIFE, Change, FieldFact, State, Stay, time_of, value_at


def stays_of(
    name: str,
    created_ms: int | None,
    created_by: str | None,
    changes: Sequence[Change],
    facts: Sequence[FieldFact],
    state: State | None,
) -> tuple[Stay, ...]:
    """Return the values of a field, in order.

    Args:
        name: the field.
        created_ms: when the record was created, None when that or the history since then is not known.
        created_by: who created it.
        changes: the record's changes, in order.
        facts: the field's facts, in order.
        state: the record's newest state.
    """
    told, first = _first_value(name, changes, facts, state)
    if not told and not facts:
        return ()
    since_ms = created_ms
    if not facts and since_ms is None and state is not None:
        since_ms = time_of(state.since.get(name))
    label = facts[0].old_label if facts else None
    line = _Line()
    if told:
        line.go_on(first, label, since_ms, created_by if since_ms == created_ms else None)
    ends = [each for each in changes if (each.change_type or "CREATE") in LIFE and each.change_type != "CREATE"]
    for fact in _chained(facts, first):
        while ends and ends[0].stamp_ms < fact.at_ms:
            line.end_or_resume(name, ends.pop(0))
        line.follow(fact)
    for each in ends:
        line.end_or_resume(name, each)
    known, now = value_at(state.image, name) if state is not None and not state.deleted else (False, None)
    if known and line.stays and line.open and line.stays[-1].value != now:
        line.doubt_last()
    return tuple(line.stays)


def _first_value(
    name: str, changes: Sequence[Change], facts: Sequence[FieldFact], state: State | None
) -> tuple[bool, Json]:
    if facts:
        return (facts[0].values in {"known", "truncated_255"}, facts[0].old)
    for change in changes:
        for image in (change.before, change.after):
            known, value = value_at(image or {}, name)
            if known:
                return True, value
    return value_at(state.image, name) if state is not None else (False, None)


def _chained(facts: Sequence[FieldFact], value: Json) -> list[FieldFact]:
    """Put facts of one moment in the order in which each begins with the value the one before it ended with."""
    chained: list[FieldFact] = []
    left = list(facts)
    while left:
        moment = [each for each in left if each.at_ms == left[0].at_ms]
        found = next((each for each in moment if each.old == value and each.values != "old_unknown"), moment[0])
        left.remove(found)
        chained.append(found)
        value = found.new
    return chained


class _Line:
    """Puts stays one behind the other."""

    def __init__(self) -> None:
        self.stays: list[Stay] = []
        self.open = False

    def go_on(self, value: Json, label: str | None, from_ms: int | None, by: str | None) -> None:
        self.stays.append(Stay(value, label, from_ms, None, by, certain=from_ms is not None))
        self.open = True

    def end(self, at_ms: int) -> None:
        if self.open:
            last = self.stays[-1]
            self.stays[-1] = replace(last, to_ms=at_ms)
            self.open = False

    def doubt_last(self) -> None:
        last = self.stays[-1]
        self.stays[-1] = replace(last, certain=False)

    def follow(self, fact: FieldFact) -> None:
        if self.open and fact.values == "known" and fact.old != self.stays[-1].value:
            self.doubt_last()
        self.end(fact.at_ms)
        self.go_on(fact.new, fact.new_label, fact.at_ms, fact.by)
        if fact.values == "not_stored":
            self.doubt_last()

    def end_or_resume(self, name: str, change: Change) -> None:
        self.end(change.stamp_ms)
        known, value = value_at(change.after or {}, name)
        if change.op == "c" and known:
            self.go_on(value, None, change.stamp_ms, change.by)


def doubted(name: str, stay: Stay, windows: Iterable[Window]) -> Stay:
    """Return the stay, no longer certain if a loss window may hide another value in it."""
    for window in windows:
        start, end = window.interval
        meets = (stay.to_ms is None or start < stay.to_ms) and (stay.from_ms is None or end > stay.from_ms)
        if meets and (window.open or window.missing_fields is None or name in window.missing_fields):
            return replace(stay, certain=False)
    return stay
