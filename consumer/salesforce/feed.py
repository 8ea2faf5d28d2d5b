"""Feed items with the field changes they track (Object Reference, "MessagingSessionFeed", "FeedTrackedChange")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from consumer.changes.canonical import date_time
from consumer.changes.fields import FieldPolicy
from consumer.changes.record_ids import to_18
from consumer.changes.row_values import epoch_ms
from consumer.errors import QueryRefusedError
from consumer.events import Json
from consumer.ports import FeedPage
from consumer.salesforce import queries
from consumer.salesforce.companions import TRACKED, Answered, CompanionQueries, companion_of, converted
from consumer.salesforce.describes import Describes
from consumer.tracking.feed_values import FeedItem, TrackedField
from consumer.tracking.history_fields import event_field
from consumer.tracking.values import EntityFacts, HistoryRow

_STAMP: Final = "SystemModstamp"
_OWN: Final = frozenset({"Id", "ParentId", "Type", "CreatedDate", "IsDeleted", _STAMP, TRACKED, "attributes"})
"""Columns that an item has fields of its own for."""

_IDS: Final = frozenset({"CreatedById", "InsertedById", "RelatedRecordId", "BestCommentId"})
_CHILDREN: Final = f"(SELECT FieldName, OldValue, NewValue FROM {TRACKED})"  # noqa: S608  # constants only
_REFUSED: Final = frozenset({"INVALID_TYPE", "INVALID_FIELD", "MALFORMED_QUERY"})


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
        self._untracked: set[str] = set()

    def hidden(self, entity: str) -> tuple[str, ...]:
        """Return what of an object's feed was found not to be readable, beside columns."""
        return (f"{companion_of(entity, 'feed')}.{TRACKED}",) if entity in self._untracked else ()

    async def window(self, entity: str, from_ms: int, to_ms: int, cursor: str | None, limit: int) -> FeedPage:
        """Read items by SystemModstamp, removed ones included."""
        conditions = (queries.span(_STAMP, from_ms, to_ms), queries.after_mark(_STAMP, cursor))
        found = await self._read(entity, conditions, order=(_STAMP, "Id"), limit=limit)
        following = None
        if found.records and (not found.complete or len(found.records) >= limit):
            last = found.records[-1]
            following = queries.mark(epoch_ms(last[_STAMP]), to_18(last["Id"]))
        return FeedPage(await self._items(entity, found), found.answered_ms, following)

    async def by_id(self, entity: str, item_ids: Sequence[str]) -> FeedPage:
        """Read items by id, removed ones included."""
        listed = ",".join(queries.quoted_id(each) for each in dict.fromkeys(item_ids))
        found = await self._read(entity, (f"Id IN ({listed})",))
        return FeedPage(await self._items(entity, found), found.answered_ms)

    async def _read(
        self, entity: str, conditions: Sequence[str], *, order: Sequence[str] = (), limit: int = 0
    ) -> Answered:
        name, columns = companion_of(entity, "feed"), await self._ask.columns(entity, "feed")
        rows = limit or 2000
        plain = queries.select(columns, name, *conditions, order=order, limit=limit)
        if entity not in self._untracked:
            query = plain.replace(f" FROM {name}", f", {_CHILDREN} FROM {name}", 1)
            try:
                return await self._ask.ask(name, query, deleted=True, rows=rows)
            except QueryRefusedError as error:
                if error.code not in _REFUSED:
                    raise
            # The answer to the plain question shows whether it was the child relationship that was refused.
            found = await self._ask.ask(name, plain, deleted=True, rows=rows)
            self._untracked.add(entity)
            return found
        return await self._ask.ask(name, plain, deleted=True, rows=rows)

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
        """Return all rows of a child relationship; long ones are cut by the server, and go on elsewhere."""
        if not isinstance(children, dict):
            return []
        records = list(children.get("records") or ())
        following = children.get("nextRecordsUrl")
        if children.get("done") is False and isinstance(following, str):
            records += (await self._ask.following(following)).records
        return records

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
