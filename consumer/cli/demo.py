"""``demo``: an emulated org, a Kafka broker, and the service between them."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
from pydantic import SecretStr
from rich.console import Console

from consumer.cli.common import PROGRAM, Subparsers, write_line
from consumer.cli.demo_lines import Lines
from consumer.cli.replay import line
from consumer.cli.run import stop_on_signals
from consumer.delivery.names import Topics
from consumer.emulator.scenario import Scenario, TrafficSettings
from consumer.emulator.server import EmulatedOrg, emulated_org
from consumer.errors import UsageError
from consumer.events import OutboundRecord
from consumer.kafka.connection import Cluster
from consumer.kafka.embedded import EmbeddedBroker
from consumer.kafka.tailing import tail
from consumer.kafka.topics import ensure_topics, planned_specs
from consumer.service import Service, running
from consumer.settings import (
    HistorySettings,
    KafkaSettings,
    PubSubSettings,
    SalesforceSettings,
    ServiceSettings,
    Settings,
    StateSettings,
    TrackingSettings,
)
from consumer.tasks import cancel, task_group
from consumer.telemetry import configure_logging

NAME = "demo"
INTERRUPT_EXIT_CODE = 0

_CHANNEL = "/data/MessagingSessionChangeEvent"
_WIDEST = 110
_ENTITY = "MessagingSession"
_MOST_RATE = 1000
"""Nobody can watch more."""
_PRELOAD = 40
"""Events before the start, so that the first snapshot has something to read."""
_POLL_MS, _SETTLE_MS, _REFRESH_MS = 2_000, 2_000, 3_000


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        NAME,
        help="watch the whole service work against an emulated org",
        description=(
            "Run an emulated Salesforce org with live contact-centre traffic, a Kafka broker inside this process,\n"
            "and the service between them; show the records as they are committed: changes from before → after,\n"
            "history that Salesforce's own rows confirm, who gains and loses access, what is posted, what is proven\n"
            "complete. On a pipe they come as JSON lines.\n"
            "Ends with Ctrl-C.\n\n"
            "The embedded broker shows the service at work. It proves no guarantee: use --kafka for a real one."
        ),
        epilog=(
            "examples:\n"
            "  session-consumer demo\n"
            "  session-consumer demo --for 20 | jq -r '.value.after.Status // empty'\n"
            "  session-consumer demo --kafka localhost:9092"
        ),
    )
    parser.add_argument("--for", dest="seconds", type=float, metavar="S", help="end after S seconds")
    parser.add_argument("--rate", type=float, default=4.0, metavar="N", help="events per second (default: 4)")
    parser.add_argument("--kafka", metavar="HOST:PORT", help="a real Kafka instead of the embedded broker")
    parser.add_argument("--seed", type=int, default=1, help="seed of the traffic (default: 1)")


async def run(args: argparse.Namespace) -> int:
    """Run the demonstration.

    Raises:
        UsageError: a number is out of range.
    """
    if args.seconds is not None and not args.seconds > 0:
        raise UsageError("--for must be more than 0 seconds", "Leave it out to end with Ctrl-C")
    if not 0 < args.rate <= _MOST_RATE:
        raise UsageError(f"--rate must be more than 0 and at most {_MOST_RATE}", "Leave it out for 4")
    configure_logging(level="error")
    stop = asyncio.Event()
    stop_on_signals(stop.set)
    prefix = f"session-consumer-demo-{uuid.uuid4().hex[:8]}." if args.kafka else "salesforce."
    show = _Show(sys.stdout.isatty())
    scenario = Scenario(seed=args.seed, traffic=TrafficSettings(rate=args.rate, preload=_PRELOAD))
    with _broker(args.kafka) as (bootstrap, embedded), tempfile.TemporaryDirectory(prefix="session-consumer-") as state:
        async with emulated_org(scenario) as org:
            settings = _settings(org, bootstrap, prefix, Path(state))
            cluster = Cluster(settings.kafka, embedded=embedded)
            show.begin(args.kafka, settings)
            await _watch(settings, cluster, stop, args.seconds, show)
    show.end(prefix if args.kafka else None)
    return 0


@contextmanager
def _broker(address: str | None) -> Iterator[tuple[str, EmbeddedBroker | None]]:
    if address is not None:
        yield address, None
        return
    with EmbeddedBroker() as broker:
        yield broker.bootstrap, broker


def _settings(org: EmulatedOrg, bootstrap: str, prefix: str, state: Path) -> Settings:
    """Return the settings of the demonstration; nobody waits minutes for a confirmation here."""
    return Settings(
        salesforce=SalesforceSettings(
            login_url=org.login_url, client_id="emulated", client_secret=SecretStr("emulated")
        ),
        pubsub=PubSubSettings(endpoint=org.pubsub, tls=False, topics=(_CHANNEL,)),
        kafka=KafkaSettings(bootstrap_servers=bootstrap, topic_prefix=prefix, partitions=3),
        state=StateSettings(path=state),
        tracking=TrackingSettings(refresh_after=_REFRESH_MS),
        history=HistorySettings(poll=_POLL_MS, settle=_SETTLE_MS),
        service=ServiceSettings(name="demo", listen="127.0.0.1:0"),
    )


async def _watch(settings: Settings, cluster: Cluster, stop: asyncio.Event, seconds: float | None, show: _Show) -> None:
    """Show committed records until stopped, or until the time is over."""
    topics = Topics(settings.kafka.topic_prefix, settings.pubsub.topics)
    await ensure_topics(
        cluster, planned_specs(topics, settings.kafka, shared=settings.sharing.wanted, fed=settings.feed.wanted)
    )
    kinds = ["changes", "history", "state"]
    kinds += ["sharing", "sharing-rules"] if settings.sharing.wanted else []
    kinds += ["feed"] if settings.feed.wanted else []
    of_session = [topics.of(_ENTITY, kind) for kind in kinds]
    public = [*of_session, topics.coverage, topics.quarantine]
    async with running(Service(settings, cluster=cluster)), tail(cluster, public) as records, task_group() as group:
        shown = group.create_task(_show_all(records, show))
        try:
            async with asyncio.timeout(seconds):
                await stop.wait()
        except TimeoutError:
            pass
        await cancel(shown)


async def _show_all(records: AsyncIterator[OutboundRecord], show: _Show) -> None:
    async for record in records:
        show.record(record)


class _Show:
    """Prints records: coloured lines on a terminal, JSON lines elsewhere."""

    def __init__(self, on_terminal: bool) -> None:  # noqa: FBT001 - private, called once
        self._on_terminal = on_terminal
        self._out = Console(highlight=False, soft_wrap=True)
        self._notes = Console(stderr=True, highlight=False, soft_wrap=True)
        self._kinds: Counter[str] = Counter()
        self._sessions: set[bytes] = set()
        self._confirmed = 0
        self._lines = Lines(min(self._out.width, _WIDEST))
        self._began = time.monotonic()

    def begin(self, kafka: str | None, settings: Settings) -> None:
        """Say what is going to be seen."""
        where = f"Kafka at {kafka}" if kafka else "an embedded broker"
        self._notes.print(f"Emulated org {settings.salesforce.login_url}  ->  session-consumer  ->  {where}")
        if kafka is None:
            self._notes.print("The embedded broker proves no guarantee; --kafka HOST:PORT uses a real one.")
        self._notes.print("Committed records follow; Ctrl-C ends.\n")

    def record(self, record: OutboundRecord) -> None:
        """Count one committed record and print it, if it is one to look at."""
        kind = record.topic.rpartition(".")[2]
        self._kinds[kind] += 1
        if kind == "state":
            self._sessions.add(record.key)
            return
        if kind == "history" and orjson.loads(record.value or b"{}").get("match") == "confirmed":
            self._confirmed += 1
        if not self._on_terminal:
            write_line(line(record, raw=kind == "quarantine"))
            return
        text = self._lines.line(kind, record)
        if text is not None:
            self._out.print(text)

    def end(self, prefix: str | None) -> None:
        """Print totals and the next step."""
        seconds = time.monotonic() - self._began
        kinds = self._kinds
        facts = f"{kinds['history']} history facts ({self._confirmed} confirmed by Salesforce's own rows)"
        self._notes.print(f"\n{kinds['changes']} changes, {facts},")
        others = f", {kinds['quarantine']} in quarantine" if kinds["quarantine"] else ""
        others = f", {kinds['feed']} of the feed, {kinds['coverage']} of coverage{others}"
        tracked = f"states of {len(self._sessions)} sessions, {kinds['sharing']} records of sharing{others}"
        self._notes.print(f"{tracked} in {seconds:.0f} s.")
        if prefix is not None:
            self._notes.print(f"The topics {prefix}* stay in your Kafka; delete them when you have looked.")
        command = PROGRAM if shutil.which(PROGRAM) else sys.argv[0]
        self._notes.print(f"Next: `{command} config example > session-consumer.toml`, then `{command} check`.")
