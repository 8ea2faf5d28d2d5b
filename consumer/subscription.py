"""One channel from start to stop: generations of the pipeline, and what to do between them.

A generation ends by a failure, a pause or a stop. The supervisor asks :mod:`consumer.reactions` what to do: wait
and begin the next generation from the committed position, recover a lost position, halt, or step down.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, Protocol

from consumer.backoff import Backoff
from consumer.delivery.control import TakeSnapshot, command_key
from consumer.delivery.coverage import window_for_first_start, window_for_lost_position
from consumer.errors import (
    FloodError,
    KafkaRefusedError,
    LoginError,
    LoginRejectedError,
    PositionLostError,
    SchemaRefusedError,
    SchemaUnavailableError,
    ServiceError,
    TokenRefusedError,
    TopicRefusedError,
)
from consumer.events import LossWindow, OutboundRecord, ReceivedEvent
from consumer.pipeline import Pipeline
from consumer.pipeline_parts import Clocks, Limits, PipelineObserver
from consumer.ports import Batch, EventStream, Restored, SchemaSource, Sink, Store
from consumer.position import Position, Preset
from consumer.processor import Processor
from consumer.reactions import Reaction, policy_for
from consumer.records import InternalRecords
from consumer.tasks import task_group
from consumer.tracking.arrivals import Closed, Progress, RowsRead

_RETRY_BATCH = 200
"""Quarantined events retried per transaction."""

_WRONG_FROM_THE_START = (TopicRefusedError, LoginRejectedError, KafkaRefusedError)
"""Before anything has ever worked these are mistakes in the configuration; later they are troubles to wait out."""


class Aside(Protocol):
    """The reads of the org that go on beside the stream, for one generation."""

    async def run(self, pipeline: Pipeline, processor: Processor) -> None:
        """Read and fill the pipeline's inbox until cancelled."""
        ...

    async def read_unknown(self, processor: Processor, wanted: Mapping[str, Sequence[str]]) -> Sequence[RowsRead]:
        """Read records by id, as far as that is possible now, in bounded time."""
        ...


class SubscriptionObserver(PipelineObserver, Protocol):
    """What the supervisor tells the world, beside what the pipeline tells."""

    def restored(self, restored: Restored) -> None:
        """Kafka was asked where the subscription stands."""

    def streaming(self, pipeline: Pipeline) -> None:
        """A generation begins."""

    def failed(self, error: ServiceError, reaction: Reaction, delay_s: float) -> None:
        """A generation failed; the next begins after the delay."""

    def halted(self, error: ServiceError) -> None:
        """The subscription waits for ``resume``."""

    def paused(self) -> None:
        """The subscription was paused by command."""

    def windows_opened(self, windows: Collection[LossWindow]) -> None:
        """Loss windows were committed outside the pipeline."""

    def retried(self, event: ReceivedEvent, error: ServiceError | None) -> None:
        """A quarantined event was processed again."""


class QuarantineReader(Protocol):
    """Reads the quarantine topic."""

    def events(self, window_ids: Collection[str]) -> AsyncGenerator[ReceivedEvent, None]:
        """Yield the quarantined events of these windows, oldest first."""
        ...


@dataclass(frozen=True, slots=True)
class Choices:
    """What the operator chose for this subscription."""

    start: Literal["snapshot", "earliest", "latest"]
    on_lost_position: Literal["resync", "earliest", "latest", "halt"]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a subscription is built from; each factory is called once per generation.

    Attributes:
        stream: makes the stream.
        sink: makes the sink.
        processor: makes the processor, of what was restored; its schemas and facts live as long as the generation.
        store: the tracked states; what is not committed is dropped with each generation.
        aside: reads of the org; None for none.
        read_unknown: whether records that nothing is known of are read before their change is sent.
        schemas: fetches writer schemas.
        quarantine: reads the quarantine topic.
        records: makes internal records.
    """

    stream: Callable[[], EventStream]
    sink: Callable[[], Sink]
    processor: Callable[[Restored], Processor]
    store: Store
    aside: Callable[[], Aside] | None
    read_unknown: bool
    schemas: SchemaSource
    quarantine: QuarantineReader
    records: InternalRecords


def delivered_until(channel: str, restored: Restored) -> int | None:
    """Return up to when the stream is known to have delivered everything, epoch milliseconds, None if never."""
    span = restored.progress.get(f"span:changes:{channel}")
    proven = None if span is None else span.get("to_ms")
    times = [each for each in (restored.last_event_ms, proven) if each is not None]
    return max(times) if times else None


@dataclass(frozen=True, slots=True)
class _Retry:
    """One request to process quarantined events again; no window ids mean all that are open."""

    window_ids: frozenset[str]
    finished: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A snapshot asked for by command, until it is durable that it is wanted."""

    command: TakeSnapshot
    accepted: asyncio.Event = field(default_factory=asyncio.Event)


