"""What became of one record by one event or row: input of the envelope and of the history room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from consumer.events import Json
from consumer.frozen import frozen
from consumer.tracking.values import FieldChange, ImageKind


@frozen(eq=False)
class TrackedChange:
    """One emitted change of one record.

    Attributes:
        record_id: 18-character id.
        record_index: place among the event's record ids, None for a row.
        change_id: ``<event_id>:<record_id>``, or ``row:<record_id>:<SystemModstamp>:<window or job id>``.
        op: ``c``, ``u``, ``d`` or ``r``.
        change_type: CREATE, UPDATE, DELETE, UNDELETE, GAP_DELETE or VANISHED; None for ``r``.
        before: canonical JSON of the image before, None for ``c`` and for a first ``r``.
        after: canonical JSON of the image after, None for ``d``.
        before_kind, after_kind: how complete they are.
        unknown_fields: schema fields that ``after`` (``before`` for ``d``) has no value for.
        version: ``record_version``.
        stamp_ms: commit time of the event, SystemModstamp of the row, epoch milliseconds: ``source.ts_ms``.
        late: the event was in a row already that was read before it came; the image was not moved.
        late_values: what a late event carried; empty otherwise.
        changed_fields: for rows: the fields that differ; None for events, whose own list is taken.
        repaired: restores what a gap or loss hid.
        window_id: the loss window it belongs to.
        snapshot: ``false``, ``true``, ``last`` or ``incremental``, as Debezium says it.
        fields: what changed, for the history room; empty where history rows tell it better.
    """

    record_id: str
    record_index: int | None
    change_id: str
    op: Literal["c", "u", "d", "r"]
    change_type: str | None
    before: bytes | None
    after: bytes | None
    before_kind: ImageKind
    after_kind: ImageKind
    unknown_fields: tuple[str, ...]
    version: int
    stamp_ms: int
    late: bool = False
    late_values: Mapping[str, Json] = field(default_factory=dict)
    changed_fields: tuple[str, ...] | None = None
    repaired: bool = False
    window_id: str | None = None
    snapshot: Literal["false", "true", "last", "incremental"] = "false"
    fields: tuple[FieldChange, ...] = ()
