"""What events do to images: before and after, what is known and what is not, and which fields changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consumer.events import ChangeEvent
from consumer.tracking.changes import TrackedChange
from consumer.tracking.tracker import Tracker
from consumer.tracking.values import EntityFacts
from tests.tracking_values import (
    ENTITY,
    FACTS,
    FIELDS,
    KEY,
    OTHER,
    RECORD,
    S0,
    MemoryStates,
    event,
    facts_of,
    image,
    tracker,
)

CREATED = {"Name": "MS-1", "Status": "New", "OwnerId": "00G1", "LastModifiedDate": "d0"}
NULLS = {"EndTime": None, "Notes__c": None, "Address": None}
LONG = "\n".join(f"line {number:02d} abcdefghijklmnopqrstuvwxyz" for number in range(1, 41))
LONGER = LONG.replace("line 02 abcdefghijklmnopqrstuvwxyz", "line 02 CHANGED")
DIFF = (
    "--- \n+++ c0365f3283537c094a11f3158b6f985bb881b16fef4cc6dd667f3b25e7816a7c\n"
    "@@ -2,1 +2,1 @@\n-line 02 abcdefghijklmnopqrstuvwxyz\n+line 02 CHANGED"
)


def one(of: Tracker, change: ChangeEvent) -> TrackedChange:
    """Take in an event of one record."""
    (told,) = of.on_event(change)
    return told


def started(**values: object) -> tuple[Tracker, MemoryStates]:
    """Return a tracker that has seen the record's CREATE."""
    made, states = tracker()
    one(made, event("CREATE", 0, {**CREATED, **values}))
    return made, states


def test_a_create_tells_every_field_it_can_carry() -> None:
    of, states = tracker()
    told = one(of, event("CREATE", 5, CREATED))
    assert (told.op, told.change_type, told.before, told.version) == ("c", "CREATE", None, 1)
    assert image(told.after) == {**CREATED, **NULLS}
    assert told.unknown_fields == ("AgentMessageCount",)
    assert (told.before_kind, told.after_kind) == ("none", "partial")
    assert facts_of(told) == [("created", None, None)]
    assert told.change_id == f"event-CREATE-5:{RECORD}"
    assert told.stamp_ms == S0 + 5000
    state = states.states[KEY]
    assert state.image_json == told.after
    assert state.since == {"Status": "2026-09-21T14:13:25.000Z", "OwnerId": "2026-09-21T14:13:25.000Z"}
    assert list(image(told.after)) == [name for name in FIELDS if name != "AgentMessageCount"]


def test_before_facts_are_known_a_silent_field_of_a_create_is_unknown() -> None:
    of, _ = tracker(facts=None)
    told = one(of, event("CREATE", 0, CREATED))
    assert image(told.after) == CREATED
    assert told.unknown_fields == ("EndTime", "Notes__c", "Address", "AgentMessageCount")


def test_fields_that_the_user_may_not_see_are_unknown_when_a_create_is_silent() -> None:
    of, _ = tracker(facts=EntityFacts(ENTITY, visible=frozenset(FIELDS) - {"Notes__c"}))
    told = one(of, event("CREATE", 0, {**CREATED, "AgentMessageCount": 3}))
    assert told.unknown_fields == ("Notes__c",)
    assert image(told.after)["AgentMessageCount"] == 3


def test_a_field_of_another_schema_than_the_create_s_is_unknown() -> None:
    of, _ = tracker()
    of.learn(ENTITY, (*FIELDS, "New__c"))
    of.set_facts(EntityFacts(ENTITY, visible=frozenset((*FIELDS, "New__c"))))
    told = one(of, event("CREATE", 0, CREATED))
    assert told.unknown_fields == ("New__c",)


