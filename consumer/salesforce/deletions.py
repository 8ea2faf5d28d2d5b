"""The delete log of an object: getDeleted over spans of any size (REST API guide, "Get Deleted")."""

from __future__ import annotations

from consumer.changes.canonical import date_time
from consumer.changes.record_ids import to_18
from consumer.changes.row_values import epoch_ms
from consumer.errors import QueryRefusedError, SalesforceUnavailableError
from consumer.pages import DeletedIds
from consumer.salesforce.queries import name
from consumer.salesforce.rest import Asks, Call

BACK_MS = 15 * 86_400_000 - 300_000
"""15 days back, less what our clock and the answer's way may take."""

_MINUTE_MS = 60_000


async def deleted_ids(rest: Asks, entity: str, from_ms: int, to_ms: int, *, repair: bool = True) -> DeletedIds:
    """Return what was deleted in a span.

    The log ignores seconds, so the span goes to whole minutes outwards. A span with more ids than one answer holds
    is halved. What lies further back than the log can reach is left out, and ``earliest_ms`` says so.
    """
    start = max(from_ms, rest.clock.now_ms() - BACK_MS) // _MINUTE_MS * _MINUTE_MS
    end = max(-(-to_ms // _MINUTE_MS) * _MINUTE_MS, start + _MINUTE_MS)
    ids: dict[str, int] = {}
    earliest_ms, covered_ms = start, start
    waiting = [(start, end)]
    while waiting:
        part_from, part_to = waiting.pop()
        try:
            found = await _ask(rest, entity, part_from, part_to, repair=repair)
        except QueryRefusedError as error:
            middle = (part_from + part_to) // 2 // _MINUTE_MS * _MINUTE_MS
            if error.code != "EXCEEDED_ID_LIMIT" or middle in {part_from, part_to}:
                raise
            waiting += [(middle, part_to), (part_from, middle)]
            continue
        ids |= found.ids
        earliest_ms = max(earliest_ms, found.earliest_ms)
        covered_ms = found.covered_to_ms
        if covered_ms < part_to:
            break  # later parts would leave a hole before them
    return DeletedIds(ids, earliest_ms, covered_ms)


async def _ask(rest: Asks, entity: str, from_ms: int, to_ms: int, *, repair: bool) -> DeletedIds:
    params = {"start": _text(from_ms), "end": _text(to_ms)}
    answer = await rest.json(Call("GET", f"/sobjects/{name(entity)}/deleted/", params, repair=repair))
    try:
        body = answer.body
        ids = {to_18(item["id"]): epoch_ms(item["deletedDate"]) for item in body["deletedRecords"]}
        return DeletedIds(ids, epoch_ms(body["earliestDateAvailable"]), epoch_ms(body["latestDateCovered"]))
    except (TypeError, KeyError, ValueError) as error:
        raise SalesforceUnavailableError(
            "Salesforce sent an answer that is no delete log", "Check that no proxy answers in Salesforce's place."
        ) from error


def _text(moment_ms: int) -> str:
    return str(date_time(moment_ms)).replace(".000Z", "+00:00")
