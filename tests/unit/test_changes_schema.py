"""Writer schemas: what is understood, what is let through, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from consumer.changes.schema import compile_schema
from consumer.changes.shapes import RecordShape
from consumer.errors import NotAChangeEventError, SchemaParseError
from tests.change_schemas import DEMO, DEMO_PAYLOAD, HEADER, WIDGET, account, encode, event_schema, nullable


def test_body_fields_come_in_avro_order_without_the_header() -> None:
    schema = compile_schema("s1", WIDGET)
    assert schema.schema_id == "s1"
    assert schema.name == "Widget__ChangeEvent"
    assert schema.schema_fields[:3] == ("OwnerId", "Name", "CreatedDate")
    assert [field.index for field in schema.fields] == list(range(1, 18))
    assert schema.schema_fields == tuple(field.name for field in schema.fields)


def test_doc_gives_role_type_and_field_id() -> None:
    fields = {field.name: field for field in compile_schema("s1", WIDGET).fields}
    owner, due = fields["OwnerId"], fields["Due__c"]
    assert (owner.role, owner.doc_type, owner.field_id) == ("ForeignKey", "EntityId", "")
    assert (due.role, due.doc_type, due.field_id) == ("Data", "DateOnly", "00Nxx0000000005")


@pytest.mark.parametrize("doc", [None, "", "free text", 17, {"a": 1}, "a:b:c:d"])
def test_any_other_doc_is_let_through(doc: object) -> None:
    field = {"name": "A", "type": "string", "doc": doc}
    (only,) = compile_schema("s", event_schema("E", [field], header=False)).fields
    assert only.doc_type == ("b" if doc == "a:b:c:d" else "")


def test_named_records_resolve_in_the_enclosing_namespace() -> None:
    fields = {field.name: field for field in compile_schema("s1", WIDGET).fields}
    assert fields["Bill__c"].record is fields["Ship__c"].record
    assert fields["Bill__c"].parts[:2] == ("Street", "City")
    assert isinstance(fields["Bill__c"].record, RecordShape)
    assert fields["Bill__c"].record.name == "com.sforce.eventbus.Address"
    assert fields["Bill__c"].nullable
    assert fields["Serial__c"].record is None
    assert fields["Serial__c"].parts == ()


def test_a_switchable_name_is_a_compound_whatever_its_branch() -> None:
    name = compile_schema("s", account()).fields[0]
    assert name.nullable
    assert name.parts == ("Salutation", "FirstName", "LastName")


def test_names_that_avro_forbids_are_data_and_never_code() -> None:
    wild = '\']; raise SystemExit #\n""" {x} \\'
    schema_json = event_schema("E", [{"name": wild, "type": ["null", "string"]}])
    schema = compile_schema("s", schema_json)
    payload = encode(schema_json, {"ChangeEventHeader": HEADER, wild: "v"})
    assert schema.decode(payload).values == {wild: "v"}
    assert schema.decode_full(payload)[wild] == "v"


def test_record_names_that_avro_forbids_are_read() -> None:
    document = {"type": "record", "name": "1-E", "namespace": "com.x-y", "fields": []}
    assert compile_schema("s", json.dumps(document)).name == "1-E"


def test_a_record_may_hold_itself() -> None:
    node = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
    schema = compile_schema("s", event_schema("E", [nullable("Chain", node, "Data:Chain")], header=False))
    assert schema.decode_full(b"\x02\x02\x00") == {"Chain": {"next": {"next": None}}}


def test_unknown_logical_types_fall_back_without_a_warning() -> None:
    fields = [{"name": "A", "type": {"type": "long", "logicalType": "moon-phase"}}]
    assert compile_schema("s", event_schema("E", fields, header=False)).decode_full(b"\x02") == {"A": 1}


ENDLESS = {"type": "record", "name": "R", "fields": [{"name": "r", "type": "R"}]}


def _bomb() -> str:
    inner: object = {"type": "record", "name": "B0", "fields": [{"name": "a", "type": "null"}]}
    for level in range(1, 40):
        pair = [{"name": "a", "type": inner}, {"name": "b", "type": f"B{level - 1}"}]
        inner = {"type": "record", "name": f"B{level}", "fields": pair}
    return json.dumps(inner)


def _nested(levels: int) -> str:
    inner = '{"type": "array", "items": ' * levels + '"string"' + "}" * levels
    return '{"type": "record", "name": "E", "fields": [{"name": "A", "type": ' + inner + "}]}"


