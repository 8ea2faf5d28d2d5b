"""The feeds of sessions in the emulated org: posts, and items that tell of changes of tracked fields.

Facts (Object Reference, "MessagingSessionFeed", "FeedTrackedChange"): feed tracking is a switch of its own with its own
fields; an item is written with the transaction it tells of; deleted items stay for queryAll with IsDeleted and a
moved SystemModstamp, and go with their session. Pure and deterministic.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from consumer.emulator.event_schemas import LONG_TEXT
from consumer.emulator.org_history import MAX_VALUE, history_name, history_value, label_of
from consumer.emulator.org_metrics import SESSION
from consumer.emulator.org_records import Store, TrueChange
from consumer.emulator.record_ids import PREFIXES, numbered_id
from consumer.emulator.traffic_data import SENTENCES
from consumer.errors import EmulatorError

FEED: Final = "MessagingSessionFeed"
TRACKED_CHANGE: Final = "TrackedChange"
DEFAULT_TRACKED: Final = ("Status", "OwnerId", "AcceptTime", "EndTime", "AgentType", "CaseId")
"""Fields that feed tracking tells of unless the scenario names others."""
_FIRST: Final = 9_200_000
_COMPACT_AFTER: Final = 2_000


class TrackedField(NamedTuple):
    """One row of FeedTrackedChange; ``field`` is ``MessagingSession.Status`` or ``created``."""

    change_id: str
    field: str
    old: str | None
    new: str | None


@dataclass(slots=True)
class FeedItem:
    """One row of MessagingSessionFeed; times are epoch milliseconds.

    Attributes:
        item_id: 18 characters, prefix ``0D5``; ids grow with time.
        parent_id: the session.
        modified_ms: LastModifiedDate; moves with likes and comments too.
        stamp_ms: SystemModstamp, in whole seconds; moves with a delete as well.
        related: RelatedRecordId.
        cascaded: whether it was deleted with its session, to come back with it.
        tracked: the field changes of a ``TrackedChange``.
    """

    item_id: str
    parent_id: str
    type: str
    created_by: str
    created_ms: int
    modified_ms: int
    stamp_ms: int
    title: str | None = None
    body: str | None = None
    link: str | None = None
    related: str | None = None
    comments: int = 0
    likes: int = 0
    rich: bool = False
    deleted: bool = False
    cascaded: bool = False
    tracked: tuple[TrackedField, ...] = ()
    visible_ms: int = 0


@dataclass(slots=True)
class _Stamp:
    """Where an item stood in the order of time; stale once the item has another stamp."""

    stamp_ms: int
    item: FeedItem


class Feed:
    """All feed items of sessions.

    Args:
        store: the org's records.
        seed: decides what is posted when nobody says it.

    Attributes:
        tracked: fields whose changes are told; empty while feed tracking is off.
        deleted: when items were deleted, by id: epoch milliseconds in whole seconds.
        truth: the log of what happened, None unless a test wants it.
    """

    def __init__(self, store: Store, seed: int) -> None:
        self.tracked: frozenset[str] = frozenset()
        self.deleted: dict[str, int] = {}
        self.truth: list[dict[str, object]] | None = None
        self._store = store
        self._random = random.Random(f"feed:{seed}")  # noqa: S311 - reproducible, no secret
        self._items: dict[str, FeedItem] = {}
        self._by_parent: dict[str, list[FeedItem]] = {}
        self._stamps: list[_Stamp] = []
        self._made = _FIRST
        self._changes_made = 0

    def __len__(self) -> int:
        return len(self._items)

    # The transaction's own items

    def track(self, fields: Iterable[str]) -> None:
        """Tell of changes of these fields from now on, and of no others; without fields feed tracking is off.

        Raises:
            EmulatorError: unknown field.
        """
        wanted = frozenset(fields)
        unknown = sorted(wanted - self._store.schemas[SESSION].index.keys())
        if unknown:
            raise EmulatorError(f"{SESSION} has no field {unknown[0]}", "Name fields of its schema")
        self.tracked = wanted

    def note(self, changes: Sequence[TrueChange], now_ms: int, user: str) -> None:
        """Write the items that tell of one transaction: one for each session with tracked changes."""
        told: dict[str, list[TrackedField]] = {}
        for change in changes:
            if change.entity == SESSION and (change.op == "create" or change.field in self.tracked):
                told.setdefault(change.record_id, []).append(self._told(change))
        for record_id, tracked in told.items():
            self._add(record_id, TRACKED_CHANGE, now_ms, user, tracked=tuple(tracked))

    def _told(self, change: TrueChange) -> TrackedField:
        self._changes_made += 1
        change_id = numbered_id(PREFIXES["FeedTrackedChange"], self._changes_made)
        if change.op == "create":
            return TrackedField(change_id, "created", None, None)
        info = self._store.schemas[SESSION].by_name[change.field]
        if info.doc_type in LONG_TEXT:
            return TrackedField(change_id, f"{SESSION}.{change.field}", None, None)
        old, new = _text(info.doc_type, change.old), _text(info.doc_type, change.new)
        return TrackedField(change_id, f"{SESSION}.{history_name(info)}", old, new)

    def follow(self, record_id: str, op: str, now_ms: int) -> None:
        """Let a session's items follow it: ``delete``, ``undelete`` or ``purge``."""
        items = self._by_parent.get(record_id, [])
        for item in tuple(items):
            if op == "purge":
                self._forget_item(item)
                self.deleted[item.item_id] = now_ms // 1000 * 1000
                self._tell("removed", item, now_ms, was_gone=item.deleted)
            elif item.cascaded if op == "undelete" else not item.deleted:
                item.cascaded = op == "delete"
                self._delete(item, now_ms, deleted=item.cascaded)
        if op == "purge":
            self._by_parent.pop(record_id, None)

    def forget(self, record_id: str) -> None:
        """Drop a session's items from memory, as no Salesforce act does."""
        for item in self._by_parent.pop(record_id, ()):
            self._forget_item(item)

    def _forget_item(self, item: FeedItem) -> None:
        self._items.pop(item.item_id, None)
        self.deleted.pop(item.item_id, None)
        item.stamp_ms = -1
        self._compact()

    # What people do

    def post(self, record_id: str, kind: str, body: str, now_ms: int, user: str) -> FeedItem:
        """Post on a session's feed.

        Args:
            record_id: the session.
            kind: a feed item Type, such as ``TextPost``, ``LinkPost``, ``ContentPost``.
            body: text; empty makes one up.
            now_ms: when, epoch milliseconds.
            user: who posts.
        """
        item = self._add(record_id, kind, now_ms, user)
        item.body = body or self._random.choice(SENTENCES)
        if kind == "LinkPost":
            item.title, item.link = "Knowledge article", f"https://help.example/{self._random.randrange(10_000)}"
        elif kind == "ContentPost":
            item.title, item.related = "photo.jpg", numbered_id("068", self._random.randrange(10_000))
        item.rich = kind == "AdvancedTextPost"
        return item

    def edit(self, item_id: str, what: str, body: str, now_ms: int) -> None:
        """Change an item: another ``body``, or one more ``like`` or ``comment``.

        Raises:
            EmulatorError: there is no such live item.
        """
        item = self.item(item_id)
        if what == "body":
            item.body = body or f"{item.body or ''} (edited {self._random.randrange(10_000)})"
        elif what == "like":
            item.likes += 1
        else:
            item.comments += 1
        item.modified_ms = now_ms
        self._stamped(item, now_ms)
        self._tell("changed", item, now_ms)

    def delete(self, item_id: str, now_ms: int) -> None:
        """Delete an item; queryAll still finds it.

        Raises:
            EmulatorError: there is no such live item.
        """
        self._delete(self.item(item_id), now_ms, deleted=True)

    def item(self, item_id: str) -> FeedItem:
        """Return a live item.

        Raises:
            EmulatorError: there is none.
        """
        found = self._items.get(item_id)
        if found is None or found.deleted:
            raise EmulatorError(f"there is no feed item {item_id}", "Give the id of a live one")
        return found

    def pick(self, count: int, *, posts: bool = False) -> list[str]:
        """Return ids of so many live items, chosen by the seed; ``posts`` leaves those of tracked changes out."""
        live = [
            each.item_id
            for each in self._items.values()
            if not each.deleted and not (posts and each.type == TRACKED_CHANGE)
        ]
        return self._random.sample(live, min(count, len(live)))

    # Rows

    def by_stamp(self, low: float, high: float) -> list[FeedItem]:
        """Return items with ``low <= stamp_ms <= high`` by (stamp, Id), deleted ones too."""
        begin = bisect_left(self._stamps, low, key=_stamp_ms)
        end = bisect_right(self._stamps, high, lo=begin, key=_stamp_ms)
        return [each.item for each in self._stamps[begin:end] if each.stamp_ms == each.item.stamp_ms]

    def of(self, record_id: str) -> tuple[FeedItem, ...]:
        """Return a session's items by Id, deleted ones too."""
        return tuple(self._by_parent.get(record_id, ()))

    def items(self) -> list[FeedItem]:
        """Return all items by Id, deleted ones too."""
        return list(self._items.values())

    def lines(self, after: int = -1) -> Iterator[dict[str, object]]:
        """Yield the lines of ``GET /control/oracle/feed`` with an index above ``after``."""
        for index, line in enumerate(tuple(self.truth or ())):
            if index > after:
                yield {"index": index, **line}

    def _add(
        self, record_id: str, kind: str, now_ms: int, user: str, *, tracked: tuple[TrackedField, ...] = ()
    ) -> FeedItem:
        self._made += 1
        item_id = numbered_id(PREFIXES["FeedItem"], self._made)
        item = FeedItem(item_id, record_id, kind, user, now_ms, now_ms, 0, tracked=tracked)
        self._items[item_id] = item
        self._by_parent.setdefault(record_id, []).append(item)
        self._stamped(item, now_ms)
        self._tell("created", item, now_ms)
        return item

    def _delete(self, item: FeedItem, now_ms: int, *, deleted: bool) -> None:
        item.deleted = deleted
        self._stamped(item, now_ms)
        if deleted:
            self.deleted[item.item_id] = item.stamp_ms
        else:
            self.deleted.pop(item.item_id, None)
        self._tell("removed" if deleted else "restored", item, now_ms)

    def _stamped(self, item: FeedItem, now_ms: int) -> None:
        stamp_ms = now_ms // 1000 * 1000
        if item.stamp_ms == stamp_ms:
            return
        item.stamp_ms = stamp_ms
        stamp = _Stamp(stamp_ms, item)
        if self._stamps and _place(self._stamps[-1]) > _place(stamp):
            insort(self._stamps, stamp, key=_place)
        else:
            self._stamps.append(stamp)
        self._compact()

    def _compact(self) -> None:
        if len(self._stamps) > 2 * len(self._items) + _COMPACT_AFTER:
            self._stamps = [each for each in self._stamps if each.stamp_ms == each.item.stamp_ms]

    def _tell(self, op: str, item: FeedItem, now_ms: int, *, was_gone: bool = False) -> None:
        if self.truth is not None and not was_gone:
            self.truth.append(
                {
                    "op": op,
                    "item_id": item.item_id,
                    "parent_id": item.parent_id,
                    "type": item.type,
                    "at_ms": now_ms,
                    "stamp_ms": now_ms // 1000 * 1000,
                    "tracked": [{"field": each.field, "old": each.old, "new": each.new} for each in item.tracked],
                }
            )


def _stamp_ms(stamp: _Stamp) -> int:
    return stamp.stamp_ms


def _place(stamp: _Stamp) -> tuple[int, str]:
    return stamp.stamp_ms, stamp.item.item_id


def _text(doc_type: str, value: Any) -> str | None:
    """Return a value as a tracked change tells it: text of at most 255 characters, and names in place of ids."""
    shown = label_of(value) if doc_type == "EntityId" else history_value(doc_type, value)
    if shown is None:
        return None
    return str(shown).lower() if isinstance(shown, bool) else str(shown)[:MAX_VALUE]
