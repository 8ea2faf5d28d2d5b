"""`check` on share rows, sharing rules and feed, and on what reading them costs."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from consumer.checks.findings import Finding
from consumer.checks.salesforce import _feed_enabled, check_salesforce
from consumer.checks.sharing import calls_finding, check_sharing, expected_calls, sharing_names
from consumer.clock import now_ms
from consumer.errors import SalesforceUnavailableError
from consumer.settings import Settings, SharingSettings
from consumer.tracking.sharing_budget import (
    DAY_MS,
    affordable_sweep_ms,
    calls_of_sweep,
    owner_change_calls_per_day,
    polling_calls_per_day,
    worst_revocation_ms,
)
from tests.fake_sharing import SharedOrg
from tests.unit.emulator_client import connected
from tests.unit.rest_org import BASE, fault, scripted_org
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


# Against an org in memory


async def told(org: SharedOrg, given: Settings, *, enabled: bool | None = None, **found: Any) -> dict[str, Finding]:
    numbers = {ENTITY: {"rows": 0, "new": 0, "history": 0}, **found}
    return {each.name: each async for each in check_sharing(org, given, ENTITY, numbers, feed_enabled=enabled)}


async def test_rows_that_can_not_be_read_in_order_are_a_warning_before_the_first_sweep() -> None:
    found = await told(SharedOrg(answer_s=0, refused={"shares_scan"}), some_settings())
    assert found["MessagingSession shares"].level == "warn"
    assert "shares_scan is refused" in found["MessagingSession shares"].seen
    assert found["MessagingSession sharing calls"].level == "ok"


async def test_an_org_wide_default_that_is_refused_is_told_and_lived_with() -> None:
    found = await told(SharedOrg(answer_s=0, refused={"org_default"}), some_settings())
    assert "org-wide default can't be read" in found["MessagingSession shares"].seen
    assert found["MessagingSession shares"].level == "ok"


async def test_without_the_time_of_rows_check_says_how_they_are_found_instead() -> None:
    org = SharedOrg(answer_s=0, hidden=("MessagingSessionShare.LastModifiedDate",))
    advice = (await told(org, some_settings()))["MessagingSession shares"].advice
    assert "owner changes and sweeps only" in advice
    org.hidden = ("MessagingSessionShare.LastModifiedById",)
    assert "sweeps only" not in (await told(org, some_settings()))["MessagingSession shares"].advice


@pytest.mark.parametrize("call", ["hidden shares", "count_shares", "shares_scan", "org_default"])
async def test_an_org_that_does_not_answer_leaves_no_line_out(call: str) -> None:
    org = SharedOrg(answer_s=0, errors={call: deque([SalesforceUnavailableError("down")])})
    found = await told(org, some_settings())
    assert list(found) == list(sharing_names(some_settings(), ENTITY))
    assert found["MessagingSession shares"].level == "fail"
    assert found["MessagingSession sharing rules"].level == found["MessagingSession sharing calls"].level == "skipped"


@pytest.mark.parametrize(
    ("enabled", "posts", "level", "seen"),
    [
        (True, 1, "ok", "readable; feed tracking is on"),
        (True, 0, "ok", "readable; feed tracking is on; empty"),
        (False, 1, "warn", "readable; feed tracking is off"),
        (False, 0, "warn", "readable; feed tracking is off; empty"),
        (None, 1, "ok", "readable"),
        (None, 0, "ok", "readable, and empty: feed tracking is off, or nothing was posted yet"),
    ],
)
async def test_whether_feed_tracking_is_on_is_told_as_far_as_it_is_known(
    enabled: bool | None, posts: int, level: str, seen: str
) -> None:
    org = SharedOrg(answer_s=0)
    for number in range(posts):
        org.post(number, "0Mw000000000001AAA")
    feed = (await told(org, some_settings(), enabled=enabled))["MessagingSession feed"]
    assert (feed.level, feed.seen) == (level, seen)


async def test_what_only_a_read_of_the_feed_shows_to_be_hidden_is_named() -> None:
    org = SharedOrg(answer_s=0)

    def refuse(call: str) -> None:
        if call == "feed":
            org.hidden = ("MessagingSessionFeed.FeedTrackedChanges",)

    org.before = refuse
    feed = (await told(org, some_settings()))["MessagingSession feed"]
    assert feed.level == "warn"
    assert "FeedTrackedChanges" in feed.seen


async def test_objects_share_one_budget() -> None:
    org, given = SharedOrg(answer_s=0), some_settings(api_calls_per_day=4 * 288 + 100)
    assert (await told(org, given))["MessagingSession sharing calls"].level == "warn", "a tenth is kept for sweeps"
    given = some_settings(api_calls_per_day=2_000)
    assert (await told(org, given))["MessagingSession sharing calls"].level == "ok"
    found = await told(org, given, Account={"companions": 900})
    assert found["MessagingSession sharing calls"].level == "warn"


async def test_a_feed_without_sharing_has_its_calls_counted() -> None:
    numbers: dict[str, dict[str, int]] = {}
    given = some_settings(enabled=False)
    assert [each.name async for each in check_sharing(SharedOrg(answer_s=0), given, ENTITY, numbers)] == [
        "MessagingSession feed"
    ]
    assert numbers[ENTITY]["companions"] == 2 * 288


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"feedEnabled": True, "fields": []}, True),
        ({"feedEnabled": False}, False),
        ({"fields": []}, None),
        ({"feedEnabled": "no"}, None),
        (None, None),
        (fault("INVALID_TYPE"), None),
    ],
)
async def test_the_describe_tells_whether_feed_tracking_is_on(body: Any, told: bool | None) -> None:
    async with scripted_org() as bench:
        bench.org.answer(body, 400 if isinstance(body, list) else 200)
        connections = SimpleNamespace(rest=bench.rest)
        assert await _feed_enabled(connections, ENTITY) is told  # type: ignore[arg-type]  # only its REST API counts
    assert bench.org.asked[0].path == f"{BASE}/sobjects/{ENTITY}/describe"


# Objects and channels


async def channels(topics: tuple[str, ...], **sharing: Any) -> tuple[dict[str, Finding], int]:
    async with connected() as client:
        given = settings(client.org, *topics)
        if sharing:
            given = given.model_copy(update={"sharing": SharingSettings(**sharing)})
        _, found = await check_salesforce(given, now_ms)
        return {each.name: each for each in found}, client.org.stats.events_sent


async def test_an_object_that_no_channel_carries_is_told_if_somebody_asked_for_it() -> None:
    found, _ = await channels(("/data/MessagingSessionChangeEvent",), objects=["Widget__c", ENTITY])
    assert found["Widget__c sharing"].level == "warn"
    assert "sharing.objects" in found["Widget__c sharing"].advice
    assert found["MessagingSession shares"].level == "ok"
    found, _ = await channels(("/data/AccountChangeEvent",))
    assert not [name for name in found if name.startswith(ENTITY)], "the default is no wish"


async def test_a_channel_of_many_objects_has_the_sharing_of_those_that_are_named_checked() -> None:
    found, events = await channels(("/data/ChangeEvents",))
    assert found["MessagingSession shares"].level == "ok"
    assert found["MessagingSession feed"].level == "ok"
    assert found["API calls"].level == "ok"
    assert events == 0


# The arithmetic


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


def test_polls_that_need_all_calls_are_a_warning_though_sweeps_keep_their_time() -> None:
    given = some_settings(poll="10s")
    expected = expected_calls(given, ENTITY, 100, 50)
    assert expected.every_ms == DAY_MS
    finding = calls_finding(given, ENTITY, 100, expected)
    assert finding.level == "warn"
    assert "sharing.poll" in finding.advice


def test_pages_are_as_large_as_the_settings_say() -> None:
    small = Settings.model_validate({**some_settings().model_dump(), "tracking": {"chunk_rows": 200}})
    assert expected_calls(some_settings(), ENTITY, 200_000, 0).sweeps == 103
    assert expected_calls(small, ENTITY, 200_000, 0).sweeps == 1_003


def test_the_arithmetic_of_calls() -> None:
    assert calls_of_sweep(200_000) == 103
    assert polling_calls_per_day(5 * 60_000, 5 * 60_000) == 4 * 288
    assert polling_calls_per_day(5 * 60_000, None) == 2 * 288
    assert owner_change_calls_per_day(10, 10_000) == 20, "a quiet org asks for each"
    assert owner_change_calls_per_day(1_000_000, 10_000) == 8_640 + 10_000, "a busy one for 200 at once"
    assert affordable_sweep_ms(200_000, DAY_MS, 5_000, 1_000) == DAY_MS
    assert affordable_sweep_ms(200_000, HOUR_MS, 2_020, 1_000) == pytest.approx(DAY_MS / 10, rel=0.01)
    assert affordable_sweep_ms(200_000, HOUR_MS, 1_030, 5_000) == DAY_MS, "a tenth is always left for sweeps"
    assert worst_revocation_ms(DAY_MS, 30_000) > DAY_MS + 60_000
