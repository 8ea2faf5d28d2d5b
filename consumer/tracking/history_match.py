"""Whether what an event told and what a history row says are the same change; pure comparing and pairing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal, NamedTuple, TypeAlias

import orjson

from consumer.events import Json
from consumer.tracking.values import HistoryFact, HistoryRow

ENTITY_ID = "EntityId"
"""DataType of a lookup's row of ids; its other row holds names."""

CUT_AT = 255
"""Characters (UTF-16 units) that a history row holds of a value (Help on field history)."""

TOLERANCE_MS = 1000
"""How far CreatedDate may be from the commit time's second."""

Values: TypeAlias = Literal["known", "old_unknown", "truncated_255", "not_stored"]

EXACT, OLD_FILLED, OLD_DIFFERS, VALUES_UNKNOWN = range(4)
"""How well the two agree, best first."""

_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d{1,3})?")
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:?\d\d)")


class Told(NamedTuple):
    """What one side says of a change."""

    old: Json
    new: Json
    values: Values


def told_by_row(row: HistoryRow, *, empty_is_said: bool) -> Told:
    """Return what a row says.

    Args:
        row: the row, not one of names.
        empty_is_said: whether two nulls are all there is to say (``created`` and other rows that stand for no
            field); for a field they mean that its values are not kept in history.
    """
    if row.old is None and row.new is None:
        return Told(None, None, "known" if empty_is_said else "not_stored")
    cut = may_be_cut(row.old) or may_be_cut(row.new)
    return Told(row.old, row.new, "truncated_255" if cut else "known")


def fit(told: Told, row: Told) -> int | None:
    """Return how well an event's words and a row's agree; None if they are not of one change.

    An old value that differs is no contradiction: the image it came from had missed a change.
    """
    if row.values == "not_stored" or told.values == "not_stored":
        return VALUES_UNKNOWN
    if not same(told.new, row.new):
        return None
    if told.values == "old_unknown":
        return OLD_FILLED
    return EXACT if same(told.old, row.old) else OLD_DIFFERS


def merged(told: Told, row: Told) -> Told:
    """Return the best of both: the event's values, which are never cut, and the row's where the event has none."""
    if row.values == "not_stored":
        return told
    if told.values == "not_stored":
        return row
    if told.values != "old_unknown" and same(told.old, row.old):
        return told
    return Told(row.old, told.new, "truncated_255" if may_be_cut(row.old) else "known")


def may_be_cut(value: Json) -> bool:
    """Whether a row's value is as long as history keeps, so that there may have been more of it."""
    return isinstance(value, str) and (
        len(value) >= CUT_AT or (2 * len(value) >= CUT_AT and len(value.encode("utf-16-le")) >= 2 * CUT_AT)
    )


def same(value: Json, of_row: Json) -> bool:
    """Whether a value and a row's are equal, whatever their JSON kinds and spelling; a cut one by what is left."""
    if value == of_row:
        return True
    if isinstance(value, str) and may_be_cut(of_row) and value.startswith(of_row):
        return True
    return _comparable(value) == _comparable(of_row)


