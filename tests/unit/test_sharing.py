"""Share rows as read become grants, revocations and level changes, each with the interval in which it happened."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consumer.tracking.access import Grantee, ShareCause, ShareFact, ShareRow, SharesDue
from consumer.tracking.arrivals import RecordShares
from consumer.tracking.changes import TrackedChange
from consumer.tracking.sharing import READ_AFTER_MS, READ_BY_MS, SharingTracker, strongest, unresolved
from consumer.tracking.timeline_values import time_of
from consumer.tracking.values import FieldChange
from tests.sharing_values import (
    OTHER_REP,
    QUEUE,
    REP,
    SETTLE,
    TEAM,
    SharingStates,
    brief,
    changed_owner,
    due_of,
    known,
    modified,
    owe,
    owned_by,
    owner_row,
    row,
    tracker,
    whole,
)
from tests.tracking_values import ENTITY, KEY, RECORD, S0


def looked_at(subject: SharingTracker, *at: int, owner: ShareRow | None = None) -> None:
    """Read the record, which only has its owner's row, in sweeps of a moment."""
    for second in at:
        subject.on_read(whole(owner or owner_row(QUEUE), at=second))
        subject.on_read(replace(whole(at=second + 2, swept_from=second), records=()))


def test_a_first_reading_is_the_baseline_and_says_that_nobody_knows_since_when() -> None:
    states = SharingStates()
    told = tracker(states).on_read(whole(owner_row(QUEUE), row(TEAM), at=10, cause=ShareCause.BASELINE))
    assert brief(told) == [("granted", QUEUE, "All", None, 12), ("granted", TEAM, "Read", None, 12)]
    assert {fact.cause for fact in told} == {ShareCause.BASELINE}
    access = known(states)
    assert access.complete
    assert access.as_of_ms == S0 + 10_000
    assert [share.key for share in access.shares] == [(QUEUE, "Owner"), (TEAM, "Rule")]


def test_two_sightings_of_one_fact_are_told_once() -> None:
    states = SharingStates()
    subject = tracker(states)
    read = whole(owner_row(QUEUE), at=10)
    assert len(subject.on_read(read)) == 1
    assert subject.on_read(read) == []
    assert subject.on_read(replace(read, asked_ms=S0 + 60_000, answered_ms=S0 + 62_000)) == []
    assert tracker(states).on_read(read) == [], "nor by the next generation"


def test_a_row_made_anew_without_any_change_tells_nothing_but_its_new_id_is_known() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE), row(TEAM, share=1), at=10))
    assert subject.on_read(whole(owner_row(QUEUE), row(TEAM, share=7, at=50), at=60)) == []
    assert known(states).shares[1].share_id == row(TEAM, share=7).share_id


def test_a_grant_lies_between_the_last_whole_readings_and_the_answer() -> None:
    states = SharingStates()
    subject = tracker(states)
    looked_at(subject, 10, 60, 110)
    told = subject.on_read(whole(owner_row(QUEUE), row(TEAM, at=130), at=140))
    assert brief(told) == [("granted", TEAM, "Read", 10, 142)]


@pytest.mark.parametrize("looks", [(10,), (10, 60), (10, 15, 60)], ids=["one", "two", "two, one of them twice"])
def test_two_readings_are_no_proof_that_a_row_was_not_there_but_one_is_of_an_owners(looks: tuple[int, ...]) -> None:
    """A recalculation may have had the row away just then, and makes it anew; it leaves owners' rows alone."""
    states = SharingStates()
    subject = tracker(states)
    looked_at(subject, *looks)
    told = subject.on_read(whole(owner_row(QUEUE), row(TEAM, at=62), owner_row(REP, at=40), at=70))
    assert brief(told) == [("granted", TEAM, "Read", None, 72), ("granted", REP, "All", 10, 72)]


