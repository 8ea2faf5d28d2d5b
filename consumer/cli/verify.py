"""``verify``: a recording's or a live org's shapes against what the service assumes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from consumer.cli.common import Subparsers, add_json_option, load_settings, write_json, write_line, write_table
from consumer.cli.limits import check_limits, until_told
from consumer.errors import RecordingError, TopicRefusedError, UsageError
from consumer.events import ReceivedSchema
from consumer.recording.reader import Recording
from consumer.verifying import Verifier

NAME = "verify"

_DEFAULT_COUNT = 100
_DEFAULT_SECONDS = 30.0
_WHAT_TO_DO = (
    "Run `session-consumer record FILE --redact` while such events pass and attach FILE to an issue of this project: "
    "it holds no values, and of events that don't decode only their ids."
)


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        NAME,
        help="compare a recording's or an org's shapes with ours",
        description=(
            "Compare the shapes of a recording, or of a live org, with what the service assumes: schemas, payloads\n"
            "against the avro library, field bitmaps, header, ids, times. What is merely unknown is a warning, what\n"
            "contradicts is a failure (exit 1). Shows names and counts, never values. With FILE it works offline;\n"
            "without, it asks for topic and schema of the configured topics and reads some events, each of which\n"
            "counts against the org's delivery allowance."
        ),
        epilog=(
            "examples:\n"
            "  session-consumer verify day.avro\n"
            "  session-consumer verify --earliest --count 500\n"
            "  session-consumer verify --json day.avro | jq .checks"
        ),
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a recording (default: the live org)")
    live = parser.add_argument_group("without FILE")
    live.add_argument("--topic", metavar="TOPIC", help="one channel (default: all configured ones)")
    live.add_argument("--earliest", action="store_true", help="begin with the oldest retained event, not now")
    live.add_argument("--for", dest="seconds", type=float, metavar="S", help=f"seconds ({_DEFAULT_SECONDS:g})")
    live.add_argument("--count", type=int, metavar="N", help=f"events per channel ({_DEFAULT_COUNT})")
    add_json_option(parser)


async def run(args: argparse.Namespace) -> int:
    """Verify and print."""
    check_limits(args)
    verifier = Verifier()
    if args.file is None:
        await _take_live(args, verifier)
        return _report(verifier, as_json=args.json)
    if args.topic or args.earliest or args.seconds is not None or args.count is not None:
        raise UsageError("--topic, --earliest, --for and --count are for a live org", "Leave them out, or FILE")
    recording = Recording(args.file)
    try:
        for item in recording:
            verifier.take(item)
    except RecordingError:
        _report(verifier, as_json=args.json)
        raise
    return _report(verifier, as_json=args.json)


async def _take_live(args: argparse.Namespace, verifier: Verifier) -> None:
    # gRPC and HTTP are slow to import, and a recording needs neither.
    from consumer.capturing import Capture  # noqa: PLC0415
    from consumer.connections import open_salesforce  # noqa: PLC0415
    from consumer.position import Preset  # noqa: PLC0415
    from consumer.salesforce.schemas import SchemaCache  # noqa: PLC0415
    from consumer.salesforce.topics import get_topic  # noqa: PLC0415
    from consumer.tasks import task_group  # noqa: PLC0415
    from consumer.telemetry import configure_logging  # noqa: PLC0415

    settings = load_settings(args).settings
    configure_logging(level="error")
    topics = [args.topic] if args.topic else list(settings.pubsub.topics)
    preset = Preset.EARLIEST if args.earliest else Preset.LATEST
    seconds = _DEFAULT_SECONDS if args.seconds is None else args.seconds
    most = _DEFAULT_COUNT if args.count is None else args.count
    known: set[str] = set()

    def take(item: Any) -> None:
        if isinstance(item, ReceivedSchema):
            if item.schema_id in known:
                return
            known.add(item.schema_id)
        verifier.take(item)

    async with open_salesforce(settings) as org:
        for topic in topics:
            info = await get_topic(org.channel, topic, org.tokens)
            if not info.can_subscribe:
                raise TopicRefusedError(f"{topic} can't be subscribed to by this user", "Check its permissions.")
            if info.schema_id:
                await SchemaCache(org.channel, topic, org.tokens, tap=take).fetch(info.schema_id)
        _say(f"reading up to {most} events of {', '.join(topics)} for at most {seconds:g} s; Ctrl-C ends it")
        captures = [
            Capture(org, topic, take, _say, most=most, watchdog_s=settings.pubsub.watchdog_s) for topic in topics
        ]
        async with until_told(seconds), task_group() as group:
            for capture in captures:
                group.create_task(capture.run(preset))


def _report(verifier: Verifier, *, as_json: bool) -> int:
    if as_json:
        write_json(_as_json(verifier))
    else:
        _print(verifier)
    return 1 if verifier.failed else 0


def _as_json(verifier: Verifier) -> dict[str, Any]:
    seen = verifier.seen
    return {
        "ok": not verifier.failed,
        "checks": [
            {
                "check": str(check),
                "status": outcome.status,
                "checked": outcome.checked,
                "failed": outcome.failed,
                "warned": outcome.warned,
                "where": outcome.where,
            }
            for check, outcome in verifier.outcomes.items()
        ],
        "seen": {
            "items": dict(seen.items),
            "schemas": seen.schemas,
            "events_by_schema": dict(seen.events_by_schema),
            "change_types": dict(seen.change_types),
            "replay_id_lengths": {str(length): count for length, count in seen.replay_id_lengths.items()},
            "shared_replay_ids": seen.shared_replay_ids,
            "several_record_ids": seen.several_record_ids,
            "wildcards": seen.wildcards,
            "nulled": seen.nulled,
            "diffs": seen.diffs,
            "nested_bitmaps": seen.nested_bitmaps,
            "enriched_fields": {name: sorted(fields) for name, fields in seen.enriched.items()},
            "faults": dict(seen.faults),
        },
    }


def _print(verifier: Verifier) -> None:
    rows = []
    for check, outcome in verifier.outcomes.items():
        bad = outcome.failed + outcome.warned
        count = f"{bad} of {outcome.checked}" if bad else str(outcome.checked)
        rows.append((outcome.status, str(check), count, _where(outcome.where, bad)))
    write_table([("", "check", "checked", "where not"), *rows])
    write_line()
    write_table(_seen_rows(verifier))
    write_line()
    write_line(_conclusion(verifier))


def _where(where: list[str], bad: int) -> str:
    more = bad - len(where)
    return "; ".join(where) + (f"; and {more} more" if where and more > 0 else "")


def _seen_rows(verifier: Verifier) -> list[tuple[str, str]]:
    seen = verifier.seen
    enriched = [f"{name}: {', '.join(sorted(fields))}" for name, fields in seen.enriched.items()]
    kinds = {
        "several record ids": seen.several_record_ids,
        "wildcard or placeholder ids": seen.wildcards,
        "nulled fields": seen.nulled,
        "diffs": seen.diffs,
        "compound parts": seen.nested_bitmaps,
        "a shared replay id": seen.shared_replay_ids,
    }
    return [
        ("received", _counts(seen.items)),
        ("events by schema", _counts(seen.events_by_schema)),
        ("change types", _counts(seen.change_types)),
        ("events with", _counts({name: count for name, count in kinds.items() if count})),
        ("unchanged fields with values", "; ".join(enriched) or "none"),
        ("replay id lengths", _counts({f"{length} bytes": count for length, count in seen.replay_id_lengths.items()})),
        ("faults", _counts(seen.faults)),
    ]


def _counts(counts: Any) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def _conclusion(verifier: Verifier) -> str:
    if verifier.failed:
        return f"Some of it contradicts what the service assumes; such events go to quarantine. {_WHAT_TO_DO}"
    if verifier.warned:
        return f"Nothing contradicts what the service assumes, but some of it is new to it. {_WHAT_TO_DO}"
    if not verifier.seen.items["events"]:
        return "There was no event to verify; try --earliest, or a longer --for."
    return "Everything is as the service assumes."


def _say(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")
