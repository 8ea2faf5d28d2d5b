"""The only place that reads the wall clock; everything below takes the time as an argument."""

from __future__ import annotations

import time


def now_ms() -> int:
    """Return the wall clock, epoch milliseconds."""
    return time.time_ns() // 1_000_000
