"""A cache bounded by count and by bytes; what was used longest ago goes first."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from consumer.tracking.values import Key

T = TypeVar("T")


class Lru(Generic[T]):
    """Values by key, and keys known to have none.

    Args:
        max_entries: most entries.
        max_bytes: most bytes of all entries, as their sizes were told.
    """

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Key, tuple[T | None, int]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """Bytes of all entries, as their sizes were told."""
        return self._bytes

    def __contains__(self, key: Key) -> bool:
        return key in self._entries

    def __getitem__(self, key: Key) -> T | None:
        """Return the value, None for a key known to have none.

        Raises:
            KeyError: nothing is known of the key.
        """
        found = self._entries[key]
        self._entries.move_to_end(key)
        return found[0]

    def put(self, key: Key, value: T | None, size: int) -> None:
        """Remember a value of so many bytes, or that there is none."""
        entries = self._entries
        old = entries.get(key)
        entries[key] = (value, size)
        if old is None:
            self._bytes += size
        else:
            entries.move_to_end(key)
            self._bytes += size - old[1]
        while entries and (len(entries) > self._max_entries or self._bytes > self._max_bytes):
            self._bytes -= entries.popitem(last=False)[1][1]

    def forget(self, key: Key) -> None:
        """Forget what is known of a key."""
        old = self._entries.pop(key, None)
        if old is not None:
            self._bytes -= old[1]

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._bytes = 0