def test_a_sweep_and_what_it_read_of_the_record_are_one_reading() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE), at=90))
    subject.on_read(replace(whole(at=120, swept_from=10), records=()))
    looked_at(subject, 190)
    told = subject.on_read(whole(owner_row(QUEUE), row(TEAM, at=192), at=240))
    assert brief(told) == [("granted", TEAM, "Read", None, 242)]


def test_a_sweep_that_was_through_before_the_record_was_read_is_another_reading() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(replace(whole(at=20, swept_from=10), records=()))
    subject.on_read(whole(owner_row(QUEUE), at=90))
    looked_at(subject, 190)
    told = subject.on_read(whole(owner_row(QUEUE), row(TEAM, at=192), at=240))
    assert brief(told) == [("granted", TEAM, "Read", 10, 242)]


def test_a_long_sweep_is_no_proof_beside_what_was_read_soon_after_its_end() -> None:
    """It may have read the record at its end, and the polls asked in between were before that."""
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(modified(at=3_000, polled=3_000))
    subject.on_read(modified(at=3_300, polled=3_300))
    subject.on_read(whole(owner_row(QUEUE), at=3_600))
    subject.on_read(replace(whole(at=3_602, swept_from=0), records=()))
    states.put_access(replace(known(states), as_of_ms=S0 + 3_609_000))
    told = subject.on_read(modified(row(TEAM, at=3_612), at=3_900))
    assert brief(told) == [("granted", TEAM, "Read", None, 3_902)]


def test_a_row_that_nobody_knows_the_time_of_is_no_older_than_its_record() -> None:
    states = SharingStates()
    subject = tracker(states)
    created = "2026-09-20T10:00:00.000Z"
    states.put(replace(owned_by(QUEUE), image={"OwnerId": QUEUE, "CreatedDate": created}))
    first = subject.on_read(whole(owner_row(QUEUE), at=10))
    assert first[0].not_before_ms is None, "what was there when it was read first"
    (fact,) = subject.on_read(whole(owner_row(QUEUE), row(REP, "Manual", at=40), at=60))
    assert fact.not_before_ms == time_of(created)


def test_polls_that_come_faster_than_the_settle_time_prove_something_together() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE), at=10))
    for at in range(40, 200, 20):
        subject.on_read(modified(at=at, polled=at))
    told = subject.on_read(modified(row(TEAM, at=190), at=200))
    assert brief(told) == [("granted", TEAM, "Read", 80, 202)]


def test_polls_from_before_the_first_whole_reading_prove_nothing() -> None:
    """They brought what was modified lately; the row is only as new as it looks because it was made anew."""
    states = SharingStates()
    subject = tracker(states)
    for at in (10, 50, 90):
        subject.on_read(modified(at=at, polled=at))
    subject.on_read(whole(owner_row(QUEUE), at=130))
    told = subject.on_read(whole(owner_row(QUEUE), row(TEAM, at=132), at=140))
    assert brief(told) == [("granted", TEAM, "Read", None, 142)]


def test_a_complete_sweep_speaks_for_all_records_from_its_beginning() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE), at=10))
    puts = states.puts
    subject.on_read(whole(owner_row(QUEUE), at=100))
    assert states.puts == puts, "a sweep that finds everything as it was writes nothing"
    subject.on_read(replace(whole(at=120, swept_from=90), records=()))
    subject.on_read(replace(whole(at=220, swept_from=190), records=()))
    told = subject.on_read(whole(owner_row(QUEUE), row(TEAM, at=230), at=240))
    assert brief(told) == [("granted", TEAM, "Read", 10, 242)], "two readings that missed it prove little"
    subject.on_read(replace(whole(at=320, swept_from=290), records=()))
    told = subject.on_read(whole(owner_row(QUEUE), row(TEAM), row(REP, "Manual", at=330), at=340))
    assert brief(told) == [("granted", REP, "Read", 90, 342)], "nor do two that overlap"


