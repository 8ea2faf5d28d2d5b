"""Records of ``history``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from consumer.delivery.history import History
from consumer.tracking.values import HistoryFact, Match
from tests.contract.topic_schemas import RecordShapeError
from tests.delivery_values import EVENT_ID, ORG, RECORD, TOPICS, checked

PENDING = HistoryFact(
    f"{EVENT_ID}:{RECORD}:OwnerId", 1, False, RECORD, "OwnerId", "Owner", None, "005000000000001AAA", None, "known",
    None, None, 1_790_000_000_000, "ms", "005000000000008AAA", "change_event", Match.PENDING, event_id=EVENT_ID,
)  # fmt: skip
CONFIRMED = replace(
    PENDING, revision=2, final=True, match=Match.CONFIRMED, history_ids=("017a", "017b"), value_type="EntityId",
    new_label="Ada",
)  # fmt: skip


def test_a_fact_is_one_record_with_every_field() -> None:
    first, second = History(ORG, TOPICS).records("MessagingSession", [PENDING, CONFIRMED], 5)
    assert checked(first) is not None
    assert first.topic == "salesforce.messaging-session.history"
    assert first.key == RECORD.encode()
    assert orjson.loads(second.value or b"") == {
        "id": f"{EVENT_ID}:{RECORD}:OwnerId:2",
        "change_id": f"{EVENT_ID}:{RECORD}:OwnerId",
        "revision": 2,
        "final": True,
        "record_id": RECORD,
        "field": "OwnerId",
        "history_field": "Owner",
        "old_value": None,
        "new_value": "005000000000001AAA",
        "value_type": "EntityId",
        "values": "known",
        "old_label": None,
        "new_label": "Ada",
        "changed_at": "2026-09-21T14:13:20.000Z",
        "time_precision": "ms",
        "changed_by": "005000000000008AAA",
        "origin": "change_event",
        "history_id": "017a",
        "event_id": EVENT_ID,
        "window_id": None,
        "match": "confirmed",
    }
    headers = dict(second.headers)
    assert headers["ce_type"] == b"salesforce.messaging-session.history.v1"
    assert headers["ce_time"] == b"2026-09-21T14:13:20.000Z"
    checked(second)


def test_no_facts_give_no_records_and_no_route() -> None:
    assert History(ORG, TOPICS).records("not a topic name", [], 5) == []


def test_a_record_that_is_too_large_is_cut_and_says_so() -> None:
    history = History(ORG, TOPICS, max_record_bytes=2000)
    (record,) = history.records("MessagingSession", [replace(PENDING, old="a", new="x" * 5000)], 5)
    value = orjson.loads(record.value or b"")
    assert (value["old_value"], value["new_value"], value["values"]) == ("a", "x" * 255, "truncated_255")
    (record,) = history.records("MessagingSession", [replace(PENDING, new={"Street": "x" * 5000})], 5)
    value = orjson.loads(record.value or b"")
    assert (value["new_value"], value["values"]) == (None, "not_stored")
    checked(record)


@pytest.mark.parametrize(
    "wrong",
    [
        {"final": True},
        {"match": Match.EVENT_ONLY},
        {"match": Match.CONFIRMED},
        {"event_id": None},
        {"origin": "history_row"},
        {"values": "old_unknown", "old": "x"},
        {"revision": 0},
        {"new": 2**60},
    ],
)
def test_the_schema_refuses_contradictions(wrong: dict[str, Any]) -> None:
    (record,) = History(ORG, TOPICS).records("MessagingSession", [replace(PENDING, **wrong)], 5)
    with pytest.raises(RecordShapeError):
        checked(record)
