"""Sweeps of share rows beside live traffic: ``python -m tests.bench.sweep [--rows 200000] [--rate 500]``.

The org, a real broker and the service are processes of their own. The first sweep tells every share; those after it
find nothing new. Each is measured against the stream alone, in the same run. What it all costs in API calls is counted
by the org.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from consumer.emulator.traffic_data import QUEUES
from tests.bench.phases import Phase, note, reading
from tests.bench.rig import SESSIONS, peak_bytes
from tests.broker import kafka_version, running_broker
from tests.processes import Emulator, Lab, Worker, running_lab, until, worker_config

_ROWS_OF_A_SESSION = 2.5
"""The owner's, and three of rules unless a bot or the platform is the owner."""
_LIMIT_S = 1_800.0
_POLL_S = 60
"""How often history and modified shares are polled, which holds up the stream too."""
_ALONE_S = 3.0 * _POLL_S
"""How long the stream alone is measured, before and after a sweep. Whole periods of polls, which a sweep has too;
one period alone differs from the next by more than what is measured."""
_MIB = 1 << 20
_SOURCES = ("AllInternalUsers", *(f"Queue_{number}" for number in range(1, len(QUEUES) + 1)))
_TARGETS = ("Supervisors", "Quality", "Specialists")


@dataclass(slots=True)
class Result:
    """What was found.

    Attributes:
        first, later: the service during the first sweep, and during one that finds nothing new.
        alone: with the stream alone, before the later sweep, and after it unless the next one followed at once.
        rows: share rows of each sweep.
        calls: REST calls by what they ask, from the org's count, over ``seconds`` after the first sweep.
        peak_bytes: largest resident memory.
    """

    first: Phase = field(default_factory=Phase)
    later: Phase = field(default_factory=Phase)
    alone: Phase = field(default_factory=Phase)
    rows: list[int] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    peak_bytes: int = 0

    @property
    def ratio(self) -> float:
        """Mean time of a commit during a sweep against the stream alone."""
        return _mean(self.later) / _mean(self.alone)

    def lines(self, sessions: int) -> list[str]:
        """Return the report."""
        found = [f"  share rows of the sweeps: {', '.join(f'{each:,}' for each in self.rows)}"]
        for name, phase in (("first sweep", self.first), ("later sweep", self.later), ("stream alone", self.alone)):
            found += [
                f"  {name:12} {phase.events / max(phase.seconds, 0.001):4.0f} events/s over {phase.seconds:.0f} s",
                f"      commit  {phase.commit}",
                f"      own lag {phase.lag}",
            ]
        found.append(f"  commit latency while sweeping: {self.ratio:.2f} of the stream alone (aim: at most 1.50)")
        found.append(f"  peak memory of the service {self.peak_bytes / _MIB:.0f} MiB")
        hours = self.seconds / 3600
        total = sum(self.calls.values())
        found.append(f"  {total} REST calls in {self.seconds:.0f} s after the first sweep: {self.calls}")
        found.append(f"  {total / (sessions / 1000) / hours:.2f} calls per thousand sessions and hour at this rate")
        return found


def _mean(phase: Phase) -> float:
    return phase.commit.seconds / max(phase.commit.count, 1.0)


