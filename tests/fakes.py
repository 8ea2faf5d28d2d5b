"""In-memory stands-in for the ports, and a loop whose time only passes while everybody waits.

The fake Kafka keeps the very records the real one is given and restores from them; ``tests/contract`` holds both
fakes to the same suite as the real adapters.
"""

from __future__ import annotations

import asyncio
import selectors
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NoReturn, TypeVar

from consumer.assembly import Assembly, TrackingTimes
from consumer.buffer import EventBuffer
from consumer.changes.fields import FieldPolicy
from consumer.delivery.coverage import Coverage
from consumer.delivery.headers import HeaderTemplate, event_id_of
from consumer.delivery.names import Topics
from consumer.delivery.positions import CommittedPosition, ProgressEntry, decode_entry
from consumer.delivery.quarantine import Quarantine, read_quarantine
from consumer.errors import (
    KafkaRefusedError,
    PayloadError,
    PositionLostError,
    ProducerFencedError,
    ServiceError,
    TransactionFailedError,
)
from consumer.events import ChangeEvent, ChangeHeader, Keepalive, LossWindow, OutboundRecord, ReceivedEvent, StreamItem
from consumer.outcome import Outcome
from consumer.pipeline import Pipeline
from consumer.pipeline_parts import Clocks, Limits
from consumer.ports import Batch, Mirror, Offsets, Piece, Restored, Store
from consumer.position import Position, Preset
from consumer.processor import Decoded, Processor
from consumer.reactions import Reaction
from consumer.records import InternalRecords
from consumer.store.memory import MemoryStore
from consumer.subscription import Aside, Choices, Parts, Subscription
from consumer.tracking.arrivals import Arrival

ORG = "00D000000000001AAA"
CHANNEL = "/data/MessagingSessionChangeEvent"
TOPICS = Topics("t.", [CHANNEL])
RECORD = "0Mw000000000001AAA"
RECORDS = 3
"""Records that the events of :class:`TrackingProcessor` are of."""
NOW_MS = 1_790_000_000_000
T = TypeVar("T")


class StuckError(AssertionError):
    """Everybody waits for something that can't happen any more, or works without ever waiting."""


class _JumpingSelector(selectors.SelectSelector):
    """Lets time pass at once instead of waiting; nothing of these tests comes from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1_000.0
        self.turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.turns += 1
        if timeout is None or self.turns > 500_000:
            self.turns = 0
            raise StuckError("nobody can go on" if timeout is None else "somebody works without ever waiting")
        if timeout > 0:
            self.now_s += timeout
            self.turns = 0
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time: a day passes in no time, and a hang is an error at once."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Virtual seconds."""
        return self._jumping.now_s


def virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in virtual time; fails on a task that outlives it."""

    async def watched() -> T:
        result = await main
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert not left, f"tasks outlive the test: {left}"
        return result

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(watched())


def clocks(random: Callable[[], float] = lambda: 0.5) -> Clocks:
    """Clocks that follow the running loop's time."""

    def monotonic() -> float:
        return asyncio.get_running_loop().time()

    def now_ms() -> int:
        return NOW_MS + int(monotonic() * 1000)

    return Clocks(now_ms, monotonic, random, now_ms)


def event(number: int, *, bad: bool = False, replay: int | None = None, schema_id: str = "s1") -> ReceivedEvent:
    """Return event ``e<number>`` with a replay id of its own, or one shared with another event."""
    payload = b"%s %d" % (b"bad" if bad else b"good", number)
    return ReceivedEvent(CHANNEL, f"e{number}", schema_id, payload, replay_id(replay or number), NOW_MS + number)


def keepalive(number: int) -> Keepalive:
    """Return a keep-alive up to event ``number``."""
    return Keepalive(CHANNEL, replay_id(number), NOW_MS + number)


def replay_id(number: int) -> bytes:
    """Return the replay id of an event."""
    return b"r%06d" % number


ASSEMBLY = Assembly(ORG, "svc", TOPICS, FieldPolicy(), allow_raw=True, worker="worker")


def memory_store() -> MemoryStore:
    """Return an empty store."""
    return MemoryStore(ASSEMBLY.codec())


