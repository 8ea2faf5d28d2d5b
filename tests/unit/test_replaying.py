"""A recording through the service's own code: same records, order and windows, and no clock but the recording's."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from consumer.errors import PositionLostError, StreamEndedError
from consumer.events import Keepalive, OutboundRecord, ReceivedSchema, StreamFault, TapItem
from consumer.replaying import Replay
from tests.fakes import (
    CHANNEL,
    NOW_MS,
    TOPICS,
    PlainProcessor,
    TrackingProcessor,
    event,
    internal_records,
    keepalive,
    memory_store,
    replay_id,
)

SCHEMA = ReceivedSchema(CHANNEL, "s1", "{}", NOW_MS)


def lost(at_ms: int = NOW_MS + 500) -> StreamFault:
    return StreamFault(CHANNEL, PositionLostError.__name__, "replayid.corrupted", "lost", at_ms)


def replayed(items: Iterable[TapItem]) -> list[OutboundRecord]:
    replay = Replay(
        lambda _, store: PlainProcessor(store=store), lambda _: memory_store(), lambda _: internal_records()
    )
    return [record for records in replay.records(items) for record in records]


def replayed_with_states(items: Iterable[TapItem]) -> list[OutboundRecord]:
    replay = Replay(
        lambda _, store: TrackingProcessor(store=store), lambda _: memory_store(), lambda _: internal_records()
    )
    return [record for records in replay.records([SCHEMA, *items]) for record in records]


def values(records: Iterable[OutboundRecord], topic: str) -> list[bytes | None]:
    return [record.value for record in records if record.topic == topic]


CHANGES = TOPICS.changes("MessagingSession")


def test_each_event_comes_once_in_order_whatever_the_tap_saw_twice() -> None:
    records = replayed([SCHEMA, event(1), event(2), keepalive(2), event(1), event(3)])
    assert values(records, CHANGES) == [b"good 1", b"good 2", b"good 3"]


def test_the_same_recording_gives_the_same_records() -> None:
    items: list[TapItem] = [SCHEMA, event(1), event(2, bad=True), keepalive(2), lost(), event(3)]
    assert replayed(items) == replayed(items)


def test_an_event_whose_schema_is_not_in_the_recording_goes_to_quarantine() -> None:
    (quarantined, *_) = replayed([event(1)])
    assert quarantined.topic == TOPICS.quarantine
    assert dict(quarantined.headers)["reason"] == b"schema_refused"


def test_a_schema_recorded_on_one_channel_serves_the_others() -> None:
    """A schema is fetched once per process; the tap of another channel does not see it again."""
    elsewhere = ReceivedSchema("/data/Other__chn", "s1", "{}", NOW_MS)
    assert values(replayed([elsewhere, event(1)]), CHANGES) == [b"good 1"]


def test_a_lost_position_opens_the_window_the_service_opened() -> None:
    records = replayed([SCHEMA, event(1), Keepalive(CHANNEL, replay_id(1), NOW_MS), lost(), event(2)])
    (opened,) = [orjson.loads(value or b"") for value in values(records, TOPICS.coverage)]
    assert (opened["kind"], opened["reason"]) == ("loss_opened", "position_lost")
    assert values(records, CHANGES) == [b"good 1", b"good 2"]


def test_other_ends_of_the_stream_leave_no_trace() -> None:
    ended = StreamFault(CHANNEL, StreamEndedError.__name__, "", "ended", NOW_MS)
    assert replayed([SCHEMA, event(1), ended, event(2)]) == replayed([SCHEMA, event(1), event(2)])


def test_a_lost_position_makes_the_images_doubtful_and_ends_the_epoch_as_in_the_service() -> None:
    """What was known before may have been changed by what nobody saw: it is no before."""
    items: list[TapItem] = [event(1), Keepalive(CHANNEL, replay_id(1), NOW_MS), lost(), event(2002), event(2005)]
    records = replayed_with_states(items)
    first, second, third = (orjson.loads(value or b"") for value in values(records, CHANGES))
    assert "Status" not in first["before"]
    assert second["before"] == {"Id": second["source"]["record_id"]}
    assert third["before"]["Status"] == "e2002"
    states = [orjson.loads(value or b"") for value in values(records, TOPICS.of("MessagingSession", "state"))]
    assert [each["source_version"]["epoch"] for each in states] == [0, 1, 1]
    assert [each["stale"] for each in states] == [False, True, True]


def test_a_lost_position_lost_nothing_when_a_repeat_follows() -> None:
    records = replayed([SCHEMA, event(1), lost(), event(1), event(2), event(1)])
    kinds = [orjson.loads(value or b"")["kind"] for value in values(records, TOPICS.coverage)]
    assert kinds == ["loss_opened", "loss_closed"]
    assert values(records, CHANGES) == [b"good 1", b"good 2"]


def test_a_lost_position_lost_nothing_that_the_retained_events_tell() -> None:
    """Images are in doubt only up to the first event after the loss, whatever the window said at first."""
    late = lost(NOW_MS + 5_000)
    items: list[TapItem] = [event(1), Keepalive(CHANNEL, replay_id(1), NOW_MS), late, event(2002), event(2005)]
    first, second, third = (orjson.loads(value or b"") for value in values(replayed_with_states(items), CHANGES))
    assert "Status" not in first["before"]
    assert "Status" not in second["before"]
    assert third["before"]["Status"] == "e2002"