def test_a_poll_that_would_have_seen_the_row_narrows_the_interval() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE), at=10))
    for at in (300, 400, 500):
        subject.on_read(modified(at=at, polled=at))
    assert brief(subject.on_read(modified(row(TEAM, at=580), at=700))) == [("granted", TEAM, "Read", 300, 702)]


def test_a_row_that_is_older_than_the_polls_reach_is_not_narrowed() -> None:
    """It came late, and the poll could not have seen it."""
    states = SharingStates()
    subject = tracker(states)
    looked_at(subject, 10, 60, 110)
    subject.on_read(modified(at=930, polled=920))
    subject.on_read(modified(at=1000, polled=970))
    told = subject.on_read(whole(owner_row(QUEUE), row(TEAM, at=600), at=1100))
    assert brief(told) == [("granted", TEAM, "Read", 10, 1102)]


def test_a_changed_level_tells_both_levels() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE), row(TEAM, level="Read"), at=10))
    (fact,) = subject.on_read(whole(owner_row(QUEUE), row(TEAM, level="Edit", at=30), at=60))
    assert (fact.kind, fact.previous_access_level, fact.access_level) == ("level_changed", "Read", "Edit")
    assert brief([fact])[0][3:] == (10, 62)
    assert fact.changed_by == row(TEAM).modified_by
    assert known(states).shares[1].access_level == "Edit"


@pytest.mark.parametrize(("polls", "since"), [((200, 300), 10), ((100, 200, 300), 100)])
def test_two_polls_that_saw_no_other_level_prove_nothing(polls: tuple[int, ...], since: int) -> None:
    """The row may have been away at both."""
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE), row(TEAM, level="Read"), at=10))
    for at in polls:
        subject.on_read(modified(at=at, polled=at))
    (fact,) = subject.on_read(modified(row(TEAM, level="Edit", at=310), at=400))
    assert brief([fact]) == [("level_changed", TEAM, "Edit", since, 402)]


def test_a_revocation_is_told_by_a_third_read_each_a_settle_time_after_the_one_before() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE), row(TEAM), at=10))
    assert subject.on_read(whole(owner_row(QUEUE), at=60)) == []
    due = due_of(states)
    assert due == SharesDue(S0 + 62_000 + SETTLE, ShareCause.SWEEP)
    assert subject.on_read(whole(owner_row(QUEUE), at=80)) == [], "too soon"
    assert due_of(states) is not None
    assert subject.on_read(whole(owner_row(QUEUE), at=95, cause=None)) == [], "two recalculations in a row would do it"
    assert due_of(states) == SharesDue(S0 + 97_000 + SETTLE, ShareCause.SWEEP)
    assert subject.on_read(whole(owner_row(QUEUE), at=120)) == [], "too soon after the second"
    told = subject.on_read(whole(owner_row(QUEUE), at=128, cause=None))
    assert brief(told) == [("revoked", TEAM, "Read", 10, 130)]
    assert told[0].cause is ShareCause.SWEEP
    assert due_of(states) is None
    assert [share.key for share in known(states).shares] == [(QUEUE, "Owner")]


def test_a_row_that_was_only_away_for_a_moment_was_never_revoked() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE), row(TEAM, share=1), at=10))
    subject.on_read(whole(owner_row(QUEUE), at=60))
    assert subject.on_read(whole(owner_row(QUEUE), row(TEAM, share=2, at=70), at=95, cause=None)) == []
    assert due_of(states) is None
    # Should it go later, it was there at least until it was seen again.
    subject.on_read(whole(owner_row(QUEUE), at=200))
    subject.on_read(whole(owner_row(QUEUE), at=240))
    told = subject.on_read(whole(owner_row(QUEUE), at=280))
    assert brief(told) == [("revoked", TEAM, "Read", 95, 282)]


def test_a_poll_that_shows_a_missed_row_as_it_was_says_that_it_is_there() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE), row(TEAM), at=10))
    subject.on_read(whole(owner_row(QUEUE), at=60))
    assert subject.on_read(modified(row(TEAM), at=80)) == []
    assert known(states).shares[1].missing_ms is None


