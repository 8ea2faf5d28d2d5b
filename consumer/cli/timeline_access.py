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
    "baseline": "found when we first looked",
    "owner_change": "with the owner change",
    "incremental": "found by a poll",
    "sweep": "found by a sweep",
    "rule_change": "found by a sweep after a recalculation",
    "record_deleted": "with the deletion of the record",
}
_KINDS: Final[Mapping[str, str]] = {"granted": "gained", "revoked": "lost", "level_changed": "changed"}


@dataclass(frozen=True, slots=True)
class Sharing:
    """What Kafka holds of a record's sharing and feed.

    Attributes:
        access: what is known of its shares.
        org_default: the object's org-wide default as it was read last, None before.
        feed: records of ``feed``, in the order of their partition.
    """

    access: Access
    org_default: Mapping[str, Json] | None
    feed: Sequence[Mapping[str, Json]]

    @property
    def told(self) -> bool:
        """Whether anything was ever told of its shares."""
        return bool(self.access.facts or self.access.unseen or self.access.now is not None)

    def answers(self, at_ms: int, grantee: str | None) -> list[Answer]:
        """Return who had access at a time, epoch milliseconds; of one user or group, if one is given."""
        return access_at(self.access, at_ms) if grantee is None else grantee_at(self.access, grantee, at_ms)

    def last_look_ms(self, now_ms: int) -> int:
        """Return the newest time that it is known for who had access; now, if nobody ever looked."""
        checked_ms = self.access.checked_ms
        return now_ms if checked_ms is None else int(min(checked_ms, now_ms))


def sharing_of(
    facts: Iterable[Mapping[str, Json]],
    access: Mapping[str, Json] | None,
    feed: Iterable[Mapping[str, Json]],
    progress: Mapping[str, Mapping[str, Json]],
    entity: str,
    kept_from_ms: int | None,
    *,
    created_ms: int | None = None,
    deleted: bool = False,
) -> Sharing:
    """Return what the records say.

    Args:
        facts: records of ``sharing``, in the order of their partition.
        access: the newest record of ``access``, None if there is none.
        feed: records of ``feed``, likewise.
        progress: progress of the channels' jobs by name, read before all of these.
        entity: the object.
        kept_from_ms: older records of ``sharing`` were dropped; None if none was.
        created_ms: when the record was created, epoch milliseconds; None if that is not known.
        deleted: whether it is deleted.
    """
    swept = progress.get(f"swept:{entity}")
    swept_ms = None if swept is None else int(swept["begun_ms"])
    told = [read_share_fact(each) for each in facts]
    now = None if access is None else read_access(access)
    found = access_of(told, now, swept_ms, kept_from_ms, created_ms=created_ms, deleted=deleted)
    first: dict[str, Mapping[str, Json]] = {}
    for each in feed:
        first.setdefault(each["id"], each)
    return Sharing(found, progress.get(f"org-default:{entity}"), tuple(first.values()))


# For people


def print_sharing(sharing: Sharing, at_ms: int | None, grantee: str | None, now_ms: int) -> None:
    """Print who gained and lost access, who has it now, who had it at a time; and the feed.

    Args:
        sharing: what is known.
        at_ms: the time that is asked for, epoch milliseconds; None for none.
        grantee: the user or group that is asked for, None for none.
        now_ms: epoch milliseconds.
    """
    if sharing.told or at_ms is not None or grantee is not None:
        _print_access(sharing)
        if at_ms is not None or grantee is not None:
            _print_answers(sharing, sharing.last_look_ms(now_ms) if at_ms is None else at_ms, grantee)
        write_line(f"  {_default_words(sharing.org_default)}")
        write_line(f"  not in share rows: {', '.join(NOT_INCLUDED)}")
    if sharing.feed:
        section("feed")
        write_table([_feed_row(each) for each in sharing.feed])


def _print_access(sharing: Sharing) -> None:
    section("access")
    if not sharing.told:
        write_line("  nothing was told of its shares yet")
        return
    write_table([_fact_row(fact) for fact in _in_order(sharing.access.facts)])
    for from_ms, to_ms in sharing.access.unseen:
        write_line(
            f"  between {show_time(from_ms)} and {show_time(to_ms)} the owner changed more than once without the rows "
            "being read: who had access in between is not known"
        )
    _print_now(sharing.access)


