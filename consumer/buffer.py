"""The bounded buffer between the stream and the pipeline; its free room is what credits are granted for."""

from __future__ import annotations

import asyncio
from collections import deque

from consumer.events import Keepalive, ReceivedEvent, StreamItem


class EventBuffer:
    """A queue of stream items, bounded by events and by payload bytes.

    One task puts, one task takes. Putting never waits: room is promised beforehand, by credits.

    Args:
        max_events: how many events fit.
        max_bytes: payload bytes after which no more room is promised (one promise of credits can overshoot).
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self._items: deque[StreamItem] = deque()
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._events = 0
        self._bytes = 0
        self._closed = False
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()

    @property
    def events(self) -> int:
        """Events waiting."""
        return self._events

    @property
    def room(self) -> int:
        """Events that may still be promised room, counting what is outstanding as not yet here."""
        if self._bytes >= self._max_bytes:
            return 0
        return max(0, self._max_events - self._events)

    def put(self, item: StreamItem) -> None:
        """Append an item; a keep-alive replaces one that is already last."""
        if isinstance(item, ReceivedEvent):
            self._events += 1
            self._bytes += len(item.payload)
        elif self._items and isinstance(self._items[-1], Keepalive):
            self._items.pop()
        self._items.append(item)
        self._filled.set()

    def take(self, limit: int) -> list[StreamItem]:
        """Remove and return up to ``limit`` items, oldest first."""
        taken: list[StreamItem] = []
        while self._items and len(taken) < limit:
            item = self._items.popleft()
            if isinstance(item, ReceivedEvent):
                self._events -= 1
                self._bytes -= len(item.payload)
            taken.append(item)
        if not self._items and not self._closed:
            self._filled.clear()
        if taken:
            self._drained.set()
        return taken

    @property
    def closed(self) -> bool:
        """Whether nothing will be put any more."""
        return self._closed

    def close(self) -> None:
        """Say that nothing will be put any more; wakes the taker."""
        self._closed = True
        self._filled.set()

    def poke(self) -> None:
        """Wake the taker although nothing was put: something else waits for it."""
        self._filled.set()

    async def wait_filled(self) -> None:
        """Return as soon as there is an item, the buffer is closed, or the taker was poked."""
        await self._filled.wait()

    async def wait_drained(self) -> None:
        """Return as soon as something has been taken since the last call."""
        await self._drained.wait()
        self._drained.clear()
