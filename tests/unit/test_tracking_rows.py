"""What rows do to images, and to the events around them."""

from __future__ import annotations

import pytest

from consumer.tracking.arrivals import MetricsRead, Purpose
from consumer.tracking.changes import TrackedChange
from consumer.tracking.marks import ReadMarks
from consumer.tracking.tracker import Tracker
from tests.tracking_values import (
    ENTITY,
    FIELDS,
    KEY,
    OTHER,
    RECORD,
    S0,
    MemoryStates,
    event,
    facts_of,
    image,
    row,
    rows,
    tracker,
)

ROW = {
    "Name": "MS-1",
    "Status": "Active",
    "OwnerId": "005A",
    "EndTime": None,
    "Notes__c": None,
    "Address": {"City": "Bern", "Zip": None},
    "AgentMessageCount": 3,
    "LastModifiedDate": "d1",
}
IMAGE = {**ROW, "Address": {"City": "Bern"}}
CREATED = {"Name": "MS-1", "Status": "New", "OwnerId": "00G1", "LastModifiedDate": "d0"}
R = Purpose


def snapshot(*, at: int = 0, read: int = 10, **values: object) -> tuple[Tracker, MemoryStates]:
    """Return a tracker that read the record once: S is ``at``, D is ``read`` seconds after S0."""
    of, states = tracker()
    of.on_rows(rows(R.SNAPSHOT, read, row(at, {**ROW, **values}), mark=of.begin_read(), job_id="scan"))
    return of, states


def only(found: list[TrackedChange]) -> TrackedChange:
    """Return the only change."""
    (told,) = found
    return told


def test_a_first_row_is_read_and_has_no_before() -> None:
    of, states = tracker()
    read = rows(R.SNAPSHOT, 10, row(0, ROW), row(1, ROW, record_id=OTHER), mark=of.begin_read(), job_id="j", last=True)
    first, second = of.on_rows(read)
    assert (first.op, first.change_type, first.before, first.record_index) == ("r", None, None, None)
    assert image(first.after) == IMAGE
    assert (first.after_kind, first.unknown_fields, first.version, first.stamp_ms) == ("full", (), 1, S0)
    assert first.change_id == f"row:{RECORD}:{S0}:j"
    assert (first.changed_fields, first.fields) == ((), ())
    assert (first.snapshot, second.snapshot) == ("true", "last")
    assert (first.repaired, first.window_id) == (False, None)
    state = states.states[KEY]
    assert (state.image_json, state.row_stamp_ms, state.row_read_ms) == (first.after, S0, S0 + 10_000)
    assert dict(state.since) == {}


def test_a_row_without_some_fields_leaves_them_unknown() -> None:
    of, _ = tracker()
    told = only(of.on_rows(rows(R.SNAPSHOT, 10, row(0, {"Status": "A", "Gone__c": 1}), mark=of.begin_read())))
    assert image(told.after) == {"Status": "A"}
    assert told.unknown_fields == tuple(name for name in FIELDS if name != "Status")


@pytest.mark.parametrize("purpose", [R.RESYNC, R.REFRESH, R.RECONCILE, R.SNAPSHOT, R.REPAIR])
def test_a_row_that_says_nothing_new_gives_nothing(purpose: Purpose) -> None:
    of, states = snapshot(Notes__c="")
    written = states.written
    assert of.on_rows(rows(purpose, 20, row(5, {**ROW, "Notes__c": None}), mark=of.begin_read(), window="w")) == []
    assert states.written == written


def test_a_row_that_differs_is_read_with_what_differs() -> None:
    of, states = snapshot()
    before = states.states[KEY].image_json
    values = {**ROW, "Status": "Ended", "Address": {"City": "Chur", "Zip": "7"}, "LastModifiedDate": "d2"}
    told = only(of.on_rows(rows(R.RESYNC, 20, row(15, values), mark=of.begin_read(), window="w", job_id="j")))
    assert (told.op, told.before, told.version) == ("r", before, 2)
    assert told.changed_fields == ("Status", "Address.City", "Address.Zip", "LastModifiedDate")
    assert facts_of(told) == [
        ("Status", "Active", "Ended"),
        ("Address.City", "Bern", "Chur"),
        ("Address.Zip", None, "7"),
    ]
    assert (told.repaired, told.window_id, told.snapshot) == (True, "w", "incremental")
    assert told.change_id == f"row:{RECORD}:{S0 + 15_000}:w"
    assert states.states[KEY].since == {"Status": "2026-09-21T14:13:35.000Z"}


