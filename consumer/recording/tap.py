"""Puts what was received into the order a recording promises: every schema before the first event that needs it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from consumer.errors import SchemaRefusedError
from consumer.events import ReceivedEvent, ReceivedSchema, StreamFault, TapItem

MOST_HELD = 5000
"""Items held back for a schema; then the oldest event is written without it, so that memory stays bounded."""


class Tap:
    """Holds events back until their schema has passed; everything else keeps its order.

    A schema that is refused, told by a fault, is waited for no longer: its events are recorded without it.

    Args:
        write: is given each item, in order.
    """

    def __init__(self, write: Callable[[TapItem], None]) -> None:
        self._write = write
        self._known: set[str] = set()
        self._written: set[str] = set()
        self._held: deque[TapItem] = deque()

    def __call__(self, item: TapItem) -> None:
        """Take in an item as it was received."""
        if isinstance(item, ReceivedSchema):
            self._known.add(item.schema_id)
            if item.schema_id not in self._written:
                self._written.add(item.schema_id)
                self._write(item)
        else:
            self._held.append(item)
            if isinstance(item, StreamFault) and item.error == SchemaRefusedError.__name__:
                self._give_up()
        self._write_what_may_go()
        if len(self._held) > MOST_HELD:
            self._give_up()
            self._write_what_may_go()

    def flush(self) -> None:
        """Write what is still held: events whose schema never came."""
        while self._held:
            self._write(self._held.popleft())

    def _give_up(self) -> None:
        """Stop waiting for the schema of the oldest event: schemas are asked for in the events' order."""
        oldest = next((item for item in self._held if isinstance(item, ReceivedEvent)), None)
        if oldest is not None:
            self._known.add(oldest.schema_id)

    def _write_what_may_go(self) -> None:
        while self._held and self._writable(self._held[0]):
            self._write(self._held.popleft())

    def _writable(self, item: TapItem) -> bool:
        return not isinstance(item, ReceivedEvent) or item.schema_id in self._known
