"""Answers SOQL questions from the org's tables, without holding up the event loop for long.

Rows are taken 2,000 at a time, each as it is at that moment; the taken values never change afterwards, so that later
pages of one query are as old as its first. Source: SOQL reference (null rules, order, case), REST guide (errors).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from operator import itemgetter
from typing import Any, Final, TypeAlias

from consumer.emulator.record_ids import id18, is_id18
from consumer.emulator.rest_errors import RestError, invalid_field, invalid_type, malformed, no_access
from consumer.emulator.rest_table_base import Bound, Child, Table, Taken
from consumer.emulator.rest_tables import FieldDefinitionTable
from consumer.emulator.rest_values import IDS, NUMBERS, Column, as_stored
from consumer.emulator.soql import Compare, Condition, Group, Not, Query, Value, parse, unescape

CHUNK: Final = 2000
"""Rows taken before others get their turn."""
_THREAD_SORT: Final = 20_000
"""From so many rows on the sort runs beside the event loop."""

Test: TypeAlias = Callable[[Taken], bool]
Read: TypeAlias = Callable[[Taken], Any]

_TEXT_TYPES: Final = frozenset({"string", "picklist", "multipicklist", "textarea", "phone", "email", "url", "anyType"})
_KIND_OF: Final[Mapping[str, str]] = {
    "boolean": "boolean",
    "datetime": "datetime",
    "date": "date",
    "time": "time",
}


@dataclass(frozen=True, slots=True)
class Selected:
    """One field of the answer: its path as written, its column, and where its stored value lies."""

    path: str
    column: Column
    place: int

    def value(self, taken: Taken) -> Any:
        """Return its value, as events hold it."""
        stored = taken[self.place]
        return None if stored is None else self.column.read(stored)


@dataclass(frozen=True, slots=True)
class SelectedChild:
    """One subquery of the answer: what it reads, its columns, and where its stored rows lie."""

    child: Child
    columns: tuple[Column, ...]
    place: int


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to a query, frozen.

    Attributes:
        table: the object.
        fields: what was asked for; empty for COUNT().
        rows: stored values.
        total: how many rows there are.
        id_place: where a row's id lies, None for objects without one.
        children: what was asked for in subqueries.
    """

    table: Table
    fields: tuple[Selected, ...]
    rows: Sequence[Taken]
    total: int
    id_place: int | None
    children: tuple[SelectedChild, ...] = ()