def test_a_read_for_no_window_is_told_apart_by_its_version() -> None:
    of, _ = snapshot()
    told = only(of.on_rows(rows(R.REFRESH, 20, row(0, {**ROW, "AgentMessageCount": 9}), mark=of.begin_read())))
    assert told.change_id == f"row:{RECORD}:{S0}:refresh-2"
    assert not told.repaired


def test_fields_that_become_known_are_read_without_being_changes() -> None:
    of, states = tracker()
    of.on_event(event("CREATE", 0, CREATED))
    values = {**CREATED, "EndTime": None, "Notes__c": None, "Address": None, "AgentMessageCount": 3}
    told = only(of.on_rows(rows(R.REFRESH, 20, row(5, values), mark=of.begin_read())))
    assert (told.changed_fields, told.fields) == ((), ())
    assert (told.before_kind, told.after_kind, told.unknown_fields) == ("partial", "completed", ())
    assert states.states[KEY].completed


def test_an_incomplete_compound_becomes_complete() -> None:
    of, states = tracker()
    of.on_event(event("UPDATE", 0, {"Address": {"City": "Bern", "Zip": None}}))
    told = only(of.on_rows(rows(R.REFRESH, 20, row(5, {**ROW, "Address": {"Street": "S"}}), mark=of.begin_read())))
    assert image(told.after)["Address"] == {"Street": "S"}
    assert facts_of(told) == [("Address.City", "Bern", None)]
    assert states.states[KEY].incomplete == frozenset()


def test_unknown_rows_are_stored_and_the_event_that_follows_tells() -> None:
    of, states = tracker()
    assert of.on_rows(rows(R.UNKNOWN, 10, row(8, ROW), mark=of.begin_read())) == []
    state = states.states[KEY]
    assert (state.version, state.completed, state.image_kind) == (0, True, "completed")
    told = only(of.on_event(event("UPDATE", 8, {"Status": "Active"})))
    assert "Status" not in image(told.before)
    assert told.before_kind == "partial"
    assert (image(told.after), told.after_kind, told.version) == (IMAGE, "completed", 1)
    assert facts_of(told) == [("Status", "?", "Active")]


def test_an_unknown_row_of_a_record_in_the_recycle_bin_waits_for_its_delete() -> None:
    of, states = tracker()
    assert of.on_rows(rows(R.UNKNOWN, 10, row(9, ROW, deleted=True), mark=of.begin_read())) == []
    assert of.on_rows(rows(R.UNKNOWN, 10, missing=(OTHER,), mark=of.begin_read())) == []
    told = only(of.on_event(event("UPDATE", 2, {"Status": "New"})))
    assert not told.late
    assert image(told.after) == {**IMAGE, "Status": "New"}
    told = only(of.on_event(event("DELETE", 7)))
    assert (told.op, told.late, image(told.before)) == ("d", False, {**IMAGE, "Status": "New"})
    assert states.states[KEY].deleted


# Rows and events: S is 8, D is 10


def test_an_event_long_before_the_row_s_stamp_is_late_and_moves_nothing() -> None:
    of, states = snapshot(at=8)
    state = states.states[KEY]
    told = only(of.on_event(event("UPDATE", 6, {"Status": "Waiting", "Address": {"Zip": "1"}})))
    assert told.late
    assert told.late_values == {"Status": "Waiting", "Address": {"Zip": "1"}}
    assert told.after == state.image_json
    assert image(told.before) == {name: value for name, value in IMAGE.items() if name not in {"Status", "Address"}}
    assert told.before_kind == "partial"
    assert facts_of(told) == [("Status", "?", "Waiting"), ("Address.Zip", "?", "1")]
    moved = states.states[KEY]
    assert (moved.image, moved.version, moved.source) == (state.image, 2, None)


