"""Task groups whose failure is one error, not a group of them, and that never swallow a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Generator
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any, TypeVar

from consumer.errors import ServiceError

T = TypeVar("T")


class _Group(asyncio.TaskGroup):
    """Knows which of its tasks are not done."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: set[asyncio.Task[Any]] = set()

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """Start a task."""
        task = super().create_task(coro, name=name, context=context)
        self.pending.add(task)
        task.add_done_callback(self.pending.discard)
        return task


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """Hold a task group open.

    asyncio's own group tells only the failure when this task is cancelled while one of the group fails (CPython 3.11
    and 3.12). Whoever handles the failure then goes on, and whoever cancelled waits for ever.

    Raises:
        BaseException: the failure worth telling, of the body or of a task (see :func:`first_failure`).
        CancelledError: this task was cancelled, whatever failed at the same moment.
    """
    this = asyncio.current_task()
    before = 0 if this is None else this.cancelling()
    try:
        async with _Group() as group:
            yield group
            # Waited for here and not at the group's exit, where a failure would be counted as a cancellation.
            while group.pending:
                await asyncio.wait(group.pending)
    except BaseExceptionGroup as failures:
        if this is not None and this.cancelling() > before:
            raise asyncio.CancelledError from failures
        raise first_failure(failures) from failures


def first_failure(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the failure worth telling: the first unexpected one, else the first of ours."""
    _, unexpected = failures.split(ServiceError)
    error: BaseException = failures if unexpected is None else unexpected
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def cancel(task: asyncio.Task[object]) -> None:
    """Cancel a task and wait until it has ended."""
    task.cancel()
    await asyncio.wait([task])
