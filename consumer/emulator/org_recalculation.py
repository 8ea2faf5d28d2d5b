"""Recalculations of sharing: what a change of a rule, group, role or default sets off, long after it.

Facts (sharing guide, "Sharing Recalculation"; Help 005103630): they run in the background, in parallel, and make
rows anew under other Ids even where nothing changes. Pure.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RecalculationSettings:
    """How recalculations go; all times are the org's.

    Attributes:
        delay_s: least and most seconds until one begins.
        duration_s: least and most seconds it takes.
        recreate: share of the records concerned whose rows are made anew although nothing changes.
        gap_s: longest time, seconds, that such a row is away between its old and its new Id; 0 for none.
        late: share of new rows that queries find only 3 to 120 seconds after their LastModifiedDate.
    """

    delay_s: tuple[float, float] = (2.0, 20.0)
    duration_s: tuple[float, float] = (5.0, 30.0)
    recreate: float = 0.5
    gap_s: float = 0.0
    late: float = 0.0


@dataclass(slots=True)
class Recalculation:
    """One that is ordered or under way.

    Attributes:
        start_ms: when it begins, epoch milliseconds.
        end_ms: when it has done its last record.
        owners: whose records it is about; None for all.
        by: user the new rows are of.
        recreate: as in the settings.
        records: the records, None until it has begun.
        place: how many of them are done.
    """

    start_ms: int
    end_ms: int
    owners: frozenset[str] | None
    by: str
    recreate: float
    records: list[str] | None = None
    place: int = 0

    def target(self, now_ms: int) -> int:
        """Return how many records are to be done by now."""
        if self.records is None or now_ms < self.start_ms:
            return 0
        if now_ms >= self.end_ms:
            return len(self.records)
        return len(self.records) * (now_ms - self.start_ms) // (self.end_ms - self.start_ms)

    def done(self, now_ms: int) -> bool:
        """Return whether nothing is left to do."""
        return self.records is not None and self.place == len(self.records) and now_ms >= self.end_ms


@dataclass(slots=True)
class Pending:
    """All recalculations that are not over, and rows that are to come back."""

    jobs: list[Recalculation] = field(default_factory=list)
    _returns: list[tuple[int, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.jobs or self._returns)

    def is_due(self, now_ms: int) -> bool:
        """Return whether there may be something to do."""
        if self._returns and self._returns[0][0] <= now_ms:
            return True
        return any(job.start_ms <= now_ms for job in self.jobs)

    def returns_at(self, due_ms: int, parent_id: str) -> None:
        """Take note that rows of a record come back at a time."""
        heapq.heappush(self._returns, (due_ms, parent_id))

    def take_return(self, now_ms: int) -> str:
        """Return a record whose rows come back by now, empty if there is none."""
        if not self._returns or self._returns[0][0] > now_ms:
            return ""
        return heapq.heappop(self._returns)[1]
