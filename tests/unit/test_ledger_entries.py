"""One ledger entry holds what several readers must remember of a record; none of them loses another's."""

from __future__ import annotations

from consumer.tracking.access import ShareCause, SharesDue
from consumer.tracking.arrivals import HistoryRead
from consumer.tracking.feed_values import FeedSeen
from consumer.tracking.history import HistoryTracker
from consumer.tracking.values import EntityFacts, HistoryRow, LedgerEntry, Refresh
from tests.sharing_values import SharingStates
from tests.store_values import ENTITY, key, record_id


def test_history_leaves_what_else_the_ledger_remembers() -> None:
    """Reads that are owed, and feed items that were told, stand in the same entry."""
    states = SharingStates()
    shares = SharesDue(5, ShareCause.OWNER_CHANGE)
    feed = (FeedSeen("0D5000000000001AAA", 7),)
    states.put_ledger(LedgerEntry(ENTITY, record_id(1), refresh=Refresh(9, 0, "ended"), shares=shares, feed=feed))
    tracker = HistoryTracker(states, confirm_within_ms=1_000, overlap_ms=1_000)
    row = HistoryRow(
        "017000000000001AAA", record_id(1), "Status", "Text", "New", "Active", 1_000_000, "005000000000001AAA"
    )
    facts = EntityFacts(ENTITY, tracked=frozenset({"Status"}), has_history=True)
    tracker.on_rows(HistoryRead(ENTITY, (row,), 2_000_000, 2_000_000), facts)
    entry = states.ledger(key(1))
    assert entry is not None
    assert entry.facts
    assert (entry.shares, entry.feed, entry.refresh) == (shares, feed, Refresh(9, 0, "ended"))
    tracker.settle(ENTITY, [key(1)], complete_to_ms=9_000_000, stream_to_ms=9_000_000, now_ms=9_000_000, facts=facts)
    entry = states.ledger(key(1))
    assert entry is not None
    assert not entry.facts
    assert (entry.shares, entry.feed, entry.refresh) == (shares, feed, Refresh(9, 0, "ended"))
