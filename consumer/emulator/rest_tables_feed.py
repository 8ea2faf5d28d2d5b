"""Feed items of the emulated org as REST shows them; field changes are read by a subquery only.

Source: Object Reference, "MessagingSessionFeed", "FeedTrackedChange".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from consumer.emulator.org import OrgModel
from consumer.emulator.org_feed import FEED, FeedItem
from consumer.emulator.record_ids import PREFIXES
from consumer.emulator.rest_table_base import Bound, Child, RecordTable, by_name, span_of
from consumer.emulator.rest_values import Column


def _seconds(value: int) -> int:
    return value // 1000 * 1000


FEED_COLUMNS: Final = (
    Column("Id", "id", "item_id", length=18, nillable=False),
    Column(
        "ParentId",
        "reference",
        "parent_id",
        length=18,
        nillable=False,
        refers_to=("MessagingSession",),
        relationship="Parent",
    ),
    Column("Type", "picklist", "type", length=40),
    Column(
        "CreatedById",
        "reference",
        "created_by",
        length=18,
        nillable=False,
        refers_to=("User",),
        relationship="CreatedBy",
    ),
    Column("CreatedDate", "datetime", "created_ms", nillable=False, groupable=False, read=_seconds),
    Column("IsDeleted", "boolean", "deleted", nillable=False),
    Column("LastModifiedDate", "datetime", "modified_ms", nillable=False, groupable=False, read=_seconds),
    Column("SystemModstamp", "datetime", "stamp_ms", nillable=False, groupable=False),
    Column("CommentCount", "int", "comments", nillable=False),
    Column("LikeCount", "int", "likes", nillable=False),
    Column("Title", "string", "title", length=255, filterable=False),
    Column("Body", "textarea", "body", length=10_000, filterable=False, groupable=False),
    Column("LinkUrl", "url", "link", length=1000, filterable=False, groupable=False),
    Column("IsRichText", "boolean", "rich", nillable=False),
    Column(
        "RelatedRecordId",
        "reference",
        "related",
        length=18,
        filterable=False,
        refers_to=("ContentVersion", "WorkThanks"),
    ),
    Column("InsertedById", "reference", "created_by", length=18, filterable=False, refers_to=("User",)),
    Column("BestCommentId", "reference", "best", length=18, filterable=False, refers_to=("FeedComment",)),
)
TRACKED_CHANGES: Final = Child(
    "FeedTrackedChange",
    "FeedTrackedChanges",
    by_name(
        Column("Id", "id", "0", length=18, nillable=False),
        Column("FieldName", "string", "1", length=255),
        Column("OldValue", "anyType", "2"),
        Column("NewValue", "anyType", "3"),
    ),
    "tracked",
)


class FeedTable(RecordTable):
    """MessagingSessionFeed."""

    def __init__(self, org: OrgModel) -> None:
        super().__init__(FEED, PREFIXES["FeedItem"], replicates=True)
        self._org = org
        self._feed = org.feed
        self._hidden: frozenset[str] | None = None

    def columns(self) -> Mapping[str, Column]:
        """See the base; without what the API user may not see."""
        hidden = self._org.invisible_fields(FEED)
        if hidden != self._hidden:
            self._hidden = hidden
            self._COLUMNS = by_name(*(column for column in FEED_COLUMNS if column.name not in hidden))
        return self._COLUMNS

    def keys(self, bounds: Mapping[str, Bound], *, deleted: bool) -> Iterable[FeedItem]:
        """See the base: narrowed by record, or by SystemModstamp."""
        del deleted
        parents = bounds.get("ParentId", Bound()).equal
        if parents is not None:
            return chain.from_iterable(self._feed.of(each) for each in sorted(filter(None, parents)))
        if "SystemModstamp" in bounds:
            return self._feed.by_stamp(*span_of(bounds["SystemModstamp"]))
        return self._feed.items()

    def in_order(self, order: Sequence[str], bounds: Mapping[str, Bound], *, deleted: bool) -> Iterable[Any] | None:
        """See the base: by SystemModstamp and Id, and by Id."""
        del deleted
        if "ParentId" in bounds:
            return None
        if order[0] == "SystemModstamp" and (*order, "Id")[1] == "Id":
            return self._feed.by_stamp(*span_of(bounds.get("SystemModstamp", Bound())))
        if order[0] == "Id" and "SystemModstamp" not in bounds:
            return self._feed.items()
        return None

    def child(self, relationship: str) -> Child | None:
        """See the base."""
        return TRACKED_CHANGES if relationship.lower() == TRACKED_CHANGES.relationship.lower() else None

    def updated(self, from_ms: int, to_ms: int) -> Sequence[str]:
        """See the base."""
        return [each.item_id for each in self._feed.by_stamp(from_ms, to_ms - 1) if not each.deleted]

    def delete_log(self) -> Mapping[str, int]:
        """See the base."""
        return self._feed.deleted
