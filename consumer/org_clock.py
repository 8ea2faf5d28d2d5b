"""The org's time: our wall clock, corrected by what Salesforce's answers say in their ``Date`` header.

Windows, polls and settle margins are in the org's time, so that a wrong clock here neither opens nor hides a gap.
"""

from __future__ import annotations

from collections.abc import Callable

_TOLERANCE_MS = 2_000
"""``Date`` has whole seconds and is as old as the answer took; less than this is no difference."""


class OrgClock:
    """Tells the org's time.

    Args:
        now_ms: our wall clock, epoch milliseconds.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._skew_ms = 0

    def observe(self, date_ms: int) -> None:
        """Take note of a ``Date`` header that has just arrived, epoch milliseconds."""
        skew_ms = date_ms - self._now_ms()
        if abs(skew_ms - self._skew_ms) > _TOLERANCE_MS:
            self._skew_ms = 0 if abs(skew_ms) <= _TOLERANCE_MS else skew_ms

    def now_ms(self) -> int:
        """Return the org's time, epoch milliseconds."""
        return self._now_ms() + self._skew_ms
