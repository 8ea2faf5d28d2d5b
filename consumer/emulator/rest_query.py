"""Answers SOQL questions from the org's tables, without holding up the event loop for long.

Rows are taken 2,000 at a time, each as it is at that moment; the taken values never change afterwards, so that later
pages of one query are as old as its first. Source: SOQL reference (null rules, order, case), REST guide (errors).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from consumer.emulator.record_ids import id18, is_id18
from consumer.emulator.rest_errors import RestError, invalid_field, invalid_type
from consumer.emulator.rest_tables import Bound, FieldDefinitionTable, Table, Taken
from consumer.emulator.rest_values import IDS, NUMBERS, Column
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
class Result:
    """The answer to a query, frozen.

    Attributes:
        table: the object.
        fields: what was asked for; empty for COUNT().
        rows: stored values.
        total: how many rows there are.
        id_place: where a row's id lies, None for objects without one.
    """

    table: Table
    fields: tuple[Selected, ...]
    rows: Sequence[Taken]
    total: int
    id_place: int | None


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
        if table is None:
            raise invalid_type(self.query.entity)
        self.table = table
        self._text = text
        self._sources: list[str] = list(table.first_sources)
        id_column = table.columns().get("id")
        self._id_place = None if id_column is None else self._place(id_column)
        self.fields = tuple(self._selected(path) for path in self.query.fields)
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
        limit = self.query.limit
        wanted = None if limit is None else limit + self.query.offset
        keys, in_order = self._candidates(deleted=deleted)
        take, test = self.table.taker(self._sources, now_ms, deleted=deleted), self._test
        rows: list[Taken] = []
        enough = wanted if in_order or not self._keys else None
        for start in range(0, len(keys), CHUNK):
            if start:
                await asyncio.sleep(0)
            for key in keys[start : start + CHUNK]:
                taken = take(key)
                if taken is not None and test(taken):
                    rows.append(taken)
            if enough is not None and len(rows) >= enough:
                break
        if self._keys and not in_order:
            if len(rows) > _THREAD_SORT:
                await asyncio.to_thread(self._sort, rows)
            else:
                self._sort(rows)
        if wanted is not None or self.query.offset:
            rows = rows[self.query.offset : wanted]
        return Result(self.table, self.fields, [] if self.query.counts else rows, len(rows), self._id_place)

    def _candidates(self, *, deleted: bool) -> tuple[Sequence[Any], bool]:
        """Return keys to look at, and whether they are in the order that was asked for."""
        order = self.query.order
        timed = "SystemModstamp" in self._bounds or "CreatedDate" in self._bounds
        if order and order[0].field.lower() == "id" and not order[0].descending and not timed:
            keys = self.table.by_id(self._bounds.get("Id", Bound()), deleted=deleted)
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
        if condition.op == "AND":
            return lambda taken: all(test(taken) for test in tests)
        return lambda taken: any(test(taken) for test in tests)

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
        """Return what the conditions that must all hold say of single columns."""
        items: Sequence[Condition] = ()
        if isinstance(where, Compare):
            items = (where,)
        elif isinstance(where, Group) and where.op == "AND":
            items = where.items
        bounds: dict[str, Bound] = {}
        for item in items:
            if isinstance(item, Compare) and "." not in item.field and item.op not in {"LIKE", "!=", "NOT IN"}:
                column = self._column(item.field)
                known = bounds.get(column.name, Bound())
                bounds[column.name] = _tighter(known, item.op, [_literal(column, value) for value in item.values])
        return bounds

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


def _always(_: Taken) -> bool:
    return True


def _tighter(bound: Bound, op: str, values: Sequence[Any]) -> Bound:
    if op in {"=", "IN"}:
        equal = frozenset(values)
        return Bound(equal if bound.equal is None else bound.equal & equal, bound.low, bound.high)
    value = values[0]
    if value is None:
        return bound
    if op in {">", ">="}:
        return Bound(bound.equal, value if bound.low is None else max(bound.low, value), bound.high)
    return Bound(bound.equal, bound.low, value if bound.high is None else min(bound.high, value))


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
