"""``status``: who is active, how far it has come, and what is wrong."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

import aiohttp

from consumer import clock
from consumer.cli.common import Subparsers, add_json_option, load_settings, write_json, write_line
from consumer.delivery.names import Topics
from consumer.kafka.connection import Cluster
from consumer.kafka.deployment import Deployment, describe_position, read_deployment
from consumer.settings import Settings

NAME = "status"

_PAGE_TIMEOUT_S = 3.0
_EXPIRY_WARNING_H = 24.0
_MOST_WINDOWS = 10


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        NAME,
        help="say who is active, how far it has come, and what is wrong",
        description=(
            "Read what is committed in Kafka, and the running worker's own status page at service.listen if there\n"
            "is one. Exit code 1 when something is wrong: no active worker, halted, failing, or a position that\n"
            "expires within a day."
        ),
        epilog="examples:\n  session-consumer status\n  session-consumer status --json | jq .problems",
    )
    add_json_option(parser)


async def run(args: argparse.Namespace) -> int:
    """Print the status."""
    settings = load_settings(args, needs_login=False).settings
    topics = Topics(settings.kafka.topic_prefix, settings.pubsub.topics)
    deployment = await read_deployment(Cluster(settings.kafka), topics, settings.service.name)
    page = await _own_page(settings.service.listen)
    document = summarise(settings, deployment, page, clock.now_ms())
    if args.json:
        write_json(document)
    else:
        _print(document)
    return 1 if document["problems"] else 0


async def _own_page(listen: str) -> dict[str, Any] | None:
    """Return the status page of a worker on this machine, None if there is none to be had."""
    host, _, port = listen.rpartition(":")
    host = "127.0.0.1" if host in {"0.0.0.0", "[::]", "::"} else host  # noqa: S104 - compared, not bound
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PAGE_TIMEOUT_S)) as http,
            http.get(f"http://{host}:{port}/status") as answer,
        ):
            page = await answer.json()
    except (aiohttp.ClientError, OSError, ValueError):
        return None
    return page if isinstance(page, dict) and "subscriptions" in page else None


def summarise(settings: Settings, deployment: Deployment, page: dict[str, Any] | None, now_ms: int) -> dict[str, Any]:
    """Return the whole status as JSON values; ``problems`` is empty when all is well."""
    channels = []
    problems: list[str] = []
    if not deployment.active:
        problems.append("no worker is active; start one with `session-consumer run`")
    if page is not None and page.get("service") != settings.service.name:
        page = None  # another deployment's worker listens there
    pages = {each["channel"]: each for each in (page or {}).get("subscriptions", ())}
    for channel in settings.pubsub.topics:
        committed = deployment.positions.get(channel)
        position = None if committed is None else describe_position(committed, now_ms)
        worker = pages.get(channel)
        channels.append({"channel": channel, "position": position, "worker": worker})
        if position is None:
            problems.append(f"{channel}: nothing is committed yet")
        elif float(str(position["expires_in_hours"])) < _EXPIRY_WARNING_H:
            problems.append(f"{channel}: the position expires in {position['expires_in_hours']} hours")
        if worker is not None and not worker["ready"]:
            problems.append(f"{channel}: {worker['role']}: {worker['reason']} {worker['advice']}".rstrip())
    return {
        "service": settings.service.name,
        "org_id": None if deployment.meta is None else deployment.meta.org_id,
        "members": [
            {"client_id": each.client_id, "host": each.host, "active": bool(each.partitions)}
            for each in deployment.members
        ],
        "channels": channels,
        "open_windows": [
            {
                "window_id": each.window_id,
                "stream": each.stream,
                "reason": each.reason,
                "from": _iso(each.from_ms),
                "to": _iso(each.to_ms),
            }
            for each in deployment.windows.values()
        ],
        "problems": problems,
    }


def _print(document: dict[str, Any]) -> None:
    write_line(f"{document['service']}, org {document['org_id'] or 'not known yet'}")
    for member in document["members"]:
        write_line(f"  {'active ' if member['active'] else 'standby'} {member['client_id']} at {member['host']}")
    for channel in document["channels"]:
        write_line(channel["channel"])
        for name, value in (channel["position"] or {}).items():
            if name != "channel" and value is not None:
                write_line(f"  {name.replace('_', ' '):20} {value}")
        worker = channel["worker"]
        if worker is not None:
            write_line(f"  {'role':20} {worker['role']}")
            write_line(f"  {'lag':20} {_lag(worker)}")
    windows = document["open_windows"]
    write_line(f"{len(windows)} open loss windows")
    for window in windows[:_MOST_WINDOWS]:
        write_line(f"  {window['window_id']}  {window['reason']}  {window['from'] or '…'} to {window['to'] or '…'}")
    if len(windows) > _MOST_WINDOWS:
        write_line(f"  … and {len(windows) - _MOST_WINDOWS} more; --json lists all")
    for problem in document["problems"]:
        write_line(f"problem: {problem}")


def _lag(worker: dict[str, Any]) -> str:
    if worker["salesforce_lag_ms"] is None:
        return "not known yet"
    return f"Salesforce {worker['salesforce_lag_ms']} ms, ours {worker['own_lag_ms']} ms"


def _iso(ms: int | None) -> str | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
