"""How large reads enter the pipeline: in pieces, so that events come in between and memory stays small."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from consumer.assembly import TrackingTimes
from consumer.delivery.positions import ProgressEntry, decode_entry
from consumer.events import OutboundRecord
from consumer.inbox import PIECE_ROWS, ROOM, Inbox
from consumer.ports import Restored
from consumer.tasks import task_group
from consumer.tracking.arrivals import Closed, Closing, Progress, Purpose, RowsRead
from tests.fakes import ASSEMBLY, CHANNEL, TOPICS, internal_records, memory_store, virtual
from tests.tracking_values import ENTITY, RECORD, event, row

SCAN = "scan:1"


def read_of(count: int, mark: int | None = None) -> RowsRead:
    """Return a chunk of a scan that ends it."""
    found = tuple(row(0, {"Name": f"MS-{each}"}, record_id=f"0Mw{each:012d}AAA") for each in range(count))
    progress = (Progress(SCAN, {"chunk": 2}),)
    return RowsRead(
        Purpose.SNAPSHOT, ENTITY, found, 10, mark, ("gone",), job_id="1", last=True, progress=progress,
        closings=(Closing("w"),),
    )  # fmt: skip


def test_a_large_read_is_taken_in_pieces_and_only_the_last_ends_it() -> None:
    async def main() -> None:
        inbox = Inbox(lambda: None)
        whole = read_of(2 * PIECE_ROWS + 1)
        await inbox.put(whole)
        pieces = []
        while (piece := inbox.take()) is not None:
            assert isinstance(piece, RowsRead)
            pieces.append(piece)
            assert inbox.taken == (not piece.more), "a read is taken with its last piece"
        assert [len(each.rows) for each in pieces] == [PIECE_ROWS, PIECE_ROWS, 1]
        assert tuple(each for piece in pieces for each in piece.rows) == whole.rows
        *parts, end = pieces
        assert all(each.more and not (each.last or each.missing or each.closings) for each in parts)
        assert end == replace(whole, rows=whole.rows[-1:])

    virtual(main())


def test_a_read_that_is_not_large_is_taken_as_it_is() -> None:
    async def main() -> None:
        inbox = Inbox(lambda: None)
        whole = read_of(PIECE_ROWS)
        await inbox.put(whole)
        assert inbox.take() is whole

    virtual(main())


def test_one_large_read_fills_the_room() -> None:
    """Memory holds the one that is taken and the one its reader has, and no third."""

    async def main() -> None:
        inbox = Inbox(lambda: None)
        await inbox.put(read_of(2_000))
        async with task_group() as group:
            others = [group.create_task(inbox.put(each)) for each in (read_of(2_000), read_of(2_000))]
            await asyncio.sleep(60)
            assert not any(each.done() for each in others)
            while inbox.taken == 0:
                inbox.take()
            await asyncio.sleep(60)
            assert [each.done() for each in others] == [True, False]
            while not inbox.empty:
                inbox.take()
                await asyncio.sleep(1)
        for number in range(ROOM):
            await inbox.put(Closed(ENTITY, number))

    virtual(main())


def test_a_part_of_a_read_counts_what_it_told_and_makes_no_progress() -> None:
    """A kill between two transactions of one chunk reads the chunk again, and no record is told or counted twice."""
    store = memory_store()
    restored = Restored(None, progress={SCAN: {"chunk": 1, "repaired": 5}})
    intake = ASSEMBLY.processor(CHANNEL, internal_records(), store, restored, TrackingTimes()).intake
    part, rest = read_of(10, intake.tracker.begin_read()).split(4)
    told = [entry.state for entry in map(_entry, intake.arrive(part).records) if entry is not None]
    assert told == [{"chunk": 1, "repaired": 9}]
    again = Restored(None, progress={SCAN: dict(intake.progress[SCAN])})
    assert again.progress[SCAN] == {"chunk": 1, "repaired": 9}
    assert intake.arrive(rest).changes == 6
    assert intake.progress[SCAN] == {"chunk": 2, "repaired": 15}
    assert not intake.arrive(read_of(10, intake.tracker.begin_read())).changes, "the chunk read again tells nothing"


def test_an_event_between_two_pieces_is_not_overwritten_by_the_second() -> None:
    store = memory_store()
    intake = ASSEMBLY.processor(CHANNEL, internal_records(), store, Restored(None), TrackingTimes()).intake
    old = (row(0, {"Name": "MS-1"}, record_id="0Mw000000000099AAA"), row(20, {"Name": "MS-2", "Status": "New"}))
    read = RowsRead(Purpose.SNAPSHOT, ENTITY, old, 10_000_000_000_000, intake.tracker.begin_read(), job_id="1")
    part, rest = read.split(1)
    intake.arrive(part)
    intake.event(event("UPDATE", 20, {"Status": "Active"}))
    intake.arrive(rest)
    state = store.get((ENTITY, RECORD))
    assert state is not None
    assert state.image["Status"] == "Active"


def _entry(record: OutboundRecord) -> ProgressEntry | None:
    entry = decode_entry(record.key, record.value) if record.topic == TOPICS.positions else None
    return entry if isinstance(entry, ProgressEntry) and entry.name == SCAN else None
