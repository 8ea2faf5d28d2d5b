"""Normalising: what an event carries, changes, nulls and names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from consumer.changes.normalise import normalise
from consumer.changes.schema import compile_schema
from consumer.errors import BitmapError, NotAChangeEventError, PayloadError
from consumer.events import ChangeEvent, ChangeType
from tests.change_schemas import DEMO, DEMO_PAYLOAD, WIDGET, WIDGET_PAYLOAD, account, event_payload, received

SCHEMA = compile_schema("s1", WIDGET)
ACCOUNT = compile_schema("a1", account())


def widget(body: dict[str, Any], **header: Any) -> ChangeEvent:
    return normalise(received(event_payload(WIDGET, body, **header)), SCHEMA)


def test_the_worked_event() -> None:
    event = received(WIDGET_PAYLOAD)
    change = normalise(event, SCHEMA)
    assert change.received is event
    assert change.change_type == ChangeType.UPDATE
    assert change.record_ids == ("a00000000000001AAA",)
    assert change.wildcard_ids == ()
    assert change.schema_fields is SCHEMA.schema_fields
    assert change.changed_fields == ("LastModifiedDate", "Tags__c", "Due__c")
    assert change.nulled_fields == ("Tags__c",)
    assert change.diff_fields == ()
    assert list(change.values.items()) == [
        ("LastModifiedDate", "2025-06-15T15:06:40.000Z"),
        ("Tags__c", None),
        ("Due__c", "2025-06-16"),
    ]


def test_several_ids_are_kept_in_order_without_repeats_and_extended() -> None:
    change = widget({}, recordIds=["a0B000000000001", "a00000000000001AAA", "a0B000000000001EAA"])
    assert change.record_ids == ("a0B000000000001EAA", "a00000000000001AAA")


@pytest.mark.parametrize("wild", ["001*", "000000000000000AAA", "000000000000000"])
def test_wildcards_and_placeholders_are_never_record_ids(wild: str) -> None:
    change = widget({}, recordIds=[wild], changeType="GAP_OVERFLOW")
    assert change.record_ids == ()
    assert change.wildcard_ids == (wild,)


@pytest.mark.parametrize("ids", [[], ["what?"], ["a00000000000001AAA", ""]])
def test_an_event_that_names_no_record_is_refused(ids: list[str]) -> None:
    with pytest.raises(PayloadError):
        widget({}, recordIds=ids)


def test_a_nulled_part_is_none_inside_its_compound() -> None:
    body = {"Ship__c": {"Street": "s", "Country": "c"}}
    change = widget(body, changedFields=["15-0x0B"], nulledFields=["15-0x0A"])
    assert list(change.values["Ship__c"].items()) == [
        ("Street", "s"),
        ("City", None),
        ("PostalCode", None),
        ("Country", "c"),
    ]
    assert change.nulled_fields == ("Ship__c.City", "Ship__c.PostalCode")


def test_a_nulled_part_of_a_compound_that_the_body_leaves_out_is_still_there() -> None:
    change = widget({}, changedFields=["13-0x03"], nulledFields=["13-0x03"])
    assert change.values == {"Place__c": {"Latitude": None, "Longitude": None}}


def test_a_compound_nulled_as_a_whole_is_none() -> None:
    assert widget({}, nulledFields=["0x2000"]).values == {"Place__c": None}


def test_a_value_that_is_there_is_not_nulled() -> None:
    change = widget({"Name": "n", "Place__c": {"Latitude": 1.0}}, nulledFields=["0x04", "13-0x01"])
    assert change.values == {"Name": "n", "Place__c": {"Latitude": 1.0}}


def test_nulled_parts_of_a_business_name_leave_its_text() -> None:
    payload = event_payload(account(), {"Name": "Acme"}, nulledFields=["1-0x02"])
    change = normalise(received(payload), ACCOUNT)
    assert change.values == {"Name": "Acme"}
    assert change.nulled_fields == ("Name.FirstName",)


def test_enrichment_is_a_value_but_no_change() -> None:
    change = widget({"Name": "n", "Serial__c": "x"}, changedFields=["0x04"])
    assert change.values == {"Name": "n", "Serial__c": "x"}
    assert change.changed_fields == ("Name",)


def test_a_diff_keeps_its_text() -> None:
    diff = "--- \n+++ c0365f\n@@ -2,1 +2,1 @@\n-a\n+b"
    change = widget({"Notes__c": diff}, changedFields=["0x4060"], diffFields=["0x4000"])
    assert change.values == {"Notes__c": diff}
    assert change.diff_fields == ("Notes__c",)


def test_a_create_carries_its_fields_and_no_names() -> None:
    change = widget({"Name": "", "Active__c": False, "Weight__c": 5.0}, changeType="CREATE")
    assert change.values == {"Name": "", "Weight__c": 5.0, "Active__c": False}
    assert (change.changed_fields, change.nulled_fields, change.diff_fields) == ((), (), ())


def test_a_change_type_of_a_later_release_passes_as_text() -> None:
    document = json.loads(WIDGET)
    document["fields"][0]["type"]["fields"][2]["type"]["symbols"].append("GAP_REBUILD")
    schema_json = json.dumps(document)
    payload = event_payload(schema_json, {}, changeType="GAP_REBUILD")
    assert normalise(received(payload), compile_schema("s2", schema_json)).change_type == "GAP_REBUILD"


def test_the_header_is_no_schema_field() -> None:
    assert "ChangeEventHeader" not in widget({}).schema_fields


@pytest.mark.parametrize("name", ["changedFields", "nulledFields", "diffFields"])
def test_a_wrong_bitmap_is_refused_with_the_record_ids(name: str) -> None:
    with pytest.raises(BitmapError) as caught:
        widget({}, **{name: ["0x01"]})
    assert caught.value.record_ids == ("a00000000000001AAA",)
    assert caught.value.advice


def test_wrong_bytes_are_refused_with_the_record_ids() -> None:
    with pytest.raises(PayloadError) as caught:
        normalise(received(WIDGET_PAYLOAD + b"\x00"), SCHEMA)
    assert caught.value.record_ids == ("a00000000000001AAA",)


def test_a_platform_event_is_no_change_event() -> None:
    with pytest.raises(NotAChangeEventError):
        normalise(received(DEMO_PAYLOAD), compile_schema("d", DEMO))
