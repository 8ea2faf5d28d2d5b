"""Carries out faults and published acts on the running org; see :mod:`consumer.emulator.fault_kinds` for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from grpc import StatusCode

from consumer.emulator import fault_kinds as kinds
from consumer.emulator.bus import Entry
from consumer.emulator.org import Change, OrgModel
from consumer.emulator.plausible import Plausible
from consumer.emulator.refusals import (
    INTERNAL_RESET,
    LIMIT_EXCEEDED,
    OK,
    RST_NO_ERROR,
    SERVICE_UNAVAILABLE,
    STATUS_OF_CODE,
    CallEnd,
)
from consumer.emulator.sharing_acts import SharingActs
from consumer.emulator.sharing_traffic import SharingRates
from consumer.emulator.state import Conditions, LoginFault, RestFault, ServerState
from consumer.emulator.traffic_gate import TrafficGate
from consumer.errors import EmulatorError

_ENDS = {
    "ok": OK,
    "unavailable": RST_NO_ERROR,
    "internal": INTERNAL_RESET,
    "cancelled": CallEnd(StatusCode.CANCELLED, "", "The call was cancelled"),
    "unknown": CallEnd(StatusCode.UNKNOWN, "", "Stream removed"),
}

AnyFault = TypeVar("AnyFault", bound=kinds.Fault)


class Network(Protocol):
    """The TCP relay before the Pub/Sub server."""

    def reset(self) -> None:
        """Reset every connection."""
        ...

    def freeze(self, seconds: float) -> None:
        """Pass no byte for a while and close nothing."""
        ...

    def refuse(self, seconds: float) -> None:
        """Reset every connection and accept none for a while."""
        ...


class Faults:
    """The hand that breaks the org.

    Args:
        state: what all servers share.
        model: the org's records.
        traffic: the generator's gate.
        restart: sends GOAWAY and listens again.
        network: the TCP relay; None when the org runs without it.
        rates: how much happens to sharing and feeds by itself.
    """

    def __init__(
        self,
        state: ServerState,
        model: OrgModel,
        traffic: TrafficGate,
        restart: Callable[[], Awaitable[None]],
        network: Network | None = None,
        rates: SharingRates | None = None,
    ) -> None:
        self._state = state
        self._model = model
        self._traffic = traffic
        self._restart = restart
        self._network = network
        self._plausible = Plausible(model)
        self._handlers = self._own_handlers() | SharingActs(state, model, rates or SharingRates()).handlers

    def _own_handlers(self) -> dict[type[kinds.Fault], Callable[[Any], Any]]:
        return {
            kinds.EndStreams: self._end_streams,
            kinds.ServiceDown: self._service_down,
            kinds.Silence: self._silence,
            kinds.SlowHeaders: self._slow_headers,
            kinds.Latency: self._latency,
            kinds.Redeliver: self._redeliver,
            kinds.Duplicate: self._duplicate,
            kinds.RevokeTokens: self._revoke,
            kinds.LoginErrors: self._login_error,
            kinds.LoginDown: self._login_down,
            kinds.RestDown: self._rest_down,
            kinds.RestErrors: self._rest_error,
            kinds.RestLatency: self._rest_latency,
            kinds.ShortPages: self._short_pages,
            kinds.ExpireCursors: self._expire_cursors,
            kinds.ApiLimit: self._api_limit,
            kinds.ExpirePositions: self._expire,
            kinds.MoveOrg: self._move,
            kinds.RestartOrg: self._restart_org,
            kinds.AdvanceClock: self._advance_clock,
            kinds.Drop: self._drop,
            kinds.HistoryTracking: self._history_tracking,
            kinds.SilentUpdate: self._silent_update,
            kinds.SilentDelete: self._silent_delete,
            kinds.SilentCreate: self._silent_create,
            kinds.SchemaDown: self._schema_down,
            kinds.SchemaRefused: self._schema_refused,
            kinds.TopicRefused: self._topic_refused,
            kinds.DeliveryLimit: self._delivery_limit,
            kinds.SchemaChange: self._schema_change,
            kinds.KeepaliveInterval: self._keepalive,
            kinds.AdvancePosition: self._advance,
            kinds.GoAway: self._goaway,
            kinds.Reset: self._reset,
            kinds.Freeze: self._freeze,
            kinds.RefuseConnections: self._refuse_connections,
            kinds.Traffic: self._change_traffic,
            kinds.Clear: self._clear,
            kinds.Commit: self._commit,
            kinds.Gap: self._gap,
            kinds.Overflow: self._overflow,
            kinds.Wildcard: self._wildcard,
            kinds.PoisonEvent: self._poison,
        }

    async def apply(self, fault: kinds.Fault) -> list[Entry]:
        """Carry out one fault and return the events it published.

        Raises:
            EmulatorError: the org can't do it.
        """
        done = self._handlers[type(fault)](fault)
        if isinstance(done, Awaitable):
            done = await done
        self._state.stats.faults[fault.kind] += 1
        self._state.wake_all()
        return done if isinstance(done, list) else []

    def newest(self, entity: str) -> str:
        """Return the id of the newest live record of an object.

        Raises:
            EmulatorError: there is none.
        """
        newest = next(reversed(self._model.records(entity)), None)
        if newest is None:
            raise EmulatorError(f"there is no {entity} record yet", "Commit a create first")
        return newest

    def _end_all(self, end: CallEnd, topic: str = "") -> None:
        for call in tuple(self._state.calls):
            if not topic or call.topic_name == topic:
                call.finish(end)

    def _end_streams(self, fault: kinds.EndStreams) -> None:
        if fault.how == "code":
            text = "The call was ended by the server."
            self._end_all(CallEnd(STATUS_OF_CODE[fault.code], fault.code, text), fault.topic)
        else:
            self._end_all(_ENDS[fault.how], fault.topic)

    def _service_down(self, fault: kinds.ServiceDown) -> None:
        self._state.conditions.down_until = self._state.now() + fault.seconds
        self._end_all(SERVICE_UNAVAILABLE)

    def _silence(self, fault: kinds.Silence) -> None:
        self._state.conditions.silent_until = self._state.now() + fault.seconds

    def _slow_headers(self, fault: kinds.SlowHeaders) -> None:
        self._state.conditions.headers_s = fault.ms / 1000

    def _latency(self, fault: kinds.Latency) -> None:
        self._state.conditions.latency_s = fault.ms / 1000

    def _redeliver(self, fault: kinds.Redeliver) -> None:
        if fault.when == "resume":
            self._state.conditions.rewind_next = fault.events
            return
        for call in self._state.calls:
            call.rewind(fault.events)

    def _duplicate(self, fault: kinds.Duplicate) -> None:
        self._state.conditions.duplicate_next = fault.events

    def _revoke(self, _: kinds.RevokeTokens) -> None:
        self._state.sessions.revoke_all()

    def _login_error(self, fault: kinds.LoginErrors) -> None:
        answer = LoginFault(fault.error, fault.description, fault.status, fault.html)
        self._state.conditions.login_faults.extend([answer] * fault.times)

    def _login_down(self, fault: kinds.LoginDown) -> None:
        self._state.conditions.login_down_until = self._state.now() + fault.seconds

    def _rest_down(self, fault: kinds.RestDown) -> None:
        self._state.conditions.rest_down_until = self._state.now() + fault.seconds

    def _rest_error(self, fault: kinds.RestErrors) -> None:
        self._state.conditions.rest_faults += [RestFault(fault.error, fault.path)] * fault.times

    def _rest_latency(self, fault: kinds.RestLatency) -> None:
        self._state.conditions.rest_latency_s = fault.ms / 1000

    def _short_pages(self, fault: kinds.ShortPages) -> None:
        self._state.conditions.short_pages = fault.on

    def _expire_cursors(self, _: kinds.ExpireCursors) -> None:
        self._state.expire_cursors()

    def _api_limit(self, fault: kinds.ApiLimit) -> None:
        api = self._state.api
        if fault.limit is None:
            api.used_up = fault.exceeded
        else:
            api.limit, api.used_up = fault.limit, False

    def _expire(self, fault: kinds.ExpirePositions) -> None:
        self._state.bus.expire(fault.keep_last)

    def _move(self, fault: kinds.MoveOrg) -> None:
        self._end_all(RST_NO_ERROR)
        self._state.bus.move(keep_events=fault.keep_events)
        self._model.note_move(self._state.now_ms())

    def _restart_org(self, fault: kinds.RestartOrg) -> None:
        self._end_all(RST_NO_ERROR)
        self._state.bus.move(keep_events=fault.keep_events, restart=True)
        self._model.restart_commit_numbers()
        self._model.note_move(self._state.now_ms())

    async def _advance_clock(self, fault: kinds.AdvanceClock) -> None:
        steps = min(fault.steps, fault.events) or 1
        for step in range(steps):
            self._state.clock.advance(fault.seconds / steps)
            self._traffic.emit_extra(fault.events * (step + 1) // steps - fault.events * step // steps)
            await asyncio.sleep(0)
        self._model.settle(self._state.now_ms())
        self._state.bus.expire_old()

    def _drop(self, fault: kinds.Drop) -> None:
        conditions = self._state.conditions
        conditions.drop_next = fault.events
        conditions.drop_until = self._state.now() + fault.seconds if fault.seconds else 0.0
        conditions.drop_entity = fault.entity

    def _history_tracking(self, fault: kinds.HistoryTracking) -> None:
        self._model.history.track(fault.entity, fault.fields)

    def _silent_update(self, fault: kinds.SilentUpdate) -> None:
        ids = self._chosen(fault.entity, fault.record_ids, fault.records)
        self._model.silent(self._plausible.updates(fault.entity, ids, fault.fields), self._state.now_ms())

    def _silent_delete(self, fault: kinds.SilentDelete) -> None:
        ids = self._chosen(fault.entity, fault.record_ids, fault.records)
        changes = [Change("purge" if fault.purge else "delete", fault.entity, record_id) for record_id in ids]
        self._model.silent(changes, self._state.now_ms())

    def _silent_create(self, fault: kinds.SilentCreate) -> None:
        now = self._state.now_ms()
        self._model.silent(self._plausible.creates(fault.entity, fault.records, now, fault.fields), now)

    def _chosen(self, entity: str, record_ids: tuple[str, ...], records: int) -> tuple[str, ...]:
        chosen = record_ids or self._model.pick(entity, records)
        if not chosen:
            raise EmulatorError(f"there is no {entity} record yet", "Commit a create first")
        return chosen

    def _schema_down(self, fault: kinds.SchemaDown) -> None:
        self._state.conditions.schema_down_until = self._state.now() + fault.seconds

    def _schema_refused(self, fault: kinds.SchemaRefused) -> None:
        self._state.conditions.refused_schemas.add(fault.schema_id)

    def _topic_refused(self, fault: kinds.TopicRefused) -> None:
        self._state.conditions.refused_topics[fault.topic] = fault.code
        self._end_all(RST_NO_ERROR, fault.topic)

    def _delivery_limit(self, fault: kinds.DeliveryLimit) -> None:
        self._state.conditions.limit_exceeded = fault.exceeded
        if fault.exceeded:
            self._end_all(LIMIT_EXCEEDED)

    def _schema_change(self, fault: kinds.SchemaChange) -> None:
        self._model.change_schema(fault.entity, fault.add, fault.remove)

    def _keepalive(self, fault: kinds.KeepaliveInterval) -> None:
        self._state.timing.keepalive_s = fault.seconds

    def _advance(self, fault: kinds.AdvancePosition) -> None:
        for _ in range(fault.times):
            self._state.bus.advance()

    async def _goaway(self, _: kinds.GoAway) -> None:
        await self._restart()

    def _reset(self, fault: kinds.Reset) -> None:
        self._relay(fault).reset()

    def _freeze(self, fault: kinds.Freeze) -> None:
        self._relay(fault).freeze(fault.seconds)

    def _refuse_connections(self, fault: kinds.RefuseConnections) -> None:
        self._relay(fault).refuse(fault.seconds)

    def _relay(self, fault: kinds.Fault) -> Network:
        if self._network is None:
            raise EmulatorError(f"{fault.kind} needs the TCP relay", "Set relay = true in the scenario")
        return self._network

    def _change_traffic(self, fault: kinds.Traffic) -> None:
        self._traffic.change(rate=fault.rate, total=fault.total, paused=fault.paused)

    def _clear(self, _: kinds.Clear) -> None:
        self._state.conditions = Conditions()
        self._state.api.used_up = False

    def _commit(self, fault: kinds.Commit) -> list[Entry]:
        changes = [
            Change(
                each.op,
                each.entity,
                each.record_id
                or (self._model.new_id(each.entity) if each.op == "create" else self.newest(each.entity)),
                each.fields,
                each.system,
            )
            for each in fault.changes
        ]
        events = self._model.commit(changes, self._state.now_ms(), user=fault.user, origin=fault.origin)
        return self._state.bus.append(events)

    def _gap(self, fault: kinds.Gap) -> list[Entry]:
        now = self._state.now_ms()
        if fault.records and not fault.record_ids and fault.op in {"UPDATE", "DELETE"}:
            ids = self._chosen(fault.entity, (), fault.records)
            wanted = self._plausible.updates(fault.entity, ids, fault.fields) if fault.op == "UPDATE" else ()
            changes = wanted or [Change("delete", fault.entity, record_id) for record_id in ids]
            return self._state.bus.append(self._model.gap_of(fault.op, fault.entity, changes, now))
        fresh = fault.op == "CREATE"
        ids = fault.record_ids or (self._model.new_id(fault.entity) if fresh else self.newest(fault.entity),)
        events = self._model.gap(fault.op, fault.entity, ids, now, fields=fault.fields)
        return self._state.bus.append(events)

    def _overflow(self, fault: kinds.Overflow) -> list[Entry]:
        now = self._state.now_ms()
        chosen = self._model.pick(fault.entity, fault.updates + fault.deletes)
        kept, gone = chosen[: fault.updates], chosen[fault.updates :]
        changes = [
            *self._plausible.updates(fault.entity, kept, {}),
            *(Change("delete", fault.entity, record_id) for record_id in gone),
            *self._plausible.creates(fault.entity, fault.creates, now, {}),
        ]
        return self._state.bus.append(self._model.overflow(fault.entity, now, changes))

    def _wildcard(self, fault: kinds.Wildcard) -> list[Entry]:
        return self._state.bus.append(self._model.wildcard(fault.entity, self._state.now_ms(), fault.fields))

    def _poison(self, fault: kinds.PoisonEvent) -> list[Entry]:
        events = [self._model.poison(fault.entity, self._state.now_ms(), fault.how) for _ in range(fault.events)]
        return self._state.bus.append(events, poison=True)
