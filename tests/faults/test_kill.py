"""A worker killed by SIGKILL, at every boundary and at random moments, loses nothing and repeats nothing."""

from __future__ import annotations

import json
import signal
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.broker import Broker
from tests.contract.topic_schemas import kind_of
from tests.crash_points import POINTS
from tests.deployment import Deployment, deployment
from tests.kafka_reader import ReadRecord
from tests.kill_loop import TOPICS, kill_again_and_again, scenario

pytestmark = pytest.mark.kafka

RATE = 120.0
SHARING = 30
"""Events with one replay id."""

FIRST_START = (
    "topics-made",
    "group-joined",
    "before-takeover",
    "after-takeover",
    "read-back",
    "restored",
    "before-transaction",
    "sent-not-committed",
    "end-sent",
)
"""Points on the way to the first commit; all of them are passed again by the next worker."""

TRANSACTION = (
    "before-transaction:3",
    "partly-sent:5",
    "sent-not-committed:3",
    "end-sent:4",
    "end-answered:3",
    "committed-unknown-to-pipeline:3",
)
MERGE = ("committed-not-merged:3", "partly-merged:4", "merge-not-committed:3", "merged:3", "committed-not-merged")
"""Points at which the local store is behind what is committed, or half-way there."""

CATCH_UP = ("store-attached", "catching-up:3", "piece-partly-stored:2", "piece-partly-stored:4", "caught-up")
RESTART = ("group-joined", "before-takeover", "after-takeover", "read-back", "restored", "subscribe", "schema-fetch")
SALESFORCE = ("events-received:4", "token:2", "token-refreshed:2", "subscribe:2")


def test_every_point_is_tried() -> None:
    """A point that no test dies at would prove nothing."""
    points = (*FIRST_START, *TRANSACTION, *MERGE, *CATCH_UP, *RESTART, *SALESFORCE, "token")
    tried = {each.partition(":")[0] for each in points}
    assert tried == POINTS.keys()


async def die_at(place: Deployment, point: str, **overrides: Mapping[str, Any]) -> None:
    """Start a worker that dies at a point, and see that it did and that no position is ahead of the records."""
    worker = await place.worker(point, **overrides)
    if point in {"token:2", "token-refreshed:2", "subscribe:2"}:
        await worker.has_role("active")
        await place.org.fault("revoke_tokens")
        await place.org.fault("end_streams")
    assert await worker.ended() == -signal.SIGKILL, worker.tail()
    await place.require_position_behind()


async def survive(place: Deployment, points: Sequence[str], **overrides: Mapping[str, Any]) -> None:
    """Die at one point after the other, then let a worker finish, and compare."""
    for point in points:
        await die_at(place, point, **overrides)
    worker = await place.worker(None, **overrides)
    found = await place.check()
    found.require_clean()
    assert found.covered == []
    assert await worker.stop() == 0, worker.tail()
    # What the last worker committed while it stopped must be no repeat either.
    (await place.check()).require_clean()
    require_states(await place.reader.read_settled())


