"""What the local store costs: ``python -m tests.bench.store [--records 1000000] [--kafka]``.

Each measurement of the large store is also made with 10,000 records, in a process of its own, so that the ratio says
what size costs. ``--kafka`` fills a real broker first and measures the rebuild from it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from consumer.delivery.positions import CommittedPosition, encode_entry
from consumer.kafka.connection import Cluster
from consumer.kafka.sink import KafkaSink, Subscription
from consumer.kafka.topics import ensure_topics, planned_specs
from consumer.ports import Batch, Piece
from consumer.position import Position
from consumer.settings import KafkaSettings
from consumer.store.codec import Codec
from consumer.store.file import Owner
from consumer.store.sqlite import SqliteStore
from consumer.store.wire import codec_of
from consumer.tracking.values import LedgerEntry, RecordState
from tests.broker import running_broker
from tests.store_values import CHANNEL, ENTITY, ORG, TOPICS, entry, key, record_id

SMALL = 10_000
BATCH = 500
BATCHES = 200


NAMES = {kind: [f"{kind}{each}__c" for each in range(12)] for kind in ("Text", "Number", "Time", "Empty")}


def image_of(number: int, version: int) -> dict[str, Any]:
    """Return an image as large as a session's with some custom fields."""
    fields: dict[str, Any] = {name: f"value {version} of {name}" for name in NAMES["Text"]}
    fields |= {name: 1000.5 * at + version for at, name in enumerate(NAMES["Number"])}
    fields |= dict.fromkeys(NAMES["Time"], "2026-11-22T10:00:03.000Z")
    fields |= dict.fromkeys(NAMES["Empty"])
    return fields | {"Status": "Active", "OwnerId": record_id(number), "CaseId": record_id(number + 1)}


def state_of(number: int, version: int = 1) -> RecordState:
    """Return the state of a record."""
    image = image_of(number, version)
    encoded = orjson.dumps({"Id": record_id(number), **image})
    return RecordState(ENTITY, record_id(number), image, encoded, version=version)


def rss_mb() -> float:
    """Return the memory of this process, MiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(directory: Path, records: int) -> dict[str, float]:
    """Fill a store as a restore does, open it again, and work on random records."""
    owner = Owner("bench", ORG, CHANNEL, "t.", (CHANNEL,))
    coding = codec_of(TOPICS, ORG)
    result: dict[str, float] = {}
    store = SqliteStore(directory, owner, coding)
    spent = 0.0
    topic = TOPICS.of(ENTITY, "state")
    for start in range(0, records, 2000):
        values = [coding.encode_state(key(each), state_of(each)) for each in range(start, start + 2000)]
        piece = Piece([(each.key.decode(), each.value) for each in values], [], {(topic, 0): start}, 1)
        before = time.perf_counter()
        store.load(piece, lambda _: True)
        spent += time.perf_counter() - before
    result["load_per_s"] = records / spent
    store.close()
    result["file_mb"] = store.path.stat().st_size / 2**20

    before = time.perf_counter()
    store = SqliteStore(directory, owner, coding)
    store.attach("c", stale_after_ms=302_400_000)
    store.get(key(records // 2))
    result["reopen_ms"] = (time.perf_counter() - before) * 1000

    choose = random.Random(1)
    chosen = [[choose.randrange(records) for _ in range(BATCH)] for _ in range(BATCHES)]
    result |= work(store, chosen)
    result["unseen_walk_ms"] = scan(store, records)
    result["rss_mb"] = rss_mb()
    store.close()
    return result


def work(store: SqliteStore, batches: list[list[int]]) -> dict[str, float]:
    """Read, put, cut and merge random records."""
    spent = dict.fromkeys(("get", "put", "cut", "merge"), 0.0)
    slowest = 0.0
    for at, numbers in enumerate(batches, 2):
        states = [state_of(each, at) for each in numbers]
        owed: list[LedgerEntry] = [entry(each, facts=1) for each in numbers]
        marks = [time.process_time()]
        for each in numbers:
            store.get((ENTITY, record_id(each)))
            store.ledger((ENTITY, record_id(each)))
        marks.append(time.process_time())
        for state, debt in zip(states, owed, strict=True):
            store.put(state)
            store.put_ledger(debt)
        marks.append(time.process_time())
        delta = store.cut()
        marks.append(time.process_time())
        store.merge(delta, {(TOPICS.of(ENTITY, "state"), 0): at})
        marks.append(time.process_time())
        for name, (start, end) in zip(spent, itertools.pairwise(marks), strict=True):
            spent[name] += end - start
        slowest = max(slowest, marks[-1] - marks[-2])
    count = sum(map(len, batches))
    result = {f"{name}_us": seconds / count * 1e6 for name, seconds in spent.items()}
    return result | {"total_us": sum(spent.values()) / count * 1e6, "slowest_merge_ms": slowest * 1000}


def scan(store: SqliteStore, records: int) -> float:
    """Return the milliseconds of the one call of ``unseen`` that finds nothing among all records."""
    for start in range(0, records, 20_000):
        store.see(ENTITY, [record_id(each) for each in range(start, start + 20_000)], "job")
    before = time.perf_counter()
    assert not store.unseen(ENTITY, "job", "", 100)
    return (time.perf_counter() - before) * 1000


async def rebuild(records: int, directory: Path) -> dict[str, float]:
    """Fill a real broker and rebuild a store from it."""
    with running_broker(secure=False) as broker:
        values = {"bootstrap_servers": broker.bootstrap, "topic_prefix": "t."}
        cluster = Cluster(KafkaSettings.model_validate(values))
        await ensure_topics(cluster, planned_specs(TOPICS, cluster.settings))
        coding = codec_of(TOPICS, ORG)
        subscription = Subscription("bench", ORG, CHANNEL, TOPICS)
        sink = KafkaSink(cluster, subscription)
        await sink.open()
        for batch in _filling(records, coding):
            await sink.commit(batch)
        await sink.close()
        store = SqliteStore(directory, Owner("bench", ORG, CHANNEL, "t.", (CHANNEL,)), coding)
        result: dict[str, float] = {}
        for name in ("rebuild_s", "restart_s"):
            sink = KafkaSink(cluster, subscription, mirror=store)
            before = time.perf_counter()
            await sink.open()
            result[name] = time.perf_counter() - before
            await sink.close()
        assert store.records(ENTITY) == records
        result |= {"rebuild_per_s": records / result["rebuild_s"], "rss_mb": rss_mb()}
        store.close()
        return result


def _filling(records: int, coding: Codec) -> Iterator[Batch]:
    position = Position(replay_id=b"1")
    moved = encode_entry(TOPICS, CommittedPosition(CHANNEL, position, 5, 6, "bench"))
    for start in range(0, records, 5000):
        states = [coding.encode_state(key(each), state_of(each)) for each in range(start, start + 5000)]
        yield Batch([*states, moved], 0, position)


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
                found = asyncio.run(rebuild(arguments.records, directory))
            else:
                found = measure(directory, arguments.records)
        print(json.dumps({name: round(value, 2) for name, value in found.items()}))  # noqa: T201  # its result
        return
    small, large = (_measured("--records", str(count)) for count in (SMALL, arguments.records))
    result: dict[str, Any] = {"small": small, "large": large}
    result["cost_ratio"] = round(large["total_us"] / small["total_us"], 2)
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
