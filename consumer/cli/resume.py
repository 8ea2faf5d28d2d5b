"""``resume``: end a pause or a halt."""

from __future__ import annotations

import argparse

from consumer.cli.common import Subparsers
from consumer.cli.steering import add_topic_option, run_pause_or_resume
from consumer.delivery.control import Resume

NAME = "resume"


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        NAME,
        help="end a pause or a halt",
        description=(
            "End a pause, or have a halted worker try again from the committed position. Nothing is skipped: what\n"
            "caused a halt and is still there will cause it again, unless --accept-flood has a flood of bad events\n"
            "put into quarantine."
        ),
        epilog=(
            "examples:\n"
            "  session-consumer resume\n"
            "  session-consumer resume --topic /data/MessagingSessionChangeEvent\n"
            "  session-consumer resume --accept-flood"
        ),
    )
    add_topic_option(parser)
    parser.add_argument(
        "--accept-flood",
        action="store_true",
        help="after a halt by too many bad events: put them into quarantine, each with its loss window, and go on",
    )


async def run(args: argparse.Namespace) -> int:
    """Send the command."""

    def command(channel: str | None, issued_ms: int, who: str) -> Resume:
        return Resume(channel, issued_ms, who, accept_flood=args.accept_flood)

    return await run_pause_or_resume(args, command)
