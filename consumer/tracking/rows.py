"""How a row that was read moves an image: what events set since the request stays, and what it says is believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from consumer.events import ChangeType, Json
from consumer.tracking.arrivals import Purpose, RowsRead
from consumer.tracking.images import MISSING, NO_HISTORY, Draft, Plan, differences, same, whole
from consumer.tracking.marks import Touch
from consumer.tracking.values import FieldChange, RecordState, Row

IN_THE_ROW_MS = 1_000
"""An event committed this much before a row's SystemModstamp (whole seconds) is in the row."""

BY_ID = frozenset({Purpose.REPAIR, Purpose.REFRESH, Purpose.UNKNOWN, Purpose.RECONCILE})
"""Purposes whose rows are read by id; the fields they fill make an image ``completed``."""

REPAIRING = frozenset({Purpose.REPAIR, Purpose.RESYNC, Purpose.RECONCILE})
"""Purposes whose rows restore what a loss hid."""


@dataclass(frozen=True, slots=True)
class Protected:
    """What a row must leave as it is, because an event set it after the row was asked for.

    Attributes:
        fields: whole fields.
        parts: parts of compounds.
        all_known: the record was created or deleted since: every field that is known.
    """

    fields: frozenset[str] = frozenset()
    parts: Mapping[str, frozenset[str]] | None = None
    all_known: bool = False


NOTHING = Protected()


def protected_by(touch: Touch | None, stamp_ms: int) -> Protected:
    """Return what a row with this SystemModstamp must leave.

    What an event set well before the row's stamp is in the row already; the row may have a later value even,
    whose event would then be taken for told by the row.
    """
    if touch is None:
        return NOTHING
    limit = stamp_ms - IN_THE_ROW_MS
    fields: set[str] = set()
    parts: dict[str, frozenset[str]] = {}
    for path, commit_ms in touch.paths.items():
        if commit_ms >= limit:
            name, _, part = path.partition(".")
            if part:
                parts[name] = parts.get(name, frozenset()) | {part}
            else:
                fields.add(name)
    return Protected(frozenset(fields), parts, touch.whole_ms >= limit)


def is_older(row: Row, read: RowsRead, state: RecordState | None, touch: Touch | None) -> bool:
    """Return whether the state has a newer row already, or knows of a deletion after this one.

    Of two rows that no time tells apart, the one that was asked for last is the newer one.
    """
    if state is None:
        return False
    if state.deleted and not row.deleted and state.source is not None and row.stamp_ms < state.source.commit_ms:
        return True
    if state.row_stamp_ms is None or state.row_read_ms is None:
        return False
    if row.stamp_ms != state.row_stamp_ms:
        return row.stamp_ms < state.row_stamp_ms
    if read.answered_ms != state.row_read_ms:
        return read.answered_ms < state.row_read_ms
    return touch is not None and read.mark is not None and touch.read > read.mark


def row_operation(cause: str, *, known: bool) -> tuple[Literal["c", "u", "r"], str | None]:
    """Return op and change type of the row that repairs a gap.

    Args:
        cause: why the record was in doubt.
        known: whether anything was known of it.
    """
    if cause == ChangeType.GAP_UNDELETE:
        return "c", "UNDELETE"
    if known or cause == ChangeType.GAP_UPDATE:
        return "u", "UPDATE"
    return ("c", "CREATE") if cause == ChangeType.GAP_CREATE else ("r", None)


def change_id(record_id: str, stamp: int | Literal["gone"], read: RowsRead, version: int) -> str:
    """Return the id of a row's change: ``row:<record id>:<SystemModstamp in ms>:<window, job, or purpose>``.

    A read that is for no window and no job is told apart by the version it leads to.
    """
    cause = read.window_ids[0] if read.window_ids else read.job_id or f"{read.purpose.value}-{version}"
    return f"row:{record_id}:{stamp}:{cause}"


class RowMerge:
    """Takes a row into an image.

    Args:
        state: what is known, None for nothing.
        row: the row.
        plan: what is to be known.
        protected: what it must leave.

    Attributes:
        draft: the image with the row in it; its facts are what differed.
        learnt: whether something became known, or certain again.
        filled: whether a field that was unknown became known.
    """

    def __init__(self, state: RecordState | None, row: Row, plan: Plan, protected: Protected) -> None:
        self.draft = draft = Draft(state if state is not None and not state.deleted else None, plan)
        self.learnt = self.filled = False
        self.changed: list[FieldChange] = []
        self._protected = protected
        for name, value in row.values.items():
            if name in plan.names:
                self._take(name, whole(value))
        self._give_up_suspects()
        draft.facts = [fact for fact in self.changed if fact.field not in NO_HISTORY]

    @property
    def differs(self) -> bool:
        """Whether a known value was another one."""
        return bool(self.changed)

    def _take(self, name: str, value: Json) -> None:
        draft = self.draft
        old = draft.image.get(name, MISSING)
        if name in self._protected.fields or (self._protected.all_known and old is not MISSING):
            return
        parts = self._protected.parts.get(name) if self._protected.parts else None
        if parts:
            value = _overlaid(value, old, parts)
        if old is MISSING:
            self.learnt = self.filled = True
        elif name in draft.incomplete:
            self.learnt = self.filled = True
            known = {part: item for part, item in old.items() if _part(value, part) != item}
            self.changed += [FieldChange(f"{name}.{part}", item, _part(value, part)) for part, item in known.items()]
            draft.incomplete -= {name}
        elif same(old, value):
            value = old
        else:
            self.changed += differences(name, old, value)
        if name in draft.suspect:
            self.learnt = True
            draft.suspect -= {name}
        if draft.ahead:
            draft.ahead -= {name}
        draft.image[name] = value

    def _give_up_suspects(self) -> None:
        """What stays in doubt although the record was read can't be read: it becomes unknown."""
        protected = self._protected
        if self.draft.suspect and not protected.all_known:
            lost = self.draft.suspect - protected.fields
            for name in lost:
                del self.draft.image[name]
            self.draft.suspect -= lost
            self.draft.incomplete -= lost
            self.learnt = self.learnt or bool(lost)


def _part(value: Json, part: str) -> Json:
    return value.get(part) if type(value) is dict else None


def _overlaid(value: Json, old: Json, parts: frozenset[str]) -> Json:
    """Return a row's compound with the parts that events set since."""
    if type(old) is not dict and old is not None:
        return value
    merged = dict(value) if type(value) is dict else {}
    for part in parts:
        merged[part] = _part(old, part)
    return whole(merged)
