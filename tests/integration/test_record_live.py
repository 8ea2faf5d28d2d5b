"""``record`` and ``verify`` against a running emulated org, as a person at a terminal uses them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from consumer.emulator.scenario import Scenario
from consumer.emulator.server import EmulatedOrg, emulated_org
from consumer.events import ReceivedEvent, ReceivedSchema, StreamFault
from consumer.recording.reader import Recording
from tests.recordings.scenarios import SESSIONS

_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Terminal:
    """Starts commands with a configuration for the org."""

    org: EmulatedOrg
    config: Path

    async def start(self, *arguments: object, secret: str = "emulated") -> asyncio.subprocess.Process:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SESSION_CONSUMER__")}
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "consumer", "--config", str(self.config), *map(str, arguments)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment | {"SESSION_CONSUMER__SALESFORCE__CLIENT_SECRET": secret},
        )

    async def run(self, *arguments: object, secret: str = "emulated") -> Ended:
        return await ended(await self.start(*arguments, secret=secret))


async def ended(process: asyncio.subprocess.Process) -> Ended:
    async with asyncio.timeout(_LIMIT_S):
        out, err = await process.communicate()
    return Ended(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture
async def terminal(tmp_path: Path) -> AsyncIterator[Terminal]:
    scenario = Scenario.model_validate(
        {"seed": 5, "latest_arming_s": 0, "traffic": {"preload": 60, "rate": 40, "live": 10}}
    )
    async with emulated_org(scenario) as org:
        config = tmp_path / "c.toml"
        config.write_text(
            f'[salesforce]\nlogin_url = "{org.login_url}"\nclient_id = "emulated"\n'
            f'[pubsub]\nendpoint = "{org.pubsub}"\ntls = false\n'
            '[kafka]\nbootstrap_servers = "127.0.0.1:9"\n'
        )
        yield Terminal(org, config)


def published(org: EmulatedOrg, topic: str = SESSIONS) -> list[str]:
    return [entry.event_id for entry in org.ledger if org.bus.topics[topic].carries(entry.entity)]


def delivered(org: EmulatedOrg) -> int:
    return org.stats.events_sent


async def being_read(org: EmulatedOrg) -> None:
    """Wait until what was there at the beginning, and some of what came later, has been delivered."""
    async with asyncio.timeout(_LIMIT_S):
        while delivered(org) <= org.scenario.traffic.preload:  # noqa: ASYNC110 - the emulator's counters have no event
            await asyncio.sleep(0.02)


async def test_a_count_of_the_oldest_events_is_recorded_exactly(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "a.avro"
    done = await terminal.run("record", file, "--earliest", "--count", 7)
    assert (done.code, done.out) == (0, "")
    assert "counts against the org's 24 h event delivery allowance" in done.err
    assert done.err.endswith(f"7 events, 1 schema in {file}\n")
    items = list(Recording(file))
    assert isinstance(items[0], ReceivedSchema)
    assert [item.event_id for item in items if isinstance(item, ReceivedEvent)] == published(terminal.org)[:7]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_ctrl_c_finishes_the_file_and_ends_with_0(number: int, terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "a.avro"
    process = await terminal.start("record", file, "--earliest")
    await being_read(terminal.org)
    process.send_signal(number)
    done = await ended(process)
    assert done.code == 0
    assert "Traceback" not in done.err
    events = [item.event_id for item in Recording(file) if isinstance(item, ReceivedEvent)]
    assert events == published(terminal.org)[: len(events)]
    assert f"{len(events)} events, 1 schema in {file}\n" in done.err


async def test_for_some_seconds(terminal: Terminal, tmp_path: Path) -> None:
    done = await terminal.run("record", tmp_path / "a.avro", "--for", 1.5)
    assert done.code == 0
    assert list(Recording(tmp_path / "a.avro"))


async def test_a_redacted_recording_holds_no_value_and_no_id(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "a.avro"
    done = await terminal.run("record", file, "--earliest", "--count", 20, "--redact")
    assert done.code == 0
    recording = Recording(file)
    payloads = b"".join(item.payload for item in recording if isinstance(item, ReceivedEvent))
    ids = [record_id for entry in terminal.org.ledger for record_id in entry.record_ids]
    assert payloads
    assert not [each for each in (*ids, "MS-0000") if each.encode() in payloads]
    assert recording.org_id[:3] == "00D"
    assert recording.org_id != terminal.org.org_id
    assert (await terminal.run("verify", file)).code == 0


async def test_a_refused_schema_holds_nothing_up(terminal: Terminal, tmp_path: Path) -> None:
    await terminal.org.fault("poison", how="unknown_schema")
    place = len(published(terminal.org))
    file = tmp_path / "a.avro"
    done = await terminal.run("record", file, "--earliest", "--count", place + 60)
    assert done.code == 0
    assert "its events are recorded without it" in done.err
    items = list(Recording(file))
    assert [item.event_id for item in items if isinstance(item, ReceivedEvent)] == published(terminal.org)[: place + 60]
    assert [item.error for item in items if isinstance(item, StreamFault)] == ["SchemaRefusedError"]


async def test_a_lost_position_is_recorded_and_survived(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "a.avro"
    process = await terminal.start("record", file, "--earliest", "--for", 5)
    await being_read(terminal.org)
    await terminal.org.fault("corrupt_positions")
    done = await ended(process)
    assert done.code == 0
    assert "going on with the oldest retained event" in done.err
    items = list(Recording(file))
    lost = next(
        place for place, item in enumerate(items) if isinstance(item, StreamFault) and item.error == "PositionLostError"
    )
    assert any(isinstance(item, ReceivedEvent) for item in items[lost:])


def check_sentence(done: Ended, code: int, *says: str) -> None:
    """The last line is the error; no traceback and no second one."""
    assert done.code == code
    assert "Traceback" not in done.err
    assert sum(line.startswith("session-consumer: ") for line in done.err.splitlines()) == 1
    for each in says:
        assert each in done.err.splitlines()[-1]


@pytest.mark.parametrize("command", ["record", "verify"])
async def test_an_unknown_topic_is_one_sentence_and_leaves_no_file(
    command: str, terminal: Terminal, tmp_path: Path
) -> None:
    file = [tmp_path / "a.avro"] if command == "record" else []
    done = await terminal.run(command, *file, "--topic", "/data/NopeChangeEvent")
    check_sentence(done, 1, "topic.not.found", "Check the topic's name")
    assert not (tmp_path / "a.avro").exists()


@pytest.mark.parametrize("command", ["record", "verify"])
async def test_bad_credentials_are_one_sentence_without_the_secret(
    command: str, terminal: Terminal, tmp_path: Path
) -> None:
    file = [tmp_path / "a.avro"] if command == "record" else []
    done = await terminal.run(command, *file, secret="hush-4711")
    check_sentence(done, 1, "Salesforce refused the login")
    assert "hush" not in done.err
    assert not (tmp_path / "a.avro").exists()


async def test_a_file_that_exists_is_refused_before_anything_is_asked(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "a.avro").write_bytes(b"mine")
    check_sentence(await terminal.run("record", tmp_path / "a.avro"), 1, "exists already")
    assert (tmp_path / "a.avro").read_bytes() == b"mine"
    assert delivered(terminal.org) == 0


async def test_limits_that_end_at_once_are_a_usage_error(terminal: Terminal, tmp_path: Path) -> None:
    check_sentence(await terminal.run("record", tmp_path / "a.avro", "--count", 0), 2, "--count")
    check_sentence(await terminal.run("verify", "--for", "nan"), 2, "--for")
    check_sentence(await terminal.run("verify", "a.avro", "--earliest"), 2, "live org")


async def test_verify_asks_a_live_org(terminal: Terminal) -> None:
    done = await terminal.run("verify", "--earliest", "--count", 30, "--json")
    report = json.loads(done.out)
    assert (done.code, report["ok"]) == (0, True)
    assert report["seen"]["items"] == {"schemas": 1, "events": 30}


async def test_verify_of_a_quiet_org_still_checks_its_schema(terminal: Terminal) -> None:
    await terminal.org.fault("traffic", paused=True)
    done = await terminal.run("verify", "--for", 1, "--topic", "/data/AccountChangeEvent")
    assert done.code == 0
    assert "There was no event to verify" in done.out
    assert "schemas can be read" in done.out
