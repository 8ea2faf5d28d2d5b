"""The ledger: what an org published against what a read-committed reader of Kafka sees.

One checker for every end-to-end test. Each record id of each published event must be there exactly once, in the
order of publication per record id, with a value and headers of the promised shape that tell the ledger's facts;
or a loss window on ``coverage`` must cover it. It shares no code with the service it judges.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.contract.topic_schemas import RecordShapeError, kind_of, validate_record
from tests.kafka_reader import ReadRecord

_REAL_ID = re.compile(r"(?!0{15})[A-Za-z0-9]{18}")
_TOLD = frozenset({"CREATE", "UPDATE", "DELETE", "UNDELETE", "GAP_DELETE"})
_SHOWN = 10
"""Findings of one kind that a summary spells out."""

SNAPSHOT_MISSING = "no_snapshot"
"""Reason of the window of a first start. It covers no event: whatever is retained is streamed."""


@dataclass(frozen=True, slots=True)
class Published:
    """One event as the org published it.

    Attributes:
        index: place in the order of publication.
        counter: its replay id as a number; several events can share one.
        commit_ms: commit time, epoch milliseconds.
    """

    index: int
    topic: str
    event_id: str
    entity: str
    change_type: str
    record_ids: tuple[str, ...]
    counter: int
    commit_ms: int
    published_ms: int
    schema_id: str
    transaction_key: str
    sequence_number: int
    poison: bool

    @property
    def real_ids(self) -> tuple[str, ...]:
        """Ids that name one record: no wildcard, no placeholder, none twice."""
        return tuple(each for each in dict.fromkeys(self.record_ids) if _REAL_ID.fullmatch(each))

    @property
    def tells(self) -> bool:
        """Whether it says what happened to a record; gaps, overflows and wildcards don't."""
        return self.change_type in _TOLD and bool(self.real_ids)


def published_events(lines: Iterable[Mapping[str, Any]], topics: Iterable[str] | None = None) -> list[Published]:
    """Return the events of ``GET /control/ledger``.

    Args:
        lines: the answer's ``events``.
        topics: topics of the org that are subscribed to; None takes all.
    """
    wanted = None if topics is None else frozenset(topics)
    return [
        Published(
            index=line["index"],
            topic=line["topic"],
            event_id=line["event_id"],
            entity=line["entity"],
            change_type=line["change_type"],
            record_ids=tuple(line["record_ids"]),
            counter=counter_of(line["replay_id"]),
            commit_ms=line["commit_ms"],
            published_ms=line["published_ms"],
            schema_id=line["schema_id"],
            transaction_key=line["transaction_key"],
            sequence_number=line["sequence_number"],
            poison=line["poison"],
        )
        for line in lines
        if wanted is None or line["topic"] in wanted
    ]


def counter_of(replay_id: str) -> int:
    """Return a replay id, in base64, as the emulated org counts: 8 bytes, big-endian, and two zero bytes."""
    return int.from_bytes(b64decode(replay_id)[:8], "big")


@dataclass(frozen=True, slots=True)
class Window:
    """A loss window as it was opened on ``coverage``."""

    window_id: str
    channel: str
    reason: str
    from_ms: int | None
    to_ms: int | None
    record_ids: frozenset[str]
    event_id: str | None

    def covers(self, event: Published, record_id: str | None) -> bool:
        """Tell whether this window owns up to the loss of an event, or of one record's part in it."""
        if self.reason == SNAPSHOT_MISSING:
            return False
        if self.event_id is not None:
            return self.event_id == event.event_id
        if entity_topic(self.channel) not in {None, event.topic}:
            return False
        if self.record_ids and record_id not in self.record_ids:
            return False
        return (self.from_ms is None or self.from_ms <= event.commit_ms) and (
            self.to_ms is None or event.commit_ms <= self.to_ms
        )


def opened_window(key: bytes | None, value: Mapping[str, Any]) -> Window | None:
    """Return the window that a record of ``coverage`` opens, None for one that opens none."""
    if value["kind"] != "loss_opened":
        return None
    return Window(
        value["window_id"],
        (key or b"").decode(),
        value["reason"],
        _ms(value["from"]),
        _ms(value["to"]),
        frozenset(value["record_ids"]),
        value["event_id"],
    )


