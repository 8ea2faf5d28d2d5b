"""What truly happened in the emulated org, for tests to hold the service against: every change, and every loss.

Kept only when a scenario asks for it. Shares no code with the service it judges.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from consumer.emulator.event_schemas import BodyField, WriterSchema
from consumer.emulator.org_events import OrgEvent
from consumer.emulator.org_records import Store, TrueChange
from consumer.errors import EmulatorError

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that a reader of the stream was not told, or not told in full.

    Attributes:
        kind: ``dropped`` (committed, its event never published), ``silent`` (no event was made), ``purged`` (hard
            delete of a live record), ``gap``, ``overflow``, ``wildcard`` (an event without data), ``poison`` (a broken
            event; the record did not change), or ``moved`` (all positions void).
        entity: object API name; empty for ``moved``.
        record_ids: the records it hides, true ones even where the event names a placeholder.
        commit_ms: commit time, epoch milliseconds.
        event_id: the event that was or should have been published, None if none was made.
        change_type: that event's, empty without one.
        published: whether the event reached the bus.
        ops: what happened to the records: ``create``, ``update``, ``delete``, ``undelete``, ``purge``.
        fields: names or paths of the fields that changed.
    """

    kind: str
    entity: str
    record_ids: tuple[str, ...]
    commit_ms: int
    event_id: str | None = None
    change_type: str = ""
    published: bool = False
    ops: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Return a line of ``GET /control/oracle/losses``."""
        return {
            "kind": self.kind,
            "entity": self.entity,
            "record_ids": list(self.record_ids),
            "commit_ms": self.commit_ms,
            "event_id": self.event_id,
            "change_type": self.change_type,
            "published": self.published,
            "ops": list(self.ops),
            "fields": list(self.fields),
        }


class _Noted(NamedTuple):
    change: TrueChange
    commit_ms: int
    user: str
    event_id: str | None
    tracked: bool
    loss: str
    info: BodyField | None


@dataclass
class Truth:
    """The log of what happened.

    Args:
        store: the org's records; says what is tracked and hidden.
    """

    store: Store
    _log: list[_Noted] = field(default_factory=list)
    _losses: list[Loss] = field(default_factory=list)
    _dropped: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self._log)

    def note(
        self, changes: Sequence[TrueChange], events: Sequence[OrgEvent], commit_ms: int, user: str, kind: str = ""
    ) -> None:
        """Take note of one transaction.

        Args:
            changes: what it did.
            events: what it published.
            commit_ms: epoch milliseconds.
            user: who saved.
            kind: the loss it is as a whole: ``silent``, ``wildcard``, or ``derived`` for the platform's own
                computations, which are no loss; empty for an ordinary transaction.
        """
        named = {(event.entity, record_id): event for event in events for record_id in event.record_ids}
        bare = {event.entity: event for event in events if event.change_type == "GAP_OVERFLOW" or kind == "wildcard"}
        lost: dict[tuple[str, str, str | None], list[TrueChange]] = {}
        told: dict[str, OrgEvent] = {}
        for change in changes:
            event = bare.get(change.entity) or named.get((change.entity, change.record_id))
            loss = kind or self._kind(change, event)
            if event is not None and not event.change_type.startswith("GAP_") and self._hidden(change):
                event, loss = None, "derived"
            event_id = None if event is None else event.event_id
            if event is not None:
                told[event.event_id] = event
            self._remember(change, commit_ms, user, event_id, loss)
            if loss not in {"", "derived"}:
                lost.setdefault((loss, change.entity, event_id), []).append(change)
        for event in events:
            gone = event.change_type.startswith("GAP_") and event.event_id not in told
            if gone:
                name = kind or ("overflow" if event.change_type == "GAP_OVERFLOW" else "gap")
                lost[(name, event.entity, event.event_id)] = []
                told[event.event_id] = event
        for (name, entity, event_id), hidden in lost.items():
            told_by = None if event_id is None else told[event_id]
            self._losses.append(_loss(name, entity, hidden, commit_ms, told_by))

    def poison(self, event: OrgEvent) -> None:
        """Take note of a broken event, which tells of no change at all."""
        self._losses.append(
            Loss(
                "poison",
                event.entity,
                event.record_ids,
                event.commit_ms,
                event.event_id,
                event.change_type,
                published=True,
            )
        )

    def dropped(self, event: OrgEvent) -> None:
        """Take note that an event was committed and will never be published."""
        self._dropped.add(event.event_id)
        self._losses.append(
            Loss("dropped", event.entity, event.record_ids, event.commit_ms, event.event_id, event.change_type)
        )

    def moved(self, now_ms: int) -> None:
        """Take note that all positions given out so far are void."""
        self._losses.append(Loss("moved", "", (), now_ms))

    def losses(self) -> Iterator[Loss]:
        """Yield the losses in the order they happened; an event dropped that was no full one stays one loss."""
        said = self.said(self._dropped)
        bare = {loss.event_id: loss for loss in self._losses if loss.kind != "dropped" and loss.event_id}
        for loss in self._losses:
            if loss.event_id not in self._dropped:
                yield loss
            elif loss.kind == "dropped":
                event_id = loss.event_id or ""
                hidden = bare.get(event_id, loss)
                yield Loss(
                    "dropped",
                    loss.entity,
                    hidden.record_ids,
                    loss.commit_ms,
                    event_id,
                    loss.change_type,
                    ops=tuple(sorted(said[event_id][0])),
                    fields=tuple(sorted(said[event_id][1])),
                )

    def said(self, event_ids: Iterable[str]) -> dict[str, tuple[set[str], set[str]]]:
        """Return by event what it told of: operations, and names of the fields an update changed."""
        found: dict[str, tuple[set[str], set[str]]] = {event_id: (set(), set()) for event_id in event_ids}
        for noted in self._log if found else ():
            told = found.get(noted.event_id or "")
            if told is not None:
                told[0].add(noted.change.op)
                if noted.change.op == "update":
                    told[1].add(noted.change.field)
        return found

    def changes(self, after: int = -1, entity: str = "") -> Iterator[dict[str, object]]:
        """Yield the lines of ``GET /control/oracle/changes`` with an index above ``after``."""
        for index in range(max(0, after + 1), len(self._log)):
            change, commit_ms, user, event_id, tracked, loss, info = self._log[index]
            if entity and change.entity != entity:
                continue
            is_lost = event_id is not None and event_id in self._dropped
            yield {
                "index": index,
                "entity": change.entity,
                "record_id": change.record_id,
                "op": change.op,
                "field": change.field,
                "old": canonical(info, change.old, change.field),
                "new": canonical(info, change.new, change.field),
                "commit_ms": commit_ms,
                "user": user,
                "event_id": event_id,
                "published": event_id is not None and not is_lost,
                "tracked": tracked,
                "loss": "dropped" if is_lost else loss,
            }

    def _remember(self, change: TrueChange, commit_ms: int, user: str, event_id: str | None, loss: str) -> None:
        tracked = self.store.tracked.get(change.entity, frozenset())
        is_tracked = bool(tracked) if change.op == "create" else change.field in tracked and loss != "derived"
        info = self.store.schemas[change.entity].by_name.get(change.field.partition(".")[0])
        self._log.append(_Noted(change, commit_ms, user, event_id, is_tracked, loss, info))

    def _hidden(self, change: TrueChange) -> bool:
        return change.op == "update" and change.field.partition(".")[0] in self.store.hidden(change.entity)

    @staticmethod
    def _kind(change: TrueChange, event: OrgEvent | None) -> str:
        if event is None:
            return {"purge": "purged", "erase": ""}.get(change.op, "derived")
        if event.change_type == "GAP_OVERFLOW":
            return "overflow"
        return "gap" if event.change_type.startswith("GAP_") else ""


def _loss(kind: str, entity: str, hidden: Sequence[TrueChange], commit_ms: int, event: OrgEvent | None) -> Loss:
    ids = tuple(dict.fromkeys(change.record_id for change in hidden))
    named = event.record_ids if event is not None and kind == "gap" else ()
    fields = tuple(sorted({change.field for change in hidden if change.op == "update"}))
    return Loss(
        kind,
        entity,
        tuple(dict.fromkeys((*named, *ids))),
        commit_ms,
        None if event is None else event.event_id,
        "" if event is None else event.change_type,
        event is not None,
        tuple(sorted({change.op for change in hidden})),
        fields,
    )


def true_records(store: Store, entity: str) -> Iterator[dict[str, object]]:
    """Yield the lines of ``GET /control/oracle/records``: every record there is, deleted ones without an image."""
    schema = store.schemas[entity]
    hidden = store.invisible.get(entity, frozenset())
    for record_id, row in tuple(store.table(entity).items()):
        line: dict[str, object] = {
            "record_id": record_id,
            "deleted": row.deleted,
            "system_modstamp_ms": row.system_modstamp_ms,
        }
        if row.deleted:
            line["deleted_ms"] = row.deleted_ms
        else:
            line["image"] = image_of(schema, record_id, row.values, hidden)
        yield line


def image_of(
    schema: WriterSchema, record_id: str, values: Mapping[str, Any], hidden: Iterable[str] = ()
) -> dict[str, object]:
    """Return a record in canonical form: ``Id`` and every visible field.

    A null compound is null, any other has all its parts.
    """
    left_out = frozenset(hidden)
    return {
        "Id": record_id,
        **{
            info.name: canonical(info, values.get(info.name), info.name)
            for info in schema.fields
            if info.name not in left_out
        },
    }


def canonical(info: BodyField | None, value: Any, path: str) -> object:
    """Return a value in the form that Kafka records have it in (design, section 4, "Times").

    Args:
        info: its field; None leaves the value as it is.
        value: as events carry it.
        path: the field's name, or ``Name.Part`` for a part of a compound.

    Raises:
        EmulatorError: the value is of a kind that no field has.
    """
    if value is None or info is None:
        return value
    if isinstance(value, Mapping):
        return {part: canonical(info, value.get(part), f"{path}.{part}") for part, _ in info.parts}
    if isinstance(value, (str, bool)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"nan": "NaN", "inf": "Infinity"}.get(str(value), "-Infinity")
    if not isinstance(value, int):
        raise EmulatorError(f"{path} has a value of another kind", "Commit text, numbers and booleans")
    if "." in path:
        return value
    return _moment(info.doc_type, value)


def _moment(doc_type: str, value: int) -> object:
    if doc_type == "DateTime":
        return (_EPOCH + dt.timedelta(milliseconds=value)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if doc_type in {"DateOnly", "Birthday"}:
        return (_EPOCH + dt.timedelta(milliseconds=value)).date().isoformat()
    if doc_type == "TimeOnly":
        return (_EPOCH + dt.timedelta(milliseconds=value)).time().isoformat(timespec="milliseconds") + "Z"
    return value if abs(value) <= 2**53 else str(value)
