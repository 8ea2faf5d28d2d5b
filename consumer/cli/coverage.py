"""``coverage``: what is proven complete of a period, from Kafka."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator, Mapping
from typing import Literal

from consumer import clock
from consumer.cli.common import Subparsers, add_json_option, load_settings, write_json, write_line, write_table
from consumer.cli.times import HELP, parse_time, show_time
from consumer.delivery.headers import iso_utc
from consumer.delivery.names import Topics, entity_of_channel
from consumer.errors import UsageError
from consumer.kafka.connection import Cluster
from consumer.kafka.lookup import CoverageRead, Lookup, Reach, ReadProgress
from consumer.settings import Settings
from consumer.tracking.coverage_report import Label, Missing, Report, Slice, Window

NAME = "coverage"

_DAY_MS = 86_400_000
_QUIET_MS = 10 * 60_000
"""A working service proves something at least this often: keep-alives come within 270 s."""

_TELL_EVERY_S = 2.0

_WORDS = {Label.COMPLETE: "complete", Label.STATE_COMPLETE: "state complete", Label.INCOMPLETE: "incomplete"}

_EPILOG = """\
complete         every change in it was delivered
state complete   changes were lost on the way and the records' latest values restored; transitions are missing
incomplete       a loss window is open in it, was closed without the state, or nothing vouches for the time
reconciled       the state was compared with Salesforce's rows as well; otherwise it is only known delivered

--json prints one object: {"from", "to", "label", "streams": [{"stream", "label", "proven_to",
  "slices": [{"from", "to", "label", "proof", "unproven": [{"from", "to"}],
              "missing": [{"window_id", "reason", "label", "open", "entity", "records", "fields"}]}],
  "open_windows", "schema_changes"}], "history": [{"entity", "complete_to"}],
  "sharing": [{"entity", "checked_to"}], "feed": [{"entity", "complete_to"}], "retention": {channel: {...}}};
records null means all records, fields null all fields. Labels are of changes only: sharing and feeds have no events,
and are read now and then; checked_to is when the last complete sweep of all share rows began.
Exit code: 1 if anything in the period is incomplete, else 0.

examples:
  session-consumer coverage                          the last 24 hours
  session-consumer coverage --from 2026-11-20 --to 2026-11-21
  session-consumer coverage --from 2h --by edges --json"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        NAME,
        help="say what is proven complete, and what is missing",
        description=(
            "What is proven of a period, read from the coverage topic: how much of it is complete, what loss windows\n"
            "left missing, and for what time nothing vouches. Needs Kafka only."
        ),
        epilog=_EPILOG,
    )
    parser.add_argument("--from", dest="start", metavar="T", help=f"start (default: 24 h before the end); {HELP}")
    parser.add_argument("--to", dest="end", metavar="T", help="end (default: now, or the last proven moment)")
    parser.add_argument("--channel", metavar="C", help="only this channel (default: all configured ones)")
    parser.add_argument(
        "--by", choices=("hour", "edges"), default="hour", help="one line per hour, or per stretch of equal coverage"
    )
    add_json_option(parser)


async def run(args: argparse.Namespace) -> int:
    """Read and report."""
    settings = load_settings(args, needs_login=False).settings
    now_ms = clock.now_ms()
    start_ms = None if args.start is None else parse_time(args.start, now_ms)
    end_ms = None if args.end is None else parse_time(args.end, now_ms)
    if start_ms is not None and start_ms >= (now_ms if end_ms is None else end_ms):
        raise UsageError("the period ends before it begins", "Give --from an earlier time than --to.")
    channels = _channels(settings, args.channel)
    topics = Topics(settings.kafka.topic_prefix, settings.pubsub.topics)
    asked_ms = (now_ms if end_ms is None else end_ms) - _DAY_MS if start_ms is None else start_ms
    async with Lookup(Cluster(settings.kafka), told_on_stderr("coverage")) as lookup:
        read = await lookup.coverage(topics, channels, asked_ms)
    reports = list(_reports(read, start_ms, end_ms, now_ms, by=args.by))
    if args.json:
        write_json(_as_json(read, reports))
    else:
        for report in reports:
            _print(report, read)
    return int(any(report.label is Label.INCOMPLETE for report in reports))