def test_a_poll_owes_all_rows_of_a_record_of_which_a_cut_record_kept_only_some() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE), row(TEAM), at=10))
    states.put_access(replace(known(states), shares=known(states).shares[:1], complete=False))
    assert subject.on_read(modified(owner_row(QUEUE), at=80)) == []
    assert due_of(states) is not None


def test_two_recalculations_in_a_row_that_two_readings_meet_revoke_nothing() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE), row(TEAM, share=1), at=10))
    assert subject.on_read(whole(owner_row(QUEUE), at=60)) == []
    assert subject.on_read(whole(owner_row(QUEUE), at=95)) == []
    assert subject.on_read(whole(owner_row(QUEUE), row(TEAM, share=2, at=97), at=128, cause=None)) == []
    assert due_of(states) is None
    # What was missed before it came back says nothing of the next time.
    assert subject.on_read(whole(owner_row(QUEUE), at=200)) == []
    assert subject.on_read(whole(owner_row(QUEUE), at=240)) == []


def test_a_sweep_that_ends_between_the_reads_does_not_move_the_time_a_row_was_last_there() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE), row(TEAM), at=10))
    subject.on_read(whole(owner_row(QUEUE), at=60))
    subject.on_read(replace(whole(at=90, swept_from=50), records=()))
    subject.on_read(whole(owner_row(QUEUE), at=95))
    assert brief(subject.on_read(whole(owner_row(QUEUE), at=130))) == [("revoked", TEAM, "Read", 10, 132)]


def test_a_row_of_a_rule_that_goes_with_an_owner_change_needs_no_third_read() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE, share=1), row(TEAM), at=10))
    states.put(owned_by(REP))
    owe(states, changed_owner(50))
    subject.on_read(whole(owner_row(REP, share=2, at=50), at=54, cause=None))
    told = subject.on_read(whole(owner_row(REP, share=2, at=50), at=90, cause=None))
    assert brief(told) == [("revoked", QUEUE, "All", 50, 56), ("revoked", TEAM, "Read", 10, 92)]
    assert due_of(states) is None


def test_whether_a_row_went_with_an_owner_and_came_back_with_the_next_or_was_recalculated_nobody_saw() -> None:
    states = SharingStates()
    subject = tracker(states)
    looked_at(subject, 10)
    subject.on_read(whole(owner_row(QUEUE), row(TEAM), at=12))
    told = went_at_50_and_back(subject, states, row(TEAM, share=2, at=60), changed=True)
    assert brief(told) == [("unseen", None, None, 12, 66)]
    lower = row(TEAM, level="Edit", share=3, at=62)
    assert brief(subject.on_read(whole(owner_row(QUEUE), lower, at=80))) == [("level_changed", TEAM, "Edit", 64, 82)]


def test_a_loss_is_explained_by_an_owner_change_whose_event_comes_later() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE), row(TEAM), at=12))
    subject.on_read(whole(owner_row(QUEUE), at=52))
    owe(states, changed_owner(50))
    subject.on_read(whole(owner_row(QUEUE), at=56, cause=None))
    owe(states, changed_owner(60))
    told = subject.on_read(whole(owner_row(QUEUE), row(TEAM, share=2, at=60), at=64, cause=None))
    assert brief(told) == [("unseen", None, None, 12, 66)]


def test_a_loss_that_an_owner_change_explains_later_needs_two_reads() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE), row(TEAM), at=12))
    subject.on_read(whole(owner_row(QUEUE), at=52))
    owe(states, changed_owner(50))
    told = subject.on_read(whole(owner_row(QUEUE), at=90, cause=None))
    assert brief(told) == [("revoked", TEAM, "Read", 12, 92)]


