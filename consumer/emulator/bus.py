"""The event bus of the emulated org: what was published, under which replay id, and how far back one can read.

Facts (Pub/Sub API guide, "Event Message Durability", "Considerations"): a position is bus-wide and moves also when
no event of a topic comes; ids have holes; several events can share one; an id that is past the retention or was
never given out is refused.
"""

from __future__ import annotations

import random
from base64 import b64encode
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from consumer._proto import pubsub_api_pb2 as pb
from consumer.errors import EmulatorError

RETENTION_MS = 72 * 3_600_000
"""How long an event can be read again (Pub/Sub API guide, "Event Message Durability")."""

ALL_CHANGES = "/data/ChangeEvents"
_SUFFIX = b"\x00\x00"
_EVENTS_TAG = b"\x0a"


class WakeUp(Protocol):
    """What a reader of a topic leaves behind to hear of news: an ``asyncio.Event`` does."""

    def set(self) -> None:
        """Wake the reader."""
        ...


class Publishable(Protocol):
    """What the bus needs of an event; ``OrgEvent`` of the org model fits."""

    @property
    def event_id(self) -> str: ...  # noqa: D102 - the meaning is OrgEvent's
    @property
    def entity(self) -> str: ...  # noqa: D102
    @property
    def schema_id(self) -> str: ...  # noqa: D102
    @property
    def payload(self) -> bytes: ...  # noqa: D102
    @property
    def change_type(self) -> str: ...  # noqa: D102
    @property
    def record_ids(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def commit_ms(self) -> int: ...  # noqa: D102
    @property
    def transaction_key(self) -> str: ...  # noqa: D102
    @property
    def sequence_number(self) -> int: ...  # noqa: D102
    @property
    def shares_replay_id(self) -> bool: ...  # noqa: D102


class PositionRefusedError(EmulatorError):
    """A replay id is malformed, out of the retention, or was never given out."""


@dataclass(slots=True)
class Entry:
    """One published event; a line of the ledger.

    Attributes:
        index: place in the ledger, from 0.
        topic: the event's own topic; channels deliver it too.
        counter: the replay id as a number.
        published_ms: when it reached the bus, epoch milliseconds.
        poison: whether its payload was broken on purpose.
        sent: whether it has left on any stream.
        wire: the serialised ``events`` element of a FetchResponse; empty once it is past the retention.
    """

    index: int
    topic: str
    event_id: str
    entity: str
    change_type: str
    record_ids: tuple[str, ...]
    commit_ms: int
    schema_id: str
    transaction_key: str
    sequence_number: int
    counter: int
    published_ms: int
    poison: bool
    wire: bytes
    sent: bool = False

    @property
    def replay_id(self) -> bytes:
        """The replay id: 8 bytes of counter, big-endian, and two zero bytes."""
        return replay_id_of(self.counter)

    def as_json(self) -> dict[str, object]:
        """Return the ledger line as the control API shows it; ``replay_id`` is base64."""
        return {
            "index": self.index,
            "topic": self.topic,
            "event_id": self.event_id,
            "entity": self.entity,
            "change_type": self.change_type,
            "record_ids": list(self.record_ids),
            "commit_ms": self.commit_ms,
            "published_ms": self.published_ms,
            "schema_id": self.schema_id,
            "transaction_key": self.transaction_key,
            "sequence_number": self.sequence_number,
            "replay_id": b64encode(self.replay_id).decode(),
            "poison": self.poison,
            "retained": bool(self.wire),
            "sent": self.sent,
        }


def replay_id_of(counter: int) -> bytes:
    """Return a position as the server writes it: 10 bytes."""
    return counter.to_bytes(8, "big") + _SUFFIX


def topic_of(entity: str) -> str:
    """Return the topic of an object or platform event by its API name."""
    if entity.endswith("__e"):
        return f"/event/{entity}"
    if entity.endswith("__c"):
        return f"/data/{entity.removesuffix('__c')}__ChangeEvent"
    return f"/data/{entity}ChangeEvent"


class Topic:
    """One subscribable view of the bus: an object's topic, or a channel of several.

    A cursor is an index into all events the topic ever had; it stays valid when old events go.

    Attributes:
        name: such as ``/data/MessagingSessionChangeEvent``.
        entity: the one object of the topic; None for a channel.
        members: objects whose events it carries; None means all objects (``/data/ChangeEvents``).
    """

    def __init__(self, name: str, entity: str | None, members: frozenset[str] | None) -> None:
        self.name = name
        self.entity = entity
        self.members = members
        self.listeners: set[WakeUp] = set()
        self._entries: list[Entry] = []
        self._counters: list[int] = []
        self._first = 0

    @property
    def first(self) -> int:
        """Cursor of the oldest retained event."""
        return self._first

    @property
    def end(self) -> int:
        """Cursor behind the newest event."""
        return self._first + len(self._entries)

    def carries(self, entity: str) -> bool:
        """Tell whether events of this object appear here."""
        if self.members is None:
            return not entity.endswith("__e")
        return entity in self.members

    def slice(self, cursor: int, limit: int) -> list[Entry]:
        """Return up to ``limit`` events from a cursor on."""
        start = cursor - self._first
        return self._entries[start : start + limit]

    def after(self, counter: int) -> int:
        """Return the cursor of the first event strictly after a position."""
        return self._first + bisect_right(self._counters, counter)

    def add(self, entry: Entry) -> None:
        """Append an event."""
        self._entries.append(entry)
        self._counters.append(entry.counter)

    def wake(self) -> None:
        """Tell every reader that there is something new."""
        for listener in self.listeners:
            listener.set()

    def drop_through(self, counter: int) -> None:
        """Forget events up to and including a position."""
        gone = bisect_right(self._counters, counter)
        del self._entries[:gone]
        del self._counters[:gone]
        self._first += gone

    def renumber(self) -> None:
        """Take the counters anew from the events, after the org has moved."""
        self._counters = [entry.counter for entry in self._entries]


class EventBus:
    """All topics of the org over one sequence of positions.

    Args:
        seed: makes the holes in the sequence repeatable.
        entities: objects that have a topic from the start; others get theirs with their first event.
        channels: custom channels (``/data/Name__chn``) with the objects they carry.
        now_ms: the wall clock, epoch milliseconds.
        retention_ms: how long events can be read again.
        retain_events: bound of memory: more events than this push the oldest past the retention.

    Attributes:
        ledger: every event ever published, in order.
        lossy: takes events away before they are published, None as long as nothing is lost.
    """

    def __init__(
        self,
        seed: int,
        entities: Iterable[str],
        channels: Mapping[str, Iterable[str]],
        now_ms: Callable[[], int],
        *,
        retention_ms: int = RETENTION_MS,
        retain_events: int = 1_000_000,
    ) -> None:
        self.ledger: list[Entry] = []
        self.lossy: Callable[[Sequence[Publishable]], Sequence[Publishable]] | None = None
        self.topics: dict[str, Topic] = {ALL_CHANGES: Topic(ALL_CHANGES, None, None)}
        self._routes: dict[str, tuple[Topic, ...]] = {}
        self._random = random.Random(seed)  # noqa: S311 - holes in a sequence, nothing secret
        self._now_ms = now_ms
        self._retention_ms = retention_ms
        self._retain_events = retain_events
        self._head = self._random.randrange(1 << 20, 1 << 24)
        self._issued = [self._head]
        self._expired_through = self._head - 1
        self._first_retained = 0
        for name, members in channels.items():
            self.topics[name] = Topic(name, None, frozenset(members))
        for entity in entities:
            self.add_entity(entity)

    def give_head(self) -> bytes:
        """Return the bus-wide position, as keep-alives carry it; from now on it can be resumed from."""
        self._issue(self._head)
        return replay_id_of(self._head)

    @property
    def head_counter(self) -> int:
        """The bus-wide position as a number, without giving it out."""
        return self._head

    def add_entity(self, entity: str) -> None:
        """Give an object its topic."""
        name = topic_of(entity)
        self.topics.setdefault(name, Topic(name, entity, frozenset((entity,))))
        self._routes.pop(entity, None)

    def append(self, events: Sequence[Publishable], *, poison: bool = False) -> list[Entry]:
        """Publish events in this order, and wake the readers of their topics.

        Args:
            events: an event with ``shares_replay_id`` gets the replay id of the one before it in this call.
            poison: whether their payloads were broken on purpose (for the ledger).
        """
        if self.lossy is not None:
            events = self.lossy(events)
        now = self._now_ms()
        touched: set[Topic] = set()
        entries: list[Entry] = []
        for event in events:
            if not (event.shares_replay_id and entries):
                self._head += 1 if self._random.random() < 0.8 else self._random.randrange(2, 40)
                self._issue(self._head)
            entry = self._entry(event, now, poison=poison)
            entries.append(entry)
            self.ledger.append(entry)
            for topic in self._route(event.entity):
                topic.add(entry)
                touched.add(topic)
        for topic in touched:
            topic.wake()
        # A tenth late, because forgetting is dear and this way rare.
        if len(self.ledger) - self._first_retained > self._retain_events * 1.1:
            self._forget_through(self.ledger[-self._retain_events].counter - 1)
        return entries

    def advance(self) -> None:
        """Move the position without an event of ours, as other traffic of the bus does."""
        self._head += self._random.randrange(1, 30)

    def after(self, topic: Topic, replay_id: bytes) -> int:
        """Return the cursor strictly after a replay id (CUSTOM); the 8-byte form is accepted too.

        Raises:
            PositionRefusedError: malformed, past the retention, or never given out.
        """
        counter = self.counter_of(replay_id)
        return topic.after(counter)

    def counter_of(self, replay_id: bytes) -> int:
        """Check a replay id and return it as a number.

        Raises:
            PositionRefusedError: malformed, past the retention, or never given out.
        """
        self.expire_old()
        well_formed = len(replay_id) == 8 or (len(replay_id) == 10 and replay_id.endswith(_SUFFIX))
        counter = int.from_bytes(replay_id[:8], "big")
        if not well_formed or counter <= self._expired_through or not self._was_issued(counter):
            raise PositionRefusedError("the replay id is malformed, expired or unknown")
        return counter

    def earliest(self, topic: Topic) -> int:
        """Return the cursor of the oldest retained event."""
        self.expire_old()
        return topic.first

    def expire(self, keep_last: int = 0) -> None:
        """Move the retention: only the newest ``keep_last`` events, and positions after the older ones, remain."""
        if keep_last < len(self.ledger) - self._first_retained:
            self._forget_through(self.ledger[-keep_last].counter - 1 if keep_last else self._head)
        elif not keep_last:
            self._forget_through(self._head)
        self.advance()

    def move(self, *, keep_events: bool, restart: bool = False) -> None:
        """Move the org to another instance: all positions given out so far are void, new ones start elsewhere.

        Args:
            keep_events: whether retained events stay readable, under new replay ids.
            restart: whether numbering starts below every number given out so far, not above. An old position is
                refused until the new numbers reach it, some hundred thousand events later.
        """
        retained = self.ledger[self._first_retained :] if keep_events else []
        if not keep_events:
            self._forget_through(self._head)
        if restart:
            self._expired_through = self._random.randrange(1 << 8, 1 << 12)
        else:
            self._expired_through = self._head + self._random.randrange(1 << 25, 1 << 30)
        self._head = self._expired_through + 1
        self._issued = [self._head]
        previous = None
        for entry in retained:
            if entry.counter != previous:
                self._head += self._random.randrange(1, 4)
                self._issue(self._head)
            previous, entry.counter = entry.counter, self._head
            entry.wire = _renumbered(entry.wire, self._head)
        for topic in self.topics.values():
            topic.renumber()

    def _route(self, entity: str) -> tuple[Topic, ...]:
        route = self._routes.get(entity)
        if route is None:
            self.add_entity(entity)
            route = tuple(topic for topic in self.topics.values() if topic.carries(entity))
            self._routes[entity] = route
        return route

    def _entry(self, event: Publishable, now: int, *, poison: bool) -> Entry:
        produced = pb.ProducerEvent(id=event.event_id, schema_id=event.schema_id, payload=event.payload)
        return Entry(
            len(self.ledger),
            topic_of(event.entity),
            event.event_id,
            event.entity,
            str(event.change_type),
            tuple(event.record_ids),
            event.commit_ms,
            event.schema_id,
            event.transaction_key,
            event.sequence_number,
            self._head,
            now,
            poison,
            _wire(pb.ConsumerEvent(event=produced, replay_id=replay_id_of(self._head))),
        )

    def _issue(self, counter: int) -> None:
        if self._issued[-1] != counter:
            self._issued.append(counter)

    def _was_issued(self, counter: int) -> bool:
        at = bisect_left(self._issued, counter)
        return at < len(self._issued) and self._issued[at] == counter

    def expire_old(self) -> None:
        """Let go of what is older than the retention; done anyway whenever a position is asked for."""
        oldest_ms = self._now_ms() - self._retention_ms
        first = bisect_left(self.ledger, oldest_ms, lo=self._first_retained, key=lambda entry: entry.published_ms)
        if first > self._first_retained:
            self._forget_through(self.ledger[first - 1].counter)

    def _forget_through(self, counter: int) -> None:
        self._expired_through = max(self._expired_through, counter)
        while self._first_retained < len(self.ledger):
            entry = self.ledger[self._first_retained]
            if entry.counter > counter:
                break
            entry.wire = b""
            self._first_retained += 1
        for topic in self.topics.values():
            topic.drop_through(counter)


def _wire(event: pb.ConsumerEvent) -> bytes:
    body = event.SerializeToString()
    return _EVENTS_TAG + varint(len(body)) + body


def _renumbered(wire: bytes, counter: int) -> bytes:
    event = pb.FetchResponse.FromString(wire).events[0]
    event.replay_id = replay_id_of(counter)
    return _wire(event)


def varint(number: int) -> bytes:
    """Encode a non-negative number as protobuf does."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
