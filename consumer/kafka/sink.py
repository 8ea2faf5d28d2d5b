"""The one durable act: records and position of a batch in one Kafka transaction.

Order matters at start: InitProducerId first, which fences the predecessor and ends its open transaction, and only
then the position is read, up to the high watermark. Reading first could stop at that open transaction.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from consumer import clock
from consumer.delivery.names import Topics, entity_of_channel
from consumer.delivery.partition import partition_for
from consumer.delivery.positions import (
    CommittedPosition,
    Meta,
    PositionsEntry,
    ProgressEntry,
    decode_entry,
    encode_entry,
    require_same,
)
from consumer.delivery.windows import stream_of
from consumer.errors import (
    KafkaRefusedError,
    KafkaUnavailableError,
    ProducerFencedError,
    ServiceError,
    TransactionFailedError,
)
from consumer.events import LossWindow, OutboundRecord
from consumer.kafka.connection import CONNECT_LIMIT_S, Cluster, asking, require_checks, translate
from consumer.kafka.producer import let_go, new_producer
from consumer.kafka.readback import Progress, recent_event_ids, redelivery_since_ms
from consumer.kafka.reading import CommittedReader
from consumer.kafka.restore import catch_up
from consumer.kafka.topics import ensure_topics, spec_of
from consumer.ports import Batch, Mirror, Offsets, Restored

_SEND_SHARE, _COMMIT_SHARE = 0.5, 0.3
"""Parts of the transaction timeout for sending and for committing; together below one, or the broker ends it."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Subscription:
    """Which part of the org a sink writes for.

    Attributes:
        service: ``service.name``, equal for all workers of the deployment.
        org_id: 18-character org id.
        channel: the channel, such as ``/data/ChangeEvents``.
        topics: the deployment's topic names.
    """

    service: str
    org_id: str
    channel: str
    topics: Topics

    @property
    def transactional_id(self) -> str:
        """``<service>.<org id>.<channel>``, the same in every worker, so that a new one fences the old one."""
        return f"{self.service}.{self.org_id}.{_safe(self.channel.rpartition('/')[2])}"

    @property
    def position_key(self) -> bytes:
        """Key of this subscription's position; its partition says which worker of the group runs it."""
        return f"position:{self.channel}".encode()

    def owns(self, entity: str) -> bool:
        """Return whether an object's records are this subscription's: no other channel carries this object alone."""
        own = entity_of_channel(self.channel)
        if own is not None:
            return entity == own
        return entity not in {entity_of_channel(channel) for channel in self.topics.channels}


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)


