"""Open loss windows: what they put in doubt, what they own up to, and where those without an end do end."""

from __future__ import annotations

from typing import Any

import pytest

from consumer.events import LossWindow
from consumer.tracking.open_windows import OpenWindows
from tests.tracking_values import CHANNEL, ENTITY, OTHER, RECORD, S0


def window(
    name: str = "w",
    from_s: int | None = 10,
    to_s: int | None = 20,
    *,
    reason: str = "position_lost",
    entity: str | None = ENTITY,
    record_ids: tuple[str, ...] = (),
    **detail: Any,
) -> LossWindow:
    """Return a window of seconds after S0."""
    from_ms, to_ms = (None if each is None else S0 + each * 1000 for each in (from_s, to_s))
    return LossWindow(name, f"changes:{CHANNEL}", reason, from_ms, to_ms, record_ids, entity, None, detail)


def opened(*windows: LossWindow) -> OpenWindows:
    return OpenWindows({each.window_id: each for each in windows})


def test_windows_are_known_by_id_until_they_are_closed() -> None:
    windows = opened(window("a"))
    windows.open(window("b"))
    windows.open(window("a", to_s=30))
    assert (list(windows), len(windows)) == (["a", "b"], 2)
    assert windows["a"].to_ms == S0 + 30_000
    assert windows.close("a") == window("a", to_s=30)
    assert windows.close("a") is None
    assert list(windows) == ["b"]


def test_windows_may_be_closed_while_they_are_gone_through() -> None:
    windows = opened(window("a"), window("b"))
    for each in windows:
        windows.close(each)
    assert not windows


@pytest.mark.parametrize(
    ("windows", "before_ms"),
    [
        ((), 0),
        ((window(),), S0 + 20_000),
        ((window("a", to_s=30), window("b")), S0 + 30_000),
        ((window(entity=None),), S0 + 20_000),
        ((window("a", entity=None, to_s=30), window("b")), S0 + 30_000),
        ((window(entity="Account"),), 0),
        ((window(record_ids=(RECORD,)),), 0),
        ((window(reason="no_snapshot"),), 0),
        ((window(to_s=None),), S0 + 10_001),
        ((window(from_s=None, to_s=None),), 1),
    ],
    ids=[
        "none",
        "one",
        "the later of two",
        "of the whole channel",
        "of either scope",
        "of another object",
        "of named records",
        "before the first start",
        "without an end",
        "without anything",
    ],
)
def test_what_was_known_before_the_end_of_a_loss_is_in_doubt(windows: tuple[LossWindow, ...], before_ms: int) -> None:
    """A loss without an end hides what came after its beginning; images of that very time are in doubt too."""
    assert opened(*windows).doubted_before(ENTITY) == before_ms


def test_a_closed_window_puts_nothing_in_doubt() -> None:
    windows = opened(window("a"), window("b", to_s=30))
    windows.close("b")
    assert windows.doubted_before(ENTITY) == S0 + 20_000
    windows.close("a")
    assert windows.doubted_before(ENTITY) == 0


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (window(continued_at="earliest"), True),
        (window(continued_at="latest"), False),
        (window(), False),
        (window(continued_at="earliest", reason="position_forced"), False),
        (window(continued_at="earliest", oldest_retained=True), False),
    ],
    ids=["lost", "continued at latest", "unsaid", "forced", "narrowed"],
)
def test_lost_positions_that_went_on_with_what_is_retained_have_no_exact_end_yet(
    given: LossWindow, found: bool
) -> None:
    assert opened(given).without_end() == ([given] if found else [])


@pytest.mark.parametrize(("retained_s", "end_s"), [(15, 15), (5, 10), (50, 50)])
def test_a_lost_position_ends_with_the_oldest_retained_event_once(retained_s: int, end_s: int) -> None:
    lost = window(continued_at="earliest")
    windows = opened(lost)
    ended = windows.end(lost, S0 + retained_s * 1000)
    assert (ended.from_ms, ended.to_ms) == (lost.from_ms, S0 + end_s * 1000)
    assert ended.detail["continued_at"] == "earliest"
    assert windows["w"] == ended
    assert windows.doubted_before(ENTITY) == ended.to_ms
    assert windows.without_end() == []


def test_a_lost_position_before_which_nothing_was_known_ends_there_too() -> None:
    lost = window(from_s=None, continued_at="earliest")
    assert opened(lost).end(lost, S0 + 15_000).to_ms == S0 + 15_000


@pytest.mark.parametrize(
    ("at_ms", "owned"),
    [(8_999, False), (9_000, True), (10_000, True), (20_000, True), (21_000, True), (21_001, False)],
)
def test_a_window_owns_up_to_changes_up_to_a_second_around_it(at_ms: int, owned: bool) -> None:
    """Commit times and stamps have whole seconds, and need not be of the same one."""
    assert opened(window()).owning_up(ENTITY, RECORD, S0 + at_ms) == ("w" if owned else None)


@pytest.mark.parametrize(
    ("given", "owned"),
    [
        (window(entity=None), True),
        (window(entity="Account"), False),
        (window(record_ids=(RECORD, OTHER)), True),
        (window(record_ids=(OTHER,)), False),
        (window(from_s=None), True),
        (window(to_s=None), True),
        (window(from_s=16, to_s=None), False),
        (window(from_s=None, to_s=14), True),
        (window(from_s=None, to_s=13), False),
    ],
    ids=[
        "the whole channel",
        "another object",
        "the record",
        "another record",
        "no beginning",
        "no end",
        "no end, a second before",
        "no beginning, a second after",
        "over",
    ],
)
def test_which_records_and_times_a_window_owns_up_to(given: LossWindow, owned: bool) -> None:
    begins_later = given.from_ms == S0 + 16_000
    at_ms = S0 + (14_999 if begins_later else 15_000)
    assert opened(given).owning_up(ENTITY, RECORD, at_ms) == ("w" if owned else None)


def test_any_of_several_windows_can_own_up() -> None:
    windows = opened(window("a", to_s=12), window("b", 14, 20))
    assert windows.owning_up(ENTITY, RECORD, S0 + 16_000) == "b"