@pytest.mark.parametrize(
    "schema_json",
    [
        "",
        "{",
        "null",
        "3",
        "{}",
        "[]",
        '"string"',
        '{"type": "array", "items": "string"}',
        '{"type": "enum", "name": "E", "symbols": ["A"]}',
        '{"type": "record", "name": "E"}',
        '{"type": "record", "name": "E", "fields": [{"name": "A", "type": "Nowhere"}]}',
        '{"type": "record", "name": "E", "fields": [{"name": "A", "type": ["null", "null"]}]}',
        '{"type": "record", "name": "E", "fields": [{"name": "A", "type": {"type": ["x"]}}]}',
        '{"type": "record", "name": "E", "fields": [{"name": "A", "type": "int"}, {"name": "A", "type": "int"}]}',
        '{"type": "record", "name": 7, "fields": []}',
        '{"type": "record", "name": "E", "fields": [{"name": "A", "type": {"type": "error_union"}}]}',
        json.dumps(ENDLESS),
        _bomb(),
        "[" * 100_000,
        _nested(2_000),
    ],
    ids=lambda text: text[:40],
)
def test_what_is_no_readable_record_is_refused(schema_json: str) -> None:
    with pytest.raises(SchemaParseError) as caught:
        compile_schema("s", schema_json)
    assert not caught.value.message.endswith(".")
    assert caught.value.advice


def test_deep_containers_compile_as_functions_of_their_own() -> None:
    schema = compile_schema("s", _nested(60))
    payload = b"\x02" * 60 + b"\x02x" + b"\x00" * 60
    value = schema.decode_full(payload)["A"]
    for _ in range(60):
        (value,) = value
    assert value == "x"


@pytest.mark.parametrize(
    "change",
    [
        lambda parts: parts[1].update(type="string"),
        lambda parts: parts[6].update(type="string"),
        lambda parts: parts.pop(0),
    ],
    ids=["ids are no array", "time is text", "no entity name"],
)
def test_a_header_that_cannot_be_one_makes_no_change_event(change: object) -> None:
    document = json.loads(event_schema("E", []))
    parts = document["fields"][0]["type"]["fields"]
    assert callable(change)
    change(parts)
    schema = compile_schema("s", json.dumps(document))
    blank: dict[str, Any] = {"string": "", "int": 0, "long": 0}
    header = {p["name"]: blank[p["type"]] if isinstance(p["type"], str) else [] for p in parts}
    payload = encode(json.dumps(document), {"ChangeEventHeader": header | {"changeType": "UPDATE"}})
    with pytest.raises(NotAChangeEventError):
        schema.decode(payload)
    assert schema.decode_full(payload)["ChangeEventHeader"]["changeType"] == "UPDATE"


def test_a_header_of_another_release_is_still_read() -> None:
    document = json.loads(WIDGET)
    parts = document["fields"][0]["type"]["fields"]
    old = [part for part in parts if part["name"] not in {"diffFields", "commitUser"}]
    document["fields"][0]["type"]["fields"] = [{"name": "novelty", "type": ["null", "string"]}, *reversed(old)]
    schema_json = json.dumps(document)
    header: dict[str, Any] = {
        "entityName": "W",
        "recordIds": ["a"],
        "changeType": "CREATE",
        "changeOrigin": "",
        "novelty": "x",
    }
    header |= {"transactionKey": "k", "sequenceNumber": 2, "commitTimestamp": 3, "commitNumber": 4}
    payload = encode(schema_json, {"ChangeEventHeader": header | {"nulledFields": [], "changedFields": ["0x02"]}})
    decoded = compile_schema("s", schema_json).decode(payload).header
    assert (decoded.entity, decoded.record_ids, decoded.change_type) == ("W", ("a",), "CREATE")
    assert (decoded.commit_ms, decoded.commit_number, decoded.changed_bitmaps) == (3, 4, ("0x02",))
    assert (decoded.commit_user, decoded.diff_bitmaps) == ("", ())


def test_a_platform_event_decodes_in_full_but_is_no_change_event() -> None:
    schema = compile_schema("s", DEMO)
    assert schema.decode_full(DEMO_PAYLOAD) == {
        "CreatedDate": 1750000000000,
        "CreatedById": "005000000000001AAA",
        "Msg__c": "hi",
        "Qty__c": 1.5,
        "Ok__c": None,
    }
    with pytest.raises(NotAChangeEventError):
        schema.decode(DEMO_PAYLOAD)
