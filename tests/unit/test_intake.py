"""What the intake makes of windows and events together: which images are in doubt, and what a lost position lost."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from consumer.assembly import TrackingTimes
from consumer.delivery.headers import iso_utc
from consumer.delivery.positions import decode_entry
from consumer.events import ChangeEvent, LossWindow
from consumer.intake import Intake
from consumer.outcome import Outcome
from consumer.ports import Restored
from consumer.tracking.arrivals import Closed, Closing, FactsRead, HistoryRead, Purpose, SettleDue
from consumer.tracking.changes import TrackedChange
from consumer.tracking.open_windows import OpenWindows
from consumer.tracking.values import EntityFacts, FieldChange, HistoryFact, HistoryRow, LedgerEntry, Match, Refresh
from consumer.unannounced import Unannounced
from tests.fakes import ASSEMBLY, CHANNEL, TOPICS, internal_records, memory_store
from tests.tracking_values import ENTITY, FACTS, FIELDS, KEY, OTHER, RECORD, S0, event, row, rows

KNOWN = {"Name": "MS-1", "Status": "New"}


class Desk:
    """An intake over an empty store.

    Attributes:
        windows: open at its start.
    """

    def __init__(self, *windows: LossWindow) -> None:
        self.store = memory_store()
        restored = Restored(None, windows={each.window_id: each for each in windows})
        self.intake: Intake = ASSEMBLY.processor(
            CHANNEL, internal_records(), self.store, restored, TrackingTimes()
        ).intake

    def told(self, change: ChangeEvent) -> dict[str, Any]:
        """Take an event in and return its change record."""
        records = self.intake.event(change).records
        (value,) = [each.value for each in records if each.topic == TOPICS.changes(ENTITY)]
        found: dict[str, Any] = orjson.loads(value or b"")
        return found


def window(
    reason: str = "gap_overflow",
    at: int = 10,
    *,
    record_ids: tuple[str, ...] = (),
    to: int | None = None,
    entity: str | None = ENTITY,
    **detail: Any,
) -> LossWindow:
    """Return a window from ``at`` to ``to`` seconds after S0, by default of one second."""
    to_ms = S0 + (at if to is None else to) * 1000 + 999
    return LossWindow(
        f"{reason}:{at}", f"changes:{CHANNEL}", reason, S0 + at * 1000, to_ms, record_ids, entity, None, detail
    )


def coverage(outcome: Outcome) -> list[dict[str, Any]]:
    return [orjson.loads(each.value or b"") for each in outcome.records if each.topic == TOPICS.coverage]


# Doubt


@pytest.mark.parametrize("reason", ["gap_overflow", "gap_update", "wildcard", "unknown_change_type", "position_lost"])
def test_a_window_that_names_no_record_puts_what_was_known_before_it_in_doubt(reason: str) -> None:
    """What an older image holds may have been changed by what nobody told: it is no before, and no old value."""
    desk = Desk()
    desk.intake.event(event("CREATE", 1, KNOWN))
    desk.intake.opened(window(reason))
    told = desk.told(event("UPDATE", 20, {"Status": "Active"}))
    assert told["before"] == {"Id": RECORD}
    assert told["after"] == {"Id": RECORD, "Status": "Active"}
    assert "Name" in told["source"]["unknown_fields"]
    again = desk.told(event("UPDATE", 21, {"Status": "Ended"}))
    assert again["before"] == {"Id": RECORD, "Status": "Active"}, "what came after the window is certain"


@pytest.mark.parametrize(
    "harmless",
    [
        window("gap_update", record_ids=(OTHER,)),
        window("no_snapshot"),
        window("gap_overflow", entity="Account"),
        window("gap_overflow", 0, to=0),
    ],
    ids=["another record", "before the first start", "another object", "older than the image"],
)
def test_windows_that_can_not_have_touched_a_record_leave_it_alone(harmless: LossWindow) -> None:
    desk = Desk()
    desk.intake.event(event("CREATE", 1, KNOWN))
    desk.intake.opened(harmless)
    assert desk.told(event("UPDATE", 20, {"Status": "Active"}))["before"]["Status"] == "New"


def test_a_window_that_is_open_at_the_start_puts_in_doubt_too() -> None:
    desk = Desk()
    desk.intake.event(event("CREATE", 1, KNOWN))
    other = Desk(window())
    for state in (desk.store.get(KEY),):
        assert state is not None
        other.store.put(state)
    assert other.told(event("UPDATE", 20, {"Status": "Active"}))["before"] == {"Id": RECORD}


def test_a_closed_window_puts_nothing_in_doubt_any_more() -> None:
    desk = Desk()
    desk.intake.event(event("CREATE", 1, KNOWN))
    opened = window("position_lost", continued_at="earliest")
    desk.intake.opened(opened)
    desk.intake.nothing_lost(S0)
    assert desk.told(event("UPDATE", 20, {"Status": "Active"}))["before"]["Status"] == "New"


def test_a_field_that_was_set_between_two_losses_is_in_doubt_after_the_second() -> None:
    """A record under repair already is not told the second loss by its repair: its newer fields doubt it as well."""
    desk = Desk()
    desk.intake.event(event("CREATE", 1, KNOWN))
    desk.intake.event(event("GAP_UPDATE", 5))
    desk.intake.event(event("UPDATE", 6, {"Status": "Active"}))
    desk.intake.opened(window("gap_overflow", 10))
    assert desk.told(event("DELETE", 20))["before"] == {"Id": RECORD}


# A lost position


def lost(to: int = 100, **detail: Any) -> LossWindow:
    return window("position_lost", 10, to=to, **{"continued_at": "earliest", **detail})


def test_what_a_lost_position_lost_ends_where_the_retained_events_begin() -> None:
    desk = Desk(lost())
    outcome = desk.intake.begun_at(S0 + 50_000, S0 + 200_000)
    (narrowed,) = desk.intake.windows.values()
    assert (narrowed.from_ms, narrowed.to_ms) == (S0 + 10_000, S0 + 50_000)
    entries = [decode_entry(each.key, each.value) for each in outcome.records if each.topic == TOPICS.positions]
    assert narrowed in entries, "it must be durable"
    assert not desk.intake.begun_at(S0 + 70_000, S0 + 200_000).records, "it is narrowed once"


@pytest.mark.parametrize(("begins", "ends"), [(5, 10_000), (500, 500_000)])
def test_a_lost_position_lost_all_before_the_first_event_and_nothing_before_the_last_one_committed(
    begins: int, ends: int
) -> None:
    """Retained events can be older than the last one committed, and the first one younger than the loss's discovery."""
    desk = Desk(lost())
    desk.intake.begun_at(S0 + begins * 1000, S0 + 200_000)
    (narrowed,) = desk.intake.windows.values()
    assert (narrowed.from_ms, narrowed.to_ms) == (S0 + 10_000, S0 + ends)


