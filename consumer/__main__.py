"""Entry point of ``session-consumer`` and ``python -m consumer``."""

from __future__ import annotations

import os
import sys

from consumer.cli.main import main as run_command_line


def main() -> None:
    """Run the command line and end the process with its exit code."""
    # gRPC's C core writes notes of its own to stderr at every closed stream; what matters comes as an error.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    sys.exit(run_command_line())


if __name__ == "__main__":
    main()
