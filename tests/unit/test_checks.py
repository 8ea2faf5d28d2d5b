"""`check`: each line's levels, against the emulated org and against answers that nobody emulates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from consumer.checks import kafka as kafka_checks
from consumer.checks.findings import Finding, Level, failed, skipped
from consumer.checks.kafka import _days, _position
from consumer.checks.objects import calls_finding, expected_calls
from consumer.checks.salesforce import _allowance, _clock, _version, check_salesforce
from consumer.checks.state import check_state
from consumer.cli.check import _print
from consumer.clock import now_ms
from consumer.delivery.positions import CommittedPosition, Meta
from consumer.emulator.server import EmulatedOrg
from consumer.errors import KafkaRefusedError, LoginRejectedError, QueryRefusedError
from consumer.kafka.deployment import Deployment
from consumer.position import Position
from consumer.salesforce.http import HttpAnswer
from consumer.salesforce.records import SalesforceRecords
from consumer.settings import Settings
from tests.unit.emulator_client import connected

CHANNEL = "/data/MessagingSessionChangeEvent"
NOW_MS = 1_790_000_000_000


def answer(body: Any = None, status: int = 200, **headers: str) -> HttpAnswer:
    return HttpAnswer(status=status, headers=headers, body=orjson.dumps(body))


def settings(org: EmulatedOrg, *topics: str, secret: str = "emulated", **salesforce: str) -> Settings:
    return Settings.model_validate(
        {
            "salesforce": {
                "login_url": org.login_url,
                "client_id": "emulated",
                "client_secret": SecretStr(secret),
                **salesforce,
            },
            "pubsub": {"endpoint": org.pubsub, "tls": False, "topics": topics or (CHANNEL,)},
            "kafka": {"bootstrap_servers": "127.0.0.1:1"},
        }
    )


def levels(findings: Sequence[Finding]) -> dict[str, str]:
    return {finding.name: finding.level.value for finding in findings}


async def test_a_good_org_passes_every_check_and_uses_up_no_event() -> None:
    async with connected() as client:
        org_id, findings = await check_salesforce(settings(client.org), now_ms)
        assert org_id == client.org.org_id
        assert set(levels(findings).values()) == {"ok"}
        assert [each.name for each in findings] == [
            "login",
            "clock",
            "API version",
            "delivery allowance",
            CHANNEL,
            "schema",
            "MessagingSession rows",
            "MessagingSession history",
            "MessagingSessionMetrics",
            "MessagingSession shares",
            "MessagingSession sharing rules",
            "MessagingSession sharing calls",
            "MessagingSession feed",
            "API calls",
        ]
        assert client.org.stats.events_sent == client.org.stats.streams_opened == 0


async def test_a_refused_login_skips_what_needs_it_and_shows_no_secret() -> None:
    async with connected() as client:
        org_id, findings = await check_salesforce(settings(client.org, secret="hush-4711"), now_ms)
    assert org_id is None
    assert [each.level for each in findings] == [Level.FAIL, *[Level.SKIPPED] * 5]
    assert findings[0].advice
    assert "hush-4711" not in str([each.document() for each in findings])


async def test_an_unknown_topic_and_an_unknown_version_fail_alone() -> None:
    async with connected() as client:
        made = settings(client.org, "/data/NoSuchThingChangeEvent", CHANNEL, api_version="199.0")
        _, findings = await check_salesforce(made, now_ms)
    found = [(each.name, each.level.value) for each in findings]
    assert ("/data/NoSuchThingChangeEvent", "fail") in found
    assert (CHANNEL, "ok") in found
    assert ("API version", "fail") in found
    assert all(each.advice for each in findings if each.level is Level.FAIL)


async def test_a_schema_service_that_is_down_fails_the_schema_line() -> None:
    async with connected() as client:
        await client.org.fault("schema_refused")
        _, findings = await check_salesforce(settings(client.org), now_ms)
    assert levels(findings)[CHANNEL] == "ok"
    found = levels(findings)
    assert found["schema"] == "fail"
    assert found["MessagingSession rows"] == found["MessagingSessionMetrics"] == "skipped"


def advice(findings: Sequence[Finding]) -> dict[str, tuple[str, str, str]]:
    return {finding.name: (finding.level.value, finding.seen, finding.advice) for finding in findings}


async def test_hidden_fields_are_named_and_the_others_counted() -> None:
    async with connected(hidden_fields={"MessagingSession": ["Notes__c"]}) as client:
        _, findings = await check_salesforce(settings(client.org), now_ms)
    level, seen, told = advice(findings)["MessagingSession rows"]
    assert (level, "hidden: Notes__c" in seen) == ("warn", True)
    assert "41 of 42 fields" in seen
    assert "Permission Sets" in told


async def test_tracking_that_is_off_is_a_warning_with_the_click_path() -> None:
    async with connected(history_tracking={"MessagingSession": []}) as client:
        _, findings = await check_salesforce(settings(client.org), now_ms)
    level, seen, told = advice(findings)["MessagingSession history"]
    assert (level, seen) == ("warn", "history tracking is off")
    path = "Setup > Object Manager > Messaging Session > Fields & Relationships > Set History Tracking"
    assert path in told


async def test_tracked_fields_are_named_and_metrics_asked_for_of_sessions_only() -> None:
    async with connected(history_tracking={"MessagingSession": ["Status", "OwnerId"]}) as client:
        made = settings(client.org, CHANNEL, "/data/AgentWorkChangeEvent", "/data/Support__chn")
        _, findings = await check_salesforce(made, now_ms)
    found = advice(findings)
    assert found["MessagingSession history"][:2] == ("ok", "2 fields tracked: OwnerId, Status")
    assert [each.name for each in findings].count("MessagingSessionMetrics") == 1
    assert found["/data/Support__chn rows"][0] == "skipped"


async def test_an_object_that_can_not_be_read_fails_and_skips_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> Any:
        raise QueryRefusedError("Salesforce does not know this object", "", code="INVALID_TYPE")

    monkeypatch.setattr(SalesforceRecords, "describe", refuse)
    async with connected() as client:
        _, findings = await check_salesforce(settings(client.org), now_ms)
    found = advice(findings)
    assert found["MessagingSession rows"][0] == "fail"
    assert "View All" in found["MessagingSession rows"][2]
    assert found["MessagingSession history"][0] == found["MessagingSessionMetrics"][0] == "skipped"
    assert found["API calls"][0] == "skipped", "no answer told how many are left"


async def test_history_and_metrics_that_are_refused_are_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> Any:
        raise QueryRefusedError("no such object", "", code="INVALID_TYPE")

    monkeypatch.setattr(SalesforceRecords, "history", refuse)
    monkeypatch.setattr(SalesforceRecords, "metrics", refuse)
    async with connected() as client:
        _, findings = await check_salesforce(settings(client.org), now_ms)
    found = advice(findings)
    assert found["MessagingSession history"][0] == found["MessagingSessionMetrics"][0] == "warn"
    assert found["MessagingSession history"][2]


def test_expected_calls_follow_the_settings_and_the_number_of_records() -> None:
    base = Settings.model_validate(
        {"salesforce": {"login_url": "https://x.my.salesforce.com"}, "kafka": {"bootstrap_servers": "127.0.0.1:1"}}
    )
    counted = {"rows": 50_000, "new": 1_000, "history": 1}
    usual = expected_calls(base, counted)
    assert usual.daily == 96 + 2 * 1_000 + 24 * 60 + 48
    assert usual.snapshot == 27
    assert expected_calls(base, {**counted, "history": 0}).daily == usual.daily - 24 * 60
    slow = base.model_copy(update={"history": base.history.model_copy(update={"poll": 600_000})})
    assert expected_calls(slow, counted).daily == usual.daily - 24 * 60 + 24 * 6
    without = base.model_copy(update={"tracking": base.tracking.model_copy(update={"reconcile": False})})
    assert expected_calls(without, counted).daily == usual.daily - 48
    assert expected_calls(base, {**counted, "rows": 200_000}).snapshot == 12, "Bulk has larger pages"
    busy = expected_calls(base, {**counted, "new": 10_000_000})
    assert busy.daily < 2 * 86_400, "one question can ask for many sessions"


@pytest.mark.parametrize(
    ("usage", "level"), [((0, 100_000), Level.OK), ((99_000, 100_000), Level.WARN), (None, Level.SKIPPED)]
)
def test_api_calls_warn_when_the_expected_ones_do_not_fit(usage: tuple[int, int] | None, level: Level) -> None:
    base = Settings.model_validate(
        {"salesforce": {"login_url": "https://x.my.salesforce.com"}, "kafka": {"bootstrap_servers": "127.0.0.1:1"}}
    )
    found = calls_finding(base, usage, {"MessagingSession": {"rows": 10, "new": 5, "history": 1}})
    assert found.level is level
    assert bool(found.advice) is (level is Level.WARN)


def stored_at(path: Path) -> Settings:
    return Settings.model_validate(
        {
            "salesforce": {"login_url": "https://x.my.salesforce.com"},
            "kafka": {"bootstrap_servers": "127.0.0.1:1"},
            "state": {"path": str(path)},
        }
    )


def test_the_state_s_directory_is_looked_at_and_not_made(tmp_path: Path) -> None:
    wanted = tmp_path / "not" / "there"
    found = check_state(stored_at(wanted), {})
    assert found.level is not Level.FAIL
    assert str(wanted) in found.seen
    assert "free" in found.seen
    assert not wanted.exists()


def test_a_state_s_path_that_is_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    found = check_state(stored_at(tmp_path / "file" / "state"), {})
    assert found.level is Level.FAIL
    assert "is not a directory" in found.seen


def test_a_state_s_directory_that_may_not_be_written_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    found = check_state(stored_at(tmp_path), {})
    assert found.level is Level.FAIL
    assert "state.path" in found.advice


def test_a_full_disk_is_a_warning_and_what_is_stored_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "svc.org.channel.sqlite3").write_bytes(bytes(2_000_000))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5_000_000))
    found = check_state(stored_at(tmp_path), {})
    assert found.level is Level.WARN
    assert "2.0 MB used, 5.0 MB free" in found.seen


@pytest.mark.parametrize(
    ("date", "level"),
    [
        ("Mon, 21 Sep 2026 14:13:20 GMT", Level.OK),
        ("Mon, 21 Sep 2026 14:12:20 GMT", Level.WARN),
        ("Mon, 21 Sep 2026 14:14:20 GMT", Level.WARN),
        ("yesterday", Level.SKIPPED),
        ("", Level.SKIPPED),
    ],
)
def test_the_clock_is_compared_with_salesforces(date: str, level: Level) -> None:
    assert _clock(answer(Date=date), NOW_MS).level is level


@pytest.mark.parametrize(
    ("body", "level"),
    [
        ([{"version": "62.0"}, {"version": "63.0"}], Level.OK),
        ([{"version": "61.0"}], Level.FAIL),
        ([], Level.FAIL),
        ({"error": "x"}, Level.WARN),
        ("text", Level.WARN),
        ([{"label": "no version"}], Level.WARN),
    ],
)
def test_the_api_version_must_be_offered(body: Any, level: Level) -> None:
    assert _version("62.0", answer(body)).level is level


@pytest.mark.parametrize(
    ("limits", "level"),
    [
        ({"DailyDeliveredPlatformEvents": {"Max": 1000, "Remaining": 900}}, Level.OK),
        ({"DailyDeliveredPlatformEvents": {"Max": 1000, "Remaining": 199}}, Level.WARN),
        ({"DailyDeliveredPlatformEvents": {"Max": 1000}}, Level.WARN),
        ({"DailyDeliveredPlatformEvents": {"Max": 0, "Remaining": 0}}, Level.SKIPPED),
        ({"DailyDeliveredPlatformEvents": None}, Level.SKIPPED),
        ([{"errorCode": "FORBIDDEN"}], Level.SKIPPED),
    ],
)
def test_the_allowance_warns_when_most_of_it_is_used(limits: Any, level: Level) -> None:
    assert _allowance(answer(limits)).level is level


@pytest.mark.parametrize(("age_h", "level"), [(1, Level.OK), (49, Level.WARN), (73, Level.WARN)])
def test_a_position_near_its_end_is_a_warning(age_h: int, level: Level) -> None:
    at_ms = NOW_MS - age_h * 3_600_000
    entry = CommittedPosition(CHANNEL, Position(b"r1"), at_ms, at_ms, "host:1")
    found = _position(CHANNEL, Deployment(Meta("c", "o"), {CHANNEL: entry}, {}, ()), NOW_MS)
    assert found.level is level
    assert bool(found.advice) is (level is Level.WARN)


def test_no_position_yet_is_no_fault() -> None:
    assert _position(CHANNEL, Deployment(None, {}, {}, ()), NOW_MS).level is Level.OK


@pytest.mark.parametrize(
    ("retention_ms", "said"), [(None, "not readable"), (-1, "for ever"), (86_400_000 * 30, "30 days")]
)
def test_retention_is_said_in_words(retention_ms: int | None, said: str) -> None:
    assert said in _days(retention_ms)


async def test_topics_that_may_not_be_described_are_a_line_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> Any:
        raise KafkaRefusedError("The topic may not be described", "Grant Describe.")

    async def answered(*_: object) -> str:
        return "cluster"

    monkeypatch.setattr(kafka_checks, "describe_topics", refuse)
    monkeypatch.setattr(kafka_checks, "cluster_id", answered)
    async with connected() as client:
        findings = await kafka_checks.check_kafka(settings(client.org), None, now_ms)
    assert levels(findings) == {
        "kafka": "ok",
        "topics": "fail",
        "transaction": "fail",
        "position": "fail",
        "workers": "skipped",
    }


def test_the_printed_lines_are_aligned_and_say_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    error = LoginRejectedError("Salesforce refused the login", "Check salesforce.client_id.")
    _print([failed("login", error), skipped("clock", "no access token")])
    assert capsys.readouterr().out.splitlines() == [
        "FAIL  login  Salesforce refused the login",
        "             -> Check salesforce.client_id.",
        "skip  clock  no access token",
        "",
        "1 of 2 failed",
    ]


def test_an_error_without_advice_gets_that_of_its_class() -> None:
    assert failed("login", LoginRejectedError("no")).advice
