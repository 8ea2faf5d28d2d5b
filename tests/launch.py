"""Runs the command line of ``consumer`` as a child that ends with its starter, and dies at a named point if asked.

``python -m tests.launch [--crash POINT[:HIT]] COMMAND ...``: the process ends when its standard input does, which the
kernel closes even after a kill of the starter. A crash point wraps one method of an adapter, so that the program
under test needs no parameter for it; at the n-th hit the process kills itself by SIGKILL.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from consumer.cli.main import main as run_command_line


def _end_with_starter() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run the command line under guard."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["--crash"]:
        from tests.crash_points import arm  # noqa: PLC0415  # only a worker needs the adapters at import

        name, _, hit = arguments[1].partition(":")
        arm(name, int(hit or 1))
        arguments = arguments[2:]
    threading.Thread(target=_end_with_starter, daemon=True).start()
    sys.exit(run_command_line(arguments))


if __name__ == "__main__":
    main()
