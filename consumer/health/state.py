"""What the health pages know: plain values that the service keeps up to date."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from consumer.telemetry import POSITION_LIFETIME_MS


class Role(StrEnum):
    """What this worker does for one subscription."""

    STARTING = "starting"
    """Not yet decided, or restoring."""
    ACTIVE = "active"
    """Reads the stream and commits."""
    STANDBY = "standby"
    """Another worker is active; this one is ready to take over."""
    PAUSED = "paused"
    """Stopped by command."""
    HALTED = "halted"
    """Stopped by a failure that waits for a person."""
    FAILING = "failing"
    """Tries again after failures; ``reason`` says which."""


_READY = frozenset({Role.ACTIVE, Role.STANDBY, Role.PAUSED})
"""A paused worker does what it was told: it must not stop a roll-out."""


@dataclass(slots=True)
class SubscriptionHealth:
    """One channel; times are epoch milliseconds, None while unknown.

    Attributes:
        channel: such as ``/data/MessagingSessionChangeEvent``.
        role: what this worker does for it.
        reason: why it is not ready, one sentence; empty when all is well.
        advice: what to do about it.
        last_event_ms: commit time (Salesforce's) of the last event committed to Kafka.
        last_received_ms: when the last message came, keep-alives included.
        last_committed_ms: when the last transaction was committed.
        position_advanced_ms: from when the committed position is; its 72 hours count from there.
        salesforce_lag_ms: received minus commit time, of the last committed event.
        own_lag_ms: committed minus received, of the last committed event.
        credits: events asked for and not received.
        buffered: events between stream and Kafka.
        open_windows: loss windows that are open.
        quarantined: events put into quarantine since the start.
        scans: snapshots and resyncs under way: job id to rows read, rows expected (None while unknown) and object.
        sweeps: sweeps of share rows under way: object to rows read and rows expected (None while unknown).
        unavailable: what can't be read in this org, each said once.
    """

    channel: str
    role: Role = Role.STARTING
    reason: str = ""
    advice: str = ""
    last_event_ms: int | None = None
    last_received_ms: int | None = None
    last_committed_ms: int | None = None
    position_advanced_ms: int | None = None
    salesforce_lag_ms: int | None = None
    own_lag_ms: int | None = None
    credits: int = 0
    buffered: int = 0
    open_windows: int = 0
    quarantined: int = 0
    scans: dict[str, dict[str, object]] = field(default_factory=dict)
    sweeps: dict[str, dict[str, object]] = field(default_factory=dict)
    unavailable: list[str] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        """Whether it works, or waits healthily to take over."""
        return self.role in _READY and not (self.role is Role.STANDBY and self.reason)

    def expires_in_s(self, now_ms: int) -> float | None:
        """Return the seconds until the committed position expires, None while there is none."""
        if self.position_advanced_ms is None:
            return None
        return (self.position_advanced_ms + POSITION_LIFETIME_MS - now_ms) / 1000

    def become(self, role: Role, reason: str = "", advice: str = "") -> None:
        """Change the role, with the reason when it is not a good one."""
        self.role, self.reason, self.advice = role, reason, advice


@dataclass(slots=True)
class HealthState:
    """The whole process.

    Attributes:
        service: ``service.name``.
        version: this program's version.
        worker: tells the workers of one deployment apart, such as ``host:pid``.
        subscriptions: by channel.
    """

    service: str
    version: str
    worker: str = ""
    subscriptions: dict[str, SubscriptionHealth] = field(default_factory=dict)

    def subscription(self, channel: str) -> SubscriptionHealth:
        """Return the channel's health, made at the first call."""
        return self.subscriptions.setdefault(channel, SubscriptionHealth(channel))

    def problems(self) -> list[dict[str, str]]:
        """Return what keeps the process from being ready, one object per subscription; empty when it is."""
        if not self.subscriptions:
            return [{"subscription": "", "role": Role.STARTING.value, "reason": "still starting", "advice": ""}]
        return [
            {
                "subscription": each.channel,
                "role": each.role.value,
                "reason": each.reason or f"the subscription is {each.role.value}",
                "advice": each.advice,
            }
            for each in self.subscriptions.values()
            if not each.ready
        ]

    def document(self, now_ms: int) -> dict[str, Any]:
        """Return everything as JSON values; holds no record content and no secret."""
        return {
            "service": self.service,
            "version": self.version,
            "worker": self.worker,
            "now_ms": now_ms,
            "ready": not self.problems(),
            "subscriptions": [
                asdict(each) | {"ready": each.ready, "position_expires_in_s": each.expires_in_s(now_ms)}
                for each in self.subscriptions.values()
            ],
        }
