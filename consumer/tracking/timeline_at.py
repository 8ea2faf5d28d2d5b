"""The image of one record at a time that has passed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from consumer.events import Json
from consumer.tracking.coverage_report import Label, Window
from consumer.tracking.timeline import Timeline
from consumer.tracking.timeline_values import Change

Why = Literal["not_created", "deleted", "before_retention", "loss_window", "nothing_known"]


@dataclass(frozen=True, slots=True)
class ImageAt:
    """What a record was at a time.

    Attributes:
        known: whether Kafka tells it.
        image: the fields whose values were known then; None when nothing is known or the record was not there.
        unknown_fields: fields that had a value nobody told.
        as_of_ms: time of the change that made it so, None when that one is no longer kept.
        change_id: of that change.
        why: why there is no image; ``not_created`` and ``deleted`` are knowledge, the others are the lack of it.
        window_id: the loss window that hides it.
    """

    at_ms: int
    known: bool
    image: Mapping[str, Json] | None = None
    unknown_fields: tuple[str, ...] = ()
    as_of_ms: int | None = None
    change_id: str | None = None
    why: Why | None = None
    window_id: str | None = None


def image_at(timeline: Timeline, at_ms: int, kept_from_ms: int | None) -> ImageAt:
    """Return the record's image at a time.

    Args:
        timeline: what is known of the record.
        at_ms: the time, epoch milliseconds; a change of that very second counts as done.
        kept_from_ms: timestamp of the oldest record in the record's partition of ``changes``: whatever changed since
            then is kept. None when the partition is empty.
    """
    moved = [change for change in timeline.changes if not change.late]
    until = [change for change in moved if change.stamp_ms <= at_ms]
    hidden = _hiding(timeline.windows, until, at_ms)
    if timeline.created_ms is not None and at_ms < timeline.created_ms:
        return ImageAt(at_ms, known=True, why="not_created")
    if hidden is not None:
        return ImageAt(at_ms, known=False, why="loss_window", window_id=hidden.window_id)
    if until:
        return _after(until[-1], timeline.changes, at_ms)
    if kept_from_ms is None or at_ms < kept_from_ms:
        return ImageAt(at_ms, known=False, why="before_retention")
    return _before_first(moved, timeline, at_ms)


def _after(newest: Change, changes: Iterable[Change], at_ms: int) -> ImageAt:
    if newest.after is None:
        return ImageAt(at_ms, known=True, as_of_ms=newest.stamp_ms, change_id=newest.change_id, why="deleted")
    image = dict(newest.after)
    told = newest
    for late in changes:
        # A late event was not put into an image, because a newer row was there before it.
        if late.late and newest.stamp_ms < late.stamp_ms <= at_ms:
            _overlay(image, late.late_values)
            told = late
    unknown = tuple(name for name in newest.unknown if name not in image)
    return ImageAt(
        at_ms, known=True, image=image, unknown_fields=unknown, as_of_ms=told.stamp_ms, change_id=told.change_id
    )


def _overlay(image: dict[str, Json], values: Mapping[str, Json]) -> None:
    for name, value in values.items():
        known = image.get(name)
        image[name] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value


def _before_first(moved: Sequence[Change], timeline: Timeline, at_ms: int) -> ImageAt:
    """The first change that is kept came later, and none was dropped in between: it tells what was before it."""
    if moved:
        first = moved[0]
        if first.before is None or len(first.before) < 2:
            return ImageAt(at_ms, known=False, why="nothing_known")
        names = dict.fromkeys((*(first.after or {}), *first.unknown))
        unknown = tuple(name for name in names if name not in first.before)
        return ImageAt(at_ms, known=True, image=first.before, unknown_fields=unknown)
    state = timeline.state
    if state is None or state.stale:
        return ImageAt(at_ms, known=False, why="nothing_known")
    if state.deleted:
        return ImageAt(at_ms, known=True, why="deleted")
    return ImageAt(at_ms, known=True, image=state.image, unknown_fields=state.unknown)


def _hiding(windows: Iterable[Window], until: Sequence[Change], at_ms: int) -> Window | None:
    """Return a loss window because of which the newest change may not be what was true at the time."""
    newest = until[-1] if until else None
    for window in windows:
        start, end = window.interval
        if at_ms < start or window.label is Label.COMPLETE:
            continue
        if newest is not None and newest.row and at_ms <= newest.received_ms:
            continue  # nothing changed between a row's SystemModstamp and its reading
        restored = window.label is Label.STATE_COMPLETE
        if at_ms < end or not (restored or _told_behind(window, end, until)):
            return window
    return None


def _told_behind(window: Window, end_ms: int, until: Sequence[Change]) -> bool:
    """Return whether something behind the window's end told the whole record, or at least what is unknown of it."""
    if window.record_ids and until and until[-1].stamp_ms >= end_ms:
        return True  # its unknown_fields name what the window left in doubt
    return any(each.received_ms >= end_ms if each.row else each.op == "c" and each.stamp_ms >= end_ms for each in until)
