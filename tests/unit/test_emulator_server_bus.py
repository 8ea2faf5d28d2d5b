"""The event bus: positions, retention, shared replay ids, channels and the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest

from consumer._proto import pubsub_api_pb2 as pb
from consumer.emulator.bus import ALL_CHANGES, EventBus, PositionRefusedError, replay_id_of, topic_of

SESSION = "/data/MessagingSessionChangeEvent"


@dataclass(frozen=True)
class Event:
    """What the bus needs of an event."""

    event_id: str
    entity: str = "MessagingSession"
    shares_replay_id: bool = False
    schema_id: str = "s1"
    payload: bytes = b"\x01\x02"
    change_type: str = "UPDATE"
    record_ids: tuple[str, ...] = ("0Mw000000000001AAA",)
    commit_ms: int = 1_790_000_000_000
    transaction_key: str = "t"
    sequence_number: int = 1


class Clock:
    """A wall clock that stands still."""

    def __init__(self) -> None:
        self.ms = 1_790_000_000_000

    def __call__(self) -> int:
        return self.ms


def make_bus(clock: Clock | None = None, **settings: int) -> EventBus:
    channels = {"/data/Support__chn": ("MessagingSession", "AgentWork")}
    return EventBus(7, ["MessagingSession", "AgentWork", "Account"], channels, clock or Clock(), **settings)


def ids(bus: EventBus, topic: str, cursor: int) -> list[str]:
    return [entry.event_id for entry in bus.topics[topic].slice(cursor, 1000)]


def test_an_event_appears_on_its_topic_its_channels_and_on_all_changes_with_one_replay_id() -> None:
    bus = make_bus()
    bus.append([Event("a"), Event("b", entity="Account"), Event("c", entity="AgentWork")])
    assert ids(bus, SESSION, 0) == ["a"]
    assert ids(bus, "/data/Support__chn", 0) == ["a", "c"]
    assert ids(bus, ALL_CHANGES, 0) == ["a", "b", "c"]
    wire = [pb.FetchResponse.FromString(entry.wire).events[0] for entry in bus.ledger]
    assert [event.replay_id for event in wire] == [entry.replay_id for entry in bus.ledger]


def test_replay_ids_are_ten_bytes_rise_and_have_holes() -> None:
    bus = make_bus()
    entries = bus.append([Event(str(n)) for n in range(500)])
    counters = [entry.counter for entry in entries]
    steps = [after - before for before, after in pairwise(counters)]
    assert all(len(entry.replay_id) == 10 and entry.replay_id.endswith(b"\0\0") for entry in entries)
    assert min(steps) == 1
    assert max(steps) > 1


def test_events_that_share_a_replay_id_are_both_skipped_by_resuming_after_it() -> None:
    bus = make_bus()
    first, second, third = bus.append([Event("a"), Event("b", shares_replay_id=True), Event("c")])
    assert first.replay_id == second.replay_id != third.replay_id
    assert ids(bus, SESSION, bus.after(bus.topics[SESSION], first.replay_id)) == ["c"]


def test_custom_means_strictly_after_and_takes_the_eight_byte_form() -> None:
    bus = make_bus()
    entries = bus.append([Event("a"), Event("b"), Event("c")])
    topic = bus.topics[SESSION]
    assert ids(bus, SESSION, bus.after(topic, entries[0].replay_id)) == ["b", "c"]
    assert ids(bus, SESSION, bus.after(topic, entries[0].replay_id[:8])) == ["b", "c"]


def test_the_bus_wide_position_moves_without_events_and_can_be_resumed_from() -> None:
    bus = make_bus()
    bus.append([Event("a")])
    before = bus.give_head()
    bus.advance()
    head = bus.give_head()
    assert head > before
    bus.append([Event("b")])
    assert ids(bus, SESSION, bus.after(bus.topics[SESSION], head)) == ["b"]


@pytest.mark.parametrize("garbage", [b"", b"-1", b"\0" * 7, b"\0" * 9, b"\0" * 11, b"\0" * 8 + b"\0\1"])
def test_a_malformed_replay_id_is_refused(garbage: bytes) -> None:
    bus = make_bus()
    bus.append([Event("a")])
    with pytest.raises(PositionRefusedError):
        bus.after(bus.topics[SESSION], garbage)


def test_a_replay_id_in_a_hole_or_in_the_future_was_never_issued_and_is_refused() -> None:
    bus = make_bus()
    entries = bus.append([Event(str(n)) for n in range(200)])
    issued = {entry.counter for entry in entries}
    hole = next(n for n in range(entries[0].counter, entries[-1].counter) if n not in issued)
    for counter in (hole, bus.head_counter + 1):
        with pytest.raises(PositionRefusedError):
            bus.after(bus.topics[SESSION], replay_id_of(counter))


def test_after_72_hours_an_event_and_its_position_are_gone() -> None:
    clock = Clock()
    bus = make_bus(clock)
    (old,) = bus.append([Event("old")])
    clock.ms += 72 * 3_600_000 + 1
    (new,) = bus.append([Event("new")])
    topic = bus.topics[SESSION]
    assert ids(bus, SESSION, bus.earliest(topic)) == ["new"]
    assert ids(bus, SESSION, bus.after(topic, new.replay_id)) == []
    with pytest.raises(PositionRefusedError):
        bus.after(topic, old.replay_id)


def test_the_retention_can_be_moved_and_later_positions_stay_good() -> None:
    bus = make_bus()
    entries = bus.append([Event(str(n)) for n in range(10)])
    bus.expire(keep_last=3)
    topic = bus.topics[SESSION]
    assert ids(bus, SESSION, bus.earliest(topic)) == ["7", "8", "9"]
    assert ids(bus, SESSION, bus.after(topic, entries[7].replay_id)) == ["8", "9"]
    with pytest.raises(PositionRefusedError):
        bus.after(topic, entries[6].replay_id)


def test_when_everything_expires_even_the_newest_position_is_refused() -> None:
    bus = make_bus()
    entries = bus.append([Event("a"), Event("b")])
    bus.expire()
    topic = bus.topics[SESSION]
    with pytest.raises(PositionRefusedError):
        bus.after(topic, entries[-1].replay_id)
    assert bus.after(topic, bus.give_head()) == topic.end


def test_the_memory_bound_pushes_the_oldest_events_past_the_retention() -> None:
    bus = make_bus(retain_events=100)
    for number in range(300):
        bus.append([Event(str(number))])
    topic = bus.topics[SESSION]
    assert 100 <= topic.end - bus.earliest(topic) <= 110
    assert len(bus.ledger) == 300


@pytest.mark.parametrize("keep_events", [True, False])
def test_a_moved_org_refuses_every_old_position(keep_events: bool) -> None:
    bus = make_bus()
    entries = bus.append([Event("a"), Event("b", shares_replay_id=True), Event("c")])
    old = [entry.replay_id for entry in entries] + [bus.give_head()]
    bus.move(keep_events=keep_events)
    topic = bus.topics[SESSION]
    for position in old:
        with pytest.raises(PositionRefusedError):
            bus.after(topic, position)
    assert ids(bus, SESSION, bus.earliest(topic)) == (["a", "b", "c"] if keep_events else [])
    if keep_events:
        wire = [pb.FetchResponse.FromString(entry.wire).events[0] for entry in entries]
        assert wire[0].replay_id == wire[1].replay_id == entries[0].replay_id != old[0]
        assert ids(bus, SESSION, bus.after(topic, entries[0].replay_id)) == ["c"]
    (new,) = bus.append([Event("d")])
    assert ids(bus, SESSION, bus.after(topic, new.replay_id)) == []


def test_topic_names_follow_the_object() -> None:
    assert topic_of("Account") == "/data/AccountChangeEvent"
    assert topic_of("Widget__c") == "/data/Widget__ChangeEvent"
    assert topic_of("Demo__e") == "/event/Demo__e"
