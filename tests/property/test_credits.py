"""Flow control: never above 100 outstanding, never above the room, never starving."""

from hypothesis import given
from hypothesis import strategies as st

from consumer.credits import MAX_OUTSTANDING, REFILL_AT_LEAST, CreditWindow

steps = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 100)), max_size=100)


@given(steps)
def test_outstanding_stays_within_the_cap_and_the_room(script: list[tuple[int, int]]) -> None:
    window = CreditWindow()
    for room, arrived in script:
        before = window.outstanding
        granted = window.grant(room)
        assert window.outstanding == before + granted <= MAX_OUTSTANDING
        assert granted == 0 or before + granted <= room
        window.received(min(arrived, window.outstanding))


@given(st.integers(1, 1000), st.integers(0, 100))
def test_with_room_and_nothing_outstanding_something_is_always_granted(room: int, used: int) -> None:
    window = CreditWindow()
    window.grant(MAX_OUTSTANDING)
    window.received(MAX_OUTSTANDING)
    assert window.grant(room) > 0


def test_small_refills_wait_until_they_are_worth_a_request() -> None:
    window = CreditWindow()
    assert window.grant(1000) == 100
    window.received(REFILL_AT_LEAST - 1)
    assert window.grant(1000) == 0
    window.received(1)
    assert window.grant(1000) == REFILL_AT_LEAST


def test_the_servers_count_replaces_a_drifted_one() -> None:
    window = CreditWindow()
    window.grant(1000)
    window.settle(40)
    assert window.outstanding == 40
    assert window.grant(1000) == 60
