"""Some time of an org in which access changes in every way it can, and kills; then the topics are held to the truth.

``python -m tests.sharing_run --kills 20`` ends 0 when ``sharing`` and ``access`` are as the emulated org's oracle has
them: every grant, revocation and level change told once, and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.broker import running_broker
from tests.contract.topic_schemas import kind_of
from tests.deployment import SESSIONS, Deployment, deployment
from tests.kafka_reader import ReadRecord
from tests.processes import Worker, until
from tests.sharing_moments import Answers, all_asked, judge_moment, moments
from tests.sharing_oracle import (
    Identity,
    Patience,
    SharingVerdict,
    Span,
    gaps_of,
    judge_facts,
    judge_final,
    lives_of,
    read_topics,
)

_ACTIVE_LIMIT_S = 120.0
_SETTLE_LIMIT_S = 240.0
_ACTS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("transfer", {"records": 20}),
    ("transfer", {"records": 3}),
    ("share", {"records": 10, "level": "Read"}),
    ("share", {"records": 5, "level": "Edit"}),
    ("unshare", {"records": 4}),
    ("level_change", {"records": 4}),
    ("rule_create", {}),
    ("rule_change", {}),
    ("rule_delete", {}),
    ("membership", {}),
    ("recalculate", {"recreate": 0.3}),
    ("feed_post", {"records": 5}),
    ("feed_edit", {"items": 3}),
    ("feed_delete", {"items": 2}),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done to a deployment.

    Attributes:
        sessions: sessions that are there before the service looks first.
        kills: how many workers die.
        life_s: real seconds from the first act to the last.
        rate: events per real second.
        acts_per_minute: random acts on sharing, beside those of the plan.
        speed: seconds of the org in one real second.
        poll_s, settle_s, sweep_s: the service's settings, seconds of the org.
        moments, moments_asked: random past moments that are looked at, and those of them asked on the command line.
        gap_s: longest time that a recalculated row is away.
        seed: makes it repeatable, as far as the machine allows.
    """

    sessions: int
    kills: int
    life_s: float
    rate: float = 10.0
    acts_per_minute: float = 60.0
    speed: float = 4.0
    poll_s: int = 20
    settle_s: int = 12
    sweep_s: int = 120
    moments: int = 1_000
    moments_asked: int = 20
    gap_s: float = 4.0
    seed: int = 1

    @property
    def patience(self) -> Patience:
        """What nobody need have seen: shorter than a poll, or a sweep, and what a restart may add."""
        restart_ms = 60_000 if self.kills else 10_000
        come_and_gone_ms = (2 * self.poll_s + 2 * self.settle_s) * 1000 + restart_ms
        return Patience(come_and_gone_ms, 3 * self.sweep_s * 1000 + restart_ms)


