"""What `timeline` prints of access and feed, and what it says of them as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest

from consumer.cli.timeline_access import (
    Sharing,
    answers_json,
    grantee_json,
    print_sharing,
    sharing_json,
    sharing_of,
)
from consumer.delivery.access import encode_access
from consumer.delivery.feed import Feed
from consumer.delivery.sharing import Sharing as SharingRecords
from consumer.tracking.access import AccessState, Grantee, KnownShare, ShareCause, ShareFact
from consumer.tracking.feed_values import FeedFact, FeedItem, TrackedField
from consumer.tracking.timeline_access import NOT_INCLUDED
from tests.delivery_values import ORG, RECORD, TOPICS, checked

ENTITY = "MessagingSession"
T = 1_790_000_000_000
NOW = T + 3_600_000
QUEUE, REP, NOBODY = "00G000000000009AAA", "005000000000001AAA", "005000000000099AAA"
SUPPORT = Grantee("Queue", "Support")


def fact(kind: Any = "granted", start: int | None = None, end: int = 12, **values: Any) -> ShareFact:
    """Return a fact of the queue's owner row, between two seconds after T."""
    from_ms = None if start is None else T + start * 1000
    given: dict[str, Any] = {
        "fact_id": f"{kind}:{start}:{end}",
        "kind": kind,
        "record_id": RECORD,
        "share_id": "02c000000000001AAA",
        "user_or_group_id": QUEUE,
        "grantee": SUPPORT,
        "access_level": "All",
        "previous_access_level": None,
        "row_cause": "Owner",
        "not_before_ms": from_ms,
        "not_after_ms": T + end * 1000,
        "modified_ms": None if kind == "revoked" else T + end * 1000,
        "changed_by": REP,
        "observed_ms": T + end * 1000,
        "cause": ShareCause.BASELINE,
    }
    return ShareFact(**{**given, **values})


UNSEEN = fact(
    "unseen",
    20,
    25,
    share_id=None,
    user_or_group_id=None,
    grantee=None,
    access_level=None,
    row_cause=None,
    modified_ms=None,
    cause=ShareCause.OWNER_CHANGE,
)
LIFE = (
    fact(),
    UNSEEN,
    fact("granted", 50, 51, user_or_group_id=REP, grantee=None, cause=ShareCause.OWNER_CHANGE),
    fact(
        "level_changed",
        70,
        90,
        user_or_group_id=NOBODY,
        grantee=Grantee("User"),
        row_cause="Manual",
        access_level="Edit",
        previous_access_level="Read",
        cause=ShareCause.INCREMENTAL,
        changed_by=None,
    ),
    fact("revoked", 50, 51, cause=ShareCause.OWNER_CHANGE),
)
ACCESS = AccessState(
    ENTITY,
    RECORD,
    (
        KnownShare(REP, "Owner", "All", "02c000000000002AAA", None, (T + 50_000, T + 51_000), T, T + 100_000),
        KnownShare(NOBODY, "", "Edit", "02c000000000003AAA", None, (None, T), T, T + 60_000, T + 99_000),
    ),
    complete=True,
    as_of_ms=T + 100_000,
)
PROGRESS = {
    f"swept:{ENTITY}": {"begun_ms": T + 200_000, "ended_ms": T + 210_000, "rows": 2},
    "swept:Case": {"begun_ms": NOW, "ended_ms": NOW, "rows": 2},
    f"org-default:{ENTITY}": {"internal": "Private", "external": None, "as_of_ms": T},
}


def sharing(
    facts: Sequence[ShareFact] = LIFE,
    access: AccessState | None = ACCESS,
    feed: Sequence[FeedFact] = (),
    progress: Mapping[str, Any] = PROGRESS,
    **more: Any,
) -> Sharing:
    records = [checked(each) for each in SharingRecords(ORG, TOPICS).records(ENTITY, facts, NOW)]
    now = None if access is None else orjson.loads(encode_access(TOPICS, ORG, access).value or b"")
    items = [checked(each) for each in Feed(ORG, TOPICS).records(ENTITY, feed, NOW)]
    return sharing_of(records, now, items, progress, ENTITY, None, **more)


def printed(
    of: Sharing, capsys: pytest.CaptureFixture[str], at: int | None = None, grantee: str | None = None
) -> list[list[str]]:
    """Return the printed lines in their columns."""
    print_sharing(of, None if at is None else T + at * 1000, grantee, NOW)
    out = capsys.readouterr().out
    return [[part.strip() for part in line.split("  ") if part.strip()] for line in out.splitlines()]