def continues(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Tell whether a change begins where the last one ended.

    After a row was read that may hold the event already, the fields it changed are left out of ``before``.
    """
    changed = {name.partition(".")[0] for name in after["source"]["changed_fields"]}
    ended, begun = before["after"] or {}, after["before"]
    left_out = ended.keys() - begun.keys()
    return left_out <= changed and all(ended.get(name) == value for name, value in begun.items())


def require_states(records: Iterable[ReadRecord]) -> None:
    """Fail unless each change of a record begins where the last one ended, and its state is where they led.

    A worker that began on images of before its predecessor's last commit would break it.
    """
    changes: dict[bytes | None, list[dict[str, Any]]] = defaultdict(list)
    states: dict[bytes | None, dict[str, Any]] = {}
    for record in records:
        if kind_of(record.topic) == "changes":
            changes[record.key].append(json.loads(record.value or b""))
        elif kind_of(record.topic) == "state":
            states[record.key] = json.loads(record.value or b"")
    assert changes.keys() == states.keys()
    for key, told in changes.items():
        state = states[key]
        assert [each["source"]["record_version"] for each in told] == list(range(1, len(told) + 1)), key
        for before, after in pairwise(told):
            assert after["before"] in ({"Id": before["source"]["record_id"]}, None) or continues(before, after), key
        assert state["record_version"] == len(told), key
        assert (state["deleted"] or state["image"]) == (told[-1]["after"] or True), key


async def test_a_worker_killed_on_its_very_first_start(kafka_broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    async with deployment(tmp_path, kafka_broker.bootstrap, topic_prefix, scenario(RATE, 1)) as place:
        await survive(place, ["token", *FIRST_START])


async def test_a_worker_killed_within_its_first_commit(kafka_broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """The first commit may be durable although nobody learnt of it: the next worker must not start anew."""
    async with deployment(tmp_path, kafka_broker.bootstrap, topic_prefix, scenario(RATE, 2)) as place:
        await survive(place, ["end-answered", "committed-unknown-to-pipeline", "schema-fetch"])


@pytest.mark.parametrize(
    "points", [TRANSACTION, MERGE, RESTART, SALESFORCE], ids=["transaction", "merge", "restart", "salesforce"]
)
async def test_a_worker_killed_at_a_boundary(
    kafka_broker: Broker, topic_prefix: str, tmp_path: Path, points: Sequence[str]
) -> None:
    async with deployment(tmp_path, kafka_broker.bootstrap, topic_prefix, scenario(RATE, 3)) as place:
        first = await place.worker()
        await place.has_committed(50)
        await first.kill()
        await survive(place, points)
        if points == TRANSACTION:
            assert await place.reader.aborted() > 0, "no worker died inside a transaction"


async def test_a_worker_killed_while_it_restores_a_lost_store(
    kafka_broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    """A store that is half restored goes on where it was; the disk of the first worker is gone."""
    async with deployment(tmp_path, kafka_broker.bootstrap, topic_prefix, scenario(RATE, 6)) as place:
        first = await place.worker()
        await place.has_committed(200)
        await first.kill()
        await survive(place, CATCH_UP, state={"path": str(tmp_path / "another disk")})


async def test_workers_killed_at_random_moments(kafka_broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """The short version of ``python -m tests.kill_loop --kills 200``."""
    org: dict[str, Any] = scenario(300.0, 4)
    async with deployment(tmp_path, kafka_broker.bootstrap, topic_prefix, org, topics=TOPICS) as place:
        await kill_again_and_again(place, 6, seed=4, longest_life_s=3.0)
        worker = await place.worker()
        found = await place.check()
        found.require_clean()
        assert found.covered == []
        assert found.records > 300
        assert await worker.stop() == 0, worker.tail()
        require_states(await place.reader.read_settled())


async def test_a_worker_killed_between_events_that_share_a_replay_id(
    kafka_broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    """Resuming after their replay id would lose the rest of them, resuming before it repeats the first ones."""
    async with deployment(tmp_path, kafka_broker.bootstrap, topic_prefix, scenario(0.0, 5)) as place:
        created = [{"op": "create", "fields": {"Status": "Waiting"}}] * SHARING
        ids = [event.record_ids[0] for event in await place.org.publish("commit", changes=created)]
        updates = [{"op": "update", "record_id": each, "fields": {"Status": "Active"}} for each in ids]
        published = await place.org.publish("commit", changes=updates)
        assert len(published) == SHARING
        assert len({event.counter for event in published}) == 1
        for hit in (SHARING + 8, 6, 6):
            worker = await place.worker(crash=f"committed-unknown-to-pipeline:{hit}", batch={"max_records": 1})
            assert await worker.ended() == -signal.SIGKILL, worker.tail()
        await place.reader.read()
        assert 5 <= len(place.reader.missing(published)) <= SHARING - 15, "the kills missed the shared replay id"
        await survive(place, [])
