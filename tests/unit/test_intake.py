"""What the intake makes of windows and events together: which images are in doubt, and what a lost position lost."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from consumer.assembly import TrackingTimes
from consumer.delivery.positions import decode_entry
from consumer.events import ChangeEvent, LossWindow
from consumer.intake import Intake
from consumer.outcome import Outcome
from consumer.ports import Restored
from tests.fakes import ASSEMBLY, CHANNEL, TOPICS, internal_records, memory_store
from tests.tracking_values import ENTITY, KEY, OTHER, RECORD, S0, event

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