def test_late_creates_deletes_and_diffs() -> None:
    of, states = snapshot(at=8)
    told = only(of.on_event(event("CREATE", 2, CREATED)))
    assert (told.op, told.late, told.before, image(told.after)) == ("c", True, None, IMAGE)
    assert told.late_values == CREATED
    assert facts_of(told) == [("created", None, None)]
    told = only(of.on_event(event("UPDATE", 3, {"Notes__c": "a diff"}, diffs=("Notes__c",))))
    assert told.late_values == {}
    assert facts_of(told) == [("Notes__c", "?", "?")]
    told = only(of.on_event(event("DELETE", 4)))
    assert (told.op, told.late, image(told.before), told.after) == ("d", True, IMAGE, None)
    assert not states.states[KEY].deleted, "the row is of after an undelete"


@pytest.mark.parametrize(
    ("at", "late", "blind"), [(6, True, True), (7, False, True), (10, False, True), (11, False, False)]
)
def test_the_borders_between_late_between_and_after(at: int, late: bool, blind: bool) -> None:
    of, states = snapshot(at=8, read=10)
    told = only(of.on_event(event("UPDATE", at, {"Status": "Other"})))
    assert told.late is late
    assert ("Status" not in image(told.before)) is blind
    assert image(told.after)["Status"] == ("Active" if late else "Other")
    assert facts_of(told) == [("Status", "?" if blind else "Active", "Other")]
    assert told.after == states.states[KEY].image_json


def test_a_between_event_with_the_row_s_value_is_still_a_change() -> None:
    of, _ = snapshot(at=8)
    assert facts_of(only(of.on_event(event("UPDATE", 8, {"Status": "Active"})))) == [("Status", "?", "Active")]


def test_a_row_does_not_overwrite_what_an_event_set_since_its_request() -> None:
    of, states = snapshot(at=8)
    mark = of.begin_read()
    of.on_event(event("UPDATE", 12, {"Status": "Ended", "Address": {"Zip": "9"}}))
    values = {**ROW, "Status": "Active", "OwnerId": "005B", "Address": {"City": "Chur", "Zip": None}}
    told = only(of.on_rows(rows(R.REFRESH, 14, row(12, values), mark=mark)))
    assert image(told.after) == {**IMAGE, "Status": "Ended", "OwnerId": "005B", "Address": {"City": "Chur", "Zip": "9"}}
    assert told.changed_fields == ("OwnerId", "Address.City")
    assert states.states[KEY].row_stamp_ms == S0 + 12_000


def test_what_an_event_set_before_the_request_is_overwritten() -> None:
    of, _ = snapshot(at=8)
    of.on_event(event("UPDATE", 12, {"Status": "Ended"}))
    told = only(of.on_rows(rows(R.REFRESH, 14, row(12, ROW), mark=of.begin_read())))
    assert image(told.after)["Status"] == "Active"


def test_a_row_well_after_the_event_has_it_and_may_have_more() -> None:
    """Else the next event would be late, and the image would stay at the first one's value for ever."""
    of, _ = snapshot(at=8)
    mark = of.begin_read()
    of.on_event(event("UPDATE", 12, {"Status": "Ended"}))
    told = only(of.on_rows(rows(R.REFRESH, 20, row(18, {**ROW, "Status": "Error"}), mark=mark)))
    assert image(told.after)["Status"] == "Error"
    late = only(of.on_event(event("UPDATE", 15, {"Status": "Error"})))
    assert (late.late, image(late.after)["Status"]) == (True, "Error")


def test_a_row_of_before_a_delete_or_create_does_not_undo_it() -> None:
    of, states = snapshot(at=8)
    mark, other = of.begin_read(), of.begin_read()
    of.on_event(event("DELETE", 12))
    assert of.on_rows(rows(R.REFRESH, 14, row(12, ROW), mark=mark)) == []
    assert states.states[KEY].deleted
    of.on_event(event("UNDELETE", 12, CREATED))
    told = only(of.on_rows(rows(R.REFRESH, 14, row(12, ROW), mark=other)))
    assert image(told.after) == {**CREATED, "EndTime": None, "Notes__c": None, "Address": None, "AgentMessageCount": 3}


