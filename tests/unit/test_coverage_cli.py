"""What `coverage` prints, and the times that commands take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from consumer.cli.coverage import _as_json, _print, _reports
from consumer.cli.times import parse_time, show_time
from consumer.delivery.coverage import Coverage, Restoration
from consumer.delivery.windows import stream_of
from consumer.errors import UsageError
from consumer.events import LossWindow
from consumer.kafka.lookup import CoverageRead, Reach
from consumer.tracking.coverage_report import CoverageFacts
from consumer.tracking.schema_change import Retyped, SchemaChange
from consumer.tracking.spans import Span
from tests.delivery_values import CHANNEL, ORG, RECORD, TOPICS, checked

NOW = 1_790_000_000_000
STREAM = stream_of(CHANNEL)
COVERAGE = Coverage(ORG, TOPICS)
HOUR = 3_600_000
KEPT = Reach(NOW - 9 * HOUR, dropped=False)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("now", NOW),
        ("2h", NOW - 7_200_000),
        ("1.5h ago", NOW - 5_400_000),
        ("90 s", NOW - 90_000),
        ("7d", NOW - 7 * 86_400_000),
        ("2026-09-21", 1_789_948_800_000),
        ("2026-09-21T14:13:20", NOW),
        ("2026-09-21T14:13:20.500Z", NOW + 500),
        ("2026-09-21T16:13:20+02:00", NOW),
        ("2026-09-21 14:13", NOW - 20_000),
    ],
)
def test_times(text: str, ms: int) -> None:
    assert parse_time(text, NOW) == ms


@pytest.mark.parametrize("text", ["", "yesterday", "2h30m", "2026-13-01", "2026-09-21T25:00"])
def test_what_is_no_time_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match="is no time"):
        parse_time(text, NOW)


def test_times_are_shown_as_iso_and_what_is_none_as_dots() -> None:
    assert [show_time(NOW), show_time(NOW + 5), show_time(None), show_time(1 << 60)] == [
        "2026-09-21T14:13:20Z",
        "2026-09-21T14:13:20.005Z",
        "…",
        "…",
    ]


def read(*records: Any, reach: Reach = KEPT) -> CoverageRead:
    of = CoverageFacts(STREAM)
    for record in records:
        of.add(checked(record))
    return CoverageRead({CHANNEL: of}, {}, {CHANNEL: reach})


def span(start: int, end: int) -> Any:
    return COVERAGE.span(CHANNEL, Span(STREAM, start, end), end)


def only(of: CoverageRead, start: int | None = None, end: int | None = None, by: Any = "hour") -> Any:
    (report,) = _reports(of, start, end, NOW, by=by)
    return report


def test_without_an_end_the_period_ends_with_what_is_proven_by_now() -> None:
    assert only(read(span(NOW - 30 * HOUR, NOW - 60_000))).to_ms == NOW - 60_000
    assert only(read(span(NOW - 30 * HOUR, NOW - 60_000))).label == "complete"


def test_of_a_service_that_proved_nothing_for_long_the_period_ends_now() -> None:
    report = only(read(span(NOW - 30 * HOUR, NOW - 11 * 60_000)))
    assert (report.to_ms, report.label) == (NOW, "incomplete")


def test_a_period_behind_what_is_proven_is_not_called_complete() -> None:
    report = only(read(span(NOW - HOUR, NOW - 60_000)), NOW - 30_000)
    assert (report.from_ms, report.to_ms, report.label) == (NOW - 30_000, NOW, "incomplete")


def test_what_was_dropped_by_retention_proves_nothing() -> None:
    of = read(span(NOW - 30 * HOUR, NOW), reach=Reach(NOW - HOUR, dropped=True))
    assert only(of, NOW - 2 * HOUR, NOW).label == "incomplete"
    assert only(of, NOW - HOUR, NOW).label == "complete"


def test_the_text_says_what_is_missing_and_how_far_retention_reaches(capsys: pytest.CaptureFixture[str]) -> None:
    start = 1_789_999_200_000 - 3 * HOUR
    gap = LossWindow("gap:1", STREAM, "gap_update", start + 1000, start + 1999, (RECORD,), "MessagingSession")
    lost = LossWindow("position:2", STREAM, "position_lost", start + HOUR, start + HOUR + 5, (), "MessagingSession")
    state = Restoration(state=True, deletes=True, tracked_history=True)
    change = SchemaChange("MessagingSession", ("New__c",), ("Old__c",), (Retyped("A", "x", "y"),), True, "none")
    of = read(
        span(start, start + HOUR),
        COVERAGE.closed(gap, NOW, state, unrecoverable_fields=("AgentCount", "Notes__c")),
        COVERAGE.opened(lost, NOW),
        COVERAGE.schema_changed(CHANNEL, change, ("a", "b"), ("e", start), NOW),
        reach=Reach(start, dropped=True),
    )
    report = only(of, start, start + 2 * HOUR)
    _print(report, of)
    out = capsys.readouterr().out
    assert f"{CHANNEL}: incomplete from 2026-09-21T11:00:00Z to 2026-09-21T13:00:00Z" in out
    assert "state complete  delivered  transitions of AgentCount, Notes__c of 1 record missing (gap_update)" in out
    assert "nothing vouches for 2026-09-21T12:00:00.005Z to 2026-09-21T13:00:00Z" in out
    assert "all records of MessagingSession in doubt (position_lost, loss window position:2 is open)" in out
    assert "open: position:2 (position_lost, 2026-09-21T12:00:00Z to 2026-09-21T12:00:00.005Z, all of" in out
    assert "New__c added; Old__c removed; A is now y, was x; fields in another order" in out
    assert "delivery is proven to 2026-09-21T12:00:00Z" in out
    assert "Kafka keeps coverage records since 2026-09-21T11:00:00Z; nothing is known of the time before" in out


def test_sharing_and_feeds_are_no_part_of_what_is_complete_but_told_beside_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    others = [
        COVERAGE.span(CHANNEL, Span(stream, NOW - HOUR, NOW), NOW, entity="MessagingSession")
        for stream in ("sharing", "feed")
    ]
    assert only(read(*others), NOW - HOUR, NOW).label == "incomplete", "they prove no change delivered"
    of = replace(
        read(span(NOW - HOUR, NOW), *others),
        sharing={"MessagingSession": NOW - 2 * HOUR, "Case": NOW},
        feed={"MessagingSession": NOW - 60_000, "Case": NOW},
    )
    report = only(of, NOW - HOUR, NOW)
    assert report.label == "complete", "a sweep of two hours ago takes nothing from it"
    _print(report, of)
    out = capsys.readouterr().out
    assert "sharing of MessagingSession is checked to 2026-09-21T12:13:20Z, when the last complete sweep began" in out
    assert "feed of MessagingSession is read to 2026-09-21T14:12:20Z" in out
    assert "Case" not in out, "it is of another channel"
    document = _as_json(of, [report])
    assert document["sharing"] == [
        {"entity": "MessagingSession", "checked_to": "2026-09-21T12:13:20.000Z"},
        {"entity": "Case", "checked_to": "2026-09-21T14:13:20.000Z"},
    ]
    assert document["feed"] == [
        {"entity": "MessagingSession", "complete_to": "2026-09-21T14:12:20.000Z"},
        {"entity": "Case", "complete_to": "2026-09-21T14:13:20.000Z"},
    ]
