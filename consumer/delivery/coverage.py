"""Coverage records: what is proven delivered and what is not (``schemas/coverage.json``).

The functions that turn facts into windows are those of :mod:`consumer.delivery.windows`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from consumer.delivery.headers import HeaderTemplate, iso_utc
from consumer.delivery.names import Topics
from consumer.delivery.windows import (
    channel_of,
    window_for_change,
    window_for_first_start,
    window_for_forced_position,
    window_for_lost_position,
    window_for_quarantine,
)
from consumer.events import Json, LossWindow, OutboundRecord

__all__ = [
    "Coverage",
    "Restoration",
    "channel_of",
    "window_for_change",
    "window_for_first_start",
    "window_for_forced_position",
    "window_for_lost_position",
    "window_for_quarantine",
]


@dataclass(frozen=True, slots=True)
class Restoration:
    """What a repair brought back.

    Attributes:
        state: the records' latest values are known again.
        deletes: so is which of them are gone.
        tracked_history: so is the history of the fields Salesforce tracks.
        all_changes: every single change was emitted after all.
    """

    state: bool = False
    deletes: bool = False
    tracked_history: bool = False
    all_changes: bool = False


_NOTHING = Restoration()


class Coverage:
    """Makes the records of the ``coverage`` topic; their key is the channel.

    Args:
        org_id: 18-character org id.
        topics: the deployment's topic names.
    """

    def __init__(self, org_id: str, topics: Topics) -> None:
        self._topic = topics.coverage
        self._headers = HeaderTemplate(org_id, topics.service_entity, "coverage")

    def opened(self, window: LossWindow, at_ms: int) -> OutboundRecord:
        """Return the ``loss_opened`` record of a window.

        Args:
            window: the window.
            at_ms: when it was opened, epoch milliseconds.
        """
        return self._record(window, "loss_opened", at_ms, {})

    def closed(
        self,
        window: LossWindow,
        at_ms: int,
        restored: Restoration,
        *,
        repaired_records: int = 0,
        unrecoverable_fields: Sequence[str] = (),
    ) -> OutboundRecord:
        """Return the ``loss_closed`` record of a window.

        Args:
            window: the window as it was opened.
            at_ms: when it was closed, epoch milliseconds.
            restored: what the repair brought back.
            repaired_records: how many records it emitted.
            unrecoverable_fields: fields whose values in the span can't be had any more.
        """
        facts = {
            "restored": restored,
            "repaired_records": repaired_records,
            "unrecoverable_fields": list(unrecoverable_fields),
        }
        return self._record(window, "loss_closed", at_ms, facts)

    def _record(self, window: LossWindow, kind: str, at_ms: int, facts: Mapping[str, Json]) -> OutboundRecord:
        record_id = f"{window.window_id}:{kind.removeprefix('loss_')}"
        value: dict[str, Json] = {
            "id": record_id,
            "kind": kind,
            "stream": window.stream,
            "from": _time(window.from_ms),
            "to": _time(window.to_ms),
            "complete_to": None,
            "proof": None,
            "window_id": window.window_id,
            "reason": window.reason,
            "restored": _NOTHING,
            "unrecoverable_fields": [],
            "repaired_records": 0,
            "entity": window.entity,
            "record_ids": window.record_ids,
            "event_id": window.event_id,
            "ts_ms": at_ms,
            "detail": dict(window.detail),
            **facts,
        }
        key = channel_of(window).encode()
        headers = self._headers.build(record_id, key, at_ms, at_ms)
        return OutboundRecord(self._topic, key, orjson.dumps(value), headers)


def _time(ms: int | None) -> str | None:
    return None if ms is None else iso_utc(ms)
