"""What the org can do to the service, end to end: every fault ends in delivered records or an open loss window."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import pytest

from consumer.delivery.control import Command, Resume, RetryQuarantine, encode_command
from consumer.delivery.names import Topics
from consumer.kafka.connection import Cluster
from consumer.kafka.control import send_command
from consumer.settings import KafkaSettings
from tests.broker import Broker
from tests.deployment import Deployment, deployment, tells_event
from tests.kafka_reader import ReadRecord
from tests.ledger import Findings, committed_positions, opened_window
from tests.processes import Worker, until

pytestmark = pytest.mark.kafka

QUICK: dict[str, Any] = {"time_scale": 60.0, "split": "random"}
POISONED = ("bitmap_invalid", *["payload_undecodable"] * 4, "schema_refused")
CREATE = {"op": "create", "fields": {"Status": "Waiting"}}


def scenario(rate: float = 0.0, **more: Any) -> dict[str, Any]:
    """Return an org with protocol times sixty times as fast."""
    return {**QUICK, "traffic": {"rate": rate, "companions": False}, **more}


async def command(place: Deployment, entry: Command) -> None:
    settings = KafkaSettings(bootstrap_servers=place.bootstrap, topic_prefix=place.prefix)
    await send_command(Cluster(settings), encode_command(Topics(place.prefix, place.topics), entry))


def reasons(found: Findings) -> list[str]:
    return sorted(window.reason for window in found.windows.values() if window.reason != "no_snapshot")


async def committed_more(place: Deployment, records: int = 30) -> None:
    before = sum(tells_event(each) for each in await place.reader.read())
    await place.has_committed(before + records)


def losses(records: Iterable[ReadRecord]) -> list[str]:
    """Return the reasons of all loss windows that were opened."""
    coverage = [each for each in records if each.topic.endswith(".coverage")]
    windows = [opened_window(each.key, json.loads(each.value or b"null")) for each in coverage]
    return [window.reason for window in windows if window is not None]


async def create(place: Deployment, count: int = 1) -> list[str]:
    """Commit new records, each in a transaction of its own, and return the events' ids."""
    return [(await place.org.publish("commit", changes=[CREATE]))[0].event_id for _ in range(count)]


async def require(place: Deployment, *, covered: int = 0, windows: Collection[str] = (), **options: bool) -> Findings:
    """Compare, and see that exactly these loss windows were opened."""
    found = await place.check(covered=covered, **options)
    found.require_clean()
    assert len(found.covered) == covered, str(found)
    assert reasons(found) == sorted(windows), str(found)
    return found


async def stop(worker: Worker) -> None:
    assert await worker.stop() == 0, worker.tail()


