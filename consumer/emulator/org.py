"""The emulated org: records, transactions, and the change events that transactions make.

Pure and deterministic: the same seed and the same calls give the same bytes. The rules of merging, gaps and
overflow are those of the Change Data Capture developer guide and of published captures.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from consumer.emulator.event_schemas import CHANGE_TYPES, BodyField, WriterSchema, standard_schemas
from consumer.emulator.oracle_truth import Truth
from consumer.emulator.org_companions import COMPANIONS, Companions
from consumer.emulator.org_events import DEFAULT_ORIGIN, EventMaker, OrgEvent, Poison
from consumer.emulator.org_history import HistoryRows
from consumer.emulator.org_metrics import SESSION, MetricsRecord
from consumer.emulator.org_records import Change, OrgRecord, Store, Transaction, TrueChange, takes
from consumer.emulator.record_ids import PLACEHOLDER_ID, PREFIXES, id18, numbered_id
from consumer.errors import EmulatorError

__all__ = ["Change", "OrgEvent", "OrgModel", "Poison"]

_FIRST_ID: Final = 7_613_541_000  # so that ids look as grown as a real org's


class OrgModel:
    """A Salesforce org's records and the events their changes make.

    Args:
        seed: the same seed and calls give the same events, byte for byte.
        org_id: 18-character organisation id.
        carry_derived: whether events carry derived fields such as ChannelType and the message counts; the
            guide says they don't.
        diff_context: unchanged lines around each change of a diff value.
        invisible: by entity, fields that the integration user may not see; events carry none of them.

    Attributes:
        store: the records, for readers that look at all of them; not to be changed.
        history: settings of the history rows.
        sharing: share rows and sharing rules of sessions, and who there is.
        feed: feed items of sessions.
        closed: by API name how objects are closed to the API user: ``invalid_type`` or ``no_access``.
        truth: the log of what happened, None unless a test wants it (set it before the first commit).
        ungroup_merged: emit merged events one per record with a shared replay id, as an enriched custom
            channel does.
        enrichment: entity to names of fields that UPDATE and DELETE events carry although unchanged; their
            entity's merged events are ungrouped.
        poison_ids: event ids of all events made by :meth:`poison`.
    """

    def __init__(
        self,
        seed: int,
        org_id: str = id18("00D5g00000AbCdE"),
        *,
        carry_derived: bool = False,
        diff_context: int = 0,
        invisible: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        self.org_id = org_id
        self.poison_ids: set[str] = set()
        self.default_user = numbered_id(PREFIXES["User"], 1)
        self._rng = random.Random(f"org:{seed}")  # noqa: S311  reproducible traffic, no secret
        self._store = Store(standard_schemas(), carry_derived, diff_context)
        for entity, fields in (invisible or {}).items():
            self._hide(entity, fields)
        self.truth: Truth | None = None
        self._companions = Companions(self._store, seed)
        self.history = self._companions.history
        self.sharing = self._companions.sharing
        self.feed = self._companions.feed
        self.closed: dict[str, str] = {}
        self._after = self._companions.after
        self._choice = random.Random(f"acts:{seed}")  # noqa: S311  reproducible acts, no secret
        self._maker = EventMaker(self._store, self._rng)
        self._next_id: dict[str, int] = {}
        self._first = dict(self._store.schemas)
        self._unfit: dict[str, frozenset[str]] = {}
        for schema in self._store.schemas.values():
            self._maker.learn(schema)

    @property
    def ungroup_merged(self) -> bool:
        """Whether merged events go out one per record with a shared replay id; see the class."""
        return self._maker.ungroup_merged

    @ungroup_merged.setter
    def ungroup_merged(self, wanted: bool) -> None:
        self._maker.ungroup_merged = wanted

    @property
    def enrichment(self) -> dict[str, tuple[str, ...]]:
        """Entity to enrichment fields; see the class."""
        return self._maker.enrichment

    @property
    def store(self) -> Store:
        """The org's records; see the class."""
        return self._store

    def _hide(self, entity: str, fields: Iterable[str]) -> None:
        hidden = frozenset(fields)
        known = COMPANIONS.get(entity)
        if known is None:
            self._store.table(entity)
            known = frozenset(self._store.schemas[entity].index)
        unknown = sorted(hidden - known)
        if unknown:
            raise EmulatorError(f"{entity} has no field {unknown[0]}", "Hide fields of its schema")
        self._store.invisible[entity] = hidden

    # Schemas

    def entities(self) -> tuple[str, ...]:
        """Return the object API names that have change events."""
        return tuple(self._store.schemas)

    def schema(self, schema_id: str) -> WriterSchema | None:
        """Return a writer schema that is or was in use, None if the id is unknown."""
        return self._maker.known.get(schema_id)

    def schema_json(self, schema_id: str) -> str | None:
        """Return a writer schema's JSON text, None if the id is unknown."""
        schema = self._maker.known.get(schema_id)
        return None if schema is None else schema.json

    def current_schema_id(self, entity: str) -> str:
        """Return the id of the schema that the entity's next event will have.

        Raises:
            EmulatorError: the org has no such entity.
        """
        self._store.table(entity)
        return self._store.schemas[entity].schema_id

    def change_schema(self, entity: str, add: Sequence[Mapping[str, Any]], remove: Sequence[str]) -> str:
        """Add and remove fields of an object and return the new schema id; see ``WriterSchema.with_fields``.

        Earlier events keep their schema. Values of removed fields are gone, without an event.

        Raises:
            EmulatorError: unknown entity or field, or a name that exists.
        """
        rows = self._store.table(entity)
        schema = self._store.schemas[entity].with_fields(add, remove)
        self._store.schemas[entity] = schema
        self._maker.learn(schema)
        first = self._first[entity]
        self._unfit[entity] = frozenset(
            name
            for name, field in first.by_name.items()
            if name not in schema.index or schema.by_name[name].doc_type != field.doc_type
        )
        tracked = self._store.tracked.get(entity)
        if tracked:
            self._store.tracked[entity] = tracked.difference(remove)
        for row in rows.values():
            for name in remove:
                row.values.pop(name, None)
        return schema.schema_id

    def added_fields(self, entity: str) -> tuple[BodyField, ...]:
        """Return the fields that schema changes have added to the entity."""
        known = self._first[entity].index
        return tuple(field for field in self._store.schemas[entity].fields if field.name not in known)

    # Records

    def new_id(self, entity: str) -> str:
        """Return a fresh 18-character id with the entity's key prefix."""
        number = self._next_id.get(entity, _FIRST_ID) + 1
        self._next_id[entity] = number
        return numbered_id(PREFIXES[entity], number)

    def row(self, entity: str, record_id: str) -> OrgRecord | None:
        """Return the stored record, deleted ones included; not to be changed by the caller."""
        return self._store.table(entity).get(record_id)

    def record(self, entity: str, record_id: str) -> dict[str, Any] | None:
        """Return a live record: ``Id`` and every field of the current schema, None where null.

        Compounds are dicts of their non-null parts. Derived fields are included, though events don't carry
        them.
        """
        row = self.row(entity, record_id)
        if row is None or row.deleted:
            return None
        return {"Id": record_id, **{name: row.values.get(name) for name in self._store.schemas[entity].index}}

    def records(self, entity: str) -> dict[str, dict[str, Any]]:
        """Return all live records of an entity by id, each as :meth:`record` gives it."""
        found = {record_id: self.record(entity, record_id) for record_id in self._store.table(entity)}
        return {record_id: record for record_id, record in found.items() if record is not None}

    def deleted_ids(self, entity: str) -> tuple[str, ...]:
        """Return the ids in the recycle bin."""
        return tuple(record_id for record_id, row in self._store.table(entity).items() if row.deleted)

    def forget(self, entity: str, record_id: str) -> None:
        """Drop a record from memory without an event, to keep a long run small; no Salesforce act."""
        self._store.table(entity).pop(record_id, None)
        self._companions.forget(entity, record_id)

    def newest_id(self, entity: str) -> str | None:
        """Return the live record that was created last, None if there is none."""
        rows = self._store.table(entity)
        return next((record_id for record_id in reversed(rows) if not rows[record_id].deleted), None)

    def fitting(self, change: Change) -> Change | None:
        """Return the change as far as record and schema still allow it, None if they don't at all.

        Traffic goes on by this whatever a scenario has deleted, recovered or redefined meanwhile.
        """
        row = self._store.table(change.entity).get(change.record_id)
        if not takes(row, change.op):
            return None
        unfit = self._unfit.get(change.entity)
        if unfit and not unfit.isdisjoint(change.fields):
            fields = {name: value for name, value in change.fields.items() if name not in unfit}
            return replace(change, fields=fields)
        return change

    def hidden_fields(self, entity: str) -> frozenset[str]:
        """Return the fields that events of this entity never carry."""
        return self._store.hidden(entity)

    def invisible_fields(self, entity: str) -> frozenset[str]:
        """Return the fields that the integration user may not see, in events or in queries."""
        return self._store.invisible.get(entity, frozenset())

    def delete_log(self, entity: str) -> Mapping[str, int]:
        """Return when records were deleted, by id, those gone for good among them: what getDeleted knows.

        A recovered record is in it no more. Times are epoch milliseconds in whole seconds.
        """
        return self._companions.delete_log.get(entity, {})

    def pick(self, entity: str, count: int) -> tuple[str, ...]:
        """Return up to so many live records, chosen by the seed without touching the traffic's choices."""
        live = [record_id for record_id, row in self._store.table(entity).items() if not row.deleted]
        return tuple(self._choice.sample(live, min(count, len(live))))

    # What events do not tell

    def tracked_fields(self, entity: str) -> frozenset[str]:
        """Return the API names of the fields whose history is tracked."""
        return self._store.tracked.get(entity, frozenset())

    def history_rows(
        self, entity: str, from_ms: int = 0, to_ms: int | None = None, *, deleted: bool = False
    ) -> HistoryRows:
        """Return history rows; see :meth:`consumer.emulator.org_history.History.rows`."""
        return self.history.rows(entity, from_ms, to_ms, deleted=deleted)

    def metrics_rows(self, session_ids: Iterable[str] | None = None, *, deleted: bool = False) -> list[MetricsRecord]:
        """Return MessagingSessionMetrics rows; see :meth:`consumer.emulator.org_metrics.AfterTheEnd.rows`."""
        return self._after.rows(session_ids, deleted=deleted)

    def settle(self, now_ms: int) -> None:
        """Let the platform compute what is due: message counts and preview of ended sessions, without an event.

        SystemModstamp moves with about half of them only. Recalculations of sharing go on as far as they should.
        """
        self.sharing.settle(now_ms)
        if self._after.is_due(now_ms):
            self._compute(now_ms)

    def _compute(self, now_ms: int) -> None:
        for record_id, row, values, stamped in self._after.due(now_ms):
            changes = [
                TrueChange(SESSION, record_id, "update", name, row.values.get(name), value)
                for name, value in values.items()
                if row.values.get(name) != value and name not in self.invisible_fields(SESSION)
            ]
            row.values.update(values)
            if stamped:
                row.system_modstamp_ms = max(row.system_modstamp_ms, now_ms // 1000 * 1000)
            if self.truth is not None:
                self.truth.note(changes, (), now_ms // 1000 * 1000, self.default_user, "derived")

    # Transactions

    def commit(
        self,
        changes: Sequence[Change],
        now_ms: int,
        *,
        user: str | None = None,
        origin: str | None = None,
        split: bool | None = None,
        moment_ms: int | None = None,
    ) -> list[OrgEvent]:
        """Commit one transaction and return its events, sequence numbers 1 to n.

        Equal changes of records of one entity become one event with several record ids. Several saves of one
        record become one event with the first save's kind. A save that changes nothing makes no event.

        Args:
            changes: the saves, in order; all or none are applied.
            now_ms: commit time in epoch milliseconds.
            user: id of the saving user.
            origin: changeOrigin; empty for the platform's own writes.
            split: whether LastModifiedDate travels in an event of its own before the rest; None lets the
                seed decide.
            moment_ms: when others see what it did, epoch milliseconds; None for ``now_ms``. Commit times are whole
                seconds, and who is to be judged by when access came has to know better.

        Raises:
            EmulatorError: a record or field can't take a change.
        """
        user = user or self.default_user
        if self._after.is_due(now_ms):
            self._compute(now_ms)
        moment_ms = now_ms if moment_ms is None else moment_ms
        self.sharing.settle(moment_ms)
        commit_ms = now_ms // 1000 * 1000
        transaction = Transaction(self._store, user, commit_ms)
        header = self._maker.header(commit_ms, user, DEFAULT_ORIGIN if origin is None else origin)
        try:
            for change in changes:
                transaction.apply(change)
            deltas = transaction.deltas()
            events = self._maker.events(deltas, header, split=split)
        except EmulatorError:
            transaction.roll_back()
            raise
        self._companions.committed(transaction, changes, deltas, moment_ms, user)
        if self.truth is not None:
            self.truth.note(transaction.true_changes(), events, commit_ms, user)
        return events

    # Events without details

    def gap(
        self,
        kind: str,
        entity: str,
        record_ids: Sequence[str],
        now_ms: int,
        *,
        fields: Mapping[str, Any] | None = None,
    ) -> list[OrgEvent]:
        """Change records silently and return the gap event that says only that they changed.

        Args:
            kind: ``CREATE``, ``UPDATE``, ``DELETE`` or ``UNDELETE``, with or without ``GAP_``.
            entity: object API name.
            record_ids: the records; unknown ones are named in the event all the same.
            now_ms: commit time in epoch milliseconds.
            fields: what a create or update silently writes.

        Raises:
            EmulatorError: unknown kind, entity or field, or a value of another type.
        """
        operation = kind.removeprefix("GAP_").lower()
        change_type = f"GAP_{operation.upper()}"
        if change_type not in CHANGE_TYPES or operation == "overflow":
            raise EmulatorError(f"{kind!r} is no kind of gap", "Use CREATE, UPDATE, DELETE or UNDELETE")
        changes = self._changes(operation, entity, record_ids, fields or {})
        hidden = self._silently(changes, now_ms)
        events = self._detail_free(entity, change_type, record_ids, now_ms)
        self._tell(hidden, events, now_ms)
        return events

    def gap_of(self, kind: str, entity: str, changes: Sequence[Change], now_ms: int) -> list[OrgEvent]:
        """Carry out these changes of records of one entity, and return the gap event that names the records.

        Raises:
            EmulatorError: a record or field can't take a change.
        """
        hidden = self._silently(changes, now_ms)
        record_ids = [change.record_id for change in changes]
        events = self._detail_free(entity, f"GAP_{kind}", record_ids, now_ms)
        self._tell(hidden, events, now_ms)
        return events

    def _changes(
        self, operation: str, entity: str, record_ids: Sequence[str], fields: Mapping[str, Any]
    ) -> Sequence[Change]:
        table = self._store.table(entity)
        live = {record_id: not row.deleted for record_id, row in table.items()}
        return {
            "create": [Change("create", entity, one, fields) for one in record_ids if one not in live],
            "update": [Change("update", entity, one, fields) for one in record_ids if live.get(one)],
            "delete": [Change("delete", entity, one) for one in record_ids if live.get(one)],
            "undelete": [Change("undelete", entity, one) for one in record_ids if live.get(one) is False],
        }[operation]

    def _silently(self, changes: Sequence[Change], now_ms: int) -> list[TrueChange]:
        """Commit without an event; return what it did when the truth is kept."""
        self.settle(now_ms)
        commit_ms = now_ms // 1000 * 1000
        transaction = Transaction(self._store, self.default_user, commit_ms)
        try:
            for change in changes:
                transaction.apply(change)
            deltas = transaction.deltas()
            for delta in deltas:
                self._maker.check(delta)
        except EmulatorError:
            transaction.roll_back()
            raise
        self._companions.committed(transaction, changes, deltas, now_ms, self.default_user)
        return transaction.true_changes() if self.truth is not None else []

    def _tell(self, hidden: Sequence[TrueChange], events: Sequence[OrgEvent], now_ms: int, kind: str = "") -> None:
        if self.truth is not None:
            self.truth.note(hidden, events, now_ms // 1000 * 1000, self.default_user, kind)

    def silent(self, changes: Sequence[Change], now_ms: int) -> None:
        """Commit one transaction that no event will ever tell of; history rows are written all the same.

        Raises:
            EmulatorError: a record or field can't take a change.
        """
        self._tell(self._silently(changes, now_ms), (), now_ms, "silent")

    def _detail_free(self, entity: str, change_type: str, record_ids: Sequence[str], now_ms: int) -> list[OrgEvent]:
        self._store.table(entity)
        header = self._maker.header(now_ms // 1000 * 1000, self.default_user, "")
        return self._maker.detail_free(entity, change_type, record_ids, header)

    def overflow(self, entity: str, now_ms: int, changes: Sequence[Change] = ()) -> list[OrgEvent]:
        """Return the overflow event of a transaction too large to report: only the placeholder id.

        Args:
            entity: object API name.
            now_ms: commit time in epoch milliseconds.
            changes: what the transaction truly did to records of the entity.

        Raises:
            EmulatorError: the org has no such entity, or a record or field can't take a change.
        """
        hidden = self._silently(changes, now_ms)
        events = self._detail_free(entity, "GAP_OVERFLOW", [PLACEHOLDER_ID], now_ms)
        self._tell(hidden, events, now_ms)
        return events

    def wildcard(self, entity: str, now_ms: int, fields: Mapping[str, Any] | None = None) -> list[OrgEvent]:
        """Return the event of a field type conversion: all records of the prefix changed, no data.

        Args:
            entity: object API name.
            now_ms: commit time in epoch milliseconds.
            fields: what it truly writes to every live record.

        Raises:
            EmulatorError: the org has no such entity or field, or a value of another type.
        """
        changes = self._changes("update", entity, list(self.records(entity)), fields) if fields else ()
        hidden = self._silently(changes, now_ms)
        events = self._detail_free(entity, "GAP_UPDATE", [PREFIXES[entity] + "*"], now_ms)
        self._tell(hidden, events, now_ms, "wildcard")
        return events

    def note_move(self, now_ms: int) -> None:
        """Take note that all positions are void."""
        if self.truth is not None:
            self.truth.moved(now_ms)

    def note_drop(self, event: OrgEvent) -> None:
        """Take note that an event was committed and will never be published."""
        if self.truth is not None:
            self.truth.dropped(event)

    def restart_commit_numbers(self) -> None:
        """Number transactions anew, lower than before, as after a move to another instance."""
        self._maker.restart_commit_numbers(self._choice)

    def poison(self, entity: str, now_ms: int, kind: Poison) -> OrgEvent:
        """Return one broken event that claims an update of a record; the records stay as they are.

        Raises:
            EmulatorError: unknown entity or kind.
        """
        record_id = self.newest_id(entity) or self.new_id(entity)
        header = self._maker.header(now_ms // 1000 * 1000, self.default_user, DEFAULT_ORIGIN)
        event = self._maker.poison(entity, record_id, header, kind)
        self.poison_ids.add(event.event_id)
        if self.truth is not None:
            self.truth.poison(event)
        return event
