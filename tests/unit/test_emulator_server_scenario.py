"""Scenario files and the emulate command: what they take, and how they say no."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from consumer.emulator import scenario
from consumer.emulator.server import emulated_org
from consumer.errors import ConfigError
from tests.unit.emulator_client import until

EXAMPLES = sorted((Path(__file__).parents[2] / "deploy" / "scenarios").glob("*.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
async def test_every_example_scenario_starts(path: Path) -> None:
    loaded = scenario.load(path)
    small = loaded.model_copy(update={"traffic": loaded.traffic.model_copy(update={"preload": 50}), "at": ()})
    async with emulated_org(small) as org:
        assert len(org.ledger) >= 50
    for act in loaded.at:
        assert act.fault.kind == act.kind


async def test_the_acts_of_the_bad_day_can_all_be_carried_out() -> None:
    loaded = scenario.load(next(path for path in EXAMPLES if path.stem == "bad-day"))
    async with emulated_org(loaded.model_copy(update={"at": ()})) as org:
        for act in loaded.at:
            await org.faults.apply(act.fault)
        assert org.stats.faults.total() == len(loaded.at)


def test_all_faults_of_a_file_are_listed_at_once() -> None:
    text = """
keepalive_s = 500
colour = "red"
channels = { "/data/Wrong" = ["Account"] }
[traffic]
rate = -1
[[at]]
s = 1
kind = "magic"
[[at]]
kind = "latency"
ms = -1
"""
    with pytest.raises(ConfigError) as caught:
        scenario.parse(text, "bad.toml")
    listed = "\n".join(caught.value.faults)
    for word in ("keepalive_s", "colour", "/data/Wrong", "traffic.rate", "magic", "at.1.s", "ms"):
        assert word in listed
    assert len(caught.value.faults) == 7
    assert caught.value.exit_code == 2


def test_broken_toml_and_missing_files_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not TOML"):
        scenario.parse("= 1")
    with pytest.raises(ConfigError, match="can't be read"):
        scenario.load(tmp_path / "missing.toml")


def test_the_time_scale_divides_protocol_times_only() -> None:
    timing = scenario.parse("time_scale = 60").timing()
    assert (timing.keepalive_s, timing.credit_timeout_s, timing.commit_timeout_s) == (2.0, 1.0, 30.0)
    assert scenario.parse("time_scale = 60\n[traffic]\nrate = 5").traffic.rate == 5


async def test_ungrouped_merged_events_share_a_replay_id() -> None:
    async with emulated_org(scenario.parse("ungroup_merged = true")) as org:
        ids = [(await org.fault("commit", changes=[{"op": "create"}]))[0].record_ids[0] for _ in range(3)]
        changes = [{"op": "delete", "record_id": record_id} for record_id in ids]
        entries = await org.fault("commit", changes=changes)
        assert len(entries) == 3
        assert len({entry.replay_id for entry in entries}) == 1
        assert len({entry.event_id for entry in entries}) == 3


async def test_the_memory_of_traffic_stays_in_the_ledger() -> None:
    async with emulated_org(scenario.parse("[traffic]\nrate = 2000\ntotal = 150")) as org:
        await until(lambda: org.traffic.done)
        assert [entry.index for entry in org.ledger] == list(range(len(org.ledger)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_emulate_prints_one_line_serves_and_ends_zero_on_a_signal(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "consumer", "emulate", "--rate", "50", "--seed", "3", "--total", "10"]
    environment = {**os.environ, "GRPC_VERBOSITY": "NONE"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            addresses = json.loads(process.stdout.readline())
            assert set(addresses) == {"pubsub", "rest", "login_url", "control"}
            form = {
                "grant_type": "client_credentials",
                "client_id": "emulated",
                "client_secret": "emulated",
            }
            body = urllib.parse.urlencode(form).encode()
            with urllib.request.urlopen(f"{addresses['login_url']}/services/oauth2/token", body) as response:
                assert json.load(response)["instance_url"] == addresses["rest"]
            with urllib.request.urlopen(f"{addresses['control']}/stats") as response:
                assert json.load(response)["traffic"]["total"] == 10
            process.send_signal(number)
            rest, errors = process.communicate(timeout=20)
        finally:
            process.kill()
        assert (process.returncode, rest, errors) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--scenario", "missing.toml"], "can't be read"),
        (["--rate", "-1"], "--rate"),
        (["--port-rest", "70000"], "--port-rest"),
        (["--port-pubsub", "x"], "invalid int"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(arguments: list[str], word: str) -> None:
    command = [sys.executable, "-m", "consumer", "emulate", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert word in done.stderr
    assert "Traceback" not in done.stderr
