"""The command line's frame: what is imported, what is printed, and the exit codes."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import types
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from consumer.cli import main as cli
from consumer.errors import ConfigError, KafkaUnavailableError, UsageError

SECRET = "hush-4711"

Run = Callable[[argparse.Namespace], "int | Awaitable[int]"]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Run], types.SimpleNamespace]:
    """Put a function in the place of the module of ``status``."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SESSION_CONSUMER__")]:
        monkeypatch.delenv(name)

    def install(run: Run, **extra: Any) -> types.SimpleNamespace:
        def add_parser(subparsers: Any) -> None:
            inner = subparsers.add_parser("status").add_subparsers(dest="action")
            inner.add_parser("deep")

        module = types.SimpleNamespace(NAME="status", add_parser=add_parser, run=run, **extra)
        monkeypatch.setattr(cli, "_import", lambda _: module)
        return module

    return install


def _raise(error: BaseException) -> Run:
    def run(_: argparse.Namespace) -> int:
        raise error

    return run


def test_help_lists_every_command_with_one_line_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, summary in cli.COMMANDS.items():
        assert any(line.split(None, 1) == [name, summary] for line in lines), name


def test_help_needs_no_heavy_library() -> None:
    code = (
        "import sys; from consumer.cli.main import main; main(['--help']); sys.stderr.write(repr(sorted(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    for module in ("asyncio", "pydantic", "aiohttp", "grpc", "aiokafka", "structlog"):
        assert f"'{module}'" not in ran.stderr


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_teaches(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command's help has a description and examples."""
    assert cli.main([name, "--help"]) == 0
    assert "examples:" in capsys.readouterr().out


def test_no_command_shows_the_help_and_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "commands:" in capsys.readouterr().err


def test_an_unknown_command_says_what_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["statsu"]) == 2
    assert "there is no command 'statsu'. Did you mean 'status'? " in capsys.readouterr().err


def test_a_wrong_option_is_one_line_with_advice(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "show", "--jsn"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "Try 'session-consumer" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "f", "--debug", "status", "deep"],
        ["status", "--config", "f", "deep", "--debug"],
        ["status", "deep", "--debug", "--config=f"],
    ],
)
def test_global_options_stand_anywhere(arguments: list[str], command: Callable[..., Any]) -> None:
    seen: list[argparse.Namespace] = []

    def run(args: argparse.Namespace) -> int:
        seen.append(args)
        return 7

    command(run)
    assert cli.main(arguments) == 7
    assert seen[0].config == Path("f")
    assert seen[0].debug is True


def test_an_awaitable_runs_in_an_event_loop(command: Callable[..., Any]) -> None:
    async def run(_: argparse.Namespace) -> int:
        await asyncio.sleep(0)
        return 3

    command(run)
    assert cli.main(["status"]) == 3


def test_an_error_is_its_sentence_and_its_class_decides_the_exit_code(
    command: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for error, code in ((KafkaUnavailableError("no broker answered", "Start Kafka"), 1), (UsageError("wrong"), 2)):
        command(_raise(error))
        assert cli.main(["status"]) == code
    assert capsys.readouterr().err == ("session-consumer: no broker answered. Start Kafka.\nsession-consumer: wrong.\n")


def test_several_faults_stand_on_lines_of_their_own(
    command: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    command(_raise(ConfigError(["a.b is missing", "c.d is wrong"], "Correct it")))
    assert cli.main(["status"]) == 2
    expected = "session-consumer: the configuration has 2 faults:\n  a.b is missing\n  c.d is wrong\nCorrect it.\n"
    assert capsys.readouterr().err == expected


def test_errors_in_groups_are_told_one_by_one_and_once(
    command: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = KafkaUnavailableError("no broker answered"), KafkaUnavailableError("no broker answered")
    command(_raise(BaseExceptionGroup("both", [first, ExceptionGroup("in", [second, UsageError("wrong")])])))
    assert cli.main(["status"]) == 1
    assert capsys.readouterr().err == "session-consumer: no broker answered.\nsession-consumer: wrong.\n"


def test_an_unexpected_error_shows_its_type_but_not_its_text(
    command: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    command(_raise(RuntimeError(SECRET)))
    assert cli.main(["status"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "internal error (RuntimeError)" in err
    assert "--debug" in err
    assert SECRET not in err


def test_debug_shows_the_traceback(command: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    command(_raise(RuntimeError("boom")))
    assert cli.main(["--debug", "status"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("grouped", [False, True])
def test_an_interrupt_is_130_or_what_the_command_says(command: Callable[..., Any], grouped: bool) -> None:
    error: BaseException = KeyboardInterrupt()
    if grouped:
        error = BaseExceptionGroup("group", [error])
    command(_raise(error))
    assert cli.main(["status"]) == 130
    command(_raise(error), INTERRUPT_EXIT_CODE=0)
    assert cli.main(["status"]) == 0


def test_a_closed_pipe_is_quiet() -> None:
    """``session-consumer … | head`` ends without a complaint, with the code of a program that SIGPIPE ended."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        ran = subprocess.run(
            [sys.executable, "-m", "consumer", "config", "example"],
            stdout=stdout,
            stderr=subprocess.PIPE,
            check=False,
            timeout=30,
        )
    assert ran.returncode == 141
    assert ran.stderr == b""


def test_a_broken_connection_is_not_taken_for_a_closed_pipe(
    command: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    command(_raise(BrokenPipeError("socket")))
    with os.fdopen(reader), os.fdopen(writer, "w") as stdout, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        assert cli.main(["status"]) == 1
    assert "internal error (BrokenPipeError)" in capsys.readouterr().err


def test_the_example_configuration_loads_with_its_secret_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What ``config example`` prints is found in the working directory and shown with its origins."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["config", "example"]) == 0
    Path("session-consumer.toml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert cli.main(["config", "show"]) == 2
    assert "SESSION_CONSUMER__SALESFORCE__CLIENT_SECRET" in capsys.readouterr().err
    monkeypatch.setenv("SESSION_CONSUMER__SALESFORCE__CLIENT_SECRET", SECRET)
    assert cli.main(["config", "show", "--json"]) == 0
    shown = capsys.readouterr().out
    assert SECRET not in shown
    document = json.loads(shown)
    assert document["salesforce"]["client_secret"] == {"value": "***", "origin": "env"}
    assert document["kafka"]["bootstrap_servers"] == {"value": "localhost:9092", "origin": "file"}
    assert document["kafka"]["retention"]["changes"]["origin"] == "default"
    assert cli.main(["config", "show"]) == 0
    assert SECRET not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "expected"), [(None, "can't be read: No such file"), (b"\xff", "is not UTF-8 text")]
)
def test_an_unreadable_configuration_file_is_one_sentence(
    content: bytes | None, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.toml"
    if content is not None:
        path.write_bytes(content)
    assert cli.main(["config", "show", "--config", str(path)]) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1
