"""Schema changes: fields added, removed, retyped; what is no field is no change."""

from __future__ import annotations

import json
from typing import Any

import pytest

from consumer.errors import SchemaParseError
from consumer.tracking.schema_change import Retyped, SchemaChange, compare

HEADER = {
    "name": "ChangeEventHeader",
    "type": {"type": "record", "name": "ChangeEventHeader", "fields": [{"name": "entityName", "type": "string"}]},
}
ADDRESS = {
    "type": "record",
    "name": "Address",
    "fields": [
        {"name": "Street", "type": ["null", "string"], "default": None},
        {"name": "City", "type": ["null", "string"], "default": None},
    ],
}


def field(name: str, kind: Any = "string", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": ["null", kind], "default": None, **more}


def schema(*fields: dict[str, Any], header: dict[str, Any] = HEADER) -> str:
    return json.dumps({"type": "record", "name": "XChangeEvent", "namespace": "com.x", "fields": [header, *fields]})


def compared(old: str, new: str) -> SchemaChange:
    change = compare("X", old, new)
    assert change is not None
    return change


def test_equal_schemas_and_those_that_differ_in_docs_defaults_and_header_only_are_no_change() -> None:
    old = schema(field("A", doc="Data:Text:00N1"), field("B"))
    header = json.loads(json.dumps(HEADER))
    header["type"]["fields"].append({"name": "more", "type": "long"})
    no_default = {"name": "B", "type": ["null", "string"]}
    assert compare("X", old, old) is None
    assert compare("X", old, schema(field("A", doc="Data:Email:00N1"), no_default, header=header)) is None


def test_a_nullable_field_more_is_read_both_ways() -> None:
    change = compared(schema(field("A"), field("B")), schema(field("A"), field("New__c", "double"), field("B")))
    assert change == SchemaChange("X", ("New__c",), (), (), reordered=False, compatible="full")


def test_a_removed_field_is_told() -> None:
    assert compared(schema(field("A"), field("B")), schema(field("B"))).removed == ("A",)


def test_a_field_without_default_can_be_read_one_way_only() -> None:
    plain = {"name": "N", "type": "string"}
    assert compared(schema(field("A")), schema(field("A"), plain)).compatible == "forward"
    assert compared(schema(field("A"), plain), schema(field("A"))).compatible == "backward"


def test_a_retyped_field_tells_both_types_and_is_incompatible() -> None:
    instant = {"type": "long", "logicalType": "timestamp-millis"}
    change = compared(schema(field("A")), schema(field("A", instant)))
    assert change.retyped == (Retyped("A", "null or string", "null or long (timestamp-millis)"),)
    assert change.compatible == "none"


def test_a_widened_number_is_read_one_way() -> None:
    assert compared(schema(field("A", "int")), schema(field("A", "long"))).compatible == "backward"


def test_another_order_is_told_because_bitmaps_go_by_it() -> None:
    change = compared(schema(field("A"), field("B")), schema(field("B"), field("A")))
    assert change == SchemaChange("X", (), (), (), reordered=True, compatible="full")


def test_parts_of_a_compound_are_compared_one_by_one() -> None:
    fewer = {**ADDRESS, "fields": ADDRESS["fields"][:1]}
    change = compared(schema(field("Home", ADDRESS)), schema(field("Home", fewer)))
    assert (change.removed, change.retyped) == (("Home.City",), ())


def test_a_compound_that_comes_as_a_whole_is_one_field() -> None:
    assert compared(schema(field("A")), schema(field("A"), field("Home", ADDRESS))).added == ("Home",)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ({"type": "array", "items": "string"}, "null or array of string"),
        ({"type": "map", "values": "long"}, "null or map of long"),
        ({"type": "enum", "name": "E", "symbols": ["P", "Q"]}, "null or enum of P, Q"),
        ({"type": "fixed", "name": "F", "size": 4}, "null or fixed of 4 bytes"),
        (
            {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
            "null or bytes (decimal of 9 digits, 2 behind the point)",
        ),
        (
            {"type": "array", "items": ADDRESS},
            "null or array of record of Street: null or string, City: null or string",
        ),
    ],
)
def test_types_are_told_in_words(kind: Any, told: str) -> None:
    assert compared(schema(field("A")), schema(field("A", kind))).retyped[0].new_type == told


def test_a_schema_that_refers_to_itself_ends() -> None:
    node = {
        "type": "record",
        "name": "Node",
        "fields": [{"name": "next", "type": ["null", {"type": "array", "items": "Node"}], "default": None}],
    }
    change = compared(schema(field("A")), schema(field("A", {"type": "array", "items": node})))
    assert change.retyped[0].new_type == "null or array of record of next: null or array of com.x.Node"


@pytest.mark.parametrize("broken", ["{", '"string"'])
def test_what_is_no_writer_schema_is_refused(broken: str) -> None:
    with pytest.raises(SchemaParseError):
        compare("X", schema(field("A")), broken)
