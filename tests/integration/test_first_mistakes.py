"""What goes wrong on the first day: one sentence with advice, the right exit code, no traceback, no secret, soon."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from consumer.emulator.server import emulated_org
from tests.broker import Broker

SECRET = "wrong-secret-4711"
CLOSED = "127.0.0.1:1"
LIMIT_S = 40.0
ROOT = str(Path(__file__).resolve().parents[2])


async def _run(directory: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run the command line as its users do; returns exit code, stdout and stderr."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SESSION_CONSUMER__")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "consumer",
        *arguments,
        cwd=directory,
        env={
            **inherited,
            "PYTHONPATH": ROOT,
            **{f"SESSION_CONSUMER__{key}": value for key, value in environment.items()},
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(LIMIT_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    texts = out.decode(), err.decode()
    for text in texts:
        assert "Traceback" not in text
        assert "internal error" not in text
        assert SECRET not in text
    return process.returncode, *texts


def _settings(**changes: str) -> Mapping[str, str]:
    return {
        "SALESFORCE__LOGIN_URL": f"http://{CLOSED}",
        "SALESFORCE__CLIENT_ID": "emulated",
        "SALESFORCE__CLIENT_SECRET": SECRET,
        "PUBSUB__ENDPOINT": CLOSED,
        "PUBSUB__TLS": "false",
        "KAFKA__BOOTSTRAP_SERVERS": CLOSED,
        "SERVICE__LISTEN": "127.0.0.1:0",
        **changes,
    }


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("rnu",), 2, "Did you mean 'run'?"),
        (("run", "--fast"), 2, "Try 'session-consumer"),
        (("run", "--config", "bad.toml"), 2, "not valid TOML"),
        (("run", "--config", "random.bin"), 2, "not UTF-8"),
        (("run", "--config", "missing.toml"), 2, "can't be read"),
        (("demo", "--for", "0"), 2, "--for must be more than 0"),
        (("demo", "--rate", "-3"), 2, "--rate must be more than 0"),
        (("demo", "--rate", "nan"), 2, "--rate must be more than 0"),
        (("emulate", "--host", "::1"), 2, "--host must be"),
        (("emulate", "--scenario", "bad.toml"), 2, "not TOML"),
        (("replay", "random.bin"), 1, "is not a recording"),
        (("verify", "random.bin"), 1, "is not a recording"),
        (("decode", "--schema", "schema.avsc", "random.bin"), 1, "contradicts its schema"),
        (("decode", "--schema", "random.bin", "random.bin"), 2, "is not a schema"),
    ],
)
async def test_a_wrong_file_or_option(tmp_path: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    (tmp_path / "bad.toml").write_text("[salesforce\n")
    (tmp_path / "random.bin").write_bytes(bytes(range(255, 0, -1)))
    (tmp_path / "schema.avsc").write_text(
        '{"type": "record", "name": "X", "fields": [{"name": "a", "type": "string"}]}'
    )
    returned, out, err = await _run(tmp_path, *arguments)
    assert (returned, out, err.count("\n")) == (code, "", 1)
    assert said in err


@pytest.mark.parametrize("command", ["run", "check", "status", "config show", "position show", "pause"])
async def test_nothing_configured_lists_every_fault(tmp_path: Path, command: str) -> None:
    code, out, err = await _run(tmp_path, *command.split())
    assert (code, out) == (2, "")
    assert "salesforce.login_url is missing" in err
    assert "kafka.bootstrap_servers is missing" in err
    assert "session-consumer config example" in err


@pytest.mark.parametrize("command", ["status", "position show", "pause", "quarantine list"])
async def test_kafka_down_is_one_line(tmp_path: Path, command: str) -> None:
    """These ask Kafka only, so they want no secret of Salesforce."""
    settings = {key: value for key, value in _settings().items() if not key.endswith("SECRET")}
    code, out, err = await _run(tmp_path, *command.split(), **settings)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "Check kafka.bootstrap_servers" in err


@pytest.mark.kafka
@pytest.mark.parametrize("command", ["status", "position show", "position set --earliest", "pause", "quarantine list"])
async def test_before_the_first_run_it_says_so(
    tmp_path: Path, command: str, kafka_broker: Broker, topic_prefix: str
) -> None:
    settings = _settings(KAFKA__BOOTSTRAP_SERVERS=kafka_broker.bootstrap, KAFKA__TOPIC_PREFIX=topic_prefix)
    code, out, err = await _run(tmp_path, *command.split(), **settings)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "does not exist. Start `session-consumer run` once" in err


async def test_a_refused_login_names_the_setting(tmp_path: Path) -> None:
    async with emulated_org() as org:
        changes = {"SALESFORCE__LOGIN_URL": org.login_url, "PUBSUB__ENDPOINT": org.pubsub}
        code, _, err = await _run(tmp_path, "run", **_settings(**changes))
        assert code == 1
        assert "Check salesforce.client_secret" in err.splitlines()[-1]
        code, out, _ = await _run(tmp_path, "check", **_settings(**changes))
        assert code == 1
        assert "FAIL  login" in out
        assert "-> Check salesforce.client_secret" in out


async def test_an_unknown_topic_and_a_wrong_endpoint_are_told_apart(tmp_path: Path) -> None:
    async with emulated_org() as org:
        settings = _settings(SALESFORCE__LOGIN_URL=org.login_url, SALESFORCE__CLIENT_SECRET="emulated")
        code, out, _ = await _run(tmp_path, "check", **settings)
        assert code == 1
        assert "-> Check pubsub.endpoint and pubsub.tls" in out
        settings = {**settings, "PUBSUB__ENDPOINT": org.pubsub, "PUBSUB__TOPICS": '["/data/NopeChangeEvent"]'}
        code, out, _ = await _run(tmp_path, "check", **settings)
        assert code == 1
        assert "-> Check the topic's name" in out


async def test_a_taken_port_names_the_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        code, out, err = await _run(tmp_path, "run", **_settings(SERVICE__LISTEN=listen))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "SESSION_CONSUMER__SERVICE__LISTEN" in err
