"""The health pages, asked over real HTTP on loopback."""

from __future__ import annotations

import re
from typing import Any

import aiohttp
import pytest

from consumer.errors import ConfigError
from consumer.health.server import serve_health
from consumer.health.state import HealthState, Role
from consumer.telemetry import Metrics

CHANNEL = "/data/MessagingSessionChangeEvent"
NOW_MS = 1_790_000_000_000


def _state() -> HealthState:
    return HealthState("session-consumer", "0.1.0", "host:1")


async def _get(state: HealthState, path: str, metrics: Metrics | None = None) -> tuple[int, Any]:
    async with (
        serve_health("127.0.0.1:0", state, metrics or Metrics(), lambda: NOW_MS) as url,
        aiohttp.ClientSession() as http,
        http.get(url + path) as answer,
    ):
        if answer.content_type == "application/json":
            return answer.status, await answer.json()
        return answer.status, await answer.text()


async def test_healthz_answers_whatever_the_state_is() -> None:
    state = _state()
    state.subscription(CHANNEL).become(Role.HALTED, "halted", "Resume it")
    assert (await _get(state, "/healthz"))[0] == 200


@pytest.mark.parametrize("role", Role)
async def test_readyz_by_role(role: Role) -> None:
    """A working leader, a healthy standby and a worker paused by command are ready; nobody else is."""
    state = _state()
    state.subscription(CHANNEL).become(role)
    status, _ = await _get(state, "/readyz")
    assert status == (200 if role in {Role.ACTIVE, Role.STANDBY, Role.PAUSED} else 503)


async def test_readyz_names_reason_and_advice() -> None:
    state = _state()
    state.subscription("/data/B__chn").become(Role.ACTIVE)
    state.subscription(CHANNEL).become(Role.HALTED, "too many events in quarantine", "See the quarantine topic")
    status, body = await _get(state, "/readyz")
    assert status == 503
    assert body == {
        "ready": False,
        "problems": [
            {
                "subscription": CHANNEL,
                "role": "halted",
                "reason": "too many events in quarantine",
                "advice": "See the quarantine topic",
            }
        ],
    }


async def test_not_ready_before_the_first_subscription() -> None:
    assert (await _get(_state(), "/readyz"))[0] == 503


async def test_an_unhealthy_standby_is_not_ready() -> None:
    state = _state()
    state.subscription(CHANNEL).become(Role.STANDBY, "Kafka did not answer")
    assert (await _get(state, "/readyz"))[0] == 503


async def test_status_tells_lag_and_expiry() -> None:
    state = _state()
    one = state.subscription(CHANNEL)
    one.become(Role.ACTIVE)
    one.salesforce_lag_ms, one.own_lag_ms = 900, 40
    one.position_advanced_ms = NOW_MS - 3_600_000
    status, body = await _get(state, "/status")
    assert status == 200
    assert body["ready"] is True
    assert body["now_ms"] == NOW_MS
    (subscription,) = body["subscriptions"]
    assert subscription["channel"] == CHANNEL
    assert subscription["role"] == "active"
    assert subscription["salesforce_lag_ms"] == 900
    assert subscription["position_expires_in_s"] == 71 * 3600


async def test_metrics_page() -> None:
    metrics = Metrics()
    metrics.subscription(CHANNEL).events(2, NOW_MS)
    status, body = await _get(_state(), "/metrics", metrics)
    assert status == 200
    assert f'session_consumer_events_received_total{{subscription="{CHANNEL}"}} 2.0' in body


async def test_a_taken_port_is_one_sentence_with_advice() -> None:
    async with serve_health("127.0.0.1:0", _state(), Metrics()) as url:
        taken = url.removeprefix("http://")
        with pytest.raises(
            ConfigError, match=re.escape(f"service.listen: the address {taken} is already in use")
        ) as caught:
            async with serve_health(taken, _state(), Metrics()):
                pytest.fail("served twice")
        assert "SESSION_CONSUMER__SERVICE__LISTEN" in caught.value.advice


async def test_a_foreign_address_is_one_sentence_with_advice() -> None:
    with pytest.raises(ConfigError, match=r"service\.listen: can't listen on 192\.0\.2\.1:0"):
        async with serve_health("192.0.2.1:0", _state(), Metrics()):
            pytest.fail("served")


async def test_the_port_is_free_again_afterwards() -> None:
    async with serve_health("127.0.0.1:0", _state(), Metrics()) as url:
        pass
    async with serve_health(url.removeprefix("http://"), _state(), Metrics()) as again:
        assert again == url
