"""What was received against what this service assumes: shapes, never values.

Pure: takes recorded items, gives a report. A contradiction (the bytes and their schema, a bitmap and its schema, our
decoder and the ``avro`` library disagree) is a failure; something we have not met before is a warning, because
Salesforce adds fields, types and change types, and they pass through. No finding holds a value of a record.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from consumer.changes.normalise import normalise
from consumer.changes.record_ids import names_no_record
from consumer.changes.schema import HEADER_FIELD, EventSchema, compile_schema
from consumer.changes.shapes import FieldShape, PrimitiveShape, RecordShape, Shape
from consumer.errors import BitmapError, EventError
from consumer.events import ChangeEvent, ChangeType, Keepalive, ReceivedEvent, ReceivedSchema, StreamFault, TapItem
from consumer.recording.oracle import FAILURES, Oracle

HEADER_ORDER = (
    "entityName",
    "recordIds",
    "changeType",
    "changeOrigin",
    "transactionKey",
    "sequenceNumber",
    "commitTimestamp",
    "commitNumber",
    "commitUser",
    "nulledFields",
    "diffFields",
    "changedFields",
)
"""The header's fields as the Pub/Sub API sends them (CDC developer guide, "ChangeEventHeader Fields")."""

AVRO_TYPES: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("Boolean",), frozenset({"boolean"})),
    **dict.fromkeys(("Integer",), frozenset({"int", "long"})),
    **dict.fromkeys(("Double", "Currency", "Percent"), frozenset({"double"})),
    **dict.fromkeys(("DateTime", "DateOnly", "Birthday", "TimeOnly"), frozenset({"long"})),
    **dict.fromkeys(("Address", "Location", "PersonName", "ComplexValueType"), frozenset({"record"})),
    "Switchable_PersonName": frozenset({"string", "record"}),
    **dict.fromkeys(
        (
            *("Text", "StringPlusClob", "HtmlStringPlusClob", "EncryptedText", "Email", "Url", "Phone", "Fax"),
            *("DynamicEnum", "StaticEnum", "MultiEnum", "EntityId", "ExternalId", "Content"),
        ),
        frozenset({"string"}),
    ),
}
"""Known doc types and the Avro types their values have (Pub/Sub API guide, "Event Deserialization Considerations")."""

REPLAY_ID_LENGTHS = (8, 10)
"""Bytes of the replay ids seen so far; they are opaque, so another length only deserves a look."""

_PART_TYPES = frozenset({"string", "double", "boolean", "int", "long"})
_DAY_MS = 86_400_000
_FIRST_COMMIT_MS = 1_400_000_000_000
"""2014: before there were change events."""
_CLOCK_SLACK_MS = 600_000
_CHANGE_TYPES = frozenset(ChangeType)
_HAS_FIELD_LISTS = frozenset({"UPDATE"})
_HEADER_ONLY = "GAP_"
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_WHERE_SHOWN = 5


class Check(StrEnum):
    """What is checked; the value is what the report calls it."""

    SCHEMAS_COMPILE = "schemas can be read"
    SCHEMA_HEADER = "schemas begin with the change event header we know"
    SCHEMA_TYPES = "field types are known"
    SCHEMA_THERE = "every event's schema is there"
    DECODES = "payloads decode"
    EQUALS_AVRO = "our decoder and the avro library agree"
    RE_ENCODES = "values encode to the same bytes again"
    BITMAPS = "field bitmaps fit their schema"
    NORMALISES = "events name records"
    CHANGE_TYPES = "change types are known"
    BODY = "bodies carry what their header says"
    RECORD_IDS = "record ids have 18 characters"
    COMMIT_TIMES = "commit times are plausible"
    DATES = "dates are midnights in UTC"
    TIMES = "times are within a day"
    EVENT_IDS = "event ids are UUIDs, each seen once"
    REPLAY_IDS = "replay ids have a known length"
    CANONICAL = "values have a JSON form"


