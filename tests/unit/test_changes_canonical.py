"""Canonical JSON values: one form per Salesforce type."""

from __future__ import annotations

import datetime as dt
import decimal
import math
from typing import Any

import orjson
import pytest

from consumer.changes.canonical import canonical_converter, date_only, date_time, plain, time_only
from consumer.changes.schema import compile_schema
from tests.change_schemas import PERSON_NAME, account, event_schema


def canonical(avro_type: Any, doc: str, value: Any) -> Any:
    schema = compile_schema("s", event_schema("E", [{"name": "A", "type": avro_type, "doc": doc}], header=False))
    result = canonical_converter(schema.fields)({"A": value})["A"]
    orjson.dumps(result)
    return result


NULL_LONG = ["null", "long"]
CASES: list[tuple[Any, str, Any, Any]] = [
    (NULL_LONG, "Data:DateTime", 1795341603000, "2026-11-22T10:00:03.000Z"),
    (NULL_LONG, "Data:DateTime:00Nxx0000000001", 1795341603007, "2026-11-22T10:00:03.007Z"),
    ("long", "CreatedDate:DateTime", 0, "1970-01-01T00:00:00.000Z"),
    (NULL_LONG, "Data:DateTime", -1, "1969-12-31T23:59:59.999Z"),
    (NULL_LONG, "Data:DateTime", -2208988800000, "1900-01-01T00:00:00.000Z"),
    (NULL_LONG, "Data:DateTime", 253402300799999, "9999-12-31T23:59:59.999Z"),
    (NULL_LONG, "Data:DateTime", 253402300800000, 253402300800000),
    (NULL_LONG, "Data:DateTime", -62135596800000, "0001-01-01T00:00:00.000Z"),
    (NULL_LONG, "Data:DateTime", -62135596800001, -62135596800001),
    (NULL_LONG, "Data:DateTime", 2**63 - 1, str(2**63 - 1)),
    (NULL_LONG, "Data:DateTime", None, None),
    (NULL_LONG, "Data:DateOnly", 1750032000000, "2025-06-16"),
    (NULL_LONG, "Data:DateOnly", 1750032000000 + 86_399_999, "2025-06-16"),
    (NULL_LONG, "Data:Birthday", -86400000, "1969-12-31"),
    (NULL_LONG, "Data:DateOnly", -(2**63), str(-(2**63))),
    (NULL_LONG, "Data:TimeOnly", 36003004, "10:00:03.004Z"),
    (NULL_LONG, "Data:TimeOnly", 0, "00:00:00.000Z"),
    (NULL_LONG, "Data:TimeOnly", 86_399_999, "23:59:59.999Z"),
    (NULL_LONG, "Data:TimeOnly", 86_400_000, 86_400_000),
    (NULL_LONG, "Data:TimeOnly", -1, -1),
    (["null", "string"], "Data:DateTime", "2026", "2026"),
    (NULL_LONG, "Data:Novelty", 7, 7),
    (NULL_LONG, "", 2**53, 2**53),
    (NULL_LONG, "", 2**53 + 1, "9007199254740993"),
    (NULL_LONG, "", -(2**53), -(2**53)),
    (NULL_LONG, "", -(2**53) - 1, "-9007199254740993"),
    (["null", "int"], "Data:Integer", 5, 5),
    (["null", "double"], "Data:Double", 5.0, 5.0),
    (["null", "double"], "Data:Double", math.inf, "Infinity"),
    (["null", "double"], "Data:Double", -math.inf, "-Infinity"),
    (["null", "double"], "Data:Double", math.nan, "NaN"),
    ("float", "Data:Double", math.nan, "NaN"),
    (["null", "string"], "Data:Text", "", ""),
    (["null", "boolean"], "Data:Boolean", False, False),
    ("bytes", "Data:Blob", b"\x00\xff", "AP8="),
    ({"type": "fixed", "name": "F", "size": 1}, "", b"a", "YQ=="),
    ({"type": "array", "items": ["null", "long"]}, "", [1, None, 2**60], [1, None, str(2**60)]),
    ({"type": "map", "values": "double"}, "", {"a": math.inf}, {"a": "Infinity"}),
    (["null", "string", PERSON_NAME], "Data:Switchable_PersonName", "Acme", "Acme"),
    (["null", "string", PERSON_NAME], "Data:Switchable_PersonName", {"LastName": ""}, {"LastName": ""}),
    (["null", "long", "double"], "", 2**60, str(2**60)),
    (["null", "long", "double"], "", math.nan, "NaN"),
    (["null", "long", "string"], "Data:DateTime", 0, "1970-01-01T00:00:00.000Z"),
    (["bytes", {"type": "fixed", "name": "F", "size": 1}, "long"], "", b"a", "YQ=="),
    (["bytes", {"type": "fixed", "name": "F", "size": 1}, "long"], "", [1, {"a": math.nan}], [1, {"a": "NaN"}]),
    ({"type": "int", "logicalType": "date"}, "", dt.date(2026, 1, 2), "2026-01-02"),
    ({"type": "int", "logicalType": "time-millis"}, "", dt.time(1, 2, 3, 4000), "01:02:03.004Z"),
    (
        {"type": "long", "logicalType": "timestamp-micros"},
        "",
        dt.datetime(2026, 1, 2, 3, 4, 5, 6007, tzinfo=dt.UTC),
        "2026-01-02T03:04:05.006Z",
    ),
    ({"type": "bytes", "logicalType": "decimal", "precision": 4}, "", decimal.Decimal("1.50"), "1.50"),
    ({"type": "string", "logicalType": "uuid"}, "", "x", "x"),
]


