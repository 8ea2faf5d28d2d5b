"""How query results leave the emulated org: pages of JSON records with cursors, and CSV."""

from __future__ import annotations

import asyncio
import csv
import io
import random
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

from consumer.emulator.record_ids import numbered_id
from consumer.emulator.rest_errors import locator_gone
from consumer.emulator.rest_query import Result, Selected, SelectedChild
from consumer.emulator.rest_tables import Taken

MAX_PAGE: Final = 2000
MIN_PAGE: Final = 200
MAX_CURSORS: Final = 10
"""Cursors a user can have open; one more closes the oldest."""
_TURN: Final = 250
"""Rows written before others get their turn."""


class Cursors:
    """Open results and the pages cut from them.

    Args:
        seed: decides the length of short pages.
    """

    def __init__(self, seed: int) -> None:
        self._open: OrderedDict[str, Result] = OrderedDict()
        self._random = random.Random(f"pages:{seed}")  # noqa: S311 - lengths of pages, nothing secret
        self._opened = 0

    def __len__(self) -> int:
        return len(self._open)

    def drop(self) -> None:
        """Let all cursors expire."""
        self._open.clear()

    def page_size(self, wanted: int, *, short: bool) -> int:
        """Return how many rows a page holds: as wished, or fewer."""
        size = min(MAX_PAGE, max(MIN_PAGE, wanted))
        return self.some(size) if short else size

    def some(self, rows: int) -> int:
        """Return a number of rows by chance, not above the given one and not far below it."""
        return self._random.randint(max(1, rows // 10), rows)

    async def first(self, result: Result, version: str, size: int) -> dict[str, Any]:
        """Return the first page of a new result; a cursor stays open if there are more."""
        locator = ""
        if len(result.rows) > size:
            self._opened += 1
            locator = numbered_id("01g", self._opened)
            self._open[locator] = result
            while len(self._open) > MAX_CURSORS:
                self._open.popitem(last=False)
        return await self._page(result, locator, 0, version, size)

    async def next(self, name: str, version: str, size: int) -> dict[str, Any]:
        """Return the page that a ``<locator>-<n>`` names.

        Raises:
            RestError: INVALID_QUERY_LOCATOR, there is no such cursor.
        """
        locator, _, offset = name.rpartition("-")
        result = self._open.get(locator)
        if result is None or not offset.isdigit() or int(offset) >= len(result.rows):
            raise locator_gone()
        return await self._page(result, locator, int(offset), version, size)

    async def _page(self, result: Result, locator: str, offset: int, version: str, size: int) -> dict[str, Any]:
        records = await json_records(result, result.rows[offset : offset + size], version)
        done = offset + size >= len(result.rows)
        answer: dict[str, Any] = {"totalSize": result.total, "done": done}
        if not done:
            answer["nextRecordsUrl"] = f"/services/data/{version}/query/{locator}-{offset + size}"
        answer["records"] = records
        return answer


async def json_records(result: Result, rows: Sequence[Taken], version: str) -> list[dict[str, Any]]:
    """Return rows as REST writes records."""
    found = []
    writers = [(each, "." in each.path, each.column.name, each.place, each.column.writer) for each in result.fields]
    url = f"/services/data/{version}/sobjects/{result.table.name}/"
    for number, row in enumerate(rows, start=1):
        attributes = {"type": result.table.name, "url": f"{url}{_id_of(result, row)}"}
        record: dict[str, Any] = {"attributes": attributes}
        for selected, nested, name, place, write in writers:
            stored = row[place]
            value = stored if stored is None or write is None else write(stored)
            if nested:
                _nest(record, selected, stored, value, version)
            else:
                record[name] = value
        for child in result.children:
            record[child.child.relationship] = _children(child, row[child.place], version)
        found.append(record)
        if number % _TURN == 0:
            await asyncio.sleep(0)
    return found


def _children(selected: SelectedChild, rows: Sequence[Taken], version: str) -> dict[str, Any] | None:
    """Return a subquery's answer; each stored row begins with its id."""
    if not rows:
        return None
    records = []
    for row in rows:
        record: dict[str, Any] = {"attributes": _attributes(selected.child.name, row[0], version)}
        for column in selected.columns:
            record[column.name] = column.json(row[int(column.source)])
        records.append(record)
    return {"totalSize": len(records), "done": True, "records": records}


def _id_of(result: Result, row: Taken) -> Any:
    return None if result.id_place is None else row[result.id_place]


def _attributes(name: str, record_id: Any, version: str) -> dict[str, Any]:
    return {"type": name, "url": f"/services/data/{version}/sobjects/{name}/{record_id}"}


def _nest(record: dict[str, Any], selected: Selected, stored: Any, value: Any, version: str) -> None:
    head = selected.column.relationship or selected.path.rpartition(".")[0]
    if stored is None:
        record.setdefault(head, None)
        return
    refers_to = selected.column.refers_to
    kind = refers_to[0] if len(refers_to) == 1 else "Name"
    inner = record.setdefault(head, {"attributes": _attributes(kind, stored, version)})
    inner[selected.column.name] = value


async def csv_page(result: Result, rows: Sequence[Taken], delimiter: str, line_end: str) -> str:
    """Return rows as a Bulk result: a header line in any case, every value in quotes (RFC 4180)."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_ALL)
    writer.writerow([_heading(selected) for selected in result.fields])
    for number, row in enumerate(rows, start=1):
        writer.writerow([selected.column.csv(selected.value(row)) for selected in result.fields])
        if number % _TURN == 0:
            await asyncio.sleep(0)
    return text.getvalue()


def _heading(selected: Selected) -> str:
    column = selected.column
    return f"{column.relationship}.{column.name}" if "." in selected.path else column.name
