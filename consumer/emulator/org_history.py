"""History rows of the emulated org, as MessagingSessionHistory and its like hold them.

Facts (Object Reference, "MessagingSessionHistory"; Salesforce Help on field history): rows only for tracked fields,
from the moment tracking is on; two rows for a lookup; ``created`` without values; no values for long text and
multi-select picklists; values cut at 255 characters; one second's resolution.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias, overload

from consumer.emulator.event_schemas import DERIVED_FIELDS, LONG_TEXT, BodyField
from consumer.emulator.org_records import Saved, Store
from consumer.emulator.record_ids import numbered_id
from consumer.emulator.traffic_data import FAMILY_NAMES, GIVEN_NAMES
from consumer.errors import EmulatorError

HistoryValue: TypeAlias = str | int | float | bool | None

HISTORY_PREFIX: Final = "017"
MAX_VALUE: Final = 255
"""Characters of a value that a history row keeps."""
MAX_TRACKED: Final = 20
"""Fields that can be tracked of one object."""

DEFAULT_TRACKED: Final[Mapping[str, tuple[str, ...]]] = {
    "MessagingSession": (
        "Status",
        "OwnerId",
        "AcceptTime",
        "EndTime",
        "AgentType",
        "EndedByType",
        "CaseId",
        "Priority__c",
    )
}
"""What is tracked unless the scenario says otherwise; no other object tracks anything."""

_AUDIT: Final = frozenset({"Name", "CreatedDate", "CreatedById", "LastModifiedDate", "LastModifiedById"})
_BY_LINK: Final = frozenset({"EndUserAccountId", "EndUserContactId"})
"""Derived fields that can be tracked all the same: they are lookups."""
_NAMES: Final = {"EndUserAccountId": "Account", "EndUserContactId": "Contact"}
_DATA_TYPES: Final = {"StaticEnum": "DynamicEnum", "Integer": "Double", "Birthday": "DateOnly"}
"""Column types that history names differently; it has no StaticEnum, and no type for whole numbers."""
_NO_VALUES: Final = LONG_TEXT | {"MultiEnum", "EncryptedText", "MultiLineText", "HtmlMultiLineText"}
_LATE_MS: Final = (3_000, 120_000)
_LOOKUP: Final = ":EntityId"
"""In the ``doc`` of every lookup; much cheaper to look for than ``doc_type``, once a save."""
_COMPACT_AFTER: Final = 20_000
_BITS64: Final = (1 << 64) - 1


def dice(*numbers: int) -> float:
    """Return a number in [0, 1) that depends on nothing but these; cheaper than seeding a generator each time."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & _BITS64
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _BITS64
        state = (state ^ state >> 27) * 0x94D049BB133111EB & _BITS64
        state ^= state >> 31
    return (state >> 11) / (1 << 53)


@dataclass(frozen=True, slots=True)
class HistoryRecord:
    """One history row.

    Attributes:
        history_id: its id, prefix ``017``; ids grow in the order of commits.
        record_id: the record it tells of.
        field: Salesforce's history name: ``Status``, ``Owner``, ``created``, ``Priority__c``.
        data_type: ``EntityId`` and ``Text`` for the two rows of a lookup, else the column's type.
        old, new: JSON kinds as REST writes them: dateTime ``2026-11-22T10:00:03.000+0000``, date ``2026-11-22``,
            time ``10:00:03.000Z``, text of at most 255 characters.
        created_ms: commit time, epoch milliseconds in whole seconds.
        created_by: the saving user.
        visible_ms: when a query finds it first, the org's time, epoch milliseconds.
        deleted: whether its record lies in the recycle bin.
    """

    history_id: str
    record_id: str
    field: str
    data_type: str
    old: HistoryValue
    new: HistoryValue
    created_ms: int
    created_by: str
    visible_ms: int
    deleted: bool = False


class _Row(NamedTuple):
    """A row as it is kept, before anyone reads it.

    Attributes:
        pair: number of the pair's first row, 0 if it is not one of the two rows of a lookup.
    """

    created_ms: int
    number: int
    record_id: str
    info: BodyField | None
    special: str
    old: Any
    new: Any
    user: str
    pair: int


