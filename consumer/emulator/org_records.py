"""The emulated org's records, and what one transaction does to them.

A transaction is judged by its outcome, as Change Data Capture does: the values before against those after it,
with the kind of its first change. Pure: time, user and choices are arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from consumer.emulator.event_encode import text_diff
from consumer.emulator.event_schemas import DERIVED_FIELDS, LONG_TEXT, BodyField, WriterSchema
from consumer.errors import EmulatorError

Operation: TypeAlias = Literal["create", "update", "delete", "undelete", "purge"]
Place: TypeAlias = tuple[str, str]

AUTO_NUMBERS: Final = {
    "AgentWork": "{:08d}",
    "MessagingSession": "MS-{:08d}",
    "PendingServiceRouting": "{:08d}",
    "Widget__c": "W-{:06d}",
}
"""Formats of ``Name`` where it is an auto-number."""


@dataclass(frozen=True, slots=True)
class Change:
    """One save of one record.

    Attributes:
        op: ``purge`` removes the record for good and makes no event (hard delete, emptied recycle bin).
        entity: object API name.
        record_id: 18 characters.
        fields: new values as events carry them (times in epoch milliseconds); None sets to null; a mapping
            sets the named parts of a compound and leaves the others.
        system: a write of the platform itself, which moves SystemModstamp but neither LastModifiedDate nor
            LastModifiedById.
    """

    op: Operation
    entity: str
    record_id: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    system: bool = False


@dataclass(slots=True)
class OrgRecord:
    """A record as the org holds it now.

    Attributes:
        values: non-null fields; a compound is a dict of its non-null parts.
        deleted: whether it lies in the recycle bin.
        system_modstamp_ms: time of the last write of any kind, epoch milliseconds; it moves with a delete too.
        deleted_ms: when it was put into the recycle bin, epoch milliseconds; 0 while it is live.
    """

    values: dict[str, Any]
    deleted: bool = False
    system_modstamp_ms: int = 0
    deleted_ms: int = 0


_STAMPS: Final = frozenset({"LastModifiedDate", "LastModifiedById"})
"""Fields whose every change follows from another one's."""

_STATES: Final[Mapping[str, frozenset[bool | None]]] = {
    "create": frozenset({None}),
    "update": frozenset({False}),
    "delete": frozenset({False}),
    "undelete": frozenset({True}),
    "purge": frozenset({False, True}),
}
"""States in which a record takes an operation: None is not there, True is in the recycle bin."""


def takes(row: OrgRecord | None, operation: str) -> bool:
    """Return whether the record, None if it is not there, is in a state to take the operation."""
    return (None if row is None else row.deleted) in _STATES[operation]


class Saved(NamedTuple):
    """One tracked field changed by one save.

    Attributes:
        info: the field; None for the creation of the record.
        old, new: values as events carry them.
    """

    entity: str
    record_id: str
    info: BodyField | None
    old: Any
    new: Any


class TrueChange(NamedTuple):
    """What one transaction truly did to one field, or to the record as a whole.

    Attributes:
        op: ``create`` (field ``created``), ``update``, or with an empty field ``delete``, ``undelete``, ``purge``
            (gone for good while it was live), ``erase`` (gone for good from the recycle bin).
        field: API name or path, as ``VisitAddress__c.City``.
        old, new: values as events carry them.
    """

    entity: str
    record_id: str
    op: str
    field: str
    old: Any
    new: Any


@dataclass(slots=True)
class Delta:
    """What a transaction did to one record, as its event will say it.

    Attributes:
        body: values to carry; a diff text in place of a long value.
        changed: places that differ, nulled ones included; empty unless UPDATE.
        nulled: places that are null now.
        diffs: places whose value in ``body`` is a diff.
    """

    entity: str
    record_id: str
    change_type: str
    body: dict[str, Any] = field(default_factory=dict)
    changed: set[Place] = field(default_factory=set)
    nulled: set[Place] = field(default_factory=set)
    diffs: set[Place] = field(default_factory=set)


