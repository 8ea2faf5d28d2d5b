"""Losses that no event and no error announced: rows that differ, and history rows whose events never came.

Pure: what is judged is given; which windows are open, and what is known of records, are read through ports.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from consumer.delivery.coverage import window_for_reconciliation, window_for_untold_history
from consumer.events import LossWindow
from consumer.tracking.arrivals import RowsRead
from consumer.tracking.changes import TrackedChange
from consumer.tracking.open_windows import SECOND_MS, OpenWindows
from consumer.tracking.states import States
from consumer.tracking.values import HistoryFact, LedgerEntry, Match

_HOUR_MS: Final = 3_600_000


class Unannounced:
    """Judges which windows own up to losses of one channel that nothing announced.

    Args:
        channel: the channel.
        states: what is known of records.
        windows: the loss windows that are open.
    """

    def __init__(self, channel: str, states: States, windows: OpenWindows) -> None:
        self._channel = channel
        self._states = states
        self._windows = windows

    def in_doubt(self, read: RowsRead) -> frozenset[str]:
        """Return the records that a loss has put in doubt already: what differs in them is owned up to."""
        found = set()
        for row in read.rows:
            state = self._states.get((read.entity, row.record_id))
            if state is not None and state.stale:
                found.add(row.record_id)
        return frozenset(found)

    def by_rows(
        self, read: RowsRead, tracked: Iterable[TrackedChange], derived: frozenset[str], stream_to_ms: int
    ) -> tuple[LossWindow, ...]:
        """Return the windows, one an hour, for differences that nothing owns up to although the stream is past them.

        A row that is newer than what the stream has delivered is only early. Fields that no event carries differ
        without any loss.

        Args:
            read: the rows.
            tracked: what became of those that were not in doubt before.
            derived: the object's fields that no event carries.
            stream_to_ms: up to when the stream has delivered everything, epoch milliseconds.
        """
        hours: dict[int, list[TrackedChange]] = {}
        for each in tracked:
            lost = (
                each.before is not None
                and each.stamp_ms + SECOND_MS < stream_to_ms
                and any(field.old_known and field.field.partition(".")[0] not in derived for field in each.fields)
                and self._windows.owning_up(read.entity, each.record_id, each.stamp_ms) is None
            )
            if lost:
                hours.setdefault(each.stamp_ms // _HOUR_MS, []).append(each)
        return tuple(
            window_for_reconciliation(
                self._channel,
                read.entity,
                [each.record_id for each in lost],
                min(each.stamp_ms for each in lost),
                max(each.stamp_ms for each in lost) + SECOND_MS - 1,
                digest=read.job_id,
            )
            for lost in hours.values()
        )

    def ledgers(self, entity: str, record_ids: Sequence[str]) -> Mapping[str, LedgerEntry]:
        """Return what the ledger holds of records; settling forgets the facts that :meth:`by_history` needs."""
        found = ((record_id, self._states.ledger((entity, record_id))) for record_id in record_ids)
        return {record_id: entry for record_id, entry in found if entry is not None}

    def by_history(
        self, entity: str, told: Iterable[HistoryFact], ledgers: Mapping[str, LedgerEntry]
    ) -> LossWindow | None:
        """Return the window for changes that no event told of although the stream is past them, None for none.

        An event that merged several saves of one record tells only the last value; the rows of the steps in between
        are no sign of a loss.

        Args:
            entity: object API name.
            told: facts that were settled; rows of what events never say, such as ``ownerAccepted``, wait for nothing
                and are not among them.
            ledgers: the ledger before that, by record id.
        """
        lost = [
            fact
            for fact in told
            if fact.match is Match.ROW_ONLY and fact.final and fact.window_id is None
            if not _merged(ledgers.get(fact.record_id), fact.changed_ms)
        ]
        if not lost:
            return None
        times = [fact.changed_ms for fact in lost]
        ids = {fact.record_id for fact in lost}
        return window_for_untold_history(self._channel, entity, ids, min(times), max(times))


def _merged(entry: LedgerEntry | None, changed_ms: int) -> bool:
    facts = () if entry is None else entry.facts
    return any(fact.event_id is not None and abs(fact.changed_ms - changed_ms) <= SECOND_MS for fact in facts)