def test_images_are_in_doubt_only_up_to_where_the_retained_events_begin() -> None:
    desk = Desk(lost())
    desk.intake.event(event("CREATE", 1, KNOWN))
    desk.intake.begun_at(S0 + 50_000, S0 + 200_000)
    first = desk.told(event("UPDATE", 50, {"Status": "Active"}))
    assert first["before"] == {"Id": RECORD}
    assert desk.told(event("UPDATE", 51, {"Status": "Ended"}))["before"] == {"Id": RECORD, "Status": "Active"}


def test_nothing_is_lost_when_the_oldest_retained_event_was_committed_before() -> None:
    desk = Desk(lost(), window("gap_overflow"))
    outcome = desk.intake.nothing_lost(S0 + 200_000)
    (closed,) = coverage(outcome)
    assert (closed["kind"], closed["window_id"], outcome.closed) == (
        "loss_closed",
        "position_lost:10",
        ("position_lost:10",),
    )
    assert closed["restored"] == {"state": True, "deletes": True, "tracked_history": True, "all_changes": True}
    assert list(desk.intake.windows) == ["gap_overflow:10"], "other windows have a repair of their own"


@pytest.mark.parametrize("other", [lost(continued_at="latest"), lost(oldest_retained=True)], ids=["latest", "narrowed"])
def test_other_lost_positions_are_left_to_their_repair(other: LossWindow) -> None:
    """After LATEST nothing retained was read, and a narrowed window says already what is missing."""
    desk = Desk(other)
    assert not desk.intake.nothing_lost(S0).records
    assert not desk.intake.begun_at(S0 + 50_000, S0).records
    assert list(desk.intake.windows.values()) == [other]