def entity_topic(channel: str) -> str | None:
    """Return the topic itself for a channel of one object, None for one of several."""
    return None if channel.endswith(("__chn", "/ChangeEvents")) else channel


@dataclass(slots=True)
class Findings:
    """What the comparison found; every list tells precisely which record is meant.

    Attributes:
        events: events that were published.
        records: records of the ``changes`` topics.
        quarantined: records of ``quarantine``.
        covered: records' changes that are missing and owned up to by a loss window.
        lost: missing, and no window covers them.
        repeated: there more than once.
        out_of_order: behind a later change of the same record.
        malformed: not of the promised shape, or not telling the ledger's facts.
        unexpected: belonging to no published event.
    """

    events: int = 0
    records: int = 0
    quarantined: int = 0
    covered: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)
    malformed: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    windows: dict[str, Window] = field(default_factory=dict)

    @property
    def faults(self) -> dict[str, list[str]]:
        """Everything that must be empty."""
        return {
            name: found
            for name in ("lost", "repeated", "out_of_order", "malformed", "unexpected")
            if (found := getattr(self, name))
        }

    def __str__(self) -> str:
        counts = (
            f"{self.events} events, {self.records} records, {self.quarantined} quarantined, "
            f"{len(self.covered)} covered by {len(self.windows)} windows; {len(self.lost)} lost, "
            f"{len(self.repeated)} repeated, {len(self.out_of_order)} out of order, {len(self.malformed)} malformed, "
            f"{len(self.unexpected)} unexpected"
        )
        told = [f"{name}: {each}" for name, found in self.faults.items() for each in found[:_SHOWN]]
        return "\n  ".join([counts, *told])

    def require_clean(self) -> None:
        """Raise AssertionError, with what was found, unless every promise was kept."""
        assert not self.faults, str(self)


def check(published: Sequence[Published], records: Sequence[ReadRecord], *, replay_ids_kept: bool = True) -> Findings:
    """Compare what was published with what is committed.

    Args:
        published: every event of the subscribed topics, in the order of publication.
        records: every committed record of all ``changes`` topics, ``coverage`` and ``quarantine``, in order of
            offset within each partition; records of other topics are ignored.
        replay_ids_kept: False after the org gave its events new replay ids.
    """
    return _Comparison(published, replay_ids_kept=replay_ids_kept).run(records)


