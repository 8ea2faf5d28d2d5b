"""What all parts of the emulated org share while it runs: protocol times, conditions set by faults, counters."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Literal, Protocol

from consumer.emulator.auth import Sessions
from consumer.emulator.bus import EventBus
from consumer.emulator.org_clock import EmulatedClock
from consumer.emulator.refusals import CallEnd
from consumer.emulator.rest_quota import ApiUsage


class Schemas(Protocol):
    """Where the writer schemas of the org come from."""

    def schema_json(self, schema_id: str) -> str | None:
        """Return a schema's Avro JSON, None when the id is unknown."""
        ...

    def current_schema_id(self, entity: str) -> str:
        """Return the schema id new events of an object are written with."""
        ...


@dataclass(slots=True)
class Timing:
    """Protocol times in seconds, already divided by the scenario's time scale."""

    keepalive_s: float
    credit_timeout_s: float
    latest_arming_s: float
    revoked_stream_s: float
    commit_ack_s: float
    commit_timeout_s: float
    slot_release_s: float
    publish_idle_s: float


@dataclass(slots=True)
class Conditions:
    """What faults have set; times are readings of the monotonic clock.

    Attributes:
        down_until: every call is refused with ``service.unavailable`` until then.
        silent_until: nothing is sent on any stream until then, and nobody is told.
        schema_down_until: GetSchema fails with ``schema.api.unavailable`` until then.
        refused_schemas: schema ids that GetSchema will not give; ``*`` stands for all.
        refused_topics: topic to the error code that GetTopic and Subscribe answer.
        headers_s: extra wait before response headers, seconds.
        latency_s: age of a response when it leaves, seconds; responses overtake nothing.
        limit_exceeded: the org's delivery allowance counts as used up.
        duplicate_next: how many of the next events are sent twice in a row.
        rewind_next: how many events before its position the next resumed Subscribe starts.
        drop_next: how many of the next events are never published; ``drop_until`` does so for a time, and
            ``drop_entity`` (empty: all) says of which object.
        login_faults: answers the next token requests get instead of a token.
        login_down_until: the login host answers 503 until then.
        rest_down_until: REST and Bulk answer 503 with an HTML page until then.
        rest_latency_s: how long REST and Bulk answers travel, seconds.
        rest_faults: wrong answers of REST and Bulk, each used once.
        short_pages: pages of queries and Bulk results are shorter than asked for, by chance.
    """

    down_until: float = 0.0
    silent_until: float = 0.0
    schema_down_until: float = 0.0
    refused_schemas: set[str] = field(default_factory=set)
    refused_topics: dict[str, str] = field(default_factory=dict)
    headers_s: float = 0.0
    latency_s: float = 0.0
    limit_exceeded: bool = False
    duplicate_next: int = 0
    rewind_next: int = 0
    drop_next: int = 0
    drop_until: float = 0.0
    drop_entity: str = ""
    login_faults: deque[LoginFault] = field(default_factory=deque)
    login_down_until: float = 0.0
    rest_down_until: float = 0.0
    rest_latency_s: float = 0.0
    rest_faults: list[RestFault] = field(default_factory=list)
    short_pages: bool = False

    def take_rest_fault(self, path: str, among: frozenset[str]) -> str:
        """Use up the first REST fault of these kinds that concerns a path and SOQL; empty when there is none."""
        for place, fault in enumerate(self.rest_faults):
            if fault.error in among and fault.path in path:
                del self.rest_faults[place]
                return fault.error
        return ""


@dataclass(frozen=True, slots=True)
class RestFault:
    """One wrong answer of REST or Bulk, for a request with this text in its path or SOQL."""

    error: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class LoginFault:
    """One wrong answer of the token endpoint; ``html`` sends a proxy's page in place of JSON."""

    error: str
    description: str
    status: int = 400
    html: bool = False


@dataclass(slots=True)
class Stats:
    """Counters since the start; the control API shows them all.

    Attributes:
        overshoots: requests that asked for more than 100 outstanding events (truncated, not refused).
        requests_after_keepalive: requests whose last received response was a keep-alive though credit was left.
        half_closes: streams whose client closed its side first.
        refused: calls ended by us, by error code (or status name where there is no code).
        dropped: events that were committed and never published, because a fault said so.
        bad_tokens: calls and REST requests with a token that is not good.
        rest_calls: REST and Bulk requests that were counted against the daily calls, by what they ask.
        rest_errors: refused ones, by errorCode (or status where there is no code).
        rest_rows: rows that REST and Bulk gave out.
    """

    streams_opened: int = 0
    fetch_requests: int = 0
    responses: int = 0
    events_sent: int = 0
    keepalives_sent: int = 0
    max_outstanding: int = 0
    overshoots: int = 0
    requests_after_keepalive: int = 0
    half_closes: int = 0
    bad_tokens: int = 0
    logins: Counter[str] = field(default_factory=Counter)
    login_failures: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    schema_fetches: Counter[str] = field(default_factory=Counter)
    topic_lookups: Counter[str] = field(default_factory=Counter)
    published: int = 0
    dropped: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    rest_calls: Counter[str] = field(default_factory=Counter)
    rest_errors: Counter[str] = field(default_factory=Counter)
    rest_rows: int = 0

    def as_json(self) -> dict[str, object]:
        """Return all counters by name."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in values.items()}


class OpenCall(Protocol):
    """A stream as the faults and the control API see it."""

    kind: str
    topic_name: str

    def finish(self, end: CallEnd) -> None:
        """End the call; only the first end counts."""
        ...

    def wake_up(self) -> None:
        """Make the call look at the conditions again."""
        ...

    def rewind(self, events: int) -> None:
        """Send the last events again."""
        ...

    def describe(self) -> dict[str, object]:
        """Return its state for the control API."""
        ...


@dataclass
class ServerState:
    """Everything a call of the Pub/Sub server needs.

    Attributes:
        split: ``full`` fills responses as far as credit and 3 MB allow; ``random`` cuts them at random;
            ``single`` sends one event in each.
        delivery_allowance: events that may be delivered, all streams together.
        publish_burst: unary Publish calls within ten seconds before the server protects itself.
        calls: open streams.
        now: monotonic seconds.
        clock: the org's wall clock.
        api: the daily API calls.
        expire_cursors: lets all open query cursors expire; set by the REST server.
    """

    bus: EventBus
    schemas: Schemas
    sessions: Sessions
    timing: Timing
    split: Literal["full", "random", "single"] = "full"
    delivery_allowance: int = 10_000_000
    publish_burst: int = 80
    seed: int = 0
    conditions: Conditions = field(default_factory=Conditions)
    stats: Stats = field(default_factory=Stats)
    calls: set[OpenCall] = field(default_factory=set)
    now: Callable[[], float] = time.monotonic
    clock: EmulatedClock = field(default_factory=EmulatedClock)
    api: ApiUsage = field(default_factory=lambda: ApiUsage(100_000))
    expire_cursors: Callable[[], None] = field(default=lambda: None)
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)  # noqa: S311 - cuts of responses, nothing secret

    @property
    def allowance_left(self) -> int:
        """Events that may still be delivered today."""
        if self.conditions.limit_exceeded:
            return 0
        return max(0, self.delivery_allowance - self.stats.events_sent)

    def now_ms(self) -> int:
        """Return the org's wall clock, epoch milliseconds."""
        return self.clock.now_ms()

    def wake_all(self) -> None:
        """Make every open call look at the conditions again."""
        for call in self.calls:
            call.wake_up()
