"""One value, told by an event, by REST and by Bulk, is one canonical value, to the byte."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.changes.canonical import date_only, date_time, time_only
from consumer.changes.rows import FieldInfo, RowPlan
from consumer.changes.schema import compile_schema
from consumer.salesforce.bulk import CsvRows
from consumer.tracking.images import whole
from tests.change_schemas import ADDRESS, LOCATION, PERSON_NAME, event_payload, event_schema, nullable, record

CONTACT_NAME = record("PersonName", {"FirstName": "string", "LastName": "string", "Suffix": "string"})
SCHEMA_JSON = event_schema(
    "AccountChangeEvent",
    [
        nullable("Name", "string", "Data:Switchable_PersonName") | {"type": ["null", "string", PERSON_NAME]},
        nullable("BillingAddress", ADDRESS, "Data:Address"),
        nullable("Place__c", LOCATION, "Data:Location:00Nxx0000000001"),
        nullable("ParentId", "string", "ForeignKey:EntityId"),
        nullable("Type", "string", "Data:DynamicEnum"),
        nullable("Employees", "int", "Data:Integer"),
        nullable("Big__c", "long", "Data:Novelty:00Nxx0000000002"),
        nullable("Revenue", "double", "Data:Currency"),
        nullable("Active__c", "boolean", "Data:Boolean:00Nxx0000000003"),
        nullable("CreatedDate", "long", "CreatedDate:DateTime"),
        nullable("Due__c", "long", "Data:DateOnly:00Nxx0000000004"),
        nullable("Alarm__c", "long", "Data:TimeOnly:00Nxx0000000005"),
        nullable("Notes__c", "string", "Data:StringPlusClob:00Nxx0000000006"),
    ],
)
PERSON_JSON = event_schema("ContactChangeEvent", [nullable("Name", CONTACT_NAME, "Data:PersonName")])
RECORD_ID, STAMP_MS = "001xx0000000001AAA", 1_795_341_600_000
ADDRESS_PARTS = [part["name"] for part in ADDRESS["fields"]]

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n\t"), min_size=1, max_size=12)
DOUBLE = st.one_of(st.floats(-1e15, 1e15), st.integers(-(10**9), 10**9).map(float), st.just(-0.0))
DAY = st.integers(-98_615, 742_000)
"""1700 to 4001, in days since 1970: what Salesforce takes, and a little more."""


@dataclass(frozen=True)
class Told:
    """One value in the three forms; ``bulk`` is the text of a column, or of several by name."""

    avro: Any
    rest: Any
    bulk: Any


def same(value: Any) -> Told:
    return Told(value, value, value)


def _double(value: float) -> Told:
    return Told(value, int(value) if value.is_integer() and str(value) != "-0.0" else value, repr(value).upper())


def _date_time(value: int) -> Told:
    text = str(date_time(value))
    return Told(value, text.replace("Z", "+0000"), text)


def _parts(make: dict[str, st.SearchStrategy[Told]]) -> st.SearchStrategy[dict[str, Told]]:
    return st.fixed_dictionaries({}, optional=make).filter(bool)


def _compound(told: dict[str, Told], columns: Mapping[str, str], every: list[str]) -> Told:
    rest = {part[0].lower() + part[1:]: told[part].rest if part in told else None for part in every}
    return Told(
        {part: value.avro for part, value in told.items()},
        rest,
        {column: told[part].bulk if part in told else "" for part, column in columns.items()},
    )


BILLING = {part: f"Billing{part}" for part in ADDRESS_PARTS}
PLACE = {part: f"Place__{part}__s" for part in ("Latitude", "Longitude")}
NAME_PARTS = ("Salutation", "FirstName", "LastName")
DOUBLES = DOUBLE.map(_double)
TEXTS = TEXT.map(same)
DATES = DAY.map(lambda day: Told(day * 86_400_000, date_only(day * 86_400_000), date_only(day * 86_400_000)))
TIMES = st.integers(0, 86_399_999).map(lambda ms: Told(ms, time_only(ms), time_only(ms)))
VALUES: dict[str, st.SearchStrategy[Told]] = {
    "BillingAddress": _parts({part: DOUBLES if part.endswith("itude") else TEXTS for part in ADDRESS_PARTS}).map(
        lambda told: _compound(told, BILLING, ADDRESS_PARTS)
    ),
    "Place__c": _parts(dict.fromkeys(PLACE, DOUBLES)).map(lambda told: _compound(told, PLACE, list(PLACE))),
    "ParentId": st.just(Told("001xx0000000002AAA", "001xx0000000002AAA", "001xx0000000002AAA")),
    "Type": TEXTS,
    "Employees": st.integers(-(2**31), 2**31 - 1).map(lambda number: Told(number, number, str(number))),
    "Big__c": st.integers(-(2**63), 2**63 - 1).map(lambda number: Told(number, number, str(number))),
    "Revenue": DOUBLES,
    "Active__c": st.booleans().map(lambda flag: Told(flag, flag, str(flag).lower())),
    "CreatedDate": st.builds(lambda day, ms: _date_time(day * 86_400_000 + ms), DAY, st.integers(0, 86_399_999)),
    "Due__c": DATES,
    "Alarm__c": TIMES,
    "Notes__c": TEXTS,
}
TYPES = {"BillingAddress": "address", "Place__c": "location"}
NAMES: st.SearchStrategy[tuple[Any, str, dict[str, str]]] = st.one_of(
    TEXT.map(lambda text: (text, text, {})),
    st.fixed_dictionaries({"LastName": TEXT}, optional={"FirstName": TEXT, "Salutation": TEXT}).map(
        lambda parts: (parts, " ".join(parts.values()), parts)
    ),
)


def fields() -> dict[str, FieldInfo]:
    """The describe: what the schema has, the parts of compounds, and what it has not."""
    found = [FieldInfo(name, TYPES.get(name, "string")) for name in (*VALUES, "Id", "IsDeleted", "SystemModstamp")]
    found += [FieldInfo("Name", "string", compound="Name"), FieldInfo("Unknown__c", "string")]
    for compound, columns in (("BillingAddress", BILLING.values()), ("Place__c", PLACE.values()), ("Name", NAME_PARTS)):
        found += [FieldInfo(column, "string", compound=compound) for column in columns]
    return {field.name: field for field in found}


SCHEMA = compile_schema("s", SCHEMA_JSON)
PLAN = RowPlan("Account", SCHEMA, fields())


def event_values(schema_json: str, body: Mapping[str, Any]) -> bytes:
    """Return the known values of a CREATE with this body, as an image's canonical bytes."""
    schema = compile_schema("s", schema_json)
    values = schema.canonical(schema.decode(event_payload(schema_json, body)).values)
    return orjson.dumps({name: whole(values.get(name)) for name in schema.schema_fields})