def _print_answers(sharing: Sharing, at_ms: int, grantee: str | None) -> None:
    section(f"access at {show_time(at_ms)}" if grantee is None else f"access of {grantee} at {show_time(at_ms)}")
    answers = sharing.answers(at_ms, grantee)
    write_table([_answer_row(answer) for answer in answers])
    if grantee is None:
        write_line("  anybody else: ask with --grantee")


def _in_order(facts: Iterable[AccessFact]) -> list[AccessFact]:
    """Return facts in the order of their times; the partition has them in the order in which they were found."""
    return sorted(facts, key=lambda fact: (fact.to_ms, fact.to_ms if fact.from_ms is None else fact.from_ms))


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
        _CAUSES.get(fact.cause, fact.cause),
        "" if fact.by is None else f"changed{by_words(fact.by)}",
    )


def _answer_row(answer: Answer) -> tuple[str, ...]:
    words: str = answer.answer
    if answer.answer == "yes":
        words = f"yes, {answer.level}"
    elif answer.answer == "unknown":
        words = _unknown_words(answer.from_ms, answer.to_ms)
    who = _who(answer.user_or_group_id, answer.grantee_type, answer.grantee_name)
    return (f"  {who}", f"by {answer.row_cause}" if answer.row_cause else "by any row", words)


def _unknown_words(from_ms: int | None, to_ms: int | None) -> str:
    if from_ms is None:
        return "unknown: nobody has looked yet" if to_ms is None else f"unknown before {show_time(to_ms)}"
    if to_ms is None:
        return f"unknown since {show_time(from_ms)}, when the rows were last read"
    return f"unknown between {show_time(from_ms)} and {show_time(to_ms)}"


def _when(from_ms: int | None, to_ms: int) -> str:
    if from_ms is None:
        return f"before {show_time(to_ms)}, nobody knows since when"
    if to_ms - from_ms <= _SECOND_MS:
        return show_time(from_ms)
    return f"between {show_time(from_ms)} and {show_time(to_ms)}"


def _who(grantee: str, kind: str | None, name: str | None) -> str:
    named = "" if name is None else f" {plain(name)}"
    return f"{kind or 'grantee'}{named} ({grantee})"


def _default_words(default: Mapping[str, Json] | None) -> str:
    if default is None:
        return "org-wide default: not read yet"
    inside, outside = (default.get(name) or "not readable" for name in ("internal", "external"))
    return f"org-wide default: {inside} internally, {outside} externally, as of {show_time(int(default['as_of_ms']))}"


def _feed_row(item: Mapping[str, Json]) -> tuple[str, ...]:
    at = item["created_at"] if item["kind"] == "created" else item["modified_at"]
    changes = ", ".join(
        f"{plain(each['field'])} {shown(each['old_value'], None)} → {shown(each['new_value'], None)}"
        for each in item["changes"]
    )
    said = item["title"] or item["body"]
    words = changes or (shown(said, None) if said else "")
    return (
        f"  {show_time(time_of(at))}",
        f"{item['type'] or 'item'} {item['kind']}",
        words,
        by_words(item["created_by"]).strip(),
    )


# As JSON


def sharing_json(sharing: Sharing) -> dict[str, object]:
    """Return ``access`` and ``feed`` of the JSON document."""
    access = _access_json(sharing.access, sharing.org_default) if sharing.told else None
    return {"access": access, "feed": sharing.feed}


def grantee_json(sharing: Sharing, grantee: str | None, at_ms: int) -> dict[str, object] | None:
    """Return what is asked of one user or group, None for nobody.

    Args:
        sharing: what is known.
        grantee: 18-character id.
        at_ms: the time that is asked for, epoch milliseconds.
    """
    if grantee is None:
        return None
    return {
        "user_or_group_id": grantee,
        "time": time_json(at_ms),
        "access": answers_json(sharing, at_ms, grantee),
        "not_included": NOT_INCLUDED,
    }


def answers_json(sharing: Sharing, at_ms: int, grantee: str | None) -> list[dict[str, object]]:
    """Return who had access at a time, epoch milliseconds."""
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
        for each in sharing.answers(at_ms, grantee)
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
            for each in _in_order(access.facts)
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