class Sweeps:
    """One run.

    Args:
        lab: starts the processes.
        bootstrap: the broker.
        sessions: sessions that are there before the first event.
        rate: events per second.
        sweep_s: interval of sweeps, seconds; the pages of one are spread over a twentieth of it.
    """

    def __init__(self, lab: Lab, bootstrap: str, sessions: int, rate: float, sweep_s: int) -> None:
        self._lab = lab
        self._bootstrap = bootstrap
        self._sessions = sessions
        self._rate = rate
        self._sweep_s = sweep_s
        self.result = Result()
        self._org: Emulator
        self._worker: Worker

    async def run(self) -> Result:
        """Measure."""
        result = self.result
        self._org = await self._lab.emulator(scenario(self._sessions))
        for target in _TARGETS:
            for source in _SOURCES:
                await self._org.fault("rule_create", source=source, target=target)
        await until(self._settled, "the rules' rows are there", _LIMIT_S)
        await self._org.traffic(rate=self._rate)
        await self._start()
        await self._worker.said(_LIMIT_S, event="scan.complete")
        page = await self._reading()
        await self._swept()
        page = note(result.first, page, await self._reading())
        calls = dict((await self._org.stats())["rest_calls"])
        began_s = page["at"]
        assert await self._alone(page), "the next sweep came too early: give a longer --sweep, or fewer --rows"
        await until(self._sweeping, "the next sweep begins", _LIMIT_S)
        page = await self._reading()
        await self._swept()
        page = note(result.later, page, await self._reading())
        after = (await self._org.stats())["rest_calls"]
        result.seconds = page["at"] - began_s
        result.calls = {name: many - calls.get(name, 0) for name, many in after.items() if many > calls.get(name, 0)}
        if not await self._alone(page):
            _say("  The next sweep followed at once: the stream alone was measured before the later sweep only.")
        assert await self._worker.stop() == 0, self._worker.tail()
        return result

    async def _alone(self, page: Mapping[str, Any]) -> bool:
        """Measure the stream alone; returns whether it was."""
        await asyncio.sleep(_ALONE_S)  # a length of time is what is measured here
        if await self._sweeping():
            return False
        note(self.result.alone, page, await self._reading())
        return True

    async def _start(self) -> None:
        config = worker_config(
            self._org,
            self._bootstrap,
            f"sweep{uuid.uuid4().hex[:8]}.",
            topics=[SESSIONS],
            pubsub={"start": "snapshot"},
            batch={"max_age": "100ms", "max_records": 500},
            kafka={"partitions": 6, "session_timeout": "2s", "transaction_timeout": "60s"},
            tracking={"refresh_after": "30s"},
            history={"poll": f"{_POLL_S}s", "settle": "10s", "confirm_within": "5m"},
            sharing={
                "sweep": f"{self._sweep_s}s",
                "poll": f"{_POLL_S}s",
                "overlap": f"{_POLL_S}s",
                "api_calls_per_day": 1_000_000,
            },
        )
        self._worker = await self._lab.worker(config)
        await self._worker.has_role("active", 60)

    async def _settled(self) -> bool:
        async with self._lab.http.get(f"{self._org.addresses['control']}/oracle/settled") as answer:
            return bool((await answer.json(content_type=None))["settled"])

    async def _sweeping(self) -> bool:
        health = (await self._worker.status())["subscriptions"][0]
        return bool(health["sweeps"])

    async def _swept(self) -> None:
        done = await self._worker.said(_LIMIT_S, event="sweep.complete")
        self.result.rows.append(int(done["rows"]))
        self._worker.forget()

    async def _reading(self) -> Mapping[str, Any]:
        self.result.peak_bytes = max(self.result.peak_bytes, peak_bytes(self._worker.pid))
        return await reading(self._lab.http, await self._worker.served())


def scenario(sessions: int) -> dict[str, Any]:
    """Return an org of so many sessions whose rows are kept from the start."""
    return {
        "api_limit": 10_000_000,
        "keep_all": True,  # an org does not lose ended sessions; their rows would all be revoked
        "traffic": {"sessions": sessions, "live": max(40, sessions // 20), "companions": False},
        "sharing": {"eager": True},
    }


async def measure(rows: int, rate: float, sweep_s: int) -> Result:
    """Run it and tell the result."""
    sessions = round(rows / _ROWS_OF_A_SESSION)
    with running_broker(secure=False) as broker, tempfile.TemporaryDirectory(prefix="sweep-") as name:
        _say(f"Apache Kafka {kafka_version()}, one node on this machine; {os.cpu_count()} processors.")
        load = os.getloadavg()[0]
        async with running_lab(Path(name)) as lab:
            result = await Sweeps(lab, broker.bootstrap, sessions, rate, sweep_s).run()
    _say(f"\nSweeps of {sessions:,} sessions beside {rate:g} events/s (load before: {load:.1f})")
    _say("\n".join(result.lines(sessions)))
    return result


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  # the command's output


def main() -> int:
    """Run the benchmark; 1 when a sweep costs the stream more than it may."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sweep", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="share rows at first; new sessions bring more")
    parser.add_argument("--rate", type=float, default=500.0, help="events per second")
    parser.add_argument("--sweep", type=int, default=1_200, help="seconds from the beginning of one sweep to the next")
    args = parser.parse_args()
    result = asyncio.run(measure(args.rows, args.rate, args.sweep))
    return int(result.ratio > 1.5)


if __name__ == "__main__":
    sys.exit(main())
