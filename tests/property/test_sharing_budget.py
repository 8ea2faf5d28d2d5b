"""The calls for sharing: sweeps give way to a budget, never stop, and never begin before their time."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from consumer.checks.sharing import expected_calls
from consumer.settings import Settings
from consumer.tracking.sharing_budget import (
    DAY_MS,
    affordable_sweep_ms,
    calls_of_sweep,
    is_crowded,
    left_for_sweeps,
    owner_change_calls_per_day,
    polling_calls_per_day,
    worst_revocation_ms,
)

ROWS = st.integers(0, 50_000_000)
SWEEP = st.integers(1, 30 * DAY_MS)
BUDGET = st.integers(1, 1_000_000)
OTHER = st.integers(0, 2_000_000)
PAGE = st.integers(200, 2_000)


@given(ROWS, SWEEP, BUDGET, OTHER, PAGE)
def test_sweeps_are_never_sooner_than_wanted_and_use_no_more_than_is_left(
    rows: int, sweep_ms: int, budget: int, other: int, page_rows: int
) -> None:
    every_ms = affordable_sweep_ms(rows, sweep_ms, budget, other, page_rows)
    a_day = calls_of_sweep(rows, page_rows) * DAY_MS / every_ms
    assert every_ms >= sweep_ms
    assert a_day <= left_for_sweeps(budget, other)
    if not is_crowded(budget, other):
        assert a_day + other <= budget
    if every_ms > sweep_ms:
        assert calls_of_sweep(rows, page_rows) * DAY_MS / (every_ms - 1) > left_for_sweeps(budget, other), "no later"


@given(ROWS, SWEEP, BUDGET, OTHER, PAGE)
def test_a_sweep_always_comes_however_little_the_rest_leaves(
    rows: int, sweep_ms: int, budget: int, other: int, page_rows: int
) -> None:
    """Without sweeps no revocation would ever be found."""
    least = max(1, round(budget * 0.1))
    longest_ms = math.ceil(calls_of_sweep(rows, page_rows) * DAY_MS / least)
    assert affordable_sweep_ms(rows, sweep_ms, budget, other, page_rows) <= max(sweep_ms, longest_ms)
    assert left_for_sweeps(budget, other) >= least
    assert is_crowded(budget, other) == (budget - other < least)


@given(ROWS, st.integers(0, 1_000_000), SWEEP, BUDGET, OTHER, st.integers(0, 10_000), PAGE)
def test_more_rows_fewer_calls_and_smaller_pages_make_sweeps_no_more_frequent(
    rows: int, more: int, sweep_ms: int, budget: int, other: int, taken: int, page_rows: int
) -> None:
    every_ms = affordable_sweep_ms(rows, sweep_ms, budget, other, page_rows)
    assert affordable_sweep_ms(rows + more, sweep_ms, budget, other, page_rows) >= every_ms
    assert affordable_sweep_ms(rows, sweep_ms, budget, other + taken, page_rows) >= every_ms
    assert affordable_sweep_ms(rows, sweep_ms, budget, other, 200) >= every_ms
    assert affordable_sweep_ms(rows, sweep_ms, budget + taken, other, page_rows) <= every_ms


@given(ROWS, PAGE)
def test_the_pages_of_a_sweep_hold_all_rows(rows: int, page_rows: int) -> None:
    pages = calls_of_sweep(rows, page_rows) - 3
    assert pages * page_rows >= rows
    assert (pages - 1) * page_rows < max(rows, 1)


@given(st.one_of(st.none(), SWEEP), st.one_of(st.none(), SWEEP))
def test_polls_add_up(poll_ms: int | None, feed_ms: int | None) -> None:
    both = polling_calls_per_day(poll_ms, feed_ms)
    assert both == polling_calls_per_day(poll_ms, None) + polling_calls_per_day(None, feed_ms)
    assert polling_calls_per_day(None, None) == 0


@given(st.integers(0, 10_000_000), st.integers(0, DAY_MS))
def test_owner_changes_never_cost_more_than_two_readings_each(changes: int, cycle_ms: int) -> None:
    calls = owner_change_calls_per_day(changes, cycle_ms)
    assert 0 <= calls <= 2 * changes + 2 * changes // 200
    assert calls >= 2 * changes // 200


@given(SWEEP, st.integers(0, DAY_MS))
def test_a_revocation_is_told_after_a_sweep_and_two_more_readings(sweep_ms: int, settle_ms: int) -> None:
    assert worst_revocation_ms(sweep_ms, settle_ms) >= sweep_ms + 2 * settle_ms


@given(ROWS, st.integers(0, 100_000), st.integers(0, 100_000), st.integers(1, 100_000), PAGE)
def test_what_check_expects_keeps_to_the_budget_or_says_that_it_does_not(
    rows: int, new: int, taken: int, budget: int, page_rows: int
) -> None:
    settings = Settings.model_validate(
        {
            "salesforce": {"login_url": "https://x.my.salesforce.com"},
            "kafka": {"bootstrap_servers": "x:1"},
            "sharing": {"api_calls_per_day": budget},
            "tracking": {"chunk_rows": page_rows},
        }
    )
    expected = expected_calls(settings, "MessagingSession", rows, new, taken)
    assert expected.crowded or expected.total + taken <= budget + 1, "a part of a call is a call"
    assert expected.every_ms >= settings.sharing.sweep
