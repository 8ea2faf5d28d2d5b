"""`check` on share rows, sharing rules and feed, and on what reading them costs."""

from __future__ import annotations

from typing import Any

import pytest

from consumer.checks.findings import Finding
from consumer.checks.salesforce import check_salesforce
from consumer.checks.sharing import calls_finding, expected_calls
from consumer.clock import now_ms
from consumer.settings import Settings
from consumer.tracking.sharing_budget import (
    DAY_MS,
    affordable_sweep_ms,
    calls_of_sweep,
    owner_change_calls_per_day,
    polling_calls_per_day,
    worst_revocation_ms,
)
from tests.unit.emulator_client import connected
from tests.unit.test_checks import settings

ENTITY = "MessagingSession"
HOUR_MS = 3_600_000


async def findings(more: dict[str, Any] | None = None, **scenario: Any) -> dict[str, Finding]:
    async with connected(**scenario) as client:
        given = settings(client.org).model_copy(update=more or {})
        _, found = await check_salesforce(given, now_ms)
    return {each.name: each for each in found}


async def test_an_org_with_everything_says_what_it_costs_and_what_rows_do_not_say() -> None:
    found = await findings()
    shares = found["MessagingSession shares"]
    assert shares.level == "ok"
    assert "org-wide default Private" in shares.seen
    assert "role hierarchy" in shares.seen
    calls = found["MessagingSession sharing calls"]
    assert calls.level == "ok"
    assert "a revocation without an owner change is told after 25 h at the latest" in calls.seen


@pytest.mark.parametrize("api", ["invalid_type", "no_access"])
async def test_closed_rules_are_a_warning_with_a_way_out(api: str) -> None:
    found = await findings(sharing={"rules_api": api})
    rules = found["MessagingSession sharing rules"]
    assert rules.level == "warn"
    assert "Support" in rules.advice
    assert found["MessagingSession shares"].level == "ok"


async def test_an_org_without_share_objects_is_a_warning() -> None:
    found = await findings(sharing={"enabled": False})
    assert found["MessagingSession shares"].level == "warn"
    assert "sharing.enabled = false" in found["MessagingSession shares"].advice
    assert found["MessagingSession sharing rules"].level == found["MessagingSession sharing calls"].level == "skipped"


async def test_hidden_columns_are_named() -> None:
    hidden = {"MessagingSessionShare": ["LastModifiedDate"], "MessagingSessionFeed": ["Body"]}
    found = await findings(hidden_fields=hidden)
    assert "MessagingSessionShare.LastModifiedDate" in found["MessagingSession shares"].seen
    assert "MessagingSessionFeed.Body" in found["MessagingSession feed"].seen
    assert found["MessagingSession shares"].level == found["MessagingSession feed"].level == "warn"


async def test_a_closed_feed_is_a_warning() -> None:
    found = await findings(feed={"access": "none"})
    assert found["MessagingSession feed"].level == "warn"
    assert "feed.enabled = false" in found["MessagingSession feed"].advice


async def test_what_is_not_wanted_is_not_checked() -> None:
    off = Settings.model_fields["sharing"].default.model_copy(update={"enabled": False})
    no_feed = Settings.model_fields["feed"].default.model_copy(update={"enabled": False})
    found = await findings({"sharing": off, "feed": no_feed})
    assert not [name for name in found if "shar" in name or "feed" in name]


def some_settings(**sharing: Any) -> Settings:
    return Settings.model_validate(
        {
            "salesforce": {"login_url": "https://x.my.salesforce.com"},
            "kafka": {"bootstrap_servers": "x:1"},
            "sharing": sharing,
        }
    )


def test_too_few_calls_stretch_the_sweeps_and_say_so() -> None:
    given = some_settings(api_calls_per_day=1_500)
    expected = expected_calls(given, ENTITY, 4_000_000, 50)
    assert expected.total <= 1_500 + calls_of_sweep(4_000_000)
    finding = calls_finding(given, ENTITY, 4_000_000, expected)
    assert finding.level == "warn"
    assert "in place of 24 h" in finding.advice


def test_the_arithmetic_of_calls() -> None:
    assert calls_of_sweep(200_000) == 102
    assert polling_calls_per_day(5 * 60_000, 5 * 60_000) == 4 * 288
    assert polling_calls_per_day(5 * 60_000, None) == 2 * 288
    assert owner_change_calls_per_day(10, 10_000) == 20, "a quiet org asks for each"
    assert owner_change_calls_per_day(1_000_000, 10_000) == 8_640 + 10_000, "a busy one for 200 at once"
    assert affordable_sweep_ms(200_000, DAY_MS, 5_000, 1_000) == DAY_MS
    assert affordable_sweep_ms(200_000, HOUR_MS, 2_020, 1_000) == pytest.approx(DAY_MS / 10, rel=0.01)
    assert affordable_sweep_ms(200_000, HOUR_MS, 1_020, 5_000) == DAY_MS, "a tenth is always left for sweeps"
    assert worst_revocation_ms(DAY_MS, 30_000) > DAY_MS
