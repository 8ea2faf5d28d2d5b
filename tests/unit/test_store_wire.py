"""The deployment's own encoding as the stores take it: a light look at a value says what decoding it says."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from consumer.errors import ForeignStateError
from consumer.store.codec import index_of_ledger, index_of_state
from consumer.store.wire import codec_of
from consumer.tracking.values import LedgerEntry, RecordState
from tests.store_values import ENTITY, ORG, TOPICS, access, entry, key, record_id, state

CODEC = codec_of(TOPICS, ORG)


@pytest.mark.parametrize("value", [state(1), state(1, deleted_ms=5), replace(state(1, deleted_ms=5), deleted_ms=None)])
def test_states_come_back_and_are_found(value: RecordState) -> None:
    record = CODEC.encode_state(key(1), value)
    assert (record.topic, record.key) == (TOPICS.of(ENTITY, "state"), record_id(1).encode())
    assert record.value is not None
    decoded = CODEC.decode_state(record_id(1), record.value)
    assert (decoded.image_json, decoded.version, decoded.deleted) == (value.image_json, value.version, value.deleted)
    assert CODEC.index_state(record_id(1), record.value) == index_of_state(value) == index_of_state(decoded)
    assert CODEC.encode_state(key(1), None).value is None


@pytest.mark.parametrize(
    "value",
    [
        entry(1, due_ms=5),
        entry(1, facts=2),
        entry(1, due_ms=5, facts=1),
        entry(1, shares_due_ms=7),
        entry(1, feed=2),
        entry(1, due_ms=5, facts=1, shares_due_ms=7, feed=1),
    ],
)
def test_ledger_entries_come_back_and_are_found(value: LedgerEntry) -> None:
    record = CODEC.encode_ledger(key(1), value)
    assert (record.topic, record.key) == (TOPICS.ledger, record_id(1).encode())
    assert record.value is not None
    decoded = CODEC.decode_ledger(record_id(1), record.value)
    assert (decoded.refresh, len(decoded.facts)) == (value.refresh, len(value.facts))
    assert (decoded.shares, decoded.feed) == (value.shares, value.feed)
    assert CODEC.index_ledger(record_id(1), record.value) == index_of_ledger(value) == index_of_ledger(decoded)
    assert CODEC.encode_ledger(key(1), None).value is None


@pytest.mark.parametrize("shares", [0, 1, 3])
def test_known_shares_come_back_and_are_found(shares: int) -> None:
    value = access(1, shares=shares, as_of_ms=9)
    record = CODEC.encode_access(key(1), value)
    assert (record.topic, record.key) == (TOPICS.of(ENTITY, "access"), record_id(1).encode())
    assert record.value is not None
    decoded = CODEC.decode_access(record_id(1), record.value)
    assert (decoded.shares, decoded.complete, decoded.as_of_ms) == (value.shares, True, 9)
    assert CODEC.index_access(record_id(1), record.value) == value.entity == decoded.entity
    gone = CODEC.encode_access(key(1), None)
    assert (gone.topic, gone.key, gone.value, gone.headers) == (record.topic, record.key, None, ())


@pytest.mark.parametrize(
    "fields", [{"refresh": {"due_ms": "5"}}, {"shares": {"due_ms": "5"}}, {"shares": {"due_ms": True}}, {"shares": 5}]
)
def test_a_due_time_that_is_none_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ForeignStateError):
        CODEC.index_ledger(record_id(1), orjson.dumps({"v": 1, "entity": ENTITY, **fields}))


@pytest.mark.parametrize("value", [b"x", b"[]", b'{"entity":"Case"}', b'{"v":2,"entity":"Case"}', b'{"v":1}'])
def test_what_this_service_did_not_write_is_refused(value: bytes) -> None:
    for index in (CODEC.index_state, CODEC.index_ledger, CODEC.index_access):
        with pytest.raises(ForeignStateError):
            index(record_id(1), value)
