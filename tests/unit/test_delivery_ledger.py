"""Records of ``ledger``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.envelope import MAX_RECORD_BYTES
from consumer.delivery.ledger import decode_ledger, encode_ledger
from consumer.errors import ForeignStateError
from consumer.tracking.values import HistoryFact, LedgerEntry, Match, Refresh
from tests.delivery_values import RECORD, TOPICS, checked

TEXT = st.text(min_size=1, max_size=8)
MS = st.integers(0, 2**41)
JSON = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
JSON = JSON | st.text(max_size=300) | st.dictionaries(TEXT, TEXT, max_size=2)
FACT = st.builds(
    HistoryFact,
    change_id=st.sampled_from([f"e:{RECORD}:Status", "row:017a"]) | TEXT,
    revision=st.integers(1, 5),
    final=st.booleans(),
    record_id=st.just(RECORD),
    field=st.sampled_from(["Status", "OwnerId"]),
    history_field=st.sampled_from(["Status", "Owner"]),
    old=JSON,
    new=JSON,
    value_type=st.none() | TEXT,
    values=st.sampled_from(["known", "old_unknown", "truncated_255", "not_stored"]),
    old_label=st.none() | st.text(max_size=8),
    new_label=st.none() | st.text(max_size=8),
    changed_ms=MS,
    precision=st.sampled_from(["ms", "s"]),
    changed_by=st.none() | TEXT,
    origin=st.sampled_from(["change_event", "history_row", "resync"]),
    match=st.sampled_from(Match),
    history_ids=st.lists(TEXT, max_size=2).map(tuple) | st.just(("017a",)),
    event_id=st.none() | st.just("e"),
    window_id=st.none() | TEXT,
    seen_ms=MS,
    row_ms=st.just(0),
)
ROWS = st.builds(lambda fact, ms: replace(fact, row_ms=ms if fact.history_ids else None), FACT, MS)
REFRESH = st.none() | st.builds(Refresh, MS, st.integers(0, 9), st.sampled_from(["ended", "unknown"]))


def fields(entry: LedgerEntry) -> tuple[Any, ...]:
    return (entry.entity, entry.record_id, entry.facts, entry.refresh)


@given(st.lists(ROWS, max_size=3).map(tuple), REFRESH)
def test_what_is_written_is_read_back(facts: tuple[HistoryFact, ...], refresh: Refresh | None) -> None:
    entry = LedgerEntry("MessagingSession", RECORD, facts, refresh)
    record = encode_ledger(TOPICS, entry)
    checked(record)
    assert (record.topic, record.key, record.headers) == (TOPICS.ledger, RECORD.encode(), ())
    read = decode_ledger(record.key, record.value)
    if entry.empty:
        assert (record.value, read) == (None, None)
    else:
        assert read is not None
        assert fields(read) == fields(entry)


FULL = LedgerEntry(
    "MessagingSession",
    RECORD,
    (
        HistoryFact(
            f"e:{RECORD}:Status", 1, False, RECORD, "Status", "Status", "a", "b", None, "known", None, None, 5, "ms",
            "005", "change_event", Match.PENDING, event_id="e", seen_ms=6,
        ),
    ),
    Refresh(7, 1, "ended"),
)  # fmt: skip


def value_of(**changes: Any) -> bytes:
    value = orjson.loads(encode_ledger(TOPICS, FULL).value or b"")
    for name, new in changes.items():
        outer, _, inner = name.partition("__")
        if inner:
            (value[outer][0] if outer == "facts" else value[outer])[inner] = new
        else:
            value[outer] = new
    return orjson.dumps(value)


def test_a_waiting_fact_is_short() -> None:
    assert len(value_of()) < 220


def test_a_newer_version_halts_with_advice() -> None:
    with pytest.raises(ForeignStateError, match="version 2") as caught:
        decode_ledger(RECORD.encode(), value_of(v=2))
    assert caught.value.advice


@pytest.mark.parametrize(
    "wrong",
    [
        {"entity": None},
        {"facts": "x"},
        {"facts": ["x"]},
        {"facts__field": 5},
        {"facts__at": "5"},
        {"facts__seen": None},
        {"facts__match": "perhaps"},
        {"facts__values": "perhaps"},
        {"facts__rows": [1]},
        {"facts__rows": "x"},
        {"facts__event": None},
        {"facts__final": 1},
        {"refresh": 5},
        {"refresh__reason": "perhaps"},
        {"refresh__due_ms": True},
    ],
)
def test_what_is_not_ours_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ForeignStateError):
        decode_ledger(RECORD.encode(), value_of(**wrong))


def test_fields_of_later_versions_are_ignored() -> None:
    read = decode_ledger(RECORD.encode(), value_of(more=1, facts__more=2))
    assert read is not None
    assert fields(read) == fields(FULL)


def test_an_entry_beyond_the_limit_keeps_what_can_be_compared() -> None:
    long = replace(FULL.facts[0], old="x" * MAX_RECORD_BYTES)
    record = encode_ledger(TOPICS, LedgerEntry("MessagingSession", RECORD, (long,)))
    checked(record)
    read = decode_ledger(record.key, record.value)
    assert read is not None
    assert (read.facts[0].old, read.facts[0].values) == ("x" * 255, "truncated_255")
