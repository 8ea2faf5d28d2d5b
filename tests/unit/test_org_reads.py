"""Reading records nobody knows, while the stream waits: bounded in time, and given up for a while when it fails."""

from __future__ import annotations

import asyncio
from collections import deque
from unittest import mock

import pytest

from consumer.assembly import TrackingTimes
from consumer.errors import (
    LoginUnavailableError,
    QueryRefusedError,
    QuotaError,
    SalesforceUnavailableError,
    ServiceError,
)
from consumer.org_reads import OrgReads, ReadParts
from consumer.ports import Restored
from consumer.tracking.arrivals import FactsRead, Purpose, RowsRead, SchemaSeen
from consumer.tracking.values import EntityFacts
from tests.fake_org import ENTITY, FIELDS, PACE, SCHEMA_JSON, FakeOrg, record_id
from tests.fakes import ASSEMBLY, CHANNEL, clocks, internal_records, memory_store, virtual

IDS = [record_id(number) for number in range(1, 4)]


class Bench:
    """Reads over a fake org that has three records."""

    def __init__(self, *, described: bool = True) -> None:
        self.org = FakeOrg()
        for number in range(1, 4):
            self.org.save(number)
        self.store = memory_store()
        self.processor = ASSEMBLY.processor(CHANNEL, internal_records(), self.store, Restored(None), TrackingTimes())
        self.processor.arrive(SchemaSeen("schema-1", SCHEMA_JSON, 1))
        if described:
            facts = EntityFacts(ENTITY, visible=frozenset(FIELDS))
            self.processor.arrive(FactsRead(facts, 1, FIELDS))
        self.observer = mock.Mock()
        self.reads = OrgReads(
            ReadParts(
                channel=CHANNEL,
                entity=ENTITY,
                source=self.org,
                store=self.store,
                current_schema=_never,
                pace=PACE,
                clocks=clocks(),
                observer=self.observer,
            )
        )

    async def read(self, ids: list[str] | None = None) -> list[RowsRead]:
        return list(await self.reads.read_unknown(self.processor, {ENTITY: IDS if ids is None else ids}))

    @property
    def under_way(self) -> bool:
        """Whether a read is still remembered: then every event's fields would be, until it ends."""
        return self.processor.intake.tracker._marks.any_open


async def _never() -> tuple[str, str] | None:
    raise AssertionError("the schema is not asked for here")


def test_records_are_read_by_id_with_a_mark_and_without_the_reserve() -> None:
    async def main() -> None:
        bench = Bench()
        bench.org.delete(IDS[1])
        (read,) = await bench.read()
        assert (read.purpose, read.entity, read.window_ids, read.missing) == (Purpose.UNKNOWN, ENTITY, (), ())
        assert [row.record_id for row in read.rows] == [IDS[0], IDS[2]], "a deleted one has an event of its own"
        assert bench.under_way
        bench.processor.arrive(read)
        assert not bench.under_way
        assert bench.processor.intake.has_image((ENTITY, IDS[0]))

    virtual(main())


def test_many_records_are_read_200_at_a_time() -> None:
    async def main() -> None:
        bench = Bench()
        reads = await bench.read([record_id(number) for number in range(1, 451)])
        assert [len(each) for each in bench.org.asked] == [200, 200, 50]
        assert len(reads) == 3

    virtual(main())


def test_nothing_is_asked_before_the_object_is_described() -> None:
    async def main() -> None:
        bench = Bench(described=False)
        assert await bench.read() == []
        assert not bench.org.calls

    virtual(main())


@pytest.mark.parametrize(
    "error",
    [
        SalesforceUnavailableError("down"),
        QuotaError("used up"),
        QueryRefusedError("not permitted"),
        LoginUnavailableError("no session"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failing_read_is_told_and_rests_a_minute(error: ServiceError) -> None:
    """An outage of REST must not slow the stream event by event."""

    async def main() -> None:
        bench = Bench()
        bench.org.errors["rows_by_id"] = deque([error])
        assert await bench.read() == []
        assert not bench.under_way
        bench.observer.api_call_failed.assert_called_once_with("unknown records", error, 60.0)
        await asyncio.sleep(59)
        assert await bench.read() == []
        assert bench.org.calls == ["rows_by_id"]
        await asyncio.sleep(2)
        assert len(await bench.read()) == 1

    virtual(main())


def test_a_read_that_takes_too_long_is_given_up_and_what_came_is_kept() -> None:
    async def main() -> None:
        bench = Bench()
        bench.org.answer_s = 6.0
        began = asyncio.get_running_loop().time()
        (read,) = await bench.read([record_id(number) for number in range(1, 301)])
        assert asyncio.get_running_loop().time() - began == pytest.approx(10.0)
        assert [row.record_id for row in read.rows] == IDS
        bench.processor.arrive(read)
        assert not bench.under_way
        assert await bench.read() == []

    virtual(main())
