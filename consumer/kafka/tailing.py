"""Following topics as a reader outside sees them: committed records only, from the oldest on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from consumer.events import OutboundRecord
from consumer.kafka.connection import CLIENT_ERRORS, Cluster, asking, translate
from consumer.kafka.reading import stop_consumer

_POLL_MS = 500


@asynccontextmanager
async def tail(cluster: Cluster, topics: Iterable[str]) -> AsyncIterator[AsyncIterator[OutboundRecord]]:
    """Hold a reader of these topics open and give an endless iterator over their committed records.

    Args:
        cluster: the cluster.
        topics: names of existing topics.

    Raises:
        KafkaUnavailableError: no broker answered in time.
    """
    consumer: Any = AIOKafkaConsumer(**cluster.reader_options())
    try:
        async with asking(cluster, "following topics"):
            await consumer.start()
            pairs = []
            for topic in topics:
                consumer._client.add_topic(topic)  # noqa: SLF001  # assign() alone does not fetch metadata
                await consumer._client.force_metadata_update()  # noqa: SLF001
                pairs += [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(pairs)
        yield _records(cluster, consumer)
    finally:
        await stop_consumer(consumer)


async def _records(cluster: Cluster, consumer: Any) -> AsyncIterator[OutboundRecord]:
    while True:
        try:
            fetched = await consumer.getmany(timeout_ms=_POLL_MS)
        except CLIENT_ERRORS as error:
            raise translate(error, "following topics", cluster) from error
        for pair, records in fetched.items():
            for record in records:
                yield OutboundRecord(pair.topic, record.key or b"", record.value, tuple(record.headers), pair.partition)
