"""Whatever the traffic, its events are sound: they decode, name exactly what changed, and add up to the records."""

from __future__ import annotations

import io
import re
from collections import defaultdict
from functools import lru_cache
from typing import Any

import avro.io
import avro.schema
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.changes.normalise import normalise
from consumer.changes.schema import EventSchema, compile_schema
from consumer.emulator.event_encode import DIFF_MIN_CHARS, BodyEncoder, encode_long, encode_string, text_diff
from consumer.emulator.event_schemas import HEADER, BodyField, standard_schemas
from consumer.emulator.oracle import Oracle, RecordedChange, fold, patch
from consumer.emulator.org import Change, OrgEvent, OrgModel
from consumer.emulator.record_ids import PREFIXES, is_id18
from consumer.emulator.traffic import Traffic
from consumer.events import ReceivedEvent

START_MS = 1_790_000_000_000
ID_FIELDS = {
    "OwnerId": ("005", "00G"),
    "CreatedById": ("005",),
    "LastModifiedById": ("005",),
    "MessagingChannelId": ("0Mj",),
    "MessagingEndUserId": ("0PA",),
    "CaseId": ("500",),
    "ConversationId": ("0dw",),
    "WorkItemId": ("0Mw",),
    "UserId": ("005",),
    "GroupId": ("00G",),
    "OriginalGroupId": ("00G",),
    "PendingServiceRoutingId": ("0JR",),
    "BotId": ("0Xx",),
    "ServiceChannelId": ("0N9",),
    "RecordTypeId": ("012",),
}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

seeds = st.integers(min_value=0, max_value=2**32)