@pytest.mark.parametrize(("avro_type", "doc", "value", "expected"), CASES)
def test_each_type_has_one_form(avro_type: Any, doc: str, value: Any, expected: Any) -> None:
    result = canonical(avro_type, doc, value)
    assert result == expected
    assert type(result) is type(expected)


def test_parts_of_a_compound_are_converted_by_their_own_doc() -> None:
    part = {"name": "Since", "type": ["null", "long"], "doc": "Data:DateOnly"}
    compound = {"type": "record", "name": "C", "fields": [part, {"name": "Text", "type": ["null", "string"]}]}
    value = {"Since": 86400000, "Text": "t"}
    assert canonical(["null", compound], "Data:C", value) == {"Since": "1970-01-02", "Text": "t"}


def test_a_record_that_holds_itself_is_converted_to_its_end() -> None:
    parts = [{"name": "next", "type": ["null", "N"]}, {"name": "n", "type": "long"}]
    node = {"type": "record", "name": "N", "fields": parts}
    value = {"next": {"next": None, "n": 2**60}, "n": 1}
    assert canonical(["null", node], "", value) == {"next": {"next": None, "n": str(2**60)}, "n": 1}


def test_the_order_of_fields_is_kept_and_the_raw_values_are_left_alone() -> None:
    raw = {"CreatedDate": 0, "Name": {"LastName": "x"}, "NumberOfEmployees": 3}
    result = compile_schema("s", account()).canonical(raw)
    assert list(result) == list(raw)
    assert raw["CreatedDate"] == 0
    assert result["CreatedDate"] == "1970-01-01T00:00:00.000Z"


@pytest.mark.parametrize("convert", [date_time, date_only, time_only])
@pytest.mark.parametrize("value", [-(2**63), 2**63 - 1, -(2**53), 0])
def test_no_long_is_too_large_for_a_date(convert: Any, value: int) -> None:
    orjson.dumps(convert(value))


def test_plain_values_need_no_schema() -> None:
    moment = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    values = [True, None, "t", dt.date(2026, 1, 2), dt.time(1), moment, decimal.Decimal(1), b""]
    texts = ["2026-01-02", "01:00:00.000Z", "2026-01-02T00:00:00.000Z", "1", ""]
    assert plain(values) == [True, None, "t", *texts]
