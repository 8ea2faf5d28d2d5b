"""What the pipeline needs from the world, without saying how it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from consumer.buffer import EventBuffer
from consumer.events import LossWindow, OutboundRecord
from consumer.position import Position


class SchemaSource(Protocol):
    """Gives writer schemas by id; a schema id never changes its meaning."""

    async def fetch(self, schema_id: str) -> str:
        """Return the schema's Avro JSON.

        Raises:
            SchemaUnavailableError: it can't be had now; try again.
            SchemaRefusedError: it will not be given.
        """
        ...


class EventStream(Protocol):
    """One channel of the Pub/Sub API."""

    async def run(self, start: Position, buffer: EventBuffer) -> NoReturn:
        """Subscribe at ``start`` and put what arrives into ``buffer``, for ever.

        Ends of the call that a new Subscribe mends are mended inside, from the last item put into the buffer;
        refused logins and a used-up delivery allowance are tried again slowly.

        Raises:
            PositionLostError: the replay id of the position is expired or refused.
            TopicRefusedError: the topic can't be read by this user.
            ProtocolError: the protocol was broken.
        """
        ...


@dataclass(frozen=True, slots=True)
class Restored:
    """What Kafka knows about one subscription.

    Attributes:
        position: the committed position, None before the first commit.
        windows: open loss windows by id.
        recent_event_ids: ids of events committed lately, or in the whole retention if redelivery is possible.
        last_event_ms: commit time of the last committed event, epoch milliseconds, None if there was none.
        committed_ms: when the position was committed, epoch milliseconds, None before the first commit.
    """

    position: Position | None
    windows: Mapping[str, LossWindow] = field(default_factory=dict)
    recent_event_ids: frozenset[str] = frozenset()
    last_event_ms: int | None = None
    committed_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What one Kafka transaction holds.

    Attributes:
        records: records of every topic, internal ones included, in order per key.
        events: source events that are in it.
        position: where the subscription stands once it is committed.
    """

    records: Sequence[OutboundRecord]
    events: int
    position: Position


class Sink(Protocol):
    """The only durable act: records and position in one transaction."""

    async def open(self) -> Restored:
        """Take over the subscription (fencing any predecessor), then read what is committed.

        Raises:
            KafkaUnavailableError: no broker answered in time.
            KafkaRefusedError: credentials, ACL or topics are not as they must be.
            ForeignStateError: the topics belong to another org, cluster or newer version.
            ProducerFencedError: a newer worker took over meanwhile.
        """
        ...

    async def commit(self, batch: Batch) -> None:
        """Commit a batch in one transaction.

        Raises:
            TransactionFailedError: it failed or its outcome is unknown; ``open`` again before anything else.
            ProducerFencedError: another worker has taken over; do not open again unasked.
            KafkaRefusedError: Kafka will not take this batch, however often it is sent.
        """
        ...

    async def close(self) -> None:
        """Let go of the producer, bounded in time; an open transaction is aborted."""
        ...