class Subscription:
    """Supervisor of one channel.

    Args:
        channel: topic of the org, such as ``/data/MessagingSessionChangeEvent``.
        parts: factories and adapters.
        choices: the operator's choices.
        limits: the pipeline's numbers.
        clocks: time and randomness.
        observer: is told what happened.
    """

    def __init__(
        self,
        channel: str,
        parts: Parts,
        choices: Choices,
        limits: Limits,
        clocks: Clocks,
        observer: SubscriptionObserver,
    ) -> None:
        self.channel = channel
        self._parts = parts
        self._choices = choices
        self._limits = limits
        self._clocks = clocks
        self._observer = observer
        self._pipeline: Pipeline | None = None
        self._backoff = Backoff(clocks.random)
        self._changed = asyncio.Event()
        self._asked = asyncio.Event()
        self._stopping = False
        self._pause_wanted = False
        self._halted = False
        self._flooded = False
        self._accept_flood = False
        self._worked = False
        self._recovered = False
        self._running = False
        self._retries: list[_Retry] = []
        self._snapshots: list[_Wanted] = []

    @property
    def running(self) -> bool:
        """Whether ``run`` is at work: not in a standby."""
        return self._running

    def stop(self) -> None:
        """Commit what is decoded and return from ``run``."""
        self._stopping = True
        self._interrupt()

    def pause(self) -> None:
        """Commit what is decoded, then take no credits until ``resume``."""
        self._pause_wanted = True
        self._interrupt()

    def resume(self, *, accept_flood: bool = False) -> None:
        """End a pause or a halt.

        Args:
            accept_flood: put the bad events that a flood halted for into quarantine; without such a halt it says
                nothing, so that an old command never accepts a new flood.
        """
        self._accept_flood = accept_flood and self._flooded
        self._pause_wanted = False
        self._halted = self._flooded = False
        self._recovered = False
        self._changed.set()

    def retry(self, window_ids: Collection[str]) -> asyncio.Event:
        """Process quarantined events again; none named means all whose window is open.

        A standby, and one that is paused or halted, does it as soon as it works.

        Returns:
            Set when it is done.
        """
        retry = _Retry(frozenset(window_ids))
        self._retries.append(retry)
        self._interrupt()
        return retry.finished

    def snapshot(self, command: TakeSnapshot) -> asyncio.Event:
        """Read records again while the stream goes on; a standby keeps the command for the time when it works.

        Returns:
            Set when the request is durable: from then on it survives restarts.
        """
        wanted = _Wanted(command)
        self._snapshots.append(wanted)
        self._asked.set()
        return wanted.accepted

    def withdrawn(self, key: str) -> None:
        """Forget a snapshot that another worker has made durable: a standby would take it again at its turn."""
        for wanted in [each for each in self._snapshots if command_key(each.command) == key]:
            self._snapshots.remove(wanted)
            wanted.accepted.set()

    def _interrupt(self) -> None:
        self._changed.set()
        if self._pipeline is not None:
            self._pipeline.drain()

    async def run(self) -> None:
        """Work until stopped.

        Raises:
            ProducerFencedError: another worker has taken over.
            ServiceError: what can't work was asked for; only before anything has ever worked.
        """
        self._running = True
        # A new assignment is a new start: whoever had the channel meanwhile did not wait for `resume` either.
        self._halted = self._flooded = self._accept_flood = self._recovered = False
        try:
            while True:
                await self._until_wanted()
                if self._stopping:
                    return
                try:
                    await self._generation()
                except ServiceError as error:
                    await self._react(error)
        finally:
            self._running = False

    async def _until_wanted(self) -> None:
        while (self._pause_wanted or self._halted) and not self._stopping:
            if self._pause_wanted:
                self._observer.paused()
            self._changed.clear()
            await self._changed.wait()

    async def _react(self, error: ServiceError) -> None:
        policy = policy_for(error)
        reaction = policy.reaction
        if reaction in {Reaction.STEP_DOWN, Reaction.STOP}:
            raise error
        if not self._worked and isinstance(error, _WRONG_FROM_THE_START):
            raise error
        if reaction in {Reaction.HALT, Reaction.RECOVER_POSITION}:
            self._halted = True
            self._flooded = isinstance(error, FloodError)
            self._observer.halted(error)
            return
        delay_s = self._backoff.next_delay(policy.at_least_s)
        self._observer.failed(error, reaction, delay_s)
        self._changed.clear()
        if self._stopping or self._pause_wanted:
            return
        try:
            async with asyncio.timeout(delay_s):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _generation(self) -> None:
        self._parts.store.drop()
        sink = self._parts.sink()
        try:
            restored = await sink.open()
            self._observer.restored(restored)
            position = restored.position
            if position is None:
                restored = await self._first_start(sink, restored)
            elif position.replay_id is not None:
                self._worked = True
            elif not position.resumable:
                restored = await self._begin_again_at_latest(sink, restored, position)
            if self._retries:
                restored = await self._retry_quarantined(sink, restored)
            try:
                await self._stream(sink, restored)
            except PositionLostError as error:
                if self._choices.on_lost_position == "halt" or self._recovered:
                    raise
                await self._recover_position(error)
        finally:
            await sink.close()

    async def _stream(self, sink: Sink, restored: Restored) -> None:
        processor = self._parts.processor(restored)
        aside = None if self._parts.aside is None else self._parts.aside()
        pipeline = Pipeline(
            stream=self._parts.stream(),
            schemas=self._parts.schemas,
            sink=sink,
            processor=processor,
            store=self._parts.store,
            read_unknown=(
                partial(aside.read_unknown, processor) if aside is not None and self._parts.read_unknown else None
            ),
            encode_position=self._parts.records.position,
            limits=self._limits,
            clocks=self._clocks,
            observer=self._observer,
        )
        if self._stopping or self._pause_wanted or self._retries:
            return
        self._pipeline = pipeline
        self._observer.streaming(pipeline)
        try:
            await pipeline.run(
                restored,
                restored.position or Position(),
                accept_flood=self._accept_flood,
                upkeep=None if aside is None else partial(self._beside, aside, pipeline, processor),
            )
        finally:
            self._pipeline = None
            self._accept_flood = pipeline.accepting_flood
            if pipeline.commits:
                self._worked = True
                self._recovered = False
                self._backoff.healthy()

    async def _beside(self, aside: Aside, pipeline: Pipeline, processor: Processor) -> None:
        async with task_group() as group:
            group.create_task(aside.run(pipeline, processor))
            group.create_task(self._request_snapshots(pipeline))

    async def _request_snapshots(self, pipeline: Pipeline) -> None:
        """Make wanted snapshots durable; the upkeep does the rest."""
        while True:
            self._asked.clear()
            for wanted in tuple(self._snapshots):
                command = wanted.command
                state = {"entity": command.entity, "where": command.where, "issued_ms": command.issued_ms}
                progress = Progress(f"snapshot:{command.snapshot_id}", state)
                await pipeline.inbox.put(Closed(command.entity or "", self._clocks.org_ms(), progress=(progress,)))
                await pipeline.inbox.settled()
                self.withdrawn(command_key(command))
            await self._asked.wait()

    async def _first_start(self, sink: Sink, restored: Restored) -> Restored:
        """Make the beginning durable, with the loss window of what was before it.

        With a snapshot the stream begins at LATEST, and the rows that are read after that tell the rest.
        """
        now_ms = self._clocks.org_ms()
        position = Position(preset=Preset.EARLIEST if self._choices.start == "earliest" else Preset.LATEST)
        windows: tuple[LossWindow, ...] = ()
        if self._choices.start == "snapshot":
            windows = (window_for_first_start(self.channel, now_ms, preset=Preset.LATEST),)
        return await self._commit_windows(sink, windows, position, restored)

    async def _begin_again_at_latest(self, sink: Sink, restored: Restored, position: Position) -> Restored:
        """Own up to what LATEST skips when it begins a second time.

        An open window tells it already, unless a scan is under way for it, whose rows are older than what is skipped.
        """
        scanning = any(name.startswith("scan:") for name in restored.progress)
        if not scanning and any(window.to_ms is None for window in restored.windows.values()):
            return restored
        window = window_for_first_start(self.channel, self._clocks.org_ms(), preset=Preset.LATEST)
        return await self._commit_windows(sink, (window,), position, restored)

    async def _recover_position(self, error: PositionLostError) -> None:
        """Open the loss window and set the new beginning in one transaction.

        A position that is lost again before anything was committed is not recovered a second time, but halts.
        """
        sink = self._parts.sink()
        try:
            restored = await sink.open()
            old = restored.position or Position()
            delivered_ms = delivered_until(self.channel, restored)
            # The org's clock is only known to some seconds; the window must not end before it begins.
            now_ms = max(self._clocks.org_ms(), delivered_ms or 0)
            preset = Preset.LATEST if self._choices.on_lost_position == "latest" else Preset.EARLIEST
            window = window_for_lost_position(self.channel, old, delivered_ms, now_ms, error.code, preset=preset)
            position = Position(preset=preset, redelivery_ms=self._clocks.now_ms(), epoch=old.epoch + 1)
            await self._commit_windows(sink, (window,), position, restored)
            self._recovered = True
        finally:
            await sink.close()

    async def _commit_windows(
        self, sink: Sink, windows: Collection[LossWindow], position: Position, restored: Restored
    ) -> Restored:
        """Commit windows and a position, and return what is restored then."""
        now_ms = self._clocks.now_ms()
        records: list[OutboundRecord] = []
        for window in windows:
            records.extend(self._parts.records.window_opened(window, now_ms))
        records.append(self._parts.records.position(position, restored.last_event_ms, now_ms))
        await sink.commit(Batch(records, 0, position))
        self._observer.windows_opened(windows)
        opened = {window.window_id: window for window in windows}
        return replace(restored, position=position, windows={**restored.windows, **opened})

    async def _retry_quarantined(self, sink: Sink, restored: Restored) -> Restored:
        """Process quarantined events again; what works now is sent and its window closed in one transaction.

        Requests are only done with at the end: after a failure, or a stop half-way, they are carried out again.
        """
        asked = tuple(self._retries)
        everything = any(not retry.window_ids for retry in asked)
        wanted = frozenset[str]().union(*(retry.window_ids for retry in asked))
        windows = {key: window for key, window in restored.windows.items() if everything or key in wanted}
        position = restored.position or Position()
        processor = self._parts.processor(restored)
        records: list[OutboundRecord] = []
        events = 0

        async def commit() -> None:
            delta = self._parts.store.cut()
            offsets = await sink.commit(Batch([*records, *delta.records], events, position))
            self._parts.store.merge(delta, offsets)

        async with aclosing(self._parts.quarantine.events(frozenset(windows))) as quarantined:
            async for event in quarantined:
                if self._stopping:
                    break
                window = windows.pop(event.window_id or "", None)
                if window is None:
                    continue
                await self._learn(processor, event)
                outcome = processor.process_again(event, window)
                self._observer.retried(event, outcome.error)
                if outcome.error is None:
                    records.extend(outcome.records)
                    events += 1
                if events >= _RETRY_BATCH:
                    await commit()
                    records, events = [], 0
        if events:
            await commit()
        restored = replace(restored, windows=dict(processor.intake.windows), progress=dict(processor.intake.progress))
        if self._stopping:
            return restored
        for retry in asked:
            self._retries.remove(retry)
            retry.finished.set()
        return restored

    async def _learn(self, processor: Processor, event: ReceivedEvent) -> None:
        """Fetch the event's schema; want of one leaves the event in quarantine, it does not hold the stream up."""
        if processor.knows(event.schema_id):
            return
        try:
            schema_json = await self._parts.schemas.fetch(event.schema_id)
        except (SchemaRefusedError, SchemaUnavailableError, LoginError, TokenRefusedError) as error:
            processor.refuse(event.schema_id, error)
        else:
            processor.learn(event.schema_id, schema_json)
