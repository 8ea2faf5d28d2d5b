"""Feed items with the field changes they track (Object Reference, "MessagingSessionFeed", "FeedTrackedChange")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from consumer.changes.canonical import date_time
from consumer.changes.fields import FieldPolicy
from consumer.changes.record_ids import to_18
from consumer.changes.row_values import epoch_ms
from consumer.errors import QueryRefusedError, SalesforceUnavailableError
from consumer.events import Json
from consumer.pages import FeedPage
from consumer.salesforce import queries
from consumer.salesforce.companions import (
    REFUSED_PART,
    TRACKED,
    Answered,
    CompanionQueries,
    companion_of,
    converted,
)
from consumer.salesforce.describes import WHOLE_AGAIN_MS, Describes
from consumer.salesforce.rest import DATE_MARGIN_MS
from consumer.salesforce.soql import cursor_gone
from consumer.tracking.feed_values import FeedItem, TrackedField
from consumer.tracking.history_fields import event_field
from consumer.tracking.values import EntityFacts, HistoryRow

_STAMP: Final = "SystemModstamp"
_OWN: Final = frozenset({"Id", "ParentId", "Type", "CreatedDate", "IsDeleted", _STAMP, TRACKED, "attributes"})
"""Columns that an item has fields of its own for."""

_IDS: Final = frozenset({"CreatedById", "InsertedById", "RelatedRecordId", "BestCommentId"})
_CHILDREN: Final = f"(SELECT FieldName, OldValue, NewValue FROM {TRACKED})"  # noqa: S608  # constants only


class FeedReads:
    """Reads feeds.

    Args:
        ask: puts the questions.
        describes: tells lookups from other fields, for the policy.
        policy: is applied to every item, and its rules for the object's own fields to the changes that items tell.
    """

    def __init__(self, ask: CompanionQueries, describes: Describes, policy: FieldPolicy) -> None:
        self._ask = ask
        self._describes = describes
        self._policy = policy
        self._untracked: dict[str, int] = {}

    def hidden(self, entity: str) -> tuple[str, ...]:
        """Return what of an object's feed was found not to be readable, beside columns."""
        return (f"{companion_of(entity, 'feed')}.{TRACKED}",) if entity in self._untracked else ()

    async def window(self, entity: str, from_ms: int, to_ms: int, cursor: str | None, limit: int) -> FeedPage:
        """Read items by SystemModstamp, removed ones included."""
        name, columns = companion_of(entity, "feed"), await self._ask.columns(entity, "feed")
        conditions = (queries.span(_STAMP, from_ms, to_ms), queries.after_mark(_STAMP, cursor))
        query = queries.select(columns, name, *conditions, order=(_STAMP, "Id"), limit=limit)
        found = await self._read(entity, query, rows=limit)
        following = None
        if found.records and (not found.complete or len(found.records) >= limit):
            last = found.records[-1]
            following = queries.mark(epoch_ms(last[_STAMP]), to_18(last["Id"]))
        return FeedPage(await self._items(entity, found), found.answered_ms, following)

    async def by_id(self, entity: str, item_ids: Sequence[str]) -> FeedPage:
        """Read items by id, removed ones included; as many calls as the ids need.

        Raises:
            SalesforceUnavailableError: not all of them were read, so that nothing is proven of the others.
        """
        name, columns = companion_of(entity, "feed"), await self._ask.columns(entity, "feed")
        items: list[FeedItem] = []
        answered_ms = self._ask.now_ms() + DATE_MARGIN_MS
        for query, _ in queries.id_lists(columns, name, "Id", list(dict.fromkeys(item_ids))):
            found = await self._read(entity, query)
            if not found.complete:
                raise cursor_gone()
            items += await self._items(entity, found)
            answered_ms = found.answered_ms
        return FeedPage(items, answered_ms)

    async def _read(self, entity: str, query: str, *, rows: int = 2000) -> Answered:
        """Run a query on the feed, with the changes its items track as far as they can be had."""
        name = companion_of(entity, "feed")
        if self._ask.now_ms() >= self._untracked.get(entity, 0):
            try:
                whole = query.replace(f" FROM {name}", f", {_CHILDREN} FROM {name}", 1)
                found = await self._ask.ask(name, whole, deleted=True, rows=rows)
            except QueryRefusedError as error:
                if error.code not in REFUSED_PART:
                    raise
            else:
                self._untracked.pop(entity, None)
                return found
            # The answer to the plain question shows whether it was the child relationship that was refused.
            found = await self._ask.ask(name, query, deleted=True, rows=rows)
            self._untracked[entity] = self._ask.now_ms() + WHOLE_AGAIN_MS
            return found
        return await self._ask.ask(name, query, deleted=True, rows=rows)

    async def _items(self, entity: str, found: Answered) -> list[FeedItem]:
        name = companion_of(entity, "feed")
        facts: EntityFacts | None = None
        if self._policy.active:
            fields = await self._describes.last(entity)
            lookups = frozenset(each.name for each in fields.values() if each.type == "reference")
            facts = EntityFacts(entity, visible=frozenset(fields), lookups=lookups)
        items = []
        for record in found.records:
            tracked = await self._tracked(record.get(TRACKED))
            item: FeedItem = converted(name, lambda each, tracked=tracked: _item(each, tracked), record)  # type: ignore[misc]
            items.append(item if facts is None else self._kept(name, entity, item, facts))
        return items

    async def _tracked(self, children: Json) -> list[Mapping[str, Json]]:
        """Return all rows of a child relationship; long ones are cut by the server, and go on elsewhere.

        Raises:
            SalesforceUnavailableError: not all of them can be had.
        """
        if children is None:
            return []
        done, records = (children.get(each) if isinstance(children, dict) else None for each in ("done", "records"))
        if not isinstance(done, bool) or not isinstance(records, list):
            raise SalesforceUnavailableError(
                f"Salesforce sent a feed item whose {TRACKED} are no page of a query",
                "Check that no proxy answers in Salesforce's place.",
            )
        return records if done else [*records, *await self._ask.following(str(children.get("nextRecordsUrl")))]

    def _kept(self, name: str, entity: str, item: FeedItem, facts: EntityFacts) -> FeedItem:
        tracked = []
        for each in item.tracked:
            field = each.field.rpartition(".")[2]
            told = HistoryRow("", "", field, None, each.old, each.new, 0, "")
            kept = self._policy.apply_history(entity, told, lambda name: event_field(name, facts))
            if kept is not None:
                tracked.append(TrackedField(each.field, kept.old, kept.new))
        values = self._policy.apply_values(name, item.values)
        return FeedItem(
            item.item_id,
            item.record_id,
            item.type,
            item.created_ms,
            item.stamp_ms,
            item.deleted,
            values,
            tuple(tracked),
        )


def _item(record: Mapping[str, Json], tracked: Sequence[Mapping[str, Json]]) -> FeedItem:
    created = record.get("CreatedDate")
    return FeedItem(
        item_id=to_18(record["Id"]),
        record_id=to_18(record["ParentId"]),
        type=record.get("Type"),
        created_ms=None if created is None else epoch_ms(created),
        stamp_ms=epoch_ms(record[_STAMP]),
        deleted=record.get("IsDeleted") is True,
        values={name: _value(name, value) for name, value in record.items() if name not in _OWN},
        tracked=tuple(
            TrackedField(str(each["FieldName"]), _text(each.get("OldValue")), _text(each.get("NewValue")))
            for each in tracked
        ),
    )


def _value(name: str, value: Json) -> Json:
    if value is None:
        return None
    if name in _IDS:
        return to_18(value)
    return date_time(epoch_ms(value)) if name == "LastModifiedDate" else value


def _text(value: Json) -> str | None:
    """Return a value of FeedTrackedChange, which is anyType, as text."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
