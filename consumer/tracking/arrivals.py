"""What reads of the org bring to the pipeline, beside the stream; each is taken in between two events.

The progress a read made travels with it, into the same transaction as the records it becomes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, TypeAlias

from consumer.changes.rows import FieldInfo
from consumer.events import Json
from consumer.tracking.access import Grantee, ShareCause, ShareRow, SharingRule
from consumer.tracking.feed_values import FeedItem
from consumer.tracking.values import EntityFacts, HistoryRow, Row

COUNTED: Final = ("repair:", "scan:")
"""Beginnings of the names of progress in which the pipeline keeps ``repaired``: records emitted with it so far."""


class Purpose(StrEnum):
    """Why rows were read."""

    SNAPSHOT = "snapshot"
    RESYNC = "resync"
    REPAIR = "repair"
    REFRESH = "refresh"
    UNKNOWN = "unknown"
    RECONCILE = "reconcile"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job or poll got; one record of ``positions`` with the key ``progress:<channel>:<name>``.

    Attributes:
        name: ``scan:<job id>``, ``poll:history:<entity>``, ``poll:reconcile:<entity>``, ``span`` …
        done: True removes the entry.
        state: what it needs to go on: plain JSON.
    """

    name: str
    state: Mapping[str, Json] = field(default_factory=dict)
    done: bool = False


@dataclass(frozen=True, slots=True)
class Closing:
    """A loss window that this arrival closes.

    Attributes:
        window_id: the window.
        state, deletes, tracked_history, all_changes: what was restored (see ``coverage.Restoration``).
        unrecoverable_fields: fields whose transitions in the span can't be had any more.
        repaired: records the whole repair emitted before this arrival; its own are added.
        to_ms: where a window without an end did end, epoch milliseconds; None leaves the window's own.
    """

    window_id: str
    state: bool = True
    deletes: bool = True
    tracked_history: bool = False
    all_changes: bool = False
    unrecoverable_fields: tuple[str, ...] = ()
    repaired: int = 0
    to_ms: int | None = None


@dataclass(frozen=True, slots=True)
class RowsRead:
    """Rows of one object, read by id or in a scan.

    Attributes:
        purpose: why.
        entity: object API name.
        rows: the rows.
        answered_ms: the answer's ``Date`` + 1 s (D), epoch milliseconds.
        mark: from ``Tracker.begin_read`` before the request was sent; None for rows of a Bulk job, whose records
            that an event touched since the job was made are left out by the reader.
        missing: ids that were asked for by id, with queryAll, and are not there: they are gone.
        window_ids: the loss windows this is for; the first one is named in records.
        job_id: id of the snapshot or scan, part of the records' ids; empty for reads by id.
        last: the scan's last chunk.
        progress: what becomes durable with it.
        closings: windows closed with it.
        more: whether the rest of the read follows: its mark stays, and its progress is not made yet.
    """

    purpose: Purpose
    entity: str
    rows: tuple[Row, ...]
    answered_ms: int
    mark: int | None
    missing: tuple[str, ...] = ()
    window_ids: tuple[str, ...] = ()
    job_id: str = ""
    last: bool = False
    progress: tuple[Progress, ...] = ()
    closings: tuple[Closing, ...] = ()
    more: bool = False

    def split(self, rows: int) -> tuple[RowsRead, RowsRead]:
        """Return its first rows as a read of their own, and the rest, which ends it."""
        first = replace(self, rows=self.rows[:rows], missing=(), last=False, closings=(), more=True)
        return first, replace(self, rows=self.rows[rows:])


@dataclass(frozen=True, slots=True)
class HistoryRead:
    """Rows of the history object.

    Attributes:
        entity: the tracked object's API name.
        rows: the rows, ordered by (CreatedDate, Id).
        complete_to_ms: every row with an earlier CreatedDate is read and settled; None inside of a window.
        answered_ms: the answer's ``Date`` + 1 s, epoch milliseconds.
        backfill: rows of before the first start: each is a fact with match ``backfill``.
    """

    entity: str
    rows: tuple[HistoryRow, ...]
    complete_to_ms: int | None
    answered_ms: int
    backfill: bool = False
    progress: tuple[Progress, ...] = ()
    closings: tuple[Closing, ...] = ()


@dataclass(frozen=True, slots=True)
class MetricsRead:
    """MessagingSessionMetrics of ended sessions.

    Attributes:
        metrics: by record id, metric type to value; a record without rows is not in it.
        asked: ids that were asked for.
        answered_ms: the answer's ``Date`` + 1 s, epoch milliseconds.
    """

    entity: str
    metrics: Mapping[str, Mapping[str, Json]]
    asked: tuple[str, ...]
    answered_ms: int


