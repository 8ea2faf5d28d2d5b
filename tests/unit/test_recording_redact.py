"""``--redact``: no value is left, and every event still decodes and tells the same about its shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from consumer.changes.normalise import normalise
from consumer.changes.record_ids import to_18
from consumer.changes.schema import HEADER_FIELD, compile_schema
from consumer.events import Keepalive, ReceivedEvent, ReceivedSchema, StreamFault, TapItem
from consumer.recording.reader import Recording
from consumer.recording.redact import Redactor
from consumer.verifying import Verifier
from tests.change_schemas import WIDGET, event_payload
from tests.recordings.regenerate import HERE, names

SECRETS: dict[str, Any] = {
    "OwnerId": "0055g00000SECRETAA",
    "Name": "Secret Näme",
    "Colour__c": "SecretColour",
    "Tags__c": "SecretOne;SecretTwo",
    "Weight__c": 98765.4321,
    "Active__c": True,
    "CreatedDate": 1_700_000_123_456,
    "Due__c": 1_699_920_000_000,
    "Alarm__c": 45_296_789,
    "Place__c": {"Latitude": 47.123456, "Longitude": 15.654321},
    "Notes__c": "a secret note",
    "Ship__c": {"Street": "Secret Street 5", "City": "Secretville", "Latitude": 46.987654},
}


def widget(payload: bytes) -> ReceivedEvent:
    return ReceivedEvent("/data/Widget__ChangeEvent", "e1", "s1", payload, b"\0" * 10, 1, (("trace", b"secret"),))


def texts(value: Any) -> Iterator[Any]:
    """Every leaf of a decoded value."""
    if isinstance(value, dict):
        for part in value.values():
            yield from texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from texts(part)
    else:
        yield value


def test_no_value_is_left_and_the_shape_is() -> None:
    header = {
        "recordIds": ["a015g00000SECRETAB"],
        "commitUser": "0055g00000SECRETAA",
        "changeOrigin": "com/salesforce/api/rest/62.0;client=SecretApp",
    }
    payload = event_payload(WIDGET, SECRETS, changedFields=["0x02", "15-0x0203"], **header)
    redactor = Redactor(b"salt")
    redactor.redact(ReceivedSchema("/t", "s1", WIDGET, 1))
    redacted = redactor.redact(widget(payload))
    assert isinstance(redacted, ReceivedEvent)
    assert b"ecret" not in redacted.payload.lower()
    assert redacted.headers == ()
    schema = compile_schema("s1", WIDGET)
    before, after = schema.decode_full(payload), schema.decode_full(redacted.payload)
    old, new = before.pop(HEADER_FIELD), after.pop(HEADER_FIELD)
    kept = {True, None}
    assert {*texts(before)} & {*texts(after)} <= kept
    assert [type(value) for value in texts(before)] == [type(value) for value in texts(after)]
    assert new["changedFields"] == old["changedFields"]
    assert new["recordIds"] != old["recordIds"]
    assert new["changeOrigin"] == "com/salesforce/api/rest/62.0;client=xxxxxxxxx"
    assert after["OwnerId"] == new["commitUser"]
    assert after["Due__c"] % 86_400_000 == 0
    assert [len(value) for value in texts(before) if isinstance(value, str)] == [
        len(value) for value in texts(after) if isinstance(value, str)
    ]
    assert normalise(redacted, schema).changed_fields == (
        "OwnerId",
        "Ship__c.Street",
        "Ship__c.City",
        "Ship__c.GeocodeAccuracy",
    )


@pytest.mark.parametrize("name", names())
def test_every_stored_recording_stays_sound_when_it_is_redacted(name: str) -> None:
    redactor, verifier = Redactor(b"salt"), Verifier()
    original = list(Recording(HERE / f"{name}.avro"))
    redacted = [redactor.redact(item) for item in original]
    for item in redacted:
        verifier.take(item)
    assert not [check for check, outcome in verifier.outcomes.items() if outcome.failed and name != "poison"]
    assert len(redacted) == len(original)
    dropped = [item for item in redacted if isinstance(item, StreamFault) and item.error == "RedactionError"]
    assert len(dropped) == (5 if name == "poison" else 0)


def test_ids_stay_ids_of_their_object_and_the_same_id_stays_the_same() -> None:
    redactor = Redactor(b"salt")
    given = "0015g00008JFdoPAAT"
    other = redactor.redact_id(given)
    assert other != given
    assert other[:3] == "001"
    assert other == to_18(other[:15])
    assert redactor.redact_id(given) == other
    assert redactor.redact_id(given[:15]) == other[:15]
    assert Redactor(b"another").redact_id(given) != other


def test_ids_that_name_no_record_stay_and_what_is_no_id_goes() -> None:
    redactor = Redactor(b"salt")
    assert redactor.redact_id("001*") == "001*"
    assert redactor.redact_id("000000000000000AAA") == "000000000000000AAA"
    assert redactor.redact_id("who knows") == "xxxxxxxxx"


def test_what_can_not_be_decoded_is_left_out_and_named() -> None:
    redactor = Redactor(b"salt")
    unknown = redactor.redact(widget(b"secret"))
    redactor.redact(ReceivedSchema("/t", "s1", WIDGET, 1))
    broken = redactor.redact(widget(b"secret"))
    for fault in (unknown, broken):
        assert isinstance(fault, StreamFault)
        assert fault.error == "RedactionError"
        assert "event e1 with schema s1" in fault.message


def test_schemas_faults_and_keepalives_pass() -> None:
    items: list[TapItem] = [
        Keepalive("/t", b"1", 1),
        StreamFault("/t", "E", "", "m", 1),
        ReceivedSchema("/t", "s", "no", 1),
    ]
    redactor = Redactor(b"salt")
    assert [redactor.redact(item) for item in items] == items