def test_the_facts_stand_in_the_order_of_their_times_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(sharing(), capsys)
    assert lines[1:6] == [
        ["access"],
        [
            "before 2026-09-21T14:13:32Z, nobody knows since when",
            f"Queue Support ({QUEUE})",
            "gained All",
            "by Owner",
            "found when we first looked",
            f"changed by {REP}",
        ],
        [
            "2026-09-21T14:14:10Z",
            f"grantee ({REP})",
            "gained All",
            "by Owner",
            "with the owner change",
            f"changed by {REP}",
        ],
        [
            "2026-09-21T14:14:10Z",
            f"Queue Support ({QUEUE})",
            "lost All",
            "by Owner",
            "with the owner change",
            f"changed by {REP}",
        ],
        [
            "between 2026-09-21T14:14:30Z and 2026-09-21T14:14:50Z",
            f"User ({NOBODY})",
            "changed Read → Edit",
            "by Manual",
            "found by a poll",
        ],
    ]
    assert lines[6][0].startswith("between 2026-09-21T14:13:40Z and 2026-09-21T14:13:45Z the owner changed more than")


def test_who_has_access_now_is_told_as_of_when_and_what_is_not_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(sharing(), capsys)
    assert lines[7:] == [
        ["now (as of 2026-09-21T14:15:00Z, checked to 2026-09-21T14:16:40Z):"],
        [f"grantee ({REP})", "All", "by Owner"],
        [f"grantee ({NOBODY})", "Edit", "by no cause", "missed by the last reading, a second one decides"],
        ["org-wide default: Private internally, not readable externally, as of 2026-09-21T14:13:20Z"],
        ["not in share rows: org-wide default, role hierarchy, View All and Modify All permissions"],
    ]
    part = AccessState(ENTITY, RECORD, ACCESS.shares[:1], complete=False, as_of_ms=T)
    assert ["now (not read as a whole yet):"] in printed(sharing(access=part), capsys)
    assert ["now: nobody, by share rows"] in printed(sharing(access=None, progress={}), capsys)
    assert ["org-wide default: not read yet"] in printed(sharing(access=None, progress={}), capsys)


def test_at_a_time_everybody_who_ever_had_a_share_has_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(sharing(), capsys, at=22)
    start = lines.index(["access at 2026-09-21T14:13:42Z"])
    unknown = "unknown between 2026-09-21T14:13:40Z and 2026-09-21T14:13:45Z"
    assert lines[start + 1 : start + 6] == [
        [f"Queue Support ({QUEUE})", "by Owner", unknown],
        [f"grantee ({REP})", "by Owner", unknown],
        [f"User ({NOBODY})", "by Manual", unknown],
        [f"grantee ({NOBODY})", "by any row", unknown],
        ["anybody else: ask with --grantee"],
    ]
    lines = printed(sharing(), capsys, at=30)
    assert [f"Queue Support ({QUEUE})", "by Owner", "yes, All"] in lines
    assert [f"grantee ({REP})", "by Owner", "no"] in lines
    lines = printed(sharing(), capsys, at=5)
    assert [f"grantee ({REP})", "by Owner", "unknown before 2026-09-21T14:13:32Z"] in lines
    lines = printed(sharing(), capsys, at=300)
    assert [
        f"grantee ({REP})",
        "by Owner",
        "unknown since 2026-09-21T14:16:40Z, when the rows were last read",
    ] in lines