@dataclass(frozen=True, slots=True)
class FactsRead:
    """Describe and tracked fields of an object were read.

    Attributes:
        facts: what follows from them.
        fields: the describe itself, for read plans; None leaves what was known.
        answered_ms: the answer's ``Date`` + 1 s, epoch milliseconds.
    """

    facts: EntityFacts
    answered_ms: int
    fields: Mapping[str, FieldInfo] | None = None


@dataclass(frozen=True, slots=True)
class SettleDue:
    """Facts of history may have waited long enough for their rows.

    Attributes:
        record_ids: records whose ledger entry has facts.
        complete_to_ms: history rows are read up to here, epoch milliseconds; where there are none to read, up to now.
        answered_ms: the org's time, epoch milliseconds.
    """

    entity: str
    record_ids: tuple[str, ...]
    complete_to_ms: int
    answered_ms: int


@dataclass(frozen=True, slots=True)
class SchemaSeen:
    """The schema that new events of an object are written with was asked for.

    Attributes:
        schema_id, schema_json: the writer schema.
        as_of_ms: from when on it is known to be the current one, epoch milliseconds of the org's time.
    """

    schema_id: str
    schema_json: str
    as_of_ms: int


@dataclass(frozen=True, slots=True)
class Reconciled:
    """One hour was compared with Salesforce.

    Attributes:
        from_ms, to_ms: the hour, epoch milliseconds of the org's time.
        records: rows Salesforce has for it.
        digest: hex digest over (id, LastModifiedDate) of them, sorted.
        differing: ids whose state does not agree; empty means that the hour is proven.
    """

    entity: str
    from_ms: int
    to_ms: int
    records: int
    digest: str
    differing: tuple[str, ...]
    answered_ms: int
    progress: tuple[Progress, ...] = ()


@dataclass(frozen=True, slots=True)
class RecordShares:
    """Share rows of one record that were read together."""

    record_id: str
    rows: tuple[ShareRow, ...] = ()


@dataclass(frozen=True, slots=True)
class SharesRead:
    """Share rows of an object.

    Attributes:
        entity: the shared object's API name.
        records: by record.
        whole: whether each record's rows are all it has; False for single rows of an incremental poll.
        cause: why they were read; None: as each record's ledger entry says.
        asked_ms: nothing that was committed before it is missing, epoch milliseconds of the org's time.
        answered_ms: the last answer's ``Date`` + 1 s, epoch milliseconds.
        grantees: whom the rows' grantees stand for, as far as that is known.
        polled_ms: of the last page of an incremental poll: when it asked first, epoch milliseconds of the org's time;
            every row that was modified lately, and was there then, was read.
        swept_from_ms: of the last piece of a sweep: when it began, epoch milliseconds of the org's time.
        progress: what becomes durable with it.
    """

    entity: str
    records: tuple[RecordShares, ...]
    whole: bool
    cause: ShareCause | None
    asked_ms: int
    answered_ms: int
    grantees: Mapping[str, Grantee] = field(default_factory=dict)
    polled_ms: int | None = None
    swept_from_ms: int | None = None
    progress: tuple[Progress, ...] = ()


@dataclass(frozen=True, slots=True)
class RulesRead:
    """All owner sharing rules of an object.

    Attributes:
        rules: all there are.
        deleted: rule ids of the delete log, to when they were deleted, epoch milliseconds.
        asked_ms, answered_ms, grantees: as in :class:`SharesRead`.
    """

    entity: str
    rules: tuple[SharingRule, ...]
    deleted: Mapping[str, int]
    asked_ms: int
    answered_ms: int
    grantees: Mapping[str, Grantee] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FeedRead:
    """Rows of an object's feed.

    Attributes:
        items: ordered by (SystemModstamp, Id).
        complete_to_ms: every row with an earlier SystemModstamp was read and settled; None inside of a window.
        answered_ms: the answer's ``Date`` + 1 s, epoch milliseconds.
        backfill: items of before the first start.
    """

    entity: str
    items: tuple[FeedItem, ...]
    complete_to_ms: int | None
    answered_ms: int
    backfill: bool = False
    progress: tuple[Progress, ...] = ()


@dataclass(frozen=True, slots=True)
class Expired:
    """Deleted records whose grace is over: their state becomes a tombstone."""

    entity: str
    record_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Closed:
    """Nothing but windows that are closed now, and progress."""

    entity: str
    answered_ms: int
    closings: tuple[Closing, ...] = ()
    progress: tuple[Progress, ...] = ()


Arrival: TypeAlias = (
    RowsRead
    | HistoryRead
    | SettleDue
    | MetricsRead
    | FactsRead
    | SchemaSeen
    | Reconciled
    | SharesRead
    | RulesRead
    | FeedRead
    | Expired
    | Closed
)
