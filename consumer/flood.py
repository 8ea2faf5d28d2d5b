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
    """Counts bad events: more than 5 % of the last 200, or 20 in a row, are a flood.

    Args:
        accepted: whether a flood was accepted by the operator: it is none then until it is over, that is until 200
            events in a row hold no more than 5 % bad ones.
    """

    def __init__(self, *, accepted: bool = False) -> None:
        self._accepted = accepted
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
        if self._accepted and len(self._recent) == WINDOW and not self._too_many:
            self._accepted = False

    @property
    def accepted(self) -> bool:
        """Whether a flood is accepted and not over yet."""
        return self._accepted

    @property
    def flooding(self) -> bool:
        """Whether the events seen lately are a flood of bad ones that nobody accepted."""
        return self._too_many and not self._accepted

    @property
    def _too_many(self) -> bool:
        return self._in_a_row > MOST_IN_A_ROW or (len(self._recent) == WINDOW and self._bad > MOST_BAD)
