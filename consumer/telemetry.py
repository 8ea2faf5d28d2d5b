"""What the service tells the outside about itself: log lines without secrets, and metrics."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Literal, TextIO

import orjson
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from structlog.typing import Processor

from consumer.clock import now_ms as wall_clock_ms

# --- log lines

MASK = "***"

_SECRET_KEY = re.compile(
    r"secret|password|passwd|token|authorization|assertion|private_?key|hash_?key|session_?id|cookie", re.IGNORECASE
)
_SECRET_TEXT = re.compile(
    r"00D[A-Za-z0-9]{9,15}(?:!|%21)[A-Za-z0-9._%+/=-]*"  # access token: org id, "!", signature
    r"|5Aep861[A-Za-z0-9._-]+"  # refresh token
    r"|eyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"  # JWT
    r"|(?<=Bearer )[^\s\"']+"
)
_CHATTY = ("aiohttp", "aiokafka", "asyncio", "grpc")
"""Libraries whose lines below WARNING tell the operator nothing."""


def configure_logging(
    log_format: Literal["auto", "json", "console"] = "auto", level: str = "info", stream: TextIO | None = None
) -> None:
    """Send the lines of structlog and of :mod:`logging` through one chain that masks secrets.

    Args:
        log_format: ``auto`` is ``console`` on a terminal and ``json`` elsewhere.
        level: lowest level shown: debug, info, warning or error.
        stream: where lines go, stderr if None, because stdout belongs to the commands' results.
    """
    stream = sys.stderr if stream is None else stream
    as_json = log_format == "json" or (log_format == "auto" and not stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(_number_of(level)),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(as_json=as_json, colors=stream.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_number_of(level))
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
    if level != "debug":
        # It calls every step of an ordinary first start an error (no coordinator yet, leader not known yet); what does
        # not pass comes to us as an exception, and is told with advice.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    logging.captureWarnings(capture=True)


def _number_of(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def _renderers(*, as_json: bool, colors: bool) -> list[Processor]:
    # Tracebacks never show local variables: they hold tokens and payloads.
    if as_json:
        transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        return [
            structlog.processors.ExceptionRenderer(transformer),
            redact,
            structlog.processors.JSONRenderer(serializer=_to_json),
        ]
    return [
        structlog.processors.format_exc_info,
        redact,
        structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback),
    ]


def _to_json(event: Mapping[str, Any], **_: Any) -> str:
    return orjson.dumps(event, option=orjson.OPT_NON_STR_KEYS).decode()


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask values of secret keys, and texts that look like a token, at any depth (structlog processor)."""
    for key in event:
        event[key] = _redacted(key, event[key])
    return event


def redact_text(text: str) -> str:
    """Return the text with everything that looks like a Salesforce token masked."""
    return _SECRET_TEXT.sub(MASK, text)


def _redacted(key: Any, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):  # "token_logins": 3 is no secret
        return str(value) if isinstance(value, int) and abs(value) >= 2**63 else value
    if isinstance(key, str) and _SECRET_KEY.search(key):
        return MASK
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        return {str(inner): _redacted(inner, each) for inner, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redacted(None, each) for each in value]
    return redact_text(repr(value))


# --- metrics

POSITION_LIFETIME_MS = 72 * 3_600_000
"""How long a replay id stays valid in the event bus (Pub/Sub API guide, "Event Message Durability")."""

