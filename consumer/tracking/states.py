"""Where the tracker finds what is known, and puts what it learnt."""

from __future__ import annotations

from typing import Protocol

from consumer.tracking.access import AccessState
from consumer.tracking.values import Key, LedgerEntry, RecordState


class States(Protocol):
    """Record states, ledger entries and accesses: the committed ones and, over them, those of batches under way."""

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

    def access(self, key: Key) -> AccessState | None:
        """Return the known shares of a record, None if nothing is known of them."""
        ...

    def put_access(self, access: AccessState) -> None:
        """Replace them."""
        ...

    def remove_access(self, key: Key) -> None:
        """Forget them: a tombstone is written."""
        ...