@dataclass(slots=True)
class Outcome:
    """How one check went.

    Attributes:
        checked: how many schemas or events it was made on.
        failed: how many contradict it.
        warned: how many are of a kind we have not met.
        where: the first few of them, by schema, field or event id; no values.
    """

    checked: int = 0
    failed: int = 0
    warned: int = 0
    where: list[str] = field(default_factory=list)

    @property
    def status(self) -> str:
        """``fail``, ``warn``, ``ok``, or ``skipped`` when there was nothing to check."""
        if self.failed:
            return "fail"
        if self.warned:
            return "warn"
        return "ok" if self.checked else "skipped"


@dataclass(slots=True)
class Seen:
    """What there was, beside what was checked; numbers and names of the schema only."""

    items: Counter[str] = field(default_factory=Counter)
    change_types: Counter[str] = field(default_factory=Counter)
    events_by_schema: Counter[str] = field(default_factory=Counter)
    schemas: dict[str, str] = field(default_factory=dict)
    replay_id_lengths: Counter[int] = field(default_factory=Counter)
    shared_replay_ids: int = 0
    several_record_ids: int = 0
    wildcards: int = 0
    nulled: int = 0
    diffs: int = 0
    nested_bitmaps: int = 0
    enriched: dict[str, set[str]] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)


