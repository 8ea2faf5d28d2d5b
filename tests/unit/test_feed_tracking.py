"""Feed items as read become facts, each once."""

from __future__ import annotations

from dataclasses import replace

from consumer.tracking.arrivals import FeedRead
from consumer.tracking.feed import FeedTracker
from consumer.tracking.feed_values import FeedItem
from tests.sharing_values import SharingStates
from tests.tracking_values import ENTITY, KEY, RECORD, S0

OVERLAP = 300_000


def item(number: int = 1, *, created: int = 0, stamp: int | None = None, deleted: bool = False) -> FeedItem:
    at = created if stamp is None else stamp
    return FeedItem(
        f"0D5{number:012}AAA", RECORD, "TextPost", S0 + created * 1000, S0 + at * 1000, deleted, {"Body": "Hello"}
    )


def read(*items: FeedItem, complete_to: int | None = None, backfill: bool = False) -> FeedRead:
    complete_ms = None if complete_to is None else S0 + complete_to * 1000
    return FeedRead(ENTITY, items, complete_ms, S0 + 10_000_000, backfill=backfill)


def kinds(subject: FeedTracker, *items: FeedItem, complete_to: int | None = None) -> list[tuple[str, str]]:
    return [(fact.kind, fact.item.item_id) for fact in subject.on_read(read(*items, complete_to=complete_to))]


def test_an_item_is_created_then_changed_then_removed_each_told_once() -> None:
    states = SharingStates()
    subject = FeedTracker(states, overlap_ms=OVERLAP)
    one = item(created=100)
    assert kinds(subject, one, complete_to=200) == [("created", one.item_id)]
    assert kinds(subject, one, complete_to=230) == [], "the overlap brings it again"
    edited = replace(one, stamp_ms=S0 + 240_000)
    assert kinds(subject, edited, complete_to=300) == [("changed", one.item_id)]
    assert kinds(subject, edited, one, complete_to=300) == []
    gone = replace(edited, deleted=True, stamp_ms=S0 + 310_000)
    assert kinds(subject, gone, complete_to=400) == [("removed", one.item_id)]
    assert kinds(subject, gone, replace(gone, stamp_ms=S0 + 311_000), complete_to=500) == []


def test_the_next_generation_does_not_tell_again() -> None:
    states = SharingStates()
    one = item(created=100)
    assert kinds(FeedTracker(states, overlap_ms=OVERLAP), one, complete_to=200) == [("created", one.item_id)]
    later = FeedTracker(states, overlap_ms=OVERLAP)
    later.restore(ENTITY, S0 + 200_000)
    assert kinds(later, one) == []


def test_an_item_of_long_ago_is_changed_and_a_late_one_created() -> None:
    subject = FeedTracker(SharingStates(), overlap_ms=OVERLAP)
    subject.restore(ENTITY, S0 + 1_000_000)
    old, late = item(1, created=100, stamp=1_100), item(2, created=800)
    assert kinds(subject, old, late) == [("changed", old.item_id), ("created", late.item_id)]


def test_an_item_that_came_and_went_between_two_polls_is_told_as_both() -> None:
    subject = FeedTracker(SharingStates(), overlap_ms=OVERLAP)
    subject.restore(ENTITY, S0)
    short = item(created=100, stamp=120, deleted=True)
    assert kinds(subject, short) == [("created", short.item_id), ("removed", short.item_id)]


def test_an_item_of_which_only_the_id_is_left_is_removed() -> None:
    states = SharingStates()
    subject = FeedTracker(states, overlap_ms=OVERLAP)
    gone = FeedItem("0D5000000000009AAA", None, None, None, S0 + 50_000, deleted=True, values={})
    (fact,) = subject.on_read(read(gone))
    assert (fact.kind, fact.item.record_id) == ("removed", None)
    assert subject.on_read(read(gone)) == []


def test_items_of_before_the_first_start_are_marked() -> None:
    subject = FeedTracker(SharingStates(), overlap_ms=OVERLAP)
    (fact,) = subject.on_read(read(item(), backfill=True))
    assert fact.backfill


def test_what_no_poll_can_bring_again_is_forgotten() -> None:
    states = SharingStates()
    subject = FeedTracker(states, overlap_ms=OVERLAP)
    subject.on_read(read(item(1, created=100), item(2, created=800), complete_to=900))
    entry = states.ledger(KEY)
    assert entry is not None
    assert subject.settled(entry).feed == entry.feed[1:]
    subject.on_read(read(complete_to=2_000))
    assert subject.settled(entry).empty


def test_ids_of_facts_are_stable() -> None:
    one = item(created=100, stamp=200)
    first = FeedTracker(SharingStates(), overlap_ms=OVERLAP).on_read(read(one))
    again = FeedTracker(SharingStates(), overlap_ms=OVERLAP).on_read(replace(read(one), answered_ms=S0 + 99_000))
    assert [each.fact_id for each in first] == [each.fact_id for each in again]