@pytest.mark.parametrize(
    ("back", "changed"),
    [(row(TEAM, share=2, at=57), True), (row(TEAM, share=2, at=60), False)],
    ids=["older than the change that may have brought it", "gone without a change"],
)
def test_a_row_that_a_recalculation_had_away_beside_an_owner_change_was_never_revoked(
    back: ShareRow, changed: bool
) -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE), row(TEAM), at=12))
    assert went_at_50_and_back(subject, states, back, changed=changed) == []


def went_at_50_and_back(
    subject: SharingTracker, states: SharingStates, back: ShareRow, *, changed: bool
) -> list[ShareFact]:
    """Miss the team's row, maybe after an owner change, and return what its coming back after another one tells."""
    if changed:
        owe(states, changed_owner(50))
    subject.on_read(whole(owner_row(QUEUE), at=54, cause=None))
    owe(states, changed_owner(60))
    return [
        fact
        for fact in subject.on_read(whole(owner_row(QUEUE), back, at=64, cause=None))
        if fact.user_or_group_id != QUEUE
    ]


def test_an_owner_change_is_one_grant_and_one_revocation_in_the_second_of_the_event() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE, share=1), at=10))
    states.put(owned_by(REP))
    owe(states, changed_owner(50))
    granted = subject.on_read(whole(owner_row(REP, share=2, at=50), at=54, cause=None))
    assert brief(granted) == [("granted", REP, "All", 50, 56)]
    assert granted[0].cause is ShareCause.OWNER_CHANGE
    revoked = subject.on_read(whole(owner_row(REP, share=2, at=50), at=90, cause=None))
    assert brief(revoked) == [("revoked", QUEUE, "All", 50, 56)]
    assert revoked[0].cause is ShareCause.OWNER_CHANGE
    assert revoked[0].changed_by == REP
    assert due_of(states) is None


def test_a_new_record_had_no_share_before_it_was_created() -> None:
    states = SharingStates()
    subject = tracker(states)
    states.put(owned_by(QUEUE))
    owe(states, changed_owner(50, created=True))
    told = subject.on_read(whole(owner_row(QUEUE, at=50), row(TEAM, at=50), at=54, cause=None))
    assert brief(told) == [("granted", QUEUE, "All", 50, 56), ("granted", TEAM, "Read", 50, 56)]


def test_a_row_of_another_owner_than_the_event_told_is_not_narrowed_by_it() -> None:
    """A further owner change, whose event has not come yet, is in the rows already."""
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE, share=1), at=10))
    states.put(owned_by(REP))
    owe(states, changed_owner(50))
    told = subject.on_read(whole(owner_row(OTHER_REP, share=3, at=53), at=54, cause=None))
    assert brief(told) == [("granted", OTHER_REP, "All", 10, 56)]


def test_what_nobody_saw_between_several_owner_changes_is_said() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE, share=1), row(TEAM), at=10))
    states.put(owned_by(QUEUE))
    owe(states, changed_owner(50, 53))
    told = subject.on_read(whole(owner_row(QUEUE, share=4, at=53), row(TEAM, share=5, at=53), at=57, cause=None))
    assert brief(told) == [("unseen", None, None, 50, 54)]
    assert due_of(states) is None


def test_what_was_between_changes_that_a_reading_had_before_their_events_came_is_unseen_too() -> None:
    """The reading shows the last owner only: who it was in between, nobody saw."""
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(REP, share=4), at=60))
    owe(states, changed_owner(50, 53))
    told = subject.on_read(whole(owner_row(REP, share=4), at=70, cause=None))
    assert brief(told) == [("unseen", None, None, 50, 54)]


def test_several_owner_changes_within_one_second_are_unseen() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE, share=1), at=10))
    owe(states, changed_owner(50, 50))
    told = subject.on_read(whole(owner_row(QUEUE, share=3, at=50), at=57, cause=None))
    assert brief(told) == [("unseen", None, None, 50, 51)]


