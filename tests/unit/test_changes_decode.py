"""Payloads: the worked vectors, and every way bytes can contradict their schema."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from consumer.changes.decode import MAX_DEPTH, MAX_EMPTY_ITEMS
from consumer.changes.schema import EventSchema, compile_schema
from consumer.errors import PayloadError
from tests.change_schemas import (
    DEMO,
    DEMO_PAYLOAD,
    HEADER,
    WIDGET,
    WIDGET_PAYLOAD,
    account,
    event_payload,
    event_schema,
    oracle,
)


def one_field(avro_type: Any) -> EventSchema:
    return compile_schema("s", event_schema("E", [{"name": "A", "type": avro_type}], header=False))


def varint(value: int) -> bytes:
    """A zigzag number, also of values that no 64 bits hold."""
    raw = (value << 1) ^ (-1 if value < 0 else 0)
    out = bytearray()
    while raw > 127:
        out.append(raw & 127 | 128)
        raw >>= 7
    return bytes(out) + bytes([raw])


def test_the_worked_payload_decodes_exactly() -> None:
    decoded = compile_schema("s", WIDGET).decode(WIDGET_PAYLOAD)
    header = decoded.header
    assert header.entity == "Widget__c"
    assert header.record_ids == ("a00000000000001AAA",)
    assert header.change_type == "UPDATE"
    assert header.change_origin == "com/salesforce/api/rest/62.0;client=demo"
    assert header.transaction_key == "0000aaaa-bbbb-cccc-dddd-eeeeffff0001"
    assert header.sequence_number == 1
    assert header.commit_ms == 1750000000000
    assert header.commit_number == 1709306004367179779
    assert header.commit_user == "005000000000001AAA"
    assert header.nulled_bitmaps == ("0x0100",)
    assert header.diff_bitmaps == ()
    assert header.changed_bitmaps == ("0x0920",)
    assert decoded.values == {"LastModifiedDate": 1750000000000, "Due__c": 1750032000000}


def test_decode_full_says_what_avro_says() -> None:
    assert compile_schema("s", WIDGET).decode_full(WIDGET_PAYLOAD) == oracle(WIDGET, WIDGET_PAYLOAD)


def test_a_compound_is_a_dict_of_its_non_null_parts() -> None:
    payload = event_payload(WIDGET, {"Ship__c": {"Street": "s"}, "Bill__c": {}, "Place__c": {"Latitude": 0.0}})
    values = compile_schema("s", WIDGET).decode(payload).values
    assert values == {"Place__c": {"Latitude": 0.0}, "Ship__c": {"Street": "s"}, "Bill__c": {}}


@pytest.mark.parametrize("name", ["Acme", {"FirstName": "Ann", "LastName": ""}])
def test_a_switchable_name_is_text_or_parts(name: object) -> None:
    payload = event_payload(account(), {"Name": name})
    assert compile_schema("s", account()).decode(payload).values == {"Name": name}


@pytest.mark.parametrize("cut", range(len(WIDGET_PAYLOAD)))
def test_every_truncation_is_refused(cut: int) -> None:
    schema = compile_schema("s", WIDGET)
    with pytest.raises(PayloadError):
        schema.decode(WIDGET_PAYLOAD[:cut])
    with pytest.raises(PayloadError):
        schema.decode_full(WIDGET_PAYLOAD[:cut])


@pytest.mark.parametrize("tail", [b"\x00", b"x", WIDGET_PAYLOAD])
def test_trailing_bytes_are_refused(tail: bytes) -> None:
    with pytest.raises(PayloadError):
        compile_schema("s", WIDGET).decode(WIDGET_PAYLOAD + tail)
    with pytest.raises(PayloadError):
        compile_schema("d", DEMO).decode(DEMO_PAYLOAD + tail)


def test_a_refusal_names_the_records_when_the_header_is_whole() -> None:
    schema = compile_schema("s", WIDGET)
    with pytest.raises(PayloadError) as caught:
        schema.decode(WIDGET_PAYLOAD[:-1])
    assert caught.value.record_ids == ("a00000000000001AAA",)
    with pytest.raises(PayloadError) as caught:
        schema.decode(WIDGET_PAYLOAD[:60])
    assert caught.value.record_ids == ()


def test_a_header_that_is_cut_in_its_last_text_is_not_whole() -> None:
    document = json.loads(event_schema("E", []))
    document["fields"][0]["type"]["fields"].reverse()
    schema_json = json.dumps(document)
    with pytest.raises(PayloadError) as caught:
        compile_schema("s", schema_json).decode(event_payload(schema_json, {})[:-1])
    assert caught.value.record_ids == ()


def test_a_refusal_of_a_wildcard_event_is_about_the_whole_entity() -> None:
    payload = event_payload(WIDGET, {}, recordIds=["a00000000000001AAA", "a00*"])
    with pytest.raises(PayloadError) as caught:
        compile_schema("s", WIDGET).decode(payload[:-1])
    assert caught.value.record_ids == ()


def test_a_refusal_shows_nothing_of_the_payload() -> None:
    payload = event_payload(WIDGET, {"Name": "secret"})
    with pytest.raises(PayloadError) as caught:
        compile_schema("s", WIDGET).decode(payload + b"!")
    assert "secret" not in str(caught.value)


HUGE = 2**62
REFUSED: list[tuple[str, Any, bytes]] = [
    ("empty payload", "string", b""),
    ("negative text length", "string", varint(-1)),
    ("negative bytes length", "bytes", varint(-5)),
    ("absurd text length", "string", varint(HUGE) + b"abc"),
    ("absurd bytes length", "bytes", varint(2**63 - 1) + b"abc"),
    ("bad utf-8", "string", varint(2) + b"\xc3\x28"),
    ("utf-16 surrogate in utf-8", "string", varint(3) + b"\xed\xa0\x80"),
    ("cut character", "string", varint(1) + b"\xc3"),
    ("11-byte number", "long", b"\x80" * 10 + b"\x00"),
    ("endless number", "long", b"\xff" * 1000),
    ("65-bit number", "long", b"\xff" * 9 + b"\x02"),
    ("cut number", "long", b"\x80"),
    ("int of 33 bits", "int", varint(2**31)),
    ("int below 32 bits", "int", varint(-(2**31) - 1)),
    ("boolean 2", "boolean", b"\x02"),
    ("cut double", "double", b"\x00" * 7),
    ("cut float", "float", b"\x00" * 3),
    ("cut fixed", {"type": "fixed", "name": "F", "size": 4}, b"abc"),
    ("absurd fixed", {"type": "fixed", "name": "F", "size": 2**70}, b"abc"),
    ("enum index beyond", {"type": "enum", "name": "F", "symbols": ["X"]}, varint(1)),
    ("enum index beyond, default", {"type": "enum", "name": "F", "symbols": ["X"], "default": "X"}, varint(1)),
    ("enum index negative", {"type": "enum", "name": "F", "symbols": ["X", "Y"]}, varint(-1)),
    ("union index beyond", ["null", "string"], varint(2)),
    ("union index negative", ["null", "string"], varint(-1)),
    ("union index absurd", ["null", "string"], varint(HUGE)),
    ("union of nothing", [], varint(0)),
    ("array of absurd count", {"type": "array", "items": "string"}, varint(HUGE) + b"\x00"),
    ("array of absurd negative count", {"type": "array", "items": "string"}, varint(-(2**63)) + b"\x00\x00"),
    ("array without end", {"type": "array", "items": "string"}, varint(1) + b"\x00"),
    ("array block size negative", {"type": "array", "items": "int"}, varint(-1) + varint(-1) + b"\x02\x00"),
    ("array block size negative, folded", {"type": "array", "items": "int"}, varint(-1) + varint(-2) + b"\x02\x00"),
    ("array block size too small", {"type": "array", "items": "int"}, varint(-1) + varint(0) + b"\x02\x00"),
    ("array block size too large", {"type": "array", "items": "int"}, varint(-1) + varint(9) + b"\x02\x00"),
    (
        "array of fixed beyond the end",
        {"type": "array", "items": {"type": "fixed", "name": "F", "size": 1}},
        varint(HUGE),
    ),
    ("flood of nulls", {"type": "array", "items": "null"}, varint(MAX_EMPTY_ITEMS + 1) + b"\x00"),
    ("flood of nulls in blocks", {"type": "array", "items": "null"}, varint(MAX_EMPTY_ITEMS) + varint(1) + b"\x00"),
    ("flood of empty fixed", {"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}, varint(HUGE)),
    ("map of absurd count", {"type": "map", "values": "null"}, varint(HUGE) + b"\x00"),
    ("map key negative", {"type": "map", "values": "null"}, varint(1) + varint(-1) + b"\x00"),
    ("date out of range", {"type": "int", "logicalType": "date"}, varint(2**31 - 1)),
    ("time out of range", {"type": "int", "logicalType": "time-millis"}, varint(86_400_000)),
    ("timestamp out of range", {"type": "long", "logicalType": "timestamp-millis"}, varint(2**63 - 1)),
    ("decimal without bytes", {"type": "bytes", "logicalType": "decimal", "precision": 4}, varint(0)),
    (
        "decimal of megabytes",
        {"type": "bytes", "logicalType": "decimal", "precision": 4},
        varint(2**20) + b"\x01" * 2**20,
    ),
]


@pytest.mark.parametrize(("avro_type", "payload"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
@pytest.mark.timeout(10)
def test_bytes_that_contradict_the_schema_are_refused_at_once(avro_type: Any, payload: bytes) -> None:
    schema = one_field(avro_type)
    tracemalloc.start()
    try:
        with pytest.raises(PayloadError):
            schema.decode_full(payload)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


def test_records_nest_to_a_limit_and_not_beyond() -> None:
    node = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
    schema = one_field(["null", node])
    value = schema.decode_full(b"\x02" * MAX_DEPTH + b"\x00")["A"]
    for _ in range(MAX_DEPTH - 1):
        value = value["next"]
    assert value == {"next": None}
    for payload in (b"\x02" * (MAX_DEPTH + 1) + b"\x00", b"\x02" * 1_000_000):
        with pytest.raises(PayloadError):
            schema.decode_full(payload)


def test_nulls_in_arrays_are_counted_over_the_whole_payload() -> None:
    schema = one_field({"type": "array", "items": {"type": "array", "items": "null"}})
    half = varint(MAX_EMPTY_ITEMS // 2) + b"\x00"
    assert len(schema.decode_full(varint(2) + half * 2 + b"\x00")["A"][1]) == MAX_EMPTY_ITEMS // 2
    with pytest.raises(PayloadError):
        schema.decode_full(varint(3) + half * 3 + b"\x00")


Check = Callable[[Any], bool]
ACCEPTED: list[tuple[str, Any, bytes, Any]] = [
    ("smallest long", "long", varint(-(2**63)), -(2**63)),
    ("largest long", "long", varint(2**63 - 1), 2**63 - 1),
    ("beyond 2^53", "long", varint(2**53 + 1), 2**53 + 1),
    ("number written too long", "long", b"\x82\x80\x00", 1),
    ("smallest int", "int", varint(-(2**31)), -(2**31)),
    ("empty text", "string", b"\x00", ""),
    ("length written too long", "string", b"\x82\x00x", "x"),
    ("astral text", "string", varint(4) + "\U0001f600".encode(), "\U0001f600"),
    ("union index written too long", ["null", "string"], b"\x82\x00\x02x", "x"),
    ("null index written too long", ["null", "string"], b"\x80\x00", None),
    ("array end written too long", {"type": "array", "items": "int"}, b"\x02\x04\x80\x00", [2]),
    ("blocks with sizes", {"type": "array", "items": "int"}, b"\x03\x04\x02\x04\x02\x06\x00", [1, 2, 3]),
    ("map with sizes", {"type": "map", "values": "int"}, b"\x01\x06\x02a\x02\x02\x02b\x04\x00", {"a": 1, "b": 2}),
    ("map with a repeated key", {"type": "map", "values": "int"}, b"\x04\x02a\x02\x02a\x04\x00", {"a": 2}),
    ("nulls without bytes", {"type": "array", "items": "null"}, b"\x06\x00", [None] * 3),
    ("float", "float", struct.pack("<f", 1.5), 1.5),
    ("infinite", "double", struct.pack("<d", float("inf")), float("inf")),
    ("fixed", {"type": "fixed", "name": "F", "size": 2}, b"ab", b"ab"),
]


@pytest.mark.parametrize(
    ("avro_type", "payload", "value"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED]
)
def test_valid_bytes_give_what_avro_gives(avro_type: Any, payload: bytes, value: Any) -> None:
    schema_json = event_schema("E", [{"name": "A", "type": avro_type}], header=False)
    assert oracle(schema_json, payload) == {"A": value}
    assert compile_schema("s", schema_json).decode_full(payload) == {"A": value}


def test_runs_of_nulls_of_any_length_are_skipped_exactly() -> None:
    fields = [{"name": f"F{index}", "type": ["null", "int"]} for index in range(37)]
    schema_json = event_schema("E", fields)
    schema = compile_schema("s", schema_json)
    for first in range(37):
        for second in range(first, 37, 5):
            body = {f"F{first}": 0, f"F{second}": -1}
            assert schema.decode(event_payload(schema_json, body)).values == body


def test_fields_before_the_header_are_body_fields() -> None:
    document = json.loads(WIDGET)
    header = document["fields"].pop(0)
    document["fields"].insert(2, header)
    schema_json = json.dumps(document)
    schema = compile_schema("s", schema_json)
    decoded = schema.decode(event_payload(schema_json, {"OwnerId": "o", "Serial__c": "s"}))
    assert decoded.values == {"OwnerId": "o", "Serial__c": "s"}
    assert decoded.header.entity == HEADER["entityName"]
