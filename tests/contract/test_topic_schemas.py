"""The checker of record shapes itself: it takes what is right, and refuses every wrong shape we can think of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from consumer.delivery.control import Pause, RetryQuarantine, encode_command
from consumer.delivery.coverage import Coverage, Restoration
from consumer.delivery.envelope import Envelope
from consumer.delivery.headers import data_schema
from consumer.delivery.positions import CommittedPosition, Meta, ProgressEntry, encode_entry, window_closed
from consumer.delivery.quarantine import Quarantine
from consumer.delivery.windows import window_for_change, window_for_first_start, window_for_quarantine
from consumer.errors import PayloadError
from consumer.events import OutboundRecord
from consumer.position import Position
from tests.contract.altered import refused, with_header, with_value
from tests.contract.sharing_records import access_record, feed_record, rule_record, sharing_record
from tests.contract.topic_schemas import SCHEMAS, kind_of, load_schema
from tests.delivery_values import CHANNEL, EVENT_ID, ORG, RECORD, TOPICS, change, checked, received
from tests.tracking_values import untracked

NAMES = sorted(path.stem for path in SCHEMAS.glob("*.json"))
KINDS = [
    *("changes", "coverage", "quarantine", "positions", "control", "state", "history", "ledger"),
    *("sharing", "access", "sharing-rules", "feed"),
]


def change_record(change_type: str = "UPDATE") -> OutboundRecord:
    event = change(change_type, values={} if change_type == "DELETE" else {"Status": "Active", "Name": None})
    return untracked(Envelope(ORG, "s", "1", TOPICS), event)[0]


def coverage_record() -> OutboundRecord:
    window = window_for_change(change("GAP_UPDATE"))
    assert window is not None
    return Coverage(ORG, TOPICS).closed(window, 5, Restoration(state=True))


def quarantine_record() -> OutboundRecord:
    error = PayloadError("x", record_ids=(RECORD,))
    return Quarantine(ORG, TOPICS, allow_raw=True).record(received(), error, window_for_quarantine(received(), error))


def position_record() -> OutboundRecord:
    return encode_entry(TOPICS, CommittedPosition(CHANNEL, Position(b"1").after_event("e", b"2"), 1, 2, "worker"))


EVERY: list[Callable[[], OutboundRecord]] = [
    change_record,
    lambda: change_record("CREATE"),
    lambda: change_record("DELETE"),
    coverage_record,
    quarantine_record,
    position_record,
    lambda: encode_entry(TOPICS, Meta("c", ORG)),
    lambda: encode_entry(TOPICS, window_for_first_start(CHANNEL, 5)),
    lambda: encode_entry(TOPICS, ProgressEntry(CHANNEL, "scan:7", {"cursor": "0Mw1"})),
    lambda: encode_command(TOPICS, Pause(None, 1, "a")),
    lambda: encode_command(TOPICS, RetryQuarantine("r", None, 1, "a")),
    sharing_record,
    access_record,
    rule_record,
    lambda: rule_record("changed"),
    lambda: rule_record("deleted"),
    feed_record,
]


@pytest.mark.parametrize("name", NAMES)
def test_every_schema_is_valid_and_named_as_its_headers_say(name: str) -> None:
    schema = load_schema(name)
    assert schema["x-version"] == 1
    assert schema["$id"] == data_schema(name)


def test_every_topic_has_a_schema() -> None:
    assert {*KINDS, "cloudevents-headers"} == set(NAMES)
    assert [kind_of(topic) for topic in (TOPICS.changes("Case"), TOPICS.coverage)] == ["changes", "coverage"]


@pytest.mark.parametrize("make", EVERY)
def test_each_kind_of_record_is_accepted_and_may_gain_fields(make: Callable[[], OutboundRecord]) -> None:
    record = make()
    checked(record)
    if kind_of(record.topic) != "quarantine":
        checked(with_value(record, added_later={"x": 1}))


@pytest.mark.parametrize("make", EVERY)
def test_no_promised_field_may_be_missing(make: Callable[[], OutboundRecord]) -> None:
    record = make()
    if kind_of(record.topic) == "quarantine":
        return
    value = orjson.loads(record.value or b"")
    for name in value:
        refused(replace(record, value=orjson.dumps({k: v for k, v in value.items() if k != name})))
    for name in value.get("source", ()):
        source = {k: v for k, v in value["source"].items() if k != name}
        refused(replace(record, value=orjson.dumps({**value, "source": source})))


@pytest.mark.parametrize("make", EVERY)
def test_no_field_may_have_another_type(make: Callable[[], OutboundRecord]) -> None:
    record = make()
    if kind_of(record.topic) == "quarantine":
        return
    value = orjson.loads(record.value or b"")
    for name in value:
        refused(replace(record, value=orjson.dumps({**value, name: [{"wrong": 1.5}]})))
    for name in value.get("source", ()):
        source = {**value["source"], name: [{"wrong": 1.5}]}
        refused(replace(record, value=orjson.dumps({**value, "source": source})))


@pytest.mark.parametrize(
    "make",
    [
        *(change_record, coverage_record, quarantine_record),
        *(sharing_record, access_record, rule_record, feed_record),
    ],
)
def test_headers_must_be_all_there_and_right(make: Callable[[], OutboundRecord]) -> None:
    record = make()
    optional = {"entity", "record_ids"}
    for name, raw in record.headers:
        if name not in optional:
            refused(replace(record, headers=tuple(header for header in record.headers if header[0] != name)))
        if name not in {"message", "schema_id", *optional}:
            refused(with_header(record, name, b"\xff"))
            if name != "replay_id":  # opaque, so nothing forbids an empty one
                refused(with_header(record, name, b""))
        refused(replace(record, headers=(*record.headers, (name, raw))))


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("ce_specversion", b"0.3"),
        ("ce_id", b"other"),
        ("ce_source", b"//salesforce/00D000000000001AAA/Case"),
        ("ce_type", b"salesforce.messaging-session.coverage.v1"),
        ("ce_type", b"salesforce.MessagingSession.changes.v1"),
        ("ce_time", b"2026-09-21T14:13:20Z"),
        ("ce_subject", b"0Mw000000000009AAA"),
        ("ce_dataschema", b"urn:messaging-session-consumer:schemas:coverage:v1"),
        ("content-type", b"application/octet-stream"),
    ],
)
def test_headers_must_agree_with_the_record(name: str, raw: bytes) -> None:
    refused(with_header(change_record(), name, raw))


@pytest.mark.parametrize(
    "fields",
    [
        {"op": "x"},
        {"op": "c"},
        {"op": "d"},
        {"before": None},
        {"after": None},
        {"after": {}},
        {"after": {"Id": "0Mw000000000009AAA"}},
        {"after": {"Id": RECORD, "OwnerId": "x"}},
        {"after": {"Id": RECORD, "Number": 2**53 + 2}},
        {"after": {"Id": RECORD, "Address": {"Number": 2**53 + 2}}},
        {"before": {"Id": "0Mw*"}},
        {"source__record_id": "0Mw*"},
        {"source__record_id": "000000000000001AAA"},
        {"source__commit_number": 5},
        {"source__commit_number": "5.0"},
        {"source__replay_id": "%"},
        {"source__repaired": True},
        {"source__window_id": "w"},
        {"source__db": "00D000000000002AAA"},
        {"source__change_type": "GAP_UPDATE"},
        {"source__after_image": "some"},
        {"source__changed_fields": ["A", "A"]},
        {"source__event_id": "other"},
        {"source__snapshot": False},
    ],
)
def test_wrong_changes_are_refused(fields: dict[str, Any]) -> None:
    refused(with_value(change_record(), **fields))


def test_key_and_record_id_must_be_one() -> None:
    other = "0Mw000000000009AAA"
    record = with_value(change_record("DELETE"), source__record_id=other, source__id=f"{EVENT_ID}:{other}")
    refused(with_header(record, "ce_id", f"{EVENT_ID}:{other}".encode()))


def test_a_double_may_be_of_any_size() -> None:
    checked(with_value(change_record(), after={"Id": RECORD, "Number": 2.0**60, "Address": {"Number": 1e300}}))


def test_the_headers_of_coverage_must_agree_with_the_record() -> None:
    refused(with_header(coverage_record(), "ce_id", b"other"))


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "loss"},
        {"kind": "loss_opened"},
        {"stream": "changes:/data/Other"},
        {"from": 5},
        {"from": "2026-09-21"},
        {"from": "2099-01-01T00:00:00.000Z"},
        {"proof": "delivered"},
        {"window_id": None},
        {"window_id": "other"},
        {"reason": "because"},
        {"reason": None},
        {"restored": None},
        {"restored": {"state": True}},
        {"record_ids": ["0Mw*"]},
        {"repaired_records": -1},
    ],
)
def test_wrong_coverage_is_refused(fields: dict[str, Any]) -> None:
    refused(with_value(coverage_record(), **fields))


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("reason", b"because"),
        ("raw", b"false"),
        ("raw", b"yes"),
        ("received_ms", b"soon"),
        ("replay_id", b"%"),
        ("record_ids", b"0Mw*"),
        ("record_ids", b"0Mw000000000009AAA"),
        ("ce_id", b"other"),
        ("content-type", b"application/json"),
    ],
)
def test_wrong_quarantine_is_refused(name: str, raw: bytes) -> None:
    refused(with_header(quarantine_record(), name, raw))


@pytest.mark.parametrize(
    "fields",
    [
        {"v": 2},
        {"v": "1"},
        {"preset": "x"},
        {"replay_id": "%"},
        {"beyond": []},
        {"beyond_replay_id": None},
        {"channel": "/data/X"},
    ],
)
def test_wrong_positions_are_refused(fields: dict[str, Any]) -> None:
    refused(with_value(position_record(), **fields))


@pytest.mark.parametrize("make", EVERY)
def test_wrong_keys_are_refused(make: Callable[[], OutboundRecord]) -> None:
    record = make()
    refused(replace(record, key=b"other:key"))
    refused(replace(record, key=b""))
    refused(replace(record, key=b"\xff"))


@pytest.mark.parametrize("make", EVERY)
def test_what_is_no_json_is_refused(make: Callable[[], OutboundRecord]) -> None:
    record = make()
    if kind_of(record.topic) == "quarantine":
        return
    for value in (b"", b"{", b"[]", b"null", b'{"v":NaN}', b'{"v":1,"v":1}', b"\xff"):
        refused(replace(record, value=value))


def test_tombstones_are_for_compacted_topics_only() -> None:
    checked(encode_entry(TOPICS, window_closed("w")))
    refused(replace(change_record(), value=None))
    refused(replace(coverage_record(), value=None))
    refused(replace(quarantine_record(), value=None))


def test_internal_records_have_no_headers() -> None:
    refused(replace(position_record(), headers=(("ce_id", b"x"),)))
