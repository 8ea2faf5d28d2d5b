"""``run``: the service."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import secrets
import signal
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import structlog

from consumer import clock
from consumer.cli.common import Subparsers, load_settings
from consumer.errors import UsageError
from consumer.events import TapItem
from consumer.recording.redact import Redactor
from consumer.recording.tap import Tap
from consumer.recording.writer import RecordingWriter
from consumer.service import Service
from consumer.telemetry import configure_logging

NAME = "run"
INTERRUPT_EXIT_CODE = 0

_GC_THRESHOLDS = (200_000, 20, 50)
"""Allocations before the youngest generation is looked at, and how often the next ones are."""

_log = structlog.get_logger(__name__)


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        NAME,
        help="run the service: Salesforce change events into Kafka",
        description=(
            "Run the service until SIGTERM or Ctrl-C. It then takes no more events, commits what it has, leaves the\n"
            "group and exits 0 within service.shutdown_grace_s; a second signal exits at once.\n"
            "Start it twice with the same configuration for a standby."
        ),
        epilog=(
            "examples:\n"
            "  session-consumer check && session-consumer run\n"
            "  session-consumer run --record tap/     also keep what was received, for `replay` and `verify`"
        ),
    )
    parser.add_argument(
        "--record", type=Path, metavar="DIR", help="also write what is received into recordings in this directory"
    )


async def run(args: argparse.Namespace) -> int:
    """Run until told to stop."""
    settings = load_settings(args).settings
    configure_logging(settings.service.log_format, settings.service.log_level)
    with ExitStack() as recordings:
        redact = not settings.fields.raw_allowed
        tap = None if args.record is None else _taps(args.record, recordings, redact=redact)
        service = Service(settings, tap=tap)
        _collect_seldom()
        stop_on_signals(service.stop)
        await service.run()
    _log.info("stopped")
    return 0


def _collect_seldom() -> None:
    """Let the garbage collector look less often: cached images are many objects, live long, and make no cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def stop_on_signals(stop: Callable[[], None]) -> None:
    """Call ``stop`` on the first SIGTERM or SIGINT; a second one exits at once."""
    loop = asyncio.get_running_loop()
    asked = False

    def on_signal(number: int) -> None:
        nonlocal asked
        if asked:
            # Nothing is lost: what was not committed comes again.
            os._exit(128 + number)
        asked = True
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)


def _taps(directory: Path, recordings: ExitStack, *, redact: bool) -> Callable[[str, str], Callable[[TapItem], None]]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory} can't be made: {error.strerror}", "Choose another directory.") from error

    def make(org_id: str, channel: str) -> Callable[[TapItem], None]:
        at = datetime.fromtimestamp(clock.now_ms() / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
        path = directory / f"{channel.rpartition('/')[2]}-{at}-{os.getpid()}.avro"
        redactor = Redactor(secrets.token_bytes(32)) if redact else None
        writer = recordings.enter_context(
            RecordingWriter(path, org_id if redactor is None else redactor.redact_id(org_id))
        )
        tap = Tap(writer.write if redactor is None else lambda item: writer.write(redactor.redact(item)))
        recordings.callback(tap.flush)
        return tap

    return make
