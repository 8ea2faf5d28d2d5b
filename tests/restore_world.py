"""One deployment on a real broker, for tests of how its local stores are caught up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from aiokafka.admin import AIOKafkaAdminClient
from structlog.testing import capture_logs

from consumer.delivery.names import Topics
from consumer.delivery.positions import CommittedPosition, encode_entry
from consumer.events import OutboundRecord
from consumer.kafka.connection import Cluster
from consumer.kafka.sink import KafkaSink, Subscription
from consumer.kafka.topics import describe_topics, ensure_topics, planned_specs
from consumer.ports import Batch, Mirror, Store
from consumer.position import Position
from consumer.settings import KafkaSettings
from consumer.store.file import Owner
from consumer.store.sqlite import SqliteStore
from consumer.tracking.access import AccessState
from consumer.tracking.values import Key, LedgerEntry, RecordState
from tests.broker import Broker
from tests.store_values import ORG, codec_of

CHANNEL = "/data/MessagingSessionChangeEvent"
EVERYTHING = "/data/ChangeEvents"
LIMIT_S = 30.0


class NoAccess(NamedTuple):
    """Nothing is known of a record's shares any more."""

    key: Key


Value: TypeAlias = RecordState | LedgerEntry | AccessState | NoAccess | Key


class World:
    """One deployment with a directory for its stores; ``shared`` objects have topics of sharing."""

    def __init__(
        self, broker: Broker, prefix: str, directory: Path, *channels: str, shared: tuple[str, ...] = ()
    ) -> None:
        values = {"bootstrap_servers": broker.bootstrap, "topic_prefix": prefix, "partitions": 2}
        self.broker = broker
        self.directory = directory
        self.cluster = Cluster(KafkaSettings.model_validate(values | {"transaction_timeout": "10s"}))
        self.topics = Topics(prefix, channels)
        self.codec = codec_of(self.topics)
        self.shared = shared

    async def ensure(self) -> None:
        """Make the topics that are missing."""
        await ensure_topics(self.cluster, planned_specs(self.topics, self.cluster.settings, shared=self.shared))

    def file(self, channel: str = CHANNEL) -> SqliteStore:
        """Return the store of a channel's worker."""
        owner = Owner("svc", ORG, channel, self.topics.prefix, self.topics.channels)
        return SqliteStore(self.directory, owner, self.codec)

    @asynccontextmanager
    async def at_work(self, mirror: Mirror | None, channel: str = CHANNEL) -> AsyncIterator[KafkaSink]:
        """Hold an opened sink; the mirror is caught up."""
        sink = KafkaSink(self.cluster, Subscription("svc", ORG, channel, self.topics), mirror=mirror)
        try:
            await sink.open()
            yield sink
        finally:
            await sink.close()

    async def restored(self, mirror: Mirror, channel: str = CHANNEL) -> dict[str, Any]:
        """Catch a mirror up; return how many records were loaded, and why it was rebuilt, if it was."""
        with capture_logs() as logs:
            async with self.at_work(mirror, channel):
                pass
        loaded = next(each["records"] for each in logs if each["event"] == "kafka.state_restored")
        return {"loaded": loaded, "why": [each["reason"] for each in logs if each["event"] == "store.rebuilt"]}

    async def write(self, store: Store, *batches: Sequence[Value], merge: bool = True) -> None:
        """Commit batches as the pipeline does: put, cut, transaction, merge."""
        channel = CHANNEL if CHANNEL in self.topics.channels else EVERYTHING
        async with self.at_work(None, channel) as sink:
            for batch in batches:
                await self.commit(sink, store, batch, merge=merge)

    async def commit(self, sink: KafkaSink, store: Store, batch: Sequence[Value], *, merge: bool = True) -> None:
        """Commit one batch with an open sink."""
        for value in batch:
            if isinstance(value, RecordState):
                store.put(value)
            elif isinstance(value, LedgerEntry):
                store.put_ledger(value)
            elif isinstance(value, AccessState):
                store.put_access(value)
            elif isinstance(value, NoAccess):
                store.remove_access(value.key)
            else:
                store.remove(value)
        delta = store.cut()
        position = Position(replay_id=b"1")
        moved = encode_entry(self.topics, CommittedPosition(CHANNEL, position, 5, 6, "worker"))
        offsets = await sink.commit(Batch([*delta.records, moved], 1, position))
        if merge:
            store.merge(delta, offsets)
        else:
            store.drop()


async def world_of(broker: Broker, prefix: str, directory: Path, *channels: str, shared: tuple[str, ...] = ()) -> World:
    made = World(broker, prefix, directory, *channels, shared=shared)
    await made.ensure()
    return made


async def recreated(world: World, name: str) -> None:
    """Delete a topic and make it again, empty."""
    admin = AIOKafkaAdminClient(bootstrap_servers=world.broker.bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([name])
        async with asyncio.timeout(LIMIT_S):
            while name in await describe_topics(world.cluster, [name]):  # noqa: ASYNC110  # a broker sets no event
                await asyncio.sleep(0.05)
    finally:
        await admin.close()
    await world.ensure()


async def committed_raw(world: World, record: OutboundRecord) -> None:
    """Commit a record that no store made."""
    async with world.at_work(None) as sink:
        position = Position(replay_id=b"1")
        moved = encode_entry(world.topics, CommittedPosition(CHANNEL, position, 5, 6, "w"))
        await sink.commit(Batch([record, moved], 1, position))
