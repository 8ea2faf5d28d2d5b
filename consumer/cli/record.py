"""``record``: raw events of one channel into a file."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from consumer.buffer import EventBuffer
from consumer.cli.common import Subparsers, load_settings
from consumer.connections import Salesforce, open_salesforce
from consumer.errors import SchemaRefusedError, SchemaUnavailableError
from consumer.events import ReceivedEvent, TapItem
from consumer.ports import SchemaSource
from consumer.position import Position, Preset
from consumer.recording.redact import Redactor
from consumer.recording.tap import Tap
from consumer.recording.writer import RecordingWriter
from consumer.salesforce.schemas import SchemaCache
from consumer.salesforce.stream import PubSubStream, Timing
from consumer.settings import Settings
from consumer.tasks import cancel, task_group

NAME = "record"
INTERRUPT_EXIT_CODE = 0

_BUFFER_EVENTS = 1000
_BUFFER_BYTES = 64 << 20
_SCHEMA_PAUSE_S = 2.0


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        NAME,
        help="capture raw events from a channel into a file",
        description=(
            "Capture raw events, their schemas and the keep-alives of one channel into an Avro file, until Ctrl-C,\n"
            "--for or --count. Needs no Kafka to be up. Every event is charged to the org's delivery allowance once\n"
            "more, as for any subscriber."
        ),
        epilog=(
            "examples:\n"
            "  session-consumer record day.avro\n"
            "  session-consumer record --earliest --count 1000 --redact for-support.avro"
        ),
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the recording; it must not exist yet")
    parser.add_argument("--topic", metavar="TOPIC", help="the channel (default: the first configured one)")
    parser.add_argument("--earliest", action="store_true", help="begin with the oldest retained event, not now")
    parser.add_argument("--for", dest="seconds", type=float, metavar="S", help="stop after S seconds")
    parser.add_argument("--count", type=int, metavar="N", help="stop after N events")
    parser.add_argument("--redact", action="store_true", help="replace values by others of the same type")


async def run(args: argparse.Namespace) -> int:
    """Record."""
    settings = load_settings(args).settings
    topic = args.topic or settings.pubsub.topics[0]
    sys.stderr.write("Every recorded event counts against the org's 24 h event delivery allowance.\n")
    async with open_salesforce(settings) as org:
        session = await org.tokens.get()
        with RecordingWriter(args.file, session.org_id) as writer:
            redactor = Redactor() if args.redact else None
            counter = _Counter(writer.write if redactor is None else lambda item: writer.write(redactor.redact(item)))
            tap = Tap(counter)
            try:
                async with asyncio.timeout(args.seconds):
                    start = Position(preset=Preset.EARLIEST if args.earliest else Preset.LATEST)
                    await _capture(settings, org, topic, start, tap, counter, args.count)
            except TimeoutError:
                sys.stderr.write("\n")
            finally:
                tap.flush()
    sys.stderr.write(f"\r{counter.summary()} in {args.file}\n")
    return 0


class _Counter:
    """Counts items on their way to the file and shows the count on a terminal."""

    def __init__(self, write: Callable[[TapItem], None]) -> None:
        self._write = write
        self._counts: dict[str, int] = {}

    def __call__(self, item: TapItem) -> None:
        self._write(item)
        name = type(item).__name__.removeprefix("Received").removeprefix("Stream").lower()
        self._counts[name] = self._counts.get(name, 0) + 1
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{self.summary()} ")

    @property
    def events(self) -> int:
        return self._counts.get("event", 0)

    def summary(self) -> str:
        return ", ".join(f"{count} {name}s" for name, count in sorted(self._counts.items())) or "nothing"


async def _capture(
    settings: Settings,
    org: Salesforce,
    topic: str,
    start: Position,
    tap: Tap,
    counter: _Counter,
    most: int | None,
) -> None:
    buffer = EventBuffer(_BUFFER_EVENTS, _BUFFER_BYTES)
    timing = Timing(watchdog_s=settings.pubsub.watchdog_s)
    stream = PubSubStream(org.channel, topic, org.tokens, timing=timing, tap=tap)
    schemas = SchemaCache(org.channel, topic, org.tokens, tap=tap)
    async with task_group() as group:
        reader = group.create_task(stream.run(start, buffer))
        seen: set[str] = set()
        while most is None or counter.events < most:
            await buffer.wait_filled()
            for item in buffer.take(_BUFFER_EVENTS):
                if isinstance(item, ReceivedEvent) and item.schema_id not in seen:
                    seen.add(item.schema_id)
                    await _fetch(schemas, item.schema_id)
        await cancel(reader)


async def _fetch(schemas: SchemaSource, schema_id: str) -> None:
    """Have a schema recorded; events whose schema is refused are recorded without."""
    while True:
        try:
            await schemas.fetch(schema_id)
        except SchemaUnavailableError:
            await asyncio.sleep(_SCHEMA_PAUSE_S)
        except SchemaRefusedError as error:
            sys.stderr.write(f"\nschema {schema_id}: {error}\n")
            return
        else:
            return
