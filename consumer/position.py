"""Where a subscription stands: what is known complete, and what was committed beyond it.

Several events can share one replay id (enriched merged changes are split, Pub/Sub API guide "Enriched Change
Events"), and CUSTOM resumes strictly *after* a replay id. So an event's own replay id is only known complete
when an event with another one, or a keep-alive, follows. Until then the position keeps the replay id before it
and remembers the ids of the events already committed: on resumption they come again and are dropped.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from consumer.frozen import frozen


class Preset(StrEnum):
    """Where to start when there is no replay id (``ReplayPreset`` of the Pub/Sub API)."""

    LATEST = "latest"
    EARLIEST = "earliest"


@frozen()
class Position:
    """A place in one channel.

    Attributes:
        replay_id: everything up to and including it is done; None before the first is known complete.
        preset: where to subscribe while ``replay_id`` is None.
        beyond_replay_id: the replay id of the events in ``beyond``; None when there are none.
        beyond: ids of the events done after ``replay_id``; all carry ``beyond_replay_id``.
        redelivery_ms: when something made the server send old events again (lost or forced position), epoch
            milliseconds; None if nothing did. Until the retention has passed since then, the ids of all
            retained events are read back at start.
        epoch: counts lost positions; commit numbers may restart where one ends.
    """

    replay_id: bytes | None = None
    preset: Preset = Preset.EARLIEST
    beyond_replay_id: bytes | None = None
    beyond: tuple[str, ...] = ()
    redelivery_ms: int | None = None
    epoch: int = 0

    def after_event(self, event_id: str, replay_id: bytes) -> Position:
        """Return the position once this event is done too; it must follow in delivery order."""
        if replay_id == self.beyond_replay_id:
            return replace(self, beyond=(*self.beyond, event_id))
        complete = self.replay_id if self.beyond_replay_id is None else self.beyond_replay_id
        return Position(complete, self.preset, replay_id, (event_id,), self.redelivery_ms, self.epoch)

    def after_keepalive(self, replay_id: bytes) -> Position:
        """Return the position once the server said that everything up to ``replay_id`` was delivered."""
        return Position(replay_id, self.preset, None, (), self.redelivery_ms, self.epoch)

    @property
    def resumable(self) -> bool:
        """Whether resuming here can miss nothing: false only before the first known replay id of LATEST."""
        return self.replay_id is not None or self.preset is Preset.EARLIEST

    def as_of_ms(self, last_event_ms: int | None, committed_ms: int) -> int:
        """Return from when the position is, in the bus's time: its 72 hours count from there.

        While a backlog is read that is the time of the event read last, however recently it was committed.

        Args:
            last_event_ms: commit time in Salesforce of the last event done, epoch milliseconds, None if unknown.
            committed_ms: when the position was committed to Kafka, epoch milliseconds.
        """
        last_was_an_event = bool(self.beyond)
        if last_was_an_event and last_event_ms is not None:
            return min(last_event_ms, committed_ms)
        return committed_ms
