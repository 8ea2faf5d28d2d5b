"""``quarantine``: list events that could not be processed, or retry them."""

from __future__ import annotations

import argparse
import asyncio
import uuid
from datetime import UTC, datetime

from consumer import clock
from consumer.cli.common import Subparsers, add_json_option, load_settings, write_json, write_line
from consumer.cli.steering import send, who
from consumer.delivery.control import RetryQuarantine, Withdrawn, command_key, decode_command
from consumer.delivery.names import Topics
from consumer.errors import UsageError
from consumer.kafka.connection import Cluster
from consumer.kafka.control import ControlTail
from consumer.kafka.deployment import read_deployment
from consumer.kafka.quarantine import QuarantineTopic
from consumer.settings import Settings

NAME = "quarantine"

_PATIENCE_S = 120.0


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        NAME,
        help="list events that could not be processed, or retry them",
        description=(
            "Events that could not be processed stand raw on the quarantine topic, each with an open loss window.\n"
            "`retry` has the active worker process them again; what works then is sent, and its window closed."
        ),
        epilog=(
            "examples:\n"
            "  session-consumer quarantine list\n"
            "  session-consumer quarantine retry --all\n"
            "  session-consumer quarantine retry quarantine:1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"
        ),
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    listing = actions.add_parser("list", help="print what Kafka still retains, newest last")
    listing.add_argument("--open", action="store_true", help="only events whose loss window is still open")
    add_json_option(listing)
    retry = actions.add_parser("retry", help="process events again")
    retry.add_argument("window_ids", nargs="*", metavar="WINDOW", help="loss window ids, as `list` prints them")
    retry.add_argument("--all", action="store_true", help="all whose window is open")


async def run(args: argparse.Namespace) -> int:
    """List or retry."""
    settings = load_settings(args, needs_login=False).settings
    if args.action == "list":
        return await _list(settings, only_open=args.open, as_json=args.json)
    if bool(args.window_ids) == args.all:
        raise UsageError("retry needs either window ids or --all", "`session-consumer quarantine list` prints them.")
    return await _retry(settings, tuple(args.window_ids) or None)


async def _list(settings: Settings, *, only_open: bool, as_json: bool) -> int:
    topics = Topics(settings.kafka.topic_prefix, settings.pubsub.topics)
    cluster = Cluster(settings.kafka)
    windows = (await read_deployment(cluster, topics, settings.service.name)).windows
    rows = []
    async for record in QuarantineTopic(cluster, topics.quarantine).records():
        headers = {name: value.decode("utf-8", "replace") for name, value in record.headers}
        window_id = headers.get("window_id", "")
        if window_id in windows or not only_open:
            rows.append(_row(headers, len(record.value or b""), is_open=window_id in windows))
    rows.sort(key=lambda row: str(row["received_at"]))
    if as_json:
        write_json(rows)
        return 0
    for row in rows:
        write_line(f"{row['received_at']}  {'open  ' if row['open'] else 'closed'}  {row['window_id']}")
        write_line(f"    {row['reason']}: {row['message']} (schema {row['schema_id']}, {row['bytes']} bytes)")
    write_line(f"{len(rows)} events, {sum(bool(row['open']) for row in rows)} with an open loss window")
    return 0


def _row(headers: dict[str, str], size: int, *, is_open: bool) -> dict[str, object]:
    received_ms = int(headers.get("received_ms", "0"))
    return {
        "window_id": headers.get("window_id", ""),
        "open": is_open,
        "received_at": datetime.fromtimestamp(received_ms / 1000, UTC).isoformat(timespec="seconds"),
        "event_id": headers.get("event_id", ""),
        "topic": headers.get("topic", ""),
        "schema_id": headers.get("schema_id", ""),
        "reason": headers.get("reason", ""),
        "message": headers.get("message", ""),
        "bytes": size,
    }


async def _retry(settings: Settings, window_ids: tuple[str, ...] | None) -> int:
    topics = Topics(settings.kafka.topic_prefix, settings.pubsub.topics)
    cluster = Cluster(settings.kafka)
    before = await read_deployment(cluster, topics, settings.service.name)
    wanted = _wanted(set(before.windows), window_ids)
    command = RetryQuarantine(str(uuid.uuid4()), window_ids, clock.now_ms(), who())
    async with ControlTail(cluster, topics.control) as tail:
        await tail.past()
        await send(settings, command)
        if not before.active:
            write_line("asked; no worker is active, so it is done when one starts")
            return 0
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await _carried_out(tail, command_key(command))
        except TimeoutError:
            write_line("asked; the worker has not answered yet, `session-consumer quarantine list --open` shows more")
            return 1
    after = await read_deployment(cluster, topics, settings.service.name)
    closed = wanted - set(after.windows)
    write_line(f"{len(closed)} of {len(wanted)} loss windows are closed; what is still open is still bad")
    return 0 if closed == wanted else 1


def _wanted(known: set[str], window_ids: tuple[str, ...] | None) -> set[str]:
    if window_ids is None:
        return {window_id for window_id in known if window_id.startswith("quarantine:")}
    unknown = set(window_ids) - known
    if unknown:
        raise UsageError(
            f"no such open loss window: {', '.join(sorted(unknown))}", "`session-consumer quarantine list --open`"
        )
    return set(window_ids)


async def _carried_out(tail: ControlTail, key: str) -> None:
    async for record in tail.follow():
        if decode_command(record.key, record.value) == Withdrawn(key):
            return
