"""Keeps the org's daily API calls from running out, as far as it depends on us; pure but for the clock it is given.

Every answer says ``Sforce-Limit-Info: api-usage=18/5000`` (REST API guide): calls of all clients in the last 24 h.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from consumer.errors import QuotaError

PROBE_S = 300.0
"""While no call is admitted nothing is heard of the usage; so long after the last word of it one call may ask."""

_DAY_S = 86_400.0
_PACED_FROM = 0.7
_SLOWEST = 16.0
_USAGE = re.compile(r"(?:^|[;,\s])api-usage=(\d{1,12})/(\d{1,12})", re.ASCII)
_ADVICE = "Find what uses up the org's API calls (Setup > System Overview), or raise the limit; work goes on by itself."


class Governor:
    """Admits calls, and tells pollers how much to slow down.

    Args:
        reserve: part of the daily calls that only repairs may use, 0 to 1.
        now_s: monotonic clock, seconds.
        probe_s: how long after the last word of the usage one call may ask for it, though none is admitted.
    """

    def __init__(self, reserve: float, now_s: Callable[[], float], probe_s: float = PROBE_S) -> None:
        self._reserve = reserve
        self._probe_s = probe_s
        self._now_s = now_s
        self._used = 0
        self._limit: int | None = None
        self._exhausted = False
        self._heard_s = now_s()

    @property
    def usage(self) -> tuple[int, int] | None:
        """Calls used and calls allowed in 24 h, as heard last; None before the first answer."""
        return None if self._limit is None else (self._used, self._limit)

    @property
    def pace_factor(self) -> float:
        """By how much a poller should stretch its interval: 1 up to 70 % of what is not reserved, 16 at its end.

        The usage is that of a rolling day, so what was heard of it loses its weight within one.
        """
        if self._exhausted and self._now_s() - self._heard_s < _DAY_S:
            return _SLOWEST
        if not self._limit:
            return 1.0
        fresh = max(0.0, 1.0 - (self._now_s() - self._heard_s) / _DAY_S)
        share = self._used * fresh / (self._limit * (1.0 - self._reserve))
        left = (1.0 - share) / (1.0 - _PACED_FROM)
        return _SLOWEST if left <= 1.0 / _SLOWEST else max(1.0, 1.0 / left)

    def admit(self, *, repair: bool) -> None:
        """Let one call through; to be asked before each.

        Args:
            repair: whether the call may use the reserve.

        Raises:
            QuotaError: it may not be made now; ``retry_after_s`` says when one may try.
        """
        if self._has_room(repair=repair):
            self._used += 1
            return
        wait_s = self._heard_s + self._probe_s - self._now_s()
        if wait_s > 0:
            what = "The org's daily API calls are used up"
            if not self._exhausted and self._limit is not None and self._used < self._limit:
                what = "Only the reserve of the org's daily API calls is left, which is kept for repairs"
            raise QuotaError(what, _ADVICE, code="REQUEST_LIMIT_EXCEEDED", retry_after_s=wait_s)
        self._heard_s = self._now_s()

    def _has_room(self, *, repair: bool) -> bool:
        if self._exhausted:
            return False
        if self._limit is None:
            return True
        return self._used < (self._limit if repair else self._limit * (1.0 - self._reserve))

    def observe(self, limit_info: str) -> None:
        """Take note of an answer's ``Sforce-Limit-Info``; text that says nothing of the org's usage is ignored."""
        found = _USAGE.search(limit_info)
        if found is None or not int(found[2]):
            return
        self._used, self._limit = int(found[1]), int(found[2])
        self._exhausted = False
        self._heard_s = self._now_s()

    def exhausted(self) -> None:
        """Take note of REQUEST_LIMIT_EXCEEDED: whatever the header says, there is nothing left."""
        self._exhausted = True
        self._heard_s = self._now_s()
