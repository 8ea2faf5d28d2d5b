"""Tracks what events and reads say, and encodes what follows: changes, history, windows and progress.

Pure: states come through a port, times are in the values. One intake lives for one generation of a subscription.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import singledispatchmethod
from typing import Final

from consumer.changes.schema import EventSchema
from consumer.companions import CompanionEncoders, Companions, CompanionTimes
from consumer.delivery.coverage import Coverage, window_for_new_object, window_for_reconciliation
from consumer.delivery.envelope import Envelope
from consumer.delivery.history import History
from consumer.delivery.names import entity_of_channel
from consumer.events import ChangeEvent, Json, LossWindow, OutboundRecord
from consumer.objects import Objects
from consumer.outcome import Outcome
from consumer.owed import Owed
from consumer.records import InternalRecords
from consumer.spans import Spans
from consumer.tracking import schema_change
from consumer.tracking.arrivals import (
    COUNTED,
    Arrival,
    Closed,
    Closing,
    Expired,
    FactsRead,
    FeedRead,
    HistoryRead,
    MetricsRead,
    Progress,
    Purpose,
    Reconciled,
    RowsRead,
    RulesRead,
    SettleDue,
    SharesRead,
)
from consumer.tracking.history import HistoryTracker
from consumer.tracking.open_windows import OpenWindows
from consumer.tracking.schema_change import SchemaChange
from consumer.tracking.states import States
from consumer.tracking.tracker import Tracker
from consumer.tracking.values import EntityFacts, HistoryFact, Key
from consumer.unannounced import Unannounced

_SCHEMA: Final = "schema:"


@dataclass(frozen=True, slots=True)
class Encoders:
    """What turns tracked values into records."""

    envelope: Envelope
    history: History
    coverage: Coverage
    records: InternalRecords
    companions: CompanionEncoders


@dataclass(frozen=True, slots=True)
class Known:
    """What Kafka knew when the generation began: open loss windows by id, progress of jobs and polls by name."""

    windows: Mapping[str, LossWindow]
    progress: Mapping[str, Mapping[str, Json]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the settings want of an intake.

    Attributes:
        refresh_after_ms: how long after its end a session is read again, milliseconds.
        snapshots: whether an object that appears later is read as a whole, as those of a first start are.
        companions: what of sharing and feeds is wanted.
    """

    refresh_after_ms: int
    snapshots: bool
    companions: CompanionTimes