class Verifier:
    """Takes items in the order they were received and keeps the outcome of every check.

    Attributes:
        outcomes: by check, in the order of :class:`Check`.
        seen: what there was.
    """

    def __init__(self) -> None:
        self.outcomes = {check: Outcome() for check in Check}
        self.seen = Seen()
        self._schemas: dict[str, tuple[EventSchema, Oracle] | None] = {}
        self._event_ids: set[str] = set()
        self._last_replay_id: dict[str, bytes] = {}

    @property
    def failed(self) -> bool:
        """Whether anything contradicts what the service assumes."""
        return any(outcome.failed for outcome in self.outcomes.values())

    @property
    def warned(self) -> bool:
        """Whether anything was of a kind we have not met."""
        return any(outcome.warned for outcome in self.outcomes.values())

    def take(self, item: TapItem) -> None:
        """Check one item."""
        match item:
            case ReceivedSchema():
                self.seen.items["schemas"] += 1
                self._schema(item)
            case ReceivedEvent():
                self.seen.items["events"] += 1
                self._event(item)
            case Keepalive():
                self.seen.items["keepalives"] += 1
                self._replay_id(item.replay_id, "a keep-alive")
            case StreamFault():
                self.seen.items["faults"] += 1
                self.seen.faults[item.error] += 1

    def _note(self, check: Check, where: str, *, fail: bool = False, warn: bool = False) -> None:
        """Count one check; with neither ``fail`` nor ``warn`` it was passed."""
        outcome = self.outcomes[check]
        outcome.checked += 1
        if not (fail or warn):
            return
        outcome.failed += fail
        outcome.warned += warn and not fail
        if len(outcome.where) < _WHERE_SHOWN and where not in outcome.where:
            outcome.where.append(where)

    # -- schemas

    def _schema(self, item: ReceivedSchema) -> None:
        where = f"schema {item.schema_id}"
        try:
            schema = compile_schema(item.schema_id, item.schema_json)
        except EventError:
            self._schemas[item.schema_id] = None
            self._note(Check.SCHEMAS_COMPILE, where, fail=True)
            return
        self._note(Check.SCHEMAS_COMPILE, where)
        self._schemas[item.schema_id] = (schema, Oracle(item.schema_json))
        self.seen.schemas[item.schema_id] = schema.name
        self._header_shape(schema)
        for top in schema.fields:
            for path, each in _with_parts(top):
                unknown = _unknown_shape(each, top_level=each is top)
                name = f"{schema.name}.{path}"
                self._note(Check.SCHEMA_TYPES, f"{name} ({unknown})" if unknown else name, warn=bool(unknown))

    def _header_shape(self, schema: EventSchema) -> None:
        first = schema.record.fields[0] if schema.record.fields else None
        if first is None or first.name != HEADER_FIELD or not isinstance(first.shape, RecordShape):
            self._note(Check.SCHEMA_HEADER, f"{schema.name} has no header in front", fail=True)
            return
        names = tuple(part.name for part in first.shape.fields)
        missing = [name for name in HEADER_ORDER if name not in names]
        if missing:
            self._note(Check.SCHEMA_HEADER, f"{schema.name} lacks {', '.join(missing)}", fail=True)
            return
        where = f"{schema.name} has the header fields {', '.join(names)}"
        self._note(Check.SCHEMA_HEADER, where, warn=names != HEADER_ORDER)

    # -- events

    def _event(self, event: ReceivedEvent) -> None:
        self._identity(event)
        where = f"event {event.event_id}"
        if event.schema_id not in self._schemas:
            self._note(Check.SCHEMA_THERE, f"{where} needs schema {event.schema_id}", fail=True)
            return
        self._note(Check.SCHEMA_THERE, where)
        known = self._schemas[event.schema_id]
        if known is None:
            return
        schema, oracle = known
        self.seen.events_by_schema[schema.name] += 1
        where = f"{where} ({schema.name})"
        try:
            values = schema.decode_full(event.payload)
        except EventError:
            self._note(Check.DECODES, where, fail=True)
            return
        self._note(Check.DECODES, where)
        self._against_avro(event.payload, values, oracle, where)
        self._calendar(schema, values, where)
        self._meaning(event, schema, values, where)

    def _identity(self, event: ReceivedEvent) -> None:
        where = f"event {event.event_id}"
        repeated = event.event_id in self._event_ids
        self._event_ids.add(event.event_id)
        odd = _UUID.fullmatch(event.event_id) is None
        self._note(Check.EVENT_IDS, f"{where} came again" if repeated else where, warn=odd or repeated)
        self._replay_id(event.replay_id, where)
        if not repeated and self._last_replay_id.get(event.topic) == event.replay_id:
            self.seen.shared_replay_ids += 1
        self._last_replay_id[event.topic] = event.replay_id

    def _replay_id(self, replay_id: bytes, where: str) -> None:
        length = len(replay_id)
        self.seen.replay_id_lengths[length] += 1
        self._note(Check.REPLAY_IDS, f"{where} ({length} bytes)", warn=length not in REPLAY_ID_LENGTHS)

    def _against_avro(self, payload: bytes, values: dict[str, Any], oracle: Oracle, where: str) -> None:
        try:
            theirs = oracle.read(payload)
        except FAILURES:
            self._note(Check.EQUALS_AVRO, f"{where}: the library can't read it", fail=True)
            return
        # As text, because a NaN is not equal to itself, and True is not 1 here.
        self._note(Check.EQUALS_AVRO, where, fail=repr(theirs) != repr(values))
        try:
            again = oracle.write(theirs)
            same = again == payload
            equivalent = same or repr(oracle.read(again)) == repr(theirs)
        except FAILURES:
            same = equivalent = False
        self._note(Check.RE_ENCODES, where, fail=not equivalent, warn=not same)

    def _calendar(self, schema: EventSchema, values: Mapping[str, Any], where: str) -> None:
        for each in schema.fields:
            value = values.get(each.name)
            if not isinstance(value, int):
                continue
            if each.doc_type in {"DateOnly", "Birthday"}:
                self._note(Check.DATES, f"{where}, {each.name}", fail=value % _DAY_MS != 0)
            elif each.doc_type == "TimeOnly":
                self._note(Check.TIMES, f"{where}, {each.name}", fail=not 0 <= value < _DAY_MS)

    def _meaning(self, event: ReceivedEvent, schema: EventSchema, values: Mapping[str, Any], where: str) -> None:
        try:
            change = normalise(event, schema)
        except BitmapError:
            self._note(Check.BITMAPS, where, fail=True)
            return
        except EventError:
            self._note(Check.NORMALISES, where, fail=True)
            return
        except (ArithmeticError, TypeError, ValueError):
            self._note(Check.CANONICAL, where, fail=True)
            return
        for check in (Check.BITMAPS, Check.NORMALISES, Check.CANONICAL):
            self._note(check, where)
        self._header_values(change, where)
        self._body(change, schema, values, where)
        self._count(change, schema, values)

    def _header_values(self, change: ChangeEvent, where: str) -> None:
        header = change.header
        kind = header.change_type
        self._note(Check.CHANGE_TYPES, f"{where}: {kind}", warn=kind not in _CHANGE_TYPES)
        short = any(len(each) != 18 for each in header.record_ids if not names_no_record(each))
        self._note(Check.RECORD_IDS, where, warn=short)
        latest_ms = change.received.received_ms + _CLOCK_SLACK_MS
        self._note(Check.COMMIT_TIMES, where, warn=not _FIRST_COMMIT_MS <= header.commit_ms <= latest_ms)

    def _body(self, change: ChangeEvent, schema: EventSchema, values: Mapping[str, Any], where: str) -> None:
        """A header's lists and the body tell the same; a gap event has no body."""
        kind = change.change_type
        lists = (change.changed_fields, change.nulled_fields, change.diff_fields)
        odd = ""
        if kind.startswith(_HEADER_ONLY) and any(values[name] is not None for name in schema.schema_fields):
            odd = "a gap event with values"
        elif kind not in _HAS_FIELD_LISTS and any(lists):
            odd = f"{kind} with field lists"
        elif not set(change.nulled_fields) <= set(change.changed_fields):
            odd = "a nulled field that is not changed"
        elif not set(change.diff_fields) <= set(change.changed_fields):
            odd = "a diff of a field that is not changed"
        else:
            carried = set(_carried(values))
            silent = [
                name for name in change.changed_fields if name not in carried and name not in change.nulled_fields
            ]
            if silent:
                odd = f"{', '.join(silent)} changed without a value"
        self._note(Check.BODY, f"{where}: {odd}" if odd else where, warn=bool(odd))

    def _count(self, change: ChangeEvent, schema: EventSchema, values: Mapping[str, Any]) -> None:
        seen = self.seen
        seen.change_types[change.change_type] += 1
        seen.several_record_ids += len(change.header.record_ids) > 1
        seen.wildcards += bool(change.wildcard_ids)
        seen.nulled += bool(change.nulled_fields)
        seen.diffs += bool(change.diff_fields)
        seen.nested_bitmaps += any("-" in element for element in change.header.changed_bitmaps)
        if change.change_type in {"UPDATE", "DELETE"}:
            changed = {name.partition(".")[0] for name in change.changed_fields}
            extra = {name for name in schema.schema_fields if values[name] is not None and name not in changed}
            if extra:
                seen.enriched.setdefault(schema.name, set()).update(extra)


