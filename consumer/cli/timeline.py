"""``timeline``: one record's history, from Kafka."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson

from consumer import clock
from consumer.changes.record_ids import to_18
from consumer.cli.common import Subparsers, add_json_option, load_settings, write_json, write_line, write_table
from consumer.cli.coverage import told_on_stderr
from consumer.cli.timeline_access import (
    Sharing,
    answers_json,
    grantee_json,
    print_sharing,
    sharing_json,
    sharing_of,
)
from consumer.cli.timeline_json import as_json
from consumer.cli.timeline_words import by_words, duration, section, shown
from consumer.cli.times import HELP, parse_time, show_time
from consumer.delivery.internal import broken
from consumer.delivery.names import Topics, entity_of_channel
from consumer.errors import ServiceError, UsageError
from consumer.events import Json
from consumer.kafka.connection import Cluster
from consumer.kafka.lookup import Kept, Lookup, OfKey, Reach
from consumer.settings import Settings
from consumer.tracking.coverage_report import Window
from consumer.tracking.timeline import Timeline, build, candidate_ids
from consumer.tracking.timeline_at import ImageAt, Why, image_at
from consumer.tracking.timeline_values import FieldFact, Stay, read_change, read_fact, read_state, time_of

NAME = "timeline"

_KINDS = ("state", "changes", "history", "sharing", "access", "feed")
_KEPT_KINDS = ("changes", "history", "sharing")
_CERTAINTY = {
    "pending": "not confirmed yet",
    "confirmed": "confirmed by Salesforce's history",
    "event_only": "by the change event only",
    "row_only": "by Salesforce's history only",
    "not_tracked": "not tracked by Salesforce",
    "backfill": "Salesforce's history, before the first start",
    None: "by the change record only",
}

_WHY: Mapping[Why, str] = {
    "not_created": "the record was not there yet",
    "deleted": "the record was deleted",
    "before_retention": "unknown: Kafka's changes do not reach back so far",
    "loss_window": "unknown: the time lies in a loss window",
    "nothing_known": "unknown: nothing that Kafka keeps tells it",
}

_EPILOG = """\
--json prints one object:
  {"record_id", "entity", "created_at", "created_by", "deleted_at",
   "life":    [{"at", "what": created|deleted|undeleted|vanished, "by", "change_id"}],
   "status":  [{"value", "label", "from", "to", "seconds", "by", "certain"}],       "owner": likewise
   "changes": [{"at", "time_precision", "field", "old", "new", "values", "old_label", "new_label", "by", "match",
                "final", "origin", "change_id", "revision", "event_id", "window_id"}],
   "loss_windows": [{"window_id", "reason", "from", "to", "open", "restored", "missing_fields", "records"}],
   "state":   {"image", "unknown_fields", "stale", "deleted", "record_version", "since", "metrics"} or null,
   "access":  {"facts": [{"kind", "user_or_group_id", "grantee_type", "grantee_name", "row_cause", "access_level",
                          "previous_access_level", "not_before", "not_after", "changed_by", "cause"}],
               "unseen": [{"from", "to"}], "now": [shares] or null, "complete", "as_of", "checked_to",
               "org_default": {"internal", "external", "as_of"} or null, "not_included"} or null,
   "feed":    [records of the feed topic],
   "retention": {"changes"|"history"|"state"|"sharing"|"access"|"feed": {"oldest", "dropped"}},
   "at":      null, or with --at {"time", "known", "why", "image", "unknown_fields", "as_of", "change_id",
              "window_id", "access": [{"user_or_group_id", "grantee_type", "grantee_name", "row_cause",
                                       "answer": yes|no|unknown, "access_level", "from", "to"}]},
   "grantee": null, or with --grantee {"user_or_group_id", "time", "access": as in at, "not_included"}}