# A read that is owed to a record in doubt


def owed(desk: Desk) -> Refresh | None:
    entry = desk.store.ledger(KEY)
    return None if entry is None else entry.refresh


def test_a_record_in_doubt_since_before_a_loss_is_owed_a_read_of_its_own() -> None:
    """The scan for the window may have read it before its event came, and does not see it again."""
    desk = Desk()
    desk.intake.arrive(FactsRead(EntityFacts(ENTITY, visible=frozenset()), S0))
    desk.intake.event(event("CREATE", 1, KNOWN))
    desk.intake.event(event("UPDATE", 5, {"Status": "Active"}))
    assert owed(desk) is None, "nothing is in doubt yet"
    desk.intake.opened(window())
    desk.intake.event(event("UPDATE", 20, {"Status": "Waiting"}))
    due = owed(desk)
    assert due == Refresh(S0 + 20_000 + TrackingTimes().refresh_after, 0, "unknown")
    desk.intake.event(event("UPDATE", 21, {"Name": "MS-2"}))
    assert owed(desk) == due, "what is certain again makes nothing more due"


def test_a_read_that_is_owed_already_is_not_put_off_by_a_loss() -> None:
    desk = Desk()
    desk.intake.arrive(FactsRead(EntityFacts(ENTITY, visible=frozenset()), S0))
    desk.intake.event(event("CREATE", 1, KNOWN))
    before = Refresh(S0 + 2, 1, "unknown")
    desk.store.put_ledger(LedgerEntry(*KEY, (), before))
    desk.intake.opened(window())
    desk.intake.event(event("UPDATE", 20, {"Status": "Active"}))
    assert owed(desk) == before


# Rows that differ


def differing(
    purpose: Purpose = Purpose.RESYNC,
    *,
    stamp: int = 100,
    stream: int = 200,
    values: dict[str, Any] | None = None,
    known: dict[str, Any] | None = None,
    windows: tuple[LossWindow, ...] = (),
    gap: bool = False,
) -> tuple[Desk, Outcome]:
    """Return what a row becomes that differs from what the events told of a record."""
    desk = Desk(*windows)
    desk.intake.arrive(FactsRead(FACTS, S0))
    desk.intake.event(event("CREATE", 1, KNOWN if known is None else known))
    if gap:
        desk.intake.event(event("GAP_UPDATE", 2))
    desk.intake.stream_reached(S0 + stream * 1000, S0 + stream * 1000)
    read = row(stamp, {**KNOWN, "Status": "Active"} if values is None else values)
    return desk, desk.intake.arrive(rows(purpose, 300, read, mark=desk.intake.tracker.begin_read()))


@pytest.mark.parametrize("purpose", [Purpose.RESYNC, Purpose.SNAPSHOT, Purpose.REFRESH, Purpose.RECONCILE])
def test_a_row_that_differs_although_the_stream_is_past_it_is_a_loss_nobody_announced(purpose: Purpose) -> None:
    desk, outcome = differing(purpose)
    (opened,) = outcome.opened
    assert (opened.reason, opened.entity, opened.record_ids) == ("reconciliation", ENTITY, (RECORD,))
    assert (opened.from_ms, opened.to_ms) == (S0 + 100_000, S0 + 100_999)
    assert dict(desk.intake.windows) == {opened.window_id: opened}
    assert [each["kind"] for each in coverage(outcome)] == ["loss_opened"]
    entries = [decode_entry(each.key, each.value) for each in outcome.records if each.topic == TOPICS.positions]
    assert opened in entries, "it must be durable"
    state = desk.store.get(KEY)
    assert state is not None
    assert state.stale, "the repair reads it, and proves which of its fields the row told"


@pytest.mark.parametrize(("stamp", "lost"), [(198, True), (199, False), (200, False), (250, False)])
def test_a_row_that_the_stream_may_still_reach_is_only_early(stamp: int, lost: bool) -> None:
    assert bool(differing(stamp=stamp)[1].opened) is lost


