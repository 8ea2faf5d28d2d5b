"""Commands from the ``control`` topic to this worker's subscriptions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self

from consumer.delivery.control import (
    Command,
    ControlEntry,
    Pause,
    Resume,
    RetryQuarantine,
    TakeSnapshot,
    Withdrawn,
    command_key,
    decode_command,
    encode_command,
)
from consumer.delivery.names import Topics
from consumer.kafka.connection import Cluster
from consumer.kafka.control import ControlRecord, ControlTail, send_command
from consumer.subscription import Subscription


class Commands:
    """Follows the ``control`` topic; what was commanded before the start counts too.

    It can be entered again after an outage. What was told before is then not told again, because an old ``resume``
    must not end a new halt; only retries are, because nobody waits for their end any more.

    Args:
        cluster: the cluster.
        topics: the deployment's topic names.
    """

    def __init__(self, cluster: Cluster, topics: Topics) -> None:
        self._cluster = cluster
        self._topics = topics
        self._tail: ControlTail | None = None
        self._told: set[Command] = set()

    async def __aenter__(self) -> Self:
        self._tail = await ControlTail(self._cluster, self._topics.control).__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tail, self._tail = self._tail, None
        if tail is not None:
            await tail.__aexit__(kind, error, trace)

    async def follow(self) -> AsyncIterator[ControlEntry]:
        """Yield the commands in force, then every new one and every one that is withdrawn, for ever.

        Raises:
            KafkaUnavailableError: no broker answered.
            ForeignStateError: something else, or a newer version, writes to the topic.
        """
        tail = self._tail
        if tail is None:
            raise RuntimeError("Commands is not entered")
        for command in in_force([_entry(record) for record in await tail.past()]):
            if command not in self._told:
                yield self._telling(command)
        async with aclosing(tail.follow()) as records:
            async for record in records:
                entry = _entry(record)
                yield entry if isinstance(entry, Withdrawn) else self._telling(entry)

    def _telling(self, command: Command) -> Command:
        if not isinstance(command, RetryQuarantine | TakeSnapshot):
            self._told.add(command)
        return command

    def apply(self, command: ControlEntry, subscriptions: Sequence[Subscription], tasks: asyncio.TaskGroup) -> None:
        """Tell this worker's subscriptions what was commanded; a standby keeps it for the time when it works.

        Args:
            command: the command.
            subscriptions: all of this worker's.
            tasks: where the end of a retry is waited for.
        """
        match command:
            case Pause(channel=channel):
                for subscription in _meant(subscriptions, channel):
                    subscription.pause()
            case Resume(channel=channel):
                for subscription in _meant(subscriptions, channel):
                    subscription.resume(accept_flood=command.accept_flood)
            case Withdrawn(key=key):
                for subscription in subscriptions:
                    subscription.withdrawn(key)
            case RetryQuarantine():
                asked = [(each, each.retry(command.window_ids or ())) for each in subscriptions]
                self._withdraw_after(command, asked, tasks)
            case TakeSnapshot():
                self._withdraw_after(command, [(each, each.snapshot(command)) for each in subscriptions], tasks)

    def _withdraw_after(
        self,
        command: RetryQuarantine | TakeSnapshot,
        asked: Sequence[tuple[Subscription, asyncio.Event]],
        tasks: asyncio.TaskGroup,
    ) -> None:
        for _, finished in asked:
            tasks.create_task(self._withdraw(command, finished, asked))

    async def _withdraw(
        self,
        command: RetryQuarantine | TakeSnapshot,
        finished: asyncio.Event,
        asked: Sequence[tuple[Subscription, asyncio.Event]],
    ) -> None:
        """Take a command back once all that work here have carried it out, so that a restart does not do it again."""
        await finished.wait()
        for subscription, other in asked:
            if subscription.running:
                await other.wait()
        await send_command(self._cluster, encode_command(self._topics, Withdrawn(command_key(command)), 0))


def _meant(subscriptions: Sequence[Subscription], channel: str | None) -> list[Subscription]:
    return [each for each in subscriptions if channel in {None, each.channel}]


def in_force(entries: Sequence[ControlEntry]) -> list[Command]:
    """Return the commands that still count: not withdrawn, and not overruled by a later pause or resume.

    Args:
        entries: the topic's entries in the order of the log.
    """
    withdrawn = {entry.key for entry in entries if isinstance(entry, Withdrawn)}
    overruled: set[str | None] = set()
    counting: list[Command] = []
    for entry in reversed(entries):
        if isinstance(entry, Withdrawn) or command_key(entry) in withdrawn:
            continue
        if isinstance(entry, Pause | Resume):
            if None in overruled or entry.channel in overruled:
                continue
            overruled.add(entry.channel)
        counting.append(entry)
    return counting[::-1]


def _entry(record: ControlRecord) -> ControlEntry:
    return decode_command(record.key, record.value)
