"""The emulated org makes the events the Change Data Capture guide and the public captures describe."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import avro.io
import avro.schema
import fastavro
import pytest

from consumer.emulator import bitmaps
from consumer.emulator.event_encode import BodyEncoder, EventHeader, encode_header
from consumer.emulator.event_schemas import HEADER, NAMESPACE, WriterSchema, standard_schemas
from consumer.emulator.oracle import Oracle, patch
from consumer.emulator.org import Change, OrgEvent, OrgModel
from consumer.emulator.org_events import MAX_EVENT_BYTES
from consumer.emulator.record_ids import PLACEHOLDER_ID, PREFIXES, id18, is_id18, numbered_id
from consumer.errors import EmulatorError

NOW_MS = 1_790_000_000_123
SESSION = "MessagingSession"
SCHEMAS = standard_schemas()

# The reference payload of the Pub/Sub fact sheet, round-tripped there by two other readers.
WIDGET_UPDATE = bytes.fromhex(
    "125769646765745f5f630224613030303030303030303030303031414141000250"
    "636f6d2f73616c6573666f7263652f6170692f726573742f36322e303b636c6965"
    "6e743d64656d6f4830303030616161612d626262622d636363632d646464642d65"
    "65656566666666303030310280f086c2ee658680fcaba6b0d6b82f243030353030"
    "30303030303030303031414141020c3078303130300000020c3078303932300000"
    "0000000280f086c2ee650000000000028090c9e0ee65000000000000"
)


def decode(org: OrgModel, event: OrgEvent) -> dict[str, Any]:
    """Return the event as the ``avro`` library reads it; every byte of the payload must be used."""
    schema = avro.schema.parse(org.schema_json(event.schema_id) or "")
    source = io.BytesIO(event.payload)
    decoded = avro.io.DatumReader(schema).read(avro.io.BinaryDecoder(source))
    assert source.read() == b""
    assert isinstance(decoded, dict)
    return decoded


def header_of(org: OrgModel, event: OrgEvent) -> dict[str, Any]:
    found = decode(org, event)[HEADER]
    assert isinstance(found, dict)
    return found


def body_of(org: OrgModel, event: OrgEvent) -> dict[str, Any]:
    return {name: value for name, value in decode(org, event).items() if value is not None and name != HEADER}


def sessions(org: OrgModel, count: int, **fields: Any) -> list[str]:
    """Create sessions at NOW_MS and return their ids."""
    ids = [org.new_id(SESSION) for _ in range(count)]
    org.commit([Change("create", SESSION, record_id, {"Status": "Waiting", **fields}) for record_id in ids], NOW_MS)
    return ids


def test_reference_payload_is_reproduced_byte_for_byte() -> None:
    widget = SCHEMAS["Widget__c"]
    header = EventHeader(
        "Widget__c",
        ("a00000000000001AAA",),
        "UPDATE",
        "com/salesforce/api/rest/62.0;client=demo",
        "0000aaaa-bbbb-cccc-dddd-eeeeffff0001",
        1,
        1_750_000_000_000,
        1_709_306_004_367_179_779,
        "005000000000001AAA",
        nulled_fields=bitmaps.encode(widget, [("Tags__c", "")]),
        changed_fields=bitmaps.encode(widget, [("LastModifiedDate", ""), ("Tags__c", ""), ("Due__c", "")]),
    )
    body = BodyEncoder(widget).encode({"LastModifiedDate": 1_750_000_000_000, "Due__c": 1_750_032_000_000})
    assert encode_header(header) + body == WIDGET_UPDATE


@pytest.mark.parametrize(
    ("entity", "names", "expected"),
    [
        ("Widget__c", ["Name", "LastModifiedDate"], ["0x24"]),
        ("Widget__c", ["LastModifiedDate", "Colour__c", "Weight__c"], ["0x02A0"]),
        ("Widget__c", ["LastModifiedDate", "Due__c", "Serial__c"], ["0x020820"]),
        ("Widget__c", ["LastModifiedDate", "Place__c.Latitude", "Place__c.Longitude"], ["0x20", "13-0x03"]),
        ("Widget__c", ["Ship__c.Street", "Ship__c.PostalCode", "Ship__c.GeocodeAccuracy"], ["15-0x0209"]),
        (
            "Widget__c",
            ["Bill__c.City", "Ship__c.City", "Tags__c", "LastModifiedDate"],
            ["0x0120", "15-0x02", "16-0x02"],
        ),
        ("Widget__c", ["LastModifiedDate", "LastModifiedById", "Notes__c"], ["0x4060"]),
        ("Widget__c", ["OwnerId"], ["0x02"]),
        ("Widget__c", [], []),
        ("Account", ["LastModifiedDate", "ShippingAddress.Street"], ["0x800000", "6-0x01"]),
        ("Account", ["ShippingAddress.Latitude", "ShippingAddress.Longitude"], ["6-0x0180"]),
        ("Account", ["Name", "LastModifiedDate"], ["0x800002"]),
    ],
)
def test_bitmaps_of_the_worked_examples(entity: str, names: list[str], expected: list[str]) -> None:
    places = [(name.partition(".")[0], name.partition(".")[2]) for name in names]
    encoded = bitmaps.encode(SCHEMAS[entity], places)
    assert encoded == expected
    assert bitmaps.decode(SCHEMAS[entity], encoded) == frozenset(places)


def test_bitmaps_refuse_what_the_schema_does_not_have() -> None:
    with pytest.raises(EmulatorError, match="no field Colour"):
        bitmaps.encode(SCHEMAS["Account"], [("Colour__c", "")])
    with pytest.raises(EmulatorError, match="no part Town"):
        bitmaps.encode(SCHEMAS["Widget__c"], [("Ship__c", "Town")])
    with pytest.raises(EmulatorError, match="names no field"):
        bitmaps.decode(SCHEMAS["Widget__c"], ["0x080000"])


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=lambda schema: schema.name)
def test_schemas_are_real_avro_and_their_id_is_the_canonical_md5(schema: WriterSchema) -> None:
    assert avro.schema.parse(schema.json).fullname == f"{NAMESPACE}.{schema.name}"
    canonical = fastavro.schema.to_parsing_canonical_form(json.loads(schema.json))
    digest = hashlib.md5(canonical.encode(), usedforsecurity=False).digest()
    assert fastavro.schema.fingerprint(canonical, "MD5") == digest.hex()
    assert avro.schema.parse(schema.json).fingerprint("md5") == digest
    assert len(schema.schema_id) == 22
    assert "=" not in schema.schema_id
    fields = json.loads(schema.json)["fields"]
    assert fields[0]["name"] == HEADER
    assert all(item["type"][0] == "null" and item["doc"].count(":") in {1, 2} for item in fields[1:])
    assert "logicalType" not in schema.json


def test_session_fields_stand_in_the_order_of_its_describe() -> None:
    names = list(SCHEMAS[SESSION].index)
    assert names[:12] == [
        "OwnerId",
        "Name",
        "CreatedDate",
        "CreatedById",
        "LastModifiedDate",
        "LastModifiedById",
        "MessagingChannelId",
        "MessagingEndUserId",
        "Status",
        "CaseId",
        "LeadId",
        "OpportunityId",
    ]
    assert names[33] == "ChannelEndUserFormula"
    assert all(name.endswith("__c") for name in names[34:])


def test_account_fields_stand_where_real_captures_have_them() -> None:
    index = SCHEMAS["Account"].index
    assert (index["Name"], index["ShippingAddress"], index["LastModifiedDate"]) == (1, 6, 23)


def test_a_new_field_in_the_middle_moves_later_bits_and_gives_a_new_id() -> None:
    org = OrgModel(1)
    (record_id,) = sessions(org, 1)
    old_id = org.current_schema_id(SESSION)
    campaign = {"name": "CampaignId", "doc": "ForeignKey:EntityId", "after": "OpportunityId"}
    new_id = org.change_schema(SESSION, [campaign], ["Topics__c"])
    assert new_id == org.current_schema_id(SESSION) != old_id
    assert org.schema_json(old_id) != org.schema_json(new_id)
    fields = {"CampaignId": numbered_id(PREFIXES["Campaign"], 1), "AcceptTime": 1_790_000_002_000}
    (event,) = org.commit([Change("update", SESSION, record_id, fields)], NOW_MS + 2_000, split=False)
    assert event.schema_id == new_id
    assert header_of(org, event)["changedFields"] == ["0x6020"]  # AcceptTime was bit 13, is 14 now
    assert Oracle(org).read(event).changed == {("LastModifiedDate", ""), ("CampaignId", ""), ("AcceptTime", "")}
    with pytest.raises(EmulatorError, match="no field Topics__c"):
        org.commit([Change("update", SESSION, record_id, {"Topics__c": "Billing"})], NOW_MS)


def test_a_field_added_without_a_place_goes_to_the_middle() -> None:
    schema = SCHEMAS["Widget__c"].with_fields([{"name": "New__c"}])
    assert 5 < schema.index["New__c"] < len(schema.fields) - 5
    assert schema.schema_id != SCHEMAS["Widget__c"].schema_id
    for wrong in ({"name": "Name"}, {"name": "X__c", "after": "Nope"}, {"name": "Y__c", "doc": "plain"}, {}):
        with pytest.raises(EmulatorError):
            schema.with_fields([wrong])
    with pytest.raises(EmulatorError):
        schema.with_fields([], ["Nope"])


def test_ids_have_their_check_characters() -> None:
    assert id18("001D000000IRFmaIAH"[:15]) == "001D000000IRFmaIAH"
    assert is_id18("a00000000000001AAA")
    assert not is_id18("a00000000000001AAB")
    assert not is_id18("a00000000000001")
    assert is_id18(OrgModel(1).org_id)
    assert OrgModel(1).org_id.startswith("00D")


def test_create_carries_the_whole_record_without_bitmaps() -> None:
    org = OrgModel(1)
    record_id = org.new_id(SESSION)
    fields = {"Status": "New", "ChannelType": "WhatsApp", "VIP__c": False}
    (event,) = org.commit([Change("create", SESSION, record_id, fields)], NOW_MS)
    header = header_of(org, event)
    assert (header["changeType"], header["changedFields"], header["nulledFields"]) == ("CREATE", [], [])
    assert header["commitTimestamp"] == event.commit_ms == 1_790_000_000_000
    assert header["commitNumber"] > 2**53
    body = body_of(org, event)
    assert body.keys() >= {"Name", "CreatedDate", "CreatedById", "LastModifiedDate", "LastModifiedById"}
    assert (body["Status"], body["VIP__c"]) == ("New", False)
    assert "ChannelType" not in body, "derived fields are not carried"
    record = org.record(SESSION, record_id)
    assert record is not None
    assert record["ChannelType"] == "WhatsApp"
    assert record["CaseId"] is None
    assert record["Id"] == record_id


def test_derived_fields_are_carried_on_request() -> None:
    org = OrgModel(1, carry_derived=True)
    record_id = org.new_id(SESSION)
    (event,) = org.commit([Change("create", SESSION, record_id, {"ChannelType": "WhatsApp"})], NOW_MS)
    assert body_of(org, event)["ChannelType"] == "WhatsApp"


def test_update_carries_only_what_differs_and_parts_of_compounds() -> None:
    org = OrgModel(1)
    address = {"Street": "Strandgaten 12", "City": "Bergen", "PostalCode": "5013"}
    (record_id,) = sessions(org, 1, VisitAddress__c=address, Priority__c="High")
    moved = {"VisitAddress__c": {"City": "Oslo", "PostalCode": None}, "Priority__c": None, "Status": "Waiting"}
    (event,) = org.commit([Change("update", SESSION, record_id, moved)], NOW_MS + 5_000, split=False)
    read = Oracle(org).read(event)
    assert read.values == {"LastModifiedDate": 1_790_000_005_000, "VisitAddress__c": {"City": "Oslo"}}
    assert read.nulled == {("Priority__c", ""), ("VisitAddress__c", "PostalCode")}
    assert read.changed == read.nulled | {("LastModifiedDate", ""), ("VisitAddress__c", "City")}
    record = org.record(SESSION, record_id)
    assert record is not None
    assert record["VisitAddress__c"] == {"Street": "Strandgaten 12", "City": "Oslo"}


def test_a_system_write_names_only_nested_parts_and_leaves_last_modified() -> None:
    org = OrgModel(1)
    (record_id,) = sessions(org, 1, VisitAddress__c={"City": "Bergen"})
    parts = {"VisitAddress__c": {"Latitude": 60.4, "Longitude": 5.3}}
    change = Change("update", SESSION, record_id, parts, system=True)
    (event,) = org.commit([change], NOW_MS + 9_000, origin="")
    assert header_of(org, event)["changedFields"] == ["41-0x0180"]
    assert header_of(org, event)["changeOrigin"] == ""
    row = org.row(SESSION, record_id)
    assert row is not None
    assert (row.values["LastModifiedDate"], row.system_modstamp_ms) == (1_790_000_000_000, 1_790_000_009_000)


def test_person_and_business_accounts_share_one_name_field() -> None:
    org = OrgModel(1)
    person, business = org.new_id("Account"), org.new_id("Account")
    org.commit([Change("create", "Account", person, {"Name": {"FirstName": "Elif", "LastName": "Haddad"}})], NOW_MS)
    org.commit([Change("create", "Account", business, {"Name": "Casa Roble"})], NOW_MS)
    (married,) = org.commit(
        [Change("update", "Account", person, {"Name": {"LastName": "Novák"}})], NOW_MS + 1_000, split=False
    )
    (renamed,) = org.commit([Change("update", "Account", business, {"Name": "Casa Nova"})], NOW_MS + 1_000, split=False)
    assert header_of(org, married)["changedFields"] == ["0x800000", "1-0x04"]
    assert header_of(org, renamed)["changedFields"] == ["0x800002"]
    assert body_of(org, married)["Name"] == {"Salutation": None, "FirstName": None, "LastName": "Novák"}


def test_equal_changes_merge_into_one_event_with_all_ids() -> None:
    org = OrgModel(1)
    ids = sessions(org, 3)
    ended = [Change("update", SESSION, record_id, {"Status": "Ended"}) for record_id in ids]
    (event,) = org.commit(ended, NOW_MS + 2_000, split=False)
    assert event.record_ids == tuple(header_of(org, event)["recordIds"]) == tuple(ids)
    (gone,) = org.commit([Change("delete", SESSION, record_id) for record_id in ids], NOW_MS + 3_000)
    assert gone.record_ids == tuple(ids)
    assert body_of(org, gone) == {}


def test_ungrouped_merged_events_share_a_replay_id_and_carry_enrichment() -> None:
    org = OrgModel(1)
    ids = sessions(org, 3, Priority__c="High")
    org.ungroup_merged = True
    org.enrichment[SESSION] = ("Priority__c", "Name")
    ended = [Change("update", SESSION, record_id, {"Status": "Ended"}) for record_id in ids]
    events = org.commit(ended, NOW_MS + 2_000, split=False)
    assert [event.record_ids for event in events] == [(record_id,) for record_id in ids]
    assert [event.shares_replay_id for event in events] == [False, True, True]
    assert len({event.event_id for event in events}) == 3
    read = [Oracle(org).read(event) for event in events]
    assert [change.values["Name"] for change in read] == ["MS-00000001", "MS-00000002", "MS-00000003"]
    assert all(("Name", "") not in change.changed for change in read)


def test_a_split_save_sends_last_modified_first_and_merged() -> None:
    org = OrgModel(1)
    ids = sessions(org, 2)
    changes = [
        Change("update", SESSION, record_id, {"Priority__c": f"P{place}"}) for place, record_id in enumerate(ids)
    ]
    events = org.commit(changes, NOW_MS + 2_000, split=True)
    assert [event.record_ids for event in events] == [tuple(ids), (ids[0],), (ids[1],)]
    assert [event.sequence_number for event in events] == [1, 2, 3]
    assert len({event.transaction_key for event in events}) == 1
    assert body_of(org, events[0]).keys() == {"LastModifiedDate"}
    assert body_of(org, events[1]) == {"Priority__c": "P0"}


def test_one_transaction_numbers_the_events_of_all_its_objects() -> None:
    org = OrgModel(1)
    record_id, work_id = org.new_id(SESSION), org.new_id("AgentWork")
    changes = [
        Change("create", SESSION, record_id, {"Status": "Waiting"}),
        Change("create", "AgentWork", work_id, {"WorkItemId": record_id, "CapacityWeight": 1.0}),
        Change("update", SESSION, record_id, {"Status": "Active"}),
    ]
    events = org.commit(changes, NOW_MS)
    assert [(event.entity, event.change_type, event.sequence_number) for event in events] == [
        (SESSION, "CREATE", 1),
        ("AgentWork", "CREATE", 2),
    ]
    assert body_of(org, events[0])["Status"] == "Active", "one event with the first change's kind"


def test_undelete_carries_the_whole_record_and_purge_makes_no_event() -> None:
    org = OrgModel(1)
    (record_id,) = sessions(org, 1, Priority__c="Low")
    org.commit([Change("delete", SESSION, record_id)], NOW_MS)
    assert org.record(SESSION, record_id) is None
    assert org.deleted_ids(SESSION) == (record_id,)
    (event,) = org.commit([Change("undelete", SESSION, record_id)], NOW_MS + 4_000)
    assert (event.change_type, body_of(org, event)["Priority__c"]) == ("UNDELETE", "Low")
    assert org.commit([Change("purge", SESSION, record_id)], NOW_MS + 5_000) == []
    assert org.row(SESSION, record_id) is None


def test_a_save_that_changes_nothing_within_the_second_makes_no_event() -> None:
    org = OrgModel(1)
    (record_id,) = sessions(org, 1)
    assert org.commit([Change("update", SESSION, record_id, {"Status": "Waiting"})], NOW_MS + 100) == []


@pytest.mark.parametrize(
    "bad",
    [
        Change("create", SESSION, "first"),
        Change("update", SESSION, "nobody", {"Status": "Active"}),
        Change("undelete", SESSION, "first"),
        Change("update", "Nonsense", "first"),
        Change("update", SESSION, "first", {"Nonsense__c": 1}),
        Change("update", SESSION, "first", {"VIP__c": "yes"}),
        Change("update", SESSION, "first", {"StartTime": "noon"}),
        Change("update", SESSION, "first", {"VisitAddress__c": {"Town": "Oslo"}}),
        Change("create", SESSION, "third", {"VisitAddress__c": {"Town": "Oslo"}}),
    ],
)
def test_a_failing_transaction_leaves_every_record_as_it_was(bad: Change) -> None:
    org = OrgModel(1)
    org.commit([Change("create", SESSION, "first", {"Status": "Waiting"})], NOW_MS)
    before = org.records(SESSION)
    with pytest.raises(EmulatorError):
        org.commit(
            [
                Change("create", SESSION, "second", {"Status": "New"}),
                Change("update", SESSION, "first", {"Status": "Ended"}),
                bad,
            ],
            NOW_MS + 7_000,
        )
    assert org.records(SESSION) == before


def test_long_text_updates_carry_a_diff_and_name_it() -> None:
    org = OrgModel(1, diff_context=3)
    notes = "\n".join(f"{number}: a line of notes that somebody wrote" for number in range(40))
    (record_id,) = sessions(org, 1, Notes__c=notes)
    change = Change("update", SESSION, record_id, {"Notes__c": f"{notes}\none more line  "})
    (event,) = org.commit([change], NOW_MS + 2_000, split=False)
    read = Oracle(org).read(event)
    assert read.diffs == {("Notes__c", "")}
    assert patch(notes, read.values["Notes__c"]) == f"{notes}\none more line", "trimmed on save"


@pytest.mark.parametrize("kind", ["CREATE", "UPDATE", "DELETE", "UNDELETE"])
def test_gap_events_say_that_but_not_what(kind: str) -> None:
    org = OrgModel(1)
    (record_id,) = sessions(org, 1)
    target = org.new_id(SESSION) if kind == "CREATE" else record_id
    if kind == "UNDELETE":
        org.commit([Change("delete", SESSION, record_id)], NOW_MS)
    (event,) = org.gap(kind, SESSION, [target], NOW_MS + 3_000, fields={"Status": "Paused"})
    header = header_of(org, event)
    assert (header["changeType"], header["recordIds"], body_of(org, event)) == (f"GAP_{kind}", [target], {})
    record = org.record(SESSION, target)
    assert (record is None) == (kind == "DELETE")
    if kind in {"CREATE", "UPDATE"} and record is not None:
        assert record["Status"] == "Paused", "the org changed although the event does not say how"


def test_gap_refuses_other_kinds_and_unknown_fields() -> None:
    org = OrgModel(1)
    (record_id,) = sessions(org, 1)
    before = org.records(SESSION)
    for kind, fields in (
        ("OVERFLOW", {}),
        ("MERGE", {}),
        ("UPDATE", {"Status": "X", "Nope__c": 1}),
        ("UPDATE", {"VIP__c": 3}),
    ):
        with pytest.raises(EmulatorError):
            org.gap(kind, SESSION, [record_id], NOW_MS + 4_000, fields=fields)
    assert org.records(SESSION) == before


def test_overflow_and_wildcard_name_no_record() -> None:
    org = OrgModel(1)
    (overflow,) = org.overflow("Account", NOW_MS)
    assert header_of(org, overflow)["recordIds"] == [PLACEHOLDER_ID]
    assert header_of(org, overflow)["changeType"] == "GAP_OVERFLOW"
    (wildcard,) = org.wildcard("Account", NOW_MS)
    assert header_of(org, wildcard)["recordIds"] == ["001*"]
    assert body_of(org, wildcard) == {}
    with pytest.raises(EmulatorError):
        org.overflow("Nonsense", NOW_MS)


def test_an_event_above_the_size_limit_becomes_a_gap() -> None:
    org = OrgModel(1)
    record_id = org.new_id(SESSION)
    fields = {"Notes__c": "x" * (MAX_EVENT_BYTES + 1)}
    (event,) = org.commit([Change("create", SESSION, record_id, fields)], NOW_MS)
    assert event.change_type == header_of(org, event)["changeType"] == "GAP_CREATE"
    assert event.record_ids == (record_id,)
    assert len(event.payload) < 1_000


def test_a_huge_transaction_becomes_one_overflow_event_per_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.emulator.org_events.MAX_TRANSACTION", 3)
    org = OrgModel(1)
    changes = [Change("create", SESSION, org.new_id(SESSION)) for _ in range(3)]
    changes.append(Change("create", "Account", org.new_id("Account"), {"Name": "Brightwell"}))
    events = org.commit(changes, NOW_MS)
    assert [(event.entity, event.change_type) for event in events] == [
        (SESSION, "GAP_OVERFLOW"),
        ("Account", "GAP_OVERFLOW"),
    ]
    assert len(org.records(SESSION)) == 3


@pytest.mark.parametrize("kind", ["truncated", "trailing", "random", "bad_enum"])
def test_poison_does_not_decode(kind: Any) -> None:
    org = OrgModel(1)
    (record_id,) = sessions(org, 1)
    before = org.records(SESSION)
    for _ in range(20):
        event = org.poison(SESSION, NOW_MS, kind)
        assert event.event_id in org.poison_ids
        with pytest.raises((AssertionError, EOFError, avro.errors.AvroException, OverflowError, ValueError)):
            decode(org, event)
    assert org.records(SESSION) == before
    assert kind == "random" or event.record_ids == (record_id,)


def test_poisoned_bitmaps_and_schemas_decode_but_name_nothing() -> None:
    org = OrgModel(1)
    event = org.poison(SESSION, NOW_MS, "bad_bitmap")
    with pytest.raises(EmulatorError, match="names no field"):
        Oracle(org).read(event)
    stranger = org.poison(SESSION, NOW_MS, "unknown_schema")
    assert org.schema_json(stranger.schema_id) is None
    with pytest.raises(EmulatorError, match="is unknown"):
        Oracle(org).read(stranger)
    with pytest.raises(EmulatorError, match="no kind of poison"):
        org.poison(SESSION, NOW_MS, "wrong")  # type: ignore[arg-type]  # what a scenario file may say


def test_newest_id_skips_deleted_records() -> None:
    org = OrgModel(1)
    assert org.newest_id(SESSION) is None
    ids = sessions(org, 2)
    org.commit([Change("delete", SESSION, ids[1])], NOW_MS)
    assert org.newest_id(SESSION) == ids[0]