def _comparable(value: Json) -> str | None:
    """Return one text for all spellings of a value: AnyType gives a number, a query its text, Bulk always text."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _number(str(value))
    if isinstance(value, str):
        return _text(value)
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _text(value: str) -> str:
    if len(value) <= 40:
        if _NUMBER.fullmatch(value):
            return _number(value)
        moment = _MOMENT.fullmatch(value)
        if moment is not None:
            return _second(value, moment)
    return value


def _number(text: str) -> str:
    number = Decimal(text)
    return str(number.normalize()) if number else "0"


def _second(value: str, moment: re.Match[str]) -> str:
    """Return the second of a moment in UTC: rows have no better resolution."""
    try:
        return datetime.fromisoformat(moment[1] + moment[2]).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        return value


def is_near(created_ms: int, commit_ms: int) -> bool:
    """Whether a row's CreatedDate can belong to a commit time."""
    return abs(created_ms - commit_ms // 1000 * 1000) <= TOLERANCE_MS


def assign(wishes: Sequence[Sequence[tuple[tuple[int, ...], int]]]) -> list[int | None]:
    """Give each row one fact, no fact twice: the best pairs first, and then as many rows as can be served.

    Args:
        wishes: per row, the facts it may belong to, as (rank, fact); a lower rank is better.

    Returns:
        Per row its fact, None for a row that belongs to none of them.
    """
    chosen: list[int | None] = [None] * len(wishes)
    owner: dict[int, int] = {}
    for _, fact, row in sorted((rank, fact, row) for row, wished in enumerate(wishes) for rank, fact in wished):
        if chosen[row] is None and fact not in owner:
            chosen[row], owner[fact] = fact, row
    facts = [[fact for _, fact in sorted(wished)] for wished in wishes]
    for row, wished in enumerate(facts):
        if wished and chosen[row] is None:
            _make_room(row, facts, chosen, owner)
    return chosen


def _make_room(row: int, facts: list[list[int]], chosen: list[int | None], owner: dict[int, int]) -> None:
    """Serve one more row by moving others to facts that suit them too (an augmenting path)."""
    came_by: dict[int, int] = {}
    queue = [row]
    for asking in queue:
        for fact in facts[asking]:
            if fact in came_by:
                continue
            came_by[fact] = asking
            if fact in owner:
                queue.append(owner[fact])
                continue
            moved: int | None = fact
            while moved is not None:
                taker = came_by[moved]
                owner[moved] = taker
                moved, chosen[taker] = chosen[taker], moved
            return


def pair_labels(rows: Sequence[HistoryRow], facts: Sequence[HistoryFact]) -> list[tuple[int, int, bool]]:
    """Pair rows of names with facts of ids.

    Salesforce does not say which row of names goes with which of ids; several of one second are told apart by
    nulls and by being equal, or not at all.

    Args:
        rows: rows of names of one field, time and user.
        facts: facts of the same that have no names yet.

    Returns:
        (row, fact, sure): by index; where not sure, the names must not be told.
    """
    rows_left, facts_left = dict(enumerate(rows)), dict(enumerate(facts))
    pairs: list[tuple[int, int, bool]] = []
    while sure := _only_pair(rows_left, facts_left):
        pairs.append((*sure, True))
        del rows_left[sure[0]], facts_left[sure[1]]
    wishes = [
        [
            (((row.old is None) != (fact.old is None), i), number)
            for i, (number, fact) in enumerate(facts_left.items())
            if nulls_agree(row.old, row.new, fact)
        ]
        for row in rows_left.values()
    ]
    for number, fact in zip(rows_left, assign(wishes), strict=True):
        if fact is not None:
            pairs.append((number, fact, False))
    return pairs


def _only_pair(rows: dict[int, HistoryRow], facts: dict[int, HistoryFact]) -> tuple[int, int] | None:
    """Return a row and a fact that have no other choice but equal ones."""
    for number, fact in facts.items():
        fitting = [index for index, row in rows.items() if nulls_agree(row.old, row.new, fact)]
        if not fitting or len({(rows[index].old, rows[index].new) for index in fitting}) > 1:
            continue
        row = rows[fitting[0]]
        if (
            len({(str(other.old), str(other.new)) for other in facts.values() if nulls_agree(row.old, row.new, other)})
            == 1
        ):
            return fitting[0], number
    return None


def nulls_agree(old_name: Json, new_name: Json, fact: HistoryFact) -> bool:
    """Whether names can belong to a fact's ids: no id has no name, unless both names are hidden from the reader.

    An event's old value counts only once a row said the same: it may come from an image that missed a change.
    """
    if fact.values == "not_stored" or (old_name is None and new_name is None):
        return True
    if (fact.new is None) != (new_name is None):
        return False
    old_is_sure = fact.value_type == ENTITY_ID
    return not old_is_sure or (fact.old is None) == (old_name is None)