class PlainProcessor(Processor):
    """Takes payloads that begin with ``good`` for good ones; everything else is the real processor's work."""

    def __init__(self, mended: bool = False, restored: Restored | None = None, store: Store | None = None) -> None:
        records = internal_records()
        real = ASSEMBLY.processor(
            CHANNEL, records, store or memory_store(), restored or Restored(None), TrackingTimes()
        )
        super().__init__(FieldPolicy(), Quarantine(ORG, TOPICS, allow_raw=True), records, real.intake)
        self._mended = mended
        self.known: set[str] = set()

    def knows(self, schema_id: str) -> bool:
        return schema_id in self.known or schema_id in self._refused

    def learn(self, schema_id: str, schema_json: str) -> None:
        self.known.add(schema_id)

    def decode(self, event: ReceivedEvent) -> Decoded:
        if event.schema_id in self._refused:
            return Decoded(event, None, self._refused[event.schema_id])
        if event.payload.startswith(b"bad") and not self._mended:
            return Decoded(event, None, PayloadError("The payload is bad"))
        return Decoded(event, _plain_change(event))

    def _changed(self, change: ChangeEvent) -> Outcome:
        event = change.received
        record = change_record(event.event_id, event.payload)
        return Outcome((record,), 1, event_ms=event.received_ms, size=len(event.payload))


def _plain_change(event: ReceivedEvent) -> ChangeEvent:
    header = ChangeHeader("MessagingSession", (RECORD,), "DELETE", "", "", 1, event.received_ms, 1, "", (), (), ())
    return ChangeEvent(event, header, "DELETE", (RECORD,), (), (), {}, (), (), ())


_TRACKED = ("Status", "Origin")


def record_of(event_id: str) -> str:
    """Return the record that an event is of."""
    return f"0Mw00000000000{int(event_id[1:]) % RECORDS}AAA"


class TrackingProcessor(PlainProcessor):
    """Tracks for real: every good event sets the status of one of a few records to its own id."""

    def decode(self, event: ReceivedEvent) -> Decoded:
        decoded = super().decode(event)
        return decoded if decoded.change is None else Decoded(event, _update(event))

    def _changed(self, change: ChangeEvent) -> Outcome:
        return self.intake.event(change)


def _update(event: ReceivedEvent) -> ChangeEvent:
    ids = (record_of(event.event_id),)
    change_type = "CREATE" if event.payload.endswith(b"new") else "UPDATE"
    header = ChangeHeader("MessagingSession", ids, change_type, "", "", 1, event.received_ms, 1, "", (), (), ())
    changed = ("Status",) if change_type == "UPDATE" else ()
    values = {"Status": event.event_id}
    return ChangeEvent(event, header, change_type, ids, (), _TRACKED, values, changed, (), ())


def change_record(event_id: str, value: bytes = b"{}", topics: Topics = TOPICS) -> OutboundRecord:
    """Return the change record of an event."""
    key = RECORD.encode()
    headers = HeaderTemplate(ORG, "MessagingSession", "changes").build(f"{event_id}:{key.decode()}", key, 0, 0)
    return OutboundRecord(topics.changes("MessagingSession"), key, value, headers)


def internal_records(topics: Topics = TOPICS) -> InternalRecords:
    """Return the maker of positions and windows."""
    return InternalRecords(CHANNEL, topics, Coverage(ORG, topics), "worker", 0)


class CommitFault(Enum):
    """How a commit goes wrong."""

    NOT_COMMITTED = "nothing is there, and the committer knows only that it failed"
    UNKNOWN = "everything is there, and the committer knows only that it failed"
    REFUSED = "Kafka will never take it"


