"""The deployment's own encoding as the stores take it: a light look at a value says what decoding it says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consumer.errors import ForeignStateError
from consumer.store.codec import index_of_ledger, index_of_state
from consumer.store.wire import codec_of
from consumer.tracking.values import LedgerEntry, RecordState
from tests.store_values import ENTITY, ORG, TOPICS, entry, key, record_id, state

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


@pytest.mark.parametrize("value", [entry(1, due_ms=5), entry(1, facts=2), entry(1, due_ms=5, facts=1)])
def test_ledger_entries_come_back_and_are_found(value: LedgerEntry) -> None:
    record = CODEC.encode_ledger(key(1), value)
    assert (record.topic, record.key) == (TOPICS.ledger, record_id(1).encode())
    assert record.value is not None
    decoded = CODEC.decode_ledger(record_id(1), record.value)
    assert (decoded.refresh, len(decoded.facts)) == (value.refresh, len(value.facts))
    assert CODEC.index_ledger(record_id(1), record.value) == index_of_ledger(value) == index_of_ledger(decoded)
    assert CODEC.encode_ledger(key(1), None).value is None


@pytest.mark.parametrize("value", [b"x", b"[]", b'{"entity":"Case"}', b'{"v":2,"entity":"Case"}', b'{"v":1}'])
def test_what_this_service_did_not_write_is_refused(value: bytes) -> None:
    for index in (CODEC.index_state, CODEC.index_ledger):
        with pytest.raises(ForeignStateError):
            index(record_id(1), value)
