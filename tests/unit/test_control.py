"""Commands from the control topic: which count, and what they do to this worker's subscriptions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, Self

import pytest

from consumer import control
from consumer.control import Commands, in_force
from consumer.delivery.control import (
    Command,
    ControlEntry,
    Pause,
    Resume,
    RetryQuarantine,
    Withdrawn,
    command_key,
    encode_command,
)
from consumer.errors import KafkaUnavailableError
from consumer.events import OutboundRecord
from consumer.kafka.control import ControlRecord
from consumer.tasks import task_group
from tests.fakes import TOPICS, Rig, event, virtual

A, B = "/data/A__chn", "/data/B__chn"


def pause(channel: str | None = None, at: int = 1) -> Pause:
    return Pause(channel, at, "me")


def resume(channel: str | None = None, at: int = 2) -> Resume:
    return Resume(channel, at, "me")


def retry(name: str = "r1", *window_ids: str) -> RetryQuarantine:
    return RetryQuarantine(name, window_ids or None, 3, "me")


@pytest.mark.parametrize(
    ("entries", "counting"),
    [
        ([], []),
        ([pause()], [pause()]),
        ([pause(), resume()], [resume()]),
        ([pause(A), resume(B)], [pause(A), resume(B)]),
        ([pause(A), resume()], [resume()]),
        ([pause(), resume(A)], [pause(), resume(A)]),
        ([resume(), pause()], [pause()]),
        ([pause(), Withdrawn("pause:*")], []),
        ([retry(), pause(), Withdrawn("retry:r1")], [pause()]),
        ([retry("r1"), retry("r2"), resume()], [retry("r1"), retry("r2"), resume()]),
    ],
)
def test_what_counts_is_what_was_neither_withdrawn_nor_overruled(
    entries: list[ControlEntry], counting: list[Command]
) -> None:
    assert in_force(entries) == counting


class FakeTail:
    """Stands in for the topic's reader: what is there at each reconnect, then what is added."""

    def __init__(self, log: list[ControlEntry]) -> None:
        self.log = log
        self.added: asyncio.Queue[ControlEntry | Exception] = asyncio.Queue()
        self.left = 0

    def __call__(self, *_: Any) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.left += 1

    async def past(self) -> list[ControlRecord]:
        return [_record(entry) for entry in self.log]

    async def follow(self) -> AsyncGenerator[ControlRecord, None]:
        while True:
            entry = await self.added.get()
            if isinstance(entry, Exception):
                raise entry
            self.log.append(entry)
            yield _record(entry)


def _record(entry: ControlEntry) -> ControlRecord:
    record = encode_command(TOPICS, entry, 0)
    return ControlRecord(0, 0, record.key, record.value, (), 0)


class Desk:
    """A worker's subscriptions, steered by a fake topic."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *log: ControlEntry) -> None:
        self.tail = FakeTail(list(log))
        self.sent: list[OutboundRecord] = []
        self.told: list[Command] = []
        monkeypatch.setattr(control, "ControlTail", self.tail)
        monkeypatch.setattr(control, "send_command", self._send)
        self.commands = Commands(None, TOPICS)  # type: ignore[arg-type]  # only the fake tail would use it
        self._news = asyncio.Event()

    async def _send(self, _: object, record: OutboundRecord) -> None:
        self.sent.append(record)
        self._news.set()

    async def once(self, *rigs: Rig) -> None:
        """Follow the topic until it fails."""
        with pytest.raises(KafkaUnavailableError):
            await self._follow([rig.subscription for rig in rigs])

    async def _follow(self, subscriptions: list[Any]) -> None:
        async with self.commands, task_group() as group:
            async for command in self.commands.follow():
                self.told.append(command)
                self._news.set()
                self.commands.apply(command, subscriptions, group)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._news.clear()
            await self._news.wait()


def test_an_old_resume_does_not_end_a_new_halt_after_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        desk, rig = Desk(monkeypatch, resume()), Rig()
        for _ in range(3):
            desk.tail.added.put_nowait(KafkaUnavailableError("down"))
            await desk.once(rig)
        assert desk.told == [resume()]
        desk.tail.log.append(resume(at=9))
        desk.tail.added.put_nowait(KafkaUnavailableError("down"))
        await desk.once(rig)
        assert desk.told == [resume(), resume(at=9)], "given during the outage"
        assert desk.tail.left == 4

    virtual(main())


def test_a_pause_from_before_the_start_holds_the_start_and_a_resume_lets_it_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        desk, rig = Desk(monkeypatch, pause()), Rig([event(1)])
        async with task_group() as group:
            following = group.create_task(desk.once(rig))
            await desk.until(lambda: desk.told == [pause()])
            working = group.create_task(rig.subscription.run())
            await asyncio.sleep(10)
            assert rig.kafka.opens == 0
            desk.tail.added.put_nowait(resume())
            await rig.until_committed("e1")
            rig.subscription.stop()
            await working
            following.cancel()

    virtual(main())


def test_pause_and_resume_mean_one_channel_or_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        desk, here, there = Desk(monkeypatch), Rig(), Rig()
        there.subscription.channel = A
        async with task_group() as group:
            for command, wanted in (
                (pause(A), [False, True]),
                (pause(), [True, True]),
                (resume(here.subscription.channel), [False, True]),
                (resume(), [False, False]),
            ):
                desk.commands.apply(command, [here.subscription, there.subscription], group)
                assert [each.subscription._pause_wanted for each in (here, there)] == wanted

    virtual(main())


def test_a_retry_is_withdrawn_when_all_that_work_here_have_carried_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        bad = [event(1, bad=True), event(2)]
        desk, fast, slow, standby = Desk(monkeypatch), Rig(bad), Rig(bad), Rig()
        for rig in (fast, slow):
            async with task_group() as group:
                group.create_task(rig.subscription.run())
                await rig.until_committed("e1")
                rig.subscription.stop()
            rig.mended = True
            rig.restarted()
        slow.kafka.commit_s = 30.0
        async with task_group() as group:
            following = group.create_task(desk.once(fast, slow, standby))
            desk.tail.added.put_nowait(retry())
            await desk.until(lambda: desk.told == [retry()])
            working = [group.create_task(rig.subscription.run()) for rig in (fast, slow)]
            await asyncio.sleep(10)
            assert not fast.kafka.restored().windows
            assert not desk.sent
            await desk.until(lambda: bool(desk.sent))
            assert not slow.kafka.restored().windows
            for rig in (fast, slow):
                rig.subscription.stop()
            await asyncio.wait(working)
            following.cancel()
        assert {(each.key, each.value) for each in desk.sent} == {(command_key(retry()).encode(), None)}

    virtual(main())


def test_a_retry_given_while_nobody_works_is_carried_out_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        desk, rig = Desk(monkeypatch, retry("r1", "quarantine:e1")), Rig([event(1, bad=True), event(2)])
        async with task_group() as group:
            group.create_task(rig.subscription.run())
            await rig.until_committed("e1")
            rig.subscription.stop()
        rig.mended = True
        rig.restarted()
        async with task_group() as group:
            following = group.create_task(desk.once(rig))
            await desk.until(lambda: bool(desk.told))
            working = group.create_task(rig.subscription.run())
            await desk.until(lambda: bool(desk.sent))
            assert not rig.kafka.restored().windows
            rig.subscription.stop()
            await working
            following.cancel()

    virtual(main())