class Intake:
    """Takes in events and arrivals of one channel.

    Args:
        channel: the channel.
        states: what is known of records.
        tracker: images.
        history: makes the tracker of field history, given how to find the window that owns up to a change.
        encoders: make records.
        known: what Kafka knew at the start.
        wanted: by the settings.

    Attributes:
        tracker: as given.
        objects: what is known of the channel's objects.
        windows: loss windows open now.
        progress: newest progress by name.
        stream_to_ms: up to when the stream has delivered everything, epoch milliseconds; 0 while that is not known.
        skew_ms: how much the org's clock is ahead of ours, milliseconds; facts are timed by the org's.
        news: counts what the upkeep must hear of: windows, objects, requests.
    """

    def __init__(
        self,
        channel: str,
        states: States,
        tracker: Tracker,
        history: Callable[[Callable[[str, str, int], str | None]], HistoryTracker],
        encoders: Encoders,
        *,
        known: Known,
        wanted: Wanted,
    ) -> None:
        self._channel = channel
        self._states = states
        self.tracker = tracker
        self.windows = OpenWindows(known.windows)
        self._history = history(self.windows.owning_up)
        self._unannounced = Unannounced(channel, states, self.windows)
        self._encoders = encoders
        self._refresh_after_ms = wanted.refresh_after_ms
        self._snapshots = wanted.snapshots
        self.objects = Objects()
        self.progress = dict(known.progress)
        self._companions = Companions(states, wanted.companions, encoders.companions, self.progress)
        self._owed = Owed(states, self._companions, wanted.refresh_after_ms)
        self._spans = Spans(channel, encoders.coverage, self.progress, self._progressed)
        self.stream_to_ms = 0
        self.skew_ms = 0
        self.news = 0

    def has_image(self, key: Key) -> bool:
        """Return whether anything is known of a record's fields."""
        state = self._states.get(key)
        return state is not None and not state.deleted and bool(state.image)

    def facts(self, entity: str) -> EntityFacts | None:
        """Return what describe told of the object, None until it was read."""
        facts = self.tracker.facts(entity)
        return None if facts.visible is None else facts

    # The stream

    def schema_used(
        self,
        entity: str,
        schema: EventSchema,
        schema_json: str,
        fields: tuple[str, ...],
        event: tuple[str | None, int],
        at_ms: int,
    ) -> list[OutboundRecord]:
        """Take note of the schema an event was written with; an older one than the newest changes nothing.

        Args:
            entity: object API name.
            schema: the schema.
            schema_json: its text.
            fields: its body fields that the field policy lets through.
            event: the event's id and commit time, epoch milliseconds; no id when the schema was asked for.
            at_ms: when it was seen, epoch milliseconds.

        Returns:
            Records that tell of a schema change, when this is one.
        """
        as_of_ms = event[1]
        before = self.progress.get(_SCHEMA + entity)
        older = before is not None and before["schema_id"] != schema.schema_id and as_of_ms < int(before["as_of_ms"])
        if older or not self.objects.use(entity, schema, as_of_ms):
            return []
        self.news += 1
        self.tracker.learn(entity, fields)
        if before is not None and before["schema_id"] == schema.schema_id:
            return []
        state: dict[str, Json] = {"schema_id": schema.schema_id, "schema_json": schema_json, "as_of_ms": as_of_ms}
        records = [self._progressed(Progress(_SCHEMA + entity, state))]
        if before is None:
            records += self._appeared(entity, as_of_ms, at_ms)
        else:
            change = schema_change.compare(entity, str(before["schema_json"]), schema_json)
            if change is not None:
                coverage, ids = self._encoders.coverage, (str(before["schema_id"]), schema.schema_id)
                records.append(coverage.schema_changed(self._channel, change, ids, event, at_ms))
                records += self._read_anew(entity, change, schema.schema_id, as_of_ms)
        return records

    def _appeared(self, entity: str, as_of_ms: int, at_ms: int) -> list[OutboundRecord]:
        """Have an object read as a whole that a channel of several carries for the first time."""
        several = entity_of_channel(self._channel) is None
        under_way = any(window.reason == "no_snapshot" for window in self.windows.values())
        if not (self._snapshots and several) or under_way:
            return []
        window = window_for_new_object(self._channel, entity, as_of_ms)
        self.opened(window)
        return list(self._encoders.records.window_opened(window, at_ms))

    def _read_anew(self, entity: str, change: SchemaChange, schema_id: str, as_of_ms: int) -> list[OutboundRecord]:
        """Have all records read after fields were added or changed type: until then nobody knows their values."""
        self.objects.forget_describe(entity)
        if not (change.added or change.retyped):
            return []
        state: dict[str, Json] = {"entity": entity, "where": "", "issued_ms": as_of_ms}
        return [self._progressed(Progress(f"snapshot:schema-{schema_id}", state))]

    def require_topics(self, change: ChangeEvent) -> None:
        """Make sure that the object's name can be part of topic names, before anything is tracked.

        Raises:
            PayloadError: it can't.
        """
        self._encoders.envelope.require_topics(change)

    def event(self, change: ChangeEvent) -> Outcome:
        """Track a change event and return its change and history records."""
        header = change.header
        entity = header.entity
        received_ms = change.received.received_ms
        doubted_before_ms = self.windows.doubted_before(entity)
        if doubted_before_ms:
            self._doubt_old_images(change, doubted_before_ms)
        tracked = self.tracker.on_event(change)
        records = self._encoders.envelope.changes(change, tracked)
        changes = len(records)
        facts = self.tracker.facts(entity)
        told: list[HistoryFact] = []
        for each in tracked:
            if each.fields:
                told += self._history.on_change(
                    entity,
                    each,
                    facts,
                    event_id=change.received.event_id,
                    commit_ms=header.commit_ms,
                    user=header.commit_user or None,
                    seen_ms=received_ms + self.skew_ms,
                )
            self._owed.by_change(entity, each, facts, header.commit_user or None, event=True)
        self._owe_doubtful(header.commit_ms)
        if told:
            records += self._encoders.history.records(entity, told, received_ms)
        size = sum([len(record.value) for record in records if record.value is not None])
        return Outcome(tuple(records), changes, (), (), None, header.commit_ms, size)

    def opened(self, window: LossWindow) -> None:
        """Take note of a window that a record of this batch opens."""
        self.windows.open(window)
        self.news += 1

    def doubt(self, window: LossWindow) -> None:
        """Take the images of a window's records for out of date until they are read again."""
        if window.entity is not None and window.record_ids:
            at_ms = window.from_ms if window.to_ms is None else window.to_ms
            self.tracker.suspect(window.entity, window.record_ids, window.reason, at_ms or 0)

    def delivering_from(self, at_ms: int) -> None:
        """Take note that from a time on everything is delivered; without effect once a span was begun.

        A first start's window ends where its reading begins, which is later: no moment lies between the two.
        """
        self._spans.begin(at_ms)

    def stream_reached(self, complete_to_ms: int, now_ms: int) -> list[OutboundRecord]:
        """Take note that the stream delivered everything before a time; returns the span that is due, if any.

        Args:
            complete_to_ms: in the org's time, epoch milliseconds.
            now_ms: when the record is written, epoch milliseconds.
        """
        self.stream_to_ms = max(self.stream_to_ms, complete_to_ms)
        return self._spans.changes(complete_to_ms, now_ms)

    def begun_at(self, commit_ms: int, now_ms: int) -> Outcome:
        """Take note of the first event after a lost position: what is lost ends where it begins.

        Args:
            commit_ms: its commit time, epoch milliseconds.
            now_ms: the org's time, epoch milliseconds.
        """
        records: list[OutboundRecord] = []
        for window in self.windows.without_end():
            ended = self.windows.end(window, commit_ms)
            records.append(self._encoders.records.window(ended))
            records += self._spans.lost(ended.from_ms, ended.to_ms, now_ms)
        return Outcome(tuple(records))

    def nothing_lost(self, at_ms: int) -> Outcome:
        """Take note that the oldest retained event was committed before: so was everything before it."""
        everything = [
            Closing(window.window_id, tracked_history=True, all_changes=True) for window in self.windows.without_end()
        ]
        return self._finish([], 0, everything, (), at_ms)

    # Reads of the org

    def arrive(self, arrival: Arrival) -> Outcome:
        """Return what a read of the org becomes."""
        return self._arrive(arrival)

    @singledispatchmethod
    def _arrive(self, arrival: object) -> Outcome:
        raise TypeError(f"{type(arrival).__name__} is no arrival")

    @_arrive.register
    def _(self, read: RowsRead) -> Outcome:
        doubted = self._unannounced.in_doubt(read)
        tracked = self.tracker.on_rows(read)
        if read.purpose is Purpose.REFRESH:
            for record_id in (*(row.record_id for row in read.rows), *read.missing):
                self._owed.read((read.entity, record_id), read.answered_ms, have_metrics=None)
        envelope = self._encoders.envelope
        records = envelope.rows(read.entity, self._channel, read, tracked, read.answered_ms)
        changes = len(records)
        facts = self.tracker.facts(read.entity)
        told: list[HistoryFact] = []
        for each in tracked:
            if each.fields:
                told += self._history.on_change(
                    read.entity,
                    each,
                    facts,
                    event_id=None,
                    commit_ms=each.stamp_ms,
                    user=None,
                    seen_ms=read.answered_ms,
                )
            self._owed.by_change(read.entity, each, facts, None, event=False)
        self._owe_doubtful(read.answered_ms)
        records += self._encoders.history.records(read.entity, told, read.answered_ms)
        certain = [each for each in tracked if each.record_id not in doubted]
        opened = self._unannounced.by_rows(read, certain, facts.not_in_events, self.stream_to_ms)
        for window in opened:
            records += self._open(window, read.answered_ms)
        progress = self._so_far(read.progress) if read.more else read.progress
        outcome = self._finish(records, changes, read.closings, progress, read.answered_ms, repaired=changes)
        return replace(outcome, opened=opened) if opened else outcome

    def _open(self, window: LossWindow, at_ms: int) -> tuple[OutboundRecord, ...]:
        self.opened(window)
        self.doubt(window)
        return self._encoders.records.window_opened(window, at_ms)

    @_arrive.register
    def _(self, read: HistoryRead) -> Outcome:
        told = self._history.on_rows(read, self.tracker.facts(read.entity))
        records = self._encoders.history.records(read.entity, told, read.answered_ms)
        if read.complete_to_ms is not None and not read.backfill:
            records += self._spans.history(read.entity, read.complete_to_ms, read.answered_ms)
        return self._finish(records, 0, read.closings, read.progress, read.answered_ms)

    @_arrive.register
    def _(self, due: SettleDue) -> Outcome:
        ledgers = self._unannounced.ledgers(due.entity, due.record_ids)
        told = self._history.settle(
            due.entity,
            [(due.entity, record_id) for record_id in due.record_ids],
            complete_to_ms=due.complete_to_ms,
            stream_to_ms=self.stream_to_ms,
            now_ms=due.answered_ms,
            facts=self.tracker.facts(due.entity),
        )
        records = self._encoders.history.records(due.entity, told, due.answered_ms)
        self._owed.forget_feed(due.entity, due.record_ids)
        window = self._unannounced.by_history(due.entity, told, ledgers)
        if window is not None:
            records += self._open(window, due.answered_ms)
        outcome = self._finish(records, 0, (), (), due.answered_ms)
        return outcome if window is None else replace(outcome, opened=(window,))

    @_arrive.register
    def _(self, read: MetricsRead) -> Outcome:
        self.tracker.on_metrics(read)
        for record_id in read.asked:
            self._owed.read((read.entity, record_id), read.answered_ms, have_metrics=record_id in read.metrics)
        return Outcome(())

    @_arrive.register
    def _(self, read: FactsRead) -> Outcome:
        self.tracker.set_facts(read.facts)
        if read.fields is not None and self.objects.describe(read.facts.entity, read.fields):
            self.news += 1
        return Outcome(())

    @_arrive.register
    def _(self, read: Reconciled) -> Outcome:
        coverage = self._encoders.coverage
        records: list[OutboundRecord] = []
        opened: tuple[LossWindow, ...] = ()
        if read.differing:
            window = window_for_reconciliation(
                self._channel, read.entity, read.differing, read.from_ms, read.to_ms, digest=read.digest
            )
            records += self._open(window, read.answered_ms)
            opened = (window,)
        else:
            records.append(coverage.reconciled(self._channel, read, read.answered_ms))
        outcome = self._finish(records, 0, (), read.progress, read.answered_ms)
        return replace(outcome, opened=opened)

    @_arrive.register
    def _(self, read: SharesRead) -> Outcome:
        records, progress = self._companions.shares(read)
        if read.swept_from_ms is not None:
            records += self._spans.sharing(read.entity, read.swept_from_ms, read.answered_ms)
        return self._finish(records, 0, (), progress, read.answered_ms)

    @_arrive.register
    def _(self, read: RulesRead) -> Outcome:
        records, progress = self._companions.rules(read)
        return self._finish(records, 0, (), progress, read.answered_ms)

    @_arrive.register
    def _(self, read: FeedRead) -> Outcome:
        records = self._companions.feed(read)
        if read.complete_to_ms is not None:
            records += self._spans.feed(read.entity, read.complete_to_ms, read.answered_ms)
        return self._finish(records, 0, (), read.progress, read.answered_ms)

    @_arrive.register
    def _(self, over: Expired) -> Outcome:
        self.tracker.on_expired(over.entity, over.record_ids)
        return Outcome(())

    @_arrive.register
    def _(self, closed: Closed) -> Outcome:
        return self._finish([], 0, closed.closings, closed.progress, closed.answered_ms)

    def _finish(
        self,
        records: list[OutboundRecord],
        changes: int,
        closings: Sequence[Closing],
        progress: Sequence[Progress],
        at_ms: int,
        *,
        repaired: int = 0,
    ) -> Outcome:
        closed = []
        for closing in closings:
            window = self.windows.close(closing.window_id)
            if window is not None:
                if window.to_ms is None and closing.to_ms is not None:
                    window = replace(window, to_ms=max(closing.to_ms, window.from_ms or 0))
                records += self._encoders.records.window_closed(window, closing, at_ms, repaired)
                closed.append(window.window_id)
        if progress or closed:
            self.news += 1
        records += [self._progressed(self._counted(each, repaired)) for each in progress]
        size = sum(len(record.value) for record in records if record.value is not None)
        return Outcome(tuple(records), changes, closed=tuple(closed), size=size)

    def _counted(self, progress: Progress, repaired: int) -> Progress:
        """Add what this arrival emitted to the running number of records that a repair or scan has emitted."""
        if progress.done or not progress.name.startswith(COUNTED):
            return progress
        before = self.progress.get(progress.name, {}).get("repaired", 0)
        return replace(progress, state={**progress.state, "repaired": int(before) + repaired})

    def _so_far(self, progress: Sequence[Progress]) -> list[Progress]:
        """Return progress as it stands: what a part of a read has emitted is counted, and nothing else moves."""
        known = ((each.name, self.progress.get(each.name)) for each in progress if each.name.startswith(COUNTED))
        return [Progress(name, state) for name, state in known if state is not None]

    def _progressed(self, progress: Progress) -> OutboundRecord:
        if progress.done:
            self.progress.pop(progress.name, None)
        else:
            self.progress[progress.name] = progress.state
        return self._encoders.records.progress(progress)

    # Doubt

    def _owe_doubtful(self, at_ms: int) -> None:
        """Have records read whose diff fits nothing, or whose row proved too little."""
        for key in self.tracker.take_doubtful():
            self._owed.by_doubt(key, at_ms)

    def _doubt_old_images(self, change: ChangeEvent, before_ms: int) -> None:
        """Doubt what was known of an event's records before a loss, and owe them a read of their own.

        A scan for the window may have read them before the event came, and then does not see them again.
        """
        entity = change.header.entity
        for record_id in change.record_ids:
            key = (entity, record_id)
            state = self._states.get(key)
            if state is None or state.deleted or not state.image:
                continue
            known_ms = max(state.row_read_ms or 0, 0 if state.source is None else state.source.commit_ms)
            if known_ms < before_ms and not state.suspect.issuperset(state.image):
                self.tracker.suspect(entity, (record_id,), "lost", before_ms)
                self._owed.by_doubt(key, change.header.commit_ms + self._refresh_after_ms)
