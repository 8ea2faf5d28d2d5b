"""The spans of one channel's streams, as records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from consumer.delivery.coverage import Coverage
from consumer.events import Json, OutboundRecord
from consumer.tracking.arrivals import Progress
from consumer.tracking.spans import Span, SpanKeeper

_PROGRESS: Final = "span:"


class Spans:
    """Cuts spans of the changes of a channel, and of the history, sharing and feed of each of its objects.

    Args:
        channel: the channel.
        coverage: makes coverage records.
        progress: newest progress by name, read when a stream is first heard of.
        progressed: takes note of progress and returns its record.
    """

    def __init__(
        self,
        channel: str,
        coverage: Coverage,
        progress: Mapping[str, Mapping[str, Json]],
        progressed: Callable[[Progress], OutboundRecord],
    ) -> None:
        self._channel = channel
        self._coverage = coverage
        self._progress = progress
        self._progressed = progressed
        self._keepers: dict[str, SpanKeeper] = {}

    def changes(self, complete_to_ms: int, now_ms: int) -> list[OutboundRecord]:
        """Take note that all changes before a time were delivered; return the records of a span that is due."""
        name = f"changes:{self._channel}"
        return self._cut(name, self._keeper(name).advance(complete_to_ms, now_ms), now_ms)

    def begin(self, at_ms: int) -> None:
        """Say where the first span of the changes begins, epoch milliseconds; without effect once that is known."""
        self._keeper(f"changes:{self._channel}").begin(at_ms)

    def history(self, entity: str, complete_to_ms: int, now_ms: int) -> list[OutboundRecord]:
        """Take note that all history rows of an object before a time were read; likewise."""
        return self._read_to("history", entity, complete_to_ms, now_ms)

    def sharing(self, entity: str, swept_from_ms: int, now_ms: int) -> list[OutboundRecord]:
        """Take note that a sweep of an object's share rows that began at a time is complete; likewise.

        The proof is ``delivered``: ``reconciled`` promises a count and a digest of what was compared, which sweeps
        do not make.
        """
        return self._read_to("sharing", entity, swept_from_ms, now_ms)

    def feed(self, entity: str, complete_to_ms: int, now_ms: int) -> list[OutboundRecord]:
        """Take note that all feed items of an object before a time were read; likewise."""
        return self._read_to("feed", entity, complete_to_ms, now_ms)

    def _read_to(self, stream: str, entity: str, complete_to_ms: int, now_ms: int) -> list[OutboundRecord]:
        name = f"{stream}:{entity}"
        return self._cut(name, self._keeper(name).advance(complete_to_ms, now_ms), now_ms, entity)

    def lost(self, from_ms: int | None, to_ms: int | None, now_ms: int) -> list[OutboundRecord]:
        """Go on behind a loss window; return the records of the span before it."""
        name = f"changes:{self._channel}"
        span = self._keeper(name).lost(from_ms, to_ms, now_ms)
        return [*self._cut(name, span, now_ms), self._remember(name)]

    def _keeper(self, name: str) -> SpanKeeper:
        keeper = self._keepers.get(name)
        if keeper is None:
            stream = name if name.startswith("changes:") else name.partition(":")[0]
            keeper = self._keepers[name] = SpanKeeper(stream, self._progress.get(_PROGRESS + name))
        return keeper

    def _cut(self, name: str, span: Span | None, now_ms: int, entity: str | None = None) -> list[OutboundRecord]:
        if span is None:
            return []
        return [self._coverage.span(self._channel, span, now_ms, entity=entity), self._remember(name)]

    def _remember(self, name: str) -> OutboundRecord:
        return self._progressed(Progress(_PROGRESS + name, self._keeper(name).state()))
