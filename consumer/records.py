"""The records that go along with the data of one subscription: its position and its loss windows."""

from __future__ import annotations

from consumer.delivery.coverage import Coverage, Restoration
from consumer.delivery.names import Topics
from consumer.delivery.positions import CommittedPosition, encode_entry, progress_entry, window_closed
from consumer.events import LossWindow, OutboundRecord
from consumer.position import Position
from consumer.tracking.arrivals import Closing, Progress

_ALL_OF_ONE_EVENT = Restoration(state=True, deletes=True, tracked_history=True, all_changes=True)


class InternalRecords:
    """Makes the records of ``positions`` and ``coverage`` for one channel.

    Args:
        channel: the channel.
        topics: the deployment's topic names.
        coverage: makes coverage records.
        worker: name of this worker, told in the position.
        partition: the channel's partition of the ``positions`` topic.
    """

    def __init__(self, channel: str, topics: Topics, coverage: Coverage, worker: str, partition: int) -> None:
        self._channel = channel
        self._topics = topics
        self._coverage = coverage
        self._worker = worker
        self._partition = partition

    def position(self, position: Position, last_event_ms: int | None, committed_ms: int) -> OutboundRecord:
        """Return the record that moves the subscription to ``position``."""
        entry = CommittedPosition(self._channel, position, last_event_ms, committed_ms, self._worker)
        return encode_entry(self._topics, entry, self._partition)

    def window_opened(self, window: LossWindow, at_ms: int) -> tuple[OutboundRecord, ...]:
        """Return the records that open a loss window, for readers and for ourselves."""
        return (self._coverage.opened(window, at_ms), encode_entry(self._topics, window, self._partition))

    def window(self, window: LossWindow) -> OutboundRecord:
        """Return the record that keeps a window for ourselves, as it stands now."""
        return encode_entry(self._topics, window, self._partition)

    def window_closed(
        self, window: LossWindow, closing: Closing, at_ms: int, repaired: int
    ) -> tuple[OutboundRecord, ...]:
        """Return the records that close a window.

        Args:
            window: as it stands.
            closing: what was restored.
            at_ms: when, epoch milliseconds.
            repaired: records emitted with it, beside those the closing counts.
        """
        restored = Restoration(
            state=closing.state,
            deletes=closing.deletes,
            tracked_history=closing.tracked_history,
            all_changes=closing.all_changes,
        )
        closed = self._coverage.closed(
            window,
            at_ms,
            restored,
            repaired_records=closing.repaired + repaired,
            unrecoverable_fields=closing.unrecoverable_fields,
        )
        return (closed, encode_entry(self._topics, window_closed(window.window_id), self._partition))

    def progress(self, progress: Progress) -> OutboundRecord:
        """Return the record that keeps how far a job or poll got."""
        entry = progress_entry(self._channel, progress)
        return encode_entry(self._topics, entry, self._partition)

    def window_closed_by_retry(self, window: LossWindow, at_ms: int, records: int) -> tuple[OutboundRecord, ...]:
        """Return the records that close the window of one quarantined event, whose changes are sent after all."""
        return (
            self._coverage.closed(window, at_ms, _ALL_OF_ONE_EVENT, repaired_records=records),
            encode_entry(self._topics, window_closed(window.window_id), self._partition),
        )
