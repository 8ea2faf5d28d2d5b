"""What truly happened in the emulated org, over the control API: records, changes and losses, line by line."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
from aiohttp import web

from consumer.emulator.oracle_truth import Truth, true_records
from consumer.emulator.org import OrgModel
from consumer.emulator.state import ServerState
from consumer.errors import EmulatorError

INDEX = {
    "GET /control/clock": "the org's time, its speed, how far it is ahead of the machine",
    "GET /control/oracle/records?entity=E": "every record as it is now, one JSON line each",
    "GET /control/oracle/changes?entity=E&after=N": "every true field change, one JSON line each (oracle = true)",
    "GET /control/oracle/losses?entity=E&sent=1": "what no event tells, one JSON line each (oracle = true); sent=1 "
    "lists expired events too that had left on a stream",
}
"""What ``GET /control`` says of these routes."""

_LINES = 500


class OracleControl:
    """Routes of the oracle.

    Args:
        state: clock and bus.
        model: the org.
    """

    def __init__(self, state: ServerState, model: OrgModel) -> None:
        self._state = state
        self._model = model

    def routes(self) -> list[web.RouteDef]:
        """Return the routes for the application."""
        return [
            web.get("/control/clock", self.clock),
            web.get("/control/oracle/records", self.records),
            web.get("/control/oracle/changes", self.changes),
            web.get("/control/oracle/losses", self.losses),
        ]

    async def clock(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's handler shape
        """Tell the org's time."""
        return web.json_response(self._state.clock.as_json())

    async def records(self, request: web.Request) -> web.StreamResponse:
        """List an object's records, and the ids of those gone for good."""
        entity = request.query.get("entity", "MessagingSession")
        if entity not in self._model.entities():
            return refusal(f"The org has no change events of {entity}", "Name one of its entities")
        return await answer_lines(request, self.record_lines(entity))

    def record_lines(self, entity: str) -> Iterator[dict[str, object]]:
        """Yield what ``records`` answers."""
        self._model.settle(self._state.now_ms())
        yield from true_records(self._model.store, entity)
        present = self._model.store.table(entity)
        for record_id, deleted_ms in tuple(self._model.delete_log(entity).items()):
            if record_id not in present:
                yield {"record_id": record_id, "deleted": True, "purged": True, "deleted_ms": deleted_ms}

    async def changes(self, request: web.Request) -> web.StreamResponse:
        """List every true field change in the order of commits."""
        try:
            truth, after = self._truth(), int(request.query.get("after", "-1"))
        except EmulatorError as error:
            return refusal(error.message, error.advice)
        except ValueError:
            return refusal("after must be a number", "Give the index of the last line you have")
        return await answer_lines(request, truth.changes(after, request.query.get("entity", "")))

    async def losses(self, request: web.Request) -> web.StreamResponse:
        """List what no event tells in full; events past the retention come last."""
        try:
            self._truth()
        except EmulatorError as error:
            return refusal(error.message, error.advice)
        query = request.query
        lines = self.loss_lines(sent=query.get("sent", "0") not in {"", "0"})
        wanted = query.get("entity", "")
        return await answer_lines(request, (line for line in lines if line["entity"] in {wanted or line["entity"], ""}))

    def loss_lines(self, *, sent: bool = False) -> Iterator[dict[str, Any]]:
        """Yield what ``losses`` answers.

        Args:
            sent: whether expired events that had left on some stream are listed too.

        Raises:
            EmulatorError: the scenario does not keep the truth.
        """
        truth = self._truth()
        for loss in truth.losses():
            yield loss.as_json()
        gone = [entry for entry in self._state.bus.ledger if not entry.wire and (sent or not entry.sent)]
        said = truth.said(entry.event_id for entry in gone)
        for entry in gone:
            ops, fields = said[entry.event_id]
            yield {
                "kind": "expired",
                "entity": entry.entity,
                "record_ids": list(entry.record_ids),
                "commit_ms": entry.commit_ms,
                "event_id": entry.event_id,
                "change_type": entry.change_type,
                "published": True,
                "ops": sorted(ops),
                "fields": sorted(fields),
                "sent": entry.sent,
                "index": entry.index,
                "replay_id": b64encode(entry.replay_id).decode(),
            }

    def _truth(self) -> Truth:
        if self._model.truth is None:
            raise EmulatorError("the scenario does not keep what happened", "Set oracle = true in the scenario")
        return self._model.truth


async def answer_lines(request: web.Request, lines: Iterable[dict[str, Any]]) -> web.StreamResponse:
    """Answer JSON lines as they come."""
    response = web.StreamResponse()
    response.content_type = "application/x-ndjson"
    await response.prepare(request)
    block: list[bytes] = []
    for line in lines:
        block.append(orjson.dumps(line) + b"\n")
        if len(block) >= _LINES:
            await response.write(b"".join(block))
            block.clear()
    await response.write(b"".join(block))
    await response.write_eof()
    return response


def refusal(message: str, advice: str) -> web.Response:
    """Return the control API's way to say no."""
    return web.json_response({"error": message, "advice": advice}, status=400)
