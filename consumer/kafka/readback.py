"""Which events were committed lately: their ids, read back from the topics themselves.

A stream that is opened again at EARLIEST, or at a position set by hand, delivers events that were committed
before; they are recognised by event id and by nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from consumer.delivery.headers import event_id_of
from consumer.errors import KafkaRefusedError
from consumer.kafka.reading import CommittedReader, Partition, Span

RETENTION_MS = 96 * 3_600_000
"""How far back redelivery can reach, milliseconds: 72 h of event retention (Pub/Sub API guide) and a day."""

TAIL_OFFSETS = 2_000
"""Offsets read per partition when nothing made old events come again: some batches more than can be in flight."""

MAX_IDS = 5_000_000
"""Most ids kept in memory, about 600 MB; far more than an org's event allowance delivers in the retention time."""

_PROGRESS_STEP = 50_000


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long read has come.

    Attributes:
        records: records read.
        ids: different event ids found.
        left: offsets still to be read, at most.
    """

    records: int
    ids: int
    left: int


def redelivery_since_ms(redelivery_ms: int | None, now_ms: int) -> int | None:
    """Return the time from which all ids are needed, None when the tail is enough.

    Args:
        redelivery_ms: when something made the server send old events again, None if nothing did.
        now_ms: the time now, epoch milliseconds.
    """
    if redelivery_ms is None or now_ms - redelivery_ms > RETENTION_MS:
        return None
    return min(redelivery_ms, now_ms) - RETENTION_MS


async def recent_event_ids(
    reader: CommittedReader,
    topics: Iterable[str],
    *,
    since_ms: int | None = None,
    coverage: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    max_ids: int = MAX_IDS,
) -> frozenset[str]:
    """Return the ids of events committed lately.

    Args:
        reader: started reader.
        topics: the ``changes`` topics of the subscription, and ``quarantine``.
        since_ms: read everything younger than this, epoch milliseconds; None reads each partition's tail.
        coverage: the ``coverage`` topic, whose values name events that opened a loss window and nothing else.
        on_progress: is told about long reads now and then.
        max_ids: most ids that may be held.

    Raises:
        KafkaUnavailableError: a topic could not be read to its end.
        KafkaRefusedError: there are more ids than ``max_ids``.
    """
    names = [*topics, *([] if coverage is None else [coverage])]
    spans = await _spans(reader, names, since_ms)
    total = sum(max(0, span.end - span.start) for span in spans.values())
    ids: set[str] = set()
    records = 0
    told = _PROGRESS_STEP
    async for piece in reader.read(spans):
        for record in piece:
            found = _id_of_coverage(record.value) if record.topic == coverage else event_id_of(record.headers)
            if found is not None:
                ids.add(found)
        records += len(piece)
        if len(ids) > max_ids:
            raise KafkaRefusedError(
                f"More than {max_ids} events were committed within the time that events can come again in",
                "Give the busiest objects a channel and a deployment of their own.",
            )
        if on_progress is not None and records >= told:
            told = records + _PROGRESS_STEP
            on_progress(Progress(records, len(ids), max(0, total - records)))
    return frozenset(ids)


async def _spans(reader: CommittedReader, topics: Iterable[str], since_ms: int | None) -> dict[Partition, Span]:
    spans = await reader.spans(await reader.partitions(topics))
    if since_ms is None:
        return {each: Span(max(span.start, span.end - TAIL_OFFSETS), span.end) for each, span in spans.items()}
    starts = await reader.starts_after(list(spans), since_ms)
    found: dict[Partition, Span] = {}
    for each, span in spans.items():
        start = starts[each]
        # No record is that young: only those that are not readable yet remain, at the very end.
        found[each] = Span(max(span.start, span.end - TAIL_OFFSETS) if start is None else start, span.end)
    return found


def _id_of_coverage(value: Any) -> str | None:
    try:
        fields = orjson.loads(value or b"null")
    except orjson.JSONDecodeError:
        return None
    event_id = fields.get("event_id") if isinstance(fields, dict) else None
    return event_id if isinstance(event_id, str) else None
