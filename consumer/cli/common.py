"""What the commands share: the parser class, output, and how the configuration is found."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias

from consumer.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from consumer.settings_load import Loaded

PROGRAM = "session-consumer"
DEFAULT_CONFIG = Path("session-consumer.toml")

Subparsers: TypeAlias = "argparse._SubParsersAction[CommandParser]"  # noqa: SLF001 - it has no public name
"""What ``add_parser`` is given."""


class Command(Protocol):
    """What a module under ``consumer/cli`` offers.

    A module may also set ``INTERRUPT_EXIT_CODE = 0`` when Ctrl-C is its normal end; otherwise it is 130.
    """

    NAME: str

    def add_parser(self, subparsers: Subparsers) -> None:
        """Add the command's parser, with description and examples, under ``NAME``."""
        ...

    def run(self, args: argparse.Namespace) -> int | Awaitable[int]:
        """Do the work and return the exit code; an awaitable is run in a new event loop.

        Raises:
            ServiceError: what went wrong, for the person at the terminal.
        """
        ...


class CommandParser(argparse.ArgumentParser):
    """A parser that takes the global options at every depth and keeps examples as they are written.

    Sub-parsers made from it are of the same class, so ``session-consumer run --config F`` and
    ``session-consumer --config F run`` mean the same.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
        shared = self.add_argument_group("everywhere")
        # No defaults here: those of a sub-parser would overwrite what was given before the command's name.
        shared.add_argument(
            "--config",
            metavar="FILE",
            type=Path,
            default=argparse.SUPPRESS,
            help=f"configuration file (default: ./{DEFAULT_CONFIG} if there is one)",
        )
        shared.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
        )

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting, so that all errors are printed in one place.

        Raises:
            UsageError: always.
        """
        raise UsageError(message, f"Try '{self.prog} --help'")


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``: machine-readable output, one JSON document on stdout."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def load_settings(args: argparse.Namespace, *, needs_login: bool = True) -> Loaded:
    """Read the configuration file and the environment.

    Args:
        args: the parsed command line; ``config`` may be missing.
        needs_login: whether the command logs in to Salesforce; one that only asks Kafka runs without those secrets.

    Raises:
        ConfigError: the file can't be read, or the configuration has faults (all of them are listed).
    """
    from consumer import settings_load  # noqa: PLC0415 - pydantic is slow to import, and help needs none of it
    from consumer.salesforce.login import login_faults  # noqa: PLC0415 - likewise
    from consumer.telemetry import configure_logging  # noqa: PLC0415 - likewise

    # Until a command says otherwise, its results and its one error say it all.
    configure_logging(level="error")
    path: Path | None = getattr(args, "config", None)
    if path is None and DEFAULT_CONFIG.exists():
        path = DEFAULT_CONFIG
    text = "" if path is None else _read_config(path)
    try:
        if needs_login:
            return settings_load.load(text, os.environ, Path.read_bytes, login_faults)
        return settings_load.load(text, os.environ, Path.read_bytes)
    except ConfigError as error:
        where = f"Correct {path} or the environment" if path else f"There is no ./{DEFAULT_CONFIG} and no --config"
        advice = f"{where}; '{PROGRAM} config example' prints the smallest working file"
        raise ConfigError(error.faults, error.advice or advice) from error


def _read_config(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([f"the configuration file {path} is not UTF-8 text"], "Save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(
            [f"the configuration file {path} can't be read: {error.strerror}"],
            f"Give its path with --config; '{PROGRAM} config example' prints one to start from",
        ) from error


def write_line(text: str = "") -> None:
    """Write one line to stdout and flush it, so that a reader of a pipe sees it at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def write_json(value: object, *, indent: bool = True) -> None:
    """Write one JSON document to stdout: indented for people, or one line for programs."""
    import orjson  # noqa: PLC0415 - most commands' help and errors never need it

    options = orjson.OPT_INDENT_2 if indent else 0
    write_line(orjson.dumps(value, option=options | orjson.OPT_NON_STR_KEYS).decode())


def write_table(rows: Sequence[Sequence[str]]) -> None:
    """Write rows to stdout in aligned columns, two spaces apart."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        write_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
