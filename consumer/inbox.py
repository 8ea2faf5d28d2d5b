"""Where reads of the org enter the pipeline, beside the stream's buffer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from consumer.tracking.arrivals import Arrival, RowsRead

ROOM = 4
"""Arrivals that may wait: a reader is at most this far ahead of the pipeline."""

PIECE_ROWS = 250
"""Rows taken in at a time: events come in between, and no transaction is much larger than theirs."""

_PLACE_ROWS = 500
"""Rows that take as much room as a small arrival: memory holds one large read here, and its reader the next."""


class Inbox:
    """A short queue of arrivals; several tasks put, one takes. A large read is taken in pieces.

    Args:
        wake: called after each put, so that a pipeline that waits for events looks here too.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._waiting: deque[Arrival] = deque()
        self._room = asyncio.Semaphore(ROOM)
        self._putting = asyncio.Lock()
        self._places: deque[int] = deque()
        self._put = 0
        self._taken = 0
        self._done = 0
        self._advanced = asyncio.Condition()

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    @property
    def taken(self) -> int:
        """How many arrivals were taken so far, to their last piece."""
        return self._taken

    async def put(self, arrival: Arrival) -> None:
        """Hand an arrival over; waits for room."""
        places = min(ROOM, 1 + len(arrival.rows) // _PLACE_ROWS) if isinstance(arrival, RowsRead) else 1
        async with self._putting:  # two that wait for several places each would wait for each other
            for _ in range(places):
                await self._room.acquire()
        self._places.append(places)
        self._waiting.append(arrival)
        self._put += 1
        self._wake()

    def take(self) -> Arrival | None:
        """Return the oldest arrival or its next piece, None when there is none."""
        if not self._waiting:
            return None
        arrival = self._waiting.popleft()
        if isinstance(arrival, RowsRead) and len(arrival.rows) > PIECE_ROWS:
            piece, rest = arrival.split(PIECE_ROWS)
            self._waiting.appendleft(rest)
            return piece
        for _ in range(self._places.popleft()):
            self._room.release()
        self._taken += 1
        return arrival

    async def committed(self, taken: int) -> None:
        """Say that the first so many taken arrivals are durable."""
        if taken > self._done:
            async with self._advanced:
                self._done = taken
                self._advanced.notify_all()

    async def settled(self) -> None:
        """Wait until everything put so far is committed."""
        wanted = self._put
        async with self._advanced:
            await self._advanced.wait_for(lambda: self._done >= wanted)
