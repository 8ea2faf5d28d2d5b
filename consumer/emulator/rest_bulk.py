"""Query jobs of Bulk API 2.0 in the emulated org.

A job is created, runs some time later, and is complete after another while; its rows are those of the moment it ran.
Source: Bulk API 2.0 and Bulk API developer guide, "Query".
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from consumer.emulator.record_ids import numbered_id
from consumer.emulator.rest_errors import RestError, locator_gone, not_found
from consumer.emulator.rest_query import Plan, Result
from consumer.emulator.rest_values import COMPOUND, rest_datetime

State: TypeAlias = Literal["UploadComplete", "InProgress", "JobComplete", "Failed", "Aborted"]

DELIMITERS: Final = {"BACKQUOTE": "`", "CARET": "^", "COMMA": ",", "PIPE": "|", "SEMICOLON": ";", "TAB": "\t"}
LINE_ENDS: Final = {"LF": "\n", "CRLF": "\r\n"}
MAX_RESULTS: Final = 50_000
"""Rows of one answer when the client asks for no number."""
_BEGINS: Final = 0.3
"""Which part of a job's time it waits before it runs."""


@dataclass(slots=True)
class Job:
    """One query job.

    Attributes:
        created: reading of the monotonic clock, seconds.
        created_ms: the org's time.
        result: rows, once it ran.
        failure: why it failed.
        ended: the state that was set from outside or by a failure.
    """

    job_id: str
    operation: str
    plan: Plan
    version: str
    delimiter: str
    line_end: str
    created: float
    created_ms: int
    user_id: str
    result: Result | None = None
    failure: str = ""
    ended: State | None = None
    running: asyncio.Lock = field(default_factory=asyncio.Lock)


