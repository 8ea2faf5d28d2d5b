"""Quarantine records and the way back."""

from __future__ import annotations

import pytest

from consumer.delivery.headers import event_id_of
from consumer.delivery.quarantine import Quarantine, read_quarantine
from consumer.delivery.windows import window_for_quarantine
from consumer.errors import EventError, ForeignStateError, PayloadError
from consumer.events import OutboundRecord, ReceivedEvent
from tests.delivery_values import CHANNEL, EVENT_ID, ORG, RECORD, TOPICS, checked, received

ERROR = PayloadError("the payload ends early", record_ids=("0Mw*", RECORD))


def put(event: ReceivedEvent, error: EventError = ERROR, *, allow_raw: bool = True) -> OutboundRecord:
    record = Quarantine(ORG, TOPICS, allow_raw=allow_raw).record(event, error, window_for_quarantine(event, error))
    checked(record)
    return record


def test_the_value_is_the_payload_and_the_rest_stands_in_headers() -> None:
    record = put(received(payload=b"\xff\xfe"))
    headers = dict(record.headers)
    assert record.topic == "salesforce.messaging-session.quarantine"
    assert record.value == b"\xff\xfe"
    assert record.key == RECORD.encode()
    assert headers["reason"] == b"payload_undecodable"
    assert headers["message"] == b"the payload ends early"
    assert headers["topic"] == CHANNEL.encode()
    assert headers["replay_id"] == b"AAAAAAAXkCkAAA=="
    assert headers["event_id"] == EVENT_ID.encode()
    assert headers["window_id"] == f"quarantine:{EVENT_ID}".encode()
    assert headers["received_ms"] == b"1790000000123"
    assert headers["entity"] == b"MessagingSession"
    assert headers["record_ids"] == RECORD.encode()
    assert headers["content-type"] == b"application/octet-stream"
    assert event_id_of(record.headers) == EVENT_ID


def test_the_key_is_the_event_id_when_no_record_id_is_readable() -> None:
    assert put(received(), PayloadError("x", record_ids=("000000000000000AAA",))).key == EVENT_ID.encode()
    assert put(received(), PayloadError("x")).key == EVENT_ID.encode()


def test_a_retry_gets_the_very_event_back_marked_with_its_window() -> None:
    event = received(headers=(("trace", b"\xff\x00"), ("trace", b"2")))
    record = put(event)
    again = read_quarantine(record.key, record.value, record.headers)
    assert again == received(headers=event.headers, window_id=f"quarantine:{EVENT_ID}")


def test_without_raw_nothing_of_the_event_is_kept_and_a_retry_says_so() -> None:
    record = put(received(payload=b"secret", headers=(("h", b"secret"),)), allow_raw=False)
    assert record.value == b""
    assert not any(name.startswith("event_header:") for name, _ in record.headers)
    with pytest.raises(EventError) as caught:
        read_quarantine(record.key, record.value, record.headers)
    assert caught.value.record_ids == (RECORD,)
    assert caught.value.advice


def test_an_empty_payload_is_not_a_missing_one() -> None:
    record = put(received(payload=b""))
    assert read_quarantine(record.key, record.value, record.headers).payload == b""


@pytest.mark.parametrize("name", ["topic", "event_id", "schema_id", "replay_id", "received_ms", "window_id"])
def test_a_record_without_a_needed_header_is_somebody_elses(name: str) -> None:
    record = put(received())
    headers = [header for header in record.headers if header[0] != name]
    with pytest.raises(ForeignStateError) as caught:
        read_quarantine(record.key, record.value, headers)
    assert caught.value.advice


@pytest.mark.parametrize(
    ("name", "raw"), [("replay_id", b"%%"), ("received_ms", b"soon"), ("event_id", b"\xff"), ("event_header:x", b"%")]
)
def test_a_record_with_a_broken_header_is_somebody_elses(name: str, raw: bytes) -> None:
    record = put(received())
    headers = [header for header in record.headers if header[0] != name]
    with pytest.raises(ForeignStateError):
        read_quarantine(record.key, record.value, [*headers, (name, raw)])