def test_a_row_of_after_an_undelete_brings_the_record_back() -> None:
    of, states = snapshot(at=8)
    of.on_event(event("DELETE", 12))
    assert of.on_rows(rows(R.RESYNC, 14, row(11, ROW), mark=of.begin_read())) == [], "older than the delete"
    told = only(of.on_rows(rows(R.RESYNC, 20, row(15, ROW), mark=of.begin_read())))
    assert (told.op, told.before, image(told.after)) == ("r", None, IMAGE)
    assert not states.states[KEY].deleted


def test_an_older_row_moves_nothing() -> None:
    of, _ = snapshot(at=8, read=10)
    old = {**ROW, "Status": "Waiting"}
    assert of.on_rows(rows(R.RESYNC, 12, row(7, old), mark=of.begin_read())) == []
    assert of.on_rows(rows(R.RESYNC, 9, row(8, old), mark=of.begin_read())) == []
    assert only(of.on_rows(rows(R.RESYNC, 10, row(8, old), mark=of.begin_read()))).op == "r"
    of.on_event(event("GAP_UPDATE", 11))
    assert of.on_rows(rows(R.REPAIR, 12, row(7, old), mark=of.begin_read(), window="w")) == []
    assert of.take_doubtful() == [KEY], "an older row repairs nothing"


def test_of_two_rows_of_one_second_the_one_asked_for_last_holds() -> None:
    of, _ = snapshot(at=1, read=2)
    first, second = of.begin_read(), of.begin_read()
    told = only(of.on_rows(rows(R.REFRESH, 10, row(9, {**ROW, "Status": "B"}), mark=second)))
    assert image(told.after)["Status"] == "B"
    assert of.on_rows(rows(R.REFRESH, 10, row(9, {**ROW, "Status": "A"}), mark=first)) == []
    assert of._marks.touched == 0


def test_a_bulk_row_that_lacks_an_event_is_read_again_instead() -> None:
    of, states = snapshot(at=8)
    of.on_event(event("UPDATE", 12, {"Status": "Ended"}))
    assert of.on_rows(rows(R.RESYNC, 30, row(11, {**ROW, "Status": "Waiting"}))) == []
    assert of.take_doubtful() == [KEY]
    assert states.states[KEY].image["Status"] == "Ended"
    told = only(of.on_rows(rows(R.RESYNC, 30, row(12, {**ROW, "Status": "Waiting"}))))
    assert image(told.after)["Status"] == "Waiting"


def test_a_mark_that_was_given_up_proves_nothing() -> None:
    of, states = tracker(max_touched=1)
    of.on_event(event("CREATE", 0, CREATED))
    mark = of.begin_read()
    of.on_event(event("UPDATE", 5, {"Status": "A"}))
    of.on_event(event("UPDATE", 5, {"Status": "B"}, record_ids=(OTHER,)))
    assert of.on_rows(rows(R.REFRESH, 9, row(4, ROW), mark=mark)) == []
    assert of.take_doubtful() == [KEY]
    assert states.states[KEY].image["Status"] == "A"


# Repairs


@pytest.mark.parametrize(
    ("gap", "op", "change_type"),
    [
        ("GAP_CREATE", "c", "CREATE"),
        ("GAP_UPDATE", "u", "UPDATE"),
        ("GAP_UNDELETE", "c", "UNDELETE"),
        ("payload_undecodable", "r", None),
    ],
)
def test_the_row_after_a_gap_on_an_unknown_record(gap: str, op: str, change_type: str | None) -> None:
    of, states = tracker()
    of.suspect(ENTITY, (RECORD,), gap, S0)
    told = only(of.on_rows(rows(R.REPAIR, 9, row(4, ROW), mark=of.begin_read(), window="gap:1")))
    assert (told.op, told.change_type, told.version) == (op, change_type, 1)
    assert image(told.before) == ({} if op == "u" else None)
    assert image(told.after) == IMAGE
    assert (told.repaired, told.window_id) == (True, "gap:1")
    assert told.change_id == f"row:{RECORD}:{S0 + 4000}:gap:1"
    assert not states.states[KEY].stale


