"""The daily API calls of the emulated org: a limit, and what was used in the last 24 hours of the org's time."""

from __future__ import annotations

from collections import deque

_HOUR_MS = 3_600_000


class ApiUsage:
    """Counts API calls over a rolling day.

    Args:
        limit: calls a day.

    Attributes:
        limit: as given.
        used_up: counts as used up whatever was used, until a fault takes it back.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used_up = False
        self._hours: deque[list[int]] = deque()

    def count(self, now_ms: int) -> None:
        """Take note of a call, at the org's time in epoch milliseconds."""
        hour = now_ms // _HOUR_MS
        if not self._hours or self._hours[-1][0] != hour:
            self._hours.append([hour, 0])
        self._hours[-1][1] += 1

    def used(self, now_ms: int) -> int:
        """Return the calls of the last 24 hours."""
        while self._hours and self._hours[0][0] <= now_ms // _HOUR_MS - 24:
            self._hours.popleft()
        counted = sum(calls for _, calls in self._hours)
        return max(counted, self.limit) if self.used_up else counted

    def left(self, now_ms: int) -> int:
        """Return the calls that are left."""
        return max(0, self.limit - self.used(now_ms))

    def header(self, now_ms: int) -> str:
        """Return the value of ``Sforce-Limit-Info``."""
        return f"api-usage={self.used(now_ms)}/{self.limit}"
