"""The bounded buffer between stream and pipeline."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from consumer.buffer import EventBuffer
from consumer.events import StreamItem
from consumer.tasks import task_group
from tests.fakes import event, keepalive, virtual


def test_items_leave_in_the_order_they_came_in_and_never_more_than_asked_for() -> None:
    buffer = EventBuffer(10, 1000)
    items: list[StreamItem] = [event(1), keepalive(1), event(2), event(3)]
    for item in items:
        buffer.put(item)
    assert buffer.events == 3
    assert [*buffer.take(3), *buffer.take(3)] == items
    assert (buffer.events, buffer.take(3)) == (0, [])


def test_room_is_counted_in_events_and_ends_with_the_bytes() -> None:
    buffer = EventBuffer(3, 20)
    assert buffer.room == 3
    buffer.put(event(1))
    assert buffer.room == 2
    buffer.put(keepalive(1))
    assert buffer.room == 2, "a keep-alive needs no credit"
    buffer.put(replace(event(2), payload=b"x" * 30))
    assert buffer.room == 0
    buffer.take(10)
    assert buffer.room == 3


def test_room_is_never_negative() -> None:
    buffer = EventBuffer(1, 1000)
    buffer.put(event(1))
    buffer.put(event(2))
    assert buffer.room == 0


def test_only_the_newest_of_several_keepalives_in_a_row_is_kept() -> None:
    """A long outage of Kafka must not fill the memory with keep-alives."""
    buffer = EventBuffer(10, 1000)
    items: list[StreamItem] = [keepalive(1), keepalive(2), event(3), keepalive(3), keepalive(4)]
    for item in items:
        buffer.put(item)
    assert buffer.take(10) == [keepalive(2), event(3), keepalive(4)]


def test_the_taker_is_woken_by_an_item_and_by_the_end() -> None:
    async def main() -> None:
        buffer = EventBuffer(10, 1000)
        async with task_group() as group:
            waiting = group.create_task(buffer.wait_filled())
            await asyncio.sleep(1)
            assert not waiting.done()
            buffer.put(event(1))
            await waiting
            buffer.take(10)
            waiting = group.create_task(buffer.wait_filled())
            await asyncio.sleep(1)
            assert not waiting.done()
            buffer.close()
            await waiting
        assert buffer.closed
        buffer.take(10)
        await buffer.wait_filled()

    virtual(main())


def test_the_putter_is_woken_once_per_taking() -> None:
    async def main() -> None:
        buffer = EventBuffer(10, 1000)
        buffer.put(event(1))
        async with task_group() as group:
            waiting = group.create_task(buffer.wait_drained())
            await asyncio.sleep(1)
            assert not waiting.done()
            buffer.take(1)
            await waiting
            waiting = group.create_task(buffer.wait_drained())
            buffer.take(1)
            await asyncio.sleep(1)
            assert not waiting.done(), "nothing was there to be taken"
            waiting.cancel()

    virtual(main())