class Plan:
    """A query checked against its table and made ready to run.

    Args:
        text: SOQL.
        tables: all objects by lower-case name.

    Raises:
        RestError: MALFORMED_QUERY, INVALID_TYPE, INVALID_FIELD, INVALID_QUERY_FILTER_OPERATOR.
    """

    def __init__(self, text: str, tables: Mapping[str, Table]) -> None:
        self.query: Query = parse(text)
        table = tables.get(self.query.entity.lower())
        if table is None or table.access == "invalid_type":
            raise invalid_type(self.query.entity)
        if table.access:
            raise no_access(table.name)
        self.table = table
        self._text = text
        self._sources: list[str] = list(table.first_sources)
        id_column = table.columns().get("id")
        self._id_place = None if id_column is None else self._place(id_column)
        self.fields = tuple(self._selected(path) for path in self.query.fields)
        self.children = tuple(self._child(query) for query in self.query.children)
        self._test: Test = _always if self.query.where is None else self._condition(self.query.where)
        self._keys = [(self._sortable(order.field), order.descending, order.nulls_last) for order in self.query.order]
        self._bounds = self._bounded(self.query.where)
        if isinstance(table, FieldDefinitionTable):
            self._check_reified()

    async def run(self, now_ms: int, *, deleted: bool) -> Result:
        """Take the matching rows.

        Args:
            now_ms: the org's time, epoch milliseconds.
            deleted: whether deleted rows count (queryAll).
        """
        if self.query.counts and self.query.where is None and not deleted:
            count = self.table.count(now_ms)
            if count is not None:
                return Result(self.table, (), [], count, None)
        limit = self.query.limit
        wanted = None if limit is None else limit + self.query.offset
        keys, in_order = self._candidates(deleted=deleted)
        rows = await self._matching(keys, now_ms, wanted if in_order or not self._keys else None, deleted=deleted)
        if self._keys and not in_order:
            if len(rows) > _THREAD_SORT:
                await asyncio.to_thread(self._sort, rows)
            else:
                self._sort(rows)
        if wanted is not None or self.query.offset:
            rows = rows[self.query.offset : wanted]
        kept = [] if self.query.counts else rows
        return Result(self.table, self.fields, kept, len(rows), self._id_place, self.children)

    async def _matching(self, keys: Iterable[Any], now_ms: int, enough: int | None, *, deleted: bool) -> list[Taken]:
        """Return the rows that meet the conditions, at least ``enough`` of them if there are so many."""
        take, test = self.table.taker(self._sources, now_ms, deleted=deleted), self._test
        rows: list[Taken] = []
        for chunk in _chunks(keys):
            for key in chunk:
                taken = take(key)
                if taken is not None and test(taken):
                    rows.append(taken)
            if enough is not None and len(rows) >= enough:
                break
            if len(chunk) == CHUNK:
                await asyncio.sleep(0)
        return rows

    def _candidates(self, *, deleted: bool) -> tuple[Iterable[Any], bool]:
        """Return keys to look at, and whether they are in the order that was asked for."""
        order = self.query.order
        if order and not any(each.descending for each in order):
            columns = [self._column(each.field).name for each in order]
            keys = self.table.in_order(columns, self._bounds, deleted=deleted)
            if keys is not None:
                return keys, True
        return self.table.keys(self._bounds, deleted=deleted), False

    def _sort(self, rows: list[Taken]) -> None:
        for read, descending, nulls_last in reversed(self._keys):
            null_rank = int(descending) if not nulls_last else int(not descending)

            def key(taken: Taken, read: Read = read, null_rank: int = null_rank) -> tuple[Any, ...]:
                value = read(taken)
                return (null_rank,) if value is None else (1 - null_rank, value)

            rows.sort(key=key, reverse=descending)

    # Columns

    def _place(self, column: Column) -> int:
        if column.source not in self._sources:
            self._sources.append(column.source)
        return self._sources.index(column.source)

    def _column(self, path: str) -> Column:
        column = self.table.column(path)
        if column is not None:
            return column
        place = max(0, self._text.find(path))
        head, _, tail = path.rpartition(".")
        what = (
            f"Didn't understand relationship '{head}' in field path. If you are attempting to use a custom "
            "relationship, be sure to append the '__r' after the custom relationship name."
            if head
            else f"No such column '{tail}' on entity '{self.table.name}'. If you are attempting to use a custom "
            "field, be sure to append the '__c' after the custom field name."
        )
        line = self._text[max(0, place - 30) : place + 30].replace("\n", " ")
        pointer = " " * min(place, 30) + "^"
        raise invalid_field(
            f"\n{line}\n{pointer}\nERROR at Row:1:Column:{place + 1}\n{what} Please reference your WSDL or the "
            "describe call for the appropriate names."
        )

    def _selected(self, path: str) -> Selected:
        column = self._column(path)
        return Selected(path, column, self._place(column))

    def _reader(self, column: Column) -> Read:
        """Return what reads a comparable value: text in one case, everything else as it is."""
        place, read = self._place(column), column.read
        if column.type in _TEXT_TYPES:

            def text(taken: Taken) -> Any:
                stored = taken[place]
                value = None if stored is None else read(stored)
                return None if value is None or value == "" else str(value).casefold()

            return text
        if read is as_stored:
            return itemgetter(place)
        return lambda taken: None if taken[place] is None else read(taken[place])

    def _sortable(self, path: str) -> Read:
        column = self._column(path)
        if not column.sortable:
            raise invalid_field(f"field '{column.name}' can not be sorted in a query call")
        return self._reader(column)

    # Conditions

    def _condition(self, condition: Condition) -> Test:
        if isinstance(condition, Compare):
            return self._compare(condition)
        if isinstance(condition, Not):
            inner = self._condition(condition.item)
            return lambda taken: not inner(taken)
        tests = [self._condition(item) for item in condition.items]
        return _all(tests) if condition.op == "AND" else _any(tests)

    def _compare(self, compare: Compare) -> Test:
        column = self._column(compare.field)
        if not column.filterable:
            raise invalid_field(f"field '{column.name}' can not be filtered in a query call")
        read, op = self._reader(column), compare.op
        if op == "LIKE":
            return _like(column, read, compare.values[0])
        values = frozenset(_literal(column, value) for value in compare.values)
        if op in {"=", "IN"}:
            return lambda taken: read(taken) in values
        if op in {"!=", "NOT IN"}:
            return lambda taken: read(taken) not in values
        if column.type in {"boolean", "multipicklist"}:
            raise RestError(
                400, "INVALID_QUERY_FILTER_OPERATOR", f"invalid operator on {column.type} field: {column.name}"
            )
        return _ordered(op, read, next(iter(values)))

    def _bounded(self, where: Condition | None) -> dict[str, Bound]:
        """Return what must hold of single columns for the conditions to be met."""
        if isinstance(where, Compare):
            if "." in where.field or where.op in {"LIKE", "!=", "NOT IN"}:
                return {}
            column = self._column(where.field)
            return {column.name: _tighter(Bound(), where.op, [_literal(column, value) for value in where.values])}
        if not isinstance(where, Group):
            return {}
        each = [self._bounded(item) for item in where.items]
        if where.op == "OR":
            shared = [name for name in each[0] if all(name in other for other in each[1:])]
            return {name: reduce(_hull, (bounds[name] for bounds in each)) for name in shared}
        found: dict[str, Bound] = {}
        for bounds in each:
            for name, bound in bounds.items():
                found[name] = _both(found.get(name, Bound()), bound)
        return found

    def _child(self, query: Query) -> SelectedChild:
        """Return what a subquery asks for.

        Raises:
            RestError: unknown relationship or field, or anything but fields and their relationship.
        """
        child = self.table.child(query.entity)
        if child is None:
            raise invalid_type(query.entity)
        if query.where is not None or query.order or query.limit is not None or query.children or query.counts:
            raise malformed(f"only fields can be asked of {child.relationship}")
        columns = [child.columns.get(name.lower()) for name in query.fields]
        for name, column in zip(query.fields, columns, strict=True):
            if column is None:
                raise invalid_field(f"No such column '{name}' on entity '{child.name}'.")
        if child.source not in self._sources:
            self._sources.append(child.source)
        return SelectedChild(child, tuple(each for each in columns if each), self._sources.index(child.source))

    def _check_reified(self) -> None:
        """Refuse a question about the fields of all objects, as FieldDefinition does."""
        reified = {FieldDefinitionTable.ENTITY.lower(), "entitydefinitionid", "durableid"}
        items = self.query.where.items if isinstance(self.query.where, Group) else (self.query.where,)
        for item in items:
            if isinstance(item, Compare) and item.op in {"=", "IN"} and item.field.lower() in reified:
                return
        raise RestError(
            400,
            "EXTERNAL_OBJECT_UNSUPPORTED_EXCEPTION",
            "A filter on a reified column is required [EntityDefinitionId,DurableId]",
        )


