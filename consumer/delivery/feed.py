"""Feed records: one item created, changed or removed (``schemas/feed.json``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from consumer.delivery.envelope import MAX_RECORD_BYTES
from consumer.delivery.facts import Routes, time_text
from consumer.delivery.names import Topics
from consumer.events import Json, OutboundRecord, json_bytes
from consumer.tracking.feed_values import FeedFact

_NAMED: Final[Mapping[str, str]] = {
    "CreatedById": "created_by",
    "Title": "title",
    "Body": "body",
    "LinkUrl": "link_url",
    "IsRichText": "is_rich_text",
    "CommentCount": "comment_count",
    "LikeCount": "like_count",
    "RelatedRecordId": "related_record_id",
    "InsertedById": "inserted_by",
    "BestCommentId": "best_comment_id",
    "Visibility": "visibility",
}
"""Columns of every feed (Object Reference, "MessagingSessionFeed"), and what they are called in a record."""

_KEPT_CHARS: Final = 255
"""What is left of a text in a record that would be too large."""


class Feed:
    """Makes the records of the ``feed`` topics; their key is the record id, or the item's where that is unknown.

    Args:
        org_id: 18-character org id.
        topics: the deployment's topic names.
        max_record_bytes: limit of one value, bytes; texts of a larger one are cut.
    """

    def __init__(self, org_id: str, topics: Topics, *, max_record_bytes: int = MAX_RECORD_BYTES) -> None:
        self._routes = Routes(org_id, topics, "feed")
        self._max_record_bytes = max_record_bytes

    def records(self, entity: str, facts: Sequence[FeedFact], received_ms: int) -> list[OutboundRecord]:
        """Return one record per fact, in the same order.

        Args:
            entity: API name of the object whose feed it is.
            facts: what happened.
            received_ms: when what they come from was received, epoch milliseconds.

        Raises:
            ConfigError: the object's name is not one that a topic can have.
        """
        if not facts:
            return []
        route = self._routes.of(entity)
        records = []
        for fact in facts:
            item = fact.item
            key = (item.record_id or item.item_id).encode()
            at_ms = item.created_ms if fact.kind == "created" and item.created_ms is not None else item.stamp_ms
            fields = _value(fact)
            value = json_bytes(fields)
            if len(value) > self._max_record_bytes:
                value = json_bytes(_shrunk(fields))
            headers = route.headers.build(fact.fact_id, key, at_ms, received_ms)
            records.append(OutboundRecord(route.topic, key, value, headers))
        return records


def _value(fact: FeedFact) -> dict[str, Json]:
    item = fact.item
    return {
        "id": fact.fact_id,
        "kind": fact.kind,
        "feed_item_id": item.item_id,
        "record_id": item.record_id,
        "type": item.type,
        "created_at": time_text(item.created_ms),
        "modified_at": time_text(item.stamp_ms),
        **{name: item.values.get(column) for column, name in _NAMED.items()},
        "other": {name: value for name, value in item.values.items() if name not in _NAMED},
        "changes": [{"field": each.field, "old_value": each.old, "new_value": each.new} for each in item.tracked],
        "observed_at": time_text(fact.observed_ms),
        "backfill": fact.backfill,
    }


def _shrunk(fields: Mapping[str, Json]) -> dict[str, Json]:
    """Return a value with its texts cut, without what is not named."""
    cut = {name: value[:_KEPT_CHARS] if isinstance(value, str) else value for name, value in fields.items()}
    return {**cut, "other": {}, "truncated": True}
