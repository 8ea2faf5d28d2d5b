"""The governor of daily API calls: a reserve for repairs, polls that slow down, and a way back."""

from __future__ import annotations

import pytest

from consumer.errors import QuotaError
from consumer.salesforce.governor import PROBE_S, Governor


class Clock:
    """A monotonic clock moved by hand."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def governor(clock: Clock) -> Governor:
    return Governor(0.1, clock)


def refused(governor: Governor, *, repair: bool) -> bool:
    try:
        governor.admit(repair=repair)
    except QuotaError as error:
        return 0 < error.retry_after_s <= PROBE_S
    return False


def test_nothing_is_held_back_before_anything_is_known(governor: Governor) -> None:
    assert not refused(governor, repair=False)
    assert governor.pace_factor == 1
    assert governor.usage is None


def test_only_repairs_use_the_reserve(governor: Governor) -> None:
    governor.observe("api-usage=899/1000")
    assert not refused(governor, repair=False)
    assert refused(governor, repair=False), "our own call counts before the next answer tells of it"
    assert not refused(governor, repair=True)


def test_nothing_goes_when_all_is_used(governor: Governor) -> None:
    governor.observe("api-usage=1000/1000")
    assert refused(governor, repair=True)


def test_a_refusal_for_the_limit_counts_whatever_the_header_says(governor: Governor) -> None:
    governor.observe("api-usage=5/1000")
    governor.exhausted()
    assert refused(governor, repair=True)
    assert governor.pace_factor == 16


def test_one_call_probes_when_nothing_was_heard_for_long(governor: Governor, clock: Clock) -> None:
    governor.observe("api-usage=1000/1000")
    clock.now_s = PROBE_S
    assert not refused(governor, repair=False)
    assert refused(governor, repair=False), "one probe, then silence again"
    governor.observe("api-usage=10/1000")
    assert not refused(governor, repair=False)


def test_an_answer_ends_exhaustion(governor: Governor) -> None:
    governor.exhausted()
    governor.observe("api-usage=10/1000")
    assert not refused(governor, repair=False)


@pytest.mark.parametrize("text", ["", "api-usage=1/0", "per-app-api-usage=990/1000(appName=x)", "api-usage=a/b"])
def test_headers_that_say_nothing_of_the_org_are_ignored(governor: Governor, text: str) -> None:
    governor.observe(text)
    assert governor.usage is None


def test_the_orgs_usage_is_taken_beside_that_of_an_app(governor: Governor) -> None:
    governor.observe("api-usage=25/5000; per-app-api-usage=17/250(appName=x)")
    assert governor.usage == (25, 5000)
    governor.observe("per-app-api-usage=17/250(appName=x), api-usage=26/5000")
    assert governor.usage == (26, 5000)


def test_polls_slow_down_as_what_is_not_reserved_runs_out(governor: Governor) -> None:
    factors = []
    for used in (0, 629, 700, 800, 880, 899, 900, 1000):
        governor.observe(f"api-usage={used}/1000")
        factors.append(governor.pace_factor)
    assert factors[:2] == [1, 1]
    assert factors == sorted(factors)
    assert 1 < factors[2] < factors[3] < factors[4] < 16
    assert factors[-3:] == [16, 16, 16]


def test_the_pace_recovers_with_time(governor: Governor, clock: Clock) -> None:
    governor.observe("api-usage=880/1000")
    slow = governor.pace_factor
    clock.now_s = 6 * 3600
    assert 1 <= governor.pace_factor < slow
    governor.exhausted()
    clock.now_s += 86_400
    assert governor.pace_factor == 1
