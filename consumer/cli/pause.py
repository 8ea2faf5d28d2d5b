"""``pause``: ask the active worker to stop reading."""

from __future__ import annotations

import argparse

from consumer.cli.common import Subparsers
from consumer.cli.steering import add_topic_option, run_pause_or_resume
from consumer.delivery.control import Pause

NAME = "pause"


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        NAME,
        help="ask the active worker to stop reading",
        description=(
            "Ask the active worker to commit what it has and take no more events, until `resume`. A pause outlives\n"
            "restarts. Salesforce keeps events for 72 hours: a longer pause loses some."
        ),
        epilog=(
            "examples:\n  session-consumer pause\n  session-consumer pause --topic /data/MessagingSessionChangeEvent"
        ),
    )
    add_topic_option(parser)


async def run(args: argparse.Namespace) -> int:
    """Send the command."""
    return await run_pause_or_resume(args, Pause)
