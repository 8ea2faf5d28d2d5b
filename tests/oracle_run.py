"""An hour of an org's life with all that goes wrong in it, and kills; then the topics are held against the truth.

``python -m tests.oracle_run --kills 30`` ends 0 when every image, every field change and every loss window is as the
emulated org's oracle has it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.broker import running_broker
from tests.contract.topic_schemas import kind_of
from tests.deployment import SESSIONS, Deployment, deployment
from tests.kafka_reader import ReadRecord
from tests.oracle import Truth, Verdict, hours_of, judge, judge_hours, read_windows
from tests.processes import Worker

ENTITY = "MessagingSession"
_ACTIVE_LIMIT_S = 90.0
_SETTLE_LIMIT_S = 200.0
_OUTAGE_S = 4 * 86_400
_PUBLISHED = frozenset({"gap", "overflow"})
_TROUBLES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("drop", {"events": 3}),
    ("gap", {"op": "UPDATE", "records": 3}),
    ("gap", {"op": "DELETE", "records": 1}),
    ("overflow", {"updates": 12, "deletes": 2, "creates": 3}),
    ("silent_update", {"records": 2}),
    ("silent_delete", {"records": 1}),
    ("silent_create", {"records": 1}),
    ("redeliver", {"events": 60, "when": "resume"}),
    ("duplicate", {"events": 20}),
    ("end_streams", {"how": "internal"}),
    ("revoke_tokens", {}),
    ("rest_down", {"seconds": 2.0}),
    ("rest_error", {"error": "html502", "times": 3}),
    ("rest_error", {"error": "query_timeout", "times": 2}),
    ("expire_cursors", {}),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done to a deployment.

    Attributes:
        kills: how many workers die.
        life_s: real seconds from the first event to the last.
        rate: events per real second.
        speed: seconds of the org in one real second.
        seed: makes it repeatable, as far as the machine allows.
        outage: whether four days pass while no worker runs.
        move: whether replay ids and commit numbers begin anew.
    """

    kills: int
    life_s: float
    rate: float
    speed: float
    seed: int
    outage: bool = True
    move: bool = True


def scenario(plan: Plan) -> dict[str, Any]:
    """Return an org that keeps the truth, awkward on every path."""
    return {
        "seed": plan.seed,
        "time_scale": 60.0,
        "clock_speed": plan.speed,
        "split": "random",
        "ungroup_merged": True,
        "keep_all": True,
        "oracle": True,
        "short_pages": True,
        "bulk_s": 30.0,
        "traffic": {"rate": plan.rate, "live": 120, "preload": 400},
    }