def test_a_field_that_no_event_carries_differs_without_a_loss() -> None:
    known = {**KNOWN, "AgentMessageCount": 1}
    assert not differing(known=known, values={**KNOWN, "AgentMessageCount": 2})[1].opened
    both = {**KNOWN, "Status": "Active", "AgentMessageCount": 2}
    assert differing(known=known, values=both)[1].opened


def test_a_row_that_says_what_is_known_opens_nothing() -> None:
    assert not differing(values=KNOWN)[1].opened


def test_what_is_heard_of_for_the_first_time_is_no_difference() -> None:
    desk = Desk()
    desk.intake.arrive(FactsRead(FACTS, S0))
    desk.intake.stream_reached(S0 + 200_000, S0 + 200_000)
    assert not desk.intake.arrive(rows(Purpose.SNAPSHOT, 300, row(100, KNOWN))).opened


def test_a_field_that_was_not_known_is_learnt_and_not_lost() -> None:
    desk = Desk()
    desk.intake.event(event("UPDATE", 1, {"Status": "New"}))
    desk.intake.stream_reached(S0 + 200_000, S0 + 200_000)
    outcome = desk.intake.arrive(rows(Purpose.RESYNC, 300, row(100, {"Status": "New", "Name": "MS-1"})))
    assert [each.topic for each in outcome.records if each.topic == TOPICS.changes(ENTITY)], "it is told"
    assert not outcome.opened


@pytest.mark.parametrize(
    ("owning", "lost"),
    [
        (window("position_lost", 50, to=150), False),
        (window("gap_update", 50, to=150, record_ids=(RECORD,)), False),
        (window("gap_update", 50, to=150, record_ids=(OTHER,)), True),
        (window("gap_update", 50, to=60, record_ids=(RECORD,)), True),
        (window("gap_overflow", 150, to=160), True),
    ],
    ids=["all records", "this record", "another record", "before", "after"],
)
def test_a_difference_that_an_open_window_owns_up_to_opens_no_other(owning: LossWindow, lost: bool) -> None:
    assert bool(differing(windows=(owning,))[1].opened) is lost


def test_a_difference_in_a_record_that_was_in_doubt_already_opens_no_other() -> None:
    """Its own window may have begun with a commit time that is not near the row's stamp."""
    assert not differing(gap=True)[1].opened


def test_differences_open_one_window_for_each_hour() -> None:
    desk = Desk()
    desk.intake.arrive(FactsRead(FACTS, S0))
    ids = [f"0Mw00000000000{number}AAA" for number in range(1, 5)]
    for record_id in ids:
        desk.intake.event(event("CREATE", 1, KNOWN, record_ids=(record_id,), event_id=record_id))
    start = 3600 - S0 // 1000 % 3600
    desk.intake.stream_reached(S0 + 9_000_000, S0 + 9_000_000)
    stamps = (start + 5, start + 3599, start + 3600, start - 1)
    read = [row(at, {"Status": "Active"}, record_id=each) for at, each in zip(stamps, ids, strict=True)]
    outcome = desk.intake.arrive(rows(Purpose.RESYNC, 9_500, *read, job_id="job"))
    found = {each.record_ids: (each.from_ms, each.to_ms) for each in outcome.opened}
    assert found == {
        (ids[0], ids[1]): (S0 + (start + 5) * 1000, S0 + (start + 3599) * 1000 + 999),
        (ids[2],): (S0 + (start + 3600) * 1000, S0 + (start + 3600) * 1000 + 999),
        (ids[3],): (S0 + (start - 1) * 1000, S0 + (start - 1) * 1000 + 999),
    }


# History rows whose events never came

TRACKED = EntityFacts(
    ENTITY, visible=frozenset(FIELDS), tracked=frozenset({"Status", "Name", "ownerAccepted"}), has_history=True
)
CONFIRM_S = TrackingTimes().confirm_within // 1000