_LAG_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200, 86400)
_SIZE_BUCKETS = (1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)
_COMMIT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Every metric of the process, in a registry of its own; label ``subscription`` is the channel.

    Names in ``/metrics`` begin with ``session_consumer_``; units are in the names.

    Args:
        now_ms: wall clock, epoch milliseconds; read when the metrics are, for ages and times to expiry.
    """

    def __init__(self, now_ms: Callable[[], int] = wall_clock_ms) -> None:
        self.registry = CollectorRegistry()
        self.now_ms = now_ms
        self.events_received = self._counter("events_received", "Events received from Salesforce.")
        self.records_committed = self._counter(
            "records_committed", "Records committed to Kafka, by kind of topic.", "kind"
        )
        self.commits = self._counter("commits", "Kafka transactions committed.")
        self.commit_seconds = self._histogram(
            "commit_seconds", "Time from the first send to the end of the commit.", _COMMIT_BUCKETS
        )
        self.batch_events = self._histogram("batch_events", "Events per transaction.", _SIZE_BUCKETS)
        self.salesforce_lag_seconds = self._histogram(
            "salesforce_lag_seconds", "Salesforce's part of the lag: received minus commit time.", _LAG_BUCKETS
        )
        self.own_lag_seconds = self._histogram(
            "own_lag_seconds", "Our part of the lag: committed to Kafka minus received.", _LAG_BUCKETS
        )
        self.reconnects = self._counter("reconnects", "Ends of a Subscribe call, by reason.", "reason")
        self.position_expires_seconds = self._gauge(
            "position_expires_seconds", "Seconds until the committed position expires in Salesforce."
        )
        self.credits_outstanding = self._gauge(
            "credits_outstanding", "Events asked for and not yet received; never above 100."
        )
        self.buffer_events = self._gauge("buffer_events", "Events between the stream and Kafka.")
        self.halted = self._gauge("halted", "1 while halted for this reason; ends by resume or a restart.", "reason")
        self.paused = self._gauge("paused", "1 while paused by command.")
        self.quarantined = self._counter("quarantined", "Events put into quarantine, by reason.", "reason")
        self.loss_windows_open = self._gauge("loss_windows_open", "Spans not proven delivered and not repaired.")
        self.schema_fetches = self._counter("schema_fetches", "Writer schemas fetched.")
        self.keepalives = self._counter("keepalives", "Responses without events.")
        self.last_message_age_seconds = self._gauge(
            "last_message_age_seconds", "Seconds since anything, keep-alives included, came from Salesforce."
        )
        self.scan_rows = self._counter("scan_rows", "Rows read by snapshots and resyncs.")
        self.share_rows = self._counter("share_rows", "Share rows read by sweeps.")
        self.sweep_age_seconds = self._gauge(
            "sweep_age_seconds", "Seconds since the last complete sweep of share rows began, by object.", "entity"
        )
        self.api_failures = self._counter("api_failures", "Failed reads of the org, by error class.", "reason")
        self.api_calls_used = Gauge(
            "session_consumer_api_calls_used", "Daily API calls of the org used, by anyone.", registry=self.registry
        )
        self.api_calls_limit = Gauge(
            "session_consumer_api_calls_limit", "Daily API calls of the org.", registry=self.registry
        )
        self.tracked_records = self._gauge("tracked_records", "Records whose state is kept.")
        self.token_logins = Counter(
            "session_consumer_token_logins", "Logins, by outcome.", ["outcome"], registry=self.registry
        )

    def subscription(self, channel: str) -> SubscriptionMetrics:
        """Return the metrics of one channel; call it once per channel and keep the result."""
        return SubscriptionMetrics(self, channel)

    def token_login(self, *, succeeded: bool) -> None:
        """Count one login."""
        self.token_logins.labels("succeeded" if succeeded else "failed").inc()

    def api_usage(self, usage: Callable[[], tuple[int, int] | None]) -> None:
        """Read used and allowed API calls with ``usage`` from now on, when the metrics are read; NaN while unknown."""

        def part(index: int) -> float:
            known = usage()
            return float("nan") if known is None else known[index]

        self.api_calls_used.set_function(lambda: part(0))
        self.api_calls_limit.set_function(lambda: part(1))

    def exposition(self) -> tuple[bytes, str]:
        """Return body and content type in Prometheus' text format."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"session_consumer_{name}", text, ["subscription", *labels], registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"session_consumer_{name}", text, ["subscription", *labels], registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"session_consumer_{name}", text, ["subscription"], buckets=buckets, registry=self.registry)


