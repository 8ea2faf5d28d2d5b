"""The values of feeds: one item as read, what a poll must remember of it, what came to pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from consumer.events import Json
from consumer.frozen import frozen


@dataclass(frozen=True, slots=True)
class TrackedField:
    """One row of FeedTrackedChange: a field change that a feed item of type TrackedChange tells.

    Attributes:
        field: Salesforce's FieldName, such as ``MessagingSession.Status`` or ``created``.
        old, new: texts, cut at 255 characters by Salesforce; None where null.
    """

    field: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class FeedItem:
    """One row of an object's feed (MessagingSessionFeed and the like).

    Attributes:
        item_id: 18-character id.
        record_id: the record it stands under, None for a removed item of which only the id is known.
        type: ``TrackedChange``, ``TextPost`` …; any value passes, None where null.
        created_ms: CreatedDate, epoch milliseconds; None for a removed item of which only the id is known.
        stamp_ms: SystemModstamp, epoch milliseconds, whole seconds; the delete log's time for one known from there.
        deleted: IsDeleted.
        values: its other fields by API name in canonical form (CreatedById, LastModifiedDate, Title, Body …), the
            field policy applied.
        tracked: field changes it tells.
    """

    item_id: str
    record_id: str | None
    type: str | None
    created_ms: int | None
    stamp_ms: int
    deleted: bool
    values: Mapping[str, Json]
    tracked: tuple[TrackedField, ...] = ()


@frozen()
class FeedSeen:
    """A feed item that was told already, remembered for as long as a poll can bring it again.

    Attributes:
        item_id: 18-character id.
        stamp_ms: SystemModstamp of what was told, epoch milliseconds.
        removed: whether its removal was told.
    """

    item_id: str
    stamp_ms: int
    removed: bool = False


@dataclass(frozen=True, slots=True)
class FeedFact:
    """Something that happened to a feed item (``schemas/feed.json``).

    Attributes:
        fact_id: stable.
        item: as it is now.
        observed_ms: the answer that told it, epoch milliseconds.
        backfill: whether it is of before the first start.
    """

    fact_id: str
    kind: Literal["created", "changed", "removed"]
    item: FeedItem
    observed_ms: int
    backfill: bool = False
