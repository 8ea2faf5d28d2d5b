"""Between which times share rows that were read say that something happened."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from consumer.tracking.access import OWNER, AccessState, KnownShare, ShareRow, SharesDue
from consumer.tracking.arrivals import SharesRead

SECOND_MS: Final = 1_000
"""Commit times have whole seconds."""


READINGS: Final = 3
"""So many readings, each a settle time after the one before, prove what none of them shows: two recalculations can
follow one another, and two readings can each meet one that has just taken a row away."""

_ANSWER_MS: Final = 15_000
"""How long the answer to a question about one record can take: of those only the time of asking is kept."""


class Reading(NamedTuple):
    """Something that was read, epoch milliseconds of the org's time.

    Attributes:
        begun_ms: what it says of any record is at least as new.
        ended_ms: and no newer than this, when it was through.
    """

    begun_ms: int
    ended_ms: int


def spaced(readings: Iterable[Reading], settle_ms: int) -> list[Reading]:
    """Return the newest readings that are a settle time apart, the newest first, as many as prove something."""
    picked: list[Reading] = []
    for each in sorted(readings, reverse=True):
        if not picked or each.ended_ms <= picked[-1].begun_ms - settle_ms:
            picked.append(each)
    return picked[:READINGS]


def kept(readings: Iterable[Reading], newest: Reading, settle_ms: int) -> tuple[Reading, ...]:
    """Return the readings to remember, once one is taken in: as many that are apart as prove something, and the newest.

    Args:
        readings: those remembered so far, the newest last.
        newest: the one taken in.
        settle_ms: how far apart they are to be.
    """
    before = list(readings)
    if len(before) > 1 and before[-1].begun_ms < before[-2].ended_ms + settle_ms:
        before.pop()
    return (*before, newest)[-READINGS - 1 :]


def contains(read: SharesRead, commit_ms: int) -> bool:
    """Return whether a read surely shows what was committed at a time; commit times have whole seconds."""
    return commit_ms + SECOND_MS <= read.asked_ms


class Readings(NamedTuple):
    """What was read of an object as a whole.

    Attributes:
        sweeps: the last complete ones, the newest last.
        polls: the last incremental ones, the newest last.
        overlap_ms: how far a poll reaches back.
        settle_ms: how far apart readings are that prove together what none proves alone.
    """

    sweeps: tuple[Reading, ...]
    polls: tuple[Reading, ...]
    overlap_ms: int
    settle_ms: int

    def polls_of(self, row: ShareRow) -> list[Reading]:
        """Return the polls that would have seen a row, had it been there."""
        if row.modified_ms is None:
            return []
        return [each for each in self.polls if row.modified_ms >= each.begun_ms - self.overlap_ms]


class Known(NamedTuple):
    """What is known of a record.

    Attributes:
        owner: as events tell it, None if nobody knows.
        created_ms: CreatedDate, epoch milliseconds; None if it may not be read or is not known yet.
    """

    owner: str | None = None
    created_ms: int | None = None


class Bounds:
    """Between which times what a read of one record tells can have happened.

    Args:
        before: what was known of the record's shares.
        due: the read that was owed.
        readings: what was read of the object.
        known: returns what is known of the record's owner and creation; asked only where it matters, because its
            state is mostly not in memory.
    """

    __slots__ = ("_before", "_due", "_known", "_readings")

    def __init__(
        self, before: AccessState | None, due: SharesDue | None, readings: Readings, known: Callable[[], Known]
    ) -> None:
        self._before = before
        self._due = due
        self._readings = readings
        self._known = known

    @property
    def due(self) -> SharesDue | None:
        """The read that was owed."""
        return self._due

    @property
    def whole_ms(self) -> int | None:
        """When all shares of the record were last known, None if they never were."""
        return max([*(each.begun_ms for each in self._wholes()), *self._created()], default=None)

    def _wholes(self) -> list[Reading]:
        sweeps, before = self._readings.sweeps, self._before
        if before is None or not before.complete:
            return list(sweeps)
        # What is known of the record may be from a sweep, which then is no reading beside it.
        others = [each for each in sweeps if not each.begun_ms <= before.as_of_ms <= each.ended_ms]
        return [*others, Reading(before.as_of_ms, before.as_of_ms + _ANSWER_MS)]

    def _created(self) -> list[int]:
        due = self._due
        complete = self._before is not None and self._before.complete
        return [] if complete or due is None or not due.created or due.first_ms is None else [due.first_ms]

    def seen_ms(self, share: KnownShare) -> int:
        """Return the latest time at which a share was there for certain."""
        if share.missing_ms is not None:
            return share.seen_ms
        before = self._before
        complete_ms = before.as_of_ms if before is not None and before.complete else 0
        return max(share.seen_ms, complete_ms, *(each.begun_ms for each in self._readings.sweeps))

    def of_grant(self, row: ShareRow, answered_ms: int) -> tuple[int | None, int]:
        """Return the interval in which a share that was not there came to be."""
        start = self._absent_ms(row)
        due = self._due
        if row.row_cause != OWNER or start is None or due is None or due.last_ms is None:
            return self._ordered(start, answered_ms)
        if due.last_ms >= start - SECOND_MS and row.user_or_group_id == self._known().owner:
            # Whether a row is there with the commit, or some moments later, is not documented.
            start = max(start, due.last_ms)
        return self._ordered(start, answered_ms)

    def of_level(self, share: KnownShare, row: ShareRow, answered_ms: int) -> tuple[int | None, int]:
        """Return the interval in which a share's level changed; one that was missed may have been away in it."""
        if share.missing_ms is not None:
            return self._ordered(share.seen_ms, answered_ms)
        # Polls that saw nothing new may have come when the row was away.
        unchanged = spaced(self._readings.polls_of(row), self._readings.settle_ms)[READINGS - 1 :]
        return self._ordered(max([self.seen_ms(share), *(each.begun_ms for each in unchanged)]), answered_ms)

    def of_loss(self, share: KnownShare, answered_ms: int) -> tuple[int, int]:
        """Return the interval in which a share went that an answer misses; an owner's goes with an owner change."""
        start = self.seen_ms(share)
        due = self._due
        if share.row_cause == OWNER and due is not None and due.first_ms is not None:
            start = max(start, due.first_ms)
        return start, max(answered_ms, start)

    def _absent_ms(self, row: ShareRow) -> int | None:
        """Return when a share was not there for certain, None if that was never seen.

        A poll brings what was modified lately: it proves nothing of a record that was never read whole before.
        Recalculations leave owners' rows alone, so that one reading suffices for those; the one before the newest is
        taken where there is one, because a row can be committed some moments later than its stamp says.
        """
        wholes, before = self._wholes(), self._before
        looked_ms = min((each.ended_ms for each in wholes), default=0)
        polls = [each for each in self._readings.polls_of(row) if wholes and each.begun_ms >= looked_ms]
        readings = spaced([*wholes, *polls], self._readings.settle_ms)
        proven = readings[READINGS - 1 :]
        if row.row_cause == OWNER:
            proven = readings[1:2] or readings
        found = max([*self._created(), *(each.begun_ms for each in proven)], default=None)
        if found is None and before is not None and before.complete:
            # It was not in the first reading, and is not what there always was: as old as the record at most.
            return self._known().created_ms
        return found

    @staticmethod
    def _ordered(start: int | None, end: int) -> tuple[int | None, int]:
        return start, end if start is None else max(start, end)
