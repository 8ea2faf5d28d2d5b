"""Starts what the benchmarks compare, each in a process of its own, and reads the rates off the topics.

A rate is read from the timestamps of the committed records: those after the first batch, divided by the time between
the first batch and the last. So starting, logging in and stopping count for nobody, and all are measured alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.bench.clients import Task, task_argument
from tests.processes import ROOT, Emulator, Lab, Worker, until, worker_config

SESSIONS = "/data/MessagingSessionChangeEvent"
PARTITIONS = 6
BATCH = 500
_LIMIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run.

    Attributes:
        rate: events per second.
        cpu_us: processor time of the client per event, microseconds; 0 where the system doesn't tell.
        peak_bytes: largest resident memory; 0 where the system doesn't tell.
    """

    rate: float
    cpu_us: float
    peak_bytes: int


class Rig:
    """One org, one broker, and the clients that are compared.

    Args:
        lab: starts the org and the service.
        bootstrap: the broker.
        org: the org, its events published beforehand.
        http: asks the service's pages.
    """

    def __init__(self, lab: Lab, bootstrap: str, org: Emulator, http: aiohttp.ClientSession) -> None:
        self._lab = lab
        self._bootstrap = bootstrap
        self._org = org
        self._http = http

    async def service(self, events: int, *, pubsub: str | None = None, **overrides: dict[str, Any]) -> Run:
        """Run the service from the beginning of the topic until it has committed so many events.

        Args:
            events: at least so many.
            pubsub: another way to the org's Pub/Sub API.
            overrides: configuration by section.
        """
        prefix = f"bench-{uuid.uuid4().hex[:8]}."
        config = worker_config(self._org, self._bootstrap, prefix, topics=[SESSIONS], **_defaults())
        for section, values in overrides.items():
            config.setdefault(section, {}).update(values)
        if pubsub is not None:
            config["pubsub"]["endpoint"] = pubsub
        worker = await self._lab.worker(config)
        url = await worker.served()
        samples: list[tuple[float, float]] = []
        async with asyncio.timeout(_LIMIT_S):
            while (done := await self._committed(worker, url)) < events:
                if done:
                    samples.append((done, _cpu_s(worker.pid)))
                await asyncio.sleep(0.1)
        samples.append((done, _cpu_s(worker.pid)))
        peak = _peak_bytes(worker.pid)
        assert await worker.stop() == 0, worker.tail()
        (first, cpu_0), (last, cpu_1) = samples[0], samples[-1]
        rate = await committed_rate(self._bootstrap, f"{prefix}messaging-session.changes")
        return Run(rate, (cpu_1 - cpu_0) / (last - first) * 1e6 if last > first else 0.0, peak)

    async def _committed(self, worker: Worker, url: str) -> float:
        assert worker.returncode is None, worker.tail()
        async with self._http.get(f"{url}/metrics") as answer:
            found = re.search(r"^session_consumer_batch_events_sum\S* (\S+)$", await answer.text(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    async def client(self, module: str, events: int) -> Run:
        """Run a baseline client of this package until it has moved so many events."""
        target = f"bench-{uuid.uuid4().hex[:8]}"
        await self._create(target)
        task = Task(
            self._org.addresses["pubsub"],
            self._org.addresses["login_url"],
            SESSIONS,
            self._bootstrap,
            target,
            PARTITIONS,
            events,
            BATCH,
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"tests.bench.{module}", task_argument(task), cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(_LIMIT_S):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, f"{module} failed"
        found = json.loads(output)
        return Run(await committed_rate(self._bootstrap, target), found["cpu_us"], found["peak_bytes"])

    async def _create(self, topic: str) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
        finally:
            await admin.close()


def _defaults() -> dict[str, dict[str, Any]]:
    """Return the service's own defaults where the tests' configuration differs."""
    return {
        "batch": {"max_age": "100ms", "max_records": BATCH},
        "kafka": {"partitions": PARTITIONS, "session_timeout": "10s"},
    }


async def committed_rate(bootstrap: str, topic: str) -> float:
    """Return the events per second that a topic's committed records tell.

    The service makes a record per changed record of an event; a record without its ``ce_id`` is an event of its own.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        enable_auto_commit=False,
        max_partition_fetch_bytes=8 << 20,
    )
    times: dict[object, int] = {}
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(each) < ends[each] for each in partitions]):
            for records in (await consumer.getmany(timeout_ms=100)).values():
                times |= {_event_of(record): record.timestamp for record in records}
    finally:
        await consumer.stop()
    first, last = min(times.values()), max(times.values())
    return sum(time > first for time in times.values()) / max(0.001, (last - first) / 1000)


def _event_of(record: Any) -> object:
    ids = [value.rpartition(b":")[0] for name, value in record.headers if name == "ce_id"]
    return ids[0] if ids else (record.partition, record.offset)


def _cpu_s(pid: int) -> float:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100
    return 0.0


def _peak_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
        return int(found[1]) * 1024 if found else 0
    return 0


@contextlib.asynccontextmanager
async def relay(target: str, rtt_ms: float) -> AsyncIterator[str]:
    """Run a relay with a round trip of so many milliseconds and yield its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.relay",
        target,
        str(rtt_ms),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield f"127.0.0.1:{int(await process.stdout.readline())}"
    finally:
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
