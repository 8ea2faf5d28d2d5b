"""The rows beside a session: its customer, its place in a queue, the work offered to a rep."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

from consumer.emulator import traffic_data as data
from consumer.emulator.org import Change, OrgModel
from consumer.emulator.record_ids import PREFIXES
from consumer.emulator.traffic_values import LiveSession

_WORK: Final = "AgentWork"
_ROUTING: Final = "PendingServiceRouting"


class CompanionRows:
    """Makes the companion rows' saves, for the same transaction as the session's own.

    Args:
        org: gives fresh record ids.
        rng: the traffic's only source of choice.
        enabled: without it no row is made.
    """

    def __init__(self, org: OrgModel, rng: random.Random, *, enabled: bool) -> None:
        self._org = org
        self._rng = rng
        self._enabled = enabled

    def end_user(self, end_user_id: str, channel: data.Channel) -> list[Change]:
        """Return the save of a customer seen for the first time."""
        if not self._enabled:
            return []
        name = f"{self._pick(data.GIVEN_NAMES)} {self._pick(data.FAMILY_NAMES)}"
        fields = {
            "OwnerId": data.AUTOMATED_USER,
            "Name": name,
            "MessagingChannelId": channel.channel_id,
            "MessageType": channel.kind,
            "MessagingPlatformKey": f"{channel.kind.lower()}:{self._rng.getrandbits(40):010x}",
            "MessagingConsentStatus": "ImplicitlyOptedIn",
            "IsFullyOptedIn": not channel.consent,
        }
        return [Change("create", "MessagingEndUser", end_user_id, fields)]

    def enqueue(self, session: LiveSession, *, transfer: bool) -> list[Change]:
        """Return the save that puts the session into its owner's queue."""
        if not self._enabled:
            return []
        session.routing_id = self._org.new_id(_ROUTING)
        fields = {
            "OwnerId": data.AUTOMATED_USER,
            "WorkItemId": session.record_id,
            "ServiceChannelId": data.SERVICE_CHANNEL,
            "GroupId": session.owner,
            "RoutingModel": "LeastActive",
            "RoutingPriority": 1 + self._rng.getrandbits(2),
            "CapacityWeight": 1.0,
            "IsPushed": False,
            "IsTransfer": transfer,
        }
        return [Change("create", _ROUTING, session.routing_id, fields)]

    def leave_queue(self, session: LiveSession) -> list[Change]:
        """Return the delete of its waiting place, if it has one."""
        if not session.routing_id:
            return []
        routing_id, session.routing_id = session.routing_id, ""
        return [Change("delete", _ROUTING, routing_id)]

    def take_work(self, session: LiveSession, now_ms: int, giver: str) -> list[Change]:
        """Return the saves by which its owner takes it from a queue or another rep."""
        if not self._enabled:
            return []
        routing_id = session.routing_id
        changes = self.leave_queue(session)
        work_id = self._org.new_id(_WORK)
        session.works, session.working = (*session.works, work_id), True
        fields: dict[str, Any] = {
            "UserId": session.owner,
            "WorkItemId": session.record_id,
            "ServiceChannelId": data.SERVICE_CHANNEL,
            "RequestDateTime": session.started_ms,
            "AssignedDateTime": now_ms,
            "AcceptDateTime": now_ms,
            "SpeedToAnswer": max(0, (now_ms - session.started_ms) // 1000),
            "CapacityWeight": 1.0,
            "CapacityPercentage": 20.0,
            "Status": "Opened",
            "PendingServiceRoutingId": routing_id or None,
            "OriginalGroupId": giver if giver.startswith(PREFIXES["Group"]) else None,
            "BotId": data.BOT if session.bot_first else None,
        }
        return [Change("create", _WORK, work_id, fields), *changes]

    def close_work(self, session: LiveSession, now_ms: int, status: str) -> list[Change]:
        """Return the save that closes the open work, if there is one."""
        if not session.working:
            return []
        session.working = False
        spent = max(1, (now_ms - session.started_ms) // 1000)
        fields = {"Status": status, "CloseDateTime": now_ms, "HandleTime": spent, "ActiveTime": spent // 2}
        return [Change("update", _WORK, session.works[-1], fields)]

    def _pick(self, items: Sequence[Any]) -> Any:
        return items[int(self._rng.random() * len(items))]
