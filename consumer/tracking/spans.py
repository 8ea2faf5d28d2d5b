"""Spans: how far a stream is proven delivered, as contiguous pieces of the org's time.

Two spans of one stream never overlap and leave no hole but for a loss window. What the keeper must remember lives
in ``Progress("span", keeper.state())`` in the same transaction as the span's record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from consumer.events import Json

EVERY_MS = 30_000
"""At most one span per stream in this time, but for those that a loss window cuts short."""

KEEPALIVE_MARGIN_MS = 5_000
"""An event can be published some seconds after its commit (Pub/Sub API guide: delivery is near real time), so a
keep-alive proves only what was committed this long before it came."""

_LAST_MS = 253_402_300_799_999
"""The end of the year 9999: a commit time beyond it is damage, and no span can be written with it."""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of time in which everything was delivered: from <= commit time < to.

    Attributes:
        stream: ``changes:<channel>`` or ``history``.
        from_ms: start, epoch milliseconds of the org's time.
        to_ms: end, likewise; not part of it.
    """

    stream: str
    from_ms: int
    to_ms: int


def complete_after_event(commit_ms: int) -> int:
    """Return what an event proves: all seconds before its own, which may still be filling (epoch milliseconds)."""
    return commit_ms - commit_ms % 1000


def complete_after_keepalive(received_ms: int) -> int:
    """Return what a keep-alive proves that came when nothing was outstanding (epoch milliseconds)."""
    return received_ms - KEEPALIVE_MARGIN_MS


class SpanKeeper:
    """Cuts the spans of one stream.

    Args:
        stream: ``changes:<channel>`` or ``history``.
        start: what :meth:`state` gave when it was last made durable, None at the very first start.
    """

    __slots__ = ("_complete_ms", "_cut_ms", "_end_ms", "_stream")

    def __init__(self, stream: str, start: Mapping[str, Json] | None = None) -> None:
        self._stream = stream
        self._end_ms = _time(start, "to_ms")
        self._cut_ms = _time(start, "cut_ms")
        self._complete_ms = self._end_ms

    @property
    def complete_to_ms(self) -> int | None:
        """How far the stream is complete, whether a span says so yet or not; None while nothing is."""
        return self._complete_ms

    def begin(self, at_ms: int) -> None:
        """Say where the first span begins; without effect once that is known (epoch milliseconds)."""
        if self._end_ms is None:
            self._end_ms = self._complete_ms = at_ms

    def advance(self, complete_to_ms: int, now_ms: int) -> Span | None:
        """Take note of progress, and return a span when one is due.

        Args:
            complete_to_ms: everything committed before it was delivered; an earlier one than before is ignored.
            now_ms: the org's time.
        """
        self._note(complete_to_ms, now_ms)
        # Both ways, because a clock that was set back must not stop the spans until it has caught up.
        if self._cut_ms is not None and abs(now_ms - self._cut_ms) < EVERY_MS:
            return None
        return self._cut(now_ms)

    def edge(self, complete_to_ms: int | None, now_ms: int) -> Span | None:
        """Return the span up to now although none is due yet, because a loss window opens or closes.

        Args:
            complete_to_ms: as in :meth:`advance`, None for no news.
            now_ms: the org's time.
        """
        if complete_to_ms is not None:
            self._note(complete_to_ms, now_ms)
        return self._cut(now_ms)

    def lost(self, from_ms: int | None, to_ms: int | None, now_ms: int) -> Span | None:
        """A position was lost or forced, or this is a first start: go on behind the loss window.

        Args:
            from_ms: start of the window, which is the commit time of the last committed event: everything before
                it was delivered. None when nothing is known.
            to_ms: end of the window, where the next span begins; None when the window is open-ended, and the next
                span begins with the first progress after this.
            now_ms: the org's time.

        Returns:
            The span from the last one's end to the window's start, None if that is nothing.
        """
        last = None
        if from_ms is not None and self._end_ms is not None and from_ms > self._end_ms:
            last = Span(self._stream, self._end_ms, from_ms)
            self._end_ms, self._cut_ms = from_ms, now_ms
        if to_ms is None:
            self._end_ms = self._complete_ms = None
        else:
            self._end_ms = self._complete_ms = max(to_ms, self._end_ms or to_ms)
        return last

    def state(self) -> dict[str, Json]:
        """Return what must be durable together with the last span, as plain JSON."""
        return {"to_ms": self._end_ms, "cut_ms": self._cut_ms}

    def _note(self, complete_to_ms: int, now_ms: int) -> None:
        if not 0 <= complete_to_ms <= _LAST_MS:
            return
        if self._end_ms is None or self._complete_ms is None:
            # Since when events were sent is not known, only that they are now.
            self._end_ms = self._complete_ms = max(complete_to_ms, now_ms)
        elif complete_to_ms > self._complete_ms:
            self._complete_ms = complete_to_ms

    def _cut(self, now_ms: int) -> Span | None:
        start, end = self._end_ms, self._complete_ms
        if start is None or end is None or end <= start:
            return None
        self._end_ms, self._cut_ms = end, now_ms
        return Span(self._stream, start, end)


def _time(start: Mapping[str, Json] | None, name: str) -> int | None:
    value = (start or {}).get(name)
    return value if type(value) is int else None
