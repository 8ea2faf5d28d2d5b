"""Change records."""

from __future__ import annotations

import pytest

from consumer.delivery.envelope import Envelope
from consumer.delivery.headers import event_id_of, iso_utc
from consumer.delivery.names import Topics
from consumer.errors import PayloadError
from tests.delivery_values import CHANNEL, EVENT_ID, FIELDS, ORG, RECORD, TOPICS, change, checked, received

ENVELOPE = Envelope(ORG, "session-consumer", "0.1.0", TOPICS)
OTHER = "0Mw000000000002AAA"


def test_an_update_tells_id_before_and_carried_fields_after() -> None:
    event = change(
        values={"Status": "Active", "AcceptTime": None, "BillingAddress": {"City": "Bern"}},
        changed_fields=("Status", "AcceptTime", "BillingAddress.City"),
        nulled_fields=("AcceptTime",),
    )
    (record,) = ENVELOPE.changes(event)
    value = checked(record)
    assert record.topic == "salesforce.messaging-session.changes"
    assert record.key == RECORD.encode()
    assert value["op"] == "u"
    assert value["ts_ms"] == 1_790_000_000_123
    assert value["before"] == {"Id": RECORD}
    assert value["after"] == {
        "Id": RECORD,
        "Status": "Active",
        "AcceptTime": None,
        "BillingAddress": {"City": "Bern"},
    }
    assert value["source"] == {
        "connector": "salesforce-pubsub",
        "name": "session-consumer",
        "version": "0.1.0",
        "db": ORG,
        "table": "MessagingSession",
        "snapshot": "false",
        "ts_ms": 1_790_000_000_000,
        "id": f"{EVENT_ID}:{RECORD}",
        "org_id": ORG,
        "record_id": RECORD,
        "record_version": None,
        "topic": CHANNEL,
        "event_id": EVENT_ID,
        "record_index": 0,
        "replay_id": "AAAAAAAXkCkAAA==",
        "schema_id": "mKlSAPbwsiGNDGQsDuZTrw",
        "change_type": "UPDATE",
        "change_origin": "com/salesforce/api/rest/62.0;client=agent",
        "commit_number": "1709306004367179779",
        "commit_user": "005000000000001AAA",
        "transaction_key": "0002f2a1-0b5c-4a4e-8f5a-1d2c3b4a5968",
        "sequence_number": 3,
        "changed_fields": ["Status", "AcceptTime", "BillingAddress.City"],
        "nulled_fields": ["AcceptTime"],
        "diff_fields": [],
        "before_image": "none",
        "after_image": "partial",
        "unknown_fields": ["Name", "OwnerId", "Notes__c"],
        "repaired": False,
        "window_id": None,
    }
    assert value["transaction"] == {
        "id": "0002f2a1-0b5c-4a4e-8f5a-1d2c3b4a5968",
        "total_order": 3,
        "data_collection_order": 3,
    }


def test_headers_are_cloudevents_in_binary_mode() -> None:
    (record,) = ENVELOPE.changes(change(values={"Status": "Active"}))
    assert dict(record.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": f"{EVENT_ID}:{RECORD}".encode(),
        "ce_source": f"//salesforce/{ORG}/MessagingSession".encode(),
        "ce_type": b"salesforce.messaging-session.changes.v1",
        "ce_time": b"2026-09-21T14:13:20.000Z",
        "ce_subject": RECORD.encode(),
        "ce_dataschema": b"urn:messaging-session-consumer:schemas:changes:v1",
        "content-type": b"application/json",
    }
    assert event_id_of(record.headers) == EVENT_ID


@pytest.mark.parametrize("change_type", ["CREATE", "UNDELETE"])
def test_create_and_undelete_have_no_before(change_type: str) -> None:
    (record,) = ENVELOPE.changes(change(change_type, values={"Status": "New"}))
    value = checked(record)
    assert (value["op"], value["before"]) == ("c", None)
    assert value["after"] == {"Id": RECORD, "Status": "New"}


@pytest.mark.parametrize("change_type", ["DELETE", "GAP_DELETE"])
def test_a_delete_has_the_id_before_and_nothing_after(change_type: str) -> None:
    (record,) = ENVELOPE.changes(change(change_type))
    value = checked(record)
    assert (value["op"], value["before"], value["after"]) == ("d", {"Id": RECORD}, None)
    assert value["source"]["after_image"] == "none"
    assert value["source"]["unknown_fields"] == list(FIELDS)


def test_a_merged_event_is_one_record_per_id_in_order() -> None:
    records = ENVELOPE.changes(change(record_ids=(RECORD, OTHER), values={"Status": "Ended"}))
    values = [checked(record) for record in records]
    assert [record.key.decode() for record in records] == [RECORD, OTHER]
    assert [value["source"]["record_index"] for value in values] == [0, 1]
    assert [value["after"]["Id"] for value in values] == [RECORD, OTHER]
    assert [value["before"]["Id"] for value in values] == [RECORD, OTHER]
    assert len({value["source"]["id"] for value in values}) == 2


