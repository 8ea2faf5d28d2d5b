"""Field bitmaps: the fact sheet's worked examples, and everything a bitmap can be wrong in."""

from __future__ import annotations

import json

import pytest

from consumer.changes.schema import EventSchema, compile_schema
from consumer.errors import BitmapError
from tests.change_schemas import ADDRESS_PARTS, WIDGET, account, event_schema, nullable

_COMPOUND = {"type": "record", "name": "C", "fields": [nullable(f"P{index}", "string", "") for index in range(8)]}


def _wide() -> str:
    """More than 88 fields, compounds at 4 and 7, for the examples of the guide."""
    types = {4: _COMPOUND, 7: "C"}
    return event_schema("Wide", [nullable(f"F{index}", types.get(index, "string"), "") for index in range(1, 90)])


SCHEMAS: dict[str, EventSchema] = {
    "widget": compile_schema("w", WIDGET),
    "account": compile_schema("a", account()),
    "plain account": compile_schema("b", account(record_types=False)),
    "wide": compile_schema("c", _wide()),
}

WORKED = [
    ("widget", ["0x24"], "Name LastModifiedDate"),
    ("widget", ["0x02A0"], "LastModifiedDate Colour__c Weight__c"),
    ("widget", ["0x020820"], "LastModifiedDate Due__c Serial__c"),
    ("widget", ["0x20", "13-0x03"], "LastModifiedDate Place__c.Latitude Place__c.Longitude"),
    ("widget", ["15-0x0209"], "Ship__c.Street Ship__c.PostalCode Ship__c.GeocodeAccuracy"),
    ("widget", ["0x0120", "15-0x02", "16-0x02"], "LastModifiedDate Tags__c Ship__c.City Bill__c.City"),
    ("widget", ["0x4060"], "LastModifiedDate LastModifiedById Notes__c"),
    ("widget", ["0x4000"], "Notes__c"),
    ("widget", ["0x02"], "OwnerId"),
    ("account", ["0x800000", "6-0x01"], "LastModifiedDate ShippingAddress.Street"),
    ("account", ["6-0x0180"], "ShippingAddress.Latitude ShippingAddress.Longitude"),
    ("account", ["0x800002"], "Name LastModifiedDate"),
    ("plain account", ["0x410000"], "Description LastModifiedDate"),
    ("plain account", ["0x010000"], "Description"),
    ("account", ["0x100000000000800000"], "LastModifiedDate Some_Date_Time__c"),
    ("wide", ["0x0800000000000001000000"], "F24 F83"),
    ("wide", ["0x650004E0", "4-0x10", "7-0x06"], "F5 F6 F7 F10 F24 F26 F29 F30 F4.P4 F7.P1 F7.P2"),
    ("account", ["1-0x06"], "Name.FirstName Name.LastName"),
]


@pytest.mark.parametrize(("schema", "bitmaps", "names"), WORKED)
def test_worked_examples(schema: str, bitmaps: list[str], names: str) -> None:
    bits = SCHEMAS[schema].bitmaps
    assert bits.names(tuple(bitmaps)) == tuple(names.split())
    assert bits.encode(names.split()) == bitmaps


def test_no_bitmaps_are_no_names() -> None:
    assert SCHEMAS["widget"].bitmaps.names(()) == ()
    assert SCHEMAS["widget"].bitmaps.encode([]) == []


def test_either_case_and_any_order_give_the_same_names() -> None:
    names = SCHEMAS["widget"].bitmaps.names
    assert names(("0x02a0",)) == names(("0X02A0",)) == names(("0x02A0",))
    assert names(("16-0x02", "15-0x02", "0x0120")) == names(("0x0120", "15-0x02", "16-0x02"))


def test_a_whole_compound_is_named_part_by_part() -> None:
    every_part = tuple(f"Ship__c.{part}" for part in ADDRESS_PARTS)
    assert SCHEMAS["widget"].bitmaps.names(("15-0x03FF",)) == every_part


def test_decoding_leaves_the_list_alone_and_repeats_itself() -> None:
    bitmaps = ("0x20", "13-0x03")
    first = SCHEMAS["widget"].bitmaps.names(bitmaps)
    assert bitmaps == ("0x20", "13-0x03")
    assert SCHEMAS["widget"].bitmaps.names(bitmaps) is first


REFUSED = [
    ["0x01"],
    ["0x03"],
    ["0-0x01"],
    ["0x040000"],
    ["0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"],
    ["15-0x0400"],
    ["18-0x01"],
    ["999999-0x01"],
    ["99999999999999999999-0x01"],
    ["2-0x01"],
    [""],
    ["0x"],
    ["0x2"],
    ["0x020"],
    ["20"],
    ["0xZZ"],
    ["0x2_0"],
    ["0x 20"],
    [" 0x20"],
    ["0x20\n"],
    ["0x-2"],
    ["-0x20"],
    ["15-"],
    ["15-15-0x01"],
    ["+15-0x01"],
    ["\u0661\u0665-0x01"],
    ["0x\uff12\uff10"],
    ["LastModifiedDate"],
    ["0x20", "0x40"],
    ["15-0x01", "15-0x02"],
    ["0x20", "oops"],
]


@pytest.mark.parametrize("bitmaps", REFUSED, ids=repr)
def test_a_bitmap_that_contradicts_the_schema_is_refused(bitmaps: list[str]) -> None:
    with pytest.raises(BitmapError):
        SCHEMAS["widget"].bitmaps.names(tuple(bitmaps))


@pytest.mark.parametrize("name", ["Nothing", "ChangeEventHeader", "Ship__c.Nothing", "Name.First", ".", ""])
def test_unknown_names_have_no_bitmap(name: str) -> None:
    with pytest.raises(BitmapError):
        SCHEMAS["widget"].bitmaps.encode([name])


def test_without_a_header_every_position_is_a_field() -> None:
    schema = compile_schema("s", json.dumps(json.loads(event_schema("E", [nullable("A", "int", "")], header=False))))
    assert schema.bitmaps.names(("0x01",)) == ("A",)


def test_the_cache_of_combinations_is_bounded() -> None:
    bits = compile_schema("w", WIDGET).bitmaps
    for mask in range(2, 2**13, 2):
        bits.names((f"0x{mask:04X}",))
    assert bits.cached_combinations() <= 1024
