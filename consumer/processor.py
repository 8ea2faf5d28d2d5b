"""From one received event to the records it becomes: decode, normalise, apply the field policy, encode.

Pure and synchronous: the same event gives the same records, in the service, in a replay and in a retry.
"""

from __future__ import annotations

from dataclasses import dataclass

from consumer.changes.fields import FieldPolicy
from consumer.changes.normalise import normalise
from consumer.changes.schema import EventSchema, compile_schema
from consumer.delivery.coverage import window_for_change, window_for_quarantine
from consumer.delivery.envelope import Envelope
from consumer.delivery.quarantine import Quarantine
from consumer.errors import SchemaParseError, ServiceError
from consumer.events import LossWindow, OutboundRecord, ReceivedEvent
from consumer.records import InternalRecords


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one event became.

    Attributes:
        records: its records, in order; every one belongs into the same transaction.
        changes: how many of them are change records.
        window: the loss window it opened, None if it told everything.
        error: why it went to quarantine, None if it did not.
        event_ms: commit time in Salesforce, epoch milliseconds, None if the header was not readable.
        size: value bytes of the records.
    """

    records: tuple[OutboundRecord, ...]
    changes: int = 0
    window: LossWindow | None = None
    error: ServiceError | None = None
    event_ms: int | None = None
    size: int = 0


class Processor:
    """Turns events into records; keeps nothing but compiled schemas.

    Args:
        policy: the field policy, applied before anything is encoded.
        envelope: makes change records.
        quarantine: makes quarantine records.
        records: makes position and coverage records.
    """

    def __init__(
        self, policy: FieldPolicy, envelope: Envelope, quarantine: Quarantine, records: InternalRecords
    ) -> None:
        self._policy = policy
        self._envelope = envelope
        self._quarantine = quarantine
        self._records = records
        self._schemas: dict[str, EventSchema] = {}
        self._refused: dict[str, ServiceError] = {}

    def knows(self, schema_id: str) -> bool:
        """Return whether events of this schema can be processed, if only by quarantine."""
        return schema_id in self._schemas or schema_id in self._refused

    def learn(self, schema_id: str, schema_json: str) -> None:
        """Take in a writer schema; one that can't be read sends its events to quarantine."""
        try:
            self._schemas[schema_id] = compile_schema(schema_id, schema_json)
        except SchemaParseError as error:
            self._refused[schema_id] = error

    def refuse(self, schema_id: str, error: ServiceError) -> None:
        """Say that a schema is not to be had: its events go to quarantine."""
        self._refused[schema_id] = error

    def process(self, event: ReceivedEvent) -> Outcome:
        """Return what the event becomes; its schema must be known."""
        try:
            return self._changed(event)
        except ServiceError as error:
            return self._quarantined(event, error)

    def process_again(self, event: ReceivedEvent, window: LossWindow) -> Outcome:
        """Return what a quarantined event becomes now; if it is good, its loss window is closed with it.

        An event that still can't be processed gives no records: it is in quarantine already.
        """
        try:
            outcome = self._changed(event)
        except ServiceError as error:
            return Outcome((), error=error)
        closing = self._records.window_closed_by_retry(window, event.received_ms, outcome.changes)
        return Outcome(
            (*outcome.records, *closing), outcome.changes, outcome.window, None, outcome.event_ms, outcome.size
        )

    def _changed(self, event: ReceivedEvent) -> Outcome:
        schema = self._schemas.get(event.schema_id)
        if schema is None:
            raise self._refused[event.schema_id]
        change = normalise(event, schema)
        if self._policy.active:
            change = self._policy.apply(change)
        records = self._envelope.changes(change)
        size = sum(len(record.value) for record in records if record.value is not None)
        window = window_for_change(change)
        opening = () if window is None else self._records.window_opened(window, event.received_ms)
        return Outcome((*records, *opening), len(records), window, None, change.header.commit_ms, size)

    def _quarantined(self, event: ReceivedEvent, error: ServiceError) -> Outcome:
        window = window_for_quarantine(event, error)
        record = self._quarantine.record(event, error, window)
        opening = self._records.window_opened(window, event.received_ms)
        return Outcome((record, *opening), 0, window, error, None, len(event.payload))
