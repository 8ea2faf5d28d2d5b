"""The loss windows that are open now: which images they put in doubt, and which changes they own up to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from consumer.events import LossWindow

SECOND_MS: Final = 1_000
"""Commit times and SystemModstamps were only ever seen in whole seconds (Pub/Sub API guide, real payloads)."""

_NARROWED: Final = "oldest_retained"


class OpenWindows(Mapping[str, LossWindow]):
    """Open windows by id.

    Args:
        windows: those open at the start.
    """

    def __init__(self, windows: Mapping[str, LossWindow]) -> None:
        self._windows = dict(windows)
        self._doubted: dict[str | None, int] = {}
        self._judge()

    def __getitem__(self, window_id: str) -> LossWindow:
        return self._windows[window_id]

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._windows))

    def __len__(self) -> int:
        return len(self._windows)

    def open(self, window: LossWindow) -> None:
        """Add a window, or put it in the place of its former self."""
        self._windows[window.window_id] = window
        self._judge()

    def close(self, window_id: str) -> LossWindow | None:
        """Take a window away and return it, None if it is not open."""
        window = self._windows.pop(window_id, None)
        if window is not None:
            self._judge()
        return window

    def doubted_before(self, entity: str) -> int:
        """Return the time before which nothing that is known of an object is sure, epoch milliseconds, 0 for none."""
        if not self._doubted:
            return 0
        return max(self._doubted.get(entity, 0), self._doubted.get(None, 0))

    def without_end(self) -> list[LossWindow]:
        """Return the windows of lost positions whose end is not known exactly yet."""
        return [
            window
            for window in self._windows.values()
            if window.reason == "position_lost"
            and window.detail.get("continued_at") == "earliest"
            and not window.detail.get(_NARROWED)
        ]

    def end(self, window: LossWindow, oldest_retained_ms: int) -> LossWindow:
        """Let a lost position's window end where the retained events begin, and return it."""
        to_ms = max(oldest_retained_ms, window.from_ms or 0)
        ended = replace(window, to_ms=to_ms, detail={**window.detail, _NARROWED: True})
        self.open(ended)
        return ended

    def owning_up(self, entity: str, record_id: str, changed_ms: int) -> str | None:
        """Return the id of a window that owns up to a change of a record, None if none does."""
        for window in self._windows.values():
            if window.entity not in {None, entity} or (window.record_ids and record_id not in window.record_ids):
                continue
            begun = window.from_ms is None or window.from_ms - SECOND_MS <= changed_ms
            if begun and (window.to_ms is None or changed_ms <= window.to_ms + SECOND_MS):
                return window.window_id
        return None

    def _judge(self) -> None:
        doubted: dict[str | None, int] = {}
        for window in self._windows.values():
            # Before a first snapshot nothing was known that could be out of date.
            if not window.record_ids and window.reason != "no_snapshot":
                before_ms = (window.from_ms or 0) + 1 if window.to_ms is None else window.to_ms
                doubted[window.entity] = max(before_ms, doubted.get(window.entity, 0))
        self._doubted = doubted
