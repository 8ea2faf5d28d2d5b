"""Rows in canonical form: what is asked for, how each kind of value is read, and what is no row."""

from __future__ import annotations

from typing import Any

import pytest

from consumer.changes.fields import FieldPolicy
from consumer.changes.normalise import normalise
from consumer.changes.row_values import epoch_ms, history_value
from consumer.changes.rows import FieldInfo, RowPlan
from consumer.changes.schema import compile_schema
from consumer.errors import RowError
from consumer.tracking.images import whole
from tests.change_schemas import ADDRESS, WIDGET, event_payload, event_schema, nullable, received
from tests.unit.rest_org import record, widget_fields, widget_id, widget_plan

PLAN = widget_plan()
PLAN_SCHEMA = compile_schema("w", WIDGET)
OWN = ("Id", "IsDeleted", "SystemModstamp")


def values(**columns: Any) -> Any:
    return PLAN.row(record(1, **columns)).values


def csv_values(**columns: str) -> Any:
    return PLAN.csv_row({"Id": widget_id(1), "SystemModstamp": "2026-11-22T09:00:00.000Z", **columns}).values


def plan_of(*fields: dict[str, Any], **types: str) -> RowPlan:
    infos = {name: FieldInfo(name, kind) for name, kind in types.items()}
    return RowPlan("A", compile_schema("a", event_schema("AChangeEvent", list(fields))), infos)


def test_only_what_schema_and_describe_have_is_asked_for() -> None:
    assert PLAN.fields == (
        *("OwnerId", "Name", "LastModifiedDate", "Weight__c", "Active__c", "Due__c", "Alarm__c"),
        *("Place__c", "Notes__c", "Ship__c"),
    )
    assert PLAN.select == (*OWN, *PLAN.fields)
    plain = tuple(name for name in PLAN.fields if name not in {"Place__c", "Ship__c", "Notes__c"})
    assert PLAN.bulk_select == (
        *(*OWN, *plain, "Place__Latitude__s", "Place__Longitude__s", "Notes__c", "Ship__Street__s", "Ship__City__s"),
        *("Ship__PostalCode__s", "Ship__CountryCode__s", "Ship__Latitude__s", "Ship__Longitude__s"),
    )


def test_an_object_without_isdeleted_is_not_asked_for_it() -> None:
    plan = plan_of(nullable("Name", "string", "Data:Text"), Name="string", SystemModstamp="datetime")
    assert plan.select == ("Id", "SystemModstamp", "Name")


def test_an_object_without_systemmodstamp_has_its_other_stamp() -> None:
    plan = plan_of(nullable("Name", "string", "Data:Text"), Name="string", LastModifiedDate="datetime")
    assert plan.select == ("Id", "LastModifiedDate", "Name")
    row = plan.row({"Id": widget_id(1), "LastModifiedDate": "1970-01-01T00:00:01.000+0000"})
    assert row.stamp_ms == 1000


def test_content_that_rows_only_link_to_is_not_asked_for() -> None:
    plan = plan_of(
        nullable("Body", "string", "Data:Base64"),
        nullable("Raw", "bytes", "Data:Raw"),
        nullable("List", {"type": "array", "items": "string"}, "Data:List"),
        nullable("Where", "string", "Data:Text"),
        Body="base64",
        Raw="string",
        List="string",
        Where="location",
    )
    assert plan.fields == ()


@pytest.mark.parametrize(
    ("field", "rest", "expected"),
    [
        ("Weight__c", 100, 100.0),
        ("Weight__c", -1.5e300, -1.5e300),
        ("Weight__c", None, None),
        ("Active__c", False, False),
        ("Due__c", "2026-11-22", "2026-11-22"),
        ("Alarm__c", "23:59:59.001Z", "23:59:59.001Z"),
        ("Alarm__c", "10:00:00Z", "10:00:00.000Z"),
        ("LastModifiedDate", "2026-11-22T10:00:03.000+0000", "2026-11-22T10:00:03.000Z"),
        ("LastModifiedDate", "2026-11-22T01:00:03+02:00", "2026-11-21T23:00:03.000Z"),
        ("LastModifiedDate", "2026-11-22T23:30:03.5-05:30", "2026-11-23T05:00:03.500Z"),
        ("OwnerId", "005xx0000000001", "005xx0000000001AAA"),
        ("OwnerId", "005xx0000000001AAA", "005xx0000000001AAA"),
        ("Name", "", ""),
        ("Place__c", {"latitude": 1, "longitude": None}, {"Latitude": 1.0, "Longitude": None}),
        ("Place__c", {"latitude": None, "longitude": None}, None),
        ("Place__c", None, None),
    ],
)
def test_rest_values(field: str, rest: Any, expected: Any) -> None:
    found = values(**{field: rest})[field]
    assert found == expected
    assert repr(found) == repr(expected), "1 and 1.0 are different bytes"


