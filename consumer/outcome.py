"""What one event or arrival became."""

from __future__ import annotations

from consumer.errors import ServiceError
from consumer.events import LossWindow, OutboundRecord
from consumer.frozen import frozen


@frozen()
class Outcome:
    """What one event or arrival became.

    Attributes:
        records: its records, in order; every one belongs into the same transaction. Those of ``state`` and
            ``ledger`` are not among them: they are made once per key, when the batch is cut.
        changes: how many of them are change records.
        opened: the loss windows it opened.
        closed: ids of the loss windows it closed.
        error: why it went to quarantine, None if it did not.
        event_ms: commit time in Salesforce, epoch milliseconds, None if the header was not readable.
        size: value bytes of the records.
    """

    records: tuple[OutboundRecord, ...]
    changes: int = 0
    opened: tuple[LossWindow, ...] = ()
    closed: tuple[str, ...] = ()
    error: ServiceError | None = None
    event_ms: int | None = None
    size: int = 0
