"""What the platform adds to a session after its end without any event: late counts, and the metrics rows.

Facts (Object Reference, "MessagingSessionMetrics"): six rows, one a metric, on enhanced channels only, made when a
session has ended; change events tell of neither them nor the session's derived fields.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from consumer.emulator.org_history import dice
from consumer.emulator.org_records import OrgRecord, Store
from consumer.emulator.record_ids import PREFIXES, numbered_id
from consumer.emulator.traffic_data import CHANNELS, SENTENCES

SESSION: Final = "MessagingSession"
METRICS_PREFIX: Final = "8Wm"
"""The real key prefix is not known."""
METRIC_TYPES: Final = (
    "AgentMessageCount",
    "EndUserMessageCount",
    "AverageAgentResponseTime",
    "AverageEndUserResponseTime",
    "MaxAgentResponseTime",
    "MaxEndUserResponseTime",
)

_ROWS_MS: Final = (30_000, 90_000)
_LATE_MS: Final = (5_000, 25_000)
_STANDARD: Final = frozenset(channel.channel_id for channel in CHANNELS if not channel.enhanced)
_AT_ONCE: Final = 5_000


@dataclass(frozen=True, slots=True)
class MetricsRecord:
    """One row of MessagingSessionMetrics.

    Attributes:
        metrics_id: its id.
        session_id: its MessagingSession.
        metric_type: one of ``METRIC_TYPES``.
        value: messages, or seconds.
        created_ms: CreatedDate and SystemModstamp, epoch milliseconds in whole seconds.
        visible_ms: when a query finds it first, the org's time, epoch milliseconds.
        deleted: whether the session lies in the recycle bin.
    """

    metrics_id: str
    session_id: str
    metric_type: str
    value: int
    created_ms: int
    visible_ms: int
    deleted: bool = False


class AfterTheEnd:
    """Remembers ended sessions, and carries out what the platform does to them later.

    Args:
        store: the org's records.
        seed: decides when, what and whether SystemModstamp moves.
    """

    def __init__(self, store: Store, seed: int) -> None:
        self._store = store
        self._seed = seed
        self._ended: dict[str, tuple[int, int]] = {}
        self._due: list[tuple[int, str]] = []
        self._number = 0

    def ended(self, record_id: str, end_ms: int) -> None:
        """Take note that a session has ended; only its first end counts."""
        if record_id in self._ended:
            return
        self._number += 1
        self._ended[record_id] = (self._number, end_ms)
        shortest, longest = _LATE_MS
        due_ms = end_ms + shortest + int(dice(self._seed, self._number, 1) * (longest - shortest))
        heapq.heappush(self._due, (due_ms, record_id))

    def is_due(self, now_ms: int) -> bool:
        """Return whether :meth:`due` has anything to yield."""
        return bool(self._due) and self._due[0][0] <= now_ms

    def forget(self, record_id: str) -> None:
        """Drop a session that has left the org's memory."""
        self._ended.pop(record_id, None)

    def due(self, now_ms: int) -> Iterator[tuple[str, OrgRecord, dict[str, Any], bool]]:
        """Yield live sessions with the derived values they get now, and whether SystemModstamp moves.

        At most some thousand at a call, so that nobody waits long.
        """
        for _ in range(_AT_ONCE):
            if not self._due or self._due[0][0] > now_ms:
                return
            _, record_id = heapq.heappop(self._due)
            row = self._store.table(SESSION).get(record_id)
            if row is None or row.deleted or record_id not in self._ended:
                continue
            number = self._ended[record_id][0]
            yield record_id, row, self._late(number, row), dice(self._seed, number, 2) < 0.5

    def _late(self, number: int, row: OrgRecord) -> dict[str, Any]:
        known = self._store.schemas[SESSION].index
        counts = ("EndUserMessageCount", "AgentMessageCount")
        late: dict[str, Any] = {
            name: row.values.get(name, 0) + int(dice(self._seed, number, 3 + place) * 4)
            for place, name in enumerate(counts)
        }
        late["PreviewDetails"] = SENTENCES[int(dice(self._seed, number, 5) * len(SENTENCES))]
        if dice(self._seed, number, 6) < 0.2:
            late["EndUserAccountId"] = numbered_id(PREFIXES["Account"], 1 + int(dice(self._seed, number, 7) * 60))
        return {name: value for name, value in late.items() if name in known}

    def rows(self, session_ids: Iterable[str] | None = None, *, deleted: bool = False) -> list[MetricsRecord]:
        """Return the metrics rows, those not yet visible too, in the order of the sessions' ends.

        Args:
            session_ids: only of these sessions, in their order; None for all.
            deleted: whether rows of sessions in the recycle bin are wanted too.
        """
        table = self._store.table(SESSION)
        found: list[MetricsRecord] = []
        for session_id in self._ended if session_ids is None else session_ids:
            row, ended = table.get(session_id), self._ended.get(session_id)
            if row is None or ended is None or (row.deleted and not deleted):
                continue
            if row.values.get("MessagingChannelId") not in _STANDARD:
                found += self._six(session_id, row, *ended)
        return found

    def _six(self, session_id: str, row: OrgRecord, number: int, end_ms: int) -> Iterator[MetricsRecord]:
        shortest, longest = _ROWS_MS
        visible_ms = end_ms + shortest + int(dice(self._seed, number, 8) * (longest - shortest))
        for place, kind in enumerate(METRIC_TYPES):
            value = row.values.get(kind, 0)
            if place >= 2:
                # A longest time is never below the average of the same side.
                average = 1 + int(dice(self._seed, number, 9 + place % 2) * 90)
                value = average if place < 4 else average + int(dice(self._seed, number, 11 + place) * 120)
            yield MetricsRecord(
                numbered_id(METRICS_PREFIX, number * len(METRIC_TYPES) + place),
                session_id,
                kind,
                value,
                visible_ms // 1000 * 1000,
                visible_ms,
                row.deleted,
            )
