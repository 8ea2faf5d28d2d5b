"""One channel from start to stop: generations of the pipeline, and what to do between them.

A generation ends by a failure, a pause or a stop. The supervisor asks :mod:`consumer.reactions` what to do: wait
and begin the next generation from the committed position, recover a lost position, halt, or step down.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal, Protocol

from consumer.backoff import Backoff
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
from consumer.pipeline import Clocks, Limits, Pipeline, PipelineObserver
from consumer.ports import Batch, EventStream, Restored, SchemaSource, Sink
from consumer.position import Position, Preset
from consumer.processor import Processor
from consumer.reactions import Reaction, policy_for
from consumer.records import InternalRecords

_RETRY_BATCH = 200
"""Quarantined events retried per transaction."""

_WRONG_FROM_THE_START = (TopicRefusedError, LoginRejectedError, KafkaRefusedError)
"""Before anything has ever worked these are mistakes in the configuration; later they are troubles to wait out."""


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
        processor: makes the processor; its compiled schemas live as long as the generation.
        schemas: fetches writer schemas.
        quarantine: reads the quarantine topic.
        records: makes internal records.
    """

    stream: Callable[[], EventStream]
    sink: Callable[[], Sink]
    processor: Callable[[], Processor]
    schemas: SchemaSource
    quarantine: QuarantineReader
    records: InternalRecords


@dataclass(frozen=True, slots=True)
class _Retry:
    """One request to process quarantined events again; no window ids mean all that are open."""

    window_ids: frozenset[str]
    finished: asyncio.Event = field(default_factory=asyncio.Event)


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
        self._stopping = False
        self._pause_wanted = False
        self._halted = False
        self._flooded = False
        self._accept_flood = False
        self._worked = False
        self._recovered = False
        self._running = False
        self._retries: list[_Retry] = []

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
        sink = self._parts.sink()
        try:
            restored = await sink.open()
            self._observer.restored(restored)
            position = restored.position
            if position is None:
                position = await self._first_start(sink)
            elif position.replay_id is not None:
                self._worked = True
            elif not position.resumable:
                await self._begin_again_at_latest(sink, restored, position)
            if self._retries:
                await self._retry_quarantined(sink, restored, position)
            try:
                await self._stream(sink, restored, position)
            except PositionLostError as error:
                if self._choices.on_lost_position == "halt" or self._recovered:
                    raise
                await self._recover_position(error)
        finally:
            await sink.close()

    async def _stream(self, sink: Sink, restored: Restored, position: Position) -> None:
        pipeline = Pipeline(
            stream=self._parts.stream(),
            schemas=self._parts.schemas,
            sink=sink,
            processor=self._parts.processor(),
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
            await pipeline.run(restored, position, accept_flood=self._accept_flood)
        finally:
            self._pipeline = None
            self._accept_flood = pipeline.accepting_flood
            if pipeline.commits:
                self._worked = True
                self._recovered = False
                self._backoff.healthy()

    async def _first_start(self, sink: Sink) -> Position:
        """Make the beginning durable, with the loss window of what was before it."""
        now_ms = self._clocks.now_ms()
        if self._choices.start == "latest":
            position = Position(preset=Preset.LATEST)
            windows: tuple[LossWindow, ...] = ()
        else:
            position = Position(preset=Preset.EARLIEST)
            first = window_for_first_start(self.channel, now_ms)
            windows = (first,) if self._choices.start == "snapshot" else ()
        await self._commit_windows(sink, windows, position, None)
        return position

    async def _begin_again_at_latest(self, sink: Sink, restored: Restored, position: Position) -> None:
        """Own up to what LATEST skips when it begins a second time, unless an open window tells it already."""
        if any(window.to_ms is None for window in restored.windows.values()):
            return
        window = window_for_first_start(self.channel, self._clocks.now_ms(), preset=Preset.LATEST)
        await self._commit_windows(sink, (window,), position, restored.last_event_ms)

    async def _recover_position(self, error: PositionLostError) -> None:
        """Open the loss window and set the new beginning in one transaction.

        A position that is lost again before anything was committed is not recovered a second time, but halts.
        """
        sink = self._parts.sink()
        try:
            restored = await sink.open()
            old = restored.position or Position()
            now_ms = self._clocks.now_ms()
            preset = Preset.LATEST if self._choices.on_lost_position == "latest" else Preset.EARLIEST
            window = window_for_lost_position(
                self.channel, old, restored.last_event_ms, now_ms, error.code, preset=preset
            )
            position = Position(preset=preset, redelivery_ms=now_ms)
            await self._commit_windows(sink, (window,), position, restored.last_event_ms)
            self._recovered = True
        finally:
            await sink.close()

    async def _commit_windows(
        self, sink: Sink, windows: Collection[LossWindow], position: Position, last_event_ms: int | None
    ) -> None:
        now_ms = self._clocks.now_ms()
        records: list[OutboundRecord] = []
        for window in windows:
            records.extend(self._parts.records.window_opened(window, now_ms))
        records.append(self._parts.records.position(position, last_event_ms, now_ms))
        await sink.commit(Batch(records, 0, position))
        self._observer.windows_opened(windows)

    async def _retry_quarantined(self, sink: Sink, restored: Restored, position: Position) -> None:
        """Process quarantined events again; what works now is sent and its window closed in one transaction.

        Requests are only done with at the end: after a failure, or a stop half-way, they are carried out again.
        """
        asked = tuple(self._retries)
        everything = any(not retry.window_ids for retry in asked)
        wanted = frozenset[str]().union(*(retry.window_ids for retry in asked))
        windows = {key: window for key, window in restored.windows.items() if everything or key in wanted}
        processor = self._parts.processor()
        records: list[OutboundRecord] = []
        events = 0
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
                    await sink.commit(Batch(records, events, position))
                    records, events = [], 0
        if events:
            await sink.commit(Batch(records, events, position))
        if self._stopping:
            return
        for retry in asked:
            self._retries.remove(retry)
            retry.finished.set()

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