class KafkaSink:
    """Commits batches of one subscription exactly once; implements :class:`consumer.ports.Sink`.

    Any failure of a transaction costs the producer: ``open`` makes a new one, and with it a new epoch.

    Args:
        cluster: the cluster.
        subscription: whose batches these are.
        mirror: the local store that ``open`` brings up to date; None for a sink whose user needs no states.
        now_ms: wall clock for record timestamps, epoch milliseconds.
        on_progress: is told how a long read-back gets on.
    """

    def __init__(
        self,
        cluster: Cluster,
        subscription: Subscription,
        *,
        mirror: Mirror | None = None,
        now_ms: Callable[[], int] = clock.now_ms,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._cluster = cluster
        self._subscription = subscription
        self._mirror = mirror
        self._now_ms = now_ms
        self._on_progress = on_progress
        self._producer: Any = None
        self._partitions: dict[str, int] = {}
        self._meta: OutboundRecord | None = None
        timeout_s = cluster.settings.transaction_timeout / 1000
        self._send_limit_s = timeout_s * _SEND_SHARE
        self._commit_limit_s = timeout_s * _COMMIT_SHARE

    async def open(self) -> Restored:
        """Take over the subscription (fencing any predecessor), then read what is committed, the mirror included.

        Raises:
            KafkaUnavailableError: no broker answered in time.
            KafkaRefusedError: credentials, ACL or topics are not as they must be.
            ForeignStateError: the topics belong to another org, cluster or newer version.
            ProducerFencedError: a newer worker took over meanwhile.
            StoreError: the mirror can't be written.
        """
        require_checks()
        await self.close()
        self._partitions.clear()
        producer = self._producer = new_producer(self._cluster, self._subscription.transactional_id)
        try:
            async with asking(self._cluster, "taking over the subscription", 2 * CONNECT_LIMIT_S):
                await producer.start()
            return await self._restore()
        except BaseException:
            await self.close()
            raise

    async def commit(self, batch: Batch) -> Offsets:
        """Commit a batch in one transaction.

        Returns:
            The offset after the last record of each partition that the batch wrote to; a partition whose broker did
            not tell, because it had taken the records before, is left out.

        Raises:
            TransactionFailedError: it failed or its outcome is unknown; ``open`` again before anything else.
            ProducerFencedError: another worker has taken over, or this one was too slow; ask the group
                membership which, and open again only if it still assigns the subscription to this worker.
            KafkaRefusedError: Kafka will not take this batch, however often it is sent.
        """
        producer = self._producer
        if producer is None:
            raise TransactionFailedError("There is no producer for this transaction", "Open the sink first.")
        records = batch.records if self._meta is None else [self._meta, *batch.records]
        try:
            groups = await self._grouped(producer, records)
            offsets = await self._transact(producer, groups)
        except BaseException as error:
            self._producer = None
            failure = self._failure(error)
            await let_go(producer, abort=not isinstance(failure, ProducerFencedError))
            if failure is None:
                raise
            raise failure from error
        self._meta = None
        return offsets

    async def close(self) -> None:
        """Let go of the producer, bounded in time; an open transaction is aborted."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await let_go(producer, abort=False)

    def _failure(self, error: BaseException) -> ServiceError | None:
        """Return what a failed commit means; None for what is not Kafka's, such as a cancellation."""
        told: BaseException = error
        if not isinstance(error, ServiceError):
            if not isinstance(error, Exception):
                return None
            told = translate(error, "committing a batch", self._cluster)
        if isinstance(told, KafkaUnavailableError):
            return TransactionFailedError(
                f"A transaction did not commit, or its outcome is unknown: {told.message}",
                "Nothing to do: the position is read again from Kafka, and the events come again.",
            )
        return told if isinstance(told, ServiceError) else None

    async def _transact(self, producer: Any, groups: Mapping[tuple[str, int], list[OutboundRecord]]) -> Offsets:
        timestamp = self._now_ms()
        futures: list[asyncio.Future[Any]] = []
        counts: list[int] = []
        try:
            async with asyncio.timeout(self._send_limit_s):
                await producer.begin_transaction()
                for (topic, partition), records in groups.items():
                    for built in _batches(producer, records, timestamp):
                        sent = producer.send_batch(built, topic, partition=partition)
                        futures.append(await sent)  # those before a failure must be kept too
                        counts.append(built.record_count())
                # Every one: the client commits a transaction although a batch of it was refused.
                if futures:
                    await asyncio.wait(futures, return_when=asyncio.FIRST_EXCEPTION)
                for future in futures:
                    future.result()
        finally:
            for future in futures:
                future.add_done_callback(_look_at)
        async with asyncio.timeout(self._commit_limit_s):
            await producer.commit_transaction()
        return _offsets([future.result() for future in futures], counts)

    async def _grouped(
        self, producer: Any, records: Sequence[OutboundRecord]
    ) -> dict[tuple[str, int], list[OutboundRecord]]:
        """Return the records by topic and partition, in their order."""
        counts = self._partitions
        for topic in {record.topic for record in records} - counts.keys():
            counts[topic] = await self._count_partitions(producer, topic)
        groups: defaultdict[tuple[str, int], list[OutboundRecord]] = defaultdict(list)
        key, count, of_key = b"", 0, 0
        for record in records:
            topic, partition = record.topic, record.partition
            if partition is None:
                if record.key != key or counts[topic] != count:  # what one event gives has one key
                    key, count = record.key, counts[topic]
                    of_key = partition_for(key, count)
                partition = of_key
            groups[topic, partition].append(record)
        return groups

    async def _count_partitions(self, producer: Any, topic: str) -> int:
        """Return a topic's number of partitions; metadata is here before the transaction begins.

        A channel of several objects brings topics that nobody could know beforehand: they are made here.
        """
        found = await ensure_topics(self._cluster, [spec_of(topic, self._cluster.settings)])
        async with asking(self._cluster, f"reading metadata of {topic}"):
            numbers = await producer.partitions_for(topic)
        if len(numbers) != found[topic].partitions:
            raise KafkaRefusedError(
                f"Brokers disagree about the number of partitions of {topic}", "Try again when they agree."
            )
        return len(numbers)

    async def _restore(self) -> Restored:
        subscription = self._subscription
        topics = subscription.topics
        async with CommittedReader(self._cluster) as reader:
            own = Meta(await reader.cluster_id(), subscription.org_id)
            entries = await read_entries(reader, topics)
            meta = next((each for each in entries.values() if isinstance(each, Meta)), None)
            require_same(meta, own)
            self._meta = encode_entry(topics, own) if meta is None else None
            committed = entries.get(subscription.position_key)
            if not isinstance(committed, CommittedPosition):
                committed = None
            since_ms = None
            if committed is not None:
                since_ms = redelivery_since_ms(committed.position.redelivery_ms, self._now_ms())
            ids = await recent_event_ids(
                reader,
                [*await self._own_topics(reader, "changes"), topics.quarantine],
                since_ms=since_ms,
                coverage=topics.coverage,
                on_progress=self._on_progress,
            )
            if self._mirror is not None:
                states = await self._own_topics(reader, "state")
                existing = await reader.topics()
                accesses = [name for name in await self._own_topics(reader, "access") if name in existing]
                await catch_up(reader, self._mirror, own.cluster_id, states, accesses, topics.ledger, subscription.owns)
        stream = stream_of(subscription.channel)
        windows = {
            each.window_id: each for each in entries.values() if isinstance(each, LossWindow) and each.stream == stream
        }
        _log.info("kafka.restored", channel=subscription.channel, windows=len(windows), recent_events=len(ids))
        return Restored(
            position=committed.position if committed else None,
            windows=windows,
            recent_event_ids=ids,
            last_event_ms=committed.last_event_ms if committed else None,
            committed_ms=committed.committed_ms if committed else None,
            progress={
                each.name: each.state
                for each in entries.values()
                if isinstance(each, ProgressEntry) and each.channel == subscription.channel
            },
        )

    async def _own_topics(self, reader: CommittedReader, kind: str) -> list[str]:
        """Return the topics of this kind that the subscription writes: one object's, or all no other channel owns."""
        topics = self._subscription.topics
        entity = entity_of_channel(self._subscription.channel)
        if entity is not None:
            return [topics.of(entity, kind)]
        entities = [entity_of_channel(channel) for channel in topics.channels]
        others = {topics.of(each, kind) for each in entities if each is not None}
        return sorted(
            name
            for name in await reader.topics()
            if name.startswith(topics.prefix) and name.endswith(f".{kind}") and name not in others
        )


async def read_entries(reader: CommittedReader, topics: Topics) -> dict[bytes, PositionsEntry]:
    """Return the newest entry of every key of the ``positions`` topic: meta, positions and open windows.

    Raises:
        ForeignStateError: something else, or a newer version, writes to the topic.
        KafkaUnavailableError: it could not be read to its end.
    """
    newest: dict[bytes, bytes | None] = {}
    spans = await reader.spans(await reader.partitions([topics.positions]))
    async for piece in reader.read(spans):
        for record in piece:
            newest[record.key or b""] = record.value
    return {key: decode_entry(key, value) for key, value in newest.items() if value is not None}


def _batches(producer: Any, records: Sequence[OutboundRecord], timestamp_ms: int) -> Iterator[Any]:
    """Yield the records of one partition as record batches, each below the client's limit if it can be."""
    built = producer.create_batch()
    for record in records:
        # The client's documentation says seconds; it passes the number on as milliseconds.
        content = {
            "timestamp": timestamp_ms,
            "key": record.key,
            "value": record.value,
            "headers": list(record.headers),
        }
        if built.append(**content) is None:
            yield built
            built = producer.create_batch()
            built.append(**content)
    yield built


def _offsets(sent: Sequence[Any], counts: Sequence[int]) -> Offsets:
    """Return the offset after the last record of each partition, from the answers to its record batches."""
    offsets: dict[tuple[str, int], int] = {}
    for answer, count in zip(sent, counts, strict=True):
        pair = (answer.topic, answer.partition)
        if answer.offset >= 0:
            offsets[pair] = max(offsets.get(pair, 0), answer.offset + count)
    return offsets


def _look_at(future: asyncio.Future[Any]) -> None:
    """Take note of a failure nobody waits for any more: the first one already decided."""
    if not future.cancelled():
        future.exception()
