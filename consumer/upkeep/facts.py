"""Facts of the objects: which fields can be read, which are tracked, which other objects answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from consumer.changes.rows import FieldInfo
from consumer.changes.schema import EventSchema
from consumer.errors import QueryRefusedError
from consumer.ports import Companion
from consumer.tracking.arrivals import FactsRead
from consumer.tracking.history_fields import history_name
from consumer.tracking.values import EntityFacts
from consumer.upkeep.asking import HOUR_MS, Asking, Refusals, wait
from consumer.upkeep.context import Context

NOT_IN_EVENTS: Final[Mapping[str, frozenset[str]]] = {
    "MessagingSession": frozenset(
        {
            "AgentMessageCount",
            "ChannelEndUserFormula",
            "ChannelKey",
            "ChannelName",
            "ChannelType",
            "EndUserAccountId",
            "EndUserContactId",
            "EndUserMessageCount",
            "PreviewDetails",
        }
    )
}
"""Derived fields, which events have but do not fill (CDC developer guide, "Considerations")."""

METRICS_OF: Final = "MessagingSession"
"""The object that MessagingSessionMetrics belongs to."""

NO_SESSION: Final = "0Mw000000000000CAA"
"""An id that no session has; its last three letters must fit the case of the others, or Salesforce refuses it."""

_COMPANIONS: Final[Mapping[Companion, str]] = {"shares": "shares", "rules": "sharing rules", "feed": "feed"}

_LONGEST_STORED: Final = 255
"""Characters a history row holds; longer fields leave a row without values (Help, "Field History Tracking")."""
_WITHOUT_VALUES: Final = frozenset({"multipicklist", "encryptedstring"})


_POLLED_BY: Final = "Share.LastModifiedDate"
_MOST_NAMES: Final = 6


class FactsJob:
    """Reads the facts of every object at the start, every hour, and when its schema changed.

    Args:
        context: what the job works with.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._asking = Asking(context, "facts")
        self._refusals = Refusals(context)
        self._read: dict[str, tuple[int, str | None]] = {}

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            self._context.changed.clear()
            due = [entity for entity in self._context.entities() if self._due(entity)]
            for entity in due:
                await self._renew(entity)
            if not due:
                await wait(self._context, 60.0)

    def _due(self, entity: str) -> bool:
        if self._refusals.barred("describe", entity):
            return False
        read = self._read.get(entity)
        if read is None:
            return True
        read_ms, schema_id = read
        return schema_id != self._schema_id(entity) or self._context.now_ms() - read_ms >= HOUR_MS

    def _schema_id(self, entity: str) -> str | None:
        schema = self._context.schema(entity)
        return None if schema is None else schema.schema_id

    async def _renew(self, entity: str) -> None:
        schema_id, now_ms = self._schema_id(entity), self._context.now_ms()
        source = self._context.source
        try:
            fields = await self._asking.ask(lambda: source.describe(entity))
        except QueryRefusedError as error:
            self._refusals.note("describe", entity, error)
            return
        self._refusals.answered("describe", entity)
        self._tell_hidden(entity, fields)
        has_history = await self._has_history(entity)
        tracked = await self._tracked(entity)
        has_metrics = entity == METRICS_OF and await self._has_metrics(entity)
        facts = facts_of(entity, fields, tracked, has_history=has_history, has_metrics=has_metrics)
        sharing, feed = self._context.pace.sharing, self._context.pace.feed
        shared = sharing is not None and entity in sharing.objects
        facts = replace(
            facts,
            has_shares=shared and await self._has_companion(entity, "shares"),
            has_rules=shared and await self._has_companion(entity, "rules"),
            has_feed=feed is not None and entity in feed.objects and await self._has_companion(entity, "feed"),
        )
        self._read[entity] = (now_ms, schema_id)
        await self._context.inbox.put(FactsRead(facts, self._context.now_ms(), fields))

    def _tell_hidden(self, entity: str, fields: Mapping[str, FieldInfo]) -> None:
        """Tell once which fields of the object's events the user may not read."""
        schema = self._context.schema(entity)
        hidden = [] if schema is None else hidden_fields(schema, fields)
        if not hidden:
            self._refusals.answered("fields", entity)
            return
        told = QueryRefusedError(
            f"{listed(hidden)} can't be read by this user",
            "Their values stay unknown; give the user Read on the fields.",
        )
        self._refusals.tell("fields", entity, told)

    async def _tracked(self, entity: str) -> frozenset[str] | None:
        try:
            tracked = await self._asking.ask(lambda: self._context.source.tracked_fields(entity))
        except QueryRefusedError as error:
            self._refusals.tell("tracked fields", entity, error)
            return None
        self._refusals.answered("tracked fields", entity)
        return tracked

    async def _has_history(self, entity: str) -> bool:
        now_ms = self._context.now_ms()
        source = self._context.source
        try:
            await self._asking.ask(lambda: source.history(entity, now_ms - 1000, now_ms, None, limit=1))
        except QueryRefusedError as error:
            self._refusals.tell("history", entity, error)
            return False
        self._refusals.answered("history", entity)
        return True

    async def _has_metrics(self, entity: str) -> bool:
        try:
            await self._asking.ask(lambda: self._context.source.metrics([NO_SESSION]))
        except QueryRefusedError as error:
            self._refusals.tell("metrics", entity, error)
            return False
        self._refusals.answered("metrics", entity)
        return True

    async def _has_companion(self, entity: str, what: Companion) -> bool:
        """Return whether a companion of an object can be read, and tell once what of it can't."""
        source = self._context.source
        told = _COMPANIONS[what]
        try:
            hidden = await self._asking.ask(lambda: source.hidden_columns(entity, what))
        except QueryRefusedError as error:
            self._refusals.tell(told, entity, error)
            return False
        self._refusals.answered(told, entity)
        for column in hidden:
            if column.endswith(_POLLED_BY):
                continue  # its poll tells what follows from that
            advice = "Its values stay unknown; give the user Read on the field."
            self._refusals.tell(column, entity, QueryRefusedError(f"{column} can't be read by this user", advice))
        return True


def hidden_fields(schema: EventSchema, fields: Mapping[str, FieldInfo]) -> list[str]:
    """Return the fields of an object's events that its describe does not show this user."""
    return [each for each in schema.schema_fields if each not in fields]


def listed(names: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def facts_of(
    entity: str,
    fields: Mapping[str, FieldInfo],
    tracked: frozenset[str] | None,
    *,
    has_history: bool,
    has_metrics: bool,
) -> EntityFacts:
    """Return what follows from an object's describe.

    Args:
        entity: object API name.
        fields: its describe.
        tracked: API names of fields with history tracking on, None if nobody says.
        has_history: whether its history object answers.
        has_metrics: whether MessagingSessionMetrics answers.
    """
    calculated = {_event_field(info) for info in fields.values() if info.calculated}
    facts = EntityFacts(
        entity=entity,
        visible=frozenset(map(_event_field, fields.values())),
        not_in_events=NOT_IN_EVENTS.get(entity, frozenset()) | calculated,
        no_values=frozenset(info.name for info in fields.values() if _leaves_no_values(info)),
        lookups=frozenset(info.name for info in fields.values() if info.type == "reference"),
        has_history=has_history,
        has_metrics=has_metrics,
    )
    if tracked is None:
        return facts
    return replace(facts, tracked=frozenset(history_name(each, facts) for each in tracked))


def _event_field(info: FieldInfo) -> str:
    return info.name if info.compound is None else info.compound


def _leaves_no_values(info: FieldInfo) -> bool:
    return info.type in _WITHOUT_VALUES or info.length > _LONGEST_STORED
