"""What counts as a flood of bad events."""

from hypothesis import given
from hypothesis import strategies as st

from consumer.flood import FloodGuard


def _after(pattern: list[bool]) -> FloodGuard:
    guard = FloodGuard()
    for bad in pattern:
        guard.observe(bad=bad)
    return guard


def test_nineteen_in_a_row_are_no_flood_and_twenty_are() -> None:
    assert not _after([True] * 19).flooding
    assert _after([True] * 20).flooding


def test_five_percent_of_two_hundred_are_no_flood_and_one_more_is() -> None:
    spread = ([True] + [False] * 19) * 10
    assert not _after(spread).flooding
    assert _after([True, True, *spread[2:]]).flooding


@given(st.lists(st.booleans(), max_size=600))
def test_the_verdict_depends_on_the_last_two_hundred_only(pattern: list[bool]) -> None:
    recent = pattern[-200:]
    in_a_row = 0
    for bad in pattern:
        in_a_row = in_a_row + 1 if bad else 0
    expected = in_a_row >= 20 or (len(recent) == 200 and sum(recent) > 10)
    assert _after(pattern).flooding == expected


def _accepted_after(pattern: list[bool]) -> FloodGuard:
    guard = FloodGuard(accepted=True)
    for bad in pattern:
        guard.observe(bad=bad)
    return guard


def test_an_accepted_flood_is_none_until_it_is_over() -> None:
    assert not _accepted_after([True] * 500).flooding
    over = _accepted_after([True] * 500 + [False] * 200)
    assert not over.accepted
    for _ in range(20):
        over.observe(bad=True)
    assert over.flooding
