"""What a subscription tells the outside: health roles and metrics follow what really happens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import pytest
import structlog
from structlog.testing import capture_logs

from consumer.errors import (
    DeliveryAllowanceError,
    FloodError,
    KafkaUnavailableError,
    SchemaUnavailableError,
    StreamEndedError,
)
from consumer.health.state import Role, SubscriptionHealth
from consumer.observer import SubscriptionObserver
from consumer.pipeline import Pipeline
from consumer.ports import Batch, Restored
from consumer.position import Position
from consumer.processor import Outcome
from consumer.reactions import Reaction
from consumer.telemetry import POSITION_LIFETIME_MS, Metrics
from tests.fakes import CHANNEL, NOW_MS, PlainProcessor, change_record, event, replay_id


class Desk:
    """An observer and what it writes to."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS
        self.metrics = Metrics(lambda: self.now_ms)
        self.health = SubscriptionHealth(CHANNEL)
        self.observer = SubscriptionObserver(
            CHANNEL, self.metrics.subscription(CHANNEL), self.health, lambda: self.now_ms
        )

    def role(self) -> Role:
        return self.health.role

    def committed(self, last_event_ms: int | None = None, *, events: int = 1, at: int = 1) -> None:
        position = Position(replay_id(at))
        self.observer.committed(Batch((change_record(f"e{at}"),), events, position), last_event_ms, 0.01)

    def value(self, name: str, **labels: str) -> float | None:
        registry = self.metrics.registry
        return registry.get_sample_value(f"session_consumer_{name}", {"subscription": CHANNEL} | labels)


@pytest.fixture
def desk() -> Iterator[Desk]:
    with capture_logs():
        structlog.reset_defaults()
        yield Desk()


def good(number: int = 1) -> Outcome:
    return Outcome((change_record(f"e{number}"),), 1, event_ms=NOW_MS - 2_000, size=10)


def test_connected_is_active_and_the_end_of_the_call_is_failing_with_its_reason(desk: Desk) -> None:
    desk.observer.connected()
    assert desk.role() is Role.ACTIVE
    desk.observer.disconnected(StreamEndedError("The stream ended", code="x.y"), 1.0)
    assert (desk.health.role, desk.health.reason) == (Role.FAILING, "The stream ended")
    assert desk.health.advice
    assert desk.value("reconnects_total", reason="x.y") == 1


def test_the_rest_of_a_refused_stream_does_not_make_it_ready_again(desk: Desk) -> None:
    """The last batch is committed after the server has refused the next call."""
    desk.observer.connected()
    desk.observer.events(1, NOW_MS)
    desk.observer.disconnected(DeliveryAllowanceError("The allowance is used up"), 900.0)
    desk.observer.processed(event(1), good())
    desk.committed(NOW_MS)
    assert desk.role() is Role.FAILING
    desk.observer.connected()
    assert desk.role() is Role.ACTIVE


def test_a_wait_for_a_schema_is_failing_until_an_event_goes_on(desk: Desk) -> None:
    desk.observer.connected()
    desk.observer.waiting_for_schema("s1", SchemaUnavailableError("No schema service"))
    desk.committed(NOW_MS)
    assert desk.role() is Role.FAILING, "what came before it is committed meanwhile"
    desk.observer.connected()
    assert desk.role() is Role.FAILING
    desk.observer.processed(event(1), good())
    assert desk.role() is Role.ACTIVE


def test_lag_is_split_into_salesforces_and_ours(desk: Desk) -> None:
    desk.observer.processed(event(1), good())
    desk.now_ms = NOW_MS + 1 + 40
    desk.committed(NOW_MS - 2_000)
    assert (desk.health.salesforce_lag_ms, desk.health.own_lag_ms) == (2_001, 40)
    assert desk.health.last_committed_ms == desk.now_ms
    assert desk.health.last_event_ms == NOW_MS - 2_000


def test_expiry_counts_from_the_last_advance_of_the_position(desk: Desk) -> None:
    desk.committed(events=0)
    desk.now_ms += 3_600_000
    desk.committed(events=0)
    assert desk.value("position_expires_seconds") == (POSITION_LIFETIME_MS - 3_600_000) / 1000
    desk.committed(events=0, at=2)
    assert desk.value("position_expires_seconds") == POSITION_LIFETIME_MS / 1000


def test_expiry_is_known_from_the_start(desk: Desk) -> None:
    desk.observer.restored(Restored(Position(replay_id(1)), committed_ms=NOW_MS - 3_600_000))
    assert desk.value("position_expires_seconds") == (POSITION_LIFETIME_MS - 3_600_000) / 1000
    assert desk.health.position_advanced_ms == NOW_MS - 3_600_000


def test_open_windows_are_counted_through_quarantine_retry_and_restart(desk: Desk) -> None:
    processor = PlainProcessor()
    processor.learn("s1", "{}")
    bad = processor.process(event(1, bad=True))
    desk.observer.processed(event(1, bad=True), bad)
    desk.committed()
    assert (desk.health.open_windows, desk.value("loss_windows_open")) == (1, 1)
    assert desk.value("quarantined_total", reason="payload_undecodable") == 1
    (window,) = bad.opened
    desk.observer.restored(Restored(None, {window.window_id: window}))
    desk.observer.windows_opened((window,))
    assert desk.health.open_windows == 1
    again = replace(event(1), window_id=window.window_id)
    desk.observer.retried(again, KafkaUnavailableError("still bad"))
    desk.committed(at=2)
    assert desk.health.open_windows == 1
    desk.observer.retried(again, None)
    desk.committed(at=3)
    assert desk.health.open_windows == 0


