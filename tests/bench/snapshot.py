"""A first snapshot beside live traffic: ``python -m tests.bench.snapshot [--rows 200000] [--rate 500] [--kill]``.

The org, a real broker and the service are processes of their own. Once all is read, traffic pauses, and every state
in Kafka is held against the org's record. ``--kill`` ends the service by SIGKILL in the middle of the scan: the next
one must go on at the next chunk.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.bench.phases import Phase, note, reading
from tests.bench.rig import SESSIONS, peak_bytes
from tests.broker import kafka_version, running_broker
from tests.contract.topic_schemas import RecordShapeError, kind_of, validate_record
from tests.oracle import image_faults
from tests.processes import Emulator, Lab, Worker, running_lab, until, worker_config

ENTITY = "MessagingSession"
_MIB = 1 << 20
_LIMIT_S = 1_200.0
_BULK_S = 2.0
_AFTER_S = 15.0
"""How long the stream alone is measured, for comparison."""
_QUIET = 7
"""Seconds without a commit after which nothing is owed: jobs look every five seconds."""
_VALIDATED = 40
"""One in so many records is held against its schema."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Attributes:
        rows: sessions that are there before the first event.
        rate: events per second.
        kill: whether the service dies once, when half is read.
        bulk: whether the Bulk API is used.
    """

    rows: int
    rate: float
    kill: bool
    bulk: bool


@dataclass(slots=True)
class Result:
    """What was found.

    Attributes:
        seconds: from the scan's first line to its last, the time without a worker left out.
        rows: rows the scan read, those read before a kill included.
        peak_bytes: largest resident memory of any worker.
        told: rows that log lines of progress named, in order.
        chunks: chunks that committed progress names, in order.
        killed_at: rows committed when the worker was killed, 0 without a kill.
        lost_s: from the kill to the first commit of the next worker.
        scanning, alone: the service while it scanned, and with the stream alone afterwards.
        faults: everything that is wrong; must be empty.
        counted: what was compared.
    """

    seconds: float = 0.0
    rows: int = 0
    peak_bytes: int = 0
    told: list[int] = field(default_factory=list)
    chunks: list[int] = field(default_factory=list)
    killed_at: int = 0
    lost_s: float = 0.0
    scanning: Phase = field(default_factory=Phase)
    alone: Phase = field(default_factory=Phase)
    faults: list[str] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """Return the report."""
        found = [
            f"  {self.rows:,} rows in {self.seconds:.1f} s: {self.rows / self.seconds:,.0f} rows/s",
            f"  peak memory of the service {self.peak_bytes / _MIB:.0f} MiB",
            f"  progress: {len(self.told)} log lines ({', '.join(f'{each:,}' for each in self.told[:6])} ...)",
            f"  {len(self.chunks)} chunks committed, each once: {self.chunks == sorted(set(self.chunks))}",
        ]
        if self.killed_at:
            found.append(
                f"  killed after {self.killed_at:,} rows; {self.lost_s:.1f} s until the next worker's first commit"
            )
        for name, phase in (("while scanning", self.scanning), ("stream alone", self.alone)):
            found += [
                f"  {name:15} {phase.events / max(phase.seconds, 0.001):4.0f} events/s over {phase.seconds:.0f} s",
                f"      commit  {phase.commit}",
                f"      own lag {phase.lag}",
            ]
        found.append("  " + ", ".join(f"{count:,} {name}" for name, count in self.counted.items()))
        found.append(f"  faults: {len(self.faults)}")
        return found + [f"      {each}" for each in self.faults[:10]]


class Topics:
    """Reads what is committed under a prefix, topic by topic, holding one fetch in memory."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self._bootstrap = bootstrap
        self._prefix = prefix

    async def read(self, kind: str) -> Any:
        """Yield lists of consumer records of one kind of topic, in order within each partition."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=4 << 20,
            fetch_max_wait_ms=50,
        )
        await consumer.start()
        try:
            names = [
                each for each in await consumer.topics() if each.startswith(self._prefix) and kind_of(each) == kind
            ]
            partitions = [
                TopicPartition(name, number)
                for name in names
                for number in await consumer._client._wait_on_metadata(name)
            ]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            starts = await consumer.beginning_offsets(partitions)
            for each in partitions:
                consumer.seek(each, starts[each])
            while any([await consumer.position(each) < ends[each] for each in partitions]):
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    yield records
        finally:
            await consumer.stop()

    async def scan_progress(self) -> list[Mapping[str, Any]]:
        """Return the scan's progress as it was committed, oldest first."""
        found: list[Mapping[str, Any]] = []
        async for records in self.read("positions"):
            told = (each.value for each in records if each.value is not None and b":scan:" in each.key)
            found += [orjson.loads(value)["state"] for value in told]
        return found