class HistoryRows(Sequence[HistoryRecord]):
    """History rows that are made when they are looked at."""

    def __init__(self, history: History, rows: Sequence[tuple[_Row, bool]]) -> None:
        self._history = history
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> HistoryRecord: ...
    @overload
    def __getitem__(self, index: slice) -> HistoryRows: ...
    def __getitem__(self, index: int | slice) -> HistoryRecord | HistoryRows:
        if isinstance(index, slice):
            return HistoryRows(self._history, self._rows[index])
        return self._history.made(*self._rows[index])


class History:
    """All history rows of the org.

    Args:
        store: the org's records; rows of records that are not there any more are gone.
        seed: decides order, lateness and special names.

    Attributes:
        late: share of rows that queries find only some seconds to two minutes after the commit.
        special: share of owner changes away from a queue that are called ``ownerAccepted`` (to the saving user)
            or ``ownerAssignment`` (to another) instead of ``Owner``.
    """

    def __init__(self, store: Store, seed: int) -> None:
        self.late = 0.02
        self.special = 0.0
        self._store = store
        self._seed = seed
        self._rows: dict[str, list[_Row]] = {}
        self._unsorted: set[str] = set()
        self._number = 0
        self._purged: dict[str, int] = {}
        self._compacted: dict[str, int] = {}
        for entity, fields in DEFAULT_TRACKED.items():
            store.tracked[entity] = frozenset(fields) - store.invisible.get(entity, frozenset())

    def track(self, entity: str, fields: Iterable[str]) -> None:
        """Track these fields of an object from now on, and no others; earlier saves leave no rows.

        Raises:
            EmulatorError: unknown entity or field, one that can't be tracked, or too many.
        """
        self._store.table(entity)
        wanted = frozenset(fields)
        known = self._store.schemas[entity].by_name
        untrackable = _AUDIT | DERIVED_FIELDS.get(entity, frozenset()) - _BY_LINK
        for name in sorted(wanted):
            if name not in known:
                raise EmulatorError(f"{entity} has no field {name}", "Name a field of its schema")
            if name in untrackable or known[name].compound is not None:
                raise EmulatorError(f"{entity}.{name} can't have its history tracked", "Name a plain, stored field")
        if len(wanted) > MAX_TRACKED:
            raise EmulatorError(f"{len(wanted)} fields of {entity} can't be tracked", f"Name up to {MAX_TRACKED}")
        self._store.tracked[entity] = wanted - self._store.invisible.get(entity, frozenset())

    def note(self, saves: Iterable[Saved], commit_ms: int, user: str) -> None:
        """Keep what one transaction's saves wrote."""
        number = self._number
        for entity, record_id, info, old, new in saves:
            rows = self._rows.setdefault(entity, [])
            if rows and rows[-1][0] > commit_ms:
                self._unsorted.add(entity)
            number += 1
            special = self._special(number, info, old, new, user) if self.special else ""
            if info is None or _LOOKUP not in info.doc:
                rows.append(_Row(commit_ms, number, record_id, info, special, old, new, user, 0))
                continue
            rows.append(_Row(commit_ms, number, record_id, info, special, old, new, user, number))
            rows.append(_Row(commit_ms, number + 1, record_id, info, special, old, new, user, number))
            number += 1
        self._number = number

    def purge(self, record_id: str) -> None:
        """Forget a record's rows for good, as its hard delete does."""
        self._purged[record_id] = self._number

    def rows(self, entity: str, from_ms: int = 0, to_ms: int | None = None, *, deleted: bool = False) -> HistoryRows:
        """Return an object's rows with ``from_ms <= created_ms < to_ms`` by (created_ms, history_id).

        Rows not yet visible are among them.

        Args:
            entity: object API name.
            from_ms: epoch milliseconds.
            to_ms: epoch milliseconds, None for no bound.
            deleted: whether rows of records in the recycle bin are wanted too.
        """
        rows = self._sorted(entity)
        begin = bisect_left(rows, from_ms, key=_created)
        end = len(rows) if to_ms is None else bisect_left(rows, to_ms, lo=begin, key=_created)
        table = self._store.table(entity)
        found = []
        for row in rows[begin:end]:
            record = table.get(row.record_id)
            if record is None or self._purged.get(row.record_id, 0) >= row.number:
                continue
            if deleted or not record.deleted:
                found.append((row, record.deleted))
        return HistoryRows(self, found)

    def made(self, row: _Row, deleted: bool) -> HistoryRecord:  # noqa: FBT001 - a pair kept by HistoryRows
        """Return a row as a reader sees it."""
        # The names come first in half of the pairs.
        label = bool(row.pair) and (row.number == row.pair) == (dice(self._seed, row.pair, 1) < 0.5)
        name, data_type, old, new = _shown(row, label=label)
        late_ms = 0
        if self.late and dice(self._seed, row.number, 2) < self.late:
            shortest, longest = _LATE_MS
            late_ms = shortest + int(dice(self._seed, row.number, 3) * (longest - shortest))
        return HistoryRecord(
            numbered_id(HISTORY_PREFIX, row.number),
            row.record_id,
            name,
            data_type,
            old,
            new,
            row.created_ms,
            row.user,
            row.created_ms + late_ms,
            deleted,
        )

    def compact(self, entity: str) -> None:
        """Let go of rows whose records are gone, once they may be half of all."""
        rows = self._rows.get(entity, [])
        if len(rows) < 2 * self._compacted.get(entity, 0) + _COMPACT_AFTER:
            return
        table = self._store.table(entity)
        kept = [row for row in rows if row.record_id in table and self._purged.get(row.record_id, 0) < row.number]
        self._rows[entity] = kept
        self._compacted[entity] = len(kept)

    def _sorted(self, entity: str) -> list[_Row]:
        """Return the rows in order; a caller may have committed with an earlier time than before."""
        rows = self._rows.setdefault(entity, [])
        if entity in self._unsorted:
            rows.sort(key=lambda row: (row.created_ms, row.number))
            self._unsorted.discard(entity)
        return rows

    def _special(self, number: int, info: BodyField | None, old: Any, new: Any, user: str) -> str:
        if info is None or info.name != "OwnerId" or not str(old).startswith("00G"):
            return ""
        if dice(self._seed, number, 4) >= self.special:
            return ""
        return "ownerAccepted" if new == user else "ownerAssignment"