@dataclass(slots=True)
class Store:
    """All records of the org, with the schemas that say which fields exist.

    Attributes:
        schemas: current writer schema by entity.
        carry_derived: whether events carry the derived fields too.
        diff_context: unchanged lines around a change in a diff.
        invisible: by entity, fields that the integration user may not see: no event and no query shows them.
        tracked: by entity, fields whose history is tracked.
    """

    schemas: dict[str, WriterSchema]
    carry_derived: bool = False
    diff_context: int = 0
    invisible: dict[str, frozenset[str]] = field(default_factory=dict)
    tracked: dict[str, frozenset[str]] = field(default_factory=dict)
    rows: dict[str, dict[str, OrgRecord]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    def table(self, entity: str) -> dict[str, OrgRecord]:
        """Return the records of an entity by id.

        Raises:
            EmulatorError: the org has no such entity.
        """
        if entity not in self.schemas:
            raise EmulatorError(f"The org has no change events of {entity}", "Name one of its entities")
        return self.rows.setdefault(entity, {})

    def hidden(self, entity: str) -> frozenset[str]:
        """Return the fields that events of this entity never carry."""
        derived = frozenset[str]() if self.carry_derived else DERIVED_FIELDS.get(entity, frozenset())
        invisible = self.invisible.get(entity)
        return derived | invisible if invisible else derived


@dataclass(slots=True)
class _Touch:
    """A record's state when the transaction first touched it; ``before`` is None if it was not there."""

    before: OrgRecord | None
    fields: set[str] = field(default_factory=set)


class Transaction:
    """Applies changes to the store and tells what became of each record.

    Args:
        store: the records.
        user: id of the user who saves.
        now_ms: commit time in epoch milliseconds, whole seconds.

    Attributes:
        saves: what its saves did to fields with history tracking, save by save.
    """

    def __init__(self, store: Store, user: str, now_ms: int) -> None:
        self._store = store
        self._user = user
        self._now_ms = now_ms
        self.saves: list[Saved] = []
        self._touched: dict[tuple[str, str], _Touch] = {}

    def apply(self, change: Change) -> None:
        """Apply one save.

        Raises:
            EmulatorError: the record is not in a state that allows it, or a field does not exist.
        """
        table = self._store.table(change.entity)
        row = table.get(change.record_id)
        if not takes(row, change.op):
            raise EmulatorError(
                f"{change.entity} {change.record_id} can't take a {change.op} now", "Check the record's state"
            )
        touch = self._touch(change, row)
        if change.op == "purge":
            del table[change.record_id]
            return
        if row is None:
            row = table[change.record_id] = OrgRecord({})
            self._stamp_created(change.entity, row)
            if self._store.tracked.get(change.entity):
                self.saves.append(Saved(change.entity, change.record_id, None, None, None))
        row.deleted = change.op == "delete"
        row.deleted_ms = self._now_ms if row.deleted else 0
        row.system_modstamp_ms = self._now_ms
        if change.op != "delete":
            self._save(change, row, touch)

    def _touch(self, change: Change, row: OrgRecord | None) -> _Touch:
        key = (change.entity, change.record_id)
        touch = self._touched.get(key)
        if touch is None:
            before = None
            if row is not None:
                before = OrgRecord(row.values.copy(), row.deleted, row.system_modstamp_ms, row.deleted_ms)
            touch = self._touched[key] = _Touch(before)
        return touch

    def _stamp_created(self, entity: str, row: OrgRecord) -> None:
        row.values["CreatedDate"] = self._now_ms
        row.values["CreatedById"] = self._user
        if entity in AUTO_NUMBERS:
            number = self._store.numbers.get(entity, 0) + 1
            self._store.numbers[entity] = number
            row.values["Name"] = AUTO_NUMBERS[entity].format(number)

    def _save(self, change: Change, row: OrgRecord, touch: _Touch) -> None:
        known = self._store.schemas[change.entity].by_name
        tracked = self._store.tracked.get(change.entity) if change.op != "create" else None
        before = [(name, row.values.get(name)) for name in change.fields if name in tracked] if tracked else ()
        for name, value in change.fields.items():
            info = known.get(name)
            if info is None:
                raise EmulatorError(f"{change.entity} has no field {name}", "Name a field of its schema")
            _assign(row.values, info, value)
        for name, old in before:
            new = row.values.get(name)
            if old != new:
                self.saves.append(Saved(change.entity, change.record_id, known[name], old, new))
        touch.fields.update(change.fields)
        if not change.system or touch.before is None:
            row.values["LastModifiedDate"] = self._now_ms
            row.values["LastModifiedById"] = self._user
            touch.fields.update(("LastModifiedDate", "LastModifiedById"))

    def true_changes(self) -> list[TrueChange]:
        """Return what became of every field, those that events and queries never show excepted."""
        found: list[TrueChange] = []
        for (entity, record_id), touch in self._touched.items():
            row = self._store.table(entity).get(record_id)
            before = touch.before
            if before is None:
                if row is not None and not row.deleted:
                    found.append(TrueChange(entity, record_id, "create", "created", None, None))
                continue
            if row is None:
                found.append(TrueChange(entity, record_id, "erase" if before.deleted else "purge", "", None, None))
                continue
            if row.deleted != before.deleted:
                found.append(TrueChange(entity, record_id, "delete" if row.deleted else "undelete", "", None, None))
            names = touch.fields - _STAMPS - self._store.invisible.get(entity, frozenset())
            for name in sorted(names) if not row.deleted else ():
                found += _true_field(entity, record_id, name, before.values.get(name), row.values.get(name))
        return found

    def roll_back(self) -> None:
        """Put every touched record back as it was."""
        for (entity, record_id), touch in self._touched.items():
            table = self._store.table(entity)
            table.pop(record_id, None)
            if touch.before is not None:
                table[record_id] = touch.before

    def deltas(self) -> list[Delta]:
        """Return what became of the records, in the order they were first touched."""
        found = []
        for (entity, record_id), touch in self._touched.items():
            delta = self._delta(entity, record_id, touch)
            if delta is not None:
                found.append(delta)
        return found

    def _delta(self, entity: str, record_id: str, touch: _Touch) -> Delta | None:
        row = self._store.table(entity).get(record_id)
        was_live = touch.before is not None and not touch.before.deleted
        is_live = row is not None and not row.deleted
        if touch.before is not None and was_live and row is not None:
            if not is_live:
                return Delta(entity, record_id, "DELETE")
            delta = Delta(entity, record_id, "UPDATE")
            self._compare(delta, touch.before.values, row.values, touch.fields)
            return delta if delta.changed else None
        if is_live and row is not None:
            hidden = self._store.hidden(entity)
            body = {name: value for name, value in row.values.items() if name not in hidden}
            return Delta(entity, record_id, "CREATE" if touch.before is None else "UNDELETE", body)
        return None

    def _compare(self, delta: Delta, before: Mapping[str, Any], after: Mapping[str, Any], fields: set[str]) -> None:
        known = self._store.schemas[delta.entity].by_name
        for name in fields - self._store.hidden(delta.entity):
            old, new = before.get(name), after.get(name)
            if old == new:
                continue
            info = known[name]
            if info.compound is not None and not isinstance(old, str) and not isinstance(new, str):
                _compare_parts(delta, name, old or {}, new or {})
                continue
            delta.changed.add((name, ""))
            if new is None:
                delta.nulled.add((name, ""))
                continue
            diff = None
            if info.doc_type in LONG_TEXT and old is not None:
                diff = text_diff(old, new, self._store.diff_context)
            if diff is not None:
                delta.diffs.add((name, ""))
            delta.body[name] = new if diff is None else diff


def _true_field(entity: str, record_id: str, name: str, old: Any, new: Any) -> list[TrueChange]:
    if old == new:
        return []
    if not isinstance(old or new, dict) or isinstance(old, str) or isinstance(new, str):
        return [TrueChange(entity, record_id, "update", name, old, new)]
    before, after = old or {}, new or {}
    return [
        TrueChange(entity, record_id, "update", f"{name}.{part}", before.get(part), after.get(part))
        for part in {**before, **after}
        if before.get(part) != after.get(part)
    ]


def _assign(values: dict[str, Any], info: BodyField, value: Any) -> None:
    if info.compound is not None and isinstance(value, Mapping):
        old = values.get(info.name)
        merged = {**(old if isinstance(old, dict) else {}), **value}
        value = {part: item for part, item in merged.items() if item is not None} or None
    elif info.doc_type in LONG_TEXT and isinstance(value, str):
        value = value.strip() or None
    if value is None:
        values.pop(info.name, None)
    else:
        values[info.name] = value


def _compare_parts(delta: Delta, name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    parts = {}
    for part in {**old, **new}:
        if old.get(part) == new.get(part):
            continue
        delta.changed.add((name, part))
        if part in new:
            parts[part] = new[part]
        else:
            delta.nulled.add((name, part))
    if parts:
        delta.body[name] = parts
