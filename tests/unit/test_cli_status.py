"""`status`: what counts as a problem, from Kafka's side and from the worker's own page."""

from __future__ import annotations

from typing import Any

import pytest

from consumer.cli.status import _print, summarise, with_metrics
from consumer.delivery.positions import CommittedPosition, Meta
from consumer.delivery.windows import window_for_first_start
from consumer.health.state import HealthState, Role
from consumer.kafka.deployment import Deployment
from consumer.kafka.membership import Member
from consumer.position import Position, Preset
from consumer.settings import Settings
from consumer.telemetry import Metrics

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


PROGRESS: dict[str, dict[str, Any]] = {
    f"span:changes:{CHANNEL}": {"to_ms": NOW_MS - 4_000, "cut_ms": NOW_MS},
    "poll:history:MessagingSession": {"complete_to_ms": NOW_MS - 30_000, "floor_ms": 0},
    "poll:history:AgentWork": {"backfill_to_ms": NOW_MS, "at_ms": 0, "ids": []},
    "poll:reconcile:MessagingSession": {"to_ms": NOW_MS - HOUR_MS},
    "scan:abc": {
        "kind": "all",
        "purpose": "resync",
        "entities": ["MessagingSession"],
        "left": ["MessagingSession"],
        "phase": "rows",
        "rows": 2_000,
        "total": 10_000,
        "where": "",
        "windows": ["w1"],
    },
    "snapshot:abc": {"entity": None, "where": ""},
    "snapshot:later": {"entity": "MessagingSession", "where": "Status = 'Active'"},
}


def with_progress(**changes: Any) -> Deployment:
    found = deployment(ACTIVE, at=committed())
    return Deployment(found.meta, found.positions, {}, found.members, {CHANNEL: {**PROGRESS, **changes}})


def channel_of(found: Deployment, own: dict[str, Any] | None = None) -> dict[str, Any]:
    channel: dict[str, Any] = summarise(SETTINGS, found, own, NOW_MS)["channels"][0]
    return channel


def test_what_is_proven_and_what_is_under_way_comes_from_kafka() -> None:
    """A worker on another machine has no page here; what it committed says how far it is."""
    channel = channel_of(with_progress())
    assert channel["delivered_to"] == "2026-09-21T14:13:16+00:00"
    assert channel["history_to"] == {"AgentWork": None, "MessagingSession": "2026-09-21T14:12:50+00:00"}
    assert channel["reconciled_to"] == {"MessagingSession": "2026-09-21T13:13:20+00:00"}
    under_way, queued = channel["scans"]
    assert (under_way["job"], under_way["rows"], under_way["total"], under_way["phase"]) == (
        "abc",
        2_000,
        10_000,
        "rows",
    )
    assert (queued["job"], queued["phase"], queued["where"]) == ("later", "queued", "Status = 'Active'")
    assert problems(with_progress()) == []


def test_nothing_proven_yet_is_shown_as_nothing() -> None:
    channel = channel_of(deployment(ACTIVE, at=committed()))
    assert (channel["delivered_to"], channel["scans"], channel["history_to"]) == (None, [], {})


@pytest.mark.parametrize(
    ("told", "rows"),
    [
        ({"entity": "MessagingSession", "rows": 4_000, "total": 10_000}, 4_000),
        ({"entity": "MessagingSession", "rows": 1_000, "total": 10_000}, 2_000),
        ({"entity": "AgentWork", "rows": 9_000, "total": 10_000}, 2_000),
    ],
)
def test_a_scan_s_rows_are_the_worker_s_where_those_are_newer(told: dict[str, Any], rows: int) -> None:
    own = page(Role.ACTIVE)
    own["subscriptions"][0]["scans"] = {"abc": told}
    assert channel_of(with_progress(), own)["scans"][0]["rows"] == rows


def test_metrics_tell_the_tracked_records_and_the_api_calls() -> None:
    metrics = Metrics(now_ms=lambda: NOW_MS)
    metrics.subscription(CHANNEL).tracked(lambda: 1_234_567)
    metrics.api_calls_used.set(900)
    metrics.api_calls_limit.set(100_000)
    own = with_metrics(page(Role.ACTIVE), metrics.exposition()[0].decode())
    document = summarise(SETTINGS, with_progress(), own, NOW_MS)
    assert document["channels"][0]["worker"]["tracked_records"] == 1_234_567
    assert document["api_calls"] == {"used": 900, "limit": 100_000}


def test_api_calls_that_nobody_told_are_not_shown_as_zero() -> None:
    own = with_metrics(page(Role.ACTIVE), Metrics(now_ms=lambda: NOW_MS).exposition()[0].decode())
    assert own["api_calls"] is None
    assert own["subscriptions"][0]["tracked_records"] is None