def told_on_stderr(what: str) -> ReadProgress:
    """Return a listener that tells the progress of a long read on stderr, every two seconds at most."""
    loop = asyncio.get_running_loop()
    told_at = loop.time()

    def tell(done: int, total: int) -> None:
        nonlocal told_at
        if loop.time() - told_at >= _TELL_EVERY_S:
            told_at = loop.time()
            sys.stderr.write(f"reading {what}: {done} of {total} records ({100 * done // max(total, 1)} %)\n")

    return tell


def _channels(settings: Settings, channel: str | None) -> tuple[str, ...]:
    if channel is None:
        return settings.pubsub.topics
    if channel not in settings.pubsub.topics:
        raise UsageError(
            f"{channel[:80]!r} is not one of the configured channels",
            f"They are {', '.join(settings.pubsub.topics)}",
        )
    return (channel,)


def _reports(
    read: CoverageRead, start_ms: int | None, end_ms: int | None, now_ms: int, *, by: Literal["hour", "edges"]
) -> Iterator[Report]:
    for channel, facts in read.channels.items():
        end = end_ms
        if end is None:
            # Of a working service the last moments are never proven yet; that is no fault of the period.
            proven_ms = facts.proven_to_ms or 0
            end = proven_ms if proven_ms > max(now_ms - _QUIET_MS, start_ms or 0) else now_ms
        start = end - _DAY_MS if start_ms is None else min(start_ms, end)
        yield facts.report(
            start, end, by=by, entity=entity_of_channel(channel), kept_from_ms=_kept_from(read.reach[channel])
        )


def _kept_from(reach: Reach) -> int | None:
    return reach.oldest_ms if reach.dropped else None


def _print(report: Report, read: CoverageRead) -> None:
    channel = report.stream.partition(":")[2]
    write_line(f"{channel}: {_WORDS[report.label]} from {show_time(report.from_ms)} to {show_time(report.to_ms)}")
    rows = [("from", "to", "", "proof", "")]
    for each in report.slices:
        first, *more = [*_remarks(each)] or [""]
        rows.append((show_time(each.from_ms), show_time(each.to_ms), _WORDS[each.label], each.proof or "-", first))
        rows += [("", "", "", "", remark) for remark in more]
    write_table(rows)
    for change in report.schema_changes:
        write_line(f"schema of {change.entity} changed at {show_time(change.at_ms)}: {_schema_words(change.detail)}")
    for window in report.open_windows:
        write_line(f"open: {window.window_id} ({window.reason}, {_span_words(window)}, {_scope_words(window)})")
    proven = show_time(report.proven_to_ms) if report.proven_to_ms is not None else "never yet"
    write_line(f"delivery is proven to {proven}")
    for entity, facts in read.history.items():
        if entity == (entity_of_channel(channel) or entity):
            write_line(f"history of {entity} is complete to {show_time(facts.proven_to_ms)}")
    for entity, swept_ms in _of_channel(read.sharing, channel):
        write_line(f"sharing of {entity} is checked to {show_time(swept_ms)}, when the last complete sweep began")
    for entity, read_ms in _of_channel(read.feed, channel):
        write_line(f"feed of {entity} is read to {show_time(read_ms)}")
    write_line(_reach_words(read.reach[channel]))


def _of_channel(by_object: Mapping[str, int], channel: str) -> list[tuple[str, int]]:
    only = entity_of_channel(channel)
    return [(entity, ms) for entity, ms in by_object.items() if entity == (only or entity)]


def _remarks(each: Slice) -> Iterator[str]:
    for start, end in each.unproven:
        yield f"nothing vouches for {show_time(start)} to {show_time(end)}"
    for missing in each.missing:
        yield _missing_words(missing)


