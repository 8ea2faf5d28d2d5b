"""Until when `record` and `verify` read: a number of events, a time, or Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from consumer.errors import UsageError


def check_limits(args: argparse.Namespace) -> None:
    """Refuse limits that end before anything was read.

    Raises:
        UsageError: ``--for`` or ``--count`` is not positive.
    """
    if args.seconds is not None and not args.seconds > 0:
        raise UsageError("--for must be more than 0 seconds", "Leave it out for the default")
    if args.count is not None and args.count < 1:
        raise UsageError("--count must be at least 1", "Leave it out for the default")


@asynccontextmanager
async def until_told(seconds: float | None) -> AsyncIterator[None]:
    """End the block, as if it had been left, after some seconds or on SIGINT or SIGTERM; a second one exits at once.

    Args:
        seconds: None for no limit.
    """
    loop = asyncio.get_running_loop()
    asked = False

    def stop(number: int) -> None:
        nonlocal asked
        if asked:
            os._exit(128 + number)
        asked = True
        scope.reschedule(loop.time())

    try:
        async with asyncio.timeout(seconds) as scope:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop, number)
            try:
                yield
            finally:
                for number in (signal.SIGINT, signal.SIGTERM):
                    loop.remove_signal_handler(number)
    except TimeoutError:
        if not scope.expired():
            raise
