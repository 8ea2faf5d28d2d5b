"""CloudEvents 1.0 headers in binary mode (CloudEvents "Kafka Protocol Binding"), and times as ISO 8601 text.

The object is spelled as its API name in ``ce_source`` (``//salesforce/<org id>/MessagingSession``), because
that names a thing of the org; it is in kebab case in ``ce_type``, so that the type is ``salesforce.``, the
topic's name without its prefix, and ``.v1``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from consumer.delivery.names import kebab

Headers = tuple[tuple[str, bytes], ...]

CONTRACT = 1
"""Version of the shapes in ``schemas/``; only additive change happens inside one version."""

JSON_TYPE = "application/json"
RAW_TYPE = "application/octet-stream"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_HEADER = ("ce_time", b"1970-01-01T00:00:00.000Z")


def data_schema(kind: str) -> str:
    """Return ``ce_dataschema`` of a topic kind: the ``$id`` of its file in ``schemas/``."""
    return f"urn:messaging-session-consumer:schemas:{kind}:v{CONTRACT}"


@lru_cache(maxsize=4096)
def iso_utc(ms: int) -> str | None:
    """Return epoch milliseconds as ISO 8601 UTC text with milliseconds; None outside the years 1 to 9999."""
    try:
        return (_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds")[:-6] + "Z"
    except OverflowError:
        return None


@lru_cache(maxsize=4096)
def _time_header(ms: int) -> tuple[str, bytes] | None:
    text = iso_utc(ms)
    return None if text is None else ("ce_time", text.encode())


class HeaderTemplate:
    """The headers of one topic of one object; what never changes is encoded once.

    Args:
        org_id: 18-character org id.
        entity: object API name.
        kind: topic kind, such as ``changes``.
        content_type: media type of the value.
    """

    __slots__ = ("_constant",)

    def __init__(self, org_id: str, entity: str, kind: str, content_type: str = JSON_TYPE) -> None:
        self._constant: Headers = (
            ("ce_specversion", b"1.0"),
            ("ce_source", f"//salesforce/{org_id}/{entity}".encode()),
            ("ce_type", f"salesforce.{kebab(entity)}.{kind}.v{CONTRACT}".encode()),
            ("ce_dataschema", data_schema(kind).encode()),
            ("content-type", content_type.encode()),
        )

    def build(self, record_id: str, subject: bytes, time_ms: int, received_ms: int) -> Headers:
        """Return the headers of one record.

        Args:
            record_id: ``ce_id``, stable for the fact the record states.
            subject: ``ce_subject``, the record's key.
            time_ms: ``ce_time``, epoch milliseconds.
            received_ms: our own clock's reading; stands in for a ``time_ms`` that is no date of the years 1
                to 9999.
        """
        return (
            *self._constant,
            ("ce_id", record_id.encode()),
            ("ce_subject", subject),
            _time_header(time_ms) or _time_header(received_ms) or _EPOCH_HEADER,
        )


def event_id_of(headers: Sequence[tuple[str, bytes]]) -> str | None:
    """Return the event id of a ``changes`` or ``quarantine`` record, None when there is none.

    Both have a ``ce_id`` of the event id, a colon and a text without colons; the headers alone are enough to
    recognise repeats.
    """
    for name, value in headers:
        if name == "ce_id":
            return value.decode("utf-8", "replace").rpartition(":")[0] or None
    return None
