"""Writer schemas: validated by the ``avro`` library, then compiled once for the hot path."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import avro.errors
import avro.schema

from consumer.changes.bitmaps import Bitmaps
from consumer.changes.canonical import canonical_converter
from consumer.changes.decode import BROKEN_PAYLOAD, Decoders, build_decoders
from consumer.changes.record_ids import scope_of
from consumer.changes.shapes import (
    ArrayShape,
    EnumShape,
    FieldShape,
    MapShape,
    PrimitiveShape,
    RecordShape,
    Shape,
    UnionShape,
    walk,
)
from consumer.errors import NotAChangeEventError, PayloadError, SchemaParseError
from consumer.events import DecodedEvent, Json

HEADER_FIELD = "ChangeEventHeader"
_MAX_VALUES_WITHOUT_INPUT = 10_000
_PAYLOAD_ADVICE = "The event goes to quarantine with its raw bytes; run verify on a recording of it."
_SCHEMA_ADVICE = "The event goes to quarantine; compare the schema with what `session-consumer decode` accepts."

_UNREADABLE_SCHEMA = (
    avro.errors.AvroException,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What ``avro`` lets out for schemas that are not Avro; it does not wrap all of it."""


@dataclass(frozen=True, slots=True, eq=False)
class EventSchema:
    """One compiled writer schema; made by :func:`compile_schema` and shared by all its events.

    Attributes:
        schema_id: the Pub/Sub API's id of the schema.
        name: the record's name without namespace, such as ``MessagingSessionChangeEvent``.
        record: the whole record.
        fields: the body fields in Avro order, the header left out; each knows its Avro position.
        schema_fields: the body fields' names, one tuple shared by all events of the schema.
        bitmaps: turns header bitmaps into names, and back.
        canonical: turns a :attr:`DecodedEvent.values` into canonical JSON values (see ``changes.canonical``).
    """

    schema_id: str
    name: str
    record: RecordShape
    fields: tuple[FieldShape, ...]
    schema_fields: tuple[str, ...]
    bitmaps: Bitmaps
    canonical: Callable[[Mapping[str, Any]], dict[str, Json]]
    _decoders: Decoders

    def decode(self, payload: bytes) -> DecodedEvent:
        """Decode a change event: its header, and the body's non-null fields as raw Avro values.

        A compound is a dict of its non-null parts. Inside arrays and maps nulls are kept.

        Args:
            payload: Avro binary body, nothing before or behind it.

        Raises:
            PayloadError: the bytes contradict the schema; carries the record ids if the header can be read.
            NotAChangeEventError: the bytes are right, but the schema has no change event header.
        """
        body = self._decoders.body
        if body is None:
            self.decode_full(payload)
            raise NotAChangeEventError(
                f"{self.name} has no change event header",
                "Subscribe to change event topics only: /data/...ChangeEvent or a custom /data/...__chn channel.",
            )
        try:
            return body(payload)
        except BROKEN_PAYLOAD as error:
            raise self._refusal(payload, error) from error

    def decode_full(self, payload: bytes) -> dict[str, Any]:
        """Decode any payload of this schema to a dict with all fields, nulls included, as ``avro`` does.

        Raises:
            PayloadError: the bytes contradict the schema; carries the record ids if the header can be read.
        """
        try:
            return self._decoders.full(payload)
        except BROKEN_PAYLOAD as error:
            raise self._refusal(payload, error) from error

    def _refusal(self, payload: bytes, error: BaseException) -> PayloadError:
        what = "ends too early" if isinstance(error, IndexError) else "contradicts its schema"
        return PayloadError(
            f"A payload of {len(payload)} bytes {what} ({self.name})",
            _PAYLOAD_ADVICE,
            record_ids=self._readable_ids(payload),
        )

    def _readable_ids(self, payload: bytes) -> tuple[str, ...]:
        if self._decoders.header is None:
            return ()
        try:
            return scope_of(self._decoders.header(payload).record_ids)
        except BROKEN_PAYLOAD:
            return ()  # the header is part of the damage; the window then covers the whole entity


