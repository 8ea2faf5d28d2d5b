"""The one loop: take from the buffer, process, batch, commit. Knows ports, not adapters.

One :class:`Pipeline` lives for one *generation*: from reading the committed position to the first failed
transaction, pause or stop. Tasks share the work, so that round trips overlap with computing: the stream fills the
buffer, the upkeep fills the inbox, the processing loop cuts batches, the committer sends one transaction after the
other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

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
from consumer.events import Keepalive, OutboundRecord, ReceivedEvent, StreamItem
from consumer.flood import FloodGuard
from consumer.inbox import Inbox
from consumer.outcome import Outcome
from consumer.pipeline_parts import Clocks, Limits, PipelineObserver, PositionEncoder, ReadUnknown
from consumer.ports import Batch, Delta, EventStream, Restored, SchemaSource, Sink, Store
from consumer.position import Position, Preset
from consumer.processor import Decoded, Processor
from consumer.recent import RecentEvents
from consumer.tasks import cancel, task_group
from consumer.tracking.arrivals import Arrival
from consumer.tracking.spans import complete_after_event, complete_after_keepalive

_TAKE = 100
"""Items taken from the buffer at a time, so that the stream's task gets its turn in between."""

_SUSPICION_MS = 5_000
"""How long a bad event is held back to see whether it is the first of a flood."""

_SUSPICION_EVENTS = 200
"""Events after which a bad one is no longer held back."""

_SCHEMA_PATIENCE_MS = 6 * 3_600_000
"""How long an event waits for its schema before it goes to quarantine."""

_QUIET_S = 10.0
"""A stream without events for so long has caught up; LATEST takes effect some seconds late."""


@dataclass(slots=True)
class _OpenBatch:
    """What has been processed since the last cut."""

    records: list[OutboundRecord] = field(default_factory=list)
    events: int = 0
    arrivals: int = 0
    suspect_since_ms: int | None = None


@dataclass(frozen=True, slots=True)
class _Handed:
    """A batch on its way to the committer.

    Attributes:
        batch: the batch.
        delta: what it changes in the local store.
        last_event_ms: commit time of its last event.
        arrivals: how many arrivals were taken in up to it.
    """

    batch: Batch
    delta: Delta
    last_event_ms: int | None
    arrivals: int


class _HeldUpError(Exception):
    """A drain was asked for while an event waited for its schema: that event is left to the next generation."""


