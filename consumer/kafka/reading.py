"""Reading topics to a fixed end as a read-committed consumer: for positions, read-back and the control topic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import NoError, UnknownTopicOrPartitionError, for_code

from consumer.errors import KafkaRefusedError, KafkaUnavailableError
from consumer.kafka.connection import CONNECT_LIMIT_S, Cluster, asking, close_admin

_STOP_LIMIT_S = 5.0
_POLL_MS = 200

_log = structlog.get_logger(__name__)


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    number: int


class Span(NamedTuple):
    """Offsets to read: from ``start`` to before ``end``."""

    start: int
    end: int


class CommittedReader:
    """A consumer without a group that reads committed records between given offsets.

    Args:
        cluster: the cluster.
        stall_s: longest time without progress, seconds. An open transaction of somebody else in the same
            partition holds readers back until it ends, which its broker enforces after its timeout.
    """

    def __init__(self, cluster: Cluster, stall_s: float | None = None) -> None:
        self._cluster = cluster
        self._stall_s = stall_s or cluster.settings.transaction_timeout / 1000 + 15.0
        # It lives briefly, and its first question about a topic always costs one such pause.
        options = cluster.reader_options() | {"retry_backoff_ms": 20}
        self._consumer = AIOKafkaConsumer(**options)
        # end_offsets answers by isolation level: only an uncommitted reader sees the high watermark.
        self._watermarks = AIOKafkaConsumer(**options | {"isolation_level": "read_uncommitted"})
        self._admin = AIOKafkaAdminClient(**cluster.options())

    async def __aenter__(self) -> Self:
        try:
            async with asking(self._cluster, "connecting"):
                await self._consumer.start()
                await self._watermarks.start()
                await self._admin.start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        for consumer in (self._consumer, self._watermarks):
            await stop_consumer(consumer)
        await close_admin(self._admin)

    async def partitions(self, topics: Iterable[str]) -> list[Partition]:
        """Return the partitions of the topics.

        Raises:
            KafkaRefusedError: one does not exist; a missing topic must never look like an empty one.
        """
        names = list(dict.fromkeys(topics))
        found: list[Partition] = []
        async with asking(self._cluster, "reading metadata"):
            for answer in await self._admin.describe_topics(names) if names else []:
                error = for_code(answer["error_code"])
                if error is UnknownTopicOrPartitionError:
                    raise KafkaRefusedError(
                        f"The topic {answer['topic']} does not exist",
                        "Start `session-consumer run` once, or create it as `session-consumer check` says.",
                    )
                if error is not NoError:
                    raise error(answer["topic"])
                numbers = sorted(each["partition"] for each in answer["partitions"])
                found += [Partition(answer["topic"], number) for number in numbers]
        return found

    async def topics(self) -> frozenset[str]:
        """Return the names of all topics this principal may see."""
        async with asking(self._cluster, "listing topics"):
            return frozenset(await self._admin.list_topics())

    async def cluster_id(self) -> str:
        """Return the cluster's id."""
        async with asking(self._cluster, "asking for the cluster's id"):
            return str((await self._admin.describe_cluster())["cluster_id"])

    async def spans(self, partitions: Sequence[Partition]) -> dict[Partition, Span]:
        """Return each partition's offsets, from the oldest kept to the high watermark, open transactions included."""
        if not partitions:
            return {}
        pairs = [TopicPartition(*each) for each in partitions]
        async with asking(self._cluster, "reading offsets"):
            starts = await self._consumer.beginning_offsets(pairs)
            ends = await self._watermarks.end_offsets(pairs)
        return {Partition(*pair): Span(starts[pair], ends[pair]) for pair in pairs}

    async def starts_after(self, partitions: Sequence[Partition], time_ms: int) -> dict[Partition, int | None]:
        """Return the first offset of each partition whose timestamp is not before ``time_ms``, None if none is."""
        if not partitions:
            return {}
        async with asking(self._cluster, "reading offsets by time"):
            found = await self._consumer.offsets_for_times({TopicPartition(*each): time_ms for each in partitions})
        return {Partition(*pair): None if answer is None else answer.offset for pair, answer in found.items()}

    async def read(self, spans: Mapping[Partition, Span]) -> AsyncIterator[Sequence[Any]]:
        """Yield the committed records of the spans, in order within each partition, in pieces of bounded size.

        The records are aiokafka's: ``topic``, ``partition``, ``offset``, ``timestamp``, ``key``, ``value``,
        ``headers``.

        Raises:
            KafkaUnavailableError: nothing moved for the stall time.
        """
        consumer = self._consumer
        open_ends = {TopicPartition(*each): span.end for each, span in spans.items() if span.start < span.end}
        if not open_ends:
            return
        limit_s = self._stall_s + CONNECT_LIMIT_S
        consumer.assign(list(open_ends))
        places = {pair: spans[Partition(*pair)].start for pair in open_ends}
        for pair, start in places.items():
            # Not seek_to_beginning: it races with the reset policy of a fresh assignment.
            consumer.seek(pair, start)
        loop = asyncio.get_running_loop()
        stalled_at = loop.time() + self._stall_s
        while open_ends:
            async with asking(self._cluster, "reading committed records", limit_s):
                fetched = await consumer.getmany(*open_ends, timeout_ms=_POLL_MS)
                moved = {pair: await consumer.position(pair) for pair in open_ends}
            for pair, records in fetched.items():
                end = open_ends[pair]
                yield records if records[-1].offset < end else [each for each in records if each.offset < end]
            if moved != {pair: places[pair] for pair in open_ends}:
                stalled_at = loop.time() + self._stall_s
            elif loop.time() > stalled_at:
                raise self._stalled(open_ends)
            places |= moved
            for pair in [pair for pair, end in open_ends.items() if places[pair] >= end]:
                del open_ends[pair]
                consumer.pause(pair)

    def _stalled(self, open_ends: Mapping[Any, int]) -> KafkaUnavailableError:
        names = ", ".join(f"{pair.topic}-{pair.partition}" for pair in sorted(open_ends))
        return KafkaUnavailableError(
            f"Reading {names} to its end got no further for {self._stall_s:.0f} s",
            "A broker is away, or a transaction of another producer is open in it; see kafka-transactions.sh.",
        )


async def stop_consumer(consumer: Any, limit_s: float = _STOP_LIMIT_S) -> None:
    """Stop a consumer, bounded in time; what can't be stopped in time is dropped with its connections."""
    try:
        async with asyncio.timeout(limit_s):
            await consumer.stop()
    except Exception:  # noqa: BLE001  # a coordinator whose connection was reset ends with errors of any class
        try:
            async with asyncio.timeout(limit_s):
                await consumer._client.close()  # noqa: SLF001  # stop() is what failed; there is no other way
        except Exception as error:  # noqa: BLE001  # the connections are dropped either way
            _log.debug("kafka.close_not_clean", reason=type(error).__name__)
