"""``snapshot``: have the active worker read records again while the stream goes on."""

from __future__ import annotations

import argparse
import uuid

from consumer import clock
from consumer.cli.common import Subparsers, load_settings, write_line
from consumer.cli.steering import send, who
from consumer.delivery.control import TakeSnapshot
from consumer.delivery.names import entity_of_channel
from consumer.errors import UsageError
from consumer.settings import Settings

NAME = "snapshot"


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        NAME,
        help="read all records again while the stream goes on",
        description=(
            "Have the active worker read the records of an object again, chunk by chunk, beside the stream. Only what\n"
            'differs from the tracked state is sent, as changes with op "r"; records that are gone are sent as\n'
            "deletes. The request is durable: a restart goes on with the chunk it had reached.\n"
            "With --where only the records that match are read; it finds no deletes and closes no loss window."
        ),
        epilog=(
            "examples:\n"
            "  session-consumer snapshot\n"
            "  session-consumer snapshot --where \"Status != 'Ended'\"\n"
            "  session-consumer status          # shows how far it is"
        ),
    )
    parser.add_argument("--entity", metavar="OBJECT", help="object API name (default: every object of the channels)")
    parser.add_argument("--where", metavar="SOQL", default="", help="a SOQL condition, without the word WHERE")


async def run(args: argparse.Namespace) -> int:
    """Send the command."""
    settings = load_settings(args, needs_login=False).settings
    where = args.where.strip()
    if where.lower().startswith("where "):
        raise UsageError("--where takes a condition without the word WHERE", f'Write --where "{where[6:].strip()}".')
    _require_entity(settings, args.entity)
    command = TakeSnapshot(str(uuid.uuid4()), args.entity, where, clock.now_ms(), who())
    await send(settings, command)
    write_line(f"snapshot {command.snapshot_id} asked for; `session-consumer status` shows how far it is")
    return 0


def _require_entity(settings: Settings, entity: str | None) -> None:
    """Refuse an object that no channel can carry.

    Raises:
        UsageError: every channel carries one object, and none of them this one.
    """
    known = [entity_of_channel(channel) for channel in settings.pubsub.topics]
    if entity is not None and None not in known and entity not in known:
        names = ", ".join(name for name in known if name is not None)
        raise UsageError(f"{entity} is read by no configured channel", f"Configured are: {names}.")
