"""What the pipeline is given beside its ports: who is told, how large batches are, what time it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from consumer.errors import ServiceError
from consumer.events import OutboundRecord, ReceivedEvent
from consumer.outcome import Outcome
from consumer.ports import Batch
from consumer.position import Position
from consumer.tracking.arrivals import Arrival, RowsRead

ReadUnknown = Callable[[Mapping[str, Sequence[str]]], Awaitable[Sequence[RowsRead]]]
"""Reads records by id, as far as that is possible now, in bounded time."""


class PipelineObserver(Protocol):
    """What the pipeline tells the world; no call may fail or wait."""

    def processed(self, event: ReceivedEvent, outcome: Outcome) -> None:
        """An event was processed; it is not committed yet."""

    def repeated(self, event: ReceivedEvent) -> None:
        """An event was recognised as a repeat and dropped."""

    def waiting_for_schema(self, schema_id: str, error: ServiceError) -> None:
        """The stream is held up by a schema."""

    def arrived(self, arrival: Arrival, outcome: Outcome) -> None:
        """A read of the org was taken in; it is not committed yet."""

    def committed(self, batch: Batch, last_event_ms: int | None, seconds: float) -> None:
        """A batch is durable."""


class PositionEncoder(Protocol):
    """Makes the internal record that holds the position."""

    def __call__(self, position: Position, last_event_ms: int | None, committed_ms: int) -> OutboundRecord:
        """Return the record of the ``positions`` topic."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """The pipeline's numbers.

    Attributes:
        max_records: records after which a batch is cut.
        max_bytes: value bytes after which a batch is cut.
        max_age_ms: age after which a batch is cut, milliseconds.
        buffer_events: events held between the stream and the pipeline.
        buffer_bytes: payload bytes after which no more credits are granted.
    """

    max_records: int
    max_bytes: int
    max_age_ms: int
    buffer_events: int
    buffer_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True)
class Clocks:
    """Time as the pipeline needs it; passed in, so that tests own it.

    Attributes:
        now_ms: wall clock, epoch milliseconds.
        monotonic: seconds that never go back.
        random: a number in [0, 1).
        org_ms: the org's wall clock, epoch milliseconds.
    """

    now_ms: Callable[[], int]
    monotonic: Callable[[], float]
    random: Callable[[], float]
    org_ms: Callable[[], int]