def scenario(plan: Plan) -> dict[str, Any]:
    """Return an org that keeps the truth about sharing."""
    return {
        "seed": plan.seed,
        "time_scale": 20.0,
        "clock_speed": plan.speed,
        "keep_all": True,
        "oracle": True,
        "short_pages": True,
        "api_limit": 10_000_000,
        "traffic": {"rate": plan.rate, "live": 300, "sessions": plan.sessions, "companions": False},
        "sharing": {
            "eager": True,
            "recalc_gap_s": plan.gap_s,
            "late_share_rows": 0.01,
            "acts_per_minute": plan.acts_per_minute,
        },
        "feed": {"tracking": True, "acts_per_minute": plan.acts_per_minute},
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
        self._looked_at = 0
        self._access: dict[str, set[tuple[str, str, str]]] = {}

    async def run(self) -> SharingVerdict:
        """Live it, and judge what is left."""
        plan, place = self._plan, self._place
        begun_ms = int((await self._settled())["now_ms"])
        await self._start()
        steps = max(plan.kills, len(_ACTS))
        order = [*_ACTS, *(self._chance.choice(_ACTS) for _ in range(steps - len(_ACTS)))]
        self._chance.shuffle(order)
        for step, (kind, parameters) in enumerate(order):
            await self._act(kind, parameters)
            # A random moment is the point here: no condition could name it.
            await asyncio.sleep(self._chance.uniform(0.3, 1.7) * plan.life_s / steps)
            if step < plan.kills:
                await self._kill()
                await self._start()
        await place.org.traffic(paused=True)
        await place.org.fault("sharing_traffic", sharing=0, feed=0)
        return await self._judged(begun_ms)

    async def _act(self, kind: str, parameters: Mapping[str, Any]) -> None:
        try:
            await self._place.org.fault(kind, **parameters)
        except AssertionError as error:
            # There may be no rule left to delete, or no post to edit.
            if "there is no" not in str(error) and "no " not in str(error):
                raise

    async def _start(self) -> None:
        plan = self._plan
        times = {"poll": f"{plan.poll_s}s", "settle": f"{plan.settle_s}s", "overlap": "150s"}
        self._worker = await self._place.worker(
            pubsub={"start": "snapshot"},
            sharing={**times, "sweep": f"{plan.sweep_s}s", "api_calls_per_day": 10_000_000},
            feed=times,
            history={"poll": "5s"},
        )
        await self._worker.has_role("active", _ACTIVE_LIMIT_S)

    async def _kill(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            assert worker.returncode is None, f"the worker ended by itself: {worker.tail()}"
            await worker.kill()

    async def _judged(self, begun_ms: int) -> SharingVerdict:
        """Wait until nothing is left to be told, and judge."""

        async def quiet() -> bool:
            found = await self._settled()
            return bool(found["settled"]) and not found["unseen_rows"]

        await until(quiet, "recalculations are through", _SETTLE_LIMIT_S)
        with contextlib.suppress(AssertionError):  # the judge says precisely what is missing
            await until(self._as_it_is, "access is what there is", _SETTLE_LIMIT_S)
        if self._worker is not None:
            await self._worker.stop()
        records = await self._place.reader.read_settled()
        lines = await self._place.oracle("shares")
        gaps = await self._place.oracle("share_gaps")
        self._write(records, {"shares": lines, "share_gaps": gaps})
        verdict = await asyncio.to_thread(self._judge, records, lines, gaps, begun_ms)
        await self._judge_moments(records, lives_of(lines), begun_ms, verdict)
        return verdict

    async def _judge_moments(
        self,
        records: Sequence[ReadRecord],
        lives: Mapping[Identity, Sequence[Span]],
        begun_ms: int,
        verdict: SharingVerdict,
    ) -> None:
        """Ask who had access at random moments; some of the questions are put to the command line itself."""
        plan = self._plan
        to_ms = int((await self._settled())["now_ms"])
        answers = Answers(records)
        told = read_topics(records, SharingVerdict())
        of_record: dict[str, dict[Identity, Sequence[Span]]] = {}
        for identity, spans in lives.items():
            of_record.setdefault(identity[0], {})[identity] = spans
        intervals: dict[str, list[tuple[int | None, int]]] = {}
        for identity, facts in told.facts.items():
            intervals.setdefault(identity[0], []).extend((fact.from_ms, fact.to_ms) for fact in facts)
        for record_id, spans_unseen in told.unseen.items():
            intervals.setdefault(record_id, []).extend(spans_unseen)
        wanted = moments(lives, plan.moments, begun_ms, to_ms, plan.seed)
        config = max(self._place.lab.directory.glob("worker-*.toml"), key=lambda path: path.stat().st_mtime)
        by_command = wanted[: plan.moments_asked]
        for moment, answer in zip(by_command, await all_asked(config, by_command), strict=True):
            verdict.counted["moments asked on the command line"] += 1
            if answer != answers.at(moment):
                verdict.moments.append(f"{moment}: the command says {answer}, the records {answers.at(moment)}")
        for moment in wanted:
            verdict.counted["moments"] += 1
            found = of_record.get(moment.record_id, {})
            published = intervals.get(moment.record_id, [])
            judge_moment(moment, answers, found, published, verdict, plan.patience)

    async def _as_it_is(self) -> bool:
        """Tell whether ``access`` is what there is; what was read before is not looked at again."""
        records = await self._place.reader.read()
        for record in records[self._looked_at :]:
            if kind_of(record.topic) == "access":
                shares = () if record.value is None else json.loads(record.value)["shares"]
                self._access[(record.key or b"").decode()] = {
                    (share["user_or_group_id"], share["row_cause"], share["access_level"]) for share in shares
                }
        self._looked_at = len(records)
        there: dict[str, set[tuple[str, str, str]]] = {}
        for row in await self._place.oracle("share_rows"):
            there.setdefault(row["parent_id"], set()).add(
                (row["user_or_group_id"], row["row_cause"], row["access_level"])
            )
        return {key: shares for key, shares in self._access.items() if shares} == there

    def _judge(
        self, records: Sequence[ReadRecord], lines: list[dict[str, Any]], gaps: list[dict[str, Any]], begun_ms: int
    ) -> SharingVerdict:
        verdict = SharingVerdict()
        lives = lives_of(lines)
        told = read_topics(records, verdict)
        judge_final(lives, told, verdict)
        judge_facts(lives, told, verdict, patience=self._plan.patience, begun_ms=begun_ms, gaps=gaps_of(gaps))
        return verdict

    def _write(self, records: Sequence[ReadRecord], truth: Mapping[str, list[dict[str, Any]]]) -> None:
        """Keep both sides of the comparison beside the logs, for a look at what went wrong."""
        for name, lines in truth.items():
            (self._place.lab.directory / f"{name}.json").write_text(json.dumps(lines), encoding="utf-8")
        with (self._place.lab.directory / "records.jsonl").open("w", encoding="utf-8") as file:
            for record in records:
                value = None if record.value is None else json.loads(record.value)
                line = {"topic": record.topic, "key": (record.key or b"").decode(), "value": value}
                file.write(json.dumps({**line, "partition": record.partition, "offset": record.offset}) + "\n")

    async def _settled(self) -> dict[str, Any]:
        (found,) = await self._place.oracle("settled")
        return found


async def run(plan: Plan, bootstrap: str, directory: Path) -> SharingVerdict:
    """Run the whole plan on topics of its own."""
    prefix = f"s{uuid.uuid4().hex[:8]}."
    async with deployment(directory, bootstrap, prefix, scenario(plan), topics=(SESSIONS,)) as place:
        return await Life(place, plan).run()


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.sharing_run", description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=5.0, help="real minutes of acts")
    parser.add_argument("--rate", type=float, default=10.0, help="events per real second")
    parser.add_argument("--acts", type=float, default=60.0, help="random acts on sharing per real minute")
    parser.add_argument("--speed", type=float, default=4.0, help="seconds of the org in one real second")
    parser.add_argument("--asked", type=int, default=20, help="of 1,000 moments, how many by the command line itself")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", metavar="DIR", help="keep configuration and logs here")
    args = parser.parse_args()
    plan = Plan(
        args.sessions,
        args.kills,
        args.minutes * 60,
        rate=args.rate,
        acts_per_minute=args.acts,
        speed=args.speed,
        seed=args.seed,
        moments_asked=args.asked,
    )
    with running_broker() as broker, tempfile.TemporaryDirectory(prefix="sharing-") as directory:
        verdict = asyncio.run(run(plan, broker.bootstrap, Path(args.keep or directory)))
    print(verdict, flush=True)  # noqa: T201  # the command's output
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main())