class HistoryDesk(Desk):
    """An intake that knows which fields are tracked."""

    def __init__(self, *windows: LossWindow) -> None:
        super().__init__(*windows)
        self.intake.arrive(FactsRead(TRACKED, S0))

    def read(self, at: int, field: str = "Status", *, number: int = 1, values: tuple[str, str] = ("New", "X")) -> None:
        of = HistoryRow(f"017{number:012d}AAA", RECORD, field, "Text", *values, S0 + at * 1000, "005000000000008AAA")
        self.intake.arrive(HistoryRead(ENTITY, (of,), None, S0 + (at + 60) * 1000))

    def settled(self, at: int) -> Outcome:
        """Settle when the stream and the poll got somewhere."""
        self.intake.stream_reached(S0 + at * 1000, S0 + at * 1000)
        return self.intake.arrive(SettleDue(ENTITY, (RECORD,), S0 + at * 1000, S0 + at * 1000))


def told_history(outcome: Outcome) -> list[dict[str, Any]]:
    return [orjson.loads(each.value or b"") for each in outcome.records if each.topic == TOPICS.of(ENTITY, "history")]


def test_a_history_row_whose_event_never_came_is_a_loss_and_puts_its_record_in_doubt() -> None:
    desk = HistoryDesk()
    desk.intake.event(event("CREATE", 1, KNOWN))
    desk.read(100)
    assert not desk.settled(100 + CONFIRM_S).opened, "its event may still come"
    outcome = desk.settled(101 + CONFIRM_S)
    (opened,) = outcome.opened
    assert (opened.reason, opened.record_ids) == ("history_without_event", (RECORD,))
    assert (opened.from_ms, opened.to_ms) == (S0 + 100_000, S0 + 100_999)
    assert [(each["match"], each["final"]) for each in told_history(outcome)] == [(Match.ROW_ONLY, True)]
    assert opened.window_id in desk.intake.windows
    state = desk.store.get(KEY)
    assert state is not None
    assert (state.stale, state.gap) == (True, "history_without_event"), "so that the repair reads it"
    assert not desk.settled(200 + CONFIRM_S).opened, "it is told once"


def test_one_window_holds_all_that_were_settled_together() -> None:
    desk = HistoryDesk()
    desk.read(100)
    desk.read(130, number=2, values=("X", "Y"))
    (opened,) = desk.settled(200 + CONFIRM_S).opened
    assert (opened.from_ms, opened.to_ms, opened.record_ids) == (S0 + 100_000, S0 + 130_999, (RECORD,))


@pytest.mark.parametrize(("apart", "lost"), [(0, False), (1, False), (-1, False), (2, True), (-2, True)])
def test_rows_beside_an_event_of_their_record_are_saves_that_it_merged(apart: int, lost: bool) -> None:
    desk = HistoryDesk()
    desk.intake.event(event("UPDATE", 100, {"Name": "MS-2"}))
    desk.read(100 + apart)
    assert bool(desk.settled(110 + CONFIRM_S).opened) is lost


def test_merged_saves_are_known_as_such_even_when_everything_is_settled_late() -> None:
    """After a long outage one settling makes the row final and forgets the event's own facts."""
    desk = HistoryDesk()
    desk.intake.event(event("UPDATE", 100, {"Name": "MS-2"}))
    desk.read(100)
    desk.read(100, "Name", number=2, values=("MS-1", "MS-2"))
    outcome = desk.settled(100_000)
    left = desk.store.ledger(KEY)
    assert left is None or not left.facts
    assert any(each["match"] == Match.ROW_ONLY and each["final"] for each in told_history(outcome))
    assert not outcome.opened


def test_the_event_of_merged_saves_is_remembered_until_their_rows_are_judged() -> None:
    """History can be read on while the stream stands still."""
    desk = HistoryDesk()
    desk.intake.event(event("UPDATE", 100, {"Name": "MS-2"}))
    desk.read(100)
    desk.read(100, "Name", number=2, values=("MS-1", "MS-2"))
    desk.intake.stream_reached(S0 + 200_000, S0 + 200_000)
    desk.intake.arrive(SettleDue(ENTITY, (RECORD,), S0 + 90_000_000, S0 + 90_000_000))
    outcome = desk.settled(100_000)
    assert [each["match"] for each in told_history(outcome)] == [Match.ROW_ONLY]
    assert not outcome.opened
    left = desk.store.ledger(KEY)
    assert left is None or not left.facts, "then it is forgotten"