def _missing_words(missing: Missing) -> str:
    whose = "all records" if missing.records is None else _count(missing.records, "record")
    if missing.records is None and missing.entity is not None:
        whose = f"all records of {missing.entity}"
    if missing.open:
        return f"{whose} in doubt ({missing.reason}, loss window {missing.window_id} is open)"
    if missing.label is Label.INCOMPLETE:
        return f"the state of {whose} was not restored ({missing.reason}, loss window {missing.window_id})"
    if missing.fields == ():
        return f"single change events of {whose} missing, their field history is there ({missing.reason})"
    fields = "all fields" if missing.fields is None else ", ".join(missing.fields)
    return f"transitions of {fields} of {whose} missing ({missing.reason})"


def _span_words(window: Window) -> str:
    if window.from_ms is None and window.to_ms is None:
        return "of unknown extent"
    if window.to_ms is None:
        return f"from {show_time(window.from_ms)} on"
    if window.from_ms is None:
        return f"everything before {show_time(window.to_ms)}"
    return f"{show_time(window.from_ms)} to {show_time(window.to_ms)}"


def _scope_words(window: Window) -> str:
    return _count(len(window.record_ids), "record") if window.record_ids else f"all of {window.entity or 'the channel'}"


def _schema_words(detail: Mapping[str, object]) -> str:
    parts = []
    for name in ("added", "removed"):
        fields = detail.get(name)
        if isinstance(fields, list) and fields:
            parts.append(f"{', '.join(map(str, fields))} {name}")
    retyped = detail.get("retyped")
    if isinstance(retyped, list):
        parts += [f"{each['field']} is now {each['to']}, was {each['from']}" for each in retyped]
    if detail.get("reordered"):
        parts.append("fields in another order")
    return "; ".join(parts) or "see the coverage record"


def _reach_words(reach: Reach) -> str:
    if reach.oldest_ms is None:
        return "Kafka holds no coverage record of it"
    if reach.dropped:
        return f"Kafka keeps coverage records since {show_time(reach.oldest_ms)}; nothing is known of the time before"
    return f"Kafka still has every coverage record, the first of {show_time(reach.oldest_ms)}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _as_json(read: CoverageRead, reports: list[Report]) -> dict[str, object]:
    labels = [report.label for report in reports]
    worst = next((each for each in (Label.INCOMPLETE, Label.STATE_COMPLETE) if each in labels), Label.COMPLETE)
    return {
        "from": _time(min(report.from_ms for report in reports)),
        "to": _time(max(report.to_ms for report in reports)),
        "label": worst,
        "streams": [_stream_json(report) for report in reports],
        "history": [
            {"entity": entity, "complete_to": _time(facts.proven_to_ms)} for entity, facts in read.history.items()
        ],
        "sharing": [{"entity": entity, "checked_to": _time(ms)} for entity, ms in read.sharing.items()],
        "feed": [{"entity": entity, "complete_to": _time(ms)} for entity, ms in read.feed.items()],
        "retention": {
            channel: {"oldest": _time(reach.oldest_ms), "dropped": reach.dropped}
            for channel, reach in read.reach.items()
        },
    }


def _stream_json(report: Report) -> dict[str, object]:
    return {
        "stream": report.stream,
        "label": report.label,
        "proven_to": _time(report.proven_to_ms),
        "slices": [_slice_json(each) for each in report.slices],
        "open_windows": [
            {
                "window_id": each.window_id,
                "reason": each.reason,
                "from": _time(each.from_ms),
                "to": _time(each.to_ms),
                "entity": each.entity,
                "record_ids": each.record_ids,
            }
            for each in report.open_windows
        ],
        "schema_changes": [
            {"at": _time(each.at_ms), "entity": each.entity, **each.detail} for each in report.schema_changes
        ],
    }


def _slice_json(each: Slice) -> dict[str, object]:
    return {
        "from": _time(each.from_ms),
        "to": _time(each.to_ms),
        "label": each.label,
        "proof": each.proof,
        "unproven": [{"from": _time(start), "to": _time(end)} for start, end in each.unproven],
        "missing": list(each.missing),
    }


def _time(ms: int | None) -> str | None:
    return None if ms is None else iso_utc(ms)
