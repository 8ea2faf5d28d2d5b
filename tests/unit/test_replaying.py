"""A recording through the service's own code: same records, order and windows, and no clock but the recording's."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from consumer.errors import PositionLostError, StreamEndedError
from consumer.events import Keepalive, OutboundRecord, ReceivedSchema, StreamFault, TapItem
from consumer.replaying import Replay
from tests.fakes import CHANNEL, NOW_MS, TOPICS, PlainProcessor, event, internal_records, keepalive, replay_id

SCHEMA = ReceivedSchema(CHANNEL, "s1", "{}", NOW_MS)


def lost(at_ms: int = NOW_MS + 500) -> StreamFault:
    return StreamFault(CHANNEL, PositionLostError.__name__, "replayid.corrupted", "lost", at_ms)


def replayed(items: Iterable[TapItem]) -> list[OutboundRecord]:
    replay = Replay(lambda _: PlainProcessor(), lambda _: internal_records())
    return [record for records in replay.records(items) for record in records]


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
