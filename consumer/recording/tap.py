"""Puts what was received into the order a recording promises: every schema before the first event that needs it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from consumer.events import ReceivedEvent, ReceivedSchema, TapItem


class Tap:
    """Holds events back until their schema has passed; everything else keeps its order.

    Args:
        write: is given each item, in order.
    """

    def __init__(self, write: Callable[[TapItem], None]) -> None:
        self._write = write
        self._known: set[str] = set()
        self._held: deque[TapItem] = deque()

    def __call__(self, item: TapItem) -> None:
        """Take in an item as it was received."""
        if isinstance(item, ReceivedSchema):
            if item.schema_id not in self._known:
                self._known.add(item.schema_id)
                self._write(item)
        else:
            self._held.append(item)
        while self._held and self._writable(self._held[0]):
            self._write(self._held.popleft())

    def flush(self) -> None:
        """Write what is still held: events whose schema never came."""
        while self._held:
            self._write(self._held.popleft())

    def _writable(self, item: TapItem) -> bool:
        return not isinstance(item, ReceivedEvent) or item.schema_id in self._known