@pytest.mark.parametrize(("field", "lost"), [("ownerAccepted", False), ("created", True), ("Name", True)])
def test_rows_of_what_events_never_say_are_no_loss(field: str, lost: bool) -> None:
    desk = HistoryDesk()
    desk.read(100, field)
    assert bool(desk.settled(200 + CONFIRM_S).opened) is lost


@pytest.mark.parametrize(
    ("owning", "lost"),
    [
        (window("position_lost", 50, to=150), False),
        (window("gap_update", 100, record_ids=(RECORD,)), False),
        (window("gap_update", 100, record_ids=(OTHER,)), True),
        (window("position_lost", 150, to=160), True),
    ],
    ids=["all records", "this record", "another record", "later"],
)
def test_a_row_inside_an_open_window_is_owned_up_to_by_it(owning: LossWindow, lost: bool) -> None:
    desk = HistoryDesk(owning)
    desk.read(100)
    outcome = desk.settled(200 + CONFIRM_S)
    assert bool(outcome.opened) is lost
    (told,) = told_history(outcome)
    assert told["window_id"] == (None if lost else owning.window_id)


# The end of a window without one


@pytest.mark.parametrize(("to", "end"), [(60, 60), (5, 10), (None, None)])
def test_a_closing_says_where_a_window_without_an_end_did_end_and_never_before_it_began(
    to: int | None, end: int | None
) -> None:
    from_ms = S0 + 10_000
    endless = LossWindow("w", f"changes:{CHANNEL}", "position_lost", from_ms, None, (), ENTITY)
    desk = Desk(endless)
    closing = Closing("w", to_ms=None if to is None else S0 + to * 1000)
    (told,) = coverage(desk.intake.arrive(Closed(ENTITY, S0 + 99_000, (closing,))))
    assert told["to"] == (None if end is None else iso_utc(S0 + end * 1000))
    assert not desk.intake.windows


def test_a_closing_leaves_a_window_that_has_an_end_its_own() -> None:
    desk = Desk(window(at=10))
    closing = Closing("gap_overflow:10", to_ms=S0 + 60_000)
    (told,) = coverage(desk.intake.arrive(Closed(ENTITY, S0 + 99_000, (closing,))))
    assert told["to"] == iso_utc(S0 + 10_999)


# What is judged, by itself


@pytest.mark.parametrize(
    ("before", "old_known", "lost"),
    [(b"{}", True, True), (None, True, False), (b"{}", False, False)],
    ids=["differs", "nothing was known", "the field was not known"],
)
def test_only_what_was_known_and_differs_is_lost(before: bytes | None, old_known: bool, lost: bool) -> None:
    fields = (FieldChange("Status", "New" if old_known else None, "Active", old_known=old_known),)
    change = TrackedChange(RECORD, None, "row", "r", None, before, b"{}", "full", "full", (), 2, S0, fields=fields)
    judge = Unannounced(CHANNEL, memory_store(), OpenWindows({}))
    found = judge.by_rows(rows(Purpose.RESYNC, 9), [change], frozenset(), S0 + 60_000)
    assert bool(found) is lost


@pytest.mark.parametrize(
    ("match", "final", "lost"),
    [(Match.ROW_ONLY, True, True), (Match.ROW_ONLY, False, False), (Match.CONFIRMED, True, False)],
)
def test_only_rows_for_which_no_event_can_come_any_more_are_lost(match: Match, final: bool, lost: bool) -> None:
    values = ("New", "Active", None, "known", None, None, S0, "s", None, "history_row")
    fact = HistoryFact("row:1", 2, final, RECORD, "Status", "Status", *values, match)  # type: ignore[arg-type]
    judge = Unannounced(CHANNEL, memory_store(), OpenWindows({}))
    assert (judge.by_history(ENTITY, [fact], {}) is not None) is lost


def test_the_first_span_begins_where_the_stream_began_to_deliver() -> None:
    """A first start's window ends later than that; were the span to begin at its first cut, a hole would remain."""
    desk = Desk()
    desk.intake.delivering_from(S0)
    desk.intake.delivering_from(S0 + 9_000)
    records = desk.intake.stream_reached(S0 + 40_000, S0 + 45_000)
    (span,) = [orjson.loads(each.value or b"") for each in records if each.topic == TOPICS.coverage]
    assert span["from"] == iso_utc(S0)