@pytest.mark.parametrize(
    ("gap", "op", "change_type"),
    [
        ("GAP_CREATE", "u", "UPDATE"),
        ("GAP_UPDATE", "u", "UPDATE"),
        ("GAP_UNDELETE", "c", "UNDELETE"),
        ("MERGE", "u", "UPDATE"),
    ],
)
def test_the_row_after_a_gap_on_a_known_record(gap: str, op: str, change_type: str) -> None:
    of, states = snapshot(at=1, read=2)
    of.on_event(event(gap, 3))
    told = only(of.on_rows(rows(R.REPAIR, 9, row(4, {**ROW, "Status": "E"}), mark=of.begin_read(), window="g")))
    assert (told.op, told.change_type, told.snapshot) == (op, change_type, "false")
    if op == "u":
        assert (image(told.before), told.before_kind) == (IMAGE, "full")
    else:
        assert told.before is None
    assert image(told.after) == {**IMAGE, "Status": "E"}
    assert facts_of(told) == [("Status", "Active", "E")]
    assert told.changed_fields == ("Status",)
    assert not states.states[KEY].stale
    assert of.on_rows(rows(R.REPAIR, 9, row(4, {**ROW, "Status": "E"}), mark=of.begin_read(), window="g")) == []


def test_a_gap_s_row_is_told_even_if_nothing_differs() -> None:
    of, _ = snapshot(at=1, read=2)
    of.on_event(event("GAP_UPDATE", 3))
    told = only(of.on_rows(rows(R.REPAIR, 9, row(1, ROW), mark=of.begin_read(), window="g")))
    assert (told.op, told.before, told.changed_fields) == ("u", told.after, ())


def test_a_row_asked_for_before_the_gap_repairs_nothing() -> None:
    of, states = snapshot(at=1, read=2)
    mark = of.begin_read()
    of.on_event(event("GAP_UPDATE", 5))
    assert of.on_rows(rows(R.REPAIR, 9, row(5, ROW), mark=mark, window="g")) == []
    assert states.states[KEY].stale
    of.on_event(event("GAP_UPDATE", 5))
    mark = of.begin_read()
    of.on_event(event("GAP_UPDATE", 6))
    assert only(of.on_rows(rows(R.REPAIR, 9, row(8, ROW), mark=mark, window="g"))).op == "u", "the row is of after it"


def test_what_a_repair_cannot_read_becomes_unknown() -> None:
    of, states = snapshot(at=1, read=2)
    of.on_event(event("GAP_UPDATE", 3))
    values = {name: value for name, value in ROW.items() if name != "Notes__c"}
    told = only(of.on_rows(rows(R.REPAIR, 9, row(4, values), mark=of.begin_read(), window="g")))
    assert told.unknown_fields == ("Notes__c",)
    assert "Notes__c" in image(told.before)
    assert not states.states[KEY].stale


def test_a_doubtful_field_set_by_an_event_since_stays_in_doubt() -> None:
    of, states = snapshot(at=1, read=2, Notes__c="long")
    mark = of.begin_read()
    of.on_event(event("UPDATE", 5, {"Notes__c": "no diff"}, diffs=("Notes__c",)))
    assert of.on_rows(rows(R.REFRESH, 9, row(5, {**ROW, "Notes__c": "row"}), mark=mark)) == []
    assert states.states[KEY].suspect == {"Notes__c"}
    told = only(of.on_rows(rows(R.REFRESH, 9, row(5, {**ROW, "Notes__c": "row"}), mark=of.begin_read())))
    assert image(told.after)["Notes__c"] == "row"
    assert facts_of(told) == [("Notes__c", "long", "row")]


def test_a_resync_s_row_of_a_record_in_doubt_is_a_read() -> None:
    of, states = snapshot(at=1, read=2)
    of.on_event(event("GAP_UPDATE", 3))
    told = only(of.on_rows(rows(R.RESYNC, 9, row(4, ROW), mark=of.begin_read(), window="w", job_id="j")))
    assert (told.op, image(told.before), image(told.after)) == ("r", {}, IMAGE)
    assert not states.states[KEY].stale


