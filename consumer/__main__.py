"""Entry point of ``session-consumer`` and ``python -m consumer``."""

from __future__ import annotations

import sys

from consumer.cli.main import main as run_command_line


def main() -> None:
    """Run the command line and end the process with its exit code."""
    sys.exit(run_command_line())


if __name__ == "__main__":
    main()