def test_an_update_moves_only_what_it_says_and_its_before_is_the_after_before() -> None:
    of, states = started()
    created = states.states[KEY].image_json
    told = one(of, event("UPDATE", 9, {"Status": "Active", "EndTime": None, "LastModifiedDate": "d1"}))
    assert (told.op, told.change_type, told.version) == ("u", "UPDATE", 2)
    assert told.before == created
    assert image(told.after) == {**CREATED, **NULLS, "Status": "Active", "LastModifiedDate": "d1"}
    assert told.after == states.states[KEY].image_json
    assert facts_of(told) == [("Status", "New", "Active"), ("EndTime", "?", None)]
    assert states.states[KEY].since == {"Status": "2026-09-21T14:13:29.000Z", "OwnerId": "2026-09-21T14:13:20.000Z"}
    source = states.states[KEY].source
    assert source is not None
    assert (source.epoch, source.commit_number, source.sequence_number, source.commit_ms) == (0, 7, 1, S0 + 9000)


def test_a_nulled_field_is_a_known_null() -> None:
    of, _ = started(Notes__c="x")
    told = one(of, event("UPDATE", 1, {"Notes__c": None}))
    assert image(told.after)["Notes__c"] is None
    assert facts_of(told) == [("Notes__c", "x", None)]


def test_an_update_of_an_unknown_record_knows_only_what_it_carries() -> None:
    of, _ = tracker()
    told = one(of, event("UPDATE", 0, {"Status": "Active", "Address": {"City": None}}))
    assert image(told.before) == {}
    assert (told.before_kind, told.after_kind) == ("none", "partial")
    assert image(told.after) == {"Status": "Active", "Address": {"City": None}}
    assert told.unknown_fields == (
        "Name",
        "OwnerId",
        "EndTime",
        "Notes__c",
        "Address.*",
        "AgentMessageCount",
        "LastModifiedDate",
    )
    assert facts_of(told) == [("Status", "?", "Active"), ("Address.City", "?", None)]
    again = one(of, event("UPDATE", 1, {"Status": "Ended"}))
    assert again.before == told.after
    assert facts_of(again) == [("Status", "Active", "Ended")]


def test_an_update_of_all_fields_is_a_full_image() -> None:
    of, _ = tracker()
    values = {**CREATED, **NULLS, "AgentMessageCount": 1}
    told = one(of, event("UPDATE", 0, values))
    assert (told.after_kind, told.unknown_fields) == ("full", ())


def test_enrichment_is_a_value_but_no_change() -> None:
    of, _ = started()
    told = one(of, event("UPDATE", 1, {"Status": "Active", "AgentMessageCount": 4}, changed=("Status",)))
    assert image(told.after)["AgentMessageCount"] == 4
    assert facts_of(told) == [("Status", "New", "Active")]
    assert told.unknown_fields == ()


def test_enrichment_that_runs_ahead_does_not_swallow_the_change_that_follows() -> None:
    of, states = started()
    ahead = one(of, event("UPDATE", 1, {"Notes__c": "n", "Status": "Ended", "OwnerId": "00G1"}, changed=("Notes__c",)))
    assert image(ahead.after)["Status"] == "Ended"
    assert facts_of(ahead) == [("Notes__c", None, "n")]
    assert states.states[KEY].ahead == {"Status"}
    assert "Status" not in states.states[KEY].since
    late = one(of, event("UPDATE", 2, {"Status": "Ended"}))
    assert facts_of(late) == [("Status", "?", "Ended")]
    assert states.states[KEY].ahead == frozenset()
    assert states.states[KEY].since["Status"] == "2026-09-21T14:13:22.000Z"


def test_a_change_to_the_value_we_know_already_had_another_one_before_that_nobody_told() -> None:
    of, _ = started()
    told = one(of, event("UPDATE", 1, {"Status": "New", "OwnerId": "005"}))
    assert facts_of(told) == [("Status", "?", "New"), ("OwnerId", "00G1", "005")]
    assert told.version == 2


