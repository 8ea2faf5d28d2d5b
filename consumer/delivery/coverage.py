"""Coverage records: what is proven delivered and what is not (``schemas/coverage.json``).

The functions that turn facts into windows are those of :mod:`consumer.delivery.windows`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from consumer.delivery.headers import HeaderTemplate, iso_utc
from consumer.delivery.names import Topics, entity_of_channel
from consumer.delivery.windows import (
    channel_of,
    stream_of,
    window_for_change,
    window_for_first_start,
    window_for_forced_position,
    window_for_lost_position,
    window_for_new_object,
    window_for_quarantine,
    window_for_reconciliation,
    window_for_untold_history,
)
from consumer.events import Json, LossWindow, OutboundRecord
from consumer.tracking.arrivals import Reconciled
from consumer.tracking.schema_change import SchemaChange
from consumer.tracking.spans import Span

__all__ = [
    "Coverage",
    "Restoration",
    "channel_of",
    "window_for_change",
    "window_for_first_start",
    "window_for_forced_position",
    "window_for_lost_position",
    "window_for_new_object",
    "window_for_quarantine",
    "window_for_reconciliation",
    "window_for_untold_history",
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

_EMPTY: Mapping[str, Json] = {
    "kind": None,
    "stream": None,
    "from": None,
    "to": None,
    "complete_to": None,
    "proof": None,
    "window_id": None,
    "reason": None,
    "restored": None,
    "unrecoverable_fields": (),
    "repaired_records": 0,
    "entity": None,
    "record_ids": (),
    "event_id": None,
    "ts_ms": 0,
    "detail": {},
}
"""Every field of the contract, in its order."""


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

    def span(self, channel: str, span: Span, at_ms: int, *, entity: str | None = None) -> OutboundRecord:
        """Return the record of a span in which everything was delivered.

        Args:
            channel: the channel; it is the key, for a span of ``history``, ``sharing`` or ``feed`` too.
            span: the span.
            at_ms: when it was cut, epoch milliseconds.
            entity: the object a span of one of these is about; the channel's own if there is only one.
        """
        facts: dict[str, Json] = {
            "kind": "span",
            "stream": span.stream,
            "from": _time(span.from_ms),
            "to": _time(span.to_ms),
            "complete_to": _time(span.to_ms),
            "proof": "delivered",
            "entity": entity or entity_of_channel(channel),
        }
        # Two objects of one channel have two streams of each of these.
        of = f"{channel}:{entity or ''}" if span.stream != stream_of(channel) else channel
        return self._make(
            f"span:{span.stream.partition(':')[0]}:{of}:{span.from_ms}:{span.to_ms}", channel, at_ms, facts
        )

    def reconciled(self, channel: str, hour: Reconciled, at_ms: int) -> OutboundRecord:
        """Return the record of an hour in which the state agrees with Salesforce's rows.

        Args:
            channel: the channel.
            hour: what was compared.
            at_ms: when, epoch milliseconds.

        Raises:
            ValueError: records differ: that is a loss window, not a proof.
        """
        if hour.differing:
            message = "an hour whose records differ is not reconciled"
            raise ValueError(message)
        facts: dict[str, Json] = {
            "kind": "span",
            "stream": stream_of(channel),
            "from": _time(hour.from_ms),
            "to": _time(hour.to_ms),
            "complete_to": _time(hour.to_ms),
            "proof": "reconciled",
            "entity": hour.entity,
            "detail": {"records": hour.records, "digest": hour.digest},
        }
        record_id = f"reconciled:{channel}:{hour.entity}:{hour.from_ms}:{hour.to_ms}:{hour.digest}"
        return self._make(record_id, channel, at_ms, facts)

    def schema_changed(
        self, channel: str, change: SchemaChange, schema_ids: tuple[str, str], event: tuple[str | None, int], at_ms: int
    ) -> OutboundRecord:
        """Return the record that an object's events use another writer schema from now on.

        Args:
            channel: the channel.
            change: what changed.
            schema_ids: the old and the new schema's id.
            event: event id and commit time (epoch milliseconds) of the first event with the new one; no id when it
                was seen before any event, by asking.
            at_ms: when it was seen, epoch milliseconds.
        """
        event_id, commit_ms = event
        detail: dict[str, Json] = {
            "old_schema_id": schema_ids[0],
            "new_schema_id": schema_ids[1],
            "added": change.added,
            "removed": change.removed,
            "retyped": [{"field": each.field, "from": each.old_type, "to": each.new_type} for each in change.retyped],
            "reordered": change.reordered,
            "compatible": change.compatible,
        }
        facts: dict[str, Json] = {
            "kind": "schema_changed",
            "stream": stream_of(channel),
            "from": _time(commit_ms),
            "entity": change.entity,
            "event_id": event_id,
            "detail": detail,
        }
        return self._make(f"schema:{schema_ids[1]}:{event_id or commit_ms}", channel, at_ms, facts)

    def _record(self, window: LossWindow, kind: str, at_ms: int, facts: Mapping[str, Json]) -> OutboundRecord:
        record_id = f"{window.window_id}:{kind.removeprefix('loss_')}"
        of_window: dict[str, Json] = {
            "kind": kind,
            "stream": window.stream,
            "from": _time(window.from_ms),
            "to": _time(window.to_ms),
            "window_id": window.window_id,
            "reason": window.reason,
            "restored": _NOTHING,
            "entity": window.entity,
            "record_ids": window.record_ids,
            "event_id": window.event_id,
            "detail": dict(window.detail),
        }
        return self._make(record_id, channel_of(window), at_ms, {**of_window, **facts})

    def _make(self, record_id: str, channel: str, at_ms: int, facts: Mapping[str, Json]) -> OutboundRecord:
        value: dict[str, Json] = {"id": record_id, **_EMPTY, **facts, "ts_ms": at_ms}
        key = channel.encode()
        headers = self._headers.build(record_id, key, at_ms, at_ms)
        return OutboundRecord(self._topic, key, orjson.dumps(value), headers)


def _time(ms: int | None) -> str | None:
    return None if ms is None else iso_utc(ms)
