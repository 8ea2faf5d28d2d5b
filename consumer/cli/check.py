"""``check``: what a first start needs, line by line; uses up no events."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence

from consumer import clock
from consumer.checks.findings import Finding, Level
from consumer.checks.kafka import check_kafka
from consumer.checks.salesforce import check_salesforce
from consumer.checks.state import check_state
from consumer.cli.common import Subparsers, add_json_option, load_settings, write_json, write_line
from consumer.settings import Settings

NAME = "check"

_MARKS = {Level.OK: "ok  ", Level.WARN: "warn", Level.FAIL: "FAIL", Level.SKIPPED: "skip"}


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        NAME,
        help="test what a first start needs, and say how to mend it",
        description=(
            "Test login, permissions, schema, the objects' fields and history, API calls, Kafka, topics and the local\n"
            "store, one line each, and say what to click or type where something is missing. Reads no events, makes\n"
            "about ten API calls, and changes nothing but one empty transaction in Kafka."
        ),
        epilog="examples:\n  session-consumer check\n  session-consumer check --json | jq .",
    )
    add_json_option(parser)


async def run(args: argparse.Namespace) -> int:
    """Check and print."""
    settings = load_settings(args).settings
    findings = await check_all(settings)
    if args.json:
        write_json([finding.document() for finding in findings])
    else:
        _print(findings)
    return 1 if any(finding.level is Level.FAIL for finding in findings) else 0


async def check_all(settings: Settings) -> list[Finding]:
    """Return all findings, Salesforce's first; neither side's failure hides the other's."""
    org_id, salesforce = await check_salesforce(settings, clock.now_ms)
    kafka = await asyncio.shield(check_kafka(settings, org_id, clock.now_ms))
    return [*salesforce, *kafka, check_state(settings, os.environ)]


def _print(findings: Sequence[Finding]) -> None:
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        write_line(f"{_MARKS[finding.level]}  {finding.name:{width}}  {finding.seen}")
        if finding.advice:
            write_line(f"{'':6}{'':{width}}  -> {finding.advice}")
    failed = sum(finding.level is Level.FAIL for finding in findings)
    write_line()
    write_line(f"{failed} of {len(findings)} failed" if failed else "ready: `session-consumer run`")
