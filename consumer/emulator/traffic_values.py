"""What the parts of the traffic hand to one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from consumer.emulator.org import Change
from consumer.emulator.traffic_data import Channel

SESSION: Final = "MessagingSession"


@dataclass(frozen=True, slots=True)
class Save:
    """One transaction to be: its changes, who saves, and through which API (empty: the platform itself)."""

    changes: Sequence[Change]
    user: str
    origin: str


@dataclass(slots=True)
class LiveSession:
    """What the traffic remembers of a session.

    Attributes:
        phase: where in its life it is: new, consent, bot, waiting, active, inactive, paused, error or ended.
        owner: user or queue that owns it.
        accepted: whether AcceptTime is set.
        bot_first: whether a bot had it.
        address: index of the visit address, -1 if it has none; ``geocoded`` once the platform placed it.
        works: ids of its AgentWork rows; the last one is open if ``working``.
        routing_id: its PendingServiceRouting row while it waits.
    """

    record_id: str
    end_user_id: str
    channel: Channel
    phase: str
    owner: str
    started_ms: int
    accepted: bool = False
    bot_first: bool = False
    case_linked: bool = False
    address: int = -1
    geocoded: bool = False
    deleted: bool = False
    working: bool = False
    routing_id: str = ""
    works: tuple[str, ...] = ()
