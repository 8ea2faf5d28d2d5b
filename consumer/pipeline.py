"""The one loop: take from the buffer, process, batch, commit. Knows ports, not adapters.

One :class:`Pipeline` lives for one *generation*: from reading the committed position to the first failed
transaction, pause or stop. Three tasks share the work, so that round trips overlap with computing: the stream
fills the buffer, the processing loop cuts batches, the committer sends one transaction after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from consumer.backoff import Backoff
from consumer.buffer import EventBuffer
from consumer.delivery.batching import BatchCutter
from consumer.errors import (
    FloodError,
    LoginError,
    SchemaRefusedError,
    SchemaUnavailableError,
    ServiceError,
    TokenRefusedError,
)
from consumer.events import OutboundRecord, ReceivedEvent, StreamItem
from consumer.flood import FloodGuard
from consumer.ports import Batch, EventStream, Restored, SchemaSource, Sink
from consumer.position import Position
from consumer.processor import Outcome, Processor
from consumer.recent import RecentEvents
from consumer.tasks import task_group

_TAKE = 100
"""Items taken from the buffer at a time, so that the stream's task gets its turn in between."""

_SUSPICION_MS = 5_000
"""How long a bad event is held back to see whether it is the first of a flood."""

_SUSPICION_EVENTS = 200
"""Events after which a bad one is no longer held back."""

_SCHEMA_PATIENCE_MS = 6 * 3_600_000
"""How long an event waits for its schema before it goes to quarantine."""


class PipelineObserver(Protocol):
    """What the pipeline tells the world; no call may fail or wait."""

    def processed(self, event: ReceivedEvent, outcome: Outcome) -> None:
        """An event was processed; it is not committed yet."""

    def repeated(self, event: ReceivedEvent) -> None:
        """An event was recognised as a repeat and dropped."""

    def waiting_for_schema(self, schema_id: str, error: ServiceError) -> None:
        """The stream is held up by a schema."""

    def committed(self, batch: Batch, last_event_ms: int | None, seconds: float) -> None:
        """A batch is durable."""


