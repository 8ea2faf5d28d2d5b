"""The org's time follows the dates of its answers, and what those can't tell is no difference."""

from __future__ import annotations

import pytest

from consumer.org_clock import OrgClock

NOW = 1_790_000_000_000


class Wall:
    """A wall clock that is set by hand."""

    def __init__(self) -> None:
        self.ms = NOW

    def __call__(self) -> int:
        return self.ms


def test_before_any_answer_it_is_our_own_time() -> None:
    wall = Wall()
    clock = OrgClock(wall)
    wall.ms += 5
    assert clock.now_ms() == NOW + 5


@pytest.mark.parametrize(("ahead", "skew"), [(2_000, 0), (-2_000, 0), (2_001, 2_001), (-2_001, -2_001)])
def test_a_date_within_two_seconds_is_no_difference(ahead: int, skew: int) -> None:
    """Dates have whole seconds, and are as old as the answer took."""
    clock = OrgClock(Wall())
    clock.observe(NOW + ahead)
    assert clock.now_ms() == NOW + skew


def test_the_difference_goes_with_our_clock_and_small_wobbles_do_not_move_it() -> None:
    wall = Wall()
    clock = OrgClock(wall)
    clock.observe(NOW + 60_000)
    wall.ms += 10_000
    assert clock.now_ms() == NOW + 70_000
    clock.observe(NOW + 70_000 - 2_000)
    assert clock.now_ms() == NOW + 70_000
    clock.observe(NOW + 70_000 + 2_001)
    assert clock.now_ms() == NOW + 72_001


def test_a_clock_that_was_put_right_is_believed_again() -> None:
    clock = OrgClock(Wall())
    clock.observe(NOW + 60_000)
    clock.observe(NOW + 1_500)
    assert clock.now_ms() == NOW
