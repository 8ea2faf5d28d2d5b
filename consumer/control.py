"""Commands from the ``control`` topic to this worker's subscriptions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from consumer.delivery.control import (
    Command,
    ControlEntry,
    Pause,
    Resume,
    RetryQuarantine,
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

    Args:
        cluster: the cluster.
        topics: the deployment's topic names.
    """

    def __init__(self, cluster: Cluster, topics: Topics) -> None:
        self._cluster = cluster
        self._topics = topics
        self._tail = ControlTail(cluster, topics.control)

    async def __aenter__(self) -> Self:
        await self._tail.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tail.__aexit__(kind, error, trace)

    async def follow(self) -> AsyncIterator[Command]:
        """Yield the commands in force, then every new one, for ever.

        Raises:
            KafkaUnavailableError: no broker answered.
            ForeignStateError: something else, or a newer version, writes to the topic.
        """
        for command in in_force([_entry(record) for record in await self._tail.past()]):
            yield command
        async for record in self._tail.follow():
            entry = _entry(record)
            if not isinstance(entry, Withdrawn):
                yield entry

    def apply(self, command: Command, subscription: Subscription, *, active: bool, tasks: asyncio.TaskGroup) -> None:
        """Tell one subscription what was commanded.

        Args:
            command: the command.
            subscription: one of this worker's.
            active: whether this worker runs it now; only then it can retry.
            tasks: where the end of a retry is waited for.
        """
        match command:
            case Pause(channel=channel) if channel in {None, subscription.channel}:
                subscription.pause()
            case Resume(channel=channel) if channel in {None, subscription.channel}:
                subscription.resume()
            case RetryQuarantine() if active:
                finished = subscription.retry(command.window_ids or ())
                tasks.create_task(self._withdraw(command, finished))

    async def _withdraw(self, command: RetryQuarantine, finished: asyncio.Event) -> None:
        """Take a command back once it is carried out, so that a restart does not carry it out again."""
        await finished.wait()
        await send_command(self._cluster, encode_command(self._topics, Withdrawn(command_key(command)), 0))


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