@dataclass
class FakeKafka:
    """What a cluster remembers of one subscription.

    Attributes:
        batches: what was committed, transaction by transaction.
        faults: for the next commits, in order; None is a good one.
        commit_s: how long a commit takes, virtual seconds.
        open_errors: raised by the next ``open`` calls, in order.
        opens: how often a sink was opened.
        open_sinks: sinks that are open now.
    """

    topics: Topics = TOPICS
    batches: list[Batch] = field(default_factory=list)
    faults: deque[CommitFault | None] = field(default_factory=deque)
    commit_s: float = 0.01
    open_s: float = 0.01
    open_errors: deque[ServiceError] = field(default_factory=deque)
    opens: int = 0
    epoch: int = 0
    open_sinks: int = 0

    def sink(self, mirror: Mirror | None = None) -> FakeSink:
        """Return a new sink that brings the mirror up to date when it is opened."""
        return FakeSink(self, mirror)

    def ends(self, topics: Collection[str]) -> Offsets:
        """Return the offset after the last record of each topic; all are of one partition."""
        return {(topic, 0): len(self.on(topic)) for topic in topics}

    def restore(self, mirror: Mirror) -> None:
        """Load what the mirror does not have yet."""
        mirror.attach("fake", stale_after_ms=302_400_000)
        stored = mirror.offsets()
        for topic in sorted({each.topic for each in self.records if each.topic.endswith((".state", ".ledger"))}):
            found = [(each.key.decode(), each.value) for each in self.on(topic)]
            new = found[stored.get((topic, 0), 0) :]
            states, ledger = (new, []) if topic.endswith(".state") else ([], new)
            mirror.load(Piece(states, ledger, {(topic, 0): len(found)}, NOW_MS), lambda _entity: True)

    @property
    def records(self) -> list[OutboundRecord]:
        """All committed records."""
        return [record for batch in self.batches for record in batch.records]

    def on(self, topic: str) -> list[OutboundRecord]:
        """Committed records of a topic."""
        return [record for record in self.records if record.topic == topic]

    def event_ids(self) -> list[str]:
        """Ids of the events that are committed as changes or quarantined, in order."""
        wanted = {self.topics.changes("MessagingSession"), self.topics.quarantine}
        return [event_id_of(record.headers) or "" for record in self.records if record.topic in wanted]

    def restored(self) -> Restored:
        """Read back what a new owner finds."""
        newest = {record.key: record.value for record in self.on(self.topics.positions)}
        entries = [decode_entry(key, value) for key, value in newest.items() if value is not None]
        positions = [each for each in entries if isinstance(each, CommittedPosition)]
        return Restored(
            position=positions[0].position if positions else None,
            windows={each.window_id: each for each in entries if isinstance(each, LossWindow)},
            recent_event_ids=frozenset(self.event_ids()),
            last_event_ms=positions[0].last_event_ms if positions else None,
            committed_ms=positions[0].committed_ms if positions else None,
            progress={each.name: each.state for each in entries if isinstance(each, ProgressEntry)},
        )

    async def events(self, window_ids: Collection[str]) -> AsyncGenerator[ReceivedEvent, None]:
        """Read the quarantine topic, as :class:`consumer.subscription.QuarantineReader`."""
        for record in self.on(self.topics.quarantine):
            quarantined = read_quarantine(record.key, record.value, record.headers)
            if quarantined.window_id in window_ids:
                await asyncio.sleep(0)
                yield quarantined


class FakeSink:
    """Implements :class:`consumer.ports.Sink`."""

    def __init__(self, kafka: FakeKafka, mirror: Mirror | None = None) -> None:
        self._kafka = kafka
        self._mirror = mirror
        self._epoch: int | None = None
        self._committing = False
        self._open = False

    async def open(self) -> Restored:
        kafka = self._kafka
        await self.close()
        if kafka.open_errors:
            raise kafka.open_errors.popleft()
        kafka.opens += 1
        kafka.open_sinks += 1
        self._open = True
        kafka.epoch += 1
        self._epoch = kafka.epoch
        await asyncio.sleep(kafka.open_s)
        if self._mirror is not None:
            kafka.restore(self._mirror)
        return kafka.restored()

    async def commit(self, batch: Batch) -> Offsets:
        assert not self._committing, "two transactions at once"
        if self._epoch is None:
            raise TransactionFailedError("There is no producer for this transaction")
        self._committing = True
        try:
            await asyncio.sleep(self._kafka.commit_s)
            self._decide(batch)
        except BaseException:
            self._epoch = None
            raise
        finally:
            self._committing = False
        return self._kafka.ends({record.topic for record in batch.records})

    def _decide(self, batch: Batch) -> None:
        kafka = self._kafka
        if self._epoch != kafka.epoch:
            raise ProducerFencedError("Another worker has taken over")
        fault = kafka.faults.popleft() if kafka.faults else None
        if fault in {None, CommitFault.UNKNOWN}:
            kafka.batches.append(Batch(tuple(batch.records), batch.events, batch.position))
        if fault is CommitFault.REFUSED:
            raise KafkaRefusedError("The batch is refused")
        if fault is not None:
            raise TransactionFailedError("A transaction failed")

    async def close(self) -> None:
        self._epoch = None
        if self._open:
            self._open = False
            self._kafka.open_sinks -= 1


