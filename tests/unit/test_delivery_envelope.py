"""Change records."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from consumer.delivery.envelope import Envelope
from consumer.delivery.headers import event_id_of, iso_utc
from consumer.delivery.names import Topics
from consumer.errors import ConfigError, PayloadError
from consumer.tracking.arrivals import Purpose, RowsRead
from consumer.tracking.changes import TrackedChange
from consumer.tracking.tracker import Tracker
from consumer.tracking.values import EntityFacts, FieldChange, Row
from tests.delivery_values import CHANNEL, EVENT_ID, FIELDS, ORG, RECORD, TOPICS, change, checked, received
from tests.tracking_values import MemoryStates, untracked

ENVELOPE = Envelope(ORG, "session-consumer", "0.1.0", TOPICS)
OTHER = "0Mw000000000002AAA"


def test_an_update_tells_id_before_and_carried_fields_after() -> None:
    event = change(
        values={"Status": "Active", "AcceptTime": None, "BillingAddress": {"City": "Bern"}},
        changed_fields=("Status", "AcceptTime", "BillingAddress.City"),
        nulled_fields=("AcceptTime",),
    )
    (record,) = untracked(ENVELOPE, event)
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
        "record_version": 1,
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
        "unknown_fields": ["Name", "OwnerId", "Notes__c", "BillingAddress.*"],
        "repaired": False,
        "window_id": None,
    }
    assert value["transaction"] == {
        "id": "0002f2a1-0b5c-4a4e-8f5a-1d2c3b4a5968",
        "total_order": 3,
        "data_collection_order": 3,
    }


def test_headers_are_cloudevents_in_binary_mode() -> None:
    (record,) = untracked(ENVELOPE, change(values={"Status": "Active"}))
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
    (record,) = untracked(ENVELOPE, change(change_type, values={"Status": "New"}))
    value = checked(record)
    assert (value["op"], value["before"]) == ("c", None)
    assert value["after"] == {"Id": RECORD, "Status": "New"}


@pytest.mark.parametrize("change_type", ["DELETE", "GAP_DELETE"])
def test_a_delete_has_the_id_before_and_nothing_after(change_type: str) -> None:
    (record,) = untracked(ENVELOPE, change(change_type))
    value = checked(record)
    assert (value["op"], value["before"], value["after"]) == ("d", {"Id": RECORD}, None)
    assert value["source"]["after_image"] == "none"
    assert value["source"]["unknown_fields"] == list(FIELDS)


def test_a_merged_event_is_one_record_per_id_in_order() -> None:
    records = untracked(ENVELOPE, change(record_ids=(RECORD, OTHER), values={"Status": "Ended"}))
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
    assert untracked(ENVELOPE, change(change_type)) == []


def test_wildcards_and_placeholders_never_become_records() -> None:
    assert untracked(ENVELOPE, change(record_ids=(), wildcard_ids=("0Mw*", "000000000000000AAA"))) == []
    mixed = untracked(ENVELOPE, change(wildcard_ids=("0Mw*",)))
    assert [record.key.decode() for record in mixed] == [RECORD]


def test_a_retried_event_is_repaired_and_keeps_its_id() -> None:
    again = received(window_id="quarantine:x")
    (record,) = untracked(ENVELOPE, change(event=again))
    source = checked(record)["source"]
    assert (source["repaired"], source["window_id"]) == (True, "quarantine:x")
    assert source["id"] == f"{EVENT_ID}:{RECORD}"


def test_events_of_a_channel_are_routed_by_their_object() -> None:
    envelope = Envelope(ORG, "s", "1", Topics("sf.", ["/data/ChangeEvents"]))
    records = [
        *untracked(envelope, change(entity="AgentWork")),
        *untracked(envelope, change(entity="Widget__c")),
    ]
    assert [record.topic for record in records] == ["sf.agent-work.changes", "sf.widget__c.changes"]
    for record in records:
        checked(record)


@pytest.mark.parametrize("entity", ["", "Bad Name", "x" * 300])
def test_an_object_name_that_no_topic_can_have_is_an_error_of_the_event(entity: str) -> None:
    with pytest.raises(PayloadError) as caught:
        untracked(ENVELOPE, change(entity=entity))
    assert caught.value.record_ids == (RECORD,)


def test_too_large_a_record_shrinks_to_its_changed_fields() -> None:
    envelope = Envelope(ORG, "s", "1", TOPICS, max_record_bytes=3000)
    event = change(
        values={"Status": "Active", "Notes__c": "x" * 3000, "BillingAddress": {"City": "Bern"}},
        changed_fields=("Status", "BillingAddress.City"),
    )
    (record,) = untracked(envelope, event)
    value = checked(record)
    assert value["after"] == {"Id": RECORD, "Status": "Active", "BillingAddress": {"City": "Bern"}}
    assert value["source"]["truncated"] is True
    assert value["source"]["unknown_fields"] == ["Name", "OwnerId", "AcceptTime", "Notes__c", "BillingAddress.*"]
    assert len(record.value or b"") <= 3000


def test_if_the_changed_fields_are_too_large_only_the_id_is_left() -> None:
    envelope = Envelope(ORG, "s", "1", TOPICS, max_record_bytes=3000)
    (record,) = untracked(envelope, change(values={"Notes__c": "x" * 3000}, changed_fields=("Notes__c",)))
    value = checked(record)
    assert value["after"] == {"Id": RECORD}
    assert value["source"]["truncated"] is True
    assert value["source"]["unknown_fields"] == list(FIELDS)


@pytest.mark.parametrize("change_type", ["UPDATE", "DELETE"])
def test_texts_of_the_header_are_cut_when_even_the_id_is_too_much(change_type: str) -> None:
    envelope = Envelope(ORG, "s", "1", TOPICS, max_record_bytes=3000)
    (record,) = untracked(envelope, change(change_type, change_origin="o" * 5000, transaction_key="t" * 5000))
    value = checked(record)
    assert len(record.value or b"") <= 3000
    assert value["source"]["truncated"] is True
    assert value["transaction"]["id"] == value["source"]["transaction_key"] == "t" * 512


def test_a_record_below_the_limit_is_not_marked() -> None:
    (record,) = untracked(ENVELOPE, change(values={"Notes__c": "x" * 500_000}))
    value = checked(record)
    assert len(value["after"]["Notes__c"]) == 500_000
    assert "truncated" not in value["source"]


@pytest.mark.parametrize("commit_ms", [10**17, -(10**17), 2**63 - 1])
def test_a_commit_time_beyond_the_calendar_does_not_stop_the_event(commit_ms: int) -> None:
    (record,) = untracked(ENVELOPE, change(commit_ms=commit_ms))
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


def tracked(**given: Any) -> TrackedChange:
    """Return a tracked change of a row."""
    usual: dict[str, Any] = {
        "record_id": RECORD,
        "record_index": None,
        "change_id": f"row:{RECORD}:1790000000000:job",
        "op": "r",
        "change_type": None,
        "before": None,
        "after": orjson.dumps({"Id": RECORD, "Status": "Active"}),
        "before_kind": "none",
        "after_kind": "partial",
        "unknown_fields": ("Name",),
        "version": 1,
        "stamp_ms": 1_790_000_000_000,
    }
    return TrackedChange(**{**usual, **given})


READ = RowsRead(Purpose.SNAPSHOT, "MessagingSession", (), 1_790_000_005_000, None)


def test_images_go_out_as_the_bytes_they_came_in() -> None:
    states = MemoryStates()
    of = Tracker(states)
    of.set_facts(EntityFacts("MessagingSession", visible=frozenset(FIELDS)))
    created = change("CREATE", values={"Name": "n", "Status": "New"})
    ENVELOPE.changes(created, of.on_event(created))
    before = states.states["MessagingSession", RECORD].image_json
    updated = change(values={"Status": "Active"}, changed_fields=("Status",))
    (record,) = ENVELOPE.changes(updated, of.on_event(updated))
    value = checked(record)
    after = states.states["MessagingSession", RECORD].image_json
    assert b'"before":' + before + b',"after":' + after + b"," in (record.value or b"")
    source = value["source"]
    assert (source["before_image"], source["after_image"], source["record_version"]) == ("full", "full", 2)
    assert source["unknown_fields"] == []
    assert "late" not in source


def test_a_row_has_no_event() -> None:
    (record,) = ENVELOPE.rows("MessagingSession", CHANNEL, READ, [tracked(snapshot="last")], 1_790_000_005_000)
    value = checked(record)
    assert (value["op"], value["ts_ms"], value["transaction"]) == ("r", 1_790_000_005_000, None)
    assert value["before"] is None
    assert value["after"] == {"Id": RECORD, "Status": "Active"}
    source = value["source"]
    nothing = ("event_id", "record_index", "replay_id", "schema_id", "change_type", "change_origin", "commit_number")
    assert [source[name] for name in (*nothing, "commit_user", "transaction_key", "sequence_number")] == [None] * 10
    assert (source["snapshot"], source["topic"], source["ts_ms"]) == ("last", CHANNEL, 1_790_000_000_000)
    assert source["id"] == f"row:{RECORD}:1790000000000:job"
    assert dict(record.headers)["ce_id"] == source["id"].encode()


def test_a_repaired_row_names_its_window_and_what_differed() -> None:
    facts = (FieldChange("Status", "New", "Active"), FieldChange("OwnerId", "005", None))
    one = tracked(
        op="u",
        change_type="UPDATE",
        before=orjson.dumps({"Id": RECORD}),
        changed_fields=("Status", "OwnerId"),
        fields=facts,
        repaired=True,
        window_id="gap:1",
        version=2,
    )
    gone = tracked(op="d", change_type="VANISHED", before=one.before, after=None, after_kind="none", version=3)
    first, second = ENVELOPE.rows("MessagingSession", CHANNEL, READ, [one, gone], 1)
    source = checked(first)["source"]
    assert (source["changed_fields"], source["nulled_fields"]) == (["Status", "OwnerId"], ["OwnerId"])
    assert (source["repaired"], source["window_id"]) == (True, "gap:1")
    value = checked(second)
    assert (value["source"]["change_type"], value["source"]["repaired"], value["after"]) == ("VANISHED", False, None)
    assert ENVELOPE.rows("Bad Name", CHANNEL, READ, [], 1) == []
    with pytest.raises(ConfigError):
        ENVELOPE.rows("Bad Name", CHANNEL, READ, [one], 1)


def test_a_late_event_tells_its_values_beside_the_image() -> None:
    of = Tracker(MemoryStates())
    late, punctual = change(values={"Status": "Waiting"}, changed_fields=("Status",)), change(values={"Status": "A"})
    stamp_ms = late.header.commit_ms + 5000
    read = RowsRead(
        Purpose.SNAPSHOT, "MessagingSession", (Row(RECORD, {"Status": "Active"}, stamp_ms),), stamp_ms, None
    )
    of.on_rows(read)
    (told,) = of.on_event(late)
    records = ENVELOPE.changes(late, [told, *Tracker(MemoryStates()).on_event(punctual)])
    sources = [checked(record)["source"] for record in records]
    assert (sources[0]["late"], sources[0]["late_values"]) == (True, {"Status": "Waiting"})
    assert not {"late", "late_values"} & set(sources[1])
    assert checked(records[0])["after"] == {"Id": RECORD, "Status": "Active"}


def test_both_images_shrink_to_the_changed_fields() -> None:
    envelope = Envelope(ORG, "s", "1", TOPICS, max_record_bytes=3000)
    image = {"Id": RECORD, "Status": "New", "Notes__c": "x" * 1500, "BillingAddress": {"City": "Bern"}}
    one = tracked(
        op="u",
        change_type="UPDATE",
        before=orjson.dumps(image),
        before_kind="full",
        after=orjson.dumps({**image, "Status": "A"}),
        changed_fields=("Status", "BillingAddress.City"),
        unknown_fields=("Name", "BillingAddress.*"),
        repaired=True,
        window_id="w",
        late=True,
        late_values={"Status": "B", "Notes__c": "y" * 1000},
    )
    (record,) = envelope.rows("MessagingSession", CHANNEL, READ, [one], 1)
    value = checked(record)
    assert value["before"] == {"Id": RECORD, "Status": "New", "BillingAddress": {"City": "Bern"}}
    assert value["after"] == {"Id": RECORD, "Status": "A", "BillingAddress": {"City": "Bern"}}
    source = value["source"]
    assert source["unknown_fields"] == ["Notes__c", "BillingAddress.*", "Name"]
    assert (source["before_image"], source["truncated"], source["late_values"]) == ("partial", True, {"Status": "B"})


def test_topics_are_required_before_anything_is_tracked() -> None:
    ENVELOPE.require_topics(change())
    with pytest.raises(PayloadError) as caught:
        ENVELOPE.require_topics(change(entity="Bad Name"))
    assert caught.value.record_ids == (RECORD,)
