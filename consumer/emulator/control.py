"""The emulated org's control API under ``/control``: what was published, what was seen, and faults on order.

It is no part of Salesforce: tests and people steer the org with it.
"""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from consumer.emulator import control_oracle, control_sharing, fault_kinds
from consumer.emulator.faults import Faults
from consumer.emulator.state import ServerState
from consumer.emulator.traffic_gate import TrafficGate
from consumer.errors import EmulatorError

MAX_LEDGER_LINES = 10_000
"""Most ledger lines in one answer."""


class Control:
    """Routes of the control API.

    Args:
        state: what all servers share.
        faults: carries out what is ordered.
        traffic: the generator's gate.
    """

    def __init__(self, state: ServerState, faults: Faults, traffic: TrafficGate) -> None:
        self._state = state
        self._faults = faults
        self._traffic = traffic

    def routes(self) -> list[web.RouteDef]:
        """Return the routes for the application."""
        return [
            web.get("/control", self.index),
            web.get("/control/ledger", self.ledger),
            web.get("/control/stats", self.stats),
            web.get("/control/faults", self.faults),
            web.post("/control/fault", self.fault),
            web.post("/control/publish", self.publish),
            web.post("/control/traffic", self.traffic),
        ]

    async def index(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's handler shape
        """Say what can be asked."""
        return _json(
            {
                "GET /control/ledger?after=N&limit=M": "published events with index > after (-1: all)",
                "GET /control/stats": "streams, credits, calls, logins, violations, traffic",
                "GET /control/faults": "kinds for POST /control/fault and /control/publish",
                "POST /control/fault": '{"kind": ..., its parameters}',
                "POST /control/publish": '{"kind": ..., its parameters}; answers the events',
                "POST /control/traffic": '{"rate", "total", "paused"}, each optional',
                **control_oracle.INDEX,
                **control_sharing.INDEX,
            }
        )

    async def ledger(self, request: web.Request) -> web.Response:
        """List published events in bus order; ``total`` counts all of them."""
        try:
            after = int(request.query.get("after", "-1"))
            limit = int(request.query.get("limit", "1000"))
        except ValueError:
            return _fault("after and limit must be numbers", "")
        if after < -1 or not 0 <= limit <= MAX_LEDGER_LINES:
            return _fault(f"after must be at least -1 and limit 0 to {MAX_LEDGER_LINES}", "")
        ledger = self._state.bus.ledger
        lines = [entry.as_json() for entry in ledger[after + 1 : after + 1 + limit]]
        return _json({"events": lines, "total": len(ledger)})

    async def stats(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's handler shape
        """Show counters, open streams and the state of the traffic."""
        return _json(self.snapshot())

    def snapshot(self) -> dict[str, Any]:
        """Return what ``GET /control/stats`` answers."""
        traffic = self._traffic
        return {
            **self._state.stats.as_json(),
            "streams": [call.describe() for call in self._state.calls],
            "ledger_total": len(self._state.bus.ledger),
            "allowance_left": self._state.allowance_left,
            "traffic": {
                "rate": traffic.rate,
                "total": traffic.total,
                "paused": traffic.paused,
                "emitted": traffic.emitted,
                "done": traffic.done,
            },
        }

    async def faults(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's handler shape
        """List the kinds with one line each."""
        return _json(
            {
                "fault": {kind: each.summary() for kind, each in fault_kinds.FAULTS.items()},
                "publish": {kind: each.summary() for kind, each in fault_kinds.PUBLISH.items()},
            }
        )

    async def fault(self, request: web.Request) -> web.Response:
        """Carry out a fault."""
        return await self._order(request, fault_kinds.FAULTS)

    async def publish(self, request: web.Request) -> web.Response:
        """Publish explicit changes, gap, overflow, wildcard or poison events."""
        return await self._order(request, fault_kinds.PUBLISH)

    async def traffic(self, request: web.Request) -> web.Response:
        """Change rate, total or pause."""
        return await self._order(request, fault_kinds.FAULTS, kind="traffic")

    async def _order(
        self, request: web.Request, kinds: dict[str, type[fault_kinds.Fault]], kind: str | None = None
    ) -> web.Response:
        try:
            body = orjson.loads(await request.read() or b"{}")
        except orjson.JSONDecodeError:
            return _fault("the body is not JSON", "Send a JSON object")
        if not isinstance(body, dict):
            return _fault("the body is not a JSON object", 'Send {"kind": ...}')
        if kind is None:
            kind = body.pop("kind", None)
        try:
            entries = await self._faults.apply(fault_kinds.parse_fault(kind, body, kinds))
        except EmulatorError as error:
            return _fault(error.message, error.advice)
        return _json({"done": kind, "events": [entry.as_json() for entry in entries]})


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS), content_type="application/json")


def _fault(message: str, advice: str) -> web.Response:
    return web.json_response({"error": message, "advice": advice}, status=400)
