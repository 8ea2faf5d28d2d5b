"""What a queryable object of the emulated org is: columns, rows by key, and what narrows the search for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from consumer.emulator.org_history import label_of
from consumer.emulator.rest_values import Column

Taken: TypeAlias = tuple[Any, ...]
"""Stored values of one row, in the order of the sources that were asked for."""

ID: Final = Column("Id", "id", "Id", length=18, nillable=False)
IS_DELETED: Final = Column("IsDeleted", "boolean", "IsDeleted", nillable=False)
STAMP: Final = Column(
    "SystemModstamp",
    "datetime",
    "SystemModstamp",
    nillable=False,
    groupable=False,
    read=lambda value: value // 1000 * 1000,
)


@dataclass(frozen=True, slots=True)
class Bound:
    """What the top level of a WHERE says of one column; rows outside of it can't match.

    Attributes:
        equal: the only values, None for any.
        low: least value, None for none.
        high: greatest value, None for none.
    """

    equal: frozenset[Any] | None = None
    low: Any = None
    high: Any = None


@dataclass(frozen=True, slots=True)
class Child:
    """Rows that only a subquery of their parent reads.

    Attributes:
        name: object API name.
        relationship: what the subquery names.
        columns: by lower-case API name; each ``source`` is a place in a stored row.
        source: name of the parent's stored value that holds the rows.
    """

    name: str
    relationship: str
    columns: Mapping[str, Column]
    source: str


class Table(ABC):
    """One object: subclasses give columns and rows.

    Args:
        name: API name.
        prefix: key prefix of its ids, empty for virtual objects.
        replicates: whether getUpdated and getDeleted work.

    Attributes:
        first_sources: stored values that every row is taken with, before those a query names.
        closed: by API name how objects are closed to the API user.
    """

    first_sources: tuple[str, ...] = ()

    def __init__(self, name: str, prefix: str = "", *, replicates: bool = False) -> None:
        self.name = name
        self.prefix = prefix
        self.replicates = replicates
        self.closed: Mapping[str, str] = {}

    @property
    def access(self) -> str:
        """How the object is closed to the API user: ``invalid_type``, ``no_access``; empty when it is open."""
        return self.closed.get(self.name, "")

    @abstractmethod
    def columns(self) -> Mapping[str, Column]:
        """Return the visible columns by lower-case API name, in describe's order."""

    def column(self, path: str) -> Column | None:
        """Return the column a path names, None if there is none; one relationship deep, its ``Id`` or ``Name``."""
        head, _, tail = path.lower().rpartition(".")
        columns = self.columns()
        if not head:
            return columns.get(tail)
        lookup = next((each for each in columns.values() if (each.relationship or "").lower() == head), None)
        if lookup is None or tail not in {"id", "name"}:
            return None
        kind, length = ("id", 18) if tail == "id" else ("string", 255)
        read = lookup.read if tail == "id" else self.name_of
        return Column(
            tail.capitalize(),
            kind,
            lookup.source,
            length=length,
            refers_to=lookup.refers_to,
            relationship=lookup.relationship,
            read=read,
        )

    def name_of(self, record_id: str) -> str | None:
        """Return the name of a record that a lookup points to."""
        return label_of(record_id)

    @abstractmethod
    def keys(self, bounds: Mapping[str, Bound], *, deleted: bool) -> Iterable[Any]:
        """Return keys of all rows that can match; more than match is allowed."""

    def by_id(self, bound: Bound, *, deleted: bool) -> Sequence[Any] | None:
        """Return keys in the order of their ids, None if only sorting can do that."""
        del bound, deleted
        return None

    def in_order(self, order: Sequence[str], bounds: Mapping[str, Bound], *, deleted: bool) -> Iterable[Any] | None:
        """Return keys of all rows that can match in rising order of these columns, None if only sorting can do that."""
        if order[0] == "Id" and "SystemModstamp" not in bounds and "CreatedDate" not in bounds:
            return self.by_id(bounds.get("Id", Bound()), deleted=deleted)
        return None

    def count(self, now_ms: int) -> int | None:
        """Return how many rows there are that are not deleted, None if only counting can tell."""
        del now_ms
        return None

    def child(self, relationship: str) -> Child | None:
        """Return what a subquery of this name reads, None if there is none."""
        del relationship
        return None

    def updated(self, from_ms: int, to_ms: int) -> Sequence[str]:
        """Return ids of live rows with ``from_ms <= SystemModstamp < to_ms``, for getUpdated."""
        del from_ms, to_ms
        return ()

    def delete_log(self) -> Mapping[str, int]:
        """Return when rows were deleted, by id, for getDeleted: epoch milliseconds in whole seconds."""
        return {}

    @abstractmethod
    def taker(self, sources: Sequence[str], now_ms: int, *, deleted: bool) -> Callable[[Any], Taken | None]:
        """Return what reads a row's stored values by key; None for a row that is gone or not to be seen.

        Args:
            sources: names of stored values.
            now_ms: the org's time, epoch milliseconds.
            deleted: whether deleted rows are wanted.
        """


def span_of(bound: Bound) -> tuple[float, float]:
    """Return the least and greatest number a bound lets through."""
    if bound.equal is not None:
        values = [value for value in bound.equal if value is not None]
        return (min(values), max(values)) if values else (0.0, float("inf"))
    low = float("-inf") if bound.low is None else bound.low
    return low, float("inf") if bound.high is None else bound.high


class RecordTable(Table):
    """A table whose keys are row objects with attributes."""

    _COLUMNS: Mapping[str, Column]

    def columns(self) -> Mapping[str, Column]:
        """See the base."""
        return self._COLUMNS

    def taker(self, sources: Sequence[str], now_ms: int, *, deleted: bool) -> Callable[[Any], Taken | None]:
        """See the base: rows are not to be seen before their time."""

        def take(row: Any) -> Taken | None:
            if row.visible_ms > now_ms or (getattr(row, "deleted", False) and not deleted):
                return None
            return tuple(getattr(row, source, None) for source in sources)

        return take


def by_name(*columns: Column) -> dict[str, Column]:
    """Return columns by lower-case API name."""
    return {column.name.lower(): column for column in columns}


@dataclass(frozen=True, slots=True)
class Fact:
    """A row of a small object, made for the question."""

    values: Mapping[str, Any]


class FactTable(Table):
    """A small object whose rows are made for each question."""

    @abstractmethod
    def rows(self) -> Iterator[Fact]:
        """Yield the rows."""

    def keys(self, bounds: Mapping[str, Bound], *, deleted: bool) -> Sequence[Fact]:
        """See the base."""
        del bounds, deleted
        return list(self.rows())

    def taker(self, sources: Sequence[str], now_ms: int, *, deleted: bool) -> Callable[[Fact], Taken | None]:
        """See the base."""
        del now_ms, deleted
        return lambda fact: tuple(map(fact.values.get, sources))
