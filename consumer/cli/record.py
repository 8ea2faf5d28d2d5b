"""``record``: raw events of one channel into a file."""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path

from consumer.capturing import Capture
from consumer.cli.common import Subparsers, load_settings
from consumer.cli.limits import check_limits, until_told
from consumer.connections import Salesforce, open_salesforce
from consumer.errors import ServiceError
from consumer.events import Keepalive, ReceivedEvent, ReceivedSchema, StreamFault, TapItem
from consumer.position import Preset
from consumer.recording.redact import Redactor
from consumer.recording.writer import RecordingWriter, require_new
from consumer.telemetry import configure_logging

NAME = "record"
INTERRUPT_EXIT_CODE = 0

_PROGRESS_EVERY_MS = 100


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
            "  session-consumer record --earliest --count 1000 --redact for-support.avro\n"
            "  session-consumer record --topic /data/Support__chn --for 600 channel.avro"
        ),
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the recording; it must not exist yet")
    parser.add_argument("--topic", metavar="TOPIC", help="the channel (default: the first configured one)")
    parser.add_argument("--earliest", action="store_true", help="begin with the oldest retained event, not now")
    parser.add_argument("--for", dest="seconds", type=float, metavar="S", help="stop after S seconds")
    parser.add_argument("--count", type=int, metavar="N", help="stop after N events")
    parser.add_argument(
        "--redact",
        action="store_true",
        help="replace every value by another of the same type; ids stay consistent within the file",
    )


async def run(args: argparse.Namespace) -> int:
    """Record."""
    check_limits(args)
    settings = load_settings(args).settings
    configure_logging(level="error")  # what is said here says it all
    require_new(args.file)
    topic = args.topic or settings.pubsub.topics[0]
    if not settings.fields.raw_allowed and not args.redact:
        _say("the field policy does not allow raw payloads, so the recording is redacted")
    _say("every recorded event counts against the org's 24 h event delivery allowance")
    async with open_salesforce(settings) as org, until_told(args.seconds):
        session = await org.tokens.get()
        redacting = args.redact or not settings.fields.raw_allowed
        redactor = Redactor(secrets.token_bytes(32)) if redacting else None
        org_id = session.org_id if redactor is None else redactor.redact_id(session.org_id)
        progress = Progress()
        _say(f"recording {topic}; Ctrl-C ends it")
        try:
            with RecordingWriter(args.file, org_id) as writer:
                await _capture(args, org, topic, writer, redactor, progress, settings.pubsub.watchdog_s)
        except ServiceError:
            if not progress.worth_keeping:
                args.file.unlink(missing_ok=True)
            raise
        finally:
            progress.end(str(args.file))
    return 0


async def _capture(
    args: argparse.Namespace,
    org: Salesforce,
    topic: str,
    writer: RecordingWriter,
    redactor: Redactor | None,
    progress: Progress,
    watchdog_s: float,
) -> None:
    def write(item: TapItem) -> None:
        kept = item if redactor is None else redactor.redact(item)
        writer.write(kept)
        progress.count(kept)

    capture = Capture(org, topic, write, progress.notice, most=args.count, watchdog_s=watchdog_s)
    await capture.run(Preset.EARLIEST if args.earliest else Preset.LATEST)


_NAMES: dict[type[object], tuple[str, str]] = {
    ReceivedEvent: ("event", "events"),
    ReceivedSchema: ("schema", "schemas"),
    Keepalive: ("keep-alive", "keep-alives"),
    StreamFault: ("fault", "faults"),
}


class Progress:
    """Counts items on their way to the file, and shows the count on a terminal."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(_NAMES, 0)
        self._shown_ms = 0
        self._line = ""

    def count(self, item: TapItem) -> None:
        """Count one item."""
        self._counts[type(item)] += 1
        if sys.stderr.isatty() and item.received_ms - self._shown_ms >= _PROGRESS_EVERY_MS:
            self._shown_ms = item.received_ms
            self._show(self.summary())

    def notice(self, sentence: str) -> None:
        """Tell of a trouble that is being mended."""
        self._show("")
        _say(sentence)

    def end(self, where: str) -> None:
        """Say what was recorded."""
        self._show("")
        _say(f"{self.summary()} in {where}" if self.worth_keeping else "nothing was received")

    @property
    def worth_keeping(self) -> bool:
        """Whether anything but faults was recorded."""
        return any(count for kind, count in self._counts.items() if kind is not StreamFault)

    def summary(self) -> str:
        """Return the counts as a list."""
        shown = [
            f"{count} {_NAMES[kind][count != 1]}"
            for kind, count in self._counts.items()
            if count or kind is ReceivedEvent
        ]
        return ", ".join(shown)

    def _show(self, line: str) -> None:
        """Put a line in the place of the last one; nothing where no one looks on."""
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{line.ljust(len(self._line))}" + ("" if line else "\r"))
            sys.stderr.flush()
        self._line = line


def _say(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")
