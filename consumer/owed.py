"""Reads that records are owed, in their ledger entries: of the record itself, and of its share rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from consumer.companions import Companions
from consumer.tracking import refresh
from consumer.tracking.changes import TrackedChange
from consumer.tracking.sharing import SharingTracker
from consumer.tracking.states import States
from consumer.tracking.values import EntityFacts, Key, LedgerEntry, Refresh


class Owed:
    """Notes what is owed, and what no longer is.

    Args:
        states: what is known of records.
        companions: what of sharing is wanted.
        refresh_after_ms: how long after its end a session is read again, milliseconds.
    """

    __slots__ = ("_companions", "_refresh_after_ms", "_states")

    def __init__(self, states: States, companions: Companions, refresh_after_ms: int) -> None:
        self._states = states
        self._companions = companions
        self._refresh_after_ms = refresh_after_ms

    def by_change(
        self, entity: str, tracked: TrackedChange, facts: EntityFacts, user: str | None, *, event: bool
    ) -> None:
        """Note the reads that a change makes due.

        Args:
            entity: object API name.
            tracked: what became of the record.
            facts: what is known of the object.
            user: who made the change, None if that is not known.
            event: whether an event told it, not a row.
        """
        key = (entity, tracked.record_id)
        state = self._states.get(key)
        wanting = refresh.may_be_due(entity, state, facts)
        shared = self._companions.concerned(entity, tracked, facts)
        if not (wanting or shared):
            return
        entry = self._states.ledger(key) or LedgerEntry(*key)
        owed, shares = entry.refresh, entry.shares
        if wanting:
            after = self._refresh_after_ms
            owed = refresh.after_event(entity, tracked, state, after, facts=facts, owed=owed) or owed
        if shared:
            shares = SharingTracker.owed(tracked, shares, user, event=event) or shares
        if owed is not entry.refresh or shares is not entry.shares:
            self._states.put_ledger(LedgerEntry(*key, entry.facts, owed, shares, entry.feed))

    def by_doubt(self, key: Key, due_ms: int) -> None:
        """Note a read of a record whose image is in doubt, unless one is due already; epoch milliseconds."""
        entry = self._states.ledger(key) or LedgerEntry(*key)
        if entry.refresh is None:
            self._states.put_ledger(replace(entry, refresh=Refresh(due_ms, 0, "unknown")))

    def read(self, key: Key, answered_ms: int, *, have_metrics: bool | None) -> None:
        """Take note that a record was read.

        Args:
            key: the record.
            answered_ms: when, epoch milliseconds.
            have_metrics: whether its metrics were there; None if they were not asked for.
        """
        entry = self._states.ledger(key)
        if entry is not None and entry.refresh is not None:
            left = refresh.after_read(entry.refresh, answered_ms, have_metrics=have_metrics)
            self._states.put_ledger(replace(entry, refresh=left))

    def forget_feed(self, entity: str, record_ids: Iterable[str]) -> None:
        """Remove the feed items that no poll can bring again from the entries of records."""
        for record_id in record_ids:
            entry = self._states.ledger((entity, record_id))
            if entry is not None and entry.feed:
                settled = self._companions.settled(entry)
                if len(settled.feed) < len(entry.feed):
                    self._states.put_ledger(settled)
