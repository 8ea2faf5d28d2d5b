"""`coverage` against a real Kafka."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaProducer

from consumer import clock
from consumer.cli import coverage
from consumer.cli.common import Command
from consumer.cli.main import _parser
from consumer.delivery.coverage import Coverage, Restoration
from consumer.delivery.headers import iso_utc
from consumer.delivery.names import Topics
from consumer.delivery.partition import partition_for
from consumer.delivery.positions import ProgressEntry, encode_entry
from consumer.delivery.windows import stream_of
from consumer.errors import UsageError
from consumer.events import LossWindow, OutboundRecord
from consumer.kafka.connection import Cluster
from consumer.kafka.lookup import Lookup
from consumer.kafka.topics import ensure_topics, planned_specs
from consumer.settings import KafkaSettings
from consumer.tracking.spans import Span
from tests.broker import Broker
from tests.delivery_values import ORG, RECORD

pytestmark = pytest.mark.kafka

CHANNEL = "/data/MessagingSessionChangeEvent"
ENTITY = "MessagingSession"
STREAM = stream_of(CHANNEL)
PARTITIONS = 3
HOUR = 3_600_000
CONFIG = """
[salesforce]
login_url = "http://127.0.0.1:1"
client_id = "none"
[kafka]
bootstrap_servers = "{bootstrap}"
topic_prefix = "{prefix}"
partitions = 3
[service]
name = "svc"
"""


class Place:
    """Topics with records written by hand, and a terminal."""

    def __init__(self, broker: Broker, prefix: str, directory: Path, capsys: Any) -> None:
        self.topics = Topics(prefix, [CHANNEL])
        self.coverage = Coverage(ORG, self.topics)
        self.settings = KafkaSettings(bootstrap_servers=broker.bootstrap, topic_prefix=prefix, partitions=PARTITIONS)
        self.cluster = Cluster(self.settings)
        self._config = directory / "session-consumer.toml"
        self._config.write_text(CONFIG.format(bootstrap=broker.bootstrap, prefix=prefix), encoding="utf-8")
        self._capsys = capsys

    async def write(self, records: Sequence[OutboundRecord], *timestamps: int) -> None:
        """Write records, with the given Kafka timestamps or of now."""
        producer = AIOKafkaProducer(bootstrap_servers=self.settings.bootstrap_servers)
        await producer.start()
        try:
            for number, record in enumerate(records):
                partition = partition_for(record.key, PARTITIONS) if record.partition is None else record.partition
                at_ms = timestamps[number] if timestamps else None
                await producer.send_and_wait(
                    record.topic, record.value, record.key, partition=partition, timestamp_ms=at_ms,
                    headers=list(record.headers),
                )  # fmt: skip
        finally:
            await producer.stop()

    async def type(self, *arguments: str, module: Any = coverage) -> tuple[int, str]:
        """Run a command; returns its exit code and what it printed."""
        command = cast("Command", module)
        args = _parser(command.NAME, command).parse_args([command.NAME, *arguments, "--config", str(self._config)])
        self._capsys.readouterr()
        async with asyncio.timeout(30):
            code = await cast("Awaitable[int]", command.run(args))
        return code, self._capsys.readouterr().out

    def span(self, start: int, end: int) -> OutboundRecord:
        return self.coverage.span(CHANNEL, Span(STREAM, start, end), end)


@pytest.fixture
async def place(kafka_broker: Broker, topic_prefix: str, tmp_path: Path, capsys: Any) -> Place:
    made = Place(kafka_broker, topic_prefix, tmp_path, capsys)
    await ensure_topics(made.cluster, planned_specs(made.topics, made.settings))
    return made


async def test_what_is_proven_and_what_not_is_told_and_sets_the_exit_code(place: Place) -> None:
    now = clock.now_ms()
    hour = now - now % HOUR - 3 * HOUR
    gap = LossWindow("gap:1", STREAM, "gap_update", hour + 5000, hour + 5999, (RECORD,), ENTITY)
    state = Restoration(state=True, deletes=True, tracked_history=True)
    await place.write(
        [
            place.span(hour, hour + HOUR),
            place.coverage.opened(gap, hour + 6000),
            place.coverage.closed(gap, hour + 9000, state, unrecoverable_fields=("AgentCount",)),
            place.span(hour + HOUR, hour + 2 * HOUR),
        ]
    )
    period = ("--from", iso(hour), "--to", iso(hour + 2 * HOUR))
    code, out = await place.type(*period)
    assert code == 0, out
    assert f"{CHANNEL}: state complete" in out
    code, out = await place.type(*period, "--json")
    told = json.loads(out)
    assert (code, told["label"]) == (0, "state_complete")
    slices = told["streams"][0]["slices"]
    assert [(each["label"], each["proof"]) for each in slices] == [
        ("state_complete", "delivered"),
        ("complete", "delivered"),
    ]
    assert slices[0]["missing"][0]["fields"] == ["AgentCount"]
    assert told["retention"][CHANNEL]["dropped"] is False
    code, out = await place.type("--from", iso(hour), "--to", iso(hour + 3 * HOUR))
    assert code == 1
    assert "nothing vouches for" in out


async def test_an_open_window_counts_even_when_only_positions_still_has_it(place: Place) -> None:
    now = clock.now_ms()
    lost = LossWindow("position:1", STREAM, "position_lost", now - HOUR, now - HOUR + 1000, (), ENTITY)
    await place.write([place.span(now - 25 * HOUR, now - 1000), encode_entry(place.topics, lost, 0)])
    code, out = await place.type()
    assert code == 1
    assert "open: position:1" in out


async def test_how_far_sharing_and_feeds_are_read_is_told_however_long_ago_that_was(place: Place) -> None:
    now = clock.now_ms()
    swept_ms, feed_ms = now - 60 * 24 * HOUR, now - 40 * 24 * HOUR
    progress = {"swept:MessagingSession": {"begun_ms": swept_ms, "ended_ms": swept_ms + 9, "rows": 3}}
    progress["poll:feed:MessagingSession"] = {"complete_to_ms": feed_ms, "began_ms": 0, "deleted_to_ms": 0}
    entries = [encode_entry(place.topics, ProgressEntry(CHANNEL, name, state), 0) for name, state in progress.items()]
    elsewhere = ProgressEntry("/data/CaseChangeEvent", "swept:Case", {"begun_ms": now, "ended_ms": now, "rows": 1})
    await place.write([place.span(now - 25 * HOUR, now - 1000), *entries, encode_entry(place.topics, elsewhere, 0)])
    code, out = await place.type("--json")
    told = json.loads(out)
    assert (code, told["label"]) == (0, "complete")
    assert told["sharing"] == [{"entity": ENTITY, "checked_to": iso_utc(swept_ms)}]
    assert told["feed"] == [{"entity": ENTITY, "complete_to": iso_utc(feed_ms)}]
    code, out = await place.type()
    assert code == 0
    assert f"sharing of {ENTITY} is checked to" in out


async def test_old_records_are_not_read_unless_they_are_needed(place: Place) -> None:
    now = clock.now_ms()
    spans = [place.span(now - (10 - each) * HOUR, now - (9 - each) * HOUR) for each in range(10)]
    await place.write(spans, *(now - (9 - each) * HOUR for each in range(10)))
    read: list[int] = []
    async with Lookup(place.cluster, lambda done, total: read.append(total)) as lookup:
        await lookup.coverage(place.topics, [CHANNEL], now - 2 * HOUR)
        assert max(read) < 6, "only an hour more than the period"
        read.clear()
        facts = (await lookup.coverage(place.topics, [CHANNEL], None)).channels[CHANNEL]
        assert max(read) == 10
        assert facts.report(now - 10 * HOUR, now).label == "complete"


async def test_an_org_clock_ahead_of_kafkas_does_not_hide_records(place: Place) -> None:
    """Kafka's timestamps say little of the period then, and more is read."""
    now = clock.now_ms()
    start = now - now % HOUR - 8 * HOUR
    lost = LossWindow("gap:1", STREAM, "gap_update", start + 3 * HOUR, start + 3 * HOUR, (RECORD,), ENTITY)
    records = [place.span(start + each * HOUR, start + (each + 1) * HOUR) for each in range(9)]
    records[4:4] = [place.coverage.opened(lost, now), place.coverage.closed(lost, now, Restoration())]
    await place.write(records, *(start + (each - 3) * HOUR for each in (0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 8)))
    code, out = await place.type("--from", iso(start + 3 * HOUR), "--to", iso(start + 5 * HOUR), "--json")
    assert [each["label"] for each in json.loads(out)["streams"][0]["slices"]] == ["incomplete", "complete"]
    assert json.loads(out)["streams"][0]["slices"][0]["unproven"] == []
    assert code == 1


async def test_a_channel_that_is_not_configured_is_wrong_usage(place: Place) -> None:
    with pytest.raises(UsageError, match="not one of the configured channels"):
        await place.type("--channel", "/data/CaseChangeEvent")
    with pytest.raises(UsageError, match="ends before it begins"):
        await place.type("--from", "1h", "--to", "2h")


def iso(ms: int) -> str:
    return iso_utc(ms) or ""
