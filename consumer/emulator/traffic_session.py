"""The steps of one Messaging session, each as the saves of one transaction."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, Final

from consumer.emulator import traffic_data as data
from consumer.emulator.event_schemas import BodyField
from consumer.emulator.org import Change, OrgModel
from consumer.emulator.record_ids import PREFIXES, numbered_id
from consumer.emulator.traffic_rows import CompanionRows
from consumer.emulator.traffic_values import SESSION, LiveSession, Save

_SHARES: Final = tuple(accumulate(channel.share for channel in data.CHANNELS))
_DAY_MS: Final = 86_400_000


class Steps:
    """Turns a session's next step into saves, and moves its phase.

    Args:
        org: gives fresh record ids.
        rng: the traffic's only source of choice.
        companions: whether AgentWork, MessagingEndUser and PendingServiceRouting rows come and go with it.

    Attributes:
        now_ms: time of the next step, epoch milliseconds in whole seconds; the caller sets it.
    """

    def __init__(self, org: OrgModel, rng: random.Random, *, companions: bool) -> None:
        self._org = org
        self._rng = rng
        self._rows = CompanionRows(org, rng, enabled=companions)
        self.now_ms = 0

    # Beginnings

    def start(self, known: tuple[str, data.Channel] | None) -> tuple[LiveSession, Save]:
        """Return a new session and its transaction; ``known`` is a returning customer and their channel."""
        changes: list[Change] = []
        if known is None:
            channel = self._rng.choices(data.CHANNELS, cum_weights=_SHARES)[0]
            end_user_id = self._org.new_id("MessagingEndUser")
            changes += self._rows.end_user(end_user_id, channel)
        else:
            end_user_id, channel = known
        record_id = self._org.new_id(SESSION)
        session = LiveSession(record_id, end_user_id, channel, "new", data.AUTOMATED_USER, self.now_ms)
        opening = self._opening(session)
        fields = {**self._identity(session), **opening}
        changes.append(Change("create", SESSION, record_id, fields))
        changes += self._rows.enqueue(session, transfer=False) if session.phase == "waiting" else []
        return session, Save(changes, data.AUTOMATED_USER, data.APEX_ORIGIN if known else data.SYSTEM_ORIGIN)

    def _identity(self, session: LiveSession) -> dict[str, Any]:
        bits = f"{self._rng.getrandbits(128):032x}"
        serial = int(bits[:5], 16)
        return {
            "MessagingChannelId": session.channel.channel_id,
            "MessagingEndUserId": session.end_user_id,
            "Origin": "InboundInitiated",
            "AgentType": "Agent",
            "SessionKey": f"{bits[:8]}-{bits[8:12]}-{bits[12:16]}-{bits[16:20]}-{bits[20:]}",
            "ChannelIntent": self._pick(data.INTENTS),
            "EndUserLanguage": self._pick(data.LANGUAGES),
            "ConversationId": numbered_id(PREFIXES["Conversation"], serial),
            "Priority__c": self._pick(data.PRIORITIES),
            "VIP__c": serial % 16 == 0,
            "StartTime": session.started_ms,
            "ChannelType": session.channel.kind,
            "ChannelName": session.channel.name,
            "ChannelKey": session.channel.key,
            "ChannelEndUserFormula": f"{session.channel.name} - {serial:05d}",
            "EndUserContactId": numbered_id(PREFIXES["Contact"], serial),
        }

    def _opening(self, session: LiveSession) -> dict[str, Any]:
        """Choose how it begins: notification only, business started, consent, bot, queue, or new (standard)."""
        channel, dice = session.channel, self._rng.random()
        if dice < 0.03:
            session.phase = "ended"
            ended = {"Status": "Ended", "EndTime": self.now_ms, "AgentType": "System", "EndedByType": "System"}
            return {"OwnerId": session.owner, "Origin": "TriggeredOutbound", **ended}
        if dice < 0.06:
            session.owner = self._pick(data.REPS)
            return {"OwnerId": session.owner, "Status": "New", "Origin": "AgentInitiated"}
        if channel.consent and dice < 0.25:
            session.phase = "consent"
            return {"OwnerId": session.owner, "Status": "Consent"}
        if channel.bot:
            session.phase, session.owner, session.bot_first = "bot", data.BOT_USER, True
            session.accepted = True
            taken = {"Status": "Active", "AgentType": "Bot", "AcceptTime": self.now_ms}
            return {"OwnerId": session.owner, **taken}
        if not channel.enhanced:
            return {"OwnerId": session.owner, "Status": "New"}
        return self._wait(session)

    def _wait(self, session: LiveSession) -> dict[str, Any]:
        session.phase, session.owner = "waiting", self._pick(data.QUEUES)
        return {"Status": "Waiting", "OwnerId": session.owner}

    # Routing

    def route(self, session: LiveSession) -> Save:
        """New to Waiting in a queue."""
        return self._queued(session, data.AUTOMATED_USER, transfer=False)

    def agree(self, session: LiveSession) -> Save:
        """Consent given: on to a queue."""
        save = self._queued(session, data.AUTOMATED_USER, transfer=False)
        if self._org.row("MessagingEndUser", session.end_user_id) is None:
            return save
        opted_in = {"MessagingConsentStatus": "ExplicitlyOptedIn", "IsFullyOptedIn": True}
        person = Change("update", "MessagingEndUser", session.end_user_id, opted_in)
        return Save([*save.changes, person], save.user, save.origin)

    def refuse(self, session: LiveSession) -> Save:
        """Consent refused: the end."""
        changes = self.finish(session, "EndUser", {"Origin": "OptOut"})
        return Save(changes, data.AUTOMATED_USER, data.SYSTEM_ORIGIN)

    def bot_notes(self, session: LiveSession) -> Save:
        """The bot writes down what it found out."""
        fields = {"Topics__c": ";".join(sorted({self._pick(data.TOPICS), self._pick(data.TOPICS)}))}
        return self._update(session, fields, data.BOT_USER, data.APEX_ORIGIN)

    def hand_over(self, session: LiveSession) -> Save:
        """Bot to agent: the session is escalated and waits for a rep."""
        return self._queued(session, data.BOT_USER, transfer=True, fields={"AgentType": "BotToAgent"})

    def contain(self, session: LiveSession) -> Save:
        """The bot solves it, or the customer leaves it."""
        by = "Bot" if self._rng.random() < 0.7 else "EndUser"
        return Save(self.finish(session, by), data.BOT_USER, data.APEX_ORIGIN)

    def raise_priority(self, session: LiveSession) -> Save:
        """A flow raises the priority of a session that waits."""
        fields = {"Priority__c": self._pick(data.PRIORITIES)}
        return self._update(session, fields, data.AUTOMATED_USER, data.APEX_ORIGIN)

    def abandon(self, session: LiveSession) -> Save:
        """The customer leaves before anyone has taken it."""
        return Save(self.finish(session, "EndUser"), data.AUTOMATED_USER, data.SYSTEM_ORIGIN)

    def accept(self, session: LiveSession) -> Save:
        """A rep takes it: Active, owned by a user; AcceptTime is set once."""
        rep, queue = self._pick(data.REPS), session.owner
        fields: dict[str, Any] = {"Status": "Active", "OwnerId": rep}
        if not session.accepted:
            fields["AcceptTime"] = self.now_ms
        session.phase, session.owner, session.accepted = "active", rep, True
        extra = self._rows.take_work(session, self.now_ms, queue)
        return Save([self._change(session, fields), *extra], rep, data.UI_ORIGIN)

    def to_queue(self, session: LiveSession) -> Save:
        """The rep transfers it to a queue."""
        return self._queued(session, session.owner, transfer=True, closes_work=True)

    def to_rep(self, session: LiveSession) -> Save:
        """The rep transfers it straight to another rep."""
        giver = session.owner
        extra = self._rows.close_work(session, self.now_ms, "Transferred")
        session.owner = self._pick(data.REPS)
        extra += self._rows.take_work(session, self.now_ms, giver)
        return Save([self._change(session, {"OwnerId": session.owner}), *extra], giver, data.UI_ORIGIN)

    def reassign(self, sessions: Sequence[LiveSession]) -> Save:
        """A supervisor hands several sessions out in one save."""
        changes = []
        for session in sessions:
            session.owner = self._pick(data.REPS)
            changes.append(self._change(session, {"OwnerId": session.owner}))
        return Save(changes, data.REPS[0], data.UI_ORIGIN)

    # Work

    def work(self, session: LiveSession) -> Save:
        """The rep keeps the record up: one of the custom fields, a case link, an address, a cleared date."""
        if session.address >= 0 and not session.geocoded:
            return self.geocode(session)
        note, visit = partial(self._note, session), partial(self._visit, session)
        fields = self._pick((note, visit, self._plan, self._classify, self._clear))()
        if not session.case_linked and self._rng.random() < 0.15:
            session.case_linked = True
            fields["CaseId"] = numbered_id(PREFIXES["Case"], self._rng.getrandbits(24))
        return self._update(session, fields, session.owner, data.UI_ORIGIN)

    def geocode(self, session: LiveSession) -> Save:
        """The platform places the address: only parts of a compound change, and no LastModifiedDate."""
        session.geocoded = True
        place = data.PLACES[session.address]
        parts = {"Latitude": place[5], "Longitude": place[6], "GeocodeAccuracy": "Address"}
        change = Change("update", SESSION, session.record_id, {"VisitAddress__c": parts}, system=True)
        return Save([change], data.AUTOMATED_USER, data.SYSTEM_ORIGIN)

    def _note(self, session: LiveSession) -> dict[str, Any]:
        """Return notes with a line more: short ones travel as text, long ones as a diff."""
        row = self._org.row(SESSION, session.record_id)
        old = str(row.values.get("Notes__c", "")) if row is not None else ""
        if not old and self._rng.random() < 0.5:
            return {"Notes__c": "\n".join(self._pick(data.SENTENCES) for _ in range(24))}
        if len(old) > 4_000:
            return {"Notes__c": self._pick(data.SENTENCES)}
        line = f"{self._rng.getrandbits(16)}: {self._pick(data.SENTENCES)}"
        return {"Notes__c": f"{old}\n{line}" if old else line}

    def _plan(self) -> dict[str, Any]:
        days, minutes = self._rng.getrandbits(5), self._rng.getrandbits(8)
        day_ms = self.now_ms // _DAY_MS * _DAY_MS
        return {"FollowUp__c": day_ms + days * _DAY_MS, "CallbackAt__c": 28_800_000 + minutes * 60_000}

    def _classify(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"Priority__c": self._pick(data.PRIORITIES)}
        if self._rng.random() < 0.3:
            fields["VIP__c"] = self._rng.random() < 0.5
        for added in self._org.added_fields(SESSION):
            fields[added.name] = self._value_of(added)
        return fields

    def _value_of(self, field: BodyField) -> Any:
        """Return some value for a field that a schema change has added."""
        number = self._rng.getrandbits(10)
        if field.compound is not None:
            return {name: float(number) if kind == "double" else "new" for name, kind in field.parts}
        if field.doc_type == "EntityId":
            return numbered_id(PREFIXES["Campaign"], number)
        plain = {"boolean": number % 2 == 0, "int": number, "double": number / 8, "long": number * _DAY_MS}
        return plain.get(field.avro_type or "string", f"{field.name} {number}")

    def _visit(self, session: LiveSession) -> dict[str, Any]:
        session.address, session.geocoded = int(self._rng.random() * len(data.PLACES)), False
        street, city, code, country, country_code, _, _ = data.PLACES[session.address]
        if self._rng.random() < 0.3:
            session.geocoded = True
            return {"VisitAddress__c": {"Street": f"{street}, 2. OG"}}
        return {
            "VisitAddress__c": {
                "Street": street,
                "City": city,
                "PostalCode": code,
                "Country": country,
                "CountryCode": country_code,
            }
        }

    def _clear(self) -> dict[str, Any]:
        cleared: Mapping[str, Any] = {"FollowUp__c": None, "CallbackAt__c": None, "Topics__c": None}
        if self._rng.random() < 0.2:
            parts = {"PostalCode": None, "GeocodeAccuracy": None}
            return {"VisitAddress__c": parts, "Priority__c": self._pick(data.PRIORITIES)}
        return {**cleared, "Priority__c": self._pick(data.PRIORITIES)}

    # Silence, pauses, faults

    def fall_silent(self, session: LiveSession) -> Save:
        """The customer stays silent; a standard channel knows no Inactive, so the rep goes on working."""
        if not session.channel.enhanced:
            return self.work(session)
        session.phase = "inactive"
        return self._update(session, {"Status": "Inactive"}, data.AUTOMATED_USER, data.SYSTEM_ORIGIN)

    def revive_to_queue(self, session: LiveSession) -> Save:
        """Tab-based capacity: the customer writes again and is routed afresh."""
        return self._queued(session, data.AUTOMATED_USER, transfer=False, closes_work=True)

    def revive_to_rep(self, session: LiveSession) -> Save:
        """Status-based capacity: the customer writes again and has the same rep."""
        session.phase = "active"
        return self._update(session, {"Status": "Active"}, data.AUTOMATED_USER, data.SYSTEM_ORIGIN)

    def pause(self, session: LiveSession) -> Save:
        """The rep parks it (enhanced channels)."""
        if not session.channel.enhanced:
            return self.work(session)
        session.phase = "paused"
        return self._update(session, {"Status": "Paused"}, session.owner, data.UI_ORIGIN)

    def resume(self, session: LiveSession) -> Save:
        """The rep takes it up again."""
        session.phase = "active"
        return self._update(session, {"Status": "Active"}, session.owner, data.UI_ORIGIN)

    def fail(self, session: LiveSession) -> Save:
        """The session hits an error (enhanced channels)."""
        if not session.channel.enhanced:
            return self.work(session)
        session.phase = "error"
        return self._update(session, {"Status": "Error"}, data.AUTOMATED_USER, data.SYSTEM_ORIGIN)

    # Endings

    def end(self, session: LiveSession) -> Save:
        """The rep or the customer ends it."""
        by = "Agent" if self._rng.random() < 0.65 else "EndUser"
        user = session.owner if by == "Agent" else data.AUTOMATED_USER
        return Save(self.finish(session, by), user, data.UI_ORIGIN)

    def time_out(self, session: LiveSession) -> Save:
        """Nobody wrote for too long."""
        return Save(self.finish(session, "System"), data.AUTOMATED_USER, data.SYSTEM_ORIGIN)

    def finish(self, session: LiveSession, by: str, more: Mapping[str, Any] | None = None) -> list[Change]:
        """Return the saves that end a session; counts and preview change too, unseen by events."""
        fields: dict[str, Any] = {"Status": "Ended", "EndTime": self.now_ms, "EndedByType": by, **(more or {})}
        fields["EndUserMessageCount"] = 1 + self._rng.getrandbits(4)
        fields["AgentMessageCount"] = self._rng.getrandbits(4)
        fields["PreviewDetails"] = self._pick(data.SENTENCES)
        session.phase = "ended"
        changes = [self._change(session, fields)]
        changes += self._rows.close_work(session, self.now_ms, "Closed")
        return changes + self._rows.leave_queue(session)

    def _queued(
        self,
        session: LiveSession,
        user: str,
        *,
        transfer: bool,
        closes_work: bool = False,
        fields: Mapping[str, Any] | None = None,
    ) -> Save:
        extra = self._rows.close_work(session, self.now_ms, "Transferred") if closes_work else []
        change = self._change(session, {**(fields or {}), **self._wait(session)})
        origin = data.UI_ORIGIN if closes_work and transfer else data.APEX_ORIGIN
        return Save([change, *extra, *self._rows.enqueue(session, transfer=transfer)], user, origin)

    def _change(self, session: LiveSession, fields: Mapping[str, Any]) -> Change:
        return Change("update", SESSION, session.record_id, fields)

    def _update(self, session: LiveSession, fields: Mapping[str, Any], user: str, origin: str) -> Save:
        return Save([self._change(session, fields)], user, origin)

    def _pick(self, items: Sequence[Any]) -> Any:
        return items[int(self._rng.random() * len(items))]
