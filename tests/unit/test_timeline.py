"""One record's life: stays, facts, life events, windows; certain only where nothing can hide."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from consumer.changes.record_ids import to_18
from consumer.tracking.coverage_report import Window
from consumer.tracking.timeline import Timeline, build, candidate_ids
from consumer.tracking.timeline_values import Change, FieldFact, State

RECORD = to_18("0Mw000000000001")
ENTITY = "MessagingSession"
T = 1_790_000_000_000
ISO_T = "2026-09-21T14:13:20.000Z"
ADA, BOB, QUEUE = "005000000000001AAA", "005000000000002AAA", "00G000000000001AAA"
FULL = {"Id": RECORD, "Status": "Waiting", "OwnerId": QUEUE, "CreatedDate": ISO_T, "CreatedById": ADA}


def change(version: int = 1, op: str = "u", at: int = 0, **values: Any) -> Change:
    kind = {"c": "CREATE", "u": "UPDATE", "d": "DELETE", "r": None}[op]
    given = Change(
        change_id=f"e{version}:{RECORD}",
        op=op,
        change_type=kind,
        stamp_ms=T + at,
        received_ms=T + at + 500,
        version=version,
        before=None if op == "c" else FULL,
        after=None if op == "d" else FULL,
        unknown=(),
        changed_fields=(),
        by=ADA,
        row=op == "r",
        event_id=None if op == "r" else f"e{version}",
    )
    return replace(given, **values)


def fact(field: str, old: Any, new: Any, at: int, **values: Any) -> FieldFact:
    given = FieldFact(
        f"{field}@{at}", 1, T + at, "s", field, old, new, "known", None, None, ADA, "pending", False, "change_event"
    )
    return replace(given, **values)


def state(**values: Any) -> State:
    return replace(State(ENTITY, FULL, (), {}, 1, False, False, None), **values)


def window(**values: Any) -> Window:
    return replace(Window("w", "changes:x", "gap_update", T + 1000, T + 1999, ENTITY, (RECORD,)), **values)


def told(changes: Any = (), facts: Any = (), state: State | None = None, windows: Any = (), **more: Any) -> Timeline:
    return build(RECORD, ENTITY, changes, facts, state, windows, **more)


def stays(of: Timeline, name: str = "Status") -> list[tuple[Any, ...]]:
    rel = [None if ms is None else ms - T for stay in of.stays[name] for ms in (stay.from_ms, stay.to_ms)]
    pairs = zip(rel[::2], rel[1::2], strict=True)
    return [(stay.value, *pair, stay.certain) for stay, pair in zip(of.stays[name], pairs, strict=True)]


def test_ids_of_15_and_18_characters_and_a_wrong_check_mean_the_same_record() -> None:
    assert candidate_ids(RECORD[:15]) == (RECORD,)
    assert candidate_ids(RECORD) == (RECORD,)
    assert RECORD in candidate_ids(RECORD[:15] + "AAA")
    assert candidate_ids(RECORD[:15] + "AAA")[0] == RECORD[:15] + "AAA", "the id as given is looked up first"


def test_an_id_whose_case_was_lost_is_put_right_by_its_check_characters() -> None:
    mixed = to_18("0MwAb000000XyzQ")
    assert mixed in candidate_ids(mixed.lower())
    assert mixed in candidate_ids(mixed.upper())


@pytest.mark.parametrize("text", ["", "0Mw", "0Mw00000000000!", RECORD + "A"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="record id"):
        candidate_ids(text)


def test_the_highest_revision_of_a_fact_wins_whatever_came_last() -> None:
    first = fact("Status", "Waiting", "Active", 10)
    last = replace(first, revision=3, match="confirmed", final=True)
    assert told(facts=[first, last, replace(first, revision=2)]).facts == (last,)


def test_facts_stand_by_time_and_creation_is_no_field_change() -> None:
    facts = [fact("B", 1, 2, 20), fact("A", 1, 2, 10), fact("created", None, None, 0)]
    of = told(facts=facts)
    assert [each.field for each in of.facts] == ["A", "B"]
    assert (of.created_ms, [each.what for each in of.life]) == (T, ["created"])


def test_status_and_owner_are_stretches_of_time_from_creation_to_now() -> None:
    of = told(
        [change(1, "c")],
        [
            fact("Status", "Waiting", "Active", 200_000),
            fact("OwnerId", QUEUE, BOB, 200_000, old_label="Queue", new_label="Bob"),
            fact("Status", "Active", "Ended", 300_000, by=BOB),
        ],
    )
    assert stays(of) == [
        ("Waiting", 0, 200_000, True),
        ("Active", 200_000, 300_000, True),
        ("Ended", 300_000, None, True),
    ]
    assert [(each.label, each.by) for each in of.stays["OwnerId"]] == [("Queue", ADA), ("Bob", ADA)]
    assert of.stays["Status"][2].by == BOB


def test_without_facts_the_value_of_creation_or_state_stays() -> None:
    assert stays(told([change(1, "c")])) == [("Waiting", 0, None, True)]
    assert stays(told(state=state())) == [("Waiting", 0, None, True)]
    undated = {"Id": RECORD, "Status": "Active"}
    since = state(image=undated, since={"Status": "2026-09-21T14:13:30.000Z"})
    assert stays(told(state=since)) == [("Active", 10_000, None, True)]
    assert told(state=state(image={"Id": RECORD})).stays == {}


def test_a_hole_between_two_facts_is_no_certainty() -> None:
    of = told([change(1, "c")], [fact("Status", "Waiting", "Active", 10), fact("Status", "Inactive", "Ended", 20)])
    assert stays(of) == [("Waiting", 0, 10, True), ("Active", 10, 20, False), ("Ended", 20, None, True)]


def test_a_state_that_says_otherwise_is_no_certainty() -> None:
    of = told([change(1, "c")], [fact("Status", "Waiting", "Active", 10)], state(image={**FULL, "Status": "Ended"}))
    assert stays(of)[-1] == ("Active", 10, None, False)


def test_facts_of_one_second_are_put_in_the_order_of_their_values() -> None:
    facts = [
        fact("Status", "Active", "Ended", 10, change_id="b"),
        fact("Status", "Waiting", "Active", 10, change_id="a"),
    ]
    created = [change(1, "c"), change(2, at=5)]
    earlier = fact("Status", "New", "Waiting", 5)
    assert [each[0] for each in stays(told(created, [earlier, *facts]))] == ["New", "Waiting", "Active", "Ended"]


def test_before_what_history_keeps_the_first_stay_has_no_beginning() -> None:
    facts = [fact("Status", "Waiting", "Active", 10)]
    assert stays(told([change(1, "c")], facts, history_from_ms=T + 1))[0] == ("Waiting", None, 10, False)
    assert stays(told([change(1, "c")], facts, history_from_ms=T))[0] == ("Waiting", 0, 10, True)


def test_a_delete_ends_the_stay_and_an_undelete_begins_another() -> None:
    undelete = change(3, "c", 300, change_type="UNDELETE", after={**FULL, "Status": "Active"})
    facts = [fact("Status", "Waiting", "Active", 10), fact("Status", "Active", "Ended", 400)]
    of = told([change(1, "c"), change(2, "d", 200), undelete], facts)
    assert stays(of) == [
        ("Waiting", 0, 10, True),
        ("Active", 10, 200, True),
        ("Active", 300, 400, True),
        ("Ended", 400, None, True),
    ]
    assert [each.what for each in of.life] == ["created", "deleted", "undeleted"]
    assert of.deleted_ms is None


@pytest.mark.parametrize(("kind", "what"), [("DELETE", "deleted"), ("GAP_DELETE", "deleted"), ("VANISHED", "vanished")])
def test_a_record_that_is_gone_has_an_end(kind: str, what: str) -> None:
    of = told([change(1, "c"), change(2, "d", 200, change_type=kind)])
    assert (of.deleted_ms, of.life[-1].what, stays(of)) == (T + 200, what, [("Waiting", 0, 200, True)])


CLOSED = {"closed_ms": T + 9000, "restored": frozenset({"state", "deletes", "tracked_history"})}


@pytest.mark.parametrize(
    ("values", "certain"),
    [
        ({}, False),
        ({**CLOSED, "restored": frozenset({"state", "deletes"})}, False),
        ({**CLOSED, "unrecoverable_fields": ("Status",)}, False),
        ({**CLOSED, "unrecoverable_fields": ("AgentCount",)}, True),
        (CLOSED, True),
        ({**CLOSED, "restored": frozenset({"state", "deletes", "tracked_history", "all_changes"})}, True),
        ({"record_ids": ("0Mw000000000009AAA",)}, True),
        ({"record_ids": (), "entity": "Case"}, True),
        ({"record_ids": (), "entity": None}, False),
        ({"from_ms": None, "to_ms": T}, True),
        ({"from_ms": T + 2000, "to_ms": T + 3000}, True),
    ],
)
def test_a_stay_in_which_a_window_may_hide_a_value_is_not_certain(values: dict[str, Any], certain: bool) -> None:
    facts = [fact("Status", "Waiting", "Active", 2000)]
    of = told([change(1, "c")], facts, windows=[window(**values)])
    assert stays(of)[0][3] is certain


def test_windows_outside_of_the_records_life_and_those_that_lack_nothing_are_not_shown() -> None:
    gone = [change(1, "c", 0), change(2, "d", 5000)]
    whole = window(window_id="all", closed_ms=1, restored=frozenset({"all_changes"}))
    before = window(window_id="before", from_ms=None, to_ms=T)
    bin_ms = 15 * 86_400_000
    after = window(window_id="after", from_ms=T + 5001 + bin_ms, to_ms=T + 6000 + bin_ms)
    assert [each.window_id for each in told(gone, windows=[before, window(), after, whole]).windows] == ["w"]


def test_changes_stand_by_version_and_repeats_count_once() -> None:
    of = told([change(2, at=10), change(1, "c"), change(2, at=10)])
    assert [each.version for each in of.changes] == [1, 2]


def test_without_history_the_change_records_tell_the_fields() -> None:
    moved = change(
        2, at=10, after={**FULL, "Status": "Active", "Address": {"City": "Ulm"}},
        before={**FULL, "Address": {"City": None}},
        changed_fields=("Status", "Address.City", "LastModifiedDate", "Secret"),
    )  # fmt: skip
    late = change(3, at=5, late=True, changed_fields=("Status",))
    of = told([change(1, "c"), moved, late])
    assert [(each.field, each.old, each.new, each.values, each.match) for each in of.facts] == [
        ("Status", "Waiting", "Active", "known", None),
        ("Address.City", None, "Ulm", "known", None),
        ("Secret", None, None, "not_stored", None),
    ]
    with_history = told([change(1, "c"), moved], [fact("Status", "Waiting", "Active", 10)])
    assert [each.field for each in with_history.facts] == ["Status"], "never both"


def test_a_repaired_creation_is_dated_by_the_record_not_by_its_row() -> None:
    row = change(1, "c", 90_000, row=True, event_id=None)
    assert told([row]).created_ms == T
    assert told([replace(row, after={"Id": RECORD})]).created_ms is None
    assert told([change(1, "c", 7, after={"Id": RECORD})]).created_ms == T + 7
