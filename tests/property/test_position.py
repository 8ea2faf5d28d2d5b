"""The position is never ahead of what was done, and resuming from it misses and repeats nothing."""

from hypothesis import given
from hypothesis import strategies as st

from consumer.position import Position, Preset

streams = st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=40)


def _bus(raw: list[tuple[int, bool]]) -> list[tuple[str, bytes]]:
    """A bus in order: runs of events that share a replay id."""
    replay = 0
    events = []
    for index, (step, _) in enumerate(raw):
        replay += 1 if step > 2 else 0
        events.append((f"e{index}", replay.to_bytes(4, "big")))
    return events


def _redelivered(bus: list[tuple[str, bytes]], position: Position) -> list[str]:
    """What a server delivers after a resumption, without the events the position says are done."""
    after = position.replay_id
    return [event for event, replay in bus if (after is None or replay > after) and event not in position.beyond]


@given(streams, st.data())
def test_resuming_anywhere_gives_exactly_the_rest(raw: list[tuple[int, bool]], data: st.DataObject) -> None:
    bus = _bus(raw)
    done = data.draw(st.integers(0, len(bus)))
    position = Position()
    for event, replay in bus[:done]:
        position = position.after_event(event, replay)
    assert _redelivered(bus, position) == [event for event, _ in bus[done:]]


@given(streams, st.data())
def test_resuming_twice_in_a_row_gives_exactly_the_rest(raw: list[tuple[int, bool]], data: st.DataObject) -> None:
    bus = _bus(raw)
    first = data.draw(st.integers(0, len(bus)))
    second = data.draw(st.integers(first, len(bus)))
    position = Position()
    for event, replay in bus[:first]:
        position = position.after_event(event, replay)
    rest = _redelivered(bus, position)
    replay_of = dict(bus)
    for event in rest[: second - first]:
        position = position.after_event(event, replay_of[event])
    assert _redelivered(bus, position) == [event for event, _ in bus[second:]]


def test_a_keepalive_completes_everything_before_it() -> None:
    position = Position().after_event("a", b"1").after_keepalive(b"9")
    assert position == Position(replay_id=b"9")


def test_latest_is_not_resumable_before_a_replay_id_is_known_complete() -> None:
    latest = Position(preset=Preset.LATEST)
    assert not latest.resumable
    assert not latest.after_event("a", b"1").resumable
    assert latest.after_event("a", b"1").after_event("b", b"2").resumable
    assert latest.after_keepalive(b"1").resumable


def test_a_forced_position_stays_marked_until_it_is_set_anew() -> None:
    position = Position(redelivery_ms=5).after_event("a", b"1").after_keepalive(b"2")
    assert position.redelivery_ms == 5


def test_the_72_hours_of_a_backlog_count_from_its_events_and_of_an_idle_topic_from_the_keepalive() -> None:
    reading_a_backlog = Position().after_event("a", b"1")
    assert reading_a_backlog.as_of_ms(1_000, 9_000) == 1_000
    assert reading_a_backlog.after_keepalive(b"2").as_of_ms(1_000, 9_000) == 9_000
    assert reading_a_backlog.as_of_ms(None, 9_000) == 9_000
