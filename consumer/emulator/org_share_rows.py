"""The share rows of the emulated org, found by record, by Id, and by time of change.

Two hundred thousand rows change by a few at a time while pages of them are read, so all three orders are kept and
none is made by sorting. Facts: Object Reference, "MessagingSessionShare". Pure.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Final

from consumer.emulator.record_ids import PREFIXES, numbered_id

OWNER: Final = "Owner"
RULE: Final = "Rule"
MANUAL: Final = "Manual"

_FIRST: Final = 41_000_000
_COMPACT_AFTER: Final = 2_000
_STILL: Final = 1 << 62


class ShareRow:
    """One row of MessagingSessionShare; never changed but for its end.

    Attributes:
        share_id: 18 characters; ids grow with time.
        parent_id: the session.
        grantee: UserOrGroupId.
        cause: RowCause.
        level: AccessLevel, ``Read``, ``Edit`` or ``All``.
        stamp_ms: LastModifiedDate, epoch milliseconds in whole seconds.
        by: LastModifiedById.
        hidden_until_ms: when a query finds it first, the org's time, epoch milliseconds; 0 for at once.
        gone_at: number of the change that removed it, or put a newer state of itself in its place. A query that has
            begun before goes on to find it.
    """

    __slots__ = ("by", "cause", "gone_at", "grantee", "hidden_until_ms", "level", "parent_id", "share_id", "stamp_ms")

    def __init__(
        self,
        share_id: str,
        parent_id: str,
        grantee: str,
        cause: str,
        level: str,
        stamp_ms: int,
        by: str,
        hidden_until_ms: int = 0,
    ) -> None:
        self.share_id = share_id
        self.parent_id = parent_id
        self.grantee = grantee
        self.cause = cause
        self.level = level
        self.stamp_ms = stamp_ms
        self.by = by
        self.hidden_until_ms = hidden_until_ms
        self.gone_at = _STILL

    @property
    def gone(self) -> bool:
        """Whether it is there no more, or not as this."""
        return self.gone_at != _STILL

    @property
    def key(self) -> tuple[str, str, str]:
        """Record, grantee and cause: what a share is identified by."""
        return self.parent_id, self.grantee, self.cause


class ShareRows:
    """All share rows.

    Attributes:
        count: how many there are.
        changes: how many rows were removed or replaced so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self.changes = 0
        self._made = _FIRST
        self._by_parent: dict[str, list[ShareRow]] = {}
        self._parents: list[str] = []
        self._ids: list[ShareRow] = []
        self._stamps: list[ShareRow] = []
        self._manual: dict[str, int] = {}

    def of(self, parent_id: str) -> tuple[ShareRow, ...]:
        """Return a record's rows by Id."""
        return tuple(self._by_parent.get(parent_id, ()))

    def has(self, parent_id: str) -> bool:
        """Return whether a record has any row."""
        return parent_id in self._by_parent

    def parents_with_manual(self) -> list[str]:
        """Return the records that have manual shares."""
        return list(self._manual)

    # Changes

    def add(
        self, parent_id: str, grantee: str, cause: str, level: str, now_ms: int, by: str, late_ms: int = 0
    ) -> ShareRow:
        """Make a row, under a new Id.

        Args:
            parent_id: the session.
            grantee: user or group.
            cause: RowCause.
            level: AccessLevel.
            now_ms: now, epoch milliseconds.
            by: user who did it.
            late_ms: how long queries don't find it.
        """
        self._made += 1
        share_id = numbered_id(PREFIXES["MessagingSessionShare"], self._made)
        row = ShareRow(
            share_id, parent_id, grantee, cause, level, now_ms // 1000 * 1000, by, late_ms and now_ms + late_ms
        )
        rows = self._by_parent.get(parent_id)
        if rows is None:
            self._by_parent[parent_id] = [row]
            self._remember(parent_id)
        else:
            rows.append(row)
        self._ids.append(row)
        self._stamp(row)
        if cause == MANUAL:
            self._manual[parent_id] = self._manual.get(parent_id, 0) + 1
        self.count += 1
        return row

    def change(self, row: ShareRow, level: str, now_ms: int, by: str) -> ShareRow:
        """Give a row another level, and a new time of change; it keeps its Id."""
        changed = ShareRow(
            row.share_id, row.parent_id, row.grantee, row.cause, level, now_ms // 1000 * 1000, by, row.hidden_until_ms
        )
        self._end(row)
        rows = self._by_parent[row.parent_id]
        rows[rows.index(row)] = changed
        self._ids[bisect_left(self._ids, row.share_id, key=_id)] = changed
        self._stamp(changed)
        self._compact()
        return changed

    def remove(self, row: ShareRow) -> None:
        """Remove a row for good."""
        self._end(row)
        rows = self._by_parent[row.parent_id]
        rows.remove(row)
        if row.cause == MANUAL:
            self._manual[row.parent_id] -= 1
            if not self._manual[row.parent_id]:
                del self._manual[row.parent_id]
        if not rows:
            del self._by_parent[row.parent_id]
        self.count -= 1
        self._compact()

    def _end(self, row: ShareRow) -> None:
        self.changes += 1
        row.gone_at = self.changes

    def _remember(self, parent_id: str) -> None:
        parents = self._parents
        if not parents or parents[-1] < parent_id:
            parents.append(parent_id)
            return
        place = bisect_left(parents, parent_id)
        if parents[place] != parent_id:
            parents.insert(place, parent_id)

    def _stamp(self, row: ShareRow) -> None:
        stamps = self._stamps
        if stamps and _time(stamps[-1]) > _time(row):
            insort(stamps, row, key=_time)
        else:
            stamps.append(row)

    def _compact(self) -> None:
        """Let go of removed rows once they may be half of all."""
        if max(len(self._ids), len(self._stamps)) > 2 * self.count + _COMPACT_AFTER:
            self._ids = [row for row in self._ids if row.gone_at == _STILL]
            self._stamps = [row for row in self._stamps if row.gone_at == _STILL]
            self._parents = [parent_id for parent_id in self._parents if parent_id in self._by_parent]

    # Orders

    def by_id(self, low: str | None = None, high: str | None = None) -> list[ShareRow]:
        """Return rows with Ids within bounds, by Id; removed ones can be among them."""
        begin = 0 if low is None else bisect_left(self._ids, low, key=_id)
        end = len(self._ids) if high is None else bisect_right(self._ids, high, key=_id)
        return self._ids[begin:end]

    def by_time(self, low: float, high: float) -> list[ShareRow]:
        """Return rows with ``low <= stamp_ms <= high`` by (stamp, Id); removed ones can be among them."""
        begin = bisect_left(self._stamps, low, key=_stamp)
        return self._stamps[begin : bisect_right(self._stamps, high, lo=begin, key=_stamp)]

    def by_parent(self, low: str | None = None, high: str | None = None) -> Iterator[ShareRow]:
        """Yield rows of records within bounds, by (record, Id), each record's as they are when it comes to it."""
        begin = 0 if low is None else bisect_left(self._parents, low)
        end = len(self._parents) if high is None else bisect_right(self._parents, high)
        for parent_id in self._parents[begin:end]:
            yield from self.of(parent_id)


def _id(row: ShareRow) -> str:
    return row.share_id


def _stamp(row: ShareRow) -> int:
    return row.stamp_ms


def _time(row: ShareRow) -> tuple[int, str]:
    return row.stamp_ms, row.share_id