match, values, final and revision are as in the history topic; match null: only the change record tells it.
missing_fields null means all fields; records null means all records. seconds of the last stay count to now.
A fact of access happened at some moment from not_before to not_after; null: nobody knows. access tells of
explicit share rows only: the org-wide default, the role hierarchy, View All and Modify All are in none. An answer is
unknown from a time to a time, null for open ends; a share that came and went between two readings is in none. at tells
of everybody who ever had a share; of anybody else --grantee does, with row_cause null for any.
why: not_created, deleted (both known), before_retention, loss_window, nothing_known.
Exit code: 0 found, 1 Kafka holds nothing of the record.

examples:
  session-consumer timeline 0Mw000000000001
  session-consumer timeline 0Mw000000000001AAA --at 2026-11-22T10:00
  session-consumer timeline 0Mw000000000001AAA --at 2h --json
  session-consumer timeline 0Mw000000000001AAA --at 2h --grantee 005000000000001"""


@dataclass(frozen=True, slots=True)
class _Found:
    """What Kafka holds of one record."""

    record_id: str
    entity: str
    of: OfKey
    topics: Mapping[str, str]

    def kept(self, kind: str) -> Sequence[Kept]:
        return self.of.records.get(self.topics[kind], ())

    def reach(self, kind: str) -> Reach | None:
        return self.of.reach.get(self.topics[kind])


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        NAME,
        help="tell one record's history from Kafka",
        description=(
            "Status and owner over time, every field change with old and new value, who made it, when, and how\n"
            "certain that is; who gained and lost access by share rows; its feed; the loss windows that touch the\n"
            "record; and how far back Kafka reaches."
        ),
        epilog=_EPILOG,
    )
    parser.add_argument("record_id", metavar="ID", help="record id of 15 or 18 characters")
    parser.add_argument("--at", metavar="TIME", help=f"also print the record as it was then; {HELP}")
    parser.add_argument(
        "--grantee",
        metavar="ID",
        help="also tell whether this user or group had access then, or now; 15 or 18 characters",
    )
    parser.add_argument("--entity", metavar="E", help="API name of its object (default: those of the channels)")
    add_json_option(parser)


async def run(args: argparse.Namespace) -> int:
    """Look the record up and tell."""
    settings = load_settings(args, needs_login=False).settings
    now_ms = clock.now_ms()
    at_ms = None if args.at is None else parse_time(args.at, now_ms)
    try:
        candidates = candidate_ids(args.record_id)
    except ValueError as error:
        raise UsageError(str(error), "Copy the id from the record's page or from the key of a Kafka record") from error
    topics = Topics(settings.kafka.topic_prefix, settings.pubsub.topics)
    async with Lookup(Cluster(settings.kafka), told_on_stderr("the record's partitions")) as lookup:
        # Before the records: a sweep that ends in between vouches for facts that would not be among them.
        progress = await lookup.progress(topics)
        found = await _find(lookup, topics, settings, candidates, args.entity)
        reach = found.reach("history")
        channels = [channel for channel in settings.pubsub.topics if entity_of_channel(channel) in {None, found.entity}]
        windows: list[Window] = []
        if channels:
            read = await lookup.coverage(topics, channels, _earliest(found))
            windows = [window for facts in read.channels.values() for window in facts.windows]
    timeline = build(
        found.record_id,
        found.entity,
        (read_change(value) for value in _values(found.kept("changes"))),
        (read_fact(value) for value in _values(found.kept("history"))),
        next((read_state(value) for value in _values(found.kept("state")[-1:])), None),
        windows,
        history_from_ms=reach.oldest_ms if reach is not None and reach.dropped else None,
    )
    changes_reach = found.reach("changes")
    then = None if at_ms is None else image_at(timeline, at_ms, changes_reach.oldest_ms if changes_reach else None)
    sharing = _sharing(found, progress, timeline)
    grantee = None if args.grantee is None else _grantee(args.grantee)
    if args.json:
        document = as_json(timeline, {kind: found.reach(kind) for kind in _KINDS}, then, now_ms)
        document |= sharing_json(sharing)
        if then is not None and isinstance(document["at"], dict):
            document["at"]["access"] = answers_json(sharing, then.at_ms, None)
        asked_ms = sharing.last_look_ms(now_ms) if at_ms is None else at_ms
        document["grantee"] = grantee_json(sharing, grantee, asked_ms)
        write_json(document)
    else:
        _print(timeline, then, now_ms)
        print_sharing(sharing, at_ms, grantee, now_ms)
        _print_reach({kind: found.reach(kind) for kind in _KEPT_KINDS})
    return 0


def _sharing(found: _Found, progress: Mapping[str, Mapping[str, Json]], timeline: Timeline) -> Sharing:
    reach = found.reach("sharing")
    return sharing_of(
        _values(found.kept("sharing")),
        _newest_value(found.kept("access")),
        _values(found.kept("feed")),
        progress,
        found.entity,
        reach.oldest_ms if reach is not None and reach.dropped else None,
        created_ms=timeline.created_ms,
        deleted=timeline.deleted_ms is not None,
    )


def _newest_value(kept: Sequence[Kept]) -> Mapping[str, Json] | None:
    """Return the newest record of a compacted topic, None for a tombstone or nothing."""
    return next(_values(kept[-1:]), None)


def _grantee(text: str) -> str:
    try:
        return to_18(text)
    except ValueError as error:
        raise UsageError(f"{text[:40]!r} is no id of a user or group", "Copy it from a Kafka record") from error


async def _find(
    lookup: Lookup, topics: Topics, settings: Settings, candidates: Sequence[str], entity: str | None
) -> _Found:
    stems = await _stems(lookup, topics, settings, entity)
    named = [stem + kind for stem in stems for kind in _KINDS]
    for record_id in candidates:
        of = await lookup.of_key(record_id.encode(), named)
        for stem in stems:
            names = {kind: stem + kind for kind in _KINDS}
            if any(of.records.get(name) for name in names.values()):
                return _Found(record_id, _entity(of, names) or entity or stem, of, names)
    raise ServiceError(
        f"Kafka holds nothing of the record {candidates[0]}",
        "Check the id; what is older than the retention of the topics is gone, and --entity names an object that no "
        "configured channel is about",
    )


async def _stems(lookup: Lookup, topics: Topics, settings: Settings, entity: str | None) -> list[str]:
    """Return the topic names of the objects in question, without their last part."""
    if entity is not None:
        return [topics.of(entity, "x").removesuffix("x")]
    entities = [entity_of_channel(channel) for channel in settings.pubsub.topics]
    stems = [topics.of(each, "x").removesuffix("x") for each in entities if each is not None]
    if None in entities:
        # What a channel of several objects carried is told by the topics that were made for it.
        for name in sorted(await lookup.topics()):
            middle = name.removeprefix(topics.prefix).removesuffix(".changes")
            if name == f"{topics.prefix}{middle}.changes" and "." not in middle:
                stems.append(f"{topics.prefix}{middle}.")
    return list(dict.fromkeys(stems))


def _entity(of: OfKey, names: Mapping[str, str]) -> str | None:
    for kind in ("state", "access"):
        for value in _values(of.records.get(names[kind], ())[-1:]):
            return str(value["entity"])
    for value in _values(of.records.get(names["changes"], ())[-1:]):
        return str(value["source"]["table"])
    return None


def _earliest(found: _Found) -> int | None:
    """Return when the record was created, if the changes tell: windows of before can't touch it. None if they don't."""
    first = next(map(read_change, _values(found.kept("changes")[:1])), None)
    if first is None or first.op != "c" or first.change_type != "CREATE":
        return None
    # A creation that was repaired stands at its row's stamp, later than what a window may have hidden.
    times = [first.stamp_ms, time_of((first.after or {}).get("CreatedDate"))]
    times += [read_fact(value).at_ms for value in _values(found.kept("history"))]
    return min(each for each in times if each is not None)


def _values(kept: Sequence[Kept]) -> Iterator[Mapping[str, Json]]:
    for record in kept:
        if record.value is None:
            continue
        try:
            value = orjson.loads(record.value)
        except orjson.JSONDecodeError as error:
            raise broken(f"offset {record.offset}", "it is not JSON") from error
        if not isinstance(value, dict):
            raise broken(f"offset {record.offset}", "it is not a JSON object")
        yield value


def _print(timeline: Timeline, then: ImageAt | None, now_ms: int) -> None:
    write_line(f"{timeline.entity} {timeline.record_id}")
    if timeline.created_ms is not None:
        write_line(f"created {show_time(timeline.created_ms)}{by_words(timeline.created_by)}")
    for event in timeline.life:
        if event.what != "created":
            write_line(f"{event.what} {show_time(event.at_ms)}{by_words(event.by)}")
    if timeline.state is not None and timeline.state.stale:
        write_line("a repair is pending: some of what is known of it may be out of date")
    for name, stays in timeline.stays.items():
        section({"Status": "status", "OwnerId": "owner"}[name])
        write_table([_stay_row(stay, now_ms) for stay in stays])
    if timeline.facts:
        section("changes")
        write_table([_fact_row(fact) for fact in timeline.facts])
    if timeline.windows:
        section("loss windows")
        write_table([_window_row(window) for window in timeline.windows])
    if then is not None:
        section(f"at {show_time(then.at_ms)}")
        _print_then(then)


def _stay_row(stay: Stay, now_ms: int) -> tuple[str, ...]:
    lasted = "" if stay.from_ms is None else duration((stay.to_ms or max(now_ms, stay.from_ms)) - stay.from_ms)
    until = show_time(stay.to_ms) if stay.to_ms is not None else "now"
    doubt = "" if stay.certain else "other values may be hidden in it"
    since = "not known" if stay.from_ms is None else show_time(stay.from_ms)
    return (f"  {since}", until, shown(stay.value, stay.label), lasted, by_words(stay.by).strip(), doubt)


def _fact_row(fact: FieldFact) -> tuple[str, ...]:
    old, new = shown(fact.old, fact.old_label), shown(fact.new, fact.new_label)
    if fact.values == "not_stored":
        old = new = "(not stored)"
    elif fact.values == "old_unknown":
        old = "(unknown)"
    elif fact.values == "truncated_255":
        old = f"{old} (cut)" if isinstance(fact.old, str) else old
        new = f"{new} (cut)" if isinstance(fact.new, str) else new
    certain = _CERTAINTY.get(fact.match, fact.match or "")
    if fact.origin == "resync":
        certain = f"difference of two images, {certain}"
    return (f"  {show_time(fact.at_ms)}", fact.field, old, "→", new, by_words(fact.by).strip(), certain)


def _window_row(window: Window) -> tuple[str, ...]:
    start = "…" if window.from_ms is None else show_time(window.from_ms)
    end = "…" if window.to_ms is None else show_time(window.to_ms)
    if window.open:
        what = "open: what happened to the record in it is not known"
    elif window.missing_fields == ():
        what = "closed: its field history is restored"
    else:
        fields = "all fields" if window.missing_fields is None else ", ".join(window.missing_fields)
        restored = "state restored" if "state" in window.restored else "nothing restored"
        what = f"closed, {restored}: transitions of {fields} are missing"
    return (f"  {start}", end, window.reason, what, window.window_id)


def _print_then(then: ImageAt) -> None:
    if then.why is not None:
        hidden = f" ({then.window_id})" if then.window_id else ""
        write_line(f"  {_WHY[then.why]}{hidden}")
    if then.image is not None:
        write_table([(f"  {name}", shown(value, None, whole=True)) for name, value in then.image.items()])
    if then.unknown_fields:
        write_line(f"  unknown then: {', '.join(then.unknown_fields)}")
    if then.as_of_ms is not None:
        write_line(f"  since {show_time(then.as_of_ms)}, change {then.change_id}")


def _print_reach(reaches: Mapping[str, Reach | None]) -> None:
    write_line()
    for kind, reach in reaches.items():
        write_line(_reach_words(kind, reach))


def _reach_words(kind: str, reach: Reach | None) -> str:
    if reach is None:
        return f"{kind}: the topic does not exist"
    if reach.oldest_ms is None:
        return f"{kind}: the record's partition is empty"
    if reach.dropped:
        return f"{kind}: kept since {show_time(reach.oldest_ms)}, older records were dropped by retention"
    return f"{kind}: everything is kept, since {show_time(reach.oldest_ms)}"
