"""What one subscription tells the outside: metrics, health and log lines, from one place."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection
from operator import attrgetter

import structlog

from consumer.delivery.windows import quarantine_reason
from consumer.errors import PubSubError, ServiceError
from consumer.events import LossWindow, ReceivedEvent
from consumer.health.state import Role, SubscriptionHealth
from consumer.outcome import Outcome
from consumer.pipeline import Pipeline
from consumer.ports import Batch, Restored
from consumer.position import Position
from consumer.reactions import Reaction, advice_for
from consumer.telemetry import SubscriptionMetrics
from consumer.tracking.arrivals import Arrival
from consumer.tracking.sharing import SWEPT

_SUMMARY_EVERY_MS = 30_000

_topic_of = attrgetter("topic")


class SubscriptionObserver:
    """Implements the observers of stream, pipeline and supervisor.

    Args:
        channel: the channel.
        metrics: its metrics.
        health: its part of the health state.
        now_ms: wall clock, epoch milliseconds.
    """

    def __init__(
        self, channel: str, metrics: SubscriptionMetrics, health: SubscriptionHealth, now_ms: Callable[[], int]
    ) -> None:
        self._metrics = metrics
        self._health = health
        self._now_ms = now_ms
        self._log = structlog.get_logger("consumer").bind(channel=channel)
        self._windows: set[str] = set()
        self._processed = self._committed = 0
        self._uncommitted: deque[tuple[int, ReceivedEvent | None, Outcome]] = deque()
        self._scan_told_ms = 0
        self._sweep_told_ms = 0
        self._position: Position | None = None
        self._last: tuple[int, int] | None = None
        self._connected = False
        self._waiting = False
        self._since_summary = [0, 0]
        self._summary_at_ms = 0

    # The stream.

    def connected(self) -> None:
        """The server accepted the call."""
        self._connected = True
        if not self._waiting:
            self._health.become(Role.ACTIVE)
        self._log.info("stream.connected")

    def events(self, count: int, received_ms: int) -> None:
        """A response with events came."""
        self._metrics.events(count, received_ms)
        self._health.last_received_ms = received_ms

    def keepalive(self, received_ms: int) -> None:
        """A response without events came."""
        self._metrics.keepalive(received_ms)
        self._health.last_received_ms = received_ms

    def credits(self, outstanding: int) -> None:
        """So many events are asked for and not received."""
        self._metrics.credits(outstanding)
        self._health.credits = outstanding

    def disconnected(self, error: ServiceError, delay_s: float) -> None:
        """The call ended; the next one follows after the delay."""
        self._connected = False
        code = error.code if isinstance(error, PubSubError) else ""
        self._metrics.disconnected(code or type(error).__name__)
        self._health.become(Role.FAILING, error.message, advice_for(error))
        self._log.warning(
            "stream.ended", reason=error.message, advice=advice_for(error), code=code, next_try_s=round(delay_s, 1)
        )

    # The pipeline.

    def processed(self, event: ReceivedEvent, outcome: Outcome) -> None:
        """An event was processed; it is not committed yet."""
        if self._waiting:
            self._waiting = False
            if self._connected:
                self._health.become(Role.ACTIVE)
        if outcome.event_ms is not None:
            self._last = (outcome.event_ms, event.received_ms)
        self._processed += 1
        if outcome.opened or outcome.closed or outcome.error is not None:
            self._uncommitted.append((self._processed, event, outcome))

    def arrived(self, arrival: Arrival, outcome: Outcome) -> None:
        """A read of the org was taken in; it is not committed yet."""
        if outcome.opened or outcome.closed:
            self._uncommitted.append((self._processed, None, outcome))
        kind = type(arrival).__name__
        self._log.debug("arrival.taken_in", kind=kind, records=len(outcome.records))

    def repeated(self, event: ReceivedEvent) -> None:
        """A repeat was dropped."""
        self._log.debug("event.repeated", event_id=event.event_id)

    def waiting_for_schema(self, schema_id: str, error: ServiceError) -> None:
        """The stream is held up by a schema."""
        self._waiting = True
        self._health.become(Role.FAILING, error.message, advice_for(error))
        self._log.warning("schema.unavailable", schema_id=schema_id, reason=error.message)

    def committed(self, batch: Batch, last_event_ms: int | None, seconds: float) -> None:
        """A batch is durable."""
        now_ms = self._now_ms()
        kinds: Counter[str] = Counter()
        for topic, count in Counter(map(_topic_of, batch.records)).items():
            kinds[topic.rpartition(".")[2]] += count
        self._metrics.committed(batch.events, kinds, seconds)
        self._committed += batch.events
        while self._uncommitted and self._uncommitted[0][0] <= self._committed:
            self._took_effect(*self._uncommitted.popleft()[1:])
        self._metrics.loss_windows(len(self._windows))
        health = self._health
        health.last_committed_ms = now_ms
        health.last_event_ms = last_event_ms
        health.open_windows = len(self._windows)
        if batch.position != self._position:
            self._position = batch.position
            as_of_ms = batch.position.as_of_ms(last_event_ms, now_ms)
            self._metrics.position_advanced(as_of_ms)
            health.position_advanced_ms = as_of_ms
        if batch.events and self._last is not None:
            event_ms, received_ms = self._last
            self._metrics.lag(event_ms, received_ms, now_ms)
            health.salesforce_lag_ms = max(0, received_ms - event_ms)
            health.own_lag_ms = max(0, now_ms - received_ms)
        self._summarise(batch.events, now_ms)

    # The reads of the org.

    def api_call_failed(self, job: str, error: ServiceError, delay_s: float) -> None:
        """A read failed and is tried again."""
        self._metrics.api_failed(type(error).__name__)
        self._log.warning(
            "read.failed", job=job, reason=error.message, advice=advice_for(error), next_try_s=round(delay_s, 1)
        )

    def scanning(self, job: str, entity: str, rows: int, total: int | None) -> None:
        """A snapshot or resync got on."""
        before = self._health.scans.get(job, {}).get("rows", 0)
        self._metrics.scanned(rows - (before if isinstance(before, int) else 0))
        self._health.scans[job] = {"entity": entity, "rows": rows, "total": total}
        now_ms = self._now_ms()
        if now_ms - self._scan_told_ms >= _SUMMARY_EVERY_MS:
            self._scan_told_ms = now_ms
            self._log.info("scan.progress", job=job, entity=entity, rows=rows, total=total)

    def scanned(self, job: str, entity: str, rows: int, seconds: float) -> None:
        """A snapshot or resync is complete."""
        self._health.scans.pop(job, None)
        self._log.info("scan.complete", job=job, entity=entity, rows=rows, seconds=round(seconds, 1))

    def sweeping(self, entity: str, rows: int, total: int | None, more: int) -> None:
        """A sweep of share rows got on by so many rows."""
        self._metrics.share_rows_read(more)
        self._health.sweeps[entity] = {"rows": rows, "total": total}
        now_ms = self._now_ms()
        if now_ms - self._sweep_told_ms >= _SUMMARY_EVERY_MS:
            self._sweep_told_ms = now_ms
            self._log.info("sweep.progress", entity=entity, rows=rows, total=total)

    def swept(self, entity: str, rows: int, begun_ms: int, ended_ms: int) -> None:
        """A sweep of share rows is complete."""
        self._health.sweeps.pop(entity, None)
        self._metrics.swept(entity, begun_ms)
        self._log.info("sweep.complete", entity=entity, rows=rows, seconds=round((ended_ms - begun_ms) / 1000, 1))

    def not_available(self, what: str, entity: str, error: ServiceError) -> None:
        """Something can't be read in this org; reported once, lived with."""
        text = f"{what} of {entity}: {error.message}"
        if text not in self._health.unavailable:
            self._health.unavailable.append(text)
            self._log.warning(
                "read.not_available", what=what, entity=entity, reason=error.message, advice=advice_for(error)
            )

    # The supervisor.

    def restored(self, restored: Restored) -> None:
        """Kafka was asked where the subscription stands."""
        self._windows = set(restored.windows)
        self._metrics.loss_windows(len(self._windows))
        for name, state in restored.progress.items():
            if name.startswith(SWEPT):
                self._metrics.swept(name.removeprefix(SWEPT), int(state["begun_ms"]))
        health = self._health
        health.open_windows = len(self._windows)
        health.last_event_ms = restored.last_event_ms
        health.last_committed_ms = restored.committed_ms
        if restored.position is not None and restored.committed_ms is not None:
            as_of_ms = restored.position.as_of_ms(restored.last_event_ms, restored.committed_ms)
            self._metrics.position_advanced(as_of_ms)
            health.position_advanced_ms = as_of_ms
        self._log.info(
            "position.restored",
            position="none" if restored.position is None else "committed",
            open_windows=len(self._windows),
        )

    def streaming(self, pipeline: Pipeline) -> None:
        """A generation begins."""
        self._connected = self._waiting = False
        self._processed = self._committed = 0
        self._uncommitted.clear()
        self._metrics.halted(None)
        self._metrics.paused(paused=False)
        self._metrics.buffered(lambda: pipeline.buffer.events)
        self._health.scans.clear()
        self._health.sweeps.clear()
        self._health.become(Role.STARTING)

    def failed(self, error: ServiceError, reaction: Reaction, delay_s: float) -> None:
        """A generation failed; the next begins after the delay."""
        self._health.become(Role.FAILING, error.message, advice_for(error))
        self._log.warning(
            "generation.failed",
            reason=error.message,
            advice=advice_for(error),
            reaction=reaction.value,
            next_try_s=round(delay_s, 1),
        )

    def halted(self, error: ServiceError) -> None:
        """The subscription waits for ``resume``."""
        self._metrics.halted(type(error).__name__)
        self._health.become(Role.HALTED, error.message, advice_for(error))
        self._log.error("halted", reason=error.message, advice=advice_for(error))

    def paused(self) -> None:
        """The subscription was paused by command."""
        self._metrics.paused(paused=True)
        self._health.become(Role.PAUSED, "paused by command", "`session-consumer resume` ends it.")
        self._log.info("paused")

    def standby(self) -> None:
        """Another worker has this subscription."""
        self._metrics.halted(None)
        self._metrics.paused(paused=False)
        self._health.become(Role.STANDBY)
        self._log.info("standby")

    def windows_opened(self, windows: Collection[LossWindow]) -> None:
        """Loss windows were committed outside the pipeline."""
        for window in windows:
            self._windows.add(window.window_id)
            self._log.warning("loss_window.opened", window_id=window.window_id, reason=window.reason)

    def retried(self, event: ReceivedEvent, error: ServiceError | None) -> None:
        """A quarantined event was processed again."""
        if error is None:
            self._windows.discard(event.window_id or "")
            self._log.info("quarantine.retried", event_id=event.event_id)
        else:
            self._log.warning("quarantine.still_bad", event_id=event.event_id, reason=error.message)

    def _took_effect(self, event: ReceivedEvent | None, outcome: Outcome) -> None:
        """Tell of a loss window and of a quarantined event once they are durable, not when they may still be undone."""
        for window in outcome.opened:
            self._windows.add(window.window_id)
            if outcome.error is None:
                self._log.warning("loss_window.opened", window_id=window.window_id, reason=window.reason)
        for window_id in outcome.closed:
            self._windows.discard(window_id)
            self._log.info("loss_window.closed", window_id=window_id)
        if outcome.error is not None and event is not None:
            self._quarantined(event, outcome.error)

    def _quarantined(self, event: ReceivedEvent, error: ServiceError) -> None:
        reason = quarantine_reason(error)
        self._metrics.quarantined(reason)
        self._health.quarantined += 1
        self._log.warning(
            "event.quarantined", event_id=event.event_id, schema_id=event.schema_id, reason=reason, why=error.message
        )

    def _summarise(self, events: int, now_ms: int) -> None:
        """Write one rich line now and then, not a thin one per batch."""
        self._since_summary[0] += events
        self._since_summary[1] += 1
        if now_ms - self._summary_at_ms < _SUMMARY_EVERY_MS:
            return
        self._log.info(
            "committed",
            events=self._since_summary[0],
            transactions=self._since_summary[1],
            salesforce_lag_ms=self._health.salesforce_lag_ms,
            own_lag_ms=self._health.own_lag_ms,
            open_windows=len(self._windows),
        )
        self._since_summary = [0, 0]
        self._summary_at_ms = now_ms