def _carried(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the fields and parts that have a value."""
    for name, value in values.items():
        if value is None:
            continue
        yield name
        if isinstance(value, Mapping):
            yield from (f"{name}.{part}" for part, each in value.items() if each is not None)


def _with_parts(top: FieldShape) -> Iterator[tuple[str, FieldShape]]:
    yield top.name, top
    if top.record is not None:
        yield from ((f"{top.name}.{part.name}", part) for part in top.record.fields)


def _unknown_shape(each: FieldShape, *, top_level: bool) -> str:
    """Return what is new about a field's shape, empty when it is one we know; parts are read by their Avro type."""
    kinds = {_kind(branch) for branch in each.branches} - {"null"}
    if any(isinstance(branch, PrimitiveShape) and branch.logical for branch in each.branches):
        return "an Avro logical type"
    if not each.nullable and top_level:
        return "not nullable"
    if not top_level:
        return "" if kinds <= _PART_TYPES else f"{' or '.join(sorted(kinds))} in a compound"
    expected = AVRO_TYPES.get(each.doc_type)
    if expected is None:
        return f"doc type {each.doc_type!r}"
    return "" if kinds <= expected else f"doc type {each.doc_type} as {' or '.join(sorted(kinds))}"


def _kind(shape: Shape) -> str:
    if isinstance(shape, PrimitiveShape):
        return shape.name
    return type(shape).__name__.removesuffix("Shape").lower()
