"""The commands of an operator against a running service, a real Kafka and the emulated org."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from consumer.cli import check, pause, position, quarantine, resume, status
from consumer.cli.common import Command
from consumer.cli.main import _parser
from consumer.delivery.names import Topics
from consumer.emulator.scenario import Scenario
from consumer.emulator.server import EmulatedOrg, emulated_org
from consumer.errors import UsageError
from consumer.health.state import Role
from consumer.kafka.connection import Cluster
from consumer.kafka.topics import TopicSpec, ensure_topics
from consumer.service import Service, running
from consumer.settings import Settings
from consumer.settings_load import load
from tests.broker import Broker
from tests.deployment import tells_event
from tests.kafka_reader import ReadRecord, read_committed_all

pytestmark = pytest.mark.kafka

CHANNEL = "/data/MessagingSessionChangeEvent"
LIMIT_S = 30.0
_LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[.*\n", re.MULTILINE)
"""The service logs to the same stream."""
CONFIG = """
[salesforce]
login_url = "{org.login_url}"
client_id = "emulated"
[pubsub]
endpoint = "{org.pubsub}"
tls = false
start = "earliest"
[kafka]
bootstrap_servers = "{bootstrap}"
topic_prefix = "{prefix}"
partitions = 2
session_timeout = "3s"
[history]
settle = "1h"
[state]
path = "{state}"
[service]
name = "svc"
listen = "127.0.0.1:0"
"""


class Place:
    """One deployment, and a terminal beside it."""

    def __init__(self, org: EmulatedOrg, broker: Broker, prefix: str, directory: Path, capsys: Any) -> None:
        self.org = org
        self.broker = broker
        self.config = directory / "session-consumer.toml"
        text = CONFIG.format(org=org, bootstrap=broker.bootstrap, prefix=prefix, state=directory / "state")
        self.config.write_text(text, encoding="utf-8")
        self.topics = Topics(prefix, [CHANNEL])
        self._capsys = capsys

    @property
    def settings(self) -> Settings:
        environment = {"SESSION_CONSUMER__SALESFORCE__CLIENT_SECRET": "emulated"}
        return load(self.config.read_text(), environment, Path.read_bytes).settings

    async def type(self, module: Any, *arguments: str) -> tuple[int, str]:
        """Run a command; returns its exit code and what it printed."""
        command = cast("Command", module)
        args = _parser(command.NAME, command).parse_args([command.NAME, *arguments, "--config", str(self.config)])
        self._capsys.readouterr()
        async with asyncio.timeout(LIMIT_S):
            code = await cast("Awaitable[int]", command.run(args))
        return code, _LOG_LINE.sub("", self._capsys.readouterr().out)

    @asynccontextmanager
    async def service(self) -> AsyncIterator[Service]:
        """Run the service until the end of the block."""
        async with running(Service(self.settings)) as service:
            yield service

    async def publish(self, count: int = 1) -> None:
        """Have the org publish events."""
        for _ in range(count):
            await self.org.fault("commit", changes=[{"op": "create", "entity": "MessagingSession"}])

    async def changes(self) -> list[ReadRecord]:
        """Return what is committed to the changes topic."""
        return await read_committed_all(self.broker.bootstrap, self.topics.changes("MessagingSession"))

    async def closings(self) -> list[Any]:
        """Return the coverage records that close a window."""
        records = await read_committed_all(self.broker.bootstrap, self.topics.coverage)
        values = [json.loads(record.value or b"null") for record in records]
        return [value for value in values if value["kind"] == "loss_closed"]


@pytest.fixture
async def place(
    kafka_broker: Broker, topic_prefix: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Place]:
    monkeypatch.setenv("SESSION_CONSUMER__SALESFORCE__CLIENT_SECRET", "emulated")
    async with emulated_org(Scenario.model_validate({"time_scale": 200.0})) as org:
        yield Place(org, kafka_broker, topic_prefix, tmp_path, capsys)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition on the service's own state holds."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110 - the health state offers no event
            await asyncio.sleep(0.01)


async def committed(place: Place, count: int) -> None:
    """Wait until so many changes are committed that events told; rows of a refresh come when they come."""
    async with asyncio.timeout(LIMIT_S):
        while await told_by_events(place) < count:  # each look is a read of the topic to its end
            pass


async def told_by_events(place: Place) -> int:
    """Return how many committed changes events told."""
    return sum(map(tells_event, await place.changes()))


def role(service: Service) -> Role:
    return service.health.subscription(CHANNEL).role


async def test_check_status_pause_and_resume(place: Place) -> None:
    code, told = await place.type(check)
    assert (code, told.splitlines()[-1]) == (0, "ready: `session-consumer run`")
    await place.publish(2)
    async with place.service() as service:
        await committed(place, 2)
        code, told = await place.type(check, "--json")
        assert code == 0
        assert {each["name"]: each["level"] for each in json.loads(told)}["workers"] == "ok"
        code, told = await place.type(status, "--json")
        document = json.loads(told)
        assert (code, document["problems"], document["org_id"]) == (0, [], place.org.org_id)
        assert [each["active"] for each in document["members"]] == [True]

        assert (await place.type(pause, "--topic", CHANNEL))[0] == 0
        await until(lambda: role(service) is Role.PAUSED)
        await place.publish(2)
        assert (await place.type(status))[0] == 0, "a pause is no trouble"
        assert await told_by_events(place) == 2
        assert (await place.type(resume))[0] == 0
        await committed(place, 4)
        assert await told_by_events(place) == 4
    code, told = await place.type(status)
    assert code == 1
    assert "problem: no worker is active" in told


async def test_a_retry_closes_each_window_exactly_once(place: Place) -> None:
    async with place.service() as service:
        await until(lambda: role(service) is Role.ACTIVE)
        # The schema of before is known already.
        await place.org.fault("schema_change", add=[{"name": "Mood__c"}])
        await place.org.fault("schema_refused")
        await place.publish(2)
        await until(lambda: service.health.subscription(CHANNEL).open_windows == 2)
        code, told = await place.type(quarantine, "list", "--json")
        listed = json.loads(told)
        assert (code, [each["open"] for each in listed]) == (0, [True, True])
        assert {each["reason"] for each in listed} == {"schema_refused"}
        windows = [each["window_id"] for each in listed]

        code, told = await place.type(quarantine, "retry", windows[0])
        assert (code, "0 of 1 loss windows are closed" in told) == (1, True), "the schema is still refused"
        await place.org.fault("clear")
        code, told = await place.type(quarantine, "retry", windows[0])
        assert (code, "1 of 1 loss windows are closed" in told) == (0, True)
        code, told = await place.type(quarantine, "retry", "--all")
        assert (code, "1 of 1 loss windows are closed" in told) == (0, True)
        code, told = await place.type(quarantine, "retry", "--all")
        assert (code, "0 of 0" in told) == (0, True)
        with pytest.raises(UsageError, match="no such open loss window"):
            await place.type(quarantine, "retry", windows[0])
        assert json.loads((await place.type(quarantine, "list", "--open", "--json"))[1]) == []
        await place.publish(1)
        await committed(place, 3)
    assert sorted(each["window_id"] for each in await place.closings()) == sorted(windows)
    ids = [record.headers["ce_id"].decode() for record in await place.changes()]
    rows = [each for each in ids if each.startswith("row:")]
    assert len(ids) == len(set(ids)) == 3 + len(rows)
    repaired = {each.partition("quarantine:")[2] for each in rows if "quarantine:" in each}
    assert repaired <= {each.removeprefix("quarantine:") for each in windows}


async def test_a_retry_asked_for_while_nobody_works_is_carried_out_at_the_start(place: Place) -> None:
    await place.org.fault("schema_refused")
    await place.publish(1)
    async with place.service() as service:
        await until(lambda: service.health.subscription(CHANNEL).open_windows == 1)
    await place.org.fault("clear")
    code, told = await place.type(quarantine, "retry", "--all")
    assert (code, "no worker is active" in told) == (0, True)
    async with place.service() as service:
        await until(lambda: role(service) is Role.ACTIVE and not service.health.subscription(CHANNEL).open_windows)
        await committed(place, 1)
    assert len(await place.closings()) == 1


async def test_the_position_is_shown_and_forced_only_while_nobody_works(place: Place) -> None:
    await place.publish(3)
    async with place.service() as service:
        await committed(place, 3)
        with pytest.raises(UsageError, match="A worker is active"):
            await place.type(position, "set", "--earliest", "--yes")
    code, told = await place.type(position, "show", "--json")
    (before,) = json.loads(told)
    assert (code, before["channel"], before["preset"]) == (0, CHANNEL, None)
    assert 71 < before["expires_in_hours"] <= 72

    code, told = await place.type(position, "reset")
    assert (code, "Nothing was changed" in told) == (0, True)
    assert json.loads((await place.type(position, "show", "--json"))[1]) == [before]
    code, told = await place.type(position, "set", "--earliest", "--yes")
    assert (code, "loss window forced:" in told) == (0, True)
    (after,) = json.loads((await place.type(position, "show", "--json"))[1])
    assert (after["replay_id"], after["preset"]) == (None, "earliest")

    await place.publish(1)
    async with place.service() as service:
        await committed(place, 4)
        assert service.health.subscription(CHANNEL).open_windows == 1
    ids = [record.headers["ce_id"] for record in await place.changes()]
    assert len(ids) == len(set(ids)) == 4, "events committed before are recognised"


async def test_check_names_topics_that_are_not_as_they_must_be(place: Place) -> None:
    cluster = Cluster(place.settings.kafka)
    await ensure_topics(cluster, [TopicSpec(place.topics.positions, "delete", 3_600_000)])
    code, told = await place.type(check, "--json")
    found = {each["name"]: each for each in json.loads(told)}
    assert code == 1
    assert found["topics"]["level"] == "fail"
    assert place.topics.positions in found["topics"]["seen"]
    assert found["topics"]["advice"]


async def test_check_tells_topics_of_another_org(place: Place) -> None:
    await place.publish(1)
    async with place.service():
        await committed(place, 1)
    async with emulated_org(Scenario.model_validate({"auth": {"org_id": "00Dem0000000002"}})) as other:
        text = place.config.read_text(encoding="utf-8")
        text = text.replace(place.org.login_url, other.login_url).replace(place.org.pubsub, other.pubsub)
        place.config.write_text(text, encoding="utf-8")
        code, told = await place.type(check, "--json")
    lines = [each for each in json.loads(told) if each["name"] == "position"]
    assert code == 1
    assert lines[0]["level"] == "fail"
    assert place.org.org_id in lines[0]["seen"]