def row_values(plan: RowPlan, values: Mapping[str, Any]) -> bytes:
    assert set(values) == set(plan.fields)
    return orjson.dumps({name: whole(values[name]) for name in plan.fields})


def through_csv(plan: RowPlan, columns: Mapping[str, str]) -> Mapping[str, Any]:
    """Write one line as Bulk does, read it as the client does."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(plan.bulk_select)
    writer.writerow([columns.get(name, "") for name in plan.bulk_select])
    reader = CsvRows(plan.csv_row)
    reader.feed(text.getvalue().encode())
    return reader.end()[0].values


@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries({}, optional=VALUES), NAMES)
def test_event_rest_and_bulk_say_the_same(told: dict[str, Told], name: tuple[Any, str, dict[str, str]]) -> None:
    avro_name, whole_name, name_parts = name
    event = event_values(SCHEMA_JSON, {key: value.avro for key, value in told.items()} | {"Name": avro_name})

    stamp = {"Id": RECORD_ID, "SystemModstamp": str(date_time(STAMP_MS))}
    rest: dict[str, Any] = dict.fromkeys(PLAN.select) | {key: value.rest for key, value in told.items()}
    rest |= {"Name": whole_name, "attributes": {"type": "Account"}, "Extra": 1, **name_parts, **stamp}
    row = PLAN.row(orjson.loads(json.dumps(rest)))
    assert row_values(PLAN, row.values) == event

    columns: dict[str, str] = {"IsDeleted": "true", "Name": whole_name, **name_parts, **stamp}
    for key, value in told.items():
        columns |= value.bulk if isinstance(value.bulk, dict) else {key: value.bulk}
    assert row_values(PLAN, through_csv(PLAN, columns)) == event
    assert row.stamp_ms == STAMP_MS


@given(st.fixed_dictionaries({"LastName": TEXT}, optional={"FirstName": TEXT, "Suffix": TEXT}))
@settings(max_examples=25, deadline=None)
def test_a_persons_name_is_read_by_its_parts(parts: dict[str, str]) -> None:
    names = ("FirstName", "LastName", "Suffix")
    infos = [FieldInfo("Name", "string"), *(FieldInfo(part, "string", compound="Name") for part in names)]
    plan = RowPlan("Contact", compile_schema("p", PERSON_JSON), {info.name: info for info in infos})
    assert plan.select == ("Id", "SystemModstamp", *names)
    record_values = dict.fromkeys(names) | parts
    row = plan.row({"Id": RECORD_ID, "SystemModstamp": "2026-11-22T10:00:00.000+0000"} | record_values)
    assert row_values(plan, row.values) == event_values(PERSON_JSON, {"Name": parts})
