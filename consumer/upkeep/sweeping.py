"""How a sweep reads: all share rows in the order of their records, then the records it did not see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Final

from consumer.errors import QueryRefusedError
from consumer.pages import SharesPage
from consumer.tracking.access import ShareRow
from consumer.tracking.arrivals import Closed, RecordShares, SharesRead
from consumer.upkeep.asking import IDS_A_READ, Asking, Refusals
from consumer.upkeep.context import Context
from consumer.upkeep.grantees import Grantees
from consumer.upkeep.sweep_state import Sweep

PIECE_RECORDS: Final = 10
"""Records taken in at a time: events, and the answers of Kafka that a commit waits for, come in between."""


class Sweeping:
    """Reads the pieces of sweeps and hands them over with the progress they make.

    Args:
        context: what the job works with.
        asking: puts its questions.
        grantees: resolves whom rows are for.
        refusals: what the org will not answer.
    """

    def __init__(self, context: Context, asking: Asking, grantees: Grantees, refusals: Refusals) -> None:
        self._context = context
        self._asking = asking
        self._grantees = grantees
        self._refusals = refusals

    async def begin(self, sweep: Sweep) -> Sweep:
        """Find where it will end and count the rows, and make the sweep durable before its first piece."""
        source = self._context.source
        total: int | None = None
        through: str | None = None
        try:
            through = await self._asking.ask(lambda: source.last_shared(sweep.entity))
            total = await self._asking.ask(lambda: source.count_shares(sweep.entity))
        except QueryRefusedError as error:
            self._refusals.tell("count of shares", sweep.entity, error)
        begun = replace(sweep, through=through or "", total=total)
        await self._context.inbox.put(Closed(sweep.entity, self._context.now_ms(), progress=(begun.progress(),)))
        return begun

    async def step(self, sweep: Sweep) -> Sweep | None:
        """Read the next piece and return the sweep as it stands then, None when it is through.

        Raises:
            QueryRefusedError: the rows can't be read, or not in this order.
        """
        if sweep.generation != self._context.store.generation:
            return await self.begin(sweep.again(self._context.now_ms(), self._context.store.generation))
        if sweep.phase == "unseen":
            return await self._unseen(sweep)
        return await self._rows(sweep)

    async def _rows(self, sweep: Sweep) -> Sweep:
        """Read one page; its last record may go on behind it, and is read again with the next one."""
        source, context = self._context.source, self._context
        limit = context.pace.chunk_rows
        page = await self._asking.ask(
            lambda: source.shares_scan(sweep.entity, sweep.cursor, sweep.through or None, limit=limit)
        )
        records = list(grouped(page.rows))
        if records and records[0].record_id == sweep.skip:
            del records[0]
        moved = replace(sweep, rows=sweep.rows + len(page.rows), cursor=page.cursor)
        if page.cursor is None:
            moved = replace(moved, phase="unseen", skip="")
        elif len(records) > 1:
            rest = records.pop()
            last = records[-1]
            # A recalculation that makes a row of the last record anew puts it behind the cursor, alone.
            moved = replace(moved, rows=moved.rows - len(rest.rows), skip=last.record_id, cursor=cursor_after(last))
        elif records:
            page = await self._asking.ask(lambda: source.shares_of(sweep.entity, [records[0].record_id], repair=False))
            records = [RecordShares(records[0].record_id, tuple(page.rows))]
            moved = replace(moved, skip=records[0].record_id)
        context.store.see(sweep.entity, [each.record_id for each in records], sweep.seen_as)
        await self._hand_over(moved, records, page)
        return moved

    async def _unseen(self, sweep: Sweep) -> Sweep | None:
        """Read the records by id of which shares are known and the pages had none: they may have lost them all."""
        context, source = self._context, self._context.source
        await context.inbox.settled()
        ids = context.store.unseen_access(sweep.entity, sweep.seen_as, sweep.after, IDS_A_READ)
        if not ids:
            await self._end(sweep)
            return None
        page = await self._asking.ask(lambda: source.shares_of(sweep.entity, ids, repair=False))
        moved = replace(sweep, after=ids[-1])
        await self._hand_over(moved, whole_records(ids, page.rows), page)
        if len(ids) < IDS_A_READ:
            # What becomes known from now on was read meanwhile.
            await self._end(sweep)
            return None
        return moved

    async def _hand_over(self, sweep: Sweep, records: Sequence[RecordShares], page: SharesPage) -> None:
        grantees = await self._grantees.of(sweep.entity, (row.user_or_group_id for row in page.rows))
        read = SharesRead(
            sweep.entity,
            tuple(records),
            whole=True,
            cause=sweep.cause,
            asked_ms=page.asked_ms,
            answered_ms=page.answered_ms,
            grantees=grantees,
            progress=(sweep.progress(),),
        )
        for piece in pieces(read):
            await self._context.inbox.put(piece)

    async def _end(self, sweep: Sweep) -> None:
        now_ms = self._context.now_ms()
        through = SharesRead(
            sweep.entity,
            (),
            whole=True,
            cause=sweep.cause,
            asked_ms=now_ms,
            answered_ms=now_ms,
            swept_from_ms=sweep.begun_ms,
            progress=sweep.done(now_ms),
        )
        await self._context.inbox.put(through)
        await self._context.inbox.settled()


def grouped(rows: Iterable[ShareRow]) -> Iterable[RecordShares]:
    """Yield rows that stand together by record."""
    for record_id, some in groupby(rows, key=lambda row: row.record_id):
        yield RecordShares(record_id, tuple(some))


def cursor_after(record: RecordShares) -> str:
    """Return the cursor that goes on after a record's last row (see ``RecordSource.shares_scan``)."""
    return f"{record.record_id}:{record.rows[-1].share_id}"


def whole_records(record_ids: Sequence[str], rows: Iterable[ShareRow]) -> list[RecordShares]:
    """Return the rows of records that were asked for by id, those without any row included."""
    found: dict[str, list[ShareRow]] = {each: [] for each in record_ids}
    for row in rows:
        if row.record_id in found:
            found[row.record_id].append(row)
    return [RecordShares(record_id, tuple(some)) for record_id, some in found.items()]


def pieces(read: SharesRead) -> Iterable[SharesRead]:
    """Yield a read in pieces that a transaction takes; what it says of the whole goes with the last."""
    records = read.records
    last = max(len(records) - 1, 0) // PIECE_RECORDS * PIECE_RECORDS
    for start in range(0, last, PIECE_RECORDS):
        some = records[start : start + PIECE_RECORDS]
        yield replace(read, records=some, polled_ms=None, swept_from_ms=None, progress=())
    yield replace(read, records=records[last:])
