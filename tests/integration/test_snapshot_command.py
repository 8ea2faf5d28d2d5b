"""`snapshot` against a running service, a real Kafka and the emulated org."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from consumer.cli import snapshot, status
from consumer.cli.common import Command
from consumer.cli.main import _parser
from consumer.delivery.names import Topics
from consumer.emulator.scenario import Scenario
from consumer.emulator.server import EmulatedOrg, emulated_org
from consumer.service import Service, running
from consumer.settings_load import load
from tests.broker import Broker
from tests.contract.topic_schemas import validate_record
from tests.kafka_reader import ReadRecord, read_committed_all

pytestmark = pytest.mark.kafka

CHANNEL = "/data/MessagingSessionChangeEvent"
ENTITY = "MessagingSession"
LIMIT_S = 30.0
SESSIONS = 230
CHUNK = 200
_LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[.*\n", re.MULTILINE)
"""The service logs to the same stream."""
CONFIG = """
[salesforce]
login_url = "{org.login_url}"
client_id = "emulated"
[pubsub]
endpoint = "{org.pubsub}"
tls = false
[kafka]
bootstrap_servers = "{bootstrap}"
topic_prefix = "{prefix}"
partitions = 2
session_timeout = "3s"
[state]
path = "{state}"
[tracking]
chunk_rows = {chunk}
[history]
poll = "1s"
settle = "1s"
[service]
name = "svc"
listen = "127.0.0.1:0"
"""


class Place:
    """One deployment whose first snapshot is read, and a terminal beside it."""

    def __init__(self, org: EmulatedOrg, broker: Broker, prefix: str, directory: Path, capsys: Any) -> None:
        self.org = org
        self.ids: list[str] = []
        self.topics = Topics(prefix, [CHANNEL])
        self._bootstrap = broker.bootstrap
        self._config = directory / "session-consumer.toml"
        state = directory / "state"
        text = CONFIG.format(org=org, bootstrap=broker.bootstrap, prefix=prefix, state=state, chunk=CHUNK)
        self._config.write_text(text, encoding="utf-8")
        self._capsys = capsys

    async def type(self, module: Any, *arguments: str) -> tuple[int, str]:
        """Run a command; returns its exit code and what it printed."""
        command = cast("Command", module)
        args = _parser(command.NAME, command).parse_args([command.NAME, *arguments, "--config", str(self._config)])
        self._capsys.readouterr()
        async with asyncio.timeout(LIMIT_S):
            code = await cast("Awaitable[int]", command.run(args))
        return code, _LOG_LINE.sub("", self._capsys.readouterr().out)

    @asynccontextmanager
    async def service(self) -> AsyncIterator[Service]:
        """Run the service until the end of the block."""
        settings = load(
            self._config.read_text(), {"SESSION_CONSUMER__SALESFORCE__CLIENT_SECRET": "emulated"}, Path.read_bytes
        ).settings
        async with running(Service(settings)) as service:
            yield service

    async def fill(self) -> None:
        """Have the org make sessions before the service has ever run."""
        fields = {"Status": "Waiting", "Priority__c": "Normal"}
        made = [{"op": "create", "fields": fields} for _ in range(SESSIONS)]
        entries = await self.org.fault("commit", changes=made)
        self.ids = [each for entry in entries for each in entry.record_ids]

    async def read(self, *topics: str) -> list[ReadRecord]:
        """Return what is committed."""
        return await read_committed_all(self._bootstrap, *topics)

    async def changes(self) -> list[dict[str, Any]]:
        """Return the values of the changes topic."""
        records = await self.read(self.topics.changes(ENTITY))
        for record in records:
            validate_record("changes", record.key, record.value, tuple(record.headers.items()))
        return [json.loads(record.value or b"null") for record in records]

    async def scans(self) -> list[dict[str, Any]]:
        """Return the snapshots that were asked for and are not complete, as status tells them."""
        (channel,) = json.loads((await self.type(status, "--json"))[1])["channels"]
        return [each for each in channel["scans"] if each["purpose"] == "snapshot asked for"]

    async def requests(self) -> int:
        """Return how many requests on the control topic are not withdrawn."""
        newest = {record.key: record.value for record in await self.read(self.topics.control)}
        return sum(value is not None for value in newest.values())

    async def first_snapshot(self) -> None:
        """Wait until the rows of the first start are committed."""
        await until(self._all_read)

    async def _all_read(self) -> bool:
        return len(await self.read(self.topics.of(ENTITY, "state"))) >= SESSIONS

    async def idle(self) -> bool:
        """Tell whether every snapshot that was asked for is complete."""
        return not await self.requests() and not await self.scans()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask Kafka until a condition holds; each look is a read to the end."""
    async with asyncio.timeout(LIMIT_S):
        while not await condition():
            pass


