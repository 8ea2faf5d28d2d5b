"""Feed items as read become facts: created, changed, removed; each once, however often a poll's overlap brings it.

What was told lately stands in the record's ledger entry. An item that is not there was never told if it was created
after the time up to which everything had been read; else its telling is only no longer remembered.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from consumer.tracking.arrivals import FeedRead
from consumer.tracking.feed_values import FeedFact, FeedItem, FeedSeen
from consumer.tracking.states import States
from consumer.tracking.values import Key, LedgerEntry

FEED_POLL: Final = "poll:feed:"
"""Name of how far the polls of a feed got, before the object; state: ``complete_to_ms`` and what the poll adds."""


class FeedTracker:
    """Tells the feed items of a channel's objects; pure and synchronous.

    Args:
        states: where ledger entries are found and put.
        overlap_ms: how far each poll reaches back.
    """

    def __init__(self, states: States, *, overlap_ms: int) -> None:
        self._states = states
        self._overlap_ms = overlap_ms
        self._complete_ms: dict[str, int] = {}

    def restore(self, entity: str, complete_to_ms: int) -> None:
        """Take in how far the polls of an object had got, epoch milliseconds of the org's time."""
        self._complete_ms[entity] = complete_to_ms

    def on_read(self, read: FeedRead) -> list[FeedFact]:
        """Take in items and return what they tell."""
        told: list[FeedFact] = []
        by_key: dict[Key, list[FeedItem]] = {}
        for item in read.items:
            by_key.setdefault((read.entity, item.record_id or item.item_id), []).append(item)
        for key, items in by_key.items():
            told += self._on_record(key, items, read)
        if read.complete_to_ms is not None:
            self._complete_ms[read.entity] = max(read.complete_to_ms, self._complete_ms.get(read.entity, 0))
        return told

    def _on_record(self, key: Key, items: list[FeedItem], read: FeedRead) -> list[FeedFact]:
        entry = self._states.ledger(key) or LedgerEntry(*key)
        seen = {each.item_id: each for each in entry.feed}
        told: list[FeedFact] = []
        for item in items:
            facts = self._facts(item, seen.get(item.item_id), read)
            if facts:
                told += facts
                seen[item.item_id] = FeedSeen(item.item_id, item.stamp_ms, item.deleted)
        if told:
            self._states.put_ledger(replace(entry, feed=tuple(seen.values())))
        return told

    def _facts(self, item: FeedItem, seen: FeedSeen | None, read: FeedRead) -> list[FeedFact]:
        if seen is not None and (seen.removed or (not item.deleted and item.stamp_ms <= seen.stamp_ms)):
            return []
        untold = seen is None and item.created_ms is not None and item.created_ms >= self._told_from(read.entity)
        kinds: list[str] = ["created"] if untold else [] if item.deleted else ["changed"]
        if item.deleted:
            kinds.append("removed")
        return [
            FeedFact(
                fact_id=f"feed:{item.item_id}:{kind}:{item.created_ms if kind == 'created' else item.stamp_ms}",
                kind=kind,  # type: ignore[arg-type]  # one of three, given above
                item=item,
                observed_ms=read.answered_ms,
                backfill=read.backfill,
            )
            for kind in kinds
        ]

    def _told_from(self, entity: str) -> int:
        """Return since when an item that is not remembered was never told."""
        return self._complete_ms.get(entity, 0) - self._overlap_ms

    def settled(self, entry: LedgerEntry) -> LedgerEntry:
        """Return an entry without the items that no poll can bring again."""
        if not entry.feed:
            return entry
        reach_ms = self._told_from(entry.entity)
        return replace(entry, feed=tuple(each for each in entry.feed if each.stamp_ms >= reach_ms))
