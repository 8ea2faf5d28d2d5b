"""From one received event to the records it becomes: decode, normalise, policy, track, encode.

Pure and synchronous: the same events over the same states give the same records, in the service, in a replay and in
a retry. What reads of the org bring takes the same way from tracking on, in :mod:`consumer.intake`.
"""

from __future__ import annotations

from collections.abc import Sequence

from consumer.changes.fields import FieldPolicy
from consumer.changes.normalise import normalise
from consumer.changes.schema import EventSchema, compile_schema
from consumer.delivery.coverage import window_for_change, window_for_quarantine
from consumer.delivery.quarantine import Quarantine
from consumer.errors import SchemaParseError, ServiceError
from consumer.events import ChangeEvent, ChangeType, LossWindow, OutboundRecord, ReceivedEvent
from consumer.frozen import frozen
from consumer.intake import Intake
from consumer.outcome import Outcome
from consumer.records import InternalRecords
from consumer.tracking.arrivals import Arrival, SchemaSeen
from consumer.tracking.values import Key

__all__ = ["Decoded", "Outcome", "Processor"]

_NEEDS_IMAGE = frozenset({ChangeType.UPDATE})
_GIVES_IMAGE = frozenset({ChangeType.CREATE, ChangeType.UNDELETE})


@frozen()
class Decoded:
    """An event after decoding: its change, or why there is none.

    Attributes:
        event: the event.
        change: the normalised change, with the field policy applied; None if it can't be processed.
        error: why not.
    """

    event: ReceivedEvent
    change: ChangeEvent | None
    error: ServiceError | None = None

    @property
    def records(self) -> int:
        """How many records a batch counts for it: its changes, or the one in quarantine."""
        return 1 if self.change is None else max(1, len(self.change.record_ids))


