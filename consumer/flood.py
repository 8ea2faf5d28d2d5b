"""A bad event is expected; a flood of them means that something is wrong with more than one event."""

from __future__ import annotations

from collections import deque

WINDOW = 200
"""Events the share of bad ones is judged over."""

MOST_BAD = 10
"""5 % of the window."""

MOST_IN_A_ROW = 19
"""Twenty in a row are a flood."""


class FloodGuard:
    """Counts bad events: more than 5 % of the last 200, or 20 in a row, are a flood."""

    def __init__(self) -> None:
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._bad = 0
        self._in_a_row = 0

    def observe(self, *, bad: bool) -> None:
        """Count one processed event."""
        if len(self._recent) == WINDOW and self._recent[0]:
            self._bad -= 1
        self._recent.append(bad)
        if bad:
            self._bad += 1
            self._in_a_row += 1
        else:
            self._in_a_row = 0

    @property
    def flooding(self) -> bool:
        """Whether the events seen lately are a flood of bad ones."""
        return self._in_a_row > MOST_IN_A_ROW or (len(self._recent) == WINDOW and self._bad > MOST_BAD)
