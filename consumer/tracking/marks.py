"""What events did to records while reads are on their way, so that an older row does not undo it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from consumer.tracking.values import Key

MAX_TOUCHED = 500_000
"""Records remembered at most; beyond, the oldest read is given up: its rows then prove less."""

NEVER = -(1 << 62)
"""Before every commit time."""


@dataclass(slots=True)
class Touch:
    """What events did to one record; times are commit times, epoch milliseconds.

    Attributes:
        paths: fields, or parts of compounds, that events set, and when.
        whole_ms: when the record was created, deleted or undeleted.
        gap_ms: when a gap event put it in doubt.
        read: newest mark whose row was taken in.
    """

    paths: dict[str, int] = field(default_factory=dict)
    whole_ms: int = NEVER
    gap_ms: int = NEVER
    read: int = 0

    @property
    def last_ms(self) -> int:
        """When it was touched last."""
        return max(self.whole_ms, self.gap_ms, *self.paths.values())

    @property
    def by_event(self) -> bool:
        """Whether an event touched it, not only a row."""
        return self.last_ms > NEVER

    def add(self, other: Touch) -> None:
        """Add what was done later."""
        self.paths.update(other.paths)
        self.whole_ms = max(self.whole_ms, other.whole_ms)
        self.gap_ms = max(self.gap_ms, other.gap_ms)
        self.read = max(self.read, other.read)


class ReadMarks:
    """Marks of reads that are under way, and what events touched since each.

    Args:
        max_touched: records remembered at most.
    """

    __slots__ = ("_max_touched", "_now", "_open", "_size", "_touches")

    def __init__(self, max_touched: int = MAX_TOUCHED) -> None:
        self._max_touched = max_touched
        self._now = 0
        self._size = 0
        self._open: dict[int, None] = {}
        self._touches: dict[int, dict[Key, Touch]] = {}

    @property
    def any_open(self) -> bool:
        """Whether a read is under way."""
        return bool(self._open)

    @property
    def touched(self) -> int:
        """How many touches are remembered."""
        return self._size

    def begin(self) -> int:
        """Return a new mark: everything touched from now on is after it."""
        self._now += 1
        self._open[self._now] = None
        return self._now

    def end(self, mark: int) -> None:
        """Forget a mark, and what only it needed."""
        self._open.pop(mark, None)
        oldest = next(iter(self._open), self._now + 1)
        for stamp in [stamp for stamp in self._touches if stamp < oldest]:
            self._size -= len(self._touches.pop(stamp))

    def is_open(self, mark: int) -> bool:
        """Return whether everything touched since the mark is still remembered."""
        return mark in self._open

    def others_open(self, mark: int) -> bool:
        """Return whether another read than this one is under way."""
        return len(self._open) > (mark in self._open)

    def set_fields(self, key: Key, paths: Iterable[str], commit_ms: int) -> None:
        """Remember that an event set these fields."""
        self._touch(key).paths.update(dict.fromkeys(paths, commit_ms))

    def replaced(self, key: Key, commit_ms: int) -> None:
        """Remember that an event created, deleted or undeleted the record."""
        self._touch(key).whole_ms = commit_ms

    def doubted(self, key: Key, commit_ms: int) -> None:
        """Remember that a gap put the record in doubt."""
        self._touch(key).gap_ms = commit_ms

    def taken(self, key: Key, mark: int) -> None:
        """Remember that the row of a read was taken in."""
        self._touch(key).read = mark

    def since(self, mark: int, key: Key) -> Touch | None:
        """Return what events did to a record since a mark, None for nothing."""
        found: Touch | None = None
        for stamp, touches in self._touches.items():
            touch = touches.get(key) if stamp >= mark else None
            if touch is not None:
                found = found or Touch()
                found.add(touch)
        return found

    def _touch(self, key: Key) -> Touch:
        touches = self._touches.setdefault(self._now, {})
        touch = touches.get(key)
        if touch is None:
            touch = touches[key] = Touch()
            self._size += 1
            if self._size > self._max_touched:
                self.end(next(iter(self._open)))
        return touch
