"""What is read of the org beside the stream, for one generation of a subscription."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from consumer.backoff import Backoff
from consumer.errors import LoginError, SalesforceApiError, ServiceError
from consumer.pipeline import Pipeline
from consumer.pipeline_parts import Clocks
from consumer.ports import RecordSource, Store
from consumer.processor import Processor
from consumer.tasks import task_group
from consumer.tracking.arrivals import Purpose, RowsRead, SchemaSeen
from consumer.upkeep.context import Context, Pace, UpkeepObserver
from consumer.upkeep.upkeep import Upkeep

_LOOKUP_LIMIT_S = 10.0
"""Longest that the stream waits for records nobody knows; then their changes are partial and read again later."""

_LOOKUP_REST_S = 60.0
"""After a read in vain no other is tried for so long, or an outage of REST would slow the stream."""

_SCHEMA_AGAIN_S = 600.0
"""How often the channel's current schema is asked for: a change is seen although no event came."""

CurrentSchema = Callable[[], Awaitable[tuple[str, str] | None]]
"""Returns id and JSON of the schema new events are written with, None for a channel of several objects."""


@dataclass(frozen=True, slots=True)
class ReadParts:
    """What reading needs, for as long as the process lives.

    Attributes:
        channel: the channel.
        entity: its one object, None for a channel of several.
        source: REST and Bulk.
        store: the tracked states.
        current_schema: asks for the channel's schema.
        pace: how often and how far.
        clocks: time and randomness.
        observer: is told.
    """

    channel: str
    entity: str | None
    source: RecordSource
    store: Store
    current_schema: CurrentSchema
    pace: Pace
    clocks: Clocks
    observer: UpkeepObserver


class OrgReads:
    """Implements :class:`consumer.subscription.Aside`.

    Args:
        parts: see there.
    """

    def __init__(self, parts: ReadParts) -> None:
        self._parts = parts
        self._lookup_after_s = 0.0

    async def run(self, pipeline: Pipeline, processor: Processor) -> None:
        """Read and fill the pipeline's inbox until cancelled."""
        parts, intake = self._parts, processor.intake
        context = Context(
            channel=parts.channel,
            entity=parts.entity,
            source=parts.source,
            store=parts.store,
            inbox=pipeline.inbox,
            reads=intake.tracker,
            now_ms=parts.clocks.org_ms,
            progress=intake.progress,
            entities=intake.objects.names,
            schema=intake.objects.schema,
            plan=intake.objects.plan,
            facts=intake.facts,
            windows=lambda: intake.windows,
            changed=pipeline.changed,
            caught_up=pipeline.caught_up,
            delivered_to=lambda: intake.stream_to_ms,
            sleep=asyncio.sleep,
            pace=parts.pace,
            random=parts.clocks.random,
            observer=parts.observer,
        )
        async with task_group() as group:
            group.create_task(self._watch_schema(pipeline))
            group.create_task(Upkeep(context).run())

    async def read_unknown(self, processor: Processor, wanted: Mapping[str, Sequence[str]]) -> Sequence[RowsRead]:
        """Read records by id, as far as that is possible now, in bounded time."""
        if self._parts.clocks.monotonic() < self._lookup_after_s:
            return ()
        found: list[RowsRead] = []
        try:
            async with asyncio.timeout(_LOOKUP_LIMIT_S):
                for entity, record_ids in wanted.items():
                    await self._lookup(processor, entity, record_ids, found)
        except (SalesforceApiError, LoginError, TimeoutError) as error:
            self._lookup_after_s = self._parts.clocks.monotonic() + _LOOKUP_REST_S
            told = error if isinstance(error, ServiceError) else SalesforceApiError("Reading records took too long")
            self._parts.observer.api_call_failed("unknown records", told, _LOOKUP_REST_S)
        return found

    async def _lookup(
        self, processor: Processor, entity: str, record_ids: Sequence[str], found: list[RowsRead]
    ) -> None:
        """Add what is read to ``found`` piece by piece: a later piece that fails must not lose the marks before it."""
        plan = processor.intake.objects.plan(entity)
        if plan is None:
            return
        for begin in range(0, len(record_ids), _IDS):
            ids = record_ids[begin : begin + _IDS]
            mark = processor.intake.tracker.begin_read()
            try:
                page = await self._parts.source.rows_by_id(plan, ids, repair=False)
            except BaseException:
                processor.intake.tracker.end_read(mark)
                raise
            live = tuple(row for row in page.rows if not row.deleted)
            found.append(RowsRead(Purpose.UNKNOWN, entity, live, page.answered_ms, mark))

    async def _watch_schema(self, pipeline: Pipeline) -> None:
        parts = self._parts
        backoff = Backoff(parts.clocks.random)
        while True:
            as_of_ms = parts.clocks.org_ms()
            try:
                current = await parts.current_schema()
            except ServiceError as error:
                delay_s = backoff.next_delay(1.0)
                parts.observer.api_call_failed("schema", error, delay_s)
            else:
                backoff.healthy()
                delay_s = _SCHEMA_AGAIN_S
                if current is None:
                    return
                await pipeline.inbox.put(SchemaSeen(*current, as_of_ms))
            await asyncio.sleep(delay_s)


_IDS = 200
"""Ids of one read."""
