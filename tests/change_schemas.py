"""Writer schemas and payloads for tests: the worked Widget of the fact sheet, a real Account order, Demo__e."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Mapping
from typing import Any

import avro.io
import avro.schema

from consumer.events import ReceivedEvent

CHANGE_TYPES = [
    "CREATE",
    "UPDATE",
    "DELETE",
    "UNDELETE",
    "GAP_CREATE",
    "GAP_UPDATE",
    "GAP_DELETE",
    "GAP_UNDELETE",
    "GAP_OVERFLOW",
    "SNAPSHOT",
]
_TEXTS = {"type": "array", "items": "string"}
HEADER_FIELD: dict[str, Any] = {
    "name": "ChangeEventHeader",
    "type": {
        "type": "record",
        "name": "ChangeEventHeader",
        "fields": [
            {"name": "entityName", "type": "string"},
            {"name": "recordIds", "type": _TEXTS},
            {"name": "changeType", "type": {"type": "enum", "name": "ChangeType", "symbols": CHANGE_TYPES}},
            {"name": "changeOrigin", "type": "string"},
            {"name": "transactionKey", "type": "string"},
            {"name": "sequenceNumber", "type": "int"},
            {"name": "commitTimestamp", "type": "long"},
            {"name": "commitNumber", "type": "long"},
            {"name": "commitUser", "type": "string"},
            {"name": "nulledFields", "type": _TEXTS},
            {"name": "diffFields", "type": _TEXTS},
            {"name": "changedFields", "type": _TEXTS},
        ],
    },
    "doc": "Data:ComplexValueType",
}
ADDRESS_PARTS = [
    "Street",
    "City",
    "State",
    "PostalCode",
    "Country",
    "StateCode",
    "CountryCode",
    "Latitude",
    "Longitude",
    "GeocodeAccuracy",
]


def nullable(name: str, avro_type: Any, doc: str) -> dict[str, Any]:
    """One body field as Salesforce writes it."""
    return {"name": name, "type": ["null", avro_type], "doc": doc, "default": None}


def record(name: str, parts: Mapping[str, str]) -> dict[str, Any]:
    """A compound's record with nullable parts."""
    fields = [nullable(part, kind, f"Data:{kind.title()}") for part, kind in parts.items()]
    return {"type": "record", "name": name, "fields": fields}


ADDRESS = record("Address", {part: "double" if part.endswith("itude") else "string" for part in ADDRESS_PARTS})
LOCATION = record("Location", {"Latitude": "double", "Longitude": "double"})
PERSON_NAME = record("Switchable_PersonName", {"Salutation": "string", "FirstName": "string", "LastName": "string"})


def event_schema(name: str, fields: list[dict[str, Any]], *, header: bool = True) -> str:
    """The JSON of a writer schema, with the extra key that REST adds."""
    return json.dumps(
        {
            "name": name,
            "namespace": "com.sforce.eventbus",
            "type": "record",
            "uuid": "Zm9vYmFy",
            "fields": ([copy.deepcopy(HEADER_FIELD)] if header else []) + fields,
        }
    )


WIDGET = event_schema(
    "Widget__ChangeEvent",
    [
        nullable("OwnerId", "string", "ForeignKey:EntityId"),
        nullable("Name", "string", "Data:Text"),
        nullable("CreatedDate", "long", "CreatedDate:DateTime"),
        nullable("CreatedById", "string", "CreatedBy:EntityId"),
        nullable("LastModifiedDate", "long", "Data:DateTime"),
        nullable("LastModifiedById", "string", "ForeignKey:EntityId"),
        nullable("Colour__c", "string", "Data:DynamicEnum:00Nxx0000000001"),
        nullable("Tags__c", "string", "Data:MultiEnum:00Nxx0000000002"),
        nullable("Weight__c", "double", "Data:Double:00Nxx0000000003"),
        nullable("Active__c", "boolean", "Data:Boolean:00Nxx0000000004"),
        nullable("Due__c", "long", "Data:DateOnly:00Nxx0000000005"),
        nullable("Alarm__c", "long", "Data:TimeOnly:00Nxx0000000006"),
        nullable("Place__c", LOCATION, "Data:Location:00Nxx0000000007"),
        nullable("Notes__c", "string", "Data:StringPlusClob:00Nxx0000000008"),
        nullable("Ship__c", ADDRESS, "Data:Address:00Nxx0000000009"),
        nullable("Bill__c", "Address", "Data:Address:00Nxx000000000A"),
        nullable("Serial__c", "string", "Data:Text:00Nxx000000000B"),
    ],
)
WIDGET_PAYLOAD = bytes.fromhex(
    "125769646765745f5f630224613030303030303030303030303031414141000250"
    "636f6d2f73616c6573666f7263652f6170692f726573742f36322e303b636c6965"
    "6e743d64656d6f4830303030616161612d626262622d636363632d646464642d65"
    "65656566666666303030310280f086c2ee658680fcaba6b0d6b82f243030353030"
    "30303030303030303031414141020c3078303130300000020c3078303932300000"
    "0000000280f086c2ee650000000000028090c9e0ee65000000000000"
)
"""The worked UPDATE of the fact sheet, section 5.8."""

