"""The objects that the emulated org answers queries about, each as a table of columns and rows.

Here: change event entities with their deleted rows, ``<Entity>History``, MessagingSessionMetrics and FieldDefinition;
people, sharing and feed have modules of their own. Sources: Object Reference; ``columns`` holds only what the API user
may see.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from consumer.emulator.event_schemas import DERIVED_FIELDS
from consumer.emulator.org import OrgModel
from consumer.emulator.org_history import label_of
from consumer.emulator.org_records import OrgRecord
from consumer.emulator.record_ids import PREFIXES
from consumer.emulator.rest_table_base import (
    ID,
    IS_DELETED,
    STAMP,
    Bound,
    Fact,
    FactTable,
    RecordTable,
    Table,
    Taken,
    by_name,
    span_of,
)
from consumer.emulator.rest_tables_feed import FeedTable
from consumer.emulator.rest_tables_people import people_tables
from consumer.emulator.rest_tables_sharing import RuleTable, ShareTable
from consumer.emulator.rest_values import Column, columns_of

__all__ = ["Bound", "EntityTable", "FieldDefinitionTable", "Table", "Taken", "tables_of"]


class EntityTable(Table):
    """An object with change events."""

    first_sources = ("Id", "IsDeleted", "SystemModstamp")

    def __init__(self, org: OrgModel, entity: str) -> None:
        super().__init__(entity, PREFIXES[entity], replicates=True)
        self._org = org
        self._seen: tuple[str, frozenset[str]] | None = None
        self._columns: dict[str, Column] = {}
        self._ids: list[str] = []
        self._newest: str | None = None

    def columns(self) -> Mapping[str, Column]:
        """See the base; follows schema changes and permissions."""
        state = (self._org.current_schema_id(self.name), self._org.invisible_fields(self.name))
        if state != self._seen:
            schema = self._org.schema(state[0])
            columns = [ID, IS_DELETED]
            derived = DERIVED_FIELDS.get(self.name, frozenset())
            for info in () if schema is None else schema.fields:
                if info.name not in state[1]:
                    columns += columns_of(info, derived)
            columns.append(STAMP)
            self._columns = {column.name.lower(): column for column in columns}
            self._seen = state
        return self._columns

    def name_of(self, record_id: str) -> str | None:
        """See the base."""
        for entity in self._org.entities():
            if record_id.startswith(PREFIXES[entity]):
                row = self._org.store.table(entity).get(record_id)
                name = None if row is None else row.values.get("Name")
                return name if isinstance(name, str) else label_of(record_id)
        return label_of(record_id)

    def keys(self, bounds: Mapping[str, Bound], *, deleted: bool) -> Sequence[str]:
        """See the base: ids, of Id and time conditions the narrowest."""
        rows = self._org.store.table(self.name)
        by_id = bounds.get("Id")
        if by_id is not None and (by_id.equal is not None or by_id.low is not None or by_id.high is not None):
            return self.by_id(by_id, deleted=deleted)
        stamp, created = bounds.get("SystemModstamp"), bounds.get("CreatedDate")
        if stamp is not None:
            low, high = span_of(stamp)
            return [each for each, row in rows.items() if low <= row.system_modstamp_ms < high + 1000]
        if created is not None:
            low, high = span_of(created)
            return [each for each, row in rows.items() if low <= row.values.get("CreatedDate", 0) <= high]
        return list(rows)

    def by_id(self, bound: Bound, *, deleted: bool) -> Sequence[str]:
        """See the base."""
        del deleted
        rows = self._org.store.table(self.name)
        if bound.equal is not None:
            return sorted(each for each in bound.equal if each in rows)
        ids = self._sorted_ids(rows)
        begin = 0 if bound.low is None else bisect_left(ids, bound.low)
        end = len(ids) if bound.high is None else bisect_right(ids, bound.high)
        return ids[begin:end]

    def updated(self, from_ms: int, to_ms: int) -> list[str]:
        """See the base."""
        rows = self._org.store.table(self.name)
        return [each for each, row in rows.items() if from_ms <= row.system_modstamp_ms < to_ms and not row.deleted]

    def delete_log(self) -> Mapping[str, int]:
        """See the base."""
        return self._org.delete_log(self.name)

    def _sorted_ids(self, rows: dict[str, OrgRecord]) -> list[str]:
        """Return all ids in order; sorting costs little because ids grow, and is left out when nothing came or went."""
        newest = next(reversed(rows), None)
        if newest != self._newest or len(rows) != len(self._ids):
            self._ids = sorted(rows)
            self._newest = newest
        return self._ids

    def taker(self, sources: Sequence[str], now_ms: int, *, deleted: bool) -> Callable[[str], Taken | None]:
        """See the base; ``sources`` begin with :attr:`first_sources`."""
        del now_ms
        rows = self._org.store.table(self.name)
        plain = tuple(sources[len(self.first_sources) :])

        def take(record_id: str) -> Taken | None:
            row = rows.get(record_id)
            if row is None or (row.deleted and not deleted):
                return None
            return (record_id, row.deleted, row.system_modstamp_ms, *map(row.values.get, plain))

        return take


class HistoryTable(RecordTable):
    """History rows of an object; the values can be sorted but not filtered, and rows come late."""

    def __init__(self, org: OrgModel, entity: str) -> None:
        super().__init__(f"{entity.removesuffix('__c')}__History" if "__" in entity else f"{entity}History", "017")
        self._org = org
        self._entity = entity
        parent = "Parent" if "__" in entity else entity
        self._COLUMNS = by_name(
            Column("Id", "id", "history_id", length=18, nillable=False),
            Column("IsDeleted", "boolean", "deleted", nillable=False),
            Column(
                f"{parent}Id",
                "reference",
                "record_id",
                length=18,
                nillable=False,
                refers_to=(entity,),
                relationship=parent,
            ),
            Column(
                "CreatedById",
                "reference",
                "created_by",
                length=18,
                nillable=False,
                refers_to=("User",),
                relationship="CreatedBy",
            ),
            Column("CreatedDate", "datetime", "created_ms", nillable=False, groupable=False),
            Column("Field", "picklist", "field", length=255, nillable=False),
            Column("DataType", "picklist", "data_type", length=255),
            Column("OldValue", "anyType", "old", filterable=False, groupable=False),
            Column("NewValue", "anyType", "new", filterable=False, groupable=False),
        )

    def keys(self, bounds: Mapping[str, Bound], *, deleted: bool) -> Sequence[Any]:
        """See the base: narrowed by CreatedDate."""
        low, high = span_of(bounds.get("CreatedDate", Bound()))
        from_ms = 0 if low == float("-inf") else int(low)
        to_ms = None if high == float("inf") else int(high) + 1
        return self._org.history_rows(self._entity, from_ms, to_ms, deleted=deleted)


class MetricsTable(RecordTable):
    """MessagingSessionMetrics: rows made some time after a session has ended."""

    _COLUMNS = by_name(
        Column("Id", "id", "metrics_id", length=18, nillable=False),
        Column("IsDeleted", "boolean", "deleted", nillable=False, read=bool),
        Column(
            "MessagingSessionId",
            "reference",
            "session_id",
            length=18,
            nillable=False,
            refers_to=("MessagingSession",),
            relationship="MessagingSession",
        ),
        Column("MessagingSessionMetricType", "picklist", "metric_type", length=255),
        Column("MessagingSessionMetricValue", "int", "value"),
        Column("CreatedDate", "datetime", "created_ms", nillable=False, groupable=False),
        Column("SystemModstamp", "datetime", "created_ms", nillable=False, groupable=False),
    )

    def __init__(self, org: OrgModel) -> None:
        super().__init__("MessagingSessionMetrics")
        self._org = org

    def keys(self, bounds: Mapping[str, Bound], *, deleted: bool) -> Sequence[Any]:
        """See the base: narrowed by session."""
        sessions = bounds.get("MessagingSessionId", Bound()).equal
        return self._org.metrics_rows(sessions, deleted=deleted)


class FieldDefinitionTable(FactTable):
    """FieldDefinition: which fields an object has and which of them have history tracking."""

    ENTITY: Final = "EntityDefinition.QualifiedApiName"
    _COLUMNS: Final = by_name(
        Column("Id", "id", "Id", length=18),
        Column("DurableId", "string", "DurableId", length=255),
        Column("EntityDefinitionId", "string", "Entity", length=255),
        Column("QualifiedApiName", "string", "QualifiedApiName", length=70),
        Column("DeveloperName", "string", "DeveloperName", length=255),
        Column("DataType", "string", "DataType", length=255),
        Column("IsFieldHistoryTracked", "boolean", "IsFieldHistoryTracked"),
    )
    _PATH: Final = Column("QualifiedApiName", "string", "Entity", length=70, relationship="EntityDefinition")

    def __init__(self, org: OrgModel, tables: Mapping[str, Table]) -> None:
        super().__init__("FieldDefinition")
        self._org = org
        self._tables = tables

    def columns(self) -> Mapping[str, Column]:
        """See the base."""
        return self._COLUMNS

    def column(self, path: str) -> Column | None:
        """See the base; the object's name stands behind the EntityDefinition relationship."""
        return self._PATH if path.lower() == self.ENTITY.lower() else super().column(path)

    def rows(self) -> Iterator[Fact]:
        """Yield the fields of all objects."""
        for entity in self._org.entities():
            tracked = self._org.tracked_fields(entity)
            for column in self._tables[entity.lower()].columns().values():
                if column.part is not None:
                    continue
                stem = column.name.removesuffix("Id") if column.type == "reference" else column.name
                yield Fact(
                    {
                        "Id": "000000000000000AAA",
                        "DurableId": f"{entity}.{stem}",
                        "Entity": entity,
                        "QualifiedApiName": column.name,
                        "DeveloperName": stem.removesuffix("__c"),
                        "DataType": column.type,
                        "IsFieldHistoryTracked": column.name in tracked,
                    }
                )


def tables_of(org: OrgModel) -> dict[str, Table]:
    """Return every queryable object by lower-case API name."""
    entities: list[Table] = [EntityTable(org, entity) for entity in org.entities()]
    tables = {table.name.lower(): table for table in entities}
    others: list[Table] = [HistoryTable(org, entity) for entity in org.entities()]
    others += [MetricsTable(org), FieldDefinitionTable(org, tables), *people_tables(org)]
    others += [ShareTable(org), RuleTable(org), FeedTable(org)]
    tables.update((table.name.lower(), table) for table in others)
    for table in tables.values():
        table.closed = org.closed
    return tables
