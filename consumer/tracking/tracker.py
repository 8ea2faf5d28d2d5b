"""Keeps what is known of every record, and says of each event and row what changed: before, after, which fields."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from consumer.events import ChangeEvent, ChangeType
from consumer.tracking.arrivals import MetricsRead, Purpose, RowsRead
from consumer.tracking.changes import TrackedChange
from consumer.tracking.event_moves import OPS, EventMoves
from consumer.tracking.images import Plan, bare_image
from consumer.tracking.marks import MAX_TOUCHED, ReadMarks
from consumer.tracking.row_moves import RowMoves
from consumer.tracking.states import States
from consumer.tracking.values import EntityFacts, Key, RecordState

_LASTING_GAPS = frozenset({ChangeType.GAP_CREATE, ChangeType.GAP_UNDELETE})
_PLANS_KEPT = 1024


class Tracker:
    """Moves images by events and rows; pure and synchronous.

    Args:
        states: where states are found and put.
        epoch: counts lost positions.
        max_touched: touched records remembered at most while reads are under way.

    Attributes:
        epoch: may be set when a position is lost.
    """

    def __init__(
        self,
        states: States,
        *,
        epoch: int = 0,
        max_touched: int = MAX_TOUCHED,
    ) -> None:
        self.epoch = epoch
        self._states = states
        self._marks = ReadMarks(max_touched)
        self._fields: dict[str, tuple[str, ...]] = {}
        self._facts: dict[str, EntityFacts] = {}
        self._plans: dict[tuple[str, int], tuple[tuple[str, ...], Plan]] = {}
        self._doubtful: dict[Key, None] = {}

    def learn(self, entity: str, schema_fields: tuple[str, ...]) -> None:
        """Take in the body fields of the newest event schema of an object, the field policy applied.

        Images keep their values; a new field is unknown, a removed one leaves an image with its next change.
        """
        if self._fields.get(entity) != schema_fields:
            self._fields[entity] = schema_fields
            self._plans.clear()

    def set_facts(self, facts: EntityFacts) -> None:
        """Take in what describe says of an object."""
        self._facts[facts.entity] = facts
        self._plans.clear()

    def facts(self, entity: str) -> EntityFacts:
        """Return what is known of an object."""
        return self._facts.get(entity) or EntityFacts(entity)

    def begin_read(self) -> int:
        """Return the mark of a request about to be sent: what events set after it, its rows do not overwrite."""
        return self._marks.begin()

    def end_read(self, mark: int) -> None:
        """Forget the mark of a request that brought no rows."""
        self._marks.end(mark)

    def take_doubtful(self) -> list[Key]:
        """Return records that must be read again, each once: a diff that fits nothing, a row that proves nothing."""
        found = list(self._doubtful)
        self._doubtful.clear()
        return found

    def suspect(self, entity: str, record_ids: Iterable[str], cause: str, at_ms: int) -> None:
        """Put records in doubt: something changed, and no event tells what.

        Args:
            entity: object API name.
            record_ids: 18-character ids.
            cause: change type of a gap event, or another word.
            at_ms: commit time of what is not told, epoch milliseconds.
        """
        for record_id in record_ids:
            key = (entity, record_id)
            state = self._states.get(key)
            if state is None:
                unknown = self._fields.get(entity, ())
                state = RecordState(entity, record_id, {}, bare_image(record_id), unknown, gap=cause)
            else:
                gap = state.gap if state.gap in _LASTING_GAPS else cause
                image_json = state.image_json if state.deleted else bare_image(record_id)
                state = replace(state, gap=gap, suspect=frozenset(state.image), image_json=image_json)
            self._states.put(state)
            if self._marks.any_open:
                self._marks.doubted(key, at_ms)

    def on_event(self, change: ChangeEvent) -> list[TrackedChange]:
        """Take in an event and return what became of each of its records, in their order.

        Gap events but GAP_DELETE, and change types this version does not know, put their records in doubt and give
        nothing; so do overflows and wildcards, which name no record.
        """
        header = change.header
        entity, commit_ms = header.entity, header.commit_ms
        if entity not in self._fields:
            self.learn(entity, change.schema_fields)
        op = OPS.get(change.change_type)
        if op is None:
            if change.change_type != ChangeType.GAP_OVERFLOW:
                self.suspect(entity, change.record_ids, change.change_type, commit_ms)
            return []
        moves = EventMoves(change, self._plan(entity, change.schema_fields), self.epoch)
        states, marks = self._states, self._marks
        found = []
        for index, record_id in enumerate(change.record_ids):
            key = (entity, record_id)
            state = states.get(key)
            moved, told, doubtful = moves.apply(index, state)
            states.put(moved)
            found.append(told)
            if doubtful:
                self._doubtful[key] = None
            if marks.any_open and not told.late:
                if op == "u":
                    marks.set_fields(key, change.changed_fields, commit_ms)
                else:
                    marks.replaced(key, commit_ms)
        return found

    def on_rows(self, read: RowsRead) -> list[TrackedChange]:
        """Take in rows and return the changes to be emitted; ends the mark of the read, unless more of it follows.

        Rows read because nothing was known of a record (UNKNOWN) give no changes: the event that follows tells.
        """
        mark = read.mark
        provable = mark is not None and self._marks.is_open(mark)
        moves = RowMoves(read, self._plan_of_rows(read), provable=provable)
        found = []
        for record_id, row in (*((row.record_id, row) for row in read.rows), *((gone, None) for gone in read.missing)):
            key = (read.entity, record_id)
            state = self._states.get(key)
            touch = self._marks.since(mark, key) if mark is not None else None
            moved = moves.missing(record_id, state, touch) if row is None else moves.apply(row, state, touch)
            if moved.change is not None:
                found.append(moved.change)
            if moved.state is not None:
                self._states.put(moved.state)
                if mark is not None and self._marks.others_open(mark):
                    self._marks.taken(key, mark)
            if moved.doubtful:
                self._doubtful[key] = None
        if mark is not None and not read.more:
            self._marks.end(mark)
        if read.purpose is Purpose.SNAPSHOT and read.last and found:
            found[-1] = replace(found[-1], snapshot="last")
        return found

    def on_metrics(self, read: MetricsRead) -> bool:
        """Join metrics into states; returns whether any was new. No change is emitted for them."""
        news = False
        for record_id, metrics in read.metrics.items():
            state = self._states.get((read.entity, record_id))
            if state is not None and not state.deleted and state.metrics != metrics:
                self._states.put(replace(state, metrics=dict(metrics)))
                news = True
        return news

    def on_expired(self, entity: str, record_ids: Iterable[str]) -> None:
        """Remove the states of records whose grace after deletion is over, but of those that came back."""
        for record_id in record_ids:
            state = self._states.get((entity, record_id))
            if state is not None and state.deleted:
                self._states.remove((entity, record_id))

    def _plan_of_rows(self, read: RowsRead) -> Plan:
        fields = self._fields.get(read.entity)
        if fields is None:  # no event schema yet: what the rows have is all there is to know
            fields = tuple(dict.fromkeys(name for row in read.rows for name in row.values))
        return self._plan(read.entity, fields)

    def _plan(self, entity: str, schema_fields: tuple[str, ...]) -> Plan:
        """Return what is to be known of an object's records, as an event with these body fields sees it."""
        found = self._plans.get((entity, id(schema_fields)))
        if found is not None and found[0] is schema_fields:
            return found[1]
        if len(self._plans) >= _PLANS_KEPT:
            self._plans.clear()
        fields = self._fields.get(entity, schema_fields)
        facts = self.facts(entity)
        silent_is_null = facts.visible is not None
        nulls = (
            frozenset(schema_fields).intersection(fields, facts.visible or ()) - facts.not_in_events
            if silent_is_null
            else frozenset()
        )
        plan = Plan(fields, frozenset(fields), nulls)
        self._plans[entity, id(schema_fields)] = (schema_fields, plan)
        return plan