def test_parts_of_a_compound_are_merged_and_told_one_by_one() -> None:
    of, _ = started(Address={"Street": "A 1", "City": "Bern"})
    told = one(of, event("UPDATE", 1, {"Address": {"City": "Basel", "Zip": "4000"}}))
    assert image(told.after)["Address"] == {"Street": "A 1", "City": "Basel", "Zip": "4000"}
    assert facts_of(told) == [("Address.City", "Bern", "Basel"), ("Address.Zip", None, "4000")]
    told = one(of, event("UPDATE", 2, {"Address": {"City": None}}))
    assert image(told.after)["Address"] == {"Street": "A 1", "Zip": "4000"}
    assert facts_of(told) == [("Address.City", "Basel", None)]
    told = one(of, event("UPDATE", 3, {"Address": {"Street": None, "Zip": None}}))
    assert image(told.after)["Address"] is None
    told = one(of, event("UPDATE", 4, {"Address": {"City": "Chur"}}))
    assert image(told.after)["Address"] == {"City": "Chur"}
    assert facts_of(told) == [("Address.City", None, "Chur")]
    assert told.after_kind == "partial"
    assert told.unknown_fields == ("AgentMessageCount",)


def test_a_compound_of_which_parts_are_unknown_stays_incomplete() -> None:
    of, states = tracker()
    one(of, event("UPDATE", 0, {"Address": {"City": "Bern"}}))
    told = one(of, event("UPDATE", 1, {"Address": {"City": None, "Zip": "1"}}))
    assert image(told.after)["Address"] == {"City": None, "Zip": "1"}
    assert facts_of(told) == [("Address.City", "Bern", None), ("Address.Zip", "?", "1")]
    assert states.states[KEY].incomplete == {"Address"}
    assert "Address.*" in told.unknown_fields
    told = one(of, event("UPDATE", 2, {"Address": {"Street": "S"}}, changed=("Address",)))
    assert image(told.after)["Address"] == {"Street": "S"}
    assert states.states[KEY].incomplete == frozenset()
    assert "Address.*" not in told.unknown_fields


def test_a_compound_s_text_form_replaces_its_parts_and_the_other_way_round() -> None:
    of, _ = started(Name={"First": "A", "Last": "B"})
    told = one(of, event("UPDATE", 1, {"Name": "ACME"}))
    assert image(told.after)["Name"] == "ACME"
    assert facts_of(told) == [("Name", {"First": "A", "Last": "B"}, "ACME")]
    told = one(of, event("UPDATE", 2, {"Name": {"First": "C"}}, changed=("Name",)))
    assert image(told.after)["Name"] == {"First": "C"}
    assert facts_of(told) == [("Name", "ACME", {"First": "C"})]
    told = one(of, event("UPDATE", 3, {"Name": {"First": "D", "Last": None}}, changed=("Name",)))
    assert image(told.after)["Name"] == {"First": "D"}
    assert facts_of(told) == [("Name.First", "C", "D")]


def test_enrichment_of_a_compound_is_merged() -> None:
    of, states = started(Address={"City": "Bern"})
    told = one(of, event("UPDATE", 1, {"Status": "A", "Address": {"Zip": "3"}}, changed=("Status",)))
    assert image(told.after)["Address"] == {"City": "Bern", "Zip": "3"}
    assert states.states[KEY].incomplete == frozenset()
    other, states = tracker()
    one(other, event("UPDATE", 1, {"Status": "A", "Address": {"Zip": "3"}}, changed=("Status",)))
    assert states.states[KEY].incomplete == {"Address"}


def test_a_diff_is_applied_and_never_enters_an_image() -> None:
    of, _ = started(Notes__c=LONG)
    told = one(of, event("UPDATE", 1, {"Notes__c": DIFF}, diffs=("Notes__c",)))
    assert image(told.after)["Notes__c"] == LONGER
    assert facts_of(told) == [("Notes__c", LONG, LONGER)]
    assert of.take_doubtful() == []


