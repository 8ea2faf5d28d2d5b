"""The command line: finds the command, runs it, and turns every error into one sentence and an exit code."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import select
import sys
import traceback
from collections.abc import Awaitable, Iterator, Sequence
from typing import TextIO, cast

from consumer import __version__
from consumer.cli.common import PROGRAM, Command, CommandParser
from consumer.errors import ConfigError, ServiceError, UsageError

COMMANDS: dict[str, str] = {
    "run": "run the service: Salesforce change events into Kafka",
    "demo": "watch the whole service work against an emulated org",
    "check": "test what a first start needs, and say how to mend it",
    "status": "say who is active, how far it has come, and what is wrong",
    "config": "print an example configuration, or the effective one",
    "record": "capture raw events from a channel into a file",
    "replay": "put a recording through the same code, to stdout or to Kafka",
    "verify": "compare a recording's or an org's shapes with ours",
    "decode": "decode one raw payload with its schema",
    "emulate": "run only the emulated org",
    "position": "show, set or reset the committed position",
    "pause": "ask the active worker to stop reading",
    "resume": "end a pause or a halt",
    "snapshot": "have the active worker read all records again",
    "coverage": "say what is proven complete, and what is missing",
    "timeline": "tell one record's history from Kafka",
    "quarantine": "list events that could not be processed, or retry them",
}
"""Every command with the line that the top-level help shows; its module is ``consumer.cli.<name>``."""

EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141
"""What a shell reports for a program that SIGPIPE ended."""

_DESCRIPTION = """\
Salesforce Messaging sessions in Kafka: every change once, in order, with proof
that nothing is missing."""

_EXAMPLES = f"""\
examples:
  {PROGRAM} demo                                   see it work; needs no Salesforce and no Kafka
  {PROGRAM} config example > session-consumer.toml start a configuration
  {PROGRAM} check                                  test it before the first start
  {PROGRAM} run                                    run the service

'{PROGRAM} COMMAND --help' explains a command and shows examples.
Every value of the file can be given as SESSION_CONSUMER__SECTION__KEY in the environment.
Exit codes: 0 done, 1 failed, 2 wrong usage or configuration."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the process's exit code.

    Args:
        argv: arguments without the program's name; None takes the process's.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    interrupt_exit_code = EXIT_INTERRUPTED
    try:
        name = _command_name(arguments)
        command = _import(name) if name else None
        interrupt_exit_code = getattr(command, "INTERRUPT_EXIT_CODE", EXIT_INTERRUPTED)
        parser = _parser(name, command)
        args = parser.parse_args(arguments)
        if command is None:
            parser.print_help(sys.stderr)
            return UsageError.exit_code
        code = _finish(command.run(args))
        sys.stdout.flush()
    except SystemExit as error:  # argparse ends --help and --version this way
        return error.code if isinstance(error.code, int) else 0
    except KeyboardInterrupt:
        return interrupt_exit_code
    except BaseException as error:  # noqa: BLE001 - the last handler: everything becomes a sentence here
        return _failed(error, interrupt_exit_code, debug=debug)
    return code


def _command_name(arguments: Sequence[str]) -> str | None:
    """Find the command without knowing its options, so that only its module is imported."""
    finder = CommandParser(prog=PROGRAM, add_help=False)
    finder.add_argument("--help", "-h", "--version", action="store_true")
    finder.add_argument("command", nargs="?")
    finder.add_argument("rest", nargs=argparse.REMAINDER)
    name: str | None = finder.parse_known_args(arguments)[0].command
    if name is not None and name not in COMMANDS:
        alike = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"Did you mean {alike[0]!r}? " if alike else ""
        raise UsageError(f"there is no command {name!r}", f"{hint}'{PROGRAM} --help' lists them all")
    return name


def _import(name: str) -> Command:
    return cast("Command", importlib.import_module(f"consumer.cli.{name}"))


def _parser(name: str | None, command: Command | None) -> CommandParser:
    parser = CommandParser(prog=PROGRAM, description=_DESCRIPTION, epilog=_EXAMPLES)
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for each, summary in COMMANDS.items():
        if command is not None and each == name:
            command.add_parser(subparsers)
        else:
            subparsers.add_parser(each, help=summary)
    return parser


def _finish(result: int | Awaitable[int]) -> int:
    if isinstance(result, int):
        return result
    import asyncio  # noqa: PLC0415 - help and decode answer sooner without an event loop

    try:
        import uvloop  # noqa: PLC0415
    except ImportError:  # not there on Windows
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_await(result))


async def _await(result: Awaitable[int]) -> int:
    return await result


def _failed(error: BaseException, interrupt_exit_code: int, *, debug: bool) -> int:
    """Print what happened, without payload or secret, and return the exit code."""
    leaves = list(_leaves(error))
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        return interrupt_exit_code
    if any(isinstance(leaf, BrokenPipeError) for leaf in leaves) and _reader_is_gone(sys.stdout):
        # The interpreter flushes stdout once more at exit, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    if debug:
        traceback.print_exception(error)
    known = [leaf for leaf in leaves if isinstance(leaf, ServiceError)]
    unknown = [leaf for leaf in leaves if not isinstance(leaf, ServiceError)]
    # The text of an unexpected error may hold anything, a token included: only its type is safe to show.
    sentences = [f"internal error ({', '.join(sorted({type(leaf).__name__ for leaf in unknown}))})"] if unknown else []
    if unknown and not debug:
        sentences[0] += ". Run the same command with --debug to see the traceback, and report it."
    for sentence in dict.fromkeys([*map(_sentence, known), *sentences]):
        sys.stderr.write(f"{PROGRAM}: {sentence}\n")
    return known[0].exit_code if known and not unknown else 1


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors inside nested groups, in order."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _sentence(error: ServiceError) -> str:
    if isinstance(error, ConfigError) and len(error.faults) > 1:
        faults = "".join(f"\n  {fault}" for fault in error.faults)
        return f"the configuration has {len(error.faults)} faults:{faults}\n{_full_stop(error.advice)}".rstrip()
    return _full_stop(str(error))


def _full_stop(text: str) -> str:
    return text if not text or text.endswith((".", "?", "!")) else f"{text}."


def _reader_is_gone(stream: TextIO) -> bool:
    """Tell a closed stdout from a broken network connection, which is an error like any other."""
    poll = select.poll()
    poll.register(stream, 0)
    return bool(poll.poll(0))
