"""Images against two references: a small org whose events and rows come in any order, and the emulated org."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumer.changes.normalise import normalise
from consumer.changes.schema import EventSchema, compile_schema
from consumer.emulator.oracle import Oracle
from consumer.emulator.org import OrgEvent, OrgModel
from consumer.emulator.traffic import Traffic
from consumer.events import ChangeEvent, Json, ReceivedEvent
from consumer.tracking.arrivals import Purpose, RowsRead
from consumer.tracking.changes import TrackedChange
from consumer.tracking.images import whole
from consumer.tracking.tracker import Tracker
from consumer.tracking.values import EntityFacts, RecordState, Row
from tests.tracking_values import ENTITY, KEY, RECORD, S0, MemoryStates, event

FIELDS = ("V", "Status", "Text", "Address", "Hidden")
FACTS = EntityFacts(ENTITY, visible=frozenset(FIELDS), not_in_events=frozenset({"Hidden"}))
READS = (Purpose.REFRESH, Purpose.RESYNC, Purpose.REPAIR, Purpose.RECONCILE, Purpose.SNAPSHOT)


@dataclass
class Org:
    """One record of an org, its events that are not delivered yet, and rows under way."""

    values: dict[str, Json] | None = None
    deleted: bool = False
    now: int = 0
    stamp: int = 0
    count: int = 0
    stream: list[ChangeEvent] = field(default_factory=list)
    under_way: list[RowsRead] = field(default_factory=list)

    def save(self, change: dict[str, Json], *, gap: bool, as_diff: bool) -> None:
        """Change the record by whatever it can take now; its event is put into the stream."""
        self.count += 1
        old = self.values
        kind = "CREATE" if old is None else "UNDELETE" if self.deleted else "UPDATE"
        new = {**(old or {}), **change, "V": self.count, "Hidden": self.count * 10}
        if isinstance(change.get("Address"), dict):
            new["Address"] = whole({**((old or {}).get("Address") or {}), **change["Address"]})
        self.values, self.deleted, self.stamp = new, False, self.now
        carried = {name: value for name, value in new.items() if value is not None and name != "Hidden"}
        if gap:
            self._publish(f"GAP_{kind}", {})
        elif kind != "UPDATE":
            self._publish(kind, carried)
        else:
            self._publish(kind, *self._delta(old or {}, new, as_diff=as_diff))

    def _delta(self, old: dict[str, Json], new: dict[str, Json], *, as_diff: bool) -> tuple[dict[str, Json], list[str]]:
        values: dict[str, Json] = {"V": new["V"]}
        diffs = []
        for name in ("Status", "Text"):
            if old.get(name) != new.get(name):
                values[name] = new.get(name)
        if as_diff and isinstance(old.get("Text"), str) and isinstance(values.get("Text"), str):
            values["Text"] = one_line_diff(old["Text"], new["Text"])
            diffs.append("Text")
        before, after = old.get("Address") or {}, new.get("Address") or {}
        parts = {part: after.get(part) for part in {**before, **after} if before.get(part) != after.get(part)}
        if parts:
            values["Address"] = parts
        return values, diffs

    def delete(self, *, gap: bool) -> None:
        """Delete the record, if it is there."""
        if self.values is not None and not self.deleted:
            self.deleted, self.stamp = True, self.now
            self._publish("GAP_DELETE" if gap else "DELETE", {})

    def _publish(self, kind: str, values: dict[str, Json], diffs: list[str] | None = None) -> None:
        number = f"e{self.now}-{len(self.stream)}-{self.count}"
        self.stream.append(event(kind, self.now, values, diffs=diffs or (), fields=FIELDS, event_id=number))

    def answer(self, purpose: Purpose, mark: int) -> RowsRead:
        """Read the record by id, as it is now."""
        rows: tuple[Row, ...] = ()
        if self.values is not None:
            values = {name: self.values.get(name) for name in FIELDS}
            rows = (Row(RECORD, values, S0 + self.stamp * 1000, self.deleted),)
        missing = () if rows else (RECORD,)
        windows = ("w",) if purpose is Purpose.REPAIR else ()
        return RowsRead(purpose, ENTITY, rows, S0 + self.now * 1000 + 1000, mark, missing, windows)


def one_line_diff(old: str, new: str) -> str:
    """Return the diff between two texts of one line."""
    return f"--- \n+++ {sha256(new.encode()).hexdigest()}\n@@ -1,1 +1,1 @@\n-{old}\n+{new}"


class Reader:
    """A strict upsert reader: it keeps what it is not told of, and takes a told null for a null."""

    def __init__(self) -> None:
        self.row: dict[str, Json] | None = None
        self.version = 0
        self.last: TrackedChange | None = None

    def read(self, told: TrackedChange) -> None:
        assert told.version == self.version + 1
        self.version = told.version
        self.last = told
        if told.after is None:
            self.row = None
            return
        after = orjson.loads(told.after)
        assert not set(after) & set(told.unknown_fields)
        assert set(after) | {name for name in told.unknown_fields if not name.endswith(".*")} == {"Id", *FIELDS}
        self.row = {**({} if self.row is None or told.op == "c" else self.row), **after}


class Play:
    """The tracker between the org and the reader, watched."""

    def __init__(self) -> None:
        self.states = MemoryStates()
        self.tracker = Tracker(self.states)
        self.tracker.learn(ENTITY, FIELDS)
        self.tracker.set_facts(FACTS)
        self.reader = Reader()
        self.org = Org()

    @property
    def state(self) -> RecordState | None:
        """The record's state."""
        return self.states.get(KEY)

    def deliver(self) -> None:
        """Let the oldest event of the stream arrive; an unknown record is read first."""
        if not self.org.stream:
            return
        change = self.org.stream.pop(0)
        if change.change_type == "UPDATE" and (self.state is None or not self.state.image):
            self.take(self.org.answer(Purpose.UNKNOWN, self.tracker.begin_read()))
        before = self.state
        told = self.tracker.on_event(change)
        commit_ms = change.header.commit_ms
        blind = before is not None and before.row_read_ms is not None and commit_ms <= before.row_read_ms
        for each in told:
            if not (blind or each.late or each.op == "c" or before is None or before.deleted):
                assert each.before == before.image_json
            self._judge(each, before, may_go_back=blind and not each.late)

    def ask(self, purpose: Purpose) -> None:
        """Send a request; its rows are those of now and arrive some time."""
        self.org.under_way.append(self.org.answer(purpose, self.tracker.begin_read()))

    def take(self, read: RowsRead) -> None:
        """Let rows arrive."""
        before = self.state
        for each in self.tracker.on_rows(read):
            if each.op == "r" and each.before is not None and before is not None:
                assert each.before == before.image_json
            self._judge(each, before, may_go_back=False)

    def _judge(self, told: TrackedChange, before: RecordState | None, *, may_go_back: bool) -> None:
        self.reader.read(told)
        state = self.state
        assert state is not None
        assert state.version == told.version
        if told.after is not None:
            assert told.after == state.image_json or (told.late and state.deleted)
        if before is not None and not may_go_back and not state.deleted and "V" in before.image:
            assert state.image.get("V", before.image["V"]) >= before.image["V"]

    def finish(self) -> None:
        """Deliver everything, then repair until nothing is in doubt, then read what events do not carry."""
        while self.org.stream:
            self.deliver()
        while self.org.under_way:
            self.take(self.org.under_way.pop(0))
        for _ in range(5):
            if not self.tracker.take_doubtful() and not (self.state and self.state.stale):
                break
            self.org.now += 2
            self.take(self.org.answer(Purpose.REPAIR, self.tracker.begin_read()))
        else:
            raise AssertionError("repair does not end")
        self._compare(known_only=True)
        self.org.now += 2
        self.take(self.org.answer(Purpose.REFRESH, self.tracker.begin_read()))
        self._compare(known_only=False)
        assert self.tracker._marks.touched == 0

    def _compare(self, *, known_only: bool) -> None:
        state, org = self.state, self.org
        gone = org.values is None or org.deleted
        if state is None or state.deleted or not state.image:
            assert gone
            assert self.reader.row is None or not known_only
            return
        assert not gone
        assert org.values is not None
        for name in FIELDS:
            if known_only and (name == "Hidden" or name in state.unknown or name in state.incomplete):
                continue
            assert state.image[name] == org.values.get(name), name
            if not known_only or state.version:
                assert self.reader.row is not None
                assert self.reader.row[name] == org.values.get(name), name
        if not known_only:
            assert not state.unknown
            assert not state.incomplete
            assert state.image_kind in {"full", "completed"}


CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "Status": st.sampled_from(["New", "Active", "Ended", None]),
        "Text": st.sampled_from(["one", "two", "three", None]),
        "Address": st.dictionaries(
            st.sampled_from(["City", "Zip"]), st.sampled_from(["a", "b", None]), min_size=1, max_size=2
        ),
    },
)
STEPS = st.one_of(
    st.tuples(st.just("save"), CHANGES, st.sampled_from([False, False, False, True]), st.booleans()),
    st.tuples(st.just("delete"), st.booleans()),
    st.tuples(st.just("deliver")),
    st.tuples(st.just("deliver")),
    st.tuples(st.just("ask"), st.sampled_from(READS)),
    st.tuples(st.just("answer"), st.integers(0, 3)),
    st.tuples(st.just("wait"), st.integers(1, 4)),
)


_SAW_NOTHING_YET = [("ask", Purpose.REFRESH), ("save", {}, False, False), ("ask", Purpose.REFRESH), ("answer", 1)]


@given(st.lists(STEPS, max_size=40))
@example([*_SAW_NOTHING_YET, ("answer", 0)])
@example([_SAW_NOTHING_YET[0], ("save", {}, True, False), *_SAW_NOTHING_YET[2:], ("answer", 0)])
@settings(max_examples=400)
def test_images_end_as_the_org_whatever_comes_in_which_order(steps: list[tuple[Any, ...]]) -> None:
    play = Play()
    org = play.org
    for name, *given_ in steps:
        if name == "save":
            org.save(given_[0], gap=given_[1], as_diff=given_[2])
        elif name == "delete":
            org.delete(gap=given_[0])
        elif name == "deliver":
            play.deliver()
        elif name == "ask":
            play.ask(given_[0])
        elif name == "answer" and org.under_way:
            play.take(org.under_way.pop(given_[0] % len(org.under_way)))
        elif name == "wait":
            org.now += given_[0]
    play.finish()


