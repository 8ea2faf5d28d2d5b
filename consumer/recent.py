"""Which events were seen already: repeats are recognised by event id and by nothing else."""

from __future__ import annotations

from collections.abc import Iterable


class RecentEvents:
    """Ids of events committed before this generation, and a bounded memory of those seen since.

    Args:
        restored: ids read back from Kafka; never forgotten in this generation.
        capacity: how many further ids are remembered, the oldest forgotten first.
    """

    def __init__(self, restored: Iterable[str] = (), capacity: int = 50_000) -> None:
        self._restored = frozenset(restored)
        self._seen: dict[str, None] = {}
        self._capacity = capacity

    def is_repeat(self, event_id: str) -> bool:
        """Return whether the id was seen before, and remember it."""
        if event_id in self._restored or event_id in self._seen:
            return True
        self._seen[event_id] = None
        if len(self._seen) > self._capacity:
            del self._seen[next(iter(self._seen))]
        return False
