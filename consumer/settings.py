"""The configuration's shape: small frozen groups, one per TOML table, documented field by field.

How the values are found (file, environment, secret files) is :mod:`consumer.settings_load`'s business. The pure
rooms never see these classes; adapters take the group they need.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)$")
_DURATION_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB)$")
_SIZE_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def _duration_ms(value: object) -> object:
    if isinstance(value, str):
        match = _DURATION.match(value.strip())
        if match is None:
            raise ValueError('write a duration such as "100ms", "30s" or "14d"')
        return round(float(match[1]) * _DURATION_MS[match[2]])
    return value


def _size_bytes(value: object) -> object:
    if isinstance(value, str):
        match = _SIZE.match(value.strip())
        if match is None:
            raise ValueError('write a size such as "512KiB" or "1MiB"')
        return round(float(match[1]) * _SIZE_BYTES[match[2]])
    return value


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/"):
        raise ValueError("write scheme and host only, such as https://mydomain.my.salesforce.com")
    return value.rstrip("/")


def _host_port(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError("write host:port, such as 127.0.0.1:8080")
    return value


def _cdc_topic(value: str) -> str:
    if not re.fullmatch(r"/data/[A-Za-z][A-Za-z0-9_]*", value):
        raise ValueError(
            f"{value!r} is not a change event channel; write /data/MessagingSessionChangeEvent, "
            "/data/ChangeEvents or /data/Name__chn"
        )
    return value


def _api_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,79}", value):
        raise ValueError(f"{value!r} is not an object's API name; write MessagingSession or Widget__c")
    return value


DurationMs = Annotated[int, BeforeValidator(_duration_ms), Field(ge=0)]
"""Milliseconds; text with a unit in the file."""

SizeBytes = Annotated[int, BeforeValidator(_size_bytes), Field(ge=1)]
"""Bytes; text with a unit in the file."""

HttpUrl = Annotated[str, AfterValidator(_http_url)]
HostPort = Annotated[str, AfterValidator(_host_port)]
CdcTopic = Annotated[str, AfterValidator(_cdc_topic)]
ApiName = Annotated[str, AfterValidator(_api_name)]


class Group(BaseModel):
    """Base of all groups: frozen, and an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class SalesforceSettings(Group):
    """How to log in to the one org."""

    login_url: HttpUrl
    """Login host: the My Domain URL (client credentials work only there), login. or test.salesforce.com."""
    auth: Literal["client_credentials", "jwt", "refresh_token", "password", "session"] = "client_credentials"
    """OAuth flow; ``password`` is OAuth with a client_id and SOAP login (legacy) without; ``session`` takes a ready
    access_token."""
    client_id: str | None = None
    """Consumer key of the app; not needed with SOAP login and a ready session."""
    client_secret: SecretStr | None = None
    """Consumer secret of the app."""
    username: str | None = None
    """User of the jwt and password flows."""
    password: SecretStr | None = None
    """Password and security token, joined."""
    private_key_file: Path | None = None
    """PEM key of the JWT bearer flow."""
    refresh_token: SecretStr | None = None
    """Refresh token of a connected app that does not rotate it; otherwise use refresh_token_file."""
    refresh_token_file: Path | None = None
    """Where the refresh token is read from and a rotated one is written to, atomically."""
    access_token: SecretStr | None = None
    """Ready token of auth = "session"; no other can be fetched when it expires."""
    instance_url: HttpUrl | None = None
    """Needed with auth = "session"; otherwise the login's answer gives it."""
    org_id: str | None = None
    """Fallback when the login does not tell the org id; a login to another org is refused. 15 or 18 characters."""
    api_version: str = Field(default="62.0", pattern=r"^\d{2,3}\.0$")
    """REST and SOAP version; MessagingSessionChangeEvent exists since 62.0 (Object Reference)."""
    ca_file: Path | None = None
    """Root certificates for Salesforce, in place of the system's."""


class PubSubSettings(Group):
    """The change event stream."""

    endpoint: HostPort = "api.pubsub.salesforce.com:7443"
    """Pub/Sub API server."""
    tls: bool = True
    """False only for the emulated org."""
    topics: tuple[CdcTopic, ...] = Field(default=("/data/MessagingSessionChangeEvent",), min_length=1)
    """Channels to read: of one object, /data/ChangeEvents, or a custom one (__chn)."""
    start: Literal["snapshot", "earliest", "latest"] = "snapshot"
    """Where a first start begins."""
    on_lost_position: Literal["resync", "earliest", "latest", "halt"] = "resync"
    """What to do when the stored replay id is expired or refused."""
    watchdog_s: float = Field(default=300.0, gt=0)
    """Silence after which a stream is taken for dead, seconds; keep-alives come within 270 s."""
    buffer_events: int = Field(default=2000, ge=100)
    """Events held between stream and Kafka; 100 keeps the stream's window open, more rides out slow commits."""