def _chunks(keys: Iterable[Any]) -> Iterator[list[Any]]:
    left = iter(keys)
    while chunk := list(islice(left, CHUNK)):
        yield chunk


def _hull(one: Bound, other: Bound) -> Bound:
    """Return a bound that lets through what either does."""
    if one.equal is not None and other.equal is not None:
        return Bound(one.equal | other.equal)
    lows, highs = [_low(one), _low(other)], [_high(one), _high(other)]
    return Bound(None, None if None in lows else min(lows), None if None in highs else max(highs))


def _both(one: Bound, other: Bound) -> Bound:
    """Return a bound that lets through what both do."""
    equal = other.equal if one.equal is None else one.equal if other.equal is None else one.equal & other.equal
    lows = [each for each in (one.low, other.low) if each is not None]
    highs = [each for each in (one.high, other.high) if each is not None]
    return Bound(equal, max(lows, default=None), min(highs, default=None))


def _low(bound: Bound) -> Any:
    if bound.equal is None:
        return bound.low
    return None if None in bound.equal or not bound.equal else min(bound.equal)


def _high(bound: Bound) -> Any:
    if bound.equal is None:
        return bound.high
    return None if None in bound.equal or not bound.equal else max(bound.equal)


def _all(tests: Sequence[Test]) -> Test:
    if len(tests) == 2:  # by far the most frequent, and twice as fast without a generator
        one, other = tests
        return lambda taken: one(taken) and other(taken)

    def test(taken: Taken) -> bool:
        for each in tests:  # noqa: SIM110 - all() costs a generator for each row
            if not each(taken):
                return False
        return True

    return test


