"""The whole way of an event through a store of many sessions: decode, look up, track, encode, cut, merge.

The sessions' states are those of a few hundred sessions of the emulated org under other ids; the events are the org's
own, each an update of a session chosen by chance.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson

from consumer.assembly import TrackingTimes
from consumer.emulator.oracle_truth import image_of
from consumer.emulator.org import Change, OrgEvent, OrgModel
from consumer.emulator.org_records import OrgRecord
from consumer.emulator.record_ids import numbered_id
from consumer.emulator.traffic_data import REPS
from consumer.emulator.traffic_past import Past
from consumer.events import ReceivedEvent
from consumer.ports import Piece, Restored
from consumer.processor import Processor
from consumer.store.sqlite import SqliteStore
from consumer.store.wire import codec_of
from consumer.tracking.arrivals import FactsRead
from consumer.tracking.values import EntityFacts, RecordState
from tests.fakes import ASSEMBLY, internal_records
from tests.store_values import CHANNEL, ENTITY, ORG, TOPICS

BATCH = 500
_TAKE = 100
"""Events that the pipeline takes from its buffer at a time."""
_PATTERNS = 400
_FIRST = 1_000_000
_NOW_MS = 1_790_000_000_000
_STEP_MS = 3_600_000


def record_id(number: int) -> str:
    """Return the id of a session."""
    return numbered_id("0Mw", _FIRST + number)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A session as the org has it and as its state is encoded."""

    record_id: str
    row: OrgRecord
    value: bytes


class Sessions:
    """Many sessions, few of which have values of their own."""

    def __init__(self) -> None:
        self._org = OrgModel(1)
        past = list(Past(self._org, 1).sessions(_PATTERNS, _PATTERNS // 2, _NOW_MS))
        schema = self._org.store.schemas[ENTITY]
        table = self._org.store.table(ENTITY)
        codec = codec_of(TOPICS, ORG)
        self._patterns: list[Pattern] = []
        for session in past:
            row = table.pop(session.record_id)
            image = image_of(schema, session.record_id, row.values)
            values = {name: value for name, value in image.items() if name != "Id"}
            encoded = orjson.dumps({"Id": session.record_id, **values})
            state = RecordState(ENTITY, session.record_id, values, encoded, version=1, row_stamp_ms=_NOW_MS - _STEP_MS)
            value = codec.encode_state((ENTITY, session.record_id), state).value
            assert value is not None
            self._patterns.append(Pattern(session.record_id, row, value))

    def _pattern(self, number: int) -> Pattern:
        return self._patterns[number % _PATTERNS]

    def values(self, start: int, end: int) -> Iterator[tuple[str, bytes]]:
        """Yield ids and encoded states."""
        for number in range(start, end):
            pattern, name = self._pattern(number), record_id(number)
            yield name, pattern.value.replace(pattern.record_id.encode(), name.encode())

    def fill(self, store: SqliteStore, records: int) -> float:
        """Load so many states as a restore does; returns the seconds it took the store."""
        spent, topic = 0.0, TOPICS.of(ENTITY, "state")
        for start in range(0, records, 2000):
            piece = Piece(list(self.values(start, min(records, start + 2000))), [], {(topic, 0): start}, 1)
            before = time.perf_counter()
            store.load(piece, lambda _: True)
            spent += time.perf_counter() - before
        return spent

    def events(self, numbers: Sequence[int]) -> list[ReceivedEvent]:
        """Return an update of each of these sessions, in order."""
        choice = random.Random(2)
        org, table = self._org, self._org.store.table(ENTITY)
        found: list[ReceivedEvent] = []
        for at, number in enumerate(numbers):
            name = record_id(number)
            if name not in table:
                row = self._pattern(number).row
                table[name] = OrgRecord(row.values.copy(), system_modstamp_ms=row.system_modstamp_ms)
            fields = {"OwnerId": choice.choice(REPS), "Priority__c": choice.choice(("Low", "High", "Urgent"))}
            if at % 2:
                fields = {"Status": "Active", "AgentType": "Agent", **fields}
            made = org.commit([Change("update", ENTITY, name, fields)], _NOW_MS + at // 100 * 1000, split=False)
            found += [_received(each, len(found)) for each in made]
        return found

    def processor(self, store: SqliteStore, schema_id: str) -> Processor:
        """Return the service's processor over a store; it knows the schema and the object's facts."""
        processor = ASSEMBLY.processor(CHANNEL, internal_records(), store, Restored(None), TrackingTimes())
        schema_json = self._org.schema_json(schema_id)
        assert schema_json is not None
        processor.learn(schema_id, schema_json)
        visible = frozenset(self._org.store.schemas[ENTITY].index)
        facts = EntityFacts(ENTITY, visible, frozenset(), self._org.tracked_fields(ENTITY), has_history=True)
        processor.arrive(FactsRead(facts, _NOW_MS))
        return processor


def _received(event: OrgEvent, number: int) -> ReceivedEvent:
    return ReceivedEvent(
        CHANNEL, event.event_id, event.schema_id, event.payload, b"%08d" % number, event.commit_ms + 500
    )


def work(sessions: Sessions, store: SqliteStore, numbers: Sequence[int]) -> dict[str, float]:
    """Take events the whole way; returns microseconds of processor time for one, by step."""
    events = sessions.events(numbers)
    processor = sessions.processor(store, events[0].schema_id)
    # What is only done once, such as reading the schema, is not what size costs.
    _batch(processor, store, events[:BATCH], dict.fromkeys(_STEPS, 0.0), 1)
    spent = dict.fromkeys(_STEPS, 0.0)
    rest = events[BATCH:]
    began = time.perf_counter()
    for start in range(0, len(rest), BATCH):
        _batch(processor, store, rest[start : start + BATCH], spent, start + 2)
    wall = time.perf_counter() - began
    result = {f"{name}_us": seconds / len(rest) * 1e6 for name, seconds in spent.items()}
    return result | {"event_us": sum(spent.values()) / len(rest) * 1e6, "event_wall_us": wall / len(rest) * 1e6}


_STEPS = ("decode", "unknown", "apply", "cut", "merge")


def _batch(
    processor: Processor, store: SqliteStore, events: Sequence[ReceivedEvent], spent: dict[str, float], offset: int
) -> None:
    clock = time.process_time
    for start in range(0, len(events), _TAKE):
        before = clock()
        decoded = [processor.decode(each) for each in events[start : start + _TAKE]]
        between = clock()
        assert not processor.unknown(decoded)
        looked = clock()
        for each in decoded:
            outcome = processor.apply(each)
            assert outcome.error is None
        spent["decode"] += between - before
        spent["unknown"] += looked - between
        spent["apply"] += clock() - looked
    before = clock()
    delta = store.cut()
    between = clock()
    store.merge(delta, {(TOPICS.of(ENTITY, "state"), 0): offset})
    spent["cut"] += between - before
    spent["merge"] += clock() - between


def chosen(records: int, events: int) -> list[int]:
    """Return numbers of sessions by chance, each once: a second change of a session would cost its facts again."""
    return random.Random(1).sample(range(records), events)
