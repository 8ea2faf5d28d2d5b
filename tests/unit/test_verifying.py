"""``verify``: contradictions are failures, what is merely new is a warning, and no value is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from consumer.changes.schema import EventSchema
from consumer.events import Keepalive, ReceivedEvent, ReceivedSchema, StreamFault
from consumer.recording.oracle import Oracle
from consumer.verifying import Check, Outcome, Verifier
from tests.change_schemas import HEADER, WIDGET, WIDGET_PAYLOAD, event_payload, event_schema, nullable

TOPIC = "/data/Widget__ChangeEvent"
RECEIVED_MS = HEADER["commitTimestamp"] + 1_000
EVENT_ID = "5f0d4c5e-6f0a-4d0c-9b55-8e1f6d0d9f58"


def verified(
    payload: bytes = WIDGET_PAYLOAD,
    *,
    schema_json: str | None = WIDGET,
    event_id: str = EVENT_ID,
    replay_id: bytes = b"\0" * 10,
    received_ms: int = RECEIVED_MS,
    times: int = 1,
) -> Verifier:
    verifier = Verifier()
    if schema_json is not None:
        verifier.take(ReceivedSchema(TOPIC, "s1", schema_json, received_ms))
    for _ in range(times):
        verifier.take(ReceivedEvent(TOPIC, event_id, "s1", payload, replay_id, received_ms))
    return verifier


def found(verifier: Verifier) -> dict[Check, str]:
    """What was not ok, by check."""
    statuses = {check: outcome.status for check, outcome in verifier.outcomes.items()}
    return {check: status for check, status in statuses.items() if status not in {"ok", "skipped"}}


def test_the_worked_event_is_as_assumed() -> None:
    verifier = verified()
    assert found(verifier) == {}
    assert not verifier.failed
    assert not verifier.warned
    assert verifier.outcomes[Check.DATES].checked == 1
    assert verifier.seen.nulled == 1
    assert verifier.seen.change_types == {"UPDATE": 1}


@pytest.mark.parametrize(
    ("body", "header", "check", "status"),
    [
        ({"Due__c": 1_750_000_000_000}, {"changedFields": ["0x0800"]}, Check.DATES, "fail"),
        ({"Alarm__c": 86_400_000}, {"changedFields": ["0x1000"]}, Check.TIMES, "fail"),
        ({}, {"changedFields": ["0x01"]}, Check.BITMAPS, "fail"),
        ({}, {"changedFields": ["7-0x01"]}, Check.BITMAPS, "fail"),
        ({}, {"recordIds": []}, Check.NORMALISES, "fail"),
        ({}, {"recordIds": ["not an id"]}, Check.NORMALISES, "fail"),
        ({}, {"recordIds": ["a00000000000001"]}, Check.RECORD_IDS, "warn"),
        ({}, {"commitTimestamp": RECEIVED_MS + 3_600_000}, Check.COMMIT_TIMES, "warn"),
        ({}, {"commitTimestamp": 1_750_000_000}, Check.COMMIT_TIMES, "warn"),
        ({}, {"changedFields": ["0x04"]}, Check.BODY, "warn"),
        ({}, {"nulledFields": ["0x04"]}, Check.BODY, "warn"),
        ({"Notes__c": "x"}, {"diffFields": ["0x4000"]}, Check.BODY, "warn"),
        ({"Name": "x"}, {"changeType": "GAP_UPDATE"}, Check.BODY, "warn"),
        ({"Name": "x"}, {"changeType": "CREATE", "changedFields": ["0x04"]}, Check.BODY, "warn"),
    ],
)
def test_each_rule(body: dict[str, Any], header: dict[str, Any], check: Check, status: str) -> None:
    """One thing out of order, one finding."""
    assert found(verified(event_payload(WIDGET, body, **header))) == {check: status}


@pytest.mark.parametrize("payload", [b"", WIDGET_PAYLOAD[:-1], WIDGET_PAYLOAD + b"\0", b"\xff" * 200])
def test_a_payload_that_does_not_decode_is_a_failure(payload: bytes) -> None:
    assert found(verified(payload)) == {Check.DECODES: "fail"}


def test_an_event_without_its_schema_is_a_failure() -> None:
    assert found(verified(schema_json=None)) == {Check.SCHEMA_THERE: "fail"}


def test_a_schema_that_can_not_be_read_is_a_failure_once() -> None:
    assert found(verified(schema_json='{"type": "record"}')) == {Check.SCHEMAS_COMPILE: "fail"}


def test_a_schema_without_header_is_a_failure() -> None:
    schema = event_schema("Odd__e", [nullable("Name", "string", "Data:Text")], header=False)
    assert found(verified(b"\0", schema_json=schema))[Check.SCHEMA_HEADER] == "fail"


def test_a_header_in_another_order_is_a_warning_and_one_with_less_a_failure() -> None:
    for change, status in ((list.reverse, "warn"), (list.pop, "fail")):
        schema = json.loads(event_schema("Odd__ChangeEvent", []))
        change(schema["fields"][0]["type"]["fields"])
        verifier = Verifier()
        verifier.take(ReceivedSchema(TOPIC, "s1", json.dumps(schema), 1))
        assert verifier.outcomes[Check.SCHEMA_HEADER].status == status


@pytest.mark.parametrize(
    ("field", "says"),
    [
        (nullable("New__c", "string", "Data:Novelty:00Nxx000000000F"), "New__c (doc type 'Novelty')"),
        (nullable("New__c", "string", "no type at all"), "New__c (doc type '')"),
        (nullable("New__c", "string", "Data:Double"), "New__c (doc type Double as string)"),
        ({"name": "New__c", "type": "string", "doc": "Data:Text"}, "New__c (not nullable)"),
        (
            nullable("New__c", {"type": "long", "logicalType": "timestamp-millis"}, "Data:DateTime"),
            "New__c (an Avro logical type)",
        ),
        (
            nullable("New__c", {"type": "array", "items": "string"}, "Data:MultiEnum"),
            "New__c (doc type MultiEnum as array)",
        ),
    ],
)
def test_a_new_kind_of_field_is_a_warning_that_names_it(field: dict[str, Any], says: str) -> None:
    verifier = Verifier()
    verifier.take(ReceivedSchema(TOPIC, "s1", event_schema("Odd__ChangeEvent", [field]), 1))
    assert found(verifier) == {Check.SCHEMA_TYPES: "warn"}
    assert verifier.outcomes[Check.SCHEMA_TYPES].where == [f"Odd__ChangeEvent.{says}"]


def test_a_change_type_of_a_coming_release_is_a_warning() -> None:
    schema = WIDGET.replace('"SNAPSHOT"', '"REWOUND"')
    payload = event_payload(schema, {}, changeType="REWOUND")
    assert found(verified(payload, schema_json=schema)) == {Check.CHANGE_TYPES: "warn"}


def test_another_encoding_of_the_same_values_is_a_warning() -> None:
    """Array blocks may tell their size in bytes; the library's writer never does."""
    plain = bytes.fromhex("0224") + b"a00000000000001AAA" + b"\0"
    sized = bytes.fromhex("012624") + b"a00000000000001AAA" + b"\0"
    assert plain in WIDGET_PAYLOAD
    assert found(verified(WIDGET_PAYLOAD.replace(plain, sized))) == {Check.RE_ENCODES: "warn"}


