"""A scenario: everything that can be told to the emulated org before it starts, as TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from consumer.emulator.auth import Credentials
from consumer.emulator.fault_kinds import Fault, faults_of, parse_fault
from consumer.emulator.managed import ManagedSettings
from consumer.emulator.org_feed import DEFAULT_TRACKED as FEED_TRACKED
from consumer.emulator.state import Timing
from consumer.errors import ConfigError, EmulatorError


def _channel(value: str) -> str:
    if not (value.startswith(("/data/", "/event/")) and value.endswith("__chn")):
        raise ValueError("write a custom channel such as /data/Support__chn")
    return value


Channel = Annotated[str, AfterValidator(_channel)]


class Group(BaseModel):
    """Base of all groups: frozen, and an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class TrafficSettings(Group):
    """The generated traffic."""

    rate: float = Field(default=0.0, ge=0, le=100_000)
    """Events per second."""
    total: int = Field(default=0, ge=0)
    """Events after which the traffic stops, preloaded ones included; 0 means never."""
    preload: int = Field(default=0, ge=0, le=5_000_000)
    """Events published before the org is ready."""
    sessions: int = Field(default=0, ge=0, le=5_000_000)
    """Sessions that were there before the first event; neither events nor history rows tell of them."""
    paused: bool = False
    live: int = Field(default=200, ge=1)
    """Upper bound of sessions that have not ended."""
    companions: bool = True
    """Whether AgentWork, MessagingEndUser, PendingServiceRouting and Account change too."""


Range = tuple[Annotated[float, Field(ge=0, le=86_400)], Annotated[float, Field(ge=0, le=86_400)]]
"""Least and most seconds of the org."""
SharingModel = Literal["Private", "Read", "ReadWrite"]


class RuleSettings(Group):
    """An owner sharing rule that is there from the start; groups are named as in ``rule_create``."""

    name: str = Field(min_length=1, max_length=80)
    source: str
    """Whose records: those owned by members of this group, or by this queue."""
    target: str
    """Who gains access."""
    level: Literal["Read", "Edit"] = "Read"
    description: str = ""


class GroupSettings(Group):
    """A public group that is there from the start, besides Supervisors, Specialists and Quality."""

    name: str = Field(min_length=1, max_length=40)
    members: tuple[str, ...] = ()


class SharingSettings(Group):
    """Share rows and sharing rules of sessions. Rows are kept from the first question or act on, unless ``eager``."""

    enabled: bool = True
    """Whether the org has share and sharing rule objects at all."""
    eager: bool = False
    """Whether rows are kept from the start; an oracle, or acts that come by themselves, make it so too."""
    groups: tuple[GroupSettings, ...] = ()
    rules: tuple[RuleSettings, ...] = (
        RuleSettings(name="First queue to supervisors", source="Queue_1", target="Supervisors", level="Edit"),
        RuleSettings(name="North to quality", source="RoleAndSubordinates:Region_North", target="Quality"),
    )
    rules_api: Literal["open", "invalid_type", "no_access"] = "open"
    """How the API user finds MessagingSessionOwnerSharingRule, which Salesforce opens on demand only."""
    internal: SharingModel = "Private"
    external: SharingModel = "Private"
    recalc_delay_s: Range = (2.0, 20.0)
    """How long after its cause a recalculation begins."""
    recalc_s: Range = (5.0, 30.0)
    """How long it takes."""
    recreate: float = Field(default=0.5, ge=0, le=1)
    """Share of the records concerned whose rows are made anew although nothing changes."""
    recalc_gap_s: float = Field(default=0.0, ge=0, le=3600)
    """Longest time that such a row is away between its old and its new Id."""
    late_share_rows: float = Field(default=0.0, ge=0, le=1)
    """Share of new rows that queries find only 3 to 120 seconds of the org after their LastModifiedDate."""
    acts_per_minute: float = Field(default=0.0, ge=0, le=60_000)
    """Random acts on sharing in a real minute."""


class FeedSettings(Group):
    """Feeds of sessions."""

    access: Literal["open", "none"] = "open"
    """Whether the API user finds MessagingSessionFeed."""
    tracking: bool = False
    """Whether items tell of changes of tracked fields."""
    tracked: tuple[str, ...] = FEED_TRACKED
    """Which fields these are."""
    acts_per_minute: float = Field(default=0.0, ge=0, le=60_000)
    """Random posts, edits and deletes in a real minute."""


class TlsSettings(Group):
    """Certificate of the Pub/Sub port; without it the port speaks plaintext HTTP/2."""

    cert_file: Path
    key_file: Path


class Act(Group):
    """One entry of the timeline.

    Attributes:
        s: real seconds after the org is ready.
        kind: a kind of :mod:`consumer.emulator.fault_kinds`.
        parameters: the kind's parameters.
    """

    s: float = Field(ge=0)
    kind: str
    parameters: dict[str, Any] = Field(default_factory=dict)

    @property
    def fault(self) -> Fault:
        """The act, ready to be carried out."""
        return parse_fault(self.kind, self.parameters)