def test_the_text_tells_progress_and_what_can_not_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    own = page(Role.ACTIVE)
    own["api_calls"] = {"used": 900, "limit": 100_000}
    own["subscriptions"][0] |= {"tracked_records": 1_234_567, "unavailable": ["metrics of MessagingSession: no"]}
    waiting = {**PROGRESS["scan:abc"], "phase": "waiting", "left": [], "rows": 0}
    _print(summarise(SETTINGS, with_progress(**{"scan:done": waiting}), own, NOW_MS))
    text = capsys.readouterr().out
    for part in (
        "900 of 100,000 used",
        "delivered to         2026-09-21T14:13:16+00:00",
        "history read to      2026-09-21T14:12:50+00:00  MessagingSession",
        "back-fill of AgentWork under way",
        "compared to          2026-09-21T13:13:20+00:00  MessagingSession",
        "resync of MessagingSession: 2,000 of 10,000 rows (20 %), rows are read",
        "resync of MessagingSession: all read; its loss windows close",
        "snapshot asked for of MessagingSession where Status = 'Active': 0 rows, waits for its turn",
        "tracked records      1,234,567",
        "not readable         metrics of MessagingSession: no",
    ):
        assert part in text, part


SHARING: dict[str, dict[str, Any]] = {
    "poll:shares:MessagingSession": {"complete_to_ms": NOW_MS - 30_000},
    "swept:MessagingSession": {"begun_ms": NOW_MS - HOUR_MS, "ended_ms": NOW_MS - HOUR_MS + 750_000, "rows": 12_345},
    "sweep:AgentWork": {
        "entity": "AgentWork",
        "cause": "baseline",
        "begun_ms": NOW_MS - 60_000,
        "phase": "rows",
        "rows": 2_000,
        "total": 10_000,
    },
    "sweep-wanted:MessagingSession": {"since_ms": NOW_MS - 5_000, "last_ms": NOW_MS},
    "poll:feed:MessagingSession": {"complete_to_ms": NOW_MS - 40_000, "began_ms": 0, "deleted_to_ms": 0},
    "poll:feed:AgentWork": {"complete_to_ms": NOW_MS - HOUR_MS, "began_ms": NOW_MS, "deleted_to_ms": NOW_MS},
}


def test_how_far_sharing_and_feeds_are_read_comes_from_kafka() -> None:
    channel = channel_of(with_progress(**SHARING))
    assert channel["shares_to"] == {"MessagingSession": "2026-09-21T14:12:50+00:00"}
    assert channel["swept"] == {
        "MessagingSession": {
            "begun_at": "2026-09-21T13:13:20+00:00",
            "ended_at": "2026-09-21T13:25:50+00:00",
            "rows": 12_345,
            "minutes": 12.5,
        }
    }
    (sweep,) = channel["sweeps"]
    assert (sweep["entity"], sweep["rows"], sweep["total"], sweep["cause"]) == ("AgentWork", 2_000, 10_000, "baseline")
    assert channel["sweep_wanted"] == {"MessagingSession": "2026-09-21T14:13:15+00:00"}
    assert channel["feed_to"] == {
        "AgentWork": {"complete_to": "2026-09-21T13:13:20+00:00", "backfill": True},
        "MessagingSession": {"complete_to": "2026-09-21T14:12:40+00:00", "backfill": False},
    }
    assert problems(with_progress(**SHARING)) == []


def test_where_nothing_is_read_of_sharing_nothing_is_said() -> None:
    channel = channel_of(with_progress())
    assert [channel[name] for name in ("shares_to", "swept", "sweeps", "sweep_wanted", "feed_to")] == [
        {},
        {},
        [],
        {},
        {},
    ]


@pytest.mark.parametrize(("told", "rows"), [(4_000, 4_000), (1_000, 2_000)])
def test_a_sweep_s_rows_are_the_worker_s_where_those_are_newer(told: int, rows: int) -> None:
    own = page(Role.ACTIVE)
    own["subscriptions"][0]["sweeps"] = {"AgentWork": {"rows": told, "total": 10_000}}
    assert channel_of(with_progress(**SHARING), own)["sweeps"][0]["rows"] == rows


def test_the_text_tells_of_sharing_and_feeds(capsys: pytest.CaptureFixture[str]) -> None:
    unknown = {**SHARING["sweep:AgentWork"], "total": None, "phase": "unseen"}
    wanted = {"since_ms": NOW_MS, "last_ms": NOW_MS}
    more = {"sweep:Case": unknown, "sweep-wanted:Case": wanted}
    _print(summarise(SETTINGS, with_progress(**SHARING, **more), page(Role.ACTIVE), NOW_MS))
    text = capsys.readouterr().out
    for part in (
        "shares read to       2026-09-21T14:12:50+00:00  MessagingSession",
        "last sweep           2026-09-21T13:13:20+00:00  MessagingSession (12,345 rows, 12.5 min)",
        "sweep under way      AgentWork: 2,000 of 10,000 rows (20 %), rows are read",
        "sweep under way      Case: 2,000 rows, records that had none are read again",
        "sweep wanted         since 2026-09-21T14:13:15+00:00  MessagingSession",
        "feed read to         2026-09-21T14:12:40+00:00  MessagingSession\n",
        "feed read to         2026-09-21T13:13:20+00:00  AgentWork (back-fill under way)",
    ):
        assert part in text, part
    assert text.count("sweep wanted") == 2, "one under way began before the wish, and need not fulfil it"