def test_an_unknown_read_leaves_the_gap_to_its_repair() -> None:
    of, states = tracker()
    of.on_event(event("GAP_CREATE", 3))
    assert of.on_rows(rows(R.UNKNOWN, 9, row(4, ROW), mark=of.begin_read())) == []
    assert states.states[KEY].gap == "GAP_CREATE"


# Records that are gone


@pytest.mark.parametrize("purpose", [R.REPAIR, R.RESYNC, R.REFRESH, R.RECONCILE])
def test_a_record_found_gone_has_vanished(purpose: Purpose) -> None:
    of, states = snapshot(at=1, read=2)
    of.on_event(event("GAP_UPDATE", 3))
    told = only(of.on_rows(rows(purpose, 9, missing=(RECORD,), mark=of.begin_read(), window="w")))
    assert (told.op, told.change_type, told.after, told.after_kind) == ("d", "VANISHED", None, "none")
    assert (image(told.before), told.before_kind, told.unknown_fields) == (IMAGE, "full", ())
    assert told.change_id == f"row:{RECORD}:gone:w"
    assert told.repaired is (purpose is not R.REFRESH)
    state = states.states[KEY]
    assert (state.deleted, state.deleted_ms, state.version, state.stale) == (True, S0 + 9000, 2, False)
    assert of.on_rows(rows(purpose, 19, missing=(RECORD,), mark=of.begin_read(), window="w")) == []
    late = only(of.on_event(event("UPDATE", 8, {"Status": "A"})))
    assert (late.late, states.states[KEY].deleted) == (True, True)


def test_a_row_in_the_recycle_bin_has_vanished_too() -> None:
    of, states = snapshot(at=1, read=2)
    told = only(of.on_rows(rows(R.RESYNC, 9, row(6, ROW, deleted=True), mark=of.begin_read(), window="w")))
    assert (told.change_type, told.stamp_ms) == ("VANISHED", S0 + 6000)
    assert states.states[KEY].row_stamp_ms == S0 + 6000
    again = only(of.on_event(event("DELETE", 6)))
    assert (again.op, image(again.before)) == ("d", {})
    back = only(of.on_event(event("UNDELETE", 7, CREATED)))
    assert back.op == "c"


def test_the_end_of_a_record_nobody_knew_is_nothing() -> None:
    of, states = tracker()
    assert of.on_rows(rows(R.RESYNC, 9, row(6, ROW, deleted=True), missing=(OTHER,), mark=of.begin_read())) == []
    assert states.states == {}


def test_a_gap_on_a_deleted_record_is_over_when_it_is_still_gone() -> None:
    of, states = snapshot(at=1, read=2)
    of.on_event(event("DELETE", 3))
    of.on_event(event("GAP_UNDELETE", 4))
    assert states.states[KEY].stale
    assert of.on_rows(rows(R.REPAIR, 9, row(6, ROW, deleted=True), mark=of.begin_read(), window="w")) == []
    assert not states.states[KEY].stale


@pytest.mark.parametrize("found", ["missing", "deleted"])
def test_a_record_that_an_event_touched_since_the_request_is_not_gone_yet(found: str) -> None:
    of, states = snapshot(at=1, read=2)
    mark = of.begin_read()
    of.on_event(event("UNDELETE", 6, CREATED))
    gone = (RECORD,) if found == "missing" else ()
    bin_rows = [] if gone else [row(6, ROW, deleted=True)]
    assert of.on_rows(rows(R.RESYNC, 9, *bin_rows, missing=gone, mark=mark)) == []
    assert not states.states[KEY].deleted
    assert of.take_doubtful() == [KEY]


def test_a_bulk_answer_older_than_an_event_does_not_end_a_record() -> None:
    of, states = snapshot(at=1, read=2)
    of.on_event(event("UPDATE", 6, {"Status": "A"}))
    assert of.on_rows(rows(R.RESYNC, 9, row(5, ROW, deleted=True))) == []
    assert of.take_doubtful() == [KEY]
    assert of.on_rows(rows(R.RESYNC, 5, missing=(RECORD,))) == []
    assert not states.states[KEY].deleted