def run(seed: int, events: int = 400, *, companions: bool = True) -> tuple[OrgModel, list[OrgEvent]]:
    """Return an org and its events, with a schema change halfway."""
    org = OrgModel(seed)
    traffic = Traffic(org, seed, live=30, companions=companions, keep=None)
    made = traffic.bulk(events // 2, START_MS, per_second=25)
    org.change_schema("MessagingSession", [{"name": "CampaignId", "doc": "ForeignKey:EntityId"}], ["TargetUserId"])
    return org, made + traffic.bulk(events // 2, START_MS + 100_000, per_second=25)


@lru_cache(maxsize=64)
def reader(schema_json: str) -> avro.io.DatumReader:
    return avro.io.DatumReader(avro.schema.parse(schema_json))


def decode(schema_json: str, payload: bytes) -> dict[str, Any]:
    source = io.BytesIO(payload)
    decoded = reader(schema_json).read(avro.io.BinaryDecoder(source))
    assert source.read() == b"", "no byte may be left over"
    return dict(decoded)


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_every_payload_decodes_with_avro_and_says_what_the_event_says(seed: int) -> None:
    org, events = run(seed, 200)
    oracle = Oracle(org)
    for event in events:
        decoded = decode(org.schema_json(event.schema_id) or "", event.payload)
        header = decoded.pop(HEADER)
        assert header["entityName"] == event.entity
        assert tuple(header["recordIds"]) == event.record_ids
        assert header["changeType"] == event.change_type
        assert header["transactionKey"] == event.transaction_key
        assert header["sequenceNumber"] == event.sequence_number
        assert header["commitTimestamp"] == event.commit_ms
        assert event.commit_ms % 1_000 == 0
        assert header["commitNumber"] > 2**53
        assert UUID.fullmatch(event.event_id)
        assert UUID.fullmatch(event.transaction_key)
        values = {
            name: {part: item for part, item in value.items() if item is not None} if isinstance(value, dict) else value
            for name, value in decoded.items()
            if value is not None
        }
        assert oracle.read(event).values == values


@settings(max_examples=25, deadline=None)
@given(seeds, st.booleans())
def test_bitmaps_name_exactly_what_changed(seed: int, companions: bool) -> None:
    org, events = run(seed, companions=companions)
    oracle = Oracle(org)
    images: dict[str, dict[str, Any] | None] = defaultdict(dict)
    for event in events:
        change = oracle.read(event)
        if change.change_type != "UPDATE":
            assert not change.changed | change.nulled | change.diffs
        else:
            assert change.changed
            assert change.nulled <= change.changed
            assert change.diffs <= change.changed - change.nulled
            assert carried(change) == change.changed - change.nulled
        for record_id in event.record_ids:
            after = fold(images[record_id], change)
            if change.change_type == "UPDATE":
                assert places_that_differ(images[record_id] or {}, after or {}) == change.changed
            images[record_id] = after


def carried(change: RecordedChange) -> set[tuple[str, str]]:
    """Return the places that have a value in the body, a compound's parts one by one where parts are named."""
    compounds = {name for name, part in change.changed if part}
    found = set()
    for name, value in change.values.items():
        found |= {(name, part) for part in value} if name in compounds else {(name, "")}
    return found


def places_that_differ(old: dict[str, Any], new: dict[str, Any]) -> set[tuple[str, str]]:
    found = set()
    for name in {**old, **new}:
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if isinstance(before, dict) or isinstance(after, dict):
            before, after = before or {}, after or {}
            found |= {(name, part) for part in {**before, **after} if before.get(part) != after.get(part)}
        else:
            found.add((name, ""))
    return found


@settings(max_examples=25, deadline=None)
@given(seeds, st.booleans())
def test_events_add_up_to_the_orgs_records(seed: int, companions: bool) -> None:
    org, events = run(seed, companions=companions)
    oracle = Oracle(org)
    oracle.observe(events)
    for entity in org.entities():
        records = org.records(entity)
        hidden = org.hidden_fields(entity) | {"Id"}
        assert records.keys() <= set(oracle.record_ids(entity))
        for record_id, record in records.items():
            expected = {name: value for name, value in record.items() if value is not None and name not in hidden}
            image = oracle.image(entity, record_id) or {}
            image.pop("TargetUserId", None)
            assert image == expected
        for record_id in org.deleted_ids(entity):
            assert oracle.image(entity, record_id) is None


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_ids_are_well_formed_and_of_the_right_kind(seed: int) -> None:
    org, events = run(seed, 300)
    oracle = Oracle(org)
    for event in events:
        assert all(is_id18(one) and one.startswith(PREFIXES[event.entity]) for one in event.record_ids)
        for name, value in oracle.read(event).values.items():
            if name in ID_FIELDS:
                assert is_id18(value)
                assert value.startswith(ID_FIELDS[name])


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_transactions_are_numbered_without_holes_and_commits_rise(seed: int) -> None:
    org, events = run(seed, 300)
    transactions: dict[str, list[int]] = defaultdict(list)
    numbers = []
    for event in events:
        transactions[event.transaction_key].append(event.sequence_number)
        numbers.append(decode(org.schema_json(event.schema_id) or "", event.payload)[HEADER]["commitNumber"])
    assert all(found == list(range(1, len(found) + 1)) for found in transactions.values())
    assert numbers == sorted(numbers)
    assert len({event.event_id for event in events}) == len(events)


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_the_same_seed_gives_the_same_bytes(seed: int) -> None:
    assert run(seed, 200)[1] == run(seed, 200)[1]
    assert run(seed, 200)[1] != run(seed + 1, 200)[1]


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_ended_sessions_stay_ended_unless_undeleted(seed: int) -> None:
    org, events = run(seed)
    oracle = Oracle(org)
    oracle.observe(events)
    for record_id in oracle.record_ids("MessagingSession"):
        ended = False
        for change in oracle.changes("MessagingSession", record_id):
            status = change.values.get("Status")
            assert not (ended and status not in {None, "Ended"})
            ended = ended or status == "Ended"


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_accept_time_is_set_once(seed: int) -> None:
    org, events = run(seed)
    oracle = Oracle(org)
    oracle.observe(events)
    for record_id in oracle.record_ids("MessagingSession"):
        changes = oracle.changes("MessagingSession", record_id)
        lives = [change for change in changes if change.change_type != "UNDELETE"]
        assert sum("AcceptTime" in change.values for change in lives) <= 1


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_the_services_own_reading_agrees_with_the_oracle(seed: int) -> None:
    org, events = run(seed)
    oracle = Oracle(org)
    for event in events:
        schema = compiled(event.schema_id, org.schema_json(event.schema_id) or "")
        received = ReceivedEvent("/data/ChangeEvents", event.event_id, event.schema_id, event.payload, b"1", 1)
        change, expected = normalise(received, schema), oracle.read(event)
        assert (change.record_ids, change.change_type) == (event.record_ids, event.change_type)
        assert set(change.changed_fields) == dotted(expected.changed)
        assert set(change.nulled_fields) == dotted(expected.nulled)
        assert set(change.diff_fields) == dotted(expected.diffs)


@lru_cache(maxsize=64)
def compiled(schema_id: str, schema_json: str) -> EventSchema:
    return compile_schema(schema_id, schema_json)


def dotted(places: frozenset[tuple[str, str]]) -> set[str]:
    return {f"{name}.{part}" if part else name for name, part in places}


PLAIN = {
    "string": st.text(max_size=80),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(allow_nan=False),
    "boolean": st.booleans(),
}


def values_of(field: BodyField) -> st.SearchStrategy[Any]:
    parts = st.fixed_dictionaries({}, optional={name: PLAIN[kind] for name, kind in field.parts})
    options = [PLAIN[field.avro_type]] if field.avro_type is not None else []
    return st.one_of(*options, *([parts] if field.compound is not None else []))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_encoder_agrees_with_avro_on_any_body(data: st.DataObject) -> None:
    schema = data.draw(st.sampled_from(list(standard_schemas().values())))
    fields = data.draw(st.lists(st.sampled_from(schema.fields), unique_by=lambda field: field.name))
    body = {field.name: data.draw(values_of(field)) for field in fields}
    org = OrgModel(0)
    (event,) = org.overflow(schema.entity, START_MS)
    encoder = BodyEncoder(schema)
    payload = event.payload.removesuffix(encoder.empty) + encoder.encode(body)
    decoded = decode(schema.json, payload)
    for name, value in body.items():
        found = decoded[name]
        if isinstance(found, dict):
            found = {part: item for part, item in found.items() if item is not None}
        assert found == value


@given(PLAIN["long"], PLAIN["string"])
def test_longs_and_strings_read_back(number: int, text: str) -> None:
    source = avro.io.BinaryDecoder(io.BytesIO(encode_long(number) + encode_string(text)))
    assert source.read_long() == number
    assert source.read_utf8() == text


line = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=20, max_size=60)


@settings(max_examples=100, deadline=None)
@given(st.lists(line, min_size=60, max_size=80), st.data(), st.sampled_from(["\n", "\r\n"]), st.integers(0, 3))
def test_a_diff_restores_the_new_text(old: list[str], data: st.DataObject, newline: str, context: int) -> None:
    new = list(old)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(new) - 1))
        new[place : place + data.draw(st.integers(0, 1))] = data.draw(st.lists(line, max_size=2))
    before, after = newline.join(old), newline.join(new)
    diff = text_diff(before, after, context)
    if diff is not None:
        assert patch(before, diff) == after
        assert len(diff) * 2 <= len(after)
        assert len(after) >= DIFF_MIN_CHARS


@settings(max_examples=50, deadline=None)
@given(st.lists(st.fixed_dictionaries({}, optional={"Priority__c": st.sampled_from(["A", "B", None])}), max_size=6))
def test_merged_events_tell_each_record_the_same_as_single_ones(saves: list[dict[str, Any]]) -> None:
    org = OrgModel(5)
    ids = [org.new_id("MessagingSession") for _ in saves]
    oracle = Oracle(org)
    oracle.observe(org.commit([Change("create", "MessagingSession", one, {"Priority__c": "B"}) for one in ids], 0))
    changes = [Change("update", "MessagingSession", one, save) for one, save in zip(ids, saves, strict=True)]
    oracle.observe(org.commit(changes, 2_000))
    for one in ids:
        record = org.record("MessagingSession", one)
        assert record is not None
        expected = {name: value for name, value in record.items() if value is not None and name != "Id"}
        assert oracle.image("MessagingSession", one) == expected