class Processor:
    """Turns events and arrivals into records.

    Args:
        policy: the field policy, applied before anything is tracked or encoded.
        quarantine: makes quarantine records.
        records: makes position and coverage records.
        intake: tracks and encodes.
    """

    def __init__(self, policy: FieldPolicy, quarantine: Quarantine, records: InternalRecords, intake: Intake) -> None:
        self._policy = policy
        self._quarantine = quarantine
        self._records = records
        self.intake = intake
        self._schemas: dict[str, EventSchema] = {}
        self._texts: dict[str, str] = {}
        self._refused: dict[str, ServiceError] = {}

    def knows(self, schema_id: str) -> bool:
        """Return whether events of this schema can be processed, if only by quarantine."""
        return schema_id in self._schemas or schema_id in self._refused

    def learn(self, schema_id: str, schema_json: str) -> None:
        """Take in a writer schema; one that can't be read sends its events to quarantine."""
        try:
            self._schemas[schema_id] = compile_schema(schema_id, schema_json)
            self._texts[schema_id] = schema_json
        except SchemaParseError as error:
            self._refused[schema_id] = error

    def refuse(self, schema_id: str, error: ServiceError) -> None:
        """Say that a schema is not to be had: its events go to quarantine."""
        self._refused[schema_id] = error

    def process(self, event: ReceivedEvent) -> Outcome:
        """Return what the event becomes; its schema must be known."""
        return self.apply(self.decode(event))

    def decode(self, event: ReceivedEvent) -> Decoded:
        """Decode an event whose schema is known; nothing is tracked yet."""
        try:
            return Decoded(event, self._change(event))
        except ServiceError as error:
            return Decoded(event, None, error)

    def apply(self, decoded: Decoded) -> Outcome:
        """Return what a decoded event becomes, and track it."""
        if decoded.change is not None:
            return self._changed(decoded.change)
        assert decoded.error is not None, "a decoded event has a change or an error"  # noqa: S101  # made so above
        return self._quarantined(decoded.event, decoded.error)

    def process_again(self, event: ReceivedEvent, window: LossWindow) -> Outcome:
        """Return what a quarantined event becomes now; if it is good, its loss window is closed with it.

        An event that still can't be processed gives no records: it is in quarantine already.
        """
        decoded = self.decode(event)
        if decoded.change is None:
            return Outcome((), error=decoded.error)
        outcome = self._changed(decoded.change)
        closing = self._records.window_closed_by_retry(window, event.received_ms, outcome.changes)
        self.intake.windows.close(window.window_id)
        return Outcome(
            (*outcome.records, *closing),
            outcome.changes,
            outcome.opened,
            (window.window_id,),
            None,
            outcome.event_ms,
            outcome.size,
        )

    def unknown(self, decoded: Sequence[Decoded]) -> dict[str, list[str]]:
        """Return the records, by object, that these events update without anything being known of them."""
        wanted: dict[str, dict[str, None]] = {}
        given: set[Key] = set()
        for each in decoded:
            change = each.change
            if change is None:
                continue
            entity = change.header.entity
            if change.change_type in _GIVES_IMAGE:
                given.update((entity, record_id) for record_id in change.record_ids)
            elif change.change_type in _NEEDS_IMAGE:
                for record_id in change.record_ids:
                    key = (entity, record_id)
                    if key not in given and not self.intake.has_image(key):
                        wanted.setdefault(entity, {})[record_id] = None
        return {entity: list(ids) for entity, ids in wanted.items()}

    def arrive(self, arrival: Arrival) -> Outcome:
        """Return what a read of the org becomes."""
        if isinstance(arrival, SchemaSeen):
            return self._schema_seen(arrival)
        return self.intake.arrive(arrival)

    def _change(self, event: ReceivedEvent) -> ChangeEvent:
        schema = self._schemas.get(event.schema_id)
        if schema is None:
            raise self._refused[event.schema_id]
        change = normalise(event, schema)
        self.intake.require_topics(change)
        return self._policy.apply(change) if self._policy.active else change

    def _changed(self, change: ChangeEvent) -> Outcome:
        received = change.received
        opening: list[OutboundRecord] = []
        entity = change.header.entity
        if self.intake.objects.schema_id(entity) != received.schema_id:
            schema = self._schemas[received.schema_id]
            event = (received.event_id, change.header.commit_ms)
            opening += self.intake.schema_used(
                entity, schema, self._texts[received.schema_id], change.schema_fields, event, received.received_ms
            )
        window = window_for_change(change)
        told = self.intake.event(change)
        if window is None and not opening:
            return told
        if window is not None:
            opening += self._records.window_opened(window, received.received_ms)
            self.intake.opened(window)
        opened = () if window is None else (window,)
        return Outcome((*told.records, *opening), told.changes, opened, (), None, change.header.commit_ms, told.size)

    def _quarantined(self, event: ReceivedEvent, error: ServiceError) -> Outcome:
        window = window_for_quarantine(event, error)
        record = self._quarantine.record(event, error, window)
        opening = self._records.window_opened(window, event.received_ms)
        self.intake.opened(window)
        self.intake.doubt(window)
        return Outcome((record, *opening), 0, (window,), (), error, None, len(event.payload))

    def _schema_seen(self, seen: SchemaSeen) -> Outcome:
        if not self.knows(seen.schema_id):
            self.learn(seen.schema_id, seen.schema_json)
        schema = self._schemas.get(seen.schema_id)
        entity = None if schema is None else schema_entity(schema.name)
        if schema is None or entity is None:
            return Outcome(())
        fields = tuple(self._policy.apply_values(entity, dict.fromkeys(schema.schema_fields)))
        told = self.intake.schema_used(entity, schema, seen.schema_json, fields, (None, seen.as_of_ms), seen.as_of_ms)
        return Outcome(tuple(told))


def schema_entity(name: str) -> str | None:
    """Return the object that a change event schema belongs to, None if its name is not that of one.

    ``MessagingSessionChangeEvent`` is of MessagingSession, ``Widget__ChangeEvent`` of ``Widget__c``.
    """
    if name.endswith("__ChangeEvent"):
        return name.removesuffix("ChangeEvent") + "c"
    return name.removesuffix("ChangeEvent") if name.endswith("ChangeEvent") else None
