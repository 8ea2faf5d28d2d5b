"""Records of the org by REST and Bulk: the upkeep's :class:`consumer.ports.RecordSource`.

Values leave this module in canonical form and under the field policy. Each page of a scan or poll is a query of its
own that starts behind the last row, so that a reader can stop and go on at any page.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from consumer.changes.fields import FieldPolicy
from consumer.changes.record_ids import to_18
from consumer.changes.row_values import epoch_ms, history_value
from consumer.changes.rows import FieldInfo, RowPlan
from consumer.errors import QueryRefusedError, SalesforceUnavailableError
from consumer.events import Json
from consumer.pages import DeletedIds, FeedPage, HistoryPage, OrgDefault, RowsPage, RulesPage, SharesPage
from consumer.ports import Companion
from consumer.salesforce import queries
from consumer.salesforce.bulk import BulkJobs
from consumer.salesforce.companions import CompanionQueries
from consumer.salesforce.deletions import deleted_ids
from consumer.salesforce.describes import Describes
from consumer.salesforce.feed import FeedReads
from consumer.salesforce.rest import DATE_MARGIN_MS, RestClient
from consumer.salesforce.sharing import SharingReads
from consumer.salesforce.soql import Found, Soql, cursor_gone
from consumer.tracking.access import Grantee
from consumer.tracking.history_fields import event_field
from consumer.tracking.values import EntityFacts, HistoryRow, Row

_SESSION = "MessagingSession"
_METRICS = "MessagingSessionMetrics"
_STAMP = "SystemModstamp"
_SEEN = "LastModifiedDate"

_TURN = 100
"""Rows made canonical before others get their turn; 2,000 would hold up the stream for a tenth of a second."""


class SalesforceRecords:
    """Implements :class:`consumer.ports.RecordSource`.

    Args:
        rest: the org's REST API.
        policy: is applied to every row before it is returned.
        jobs: Bulk query jobs of the same org and API version.
    """

    def __init__(self, rest: RestClient, policy: FieldPolicy, jobs: BulkJobs) -> None:
        self._rest = rest
        self._policy = policy
        self._jobs = jobs
        self._soql = Soql(rest)
        self._describes = Describes(rest)
        self._companions = CompanionQueries(rest)
        self._sharing = SharingReads(self._companions, policy)
        self._feed = FeedReads(self._companions, self._describes, policy)

    @property
    def pace_factor(self) -> float:
        """How much slower polls shall go to save daily calls: 1 with plenty left, more as they run out."""
        return self._rest.governor.pace_factor

    async def describe(self, entity: str) -> Mapping[str, FieldInfo]:
        """Return the fields this user may see, by API name."""
        return await self._describes.fresh(entity)

    async def tracked_fields(self, entity: str) -> frozenset[str]:
        """Return the API names of fields with history tracking on."""
        query = queries.select(
            ("QualifiedApiName",),
            "FieldDefinition",
            f"EntityDefinition.QualifiedApiName = '{queries.name(entity)}'",
            "IsFieldHistoryTracked = true",
        )
        found = await self._query(entity, query, deleted=False, repair=True)
        return frozenset(str(record.get("QualifiedApiName")) for record in found.records)

    async def count(self, entity: str, where: str = "") -> int:
        """Return how many live rows there are."""
        found = await self._query(entity, queries.count(entity, where), deleted=False, repair=True)
        return found.total

    async def rows_by_id(self, plan: RowPlan, record_ids: Sequence[str], *, repair: bool) -> RowsPage:
        """Read records by id, deleted ones included; as many calls as the ids need.

        ``missing`` holds ids that a completed queryAll does not know: purged, never there, or not to be seen by us.
        ``answered_ms`` is the last answer's.
        """
        wanted = list(dict.fromkeys(record_ids))
        rows: dict[str, Row] = {}
        answered_ms = self._rest.clock.now_ms() + DATE_MARGIN_MS
        for query, _ in queries.id_lists(plan.select, plan.entity, "Id", wanted):
            found = await self._whole(plan.entity, query, repair=repair)
            rows |= {row.record_id: row for row in await self._rows(plan, found)}
            answered_ms = found.answered_ms
        missing = tuple(record_id for record_id in wanted if record_id not in rows)
        return RowsPage([rows[each] for each in wanted if each in rows], answered_ms, None, missing)

    async def scan(
        self, plan: RowPlan, cursor: str | None, *, where: str = "", limit: int = 2000, repair: bool
    ) -> RowsPage:
        """Read the next chunk of live rows in the order of their ids; the cursor is the last id."""
        conditions = (queries.after_id(cursor), queries.condition(where))
        query = queries.select(plan.select, plan.entity, *conditions, order=("Id",), limit=limit)
        found = await self._query(plan.entity, query, deleted=False, repair=repair, rows=limit)
        rows = await self._rows(plan, found)
        return RowsPage(rows, found.answered_ms, rows[-1].record_id if _goes_on(found, limit) else None)

    async def modified(
        self, plan: RowPlan, from_ms: int, to_ms: int, cursor: str | None, *, limit: int = 2000, repair: bool
    ) -> RowsPage:
        """Read rows with from <= SystemModstamp < to, deleted ones included, ordered by (SystemModstamp, Id)."""
        found = await self._window(plan.select, plan.entity, (from_ms, to_ms, cursor), limit, repair=repair)
        rows = await self._rows(plan, found)
        return RowsPage(rows, found.answered_ms, _row_mark(rows[-1]) if _goes_on(found, limit) else None)

    async def deleted_ids(self, entity: str, from_ms: int, to_ms: int) -> DeletedIds:
        """Return what was deleted in a span (getDeleted; 15 days back at most)."""
        return await deleted_ids(self._rest, entity, from_ms, to_ms)

    async def history(
        self, entity: str, from_ms: int, to_ms: int, cursor: str | None, *, limit: int = 2000
    ) -> HistoryPage:
        """Read history rows with from <= CreatedDate < to, also those that went with a deleted record."""
        rows_of, parent = queries.history_object(entity)
        query = queries.select(
            ("Id", parent, "Field", "DataType", "OldValue", "NewValue", "CreatedById", "CreatedDate"),
            rows_of,
            queries.span("CreatedDate", from_ms, to_ms),
            queries.after_mark("CreatedDate", cursor),
            order=("CreatedDate", "Id"),
            limit=limit,
        )
        found = await self._query(entity, query, deleted=True, repair=False, rows=limit)
        rows = [_history_row(parent, record) for record in found.records]
        following = queries.mark(rows[-1].created_ms, rows[-1].history_id) if _goes_on(found, limit) else None
        return HistoryPage(await self._kept_history(entity, rows), found.answered_ms, following)

    async def metrics(self, record_ids: Sequence[str]) -> tuple[Mapping[str, Mapping[str, Json]], int]:
        """Return MessagingSessionMetrics by session and type, and the answer's ``Date`` + 1 s.

        The policy's rules for a session's fields hold for metrics of the same name: they say the same.
        """
        fields = ("MessagingSessionId", "MessagingSessionMetricType", "MessagingSessionMetricValue")
        metrics: dict[str, dict[str, Json]] = {}
        answered_ms = self._rest.clock.now_ms() + DATE_MARGIN_MS
        for query, _ in queries.id_lists(fields, _METRICS, fields[0], list(dict.fromkeys(record_ids))):
            found = await self._whole(_METRICS, query, deleted=False)
            answered_ms = found.answered_ms
            for record in found.records:
                session, kind, value = (record.get(name) for name in fields)
                metrics.setdefault(to_18(str(session)), {})[str(kind)] = value
        return {key: self._policy.apply_values(_SESSION, values) for key, values in metrics.items()}, answered_ms

    # Companions

    @property
    def sharing_calls(self) -> int:
        """How many REST calls were made so far for shares, rules, grantees and feeds."""
        return self._companions.calls

    async def hidden_columns(self, entity: str, what: Companion) -> tuple[str, ...]:
        """Return which columns of a companion object this user may not read."""
        hidden = await self._companions.hidden(entity, what)
        return (*hidden, *self._feed.hidden(entity)) if what == "feed" else hidden

    async def shares_of(self, entity: str, record_ids: Sequence[str], *, repair: bool) -> SharesPage:
        """Read all share rows of records."""
        return await self._sharing.of_records(entity, record_ids, repair=repair)

    async def shares_modified(
        self, entity: str, from_ms: int, to_ms: int, cursor: str | None, *, limit: int = 2000
    ) -> SharesPage:
        """Read share rows with from <= LastModifiedDate < to, ordered by (LastModifiedDate, Id)."""
        return await self._sharing.modified(entity, from_ms, to_ms, cursor, limit)

    async def shares_scan(
        self, entity: str, cursor: str | None, through: str | None = None, *, limit: int = 2000
    ) -> SharesPage:
        """Read the next chunk of all share rows, ordered by (ParentId, Id)."""
        return await self._sharing.scan(entity, cursor, through, limit)

    async def last_shared(self, entity: str) -> str | None:
        """Return the last record that has a share row, None if there is none."""
        return await self._sharing.last(entity)

    async def count_shares(self, entity: str) -> int:
        """Return how many share rows an object has."""
        return await self._sharing.count(entity)

    async def sharing_rules(self, entity: str) -> RulesPage:
        """Read all owner sharing rules of an object."""
        return await self._sharing.rules(entity)

    async def deleted_rules(self, entity: str, from_ms: int, to_ms: int) -> DeletedIds:
        """Return which owner sharing rules were deleted in a span."""
        return await self._companions.deleted(entity, "rules", from_ms, to_ms)

    async def grantees(self, ids: Sequence[str]) -> Mapping[str, Grantee]:
        """Resolve users and groups; ids that are unknown or not to be seen are left out."""
        return await self._sharing.grantees(ids)

    async def org_default(self, entity: str) -> OrgDefault:
        """Return the object's org-wide default access."""
        return await self._sharing.org_default(entity)

    async def feed(self, entity: str, from_ms: int, to_ms: int, cursor: str | None, *, limit: int = 2000) -> FeedPage:
        """Read feed items with from <= SystemModstamp < to, removed ones included."""
        return await self._feed.window(entity, from_ms, to_ms, cursor, limit)

    async def deleted_feed_items(self, entity: str, from_ms: int, to_ms: int) -> DeletedIds:
        """Return which feed items were deleted in a span."""
        return await self._companions.deleted(entity, "feed", from_ms, to_ms)

    async def feed_items(self, entity: str, item_ids: Sequence[str]) -> FeedPage:
        """Read feed items by id, removed ones included."""
        return await self._feed.by_id(entity, item_ids)

    async def bulk_start(self, plan: RowPlan, *, where: str = "", repair: bool = True) -> str:
        """Create a Bulk API 2.0 queryAll job and return its id; a job is few calls, so it may use the reserve."""
        query = queries.select(plan.bulk_select, plan.entity, queries.condition(where))
        return await self._jobs.start(query, repair=repair)

    async def bulk_page(self, plan: RowPlan, job_id: str, cursor: str | None, *, limit: int = 20_000) -> RowsPage:
        """Wait until the job is complete and return a page of its rows; the cursor is Salesforce's locator."""
        page = await self._jobs.page(job_id, cursor, limit, lambda columns: self._kept(plan, plan.csv_row(columns)))
        return RowsPage(page.rows, page.answered_ms, page.locator)

    async def bulk_end(self, job_id: str) -> None:
        """Delete the job."""
        await self._jobs.end(job_id)

    async def _window(
        self, fields: Sequence[str], entity: str, window: tuple[int, int, str | None], limit: int, *, repair: bool
    ) -> Found:
        from_ms, to_ms, cursor = window
        stamp = _STAMP if _STAMP in fields else _SEEN
        query = queries.select(
            fields,
            entity,
            queries.span(stamp, from_ms, to_ms),
            queries.after_mark(stamp, cursor),
            order=(stamp, "Id"),
            limit=limit,
        )
        return await self._query(entity, query, deleted=True, repair=repair, rows=limit)

    async def _query(self, entity: str, query: str, *, deleted: bool, repair: bool, rows: int = 2000) -> Found:
        try:
            return await self._soql.run(query, deleted=deleted, repair=repair, rows=rows)
        except QueryRefusedError as error:
            if error.code in {"INVALID_FIELD", "INVALID_TYPE"}:
                self._describes.forget(entity)
            raise

    async def _whole(self, entity: str, query: str, *, deleted: bool = True, repair: bool = False) -> Found:
        found = await self._query(entity, query, deleted=deleted, repair=repair)
        if not found.complete:
            raise cursor_gone()
        return found

    async def _rows(self, plan: RowPlan, found: Found) -> list[Row]:
        rows: list[Row] = []
        for start in range(0, len(found.records), _TURN):
            rows += [self._kept(plan, plan.row(record)) for record in found.records[start : start + _TURN]]
            await asyncio.sleep(0)
        return rows

    def _kept(self, plan: RowPlan, row: Row) -> Row:
        if not self._policy.active:
            return row
        return Row(row.record_id, self._policy.apply_values(plan.entity, row.values), row.stamp_ms, row.deleted)

    async def _kept_history(self, entity: str, rows: list[HistoryRow]) -> list[HistoryRow]:
        if not self._policy.active or not rows:
            return rows
        fields = await self._describes.last(entity)
        lookups = frozenset(field.name for field in fields.values() if field.type == "reference")
        # Without its describe, a lookup's row of names could not be told to be of the field that a rule is about.
        facts = EntityFacts(entity, visible=frozenset(fields), lookups=lookups)
        kept = (self._policy.apply_history(entity, row, lambda name: event_field(name, facts)) for row in rows)
        return [row for row in kept if row is not None]


def _goes_on(found: Found, limit: int) -> bool:
    """Return whether there can be more rows: a complete query with fewer rows than it may have is the end."""
    return bool(found.records) and (not found.complete or len(found.records) >= limit)


def _row_mark(row: Row) -> str:
    return queries.mark(row.stamp_ms, row.record_id)


def _history_row(parent: str, record: Mapping[str, Json]) -> HistoryRow:
    try:
        kind = record.get("DataType")
        return HistoryRow(
            history_id=to_18(record["Id"]),
            record_id=to_18(record[parent]),
            history_field=str(record["Field"]),
            data_type=kind,
            old=history_value(record.get("OldValue"), kind),
            new=history_value(record.get("NewValue"), kind),
            created_ms=epoch_ms(record["CreatedDate"]),
            created_by=to_18(record["CreatedById"]),
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise SalesforceUnavailableError(
            "Salesforce sent a history row without its id, record, field or time",
            "Check the integration user's access to the history object.",
        ) from error
