"""When a transaction is cut: by count, bytes or age, and never inside one source event."""

from __future__ import annotations


class BatchCutter:
    """Counts what a batch holds and says when to cut it; the clock's reading is passed in.

    One call of :meth:`add` is one stream item with all its records, so a cut never falls inside an event.
    Use::

        if not cutter.fits(records, size):   # commit what is there first
            ...; cutter.restart()
        cutter.add(records, size, now_ms)
        if cutter.due(now_ms):
            ...; cutter.restart()

    Args:
        max_records: records after which a batch is full.
        max_bytes: key and value bytes after which it is full; None for no such limit.
        max_age_ms: milliseconds after its first item when it is due; None for no such limit, so that a replay
            cuts the same batches every time.
    """

    __slots__ = ("_bytes", "_items", "_max_age_ms", "_max_bytes", "_max_records", "_records", "_since_ms")

    def __init__(self, max_records: int, max_bytes: int | None, max_age_ms: int | None) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._max_age_ms = max_age_ms
        self.restart()

    def restart(self) -> None:
        """Begin a new, empty batch."""
        self._items = 0
        self._records = 0
        self._bytes = 0
        self._since_ms = 0

    @property
    def empty(self) -> bool:
        """Whether nothing was added since the last restart, not even a keep-alive."""
        return self._items == 0

    @property
    def full(self) -> bool:
        """Whether count or bytes ask for a cut now."""
        return self._records >= self._max_records or (self._max_bytes is not None and self._bytes >= self._max_bytes)

    def fits(self, records: int, size: int) -> bool:
        """Return whether an item of this many records and bytes still fits; an empty batch takes any item."""
        if self._items == 0:
            return True
        return self._records + records <= self._max_records and (
            self._max_bytes is None or self._bytes + size <= self._max_bytes
        )

    def add(self, records: int, size: int, now_ms: int) -> None:
        """Count one item: a whole source event, or a keep-alive (no records, but its position ages too)."""
        if self._items == 0:
            self._since_ms = now_ms
        self._items += 1
        self._records += records
        self._bytes += size

    def due(self, now_ms: int) -> bool:
        """Return whether to cut now."""
        return self._items > 0 and (self.full or self.wait_ms(now_ms) == 0)

    def wait_ms(self, now_ms: int) -> int | None:
        """Return the milliseconds until age asks for a cut; None when it never will, as with an empty batch.

        A clock set back makes a batch due at most one ``max_age_ms`` later.
        """
        if self._items == 0 or self._max_age_ms is None:
            return None
        self._since_ms = min(self._since_ms, now_ms)
        return max(0, self._since_ms + self._max_age_ms - now_ms)
