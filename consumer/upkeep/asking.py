"""Asking the org, and asking again: no failed read ends a job."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from consumer.backoff import Backoff
from consumer.errors import LoginError, LoginUnavailableError, QueryRefusedError, SalesforceApiError, ServiceError
from consumer.pages import RowsPage
from consumer.reactions import policy_for
from consumer.upkeep.context import Context

T = TypeVar("T")

HOUR_MS: Final = 3_600_000
RESPITE_S: Final = 5.0
"""How long a job waits for something it is not told of, such as a schema or a poll, before it looks again, seconds."""

IDS_A_READ: Final = 200
"""Ids of one read by id: more would not fit into the 16,384 bytes of a request (REST API guide)."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A page of rows and the mark taken before it was asked for; the mark must end."""

    page: RowsPage
    mark: int


def asked_before_ms(answered_ms: int) -> int:
    """Return the answer's own ``Date``: nothing that was committed before it is missing from a question put then."""
    return answered_ms - 1000


class Asking:
    """Puts questions of one job to the org until they are answered.

    Args:
        context: what the job works with.
        job: its name, for the observer.
    """

    def __init__(self, context: Context, job: str) -> None:
        self._context = context
        self._job = job

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """Return the answer, however long it takes; between two attempts it waits as the error demands.

        Raises:
            QueryRefusedError: the org will not answer this question.
        """
        backoff = Backoff(self._context.random, first_s=1.0, cap_s=60.0)
        while True:
            try:
                return await question()
            except QueryRefusedError:
                raise
            except (SalesforceApiError, LoginError) as error:
                delay_s = backoff.next_delay(_at_least_s(error))
                self._context.observer.api_call_failed(self._job, error, delay_s)
            await self._context.sleep(delay_s)

    async def rows(self, question: Callable[[], Awaitable[RowsPage]]) -> Reading:
        """Return rows with the mark of the request that brought them; requests that failed leave no mark.

        Raises:
            QueryRefusedError: the org will not answer this question.
        """

        async def marked() -> Reading:
            mark = self._context.reads.begin_read()
            try:
                return Reading(await question(), mark)
            except BaseException:
                self._context.reads.end_read(mark)
                raise

        return await self.ask(marked)

    async def rows_after(self, after_ms: int, question: Callable[[], Awaitable[RowsPage]]) -> Reading:
        """Return rows that were read later than a time of the org; earlier answers are thrown away.

        Args:
            after_ms: epoch milliseconds of the org's time.
            question: the request.

        Raises:
            QueryRefusedError: the org will not answer this question.
        """
        while True:
            reading = await self.rows(question)
            early_ms = after_ms - asked_before_ms(reading.page.answered_ms)
            if early_ms < 0:
                return reading
            self._context.reads.end_read(reading.mark)
            await self._context.sleep(min(60.0, early_ms / 1000 + 1.0))


class Refusals:
    """What the org will not answer: told once, lived with, asked again every hour.

    Args:
        context: what the job works with.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._told: set[tuple[str, str]] = set()
        self._again_ms: dict[tuple[str, str], int] = {}

    def note(self, what: str, entity: str, error: ServiceError) -> None:
        """Take note of a refusal; only the first of its kind is told."""
        self._again_ms[what, entity] = self._context.now_ms() + HOUR_MS
        self.tell(what, entity, error)

    def tell(self, what: str, entity: str, error: ServiceError) -> None:
        """Tell once that something can't be read."""
        if (what, entity) not in self._told:
            self._told.add((what, entity))
            self._context.observer.not_available(what, entity, error)

    def answered(self, what: str, entity: str) -> None:
        """Take note that the org answers again: the next refusal is told."""
        self._told.discard((what, entity))
        self._again_ms.pop((what, entity), None)

    def barred(self, what: str, entity: str) -> bool:
        """Return whether it is too early to ask again."""
        return self._context.now_ms() < self._again_ms.get((what, entity), 0)


async def wait(context: Context, seconds: float) -> None:
    """Wait until something changed, at most some seconds."""
    try:
        async with asyncio.timeout(seconds):
            await context.changed.wait()
    except TimeoutError:
        return


def paced(context: Context, every_ms: int) -> float:
    """Return a poll's interval in seconds, stretched as far as the org's remaining calls demand."""
    return every_ms / 1000 * max(1.0, context.source.pace_factor)


def _at_least_s(error: ServiceError) -> float:
    told_s = error.retry_after_s if isinstance(error, SalesforceApiError | LoginUnavailableError) else 0.0
    return max(policy_for(error).at_least_s, told_s)
