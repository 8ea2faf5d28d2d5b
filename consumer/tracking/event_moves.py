"""How one event moves the image of each of its records, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Literal, TypeAlias

from consumer.changes.canonical import date_time
from consumer.events import ChangeEvent, ChangeType, Json
from consumer.tracking.changes import TrackedChange
from consumer.tracking.images import (
    MISSING,
    NO_HISTORY,
    SINCE_FIELDS,
    Draft,
    Plan,
    bare_image,
    changed_places,
    encode_image,
    untold,
)
from consumer.tracking.rows import IN_THE_ROW_MS
from consumer.tracking.values import FieldChange, ImageKind, RecordState, SourceVersion

Moved: TypeAlias = tuple[RecordState, TrackedChange, bool]
"""The new state, what is said of it, and whether the record must be read again."""

OPS: Mapping[str, Literal["c", "u", "d"]] = {
    ChangeType.CREATE: "c",
    ChangeType.UNDELETE: "c",
    ChangeType.UPDATE: "u",
    ChangeType.DELETE: "d",
    ChangeType.GAP_DELETE: "d",
}
"""Change types that tell a change, and the operation they are."""

_CREATE: Final = ChangeType.CREATE
_CREATED = (FieldChange("created", None, None),)


class EventMoves:
    """One event, ready to be applied to its records.

    Args:
        change: the event; its change type is one of :data:`OPS`.
        plan: what is to be known of its records.
        epoch: counts lost positions.
    """

    __slots__ = ("_at", "_change", "_commit_ms", "_event_id", "_op", "_plan", "_retried", "_source")

    def __init__(self, change: ChangeEvent, plan: Plan, epoch: int) -> None:
        header = change.header
        self._change = change
        self._plan = plan
        self._op = OPS[change.change_type]
        self._commit_ms = header.commit_ms
        at = date_time(header.commit_ms)
        self._at = at if isinstance(at, str) else None
        self._event_id = change.received.event_id
        self._retried = change.received.window_id is not None
        self._source = SourceVersion(epoch, header.commit_number, header.sequence_number, header.commit_ms)

    def apply(self, index: int, state: RecordState | None) -> Moved:
        """Return what becomes of the event's record at a place.

        Args:
            index: place among the event's record ids.
            state: what is known of that record.
        """
        blind = False
        if state is not None and state.row_read_ms is not None:
            if state.row_stamp_ms is not None and self._commit_ms < state.row_stamp_ms - IN_THE_ROW_MS:
                return self._late(index, state)
            blind = self._commit_ms <= state.row_read_ms
        if (
            self._retried
            and state is not None
            and state.source is not None
            and self._commit_ms <= state.source.commit_ms
        ):
            # A quarantined event comes out of its order: the image has moved on, and would go back.
            return self._late(index, state)
        if self._op == "u":
            return self._updated(index, state, blind=blind)
        return self._deleted(index, state) if self._op == "d" else self._created(index, state)

    def _updated(self, index: int, state: RecordState | None, *, blind: bool) -> Moved:
        change, plan = self._change, self._plan
        record_id = change.record_ids[index]
        live = None if state is None or state.deleted else state
        places = changed_places(change.changed_fields)
        draft = Draft(live, plan, blind=blind)
        draft.update(change, places)
        before_kind: ImageKind = "none"
        if live is None:
            before = bare_image(record_id)
        elif blind:
            before, before_kind = without_fields(live, places[2])
        else:
            before, before_kind = live.image_json, live.image_kind
        since = self._since(live, draft.image, places[0])
        moved = self._moved(record_id, state, live, draft, since)
        return moved, self._told(index, moved, before, before_kind, tuple(draft.facts)), draft.doubtful

    def _created(self, index: int, state: RecordState | None) -> Moved:
        change = self._change
        record_id = change.record_ids[index]
        live = None if state is None or state.deleted else state
        draft = Draft(live, self._plan)
        draft.fill(change, self._plan)
        since: dict[str, str] = {name: self._at for name in SINCE_FIELDS if name in draft.image and self._at}
        moved = self._moved(record_id, state, live, draft, since)
        if moved.gap is not None:
            moved = replace(moved, gap=None)
        facts = _CREATED if change.change_type == _CREATE else ()
        return moved, self._told(index, moved, None, "none", facts), False

    def _since(self, live: RecordState | None, image: Mapping[str, Json], changed: frozenset[str]) -> Mapping[str, str]:
        """Return since when ``Status`` and ``OwnerId`` have their values; the same object if nothing moved."""
        since: Mapping[str, str] = {} if live is None else live.since
        moved: dict[str, str] | None = None
        for name in SINCE_FIELDS:
            new = image.get(name, MISSING)
            if new is MISSING:
                continue
            old = MISSING if live is None or name in live.suspect else live.image.get(name, MISSING)
            if name in changed:
                if (old != new or name not in since) and self._at is not None:
                    moved = moved or dict(since)
                    moved[name] = self._at
            elif old != new and name in since:
                moved = moved or dict(since)  # enrichment told a value, not since when
                moved.pop(name, None)
        return since if moved is None else moved

    def _moved(
        self,
        record_id: str,
        state: RecordState | None,
        live: RecordState | None,
        draft: Draft,
        since: Mapping[str, str],
    ) -> RecordState:
        image = draft.image
        if live is None:
            return RecordState(
                self._change.header.entity,
                record_id,
                image,
                encode_image(record_id, image, draft.suspect),
                self._plan.unknown(image),
                draft.suspect,
                1 if state is None else state.version + 1,
                self._source,
                None if state is None else state.row_stamp_ms,
                None if state is None else state.row_read_ms,
                since,
                gap=None if state is None else state.gap,
                incomplete=draft.incomplete,
                ahead=draft.ahead,
                made_for=self._plan.fields,
            )
        return RecordState(
            live.entity,
            record_id,
            image,
            encode_image(record_id, image, draft.suspect),
            live.unknown if draft.fitted and len(image) == len(live.image) else self._plan.unknown(image),
            draft.suspect,
            live.version + 1,
            self._source,
            live.row_stamp_ms,
            live.row_read_ms,
            since,
            completed=live.completed,
            metrics=live.metrics,
            gap=live.gap,
            incomplete=draft.incomplete,
            ahead=draft.ahead,
            made_for=self._plan.fields,
        )

    def _told(
        self,
        index: int,
        moved: RecordState,
        before: bytes | None,
        before_kind: ImageKind,
        facts: tuple[FieldChange, ...],
    ) -> TrackedChange:
        return TrackedChange(
            moved.record_id,
            index,
            f"{self._event_id}:{moved.record_id}",
            self._op,
            self._change.change_type,
            before,
            moved.image_json,
            before_kind,
            moved.image_kind,
            untold(moved, self._plan.fields),
            moved.version,
            self._commit_ms,
            fields=facts,
        )

    def _deleted(self, index: int, state: RecordState | None) -> Moved:
        change = self._change
        record_id = change.record_ids[index]
        live = None if state is None or state.deleted else state
        moved = RecordState(
            change.header.entity,
            record_id,
            {},
            b"",
            version=1 if state is None else state.version + 1,
            source=self._source,
            row_stamp_ms=None if state is None else state.row_stamp_ms,
            row_read_ms=None if state is None else state.row_read_ms,
            deleted=True,
            deleted_ms=self._commit_ms,
        )
        told = TrackedChange(
            record_id,
            index,
            f"{self._event_id}:{record_id}",
            "d",
            change.change_type,
            bare_image(record_id) if live is None else live.image_json,
            None,
            "none" if live is None else live.image_kind,
            "none",
            self._plan.fields if live is None else untold(live, self._plan.fields),
            moved.version,
            self._commit_ms,
        )
        return moved, told, False

    def _late(self, index: int, state: RecordState) -> Moved:
        """A row told this event before it came: the image stays as it is, or it would go back."""
        change = self._change
        image_json = bare_image(state.record_id) if state.deleted else state.image_json
        before: bytes | None = None
        before_kind: ImageKind = "none"
        values: Mapping[str, Json] = {}
        if self._op == "d":
            before, before_kind = image_json, state.image_kind
        else:
            values = {name: value for name, value in change.values.items() if name not in change.diff_fields}
            if self._op == "u":
                before, before_kind = without_fields(state, changed_places(change.changed_fields)[2])
        moved = replace(state, version=state.version + 1)
        told = TrackedChange(
            state.record_id,
            index,
            f"{self._event_id}:{state.record_id}",
            self._op,
            change.change_type,
            before,
            None if self._op == "d" else image_json,
            before_kind,
            "none" if self._op == "d" else state.image_kind,
            self._plan.fields if state.deleted else untold(state, self._plan.fields),
            moved.version,
            self._commit_ms,
            late=True,
            late_values=values,
            fields=_late_facts(change, self._plan),
        )
        return moved, told, False


def without_fields(state: RecordState, names: frozenset[str]) -> tuple[bytes, ImageKind]:
    """Return the image without some fields, and how complete that is."""
    if names.isdisjoint(state.image) or state.deleted:
        return (bare_image(state.record_id) if state.deleted else state.image_json), state.image_kind
    left_out = names | state.suspect
    kind: ImageKind = "none" if left_out.issuperset(state.image) else "partial"
    return encode_image(state.record_id, state.image, left_out), kind


def _late_facts(change: ChangeEvent, plan: Plan) -> tuple[FieldChange, ...]:
    if change.change_type == _CREATE:
        return _CREATED
    facts = []
    for path in change.changed_fields:
        name, _, part = path.partition(".")
        if name not in plan.names or name in NO_HISTORY:
            continue
        value = change.values.get(name, MISSING)
        if part:
            value = value.get(part, MISSING) if isinstance(value, dict) else MISSING
        told = value is not MISSING and path not in change.diff_fields
        facts.append(FieldChange(path, None, value if told else None, old_known=False, new_known=told))
    return tuple(facts)
