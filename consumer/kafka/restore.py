"""Brings the local store up to what is committed in the compacted topics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from consumer.delivery.internal import key_text
from consumer.kafka.reading import CommittedReader, Partition, Span
from consumer.kafka.topics import TOMBSTONE_MS
from consumer.ports import Mirror, Piece

STALE_AFTER_MS = TOMBSTONE_MS // 2
"""Age after which a store may have missed tombstones; half, because compaction counts from its own last run."""

_SKEW_MS = 60_000
"""How far the clocks of the deployment's workers may be apart."""

_PIECE = 2_000
"""Records stored at a time, so that the loop gets its turn in between."""

_TELL_S = 5.0

_log = structlog.get_logger(__name__)


async def catch_up(
    reader: CommittedReader,
    mirror: Mirror,
    cluster_id: str,
    states: Sequence[str],
    accesses: Sequence[str],
    ledger: str,
    owns: Callable[[str], bool],
) -> int:
    """Load what the mirror does not have yet; all of it when it does not belong to these topics.

    Call it after the producer has fenced its predecessor: nobody else writes to these objects' topics then.

    Args:
        reader: started reader.
        mirror: the local store.
        cluster_id: the cluster that ``reader`` reads.
        states: the ``state`` topics of the subscription's objects.
        accesses: their ``access`` topics.
        ledger: the ``ledger`` topic, which the deployment's channels share.
        owns: whether an object is the subscription's.

    Returns:
        How many records were loaded.

    Raises:
        KafkaUnavailableError: a topic could not be read to its end.
        KafkaRefusedError: a topic does not exist.
        ForeignStateError: something else, or a newer version, writes to the topics.
        StoreError: the mirror can't be written.
    """
    mirror.attach(cluster_id, stale_after_ms=STALE_AFTER_MS)
    spans = await reader.spans(await reader.partitions([*states, *accesses, ledger]))
    reason = await _mismatch(reader, mirror, spans)
    if reason is not None:
        mirror.rebuild(reason)
    stored = mirror.offsets()
    left = {each: Span(stored.get(each, span.start), span.end) for each, span in spans.items()}
    loading = _Loading(
        ledger, frozenset(accesses), mirror.newest_ms, sum(span.end - span.start for span in left.values())
    )
    async for read in reader.read(left):
        for piece in loading.pieces(read):
            mirror.load(piece, owns)
            loading.tell()
            await asyncio.sleep(0)
    # What compaction removed, and the marks of transactions, stand at the end too.
    ends = {(each.topic, each.number): span.end for each, span in spans.items()}
    mirror.load(Piece((), (), ends, loading.newest_ms), owns)
    loading.done()
    return loading.records


async def _mismatch(reader: CommittedReader, mirror: Mirror, spans: Mapping[Partition, Span]) -> str | None:
    """Return why the stored offsets are not offsets of these topics, None if they are."""
    stored = {Partition(*pair): offset for pair, offset in mirror.offsets().items()}
    for each, offset in stored.items():
        name = f"{each.topic}-{each.number}"
        span = spans.get(each)
        if span is None:
            return f"it holds {name}, which is not read any more"
        if offset > span.end:
            return f"{name} ends before what is stored of it: the topic was made anew"
        if offset < span.start:
            return f"{name} begins after what is stored of it: records were deleted"
    # A topic that was made anew and has grown past the stored offset holds younger records before that offset.
    younger = await reader.starts_after(list(stored), mirror.newest_ms + _SKEW_MS) if stored else {}
    for each, first in younger.items():
        if first is not None and first < stored[each]:
            return f"{each.topic}-{each.number} holds younger records than what is stored of it: it was made anew"
    return None


@dataclass(slots=True)
class _Loading:
    """One catching up: cuts what is read into pieces, and tells how it gets on."""

    ledger: str
    accesses: frozenset[str]
    newest_ms: int
    total: int
    records: int = 0
    began_s: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    told_s: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    def pieces(self, read: Sequence[Any]) -> Iterator[Piece]:
        """Yield what was read of one partition."""
        for start in range(0, len(read), _PIECE):
            part = read[start : start + _PIECE]
            last = part[-1]
            self.newest_ms = max(self.newest_ms, *(each.timestamp for each in part))
            self.records += len(part)
            found = [(key_text(each.key or b""), each.value) for each in part]
            offsets = {(last.topic, last.partition): last.offset + 1}
            if last.topic == self.ledger:
                yield Piece((), found, offsets, self.newest_ms)
            elif last.topic in self.accesses:
                yield Piece((), (), offsets, self.newest_ms, found)
            else:
                yield Piece(found, (), offsets, self.newest_ms)

    def tell(self) -> None:
        """Log the progress now and then."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self.told_s >= _TELL_S:
            self.told_s = now_s
            _log.info("kafka.restoring_state", records=self.records, at_most=self.total, rate=self._rate(now_s))

    def done(self) -> None:
        """Log the end."""
        now_s = asyncio.get_running_loop().time()
        seconds = round(now_s - self.began_s, 1)
        _log.info("kafka.state_restored", records=self.records, seconds=seconds, rate=self._rate(now_s))

    def _rate(self, now_s: float) -> int:
        return round(self.records / max(now_s - self.began_s, 0.001))
