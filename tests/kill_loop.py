"""Kills a worker again and again under load on a real broker, then compares ledger and topics.

``python -m tests.kill_loop --kills 200`` ends 0 when nothing is lost, repeated or out of order.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.broker import running_broker
from tests.deployment import SESSIONS, Deployment, deployment
from tests.ledger import Findings, check

TOPICS = (
    SESSIONS,
    "/data/AgentWorkChangeEvent",
    "/data/MessagingEndUserChangeEvent",
    "/data/PendingServiceRoutingChangeEvent",
)
_FAULTS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("end_streams", {"how": "unavailable"}),
    ("end_streams", {"how": "ok"}),
    ("end_streams", {"how": "internal"}),
    ("redeliver", {"events": 150, "when": "now"}),
    ("redeliver", {"events": 150, "when": "resume"}),
    ("duplicate", {"events": 40}),
    ("revoke_tokens", {}),
    ("goaway", {}),
    ("advance", {"times": 5}),
)
_DRAIN_LIMIT_S = 300.0
_ACTIVE_LIMIT_S = 90.0
"""A worker that finds Salesforce's login or Kafka busy takes its time; this is for a very slow machine."""


def scenario(rate: float, seed: int) -> dict[str, Any]:
    """Return an org with all that makes resuming hard: shared replay ids, holes, cut responses, quick keep-alives."""
    return {
        "seed": seed,
        "time_scale": 60.0,
        "split": "random",
        "ungroup_merged": True,
        "traffic": {"rate": rate, "live": 150},
    }


async def kill_again_and_again(
    place: Deployment, kills: int, seed: int, *, longest_life_s: float = 4.0, say: Any = None
) -> int:
    """Start workers and kill each at a random moment; one more is left running at the end.

    Args:
        place: org and topics.
        kills: how many workers die.
        seed: makes moments and faults repeatable, as far as the machine allows.
        longest_life_s: longest life of a worker that is killed at any moment, seconds; the others are killed
            within a third of it after they became active.
        say: is told a line now and then.

    Returns:
        How many had committed something before they died.
    """
    chance = random.Random(seed)
    useful = 0
    for number in range(kills):
        before = len(await place.reader.read())
        worker = await place.worker()
        if chance.random() < 0.6:
            kind, parameters = chance.choice(_FAULTS)
            await place.org.fault(kind, **parameters)
        if chance.random() < 0.7:
            await worker.has_role("active", _ACTIVE_LIMIT_S)
            moment = chance.uniform(0.0, longest_life_s / 3)
        else:
            moment = chance.uniform(0.2, longest_life_s)
        # A random moment is the point here: no condition could name it.
        await asyncio.sleep(moment)
        assert worker.returncode is None, f"the worker ended by itself: {worker.tail()}"
        await worker.kill()
        useful += len(await place.reader.read()) > before
        if say is not None and (number + 1) % 10 == 0:
            say(f"{number + 1} kills, {useful} of workers that had committed, {len(place.reader.records)} records")
    return useful


async def run(kills: int, rate: float, seed: int, bootstrap: str) -> Findings:
    """Run the whole loop and print what came out."""
    prefix = f"k{uuid.uuid4().hex[:8]}."
    with tempfile.TemporaryDirectory(prefix="kill-loop-") as directory:
        async with deployment(Path(directory), bootstrap, prefix, scenario(rate, seed), topics=TOPICS) as place:
            useful = await kill_again_and_again(place, kills, seed, say=_say)
            await place.org.traffic(paused=True)
            worker = await place.worker()
            _say("draining")
            published = await place.committed(_DRAIN_LIMIT_S)
            code = await worker.stop()
            records = await place.reader.read_settled()
            aborted = await place.reader.aborted()
    # Minutes of validating come after the connections are closed, which would not outlive them.
    found = check(published, records)
    _say(f"{kills} kills ({useful} of workers that had committed, last worker's exit code {code})")
    _say(f"{aborted} records were written in transactions that never committed, and seen by nobody")
    _say(str(found))
    return found


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  # the command's output


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.kill_loop", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--rate", type=float, default=300.0, help="events per second of all objects together")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with running_broker() as broker:
        found = asyncio.run(run(args.kills, args.rate, args.seed, broker.bootstrap))
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
