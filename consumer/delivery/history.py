"""History records: one revision of one field change each (``schemas/history.json``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from consumer.delivery.envelope import MAX_RECORD_BYTES
from consumer.delivery.headers import HeaderTemplate, iso_utc
from consumer.delivery.names import Topics
from consumer.events import Json, OutboundRecord, json_bytes
from consumer.tracking.values import HistoryFact

_KEPT_CHARS = 255
"""What is left of a text in a record that would be too large: as much as Salesforce's own history keeps."""


@dataclass(frozen=True, slots=True)
class _Route:
    topic: str
    headers: HeaderTemplate


class History:
    """Makes the records of the ``history`` topics; their key is the record id.

    Args:
        org_id: 18-character org id.
        topics: the deployment's topic names.
        max_record_bytes: limit of one value, bytes; texts of a larger one are cut.
    """

    def __init__(self, org_id: str, topics: Topics, *, max_record_bytes: int = MAX_RECORD_BYTES) -> None:
        self._org_id = org_id
        self._topics = topics
        self._max_record_bytes = max_record_bytes
        self._routes: dict[str, _Route] = {}

    def records(self, entity: str, facts: Sequence[HistoryFact], received_ms: int) -> list[OutboundRecord]:
        """Return one record per fact, in the same order.

        Args:
            entity: object API name.
            facts: new facts and revisions.
            received_ms: when what they come from was received, epoch milliseconds.

        Raises:
            ConfigError: the object's name is not one that a topic can have.
        """
        if not facts:
            return []
        route = self._routes.get(entity)
        if route is None:
            headers = HeaderTemplate(self._org_id, entity, "history")
            route = self._routes[entity] = _Route(self._topics.of(entity, "history"), headers)
        records = []
        for fact in facts:
            record_id = f"{fact.change_id}:{fact.revision}"
            key = fact.record_id.encode()
            value = json_bytes(_value(record_id, fact))
            if len(value) > self._max_record_bytes:
                value = orjson.dumps(_shrunk(_value(record_id, fact)))
            headers_built = route.headers.build(record_id, key, fact.changed_ms, received_ms)
            records.append(OutboundRecord(route.topic, key, value, headers_built))
        return records


def _value(record_id: str, fact: HistoryFact) -> dict[str, Json]:
    return {
        "id": record_id,
        "change_id": fact.change_id,
        "revision": fact.revision,
        "final": fact.final,
        "record_id": fact.record_id,
        "field": fact.field,
        "history_field": fact.history_field,
        "old_value": fact.old,
        "new_value": fact.new,
        "value_type": fact.value_type,
        "values": fact.values,
        "old_label": fact.old_label,
        "new_label": fact.new_label,
        "changed_at": iso_utc(fact.changed_ms),
        "time_precision": fact.precision,
        "changed_by": fact.changed_by,
        "origin": fact.origin,
        "history_id": fact.history_ids[0] if fact.history_ids else None,
        "event_id": fact.event_id,
        "window_id": fact.window_id,
        "match": fact.match,
    }


def _shrunk(value: dict[str, Json]) -> dict[str, Json]:
    """Return a value with its texts cut; what is no text is left out, and then nothing is said to be known."""
    cut: dict[str, Json] = {}
    for name in ("old_value", "new_value"):
        given = value[name]
        cut[name] = given[:_KEPT_CHARS] if isinstance(given, str) else None
    texts = all(value[name] is None or isinstance(value[name], str) for name in cut)
    return {**value, **cut, "values": "truncated_255" if texts else "not_stored"}
