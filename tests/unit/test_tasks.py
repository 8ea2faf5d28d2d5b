"""Task groups: one failure is told, and a cancellation is never swallowed by one."""

from __future__ import annotations

import asyncio

import pytest

from consumer.errors import KafkaUnavailableError, ServiceError
from consumer.tasks import cancel, task_group
from tests.fakes import virtual


async def _fail(after_s: float, error: Exception) -> None:
    await asyncio.sleep(after_s)
    raise error


async def _fail_when_cancelled() -> None:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        raise KafkaUnavailableError("the abort failed") from None


def test_the_failure_of_a_task_is_told_as_it_is_and_ends_the_others() -> None:
    async def main() -> None:
        others: list[asyncio.Task[None]] = []

        async def hold() -> None:
            async with task_group() as group:
                others.append(group.create_task(asyncio.sleep(3600)))
                group.create_task(_fail(1, KafkaUnavailableError("down")))

        with pytest.raises(KafkaUnavailableError):
            await hold()
        assert others[0].cancelled()

    virtual(main())


def test_a_defect_is_told_before_a_failure_that_was_expected() -> None:
    async def main() -> None:
        async def hold() -> None:
            async with task_group() as group:
                group.create_task(_fail_when_cancelled())
                group.create_task(_fail(1, ZeroDivisionError()))

        with pytest.raises(ZeroDivisionError):
            await hold()

    virtual(main())


@pytest.mark.parametrize("in_body", [True, False])
@pytest.mark.parametrize("how", ["same moment", "while cancelled"])
def test_a_cancellation_is_told_whatever_fails_at_the_same_moment(how: str, in_body: bool) -> None:
    """Otherwise a supervisor that handles the failure goes on, and whoever cancelled it waits for ever."""

    async def holds() -> None:
        async with task_group() as group:
            if how == "same moment":
                group.create_task(_fail(1, KafkaUnavailableError("down")))
            else:
                group.create_task(_fail_when_cancelled())
            if in_body:
                await asyncio.sleep(3600)

    async def supervises() -> None:
        for _ in range(100):
            try:
                await holds()
            except ServiceError:
                continue

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(supervises())
            await asyncio.sleep(1)
            await cancel(task)
        assert task.cancelled()

    virtual(main())


@pytest.mark.parametrize("in_body", [True, False])
def test_a_failure_leaves_no_cancellation_behind(in_body: bool) -> None:
    async def main() -> None:
        async def hold() -> None:
            async with task_group() as group:
                group.create_task(_fail(1, KafkaUnavailableError("down")))
                if in_body:
                    await asyncio.sleep(3600)

        for _ in range(3):
            with pytest.raises(KafkaUnavailableError):
                await hold()
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0

    virtual(main())