async def test_tokens_schemas_and_stream_ends(kafka_broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """Revoked tokens, schema changes, redelivery and every kind of stream end under load cost nothing."""
    async with deployment(tmp_path, kafka_broker.bootstrap, topic_prefix, scenario(150.0)) as place:
        worker = await place.worker()
        await committed_more(place)
        # The open stream lives on with the revoked token, and the new schema is asked for with it.
        await place.org.fault("revoke_tokens")
        await place.org.fault("schema_change", add=[{"name": "Mood__c"}])
        await committed_more(place)

        async def refused() -> bool:
            return bool((await place.org.stats())["bad_tokens"])

        await until(refused, "a call with the revoked token")
        await place.org.fault("revoke_tokens")
        for kind, parameters in (
            ("end_streams", {"how": "ok"}),
            ("redeliver", {"events": 100, "when": "resume"}),
            ("end_streams", {"how": "internal"}),
            ("duplicate", {"events": 30}),
            ("redeliver", {"events": 100, "when": "now"}),
            ("schema_change", {"remove": ["Mood__c"]}),
            ("goaway", {}),
            ("schema_down", {"seconds": 1.0}),
            ("schema_change", {"add": [{"name": "Tone__c"}]}),
            ("service_down", {"seconds": 0.5}),
        ):
            await place.org.fault(kind, **parameters)
            await committed_more(place)
        await require(place)
        await stop(worker)
        await require(place)


async def test_poison_and_gaps_open_windows(kafka_broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """What can't be told is owned up to, and everything around it is delivered."""
    async with deployment(tmp_path, kafka_broker.bootstrap, topic_prefix, scenario(300.0)) as place:
        worker = await place.worker()
        await committed_more(place)
        for how in ("truncated", "trailing", "random", "bad_bitmap", "bad_enum", "unknown_schema"):
            await place.org.publish("poison", how=how)
            await committed_more(place)
        gaps = [("gap", {"op": "UPDATE"}), ("gap", {"op": "CREATE"}), ("overflow", {}), ("wildcard", {})]
        for kind, parameters in gaps:
            await place.org.publish(kind, **parameters)
        await committed_more(place)
        windows = [*POISONED, "gap_create", "gap_overflow", "gap_update", "gap_update"]
        found = await require(place, covered=10, windows=windows)
        assert found.quarantined == len(POISONED), str(found)
        # A wildcard names no record, and an overflow none that can be trusted: the whole object is in doubt.
        whole = [each for each in found.windows.values() if each.reason.startswith("gap") and not each.record_ids]
        assert len(whole) == 2
        await stop(worker)
        await require(place, covered=10, windows=windows)


async def test_a_flood_halts_before_its_first_event(kafka_broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """Nothing of the flood is committed; what was good before it is, and `resume` goes on when the cause is mended."""
    async with deployment(tmp_path, kafka_broker.bootstrap, topic_prefix, scenario()) as place:
        worker = await place.worker()
        await worker.has_role("active")
        await create(place, 5)
        await place.committed()
        await place.org.fault("schema_change", add=[{"name": "Mood__c"}])
        await place.org.fault("schema_refused")
        flood = await create(place, 30)
        health = await worker.has_role("halted")
        assert "can't be processed" in health["reason"]
        records = await place.reader.read_settled()
        assert not [each for each in records if each.topic.endswith(".quarantine")]
        assert not losses(records)
        assert place.reader.missing(await place.published())[0].startswith(flood[0])
        await place.org.fault("clear")
        await command(place, Resume(None, 0, "test"))
        await worker.has_role("active")
        await require(place)
        await stop(worker)


async def test_a_refused_schema_is_retried(kafka_broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """Events of a refused schema wait in quarantine; `quarantine retry` sends them and closes their windows."""
    async with deployment(tmp_path, kafka_broker.bootstrap, topic_prefix, scenario()) as place:
        # A repair waits for history to pass the windows' end, and would else close them before the retry.
        worker = await place.worker(history={"settle": "1h"})
        await worker.has_role("active")
        await create(place, 3)
        await place.committed()
        await place.org.fault("schema_change", add=[{"name": "Mood__c"}])
        await place.org.fault("schema_refused")
        bad = await create(place, 4)
        found = await require(place, covered=4, windows=["schema_refused"] * 4)
        assert found.quarantined == 4
        await place.org.fault("clear")
        await command(place, RetryQuarantine("one", None, 0, "test"))
        await place.has_committed(3 + len(bad))
        found = await require(place, windows=["schema_refused"] * 4)
        closed = [each for each in await place.reader.read() if b'"loss_closed"' in (each.value or b"")]
        assert len(closed) == len(bad)
        await create(place, 2)
        await require(place, windows=["schema_refused"] * 4)
        await stop(worker)


@pytest.mark.parametrize("policy", ["earliest", "resync", "latest", "halt"])
async def test_an_expired_position(kafka_broker: Broker, topic_prefix: str, tmp_path: Path, policy: str) -> None:
    """What fell out of the retention is owned up to, what is retained is delivered once, as the policy says."""
    choice = {"on_lost_position": policy}
    async with deployment(tmp_path, kafka_broker.bootstrap, topic_prefix, scenario()) as place:
        worker = await place.worker(pubsub=choice)
        await worker.has_role("active")
        await create(place, 10)
        await place.committed()
        await stop(worker)
        await create(place, 6)
        await place.org.fault("expire_positions", keep_last=4)
        worker = await place.worker(pubsub=choice)
        if policy == "halt":
            await worker.has_role("halted")
            assert len(place.reader.missing(await place.published())) == 6
            assert not losses(await place.reader.read())
        elif policy == "latest":
            await worker.has_role("active")
            await require(place, covered=6, windows=["position_lost"])
        else:
            await require(place, covered=2, windows=["position_lost"])
            await create(place, 2)
            await require(place, covered=2, windows=["position_lost"])
        await stop(worker)


async def test_the_org_moves(kafka_broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """All replay ids are void and start anew; retained events come again and are recognised by their ids."""
    async with deployment(tmp_path, kafka_broker.bootstrap, topic_prefix, scenario(100.0)) as place:
        worker = await place.worker()
        await committed_more(place, 60)
        await place.org.fault("corrupt_positions", keep_events=True)
        await committed_more(place, 60)
        await require(place, windows=["position_lost"], replay_ids_kept=False)
        # The redelivery is remembered with the position: a restart must recognise old events too.
        await worker.kill()
        worker = await place.worker()
        await worker.has_role("active")
        await place.org.fault("corrupt_positions", keep_events=True)
        await create(place, 3)
        await require(place, windows=["position_lost"] * 2, replay_ids_kept=False)
        await stop(worker)


async def test_latest_begins_now(kafka_broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """A first start at LATEST skips what was before, and from its first event on misses nothing, killed or not."""
    async with deployment(tmp_path, kafka_broker.bootstrap, topic_prefix, scenario()) as place:
        old = await create(place, 5)
        worker = await place.worker(pubsub={"start": "latest"})
        await worker.has_role("active")

        async def first_seen() -> bool:
            await create(place)
            return any(each.topic.endswith(".changes") for each in await place.reader.read())

        await until(first_seen, "LATEST delivers")
        await worker.kill()
        await create(place, 5)
        worker = await place.worker(pubsub={"start": "latest"})
        await create(place, 5)

        async def last_seen() -> bool:
            await place.reader.read()
            return not place.reader.missing((await place.published())[-10:])

        await until(last_seen, "everything after the first event is delivered")
        missing = place.reader.missing(published := await place.published())
        skipped = [name.partition(":")[0] for name in missing]
        assert skipped[: len(old)] == old
        assert skipped == [event.event_id for event in published[: len(skipped)]], "a hole after the first event"
        await stop(worker)


async def test_quiet_weeks(kafka_broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """Keep-alives carry the position of an idle topic beyond the retention of its events."""
    async with deployment(tmp_path, kafka_broker.bootstrap, topic_prefix, scenario(keepalive_s=20.0)) as place:
        worker = await place.worker()
        await worker.has_role("active")
        await create(place, 2)
        last = (await place.committed())[-1].counter

        async def moved() -> bool:
            positions = committed_positions(await place.reader.read())
            return (positions[-1].counter or 0) > last and not positions[-1].beyond

        await place.org.fault("advance", times=3)
        await until(moved, "the position moved without an event")
        await worker.kill()
        # The first event's replay id is gone, which is where the position stood before the keep-alive.
        await place.org.fault("expire_positions", keep_last=1)
        worker = await place.worker(pubsub={"on_lost_position": "halt"})
        await worker.has_role("active")
        await create(place, 2)
        await require(place)
        await stop(worker)


async def test_silence(kafka_broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """A stream on which nothing comes is taken for dead; what was published meanwhile is delivered."""
    async with deployment(tmp_path, kafka_broker.bootstrap, topic_prefix, scenario(60.0)) as place:
        worker = await place.worker(pubsub={"watchdog_s": 4.0})
        await committed_more(place)
        await place.org.fault("silence", seconds=5.0)
        ended = await worker.said(event="stream.ended")
        assert ended["reason"].startswith("Nothing came")
        await committed_more(place)
        await require(place)
        await stop(worker)


async def test_the_allowance_is_used_up(kafka_broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """Not ready, with the reason; a probe much later, or a restart, goes on without loss."""
    async with deployment(tmp_path, kafka_broker.bootstrap, topic_prefix, scenario(100.0)) as place:
        worker = await place.worker()
        await committed_more(place)
        await place.org.fault("delivery_limit", exceeded=True)
        ended = await worker.said(event="stream.ended", code="subscription.limit.exceeded")
        assert ended["next_try_s"] >= 900
        health = await worker.has_role("failing")
        assert health["reason"]
        assert not health["ready"]
        await stop(worker)
        await place.org.fault("delivery_limit", exceeded=False)
        worker = await place.worker()
        await require(place)
        await stop(worker)


async def test_sigterm_commits_what_is_decoded(kafka_broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """A stop does not throw away a batch that is not full yet, and ends 0 within the grace."""
    async with deployment(tmp_path, kafka_broker.bootstrap, topic_prefix, scenario()) as place:
        worker = await place.worker(batch={"max_age": "60s", "max_records": 10_000})
        await worker.has_role("active")
        await create(place, 20)

        async def received() -> bool:
            return await worker.metric("events_received_total") >= 20

        await until(received, "all events are with the worker")
        # They were sent, and lie in a batch that would be cut in a minute.
        assert len(place.reader.missing(await place.published())) == 20
        assert await worker.stop(limit_s=10.0) == 0, worker.tail()
        await require(place)
