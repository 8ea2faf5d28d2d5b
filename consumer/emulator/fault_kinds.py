"""Every fault and act that can be ordered from the emulated org, as validated values.

The same kinds serve the timeline of a scenario (``[[at]]``) and the control API. The docstring's first line of each
is what ``GET /control/faults`` shows. All seconds are real seconds, not divided by the time scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from consumer.emulator.fault_base import Entity, Fault, Seconds, faults_of
from consumer.emulator.fault_kinds_sharing import SHARING
from consumer.emulator.refusals import STATUS_OF_CODE
from consumer.errors import EmulatorError

__all__ = ["ALL", "FAULTS", "PUBLISH", "Fault", "faults_of", "parse_fault"]


def _known_code(value: str) -> str:
    if value and value not in STATUS_OF_CODE:
        raise ValueError(f"{value!r} is no error code of the Pub/Sub API guide (without the common prefix)")
    return value


Code = Annotated[str, AfterValidator(_known_code)]


class EndStreams(Fault):
    """End open streams: ok, unavailable, internal, cancelled, unknown, or by an error code."""

    kind = "end_streams"
    how: Literal["ok", "unavailable", "internal", "cancelled", "unknown", "code"] = "unavailable"
    code: Code = "service.unavailable"
    topic: str = ""


class ServiceDown(Fault):
    """End all streams and refuse every call with service.unavailable for a while."""

    kind = "service_down"
    seconds: Seconds


class Silence(Fault):
    """Send nothing on any stream for a while and end none; HTTP/2 pings are still answered."""

    kind = "silence"
    seconds: Seconds


class SlowHeaders(Fault):
    """Send the response headers of new streams late; 0 ends it."""

    kind = "slow_headers"
    ms: float = Field(ge=0)


class Latency(Fault):
    """Let every response travel this long, without lowering how many are under way; 0 ends it."""

    kind = "latency"
    ms: float = Field(ge=0)


class Redeliver(Fault):
    """Send the last events once more, on open streams now or when the next one resumes."""

    kind = "redeliver"
    events: int = Field(ge=1)
    when: Literal["now", "resume"] = "now"


class Duplicate(Fault):
    """Send each of the next events twice in a row."""

    kind = "duplicate"
    events: int = Field(ge=1)


class RevokeTokens(Fault):
    """Revoke all access tokens; open streams live on, new calls are refused."""

    kind = "revoke_tokens"


class LoginErrors(Fault):
    """Answer the next token requests with an error; html sends a proxy's page instead of JSON."""

    kind = "login_error"
    error: str = "invalid_grant"
    description: str = "authentication failure"
    status: int = Field(default=400, ge=400, le=599)
    times: int = Field(default=1, ge=1, le=1000)
    html: bool = False


class LoginDown(Fault):
    """Answer logins with 503 and an HTML page for a while."""

    kind = "login_down"
    seconds: Seconds


RestErrorKind = Literal[
    "html502",
    "empty500",
    "unavailable503",
    "cut",
    "query_timeout",
    "invalid_session",
    "request_limit",
    "locator_gone",
    "id_limit",
    "bulk_failed",
]


class RestDown(Fault):
    """Answer REST and Bulk requests with 503 and an HTML page for a while."""

    kind = "rest_down"
    seconds: Seconds


class RestErrors(Fault):
    """Answer the next REST or Bulk requests of the error's sort wrongly; path: a text in their path or SOQL."""

    kind = "rest_error"
    error: RestErrorKind = "html502"
    times: int = Field(default=1, ge=1, le=10_000)
    path: str = ""


class RestLatency(Fault):
    """Let every REST and Bulk answer travel this long; 0 ends it."""

    kind = "rest_latency"
    ms: float = Field(ge=0)


class ShortPages(Fault):
    """Make pages of queries and Bulk results shorter than asked for, by chance, or stop that."""

    kind = "short_pages"
    on: bool = True


class ExpireCursors(Fault):
    """Let all open query cursors expire, so that their next pages are refused."""

    kind = "expire_cursors"


class ApiLimit(Fault):
    """Use up the daily API calls, or give them back; limit sets a new number of calls a day."""

    kind = "api_limit"
    exceeded: bool = True
    limit: int | None = Field(default=None, ge=0)


