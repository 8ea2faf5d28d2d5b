"""History facts: told by events, confirmed by rows, settled by time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from consumer.tracking.arrivals import HistoryRead
from consumer.tracking.changes import TrackedChange
from consumer.tracking.history import HistoryTracker
from consumer.tracking.values import (
    EntityFacts,
    FieldChange,
    HistoryFact,
    HistoryRow,
    Key,
    LedgerEntry,
    Match,
    Refresh,
)
from tests.delivery_values import RECORD

ENTITY = "MessagingSession"
KEY = (ENTITY, RECORD)
AT = 1_790_000_000_000
MINUTE = 60_000
USER = "005000000000008AAA"
A, B = "005000000000001AAA", "005000000000002AAA"
FACTS = EntityFacts(
    ENTITY,
    visible=frozenset({"Status", "OwnerId", "Notes__c", "Free__c"}),
    tracked=frozenset({"Status", "Owner", "Notes__c"}),
    no_values=frozenset({"Notes__c"}),
    lookups=frozenset({"OwnerId"}),
    has_history=True,
)


class Ledger:
    """The ledger part of the store."""

    def __init__(self) -> None:
        self.entries: dict[Key, LedgerEntry] = {}
        self.writes = 0

    def ledger(self, key: Key) -> LedgerEntry | None:
        return self.entries.get(key)

    def put_ledger(self, entry: LedgerEntry) -> None:
        self.writes += 1
        self.entries[entry.entity, entry.record_id] = entry


class Desk:
    """A tracker with short words for what comes."""

    def __init__(self, facts: EntityFacts | None = FACTS) -> None:
        self.ledger = Ledger()
        self.facts = facts
        self.tracker: Any = HistoryTracker(self.ledger, confirm_within_ms=10 * MINUTE, overlap_ms=5 * MINUTE)  # type: ignore[arg-type]

    def event(self, *fields: FieldChange, event_id: str | None = "e1", at: int = AT, **more: Any) -> list[HistoryFact]:
        change_id = f"{event_id}:{RECORD}" if event_id else f"row:{RECORD}:{at}:w1"
        change = TrackedChange(
            RECORD, 0, change_id, "u", "UPDATE", b"{}", b"{}", "full", "full", (), 1, at, fields=fields, **more
        )
        facts: list[HistoryFact] = self.tracker.on_change(
            ENTITY, change, self.facts, event_id=event_id, commit_ms=at, user=USER, seen_ms=at
        )
        return facts

    def rows(self, *rows: HistoryRow, backfill: bool = False, answered: int = AT + MINUTE) -> list[HistoryFact]:
        facts: list[HistoryFact] = self.tracker.on_rows(
            HistoryRead(ENTITY, rows, None, answered, backfill=backfill), self.facts
        )
        return facts

    def settle(self, after: int, *, complete: int | None = None, stream: int | None = None) -> list[HistoryFact]:
        now = AT + after
        facts: list[HistoryFact] = self.tracker.settle(
            ENTITY,
            [KEY],
            complete_to_ms=now if complete is None else AT + complete,
            stream_to_ms=now if stream is None else AT + stream,
            now_ms=now,
            facts=self.facts,
        )
        return facts

    @property
    def kept(self) -> tuple[HistoryFact, ...]:
        entry = self.ledger.entries.get(KEY)
        return () if entry is None else entry.facts


def row(number: int, field: str, old: Any, new: Any, *, at: int = AT, kind: str = "Text", by: str = USER) -> HistoryRow:
    return HistoryRow(f"017{number:012d}AAA", RECORD, field, kind, old, new, at, by)


def owner_rows(old: str | None, new: str | None, at: int = AT, number: int = 1) -> tuple[HistoryRow, HistoryRow]:
    names = [None if value is None else f"name of {value}" for value in (old, new)]
    return row(number, "Owner", old, new, kind="EntityId", at=at), row(number + 50, "Owner", *names, at=at)


def set_status(old: Any = "Waiting", new: Any = "Active") -> FieldChange:
    return FieldChange("Status", old, new)


def one(facts: list[HistoryFact]) -> HistoryFact:
    assert len(facts) == 1
    return facts[0]


def test_an_event_tells_at_once_and_its_row_confirms() -> None:
    desk = Desk()
    told = one(desk.event(set_status()))
    assert told.change_id == f"e1:{RECORD}:Status"
    assert (told.match, told.final, told.revision, told.precision) == (Match.PENDING, False, 1, "ms")
    confirmed = one(desk.rows(row(1, "Status", "Waiting", "Active", kind="DynamicEnum")))
    assert (confirmed.change_id, confirmed.revision) == (told.change_id, 2)
    assert (confirmed.match, confirmed.final, confirmed.value_type) == (Match.CONFIRMED, True, "DynamicEnum")
    assert desk.rows(row(1, "Status", "Waiting", "Active")) == []


def test_the_same_event_again_says_nothing() -> None:
    desk = Desk()
    assert len(desk.event(set_status())) == 1
    assert desk.event(set_status()) == []


def test_audit_fields_are_no_history() -> None:
    assert Desk().event(FieldChange("LastModifiedDate", None, "x"), FieldChange("LastModifiedById", None, A)) == []


def test_a_field_that_is_not_tracked_is_final_at_once() -> None:
    fact = one(Desk().event(FieldChange("Free__c", 1, 2)))
    assert (fact.match, fact.final) == (Match.NOT_TRACKED, True)


def test_without_tracking_nothing_is_remembered() -> None:
    desk = Desk(replace(FACTS, tracked=frozenset()))
    assert {fact.match for fact in desk.event(set_status(), FieldChange("created", None, None))} == {Match.NOT_TRACKED}
    assert desk.ledger.writes == 0


def test_created_is_tracked_when_anything_is() -> None:
    desk = Desk()
    assert one(desk.event(FieldChange("created", None, None))).match is Match.PENDING
    confirmed = one(desk.rows(row(1, "created", None, None)))
    assert (confirmed.match, confirmed.values, confirmed.final) == (Match.CONFIRMED, "known", True)


def test_a_field_switched_on_meanwhile_is_not_told_twice() -> None:
    desk = Desk()
    desk.event(FieldChange("Free__c", "a", "b"))
    assert desk.rows(row(1, "Free__c", "a", "b")) == []


def test_a_row_without_an_event_stands_alone_and_an_event_takes_it_over() -> None:
    desk = Desk()
    alone = one(desk.rows(row(1, "Status", "Waiting", "Active")))
    assert (alone.change_id, alone.match, alone.final) == ("row:017000000000001AAA", Match.ROW_ONLY, False)
    joined = one(desk.event(set_status()))
    assert (joined.change_id, joined.revision) == (alone.change_id, 2)
    assert (joined.match, joined.final, joined.event_id) == (Match.CONFIRMED, True, "e1")
    assert desk.settle(120 * MINUTE) == []
    assert desk.kept == ()


def test_a_row_is_final_once_the_stream_is_past_it() -> None:
    desk = Desk()
    desk.rows(row(1, "Status", "Waiting", "Active"))
    assert desk.settle(60 * MINUTE, stream=10 * MINUTE) == []
    final = one(desk.settle(60 * MINUTE, stream=11 * MINUTE))
    assert (final.match, final.final, final.revision) == (Match.ROW_ONLY, True, 2)


def test_an_event_after_a_final_row_says_nothing() -> None:
    desk = Desk()
    desk.rows(row(1, "Status", "Waiting", "Active"))
    desk.settle(60 * MINUTE, complete=0, stream=11 * MINUTE)
    assert desk.event(set_status()) == []
    assert len(desk.event(set_status(), event_id="e2")) == 1


@pytest.mark.parametrize(
    ("after", "complete"), [(10 * MINUTE - 1, 9 * MINUTE), (60 * MINUTE, 1000)], ids=["too young", "rows not read"]
)
def test_a_fact_waits_for_its_row(after: int, complete: int) -> None:
    desk = Desk()
    desk.event(set_status())
    assert desk.settle(after, complete=complete) == []


def test_without_a_row_a_fact_is_event_only() -> None:
    desk = Desk()
    desk.event(set_status())
    final = one(desk.settle(10 * MINUTE, complete=1001))
    assert (final.match, final.final, final.revision) == (Match.EVENT_ONLY, True, 2)
    assert desk.rows(row(1, "Status", "Waiting", "Active")) == [], "a row that comes after all makes no second fact"


def test_a_fact_seen_late_waits_from_then() -> None:
    desk = Desk()
    desk.event(set_status(), at=AT - 60 * MINUTE)
    entry = desk.ledger.entries[KEY]
    desk.ledger.entries[KEY] = replace(entry, facts=(replace(entry.facts[0], seen_ms=AT),))
    assert desk.settle(9 * MINUTE) == []
    assert one(desk.settle(10 * MINUTE)).match is Match.EVENT_ONLY


def test_tracking_switched_off_settles_what_waits() -> None:
    desk = Desk(None)
    assert one(desk.event(set_status())).match is Match.PENDING
    desk.facts = replace(FACTS, tracked=frozenset({"Owner"}))
    fact = one(desk.settle(0))
    assert (fact.match, fact.final) == (Match.NOT_TRACKED, True)


def test_final_facts_are_forgotten_after_two_overlaps_and_the_refresh_stays() -> None:
    desk = Desk()
    refresh = Refresh(AT, 0, "ended")
    desk.ledger.entries[KEY] = LedgerEntry(*KEY, (), refresh)
    desk.event(set_status())
    desk.rows(row(1, "Status", "Waiting", "Active"))
    desk.settle(10 * MINUTE)
    assert len(desk.kept) == 1
    desk.settle(10 * MINUTE + 1)
    assert desk.ledger.entries[KEY].facts == ()
    assert desk.ledger.entries[KEY].refresh == refresh


def test_the_two_rows_of_a_lookup_are_one_fact() -> None:
    desk = Desk()
    desk.event(FieldChange("OwnerId", A, B))
    ids, names = owner_rows(A, B)
    fact = one(desk.rows(names, ids))
    assert (fact.revision, fact.final, fact.match) == (2, True, Match.CONFIRMED)
    assert (fact.old, fact.new, fact.old_label, fact.new_label) == (A, B, f"name of {A}", f"name of {B}")
    assert fact.history_ids == (ids.history_id, names.history_id)


@pytest.mark.parametrize("names_first", [True, False])
def test_a_lookup_s_rows_may_come_in_different_polls(names_first: bool) -> None:
    desk = Desk()
    desk.event(FieldChange("OwnerId", A, B))
    ids, names = owner_rows(A, B)
    first, second = (names, ids) if names_first else (ids, names)
    half = one(desk.rows(first))
    assert (half.match, half.final, half.revision) == (Match.CONFIRMED, False, 2)
    whole = one(desk.rows(second))
    assert (whole.final, whole.revision, whole.new_label) == (True, 3, f"name of {B}")
    assert whole.history_ids == (ids.history_id, names.history_id)


def test_names_seen_first_keep_their_change_id() -> None:
    desk = Desk()
    ids, names = owner_rows(A, B)
    first = one(desk.rows(names))
    assert (first.change_id, first.values, first.old) == (f"row:{names.history_id}", "not_stored", None)
    second = one(desk.rows(ids))
    assert (second.change_id, second.old, second.new, second.values) == (first.change_id, A, B, "known")
    assert second.old_label == f"name of {A}"


def test_a_lookup_whose_names_never_come_is_final_in_the_end() -> None:
    desk = Desk()
    desk.event(FieldChange("OwnerId", A, B))
    desk.rows(owner_rows(A, B)[0])
    assert desk.settle(9 * MINUTE) == []
    fact = one(desk.settle(10 * MINUTE))
    assert (fact.match, fact.final, fact.old_label) == (Match.CONFIRMED, True, None)


def test_names_of_one_second_that_can_t_be_told_apart_are_left_out() -> None:
    desk = Desk()
    desk.event(FieldChange("OwnerId", A, B))
    desk.event(FieldChange("OwnerId", B, A), event_id="e2")
    facts = desk.rows(*owner_rows(A, B, number=1), *owner_rows(B, A, number=2))
    assert [(fact.old, fact.new, fact.old_label, fact.final) for fact in facts] == [
        (A, B, None, True),
        (B, A, None, True),
    ]


def test_names_of_one_second_are_told_apart_by_nulls() -> None:
    desk = Desk()
    facts = desk.rows(*owner_rows(None, B, number=1), *owner_rows(B, A, number=2))
    assert [(fact.old_label, fact.new_label) for fact in facts] == [
        (None, f"name of {B}"),
        (f"name of {B}", f"name of {A}"),
    ]


def test_toggles_within_a_second_are_matched_as_a_multiset() -> None:
    desk = Desk()
    for number, (old, new) in enumerate([("a", "b"), ("b", "a"), ("a", "b")]):
        desk.event(set_status(old, new), event_id=f"e{number}")
    facts = desk.rows(row(3, "Status", "b", "a"), row(2, "Status", "a", "b"), row(1, "Status", "a", "b"))
    assert sorted((f.old, f.new) for f in facts) == [("a", "b"), ("a", "b"), ("b", "a")]
    assert {fact.match for fact in facts} == {Match.CONFIRMED}
    assert len({fact.history_ids for fact in facts}) == 3


def test_the_nearest_second_is_taken_first_and_nothing_beyond_one() -> None:
    desk = Desk()
    desk.event(set_status(), event_id="early", at=AT - 1000)
    desk.event(set_status(), event_id="exact")
    assert one(desk.rows(row(1, "Status", "Waiting", "Active"))).event_id == "exact"
    assert one(desk.rows(row(2, "Status", "Waiting", "Active", at=AT + 1000))).match is Match.ROW_ONLY


def test_rows_take_other_facts_when_that_serves_them_all() -> None:
    desk = Desk()
    desk.event(set_status(), event_id="early", at=AT - 1000)
    desk.event(set_status(), event_id="late")
    facts = desk.rows(row(1, "Status", "Waiting", "Active"), row(2, "Status", "Waiting", "Active", at=AT + 1000))
    assert {fact.event_id for fact in facts} == {"early", "late"}


def test_an_old_value_that_was_not_known_comes_from_the_row() -> None:
    desk = Desk()
    told = one(desk.event(FieldChange("Status", "guess", "Active", old_known=False)))
    assert (told.values, told.old) == ("old_unknown", None)
    fact = one(desk.rows(row(1, "Status", "Waiting", "Active")))
    assert (fact.values, fact.old, fact.match) == ("known", "Waiting", Match.CONFIRMED)


def test_an_old_value_from_a_stale_image_is_corrected_by_the_row() -> None:
    desk = Desk()
    desk.event(set_status("stale", "Active"))
    fact = one(desk.rows(row(1, "Status", "Waiting", "Active")))
    assert (fact.old, fact.match) == ("Waiting", Match.CONFIRMED)


def test_long_text_is_confirmed_by_a_row_without_values() -> None:
    desk = Desk()
    desk.event(FieldChange("Notes__c", "old text", "new text"))
    fact = one(desk.rows(row(1, "Notes__c", None, None, kind="StringPlusClob")))
    assert (fact.values, fact.old, fact.new, fact.final) == ("known", "old text", "new text", True)
    assert one(desk.rows(row(2, "Notes__c", None, None, at=AT + MINUTE))).values == "not_stored"


def test_cut_values_are_compared_by_what_is_left() -> None:
    desk = Desk()
    desk.event(set_status("a", "x" * 300))
    fact = one(desk.rows(row(1, "Status", "a", "x" * 255)))
    assert (fact.match, fact.new, fact.values) == (Match.CONFIRMED, "x" * 300, "known")
    alone = one(desk.rows(row(2, "Status", "x" * 255, "b", at=AT + MINUTE)))
    assert alone.values == "truncated_255"


def test_special_fields_are_facts_of_their_own() -> None:
    desk = Desk()
    desk.event(FieldChange("OwnerId", A, B))
    fact = one(desk.rows(row(1, "ownerAccepted", None, None)))
    assert (fact.field, fact.match, fact.final, fact.values) == ("ownerAccepted", Match.ROW_ONLY, True, "known")


def test_a_row_with_the_same_value_twice_says_nothing_unless_it_is_masked() -> None:
    desk = Desk()
    assert desk.rows(row(1, "Status", "Active", "Active")) == []
    assert one(desk.rows(row(2, "Status", "***", "***"))).match is Match.ROW_ONLY


def test_backfill_is_final_and_old_rows_are_not_remembered() -> None:
    desk = Desk()
    old = row(1, "Status", "New", "Waiting", at=AT - 80 * 3_600_000)
    young = row(2, "Status", "Waiting", "Active")
    facts = desk.rows(old, young, backfill=True)
    assert {(fact.match, fact.final) for fact in facts} == {(Match.BACKFILL, True)}
    assert [fact.history_ids for fact in desk.kept] == [(young.history_id,)]
    assert desk.event(set_status()) == [], "an event that is delivered again is the same change"


def test_backfill_confirms_what_an_event_told() -> None:
    desk = Desk()
    desk.event(set_status())
    assert one(desk.rows(row(1, "Status", "Waiting", "Active"), backfill=True)).match is Match.CONFIRMED


def test_resync_tells_only_what_is_not_tracked() -> None:
    desk = Desk()
    change = (FieldChange("Free__c", "a", "b"), set_status())
    fact = one(desk.event(*change, event_id=None, window_id="w1"))
    assert fact.change_id == f"resync:{RECORD}:{AT}:w1:Free__c"
    assert (fact.origin, fact.match, fact.final, fact.window_id) == ("resync", Match.NOT_TRACKED, True, "w1")
    assert Desk(None).event(*change, event_id=None) == []
    assert desk.ledger.writes == 0


def test_a_second_row_of_the_same_change_in_one_answer_counts_once() -> None:
    desk = Desk()
    again = row(1, "Status", "Waiting", "Active")
    assert len(desk.rows(again, again)) == 1


def test_a_row_with_another_new_value_is_another_change() -> None:
    desk = Desk()
    desk.event(set_status("Waiting", "Active"))
    assert one(desk.rows(row(1, "Status", "Active", "Ended"))).match is Match.ROW_ONLY


def test_an_event_leaves_names_alone_that_can_t_be_its_own() -> None:
    desk = Desk()
    desk.rows(owner_rows(None, A)[1])
    assert one(desk.event(FieldChange("OwnerId", A, None))).match is Match.PENDING
    assert one(desk.event(FieldChange("OwnerId", None, A), event_id="e2")).revision == 2


def test_a_final_row_without_names_stays_final_when_its_event_comes() -> None:
    desk = Desk()
    desk.rows(owner_rows(A, B)[0])
    assert one(desk.settle(60 * MINUTE, complete=2000)).final
    assert desk.event(FieldChange("OwnerId", A, B)) == []
    assert desk.settle(120 * MINUTE, complete=2000) == []
    assert desk.rows(owner_rows(A, B)[1]) == [], "nothing follows a final revision"


def test_names_alone_beside_another_change_wait_for_their_ids() -> None:
    desk = Desk()
    ids, names = owner_rows(B, None, number=2)
    desk.rows(owner_rows(A, B)[0], owner_rows(A, B)[1])
    assert desk.rows(names) == []
    assert one(desk.rows(ids, names)).old_label == f"name of {B}"


def test_names_that_were_another_change_s_are_let_go() -> None:
    desk = Desk()
    desk.event(FieldChange("OwnerId", A, B))
    early, late = owner_rows(A, B), owner_rows(B, A, at=AT + 1000, number=2)
    assert one(desk.rows(late[1])).new_label == f"name of {A}"
    fact = one(desk.rows(early[0]))
    assert (fact.new, fact.new_label, fact.history_ids) == (B, None, (early[0].history_id,))
    facts = desk.rows(*early, *late)
    assert {(fact.new, fact.new_label) for fact in facts} == {(B, f"name of {B}"), (A, f"name of {A}")}


def test_a_commit_time_within_its_second_counts_as_the_second() -> None:
    desk = Desk()
    desk.event(set_status(), at=AT + 900)
    assert one(desk.rows(row(1, "Status", "Waiting", "Active", at=AT - 1000))).match is Match.CONFIRMED


def test_ids_leave_names_alone_that_can_t_be_theirs() -> None:
    desk = Desk()
    desk.rows(owner_rows(None, A)[1])
    ids = owner_rows(A, None, number=2)[0]
    assert one(desk.rows(ids)).change_id == f"row:{ids.history_id}"


def test_names_read_alone_are_withdrawn_when_two_changes_could_have_them() -> None:
    desk = Desk()
    desk.rows(owner_rows(A, B)[1])
    facts = desk.rows(owner_rows(A, B)[0], owner_rows(B, A, number=2)[0])
    assert {(fact.new, fact.new_label) for fact in facts} == {(B, None), (A, None)}


def test_a_fact_takes_one_row_of_names() -> None:
    desk = Desk()
    desk.event(FieldChange("OwnerId", A, B))
    desk.rows(owner_rows(A, B)[1])
    assert desk.rows(owner_rows(B, A, number=2)[1]) == []
    assert one(desk.rows(owner_rows(A, B)[0])).new_label == f"name of {B}"


def test_a_row_is_remembered_until_the_stream_is_past_it() -> None:
    desk = Desk()
    desk.rows(row(1, "Status", "Waiting", "Active"), backfill=True)
    desk.settle(60 * MINUTE, stream=1000)
    assert desk.event(set_status()) == [], "told by the back-fill"
    desk.settle(60 * MINUTE, stream=1001)
    assert desk.kept == ()
