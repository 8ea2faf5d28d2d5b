"""Loss windows and coverage records."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consumer.delivery.coverage import Coverage, Restoration
from consumer.delivery.windows import (
    window_for_change,
    window_for_first_start,
    window_for_forced_position,
    window_for_lost_position,
    window_for_quarantine,
)
from consumer.errors import (
    BitmapError,
    EventError,
    NotAChangeEventError,
    PayloadError,
    SchemaParseError,
    SchemaRefusedError,
    SchemaUnavailableError,
    ServiceError,
)
from consumer.events import LossWindow
from consumer.position import Position, Preset
from tests.delivery_values import CHANNEL, EVENT_ID, ORG, RECORD, TOPICS, change, checked, received

COVERAGE = Coverage(ORG, TOPICS)
OLD = Position(replay_id=b"\x00\x01")


@pytest.mark.parametrize("change_type", ["CREATE", "UPDATE", "DELETE", "UNDELETE", "GAP_DELETE"])
def test_an_event_that_tells_all_its_changes_opens_no_window(change_type: str) -> None:
    assert window_for_change(change(change_type)) is None


@pytest.mark.parametrize(
    ("change_type", "reason"),
    [
        ("GAP_CREATE", "gap_create"),
        ("GAP_UPDATE", "gap_update"),
        ("GAP_UNDELETE", "gap_undelete"),
        ("SNAPSHOT", "unknown_change_type"),
        ("MERGE", "unknown_change_type"),
    ],
)
def test_a_gap_leaves_its_records_in_doubt(change_type: str, reason: str) -> None:
    window = window_for_change(change(change_type))
    assert window is not None
    assert (window.reason, window.record_ids, window.entity) == (reason, (RECORD,), "MessagingSession")
    assert (window.from_ms, window.to_ms) == (1_790_000_000_000, 1_790_000_000_999)
    assert window.event_id == EVENT_ID
    checked(COVERAGE.opened(window, 1))


@pytest.mark.parametrize(
    ("change_type", "reason"),
    [
        ("GAP_OVERFLOW", "gap_overflow"),
        ("UPDATE", "wildcard"),
        ("GAP_DELETE", "wildcard"),
        ("GAP_UPDATE", "gap_update"),
    ],
)
def test_ids_that_name_no_record_leave_the_whole_object_in_doubt(change_type: str, reason: str) -> None:
    window = window_for_change(change(change_type, wildcard_ids=("0Mw*",)))
    assert window is not None
    assert (window.reason, window.record_ids, window.entity) == (reason, (), "MessagingSession")
    assert window.detail["wildcard_ids"] == ["0Mw*"]


def test_an_event_without_any_id_is_not_passed_over() -> None:
    window = window_for_change(change(record_ids=()))
    assert window is not None
    assert window.record_ids == ()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PayloadError("x"), "payload_undecodable"),
        (BitmapError("x"), "bitmap_invalid"),
        (SchemaParseError("x"), "schema_unreadable"),
        (NotAChangeEventError("x"), "not_a_change_event"),
        (EventError("x"), "event"),
        (SchemaRefusedError("x"), "schema_refused"),
        (SchemaUnavailableError("x"), "schema_unavailable"),
    ],
)
def test_quarantine_opens_a_window_with_the_errors_reason(error: ServiceError, reason: str) -> None:
    window = window_for_quarantine(received(), error)
    assert window.reason == reason
    assert window.window_id == f"quarantine:{EVENT_ID}"
    assert (window.from_ms, window.to_ms) == (1_790_000_000_123, 1_790_000_000_123)
    checked(COVERAGE.opened(window, 1))


@pytest.mark.parametrize(
    ("ids", "scope"),
    [
        ((RECORD,), (RECORD,)),
        ((RECORD, RECORD), (RECORD,)),
        ((), ()),
        ((RECORD, "0Mw*"), ()),
        (("000000000000000AAA",), ()),
    ],
)
def test_quarantine_scope_is_the_readable_ids_unless_one_names_no_record(
    ids: tuple[str, ...], scope: tuple[str, ...]
) -> None:
    assert window_for_quarantine(received(), PayloadError("x", record_ids=ids)).record_ids == scope


def test_a_retry_in_vain_keeps_its_window() -> None:
    assert window_for_quarantine(received(window_id="quarantine:y"), PayloadError("x")).window_id == "quarantine:y"


def test_the_same_fact_gives_the_same_window_and_another_fact_another() -> None:
    first = window_for_lost_position(CHANNEL, OLD, 5, 10, "subscription.fetch.replayid.corrupted")
    again = window_for_lost_position(CHANNEL, OLD, 5, 11, "subscription.fetch.replayid.corrupted")
    other = window_for_lost_position(CHANNEL, replace(OLD, replay_id=b"\x00\x02"), 5, 10, "x")
    elsewhere = window_for_lost_position("/data/CaseChangeEvent", OLD, 5, 10, "x")
    assert first.window_id == again.window_id
    assert len({first.window_id, other.window_id, elsewhere.window_id}) == 3


def test_a_lost_position_spans_from_the_last_event_to_now_and_is_open_ended_after_latest() -> None:
    early = window_for_lost_position(CHANNEL, OLD, 5, 10, "c")
    late = window_for_lost_position(CHANNEL, OLD, 5, 10, "c", preset=Preset.LATEST)
    assert (early.reason, early.from_ms, early.to_ms) == ("position_lost", 5, 10)
    assert late.to_ms is None
    assert early.detail == {"code": "c", "old_replay_id": "AAE=", "continued_at": "earliest"}


def test_a_first_start_leaves_everything_before_in_doubt() -> None:
    window = window_for_first_start(CHANNEL, 10)
    assert (window.reason, window.from_ms, window.to_ms, window.entity) == ("no_snapshot", None, 10, "MessagingSession")
    assert window_for_first_start(CHANNEL, 10, preset=Preset.LATEST).to_ms is None
    assert window_for_first_start("/data/ChangeEvents", 10).entity is None


def test_a_forced_position_says_who_and_from_where_to_where() -> None:
    window = window_for_forced_position(CHANNEL, OLD, Position(replay_id=b"\x05"), 5, 10, "ada@host")
    assert (window.reason, window.from_ms, window.to_ms) == ("position_forced", 5, 10)
    assert window.detail == {
        "old_replay_id": "AAE=",
        "new_replay_id": "BQ==",
        "continued_at": "replay_id",
        "who": "ada@host",
    }
    latest = window_for_forced_position(CHANNEL, None, Position(preset=Preset.LATEST), None, 10, "ada")
    assert latest.to_ms is None
    assert latest.detail["continued_at"] == "latest"
    assert latest.window_id != window.window_id


def test_opened_record() -> None:
    window = LossWindow(
        "w", f"changes:{CHANNEL}", "gap_update", 0, None, (RECORD,), "MessagingSession", EVENT_ID, {"a": 1}
    )
    record = COVERAGE.opened(window, 1_790_000_000_000)
    value = checked(record)
    assert record.topic == "salesforce.messaging-session.coverage"
    assert record.key == CHANNEL.encode()
    assert value == {
        "id": "w:opened",
        "kind": "loss_opened",
        "stream": f"changes:{CHANNEL}",
        "from": "1970-01-01T00:00:00.000Z",
        "to": None,
        "complete_to": None,
        "proof": None,
        "window_id": "w",
        "reason": "gap_update",
        "restored": {"state": False, "deletes": False, "tracked_history": False, "all_changes": False},
        "unrecoverable_fields": [],
        "repaired_records": 0,
        "entity": "MessagingSession",
        "record_ids": [RECORD],
        "event_id": EVENT_ID,
        "ts_ms": 1_790_000_000_000,
        "detail": {"a": 1},
    }
    assert dict(record.headers)["ce_time"] == b"2026-09-21T14:13:20.000Z"


def test_closed_record_says_what_was_restored() -> None:
    window = window_for_quarantine(received(), PayloadError("x", record_ids=(RECORD,)))
    restored = Restoration(state=True, all_changes=True)
    record = COVERAGE.closed(window, 5, restored, repaired_records=1, unrecoverable_fields=("Status",))
    value = checked(record)
    assert (value["id"], value["kind"]) == (f"quarantine:{EVENT_ID}:closed", "loss_closed")
    assert value["restored"] == {
        "state": True,
        "deletes": False,
        "tracked_history": False,
        "all_changes": True,
    }
    assert (value["repaired_records"], value["unrecoverable_fields"]) == (1, ["Status"])


def test_facts_that_only_read_the_same_when_joined_give_different_windows() -> None:
    one = window_for_lost_position("/data/X", Position(replay_id=b"Y1"), None, 10, "c")
    two = window_for_lost_position("/data/XY", Position(replay_id=b"1"), None, 10, "c")
    assert one.window_id != two.window_id
