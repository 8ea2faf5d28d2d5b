"""Builders of values for the tests of the delivery room."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from consumer.delivery.names import Topics
from consumer.events import ChangeEvent, ChangeHeader, OutboundRecord, ReceivedEvent
from tests.contract.topic_schemas import kind_of, validate_record

ORG = "00D000000000001AAA"
CHANNEL = "/data/MessagingSessionChangeEvent"
EVENT_ID = "6f1b2b6e-30a8-4c1e-9d36-2b2f0e3a9c11"
RECORD = "0Mw000000000001AAA"
TOPICS = Topics("salesforce.", [CHANNEL])
FIELDS = ("Name", "Status", "OwnerId", "AcceptTime", "Notes__c", "BillingAddress")


def received(**changes: Any) -> ReceivedEvent:
    """Return an event as received, with some attributes replaced."""
    given: dict[str, Any] = {
        "topic": CHANNEL,
        "event_id": EVENT_ID,
        "schema_id": "mKlSAPbwsiGNDGQsDuZTrw",
        "payload": b"\x00\x01payload",
        "replay_id": bytes.fromhex("00000000001790290000"),
        "received_ms": 1_790_000_000_123,
    }
    return ReceivedEvent(**{**given, **changes})


def change(
    change_type: str = "UPDATE",
    record_ids: tuple[str, ...] = (RECORD,),
    values: Mapping[str, Any] | None = None,
    *,
    wildcard_ids: tuple[str, ...] = (),
    changed_fields: tuple[str, ...] = (),
    nulled_fields: tuple[str, ...] = (),
    event: ReceivedEvent | None = None,
    schema_fields: tuple[str, ...] = FIELDS,
    **header: Any,
) -> ChangeEvent:
    """Return a change event; ``header`` replaces attributes of its header."""
    given: dict[str, Any] = {
        "entity": "MessagingSession",
        "record_ids": (*record_ids, *wildcard_ids),
        "change_type": change_type,
        "change_origin": "com/salesforce/api/rest/62.0;client=agent",
        "transaction_key": "0002f2a1-0b5c-4a4e-8f5a-1d2c3b4a5968",
        "sequence_number": 3,
        "commit_ms": 1_790_000_000_000,
        "commit_number": 1_709_306_004_367_179_779,
        "commit_user": "005000000000001AAA",
        "nulled_bitmaps": (),
        "diff_bitmaps": (),
        "changed_bitmaps": (),
    }
    return ChangeEvent(
        received=event or received(),
        header=ChangeHeader(**{**given, **header}),
        change_type=change_type,
        record_ids=record_ids,
        wildcard_ids=wildcard_ids,
        schema_fields=schema_fields,
        values={} if values is None else values,
        changed_fields=changed_fields,
        nulled_fields=nulled_fields,
        diff_fields=(),
    )


def checked(record: OutboundRecord) -> Any:
    """Validate a record against ``schemas/`` and return its value."""
    return validate_record(kind_of(record.topic), record.key, record.value, record.headers)