class FakeBus:
    """One channel of an org: what was published, and streams that read it as the Pub/Sub API gives it.

    Attributes:
        items: everything that is sent to a subscriber, in order.
        errors: what ends a stream before the item of this index; each once.
        echoes: indexes of items that are sent once more before the item of this index.
        lost: replay ids that are refused.
        starts: the positions of all subscriptions so far.
        burst: items put between two turns of the loop.
        listeners: streams that have everything and wait for more.
    """

    def __init__(self, items: Iterable[StreamItem] = (), *, burst: int = 3) -> None:
        self.items: list[StreamItem] = list(items)
        self.errors: dict[int, ServiceError] = {}
        self.echoes: dict[int, list[int]] = {}
        self.lost: set[bytes] = set()
        self.presets_lost = False
        self.starts: list[Position] = []
        self.burst = burst
        self.listeners = 0
        self._published = asyncio.Event()

    def publish(self, *items: StreamItem) -> None:
        """Add items; open streams deliver them."""
        self.items.extend(items)
        self._published.set()

    def stream(self) -> FakeStream:
        """Return a new stream."""
        return FakeStream(self)

    def place(self, start: Position) -> int:
        """Return the index of the first item after a position."""
        after = start.replay_id
        if after is None and not start.resumable:
            after = start.beyond_replay_id
        if after is None:
            return 0 if start.preset is Preset.EARLIEST else len(self.items)
        if after in self.lost:
            raise PositionLostError("The replay id is expired", code="subscription.fetch.replayid.corrupted")
        indexes = [index for index, item in enumerate(self.items) if item.replay_id == after]
        assert indexes, f"nobody ever sent the replay id {after!r}"
        return indexes[-1] + 1

    async def news(self) -> None:
        """Wait for the next publication."""
        self._published.clear()
        self.listeners += 1
        try:
            await self._published.wait()
        finally:
            self.listeners -= 1


class FakeStream:
    """Implements :class:`consumer.ports.EventStream`."""

    def __init__(self, bus: FakeBus) -> None:
        self._bus = bus

    async def run(self, start: Position, buffer: EventBuffer) -> NoReturn:
        bus = self._bus
        bus.starts.append(start)
        await asyncio.sleep(0.001)
        if bus.presets_lost:
            raise PositionLostError("No position is accepted", code="subscription.fetch.replayid.corrupted")
        index = bus.place(start)
        repeats = set(start.beyond)
        while True:
            for _ in range(bus.burst):
                error = bus.errors.pop(index, None)
                if error is not None:
                    raise error
                if index == len(bus.items):
                    break
                for echo in bus.echoes.get(index, ()):
                    buffer.put(bus.items[echo])
                item = bus.items[index]
                while isinstance(item, ReceivedEvent) and buffer.room == 0:
                    await buffer.wait_drained()
                index += 1
                if isinstance(item, ReceivedEvent) and item.event_id in repeats:
                    repeats.discard(item.event_id)
                    continue
                buffer.put(item)
            if index == len(bus.items) and index not in bus.errors:
                await bus.news()
            else:
                await asyncio.sleep(0)


