"""Bulk API 2.0 query jobs: made, waited for, read page by page, and removed.

A job's results can be read again from any locator for seven days, so a reader goes on from (job id, locator) after
a restart. Facts: Bulk API 2.0 guide.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from consumer.backoff import Backoff
from consumer.errors import QueryRefusedError, SalesforceUnavailableError
from consumer.events import Json
from consumer.salesforce.oauth_errors import printable
from consumer.salesforce.rest import Call, RestClient
from consumer.tracking.values import Row

MAX_PAGE_BYTES = 256 << 20
"""20,000 rows of 13 KiB."""

WAIT_FIRST_S = 1.0
WAIT_LONGEST_S = 30.0
WAIT_IN_ALL_S = 12 * 3600.0
"""A job that is not done by then will not be: results are kept for days, but a query has its own limits."""

_JOBS = "/jobs/query"
_ENDED = frozenset({"JobComplete", "Failed", "Aborted"})
_JOB_ID = re.compile(r"[A-Za-z0-9]{15,18}", re.ASCII)
_AGAIN = "Start the snapshot again; Bulk jobs are listed in Setup > Bulk Data Load Jobs."

csv.field_size_limit(4 << 20)  # csv's own limit is what one rich text field may hold, to the character


class CsvRows:
    """Reads a page of results as it arrives; memory holds one piece of text and the rows.

    A row ends at a line end outside of quotes, and inside of quotes a quote stands doubled: so a line end is a
    row's when the quotes before it are even in number.

    Args:
        row: makes a row of the columns by name.
    """

    def __init__(self, row: Callable[[Mapping[str, str]], Row]) -> None:
        self._row = row
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text: list[str] = []
        self._quoted = False
        self._header: list[str] | None = None
        self._bytes = 0
        self._rows: list[Row] = []

    def feed(self, piece: bytes) -> None:
        """Take the next piece.

        Raises:
            ValueError: it is no UTF-8, no CSV, or too much.
            RowError: a value does not fit its field.
        """
        self._bytes += len(piece)
        if self._bytes > MAX_PAGE_BYTES:
            raise ValueError("too large")
        self._take(self._decoder.decode(piece))

    def end(self) -> list[Row]:
        """Return the rows; an answer without even a header line is no result."""
        self._take(self._decoder.decode(b"", final=True))
        self._parse("".join(self._text))
        if self._header is None or self._quoted:
            raise ValueError("no complete CSV")
        return self._rows

    def _take(self, text: str) -> None:
        """Parse up to the last line end outside of quotes, keep the rest."""
        quoted, end, start = self._quoted, 0, 0
        for segment in text.split('"'):
            if not quoted:
                last = segment.rfind("\n")
                if last >= 0:
                    end = start + last + 1
            start += len(segment) + 1
            quoted = not quoted
        self._quoted = not quoted  # one toggle more than there are quotes
        if not end:
            self._text.append(text)
            return
        complete = "".join((*self._text, text[:end]))
        self._text = [text[end:]]
        self._parse(complete)

    def _parse(self, text: str) -> None:
        # newline="" keeps the line ends inside of values as they are.
        try:
            for columns in csv.reader(io.StringIO(text, newline=""), strict=True):
                self._line(columns)
        except csv.Error as error:
            raise ValueError("no CSV") from error

    def _line(self, columns: list[str]) -> None:
        if not columns:
            return
        if self._header is None:
            self._header = columns
            return
        self._rows.append(self._row(dict(zip(self._header, columns, strict=True))))


@dataclass(frozen=True, slots=True)
class BulkPage:
    """One page of results; ``locator`` leads to the next, None after the last."""

    rows: list[Row]
    locator: str | None
    answered_ms: int


@dataclass(slots=True)
class BulkJobs:
    """Query jobs of one org.

    Args:
        rest: the org's REST API, of the version that results must be read with too.
        random: returns a number in [0, 1).
        monotonic_s: monotonic clock, seconds.
    """

    rest: RestClient
    random: Callable[[], float]
    monotonic_s: Callable[[], float]
    _complete: set[str] = field(default_factory=set)

    async def start(self, query: str, *, repair: bool) -> str:
        """Create a queryAll job and return its id.

        When its answer is lost it is not asked for again, so that no job is left behind unread.
        """
        answer = await self.rest.json(
            Call("POST", _JOBS, json={"operation": "queryAll", "query": query}, repair=repair, repeatable=False)
        )
        job_id = answer.body.get("id") if isinstance(answer.body, dict) else None
        if not isinstance(job_id, str) or _JOB_ID.fullmatch(job_id) is None:
            raise SalesforceUnavailableError("Salesforce made a Bulk job and did not tell its id", _AGAIN)
        return job_id

    async def page(
        self, job_id: str, locator: str | None, limit: int, row: Callable[[Mapping[str, str]], Row]
    ) -> BulkPage:
        """Wait for the job, then return the next page of its results."""
        await self._wait(job_id)
        params = {"maxRecords": str(limit)} | ({"locator": locator} if locator else {})
        call = Call("GET", f"{_path(job_id)}/results", params, headers={"Accept": "text/csv"}, repair=True)
        answer = await self.rest.ask(call, lambda: CsvRows(row))
        promised = answer.headers.get("Sforce-NumberOfRecords", "")
        if promised.isdecimal() and int(promised) != len(answer.body):
            raise SalesforceUnavailableError(
                f"A page of Bulk results has {len(answer.body)} rows, but says it has {int(promised)}",
                "The page is read again.",
            )
        following = answer.headers.get("Sforce-Locator", "null").strip()
        return BulkPage(answer.body, None if following in {"null", ""} else following, answer.answered_ms)

    async def end(self, job_id: str) -> None:
        """Delete the job; one that still runs is aborted first, and one that is gone is as good as deleted."""
        self._complete.discard(job_id)
        try:
            state, _ = await self._state(job_id)
            if state not in _ENDED:
                await self.rest.json(Call("PATCH", _path(job_id), json={"state": "Aborted"}, repair=True))
            await self.rest.json(Call("DELETE", _path(job_id), repair=True))
        except QueryRefusedError as error:
            if error.code != "NOT_FOUND":
                raise

    async def _wait(self, job_id: str) -> None:
        if job_id in self._complete:
            return
        until_s = self.monotonic_s() + WAIT_IN_ALL_S
        waits = Backoff(self.random, first_s=WAIT_FIRST_S, cap_s=WAIT_LONGEST_S)
        while True:
            state, reason = await self._state(job_id)
            if state == "JobComplete":
                self._complete.add(job_id)
                return
            if state in _ENDED:
                why = f" ({reason})" if reason else ""
                raise QueryRefusedError(f"A Bulk job ended as {state}{why}", _AGAIN, code=f"JOB_{state.upper()}")
            if self.monotonic_s() > until_s:
                raise QueryRefusedError("A Bulk job did not end", _AGAIN, code="JOB_ENDLESS")
            await self.rest.sleep(waits.next_delay(at_least_s=WAIT_FIRST_S))

    async def _state(self, job_id: str) -> tuple[str, str]:
        """Return the job's state, and why it failed if it did."""
        answer = await self.rest.json(Call("GET", _path(job_id), repair=True))
        body: Json = answer.body if isinstance(answer.body, dict) else {}
        return printable(body.get("state"), 32), printable(body.get("errorMessage"), 200)


def _path(job_id: str) -> str:
    if _JOB_ID.fullmatch(job_id) is None:
        raise QueryRefusedError("The id of a Bulk job has other characters than ids have", _AGAIN)
    return f"{_JOBS}/{job_id}"
