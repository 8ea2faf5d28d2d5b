"""Access and feed in the timeline of one record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from consumer.cli.common import write_line, write_table
from consumer.cli.timeline_words import by_words, plain, section, shown, time_json
from consumer.cli.times import show_time
from consumer.events import Json
from consumer.tracking.timeline_access import (
    NOT_INCLUDED,
    Access,
    AccessFact,
    Answer,
    access_at,
    access_of,
    grantee_at,
    read_access,
    read_share_fact,
)
from consumer.tracking.timeline_values import time_of

_SECOND_MS: Final = 1_000
_CAUSES: Final[Mapping[str, str]] = {
    "baseline": "found by the first sweep",
    "owner_change": "with the owner",
    "incremental": "found by a poll",
    "sweep": "found by a sweep",
    "rule_change": "found by a sweep after a recalculation",
    "record_deleted": "with the record",
}
_KINDS: Final[Mapping[str, str]] = {"granted": "gained", "revoked": "lost", "level_changed": "changed to"}


@dataclass(frozen=True, slots=True)
class Sharing:
    """What Kafka holds of a record's sharing and feed.

    Attributes:
        access: what is known of its shares; None if nothing was ever told.
        org_default: the object's org-wide default as it was read last, None before.
        feed: records of ``feed``, in the order of their partition.
    """

    access: Access | None
    org_default: Mapping[str, Json] | None
    feed: Sequence[Mapping[str, Json]]


def sharing_of(
    facts: Iterable[Mapping[str, Json]],
    access: Mapping[str, Json] | None,
    feed: Iterable[Mapping[str, Json]],
    progress: Mapping[str, Mapping[str, Json]],
    entity: str,
    kept_from_ms: int | None,
) -> Sharing:
    """Return what the records say.

    Args:
        facts: records of ``sharing``, in the order of their partition.
        access: the newest record of ``access``, None if there is none.
        feed: records of ``feed``, likewise.
        progress: progress of the channels' jobs by name.
        entity: the object.
        kept_from_ms: older records of ``sharing`` were dropped; None if none was.
    """
    swept = progress.get(f"swept:{entity}")
    swept_ms = None if swept is None else int(swept["begun_ms"])
    told = [read_share_fact(each) for each in facts]
    now = None if access is None else read_access(access)
    found = None if not told and now is None else access_of(told, now, swept_ms, kept_from_ms)
    first: dict[str, Mapping[str, Json]] = {}
    for each in feed:
        first.setdefault(each["id"], each)
    return Sharing(found, progress.get(f"org-default:{entity}"), tuple(first.values()))


# For people


def print_sharing(sharing: Sharing, at_ms: int | None, grantee: str | None) -> None:
    """Print who gained and lost access, who has it now, who had it at a time; and the feed."""
    access = sharing.access
    if access is not None:
        section("access")
        write_table([_fact_row(fact) for fact in access.facts])
        for from_ms, to_ms in access.unseen:
            write_line(
                f"  between {show_time(from_ms)} and {show_time(to_ms)} owners changed faster than rows were read"
            )
        _print_now(access)
        if at_ms is not None:
            section(f"access at {show_time(at_ms)}")
            answers = access_at(access, at_ms) if grantee is None else grantee_at(access, grantee, at_ms)
            write_table([_answer_row(answer) for answer in answers])
        elif grantee is not None:
            section(f"access of {grantee} now")
            known_ms = access.checked_ms
            at = 0 if known_ms is None else int(min(known_ms, _now_of(access)))
            write_table([_answer_row(answer) for answer in grantee_at(access, grantee, at)])
        write_line(f"  {_default_words(sharing.org_default)}")
        write_line(f"  not in share rows: {', '.join(NOT_INCLUDED)}")
    if sharing.feed:
        section("feed")
        write_table([_feed_row(each) for each in sharing.feed])


def _now_of(access: Access) -> float:
    return 0.0 if access.now is None else float(access.now.as_of_ms)


def _print_now(access: Access) -> None:
    now = access.now
    if now is None:
        write_line("  now: nobody, by share rows")
        return
    checked = show_time(None if access.checked_ms is None else int(min(access.checked_ms, 253_402_300_799_999)))
    state = f"as of {show_time(now.as_of_ms)}, checked to {checked}" if now.complete else "not read as a whole yet"
    write_line(f"  now ({state}):")
    write_table(
        [
            (
                f"    {_who(each.user_or_group_id, each.grantee_type, each.grantee_name)}",
                each.level,
                f"by {each.row_cause or 'no cause'}",
                "missed by the last reading, a second one decides" if each.missing else "",
            )
            for each in now.shares
        ]
    )


def _fact_row(fact: AccessFact) -> tuple[str, ...]:
    level = f"{fact.previous} → {fact.level}" if fact.previous else str(fact.level)
    return (
        f"  {_when(fact.from_ms, fact.to_ms)}",
        _who(fact.user_or_group_id or "", fact.grantee_type, fact.grantee_name),
        f"{_KINDS.get(fact.kind, fact.kind)} {level}",
        f"by {fact.row_cause or 'no cause'}",
        f"{_CAUSES.get(fact.cause, fact.cause)}{by_words(fact.by)}",
    )


def _answer_row(answer: Answer) -> tuple[str, ...]:
    words = answer.answer
    if answer.answer == "yes":
        words = f"yes, {answer.level}"  # type: ignore[assignment]  # for people
    elif answer.answer == "unknown":
        start = "we first looked" if answer.from_ms is None else show_time(answer.from_ms)
        end = "now" if answer.to_ms is None else show_time(answer.to_ms)
        words = f"unknown between {start} and {end}"  # type: ignore[assignment]  # for people
    who = _who(answer.user_or_group_id, answer.grantee_type, answer.grantee_name)
    return (f"  {who}", f"by {answer.row_cause}" if answer.row_cause else "by any row", words)


def _when(from_ms: int | None, to_ms: int) -> str:
    if from_ms is None:
        return f"before {show_time(to_ms)}"
    if to_ms - from_ms <= _SECOND_MS:
        return show_time(from_ms)
    return f"between {show_time(from_ms)} and {show_time(to_ms)}"


def _who(grantee: str, kind: str | None, name: str | None) -> str:
    named = "" if name is None else f" {plain(name)}"
    return f"{kind or 'grantee'}{named} ({grantee})"


def _default_words(default: Mapping[str, Json] | None) -> str:
    if default is None or default.get("internal") is None:
        return "org-wide default: not known"
    as_of = show_time(int(default["as_of_ms"]))
    return f"org-wide default: {default['internal']} internally, {default.get('external')} externally, as of {as_of}"


def _feed_row(item: Mapping[str, Json]) -> tuple[str, ...]:
    at = item["created_at"] if item["kind"] == "created" else item["modified_at"]
    changes = ", ".join(
        f"{plain(each['field'])} {shown(each['old_value'], None)} → {shown(each['new_value'], None)}"
        for each in item["changes"]
    )
    words = changes or shown(item["title"] or item["body"] or "", None)
    return (
        f"  {show_time(time_of(at))}",
        f"{item['type'] or 'item'} {item['kind']}",
        words,
        by_words(item["created_by"]).strip(),
    )


# As JSON


def sharing_json(sharing: Sharing) -> dict[str, object]:
    """Return ``access`` and ``feed`` of the JSON document."""
    access = sharing.access
    return {"access": None if access is None else _access_json(access, sharing.org_default), "feed": sharing.feed}


def answers_json(sharing: Sharing, at_ms: int, grantee: str | None) -> list[dict[str, object]]:
    """Return who had access at a time, epoch milliseconds."""
    access = sharing.access
    if access is None:
        return []
    answers = access_at(access, at_ms) if grantee is None else grantee_at(access, grantee, at_ms)
    return [
        {
            "user_or_group_id": each.user_or_group_id,
            "grantee_type": each.grantee_type,
            "grantee_name": each.grantee_name,
            "row_cause": each.row_cause,
            "answer": each.answer,
            "access_level": each.level,
            "from": time_json(each.from_ms),
            "to": time_json(each.to_ms),
        }
        for each in answers
    ]


def _access_json(access: Access, default: Mapping[str, Json] | None) -> dict[str, object]:
    now, checked_ms = access.now, access.checked_ms
    return {
        "facts": [
            {
                "kind": each.kind,
                "user_or_group_id": each.user_or_group_id,
                "grantee_type": each.grantee_type,
                "grantee_name": each.grantee_name,
                "row_cause": each.row_cause,
                "access_level": each.level,
                "previous_access_level": each.previous,
                "not_before": time_json(each.from_ms),
                "not_after": time_json(each.to_ms),
                "changed_by": each.by,
                "cause": each.cause,
            }
            for each in access.facts
        ],
        "unseen": [{"from": time_json(start), "to": time_json(end)} for start, end in access.unseen],
        "now": None
        if now is None
        else [
            {
                "user_or_group_id": each.user_or_group_id,
                "grantee_type": each.grantee_type,
                "grantee_name": each.grantee_name,
                "row_cause": each.row_cause,
                "access_level": each.level,
                "missed": each.missing,
            }
            for each in now.shares
        ],
        "complete": now is not None and now.complete,
        "as_of": None if now is None else time_json(now.as_of_ms),
        "checked_to": None if checked_ms in {None, float("inf")} else time_json(int(checked_ms or 0)),
        "org_default": None
        if default is None
        else {
            "internal": default.get("internal"),
            "external": default.get("external"),
            "as_of": time_json(int(default["as_of_ms"])),
        },
        "not_included": NOT_INCLUDED,
    }
