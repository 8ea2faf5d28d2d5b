"""What a timeline is made from and of: records of ``changes``, ``history`` and ``state``, and stretches of time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from consumer.events import Json

LIFE: Mapping[str, Literal["created", "deleted", "undeleted", "vanished"]] = {
    "CREATE": "created",
    "UNDELETE": "undeleted",
    "DELETE": "deleted",
    "GAP_DELETE": "deleted",
    "VANISHED": "vanished",
}
"""What a change type means for the record's life."""


@dataclass(frozen=True, slots=True)
class Change:
    """One record of ``changes``, as far as a timeline needs it.

    Attributes:
        stamp_ms: ``source.ts_ms``: commit time, or SystemModstamp of a row; epoch milliseconds.
        received_ms: ``ts_ms``: when the event came, or the row was read.
        row: whether a row said it, not an event.
        unknown: schema fields that ``after`` does not tell.
        late: the event was in a row already; ``after`` was not moved, its own values are ``late_values``.
    """

    change_id: str
    op: str
    change_type: str | None
    stamp_ms: int
    received_ms: int
    version: int | None
    before: Mapping[str, Json] | None
    after: Mapping[str, Json] | None
    unknown: tuple[str, ...]
    changed_fields: tuple[str, ...]
    by: str | None
    row: bool
    event_id: str | None = None
    window_id: str | None = None
    repaired: bool = False
    late: bool = False
    late_values: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FieldFact:
    """One field change in its newest revision; the names are those of ``schemas/history.json``.

    ``match`` is None where only the ``changes`` record tells of it, because ``history`` has nothing of the record.
    """

    change_id: str
    revision: int
    at_ms: int
    precision: str
    field: str
    old: Json
    new: Json
    values: str
    old_label: str | None
    new_label: str | None
    by: str | None
    match: str | None
    final: bool
    origin: str
    event_id: str | None = None
    window_id: str | None = None


@dataclass(frozen=True, slots=True)
class Stay:
    """A stretch of time in which a field had one value.

    Attributes:
        from_ms: since when, None when it is not known.
        to_ms: until when, None for until now.
        by: who set it.
        certain: False where a loss window or a hole in the history may hide other values.
    """

    value: Json
    label: str | None
    from_ms: int | None
    to_ms: int | None
    by: str | None
    certain: bool


@dataclass(frozen=True, slots=True)
class LifeEvent:
    """The record was created, deleted, undeleted, or found to have vanished."""

    at_ms: int
    what: Literal["created", "deleted", "undeleted", "vanished"]
    by: str | None
    change_id: str


@dataclass(frozen=True, slots=True)
class State:
    """The record's ``state``, as far as a timeline needs it."""

    entity: str
    image: Mapping[str, Json]
    unknown: tuple[str, ...]
    since: Mapping[str, str]
    version: int | None
    deleted: bool
    stale: bool
    metrics: Mapping[str, Json] | None


def read_change(value: Mapping[str, Json]) -> Change:
    """Return a record of ``changes``."""
    source = value["source"]
    return Change(
        change_id=source["id"],
        op=value["op"],
        change_type=source["change_type"],
        stamp_ms=source["ts_ms"],
        received_ms=value["ts_ms"],
        version=source["record_version"],
        before=value["before"],
        after=value["after"],
        unknown=tuple(source["unknown_fields"]),
        changed_fields=tuple(source["changed_fields"]),
        by=source["commit_user"],
        row=source["event_id"] is None,
        event_id=source["event_id"],
        window_id=source["window_id"],
        repaired=source["repaired"],
        late=bool(source.get("late")),
        late_values=source.get("late_values") or {},
    )


def read_fact(value: Mapping[str, Json]) -> FieldFact:
    """Return a record of ``history``."""
    return FieldFact(
        change_id=value["change_id"],
        revision=value["revision"],
        at_ms=time_of(value["changed_at"]) or 0,
        precision=value["time_precision"],
        field=value["field"],
        old=value["old_value"],
        new=value["new_value"],
        values=value["values"],
        old_label=value["old_label"],
        new_label=value["new_label"],
        by=value["changed_by"],
        match=value["match"],
        final=value["final"],
        origin=value["origin"],
        event_id=value["event_id"],
        window_id=value["window_id"],
    )


def read_state(value: Mapping[str, Json]) -> State:
    """Return a record of ``state``."""
    return State(
        entity=value["entity"],
        image=value["image"] or {},
        unknown=tuple(value["unknown_fields"]),
        since=value["since"],
        version=value["record_version"],
        deleted=value["deleted"],
        stale=value["stale"],
        metrics=value["metrics"],
    )


def time_of(text: Json) -> int | None:
    """Return ISO 8601 text as epoch milliseconds, None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        return None


def value_at(image: Mapping[str, Json], path: str) -> tuple[bool, Json]:
    """Return whether the image tells a field or part of a compound, and its value."""
    value: Json = image
    for name in path.split("."):
        if value is None:
            return True, None
        if not isinstance(value, Mapping) or name not in value:
            return False, None
        value = value[name]
    return True, value