@pytest.mark.parametrize("old", [LONG + "?", None])
def test_a_diff_of_another_text_puts_the_field_in_doubt(old: str | None) -> None:
    of, states = started(Notes__c=old)
    told = one(of, event("UPDATE", 1, {"Notes__c": DIFF, "Status": "A"}, diffs=("Notes__c",)))
    assert "Notes__c" not in image(told.after)
    assert "Notes__c" in told.unknown_fields
    assert facts_of(told) == [("Notes__c", old, "?"), ("Status", "New", "A")]
    assert states.states[KEY].suspect == {"Notes__c"}
    assert states.states[KEY].image["Notes__c"] == old
    assert of.take_doubtful() == [KEY]
    assert of.take_doubtful() == []
    again = one(of, event("UPDATE", 2, {"Notes__c": DIFF}, diffs=("Notes__c",)))
    assert facts_of(again) == [("Notes__c", "?", "?")], "a suspect text is no ground for a diff"
    back = one(of, event("UPDATE", 3, {"Notes__c": "whole"}))
    assert image(back.after)["Notes__c"] == "whole"
    assert facts_of(back) == [("Notes__c", "?", "whole")]
    assert not states.states[KEY].stale


def test_a_diff_for_an_unknown_text_is_unknown_and_doubtful() -> None:
    of, states = tracker()
    told = one(of, event("UPDATE", 1, {"Notes__c": DIFF}, diffs=("Notes__c",)))
    assert image(told.after) == {}
    assert told.after_kind == "none"
    assert facts_of(told) == [("Notes__c", "?", "?")]
    assert of.take_doubtful() == [KEY]
    assert states.states[KEY].suspect == frozenset()


def test_a_diff_in_a_part_puts_the_compound_in_doubt() -> None:
    of, states = started(Address={"Street": "x", "City": "y"})
    told = one(of, event("UPDATE", 1, {"Address": {"Street": DIFF}}, diffs=("Address.Street",)))
    assert "Address" not in image(told.after)
    assert states.states[KEY].suspect == {"Address"}


def test_a_change_whose_value_is_held_back_puts_the_field_in_doubt() -> None:
    of, _ = started(Notes__c="hash of the old text")
    told = one(of, event("UPDATE", 1, {"Status": "A"}, changed=("Notes__c", "Status")))
    assert "Notes__c" in told.unknown_fields
    assert of.take_doubtful() == [KEY]


def test_a_delete_tells_the_last_image_and_empties_the_state() -> None:
    of, states = started()
    last = states.states[KEY].image_json
    told = one(of, event("DELETE", 3))
    assert (told.op, told.before, told.after, told.before_kind, told.after_kind) == ("d", last, None, "partial", "none")
    assert told.unknown_fields == ("AgentMessageCount",)
    assert told.fields == ()
    state = states.states[KEY]
    assert (state.deleted, state.deleted_ms, state.version, dict(state.image)) == (True, S0 + 3000, 2, {})
    again = one(of, event("GAP_DELETE", 4))
    assert (again.op, again.change_type, again.version, image(again.before)) == ("d", "GAP_DELETE", 3, {})


def test_a_delete_of_an_unknown_record_tells_its_id() -> None:
    of, states = tracker()
    told = one(of, event("DELETE", 3))
    assert (told.op, image(told.before), told.before_kind) == ("d", {}, "none")
    assert told.unknown_fields == FIELDS
    assert states.states[KEY].deleted


def test_an_undelete_begins_a_new_image_and_goes_on_counting() -> None:
    of, states = started(Notes__c="old")
    one(of, event("DELETE", 3))
    told = one(of, event("UNDELETE", 4, {**CREATED, "Status": "Ended"}))
    assert (told.op, told.change_type, told.before, told.version) == ("c", "UNDELETE", None, 3)
    assert image(told.after) == {**CREATED, **NULLS, "Status": "Ended"}
    assert told.fields == ()
    assert not states.states[KEY].deleted
    assert states.states[KEY].since["Status"] == "2026-09-21T14:13:24.000Z"


def test_an_update_of_a_deleted_record_does_not_bring_the_old_image_back() -> None:
    of, states = started()
    one(of, event("DELETE", 3))
    told = one(of, event("UPDATE", 4, {"Status": "A"}))
    assert (told.op, image(told.before), image(told.after), told.version) == ("u", {}, {"Status": "A"}, 3)
    assert not states.states[KEY].deleted


def test_a_create_of_a_known_record_keeps_what_it_cannot_tell() -> None:
    of, states = started()
    one(of, event("UPDATE", 1, {"AgentMessageCount": 5}))
    told = one(of, event("CREATE", 2, CREATED))
    assert image(told.after)["AgentMessageCount"] == 5
    assert states.states[KEY].version == 3


