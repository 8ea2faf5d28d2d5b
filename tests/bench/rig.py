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

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from consumer.delivery.names import Topics
from consumer.kafka.embedded import EmbeddedBroker
from consumer.kafka.topics import planned_specs
from consumer.settings import KafkaSettings
from tests.bench.clients import Task, task_argument
from tests.processes import ROOT, Emulator, Lab, Worker, toml, worker_config

SESSIONS = "/data/MessagingSessionChangeEvent"
PARTITIONS = 6
BATCH = 500
_LIMIT_S = 120.0
_LOOK_S = 0.5
"""How often metrics are read meanwhile: each page costs the service two milliseconds and more."""


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
        embedded: the broker, if it is an embedded one.
    """

    def __init__(self, lab: Lab, bootstrap: str, org: Emulator, embedded: EmbeddedBroker | None = None) -> None:
        self._lab = lab
        self._bootstrap = bootstrap
        self._org = org
        self._embedded = embedded

    async def service(self, events: int, *, pubsub: str | None = None, sharing: bool = False) -> Run:
        """Run the service from the beginning of the topic until it has committed so many events.

        Args:
            events: at least so many.
            pubsub: another way to the org's Pub/Sub API.
            sharing: whether shares, rules and feeds are read beside the stream.
        """
        prefix = f"bench-{uuid.uuid4().hex[:8]}."
        worker = await self.start(prefix, pubsub, sharing=sharing)
        samples: list[tuple[float, float]] = []
        async with asyncio.timeout(_LIMIT_S):
            while (done := (await self.metrics(worker, "batch_events_sum"))[0]) < events:
                if done:
                    samples.append((done, _cpu_s(worker.pid)))
                await asyncio.sleep(_LOOK_S)
        samples.append((done, _cpu_s(worker.pid)))
        peak = peak_bytes(worker.pid)
        assert await worker.stop() == 0, worker.tail()
        (first, cpu_0), (last, cpu_1) = samples[0], samples[-1]
        rate = await committed_rate(self._bootstrap, f"{prefix}messaging-session.changes")
        return Run(rate, (cpu_1 - cpu_0) / (last - first) * 1e6 if last > first else 0.0, peak)

    async def start(self, prefix: str, pubsub: str | None = None, *, sharing: bool = False) -> Worker:
        """Start the service with its own defaults where the tests' configuration differs."""
        config = worker_config(
            self._org,
            self._bootstrap,
            prefix,
            topics=[SESSIONS],
            batch={"max_age": "100ms", "max_records": BATCH, "max_bytes": "8MiB"},
            kafka={"partitions": PARTITIONS, "session_timeout": "10s"},
            pubsub={} if pubsub is None else {"endpoint": pubsub},
            sharing={"enabled": sharing},
            feed={"enabled": sharing},
        )
        if self._embedded is None:
            return await self._lab.worker(config)
        settings = KafkaSettings(bootstrap_servers=self._bootstrap, topic_prefix=prefix, partitions=PARTITIONS)
        for spec in planned_specs(Topics(prefix, (SESSIONS,)), settings):
            self._embedded.create_topic(spec.name, PARTITIONS)
        path = self._lab.directory / f"{prefix}toml"
        path.write_text(toml(config), encoding="utf-8")
        return await self._lab.start(Worker, "tests.bench.embedded_service", str(path))

    async def metrics(self, worker: Worker, *names: str) -> list[float]:
        """Return the values of some of the service's metrics, 0 for those that are not there yet."""
        assert worker.returncode is None, worker.tail()
        async with self._lab.http.get(f"{await worker.served()}/metrics") as answer:
            page = await answer.text()
        found = [re.search(rf"^session_consumer_{name}{{\S* (\S+)$", page, re.MULTILINE) for name in names]
        return [float(each[1]) if each else 0.0 for each in found]

    async def client(self, module: str, events: int, *, pubsub: str | None = None) -> Run:
        """Run a baseline client of this package until it has moved so many events.

        Args:
            module: its name.
            events: so many.
            pubsub: another way to the org's Pub/Sub API.
        """
        target = f"bench-{uuid.uuid4().hex[:8]}"
        await self._create(target)
        task = Task(
            pubsub or self._org.addresses["pubsub"],
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
        if self._embedded is not None:
            self._embedded.create_topic(topic, PARTITIONS)
            return
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
        finally:
            await admin.close()


async def committed_rate(bootstrap: str, topic: str) -> float:
    """Return the events per second that a topic's committed records tell.

    The service makes a record per changed record of an event; a record without its ``ce_id`` is an event of its own.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        enable_auto_commit=False,
        max_partition_fetch_bytes=8 << 20,
        check_crcs=False,
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


def peak_bytes(pid: int) -> int:
    """Return the largest resident memory a process had, 0 where the system doesn't tell."""
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
