"""What a service does in one phase of a benchmark, read from its metrics before and after."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp


@dataclass(slots=True)
class Times:
    """A histogram of the service over a while.

    Attributes:
        count: how many.
        seconds: their sum.
        upto: how many took at most so long, by the bucket's bound.
    """

    count: float = 0.0
    seconds: float = 0.0
    upto: defaultdict[float, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, after: Times, before: Times) -> None:
        """Add what was counted between two readings."""
        self.count += after.count - before.count
        self.seconds += after.seconds - before.seconds
        for bound, many in after.upto.items():
            self.upto[bound] += many - before.upto[bound]

    def __str__(self) -> str:
        if not self.count:
            return "nothing"
        parts = (
            f"{share:.0%} <= {next(bound for bound in sorted(self.upto) if self.upto[bound] >= share * self.count):g} s"
            for share in (0.5, 0.95, 0.99, 1.0)
        )
        return f"mean {self.seconds / self.count * 1000:5.0f} ms ({', '.join(parts)})"


@dataclass(slots=True)
class Phase:
    """What the service did in one phase of the run."""

    seconds: float = 0.0
    events: float = 0.0
    commit: Times = field(default_factory=Times)
    lag: Times = field(default_factory=Times)


async def reading(http: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """Return a worker's histograms and counters now.

    Args:
        http: asks.
        url: of its health pages.
    """
    async with http.get(f"{url}/metrics") as answer:
        page = await answer.text()
    found: dict[str, Any] = {"at": time.monotonic()}
    for name in ("commit_seconds", "own_lag_seconds"):
        times = found[name] = Times()
        buckets = rf'^session_consumer_{name}_bucket{{.*le="(\S+?)".*}} (\S+)$'
        for bound, value in re.findall(buckets, page, re.MULTILINE):
            times.upto[float(bound)] = float(value)
        times.count = _sum(page, f"{name}_count")
        times.seconds = _sum(page, f"{name}_sum")
    found["events"] = _sum(page, "batch_events_sum")
    return found


def note(phase: Phase, before: Mapping[str, Any], after: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add what was done between two readings to a phase; returns the second one."""
    phase.seconds += after["at"] - before["at"]
    phase.events += after["events"] - before["events"]
    phase.commit.add(after["commit_seconds"], before["commit_seconds"])
    phase.lag.add(after["own_lag_seconds"], before["own_lag_seconds"])
    return after


def _sum(page: str, name: str) -> float:
    return sum(float(each) for each in re.findall(rf"^session_consumer_{name}{{.*}} (\S+)$", page, re.MULTILINE))