def test_an_address_has_the_event_schemas_part_names_and_its_null_parts() -> None:
    ship = {"street": "s", "postalCode": "p", "countryCode": "DE", "latitude": 1, "country": None}
    assert values(Ship__c=ship)["Ship__c"] == {
        "Street": "s",
        "City": None,
        "State": None,
        "PostalCode": "p",
        "Country": None,
        "StateCode": None,
        "CountryCode": "DE",
        "Latitude": 1.0,
        "Longitude": None,
        "GeocodeAccuracy": None,
    }


def test_rest_and_bulk_agree_on_parts_that_the_org_has_no_column_for() -> None:
    rest = values(Ship__c={"street": "s", "latitude": 1})["Ship__c"]
    columns = dict.fromkeys(PLAN.bulk_select, "") | {"Ship__Street__s": "s", "Ship__Latitude__s": "1.0"}
    assert csv_values(**{key: text for key, text in columns.items() if key not in OWN})["Ship__c"] == rest


def test_a_part_that_rest_does_not_show_is_left_out() -> None:
    odd = {**ADDRESS, "fields": [*ADDRESS["fields"], nullable("Xyz", "string", "Data:Text")]}
    plan = plan_of(nullable("Ship__c", odd, "Data:Address"), Ship__c="address")
    row = plan.row({**record(1), "Ship__c": {"street": "s"}})
    assert "Xyz" not in row.values["Ship__c"]


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("Weight__c", "1.0E-3", 0.001),
        ("Weight__c", "100", 100.0),
        ("Weight__c", "", None),
        ("Active__c", "true", True),
        ("Active__c", "false", False),
        ("LastModifiedDate", "2026-11-22T10:00:03.000Z", "2026-11-22T10:00:03.000Z"),
        ("Name", "", None),
        ("Name", "5", "5"),
    ],
)
def test_bulk_values(field: str, text: str, expected: Any) -> None:
    found = csv_values(**{field: text})[field]
    assert (found, type(found)) == (expected, type(expected))


def test_whole_numbers_stay_whole_and_big_ones_become_text() -> None:
    plan = plan_of(
        nullable("Count", "int", "Data:Integer"),
        nullable("Big", "long", "Data:Novelty"),
        Count="int",
        Big="long",
    )
    row = plan.row({**record(1), "Count": 5.0, "Big": 2**53 + 1})
    assert row.values == {"Count": 5, "Big": str(2**53 + 1)}
    assert type(row.values["Count"]) is int
    text = plan.csv_row({"Id": widget_id(1), "SystemModstamp": "2026-11-22T10:00:00.000Z", "Count": "5.0", "Big": "7"})
    assert text.values == {"Count": 5, "Big": 7}


