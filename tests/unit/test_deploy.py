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
STATE = "/var/lib/session-consumer"


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
def test_our_containers_can_write_nothing_but_tmp_and_their_store_and_gain_no_rights(
    compose: dict[str, Any], name: str
) -> None:
    service = compose["services"][name]
    assert service["read_only"] is True
    assert [each.partition(":")[0] for each in service["tmpfs"]] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("volumes", []) == ([f"state:{STATE}"] if name in WORKERS else [])
    assert not service.keys() & {"privileged", "user", "cap_add", "network_mode", "pid"}
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


def test_the_image_has_a_volume_for_the_store_that_its_user_may_write(instructions: list[tuple[str, str]]) -> None:
    assert _last(instructions, "VOLUME") == STATE
    user, group = _last(instructions, "USER").split(":")
    (made,) = [text for name, text in instructions if name == "RUN" and STATE in text]
    assert f"-m 700 -o {user} -g {group} {STATE}" in made


def test_the_image_stops_and_starts_as_the_command_line_does(instructions: list[tuple[str, str]]) -> None:
    assert json.loads(_last(instructions, "ENTRYPOINT")) == ["session-consumer"]
    assert json.loads(_last(instructions, "CMD")) == ["run"]
    assert _last(instructions, "STOPSIGNAL") == "SIGTERM"
    environment = dict(each.split("=", 1) for each in shlex.split(_last(instructions, "ENV")))
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    ours = {name: value for name, value in environment.items() if name.startswith(settings_load.ENV_PREFIX)}
    assert ours == {"SESSION_CONSUMER__SERVICE__LISTEN": "0.0.0.0:8080", "SESSION_CONSUMER__STATE__PATH": STATE}
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


# --- Kubernetes and systemd


@pytest.fixture(scope="module")
def stateful_set() -> dict[str, Any]:
    documents = yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text(encoding="utf-8"))
    found: dict[str, Any] = next(each for each in documents if each["kind"] == "StatefulSet")
    return found


def _settings_of(environment: dict[str, str]) -> Any:
    """Load an environment as the service does; secret files are there."""
    return settings_load.load("", environment, lambda _: b"secret", login_faults).settings


def test_kubernetes_runs_two_workers_that_keep_their_store(stateful_set: dict[str, Any]) -> None:
    spec = stateful_set["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    claims = [each["metadata"]["name"] for each in spec["volumeClaimTemplates"]]
    settings = _settings_of({each["name"]: each["value"] for each in container["env"]})
    assert spec["replicas"] == 2
    assert claims == ["state"]
    assert mounts["state"] == str(settings.state.path) == STATE
    assert settings.service.listen.endswith(f":{container['ports'][0]['containerPort']}")
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > settings.service.shutdown_grace_s
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_kubernetes_gives_no_rights_and_no_secret_in_the_file(stateful_set: dict[str, Any]) -> None:
    pod = stateful_set["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    secrets = [each for each in container["env"] if "SECRET" in each["name"] or "PASSWORD" in each["name"]]
    assert secrets
    assert all(each["name"].endswith("_FILE") for each in secrets)
    (mounted,) = [each["mountPath"] for each in container["volumeMounts"] if each["name"] == "secrets"]
    assert all(each["value"].startswith(f"{mounted}/") for each in secrets)


def test_the_systemd_unit_keeps_its_store_and_has_time_to_stop() -> None:
    lines = (ROOT / "deploy" / "session-consumer.service").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("=", 1) for line in lines if "=" in line and not line.startswith("#")]
    unit = {name: value for name, value in pairs if name != "Environment"}
    environment = dict(value.split("=", 1) for name, value in pairs if name == "Environment")
    needed = {
        "SESSION_CONSUMER__SALESFORCE__LOGIN_URL": "https://x.my.salesforce.com",
        "SESSION_CONSUMER__SALESFORCE__CLIENT_ID": "x",
        "SESSION_CONSUMER__KAFKA__BOOTSTRAP_SERVERS": "x:1",
    }
    settings = _settings_of(environment | needed)
    assert settings.state.path is None, "systemd says by STATE_DIRECTORY where it is"
    assert unit["StateDirectory"] == "session-consumer"
    assert unit["StateDirectoryMode"] == "0700"
    assert int(unit["TimeoutStopSec"]) > settings.service.shutdown_grace_s
    assert unit["DynamicUser"] == unit["NoNewPrivileges"] == "yes"
    command = cli._import(unit["ExecStart"].split()[1])
    args = cli._parser(command.NAME, command).parse_args(unit["ExecStart"].split()[1:])
    assert str(args.config) == "/etc/session-consumer/session-consumer.toml"


# --- alerts and dashboard

_NAMES = re.compile(r"session_consumer_[a-z0-9_]+")


def _exposed() -> set[str]:
    """Return every series name of ``/metrics``."""
    found = set()
    for metric in Metrics().registry.collect():
        endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(metric.type, [""])
        found |= {metric.name + ending for ending in endings}
    return found


def test_every_alert_watches_a_metric_that_exists() -> None:
    document = yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text(encoding="utf-8"))
    rules = document["groups"][0]["rules"]
    named = {name for rule in rules for name in _NAMES.findall(rule["expr"])}
    assert len({rule["alert"] for rule in rules}) == len(rules) > 5
    assert named <= _exposed()
    assert {"session_consumer_halted", "session_consumer_position_expires_seconds"} <= named
    commands = {name for rule in rules for name in re.findall(r"`session-consumer ([a-z]+)", str(rule["annotations"]))}
    assert commands <= cli.COMMANDS.keys()


def test_every_panel_shows_a_metric_that_exists() -> None:
    document = json.loads((ROOT / "deploy" / "grafana.json").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in document["panels"] for target in panel["targets"]]
    named = {name for each in expressions for name in _NAMES.findall(each)}
    assert expressions
    assert named <= _exposed()
    assert all(_NAMES.search(each) for each in expressions)
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])
