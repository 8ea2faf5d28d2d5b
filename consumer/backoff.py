"""Exponential back-off with full jitter (the delay is drawn from zero to the current ceiling)."""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Delays between attempts; grows with every attempt, falls back only after health was seen.

    Args:
        random: returns a number in [0, 1); passed in, so that the caller owns randomness.
        first_s: ceiling of the first delay, seconds.
        cap_s: highest ceiling, seconds.
    """

    def __init__(self, random: Callable[[], float], first_s: float = 0.5, cap_s: float = 30.0) -> None:
        self._random = random
        self._first_s = first_s
        self._cap_s = cap_s
        self._attempts = 0

    @property
    def attempts(self) -> int:
        """Attempts since the last health."""
        return self._attempts

    def next_delay(self, at_least_s: float = 0.0) -> float:
        """Return the seconds to wait before the next attempt, never less than ``at_least_s``."""
        ceiling = min(self._cap_s, self._first_s * 2.0 ** min(self._attempts, 30))
        self._attempts += 1
        return at_least_s + self._random() * ceiling

    def healthy(self) -> None:
        """Start over: an answer was received, not merely a connection opened."""
        self._attempts = 0
