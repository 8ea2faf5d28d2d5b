"""Questions to Kafka about the past: all records of one key, and what ``coverage`` says of a period."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

import orjson

from consumer.delivery.internal import broken
from consumer.delivery.names import Topics
from consumer.delivery.partition import partition_for
from consumer.delivery.positions import ProgressEntry
from consumer.delivery.windows import stream_of
from consumer.errors import KafkaRefusedError
from consumer.events import Json, LossWindow
from consumer.kafka.connection import Cluster
from consumer.kafka.reading import CommittedReader, Partition, Span
from consumer.kafka.sink import read_entries
from consumer.tracking.coverage_report import CoverageFacts, Window
from consumer.tracking.feed import FEED_POLL
from consumer.tracking.sharing import SWEPT

ReadProgress = Callable[[int, int], None]
"""Is told how many offsets of how many are read."""

_HOUR_MS = 3_600_000
_MARGINS_MS = (_HOUR_MS, 24 * _HOUR_MS, 30 * 24 * _HOUR_MS)
"""How long before a period its coverage records are looked for; more is only needed when the org's clock and Kafka's
differ, or nothing was written for so long."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How far back a partition is kept.

    Attributes:
        oldest_ms: timestamp of its oldest record, epoch milliseconds; None when it is empty.
        dropped: whether older ones were there once.
    """

    oldest_ms: int | None
    dropped: bool


@dataclass(frozen=True, slots=True)
class Kept:
    """One record of a key; ``value`` is None for a tombstone."""

    offset: int
    timestamp_ms: int
    value: bytes | None


@dataclass(frozen=True, slots=True)
class OfKey:
    """What Kafka holds of one key.

    Attributes:
        records: by topic, in order.
        reach: by topic; a topic that does not exist is in neither.
    """

    records: Mapping[str, Sequence[Kept]]
    reach: Mapping[str, Reach]


@dataclass(frozen=True, slots=True)
class CoverageRead:
    """What ``coverage`` says, for the asked channels.

    Attributes:
        channels: facts about the changes of each channel.
        history: facts about the field history of each object.
        reach: how far back the records of each channel are kept.
        sharing: by object, when the last complete sweep of its share rows began, epoch milliseconds.
        feed: by object, up to when its feed items are read, epoch milliseconds.
    """

    channels: Mapping[str, CoverageFacts]
    history: Mapping[str, CoverageFacts] = field(default_factory=dict)
    reach: Mapping[str, Reach] = field(default_factory=dict)
    sharing: Mapping[str, int] = field(default_factory=dict)
    feed: Mapping[str, int] = field(default_factory=dict)


def _silent(done: int, total: int) -> None:
    """Tell nobody."""


class Lookup:
    """Reads the past as a read-committed consumer that leaves no trace; an async context manager.

    Args:
        cluster: the cluster.
        progress: is told now and then.
    """

    def __init__(self, cluster: Cluster, progress: ReadProgress = _silent) -> None:
        self._reader = CommittedReader(cluster)
        self._progress = progress

    async def __aenter__(self) -> Self:
        await self._reader.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._reader.__aexit__(kind, error, trace)

    async def topics(self) -> frozenset[str]:
        """Return the names of all topics this principal may see."""
        return await self._reader.topics()

    async def of_key(self, key: bytes, topics: Sequence[str]) -> OfKey:
        """Return all records of a key; of each topic only the key's partition is read, to its present end.

        Args:
            key: raw key bytes.
            topics: topic names; those that don't exist (yet) are left out.

        Raises:
            KafkaUnavailableError: no broker answered in time.
            KafkaRefusedError: none of the topics exists, or one may not be read.
        """
        there = await self.topics()
        named = [topic for topic in dict.fromkeys(topics) if topic in there]
        if not named:
            raise KafkaRefusedError(
                f"Kafka has none of the topics {', '.join(topics)}",
                "Start `session-consumer run` once, or correct kafka.topic_prefix and pubsub.topics.",
            )
        spans = await self._reader.spans(await self._partitions_of(dict.fromkeys(named, key)))
        records: dict[str, list[Kept]] = {partition.topic: [] for partition in spans}
        oldest: dict[str, int] = {}
        async for piece in self._read(spans):
            oldest.setdefault(piece[0].topic, piece[0].timestamp)
            found = records[piece[0].topic]
            found += [Kept(each.offset, each.timestamp, each.value) for each in piece if each.key == key]
        reach = {each.topic: Reach(oldest.get(each.topic), dropped=span.start > 0) for each, span in spans.items()}
        return OfKey(records, reach)

    async def progress(self, topics: Topics) -> dict[str, Mapping[str, Json]]:
        """Return how far the jobs and polls of all channels got, by name; of equal names the last channel's.

        Raises:
            KafkaUnavailableError: no broker answered in time.
            KafkaRefusedError: the topic doesn't exist or may not be read.
            ForeignStateError: something else writes to the topic.
        """
        entries = (await read_entries(self._reader, topics)).values()
        return {entry.name: entry.state for entry in entries if isinstance(entry, ProgressEntry)}

    async def coverage(
        self, topics: Topics, channels: Sequence[str], from_ms: int | None, *, open_windows: bool = True
    ) -> CoverageRead:
        """Return what is known about the changes and history of channels.

        Args:
            topics: the deployment's topic names.
            channels: whose records to read.
            from_ms: the time that matters begins here, epoch milliseconds, so that records of before need not be
                read; None for all that is kept.
            open_windows: whether to ask ``positions`` for open windows too, which outlives the retention, and for
                how far sharing and feeds are read, whose spans may be further back than what is read here.

        Raises:
            KafkaUnavailableError: no broker answered in time.
            KafkaRefusedError: the topics don't exist or may not be read.
            ForeignStateError: something else writes to the topics.
        """
        partitions = {channel: await self._partition_of(topics.coverage, channel.encode()) for channel in channels}
        spans = await self._reader.spans(list(dict.fromkeys(partitions.values())))
        for margin_ms in (*_MARGINS_MS, None):
            starts = await self._starts(spans, from_ms, margin_ms)
            read = await self._take_in(channels, starts)
            if all(
                starts[partition].start == spans[partition].start or _began(read.channels[channel], from_ms)
                for channel, partition in partitions.items()
            ):
                break
        sharing: dict[str, int] = {}
        feed: dict[str, int] = {}
        if open_windows:
            entries = (await read_entries(self._reader, topics)).values()
            _add_open(entries, read)
            told = [each for each in entries if isinstance(each, ProgressEntry) and each.channel in read.channels]
            sharing, feed = _by_object(told, SWEPT, "begun_ms"), _by_object(told, FEED_POLL, "complete_to_ms")
        edges = {partition: await self._reach(partition, span) for partition, span in spans.items()}
        reach = {each: edges[partitions[each]] for each in channels}
        return replace(read, reach=reach, sharing=sharing, feed=feed)

    async def _starts(
        self, spans: Mapping[Partition, Span], from_ms: int | None, margin_ms: int | None
    ) -> dict[Partition, Span]:
        if from_ms is None or margin_ms is None or from_ms < margin_ms:
            return dict(spans)
        found = await self._reader.starts_after(list(spans), from_ms - margin_ms)
        starts: dict[Partition, Span] = {}
        for partition, span in spans.items():
            offset = found[partition]
            starts[partition] = span if offset is None else Span(min(max(offset, span.start), span.end), span.end)
        return starts

    async def _take_in(self, channels: Sequence[str], spans: Mapping[Partition, Span]) -> CoverageRead:
        history: dict[str, CoverageFacts] = {}
        facts = {channel.encode(): CoverageFacts(stream_of(channel)) for channel in channels}
        async for piece in self._read(spans):
            for record in piece:
                of = facts.get(record.key)
                if of is None:
                    continue
                value = _coverage_value(record.key, record.value)
                of.add(value)
                if value["stream"] == "history" and value["entity"]:
                    history.setdefault(value["entity"], CoverageFacts("history")).add(value)
        return CoverageRead({key.decode(): of for key, of in facts.items()}, history)

    async def _reach(self, partition: Partition, span: Span) -> Reach:
        async with aclosing(self._reader.read({partition: span})) as pieces:  # type: ignore[type-var]  # a generator
            async for piece in pieces:
                if piece:
                    return Reach(piece[0].timestamp, dropped=span.start > 0)
        return Reach(None, dropped=span.start > 0)

    async def _partition_of(self, topic: str, key: bytes) -> Partition:
        return (await self._partitions_of({topic: key}))[0]

    async def _partitions_of(self, keys: Mapping[str, bytes]) -> list[Partition]:
        counts: dict[str, int] = {}
        for partition in await self._reader.partitions(keys):
            counts[partition.topic] = counts.get(partition.topic, 0) + 1
        return [Partition(topic, partition_for(key, counts[topic])) for topic, key in keys.items()]

    async def _read(self, spans: Mapping[Partition, Span]) -> AsyncIterator[Sequence[Any]]:
        """Yield pieces that are not empty, and tell the progress."""
        total = sum(span.end - span.start for span in spans.values())
        places = {partition: span.start for partition, span in spans.items()}
        done = 0
        async for piece in self._reader.read(spans):
            if not piece:
                continue
            partition = Partition(piece[-1].topic, piece[-1].partition)
            done += piece[-1].offset + 1 - places[partition]
            places[partition] = piece[-1].offset + 1
            yield piece
            self._progress(done, total)


def _add_open(entries: Iterable[object], read: CoverageRead) -> None:
    for entry in entries:
        if isinstance(entry, LossWindow):
            window = Window(
                entry.window_id, entry.stream, entry.reason, entry.from_ms, entry.to_ms, entry.entity,
                entry.record_ids,
            )  # fmt: skip
            for facts in read.channels.values():
                facts.add_open(window)


def _by_object(entries: Iterable[ProgressEntry], prefix: str, name: str) -> dict[str, int]:
    found = sorted((each.name.removeprefix(prefix), each.state) for each in entries if each.name.startswith(prefix))
    return {entity: int(state[name]) for entity, state in found}


def _began(facts: CoverageFacts, from_ms: int | None) -> bool:
    """Return whether what was read begins before the period: then nothing about the period stands further back.

    Windows of a time are told after it, and those still open are known from elsewhere.
    """
    return from_ms is not None and facts.first_end_ms is not None and facts.first_end_ms <= from_ms


def _coverage_value(key: bytes, value: bytes | None) -> Mapping[str, Json]:
    try:
        parsed = orjson.loads(value or b"null")
    except orjson.JSONDecodeError as error:
        raise broken(key.decode("utf-8", "replace"), "it is not JSON") from error
    if not isinstance(parsed, dict) or not {"kind", "stream", "from", "to"} <= parsed.keys():
        raise broken(key.decode("utf-8", "replace"), "it is no coverage record")
    return parsed