def test_what_is_undone_before_it_is_committed_was_never_in_quarantine(desk: Desk) -> None:
    """A flood halts before its first event: its events must not be counted at every attempt."""
    bad = PlainProcessor().process(event(2, bad=True))
    desk.observer.processed(event(1), good(1))
    desk.observer.processed(event(2, bad=True), bad)
    desk.committed(events=1)
    assert (desk.health.quarantined, desk.health.open_windows) == (0, 0)
    desk.observer.streaming(cast("Pipeline", None))  # a generation begins; nothing asks for its buffer here
    desk.observer.processed(event(2, bad=True), bad)
    desk.committed(events=1, at=2)
    assert (desk.health.quarantined, desk.health.open_windows) == (1, 1)


def test_halt_pause_and_standby_are_told_and_end(desk: Desk) -> None:
    error = FloodError("Too many events are bad")
    desk.observer.halted(error)
    assert (desk.health.role, desk.value("halted", reason="FloodError")) == (Role.HALTED, 1)
    desk.observer.paused()
    assert (desk.health.role, desk.value("paused")) == (Role.PAUSED, 1)
    desk.observer.standby()
    assert desk.role() is Role.STANDBY
    assert desk.health.ready
    assert (desk.value("halted", reason="FloodError"), desk.value("paused")) == (0, 0)


def test_a_failed_generation_says_why_and_what_to_do(desk: Desk) -> None:
    desk.observer.connected()
    desk.observer.failed(KafkaUnavailableError("No broker"), Reaction.RESTART, 1.0)
    assert (desk.health.role, desk.health.reason) == (Role.FAILING, "No broker")
    assert "bootstrap" in desk.health.advice


def test_counters_and_kinds_of_records(desk: Desk) -> None:
    desk.observer.events(3, NOW_MS)
    desk.observer.keepalive(NOW_MS)
    desk.observer.credits(42)
    desk.committed(NOW_MS, events=3)
    assert desk.value("events_received_total") == 3
    assert desk.value("keepalives_total") == 1
    assert desk.value("credits_outstanding") == desk.health.credits == 42
    assert desk.value("records_committed_total", kind="changes") == 1


def test_a_sweep_under_way_is_on_the_status_page_and_its_rows_are_counted(desk: Desk) -> None:
    desk.observer.sweeping("MessagingSession", 50, 120, 50)
    desk.observer.sweeping("MessagingSession", 100, None, 50)
    desk.observer.sweeping("Case", 7, 9, 7)
    assert desk.health.sweeps["MessagingSession"] == {"rows": 100, "total": None}
    assert desk.value("share_rows_total") == 107
    desk.observer.swept("MessagingSession", 120, NOW_MS - 60_000, NOW_MS)
    assert desk.health.sweeps.keys() == {"Case"}
    desk.observer.streaming(cast("Pipeline", None))  # a generation begins; nothing asks for its buffer here
    assert desk.health.sweeps == {}


def test_a_sweep_s_age_counts_from_its_beginning_and_goes_on_growing(desk: Desk) -> None:
    desk.observer.swept("MessagingSession", 120, NOW_MS - 60_000, NOW_MS)
    assert desk.value("sweep_age_seconds", entity="MessagingSession") == 60
    desk.now_ms += 3_600_000
    assert desk.value("sweep_age_seconds", entity="MessagingSession") == 3_660
    desk.observer.swept("MessagingSession", 120, desk.now_ms - 5_000, desk.now_ms)
    assert desk.value("sweep_age_seconds", entity="MessagingSession") == 5


def test_a_sweep_s_age_is_known_from_the_start_and_of_an_object_never_swept_it_is_not(desk: Desk) -> None:
    progress = {
        "swept:MessagingSession": {"begun_ms": NOW_MS - 90_000, "ended_ms": NOW_MS - 30_000, "rows": 120},
        "sweep:Case": {"begun_ms": NOW_MS, "rows": 0},
    }
    desk.observer.restored(Restored(None, progress=progress))
    assert desk.value("sweep_age_seconds", entity="MessagingSession") == 90
    assert desk.value("sweep_age_seconds", entity="Case") is None


def test_the_log_tells_of_a_sweep_now_and_then_and_of_its_end() -> None:
    desk = Desk()
    with capture_logs() as lines:
        for number in range(60):
            desk.now_ms += 1_000
            desk.observer.sweeping("MessagingSession", number * 50, 3_000, 50)
        desk.observer.swept("MessagingSession", 3_000, desk.now_ms - 60_500, desk.now_ms)
    told = [line["event"] for line in lines]
    assert 1 < told.count("sweep.progress") < 10
    assert [line["seconds"] for line in lines if line["event"] == "sweep.complete"] == [60.5]


def test_the_log_has_one_summary_for_many_commits() -> None:
    desk = Desk()
    with capture_logs() as lines:
        for number in range(1, 100):
            desk.now_ms += 1_000
            desk.committed(NOW_MS, at=number)
    assert [line["event"] for line in lines].count("committed") == 4
    assert sum(line.get("events", 0) for line in lines) > 60
