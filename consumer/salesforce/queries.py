"""SOQL texts; what is put into them is checked here, so that no value can end a literal.

Windows are half open, and their ends go to whole seconds outwards: stamps have whole seconds, so that no row of the
window is left out, and none that was stamped outside of it comes in. Ids are compared by the server, whose order is
not that of the 18-character text (SOQL and SOSL Reference).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from consumer.changes.canonical import date_time
from consumer.errors import QueryRefusedError
from consumer.salesforce.rest import MAX_REQUEST_BYTES, encoded

MAX_IDS = 200
"""Ids of one IN list."""

MAX_URI_BYTES = MAX_REQUEST_BYTES - 4_096
"""Room for a query and its path; the rest is for headers, of which a JWT-shaped token is the longest."""

_PATH_BYTES = 256
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?", re.ASCII)
_CURSOR = re.compile(r"(-?\d{1,15}):([A-Za-z0-9]{18})", re.ASCII)
_OUTSIDE_QUOTES = re.compile(r"'(?:[^'\\]|\\.)*'", re.DOTALL)

_HISTORY_NAMES = {"Opportunity": "OpportunityFieldHistory"}
"""The one standard object whose ``<Name>History`` is something else (Object Reference)."""


def _refused(message: str) -> QueryRefusedError:
    return QueryRefusedError(message, "Write names, ids and conditions as the SOQL and SOSL Reference has them.")


def name(text: str) -> str:
    """Return an object's or field's API name.

    Raises:
        QueryRefusedError: it is none.
    """
    if _NAME.fullmatch(text) is None:
        raise _refused("An object or field name has characters that no API name has")
    return text


def quoted_id(text: str) -> str:
    """Return a record id as a literal.

    Raises:
        QueryRefusedError: it is none.
    """
    if _ID.fullmatch(text) is None:
        raise _refused("A record id has other characters, or another length, than ids have")
    return f"'{text}'"


def is_id(text: str) -> bool:
    """Return whether this has the form of a record id."""
    return _ID.fullmatch(text) is not None


def moment(epoch_ms: int) -> str:
    """Return a dateTime literal of a whole second; unquoted, with ``Z``, because a ``+`` would become a space."""
    return str(date_time(epoch_ms // 1000 * 1000)).replace(".000Z", "Z")


def span(field: str, from_ms: int, to_ms: int) -> str:
    """Return the condition from <= field < to, in whole seconds outwards."""
    return f"{field} >= {moment(from_ms)} AND {field} < {moment(to_ms + 999)}"


def condition(where: str) -> str:
    """Return an operator's condition, fit to be joined with others; empty stays empty.

    Raises:
        QueryRefusedError: it would end the brackets it is put in.
    """
    if not where.strip():
        return ""
    depth = 0
    bare = _OUTSIDE_QUOTES.sub("", where)
    for character in bare:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0:
            break
    if depth or "'" in bare:
        raise _refused("The condition's brackets or quotes do not pair")
    return f"({where.strip()})"


def select(fields: Iterable[str], entity: str, *conditions: str, order: Sequence[str] = (), limit: int = 0) -> str:
    """Return a query.

    Args:
        fields: API names.
        entity: API name.
        conditions: joined by AND; empty ones are left out.
        order: API names to order by.
        limit: rows, 0 for no limit.
    """
    parts = [select_from(f"SELECT {', '.join(name(field) for field in fields)}", entity, *conditions)]
    if order:
        parts.append(f"ORDER BY {', '.join(order)}")
    if limit:
        parts.append(f"LIMIT {limit:d}")
    return " ".join(parts)


def select_from(head: str, entity: str, *conditions: str) -> str:
    """Return a query of checked parts; empty conditions are left out."""
    wanted = " AND ".join(text for text in conditions if text)
    return f"{head} FROM {name(entity)}{' WHERE ' if wanted else ''}{wanted}"


def count(entity: str, where: str) -> str:
    """Return the query that counts rows."""
    return select_from("SELECT COUNT()", entity, condition(where))


def after_id(cursor: str | None) -> str:
    """Return the condition that goes on after an id."""
    return "" if cursor is None else f"Id > {quoted_id(cursor)}"


def mark(stamp_ms: int, record_id: str) -> str:
    """Return the cursor of a row in the order of (stamp, Id)."""
    return f"{stamp_ms}:{record_id}"


def after_mark(field: str, cursor: str | None) -> str:
    """Return the condition that goes on after a row in the order of (field, Id).

    Raises:
        QueryRefusedError: the cursor is none of :func:`mark`.
    """
    if cursor is None:
        return ""
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise _refused("A cursor is not one of ours")
    stamp = moment(int(found[1]))
    return f"(({field} = {stamp} AND Id > {quoted_id(found[2])}) OR {field} > {stamp})"


def id_lists(
    fields: Iterable[str], entity: str, key: str, record_ids: Sequence[str]
) -> Iterator[tuple[str, list[str]]]:
    """Yield queries by id, and the ids of each: at most 200, and no longer than a URI can be.

    Args:
        fields: what to read.
        entity: object to read.
        key: the field that the ids are of.
        record_ids: ids, without repeats.

    Raises:
        QueryRefusedError: the field list alone is too long.
    """
    head = select(fields, entity, f"{key} IN (")
    room = MAX_URI_BYTES - _PATH_BYTES - len(encoded(head)) - 1
    each = len(encoded(quoted_id("0" * 18))) + 1
    most = min(MAX_IDS, room // each)
    if most < 1:
        raise QueryRefusedError(
            f"{entity} has more fields than one query can name",
            "Take fields the service need not read from the integration user.",
            code="URI_TOO_LONG",
        )
    for start in range(0, len(record_ids), most):
        ids = list(record_ids[start : start + most])
        yield f"{head}{','.join(quoted_id(each_id) for each_id in ids)})", ids


def history_object(entity: str) -> tuple[str, str]:
    """Return the history object of an object, and its field that names the record (Object Reference)."""
    if entity.endswith("__c"):
        return f"{entity.removesuffix('__c')}__History", "ParentId"
    return _HISTORY_NAMES.get(entity, f"{entity}History"), f"{entity}Id"