def test_a_decoder_that_disagrees_with_the_library_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    real = EventSchema.decode_full
    monkeypatch.setattr(EventSchema, "decode_full", lambda self, payload: real(self, payload) | {"Due__c": 0})
    assert found(verified()) == {Check.EQUALS_AVRO: "fail"}


def test_a_library_that_can_not_read_what_we_read_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(self: Oracle, payload: bytes) -> dict[str, Any]:
        raise ValueError("no")

    monkeypatch.setattr(Oracle, "read", read)
    assert found(verified()) == {Check.EQUALS_AVRO: "fail"}


def test_not_a_number_is_equal_to_itself_here() -> None:
    payload = event_payload(WIDGET, {"Weight__c": float("nan")}, changedFields=["0x0200"])
    assert found(verified(payload)) == {}


def test_identity_is_looked_at() -> None:
    assert found(verified(event_id="7")) == {Check.EVENT_IDS: "warn"}
    assert found(verified(times=2)) == {Check.EVENT_IDS: "warn"}
    assert found(verified(replay_id=b"\0" * 8)) == {}
    assert found(verified(replay_id=b"\0" * 16)) == {Check.REPLAY_IDS: "warn"}


def test_shared_replay_ids_and_enrichment_are_seen() -> None:
    verifier = verified(event_payload(WIDGET, {"Name": "n", "Colour__c": "c"}, changedFields=["0x04"]))
    verifier.take(ReceivedEvent(TOPIC, EVENT_ID.replace("5f", "6f"), "s1", WIDGET_PAYLOAD, b"\0" * 10, RECEIVED_MS))
    assert found(verifier) == {}
    assert verifier.seen.shared_replay_ids == 1
    assert verifier.seen.enriched == {"Widget__ChangeEvent": {"Colour__c"}}


def test_keepalives_and_faults_are_counted() -> None:
    verifier = Verifier()
    verifier.take(Keepalive(TOPIC, b"\0" * 10, 1))
    verifier.take(StreamFault(TOPIC, "StreamEndedError", "", "It ended", 1))
    assert verifier.seen.items == {"keepalives": 1, "faults": 1}
    assert verifier.seen.faults == {"StreamEndedError": 1}


def test_no_value_is_in_the_report() -> None:
    body = {"Name": "hush-4711", "Due__c": 47_114_711, "Alarm__c": -4711, "Notes__c": "hush-4711"}
    verifier = verified(event_payload(WIDGET, body, changedFields=["0x01"], recordIds=["0010000hush4711"]))
    assert verifier.failed
    assert "4711" not in repr(verifier.outcomes)
    assert "4711" not in repr(verifier.seen)


def test_a_report_names_a_few_and_counts_all() -> None:
    verifier = Verifier()
    for number in range(50):
        verifier.take(ReceivedEvent(TOPIC, f"e{number}", "s1", b"", b"\0" * 10, 1))
    outcome = verifier.outcomes[Check.SCHEMA_THERE]
    assert (outcome.checked, outcome.failed, len(outcome.where)) == (50, 50, 5)
    assert Outcome().status == "skipped"