class Scenario(Group):
    """An emulated org before it starts. Defaults are what the real service was seen to do."""

    seed: int = 1
    time_scale: float = Field(default=1.0, gt=0, le=100_000)
    """All protocol times below are divided by this; traffic and timeline are not."""
    keepalive_s: float = Field(default=120.0, gt=0, le=270)
    credit_timeout_s: float = Field(default=60.0, gt=0)
    latest_arming_s: float = Field(default=3.0, ge=0, le=5)
    """How long a LATEST subscription misses events after its first request."""
    revoked_stream_s: float = Field(default=10.0, ge=0)
    """How long a new stream with a revoked token hangs before it is refused."""
    commit_ack_s: float = Field(default=1.0, ge=0)
    commit_timeout_s: float = Field(default=1800.0, gt=0)
    slot_release_s: float = Field(default=15.0, ge=0)
    """How long a managed subscription's slot stays taken after its client has gone."""
    publish_idle_s: float = Field(default=70.0, gt=0)
    split: Literal["full", "random", "single"] = "full"
    retention_h: float = Field(default=72.0, gt=0)
    retain_events: int = Field(default=1_000_000, ge=100)
    """Bound of memory: more events than this push the oldest past the retention."""
    delivery_allowance: int = Field(default=10_000_000, ge=0)
    """Events that may be delivered in all, as ``DailyDeliveredPlatformEvents`` shows."""
    publish_burst: int = Field(default=80, ge=1)
    latency_ms: float = Field(default=0.0, ge=0)
    clock_speed: float = Field(default=1.0, gt=0, le=100_000)
    """Seconds of the org in one real second: commit times, retention and ``Date`` headers follow it. Protocol times,
    the traffic's rate and the timeline do not."""
    keep_all: bool = False
    """Whether the org remembers all records for ever, as an oracle over the whole run needs."""
    oracle: bool = False
    """Whether everything that happens is kept for ``/control/oracle``; costs memory and some speed."""
    late_history_rows: float = Field(default=0.02, ge=0, le=1)
    """Share of history rows that queries find only 3 to 120 seconds of the org after their commit."""
    special_history_rows: float = Field(default=0.0, ge=0, le=1)
    """Share of owner changes away from a queue that are called ``ownerAccepted`` or ``ownerAssignment``."""
    api_limit: int = Field(default=100_000, ge=0)
    """REST and Bulk calls a day, as ``Sforce-Limit-Info`` shows."""
    rest_latency_ms: float = Field(default=0.0, ge=0)
    """How long REST and Bulk answers travel, real milliseconds."""
    short_pages: bool = False
    """Whether pages of queries and Bulk results are shorter than asked for, by chance."""
    bulk_s: float = Field(default=5.0, ge=0)
    """How long a Bulk query job takes, however many rows it has."""
    delete_log_days: float = Field(default=15.0, gt=0, le=15)
    """How far back getDeleted knows what was deleted."""
    relay: bool = False
    """Whether a TCP relay stands before the Pub/Sub port; the network faults need it, and it costs speed."""
    ungroup_merged: bool = False
    """Whether merged events come one per record with a shared replay id, as on enriched channels."""
    carry_derived: bool = False
    """Whether events carry derived fields; the guide says they don't."""
    traffic: TrafficSettings = TrafficSettings()
    sharing: SharingSettings = SharingSettings()
    feed: FeedSettings = FeedSettings()
    auth: Credentials = Credentials()
    channels: dict[Channel, tuple[str, ...]] = Field(default={"/data/Support__chn": ("MessagingSession", "AgentWork")})
    enrichment: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Object to fields that its update and delete events carry although unchanged."""
    hidden_fields: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Object to fields that the integration user may not see, in events or in queries."""
    history_tracking: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Object to the fields whose history is tracked; an object that is not named keeps its defaults."""
    managed: tuple[ManagedSettings, ...] = (
        ManagedSettings(
            developer_name="Emulated_Managed",
            subscription_id="18xem0000000001AAA",
            topic="/data/MessagingSessionChangeEvent",
        ),
    )
    tls: TlsSettings | None = None
    at: tuple[Act, ...] = ()

    @field_validator("at", mode="before")
    @classmethod
    def _acts(cls, value: object) -> object:
        """Take every key of an ``[[at]]`` table besides s and kind as a parameter."""
        if not isinstance(value, (list, tuple)):
            return value
        return [_act(each) if isinstance(each, dict) else each for each in value]

    def timing(self) -> Timing:
        """Return the protocol times in real seconds."""
        scale = self.time_scale
        return Timing(
            keepalive_s=self.keepalive_s / scale,
            credit_timeout_s=self.credit_timeout_s / scale,
            latest_arming_s=self.latest_arming_s / scale,
            revoked_stream_s=self.revoked_stream_s / scale,
            commit_ack_s=self.commit_ack_s / scale,
            commit_timeout_s=self.commit_timeout_s / scale,
            slot_release_s=self.slot_release_s / scale,
            publish_idle_s=self.publish_idle_s / scale,
        )


def _act(table: dict[str, Any]) -> dict[str, Any]:
    if "parameters" in table:
        return table
    return {
        **{key: table[key] for key in ("s", "kind") if key in table},
        "parameters": {key: value for key, value in table.items() if key not in {"s", "kind"}},
    }


def parse(text: str, name: str = "the scenario") -> Scenario:
    """Read a scenario from TOML text.

    Args:
        text: the TOML.
        name: what errors call it, such as its file name.

    Raises:
        ConfigError: with every fault found.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{name} is not TOML: {error}"], "Correct the syntax") from error
    faults: list[str] = []
    scenario: Scenario | None = None
    try:
        scenario = Scenario.model_validate(values)
    except ValidationError as error:
        faults += faults_of(error, f"{name}: ")
    acts = values.get("at", [])
    for number, act in enumerate(acts if isinstance(acts, list) else []):
        if isinstance(act, dict) and "kind" in act:
            try:
                parse_fault(act["kind"], _act(act)["parameters"])
            except EmulatorError as error:
                faults.append(f"{name}: at.{number}: {error.message}")
    if faults or scenario is None:
        raise ConfigError(faults, "deploy/scenarios holds examples, GET /control/faults lists the kinds")
    return scenario


def load(path: Path) -> Scenario:
    """Read a scenario from a TOML file.

    Raises:
        ConfigError: it can't be read, or has faults (all are listed).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError([f"the scenario {path} can't be read: {reason}"], "Give another --scenario") from error
    return parse(text, path.name)
