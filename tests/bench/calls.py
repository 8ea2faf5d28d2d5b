"""REST calls of an hour with the service's own settings: ``python -m tests.bench.calls [--sessions 10000] [--rate 1]``.

The org's clock runs sixty times as fast as ours, so that its hour takes a minute. The same hour is lived with and
without shares, rules and feeds; the org counts the calls.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from tests.bench.rig import SESSIONS
from tests.broker import kafka_version, running_broker
from tests.processes import Emulator, Lab, running_lab, until, worker_config

_SPEED = 60
_HOUR_MS = 3_600_000
_LIMIT_S = 300.0


def scenario(sessions: int, rate: float) -> dict[str, Any]:
    """Return an org of so many sessions with shares and feeds.

    Args:
        sessions: those that are there before the service begins.
        rate: change events per second of the org.
    """
    return {
        "clock_speed": _SPEED,
        "time_scale": _SPEED,
        "api_limit": 10_000_000,
        "traffic": {"sessions": sessions, "live": max(40, sessions // 20), "rate": rate * _SPEED},
        "sharing": {"eager": True},
        "feed": {"tracking": True, "acts_per_minute": 6.0},
    }


async def calls_of_an_hour(lab: Lab, bootstrap: str, sessions: int, rate: float, *, sharing: bool) -> Counter[str]:
    """Return the calls of an hour by what they ask, once the first snapshot and the first sweep are through."""
    org = await lab.emulator(scenario(sessions, rate))
    for target in ("Supervisors", "Quality", "Specialists"):
        await org.fault("rule_create", source="AllInternalUsers", target=target)
    prefix = f"calls{uuid.uuid4().hex[:8]}."
    config = worker_config(org, bootstrap, prefix, topics=[SESSIONS], pubsub={"start": "snapshot"})
    for section in ("history", "tracking"):  # as short as tests need them
        del config[section]
    config |= {"sharing": {"enabled": sharing}, "feed": {"enabled": sharing}}
    worker = await lab.worker(config)
    await worker.said(_LIMIT_S, event="scan.complete")
    if sharing:
        await worker.said(_LIMIT_S, event="sweep.complete")
    begun_ms, before = await _now_ms(lab, org), await _counted(org)

    async def passed() -> bool:
        return await _now_ms(lab, org) >= begun_ms + _HOUR_MS

    await until(passed, "an hour of the org is over", _LIMIT_S)
    calls = await _counted(org) - before
    assert await worker.stop() == 0, worker.tail()
    await org.stop()
    return calls


async def _counted(org: Emulator) -> Counter[str]:
    return Counter((await org.stats())["rest_calls"])


async def _now_ms(lab: Lab, org: Emulator) -> int:
    async with lab.http.get(f"{org.addresses['control']}/oracle/settled") as answer:
        return int((await answer.json(content_type=None))["now_ms"])


async def measure(sessions: int, rate: float) -> None:
    """Measure and tell."""
    with running_broker(secure=False) as broker, tempfile.TemporaryDirectory(prefix="calls-") as name:
        _say(
            f"Apache Kafka {kafka_version()}; {sessions:,} sessions, {rate:g} events/s, an hour, the default settings."
        )
        async with running_lab(Path(name)) as lab:
            found = {
                sharing: await calls_of_an_hour(lab, broker.bootstrap, sessions, rate, sharing=sharing)
                for sharing in (False, True)
            }
    for sharing, calls in found.items():
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(calls.items()))
        _say(f"  shares, rules and feeds {'read' if sharing else 'not read'}: {calls.total()} calls ({kinds})")
    more = found[True].total() - found[False].total()
    _say(f"  {more * 1000 / sessions:.1f} calls per thousand sessions and hour are for shares, rules and feeds")


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  # the command's output


def main() -> int:
    """Run the measurement."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.calls", description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000, help="sessions that are there before the first event")
    parser.add_argument("--rate", type=float, default=1.0, help="change events per second of the org")
    args = parser.parse_args()
    asyncio.run(measure(args.sessions, args.rate))
    return 0


if __name__ == "__main__":
    sys.exit(main())
