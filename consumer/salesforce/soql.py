"""Runs a query to its end, over as many answers as the server makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from consumer.errors import QueryRefusedError, SalesforceUnavailableError
from consumer.events import Json
from consumer.salesforce.rest import Answer, Asks, Call

BATCH_ROWS = range(200, 2001)
"""What ``batchSize`` may ask for; answers may be shorter all the same (REST API guide, "Query Options Header")."""

_MOST_ANSWERS = 10_000
_OWN_PATH = "/services/data/"


@dataclass(frozen=True, slots=True)
class Found:
    """Rows of one query.

    Attributes:
        records: as REST writes them.
        complete: False when the server's cursor was gone before the end; what was read before is right.
        total: ``totalSize``.
        answered_ms: the last answer's ``Date`` + 1 s. The rows of earlier answers were read before that, which errs
            towards "this event may be in the row already".
        first_answered_ms: the first answer's ``Date`` + 1 s: what was committed after it may be missing.
    """

    records: list[Mapping[str, Json]]
    complete: bool
    total: int
    answered_ms: int
    first_answered_ms: int


class Soql:
    """Queries of one org.

    Args:
        rest: the org's REST API.
    """

    def __init__(self, rest: Asks) -> None:
        self._rest = rest

    async def run(self, query: str, *, deleted: bool, repair: bool, rows: int = 2000) -> Found:
        """Run a query; a short answer is not its end, only ``done`` is.

        Args:
            query: SOQL.
            deleted: whether deleted rows come too (queryAll).
            repair: whether the reserve of calls may be used.
            rows: how many an answer should have.
        """
        options = {"Sforce-Query-Options": f"batchSize={min(max(rows, BATCH_ROWS.start), BATCH_ROWS.stop - 1)}"}
        path = "/queryAll" if deleted else "/query"
        answer = await self._rest.json(Call("GET", f"{path}/", {"q": query}, headers=options, repair=repair))
        return await self._to_the_end(answer, options, repair=repair)

    async def following(self, path: str) -> Found:
        """Read to its end what begins at a ``nextRecordsUrl`` that stands inside of a row.

        Raises:
            SalesforceUnavailableError: it leads elsewhere, or the cursor was gone before the end.
        """
        if not path.startswith(_OWN_PATH):
            raise _no_page()
        try:
            found = await self._to_the_end(await self._rest.json(Call("GET", path)), {}, repair=False)
        except QueryRefusedError as error:
            if error.code != "INVALID_QUERY_LOCATOR":
                raise
            raise cursor_gone() from error
        if not found.complete:
            raise cursor_gone()
        return found

    async def _to_the_end(self, answer: Answer[Json], options: Mapping[str, str], *, repair: bool) -> Found:
        records, following, total = _page(answer)
        first_ms = answer.answered_ms
        for _ in range(_MOST_ANSWERS):
            if following is None:
                return Found(
                    records, complete=True, total=total, answered_ms=answer.answered_ms, first_answered_ms=first_ms
                )
            try:
                answer = await self._rest.json(Call("GET", following, headers=options, repair=repair))
            except QueryRefusedError as error:
                if error.code != "INVALID_QUERY_LOCATOR" or not records:
                    raise
                return Found(
                    records, complete=False, total=total, answered_ms=answer.answered_ms, first_answered_ms=first_ms
                )
            more, following, _ = _page(answer)
            records.extend(more)
        raise _no_page()


def _page(answer: Answer[Json]) -> tuple[list[Mapping[str, Json]], str | None, int]:
    body = answer.body
    if not isinstance(body, dict):
        raise _no_page()
    records, done, total = body.get("records"), body.get("done"), body.get("totalSize")
    if not isinstance(records, list) or not isinstance(done, bool) or not isinstance(total, int):
        raise _no_page()
    if done:
        return records, None, total
    following = body.get("nextRecordsUrl")
    # It is added to the org's own address; anything but a path there could lead the token elsewhere.
    if not isinstance(following, str) or not following.startswith(_OWN_PATH):
        raise _no_page()
    return records, following, total


def cursor_gone() -> SalesforceUnavailableError:
    """Return the error of a query whose rows are only good together, and that lost its cursor before the end."""
    return SalesforceUnavailableError("A query's cursor was gone before its end", "It is asked again.")


def _no_page() -> SalesforceUnavailableError:
    return SalesforceUnavailableError(
        "Salesforce sent an answer that is no page of a query", "Check that no proxy answers in Salesforce's place."
    )