def test_what_a_read_may_not_have_of_several_owner_changes_is_unseen_from_the_first() -> None:
    """The first of two reads may show either owner: it is no proof of who it was before."""
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE, share=1), at=10))
    owe(states, changed_owner(50, 53))
    told = subject.on_read(whole(owner_row(QUEUE, share=3, at=53), at=53))
    assert brief(told) == [("unseen", None, None, 50, 54)]
    assert due_of(states) is not None, "it may not have the last change"
    assert subject.on_read(whole(owner_row(QUEUE, share=3, at=53), at=57, cause=None)) == [], "that is told"
    assert due_of(states) is None


def test_changes_of_one_second_that_two_reads_tell_of_are_two_facts() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE, share=1), at=10))
    owe(states, changed_owner(50, 50))
    first = subject.on_read(whole(owner_row(QUEUE, share=3, at=50), at=50))
    owe(states, changed_owner(50, 50, 50))
    second = subject.on_read(whole(owner_row(QUEUE, share=3, at=50), at=57, cause=None))
    assert brief(first) == brief(second) == [("unseen", None, None, 50, 51)]
    assert first[0].fact_id != second[0].fact_id


def test_an_owner_that_came_back_with_the_first_change_may_have_gone_with_a_later_one() -> None:
    """Nobody saw that it was away, so that its share is as old as before."""
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE, share=1), at=10))
    subject.on_read(whole(owner_row(QUEUE, share=3, at=50), at=49))
    owe(states, changed_owner(50, 60))
    subject.on_read(whole(owner_row(REP, share=4, at=60), at=64, cause=None))
    told = subject.on_read(whole(owner_row(REP, share=4, at=60), at=120, cause=None))
    assert brief(told) == [("revoked", QUEUE, "All", 50, 66)]


def test_an_owner_that_came_with_the_first_change_may_have_gone_with_a_later_one() -> None:
    """A read that was under way when the owner changed showed the new one; it went with a later change."""
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE, share=1), at=10))
    states.put(owned_by(REP))
    owe(states, changed_owner(50))
    subject.on_read(whole(owner_row(REP, share=2, at=50), at=50, cause=None))
    states.put(owned_by(OTHER_REP))
    owe(states, changed_owner(50, 60))
    subject.on_read(whole(owner_row(OTHER_REP, share=3, at=60), at=64, cause=None))
    told = subject.on_read(whole(owner_row(OTHER_REP, share=3, at=60), at=120, cause=None))
    assert brief(told) == [("revoked", QUEUE, "All", 50, 52), ("revoked", REP, "All", 50, 66)]


def test_a_read_that_may_not_have_the_change_leaves_it_owed() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE, share=1), at=10))
    owe(states, changed_owner(50))
    subject.on_read(whole(owner_row(QUEUE, share=1), at=50, cause=None))
    due = due_of(states)
    assert due is not None
    assert due.last_ms == S0 + 50_000


def test_a_share_that_went_and_came_back_with_the_owner_is_told_as_both() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE, share=1), at=10))
    states.put(owned_by(REP))
    owe(states, changed_owner(50))
    subject.on_read(whole(owner_row(REP, share=2, at=50), at=54, cause=None))
    states.put(owned_by(QUEUE))
    owe(states, changed_owner(60))
    told = subject.on_read(whole(owner_row(QUEUE, share=3, at=60), at=64, cause=None))
    assert brief(told) == [("revoked", QUEUE, "All", 50, 56), ("granted", QUEUE, "All", 60, 66)]
    told = subject.on_read(whole(owner_row(QUEUE, share=3, at=60), at=110, cause=None))
    assert brief(told) == [("revoked", REP, "All", 60, 66)]