@pytest.fixture
async def place(
    kafka_broker: Broker, topic_prefix: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Place]:
    monkeypatch.setenv("SESSION_CONSUMER__SALESFORCE__CLIENT_SECRET", "emulated")
    async with emulated_org(Scenario.model_validate({"time_scale": 200.0})) as org:
        made = Place(org, kafka_broker, topic_prefix, tmp_path, capsys)
        await made.fill()
        yield made


def told(changes: list[dict[str, Any]]) -> list[tuple[str, str, str | None]]:
    return sorted((each["op"], each["source"]["record_id"], each["source"]["change_type"]) for each in changes)


async def test_only_differences_are_sent_and_gone_records_are_found(place: Place) -> None:
    """Neither the update nor the delete had an event: only Salesforce's rows tell of them."""
    async with place.service():
        await place.first_snapshot()
        before = await place.changes()
        assert {each["op"] for each in before} == {"r"}
        assert len(before) == SESSIONS
        await place.org.fault("silent_update", record_ids=[place.ids[3]], fields={"Priority__c": "Urgent"})
        await place.org.fault("silent_delete", record_ids=[place.ids[7]])
        code, said = await place.type(snapshot)
        assert (code, "asked for" in said) == (0, True)
        await until(place.idle)
        await place.type(snapshot, "--entity", ENTITY)
        await until(place.idle)
    new = [each for each in await place.changes() if each not in before]
    assert told(new) == [("d", place.ids[7], "VANISHED"), ("r", place.ids[3], None)], "the second one finds nothing"
    row = next(each for each in new if each["op"] == "r")
    assert (row["before"]["Priority__c"], row["after"]["Priority__c"]) == ("Normal", "Urgent")
    assert row["source"]["record_version"] == 2


async def test_a_condition_reads_only_what_matches_and_finds_no_deletes(place: Place) -> None:
    async with place.service():
        await place.first_snapshot()
        before = await place.changes()
        await place.org.fault("silent_update", record_ids=[place.ids[3]], fields={"Priority__c": "Urgent"})
        await place.org.fault("silent_update", record_ids=[place.ids[4]], fields={"Priority__c": "High"})
        await place.org.fault("silent_delete", record_ids=[place.ids[7]])
        await place.type(snapshot, "--where", "Priority__c = 'Urgent'")
        await until(place.idle)
    new = [each for each in await place.changes() if each not in before]
    assert told(new) == [("r", place.ids[3], None)]


async def test_a_condition_the_org_refuses_ends_the_snapshot_and_is_told(place: Place) -> None:
    async with place.service() as service:
        await place.first_snapshot()
        await place.type(snapshot, "--where", "NoSuchField__c = 'x'")
        await until(place.idle)
        (unavailable,) = [each for each in service.health.subscription(CHANNEL).unavailable if "NoSuchField__c" in each]
        assert unavailable.startswith("snapshot where NoSuchField__c = 'x' of MessagingSession: ")


async def test_progress_is_shown_and_a_restart_goes_on_with_the_chunk_it_had_reached(place: Place) -> None:
    """The second chunk is refused until the service is started again; the request is not needed any more then."""
    async with place.service():
        await place.first_snapshot()
        await place.org.fault("silent_update", record_ids=[place.ids[-1]], fields={"Priority__c": "Urgent"})
        await place.org.fault("rest_error", error="html502", times=10_000, path="Id > '")
        await place.type(snapshot)

        async def first_chunk_read() -> bool:
            return [each["rows"] for each in await place.scans()] == [CHUNK]

        await until(first_chunk_read)
        (scan,) = await place.scans()
        assert (scan["total"], scan["phase"], scan["entity"]) == (SESSIONS, "rows", ENTITY)
        assert await place.requests() == 0, "what is durable needs no command any more"
        text = (await place.type(status))[1]
        assert f"snapshot asked for of {ENTITY}: {CHUNK} of {SESSIONS} rows (86 %), rows are read" in text
    before = await place.changes()
    await place.org.fault("clear")
    async with place.service():
        await until(place.idle)
    new = [each for each in await place.changes() if each not in before]
    assert told(new) == [("r", place.ids[-1], None)]
