"""Where the tracker finds what is known, and puts what it learnt."""

from __future__ import annotations

from typing import Protocol

from consumer.tracking.values import Key, LedgerEntry, RecordState


class States(Protocol):
    """Record states and ledger entries: the committed ones and, over them, those of batches under way."""

    def get(self, key: Key) -> RecordState | None:
        """Return the newest state of a record, None if nothing is known of it."""
        ...

    def put(self, state: RecordState) -> None:
        """Replace a record's state."""
        ...

    def remove(self, key: Key) -> None:
        """Remove a record's state: a tombstone is written."""
        ...

    def ledger(self, key: Key) -> LedgerEntry | None:
        """Return what the pollers remember of a record, None for nothing."""
        ...

    def put_ledger(self, entry: LedgerEntry) -> None:
        """Replace it; an empty one is removed."""
        ...