class Snapshot:
    """One run.

    Args:
        lab: starts the processes.
        bootstrap: the broker.
        plan: what is measured.
    """

    def __init__(self, lab: Lab, bootstrap: str, plan: Plan) -> None:
        self._lab = lab
        self._plan = plan
        self._prefix = f"snap{uuid.uuid4().hex[:8]}."
        self._bootstrap = bootstrap
        self.topics = Topics(bootstrap, self._prefix)
        self.result = Result()
        self._org: Emulator
        self._worker: Worker
        self._begun_s = 0.0

    async def run(self) -> Result:
        """Measure, then compare."""
        plan, result = self._plan, self.result
        self._org = await self._lab.emulator(scenario(plan.rows, plan.rate))
        await self._start()
        page: Mapping[str, Any] = await self._reading()
        await self._worker.said(_LIMIT_S, event="scan.progress")
        self._begun_s = time.monotonic()
        if plan.kill:
            page = await self._kill(page)
        done = await self._worker.said(_LIMIT_S, event="scan.complete")
        result.rows = int(done["rows"])
        result.seconds += time.monotonic() - self._begun_s
        page = note(result.scanning, page, await self._reading())
        self._told()
        await asyncio.sleep(_AFTER_S)  # a length of time is what is measured here
        note(result.alone, page, await self._reading())
        await self._settle()
        await self._compare()
        return result

    async def _start(self) -> None:
        config = worker_config(
            self._org,
            self._bootstrap,
            self._prefix,
            topics=[SESSIONS],
            pubsub={"start": "snapshot"},
            batch={"max_age": "100ms", "max_records": 500},
            kafka={"partitions": 6, "session_timeout": "2s", "transaction_timeout": "60s"},
            tracking={"refresh_after": "30s", "bulk_above": 0 if self._plan.bulk else 5_000_000},
            history={"poll": "60s", "settle": "10s", "confirm_within": "5m"},
        )
        self._worker = await self._lab.worker(config)
        await self._worker.has_role("active", 60)

    async def _kill(self, page: Mapping[str, Any]) -> Mapping[str, Any]:
        result, worker = self.result, self._worker

        async def halfway() -> bool:
            assert worker.returncode is None, worker.tail()
            return await worker.metric("scan_rows_total") >= self._plan.rows / 2

        await until(halfway, "half of the rows are read", _LIMIT_S)
        note(result.scanning, page, await self._reading())
        await worker.kill()
        ended_s = time.monotonic()
        result.seconds += ended_s - self._begun_s
        self._told()
        progress = await self.topics.scan_progress()
        result.killed_at = int(progress[-1]["rows"])
        await self._start()
        page = await self._reading()

        async def committed() -> bool:
            return await self._worker.metric("commits_total") > 0

        await until(committed, "the next worker commits", 60)
        result.lost_s = time.monotonic() - ended_s
        first = await self._worker.said(_LIMIT_S, event="scan.progress")
        if int(first["rows"]) < result.killed_at and int(first["rows"]):
            result.faults.append(f"it went on at {first['rows']} rows, and {result.killed_at} were committed")
        self._begun_s = time.monotonic()
        return page

    def _told(self) -> None:
        worker, result = self._worker, self.result
        result.told += [int(line["rows"]) for line in worker.lines if line.get("event") == "scan.progress"]
        worker.forget()

    async def _reading(self) -> dict[str, Any]:
        """Return the worker's histograms and counters now."""
        self.result.peak_bytes = max(self.result.peak_bytes, peak_bytes(self._worker.pid))
        return await reading(self._lab.http, await self._worker.served())

    async def _settle(self) -> None:
        """Pause the traffic, let the org's time pass, and wait until nothing is owed: no window, no commit."""
        await self._org.traffic(paused=True)
        wanted, commits = 0, -1.0

        async def quiet() -> bool:
            nonlocal wanted, commits
            before, commits = commits, await self._worker.metric("commits_total")
            wanted = wanted + 1 if commits == before and not await self._worker.metric("loss_windows_open") else 0
            await asyncio.sleep(1.0)
            return wanted >= _QUIET

        for _ in range(3):
            await self._org.fault("advance_clock", seconds=200)
            await until(quiet, "nothing is owed any more", 300)
        self.result.peak_bytes = max(self.result.peak_bytes, peak_bytes(self._worker.pid))
        assert await self._worker.stop() == 0, self._worker.tail()

    async def _compare(self) -> None:
        result = self.result
        states: dict[str, bytes | None] = {}
        async for records in self.topics.read("state"):
            for each in records:
                states[each.key.decode()] = each.value
                self._validate("state", each)
        result.counted["states"] = len(states)
        control = self._org.addresses["control"]
        timeout = aiohttp.ClientTimeout(total=600)
        alive: set[str] = set()
        url = f"{control}/oracle/records?entity={ENTITY}"
        async with aiohttp.ClientSession(timeout=timeout, read_bufsize=1 << 20) as http, http.get(url) as answer:
            async for line in answer.content:
                truth = orjson.loads(line)
                if not truth["deleted"]:
                    alive.add(truth["record_id"])
                    value = states.get(truth["record_id"])
                    state = None if value is None else orjson.loads(value)
                    result.faults += image_faults(truth["record_id"], truth["image"], state)
        result.counted["records of the org"] = len(alive)
        for record_id in states.keys() - alive:
            value = states[record_id]
            if value is not None and not orjson.loads(value)["deleted"]:
                result.faults.append(f"{record_id} lives in state, and is gone in the org")
        await self._changes(alive)
        progress = await self.topics.scan_progress()
        rows = [each for each in progress if each["phase"] == "rows" and each["chunk"]]
        # A part of a chunk counts what it emitted, with the chunk before it as the last one done.
        chunks = [int(each["chunk"]) for each in rows]
        result.chunks = [at for at, before in zip(chunks, [0, *chunks], strict=False) if at != before]
        if result.chunks != list(range(1, len(result.chunks) + 1)):
            result.faults.append(f"chunks were committed in this order: {result.chunks}")

    async def _changes(self, alive: Iterable[str]) -> None:
        """See that each change has one record, that versions have no hole, and that no live record is left out."""
        result = self.result
        seen: set[str] = set()
        versions: dict[str, int] = {}
        async for records in self.topics.read("changes"):
            for each in records:
                self._validate("changes", each)
                source = orjson.loads(each.value)["source"]
                record_id, version = source["record_id"], source["record_version"]
                if source["id"] in seen:
                    result.faults.append(f"{source['id']} stands twice in changes")
                seen.add(source["id"])
                if version != versions.get(record_id, 0) + 1:
                    result.faults.append(f"{record_id}: version {version} follows {versions.get(record_id, 0)}")
                versions[record_id] = version
                result.counted["changes told by rows" if source["event_id"] is None else "changes told by events"] += 1
        result.faults += [f"{each} is in no change" for each in alive if each not in versions]

    def _validate(self, kind: str, record: Any) -> None:
        if record.offset % _VALIDATED:
            return
        self.result.counted["records held against their schema"] += 1
        try:
            validate_record(kind, record.key, record.value, record.headers)
        except RecordShapeError as error:
            self.result.faults.append(str(error))


