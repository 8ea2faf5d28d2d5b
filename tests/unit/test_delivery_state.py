"""State records: what others read, and what this service restores from."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.state import decode_state, encode_state, state_tombstone
from consumer.errors import ForeignStateError
from consumer.events import OutboundRecord
from consumer.tracking.images import encode_image
from consumer.tracking.values import RecordState, SourceVersion
from tests.contract.topic_schemas import kind_of, validate_record
from tests.delivery_values import ORG, RECORD, TOPICS

ENTITY = "MessagingSession"


def live(image: dict[str, Any], **given: Any) -> RecordState:
    """Return the state of a live record."""
    suspect = given.get("suspect", frozenset())
    return RecordState(ENTITY, RECORD, image, encode_image(RECORD, image, suspect), **given)


FULL = live(
    {"Status": "Active", "Notes__c": None, "Address": {"City": "Bern"}, "Long": "9007199254740993", "Rate": 0.1},
    unknown=("AgentMessageCount",),
    version=7,
    source=SourceVersion(2, 1_709_306_004_367_179_779, 3, 1_790_000_000_000),
    row_stamp_ms=1_789_999_999_000,
    row_read_ms=1_790_000_001_000,
    since={"Status": "2026-09-21T14:13:20.000Z"},
    completed=True,
    metrics={"AgentHandleTime": 12.5},
)
DELETED = RecordState(ENTITY, RECORD, {}, b"", version=9, deleted=True, deleted_ms=1_790_000_000_000)


def checked(record: OutboundRecord) -> Any:
    """Validate a record against ``schemas/`` and return its value."""
    return validate_record(kind_of(record.topic), record.key, record.value, record.headers)


def back(state: RecordState) -> RecordState:
    """Return a state as it is restored."""
    record = encode_state(TOPICS, ORG, state)
    checked(record)
    return decode_state(record.key, record.value or b"")


def same(one: RecordState, other: RecordState) -> bool:
    """Return whether two states are equal in every field."""
    return all(getattr(one, field.name) == getattr(other, field.name) for field in fields(RecordState))


def test_a_state_tells_the_image_and_what_it_is_worth() -> None:
    record = encode_state(TOPICS, ORG, FULL)
    assert record.topic == "salesforce.messaging-session.state"
    assert record.key == RECORD.encode()
    assert checked(record) == {
        "v": 1,
        "entity": ENTITY,
        "record_id": RECORD,
        "deleted": False,
        "stale": False,
        "record_version": 7,
        "source_version": {
            "epoch": 2,
            "commit_number": "1709306004367179779",
            "sequence_number": 3,
            "commit_ts_ms": 1_790_000_000_000,
        },
        "since": {"Status": "2026-09-21T14:13:20.000Z"},
        "read_at": "2026-09-21T14:13:21.000Z",
        "row_read_ms": 1_790_000_001_000,
        "row_stamp_ms": 1_789_999_999_000,
        "unknown_fields": ["AgentMessageCount"],
        "metrics": {"AgentHandleTime": 12.5},
        "completed": True,
        "image": {"Id": RECORD, **FULL.image},
    }
    assert FULL.image_json in (record.value or b""), "the bytes of changes.after"
    assert dict(record.headers)["ce_type"] == b"salesforce.messaging-session.state.v1"
    assert dict(record.headers)["ce_time"] == b"2026-09-21T14:13:20.000Z"


def test_another_content_at_the_same_version_is_another_id() -> None:
    ids = {dict(encode_state(TOPICS, ORG, state).headers)["ce_id"] for state in (FULL, replace(FULL, metrics=None))}
    assert len(ids) == 2
    assert dict(encode_state(TOPICS, ORG, FULL).headers)["ce_id"] in ids


def test_what_is_in_doubt_is_no_part_of_the_image() -> None:
    doubted = live(dict(FULL.image), suspect=frozenset({"Status", "Notes__c"}), unknown=("X",), gap="GAP_UPDATE")
    value = checked(encode_state(TOPICS, ORG, doubted))
    assert "Status" not in value["image"]
    assert (value["stale"], value["gap"]) == (True, "GAP_UPDATE")
    assert value["suspect"] == {"Status": "Active", "Notes__c": None}
    assert value["unknown_fields"] == ["X", "Notes__c", "Status"]
    assert same(back(doubted), doubted)


def test_a_deleted_record_keeps_its_versions_and_no_image() -> None:
    value = checked(encode_state(TOPICS, ORG, DELETED))
    assert (value["deleted"], value["image"], value["record_version"]) == (True, None, 9)
    assert same(back(DELETED), DELETED)


def test_a_tombstone_is_the_key_alone() -> None:
    record = state_tombstone(TOPICS, ENTITY, RECORD)
    assert checked(record) is None
    assert (record.topic, record.key, record.value) == ("salesforce.messaging-session.state", RECORD.encode(), None)


TEXT = st.text(max_size=20)
# Makes Hypothesis's table of characters, once on a machine; a first example that had to wait for it would fail.
TEXT.validate()
NAMES = st.sampled_from(["Status", "OwnerId", "Notes__c", "Address", "Count", "A.b", "é"])
PLAIN = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)
VALUES = PLAIN | st.dictionaries(st.sampled_from(["City", "Zip"]), PLAIN, min_size=1)
TIMES = st.none() | st.integers(0, 2**42)


@st.composite
def states(draw: st.DrawFn) -> RecordState:
    image = draw(st.dictionaries(NAMES, VALUES))
    known = st.frozensets(st.sampled_from(sorted(image))) if image else st.just(frozenset[str]())
    unknown = tuple(name for name in ("U1", "U2") if draw(st.booleans()))
    sources = st.builds(
        SourceVersion, st.integers(0, 9), st.integers(-(2**63), 2**63), st.integers(0, 99), st.integers(0, 2**42)
    )
    suspect = draw(known)
    # Fields in doubt come last when an image is read back; the order inside of it has no meaning.
    ordered = {name: image[name] for name in sorted(image, key=lambda name: name in suspect)}
    return live(
        ordered,
        unknown=unknown,
        suspect=suspect,
        version=draw(st.integers(0, 10**6)),
        source=draw(st.none() | sources),
        row_stamp_ms=draw(TIMES),
        row_read_ms=draw(TIMES),
        since=draw(st.dictionaries(st.sampled_from(["Status", "OwnerId"]), st.just("2026-09-21T14:13:20.000Z"))),
        completed=draw(st.booleans()),
        metrics=draw(st.none() | st.dictionaries(NAMES, PLAIN)),
        gap=draw(st.none() | st.sampled_from(["GAP_UPDATE", "bitmap_invalid"])),
        incomplete=draw(known),
        ahead=draw(known),
    )


@given(states())
def test_every_state_comes_back_as_it_was(state: RecordState) -> None:
    restored = back(state)
    assert same(restored, state)
    assert list(restored.image) == list(state.image)


def test_too_large_a_state_loses_its_largest_fields() -> None:
    state = live({"Small": 1, "Doubt": "d" * 3000, "Large": "x" * 9000, "Status": "A"}, suspect=frozenset({"Doubt"}))
    record = encode_state(TOPICS, ORG, state, max_record_bytes=6000)
    value = checked(record)
    assert value["image"] == {"Id": RECORD, "Small": 1, "Status": "A"}
    assert (value["truncated"], value["unknown_fields"]) == (True, ["Large", "Doubt"])
    assert value["suspect"] == {"Doubt": "d" * 3000}
    smaller = encode_state(TOPICS, ORG, state, max_record_bytes=2000)
    assert checked(smaller)["suspect"] == {}
    restored = decode_state(smaller.key, smaller.value or b"")
    assert dict(restored.image) == {"Small": 1, "Status": "A"}
    assert set(restored.unknown) == {"Large", "Doubt"}
    assert len(smaller.value or b"") <= 2000


def test_metrics_go_last_when_even_the_id_is_too_much() -> None:
    state = live({"A": 1}, metrics={"m": "x" * 3000})
    record = encode_state(TOPICS, ORG, state, max_record_bytes=2000)
    value = checked(record)
    assert (value["metrics"], value["image"]) == (None, {"Id": RECORD})
    assert checked(encode_state(TOPICS, ORG, replace(DELETED, metrics={"m": "x" * 3000}), max_record_bytes=2000))


GOOD = orjson.loads(encode_state(TOPICS, ORG, FULL).value or b"")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"v": 2}, "version 2"),
        ({"entity": 1}, "entity"),
        ({"image": {"Id": "other"}}, "another id"),
        ({"image": []}, "image"),
        ({"record_version": "7"}, "record_version"),
        ({"source_version": {"epoch": 1}}, "source_version"),
        ({"source_version": {**GOOD["source_version"], "commit_number": "x"}}, "source_version"),
        ({"unknown_fields": "x"}, "unknown_fields"),
        ({"since": None}, "since"),
    ],
)
def test_what_is_not_ours_is_refused(change: dict[str, Any], what: str) -> None:
    with pytest.raises(ForeignStateError, match=what):
        decode_state(RECORD.encode(), orjson.dumps({**GOOD, **change}))
    assert decode_state(RECORD.encode(), orjson.dumps(GOOD)).version == 7