class ExpirePositions(Fault):
    """Move the retention: all but the newest events, and the positions in them, are gone."""

    kind = "expire_positions"
    keep_last: int = Field(default=0, ge=0)


class RestartOrg(Fault):
    """Move the org as corrupt_positions does, and number events and transactions anew from below."""

    kind = "move_org"
    keep_events: bool = False


class AdvanceClock(Fault):
    """Set the org's clock ahead; with events, that many come in even steps over the span, on top of the traffic."""

    kind = "advance_clock"
    seconds: float = Field(ge=0, le=1000 * 86_400)
    events: int = Field(default=0, ge=0, le=5_000_000)
    steps: int = Field(default=200, ge=1, le=100_000)


class Drop(Fault):
    """Commit but never publish the next events, or all for some seconds; an empty entity means any."""

    kind = "drop"
    events: int = Field(default=0, ge=0)
    seconds: Seconds = 0.0
    entity: str = ""


class HistoryTracking(Fault):
    """Track the history of these fields of an object from now on, and of no others; without fields it is off."""

    kind = "history_tracking"
    entity: Entity = "MessagingSession"
    fields: tuple[str, ...] = ()


class SilentUpdate(Fault):
    """Change records without an event: those named, or so many live ones; without fields one plausible field each."""

    kind = "silent_update"
    entity: Entity = "MessagingSession"
    record_ids: tuple[str, ...] = ()
    records: int = Field(default=1, ge=1, le=100_000)
    fields: dict[str, Any] = Field(default_factory=dict)


class SilentDelete(Fault):
    """Delete records without an event: those named, or so many live ones; purge leaves nothing in the recycle bin."""

    kind = "silent_delete"
    entity: Entity = "MessagingSession"
    record_ids: tuple[str, ...] = ()
    records: int = Field(default=1, ge=1, le=100_000)
    purge: bool = False


class SilentCreate(Fault):
    """Create records without an event."""

    kind = "silent_create"
    entity: Entity = "MessagingSession"
    records: int = Field(default=1, ge=1, le=100_000)
    fields: dict[str, Any] = Field(default_factory=dict)


class MoveOrg(Fault):
    """Move the org to another instance: streams end, all replay ids are void, numbering restarts."""

    kind = "corrupt_positions"
    keep_events: bool = False


class SchemaDown(Fault):
    """Let GetSchema fail with schema.api.unavailable for a while."""

    kind = "schema_down"
    seconds: Seconds


class SchemaRefused(Fault):
    """Let GetSchema refuse a schema id, or all (*), until cleared."""

    kind = "schema_refused"
    schema_id: str = "*"


class TopicRefused(Fault):
    """Let GetTopic and Subscribe refuse a topic by a code, until cleared; open streams of it end."""

    kind = "topic_refused"
    topic: str
    code: Code = "subscription.topic.cannot.subscribe"


class DeliveryLimit(Fault):
    """Use up the org's delivery allowance, or give it back."""

    kind = "delivery_limit"
    exceeded: bool = True


class SchemaChange(Fault):
    """Add and remove fields of an object; later events carry the new schema id."""

    kind = "schema_change"
    entity: Entity = "MessagingSession"
    add: tuple[dict[str, Any], ...] = ()
    remove: tuple[str, ...] = ()


class KeepaliveInterval(Fault):
    """Set the seconds of idleness after which a keep-alive is sent."""

    kind = "keepalive"
    seconds: float = Field(gt=0)


class AdvancePosition(Fault):
    """Move the bus-wide position as other traffic does, without an event."""

    kind = "advance"
    times: int = Field(default=1, ge=1, le=10_000)


class GoAway(Fault):
    """Send GOAWAY on every connection, end their calls, and listen again."""

    kind = "goaway"


class Reset(Fault):
    """Reset every TCP connection to the Pub/Sub port; needs relay = true."""

    kind = "tcp_reset"


class Freeze(Fault):
    """Let every connection hang half-open for a while: no bytes, no pings, no end; needs relay = true."""

    kind = "freeze"
    seconds: Seconds


class RefuseConnections(Fault):
    """Reset all connections and refuse new ones for a while; needs relay = true."""

    kind = "refuse_connections"
    seconds: Seconds


class Traffic(Fault):
    """Change the traffic: events per second, pause, or a new total."""

    kind = "traffic"
    rate: float | None = Field(default=None, ge=0)
    total: int | None = Field(default=None, ge=0)
    paused: bool | None = None


