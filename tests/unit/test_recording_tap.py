"""A recording is complete in itself: every schema stands before the first event that needs it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumer.events import Keepalive, ReceivedEvent, ReceivedSchema, StreamFault, TapItem
from consumer.recording import tap as module
from consumer.recording.tap import Tap


def event(number: int, schema_id: str = "s1") -> ReceivedEvent:
    return ReceivedEvent("/t", f"e{number}", schema_id, b"", b"", number)


def schema(schema_id: str = "s1") -> ReceivedSchema:
    return ReceivedSchema("/t", schema_id, "{}", 0)


def refusal() -> StreamFault:
    return StreamFault("/t", "SchemaRefusedError", "", "No", 0)


def taken(*items: TapItem, flush: bool = False) -> list[TapItem]:
    written: list[TapItem] = []
    tap = Tap(written.append)
    for item in items:
        tap(item)
    if flush:
        tap.flush()
    return written


def test_events_wait_for_their_schema_and_what_follows_waits_with_them() -> None:
    idle = Keepalive("/t", b"", 0)
    assert taken(event(1), idle) == []
    assert taken(event(1), idle, schema()) == [schema(), event(1), idle]


def test_a_schema_is_written_once() -> None:
    assert taken(schema(), event(1), schema(), event(2)) == [schema(), event(1), event(2)]


def test_a_refused_schema_is_waited_for_no_longer() -> None:
    assert taken(event(1, "no"), event(2, "s2"), refusal()) == [event(1, "no")]
    assert taken(event(1, "no"), event(2, "s2"), refusal(), schema("s2")) == [
        event(1, "no"),
        schema("s2"),
        event(2, "s2"),
        refusal(),
    ]


def test_a_schema_that_comes_after_its_refusal_is_still_written() -> None:
    assert taken(event(1), refusal(), schema(), event(2)) == [event(1), refusal(), schema(), event(2)]


def test_memory_is_bounded_when_a_schema_never_comes() -> None:
    items = [event(number) for number in range(module.MOST_HELD + 2)]
    assert taken(*items) == items


@given(st.lists(st.sampled_from(["s1", "s2", "s3", "event s1", "event s2", "event s3", "keepalive"]), max_size=40))
def test_nothing_is_lost_and_every_schema_comes_first(kinds: list[str]) -> None:
    items: list[TapItem] = []
    for number, kind in enumerate(kinds):
        if kind == "keepalive":
            items.append(Keepalive("/t", b"", number))
        else:
            items.append(event(number, kind[-2:]) if kind.startswith("event") else schema(kind))
    written = taken(*items, flush=True)
    others = [item for item in items if not isinstance(item, ReceivedSchema)]
    assert [item for item in written if not isinstance(item, ReceivedSchema)] == others
    for schema_id in {item.schema_id for item in items if isinstance(item, ReceivedSchema)}:
        assert written.count(schema(schema_id)) == 1
        first = next((place for place, item in enumerate(written) if getattr(item, "schema_id", "") == schema_id))
        assert written[first] == schema(schema_id)
