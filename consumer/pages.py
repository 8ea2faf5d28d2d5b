"""Answers to questions about the org's records, a page at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from consumer.tracking.access import ShareRow, SharingRule
from consumer.tracking.feed_values import FeedItem
from consumer.tracking.values import HistoryRow, Row


@dataclass(frozen=True, slots=True)
class RowsPage:
    """One answer with rows of an object.

    Attributes:
        rows: in canonical form, the field policy applied.
        answered_ms: the answer's ``Date`` + 1 s (D), epoch milliseconds.
        cursor: where the next page begins; None after the last.
        missing: ids that were asked for and not found.
    """

    rows: Sequence[Row]
    answered_ms: int
    cursor: str | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """One answer with history rows, ordered by (CreatedDate, Id); ``cursor`` as in :class:`RowsPage`."""

    rows: Sequence[HistoryRow]
    answered_ms: int
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class SharesPage:
    """One answer with share rows.

    Attributes:
        rows: in the order that was asked for.
        asked_ms: just before the question was sent, the org's time less a second of doubt, epoch milliseconds:
            nothing that was committed before it is missing.
        answered_ms: the last answer's ``Date`` + 1 s.
        cursor: as in :class:`RowsPage`.
    """

    rows: Sequence[ShareRow]
    asked_ms: int
    answered_ms: int
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class RulesPage:
    """All owner sharing rules of an object; times as in :class:`SharesPage`."""

    rules: Sequence[SharingRule]
    asked_ms: int
    answered_ms: int


@dataclass(frozen=True, slots=True)
class FeedPage:
    """One answer with feed items, ordered by (SystemModstamp, Id); ``cursor`` as in :class:`RowsPage`."""

    items: Sequence[FeedItem]
    answered_ms: int
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class OrgDefault:
    """Org-wide default access to an object (EntityDefinition): what everybody has without any share row.

    Attributes:
        internal: ``Private``, ``Read``, ``ReadWrite`` …, for internal users; None if it may not be read.
        external: for external users.
    """

    internal: str | None
    external: str | None


@dataclass(frozen=True, slots=True)
class DeletedIds:
    """Answer of getDeleted.

    Attributes:
        ids: record id to when it was deleted, epoch milliseconds.
        earliest_ms: the log reaches back to here; a question about an earlier time needs a full compare.
        covered_to_ms: the answer is complete up to here.
    """

    ids: Mapping[str, int]
    earliest_ms: int
    covered_to_ms: int
