"""Spans as records: their streams, and the progress that is durable with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from consumer.delivery.coverage import Coverage
from consumer.delivery.headers import iso_utc
from consumer.events import Json, OutboundRecord
from consumer.spans import Spans
from consumer.tracking.arrivals import Progress
from tests.delivery_values import checked
from tests.fakes import CHANNEL, ORG, TOPICS, internal_records

T = 1_790_000_000_000
OF_CHANGES = f"span:changes:{CHANNEL}"


class Rig:
    """Spans over progress that can be kept for another start."""

    def __init__(self, progress: Mapping[str, Mapping[str, Json]] | None = None) -> None:
        self.progress: dict[str, Mapping[str, Json]] = dict(progress or {})
        self.spans = Spans(CHANNEL, Coverage(ORG, TOPICS), self.progress, self._progressed)

    def _progressed(self, progress: Progress) -> OutboundRecord:
        self.progress[progress.name] = progress.state
        return internal_records().progress(progress)


def told(records: list[OutboundRecord]) -> list[tuple[Any, ...]]:
    """Return stream and edges of the spans told, each with its progress behind it."""
    found = []
    for record in records:
        value = checked(record)
        if record.topic == TOPICS.coverage:
            assert record.key == CHANNEL.encode()
            found.append((value["stream"], value["from"], value["to"]))
    assert len(records) == 2 * len(found) or not found
    return found


def test_a_span_comes_with_the_progress_that_the_next_one_goes_on_from() -> None:
    rig = Rig()
    assert not rig.spans.changes(T, T), "nothing says yet since when everything was sent"
    records = rig.spans.changes(T + 40_000, T + 41_000)
    assert told(records) == [(f"changes:{CHANNEL}", iso_utc(T), iso_utc(T + 40_000))]
    assert rig.progress == {OF_CHANGES: {"to_ms": T + 40_000, "cut_ms": T + 41_000}}
    assert records[1].topic == TOPICS.positions
    assert orjson.loads(records[1].value or b"")


def test_spans_go_on_after_a_restart_where_they_ended() -> None:
    rig = Rig({OF_CHANGES: {"to_ms": T, "cut_ms": T}})
    assert told(rig.spans.changes(T + 40_000, T + 41_000)) == [
        (f"changes:{CHANNEL}", iso_utc(T), iso_utc(T + 40_000)),
    ]


def test_each_object_has_a_stream_of_history_of_its_own() -> None:
    rig = Rig({f"span:history:{each}": {"to_ms": T, "cut_ms": T} for each in ("MessagingSession", "Account")})
    one = rig.spans.history("MessagingSession", T + 40_000, T + 41_000)
    other = rig.spans.history("Account", T + 50_000, T + 51_000)
    assert told(one) == [("history", iso_utc(T), iso_utc(T + 40_000))]
    assert told(other) == [("history", iso_utc(T), iso_utc(T + 50_000))]
    entities = [orjson.loads(records[0].value or b"")["entity"] for records in (one, other)]
    assert entities == ["MessagingSession", "Account"]
    assert OF_CHANGES not in rig.progress
    assert rig.progress["span:history:Account"]["to_ms"] == T + 50_000


def test_sharing_and_feed_of_each_object_have_streams_of_their_own() -> None:
    names = [f"span:{stream}:{each}" for stream in ("sharing", "feed") for each in ("MessagingSession", "Account")]
    rig = Rig({name: {"to_ms": T, "cut_ms": T} for name in names})
    found = [
        rig.spans.sharing("MessagingSession", T + 40_000, T + 90_000),
        rig.spans.sharing("Account", T + 50_000, T + 90_000),
        rig.spans.feed("MessagingSession", T + 60_000, T + 90_000),
        rig.spans.feed("Account", T + 70_000, T + 90_000),
    ]
    ends = [T + each for each in (40_000, 50_000, 60_000, 70_000)]
    streams = ["sharing", "sharing", "feed", "feed"]
    assert [told(each) for each in found] == [
        [(stream, iso_utc(T), iso_utc(end))] for stream, end in zip(streams, ends, strict=True)
    ]
    values = [orjson.loads(each[0].value or b"") for each in found]
    assert [each["entity"] for each in values] == ["MessagingSession", "Account"] * 2
    assert {each["proof"] for each in values} == {"delivered"}
    assert len({each["id"] for each in values}) == 4
    assert [rig.progress[name]["to_ms"] for name in names] == ends


def test_a_first_sweep_says_nothing_of_the_time_before_it_ended() -> None:
    rig = Rig()
    assert rig.spans.sharing("MessagingSession", T, T + 60_000) == []
    assert rig.spans.sharing("MessagingSession", T + 50_000, T + 110_000) == [], "it began before the first one ended"
    assert told(rig.spans.sharing("MessagingSession", T + 100_000, T + 160_000)) == [
        ("sharing", iso_utc(T + 60_000), iso_utc(T + 100_000))
    ]


def test_a_loss_ends_a_span_and_the_next_begins_behind_it() -> None:
    rig = Rig({OF_CHANGES: {"to_ms": T, "cut_ms": T}})
    records = rig.spans.lost(T + 10_000, T + 60_000, T + 61_000)
    values = [orjson.loads(each.value or b"") for each in records if each.topic == TOPICS.coverage]
    assert [(each["from"], each["to"]) for each in values] == [(iso_utc(T), iso_utc(T + 10_000))]
    assert rig.progress[OF_CHANGES]["to_ms"] == T + 60_000, "it is durable that the loss is no part of a span"
    again = Rig(rig.progress)
    (span,) = told(again.spans.changes(T + 95_000, T + 96_000))
    assert span[1:] == (iso_utc(T + 60_000), iso_utc(T + 95_000))


def test_a_loss_before_any_span_is_durable_too() -> None:
    rig = Rig()
    (record,) = rig.spans.lost(None, T, T)
    assert record.topic == TOPICS.positions
    assert rig.progress[OF_CHANGES]["to_ms"] == T
