"""A first snapshot beside live traffic, killed in the middle: it goes on at its chunk, and nothing is lost or stale."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tests.broker import Broker
from tests.contract.topic_schemas import kind_of
from tests.deployment import SESSIONS, Deployment, deployment
from tests.oracle import Verdict, judge
from tests.oracle_run import Life, Plan
from tests.processes import until

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(240)]

ROWS, CHUNK = 3_000, 300
RATE = 100.0
SETTLE_LIMIT_S = 100.0


def scenario() -> dict[str, Any]:
    """Return an org whose answers take long enough for a kill between two of them."""
    return {
        "time_scale": 20.0,
        "clock_speed": 20.0,
        "keep_all": True,
        "oracle": True,
        "rest_latency_ms": 150.0,
        "traffic": {"sessions": ROWS, "rate": RATE, "live": 300, "companions": False},
    }


def progress(place: Deployment) -> list[Mapping[str, Any]]:
    """Return the scan's committed progress, oldest first."""
    found = [each for each in place.reader.records if kind_of(each.topic) == "positions" and b":scan:" in each.key]
    return [json.loads(each.value)["state"] for each in found if each.value is not None]


async def start(place: Deployment, bulk_above: int) -> Any:
    worker = await place.worker(
        pubsub={"start": "snapshot"},
        history={"poll": "1s", "settle": "10s", "confirm_within": "5m"},
        tracking={"refresh_after": "30s", "chunk_rows": CHUNK, "bulk_above": bulk_above, "reconcile": False},
    )
    await worker.has_role("active")
    return worker


async def settled(place: Deployment) -> Verdict:
    """Pause the traffic, let the org's time pass until nothing is owed, and judge."""
    await place.org.traffic(paused=True)
    life = Life(place, Plan(0, 0.0, RATE, 20.0, 1))
    verdict = Verdict()

    async def clean() -> bool:
        nonlocal verdict
        truth = await life.truth()
        verdict = judge(truth, await place.reader.read())
        # No event tells of a hard delete, and the comparison that finds one is off here.
        purged = {record_id for loss in truth.losses if loss["kind"] == "purged" for record_id in loss["record_ids"]}
        # What the fields' history can't tell of the time before the first start is judged in tests.oracle_run.
        found = [each for name, all_of in verdict.faults.items() if name != "history" for each in all_of]
        return all(any(record_id in each for record_id in purged) for each in found)

    try:
        await until(clean, "everything is as the org has it", SETTLE_LIMIT_S)
    except AssertionError:
        raise AssertionError(str(verdict)) from None
    return verdict


@pytest.mark.parametrize("bulk_above", [1_000_000, 0], ids=["rest", "bulk"])
async def test_a_snapshot_goes_on_at_its_chunk_after_a_kill(
    kafka_broker: Broker, topic_prefix: str, tmp_path: Path, bulk_above: int
) -> None:
    place_of = deployment(tmp_path, kafka_broker.bootstrap, topic_prefix, scenario(), topics=(SESSIONS,))
    async with place_of as place:
        first = await start(place, bulk_above)

        async def in_the_middle() -> bool:
            await place.reader.read()
            return any(each["chunk"] >= 3 for each in progress(place))

        await until(in_the_middle, "some chunks are committed")
        await first.kill()
        await place.reader.read_settled()
        stopped_at = progress(place)[-1]
        assert 0 < stopped_at["rows"] < ROWS
        assert stopped_at["bulk"] if bulk_above == 0 else not stopped_at["bulk"]
        assert first.count(event="scan.progress")

        second = await start(place, bulk_above)
        went_on = await second.said(event="scan.progress")
        assert went_on["rows"] > stopped_at["rows"]
        done = await second.said(event="scan.complete")
        assert done["rows"] >= ROWS

        verdict = await settled(place)
        assert verdict.counted["states"] >= ROWS
        chunks = [chunk for chunk, _ in groupby(each["chunk"] for each in progress(place) if each["phase"] == "rows")]
        assert chunks == list(range(len(chunks))), "each chunk is done once, in order"
        ids = [each.headers["ce_id"] for each in place.reader.records if kind_of(each.topic) == "changes"]
        assert len(ids) == len(set(ids)), "nothing is told twice"
        assert await second.stop() == 0
