"""States in memory, and builders of events and rows, for the tests of tracked images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from consumer.delivery.envelope import Envelope
from consumer.events import ChangeEvent, ChangeHeader, Json, OutboundRecord, ReceivedEvent
from consumer.tracking.access import AccessState
from consumer.tracking.arrivals import Purpose, RowsRead
from consumer.tracking.changes import TrackedChange
from consumer.tracking.tracker import Tracker
from consumer.tracking.values import EntityFacts, Key, LedgerEntry, RecordState, Row

ENTITY = "MessagingSession"
CHANNEL = "/data/MessagingSessionChangeEvent"
RECORD = "0Mw000000000001AAA"
OTHER = "0Mw000000000002AAA"
KEY = (ENTITY, RECORD)
FIELDS = ("Name", "Status", "OwnerId", "EndTime", "Notes__c", "Address", "AgentMessageCount", "LastModifiedDate")
FACTS = EntityFacts(ENTITY, visible=frozenset(FIELDS), not_in_events=frozenset({"AgentMessageCount"}))
S0 = 1_790_000_000_000
"""A whole second; the times of the tests are seconds after it."""


class MemoryStates:
    """States as a dict; ``written`` counts what was put."""

    def __init__(self) -> None:
        self.states: dict[Key, RecordState] = {}
        self.written = 0

    def get(self, key: Key) -> RecordState | None:
        return self.states.get(key)

    def put(self, state: RecordState) -> None:
        self.states[state.entity, state.record_id] = state
        self.written += 1

    def remove(self, key: Key) -> None:
        self.states.pop(key, None)

    def ledger(self, key: Key) -> LedgerEntry | None:
        return None

    def put_ledger(self, entry: LedgerEntry) -> None:
        raise AssertionError("images do not touch the ledger")

    def access(self, key: Key) -> AccessState | None:
        return None

    def put_access(self, access: AccessState) -> None:
        raise AssertionError("images do not touch shares")

    def remove_access(self, key: Key) -> None:
        raise AssertionError("images do not touch shares")


def event(
    change_type: str = "UPDATE",
    at: int = 0,
    values: Mapping[str, Json] | None = None,
    *,
    changed: Sequence[str] | None = None,
    diffs: Sequence[str] = (),
    record_ids: tuple[str, ...] = (RECORD,),
    fields: tuple[str, ...] = FIELDS,
    entity: str = ENTITY,
    event_id: str | None = None,
    window_id: str | None = None,
) -> ChangeEvent:
    """Return a change event committed ``at`` seconds after S0.

    Changed fields are those with values unless they are given; a value None is nulled, a dict changes its parts.
    """
    values = {} if values is None else values
    if changed is None:
        paths = [
            path
            for name, value in values.items()
            for path in ([f"{name}.{part}" for part in value] if isinstance(value, dict) else [name])
        ]
    else:
        paths = list(changed)
    if change_type != "UPDATE":
        paths = []
    commit_ms = S0 + at * 1000
    header = ChangeHeader(entity, record_ids, change_type, "", "key", 1, commit_ms, 7, "005000000000001AAA", (), (), ())
    received = ReceivedEvent(
        CHANNEL, event_id or f"event-{change_type}-{at}", "schema", b"", b"\0" * 10, commit_ms + 50, (), window_id
    )
    nulled = tuple(path for path in paths if _value(values, path) is None)
    return ChangeEvent(
        received, header, change_type, record_ids, (), fields, values, tuple(paths), nulled, tuple(diffs)
    )


def _value(values: Mapping[str, Json], path: str) -> Json:
    name, _, part = path.partition(".")
    value = values.get(name)
    return value.get(part) if part and isinstance(value, dict) else value


def row(at: int, values: Mapping[str, Json], *, deleted: bool = False, record_id: str = RECORD) -> Row:
    """Return a row whose SystemModstamp is ``at`` seconds after S0."""
    return Row(record_id, values, S0 + at * 1000, deleted)


def rows(
    purpose: Purpose,
    answered: int,
    *read: Row,
    mark: int | None = None,
    missing: tuple[str, ...] = (),
    window: str | None = None,
    job_id: str = "",
    last: bool = False,
) -> RowsRead:
    """Return a read whose answer's Date was ``answered`` - 1 seconds after S0."""
    windows = () if window is None else (window,)
    return RowsRead(purpose, ENTITY, read, S0 + answered * 1000, mark, missing, windows, job_id, last)


def tracker(*, facts: EntityFacts | None = FACTS, **options: Any) -> tuple[Tracker, MemoryStates]:
    """Return a tracker that knows the schema, and the facts unless they are None."""
    states = MemoryStates()
    made = Tracker(states, **options)
    made.learn(ENTITY, FIELDS)
    if facts is not None:
        made.set_facts(facts)
    return made, states


def image(data: bytes | None) -> Any:
    """Return an encoded image, without its id, as JSON; None for none."""
    if data is None:
        return None
    fields = orjson.loads(data)
    assert next(iter(fields)) == "Id"
    del fields["Id"]
    return fields


def untracked(envelope: Envelope, change: ChangeEvent) -> list[OutboundRecord]:
    """Return the records of an event before which nothing was known."""
    return envelope.changes(change, Tracker(MemoryStates()).on_event(change))


def facts_of(change: TrackedChange) -> list[tuple[Any, ...]]:
    """Return a change's field facts: name, old, new, and what of them is not known."""
    return [
        (
            fact.field,
            fact.old if fact.old_known else "?",
            fact.new if fact.new_known else "?",
        )
        for fact in change.fields
    ]
