"""One deployment under test: emulated org, workers, topics; and the reader who sees what was committed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.contract.topic_schemas import kind_of
from tests.kafka_reader import ReadRecord
from tests.ledger import Findings, Published, Window, ahead_of_records, check, opened_window
from tests.processes import LIMIT_S, Emulator, Lab, Worker, running_lab, until, worker_config

SESSIONS = "/data/MessagingSessionChangeEvent"


def tells_event(record: ReadRecord) -> bool:
    """Return whether it is a change that an event told, not one that a row did."""
    return kind_of(record.topic) == "changes" and not record.headers["ce_id"].startswith(b"row:")


class TopicReader:
    """Reads every topic of a prefix as it grows, read-committed.

    Attributes:
        records: what was read so far, in order within each partition.
    """

    def __init__(self, bootstrap: str, prefix: str) -> None:
        options: dict[str, Any] = {
            "bootstrap_servers": bootstrap,
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "fetch_max_wait_ms": 50,
        }
        self._prefix = prefix
        self._committed = AIOKafkaConsumer(**options, isolation_level="read_committed")
        # Its end_offsets are high watermarks; a read-committed consumer is told last stable offsets.
        self._everything = AIOKafkaConsumer(**options, isolation_level="read_uncommitted")
        self._partitions: set[TopicPartition] = set()
        self.records: list[ReadRecord] = []
        self._seen: set[str] = set()
        self._windows: list[Window] = []

    async def start(self) -> None:
        """Connect."""
        await self._committed.start()
        await self._everything.start()

    async def stop(self) -> None:
        """Disconnect."""
        await self._committed.stop()
        await self._everything.stop()

    async def _discover(self) -> list[TopicPartition]:
        names = [name for name in await self._committed.topics() if name.startswith(self._prefix)]
        found = set(self._partitions)
        for name in names:
            if not any(each.topic == name for each in found):
                found |= {TopicPartition(name, each) for each in await self._committed._client._wait_on_metadata(name)}
        if found != self._partitions:
            places = {each: await self._committed.position(each) for each in self._partitions}
            self._partitions = found
            self._committed.assign(sorted(found))
            for each in found:
                self._committed.seek(each, places.get(each, 0))
        return sorted(found)

    async def read(self) -> list[ReadRecord]:
        """Read to what is committed now, and return everything read so far."""
        partitions = await self._discover()
        if not partitions:
            return self.records
        ends = await self._committed.end_offsets(partitions)
        async with asyncio.timeout(LIMIT_S):
            while any([await self._committed.position(each) < ends[each] for each in partitions]):
                for batch in (await self._committed.getmany(timeout_ms=50)).values():
                    for item in batch:
                        self._take(item)
        return self.records

    def _take(self, item: Any) -> None:
        record = ReadRecord(
            item.topic, item.partition, item.offset, item.key, item.value, dict(item.headers), item.timestamp
        )
        self.records.append(record)
        match kind_of(record.topic):
            case "changes":
                self._seen.add(record.headers["ce_id"].decode())
            case "coverage":
                window = opened_window(record.key, json.loads(record.value or b"null"))
                if window is not None:
                    self._windows.append(window)

    async def settled(self) -> bool:
        """Tell whether no transaction is open: the last stable offset of every partition is its end."""
        partitions = await self._discover()
        stable = await self._committed.end_offsets(partitions)
        return bool(stable == await self._everything.end_offsets(partitions))

    async def read_settled(self) -> list[ReadRecord]:
        """Wait until no transaction is open, read to the end, and return everything."""
        await until(self.settled, "every transaction ended")
        return await self.read()

    async def aborted(self) -> int:
        """Return how many records of ``changes`` were written and never committed; only while no transaction is open.

        They show that workers died inside transactions, and that a read-committed reader did not see it.
        """
        partitions = [each for each in await self._discover() if kind_of(each.topic) == "changes"]
        ends = await self._everything.end_offsets(partitions)
        self._everything.assign(partitions)
        for each in partitions:
            self._everything.seek(each, 0)
        written: set[tuple[str, int, int]] = set()
        while any([await self._everything.position(each) < ends[each] for each in partitions]):
            for batch in (await self._everything.getmany(timeout_ms=50)).values():
                written |= {(item.topic, item.partition, item.offset) for item in batch}
        return len(written - {(each.topic, each.partition, each.offset) for each in self.records})

    def untold(self, published: Sequence[Published]) -> tuple[list[str], list[str]]:
        """Return the changes that have no record, owned up to by a loss window or not; a quick look, for waiting.

        Returns:
            Those that no window covers, and those that one covers.
        """
        missing: list[str] = []
        covered: list[str] = []
        for event in published:
            for record_id in event.real_ids if event.tells else (None,):
                name = f"{event.event_id}:{record_id}"
                if name not in self._seen:
                    owned_up = any(window.covers(event, record_id) for window in self._windows)
                    (covered if owned_up else missing).append(name)
        return missing, covered

    def missing(self, published: Sequence[Published]) -> list[str]:
        """Return the changes that have no record and no loss window."""
        return self.untold(published)[0]


class Deployment:
    """One org, the topics of one prefix, and the workers between them.

    Args:
        lab: starts the processes.
        org: the emulated org.
        reader: sees the topics.
        bootstrap: the broker as workers reach it.
        prefix: topic prefix.
        topics: topics of the org that are subscribed to.
    """

    def __init__(
        self, lab: Lab, org: Emulator, reader: TopicReader, bootstrap: str, prefix: str, topics: Sequence[str]
    ) -> None:
        self.lab = lab
        self.org = org
        self.reader = reader
        self.bootstrap = bootstrap
        self.prefix = prefix
        self.topics = tuple(topics)

    async def oracle(self, path: str) -> list[dict[str, Any]]:
        """Return what the org's oracle says, one object a line.

        Args:
            path: route behind ``/control/oracle/``, with its query.
        """
        async with self.lab.http.get(f"{self.org.addresses['control']}/oracle/{path}") as answer:
            assert answer.status == 200, await answer.text()
            return [json.loads(line) for line in (await answer.read()).splitlines() if line]

    async def worker(self, crash: str | None = None, **overrides: Mapping[str, Any]) -> Worker:
        """Start a worker.

        Args:
            crash: ``POINT:HIT`` at which it dies.
            overrides: configuration by section.
        """
        config = worker_config(self.org, self.bootstrap, self.prefix, topics=self.topics, **overrides)
        return await self.lab.worker(config, crash)

    async def published(self) -> list[Published]:
        """Return what the org published on the subscribed topics."""
        whole = any(topic.endswith(("__chn", "/ChangeEvents")) for topic in self.topics)
        return await self.org.published(None if whole else self.topics)

    async def committed(self, limit_s: float = LIMIT_S, *, covered: int = 0) -> list[Published]:
        """Wait until all that is published now is committed, but for so many changes that loss windows cover.

        Returns:
            What was published.

        Raises:
            AssertionError: it did not happen in time; says what is missing.
        """
        published = await self.published()
        untold: tuple[list[str], list[str]] = ([], [])

        async def all_there() -> bool:
            nonlocal untold
            await self.reader.read()
            untold = self.reader.untold(published)
            return not untold[0] and len(untold[1]) == covered

        try:
            await until(all_there, "everything committed", limit_s)
        except AssertionError as error:
            missing, owned_up = untold
            tails = "".join(f"\n{child.name}: {child.tail()}" for child in self.lab.children if child is not self.org)
            raise AssertionError(
                f"{error}: {len(missing)} missing, such as {missing[:3]}, and {len(owned_up)} covered by windows "
                f"({covered} expected), such as {owned_up[:3]}{tails}"
            ) from None
        return published

    async def has_committed(self, records: int, limit_s: float = LIMIT_S) -> None:
        """Wait until so many records of ``changes`` that tell events are committed in all."""

        async def enough() -> bool:
            return sum(map(tells_event, await self.reader.read())) >= records

        await until(enough, f"{records} records committed", limit_s)

    async def check(self, *, covered: int = 0, replay_ids_kept: bool = True) -> Findings:
        """Stop the traffic, wait until all is committed, and return what the ledger checker finds.

        Args:
            covered: changes that are to have a loss window and no record.
            replay_ids_kept: as for :func:`tests.ledger.check`.
        """
        await self.org.traffic(paused=True)
        published = await self.committed(covered=covered)
        return check(published, await self.reader.read_settled(), replay_ids_kept=replay_ids_kept)

    async def require_position_behind(self) -> None:
        """Fail if a committed position claims what is not committed; for moments when no worker lives."""
        published = await self.published()

        async def behind() -> bool:
            # Each partition learns by itself that a transaction was committed, so a record can come a little later.
            return not ahead_of_records(published, await self.reader.read())

        await until(behind, "the committed position is not ahead of the records", limit_s=5.0)


@asynccontextmanager
async def deployment(
    directory: Path,
    bootstrap: str,
    prefix: str,
    scenario: Mapping[str, Any] | None = None,
    *,
    topics: Sequence[str] = (SESSIONS,),
    workers_bootstrap: str | None = None,
) -> AsyncIterator[Deployment]:
    """Run an emulated org and hold a lab open; workers are started by the caller.

    Args:
        directory: for configuration files.
        bootstrap: the broker as the checker reaches it.
        prefix: topic prefix.
        scenario: the org's scenario.
        topics: topics of the org to subscribe to.
        workers_bootstrap: the broker as workers reach it, when that is another way.
    """
    async with running_lab(directory) as lab:
        org = await lab.emulator(scenario)
        reader = TopicReader(bootstrap, prefix)
        try:
            await reader.start()
            yield Deployment(lab, org, reader, workers_bootstrap or bootstrap, prefix, topics)
        finally:
            await reader.stop()