class Clear(Fault):
    """End all lasting faults."""

    kind = "clear"


class ChangeSpec(BaseModel):
    """One save of one record in a ``commit``."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    op: Literal["create", "update", "delete", "undelete", "purge"]
    entity: Entity = "MessagingSession"
    record_id: str = ""
    fields: dict[str, Any] = Field(default_factory=dict)
    system: bool = False


class Commit(Fault):
    """Commit one transaction of explicit changes; an empty record_id takes a new or the newest record."""

    kind = "commit"
    changes: tuple[ChangeSpec, ...] = Field(min_length=1)
    user: str | None = None
    origin: str | None = None


class Gap(Fault):
    """Publish a gap event; without record_ids it is of the newest record, or of so many live ones, truly changed."""

    kind = "gap"
    entity: Entity = "MessagingSession"
    op: Literal["CREATE", "UPDATE", "DELETE", "UNDELETE"] = "UPDATE"
    record_ids: tuple[str, ...] = ()
    records: int = Field(default=0, ge=0, le=1000)
    fields: dict[str, Any] = Field(default_factory=dict)


class Overflow(Fault):
    """Publish a GAP_OVERFLOW event; its transaction truly updates, deletes and creates so many records."""

    kind = "overflow"
    entity: Entity = "MessagingSession"
    updates: int = Field(default=0, ge=0, le=100_000)
    deletes: int = Field(default=0, ge=0, le=100_000)
    creates: int = Field(default=0, ge=0, le=100_000)


class Wildcard(Fault):
    """Publish the wildcard event of a field type conversion; fields are truly written to every live record."""

    kind = "wildcard"
    entity: Entity = "MessagingSession"
    fields: dict[str, Any] = Field(default_factory=dict)


class PoisonEvent(Fault):
    """Publish events whose payload or schema id is broken."""

    kind = "poison"
    entity: Entity = "MessagingSession"
    how: Literal["truncated", "trailing", "random", "bad_bitmap", "bad_enum", "unknown_schema"] = "truncated"
    events: int = Field(default=1, ge=1, le=10_000)


_FAULTS: tuple[type[Fault], ...] = (
    EndStreams,
    ServiceDown,
    Silence,
    SlowHeaders,
    Latency,
    Redeliver,
    Duplicate,
    RevokeTokens,
    LoginErrors,
    LoginDown,
    RestDown,
    RestErrors,
    RestLatency,
    ShortPages,
    ExpireCursors,
    ApiLimit,
    ExpirePositions,
    MoveOrg,
    RestartOrg,
    AdvanceClock,
    Drop,
    HistoryTracking,
    SilentUpdate,
    SilentDelete,
    SilentCreate,
    SchemaDown,
    SchemaRefused,
    TopicRefused,
    DeliveryLimit,
    SchemaChange,
    KeepaliveInterval,
    AdvancePosition,
    GoAway,
    Reset,
    Freeze,
    RefuseConnections,
    Traffic,
    *SHARING,
    Clear,
)
_PUBLISH: tuple[type[Fault], ...] = (Commit, Gap, Overflow, Wildcard, PoisonEvent)

FAULTS: dict[str, type[Fault]] = {each.kind: each for each in _FAULTS}
"""What ``POST /control/fault`` takes."""

PUBLISH: dict[str, type[Fault]] = {each.kind: each for each in _PUBLISH}
"""What ``POST /control/publish`` takes."""

ALL: dict[str, type[Fault]] = FAULTS | PUBLISH
"""What a scenario's ``[[at]]`` takes."""


def parse_fault(kind: object, parameters: Mapping[str, Any], kinds: Mapping[str, type[Fault]] = ALL) -> Fault:
    """Return the fault of a kind with its parameters.

    Raises:
        EmulatorError: unknown kind, or wrong parameters (all are named).
    """
    found = kinds.get(kind) if isinstance(kind, str) else None
    if found is None:
        raise EmulatorError(f"{kind!r} is no kind of fault", f"Use one of {', '.join(sorted(kinds))}")
    try:
        return found.model_validate(parameters)
    except ValidationError as error:
        raise EmulatorError(f"{kind}: {'; '.join(faults_of(error))}") from error