DEMO = event_schema(
    "Demo__e",
    [
        {"name": "CreatedDate", "type": "long", "doc": "CreatedDate:DateTime"},
        {"name": "CreatedById", "type": "string", "doc": "CreatedBy:EntityId"},
        nullable("Msg__c", "string", "Data:Text:00Nxx000000000C"),
        nullable("Qty__c", "double", "Data:Double:00Nxx000000000D"),
        nullable("Ok__c", "boolean", "Data:Boolean:00Nxx000000000E"),
    ],
    header=False,
)
DEMO_PAYLOAD = bytes.fromhex("80f086c2ee65243030353030303030303030303030314141410204686902000000000000f83f00")

_ACCOUNT_TOP = [
    "Name",
    "Type",
    "RecordTypeId",
    "ParentId",
    "BillingAddress",
    "ShippingAddress",
    "Phone",
    "Fax",
    "AccountNumber",
    "Website",
    "Sic",
    "Industry",
    "AnnualRevenue",
    "NumberOfEmployees",
    "Ownership",
    "TickerSymbol",
    "Description",
    "Rating",
    "Site",
    "OwnerId",
    "CreatedDate",
    "CreatedById",
    "LastModifiedDate",
    "LastModifiedById",
]


def _account_field(name: str) -> dict[str, Any]:
    if name == "Name":
        doc = "Data:Switchable_PersonName"
        return {"name": name, "type": ["null", "string", PERSON_NAME], "doc": doc, "default": None}
    if name.endswith("Address"):
        return nullable(name, ADDRESS if name == "BillingAddress" else "Address", "Data:Address")
    if name.endswith("Date"):
        return nullable(name, "long", "Data:DateTime")
    if name == "NumberOfEmployees":
        return nullable(name, "int", "Data:Integer")
    return nullable(name, "double" if name == "AnnualRevenue" else "string", "Data:Text")


def account(*, record_types: bool = True) -> str:
    """AccountChangeEvent with person accounts in its real order, 90 fields with record types."""
    names = [name for name in _ACCOUNT_TOP if record_types or name != "RecordTypeId"]
    names += [f"Extra{index}__c" for index in range(len(names) + 1, 90)]
    if record_types:
        names[67] = "Some_Date_Time__c"
    return event_schema("AccountChangeEvent", [_account_field(name) for name in names])


HEADER: dict[str, Any] = {
    "entityName": "Widget__c",
    "recordIds": ["a00000000000001AAA"],
    "changeType": "UPDATE",
    "changeOrigin": "com/salesforce/api/rest/62.0;client=demo",
    "transactionKey": "0000aaaa-bbbb-cccc-dddd-eeeeffff0001",
    "sequenceNumber": 1,
    "commitTimestamp": 1750000000000,
    "commitNumber": 1709306004367179779,
    "commitUser": "005000000000001AAA",
    "nulledFields": [],
    "diffFields": [],
    "changedFields": [],
}


def encode(schema_json: str, datum: Mapping[str, Any]) -> bytes:
    """Encode a datum with the avro library's own writer."""
    out = io.BytesIO()
    writer = avro.io.DatumWriter(avro.schema.parse(schema_json))
    writer.write(dict(datum), avro.io.BinaryEncoder(out))
    return out.getvalue()


def oracle(schema_json: str, payload: bytes) -> Any:
    """Decode a payload with the avro library's own reader."""
    reader = avro.io.DatumReader(avro.schema.parse(schema_json))
    return reader.read(avro.io.BinaryDecoder(io.BytesIO(payload)))


def event_payload(schema_json: str, body: Mapping[str, Any], **header: Any) -> bytes:
    """Encode an event: the worked header with some values changed, and the body."""
    return encode(schema_json, {"ChangeEventHeader": HEADER | header} | dict(body))


def received(payload: bytes) -> ReceivedEvent:
    """A received event with this payload."""
    return ReceivedEvent("/data/Widget__ChangeEvent", "e1", "s1", payload, b"\0" * 10, 1_750_000_001_000)