def test_one_grantee_can_be_asked_for_then_and_now(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(sharing(), capsys, grantee=QUEUE)
    start = lines.index([f"access of {QUEUE} at 2026-09-21T14:16:40Z"])
    assert lines[start + 1 : start + 2] == [[f"Queue Support ({QUEUE})", "by Owner", "no"]]
    stranger = "005000000000077AAA"
    lines = printed(sharing(), capsys, at=30, grantee=stranger)
    assert [f"access of {stranger} at 2026-09-21T14:13:50Z"] in lines
    assert [f"grantee ({stranger})", "by any row", "no"] in lines
    gone = sharing((fact(), fact("revoked", 50, 60)), None, deleted=True)
    assert [f"access of {stranger} at 2026-09-21T15:13:20Z"] in printed(gone, capsys, grantee=stranger)


def test_where_nothing_was_told_only_a_question_has_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = sharing((), None, progress={})
    assert printed(nothing, capsys) == []
    lines = printed(nothing, capsys, at=5, grantee=REP)
    assert ["nothing was told of its shares yet"] in lines
    assert [f"grantee ({REP})", "by any row", "unknown: nobody has looked yet"] in lines
    assert ["not in share rows: org-wide default, role hierarchy, View All and Modify All permissions"] in lines
    assert sharing_json(nothing) == {"access": None, "feed": ()}


def test_json_has_the_facts_the_unseen_spans_the_present_and_what_is_not_in_it() -> None:
    access: Any = sharing_json(sharing())["access"]
    assert [(each["kind"], each["not_before"], each["not_after"]) for each in access["facts"]] == [
        ("granted", None, "2026-09-21T14:13:32.000Z"),
        ("granted", "2026-09-21T14:14:10.000Z", "2026-09-21T14:14:11.000Z"),
        ("revoked", "2026-09-21T14:14:10.000Z", "2026-09-21T14:14:11.000Z"),
        ("level_changed", "2026-09-21T14:14:30.000Z", "2026-09-21T14:14:50.000Z"),
    ]
    assert access["unseen"] == [{"from": "2026-09-21T14:13:40.000Z", "to": "2026-09-21T14:13:45.000Z"}]
    assert [(each["user_or_group_id"], each["row_cause"], each["missed"]) for each in access["now"]] == [
        (REP, "Owner", False),
        (NOBODY, None, True),
    ]
    assert (access["complete"], access["as_of"], access["checked_to"]) == (
        True,
        "2026-09-21T14:15:00.000Z",
        "2026-09-21T14:16:40.000Z",
    )
    assert access["org_default"] == {"internal": "Private", "external": None, "as_of": "2026-09-21T14:13:20.000Z"}
    assert access["not_included"] == NOT_INCLUDED


def test_json_answers_have_the_times_between_which_nobody_knows() -> None:
    answers = answers_json(sharing(), T + 22_000, None)
    assert {(each["answer"], each["from"], each["to"]) for each in answers} == {
        ("unknown", "2026-09-21T14:13:40.000Z", "2026-09-21T14:13:45.000Z")
    }
    asked = grantee_json(sharing(), QUEUE, T + 30_000)
    assert asked is not None
    assert (asked["time"], asked["not_included"]) == ("2026-09-21T14:13:50.000Z", NOT_INCLUDED)
    assert asked["access"] == [
        {
            "user_or_group_id": QUEUE,
            "grantee_type": "Queue",
            "grantee_name": "Support",
            "row_cause": "Owner",
            "answer": "yes",
            "access_level": "All",
            "from": None,
            "to": None,
        }
    ]
    assert grantee_json(sharing(), None, T) is None


def item(number: int, kind: Any = "created", tracked: tuple[TrackedField, ...] = (), **values: Any) -> FeedFact:
    """Return a fact of a feed item, made so many seconds after T and changed nine seconds after."""
    given: dict[str, Any] = {"CreatedById": REP, **values}
    of = FeedItem(
        f"0D5{number:012}AAA",
        RECORD,
        None if kind == "removed" else "TrackedChange" if tracked else "TextPost",
        None if kind == "removed" else T + number * 1000,
        T + 9_000,
        deleted=kind == "removed",
        values={} if kind == "removed" else given,
        tracked=tracked,
    )
    return FeedFact(f"feed:{number}:{kind}", kind, of, T + 10_000)


def test_feed_items_say_what_they_track_or_how_they_begin(capsys: pytest.CaptureFixture[str]) -> None:
    status = (TrackedField("MessagingSession.Status", "Waiting", None),)
    feed = [
        item(1, tracked=status),
        item(2, Body="Please\ncall \x1b[2Jback"),
        item(2, Body="Please\ncall \x1b[2Jback"),
        item(3, "changed", Title="x" * 70),
        item(4, "removed"),
    ]
    of = sharing((), None, feed, progress={})
    lines = printed(of, capsys)
    assert lines == [
        [],
        ["feed"],
        ["2026-09-21T14:13:21Z", "TrackedChange created", "MessagingSession.Status Waiting → null", f"by {REP}"],
        ["2026-09-21T14:13:22Z", "TextPost created", '"Please\\ncall \\x1b[2Jback"', f"by {REP}"],
        ["2026-09-21T14:13:29Z", "TextPost changed", "x" * 60 + "…", f"by {REP}"],
        ["2026-09-21T14:13:29Z", "item removed"],
    ]
    told: Any = sharing_json(of)["feed"]
    assert [each["kind"] for each in told] == ["created", "created", "changed", "removed"], "each once"
