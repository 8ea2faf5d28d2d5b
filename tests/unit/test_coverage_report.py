"""What coverage records prove: labels, what is missing, and what nothing vouches for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.delivery.coverage import Coverage, Restoration
from consumer.delivery.windows import stream_of, window_for_reconciliation
from consumer.events import LossWindow, OutboundRecord
from consumer.tracking.arrivals import Reconciled
from consumer.tracking.coverage_report import CoverageFacts, Label, Window
from consumer.tracking.schema_change import SchemaChange
from consumer.tracking.spans import Span
from tests.delivery_values import CHANNEL, ORG, RECORD, TOPICS, checked

COVERAGE = Coverage(ORG, TOPICS)
STREAM = stream_of(CHANNEL)
ENTITY = "MessagingSession"
HOUR = 3_600_000
T = 1_790_000_000_000 - 1_790_000_000_000 % HOUR
FULL = Restoration(state=True, deletes=True, tracked_history=True, all_changes=True)
STATE = Restoration(state=True, deletes=True, tracked_history=True)
OTHER = "0Mw000000000002AAA"


def facts(*records: OutboundRecord) -> CoverageFacts:
    of = CoverageFacts(STREAM)
    for record in records:
        of.add(checked(record))
    return of


def span(start: int, end: int) -> OutboundRecord:
    return COVERAGE.span(CHANNEL, Span(STREAM, start, end), end)


def compared(start: int, end: int, digest: str = "ab") -> OutboundRecord:
    return COVERAGE.reconciled(CHANNEL, Reconciled(ENTITY, start, end, 3, digest, (), end), end)


def window(**changes: Any) -> LossWindow:
    given = LossWindow("w", STREAM, "gap_update", T + 1000, T + 1999, (RECORD,), ENTITY)
    return replace(given, **changes)


def test_time_that_spans_cover_is_complete_and_only_delivered() -> None:
    report = facts(span(T, T + 10), span(T + 10, T + HOUR)).report(T, T + HOUR, entity=ENTITY)
    assert report.label is Label.COMPLETE
    assert [(each.label, each.proof, each.missing, each.unproven) for each in report.slices] == [
        (Label.COMPLETE, "delivered", (), ())
    ]
    assert report.proven_to_ms == T + HOUR


def test_time_without_a_span_is_incomplete_and_told_exactly() -> None:
    report = facts(span(T, T + 10), span(T + 12, T + HOUR)).report(T - 5, T + HOUR)
    assert [each.label for each in report.slices] == [Label.INCOMPLETE, Label.INCOMPLETE]
    assert [each.unproven for each in report.slices] == [((T - 5, T),), ((T + 10, T + 12),)]
    assert {each.proof for each in report.slices} == {None}


def test_nothing_known_is_incomplete() -> None:
    assert facts().report(T, T + 1).label is Label.INCOMPLETE


def test_hours_are_those_of_the_clock() -> None:
    report = facts(span(T, T + 3 * HOUR)).report(T + HOUR // 2, T + 2 * HOUR + 1)
    assert [(each.from_ms - T, each.to_ms - T) for each in report.slices] == [
        (HOUR // 2, HOUR),
        (HOUR, 2 * HOUR),
        (2 * HOUR, 2 * HOUR + 1),
    ]


def test_an_open_window_makes_only_its_hour_incomplete_and_says_of_how_many_records() -> None:
    three = (RECORD, OTHER, "0Mw000000000003AAA")
    report = facts(span(T, T + 2 * HOUR), COVERAGE.opened(window(record_ids=three), T + 2000)).report(T, T + 2 * HOUR)
    first, second = report.slices
    assert (first.label, second.label) == (Label.INCOMPLETE, Label.COMPLETE)
    assert [(each.records, each.open, each.reason) for each in first.missing] == [(3, True, "gap_update")]
    assert [each.window_id for each in report.open_windows] == ["w"]


@pytest.mark.parametrize(
    ("restored", "label"),
    [
        (FULL, Label.COMPLETE),
        (STATE, Label.STATE_COMPLETE),
        (Restoration(state=True, deletes=True), Label.STATE_COMPLETE),
        (Restoration(state=True), Label.INCOMPLETE),
        (Restoration(tracked_history=True), Label.INCOMPLETE),
        (Restoration(), Label.INCOMPLETE),
    ],
)
def test_a_closed_window_leaves_what_was_not_restored(restored: Restoration, label: Label) -> None:
    closed = COVERAGE.closed(window(), T + 9000, restored)
    report = facts(span(T, T + HOUR), COVERAGE.opened(window(), T + 2000), closed).report(T, T + HOUR)
    assert report.label is label
    assert report.open_windows == ()


def test_a_gap_with_history_restored_misses_the_transitions_of_untracked_fields_only() -> None:
    closed = COVERAGE.closed(window(), T + 9000, STATE, unrecoverable_fields=("AgentCount",))
    (only,) = facts(span(T, T + HOUR), closed).report(T, T + HOUR).slices
    assert only.label is Label.STATE_COMPLETE
    assert [(each.records, each.fields, each.open) for each in only.missing] == [(1, ("AgentCount",), False)]


def test_without_history_the_transitions_of_all_fields_are_missing() -> None:
    closed = COVERAGE.closed(window(), T + 9000, Restoration(state=True, deletes=True), unrecoverable_fields=("A",))
    (only,) = facts(span(T, T + HOUR), closed).report(T, T + HOUR).slices
    assert only.missing[0].fields is None


def test_a_window_opened_again_is_open_again() -> None:
    again = facts(
        span(T, T + HOUR),
        COVERAGE.opened(window(), 1),
        COVERAGE.closed(window(), 2, FULL),
        COVERAGE.opened(window(), 3),
    )
    assert again.report(T, T + HOUR).label is Label.INCOMPLETE


def test_a_window_without_start_covers_everything_before_its_end() -> None:
    start = window(record_ids=(), from_ms=None, to_ms=T + HOUR, reason="no_snapshot")
    of = facts(COVERAGE.opened(start, T), COVERAGE.closed(start, T + 9, STATE), span(T + HOUR, T + 2 * HOUR))
    early, late = of.report(T, T + 2 * HOUR).slices
    assert (early.label, late.label) == (Label.STATE_COMPLETE, Label.COMPLETE)
    assert of.report(0, HOUR).label is Label.STATE_COMPLETE
    assert early.missing[0].records is None


def test_an_open_ended_window_covers_everything_from_its_start_until_it_is_closed() -> None:
    lost = window(record_ids=(), from_ms=T, to_ms=None, reason="position_lost")
    records = [span(T - HOUR, T), COVERAGE.opened(lost, T), span(T + 60_000, T + 2 * HOUR)]
    before, first, second = facts(*records).report(T - HOUR, T + 2 * HOUR).slices
    assert (before.label, first.label, second.label) == (Label.COMPLETE, Label.INCOMPLETE, Label.INCOMPLETE)
    closed = facts(*records, COVERAGE.closed(lost, T + 90_000, STATE))
    assert [each.label for each in closed.report(T, T + 2 * HOUR).slices] == [Label.STATE_COMPLETE, Label.COMPLETE]


def test_a_window_of_some_records_vouches_for_no_time() -> None:
    closed = COVERAGE.closed(window(from_ms=T, to_ms=T + HOUR), T + HOUR, FULL)
    assert facts(closed).report(T, T + HOUR).label is Label.INCOMPLETE


def test_a_window_without_length_is_a_moment() -> None:
    moment = window(from_ms=T + 5, to_ms=T + 5)
    report = facts(span(T, T + HOUR), COVERAGE.opened(moment, T)).report(T, T + HOUR, by="edges")
    assert [(each.from_ms - T, each.to_ms - T, each.label) for each in report.slices] == [
        (0, 5, Label.COMPLETE),
        (5, 6, Label.INCOMPLETE),
        (6, HOUR, Label.COMPLETE),
    ]


def test_a_window_that_ends_with_the_hour_does_not_reach_into_the_next() -> None:
    whole = window(record_ids=(), from_ms=T, to_ms=T + HOUR)
    of = facts(COVERAGE.opened(whole, T), span(T + HOUR, T + 2 * HOUR))
    assert [each.label for each in of.report(T, T + 2 * HOUR).slices] == [Label.INCOMPLETE, Label.COMPLETE]


def test_edges_join_what_is_equally_proven() -> None:
    spans = [span(T + at, T + at + 30_000) for at in range(0, HOUR, 30_000)]
    report = facts(*spans).report(T, T + HOUR, by="edges")
    assert [(each.from_ms, each.to_ms) for each in report.slices] == [(T, T + HOUR)]


def test_an_hour_compared_with_salesforce_is_reconciled_and_half_of_one_is_not() -> None:
    of = facts(span(T, T + 2 * HOUR), compared(T, T + HOUR), compared(T + HOUR, T + HOUR + 5))
    first, second = of.report(T, T + 2 * HOUR, entity=ENTITY).slices
    assert (first.proof, second.proof) == ("reconciled", "delivered")


def test_comparing_alone_does_not_prove_delivery() -> None:
    assert facts(compared(T, T + HOUR)).report(T, T + HOUR, entity=ENTITY).label is Label.INCOMPLETE


def test_comparing_one_object_does_not_reconcile_a_channel_of_several() -> None:
    of = facts(span(T, T + HOUR), compared(T, T + HOUR))
    assert of.report(T, T + HOUR, entity=None).slices[0].proof == "delivered"
    assert of.report(T, T + HOUR, entity="Case").slices[0].proof == "delivered"


def test_hours_compared_late_and_out_of_order_still_count() -> None:
    of = facts(span(T, T + 2 * HOUR), compared(T + HOUR, T + 2 * HOUR), compared(T, T + HOUR))
    assert {each.proof for each in of.report(T, T + 2 * HOUR, entity=ENTITY).slices} == {"reconciled"}


def test_before_the_oldest_kept_record_a_span_proves_nothing() -> None:
    report = facts(span(T, T + 2 * HOUR)).report(T, T + 2 * HOUR, kept_from_ms=T + HOUR)
    assert [each.label for each in report.slices] == [Label.INCOMPLETE, Label.COMPLETE]
    assert report.slices[0].unproven == ((T, T + HOUR),)


def test_an_open_window_known_from_elsewhere_counts_and_a_record_of_it_wins() -> None:
    known = Window("w", STREAM, "gap_update", T, T + 1, ENTITY, (RECORD,))
    of = facts(span(T, T + HOUR))
    of.add_open(known)
    assert of.report(T, T + HOUR).label is Label.INCOMPLETE
    closed = facts(span(T, T + HOUR), COVERAGE.closed(window(), 5, FULL))
    closed.add_open(known)
    assert closed.report(T, T + HOUR).label is Label.COMPLETE
    closed.add_open(replace(known, window_id="x", stream="changes:/data/Other"))
    assert closed.report(T, T + HOUR).label is Label.COMPLETE


def test_records_of_other_streams_and_kinds_to_come_are_left_out() -> None:
    of = facts(COVERAGE.span(CHANNEL, Span("history", T, T + HOUR), T, entity=ENTITY))
    value = checked(span(T, T + HOUR))
    of.add({**value, "kind": "of_tomorrow"})
    assert of.report(T, T + HOUR).label is Label.INCOMPLETE


def test_schema_changes_of_the_period_are_told() -> None:
    change = SchemaChange(ENTITY, ("New__c",), (), (), reordered=False, compatible="full")
    records = [COVERAGE.schema_changed(CHANNEL, change, ("a", "b"), ("e", at), at) for at in (T - 1, T, T + HOUR)]
    report = facts(*records).report(T, T + HOUR)
    assert [(each.at_ms, each.entity, each.detail["added"]) for each in report.schema_changes] == [
        (T, ENTITY, ["New__c"])
    ]


def test_the_worst_comes_first() -> None:
    closed = COVERAGE.closed(window(window_id="a"), 5, STATE)
    whole = COVERAGE.opened(window(window_id="c", record_ids=()), 5)
    some = COVERAGE.opened(window(window_id="b"), 5)
    (only,) = facts(span(T, T + HOUR), closed, some, whole).report(T, T + HOUR).slices
    assert [each.window_id for each in only.missing] == ["c", "b", "a"]


def test_a_window_touches_its_records_or_all_of_its_object() -> None:
    some = Window("w", STREAM, "gap_update", T, T, ENTITY, (RECORD,))
    assert some.touches(RECORD, ENTITY)
    assert not some.touches(OTHER, ENTITY)
    assert replace(some, record_ids=()).touches(OTHER, ENTITY)
    assert not replace(some, record_ids=()).touches(OTHER, "Case")
    assert replace(some, record_ids=(), entity=None).touches(OTHER, "Case")


def test_reconciliation_windows_are_stable_and_tell_anew_when_salesforce_changed() -> None:
    one = window_for_reconciliation(CHANNEL, ENTITY, [OTHER, RECORD], T, T + HOUR, digest="ab")
    assert one == window_for_reconciliation(CHANNEL, ENTITY, [RECORD, OTHER, OTHER], T, T + HOUR, digest="ab")
    assert (one.reason, one.record_ids) == ("reconciliation", (RECORD, OTHER))
    assert (
        one.window_id != window_for_reconciliation(CHANNEL, ENTITY, [OTHER, RECORD], T, T + HOUR, digest="cd").window_id
    )
    checked(COVERAGE.opened(one, T))
    many = [f"0Mw{number:012d}AAA" for number in range(10_001)]
    assert window_for_reconciliation(CHANNEL, ENTITY, many, T, T + HOUR).record_ids == ()


def test_records_that_differ_are_no_proof() -> None:
    with pytest.raises(ValueError, match="not reconciled"):
        COVERAGE.reconciled(CHANNEL, Reconciled(ENTITY, T, T + HOUR, 3, "ab", (RECORD,), T), T)


def test_the_same_fact_gives_the_same_record_id() -> None:
    assert checked(span(T, T + 5))["id"] == checked(span(T, T + 5))["id"]
    ids = {
        checked(each)["id"] for each in (span(T, T + 5), span(T, T + 6), compared(T, T + 5), compared(T, T + 5, "cd"))
    }
    ids.add(checked(COVERAGE.span(CHANNEL, Span("history", T, T + 5), 1, entity="A"))["id"])
    ids.add(checked(COVERAGE.span(CHANNEL, Span("history", T, T + 5), 1, entity="B"))["id"])
    assert len(ids) == 6


parts = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted), max_size=6)
windows = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(0, 40)),
        st.one_of(st.none(), st.integers(0, 40)),
        st.booleans(),
        st.sampled_from(["open", "all", "state", "nothing"]),
    ),
    max_size=4,
)


def label_of_moment(at: int, spans: list[list[int]], lost: list[LossWindow], fates: dict[str, str]) -> Label:
    """Say by the rules, one moment at a time, what the report has to say."""
    covered = any(start <= at < end for start, end in spans)
    worst = 0
    for each in lost:
        fate = fates[each.window_id]
        end = each.to_ms if each.to_ms is not None else (100 if fate == "open" else 30)
        start = -100 if each.from_ms is None else each.from_ms
        if start <= at < max(end, start + 1):
            covered = covered or not each.record_ids
            worst = max(worst, {"all": 0, "state": 1, "open": 2, "nothing": 2}[fate])
    return list(Label)[worst if covered else 2]


@given(parts, windows, st.sampled_from(["hour", "edges"]))
@settings(max_examples=300, deadline=None)
def test_slices_say_the_worst_of_their_moments(
    spans: list[list[int]], drawn: list[tuple[int | None, int | None, bool, str]], by: Any
) -> None:
    restored = {"all": FULL, "state": STATE, "nothing": Restoration()}
    lost, fates, of = [], {}, CoverageFacts(STREAM)
    for start, end in spans:
        of.add(
            {"stream": STREAM, "kind": "span", "proof": "delivered", "entity": None, "from": iso(start), "to": iso(end)}
        )
    for number, (start, end, some, fate) in enumerate(drawn):
        until = end if start is None or end is None else max(start, end)
        each = window(window_id=str(number), from_ms=start, to_ms=until, record_ids=(RECORD,) if some else ())
        lost.append(each)
        fates[each.window_id] = fate
        of.add(checked(COVERAGE.opened(each, 30)))
        if fate in restored:
            of.add(checked(COVERAGE.closed(each, 30, restored[fate])))
    slices = of.report(0, 45, by=by).slices
    assert [each.from_ms for each in slices] == [0, *(each.to_ms for each in slices[:-1])]
    for each in slices:
        labels = [label_of_moment(at, spans, lost, fates) for at in range(each.from_ms, each.to_ms)]
        assert each.label is max(labels, key=list(Label).index)
        if by == "edges":
            assert len(set(labels)) == 1


def iso(ms: int) -> str:
    return f"1970-01-01T00:00:00.{ms:03d}Z"
