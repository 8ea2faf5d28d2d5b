"""What is known of the objects of a channel: their newest schema, their describe, and how their rows are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from consumer.changes.rows import FieldInfo, RowPlan
from consumer.changes.schema import EventSchema


@dataclass(frozen=True, slots=True)
class _Current:
    schema: EventSchema
    as_of_ms: int


class Objects:
    """The objects whose schema is known, in the order they appeared."""

    def __init__(self) -> None:
        self._current: dict[str, _Current] = {}
        self._fields: dict[str, Mapping[str, FieldInfo]] = {}
        self._plans: dict[str, RowPlan] = {}

    def names(self) -> tuple[str, ...]:
        """Return the objects whose schema is known."""
        return tuple(self._current)

    def schema(self, entity: str) -> EventSchema | None:
        """Return the object's newest event schema, None until it is known."""
        current = self._current.get(entity)
        return None if current is None else current.schema

    def schema_id(self, entity: str) -> str | None:
        """Return the id of the object's newest schema, None before the first."""
        current = self._current.get(entity)
        return None if current is None else current.schema.schema_id

    def plan(self, entity: str) -> RowPlan | None:
        """Return how the object's rows are read, None until its schema and describe are known."""
        plan = self._plans.get(entity)
        if plan is None:
            current, fields = self._current.get(entity), self._fields.get(entity)
            if current is not None and fields is not None:
                plan = self._plans[entity] = RowPlan(entity, current.schema, fields)
        return plan

    def use(self, entity: str, schema: EventSchema, as_of_ms: int) -> bool:
        """Take in a schema; returns whether it is a newer one than the object had.

        Args:
            entity: object API name.
            schema: the schema of an event, or the one that was asked for.
            as_of_ms: when it was in use, epoch milliseconds.
        """
        known = self._current.get(entity)
        if known is not None and (known.schema.schema_id == schema.schema_id or as_of_ms < known.as_of_ms):
            return False
        self._current[entity] = _Current(schema, as_of_ms)
        self._plans.pop(entity, None)
        return True

    def describe(self, entity: str, fields: Mapping[str, FieldInfo]) -> bool:
        """Take in a describe; returns whether it differs from the last."""
        if fields == self._fields.get(entity):
            return False
        self._fields[entity] = fields
        self._plans.pop(entity, None)
        return True

    def forget_describe(self, entity: str) -> None:
        """Let the describe go, because the schema is newer: rows are read once it has been asked again."""
        self._fields.pop(entity, None)
        self._plans.pop(entity, None)
