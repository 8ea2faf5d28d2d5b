"""What the records of ``coverage`` prove for a period: complete, state complete, or incomplete.

A slice of time is *complete* when spans say that all of it was delivered and no loss window in it lacks a change;
*state complete* when records were lost on the way but their state was restored, so that only transitions are
missing; *incomplete* otherwise, and wherever nothing is said.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import islice, pairwise
from typing import Literal, TypeAlias

from consumer.events import Json

HOUR_MS = 3_600_000

Interval: TypeAlias = tuple[int, int]
"""Start and end, the end not part of it, epoch milliseconds."""

_EARLIEST = -(1 << 62)
_LATEST = 1 << 62


class Label(StrEnum):
    """How much of a slice is proven."""

    COMPLETE = "complete"
    STATE_COMPLETE = "state_complete"
    INCOMPLETE = "incomplete"


_RANK = {Label.COMPLETE: 0, Label.STATE_COMPLETE: 1, Label.INCOMPLETE: 2}


@dataclass(frozen=True, slots=True)
class Window:
    """A loss window as the records say it.

    Attributes:
        from_ms: start, None when it reaches back for ever.
        to_ms: end, None when it is open-ended.
        closed_ms: when it was closed, None while it is open.
        restored: names of what its repair brought back.
        unrecoverable_fields: fields whose transitions can't be had any more.
        record_ids: records in scope, empty for the whole object or channel.
    """

    window_id: str
    stream: str
    reason: str
    from_ms: int | None
    to_ms: int | None
    entity: str | None
    record_ids: tuple[str, ...]
    closed_ms: int | None = None
    restored: frozenset[str] = frozenset()
    unrecoverable_fields: tuple[str, ...] = ()
    repaired_records: int = 0

    @property
    def open(self) -> bool:
        """Whether no repair has covered it yet."""
        return self.closed_ms is None

    @property
    def label(self) -> Label:
        """What it makes of the time it touches."""
        if self.open:
            return Label.INCOMPLETE
        if "all_changes" in self.restored:
            return Label.COMPLETE
        return Label.STATE_COMPLETE if {"state", "deletes"} <= self.restored else Label.INCOMPLETE

    @property
    def missing_fields(self) -> tuple[str, ...] | None:
        """Fields whose transitions are missing; None for those of all fields."""
        if "all_changes" in self.restored:
            return ()
        return self.unrecoverable_fields if "tracked_history" in self.restored else None

    @property
    def interval(self) -> Interval:
        """The time it touches.

        An open-ended one that is closed ends with its closing at the latest, because its repair was read after its
        end. One without length is a moment.
        """
        start = _EARLIEST if self.from_ms is None else self.from_ms
        end = self.to_ms
        if end is None:
            end = _LATEST if self.closed_ms is None else self.closed_ms
        return start, max(end, start + 1)

    def touches(self, record_id: str, entity: str) -> bool:
        """Return whether a record is in its scope."""
        return record_id in self.record_ids if self.record_ids else self.entity in {None, entity}


@dataclass(frozen=True, slots=True)
class Missing:
    """What a slice lacks because of one loss window.

    Attributes:
        records: how many records it is about, None for all of the object or channel.
        fields: whose transitions are missing, None for all.
    """

    window_id: str
    reason: str
    label: Label
    open: bool
    entity: str | None
    records: int | None
    fields: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Slice:
    """One piece of the period.

    Attributes:
        from_ms: start, epoch milliseconds.
        to_ms: end, not part of it.
        label: the worst that is true of any moment in it.
        proof: ``reconciled`` when the state was compared with Salesforce too, None for incomplete time that
            nothing vouches for.
        missing: what loss windows in it lack, the worst first.
        unproven: parts that nothing is said about.
    """

    from_ms: int
    to_ms: int
    label: Label
    proof: Literal["delivered", "reconciled"] | None
    missing: tuple[Missing, ...]
    unproven: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class SchemaChanged:
    """A schema change in the period; ``detail`` is as ``schemas/coverage.json`` has it."""

    at_ms: int
    entity: str
    detail: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Report:
    """What is proven of one stream in one period.

    Attributes:
        label: the worst of its slices.
        open_windows: those that touch the period.
        schema_changes: those in the period, oldest first.
        proven_to_ms: end of the last span, None if there is none.
    """

    stream: str
    from_ms: int
    to_ms: int
    label: Label
    slices: tuple[Slice, ...]
    open_windows: tuple[Window, ...]
    schema_changes: tuple[SchemaChanged, ...]
    proven_to_ms: int | None


class CoverageFacts:
    """The records of one stream, taken in one by one in the order of their partition.

    Args:
        stream: ``changes:<channel>`` or ``history``.
    """

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self._delivered: list[Interval] = []
        self._reconciled: dict[str | None, list[Interval]] = {}
        self._windows: dict[str, Window] = {}
        self._schema_changes: list[SchemaChanged] = []
        self._first_end_ms: int | None = None

    @property
    def windows(self) -> tuple[Window, ...]:
        """Every loss window that was told, in the order of their opening."""
        return tuple(self._windows.values())

    def add(self, value: Mapping[str, Json]) -> None:
        """Take in the value of a ``coverage`` record; one of another stream or of a kind not known is left out."""
        if value["stream"] != self.stream:
            return
        start, end = _ms(value["from"]), _ms(value["to"])
        match value["kind"]:
            case "span" if start is not None and end is not None:
                reconciled = value["proof"] == "reconciled"
                spans = self._reconciled.setdefault(value["entity"], []) if reconciled else self._delivered
                _append(spans, (start, end))
                if not reconciled and self._first_end_ms is None:
                    self._first_end_ms = end
            case "loss_opened" | "loss_closed":
                window = _window(value)
                self._windows[window.window_id] = window
            case "schema_changed" if start is not None:
                self._schema_changes.append(SchemaChanged(start, value["entity"], value["detail"]))

    def add_open(self, window: Window) -> None:
        """Take in an open window known from elsewhere, in case its record is no longer kept."""
        if window.stream == self.stream:
            self._windows.setdefault(window.window_id, window)

    @property
    def proven_to_ms(self) -> int | None:
        """End of the last span, epoch milliseconds; None if there is none."""
        return max((end for _, end in self._delivered), default=None)

    @property
    def first_end_ms(self) -> int | None:
        """End of the first span that was told, None if none was."""
        return self._first_end_ms

    def report(
        self,
        from_ms: int,
        to_ms: int,
        *,
        by: Literal["hour", "edges"] = "hour",
        entity: str | None = None,
        kept_from_ms: int | None = None,
    ) -> Report:
        """Return what is proven of a period.

        Args:
            from_ms: start, epoch milliseconds.
            to_ms: end, not part of it.
            by: slices of one hour, or cut wherever something changes.
            entity: the one object of the channel, None for a channel of several, which is never called reconciled.
            kept_from_ms: Kafka keeps all records since then, and has dropped older ones; None if it dropped none.
        """
        windows = [each for each in self._windows.values() if _meet(each.interval, (from_ms, to_ms))]
        whole = [each.interval for each in windows if not each.record_ids]
        kept = _EARLIEST if kept_from_ms is None else kept_from_ms
        # Of the time before, windows may have been dropped whose span is still there: it proves nothing.
        vouched = [(max(start, kept), end) for start, end in _union([*self._delivered, *whole]) if end > kept]
        reconciled = _union(self._reconciled.get(entity, [])) if entity is not None else []
        cuts = _hours(from_ms, to_ms) if by == "hour" else _edges(from_ms, to_ms, vouched, reconciled, windows)
        slices = list(_slices(cuts, vouched, reconciled, windows))
        if by == "edges":
            slices = _joined(slices)
        return Report(
            stream=self.stream,
            from_ms=from_ms,
            to_ms=to_ms,
            label=max((each.label for each in slices), key=_RANK.__getitem__, default=Label.COMPLETE),
            slices=tuple(slices),
            open_windows=tuple(each for each in windows if each.open),
            schema_changes=tuple(each for each in self._schema_changes if from_ms <= each.at_ms < to_ms),
            proven_to_ms=self.proven_to_ms,
        )


def _window(value: Mapping[str, Json]) -> Window:
    closed = value["kind"] == "loss_closed"
    restored = value["restored"] or {}
    return Window(
        window_id=value["window_id"],
        stream=value["stream"],
        reason=value["reason"] or "",
        from_ms=_ms(value["from"]),
        to_ms=_ms(value["to"]),
        entity=value["entity"],
        record_ids=tuple(value["record_ids"]),
        closed_ms=value["ts_ms"] if closed else None,
        restored=frozenset(name for name, is_so in restored.items() if is_so is True) if closed else frozenset(),
        unrecoverable_fields=tuple(value["unrecoverable_fields"]) if closed else (),
        repaired_records=value["repaired_records"],
    )


def _slices(
    cuts: Iterable[Interval], vouched: Sequence[Interval], reconciled: Sequence[Interval], windows: Iterable[Window]
) -> Iterator[Slice]:
    """Yield the slices of ascending cuts; each looks only at the windows near it, because a year may have many."""
    coming = sorted(windows, key=lambda each: each.interval[0], reverse=True)
    near: list[Window] = []
    for cut in cuts:
        near = [each for each in near if each.interval[1] > cut[0]]
        while coming and coming[-1].interval[0] < cut[1]:
            near.append(coming.pop())
        yield _slice(cut, vouched, reconciled, near)


def _slice(
    cut: Interval, vouched: Sequence[Interval], reconciled: Sequence[Interval], windows: Iterable[Window]
) -> Slice:
    unproven = _without(cut, vouched)
    missing = [_missing(each) for each in windows if _meet(each.interval, cut) and each.label is not Label.COMPLETE]
    missing.sort(key=lambda each: (-_RANK[each.label], each.records is not None, each.window_id))
    label = Label.INCOMPLETE if unproven else missing[0].label if missing else Label.COMPLETE
    proof: Literal["delivered", "reconciled"] | None = None
    if not unproven:
        proof = "delivered" if _without(cut, reconciled) else "reconciled"
    return Slice(*cut, label, proof, tuple(missing), tuple(unproven))


def _missing(window: Window) -> Missing:
    return Missing(
        window_id=window.window_id,
        reason=window.reason,
        label=window.label,
        open=window.open,
        entity=window.entity,
        records=len(window.record_ids) or None,
        fields=window.missing_fields,
    )


def _joined(slices: Iterable[Slice]) -> list[Slice]:
    """Join neighbours of which the same is true."""
    joined: list[Slice] = []
    for each in slices:
        last = joined[-1] if joined else None
        if last is None or _told(last) != _told(each):
            joined.append(each)
            continue
        unproven = tuple(_union([*last.unproven, *each.unproven]))
        joined[-1] = Slice(last.from_ms, each.to_ms, last.label, last.proof, last.missing, unproven)
    return joined


def _told(each: Slice) -> tuple[object, ...]:
    return each.label, each.proof, each.missing, bool(each.unproven)


def _hours(from_ms: int, to_ms: int) -> list[Interval]:
    starts = [from_ms, *range(from_ms - from_ms % HOUR_MS + HOUR_MS, to_ms, HOUR_MS)]
    return list(zip(starts, [*starts[1:], to_ms], strict=True))


def _edges(
    from_ms: int, to_ms: int, vouched: Iterable[Interval], reconciled: Iterable[Interval], windows: Iterable[Window]
) -> list[Interval]:
    intervals = [*vouched, *reconciled, *(each.interval for each in windows)]
    inner = {edge for interval in intervals for edge in interval if from_ms < edge < to_ms}
    edges = [from_ms, *sorted(inner), to_ms]
    return list(pairwise(edges))


def _append(spans: list[Interval], span: Interval) -> None:
    """Add a span, as one with the last where they meet: a year has a million of them."""
    if spans and spans[-1][0] <= span[0] <= spans[-1][1]:
        spans[-1] = (spans[-1][0], max(spans[-1][1], span[1]))
    elif span[0] < span[1]:
        spans.append(span)


def _union(intervals: Iterable[Interval]) -> list[Interval]:
    joined: list[Interval] = []
    for each in sorted(intervals):
        _append(joined, each)
    return joined


def _without(cut: Interval, covered: Sequence[Interval]) -> list[Interval]:
    """Return the parts of ``cut`` that disjoint sorted intervals leave uncovered."""
    start, end = cut
    holes: list[Interval] = []
    first = max(bisect_right(covered, (start, _LATEST)) - 1, 0)
    for begin, until in islice(covered, first, None):
        if until <= start:
            continue
        if begin >= end:
            break
        if begin > start:
            holes.append((start, begin))
        start = until
    if start < end:
        holes.append((start, end))
    return holes


def _meet(one: Interval, other: Interval) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _ms(text: str | None) -> int | None:
    """Return a time of the contract as epoch milliseconds."""
    if text is None:
        return None
    return round(datetime.fromisoformat(text).timestamp() * 1000)