def compile_schema(schema_id: str, schema_json: str) -> EventSchema:
    """Compile a writer schema.

    Names are not checked against Avro's naming rules, because Salesforce decides what its fields are called
    and no name ever becomes code. Unknown keys (``uuid``) and unknown logical types are ignored, as the Avro
    specification wants.

    Args:
        schema_id: the id the Pub/Sub API gave it.
        schema_json: the schema as ``GetSchema`` returned it.

    Raises:
        SchemaParseError: it is not valid Avro, not a record, or has no finite value.
    """
    try:
        parsed = _parse(schema_json)
        shape = _Walker().shape_of(parsed)
    except _UNREADABLE_SCHEMA as error:
        raise SchemaParseError("A writer schema is not valid Avro", _SCHEMA_ADVICE) from error
    if not isinstance(shape, RecordShape):
        raise SchemaParseError("A writer schema is not a record", _SCHEMA_ADVICE)
    _refuse_endless(shape)
    header_index = next((field.index for field in shape.fields if field.name == HEADER_FIELD), None)
    fields = tuple(field for field in shape.fields if field.index != header_index)
    try:
        decoders = build_decoders(shape, HEADER_FIELD)
        canonical = canonical_converter(fields)
    except RecursionError as error:
        raise SchemaParseError("A writer schema is nested too deep", _SCHEMA_ADVICE) from error
    return EventSchema(
        schema_id=schema_id,
        name=shape.name.rpartition(".")[2],
        record=shape,
        fields=fields,
        schema_fields=tuple(field.name for field in fields),
        bitmaps=Bitmaps(shape, header_index),
        canonical=canonical,
        _decoders=decoders,
    )


def _parse(schema_json: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", avro.errors.AvroWarning)
        return avro.schema.parse(schema_json, validate_enum_symbols=False, validate_names=False)


class _Walker:
    """Turns the library's schema objects into shapes; a record met again is the same shape again."""

    def __init__(self) -> None:
        self._records: dict[int, RecordShape] = {}

    def shape_of(self, schema: Any) -> Shape:
        kind: str = schema.type
        if kind in {"record", "error"}:
            return self._record(schema)
        if kind == "union":
            return UnionShape(tuple(self.shape_of(branch) for branch in schema.schemas))
        if kind == "array":
            return ArrayShape(self.shape_of(schema.items))
        if kind == "map":
            return MapShape(self.shape_of(schema.values))
        if kind == "enum":
            return EnumShape(tuple(schema.symbols))
        return _primitive(schema)

    def _record(self, schema: Any) -> RecordShape:
        known = self._records.get(id(schema))
        if known is not None:
            return known
        record = RecordShape(schema.fullname)
        self._records[id(schema)] = record
        record.fields = tuple(
            FieldShape(field.name, index, self.shape_of(field.type), *_doc_parts(field.doc))
            for index, field in enumerate(schema.fields)
        )
        return record


def _primitive(schema: Any) -> PrimitiveShape:
    kind: str = schema.type
    if kind not in {"null", "boolean", "int", "long", "float", "double", "bytes", "string", "fixed"}:
        message = f"the type {kind} has no binary form"
        raise ValueError(message)
    logical = getattr(schema, "logical_type", "")
    decimal = logical == "decimal"
    return PrimitiveShape(
        kind,
        logical,
        size=schema.size if kind == "fixed" else 0,
        precision=schema.precision if decimal else 0,
        scale=schema.scale if decimal else 0,
    )


def _doc_parts(doc: object) -> tuple[str, str, str]:
    """Return role, type and field id of ``Role:Type:00N...``; empty where the doc is something else."""
    if not isinstance(doc, str) or ":" not in doc:
        return "", "", ""
    role, _, rest = doc.partition(":")
    doc_type, _, field_id = rest.partition(":")
    return role, doc_type, field_id


def _refuse_endless(record: RecordShape) -> None:
    """Refuse records that hold themselves, or a flood of values, without reading a byte of input."""
    weights: dict[int, int] = {}
    open_records: set[int] = set()

    def weight(shape: Shape) -> int:
        """Return how many values one value of ``shape`` holds before any branch, count or length is read."""
        if not isinstance(shape, RecordShape):
            return 1
        if id(shape) in open_records:
            raise SchemaParseError("A record of a writer schema holds itself without an end", _SCHEMA_ADVICE)
        if id(shape) not in weights:
            open_records.add(id(shape))
            weights[id(shape)] = 1 + sum(weight(field.shape) for field in shape.fields)
            open_records.discard(id(shape))
        return weights[id(shape)]

    for shape in walk(record):
        if weight(shape) > _MAX_VALUES_WITHOUT_INPUT:
            raise SchemaParseError("A writer schema holds too many values in one record", _SCHEMA_ADVICE)