class PositionEncoder(Protocol):
    """Makes the internal record that holds the position."""

    def __call__(self, position: Position, last_event_ms: int | None, committed_ms: int) -> OutboundRecord:
        """Return the record of the ``positions`` topic."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """The pipeline's numbers.

    Attributes:
        max_records: records after which a batch is cut.
        max_bytes: value bytes after which a batch is cut.
        max_age_ms: age after which a batch is cut, milliseconds.
        buffer_events: events held between the stream and the pipeline.
        buffer_bytes: payload bytes after which no more credits are granted.
    """

    max_records: int
    max_bytes: int
    max_age_ms: int
    buffer_events: int
    buffer_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True)
class Clocks:
    """Time as the pipeline needs it; passed in, so that tests own it.

    Attributes:
        now_ms: wall clock, epoch milliseconds.
        monotonic: seconds that never go back.
        random: a number in [0, 1).
    """

    now_ms: Callable[[], int]
    monotonic: Callable[[], float]
    random: Callable[[], float]


@dataclass(slots=True)
class _OpenBatch:
    """What has been processed since the last cut."""

    records: list[OutboundRecord] = field(default_factory=list)
    events: int = 0
    suspect_since_ms: int | None = None


class _HeldUpError(Exception):
    """A drain was asked for while an event waited for its schema: that event is left to the next generation."""


class Pipeline:
    """One generation of one subscription.

    Args:
        stream: where events come from.
        schemas: where unknown writer schemas are fetched.
        sink: where batches are committed; already opened.
        processor: turns an event into records.
        encode_position: makes the position's own record.
        limits: batch and buffer sizes.
        clocks: time and randomness.
        observer: is told what happened.
    """

    def __init__(
        self,
        *,
        stream: EventStream,
        schemas: SchemaSource,
        sink: Sink,
        processor: Processor,
        encode_position: PositionEncoder,
        limits: Limits,
        clocks: Clocks,
        observer: PipelineObserver,
    ) -> None:
        self._stream = stream
        self._schemas = schemas
        self._sink = sink
        self._processor = processor
        self._encode_position = encode_position
        self._limits = limits
        self._clocks = clocks
        self._observer = observer
        self._buffer = EventBuffer(limits.buffer_events, limits.buffer_bytes)
        self._cutter = BatchCutter(limits.max_records, limits.max_bytes, limits.max_age_ms)
        self._batch = _OpenBatch()
        self._handoff: asyncio.Queue[tuple[Batch, int | None] | None] = asyncio.Queue(1)
        self._guard = FloodGuard()
        self._commits = 0
        self._drain = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._failure: ServiceError | None = None
        self._last_event_ms: int | None = None

    @property
    def buffer(self) -> EventBuffer:
        """The buffer between stream and processing, for metrics."""
        return self._buffer

    @property
    def accepting_flood(self) -> bool:
        """Whether an accepted flood is not over yet."""
        return self._guard.accepted

    @property
    def commits(self) -> int:
        """Batches committed by this generation."""
        return self._commits

    def drain(self) -> None:
        """Ask for no more events and commit what is here; ``run`` returns after that."""
        self._drain.set()
        # A reader cancelled before its first step never gets to close the buffer itself.
        self._buffer.close()
        if self._reader is not None:
            self._reader.cancel()

    async def run(self, restored: Restored, start: Position, *, accept_flood: bool = False) -> None:
        """Stream, process and commit until drained.

        Args:
            restored: what the sink read from Kafka.
            start: the position to subscribe at.
            accept_flood: whether the operator wants the flood that is coming put into quarantine.

        Raises:
            ServiceError: the first failure; what was decoded before a stream's failure is committed first.
        """
        self._position = start
        self._recent = RecentEvents(restored.recent_event_ids)
        self._guard = FloodGuard(accepted=accept_flood)
        self._last_event_ms = restored.last_event_ms
        async with task_group() as group:
            group.create_task(self._commit_all())
            self._reader = group.create_task(self._read(start))
            if self._drain.is_set():
                self._reader.cancel()
            await self._process_all()
            self._reader.cancel()
            await self._handoff.put(None)
        if self._failure is not None:
            raise self._failure

    async def _read(self, start: Position) -> None:
        try:
            await self._stream.run(start, self._buffer)
        except ServiceError as error:
            self._failure = error
        finally:
            self._buffer.close()

    async def _process_all(self) -> None:
        try:
            while True:
                items = self._buffer.take(_TAKE)
                for item in items:
                    await self._accept(item)
                if not items:
                    if self._buffer.closed:
                        break
                    await self._wait()
                if self._wait_ms() == 0:
                    await self._cut()
                elif items:
                    await asyncio.sleep(0)
        except _HeldUpError:
            pass
        except FloodError as error:
            self._failure = error
            return
        await self._cut()

    async def _accept(self, item: StreamItem) -> None:
        if not isinstance(item, ReceivedEvent):
            self._position = self._position.after_keepalive(item.replay_id)
            self._cutter.add(0, 0, self._monotonic_ms())
            return
        if self._recent.is_repeat(item.event_id):
            self._observer.repeated(item)
            return
        if not self._processor.knows(item.schema_id):
            await self._learn(item)
        outcome = self._processor.process(item)
        bad = outcome.error is not None
        if bad and self._batch.suspect_since_ms is None:
            # What was good before it must not wait for the verdict on it.
            await self._cut()
            self._batch.suspect_since_ms = self._monotonic_ms()
        self._guard.observe(bad=bad)
        if bad and self._guard.flooding:
            raise FloodError(
                f"Too many events of {item.topic} can't be processed; the last one: {outcome.error}",
                "Nothing of the flood was committed; look at it with `session-consumer record` and `verify`, "
                "then `session-consumer resume`, with --accept-flood to put them into quarantine.",
            )
        suspect = self._batch.suspect_since_ms is not None
        if not suspect and not self._cutter.fits(len(outcome.records), outcome.size):
            await self._cut()
        self._add(item, outcome)

    def _add(self, event: ReceivedEvent, outcome: Outcome) -> None:
        self._position = self._position.after_event(event.event_id, event.replay_id)
        if outcome.event_ms is not None:
            self._last_event_ms = outcome.event_ms
        self._batch.records.extend(outcome.records)
        self._batch.events += 1
        self._cutter.add(len(outcome.records), outcome.size, self._monotonic_ms())
        self._observer.processed(event, outcome)

    def _monotonic_ms(self) -> int:
        return int(self._clocks.monotonic() * 1000)

    def _wait_ms(self) -> int | None:
        """Return the milliseconds until the batch must be cut, None while nothing is to be cut."""
        if self._cutter.empty or not self._position.resumable:
            return None
        suspect_since_ms = self._batch.suspect_since_ms
        if suspect_since_ms is not None:
            if self._batch.events >= _SUSPICION_EVENTS:
                return 0
            return max(0, suspect_since_ms + _SUSPICION_MS - self._monotonic_ms())
        return 0 if self._cutter.full else self._cutter.wait_ms(self._monotonic_ms())

    async def _wait(self) -> None:
        wait_ms = self._wait_ms()
        try:
            async with asyncio.timeout(None if wait_ms is None else wait_ms / 1000):
                await self._buffer.wait_filled()
        except TimeoutError:
            return

    async def _cut(self) -> None:
        if self._cutter.empty or not self._position.resumable:
            return
        batch = self._batch
        self._batch = _OpenBatch()
        self._cutter.restart()
        batch.records.append(self._encode_position(self._position, self._last_event_ms, self._clocks.now_ms()))
        await self._handoff.put((Batch(batch.records, batch.events, self._position), self._last_event_ms))

    async def _commit_all(self) -> None:
        while (handed := await self._handoff.get()) is not None:
            batch, last_event_ms = handed
            began = self._clocks.monotonic()
            await self._sink.commit(batch)
            self._commits += 1
            self._observer.committed(batch, last_event_ms, self._clocks.monotonic() - began)

    async def _learn(self, event: ReceivedEvent) -> None:
        """Fetch the event's schema, however long it takes: an event is never skipped for want of one."""
        backoff = Backoff(self._clocks.random)
        began_ms = self._monotonic_ms()
        while True:
            if self._batch.suspect_since_ms is None or self._wait_ms() == 0:
                # What came before must not wait for an answer that can take long.
                await self._cut()
            try:
                schema_json = await self._schemas.fetch(event.schema_id)
            except SchemaRefusedError as error:
                self._processor.refuse(event.schema_id, error)
                return
            except (SchemaUnavailableError, LoginError, TokenRefusedError) as error:
                self._observer.waiting_for_schema(event.schema_id, error)
                if self._monotonic_ms() - began_ms > _SCHEMA_PATIENCE_MS:
                    self._processor.refuse(event.schema_id, error)
                    return
            else:
                self._processor.learn(event.schema_id, schema_json)
                return
            await self._pause(backoff.next_delay())

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than until a drain is asked for."""
        try:
            async with asyncio.timeout(seconds):
                await self._drain.wait()
        except TimeoutError:
            return
        raise _HeldUpError
