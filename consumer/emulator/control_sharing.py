"""What truly happened to sharing and feeds in the emulated org, over the control API, line by line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiohttp import web

from consumer.emulator.control_oracle import answer_lines, refusal
from consumer.emulator.org import OrgModel
from consumer.emulator.org_share_truth import ShareTruth
from consumer.emulator.state import ServerState
from consumer.errors import EmulatorError

INDEX = {
    "GET /control/oracle/shares?parent=ID": "life of every share, a JSON line for each unchanged level (oracle = true)",
    "GET /control/oracle/share_gaps?parent=ID": "moments in which a row was away between two Ids (oracle = true)",
    "GET /control/oracle/share_rows?parent=ID": "every share row as it is now, one JSON line each",
    "GET /control/oracle/rules": "every sharing rule created, changed, deleted, one JSON line each (oracle = true)",
    "GET /control/oracle/feed?after=N": "what happened to feed items, one JSON line each (oracle = true)",
    "GET /control/oracle/settled": "whether recalculations are under way, and the spans in which none were",
}
"""What ``GET /control`` says of these routes."""


class SharingOracle:
    """Routes of the oracle that tell of sharing and feeds.

    Args:
        state: the clock.
        model: the org.
    """

    def __init__(self, state: ServerState, model: OrgModel) -> None:
        self._state = state
        self._model = model
        self._sharing = model.sharing

    def routes(self) -> list[web.RouteDef]:
        """Return the routes for the application."""
        told: dict[str, Callable[[web.Request], Iterable[dict[str, Any]]]] = {
            "shares": lambda request: self._truth().share_lines(request.query.get("parent", "")),
            "share_gaps": lambda request: self._truth().gap_lines(request.query.get("parent", "")),
            "share_rows": lambda request: self._rows(request.query.get("parent", "")),
            "rules": lambda _: self._truth().rule_lines(),
            "feed": self._feed,
        }
        found = [web.get(f"/control/oracle/{name}", self._answer(lines)) for name, lines in told.items()]
        return [*found, web.get("/control/oracle/settled", self.settled)]

    def _answer(
        self, lines: Callable[[web.Request], Iterable[dict[str, Any]]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            self._model.settle(self._state.now_ms())
            try:
                found = lines(request)
            except EmulatorError as error:
                return refusal(error.message, error.advice)
            return await answer_lines(request, found)

        return answer

    def _truth(self) -> ShareTruth:
        if self._sharing.truth is None:
            raise EmulatorError("the scenario does not keep what happened", "Set oracle = true in the scenario")
        return self._sharing.truth

    def _rows(self, parent_id: str) -> Iterable[dict[str, Any]]:
        rows = self._sharing.rows.of(parent_id) if parent_id else self._sharing.rows.by_id()
        for row in rows:
            if not row.gone:
                yield {
                    "share_id": row.share_id,
                    "parent_id": row.parent_id,
                    "user_or_group_id": row.grantee,
                    "row_cause": row.cause,
                    "access_level": row.level,
                    "modified_ms": row.stamp_ms,
                    "modified_by": row.by,
                    "hidden_until_ms": row.hidden_until_ms,
                }

    def _feed(self, request: web.Request) -> Iterable[dict[str, Any]]:
        self._truth()
        after = request.query.get("after", "-1")
        if not after.removeprefix("-").isdigit():
            raise EmulatorError("after must be a number", "Give the index of the last line you have")
        return self._model.feed.lines(int(after))

    async def settled(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's handler shape
        """Tell whether all rows are as rules and memberships say; ``spans`` only where the truth is kept."""
        now_ms = self._state.now_ms()
        self._model.settle(now_ms)
        truth = self._sharing.truth
        return web.json_response(
            {
                "now_ms": now_ms,
                "active": self._sharing.active,
                "settled": self._sharing.settled,
                "recalculations": self._sharing.recalculations,
                "unseen_rows": self._sharing.hidden_rows(now_ms),
                "rows": self._sharing.rows.count,
                "spans": None if truth is None else truth.settled_spans(),
            }
        )