class BulkJobs:
    """All query jobs of the org.

    Args:
        now: monotonic seconds.
        now_ms: the org's time, epoch milliseconds.
        duration_s: real seconds from creation to completion.
    """

    def __init__(self, now: Callable[[], float], now_ms: Callable[[], int], duration_s: float) -> None:
        self._now = now
        self._now_ms = now_ms
        self._duration_s = duration_s
        self._jobs: dict[str, Job] = {}
        self._made = 0

    def create(self, order: Mapping[str, Any], plan_of: Callable[[str], Plan], version: str, user_id: str) -> Job:
        """Create a job.

        Raises:
            RestError: the order or its query is not sound.
        """
        operation, text = order.get("operation"), order.get("query")
        if operation not in {"query", "queryAll"} or not isinstance(text, str):
            raise RestError(400, "INVALIDJOB", "InvalidJob : operation must be query or queryAll, and query a text")
        delimiter = DELIMITERS.get(str(order.get("columnDelimiter", "COMMA")))
        line_end = LINE_ENDS.get(str(order.get("lineEnding", "LF")))
        if delimiter is None or line_end is None or order.get("contentType", "CSV") != "CSV":
            raise RestError(400, "INVALIDJOB", "InvalidJob : unknown contentType, columnDelimiter or lineEnding")
        plan = plan_of(text)
        if plan.query.counts or plan.query.offset or plan.query.children:
            what = "aggregates, subqueries and OFFSET"
            raise RestError(400, "INVALIDJOB", f"InvalidJob : {what} aren't supported in bulk queries")
        self._made += 1
        job = Job(
            numbered_id("750", self._made),
            operation,
            plan,
            version,
            delimiter,
            line_end,
            self._now(),
            self._now_ms(),
            user_id,
        )
        self._jobs[job.job_id] = job
        return job

    def get(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            RestError: NOT_FOUND.
        """
        job = self._jobs.get(job_id)
        if job is None:
            raise not_found()
        return job

    def state(self, job: Job) -> State:
        """Return where a job stands."""
        age = self._now() - job.created
        if job.ended is not None:
            return job.ended
        if age < self._duration_s * _BEGINS:
            return "UploadComplete"
        return "InProgress" if job.result is None or age < self._duration_s else "JobComplete"

    async def advance(self, job: Job, fail: Callable[[], bool]) -> None:
        """Run a job whose time has come; ``fail`` tells whether a fault makes it fail."""
        async with job.running:
            if job.result is not None or self.state(job) != "InProgress":
                return
            compound = next((each.column for each in job.plan.fields if each.column.type in COMPOUND), None)
            if compound is not None:
                job.failure = "FeatureNotEnabled : Selecting compound data not supported in Bulk Query"
            elif fail():
                job.failure = "InternalServerError : Retried more than fifteen times"
            else:
                job.result = await job.plan.run(self._now_ms(), deleted=job.operation == "queryAll")
            if job.failure and job.ended is None:
                job.ended = "Failed"

    def abort(self, job: Job) -> None:
        """Abort a job.

        Raises:
            RestError: INVALIDJOBSTATE, it is over already.
        """
        if self.state(job) in {"JobComplete", "Failed", "Aborted"}:
            raise RestError(400, "INVALIDJOBSTATE", f"InvalidJobState : Aborting already {self.state(job)} Job")
        job.ended = "Aborted"

    def delete(self, job: Job) -> None:
        """Delete a job and its results.

        Raises:
            RestError: INVALIDJOBSTATE, it still runs.
        """
        if self.state(job) in {"UploadComplete", "InProgress"}:
            raise RestError(400, "INVALIDJOBSTATE", "InvalidJobState : The job must be complete, failed or aborted")
        del self._jobs[job.job_id]

    def describe(self, job: Job) -> dict[str, Any]:
        """Return a job as the API shows it."""
        state = self.state(job)
        shown: dict[str, Any] = {
            "id": job.job_id,
            "operation": job.operation,
            "object": job.plan.table.name,
            "createdById": job.user_id,
            "createdDate": rest_datetime(job.created_ms),
            "systemModstamp": rest_datetime(self._now_ms()),
            "state": state,
            "concurrencyMode": "Parallel",
            "contentType": "CSV",
            "apiVersion": float(job.version.removeprefix("v")),
            "jobType": "V2Query",
            "lineEnding": next(name for name, text in LINE_ENDS.items() if text == job.line_end),
            "columnDelimiter": next(name for name, text in DELIMITERS.items() if text == job.delimiter),
            "retries": 0,
            "totalProcessingTime": 0,
            "isPkChunkingSupported": True,
        }
        if job.failure:
            shown["errorMessage"] = job.failure
        if state == "JobComplete" and job.result is not None:
            shown["numberRecordsProcessed"] = job.result.total
        return shown

    def results(self, job: Job, version: str, locator: str, wanted: int | None) -> tuple[Result, int, int]:
        """Return a complete job's result, and the first and last place of the rows asked for.

        Raises:
            RestError: another API version, a job that is not complete, or an unknown locator.
        """
        if version != job.version:
            raise RestError(409, "VERSION_MISMATCH", f"The job was created with API version {job.version}")
        if self.state(job) != "JobComplete" or job.result is None:
            raise RestError(400, "INVALIDJOBSTATE", "InvalidJobState : The results aren't available yet")
        start = _place(locator) if locator else 0
        if start < 0 or (start and start >= job.result.total):
            raise locator_gone("InvalidLocator : the locator is unknown")
        return job.result, start, min(job.result.total, start + (wanted or MAX_RESULTS))


def locator_of(place: int) -> str:
    """Return the opaque text that stands for a place in the results."""
    return base64.urlsafe_b64encode(f"row:{place}".encode()).decode().rstrip("=")


def _place(locator: str) -> int:
    try:
        text = base64.urlsafe_b64decode(locator + "=" * (-len(locator) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return -1
    number = text.removeprefix("row:")
    return int(number) if text.startswith("row:") and number.isdigit() else -1