class RetentionSettings(Group):
    """``retention.ms`` of the topics this service creates."""

    changes: DurationMs = 30 * 86_400_000
    history: DurationMs = 400 * 86_400_000
    sharing: DurationMs = 400 * 86_400_000
    """Of the topics ``sharing`` and ``sharing-rules``."""
    feed: DurationMs = 30 * 86_400_000
    coverage: DurationMs = 400 * 86_400_000
    quarantine: DurationMs = 14 * 86_400_000


class KafkaSettings(Group):
    """The Kafka cluster and its topics."""

    bootstrap_servers: str = Field(min_length=1)
    """host:port of one or more brokers, comma-separated."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How to connect and log in."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    """Used with the two SASL protocols."""
    sasl_username: str | None = None
    """User name for the brokers."""
    sasl_password: SecretStr | None = None
    """Password for the brokers."""
    ca_file: Path | None = None
    """Root certificates for the brokers, in place of the system's."""
    topic_prefix: str = Field(default="salesforce.", pattern=r"^[A-Za-z0-9._-]*$", max_length=100)
    """First part of every topic name; one per org."""
    partitions: int = Field(default=6, ge=1, le=1000)
    """Partitions of the topics this service creates; never change it for existing topics."""
    replication_factor: int = Field(default=-1, ge=-1)
    """-1 takes the cluster's default."""
    create_topics: bool = True
    """Create missing topics; if false they are only verified."""
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "zstd"
    """Compression of the batches sent. zstd is smaller than lz4 and costs a quarter of the processor time, because
    the client has lz4 at its highest level only; readers need a client of Kafka 2.1 or later."""
    session_timeout: DurationMs = 10_000
    """After this much silence of a dead worker a standby takes over."""
    transaction_timeout: DurationMs = 60_000
    """Longest life of one transaction; the broker ends it after that."""
    retention: RetentionSettings = RetentionSettings()


class BatchSettings(Group):
    """When a transaction is cut: whichever comes first."""

    max_records: int = Field(default=500, ge=1)
    """Cut a transaction at this many change records; history and state ride along."""
    max_bytes: SizeBytes = 1 << 20
    """Cut it at this many bytes of changes and history."""
    max_age: DurationMs = 100
    """Cut it when its oldest event is this old."""


class FieldSettings(Group):
    """The field policy: applied before anything is stored or sent.

    Names are ``Field``, ``Field.Part`` or ``Object:Field``.
    """

    drop: tuple[str, ...] = ()
    """Fields that leave no trace, not even in lists of changed fields."""
    hash: tuple[str, ...] = ()
    """Fields replaced by a keyed hash (HMAC-SHA-256), equal for equal values."""
    mask: tuple[str, ...] = ()
    """Fields replaced by ``***``."""
    hash_key_file: Path | None = None
    """File with the hash key, at least 16 bytes; needed with ``hash``."""
    allow_raw: bool = True
    """Whether quarantine and recordings may hold raw payloads, which the policy can't reach inside. Where a rule
    above is set, it has to be allowed in so many words."""

    @property
    def raw_allowed(self) -> bool:
        """Whether raw payloads may be stored: as ``allow_raw`` says, and by default only without any rule."""
        return self.allow_raw and ("allow_raw" in self.model_fields_set or not (self.drop or self.hash or self.mask))


class StateSettings(Group):
    """The local copy of the tracked state; losing it costs time, not data."""

    path: Path | None = None
    """Directory of the local store; by default $STATE_DIRECTORY (systemd), else ~/.local/state/session-consumer."""
    cache_records: int = Field(default=20_000, ge=100)
    """Record states kept in memory; the others are read from the disk when a change comes."""
    delete_grace: DurationMs = 7 * 86_400_000
    """How long the state of a deleted record stays, marked as deleted, before its tombstone."""