def test_a_merged_event_moves_each_record_by_itself() -> None:
    of, states = started()
    both = of.on_event(event("UPDATE", 1, {"Status": "A"}, record_ids=(RECORD, OTHER)))
    assert [(told.record_id, told.record_index, told.version) for told in both] == [(RECORD, 0, 2), (OTHER, 1, 1)]
    assert image(both[0].after)["Name"] == "MS-1"
    assert image(both[1].after) == {"Status": "A"}
    assert len(states.states) == 2


@pytest.mark.parametrize("kind", ["GAP_CREATE", "GAP_UPDATE", "GAP_UNDELETE", "MERGE", "SNAPSHOT"])
def test_a_gap_puts_every_field_in_doubt_and_tells_nothing(kind: str) -> None:
    of, states = started()
    assert of.on_event(event(kind, 1, record_ids=(RECORD, OTHER))) == []
    state = states.states[KEY]
    assert state.stale
    assert (state.gap, state.version, image(state.image_json)) == (kind, 1, {})
    assert state.image["Status"] == "New", "the last known value is kept for the repair"
    assert state.suspect == frozenset(state.image)
    unheard = states.states[ENTITY, OTHER]
    assert (unheard.gap, unheard.version, unheard.unknown) == (kind, 0, FIELDS)
    assert unheard.stale


def test_events_flow_while_a_record_is_in_doubt() -> None:
    of, states = started(Address={"City": "Bern", "Zip": "3"})
    of.on_event(event("GAP_UPDATE", 1))
    told = one(of, event("UPDATE", 2, {"Status": "A", "Address": {"City": "Chur"}}))
    assert (image(told.before), told.before_kind) == ({}, "none")
    assert image(told.after) == {"Status": "A", "Address": {"City": "Chur"}}
    assert told.unknown_fields == (
        "Name",
        "OwnerId",
        "EndTime",
        "Notes__c",
        "Address.*",
        "AgentMessageCount",
        "LastModifiedDate",
    )
    assert facts_of(told) == [("Status", "?", "A"), ("Address.City", "?", "Chur")]
    assert states.states[KEY].stale
    following = one(of, event("UPDATE", 3, {"Status": "B"}))
    assert following.before == told.after
    assert facts_of(following) == [("Status", "A", "B")]


def test_a_create_after_a_gap_tells_everything_again() -> None:
    of, states = started()
    of.on_event(event("GAP_UNDELETE", 1))
    one(of, event("UNDELETE", 2, CREATED))
    assert not states.states[KEY].stale
    assert image(states.states[KEY].image_json) == {**CREATED, **NULLS}


def test_a_first_gap_create_is_not_forgotten_for_a_later_gap_update() -> None:
    of, states = tracker()
    of.on_event(event("GAP_CREATE", 1))
    of.on_event(event("GAP_UPDATE", 2))
    assert states.states[KEY].gap == "GAP_CREATE"


def test_an_overflow_names_no_record() -> None:
    of, states = tracker()
    assert of.on_event(event("GAP_OVERFLOW", 1)) == []
    assert states.states == {}


def test_a_new_field_is_unknown_and_a_removed_one_leaves_with_the_next_change() -> None:
    of, states = started(Notes__c="n")
    last = states.states[KEY].image_json
    fields = (*(name for name in FIELDS if name != "Notes__c"), "New__c")
    of.learn(ENTITY, fields)
    told = one(of, event("UPDATE", 1, {"Status": "A"}, fields=fields))
    assert told.before == last
    assert "Notes__c" not in image(told.after)
    assert told.unknown_fields == ("AgentMessageCount", "New__c")
    older = one(of, event("UPDATE", 2, {"Status": "B", "Notes__c": "again"}))
    assert "Notes__c" not in image(older.after), "an event with the older schema does not bring the field back"
    assert facts_of(older) == [("Status", "A", "B")]


