"""The ledger checker finds what it is there to find; a checker that finds nothing would pass everything."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from consumer.delivery.coverage import Coverage, window_for_change, window_for_lost_position, window_for_quarantine
from consumer.delivery.envelope import Envelope
from consumer.delivery.positions import CommittedPosition, encode_entry
from consumer.delivery.quarantine import Quarantine
from consumer.errors import PayloadError
from consumer.events import LossWindow, OutboundRecord
from consumer.position import Position
from tests.delivery_values import CHANNEL, ORG, TOPICS, change, received
from tests.kafka_reader import ReadRecord
from tests.ledger import Published, ahead_of_records, check, published_events
from tests.tracking_values import untracked

RECORDS = ("0Mw000000000001AAA", "0Mw000000000002AAA", "0Mw000000000003AAA")
FIRST_MS = 1_790_000_000_000
EVENTS = 12
MERGED = 6
"""Index of the one event here that names two records."""


def replay_id(number: int) -> bytes:
    return number.to_bytes(8, "big") + b"\x00\x00"


def event_id(number: int) -> str:
    return f"6f1b2b6e-30a8-4c1e-9d36-{number:012d}"


def ids_of(number: int) -> tuple[str, ...]:
    return RECORDS[:2] if number == MERGED else (RECORDS[number % 3],)


def published(number: int, **changes: object) -> Published:
    event = Published(
        index=number,
        topic=CHANNEL,
        event_id=event_id(number),
        entity="MessagingSession",
        change_type="UPDATE",
        record_ids=ids_of(number),
        counter=100 + number,
        commit_ms=FIRST_MS + 1000 * number,
        published_ms=FIRST_MS + 1000 * number + 5,
        schema_id=received().schema_id,
        transaction_key=f"key-{number}",
        sequence_number=1,
        poison=False,
    )
    return replace(event, **changes)  # type: ignore[arg-type]  # a test's own keywords


def changed(number: int, change_type: str = "UPDATE") -> object:
    return change(
        change_type,
        ids_of(number),
        {"Status": "Active"},
        changed_fields=("Status",),
        event=received(event_id=event_id(number), replay_id=replay_id(100 + number)),
        commit_ms=FIRST_MS + 1000 * number,
        transaction_key=f"key-{number}",
        sequence_number=1,
    )


def read(records: list[OutboundRecord]) -> list[ReadRecord]:
    """Return the records as a reader sees them, all of one topic in one partition."""
    offsets: dict[str, int] = {}
    seen: list[ReadRecord] = []
    for record in records:
        offset = offsets[record.topic] = offsets.get(record.topic, -1) + 1
        seen.append(ReadRecord(record.topic, 0, offset, record.key, record.value, dict(record.headers), FIRST_MS))
    return seen


ENVELOPE = Envelope(ORG, "session-consumer", "0.1.0", TOPICS)
COVERAGE = Coverage(ORG, TOPICS)


@pytest.fixture
def ledger() -> list[Published]:
    return [published(number) for number in range(EVENTS)]


@pytest.fixture
def committed() -> list[ReadRecord]:
    return read([record for number in range(EVENTS) for record in untracked(ENVELOPE, changed(number))])  # type: ignore[arg-type]  # a ChangeEvent


def opened(window: LossWindow | None) -> ReadRecord:
    assert window is not None
    return read([COVERAGE.opened(window, FIRST_MS)])[0]


def test_nothing_is_found_where_nothing_is_wrong(ledger: list[Published], committed: list[ReadRecord]) -> None:
    found = check(ledger, committed)
    found.require_clean()
    assert (found.events, found.records, found.covered) == (EVENTS, EVENTS + 1, [])


def test_a_missing_record_is_lost(ledger: list[Published], committed: list[ReadRecord]) -> None:
    gone = committed.pop(4)
    found = check(ledger, committed)
    assert list(found.faults) == ["lost"]
    assert len(found.lost) == 1
    assert found.lost[0].startswith(gone.headers["ce_id"].decode())
    with pytest.raises(AssertionError, match="1 lost"):
        found.require_clean()


def test_one_missing_record_of_a_merged_event_is_lost(ledger: list[Published], committed: list[ReadRecord]) -> None:
    name = f"{event_id(MERGED)}:{RECORDS[1]}"
    left = [record for record in committed if record.headers["ce_id"].decode() != name]
    assert [each.split(" ")[0] for each in check(ledger, left).lost] == [name]


def test_a_record_that_is_there_twice_is_repeated(ledger: list[Published], committed: list[ReadRecord]) -> None:
    found = check(ledger, [*committed, replace(committed[3], offset=99)])
    assert list(found.faults) == ["repeated"]
    assert found.repeated[0].startswith(committed[3].headers["ce_id"].decode())
    assert "@99" in found.repeated[0]


def test_swapped_records_of_one_session_are_out_of_order(ledger: list[Published], committed: list[ReadRecord]) -> None:
    committed[0], committed[3] = committed[3], committed[0]
    assert committed[0].key == committed[3].key
    found = check(ledger, committed)
    assert list(found.faults) == ["out_of_order"]
    assert found.out_of_order[0].startswith(event_id(0))


def test_swapped_records_of_two_sessions_are_nothing(ledger: list[Published], committed: list[ReadRecord]) -> None:
    committed[0], committed[1] = committed[1], committed[0]
    check(ledger, committed).require_clean()


def altered(record: ReadRecord, alter: Callable[[Any], object]) -> ReadRecord:
    value = orjson.loads(record.value or b"")
    alter(value)
    return replace(record, value=orjson.dumps(value))


@pytest.mark.parametrize(
    "corrupt",
    [
        lambda record: replace(record, value=(record.value or b"")[:-1]),
        lambda record: replace(record, key=RECORDS[2].encode()),
        lambda record: replace(record, headers={**record.headers, "ce_id": b"another"}),
        lambda record: replace(record, partition=1),
        lambda record: altered(record, lambda value: value.update(op="x")),
        lambda record: altered(record, lambda value: value["source"].update(replay_id=b64encode(b"x" * 10).decode())),
        lambda record: altered(record, lambda value: value["source"].update(transaction_key="key-9")),
        lambda record: altered(record, lambda value: value["source"].update(ts_ms=1)),
    ],
    ids=["cut", "key", "ce_id", "partition", "op", "replay_id", "transaction_key", "ts_ms"],
)
def test_a_corrupted_record_is_malformed(
    ledger: list[Published], committed: list[ReadRecord], corrupt: Callable[[ReadRecord], ReadRecord]
) -> None:
    committed[4] = corrupt(committed[4])
    found = check(ledger, committed)
    assert len(found.malformed) == 1, str(found)


def test_a_record_of_no_event_is_unexpected(ledger: list[Published], committed: list[ReadRecord]) -> None:
    found = check(ledger[:-1], committed)
    assert list(found.faults) == ["unexpected"]
    assert found.unexpected[0].startswith(event_id(EVENTS - 1))


def test_quarantine_and_its_window_cover_an_event(ledger: list[Published], committed: list[ReadRecord]) -> None:
    gone = committed.pop(4)
    event = received(event_id=event_id(4), replay_id=replay_id(104))
    error = PayloadError("The payload ends too early")
    window = window_for_quarantine(event, error)
    record = read([Quarantine(ORG, TOPICS, allow_raw=True).record(event, error, window)])[0]
    found = check(ledger, [*committed, record, opened(window)])
    found.require_clean()
    assert [each.split(" ")[0] for each in found.covered] == [gone.headers["ce_id"].decode()]
    # Without the window it is a loss that only a log line tells of.
    assert len(check(ledger, [*committed, record]).lost) == 1
    assert check(ledger, [*committed, record, record, opened(window)]).repeated
    assert check(ledger, [*committed, record, opened(window), opened(window)]).repeated


def test_a_span_covers_only_what_was_committed_in_it(ledger: list[Published], committed: list[ReadRecord]) -> None:
    window = window_for_lost_position(CHANNEL, Position(), FIRST_MS + 3000, FIRST_MS + 5000, "expired")
    kept = [record for record in committed if orjson.loads(record.value or b"")["source"]["ts_ms"] <= FIRST_MS + 2000]
    found = check(ledger, [*kept, opened(window)])
    assert [each.split(" ")[0] for each in found.covered] == [f"{event_id(n)}:{RECORDS[n % 3]}" for n in (3, 4, 5)]
    assert len(found.lost) == EVENTS + 1 - 3 - 3


def test_the_window_of_a_first_start_covers_nothing(ledger: list[Published], committed: list[ReadRecord]) -> None:
    window = LossWindow("start:1", f"changes:{CHANNEL}", "no_snapshot", None, FIRST_MS + 99_000)
    committed.pop(0)
    assert len(check(ledger, [*committed, opened(window)]).lost) == 1


def test_a_gap_needs_its_window(ledger: list[Published], committed: list[ReadRecord]) -> None:
    ledger[2] = published(2, change_type="GAP_UPDATE")
    committed = [record for record in committed if event_id(2) not in record.headers["ce_id"].decode()]
    assert len(check(ledger, committed).lost) == 1
    check(ledger, [*committed, opened(window_for_change(changed(2, "GAP_UPDATE")))]).require_clean()  # type: ignore[arg-type]  # a ChangeEvent


def position(counter: int | None, *beyond: int) -> ReadRecord:
    place = Position(
        replay_id=None if counter is None else replay_id(counter),
        beyond_replay_id=replay_id(100 + beyond[0]) if beyond else None,
        beyond=tuple(map(event_id, beyond)),
    )
    return read([encode_entry(TOPICS, CommittedPosition(CHANNEL, place, None, FIRST_MS, "w"))])[0]


def test_a_position_must_not_be_ahead_of_the_records(ledger: list[Published], committed: list[ReadRecord]) -> None:
    part = committed[:5]
    assert ahead_of_records(ledger, [*part, position(103, 4)]) == []
    assert [each.split(":")[0] for each in ahead_of_records(ledger, [*part, position(103, 4, 5)])] == [event_id(5)]
    assert [each.split(":")[0] for each in ahead_of_records(ledger, [*part, position(105)])] == [event_id(5)]
    # Only the newest position counts.
    assert ahead_of_records(ledger, [*part, position(105), position(None, 0)]) == []


def test_ledger_lines_are_read_and_other_topics_left_out() -> None:
    line = {
        "index": 7, "topic": CHANNEL, "event_id": event_id(7), "entity": "MessagingSession", "change_type": "CREATE",
        "record_ids": [RECORDS[0], "000000000000000AAA", "0Mw*"], "commit_ms": 1, "published_ms": 2, "schema_id": "s",
        "transaction_key": "k", "sequence_number": 1, "replay_id": b64encode(replay_id(107)).decode(), "poison": False,
        "retained": True,
    }  # fmt: skip
    events = published_events([line, {**line, "topic": "/data/AccountChangeEvent"}], [CHANNEL])
    assert [(event.index, event.counter, event.real_ids) for event in events] == [(7, 107, (RECORDS[0],))]