class TrackingSettings(Group):
    """Images before and after, and the reads that keep them complete."""

    on_unknown: Literal["read", "partial"] = "read"
    """Whether a record that nothing is known of is read by id before its change is sent."""
    refresh_after: DurationMs = 60_000
    """How long after its end a session is read again, for fields that events do not carry."""
    reconcile: bool = True
    """Whether every hour is compared with Salesforce."""
    reconcile_after: DurationMs = 15 * 60_000
    """How long after the end of an hour it is compared."""
    chunk_rows: int = Field(default=2000, ge=200, le=2000)
    """Rows of one chunk of a snapshot."""
    bulk_above: int = Field(default=100_000, ge=0)
    """Rows above which a snapshot uses the Bulk API."""
    api_reserve: float = Field(default=0.1, ge=0, lt=1)
    """Part of the org's daily API calls that only repairs may use."""


class HistorySettings(Group):
    """Field history, confirmed by Salesforce's own rows."""

    poll: DurationMs = 60_000
    """How often new rows are asked for."""
    overlap: DurationMs = 5 * 60_000
    """How far each question reaches back, for rows that were committed late with an older stamp."""
    settle: DurationMs = 30_000
    """The newest rows left out, because their second may still be filling."""
    confirm_within: DurationMs = 10 * 60_000
    """After this and a completed poll past it, a change without a row is ``event_only``."""
    backfill: DurationMs = 400 * 86_400_000
    """How far back history is read at a first start; 0 for not at all."""


class SharingSettings(Group):
    """Who can see a record: share rows and owner sharing rules, which have no events and are polled."""

    enabled: bool = True
    """Whether sharing is read at all."""
    objects: tuple[ApiName, ...] = ("MessagingSession",)
    """Objects whose sharing is read, as far as a channel carries them."""
    poll: DurationMs = Field(default=300_000, gt=0)
    """How often new and changed share rows, and the rules, are asked for."""
    overlap: DurationMs = 5 * 60_000
    """How far each question reaches back, for share rows that were committed late with an older stamp."""
    settle: DurationMs = 30_000
    """The newest rows left out; and how long after a row was missed it is read again: a third read decides."""
    sweep: DurationMs = Field(default=86_400_000, gt=0)
    """How often all share rows are read, which is what finds revocations."""
    api_calls_per_day: int = Field(default=5_000, ge=1)
    """Most API calls a day for shares, rules and feeds; sweeps are the first to be stretched for it."""

    @property
    def wanted(self) -> tuple[str, ...]:
        """The objects, none if it is not enabled."""
        return self.objects if self.enabled else ()


class FeedSettings(Group):
    """Feed items, which have no events and are polled."""

    enabled: bool = True
    """Whether feeds are read at all."""
    objects: tuple[ApiName, ...] = ("MessagingSession",)
    """Objects whose feed is read, as far as a channel carries them."""
    poll: DurationMs = Field(default=300_000, gt=0)
    """How often new and changed items are asked for."""
    overlap: DurationMs = 5 * 60_000
    """How far each question reaches back, for items that were committed late with an older stamp."""
    settle: DurationMs = 30_000
    """The newest items left out, because their second may still be filling."""
    backfill: DurationMs = 30 * 86_400_000
    """How far back items are read at a first start; 0 for not at all."""

    @property
    def wanted(self) -> tuple[str, ...]:
        """The objects, none if it is not enabled."""
        return self.objects if self.enabled else ()


class ServiceSettings(Group):
    """The process itself."""

    name: str = Field(default="session-consumer", pattern=r"^[A-Za-z0-9_-]+$", max_length=64)
    """Part of the transactional id and of the consumer group: equal for all workers of one deployment."""
    listen: HostPort = "127.0.0.1:8080"
    """Address of /healthz, /readyz and /metrics."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """``auto`` is console on a terminal and JSON elsewhere."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged, to stderr."""
    shutdown_grace_s: float = Field(default=20.0, gt=0)
    """How long a stop may take before open work is given up, seconds."""


class Settings(Group):
    """Everything the service can be told."""

    salesforce: SalesforceSettings
    kafka: KafkaSettings
    pubsub: PubSubSettings = PubSubSettings()
    batch: BatchSettings = BatchSettings()
    fields: FieldSettings = FieldSettings()
    state: StateSettings = StateSettings()
    tracking: TrackingSettings = TrackingSettings()
    history: HistorySettings = HistorySettings()
    sharing: SharingSettings = SharingSettings()
    feed: FeedSettings = FeedSettings()
    service: ServiceSettings = ServiceSettings()
