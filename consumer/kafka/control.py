"""The ``control`` topic: commands for running workers, read to now and then followed; bytes only.

What the bytes mean is :mod:`consumer.delivery.control`'s business.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from consumer.delivery.partition import partition_for
from consumer.events import OutboundRecord
from consumer.kafka.connection import CLIENT_ERRORS, CONNECT_LIMIT_S, Cluster, asking, translate
from consumer.kafka.producer import let_go
from consumer.kafka.reading import CommittedReader, Partition, Span, stop_consumer

_POLL_MS = 1_000


@dataclass(frozen=True, slots=True)
class ControlRecord:
    """One record of the topic.

    Attributes:
        timestamp_ms: when it was sent, epoch milliseconds, by the sender's clock.
    """

    partition: int
    offset: int
    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int


class ControlTail:
    """Everything that was ever commanded and not compacted away, then what is commanded from now on.

    Args:
        cluster: the cluster.
        topic: the ``control`` topic.
    """

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._cluster = cluster
        self._topic = topic
        self._places: dict[Partition, Span] = {}
        self._consumer: Any = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._consumer is not None:
            await stop_consumer(self._consumer)

    async def past(self) -> list[ControlRecord]:
        """Return what stands in the topic now, in order within each partition, partitions merged by time sent.

        Raises:
            KafkaUnavailableError: no broker answered in time.
            KafkaRefusedError: the topic does not exist or may not be read.
        """
        found: list[ControlRecord] = []
        async with CommittedReader(self._cluster) as reader:
            self._places = await reader.spans(await reader.partitions([self._topic]))
            async for piece in reader.read(self._places):
                found += [_record(each) for each in piece]
        latest: dict[int, int] = {}
        keys: list[tuple[int, int, int]] = []
        for each in found:
            # Clocks of senders differ; within a partition the log's order is the truth.
            latest[each.partition] = max(latest.get(each.partition, 0), each.timestamp_ms)
            keys.append((latest[each.partition], each.partition, each.offset))
        return [each for _, each in sorted(zip(keys, found, strict=True), key=lambda pair: pair[0])]

    async def follow(self) -> AsyncGenerator[ControlRecord, None]:
        """Yield what is added after :meth:`past`, for ever; outages of Kafka are waited out.

        Raises:
            KafkaUnavailableError: no broker answered at the start.
            KafkaRefusedError: the topic may not be read.
        """
        consumer = self._consumer = AIOKafkaConsumer(**self._cluster.reader_options())
        async with asking(self._cluster, "following the control topic"):
            await consumer.start()
        consumer.assign([TopicPartition(*each) for each in self._places])
        for each, span in self._places.items():
            consumer.seek(TopicPartition(*each), span.end)
        while True:
            try:
                fetched = await consumer.getmany(timeout_ms=_POLL_MS)
            except CLIENT_ERRORS as error:
                raise translate(error, "following the control topic", self._cluster) from error
            for records in fetched.values():
                for record in records:
                    yield _record(record)


async def send_command(cluster: Cluster, record: OutboundRecord) -> None:
    """Send one command and wait until it is durable.

    Raises:
        KafkaUnavailableError: it is not known to be durable; sending it again is harmless.
        KafkaRefusedError: the topic may not be written.
    """
    producer = AIOKafkaProducer(**cluster.options(), enable_idempotence=True, acks="all")
    try:
        async with asking(cluster, "sending a command", CONNECT_LIMIT_S):
            await producer.start()
            partition = record.partition
            if partition is None:
                partition = partition_for(record.key, len(await producer.partitions_for(record.topic)))
            await producer.send_and_wait(
                record.topic, record.value, record.key, partition, headers=list(record.headers)
            )
    finally:
        await let_go(producer, abort=False)


def _record(record: Any) -> ControlRecord:
    return ControlRecord(
        record.partition, record.offset, record.key or b"", record.value, tuple(record.headers), record.timestamp
    )