class FakeSchemas:
    """Implements :class:`consumer.ports.SchemaSource`.

    Attributes:
        errors: raised by the next fetches, in order.
        asked: ids that were fetched.
        slow: virtual seconds that the answer for a schema takes, if more than an instant.
    """

    def __init__(self) -> None:
        self.errors: deque[ServiceError] = deque()
        self.forever: ServiceError | None = None
        self.asked: list[str] = []
        self.slow: dict[str, float] = {}

    async def fetch(self, schema_id: str) -> str:
        self.asked.append(schema_id)
        await asyncio.sleep(self.slow.get(schema_id, 0.001))
        if self.errors:
            raise self.errors.popleft()
        if self.forever is not None:
            raise self.forever
        return "{}"


class Recorder:
    """Implements the supervisor's observer: remembers everything, and lets a test wait for it."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self._news = asyncio.Event()

    def _tell(self, *what: Any) -> None:
        self.told.append(what)
        self._news.set()

    def names(self) -> list[str]:
        """What was told, without details."""
        return [what[0] for what in self.told]

    def count(self, name: str) -> int:
        """How often something was told."""
        return self.names().count(name)

    def ids(self, *names: str) -> list[str]:
        """Event ids that were told under these names."""
        return [what[1] for what in self.told if what[0] in names]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that was told has made the condition true."""
        while not condition():
            self._news.clear()
            await self._news.wait()

    def arrived(self, arrival: Arrival, outcome: Outcome) -> None:
        self._tell("arrived", arrival, outcome)

    def processed(self, event: ReceivedEvent, outcome: Outcome) -> None:
        self._tell("processed", event.event_id, outcome)

    def repeated(self, event: ReceivedEvent) -> None:
        self._tell("repeated", event.event_id)

    def waiting_for_schema(self, schema_id: str, error: ServiceError) -> None:
        self._tell("waiting_for_schema", schema_id, error)

    def committed(self, batch: Batch, last_event_ms: int | None, seconds: float) -> None:
        self._tell("committed", batch, last_event_ms, seconds)

    def restored(self, restored: Restored) -> None:
        self._tell("restored", restored)

    def streaming(self, pipeline: Pipeline) -> None:
        self._tell("streaming", pipeline)

    def failed(self, error: ServiceError, reaction: Reaction, delay_s: float) -> None:
        self._tell("failed", error, reaction, delay_s)

    def halted(self, error: ServiceError) -> None:
        self._tell("halted", error)

    def paused(self) -> None:
        self._tell("paused")

    def windows_opened(self, windows: Collection[LossWindow]) -> None:
        self._tell("windows_opened", tuple(windows))

    def retried(self, event: ReceivedEvent, error: ServiceError | None) -> None:
        self._tell("retried", event.event_id, error)


LIMITS = Limits(max_records=10, max_bytes=1 << 20, max_age_ms=100, buffer_events=50)


class Rig:
    """A supervisor on fakes.

    Attributes:
        mended: whether bad payloads are understood from the next generation on.
        changes: name of the changes topic.
    """

    def __init__(
        self,
        items: Iterable[StreamItem] = (),
        *,
        limits: Limits = LIMITS,
        choices: Choices | None = None,
        burst: int = 3,
        aside: Callable[[], Aside] | None = None,
    ) -> None:
        self.aside = aside
        self.kafka = FakeKafka()
        self.bus = FakeBus(items, burst=burst)
        self.schemas = FakeSchemas()
        self.told = Recorder()
        self.limits = limits
        self.choices = choices or Choices("earliest", "resync")
        self.mended = False
        self.changes = TOPICS.changes("MessagingSession")
        self.subscription = self.restarted()

    def restarted(self) -> Subscription:
        """Return a new supervisor, as after a restart of the process."""
        store = memory_store()
        parts = Parts(
            stream=self.bus.stream,
            sink=lambda: self.kafka.sink(store),
            processor=lambda restored: PlainProcessor(self.mended, restored, store),
            store=store,
            aside=self.aside,
            read_unknown=False,
            schemas=self.schemas,
            quarantine=self.kafka,
            records=internal_records(),
        )
        self.subscription = Subscription(CHANNEL, parts, self.choices, self.limits, clocks(), self.told)
        return self.subscription

    async def until_committed(self, *event_ids: str) -> None:
        """Wait until these events are committed."""
        await self.told.until(lambda: set(event_ids) <= set(self.kafka.event_ids()))
