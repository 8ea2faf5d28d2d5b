"""What the local store costs: ``python -m tests.bench.store [--records 1000000] [--kafka]``.

The whole way of an event, from its payload to the merged state, is measured over the large store and over one of
10,000 sessions, in turn and in processes of their own, so that the ratio says what size costs. ``--kafka`` fills a
real broker first, rebuilds the store from it, and starts the service itself on that store.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from consumer.delivery.names import Topics
from consumer.delivery.partition import partition_for
from consumer.store.file import Owner
from consumer.store.sqlite import SqliteStore
from consumer.store.wire import codec_of
from tests.bench.event_path import Sessions, chosen, record_id, work
from tests.bench.rig import peak_bytes
from tests.broker import running_broker
from tests.processes import Worker, running_lab, until, worker_config
from tests.store_values import CHANNEL, ENTITY, ORG, TOPICS

_LIMIT_S = 300.0
SMALL = 10_000
EVENTS = 9_500


def rss_mb() -> float:
    """Return the memory of this process, MiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(directory: Path, records: int) -> dict[str, float]:
    """Fill a store as a restore does, open it again, and take events of random sessions through it."""
    owner = Owner("bench", ORG, CHANNEL, "t.", (CHANNEL,))
    coding = codec_of(TOPICS, ORG)
    sessions = Sessions()
    result: dict[str, float] = {}
    store = SqliteStore(directory, owner, coding)
    result["load_per_s"] = records / sessions.fill(store, records)
    store.close()
    result["file_mb"] = store.path.stat().st_size / 2**20

    before = time.perf_counter()
    store = SqliteStore(directory, owner, coding)
    store.attach("c", stale_after_ms=302_400_000)
    assert store.get((ENTITY, record_id(records // 2))) is not None
    result["reopen_ms"] = (time.perf_counter() - before) * 1000
    result |= work(sessions, store, chosen(records, EVENTS))
    result["unseen_walk_ms"] = scan(store, records)
    result["rss_mb"] = rss_mb()
    store.close()
    return result


def scan(store: SqliteStore, records: int) -> float:
    """Return the milliseconds of the one call of ``unseen`` that finds nothing among all records."""
    for start in range(0, records, 20_000):
        store.see(ENTITY, [record_id(each) for each in range(start, start + 20_000)], "job")
    before = time.perf_counter()
    assert not store.unseen(ENTITY, "job", "", 100)
    return (time.perf_counter() - before) * 1000


async def restart(records: int, directory: Path) -> dict[str, float]:
    """Start the service itself on topics that hold so many states: without its store, with it, and after a kill."""
    result: dict[str, float] = {}
    prefix = f"store{uuid.uuid4().hex[:8]}."
    with running_broker(secure=False) as broker:
        async with running_lab(directory) as lab:
            org = await lab.emulator({"traffic": {"rate": 50, "companions": False}})
            config = worker_config(
                org,
                broker.bootstrap,
                prefix,
                topics=[CHANNEL],
                batch={"max_age": "100ms", "max_records": 500},
                kafka={"partitions": 6, "session_timeout": "2s"},
                tracking={"on_unknown": "partial", "reconcile": False},
            )
            worker = await lab.worker(config)
            await _committing(worker)
            assert await worker.stop() == 0, worker.tail()
            topic = Topics(prefix, (CHANNEL,)).of(ENTITY, "state")
            await fill_topic(broker.bootstrap, topic, records)
            for name in ("rebuild", "restart", "killed"):
                before = time.perf_counter()
                worker = await lab.worker(config)
                await _committing(worker)
                result[f"{name}_s"] = time.perf_counter() - before
                restored = await worker.said(event="kafka.state_restored")
                result[f"{name}_restored"] = restored["records"]
                result[f"{name}_peak_mb"] = peak_bytes(worker.pid) / 2**20
                result[f"{name}_states"] = await worker.metric("tracked_records")
                if name == "restart":
                    await worker.kill()
                else:
                    assert await worker.stop() == 0, worker.tail()
    return result


async def _committing(worker: Worker) -> None:
    async def committed() -> bool:
        assert worker.returncode is None, worker.tail()
        return await worker.metric("commits_total") > 0

    await worker.has_role("active", _LIMIT_S)
    await until(committed, "the worker commits", _LIMIT_S)


async def fill_topic(bootstrap: str, topic: str, records: int) -> None:
    """Write so many states to a topic that exists."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=1 << 20, compression_type="zstd")
    await producer.start()
    try:
        partitions = len(await producer.partitions_for(topic))
        batches: dict[int, Any] = {}
        for name, value in Sessions().values(0, records):
            key = name.encode()
            number = partition_for(key, partitions)
            batch = batches.setdefault(number, producer.create_batch())
            if batch.append(key=key, value=value, timestamp=None) is None:
                batches[number] = producer.create_batch()
                batches[number].append(key=key, value=value, timestamp=None)
                await producer.send_batch(batch, topic, partition=number)
        for number, batch in batches.items():
            await producer.send_batch(batch, topic, partition=number)
        await producer.flush()
    finally:
        await producer.stop()


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--kafka", action="store_true")
    parser.add_argument("--once", action="store_true", help="one size, in this process")
    arguments = parser.parse_args()
    if arguments.once:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            if arguments.kafka:
                found = asyncio.run(restart(arguments.records, directory))
            else:
                found = measure(directory, arguments.records)
        print(json.dumps({name: round(value, 2) for name, value in found.items()}))  # noqa: T201  # its result
        return
    small, large = (_measured("--records", str(count)) for count in (SMALL, arguments.records))
    result: dict[str, Any] = {"small": small, "large": large}
    result["cost_ratio"] = round(large["event_us"] / small["event_us"], 2)
    if arguments.kafka:
        result["kafka"] = _measured("--records", str(arguments.records), "--kafka")
    print(json.dumps(result, indent=2))  # noqa: T201  # its result


def _measured(*arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.store", "--once", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1800)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
