"""Quarantine: what could not be processed, raw, and the way back (``schemas/quarantine.json``).

The value is the event's payload as received; everything else an event has stands in headers, so that a retry
gets the very event back.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence

from consumer.delivery.headers import RAW_TYPE, HeaderTemplate
from consumer.delivery.names import Topics
from consumer.delivery.windows import is_record_id, quarantine_reason
from consumer.errors import EventError, ForeignStateError, ServiceError
from consumer.events import LossWindow, OutboundRecord, ReceivedEvent

_PRODUCER_HEADER = "event_header:"


class Quarantine:
    """Makes the records of the ``quarantine`` topic.

    Args:
        org_id: 18-character org id.
        topics: the deployment's topic names.
        allow_raw: whether payloads may be kept; if not, the value is empty and a retry is impossible.
    """

    def __init__(self, org_id: str, topics: Topics, *, allow_raw: bool) -> None:
        self._topic = topics.quarantine
        self._allow_raw = allow_raw
        self._headers = HeaderTemplate(org_id, topics.service_entity, "quarantine", RAW_TYPE)

    def record(self, event: ReceivedEvent, error: ServiceError, window: LossWindow) -> OutboundRecord:
        """Return the record of an event; its key is the first readable record id, else the event id.

        Args:
            event: the event as received.
            error: why it can't be processed.
            window: the loss window opened for it
                (:func:`consumer.delivery.windows.window_for_quarantine`).
        """
        ids = error.record_ids if isinstance(error, EventError) else ()
        readable = [record_id for record_id in ids if is_record_id(record_id)]
        key = (readable[0] if readable else event.event_id).encode()
        headers = [
            *self._headers.build(f"{event.event_id}:quarantine", key, event.received_ms, event.received_ms),
            ("reason", quarantine_reason(error).encode()),
            ("message", error.message.encode()),
            ("topic", event.topic.encode()),
            ("replay_id", b64encode(event.replay_id)),
            ("event_id", event.event_id.encode()),
            ("schema_id", event.schema_id.encode()),
            ("window_id", window.window_id.encode()),
            ("received_ms", b"%d" % event.received_ms),
            ("raw", b"true" if self._allow_raw else b"false"),
        ]
        if window.entity is not None:
            headers.append(("entity", window.entity.encode()))
        if readable:
            headers.append(("record_ids", ",".join(readable).encode()))
        if self._allow_raw:
            headers += [(_PRODUCER_HEADER + name, b64encode(value)) for name, value in event.headers]
        value = event.payload if self._allow_raw else b""
        return OutboundRecord(self._topic, key, value, tuple(headers))


def read_quarantine(key: bytes, value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> ReceivedEvent:
    """Return the event of a quarantine record, marked with its loss window, ready to be processed again.

    Raises:
        EventError: the record holds no raw payload.
        ForeignStateError: it is not a quarantine record.
    """
    try:
        fields = {name: text.decode() for name, text in headers if not name.startswith(_PRODUCER_HEADER)}
        event = ReceivedEvent(
            topic=fields["topic"],
            event_id=fields["event_id"],
            schema_id=fields["schema_id"],
            payload=value if value is not None else b"",
            replay_id=b64decode(fields["replay_id"], validate=True),
            received_ms=int(fields["received_ms"]),
            headers=tuple(
                (name.removeprefix(_PRODUCER_HEADER), b64decode(text, validate=True))
                for name, text in headers
                if name.startswith(_PRODUCER_HEADER)
            ),
            window_id=fields["window_id"],
        )
    except (KeyError, ValueError) as error:
        raise ForeignStateError(
            f"the record with key {key[:40]!r} is not a quarantine record of this service",
            "Point kafka.topic_prefix at the topics of this deployment; nothing else may write to them.",
        ) from error
    if value is None or fields.get("raw") != "true":
        ids = fields.get("record_ids", "")
        raise EventError(
            f"the quarantined event {event.event_id} was kept without its payload",
            "It can't be retried; its loss window stays open until the records are read again.",
            record_ids=tuple(ids.split(",")) if ids else (),
        )
    return event
