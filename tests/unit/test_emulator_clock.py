"""The emulated org's clock can run fast and be set ahead; retention and traffic follow it."""

from __future__ import annotations

import aiohttp
import pytest

from consumer.clock import now_ms as wall_ms
from consumer.emulator.bus import PositionRefusedError
from consumer.emulator.org_clock import EmulatedClock
from consumer.emulator.scenario import Scenario, parse
from consumer.emulator.server import emulated_org
from consumer.errors import EmulatorError
from tests.unit.emulator_client import TOPIC, publish

HOUR_MS = 3_600_000


class Wall:
    """A wall clock that moves when told to."""

    def __init__(self) -> None:
        self.ms = 1_790_000_000_000

    def __call__(self) -> int:
        return self.ms


def test_a_clock_without_settings_is_the_wall_clock() -> None:
    wall = Wall()
    clock = EmulatedClock(wall=wall)
    wall.ms += 12_345
    assert clock.now_ms() == wall.ms


def test_a_fast_clock_runs_from_its_start_on() -> None:
    wall = Wall()
    clock = EmulatedClock(60.0, wall=wall)
    assert clock.now_ms() == wall.ms
    wall.ms += 60_000
    assert clock.now_ms() == 1_790_000_000_000 + HOUR_MS


def test_a_clock_jumps_ahead_and_never_back() -> None:
    wall = Wall()
    clock = EmulatedClock(wall=wall)
    clock.advance(4 * 86_400)
    assert clock.now_ms() - wall.ms == 96 * HOUR_MS
    assert clock.as_json() == {"now_ms": clock.now_ms(), "speed": 1.0, "ahead_ms": 96 * HOUR_MS}
    with pytest.raises(EmulatorError, match="never goes back"):
        clock.advance(-1)


async def test_a_jump_expires_what_the_retention_says() -> None:
    async with emulated_org(Scenario()) as org:
        old = await publish(org, 3)
        await org.fault("advance_clock", seconds=71 * 3600)
        assert all(entry.wire for entry in old)
        (young,) = await publish(org, 1)
        await org.fault("advance_clock", seconds=2 * 3600)
        assert not any(entry.wire for entry in old)
        assert young.wire
        topic = org.bus.topics[TOPIC]
        with pytest.raises(PositionRefusedError):
            org.bus.after(topic, old[-1].replay_id)
        assert org.bus.after(topic, young.replay_id) == topic.end
        assert young.commit_ms - old[0].commit_ms >= 71 * HOUR_MS - 1000


async def test_a_jump_carries_traffic_spread_over_the_span() -> None:
    async with emulated_org(parse("keep_all = true\n[traffic]\nrate = 1\ntotal = 10\npaused = true")) as org:
        await org.fault("advance_clock", seconds=96 * 3600, events=2000, steps=100)
        stamps = [entry.commit_ms for entry in org.ledger]
        assert 2000 <= len(stamps) <= 2600
        assert stamps == sorted(stamps)
        assert 94 * HOUR_MS < stamps[-1] - stamps[0] <= 96 * HOUR_MS
        assert len(set(stamps)) >= 90
        retained = [entry for entry in org.ledger if entry.wire]
        assert retained[0].commit_ms >= org.state.now_ms() - 72 * HOUR_MS - 1000
        assert 0.6 < len(retained) / len(stamps) < 0.9
        assert not org.traffic.done, "they come on top of the total"


async def test_commits_and_the_control_api_tell_the_orgs_time() -> None:
    async with emulated_org(parse("clock_speed = 3600")) as org, aiohttp.ClientSession() as http:
        await org.fault("advance_clock", seconds=7200)
        (entry,) = await publish(org, 1)
        assert entry.commit_ms - wall_ms() > 7_100_000
        async with http.get(f"{org.control}/clock") as answer:
            told = await answer.json()
        assert told["speed"] == 3600
        assert told["now_ms"] >= entry.commit_ms
        assert told["ahead_ms"] >= 7_200_000