@pytest.mark.parametrize(
    "change_type", ["GAP_CREATE", "GAP_UPDATE", "GAP_UNDELETE", "GAP_OVERFLOW", "SNAPSHOT", "MERGE"]
)
def test_what_tells_no_change_yields_no_record(change_type: str) -> None:
    assert ENVELOPE.changes(change(change_type)) == []


def test_wildcards_and_placeholders_never_become_records() -> None:
    assert ENVELOPE.changes(change(record_ids=(), wildcard_ids=("0Mw*", "000000000000000AAA"))) == []
    mixed = ENVELOPE.changes(change(wildcard_ids=("0Mw*",)))
    assert [record.key.decode() for record in mixed] == [RECORD]


def test_a_retried_event_is_repaired_and_keeps_its_id() -> None:
    again = received(window_id="quarantine:x")
    (record,) = ENVELOPE.changes(change(event=again))
    source = checked(record)["source"]
    assert (source["repaired"], source["window_id"]) == (True, "quarantine:x")
    assert source["id"] == f"{EVENT_ID}:{RECORD}"


def test_events_of_a_channel_are_routed_by_their_object() -> None:
    envelope = Envelope(ORG, "s", "1", Topics("sf.", ["/data/ChangeEvents"]))
    records = [
        *envelope.changes(change(entity="AgentWork")),
        *envelope.changes(change(entity="Widget__c")),
    ]
    assert [record.topic for record in records] == ["sf.agent-work.changes", "sf.widget__c.changes"]
    for record in records:
        checked(record)


@pytest.mark.parametrize("entity", ["", "Bad Name", "x" * 300])
def test_an_object_name_that_no_topic_can_have_is_an_error_of_the_event(entity: str) -> None:
    with pytest.raises(PayloadError) as caught:
        ENVELOPE.changes(change(entity=entity))
    assert caught.value.record_ids == (RECORD,)


def test_too_large_a_record_shrinks_to_its_changed_fields() -> None:
    envelope = Envelope(ORG, "s", "1", TOPICS, max_record_bytes=3000)
    event = change(
        values={"Status": "Active", "Notes__c": "x" * 3000, "BillingAddress": {"City": "Bern"}},
        changed_fields=("Status", "BillingAddress.City"),
    )
    (record,) = envelope.changes(event)
    value = checked(record)
    assert value["after"] == {"Id": RECORD, "Status": "Active", "BillingAddress": {"City": "Bern"}}
    assert value["source"]["truncated"] is True
    assert value["source"]["unknown_fields"] == ["Name", "OwnerId", "AcceptTime", "Notes__c"]
    assert len(record.value or b"") <= 3000


def test_if_the_changed_fields_are_too_large_only_the_id_is_left() -> None:
    envelope = Envelope(ORG, "s", "1", TOPICS, max_record_bytes=3000)
    (record,) = envelope.changes(change(values={"Notes__c": "x" * 3000}, changed_fields=("Notes__c",)))
    value = checked(record)
    assert value["after"] == {"Id": RECORD}
    assert value["source"]["truncated"] is True
    assert value["source"]["unknown_fields"] == list(FIELDS)


@pytest.mark.parametrize("change_type", ["UPDATE", "DELETE"])
def test_texts_of_the_header_are_cut_when_even_the_id_is_too_much(change_type: str) -> None:
    envelope = Envelope(ORG, "s", "1", TOPICS, max_record_bytes=3000)
    (record,) = envelope.changes(change(change_type, change_origin="o" * 5000, transaction_key="t" * 5000))
    value = checked(record)
    assert len(record.value or b"") <= 3000
    assert value["source"]["truncated"] is True
    assert value["transaction"]["id"] == value["source"]["transaction_key"] == "t" * 512


def test_a_record_below_the_limit_is_not_marked() -> None:
    (record,) = ENVELOPE.changes(change(values={"Notes__c": "x" * 500_000}))
    value = checked(record)
    assert len(value["after"]["Notes__c"]) == 500_000
    assert "truncated" not in value["source"]


@pytest.mark.parametrize("commit_ms", [10**17, -(10**17), 2**63 - 1])
def test_a_commit_time_beyond_the_calendar_does_not_stop_the_event(commit_ms: int) -> None:
    (record,) = ENVELOPE.changes(change(commit_ms=commit_ms))
    assert checked(record)["source"]["ts_ms"] == commit_ms
    assert dict(record.headers)["ce_time"] == b"2026-09-21T14:13:20.123Z"


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (253402300799999, "9999-12-31T23:59:59.999Z"),
        (253402300800000, None),
    ],
)
def test_times_are_iso_8601_utc_with_milliseconds(ms: int, text: str | None) -> None:
    assert iso_utc(ms) == text