# Metrics and marks


def test_metrics_are_joined_and_tell_no_change() -> None:
    of, states = snapshot()
    read = MetricsRead(ENTITY, {RECORD: {"AgentHandleTime": 5.0}, OTHER: {"x": 1}}, (RECORD, OTHER), S0)
    assert of.on_metrics(read) is True
    assert of.on_metrics(read) is False
    assert states.states[KEY].metrics == {"AgentHandleTime": 5.0}
    assert set(states.states) == {KEY}
    of.on_event(event("UPDATE", 20, {"Status": "B"}))
    of.on_rows(rows(R.REFRESH, 30, row(25, ROW), mark=of.begin_read()))
    assert states.states[KEY].metrics == {"AgentHandleTime": 5.0}
    of.on_event(event("DELETE", 40))
    assert states.states[KEY].metrics is None
    assert of.on_metrics(read) is False, "a deleted record keeps no values"


def test_touches_are_forgotten_with_the_last_mark_that_needs_them() -> None:
    marks = ReadMarks()
    assert not marks.any_open
    first = marks.begin()
    marks.set_fields(KEY, ("A",), 1)
    second = marks.begin()
    marks.set_fields(KEY, ("B",), 2)
    marks.doubted(KEY, 3)
    assert marks.touched == 2
    early, late = marks.since(first, KEY), marks.since(second, KEY)
    assert early is not None
    assert late is not None
    assert (early.paths, late.paths, late.gap_ms, late.last_ms) == ({"A": 1, "B": 2}, {"B": 2}, 3, 3)
    assert marks.since(second, (ENTITY, OTHER)) is None
    marks.end(second)
    assert marks.touched == 2, "the first one needs all"
    marks.end(first)
    assert (marks.touched, marks.any_open) == (0, False)
    assert not marks.is_open(first)


def test_a_read_without_rows_ends_its_mark() -> None:
    of, _ = tracker()
    mark = of.begin_read()
    of.end_read(mark)
    of.on_event(event("UPDATE", 1, {"Status": "A"}))
    assert of._marks.touched == 0
    mark = of.begin_read()
    of.on_event(event("UPDATE", 1, {"Status": "A"}))
    assert of._marks.touched == 1
    of.on_rows(rows(R.REFRESH, 3, mark=mark))
    assert of._marks.touched == 0


def test_an_answer_of_before_a_gap_undelete_does_not_settle_it() -> None:
    of, states = snapshot(at=1, read=2)
    of.on_event(event("DELETE", 3))
    mark = of.begin_read()
    of.on_event(event("GAP_UNDELETE", 6))
    assert of.on_rows(rows(R.RESYNC, 9, missing=(RECORD,), mark=mark)) == []
    assert states.states[KEY].gap == "GAP_UNDELETE"
    assert of.take_doubtful() == [KEY]
    assert of.on_rows(rows(R.RESYNC, 4, missing=(RECORD,))) == [], "an answer that proves nothing"
    assert states.states[KEY].gap == "GAP_UNDELETE"


def test_a_gap_s_row_is_told_even_if_events_told_every_field_since() -> None:
    of, states = snapshot(at=1, read=2)
    of.on_event(event("GAP_UPDATE", 3))
    of.on_event(event("UPDATE", 4, IMAGE, changed=FIELDS))
    assert states.states[KEY].suspect == frozenset()
    told = only(of.on_rows(rows(R.REPAIR, 9, row(4, ROW), mark=of.begin_read(), window="g")))
    assert (told.op, told.repaired, told.before) == ("u", True, told.after)
    assert not states.states[KEY].stale


def test_a_row_in_the_recycle_bin_older_than_a_live_one_ends_nothing() -> None:
    of, states = snapshot(at=5, read=10)
    assert of.on_rows(rows(R.RESYNC, 12, row(4, ROW, deleted=True), mark=of.begin_read())) == []
    assert not states.states[KEY].deleted
    assert of.take_doubtful() == [KEY]
