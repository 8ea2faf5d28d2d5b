"""Reads a topic as a read-committed consumer sees it; the oracle, so it shares no code with ``consumer.kafka``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """One committed record.

    Attributes:
        headers: Kafka headers by name; a repeated name keeps its last value.
        timestamp_ms: the record's timestamp, epoch milliseconds.
    """

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes | None
    headers: Mapping[str, bytes]
    timestamp_ms: int


async def read_committed_all(
    bootstrap: str, *topics: str, limit_s: float = 30.0, check_crcs: bool = True
) -> list[ReadRecord]:
    """Return every record that is committed now, in order within each partition.

    Args:
        bootstrap: host:port of a PLAINTEXT listener.
        topics: existing topics; read up to their last stable offset at the time of the call.
        limit_s: longest duration, seconds.
        check_crcs: False only for librdkafka's mock cluster from 2.15 on.

    Raises:
        TimeoutError: the end was not reached in time.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        check_crcs=check_crcs,
        fetch_max_wait_ms=50,
    )
    records: list[ReadRecord] = []
    try:
        async with asyncio.timeout(limit_s):
            await consumer.start()
            partitions = await _partitions(consumer, topics)
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            starts = await consumer.beginning_offsets(partitions)
            for each in partitions:
                consumer.seek(each, starts[each])
            while any([await consumer.position(each) < ends[each] for each in partitions]):
                fetched = await consumer.getmany(timeout_ms=100)
                for each, batch in fetched.items():
                    records += [_record(item) for item in batch if item.offset < ends[each]]
    finally:
        await consumer.stop()
    return records


async def _partitions(consumer: AIOKafkaConsumer, topics: tuple[str, ...]) -> list[TopicPartition]:
    # A topic made a moment ago may not be in this broker's metadata yet.
    found: list[TopicPartition] = []
    for topic in topics:
        numbers = await consumer._client._wait_on_metadata(topic)
        found += [TopicPartition(topic, number) for number in sorted(numbers)]
    return found


def _record(item: object) -> ReadRecord:
    return ReadRecord(item.topic, item.partition, item.offset, item.key, item.value, dict(item.headers), item.timestamp)  # type: ignore[attr-defined]  # aiokafka ships no types
