"""Task groups whose failure is one error, not a group of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from consumer.errors import ServiceError


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """Hold a task group open.

    Raises:
        BaseException: the failure worth telling, of the body or of a task (see :func:`first_failure`).
    """
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failures:
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