def test_the_first_event_of_an_object_teaches_its_fields() -> None:
    of = Tracker(MemoryStates())
    assert one(of, event("UPDATE", 1, {"Status": "A"})).unknown_fields == tuple(
        name for name in FIELDS if name != "Status"
    )


def test_facts_of_an_object_nobody_described_are_none() -> None:
    of, _ = tracker()
    assert of.facts("Other") == EntityFacts("Other")
    assert of.facts(ENTITY) == FACTS


def test_the_epoch_stands_in_the_source_version() -> None:
    of, states = tracker(epoch=3)
    one(of, event("UPDATE", 1, {"Status": "A"}))
    source = states.states[KEY].source
    assert source is not None
    assert source.epoch == 3


def test_last_modified_is_no_fact_of_history() -> None:
    of, _ = started()
    told = one(of, event("UPDATE", 1, {"LastModifiedDate": "d9"}))
    assert told.fields == ()
    assert image(told.after)["LastModifiedDate"] == "d9"


def test_expired_states_are_removed_but_not_of_records_that_came_back() -> None:
    of, states = started()
    one(of, event("DELETE", 1, record_ids=(OTHER,)))
    of.on_expired(ENTITY, (RECORD, OTHER, "0Mw000000000009AAA"))
    assert set(states.states) == {KEY}


def test_an_image_without_doubt_is_not_replaced_in_place() -> None:
    of, states = started()
    first = states.states[KEY]
    values = dict(first.image)
    one(of, event("UPDATE", 1, {"Status": "A", "Address": {"City": "x"}}))
    assert first.image == values
    assert replace(first).image is first.image


def test_a_new_field_that_comes_at_once_does_not_hide_another_new_one() -> None:
    of, _ = started(Notes__c="n")
    fields = (*(name for name in FIELDS if name != "Notes__c"), "New__c", "Newer__c")
    of.learn(ENTITY, fields)
    told = one(of, event("UPDATE", 1, {"New__c": 1}, fields=fields))
    assert told.unknown_fields == ("AgentMessageCount", "Newer__c")


# Events out of quarantine


@pytest.mark.parametrize(("at", "late"), [(4, True), (5, True), (6, False)])
def test_an_event_out_of_quarantine_that_is_not_newer_than_the_image_moves_nothing(at: int, late: bool) -> None:
    """It comes out of its order: the image has moved on, and a reader must never go back."""
    of, states = tracker()
    one(of, event("CREATE", 1, {"Name": "MS-1", "Status": "New"}))
    one(of, event("UPDATE", 5, {"Status": "Active"}))
    told = one(of, event("UPDATE", at, {"Status": "Waiting"}, window_id="quarantine:e", event_id="again"))
    assert told.late is late
    assert image(told.after)["Status"] == ("Active" if late else "Waiting")
    assert states.states[KEY].image["Status"] == ("Active" if late else "Waiting")
    if late:
        assert told.late_values == {"Status": "Waiting"}
        assert "Status" not in image(told.before), "what it was before is not known"
        assert facts_of(told) == [("Status", "?", "Waiting")]


def test_an_event_on_the_normal_path_moves_the_image_even_in_the_second_of_the_last_one() -> None:
    of, states = tracker()
    one(of, event("CREATE", 5, {"Status": "New"}))
    told = one(of, event("UPDATE", 5, {"Status": "Active"}))
    assert (told.late, states.states[KEY].image["Status"]) == (False, "Active")


def test_a_delete_out_of_quarantine_does_not_take_away_what_came_after_it() -> None:
    of, states = tracker()
    one(of, event("CREATE", 1, {"Status": "New"}))
    one(of, event("UNDELETE", 5, {"Status": "Active"}))
    told = one(of, event("DELETE", 4, window_id="quarantine:e"))
    assert (told.op, told.late, told.after) == ("d", True, None)
    assert not states.states[KEY].deleted


def test_an_event_out_of_quarantine_is_not_late_for_a_record_nothing_is_known_of() -> None:
    of, states = tracker()
    told = one(of, event("UPDATE", 4, {"Status": "Active"}, window_id="quarantine:e"))
    assert (told.late, states.states[KEY].image["Status"]) == (False, "Active")