class Life:
    """One deployment through everything that is planned.

    Args:
        place: org, topics, workers.
        plan: what is done.
    """

    def __init__(self, place: Deployment, plan: Plan) -> None:
        self._place = place
        self._plan = plan
        self._chance = random.Random(plan.seed)
        self._worker: Worker | None = None

    async def run(self) -> Verdict:
        """Live it, and judge what is left."""
        plan, place = self._plan, self._place
        await self._start()
        steps = max(plan.kills, 12)
        at_outage, at_move, at_schema = steps // 3, 2 * steps // 3, steps // 2
        killed = 0
        for step in range(steps):
            if step == at_schema:
                added = {"name": "Oracle_Note__c", "type": "string", "doc": "Data:Text:00NOracle000001"}
                await place.org.fault("schema_change", entity=ENTITY, add=[added])
            if plan.outage and step == at_outage:
                await self._outage()
            if plan.move and step == at_move:
                await place.org.fault("move_org")
            kind, parameters = self._chance.choice(_TROUBLES)
            order = place.org.publish if kind in _PUBLISHED else place.org.fault
            await order(kind, **parameters)
            # A random moment is the point here: no condition could name it.
            await asyncio.sleep(self._chance.uniform(0.3, 1.7) * plan.life_s / steps)
            if killed < plan.kills:
                killed += 1
                await self._kill()
                await self._start()
        await place.org.traffic(paused=True)
        return await self._settled()

    async def _start(self) -> None:
        self._worker = await self._place.worker(
            pubsub={"start": "snapshot"},
            history={"poll": "1s", "settle": "10s", "confirm_within": "5m"},
            tracking={"refresh_after": "30s", "reconcile_after": "5m", "bulk_above": 2000},
        )
        await self._worker.has_role("active", _ACTIVE_LIMIT_S)

    async def _kill(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            assert worker.returncode is None, f"the worker ended by itself: {worker.tail()}"
            await worker.kill()

    async def _outage(self) -> None:
        await self._kill()
        await self._place.org.fault("advance_clock", seconds=_OUTAGE_S, events=1500, steps=300)
        await self._start()

    async def _settled(self) -> Verdict:
        """Let hours pass until nothing is left to be done, and judge."""
        ends = time.monotonic() + _SETTLE_LIMIT_S
        while True:
            await self._place.org.fault("advance_clock", seconds=3900)
            await asyncio.sleep(6)
            verdict = judge(await self.truth(), await self._place.reader.read())
            if not verdict.faults or time.monotonic() > ends:
                break
        if self._worker is not None:
            await self._worker.stop()
        truth, records = await self.truth(), await self._place.reader.read_settled()
        self._write(truth, records)
        verdict = judge(truth, records)
        await self._judge_hours(truth, records, verdict)
        return verdict

    async def _judge_hours(self, truth: Truth, records: Sequence[ReadRecord], verdict: Verdict) -> None:
        """Ask the command line, as a user would, and hold its labels against the truth."""
        values = [json.loads(each.value or b"") for each in records if kind_of(each.topic) == "coverage"]
        windows = read_windows(values)
        first = next(each for each in windows if each.reason == "no_snapshot")
        begun_ms = first.to_ms or 0
        ends = [value["to"] for value in values if value["kind"] == "span" and value["stream"].startswith("changes:")]
        start = datetime.fromtimestamp(begun_ms // 1000 - 3600, UTC).isoformat()
        config = max(self._place.lab.directory.glob("worker-*.toml"), key=lambda path: path.stat().st_mtime)
        command = ("coverage", "--config", str(config), "--json", "--from", start, "--to", max(ends))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "consumer", *command, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        assert process.returncode in {0, 1}, f"coverage ended with {process.returncode}"
        judge_hours(truth, hours_of(json.loads(output)), windows, begun_ms, verdict)

    def _write(self, truth: Truth, records: Sequence[ReadRecord]) -> None:
        """Keep both sides of the comparison beside the logs, for a look at what went wrong."""
        directory = self._place.lab.directory
        with (directory / "records.jsonl").open("w", encoding="utf-8") as file:
            for record in records:
                value = None if record.value is None else json.loads(record.value)
                line = {"topic": record.topic, "key": (record.key or b"").decode(), "value": value}
                file.write(json.dumps({**line, "partition": record.partition, "offset": record.offset}) + "\n")
        (directory / "truth.json").write_text(json.dumps([list(truth.changes), list(truth.losses)]), encoding="utf-8")

    async def truth(self) -> Truth:
        """Ask the org what truly happened."""
        records: dict[str, Any] = {}
        deleted = set()
        for line in await self._place.oracle(f"records?entity={ENTITY}"):
            if line["deleted"]:
                deleted.add(line["record_id"])
            else:
                records[line["record_id"]] = line["image"]
        changes = await self._place.oracle(f"changes?entity={ENTITY}")
        losses = await self._place.oracle(f"losses?entity={ENTITY}")
        return Truth(records, frozenset(deleted), changes, losses)


async def run(plan: Plan, bootstrap: str, directory: Path) -> Verdict:
    """Run the whole plan on topics of its own."""
    prefix = f"o{uuid.uuid4().hex[:8]}."
    async with deployment(directory, bootstrap, prefix, scenario(plan), topics=(SESSIONS,)) as place:
        return await Life(place, plan).run()


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle_run", description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--rate", type=float, default=30.0, help="events per real second")
    parser.add_argument("--minutes", type=float, default=3.0, help="real minutes of traffic")
    parser.add_argument("--speed", type=float, default=20.0, help="seconds of the org in one real second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", metavar="DIR", help="keep configuration and logs here")
    parser.add_argument("--no-outage", action="store_true")
    parser.add_argument("--no-move", action="store_true")
    args = parser.parse_args()
    plan = Plan(
        args.kills,
        args.minutes * 60,
        args.rate,
        args.speed,
        args.seed,
        outage=not args.no_outage,
        move=not args.no_move,
    )
    with running_broker() as broker, tempfile.TemporaryDirectory(prefix="oracle-") as directory:
        verdict = asyncio.run(run(plan, broker.bootstrap, Path(args.keep or directory)))
    print(verdict, flush=True)  # noqa: T201  # the command's output
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main())
