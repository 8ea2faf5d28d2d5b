"""`status`: what counts as a problem, from Kafka's side and from the worker's own page."""

from __future__ import annotations

from typing import Any

import pytest

from consumer.cli.status import _print, summarise
from consumer.delivery.positions import CommittedPosition, Meta
from consumer.delivery.windows import window_for_first_start
from consumer.health.state import HealthState, Role
from consumer.kafka.deployment import Deployment
from consumer.kafka.membership import Member
from consumer.position import Position, Preset
from consumer.settings import Settings

CHANNEL = "/data/MessagingSessionChangeEvent"
NOW_MS = 1_790_000_000_000
HOUR_MS = 3_600_000
SETTINGS = Settings.model_validate(
    {
        "salesforce": {"login_url": "https://example.my.salesforce.com"},
        "kafka": {"bootstrap_servers": "127.0.0.1:1"},
        "service": {"name": "svc"},
    }
)
ACTIVE = Member("m1", "host:1", "/127.0.0.1", frozenset({0}))
STANDBY = Member("m2", "host:2", "/127.0.0.1", frozenset())


def committed(age_ms: int = 0, position: Position | None = None) -> CommittedPosition:
    return CommittedPosition(CHANNEL, position or Position(b"r1"), NOW_MS - age_ms, NOW_MS - age_ms, "host:1")


def deployment(*members: Member, at: CommittedPosition | None = None, windows: int = 0) -> Deployment:
    opened = [window_for_first_start(CHANNEL, number) for number in range(windows)]
    return Deployment(
        Meta("cluster", "00D000000000001AAA"),
        {} if at is None else {CHANNEL: at},
        {each.window_id: each for each in opened},
        members,
    )


def page(role: Role, reason: str = "", service: str = "svc") -> dict[str, Any]:
    state = HealthState(service, "1", "host:1")
    state.subscription(CHANNEL).become(role, reason, "Do something." if reason else "")
    return state.document(NOW_MS)


def problems(found: Deployment, own: dict[str, Any] | None = None) -> list[str]:
    told: list[str] = summarise(SETTINGS, found, own, NOW_MS)["problems"]
    return told


def test_an_active_worker_with_a_fresh_position_is_healthy() -> None:
    assert problems(deployment(ACTIVE, STANDBY, at=committed())) == []
    assert problems(deployment(ACTIVE, at=committed()), page(Role.ACTIVE)) == []
    assert problems(deployment(ACTIVE, at=committed(), windows=3)) == [], "windows are facts, not trouble"


def test_nobody_active_and_nothing_committed_are_problems() -> None:
    told = problems(deployment(STANDBY))
    assert told[0].startswith("no worker is active")
    assert told[1] == f"{CHANNEL}: nothing is committed yet"


@pytest.mark.parametrize(("age_h", "unhealthy"), [(47, False), (49, True), (80, True)])
def test_a_position_that_expires_within_a_day_is_a_problem(age_h: int, unhealthy: bool) -> None:
    told = problems(deployment(ACTIVE, at=committed(age_h * HOUR_MS)))
    assert bool(told) is unhealthy
    if unhealthy:
        assert told == [f"{CHANNEL}: the position expires in {72 - age_h}.0 hours"]


@pytest.mark.parametrize("role", [Role.HALTED, Role.FAILING, Role.STARTING])
def test_a_worker_that_does_not_work_is_a_problem_with_its_reason(role: Role) -> None:
    (told,) = problems(deployment(ACTIVE, at=committed()), page(role, "too many events are bad"))
    assert told == f"{CHANNEL}: {role.value}: too many events are bad Do something."


def test_a_pause_is_no_problem_but_shown() -> None:
    document = summarise(SETTINGS, deployment(ACTIVE, at=committed()), page(Role.PAUSED, "paused by command"), NOW_MS)
    assert document["problems"] == []
    assert document["channels"][0]["worker"]["role"] == "paused"


def test_the_page_of_another_deployment_is_not_taken_for_ours() -> None:
    assert problems(deployment(ACTIVE, at=committed()), page(Role.HALTED, "theirs", service="other")) == []


def test_the_text_names_members_position_windows_and_problems(capsys: pytest.CaptureFixture[str]) -> None:
    found = deployment(ACTIVE, STANDBY, at=committed(50 * HOUR_MS, Position(preset=Preset.LATEST)), windows=12)
    _print(summarise(SETTINGS, found, page(Role.ACTIVE), NOW_MS))
    text = capsys.readouterr().out
    for part in ("active  host:1", "standby host:2", "preset", "latest", "12 open loss windows", "and 2 more", "lag"):
        assert part in text, part
    assert "problem: " in text
