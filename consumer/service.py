"""Composition root: settings to adapters to subscriptions, in one task group, from start to stop."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field

import structlog

from consumer import __version__, clock
from consumer.assembly import Assembly, TrackingTimes, field_policy
from consumer.backoff import Backoff
from consumer.companions import CompanionTimes
from consumer.connections import Salesforce, open_salesforce
from consumer.control import Commands
from consumer.delivery.names import Topics
from consumer.delivery.partition import partition_for
from consumer.errors import KafkaUnavailableError, ProducerFencedError, ServiceError
from consumer.events import TapItem
from consumer.health.server import serve_health
from consumer.health.state import HealthState
from consumer.kafka import sink as kafka_sink
from consumer.kafka.connection import Cluster
from consumer.kafka.membership import Membership, group_id
from consumer.kafka.quarantine import QuarantineTopic
from consumer.kafka.topics import ensure_topics, planned_specs
from consumer.observer import SubscriptionObserver
from consumer.org_reads import OrgReads, ReadParts
from consumer.pipeline_parts import Clocks, Limits
from consumer.salesforce.schemas import SchemaCache
from consumer.salesforce.stream import PubSubStream, Timing
from consumer.salesforce.topics import get_topic
from consumer.settings import FeedSettings, Settings, SharingSettings
from consumer.store.file import Owner, store_directory
from consumer.store.sqlite import SqliteStore
from consumer.subscription import Choices, Parts, Subscription
from consumer.tasks import cancel, task_group
from consumer.telemetry import Metrics
from consumer.upkeep.context import FeedPace, Pace, SharingPace

_log = structlog.get_logger(__name__)

_HEALTHY_S = 60.0
"""A membership that lasted this long was a good one."""

_DRAIN_SHARE = 0.7
"""Part of the grace period for committing what is decoded; the rest is for leaving the group and closing."""

TapFactory = Callable[[str, str], Callable[[TapItem], None]]
"""Makes the tap of a channel, given the org id and the channel."""


@dataclass(slots=True)
class _Channel:
    """One channel of this worker.

    Attributes:
        subscription: its supervisor; lives as long as the process.
        observer: tells the outside about it.
        partition: its partition of the ``positions`` topic, which decides who runs it.
        task: the running supervisor, None while another worker has the channel.
    """

    subscription: Subscription
    observer: SubscriptionObserver
    partition: int
    task: asyncio.Task[None] | None = field(default=None)


class Service:
    """The whole service.

    Args:
        settings: the configuration.
        cluster: the Kafka cluster; None makes it from the settings.
        tap: makes taps for recordings, None for none.
    """

    def __init__(self, settings: Settings, *, cluster: Cluster | None = None, tap: TapFactory | None = None) -> None:
        self._settings = settings
        worker = f"{socket.gethostname()}:{os.getpid()}"
        self._cluster = cluster or Cluster(settings.kafka, client_id=worker)
        self._tap = tap
        self._worker = worker
        self._policy = field_policy(settings.fields)
        self._topics = Topics(settings.kafka.topic_prefix, settings.pubsub.topics)
        self._metrics = Metrics()
        self._stop = asyncio.Event()
        self.health = HealthState(settings.service.name, __version__, worker)

    def stop(self) -> None:
        """Stop taking credits, commit what is decoded, leave the group; ``run`` returns then."""
        self._stop.set()

    async def run(self) -> None:
        """Work until :meth:`stop`, and end within the grace period after it, whatever is under way.

        Raises:
            ServiceError: what can't work was configured, or Kafka or Salesforce could not be reached at the start.
        """
        async with task_group() as group:
            work = group.create_task(self._run())
            asked = group.create_task(self._stop.wait())
            await asyncio.wait([work, asked], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await asyncio.wait([work], timeout=self._settings.service.shutdown_grace_s)
            await cancel(work)
            await cancel(asked)

    async def _run(self) -> None:
        def count_login(succeeded: bool) -> None:  # noqa: FBT001 - the one thing there is to tell
            self._metrics.token_login(succeeded=succeeded)

        async with (
            serve_health(self._settings.service.listen, self.health, self._metrics),
            open_salesforce(self._settings, count_login) as org,
        ):
            self._metrics.api_usage(lambda: org.governor.usage)
            session = await org.tokens.get()
            settings = self._settings
            specs = planned_specs(
                self._topics, settings.kafka, shared=settings.sharing.wanted, fed=settings.feed.wanted
            )
            found = await ensure_topics(self._cluster, specs)
            partitions = found[self._topics.positions].partitions
            with ExitStack() as stores:
                channels = [
                    self._channel(channel, org, session.org_id, partitions, stores)
                    for channel in self._settings.pubsub.topics
                ]
                async with task_group() as group:
                    steering = group.create_task(self._steer(channels))
                    await self._work(channels, group_id(self._settings.service.name, session.org_id))
                    await cancel(steering)

    def _store(self, assembly: Assembly, channel: str, stores: ExitStack) -> SqliteStore:
        settings = self._settings
        owner = Owner(
            settings.service.name, assembly.org_id, channel, settings.kafka.topic_prefix, settings.pubsub.topics
        )
        directory = store_directory(settings.state.path, os.environ)
        store = SqliteStore(directory, owner, assembly.codec(), cache_records=settings.state.cache_records)
        stores.callback(store.close)
        return store

    def _channel(self, channel: str, org: Salesforce, org_id: str, partitions: int, stores: ExitStack) -> _Channel:
        settings = self._settings
        owner = kafka_sink.Subscription(settings.service.name, org_id, channel, self._topics)
        partition = partition_for(owner.position_key, partitions)
        allow_raw = settings.fields.raw_allowed
        assembly = Assembly(org_id, settings.service.name, self._topics, self._policy, allow_raw, self._worker)
        records = assembly.internal_records(channel, partition)
        health = self.health.subscription(channel)
        metrics = self._metrics.subscription(channel)
        observer = SubscriptionObserver(channel, metrics, health, clock.now_ms)
        tap = None if self._tap is None else self._tap(org_id, channel)

        def schema_fetched(item: TapItem) -> None:
            metrics.schema_fetched()
            if tap is not None:
                tap(item)

        timing = Timing(watchdog_s=settings.pubsub.watchdog_s)
        schemas = SchemaCache(org.channel, channel, org.tokens, tap=schema_fetched)
        store = self._store(assembly, channel, stores)
        metrics.tracked(lambda: sum(store.records(entity) for entity in store.entities()))
        clocks = Clocks(clock.now_ms, time.monotonic, random.random, org.clock.now_ms)
        history, tracking = settings.history, settings.tracking
        times = TrackingTimes(
            history.confirm_within,
            history.overlap,
            tracking.refresh_after,
            snapshots=settings.pubsub.start == "snapshot",
            companions=_companion_times(settings),
        )

        async def current_schema() -> tuple[str, str] | None:
            schema_id = (await get_topic(org.channel, channel, org.tokens)).schema_id
            return (schema_id, await schemas.fetch(schema_id)) if schema_id else None

        reading = ReadParts(
            channel=channel,
            entity=self._topics.entity_of_channel(channel),
            source=org.records(self._policy),
            store=store,
            current_schema=current_schema,
            pace=_pace(settings),
            clocks=clocks,
            observer=observer,
        )
        parts = Parts(
            stream=lambda: PubSubStream(org.channel, channel, org.tokens, timing=timing, observer=observer, tap=tap),
            sink=lambda: kafka_sink.KafkaSink(self._cluster, owner, mirror=store),
            processor=lambda restored: assembly.processor(channel, records, store, restored, times),
            store=store,
            aside=lambda: OrgReads(reading),
            read_unknown=tracking.on_unknown == "read",
            schemas=schemas,
            quarantine=QuarantineTopic(self._cluster, self._topics.quarantine),
            records=records,
        )
        batch = settings.batch
        limits = Limits(batch.max_records, batch.max_bytes, batch.max_age, settings.pubsub.buffer_events)
        choices = Choices(settings.pubsub.start, settings.pubsub.on_lost_position)
        return _Channel(Subscription(channel, parts, choices, limits, clocks, observer), observer, partition)

    async def _work(self, channels: list[_Channel], group: str) -> None:
        """Be a member of the group until stopped; once fenced, leave and come back as a new member."""
        backoff = Backoff(random.random)
        while not self._stop.is_set():
            joined_s = time.monotonic()
            try:
                async with Membership(self._cluster, group, self._topics.positions) as membership:
                    await self._serve(channels, membership)
                    return
            except (ProducerFencedError, KafkaUnavailableError) as error:
                if time.monotonic() - joined_s > _HEALTHY_S:
                    backoff.healthy()
                delay_s = backoff.next_delay(1.0)
                _log.warning("group.left", reason=error.message, next_try_s=round(delay_s, 1))
                await self._stopped_within(delay_s)

    async def _serve(self, channels: list[_Channel], membership: Membership) -> None:
        async with task_group() as group:
            alive = group.create_task(membership.run())
            follower = group.create_task(self._follow(channels, membership, group))
            try:
                await self._stop.wait()
                await cancel(follower)
                await self._finish(channels)
            finally:
                for channel in channels:
                    await _end(channel)
            await cancel(alive)

    async def _follow(self, channels: list[_Channel], membership: Membership, group: asyncio.TaskGroup) -> None:
        """Run the channels whose partition is ours; one that stays ours across a rebalance goes on undisturbed."""
        async for owned in membership.assignments():
            for channel in channels:
                if channel.partition not in owned:
                    await _end(channel)
                    channel.observer.standby()
                elif channel.task is None or channel.task.done():
                    channel.task = group.create_task(channel.subscription.run())

    async def _finish(self, channels: list[_Channel]) -> None:
        """Drain every running channel within the grace period."""
        for channel in channels:
            channel.subscription.stop()
        running = [channel.task for channel in channels if channel.task is not None]
        if running:
            _, late = await asyncio.wait(running, timeout=self._settings.service.shutdown_grace_s * _DRAIN_SHARE)
            if late:
                _log.warning("stop.grace_over", channels=len(late))

    async def _steer(self, channels: list[_Channel]) -> None:
        """Carry out what is commanded on the ``control`` topic, through outages of Kafka."""
        backoff = Backoff(random.random)
        commands = Commands(self._cluster, self._topics)
        subscriptions = [channel.subscription for channel in channels]
        while not self._stop.is_set():
            try:
                async with commands, task_group() as group:
                    async for command in commands.follow():
                        backoff.healthy()
                        commands.apply(command, subscriptions, group)
            except ServiceError as error:
                delay_s = backoff.next_delay(1.0)
                _log.warning("control.interrupted", reason=error.message, next_try_s=round(delay_s, 1))
                await self._stopped_within(delay_s)

    async def _stopped_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return


def _pace(settings: Settings) -> Pace:
    history, tracking = settings.history, settings.tracking
    return Pace(
        history_poll=history.poll,
        history_overlap=history.overlap,
        history_settle=history.settle,
        confirm_within=history.confirm_within,
        backfill=history.backfill,
        refresh_after=tracking.refresh_after,
        reconcile=tracking.reconcile,
        reconcile_after=tracking.reconcile_after,
        chunk_rows=tracking.chunk_rows,
        bulk_above=tracking.bulk_above,
        delete_grace=settings.state.delete_grace,
        sharing=_sharing_pace(settings.sharing) if settings.sharing.enabled else None,
        feed=_feed_pace(settings.feed) if settings.feed.enabled else None,
    )


def _sharing_pace(sharing: SharingSettings) -> SharingPace:
    return SharingPace(
        objects=sharing.objects,
        poll=sharing.poll,
        overlap=sharing.overlap,
        settle=sharing.settle,
        sweep=sharing.sweep,
        api_calls_per_day=sharing.api_calls_per_day,
    )


def _feed_pace(feed: FeedSettings) -> FeedPace:
    return FeedPace(
        objects=feed.objects, poll=feed.poll, overlap=feed.overlap, settle=feed.settle, backfill=feed.backfill
    )


def _companion_times(settings: Settings) -> CompanionTimes:
    sharing = settings.sharing
    return CompanionTimes(frozenset(sharing.wanted), sharing.settle, sharing.overlap, settings.feed.overlap)


async def _end(channel: _Channel) -> None:
    task, channel.task = channel.task, None
    if task is not None:
        await cancel(task)


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[Service]:
    """Run the service in the background of the block and stop it at the end.

    Raises:
        ServiceError: the service failed.
    """
    async with task_group() as group:
        task = group.create_task(service.run())
        try:
            yield service
        finally:
            service.stop()
            await asyncio.wait([task])
