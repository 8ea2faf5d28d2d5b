"""The demonstration's lines: what changed from what, within the terminal's width."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from consumer.cli.demo_lines import Lines
from consumer.events import OutboundRecord

RECORD = "0Mw5g00008JFdoQCAT"
NAMED = {"Id": RECORD, "Name": "MS-00000002"}


def shown(lines: Lines, kind: str, value: Any) -> str | None:
    text = lines.line(kind, OutboundRecord(f"p.{kind}", RECORD.encode(), orjson.dumps(value)))
    return None if text is None else text.plain.rstrip()


def change(op: str, before: Any, after: Any, *changed: str, repaired: bool = False) -> dict[str, Any]:
    source = {"record_id": RECORD, "ts_ms": 0, "changed_fields": changed, "repaired": repaired}
    return {"op": op, "before": before, "after": after, "source": source}


def test_an_update_shows_each_field_before_and_after() -> None:
    before = {**NAMED, "Status": "Waiting", "OwnerId": "00G5g0000000004EAA"}
    after = {**NAMED, "Status": "Active", "OwnerId": "0055g0000000021AAA"}
    line = shown(Lines(100), "changes", change("u", before, after, "LastModifiedDate", "OwnerId", "Status"))
    assert line is not None
    assert line.endswith("changed  MS-00000002 Status Waiting → Active  Owner 00G…004 → 005…021")


def test_what_is_not_known_before_is_not_guessed() -> None:
    line = shown(Lines(100), "changes", change("u", NAMED, {**NAMED, "Status": "Active"}, "Status"))
    assert line is not None
    assert "Status ? → Active" in line


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_line_keeps_to_the_width_and_says_what_is_left_out(width: int) -> None:
    after = {**NAMED, "Status": "Active", **{f"Field_{number}__c": "x" * 15 for number in range(30)}}
    line = shown(Lines(width), "changes", change("c", None, after))
    assert line is not None
    assert len(line) <= width
    assert line.rpartition("+")[2].isdigit()


def test_a_row_shows_what_became_known_and_a_repair_its_name() -> None:
    lines = Lines(100)
    row = change("r", {**NAMED, "Status": "Ended"}, {**NAMED, "Status": "Ended", "EndUserMessageCount": 12})
    line = shown(lines, "changes", row)
    assert line is not None
    assert line.endswith("read     MS-00000002 EndUserMessageCount 12")
    repaired = shown(lines, "changes", change("u", NAMED, {**NAMED, "Status": "Ended"}, "Status", repaired=True))
    assert repaired is not None
    assert "repaired" in repaired


def test_only_confirmed_facts_of_status_and_owner_have_a_line() -> None:
    lines = Lines(100)
    shown(lines, "changes", change("c", None, NAMED))
    fact = {"match": "confirmed", "field": "Status", "record_id": RECORD, "old_value": None, "new_value": "Active"}
    assert shown(lines, "history", fact) == f"{'':9}history  MS-00000002 Status null → Active  confirmed"
    assert shown(lines, "history", {**fact, "match": "pending"}) is None
    assert shown(lines, "history", {**fact, "field": "Origin"}) is None


def test_coverage_and_quarantine_are_told_in_words() -> None:
    lines = Lines(100)
    span = {"kind": "span", "stream": "changes:/data/X", "to": "2026-11-22T22:39:14.000Z"}
    closed = {"kind": "loss_closed", "reason": "no_snapshot", "repaired_records": 13}
    assert shown(lines, "coverage", span) == f"{'':9}coverage changes proven complete up to 22:39:14Z"
    assert shown(lines, "coverage", closed) == f"{'':9}coverage loss window closed: no_snapshot, 13 records restored"
    assert RECORD in (shown(lines, "quarantine", {}) or "")
    assert shown(lines, "state", {}) is None


def share(kind: str = "granted", **changes: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "record_id": RECORD,
        "user_or_group_id": "00G5g0000000004EAA",
        "grantee_type": "Queue",
        "grantee_name": "Support",
        "access_level": "All",
        "previous_access_level": None,
        "row_cause": "Owner",
        "not_before": "2026-11-22T22:39:10.000Z",
        "not_after": "2026-11-22T22:39:14.000Z",
        **changes,
    }


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        (share(), "granted All to Queue Support (Owner)"),
        (share("revoked", grantee_name=None), "revoked All from Queue 00G…004 (Owner)"),
        (share("revoked", grantee_type=None, grantee_name=None), "revoked All from 00G…004 (Owner)"),
        (
            share("level_changed", previous_access_level="Read", access_level="Edit", row_cause=None),
            "changed Read → Edit for Queue Support (no cause)",
        ),
        (share("unseen"), "unseen from 22:39:10Z to 22:39:14Z: owners changed too fast"),
        (share("handed_over"), "handed_over All: Queue Support (Owner)"),
    ],
)
def test_a_sharing_fact_says_who_gained_or_lost_what(fact: dict[str, Any], words: str) -> None:
    lines = Lines(100)
    shown(lines, "changes", change("c", None, NAMED))
    assert shown(lines, "sharing", fact) == f"{'':9}access   MS-00000002 {words}"
    assert shown(lines, "access", {}) is None


RULE: dict[str, Any] = {
    "kind": "created",
    "rule_id": "0CC5g0000000001EAA",
    "name": "Night shift",
    "access_level": "Read",
    "group_type": "Queue",
    "group_name": "Support",
    "group_id": "00G5g0000000004EAA",
    "grantee_type": "Role",
    "grantee_name": "Agents",
    "user_or_group_id": "00G5g0000000005EAA",
    "changed": [],
}


def test_a_sharing_rule_says_whose_records_go_to_whom() -> None:
    lines = Lines(100)
    told = shown(lines, "sharing-rules", RULE)
    assert told == f"{'':9}rule     Night shift created: Read on records of Queue Support to Role Agents"
    step = {"field": "AccessLevel", "old_value": "Read", "new_value": "Edit"}
    changed = {**RULE, "name": None, "kind": "changed", "changed": [step]}
    assert shown(lines, "sharing-rules", changed) == (
        f"{'':9}rule     0CC5g0000000001EAA changed: AccessLevel Read → Edit"
    )


def item(**changes: Any) -> dict[str, Any]:
    given = {"kind": "created", "feed_item_id": "0D55g0000000001EAA", "record_id": RECORD, "type": "TextPost"}
    return {**given, "title": None, "body": None, "changes": [], **changes}


def test_a_feed_item_says_what_it_tracks_or_how_it_begins() -> None:
    lines = Lines(100)
    shown(lines, "changes", change("c", None, NAMED))
    tracked = [{"field": "Status", "old_value": None, "new_value": "Active"}]
    begin = f"{'':9}feed     MS-00000002 "
    assert shown(lines, "feed", item(type="TrackedChange", changes=tracked)) == (
        f"{begin}TrackedChange created: Status null → Active"
    )
    assert shown(lines, "feed", item(body="Please\ncall back")) == f"{begin}TextPost created: Please call back"
    gone = item(kind="removed", type=None, record_id=None)
    assert shown(lines, "feed", gone) == f"{'':9}feed     0D55g0000000001EAA item removed"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("sharing", share(grantee_name="A" * 300)),
        ("sharing", share(grantee_name="\x1b[2J" + "A" * 300)),
        ("sharing-rules", {**RULE, "name": "\x1b[2J", "group_name": "A" * 300}),
        ("feed", item(body="A\x9b2J" + "b" * 300)),
        ("feed", item(title="x" * 300)),
    ],
)
def test_a_long_text_is_cut_and_brings_no_escape_sequence_to_the_terminal(kind: str, value: Any) -> None:
    line = shown(Lines(80), kind, value)
    assert line is not None
    assert len(line) <= 80
    assert line.endswith("…")
    assert line.isprintable()