def _any(tests: Sequence[Test]) -> Test:
    if len(tests) == 2:
        one, other = tests
        return lambda taken: one(taken) or other(taken)
    return lambda taken: any(test(taken) for test in tests)


def _always(_: Taken) -> bool:
    return True


def _tighter(bound: Bound, op: str, values: Sequence[Any]) -> Bound:
    if op in {"=", "IN"}:
        return _both(bound, Bound(frozenset(values)))
    value = values[0]
    if value is None:
        return bound
    return _both(bound, Bound(low=value) if op in {">", ">="} else Bound(high=value))


def _ordered(op: str, read: Read, limit: Any) -> Test:
    """Return an order comparison; null is neither less nor greater than anything."""
    if limit is None:
        return lambda _: False
    if op == "<":
        return lambda taken: (value := read(taken)) is not None and value < limit
    if op == "<=":
        return lambda taken: (value := read(taken)) is not None and value <= limit
    if op == ">":
        return lambda taken: (value := read(taken)) is not None and value > limit
    return lambda taken: (value := read(taken)) is not None and value >= limit


def _like(column: Column, read: Read, value: Value) -> Test:
    if column.type not in _TEXT_TYPES or column.type == "multipicklist":
        raise RestError(400, "INVALID_QUERY_FILTER_OPERATOR", f"invalid operator on {column.type} field: LIKE")
    if value.kind != "text":
        raise _wrong_type(column, "string and should be enclosed in quotes")
    pattern = "".join(
        {"%": ".*", "_": "."}.get(piece) or re.escape(piece.removeprefix("\\") if len(piece) == 2 else piece)
        for piece in re.findall(r"\\[%_]|.", unescape(value.raw, like=True), re.DOTALL)
    )
    matches = re.compile(pattern.casefold(), re.DOTALL).fullmatch
    return lambda taken: (text := read(taken)) is not None and matches(text) is not None


def _wrong_type(column: Column, wanted: str) -> RestError:
    return invalid_field(f"value of filter criterion for field '{column.name}' must be of type {wanted}")


def _literal(column: Column, value: Value) -> Any:
    """Return a literal as the column's values are compared.

    Raises:
        RestError: it is of another type than the column.
    """
    if value.kind == "null":
        return None
    if column.type in IDS:
        text = str(value.value)
        if value.kind == "text" and len(text) == 15 and text.isalnum() and text.isascii():
            return id18(text)
        if value.kind == "text" and is_id18(text):
            return text
        raise RestError(400, "INVALID_QUERY_FILTER_OPERATOR", f"invalid ID field: {text}")
    if column.type in _TEXT_TYPES:
        if value.kind != "text":
            raise _wrong_type(column, "string and should be enclosed in quotes")
        return str(value.value).casefold() or None
    wanted = "number" if column.type in NUMBERS else _KIND_OF[column.type]
    if value.kind != wanted:
        raise _wrong_type(column, f"{column.type} and should not be enclosed in quotes")
    return value.value
