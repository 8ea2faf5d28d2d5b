"""The fast decoder against its oracle, the ``avro`` library: equal on what is valid, a typed error on what is not."""

from __future__ import annotations

import io
import json
import struct
import time
from typing import Any

import avro.errors
import avro.io
import avro.schema
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from consumer.changes.canonical import plain
from consumer.changes.normalise import normalise
from consumer.changes.schema import compile_schema
from consumer.errors import EventError, PayloadError
from tests.change_schemas import HEADER, WIDGET, WIDGET_PAYLOAD, encode, event_payload, oracle, received
from tests.property.avro_strategies import any_payloads, broken_payloads, change_events

pytestmark = pytest.mark.timeout(300)
SETTINGS = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
SECONDS_PER_PAYLOAD = 5.0
_HEADER_NAMES = {
    "entity": "entityName",
    "change_type": "changeType",
    "change_origin": "changeOrigin",
    "transaction_key": "transactionKey",
    "sequence_number": "sequenceNumber",
    "commit_ms": "commitTimestamp",
    "commit_number": "commitNumber",
    "commit_user": "commitUser",
    "record_ids": "recordIds",
    "nulled_bitmaps": "nulledFields",
    "diff_bitmaps": "diffFields",
    "changed_bitmaps": "changedFields",
}


def exact(value: Any) -> Any:
    """A value that is equal only to its exact likeness: types count, NaN equals NaN, -0.0 is not 0.0."""
    if isinstance(value, dict):
        return [(key, exact(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [exact(item) for item in value]
    return (type(value), struct.pack("<d", value) if isinstance(value, float) else value)


def without_nulls(value: Any) -> Any:
    """The compact form of a change event's field: in this style every dict is a compound."""
    return {part: item for part, item in value.items() if item is not None} if isinstance(value, dict) else value


@SETTINGS
@given(change_events())
def test_change_events_decode_as_avro_decodes_them(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    schema, event = pair
    schema_json = json.dumps(schema)
    payload = encode(schema_json, event)
    compiled = compile_schema("s", schema_json)
    expected = oracle(schema_json, payload)
    assert exact(compiled.decode_full(payload)) == exact(expected)

    decoded = compiled.decode(payload)
    header = expected.pop("ChangeEventHeader")
    for ours, theirs in _HEADER_NAMES.items():
        assert exact(getattr(decoded.header, ours)) == exact(header[theirs])
    body = {name: without_nulls(value) for name, value in expected.items() if value is not None}
    assert exact(decoded.values) == exact(body)

    canonical = compiled.canonical(decoded.values)
    assert list(canonical) == list(decoded.values)
    assert orjson.loads(orjson.dumps(canonical)) == canonical


@SETTINGS
@given(any_payloads())
def test_any_valid_payload_decodes_as_avro_decodes_it(pair: tuple[dict[str, Any], bytes]) -> None:
    schema, payload = pair
    schema_json = json.dumps(schema)
    compiled = compile_schema("s", schema_json)
    value = compiled.decode_full(payload)
    assert exact(value) == exact(oracle(schema_json, payload))
    orjson.dumps(compiled.canonical(value))
    orjson.dumps(plain(value))


def judged(schema_json: str, payload: bytes) -> None:
    """Fail unless the payload gives a PayloadError, or the oracle's value, in bounded time."""
    compiled = compile_schema("s", schema_json)
    started = time.perf_counter()
    try:
        value = compiled.decode_full(payload)
    except PayloadError:
        value = None
    assert time.perf_counter() - started < SECONDS_PER_PAYLOAD
    if value is not None:
        assert exact(value) == exact(oracle(schema_json, payload))
    problem = ""
    try:
        normalise(received(payload), compiled)
    except EventError as error:
        problem = error.advice
    assert problem or value is not None


@SETTINGS
@given(broken_payloads())
def test_broken_payloads_give_a_typed_error_or_what_avro_gives(pair: tuple[dict[str, Any], bytes]) -> None:
    schema, payload = pair
    judged(json.dumps(schema), payload)


@SETTINGS
@given(st.data())
def test_a_damaged_worked_payload_gives_a_typed_error_or_what_avro_gives(data: st.DataObject) -> None:
    damaged = bytearray(WIDGET_PAYLOAD)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    judged(WIDGET, bytes(damaged))


@SETTINGS
@given(st.binary(max_size=400))
@example(b"\xff" * 400)
@example(b"\x80" * 400)
@example(b"\x01" * 400)
def test_random_bytes_give_a_typed_error(payload: bytes) -> None:
    judged(WIDGET, payload)


@pytest.mark.parametrize("byte", [b"\x00", b"\x01", b"\x02", b"\x80", b"\xff"])
def test_megabytes_of_one_byte_give_a_typed_error(byte: bytes) -> None:
    judged(WIDGET, byte * 3_000_000)


widget_names = st.sampled_from(
    [
        *compile_schema("w", WIDGET).schema_fields,
        *(f"{field.name}.{part}" for field in compile_schema("w", WIDGET).fields for part in field.parts),
    ]
)


@SETTINGS
@given(st.sets(widget_names))
def test_bitmaps_of_names_are_the_names_again(names: set[str]) -> None:
    bits = compile_schema("w", WIDGET).bitmaps
    assert set(bits.names(tuple(bits.encode(names)))) == names


@SETTINGS
@given(st.sets(widget_names), st.sets(widget_names))
def test_every_nulled_name_is_a_null_in_the_values(changed: set[str], nulled: set[str]) -> None:
    compiled = compile_schema("w", WIDGET)
    lists = {
        "changedFields": compiled.bitmaps.encode(changed | nulled),
        "nulledFields": compiled.bitmaps.encode(nulled),
    }
    change = normalise(received(event_payload(WIDGET, {}, **HEADER | lists)), compiled)
    for name in nulled:
        field, _, part = name.partition(".")
        value = change.values[field]
        assert value[part] is None if part else value is None or isinstance(value, dict)
    assert set(change.nulled_fields) == nulled


@SETTINGS
@given(st.text(max_size=60) | st.binary(max_size=60).map(repr))
def test_any_text_for_a_schema_gives_a_typed_error(text: str) -> None:
    with pytest.raises(EventError):
        compile_schema("s", text)


def test_the_oracle_refuses_what_it_should() -> None:
    """The comparison means something: the oracle itself is strict about what matters."""
    parsed = avro.schema.parse(WIDGET)
    with pytest.raises(avro.errors.AvroException):
        avro.io.DatumReader(parsed).read(avro.io.BinaryDecoder(io.BytesIO(WIDGET_PAYLOAD[:-1])))