def test_what_was_not_answered_is_unknown_and_what_was_not_asked_is_ignored() -> None:
    row = PLAN.row({**record(1), "attributes": {}, "Extra__c": 5})
    assert row.values == {"Name": "W-1"}


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("Weight__c", "1"),
        ("Weight__c", True),
        ("Active__c", "true"),
        ("Active__c", 1),
        ("Due__c", "2026-11-22T10:00:00.000Z"),
        ("Due__c", "2026-02-30"),
        ("Due__c", 5),
        ("Alarm__c", "24:00:00.000Z"),
        ("LastModifiedDate", "2026-11-22T10:00:03.000"),
        ("LastModifiedDate", "2026-11-22"),
        ("LastModifiedDate", ""),
        ("OwnerId", "queue"),
        ("Name", 5),
        ("Place__c", "1,2"),
        ("Place__c", {"latitude": "1"}),
    ],
)
def test_a_value_that_does_not_fit_is_told_by_its_name_only(field: str, wrong: Any) -> None:
    with pytest.raises(RowError) as raised:
        values(**{field: wrong})
    assert f"Widget__c.{field}" in raised.value.message
    assert raised.value.advice
    assert repr(wrong) not in str(raised.value)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [("Weight__c", "1_000"), ("Weight__c", "nan"), ("Active__c", "True"), ("Due__c", "22.11.2026"), ("OwnerId", "q")],
)
def test_text_that_does_not_fit_is_told(field: str, wrong: str) -> None:
    with pytest.raises(RowError):
        csv_values(**{field: wrong})


def test_deleted_rows_are_marked() -> None:
    assert PLAN.row(record(1, IsDeleted=True)).deleted
    assert not PLAN.row(record(1)).deleted
    base = {"Id": widget_id(1), "SystemModstamp": "2026-11-22T10:00:00.000Z"}
    assert PLAN.csv_row({**base, "IsDeleted": "true"}).deleted
    assert not PLAN.csv_row({**base, "IsDeleted": "false"}).deleted


def test_ids_have_18_characters() -> None:
    row = PLAN.row({**record(1), "Id": "a00xx0000000001"})
    assert row.record_id == "a00xx0000000001AAA"


def test_compounds_without_columns_are_not_read_by_bulk() -> None:
    fields = {name: field for name, field in widget_fields().items() if field.compound is None}
    plan = RowPlan("Widget__c", PLAN_SCHEMA, fields)
    assert "Ship__c" in plan.select
    base = {"Id": widget_id(1), "SystemModstamp": "2026-11-22T10:00:00.000Z"}
    assert "Ship__c" not in plan.csv_row({**base, "Name": "n"}).values


def test_the_policy_makes_the_same_of_a_row_as_of_an_event() -> None:
    """Otherwise every compare of a concealed field would find a difference."""
    policy = FieldPolicy(
        drop=["Name", "Ship__c.City"], hash=["Weight__c", "Place__c", "Ship__c.Street"], mask=["OwnerId"], hash_key=b"k"
    )
    owner, ship, place = "005xx0000000001AAA", {"Street": "s", "City": "c"}, {"Latitude": 1.0, "Longitude": 2.0}
    body = {"OwnerId": owner, "Name": "n", "Weight__c": 100.0, "Place__c": place, "Ship__c": ship}
    event = normalise(received(event_payload(WIDGET, body, changeType="CREATE", changedFields=[])), PLAN_SCHEMA)
    row = values(
        OwnerId=owner,
        Name="n",
        Weight__c=100,
        Place__c={"latitude": 1, "longitude": 2},
        Ship__c={"street": "s", "city": "c"},
    )
    told, read = policy.apply(event).values, policy.apply_values("Widget__c", row)
    assert {name: whole(value) for name, value in told.items()} == {name: whole(value) for name, value in read.items()}
    assert read["OwnerId"] == "***"
    assert read["Weight__c"] != 100.0
    assert policy.apply_values("Other", row) is not row
    assert FieldPolicy(drop=["Other:Name"]).apply_values("Widget__c", row) is row


@pytest.mark.parametrize("text", ["", "2026", "2026-11-22T10:00", "2026-11-22 10:00:00Z", "٢٠٢٦-11-22T10:00:00Z"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - callers translate any
        epoch_ms(text)


def test_history_values_follow_their_data_type_as_far_as_it_fits() -> None:
    assert history_value("2026-11-22T10:00:00.000+0000", "DateTime") == "2026-11-22T10:00:00.000Z"
    assert history_value("2026-11-22T10:00:00.000+0000", "Text") == "2026-11-22T10:00:00.000+0000"
    assert history_value("yesterday", "DateTime") == "yesterday"
    assert repr(history_value(3, "Currency")) == "3.0"
    assert history_value(True, "Boolean") is True
    assert history_value(None, "Double") is None
    assert history_value("005xx0000000001", "EntityId") == "005xx0000000001AAA"