def test_a_single_row_of_a_poll_is_told_and_makes_the_whole_due() -> None:
    states = SharingStates()
    subject = tracker(states)
    told = subject.on_read(modified(row(TEAM), at=10))
    assert brief(told) == [("granted", TEAM, "Read", None, 12)]
    assert not known(states).complete
    assert {fact.cause for fact in told} == {ShareCause.BASELINE}
    due = due_of(states)
    assert due is not None
    assert due.cause is ShareCause.BASELINE
    assert brief(subject.on_read(whole(owner_row(QUEUE), row(TEAM), at=14, cause=None))) == [
        ("granted", QUEUE, "All", None, 16)
    ]
    assert known(states).complete


def test_a_poll_says_nothing_of_rows_it_does_not_have() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE), row(TEAM), at=10))
    assert subject.on_read(modified(row(REP, "Manual", at=40), at=50)) != []
    assert len(known(states).shares) == 3
    assert due_of(states) is None


def test_a_deleted_records_shares_are_revoked_and_then_forgotten() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE), at=10))
    states.put(owned_by(QUEUE, deleted=True))
    owe(states, SharesDue(S0 + 53_000, ShareCause.RECORD_DELETED, S0 + 50_000, S0 + 50_000, 1, by=REP))
    assert subject.on_read(whole(at=54, cause=None)) == []
    told = subject.on_read(whole(at=90, cause=None))
    assert brief(told) == [("revoked", QUEUE, "All", 50, 56)]
    assert told[0].cause is ShareCause.RECORD_DELETED
    assert states.access(KEY) is None
    assert states.ledger(KEY) is None


def test_a_live_record_without_any_row_is_known_to_have_none() -> None:
    states = SharingStates()
    states.put(owned_by(QUEUE))
    assert tracker(states).on_read(whole(at=10)) == []
    assert known(states).complete
    assert known(states).shares == ()


def test_the_grantee_is_named_as_soon_as_it_is_resolved() -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE), at=10))
    queue = Grantee("Queue", "Support")
    assert subject.on_read(whole(owner_row(QUEUE), at=20, grantees={QUEUE: queue})) == []
    assert known(states).shares[0].grantee == queue
    subject.on_read(whole(owner_row(QUEUE), at=30))
    assert known(states).shares[0].grantee == queue, "nor is it forgotten where it can't be resolved again"


def test_the_id_of_a_fact_does_not_depend_on_when_it_was_read() -> None:
    ids = []
    for at in (60, 75):
        states = SharingStates()
        subject = tracker(states)
        subject.on_read(whole(owner_row(QUEUE), row(TEAM, level="Read"), at=10))
        told = subject.on_read(whole(row(TEAM, level="Edit", at=30), row(REP, "Manual", at=31), at=at))
        told += subject.on_read(whole(row(TEAM, level="Edit", at=30), row(REP, "Manual", at=31), at=at + 60))
        ids.append([fact.fact_id for fact in told])
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 3


def test_where_the_time_of_a_row_may_not_be_read_everything_else_is_told() -> None:
    states = SharingStates()
    subject = tracker(states)
    looked_at(subject, 10, 60, 110, owner=replace(owner_row(QUEUE), modified_ms=None, modified_by=None))
    bare = replace(row(TEAM), modified_ms=None, modified_by=None)
    told = subject.on_read(whole(replace(owner_row(QUEUE), modified_ms=None, modified_by=None), bare, at=150))
    assert brief(told) == [("granted", TEAM, "Read", 10, 152)]
    assert told[0].changed_by is None


def test_of_two_rows_of_one_identity_the_stronger_counts() -> None:
    weak, strong = row(TEAM, level="Read", share=1), row(TEAM, level="Edit", share=2)
    assert strongest([weak, strong]) == strongest([strong, weak]) == {strong.key: strong}


def test_unresolved_grantees_are_listed_once() -> None:
    rows = [row(TEAM), row(TEAM, "Manual"), row(REP)]
    assert unresolved(rows, {REP: Grantee("User")}) == [TEAM]


# What makes a read due