class Pipeline:
    """One generation of one subscription.

    Args:
        stream: where events come from.
        schemas: where unknown writer schemas are fetched.
        sink: where batches are committed; already opened.
        processor: turns events and arrivals into records.
        store: the tracked states.
        read_unknown: reads records that nothing is known of; None leaves their changes partial.
        encode_position: makes the position's own record.
        limits: batch and buffer sizes.
        clocks: time and randomness.
        observer: is told what happened.
    """

    def __init__(  # noqa: PLR0913  # each is a port or a choice of its own, and all are given by name
        self,
        *,
        stream: EventStream,
        schemas: SchemaSource,
        sink: Sink,
        processor: Processor,
        store: Store,
        read_unknown: ReadUnknown | None,
        encode_position: PositionEncoder,
        limits: Limits,
        clocks: Clocks,
        observer: PipelineObserver,
    ) -> None:
        self._stream = stream
        self._schemas = schemas
        self._sink = sink
        self._processor = processor
        self._store = store
        self._read_unknown = read_unknown
        self._encode_position = encode_position
        self._limits = limits
        self._clocks = clocks
        self._observer = observer
        self._buffer = EventBuffer(limits.buffer_events, limits.buffer_bytes)
        self._cutter = BatchCutter(limits.max_records, limits.max_bytes, limits.max_age_ms)
        self._batch = _OpenBatch()
        self.inbox = Inbox(self._buffer.poke)
        self._handoff: asyncio.Queue[_Handed | None] = asyncio.Queue(1)
        self._guard = FloodGuard()
        self._commits = 0
        self._drain = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._failure: ServiceError | None = None
        self._last_event_ms: int | None = None
        self._complete_to_ms: int | None = None
        self.changed = asyncio.Event()
        self._news = processor.intake.news
        self._caught_up = asyncio.Event()
        self._items = 0
        self._at_the_beginning = False

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

    async def caught_up(self) -> None:
        """Wait until the stream has delivered what was retained, or has been quiet for some seconds.

        After a resumption there is nothing to wait for.
        """
        while not self._caught_up.is_set():
            before = self._items
            try:
                async with asyncio.timeout(_QUIET_S):
                    await self._caught_up.wait()
            except TimeoutError:
                if self._items == before:
                    self._catch_up(self._clocks.org_ms())

    async def run(
        self,
        restored: Restored,
        start: Position,
        *,
        accept_flood: bool = False,
        upkeep: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Stream, process and commit until drained.

        Args:
            restored: what the sink read from Kafka.
            start: the position to subscribe at.
            upkeep: reads the org and fills the inbox until cancelled.
            accept_flood: whether the operator wants the flood that is coming put into quarantine.

        Raises:
            ServiceError: the first failure; what was decoded before a stream's failure is committed first.
        """
        self._position = start
        self._recent = RecentEvents(restored.recent_event_ids)
        self._guard = FloodGuard(accepted=accept_flood)
        self._last_event_ms = restored.last_event_ms
        self._at_the_beginning = start.replay_id is None and start.preset is Preset.EARLIEST
        self._began_org_ms = self._clocks.org_ms()
        if start.replay_id is not None:
            self._caught_up.set()
        async with task_group() as group:
            group.create_task(self._commit_all())
            self._reader = group.create_task(self._read(start))
            aside = None if upkeep is None else group.create_task(_until_cancelled(upkeep))
            if self._drain.is_set():
                self._reader.cancel()
            await self._process_all()
            self._reader.cancel()
            if aside is not None:
                await cancel(aside)
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
                self._items += len(items)
                await self._accept(items)
                if self._buffer.closed and not items:
                    break
                arrival = self.inbox.take()
                if arrival is not None:
                    self._arrive(arrival)
                idle = not items and arrival is None
                if idle:
                    await self._wait()
                if self._wait_ms() == 0:
                    await self._cut()
                elif not idle:
                    await asyncio.sleep(0)
        except _HeldUpError:
            pass
        except FloodError as error:
            self._failure = error
            return
        await self._cut()

    async def _accept(self, items: Sequence[StreamItem]) -> None:
        """Process stream items in order; what several events need from the org is asked for at once."""
        decoded: list[Decoded] = []
        self._processor.intake.skew_ms = self._clocks.org_ms() - self._clocks.now_ms()
        for item in items:
            if isinstance(item, Keepalive):
                await self._apply(decoded)
                decoded = []
                self._keepalive(item)
                continue
            repeated = self._recent.is_repeat(item.event_id)
            if self._at_the_beginning:
                await self._begin(item, repeated=repeated)
            if repeated:
                self._observer.repeated(item)
                continue
            if not self._processor.knows(item.schema_id):
                await self._apply(decoded)
                decoded = []
                await self._learn(item)
            decoded.append(self._processor.decode(item))
        await self._apply(decoded)

    def _keepalive(self, item: Keepalive) -> None:
        self._position = self._position.after_keepalive(item.replay_id)
        self._cutter.add(0, 0, self._monotonic_ms())
        skew_ms = self._clocks.org_ms() - self._clocks.now_ms()
        self._complete_to_ms = complete_after_keepalive(item.received_ms + skew_ms)
        self._catch_up(self._complete_to_ms)

    def _catch_up(self, at_ms: int) -> None:
        """Say that the stream has delivered what was retained, and delivers everything from a time on."""
        if not self._caught_up.is_set():
            self._processor.intake.delivering_from(at_ms)
            self._caught_up.set()

    async def _begin(self, item: ReceivedEvent, *, repeated: bool) -> None:
        """See where the retained events begin: that is where a lost position's loss ends, if there is any.

        An event that can't be read does not say when it was committed; the next one does.
        """
        intake = self._processor.intake
        if repeated:
            outcome = intake.nothing_lost(item.received_ms)
        else:
            if not self._processor.knows(item.schema_id):
                await self._learn(item)
            change = self._processor.decode(item).change
            if change is None:
                return
            outcome = intake.begun_at(change.header.commit_ms, self._clocks.org_ms())
        self._at_the_beginning = False
        self._batch.records.extend(outcome.records)
        self._cutter.add(len(outcome.records), outcome.size, self._monotonic_ms())

    async def _apply(self, decoded: Sequence[Decoded]) -> None:
        self._store.expect(
            (each.change.header.entity, record_id)
            for each in decoded
            if each.change is not None
            for record_id in each.change.record_ids
        )
        if self._read_unknown is not None and decoded:
            unknown = self._processor.unknown(decoded)
            if unknown:
                for read in await self._read_unknown(unknown):
                    self._processor.arrive(read)
        for each in decoded:
            # A batch is cut before an event is tracked, never after: its states must be those of its own events.
            if self._batch.suspect_since_ms is None:
                if each.change is None:
                    # What was good before it must not wait for the verdict on it.
                    await self._cut()
                    self._batch.suspect_since_ms = self._monotonic_ms()
                elif not self._cutter.fits(each.records, len(each.event.payload)):
                    await self._cut()
            self._apply_one(each)

    def _apply_one(self, decoded: Decoded) -> None:
        bad = decoded.change is None
        outcome = self._processor.apply(decoded)
        self._guard.observe(bad=bad)
        if bad and self._guard.flooding:
            raise FloodError(
                f"Too many events of {decoded.event.topic} can't be processed; the last one: {outcome.error}",
                "Nothing of the flood was committed; look at it with `session-consumer record` and `verify`, "
                "then `session-consumer resume`, with --accept-flood to put them into quarantine.",
            )
        self._add(decoded.event, outcome)

    def _arrive(self, arrival: Arrival) -> None:
        outcome = self._processor.arrive(arrival)
        self._batch.records.extend(outcome.records)
        self._batch.arrivals += 1
        self._cutter.add(len(outcome.records), outcome.size, self._monotonic_ms())
        self._observer.arrived(arrival, outcome)
        self._tell_news()

    def _tell_news(self) -> None:
        """Wake the upkeep when a window opened or closed, or an object appeared."""
        news = self._processor.intake.news
        if news != self._news:
            self._news = news
            self.changed.set()

    def _add(self, event: ReceivedEvent, outcome: Outcome) -> None:
        self._position = self._position.after_event(event.event_id, event.replay_id)
        if outcome.event_ms is not None:
            self._last_event_ms = outcome.event_ms
            self._complete_to_ms = complete_after_event(outcome.event_ms)
            if outcome.event_ms >= self._began_org_ms and not self._caught_up.is_set():
                self._catch_up(self._complete_to_ms)
        self._batch.records.extend(outcome.records)
        self._batch.events += 1
        self._cutter.add(outcome.changes or 1, outcome.size, self._monotonic_ms())
        self._observer.processed(event, outcome)
        self._tell_news()

    def _monotonic_ms(self) -> int:
        return int(self._clocks.monotonic() * 1000)

    def _wait_ms(self) -> int | None:
        """Return the milliseconds until the batch must be cut, None while nothing is to be cut."""
        if not self._may_cut:
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

    @property
    def _may_cut(self) -> bool:
        """Whether there is something to commit, and a position to commit it with.

        What was read of the org does not wait for the first position of LATEST: should it never come, the next
        start says what it skips.
        """
        return not self._cutter.empty and (self._position.resumable or self._batch.arrivals > 0)

    async def _cut(self) -> None:
        if not self._may_cut:
            return
        batch = self._batch
        self._batch = _OpenBatch()
        self._cutter.restart()
        now_ms = self._clocks.now_ms()
        if self._complete_to_ms is not None:
            batch.records.extend(self._processor.intake.stream_reached(self._complete_to_ms, self._clocks.org_ms()))
        delta = self._store.cut()
        batch.records.extend(delta.records)
        batch.records.append(self._encode_position(self._position, self._last_event_ms, now_ms))
        whole = Batch(batch.records, batch.events, self._position)
        await self._handoff.put(_Handed(whole, delta, self._last_event_ms, self.inbox.taken))

    async def _commit_all(self) -> None:
        while (handed := await self._handoff.get()) is not None:
            began = self._clocks.monotonic()
            offsets = await self._sink.commit(handed.batch)
            self._commits += 1
            self._observer.committed(handed.batch, handed.last_event_ms, self._clocks.monotonic() - began)
            self._store.merge(handed.delta, offsets)
            await self.inbox.committed(handed.arrivals)

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


async def _until_cancelled(work: Callable[[], Awaitable[None]]) -> None:
    await work()
