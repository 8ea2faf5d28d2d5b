"""Spans are contiguous, seldom, and never overlap a loss window."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.tracking.spans import (
    Span,
    SpanKeeper,
    complete_after_event,
    complete_after_keepalive,
)

STREAM = "changes:/data/MessagingSessionChangeEvent"
T = 1_790_000_000_000


def begun(at_ms: int = T) -> SpanKeeper:
    keeper = SpanKeeper(STREAM)
    keeper.lost(None, at_ms, at_ms)
    return keeper


def test_an_event_proves_what_was_before_its_own_second() -> None:
    assert complete_after_event(T + 999) == T
    assert complete_after_event(T) == T


def test_a_keep_alive_proves_what_was_committed_five_seconds_before_it() -> None:
    assert complete_after_keepalive(T) == T - 5000


def test_spans_are_contiguous_and_at_least_thirty_seconds_apart() -> None:
    keeper = begun()
    assert keeper.advance(T + 1000, T + 2000) == Span(STREAM, T, T + 1000)
    assert keeper.advance(T + 5000, T + 31_999) is None
    assert keeper.advance(T + 6000, T + 32_000) == Span(STREAM, T + 1000, T + 6000)


def test_an_edge_cuts_a_span_before_its_time_and_none_where_nothing_is_new() -> None:
    keeper = begun()
    assert keeper.advance(T + 1000, T + 2000) is not None
    assert keeper.advance(T + 3000, T + 3000) is None
    assert keeper.edge(None, T + 3500) == Span(STREAM, T + 1000, T + 3000)
    assert keeper.edge(T + 4000, T + 4000) == Span(STREAM, T + 3000, T + 4000)
    assert keeper.edge(T + 4000, T + 4000) is None
    assert keeper.advance(T + 5000, T + 33_999) is None, "an edge counts for the thirty seconds too"


def test_completeness_never_goes_back() -> None:
    keeper = begun()
    keeper.advance(T + 9000, T + 9000)
    assert keeper.edge(T + 2000, T + 10_000) is None
    assert keeper.complete_to_ms == T + 9000


@pytest.mark.parametrize("damaged", [-1, 1 << 62, 253_402_300_800_000])
def test_a_time_that_can_not_be_written_is_no_progress(damaged: int) -> None:
    keeper = begun()
    assert keeper.edge(damaged, T + 1000) is None
    assert keeper.complete_to_ms == T


def test_the_state_is_plain_json_and_goes_on_where_the_last_span_ended() -> None:
    keeper = begun()
    keeper.advance(T + 1000, T + 1000)
    keeper.advance(T + 2000, T + 2000)
    restored = SpanKeeper(STREAM, orjson.loads(orjson.dumps(keeper.state())))
    assert restored.advance(T + 3000, T + 20_000) is None, "the thirty seconds outlast a restart"
    assert restored.advance(T + 3000, T + 31_000) == Span(STREAM, T + 1000, T + 3000)


@pytest.mark.parametrize("damage", [{}, {"to_ms": "x", "cut_ms": None}, {"to_ms": True}])
def test_a_state_without_an_end_is_a_first_start(damage: dict[str, Any]) -> None:
    keeper = SpanKeeper(STREAM, damage)
    assert keeper.edge(T, T + 500) is None
    assert keeper.edge(T + 2000, T + 2500) == Span(STREAM, T + 500, T + 2000)


def test_behind_a_lost_position_the_next_span_begins_at_the_windows_end() -> None:
    keeper = begun()
    keeper.advance(T + 1000, T + 1000)
    assert keeper.lost(T + 4000, T + 90_000, T + 90_000) == Span(STREAM, T + 1000, T + 4000)
    assert keeper.edge(T + 6000, T + 91_000) is None, "events of the window prove nothing"
    assert keeper.edge(T + 95_000, T + 96_000) == Span(STREAM, T + 90_000, T + 95_000)


def test_the_span_before_a_window_counts_for_the_thirty_seconds_too() -> None:
    keeper = begun()
    assert keeper.lost(T + 4000, T + 4000, T + 90_000) == Span(STREAM, T, T + 4000)
    assert keeper.advance(T + 6000, T + 119_999) is None
    assert keeper.advance(T + 6000, T + 120_000) == Span(STREAM, T + 4000, T + 6000)


def test_a_window_that_ends_before_the_last_span_did_is_not_gone_back_to() -> None:
    keeper = begun()
    keeper.advance(T + 60_000, T + 60_000)
    assert keeper.lost(T + 1000, T + 50_000, T + 60_000) is None
    assert keeper.edge(T + 61_000, T + 61_000) == Span(STREAM, T + 60_000, T + 61_000)


def test_behind_an_open_ended_window_a_span_begins_with_the_first_progress() -> None:
    keeper = begun()
    keeper.advance(T + 1000, T + 1000)
    assert keeper.lost(T + 2000, None, T + 3000) == Span(STREAM, T + 1000, T + 2000)
    assert keeper.state()["to_ms"] is None
    assert keeper.edge(T + 8000, T + 9000) is None, "since when events were sent is not known"
    assert keeper.edge(T + 12_000, T + 13_000) == Span(STREAM, T + 9000, T + 12_000)


def test_a_beginning_can_be_told_once() -> None:
    keeper = SpanKeeper("history")
    keeper.begin(T)
    keeper.begin(T + 5000)
    assert keeper.edge(T + 9000, T + 9000) == Span("history", T, T + 9000)


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["advance", "edge"]), st.integers(-5, 90), st.integers(0, 40)),
        st.tuples(st.just("lost"), st.integers(0, 60), st.integers(0, 90)),
        st.tuples(st.just("restart"), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@given(steps)
@settings(max_examples=200, deadline=None)
def test_spans_never_overlap_each_other_nor_a_window_and_leave_no_other_hole(taken: list[tuple[str, int, int]]) -> None:
    keeper, now, covered = begun(0), 0, 0
    for what, one, two in taken:
        if what == "restart":
            keeper = SpanKeeper(STREAM, keeper.state())
            continue
        now += two * 1000
        span = None
        if what == "lost":
            # A window begins behind what was proven, as the last committed event's time does.
            start = max(covered, (now - one * 1000))
            span = keeper.lost(start, max(now, start), now)
            if span is not None:
                assert (span.from_ms, span.to_ms) == (covered, start)
            covered = max(now, start)
            continue
        span = getattr(keeper, what)(now - one * 1000, now)
        if span is not None:
            assert span.from_ms == covered
            assert span.to_ms > span.from_ms
            covered = span.to_ms