def change(
    op: str = "u", *, at: int = 50, fields: tuple[str, ...] = ("OwnerId",), kind: str | None = "UPDATE", **more: object
) -> TrackedChange:
    told = tuple(FieldChange(name, "a", "b") for name in fields)
    given: dict[str, object] = {
        "before": None if op == "c" else b"{}",
        "after": b"{}",
        "changed_fields": None,
        **more,
    }
    return TrackedChange(
        RECORD,
        0,
        "id",
        op,
        kind,
        given["before"],
        given["after"],
        "full",
        "full",
        (),
        1,
        S0 + at * 1000,  # type: ignore[arg-type]
        changed_fields=given["changed_fields"],
        fields=told,  # type: ignore[arg-type]
    )


def test_an_owner_change_makes_a_read_due_some_seconds_later() -> None:
    due = SharingTracker.owed(change(), None, REP, event=True)
    assert due == SharesDue(S0 + 50_000 + READ_AFTER_MS, ShareCause.OWNER_CHANGE, S0 + 50_000, S0 + 50_000, 1, by=REP)


def test_other_changes_make_none_due() -> None:
    assert SharingTracker.owed(change(fields=("Status",)), None, REP, event=True) is None
    assert SharingTracker.owed(change("r", kind=None, before=None), None, None, event=False) is None


def test_creation_and_deletion_make_one_due() -> None:
    created = SharingTracker.owed(change("c", kind="CREATE", fields=()), None, REP, event=True)
    assert created is not None
    assert created.created
    undeleted = SharingTracker.owed(change("c", kind="UNDELETE", fields=()), None, REP, event=True)
    assert undeleted is not None
    assert not undeleted.created, "its shares were known before it was deleted"
    deleted = SharingTracker.owed(change("d", kind="DELETE", fields=()), None, REP, event=True)
    assert deleted is not None
    assert deleted.cause is ShareCause.RECORD_DELETED


def test_several_owner_changes_share_a_read_that_is_not_put_off_for_ever() -> None:
    due = None
    for at in range(50, 80, 2):
        due = SharingTracker.owed(change(at=at), due, REP, event=True)
    assert due is not None
    assert due.due_ms == S0 + 50_000 + READ_BY_MS
    assert (due.first_ms, due.last_ms, due.changes) == (S0 + 50_000, S0 + 78_000, 15)


def test_an_owner_change_does_not_wait_for_a_second_read_that_is_owed() -> None:
    confirming = SharesDue(S0 + 80_000, ShareCause.SWEEP)
    due = SharingTracker.owed(change(), confirming, REP, event=True)
    assert due is not None
    assert (due.due_ms, due.cause) == (S0 + 53_000, ShareCause.OWNER_CHANGE)


def test_a_row_that_shows_another_owner_makes_a_read_due_without_a_time_of_the_change() -> None:
    due = SharingTracker.owed(change("r", kind=None), None, None, event=False)
    assert due == SharesDue(S0 + 53_000, ShareCause.OWNER_CHANGE)


@pytest.mark.parametrize("cause", [ShareCause.BASELINE, ShareCause.SWEEP])
def test_what_a_first_sweep_finds_different_of_a_known_record_is_no_baseline(cause: ShareCause) -> None:
    states = SharingStates()
    subject = tracker(states)
    subject.on_read(whole(owner_row(QUEUE), at=10, cause=None))
    (fact,) = subject.on_read(whole(owner_row(QUEUE), row(TEAM), at=60, cause=cause))
    assert fact.cause is ShareCause.SWEEP


def test_records_of_one_read_are_told_apart() -> None:
    states = SharingStates()
    other = "0Mw000000000002AAA"
    read = whole(owner_row(QUEUE), at=10)
    both = replace(read, records=(*read.records, RecordShares(other, (row(TEAM, record_id=other),))))
    told = tracker(states).on_read(both)
    assert [(fact.record_id, fact.user_or_group_id) for fact in told] == [(RECORD, QUEUE), (other, TEAM)]
    assert states.access((ENTITY, other)) is not None
