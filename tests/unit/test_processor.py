"""One event to its records, with the real rooms behind the processor."""

from __future__ import annotations

import orjson
import pytest

from consumer import __version__
from consumer.assembly import Assembly, TrackingTimes, field_policy
from consumer.changes.fields import FieldPolicy
from consumer.delivery.positions import Removed, decode_entry
from consumer.errors import BitmapError, ConfigError, PayloadError, SchemaParseError, SchemaRefusedError
from consumer.events import ReceivedEvent
from consumer.ports import Restored
from consumer.processor import Processor
from consumer.settings import FieldSettings
from consumer.store.memory import MemoryStore
from tests.change_schemas import DEMO, DEMO_PAYLOAD, WIDGET, WIDGET_PAYLOAD
from tests.delivery_values import checked
from tests.fakes import CHANNEL, ORG, TOPICS

GOOD = ReceivedEvent(CHANNEL, "e1", "widget", WIDGET_PAYLOAD, b"r1", 1_790_000_000_000)
CUT = ReceivedEvent(CHANNEL, "e2", "widget", WIDGET_PAYLOAD[:-3], b"r2", 1_790_000_000_000)


def processor(policy: FieldPolicy | None = None, *, allow_raw: bool = True) -> Processor:
    assembly = Assembly(ORG, "svc", TOPICS, policy or FieldPolicy((), (), (), None), allow_raw, "worker")
    store = MemoryStore(assembly.codec())
    return assembly.processor(CHANNEL, assembly.internal_records(CHANNEL, 0), store, Restored(None), TrackingTimes())


def learned(policy: FieldPolicy | None = None, *, allow_raw: bool = True) -> Processor:
    made = processor(policy, allow_raw=allow_raw)
    made.learn("widget", WIDGET)
    return made


def test_a_good_event_becomes_its_changes() -> None:
    outcome = learned().process(GOOD)
    record, *others = outcome.records
    value = checked(record)
    assert {each.topic.rpartition(".")[2] for each in others} == {"history", "positions"}
    assert (outcome.changes, outcome.opened, outcome.error) == (1, (), None)
    assert outcome.event_ms == value["source"]["ts_ms"] == 1_750_000_000_000
    assert outcome.size == sum(len(each.value or b"") for each in outcome.records if "positions" not in each.topic)
    assert value["source"]["version"] == __version__


def test_the_same_event_gives_the_same_records() -> None:
    assert learned().process(GOOD) == learned().process(GOOD)


def test_a_payload_that_does_not_decode_goes_to_quarantine_with_its_window() -> None:
    outcome = learned().process(CUT)
    quarantined, opened, entry = outcome.records
    for record in outcome.records:
        checked(record)
    assert isinstance(outcome.error, PayloadError)
    assert (quarantined.topic, quarantined.value) == (TOPICS.quarantine, CUT.payload)
    assert orjson.loads(opened.value or b"")["kind"] == "loss_opened"
    assert (decode_entry(entry.key, entry.value),) == outcome.opened
    assert (outcome.changes, outcome.event_ms, outcome.size) == (0, None, len(CUT.payload))


def test_a_forbidden_payload_is_not_kept_in_quarantine() -> None:
    record = learned(allow_raw=False).process(CUT).records[0]
    assert record.value == b""


def test_an_event_that_is_no_change_event_goes_to_quarantine() -> None:
    made = processor()
    made.learn("demo", DEMO)
    outcome = made.process(ReceivedEvent(CHANNEL, "e3", "demo", DEMO_PAYLOAD, b"r3", 1))
    assert dict(outcome.records[0].headers)["reason"] == b"not_a_change_event"


def test_a_schema_that_is_unreadable_or_refused_sends_its_events_to_quarantine() -> None:
    made = processor()
    made.learn("widget", "{not avro")
    assert made.knows("widget")
    assert isinstance(made.process(GOOD).error, SchemaParseError)
    made.refuse("other", SchemaRefusedError("no access"))
    outcome = made.process(ReceivedEvent(CHANNEL, "e4", "other", b"", b"r4", 1))
    assert dict(outcome.records[0].headers)["reason"] == b"schema_refused"


def test_a_schema_that_was_refused_once_can_be_learned_later() -> None:
    made = processor()
    made.refuse("widget", SchemaRefusedError("no access"))
    made.learn("widget", WIDGET)
    assert made.process(GOOD).error is None


def test_the_field_policy_comes_before_anything_is_encoded() -> None:
    plain = learned().process(GOOD).records[0].value or b""
    names = [name for name in orjson.loads(plain)["after"] if name != "Id"]
    dropped = learned(FieldPolicy(tuple(names), (), (), None)).process(GOOD).records[0].value or b""
    assert not any(f'"{name}"'.encode() in dropped for name in names)


def test_a_retry_that_works_closes_the_window_with_the_changes() -> None:
    (window,) = learned().process(CUT).opened
    outcome = learned().process_again(GOOD, window)
    change = outcome.records[0]
    closed, entry = outcome.records[-2:]
    for record in outcome.records:
        checked(record)
    assert change.topic == TOPICS.changes("Widget__c")
    value = orjson.loads(closed.value or b"")
    assert (value["kind"], value["window_id"], value["repaired_records"]) == ("loss_closed", window.window_id, 1)
    assert entry.value is None
    assert isinstance(decode_entry(entry.key, entry.value), Removed)


def test_a_retry_in_vain_gives_no_records() -> None:
    (window,) = learned().process(CUT).opened
    outcome = learned().process_again(CUT, window)
    assert outcome.records == ()
    assert isinstance(outcome.error, PayloadError | BitmapError)


def test_a_hash_key_that_can_not_be_read_is_a_fault_of_the_configuration(tmp_path: object) -> None:
    settings = FieldSettings.model_validate({"hash": ("Name",), "hash_key_file": f"{tmp_path}/none"})
    with pytest.raises(ConfigError, match="hash_key_file"):
        field_policy(settings)