# The emulated org


def _received(made: OrgEvent) -> ReceivedEvent:
    return ReceivedEvent("/data/ChangeEvents", made.event_id, made.schema_id, made.payload, b"\0" * 10, S0)


@pytest.mark.parametrize(("seed", "context"), [(1, 0), (2, 3)])
def test_images_of_the_emulated_org_s_events_are_the_oracle_s(seed: int, context: int) -> None:
    org = OrgModel(seed, diff_context=context)
    made = Traffic(org, seed, live=60).bulk(4_000, S0, per_second=40)
    oracle = Oracle(org)
    oracle.observe(made)
    schemas: dict[str, EventSchema] = {}
    states = MemoryStates()
    tracker = Tracker(states)
    told, diffs = 0, 0
    for each in made:
        if each.schema_id not in schemas:
            written = org.schema(each.schema_id)
            assert written is not None
            schemas[each.schema_id] = schema = compile_schema(each.schema_id, written.json)
            tracker.learn(each.entity, schema.schema_fields)
            tracker.set_facts(EntityFacts(each.entity, visible=frozenset(schema.schema_fields)))
        change = normalise(_received(each), schemas[each.schema_id])
        diffs += len(change.diff_fields)
        for one in tracker.on_event(change):
            told += 1
            state = states.states[each.entity, one.record_id]
            assert (one.after or b"") == state.image_json
            assert not state.stale
    assert diffs > 2
    assert told > 4_000
    assert tracker.take_doubtful() == []
    by_entity = {each.entity: schemas[each.schema_id] for each in made}
    for entity, schema in by_entity.items():
        for record_id in oracle.record_ids(entity):
            state = states.states[entity, record_id]
            expected = oracle.image(entity, record_id)
            if expected is None:
                assert state.deleted
                continue
            known = {name: value for name, value in state.image.items() if value is not None}
            assert known == dict(schema.canonical(expected))
            assert state.unknown == ()
            assert not state.incomplete