class _Comparison:
    def __init__(self, published: Sequence[Published], *, replay_ids_kept: bool) -> None:
        self._published = published
        self._by_id = {event.event_id: event for event in published}
        self._replay_ids_kept = replay_ids_kept
        self._found = Findings(events=len(published))
        self._changes: dict[tuple[str, str], int] = {}
        self._last: dict[str, tuple[int, str]] = {}
        self._homes: dict[str, tuple[str, int]] = {}
        self._quarantined: dict[str, int] = {}
        self._coverage: set[str] = set()

    def run(self, records: Sequence[ReadRecord]) -> Findings:
        readers: dict[str, Callable[[ReadRecord, Any], None]] = {
            "changes": self._change,
            "coverage": self._cover,
            "quarantine": self._quarantine,
        }
        for record in records:
            kind = kind_of(record.topic)
            if kind not in readers:
                continue
            try:
                value = validate_record(kind, record.key, record.value, tuple(record.headers.items()))
            except RecordShapeError as error:
                self._found.malformed.append(f"{_place(record)}: {error}")
                continue
            readers[kind](record, value)
        for event in self._published:
            self._account_for(event)
        return self._found

    def _change(self, record: ReadRecord, value: Mapping[str, Any]) -> None:
        found, source = self._found, value["source"]
        if source["event_id"] is None:
            return  # a row that was read: what it says is held against the org's records elsewhere
        found.records += 1
        event_id, record_id = source["event_id"], source["record_id"]
        name = f"{event_id}:{record_id}"
        event = self._by_id.get(event_id)
        if event is None or record_id not in event.real_ids:
            found.unexpected.append(f"{name} at {_place(record)}")
            return
        wrong = self._contradictions(event, record, source)
        if wrong:
            found.malformed.append(f"{name} at {_place(record)}: {', '.join(wrong)}")
        seen = self._changes[event_id, record_id] = self._changes.get((event_id, record_id), 0) + 1
        if seen > 1:
            found.repeated.append(f"{name} (event {event.index}), time {seen} at {_place(record)}")
            return
        before = self._last.get(record_id)
        if before is not None and before[0] > event.index:
            found.out_of_order.append(f"{name} (event {event.index}) behind {before[1]} (event {before[0]})")
        else:
            self._last[record_id] = (event.index, name)

    def _contradictions(self, event: Published, record: ReadRecord, source: Mapping[str, Any]) -> list[str]:
        home = self._homes.setdefault(event.entity + (record.key or b"").decode(), (record.topic, record.partition))
        facts = {
            "ce_id names another change": record.headers["ce_id"].decode() == f"{event.event_id}:{source['record_id']}",
            "its record is in two partitions": home == (record.topic, record.partition),
            "another object": source["table"] == event.entity,
            "another change type": source["change_type"] == event.change_type,
            "another schema": source["schema_id"] == event.schema_id,
            "another transaction": source["transaction_key"] == event.transaction_key,
            "another sequence number": source["sequence_number"] == event.sequence_number,
            "another commit time": source["ts_ms"] == event.commit_ms,
            "another replay id": not self._replay_ids_kept or counter_of(source["replay_id"]) == event.counter,
        }
        return [fault for fault, holds in facts.items() if not holds]

    def _cover(self, record: ReadRecord, value: Mapping[str, Any]) -> None:
        if value["id"] in self._coverage:
            self._found.repeated.append(f"coverage {value['id']} at {_place(record)}")
        self._coverage.add(value["id"])
        window = opened_window(record.key, value)
        if window is not None:
            self._found.windows[window.window_id] = window

    def _quarantine(self, record: ReadRecord, value: bytes | None) -> None:
        self._found.quarantined += 1
        event_id = record.headers["event_id"].decode()
        if event_id not in self._by_id:
            self._found.unexpected.append(f"quarantined {event_id} at {_place(record)}")
        seen = self._quarantined[event_id] = self._quarantined.get(event_id, 0) + 1
        if seen > 1:
            self._found.repeated.append(f"quarantined {event_id}, time {seen} at {_place(record)}")

    def _account_for(self, event: Published) -> None:
        for record_id in event.real_ids if event.tells else (None,):
            if record_id is not None and (event.event_id, record_id) in self._changes:
                continue
            name = f"{event.event_id}:{record_id} (event {event.index}, {event.change_type} of {event.topic})"
            if any(window.covers(event, record_id) for window in self._found.windows.values()):
                self._found.covered.append(name)
            else:
                self._found.lost.append(name)


@dataclass(frozen=True, slots=True)
class CommittedPosition:
    """What a record of ``positions`` says.

    Attributes:
        counter: all events up to this replay id are done; None before the first is known complete.
        beyond: ids of events done after it.
    """

    channel: str
    counter: int | None
    beyond: tuple[str, ...]


def committed_positions(records: Iterable[ReadRecord]) -> list[CommittedPosition]:
    """Return every position that ``positions`` held, validated, in order."""
    found: list[CommittedPosition] = []
    for record in records:
        if kind_of(record.topic) == "positions":
            value = validate_record("positions", record.key, record.value)
            if (record.key or b"").startswith(b"position:") and value is not None:
                replay_id = value["replay_id"]
                counter = None if replay_id is None else counter_of(replay_id)
                found.append(CommittedPosition(value["channel"], counter, tuple(value["beyond"])))
    return found


def ahead_of_records(
    published: Sequence[Published], records: Sequence[ReadRecord], *, expected_from: int = 0
) -> list[str]:
    """Return the changes that the newest committed positions claim and that are not committed.

    Args:
        published: as for :func:`check`.
        records: as for :func:`check`, with the records of ``positions``.
        expected_from: index of the first event that the position may claim; for streams begun at LATEST.
    """
    newest = {each.channel: each for each in committed_positions(records)}
    claimed = [
        event
        for event in published
        for position in newest.values()
        if event.index >= expected_from
        and entity_topic(position.channel) in {None, event.topic}
        and (event.event_id in position.beyond or (position.counter is not None and event.counter <= position.counter))
    ]
    return check(claimed, records).lost


def _ms(text: str | None) -> int | None:
    return None if text is None else round(datetime.fromisoformat(text).timestamp() * 1000)


def _place(record: ReadRecord) -> str:
    return f"{record.topic}[{record.partition}]@{record.offset}"
