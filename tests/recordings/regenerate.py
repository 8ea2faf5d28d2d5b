"""Makes the stored recordings and their golden output again: ``python -m tests.recordings.regenerate [NAME ...]``.

Deterministic: the emulated org runs in this process with a fixed seed, the one clock of the package is replaced by one
that moves only between two acts, and each act is over when everything it published has been recorded through the same
capture, tap and writer that ``record`` uses. The container's sync marker and the server's trace ids, random by
nature, are fixed. So the same code gives the same bytes, whatever the machine; ``--check`` says whether it still does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import avro.datafile

import consumer.clock
from consumer.capturing import Capture
from consumer.connections import open_salesforce
from consumer.emulator.scenario import Scenario
from consumer.emulator.server import EmulatedOrg, emulated_org
from consumer.errors import PositionLostError
from consumer.events import Keepalive, ReceivedEvent, ReceivedSchema, StreamFault, TapItem
from consumer.position import Preset
from consumer.recording.reader import Recording
from consumer.recording.redact import Redactor
from consumer.recording.writer import RecordingWriter
from consumer.settings import Settings
from consumer.telemetry import configure_logging
from tests.change_schemas import WIDGET, WIDGET_PAYLOAD
from tests.recordings.scenarios import RECORDED, Recorded

HERE = Path(__file__).parent
START_MS = 1_790_000_000_000
STEP_MS = 1_500
_LIMIT_S = 20.0
_KEEPALIVE_S = 0.25
_IDLE_S = 3600.0
_ORG_ID = "00D5g00000AbCdEEAV"
_TRACE_ID = re.compile(r"rpc id [0-9A-Za-z-]+")


class SteppedClock:
    """Stands for the ``time`` module in ``consumer.clock``: moves only when told to."""

    def __init__(self) -> None:
        self.now_ms = START_MS

    def time_ns(self) -> int:
        """Return the time as ``time.time_ns`` does."""
        return self.now_ms * 1_000_000


class LiveStage:
    """Implements ``scenarios.Stage`` on a running emulated org."""

    def __init__(self, org: EmulatedOrg, topic: str, clock: SteppedClock, write: Callable[[TapItem], None]) -> None:
        self._org = org
        self._topic = org.bus.topics[topic]
        self._clock = clock
        self._write = write
        self._items: list[TapItem] = []
        self._came = asyncio.Event()
        self._expected = 0

    def take(self, item: TapItem) -> None:
        """Record an item."""
        if isinstance(item, StreamFault):
            item = replace(item, message=_TRACE_ID.sub("rpc id 0", item.message))
        self._write(item)
        self._items.append(item)
        self._came.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(_LIMIT_S):
            while not condition():
                self._came.clear()
                await self._came.wait()

    def _count(self, kind: type[TapItem]) -> int:
        return sum(isinstance(item, kind) for item in self._items)

    async def _settled(self, before: int) -> None:
        """Wait until the events published since ``before`` are recorded, then move the clock."""
        self._expected += sum(self._topic.carries(entry.entity) for entry in self._org.ledger[before:])
        await self._until(lambda: self._count(ReceivedEvent) >= self._expected)
        self._clock.now_ms += STEP_MS

    async def traffic(self, events: int) -> None:
        """Let the generated contact centre make this many events."""
        before = len(self._org.ledger)
        self._org.traffic.emit(events)
        await self._settled(before)

    async def commit(self, *changes: Mapping[str, Any], **parameters: Any) -> list[str]:
        """Commit one transaction; returns the record ids of its events, each once, in order."""
        before = len(self._org.ledger)
        entries = await self._org.fault("commit", changes=changes, **parameters)
        await self._settled(before)
        return list(dict.fromkeys(record_id for entry in entries for record_id in entry.record_ids))

    async def act(self, kind: str, **parameters: Any) -> None:
        """Carry out any fault or act of the emulated org."""
        before = len(self._org.ledger)
        await self._org.fault(kind, **parameters)
        await self._settled(before)

    async def keepalive(self) -> None:
        """Let the org be idle until a keep-alive has come."""
        seen = self._count(Keepalive)
        await self._org.fault("advance", times=3)
        await self._org.fault("keepalive", seconds=_KEEPALIVE_S)
        await self._until(lambda: self._count(Keepalive) > seen)
        await self._org.fault("keepalive", seconds=_IDLE_S)
        self._clock.now_ms += STEP_MS

    async def lose_position(self) -> None:
        """Move the org to another instance and wait until the stream has noticed."""
        await self._org.fault("corrupt_positions")
        lost = PositionLostError.__name__
        await self._until(lambda: any(isinstance(item, StreamFault) and item.error == lost for item in self._items))
        self._clock.now_ms += STEP_MS


def names() -> list[str]:
    """Return the names of all stored recordings."""
    return [*RECORDED, "widget", "redacted"]


async def made(name: str, path: Path) -> None:
    """Make one recording at ``path``, which must not exist."""
    with mock.patch.object(avro.datafile, "randbytes", bytes):
        if name == "widget":
            _make_widget(path)
        elif name == "redacted":
            _make_redacted(path)
        else:
            await _play(RECORDED[name], path)


async def _play(recorded: Recorded, path: Path) -> None:
    clock = SteppedClock()
    with mock.patch.object(consumer.clock, "time", clock):
        async with emulated_org(Scenario.model_validate({"keepalive_s": 270, **recorded.options})) as org:
            with RecordingWriter(path, org.org_id) as writer:
                stage = LiveStage(org, recorded.topic, clock, writer.write)
                async with _captured(org, recorded.topic, stage):
                    await recorded.play(stage)


@contextlib.asynccontextmanager
async def _captured(org: EmulatedOrg, topic: str, stage: LiveStage) -> AsyncIterator[None]:
    settings = Settings.model_validate(
        {
            "salesforce": {"login_url": org.login_url, "client_id": "emulated", "client_secret": "emulated"},
            "pubsub": {"endpoint": org.pubsub, "tls": False, "topics": [topic]},
            "kafka": {"bootstrap_servers": "127.0.0.1:1"},
        }
    )
    async with open_salesforce(settings) as salesforce, asyncio.TaskGroup() as tasks:
        capture = Capture(salesforce, topic, stage.take, lambda sentence: None)
        running = tasks.create_task(capture.run(Preset.EARLIEST))
        yield
        running.cancel()


def _make_widget(path: Path) -> None:
    """Record the worked payload of the Pub/Sub API fact sheet, section 5.8."""
    topic, commit_ms = "/data/Widget__ChangeEvent", 1_750_000_000_000
    with RecordingWriter(path, _ORG_ID) as writer:
        writer.write(ReceivedSchema(topic, "WidgetSchema0000000001", WIDGET, commit_ms + 900))
        writer.write(
            ReceivedEvent(
                topic,
                "5f0d4c5e-6f0a-4d0c-9b55-8e1f6d0d9f58",
                "WidgetSchema0000000001",
                WIDGET_PAYLOAD,
                bytes.fromhex("00000000000001790000"),
                commit_ms + 1_000,
            )
        )


def _make_redacted(path: Path) -> None:
    """Redact the account recording, which has names, addresses and a birthday."""
    redactor = Redactor(b"a fixed salt, for the tests only")
    recording = Recording(HERE / "accounts.avro")
    with RecordingWriter(path, redactor.redact_id(recording.org_id)) as writer:
        for item in recording:
            writer.write(redactor.redact(item))


def golden_of(path: Path) -> bytes:
    """Return what ``replay`` prints for a recording."""
    command = [sys.executable, "-m", "consumer", "replay", str(path), "--to", "stdout"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SESSION_CONSUMER__")}
    return subprocess.run(command, capture_output=True, check=True, timeout=60, env=environment).stdout


def main() -> int:
    """Make the recordings again, or with ``--check`` only compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())} (default: all)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if anything would change")
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(names()))
    if unknown:
        parser.error(f"there is no recording {', '.join(unknown)}")
    configure_logging(level="error")
    changed = 0
    for name in args.names or names():
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, f"{name}.avro")
            asyncio.run(made(name, path))
            fresh = {f"{name}.avro": path.read_bytes(), f"{name}.golden.jsonl": golden_of(path)}
        for file, content in fresh.items():
            stored = HERE / file
            same = stored.exists() and stored.read_bytes() == content
            changed += not same
            if not (same or args.check):
                stored.write_bytes(content)
            sys.stdout.write(json.dumps({"file": file, "bytes": len(content), "changed": not same}) + "\n")
    return 1 if args.check and changed else 0


if __name__ == "__main__":
    raise SystemExit(main())
