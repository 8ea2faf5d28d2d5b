"""A recording through the same code as the live stream; no clock is read but the recording's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from consumer.delivery.windows import window_for_lost_position
from consumer.errors import PositionLostError, SchemaRefusedError
from consumer.events import Keepalive, OutboundRecord, ReceivedEvent, ReceivedSchema, StreamFault, TapItem
from consumer.ports import Store
from consumer.position import Position
from consumer.processor import Processor
from consumer.recent import RecentEvents
from consumer.records import InternalRecords


class Replay:
    """Turns recorded items into the records that the service would have committed.

    Args:
        processor_for: makes the processor of a channel, over the states given to it.
        store_for: makes the empty store of a channel.
        records_for: makes the internal records of a channel.
    """

    def __init__(
        self,
        processor_for: Callable[[str, Store], Processor],
        store_for: Callable[[str], Store],
        records_for: Callable[[str], InternalRecords],
    ) -> None:
        self._processor_for = processor_for
        self._store_for = store_for
        self._records_for = records_for
        self._processors: dict[str, Processor] = {}
        self._stores: dict[str, Store] = {}
        self._schemas: dict[str, str] = {}
        self._recent = RecentEvents()
        self._positions: dict[str, Position] = {}
        self._last_event_ms: dict[str, int] = {}
        self._lost_on: set[str] = set()

    def records(self, items: Iterable[TapItem]) -> Iterator[tuple[OutboundRecord, ...]]:
        """Yield the records of each item that has any; internal ones of ``positions`` and ``ledger`` included.

        Batches of one event are cut, so that the output does not depend on how fast anybody was.
        """
        for item in items:
            match item:
                case ReceivedSchema():
                    self._learn(item)
                case ReceivedEvent():
                    yield self._event(item)
                case Keepalive():
                    position = self._positions.get(item.topic, Position())
                    self._positions[item.topic] = position.after_keepalive(item.replay_id)
                case StreamFault():
                    if item.error == PositionLostError.__name__:
                        yield self._lost(item)

    def _processor(self, channel: str) -> Processor:
        processor = self._processors.get(channel)
        if processor is None:
            store = self._stores[channel] = self._store_for(channel)
            processor = self._processors[channel] = self._processor_for(channel, store)
            for schema_id, schema_json in self._schemas.items():
                processor.learn(schema_id, schema_json)
        return processor

    def _learn(self, item: ReceivedSchema) -> None:
        self._schemas[item.schema_id] = item.schema_json
        for processor in self._processors.values():
            processor.learn(item.schema_id, item.schema_json)

    def _event(self, event: ReceivedEvent) -> tuple[OutboundRecord, ...]:
        processor = self._processor(event.topic)
        if self._recent.is_repeat(event.event_id):
            if event.topic not in self._lost_on:
                return ()
            self._lost_on.remove(event.topic)
            return processor.intake.nothing_lost(event.received_ms).records
        if not processor.knows(event.schema_id):
            processor.refuse(event.schema_id, SchemaRefusedError("The schema is not in the recording"))
        decoded = processor.decode(event)
        begun: tuple[OutboundRecord, ...] = ()
        if event.topic in self._lost_on and decoded.change is not None:
            self._lost_on.remove(event.topic)
            begun = processor.intake.begun_at(decoded.change.header.commit_ms, event.received_ms).records
        outcome = processor.apply(decoded)
        position = self._positions.get(event.topic, Position())
        self._positions[event.topic] = position.after_event(event.event_id, event.replay_id)
        if outcome.event_ms is not None:
            self._last_event_ms[event.topic] = outcome.event_ms
        store = self._stores[event.topic]
        delta = store.cut()
        store.merge(delta, {})
        return (*begun, *outcome.records, *delta.records)

    def _lost(self, fault: StreamFault) -> tuple[OutboundRecord, ...]:
        old = self._positions.pop(fault.topic, Position())
        last_event_ms = self._last_event_ms.get(fault.topic)
        window = window_for_lost_position(fault.topic, old, last_event_ms, fault.received_ms, fault.code)
        # The service would begin anew with this window open: what it knew before is in doubt.
        self._lost_on.add(fault.topic)
        intake = self._processor(fault.topic).intake
        intake.opened(window)
        intake.tracker.epoch += 1
        return self._records_for(fault.topic).window_opened(window, fault.received_ms)
