"""What the checker of record shapes refuses in records of sharing and feeds, and in the ledger's memory of them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from consumer.delivery.access import access_tombstone
from consumer.events import OutboundRecord
from consumer.tracking.access import ShareCause
from tests.contract.altered import refused, with_value
from tests.contract.sharing_records import access_record, feed_record, rule_record, sharing_record
from tests.delivery_values import RECORD, TOPICS, checked
from tests.tracking_values import S0


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "other"},
        {"kind": "taken"},
        {"kind": "level_changed"},
        {"kind": "unseen"},
        {"record_id": "0Mw000000000009AAA"},
        {"share_id": None},
        {"user_or_group_id": ""},
        {"access_level": None},
        {"previous_access_level": "Read"},
        {"row_cause": ""},
        {"not_before": "2026-09-21"},
        {"not_before": "2099-01-01T00:00:00.000Z"},
        {"not_after": None},
        {"not_after": "2026-09-21T14:13:20.001Z"},
        {"observed_at": "2026-09-21T14:13:19.000Z"},
        {"not_before": "2026-09-21T14:13:21.500Z"},
        {"cause": "whim"},
    ],
)
def test_wrong_sharing_is_refused(fields: dict[str, Any]) -> None:
    refused(with_value(sharing_record(), **fields))


def test_what_nobody_saw_names_no_share_but_its_interval() -> None:
    nobody: dict[str, Any] = dict.fromkeys(("share_id", "user_or_group_id", "grantee", "access_level", "row_cause"))
    unseen = sharing_record(kind="unseen", **nobody)
    checked(unseen)
    refused(with_value(unseen, not_before=None))
    refused(with_value(unseen, share_id="02c000000000001AAA"))
    checked(sharing_record(not_before_ms=None))


@pytest.mark.parametrize("cause", ShareCause)
def test_every_cause_is_promised(cause: ShareCause) -> None:
    assert checked(sharing_record(cause=cause))["cause"] == cause


@pytest.mark.parametrize(
    "fields",
    [
        {"v": 2},
        {"entity": "Case"},
        {"entity": ""},
        {"record_id": "0Mw000000000009AAA"},
        {"complete": None},
        {"as_of": None},
        {"as_of": "2026-09-21T14:13:20Z"},
        {"as_of_ms": "1"},
        {"as_of_ms": S0 + 1},
        {"as_of": "2026-09-21T14:13:20.001Z", "as_of_ms": S0 + 1},
        {"truncated": False},
    ],
)
def test_wrong_access_is_refused(fields: dict[str, Any]) -> None:
    refused(with_value(access_record(), **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"user_or_group_id": None},
        {"access_level": None},
        {"row_cause": ""},
        {"since": None},
        {"since_not_before": "yesterday"},
        {"share_id": ""},
        {"modified_ms": None},
        {"seen_ms": "1"},
        {"missing_ms": 1.5},
        {"missed_again_ms": "1"},
        {"since_ms": [None]},
    ],
)
def test_wrong_shares_are_refused(fields: dict[str, Any]) -> None:
    (share,) = orjson.loads(access_record().value or b"")["shares"]
    refused(with_value(access_record(), shares=[{**share, **fields}]))


def test_a_share_stands_once_in_its_record() -> None:
    (share,) = orjson.loads(access_record().value or b"")["shares"]
    refused(with_value(access_record(), shares=[share, {**share, "share_id": "02c000000000002AAA"}]))
    checked(with_value(access_record(), shares=[share, {**share, "row_cause": None}, {**share, "row_cause": "Rule"}]))
    for name in ("user_or_group_id", "grantee_type", "since", "since_not_before", "share_id"):
        refused(with_value(access_record(), shares=[{k: v for k, v in share.items() if k != name}]))


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "other"},
        {"kind": "moved"},
        {"kind": "changed"},
        {"rule_id": "0Yo000000000009AAA"},
        {"changed": [{"field": "Name", "old_value": None, "new_value": "x"}]},
        {"not_after": None},
        {"observed_at": "soon"},
        {"baseline": None},
    ],
)
def test_wrong_rules_are_refused(fields: dict[str, Any]) -> None:
    refused(with_value(rule_record(), **fields))


def test_a_changed_rule_says_what_changed() -> None:
    refused(with_value(rule_record("changed"), changed=[]))
    refused(with_value(rule_record("changed"), changed=[{"field": "Name", "old_value": "x"}]))


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "other"},
        {"kind": "seen"},
        {"feed_item_id": None},
        {"record_id": "0Mw000000000009AAA"},
        {"record_id": None},
        {"created_at": "2026-09-21"},
        {"other": []},
        {"changes": [{"field": ""}]},
        {"observed_at": None},
        {"backfill": None},
        {"truncated": False},
    ],
)
def test_wrong_feed_items_are_refused(fields: dict[str, Any]) -> None:
    refused(with_value(feed_record(), **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"feed": []},
        {"feed": [{"item": "0D5"}]},
        {"feed": [{"item": "0D5", "at": 1, "removed": False}]},
        {"shares": {"due_ms": 1}},
        {"shares": {"due_ms": 1, "cause": "whim"}},
        {"shares": {"due_ms": 1, "cause": "sweep", "changes": 0}},
        {"shares": {"due_ms": 1, "cause": "sweep", "created": False}},
        {},
    ],
)
def test_wrong_ledger_entries_are_refused(fields: dict[str, Any]) -> None:
    value = orjson.dumps({"v": 1, "entity": "MessagingSession", **fields})
    refused(OutboundRecord(TOPICS.ledger, RECORD.encode(), value))


def test_only_access_has_tombstones() -> None:
    checked(access_tombstone(TOPICS, "MessagingSession", RECORD))
    for make in (sharing_record, rule_record, feed_record):
        refused(OutboundRecord(make().topic, make().key, None))
