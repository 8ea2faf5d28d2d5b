"""What the rows of one read do to records: the difference that is said, and the state after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

from consumer.changes.canonical import date_time
from consumer.tracking.arrivals import Purpose, RowsRead
from consumer.tracking.changes import TrackedChange
from consumer.tracking.images import NO_HISTORY, SINCE_FIELDS, Plan, bare_image, encode_image, untold
from consumer.tracking.marks import Touch
from consumer.tracking.rows import (
    BY_ID,
    IN_THE_ROW_MS,
    REPAIRING,
    RowMerge,
    change_id,
    is_older,
    protected_by,
    row_operation,
)
from consumer.tracking.values import FieldChange, ImageKind, RecordState, Row


class RowMoved(NamedTuple):
    """What became of a record by a row.

    Attributes:
        state: to be put, None to leave what is there.
        change: to be emitted, None for nothing.
        doubtful: whether the row proved too little, so that the record must be read again.
    """

    state: RecordState | None = None
    change: TrackedChange | None = None
    doubtful: bool = False


_UNMOVED = RowMoved()
_DOUBTFUL = RowMoved(doubtful=True)


class RowMoves:
    """One read, ready to be applied to records.

    Args:
        read: the read.
        plan: what is to be known of its records.
        provable: whether everything that events did since its request is known.
    """

    def __init__(self, read: RowsRead, plan: Plan, *, provable: bool) -> None:
        self._read = read
        self._plan = plan
        self._provable = provable
        self._repaired = bool(read.window_ids) and read.purpose in REPAIRING
        self._window_id = read.window_ids[0] if self._repaired else None

    def apply(self, row: Row, state: RecordState | None, touch: Touch | None) -> RowMoved:
        """Return what a row that was found does.

        Args:
            row: the row.
            state: what is known of its record.
            touch: what events did to the record since the request.
        """
        read = self._read
        if row.deleted and read.purpose is not Purpose.UNKNOWN:
            return self._gone(row.record_id, row.stamp_ms, state, touch)
        if is_older(row, read, state, touch):
            return _DOUBTFUL if state is not None and state.stale else _UNMOVED
        limit = row.stamp_ms - IN_THE_ROW_MS
        if touch is not None and touch.gap_ms >= limit:
            return _UNMOVED  # read before the gap, perhaps; the gap's own repair follows
        if touch is not None and state is not None and state.deleted and touch.whole_ms >= limit:
            return _UNMOVED
        merge = RowMerge(state, row, self._plan, protected_by(touch, row.stamp_ms))
        if state is not None and not self._provable and self._unproven(row, state, merge):
            return _DOUBTFUL
        return self._moved(row, state, merge)

    def missing(self, record_id: str, state: RecordState | None, touch: Touch | None) -> RowMoved:
        """Return what an id that is not there any more does."""
        return self._gone(record_id, None, state, touch)

    def _unproven(self, row: Row, state: RecordState, merge: RowMerge) -> bool:
        """Return whether an event that the row lacks may be what differs."""
        if state.stale:
            return True
        if state.source is None or state.source.commit_ms <= row.stamp_ms:
            return False
        return merge.differs or state.source.commit_ms > self._read.answered_ms

    def _moved(self, row: Row, state: RecordState | None, merge: RowMerge) -> RowMoved:
        purpose = self._read.purpose
        quiet = purpose is Purpose.UNKNOWN
        live = None if state is None or state.deleted else state
        gap = None if state is None else state.gap
        repairs_gap = purpose is Purpose.REPAIR and gap is not None
        told = not quiet and (repairs_gap or live is None or merge.differs or merge.learnt)
        if not (told or quiet or gap is not None):
            return _UNMOVED
        after = self._state_after(row, state, live, merge, told=told)
        if not told:
            return RowMoved(after)
        known = live is not None and bool(live.image)
        op: Literal["c", "u", "r"] = "r"
        change_type: str | None = None
        if gap is not None and purpose is Purpose.REPAIR and self._repaired:
            op, change_type = row_operation(gap, known=known)
        before, before_kind = self._before(row.record_id, live, op)
        return RowMoved(
            after,
            TrackedChange(
                row.record_id,
                None,
                change_id(row.record_id, row.stamp_ms, self._read, after.version),
                op,
                change_type,
                before,
                after.image_json,
                before_kind,
                after.image_kind,
                untold(after, self._plan.fields),
                after.version,
                row.stamp_ms,
                changed_fields=tuple(fact.field for fact in merge.changed),
                repaired=self._repaired,
                window_id=self._window_id,
                snapshot="false" if op != "r" else self._snapshot(),
                fields=tuple(fact for fact in merge.changed if fact.field not in NO_HISTORY),
            ),
        )

    def _state_after(
        self, row: Row, state: RecordState | None, live: RecordState | None, merge: RowMerge, *, told: bool
    ) -> RecordState:
        read, draft = self._read, merge.draft
        image = draft.image
        quiet = read.purpose is Purpose.UNKNOWN
        version = 0 if state is None else state.version
        filled = merge.filled and (live is not None or read.purpose in BY_ID)
        return RecordState(
            read.entity,
            row.record_id,
            image,
            encode_image(row.record_id, image, draft.suspect),
            self._plan.unknown(image),
            draft.suspect,
            version + 1 if told else version,
            None if state is None else state.source,
            # A deleted record's stamp says nothing of when its other events came.
            None if row.deleted else row.stamp_ms,
            read.answered_ms,
            _since(live, merge.changed, row.stamp_ms),
            completed=quiet or filled or (live is not None and live.completed),
            metrics=None if live is None else live.metrics,
            gap=state.gap if quiet and state is not None else None,
            incomplete=draft.incomplete,
            ahead=draft.ahead,
        )

    def _before(
        self, record_id: str, live: RecordState | None, op: Literal["c", "u", "r"]
    ) -> tuple[bytes | None, ImageKind]:
        if live is None or not live.image:
            return (bare_image(record_id) if op == "u" else None), "none"
        if op == "c":
            return None, "none"
        if op == "u":
            return _last_known(live)
        return live.image_json, live.image_kind

    def _snapshot(self) -> Literal["true", "incremental"]:
        return "true" if self._read.purpose is Purpose.SNAPSHOT else "incremental"

    def _gone(self, record_id: str, stamp_ms: int | None, state: RecordState | None, touch: Touch | None) -> RowMoved:
        read = self._read
        if state is None or read.purpose is Purpose.UNKNOWN:
            return _UNMOVED
        if self._may_be_back(stamp_ms, state, touch):
            return _DOUBTFUL
        if state.deleted:
            return _UNMOVED if state.gap is None else RowMoved(replace(state, gap=None))
        at_ms = read.answered_ms if stamp_ms is None else stamp_ms
        after = RecordState(
            read.entity,
            record_id,
            {},
            b"",
            version=state.version + 1,
            source=state.source,
            # What is not even in the recycle bin never comes back: every event up to the answer is before its end.
            row_stamp_ms=read.answered_ms + IN_THE_ROW_MS if stamp_ms is None else stamp_ms,
            row_read_ms=read.answered_ms,
            deleted=True,
            deleted_ms=at_ms,
        )
        before, before_kind = _last_known(state)
        change = TrackedChange(
            record_id,
            None,
            change_id(record_id, "gone" if stamp_ms is None else stamp_ms, read, after.version),
            "d",
            "VANISHED",
            before,
            None,
            before_kind,
            "none",
            untold(replace(state, suspect=frozenset()), self._plan.fields),
            after.version,
            at_ms,
            changed_fields=(),
            repaired=self._repaired,
            window_id=self._window_id,
            snapshot="false" if read.purpose is Purpose.REPAIR else self._snapshot(),
        )
        return RowMoved(after, change)

    def _may_be_back(self, stamp_ms: int | None, state: RecordState, touch: Touch | None) -> bool:
        """Return whether an event since, or one that the read can't prove to be older, may have brought it back."""
        if state.deleted and state.gap is None:
            return False
        if touch is not None and self._read.mark is not None and touch.read > self._read.mark:
            return True  # a read that was asked for later found it
        if touch is not None and touch.by_event:
            return stamp_ms is None or touch.last_ms >= stamp_ms - IN_THE_ROW_MS
        if stamp_ms is not None and state.row_stamp_ms is not None and stamp_ms < state.row_stamp_ms:
            return True
        if self._provable:
            return False
        newest_ms = -1 if state.source is None else state.source.commit_ms
        return state.stale or newest_ms > (self._read.answered_ms if stamp_ms is None else stamp_ms)


def _last_known(state: RecordState) -> tuple[bytes, ImageKind]:
    """Return the image with the values that are in doubt: what was known before the gap."""
    certain = replace(state, suspect=frozenset())
    if not state.suspect:
        return state.image_json, certain.image_kind
    return encode_image(state.record_id, state.image), certain.image_kind


def _since(live: RecordState | None, changed: list[FieldChange], stamp_ms: int) -> Mapping[str, str]:
    since = {} if live is None else live.since
    moved = {fact.field for fact in changed} & set(SINCE_FIELDS)
    at = date_time(stamp_ms)
    return {**since, **dict.fromkeys(moved, at)} if moved and isinstance(at, str) else since