class SubscriptionMetrics:
    """The metrics of one channel; every method returns at once. Times are epoch milliseconds."""

    def __init__(self, metrics: Metrics, channel: str) -> None:
        self._metrics = metrics
        self._channel = channel
        self._halted_for: str | None = None
        # Series that alerts watch exist from the start, so that 0 is told from "not there".
        for counter in (metrics.events_received, metrics.commits, metrics.keepalives, metrics.schema_fetches):
            counter.labels(channel)
        for gauge in (metrics.credits_outstanding, metrics.buffer_events, metrics.paused, metrics.loss_windows_open):
            gauge.labels(channel)

    def events(self, count: int, received_ms: int) -> None:
        """A response with events came."""
        self._metrics.events_received.labels(self._channel).inc(count)
        self._message(received_ms)

    def keepalive(self, received_ms: int) -> None:
        """A response without events came."""
        self._metrics.keepalives.labels(self._channel).inc()
        self._message(received_ms)

    def credits(self, outstanding: int) -> None:
        """So many events are asked for and not received."""
        self._metrics.credits_outstanding.labels(self._channel).set(outstanding)

    def buffered(self, size: Callable[[], int]) -> None:
        """Read the buffer's size with ``size`` from now on, when the metrics are read."""
        self._metrics.buffer_events.labels(self._channel).set_function(size)

    def disconnected(self, reason: str) -> None:
        """A Subscribe call ended; ``reason`` is an error class or code, never free text."""
        self._metrics.reconnects.labels(self._channel, reason).inc()

    def committed(self, events: int, records: Mapping[str, int], seconds: float) -> None:
        """A transaction was committed.

        Args:
            events: source events in it.
            records: number of records by kind of topic, such as ``changes``.
            seconds: how long it took.
        """
        self._metrics.commits.labels(self._channel).inc()
        self._metrics.commit_seconds.labels(self._channel).observe(seconds)
        if events:
            self._metrics.batch_events.labels(self._channel).observe(events)
        for kind, count in records.items():
            self._metrics.records_committed.labels(self._channel, kind).inc(count)

    def lag(self, event_ms: int, received_ms: int, committed_ms: int) -> None:
        """Observe both parts of one committed event's lag; clocks that disagree count as 0."""
        salesforce, own = self._metrics.salesforce_lag_seconds, self._metrics.own_lag_seconds
        salesforce.labels(self._channel).observe(max(0, received_ms - event_ms) / 1000)
        own.labels(self._channel).observe(max(0, committed_ms - received_ms) / 1000)

    def position_advanced(self, at_ms: int) -> None:
        """The committed position moved; from now on the time to its expiry counts down."""
        now_ms, end_ms = self._metrics.now_ms, at_ms + POSITION_LIFETIME_MS
        gauge = self._metrics.position_expires_seconds.labels(self._channel)
        gauge.set_function(lambda: (end_ms - now_ms()) / 1000)

    def halted(self, reason: str | None) -> None:
        """The subscription halted for ``reason`` (an error class name), or goes on (None)."""
        if self._halted_for is not None:
            self._metrics.halted.labels(self._channel, self._halted_for).set(0)
        if reason is not None:
            self._metrics.halted.labels(self._channel, reason).set(1)
        self._halted_for = reason

    def paused(self, *, paused: bool) -> None:
        """The subscription was paused or goes on."""
        self._metrics.paused.labels(self._channel).set(paused)

    def quarantined(self, reason: str) -> None:
        """An event went to quarantine; ``reason`` is the error's ``reason``."""
        self._metrics.quarantined.labels(self._channel, reason).inc()

    def loss_windows(self, open_now: int) -> None:
        """So many loss windows are open."""
        self._metrics.loss_windows_open.labels(self._channel).set(open_now)

    def scanned(self, rows: int) -> None:
        """A snapshot or resync read so many more rows."""
        self._metrics.scan_rows.labels(self._channel).inc(rows)

    def share_rows_read(self, rows: int) -> None:
        """A sweep read so many more share rows."""
        self._metrics.share_rows.labels(self._channel).inc(rows)

    def swept(self, entity: str, begun_ms: int) -> None:
        """A sweep of an object's share rows that began then is complete; epoch milliseconds."""
        now_ms = self._metrics.now_ms
        gauge = self._metrics.sweep_age_seconds.labels(self._channel, entity)
        gauge.set_function(lambda: (now_ms() - begun_ms) / 1000)

    def api_failed(self, reason: str) -> None:
        """A read of the org failed; ``reason`` is an error class."""
        self._metrics.api_failures.labels(self._channel, reason).inc()

    def tracked(self, records: Callable[[], int]) -> None:
        """Read the number of kept states with ``records`` from now on, when the metrics are read."""
        self._metrics.tracked_records.labels(self._channel).set_function(records)

    def schema_fetched(self) -> None:
        """A writer schema was fetched."""
        self._metrics.schema_fetches.labels(self._channel).inc()

    def _message(self, received_ms: int) -> None:
        now_ms = self._metrics.now_ms
        gauge = self._metrics.last_message_age_seconds.labels(self._channel)
        gauge.set_function(lambda: (now_ms() - received_ms) / 1000)
