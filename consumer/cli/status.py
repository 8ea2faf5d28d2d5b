"""``status``: who is active, how far it has come, and what is wrong."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from consumer import clock
from consumer.cli.common import Subparsers, add_json_option, load_settings, write_json, write_line
from consumer.cli.status_sharing import bring_sweeps_up_to_date, describe_sharing, sharing_facts
from consumer.delivery.names import Topics
from consumer.kafka.connection import Cluster
from consumer.kafka.deployment import Deployment, describe_position, describe_progress, read_deployment
from consumer.settings import Settings

NAME = "status"

_PAGE_TIMEOUT_S = 3.0
_EXPIRY_WARNING_H = 24.0
_MOST_WINDOWS = 10
_TRACKED = "session_consumer_tracked_records"
_CALLS_USED = "session_consumer_api_calls_used"
_CALLS_LIMIT = "session_consumer_api_calls_limit"

_PHASES = {
    "queued": "waits for its turn",
    "rows": "rows are read",
    "deletes": "deleted records are looked for",
}


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        NAME,
        help="say who is active, how far it has come, and what is wrong",
        description=(
            "Read what is committed in Kafka, and the running worker's own pages at service.listen if there is one:\n"
            "workers, position, snapshots, resyncs and sweeps under way, how far changes, history and the hourly\n"
            "comparison are proven, how far shares and feeds are read, open loss windows. Exit code 1 when something\n"
            "is wrong: no active worker, halted, failing, or a position that expires within a day. Open loss windows\n"
            "alone are no trouble: repairs close them."
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
    """Return the status page of a worker on this machine with some of its metrics, None if there is none to be had."""
    host, _, port = listen.rpartition(":")
    host = "127.0.0.1" if host in {"0.0.0.0", "[::]", "::"} else host  # noqa: S104 - compared, not bound
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PAGE_TIMEOUT_S)) as http:
            async with http.get(f"http://{host}:{port}/status") as answer:
                page = await answer.json()
            if not isinstance(page, dict) or "subscriptions" not in page:
                return None
            async with http.get(f"http://{host}:{port}/metrics") as answer:
                return with_metrics(page, await answer.text())
    except (aiohttp.ClientError, OSError, ValueError):
        return None


def with_metrics(page: dict[str, Any], exposition: str) -> dict[str, Any]:
    """Return a worker's status page with what only its metrics tell: records tracked, API calls of the org."""
    values: dict[tuple[str, str | None], int] = {
        (sample.name, sample.labels.get("subscription")): int(sample.value)
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name in {_TRACKED, _CALLS_USED, _CALLS_LIMIT}
    }
    channels = [{**each, "tracked_records": values.get((_TRACKED, each["channel"]))} for each in page["subscriptions"]]
    limit = values.get((_CALLS_LIMIT, None))
    calls = {"used": values.get((_CALLS_USED, None), 0), "limit": limit} if limit else None
    return {**page, "subscriptions": channels, "api_calls": calls}


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
        told = deployment.progress.get(channel, {})
        progress, sharing = describe_progress(channel, told), describe_sharing(told)
        _bring_up_to_date(progress["scans"], worker)
        bring_sweeps_up_to_date(sharing["sweeps"], worker)
        channels.append({"channel": channel, "position": position, **progress, **sharing, "worker": worker})
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
        "api_calls": None if page is None else page.get("api_calls"),
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


def _bring_up_to_date(scans: list[dict[str, Any]], worker: dict[str, Any] | None) -> None:
    """Take the worker's own numbers where it has newer ones than Kafka."""
    told = (worker or {}).get("scans", {})
    for scan in scans:
        newer = told.get(scan["job"])
        if newer is not None and newer["entity"] == scan["entity"] and newer["rows"] >= (scan["rows"] or 0):
            scan["rows"], scan["total"] = newer["rows"], newer["total"]


def _print(document: dict[str, Any]) -> None:
    write_line(f"{document['service']}, org {document['org_id'] or 'not known yet'}")
    for member in document["members"]:
        write_line(f"  {'active ' if member['active'] else 'standby'} {member['client_id']} at {member['host']}")
    calls = document["api_calls"]
    if calls is not None:
        _fact("API calls", f"{calls['used']:,} of {calls['limit']:,} used in 24 h, by all clients of the org")
    for channel in document["channels"]:
        _print_channel(channel)
    windows = document["open_windows"]
    write_line(f"{len(windows)} open loss windows")
    for window in windows[:_MOST_WINDOWS]:
        write_line(f"  {window['window_id']}  {window['reason']}  {window['from'] or '…'} to {window['to'] or '…'}")
    if len(windows) > _MOST_WINDOWS:
        write_line(f"  … and {len(windows) - _MOST_WINDOWS} more; --json lists all")
    for problem in document["problems"]:
        write_line(f"problem: {problem}")


def _print_channel(channel: dict[str, Any]) -> None:
    write_line(channel["channel"])
    for name, value in (channel["position"] or {}).items():
        if name != "channel" and value is not None:
            _fact(name.replace("_", " "), value)
    if channel["delivered_to"] is not None:
        _fact("delivered to", channel["delivered_to"])
    for entity, at in channel["history_to"].items():
        _fact("history read to", f"{at}  {entity}" if at else f"back-fill of {entity} under way")
    for entity, at in channel["reconciled_to"].items():
        _fact("compared to", f"{at}  {entity}")
    for name, value in sharing_facts(channel):
        _fact(name, value)
    for scan in channel["scans"]:
        _fact("reading", _scan_line(scan))
    if channel["worker"] is not None:
        _print_worker(channel["worker"])


def _print_worker(worker: dict[str, Any]) -> None:
    _fact("role", worker["role"])
    _fact("lag", _lag(worker))
    if worker.get("tracked_records") is not None:
        _fact("tracked records", f"{worker['tracked_records']:,}")
    for what in worker.get("unavailable", ()):
        _fact("not readable", what)


def _fact(name: str, value: object) -> None:
    write_line(f"  {name:20} {value}")


def _scan_line(scan: dict[str, Any]) -> str:
    what = f"{scan['purpose']} of {scan['entity'] or 'all objects'}"
    if scan["where"]:
        what += f" where {scan['where']}"
    if scan["phase"] == "waiting":
        return f"{what}: all read; its loss windows close once history is read past them"
    done = f"{scan['rows'] or 0:,}" + (f" of {scan['total']:,} rows" if scan["total"] is not None else " rows")
    if scan["rows"] and scan["total"]:
        done += f" ({min(100, scan['rows'] * 100 // scan['total'])} %)"
    return f"{what}: {done}, {_PHASES.get(scan['phase'], scan['phase'])}"


def _lag(worker: dict[str, Any]) -> str:
    if worker["salesforce_lag_ms"] is None:
        return "not known yet"
    return f"Salesforce {worker['salesforce_lag_ms']} ms, ours {worker['own_lag_ms']} ms"


def _iso(ms: int | None) -> str | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
