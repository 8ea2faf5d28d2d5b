"""The files under ``deploy/`` against what they promise: no engine is needed, so a slip is seen on every machine."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from consumer import settings_load
from consumer.cli import main as cli
from consumer.emulator import scenario
from consumer.health.server import serve_health
from consumer.health.state import HealthState
from consumer.salesforce.login import login_faults
from consumer.telemetry import Metrics

ROOT = Path(__file__).resolve().parents[2]
PINNED = re.compile(r"^[a-z0-9./-]+:\d+(\.\d+)+(-[a-z0-9.]+)?$")
WORKERS = ("consumer", "standby")
OURS = ("org", *WORKERS)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
    return document


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions: name and text, continuation lines joined."""
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined)]


def _last(instructions: list[tuple[str, str]], wanted: str) -> str:
    return [text for name, text in instructions if name == wanted][-1]


# --- compose


def test_compose_starts_kafka_the_org_the_service_and_a_standby(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"kafka", *OURS}


def test_foreign_images_are_pinned_to_the_version_the_tests_run(compose: dict[str, Any]) -> None:
    image = compose["services"]["kafka"]["image"]
    assert PINNED.match(image)
    pom = (ROOT / "tests" / "kafka-pom.xml").read_text(encoding="utf-8")
    assert image == f"apache/kafka:{re.findall(r'<kafka.version>(.+?)<', pom)[0]}"


@pytest.mark.parametrize("name", OURS)
def test_our_containers_can_write_nothing_but_tmp_and_gain_no_rights(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["read_only"] is True
    assert [each.partition(":")[0] for each in service["tmpfs"]] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "volumes", "user", "cap_add", "network_mode", "pid"}
    assert (ROOT / "deploy" / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_ports_are_open_to_this_machine_only(compose: dict[str, Any]) -> None:
    """The emulated org's credentials are public, and Kafka here has none."""
    published = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert len({port.split(":")[1] for port in published}) == len(published)


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_is_configured_by_its_environment_alone(compose: dict[str, Any], name: str) -> None:
    """Every name exists, every value is valid, and together they are a whole configuration."""
    service = compose["services"][name]
    environment = service["environment"]
    assert all(isinstance(value, str) for value in environment.values())
    known = {settings_load.env_name(key) for key, _ in settings_load.leaves()}
    assert environment.keys() <= known
    settings = settings_load.load("", environment, Path.read_bytes, login_faults).settings
    org = compose["services"]["org"]["command"]
    host, pubsub, rest = (org[org.index(option) + 1] for option in ("--host", "--port-pubsub", "--port-rest"))
    assert settings.pubsub.endpoint == f"{host}:{pubsub}"
    assert settings.salesforce.login_url == f"http://{host}:{rest}"
    assert host == "org"
    assert (
        f"INSIDE://{settings.kafka.bootstrap_servers},"
        in (compose["services"]["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"])
    )


def test_the_standby_differs_from_the_service_in_its_port_only(compose: dict[str, Any]) -> None:
    first, second = ({**compose["services"][name], "ports": None} for name in WORKERS)
    assert first == second


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_starts_when_kafka_and_the_org_are_healthy_and_has_time_to_stop(
    compose: dict[str, Any], name: str
) -> None:
    service = compose["services"][name]
    assert service["depends_on"] == {each: {"condition": "service_healthy"} for each in ("kafka", "org")}
    for each in service["depends_on"]:
        assert compose["services"][each]["healthcheck"]["test"][0] == "CMD"
    settings = settings_load.load("", service["environment"], Path.read_bytes, login_faults).settings
    assert int(service["stop_grace_period"].removesuffix("s")) > settings.service.shutdown_grace_s


def test_the_org_s_command_is_one_we_have(compose: dict[str, Any]) -> None:
    command = cli._import(compose["services"]["org"]["command"][0])
    args = cli._parser(command.NAME, command).parse_args(compose["services"]["org"]["command"])
    assert (args.host, args.port_pubsub, args.port_rest) == ("org", 7443, 8000)


# --- Dockerfile


def test_the_image_installs_hashed_packages_only(instructions: list[tuple[str, str]]) -> None:
    installs = [text for name, text in instructions if name == "RUN" and "pip install" in text]
    assert len(installs) == 2
    assert "--require-hashes -r deploy/requirements/runtime.txt" in installs[0]
    assert "--no-index --no-deps --no-build-isolation ." in installs[1]


def test_the_image_runs_as_a_number_that_is_not_root(instructions: list[tuple[str, str]]) -> None:
    user = re.fullmatch(r"(\d+):(\d+)", _last(instructions, "USER"))
    assert user is not None
    assert "0" not in user.groups()


def test_the_image_stops_and_starts_as_the_command_line_does(instructions: list[tuple[str, str]]) -> None:
    assert json.loads(_last(instructions, "ENTRYPOINT")) == ["session-consumer"]
    assert json.loads(_last(instructions, "CMD")) == ["run"]
    assert _last(instructions, "STOPSIGNAL") == "SIGTERM"
    environment = dict(each.split("=", 1) for each in shlex.split(_last(instructions, "ENV")))
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    ours = {name: value for name, value in environment.items() if name.startswith(settings_load.ENV_PREFIX)}
    assert ours == {"SESSION_CONSUMER__SERVICE__LISTEN": "0.0.0.0:8080"}
    assert _last(instructions, "EXPOSE") == "8080"


def test_what_the_image_copies_exists_and_is_not_ignored(instructions: list[tuple[str, str]]) -> None:
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    allowed = {line[1:] for line in ignore if line.startswith("!")}
    assert "*" in ignore
    copied = {
        source
        for name, text in instructions
        if name == "COPY" and not text.startswith("--from")
        for source in text.split()[:-1]
    }
    assert copied == allowed
    assert all((ROOT / each).exists() for each in copied)


async def test_the_health_check_tells_a_living_service_from_a_dead_one(instructions: list[tuple[str, str]]) -> None:
    text = _last(instructions, "HEALTHCHECK")
    options, _, arguments = text.partition(" CMD ")
    assert "--start-period=" in options
    check = [sys.executable, *json.loads(arguments)[1:]]

    def answer(listen: str) -> int:
        # The proxy leads nowhere: the check must not ask it.
        environment = {"SESSION_CONSUMER__SERVICE__LISTEN": listen, "http_proxy": "http://127.0.0.1:9"}
        return subprocess.run(check, env=environment, stderr=subprocess.DEVNULL, timeout=30, check=False).returncode

    async with serve_health("127.0.0.1:0", HealthState("name", "0", "worker"), Metrics()) as url:
        listen = f"0.0.0.0:{url.rpartition(':')[2]}"
        assert await asyncio.to_thread(answer, listen) == 0
    assert await asyncio.to_thread(answer, listen) != 0


# --- scenarios


@pytest.mark.parametrize("path", sorted((ROOT / "deploy" / "scenarios").glob("*.toml")), ids=lambda path: path.stem)
def test_every_scenario_is_valid(path: Path) -> None:
    assert scenario.load(path)