def _created(row: _Row) -> int:
    return row.created_ms


def history_name(info: BodyField) -> str:
    """Return what history rows call a field: lookups lose their ``Id``, and some have another name."""
    if info.name in _NAMES:
        return _NAMES[info.name]
    return info.name.removesuffix("Id") if info.doc_type == "EntityId" else info.name


def _shown(row: _Row, *, label: bool) -> tuple[str, str, HistoryValue, HistoryValue]:
    info = row.info
    if info is None:
        return "created", "Text", None, None
    name = row.special or history_name(info)
    if info.doc_type == "EntityId":
        if label:
            return name, "Text", label_of(row.old), label_of(row.new)
        return name, "EntityId", row.old, row.new
    data_type = _DATA_TYPES.get(info.doc_type, info.doc_type)
    if info.doc_type in _NO_VALUES:
        return name, data_type, None, None
    return name, data_type, history_value(info.doc_type, row.old), history_value(info.doc_type, row.new)


def history_value(doc_type: str, value: Any) -> HistoryValue:
    """Return a value, as events carry it, in the JSON kind that history rows hold it in."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value[:MAX_VALUE]
    number: int | float = value
    if doc_type not in {"DateTime", "DateOnly", "Birthday", "TimeOnly"}:
        return number
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=number)
    if doc_type == "DateTime":
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}+0000"
    if doc_type == "TimeOnly":
        return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
    return f"{moment:%Y-%m-%d}"


def label_of(record_id: str | None) -> str | None:
    """Return the name of the record a lookup points to, None for null; always the same for an id."""
    if record_id is None:
        return None
    number = int.from_bytes(record_id[9:15].encode(), "big")
    if record_id.startswith("00G"):
        return f"Queue {record_id[14]}"
    if record_id.startswith(("005", "003")):
        return f"{GIVEN_NAMES[number % len(GIVEN_NAMES)]} {FAMILY_NAMES[number // 7 % len(FAMILY_NAMES)]}"
    return f"{number % 100_000_000:08d}"