def scenario(rows: int, rate: float) -> dict[str, Any]:
    """Return an org with so many sessions; the traffic changes those of before the first event and new ones."""
    return {
        "time_scale": 5.0 / _BULK_S,
        "keep_all": True,
        "traffic": {
            "sessions": rows,
            "rate": rate,
            "live": max(40, min(10_000, rows // 20)),
            "companions": False,
        },
    }


async def measure(plans: Sequence[Plan]) -> list[Result]:
    """Run every plan on topics of its own and tell each result."""
    results = []
    with running_broker(secure=False) as broker:
        _say(f"Apache Kafka {kafka_version()}, one node on this machine; {os.cpu_count()} processors.")
        for plan in plans:
            load = os.getloadavg()[0]
            with tempfile.TemporaryDirectory(prefix="snapshot-") as name:
                async with running_lab(Path(name)) as lab:
                    result = await Snapshot(lab, broker.bootstrap, plan).run()
            way = "Bulk API" if plan.bulk else "REST, by id"
            _say(
                f"\n{plan.rows:,} sessions by {way} beside {plan.rate:g} events/s"
                f"{', one kill' if plan.kill else ''} (load before: {load:.1f})"
            )
            _say("\n".join(result.lines()))
            results.append(result)
    return results


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  # the command's output


def main() -> int:
    """Run the benchmark; 1 when anything was lost, stale or told twice."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.snapshot", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rate", type=float, default=500.0, help="events per second")
    parser.add_argument("--kill", action="store_true", help="kill the service in the middle of the scan")
    parser.add_argument("--way", choices=("rest", "bulk", "both"), default="both")
    args = parser.parse_args()
    ways = {"rest": (False,), "bulk": (True,), "both": (False, True)}[args.way]
    results = asyncio.run(measure([Plan(args.rows, args.rate, args.kill, each) for each in ways]))
    return int(any(result.faults for result in results))


if __name__ == "__main__":
    sys.exit(main())
