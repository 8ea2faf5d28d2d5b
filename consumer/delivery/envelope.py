"""Change records: one Debezium-shaped record per record id of a change event (``schemas/changes.json``).

Everything in a record comes from the event itself, so that the same event always gives the same bytes.
Until records are tracked, ``before`` holds no more than the id and ``after`` no more than what the event
carries.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import orjson

from consumer.delivery.headers import HeaderTemplate
from consumer.delivery.names import Topics
from consumer.errors import ConfigError, PayloadError
from consumer.events import ChangeEvent, ChangeType, Json, OutboundRecord

MAX_RECORD_BYTES = 900 << 10
"""Default limit of a value: room for key, headers and batch below Kafka's default of about 1 MiB."""

_CUT_CHARS = 512
"""What is left of header texts in a record that is too large even without fields."""

_OPS: Mapping[str, str] = {
    ChangeType.CREATE: "c",
    ChangeType.UNDELETE: "c",
    ChangeType.UPDATE: "u",
    ChangeType.DELETE: "d",
    ChangeType.GAP_DELETE: "d",
}


@dataclass(frozen=True, slots=True)
class _Route:
    topic: str
    headers: HeaderTemplate


class Envelope:
    """Turns change events into records of the ``changes`` topics.

    Args:
        org_id: 18-character org id.
        service_name: ``service.name`` of the deployment.
        version: version of this package.
        topics: the deployment's topic names.
        max_record_bytes: limit of one value, bytes; a larger one is cut down and marked ``truncated``.
    """

    def __init__(
        self,
        org_id: str,
        service_name: str,
        version: str,
        topics: Topics,
        *,
        max_record_bytes: int = MAX_RECORD_BYTES,
    ) -> None:
        self._org_id = org_id
        self._service_name = service_name
        self._version = version
        self._topics = topics
        self._max_record_bytes = max_record_bytes
        self._routes: dict[str, _Route] = {}

    def changes(self, change: ChangeEvent) -> list[OutboundRecord]:
        """Return one record per record id, in the event's order.

        Gap events other than GAP_DELETE, overflows, wildcards, SNAPSHOT and unknown change types give none:
        they become loss windows (:func:`consumer.delivery.coverage.window_for_change`).

        Raises:
            PayloadError: the object's name is not one that a topic can have.
        """
        op = _OPS.get(change.change_type)
        if op is None or not change.record_ids:
            return []
        route = self._routes.get(change.header.entity) or self._route(change)
        event_id = change.received.event_id
        commit_ms = change.header.commit_ms
        received_ms = change.received.received_ms
        source = self._source(change, op)
        envelope = {
            "op": op,
            "ts_ms": received_ms,
            "before": None,
            "after": None,
            "source": source,
            # The only order an event states. Records of one merged event share it and go by record_index;
            # adding that index here would put them behind the events that follow.
            "transaction": {
                "id": change.header.transaction_key,
                "total_order": change.header.sequence_number,
                "data_collection_order": change.header.sequence_number,
            },
        }
        records = []
        for index, record_id in enumerate(change.record_ids):
            key = record_id.encode()
            change_id = f"{event_id}:{record_id}"
            source["id"] = change_id
            source["record_id"] = record_id
            source["record_index"] = index
            if op != "c":
                envelope["before"] = {"Id": record_id}
            if op != "d":
                envelope["after"] = {"Id": record_id, **change.values}
            value = orjson.dumps(envelope)
            if len(value) > self._max_record_bytes:
                value = self._shrunk(change, envelope, source)
            headers = route.headers.build(change_id, key, commit_ms, received_ms)
            records.append(OutboundRecord(route.topic, key, value, headers))
        return records

    def _route(self, change: ChangeEvent) -> _Route:
        entity = change.header.entity
        try:
            topic = self._topics.changes(entity)
        except ConfigError as error:
            raise PayloadError(
                "the event's object name can't be part of a Kafka topic name",
                "Look at the quarantined event; if the name is right, shorten kafka.topic_prefix.",
                record_ids=change.record_ids,
            ) from error
        route = self._routes[entity] = _Route(topic, HeaderTemplate(self._org_id, entity, "changes"))
        return route

    def _source(self, change: ChangeEvent, op: str) -> dict[str, Json]:
        received = change.received
        header = change.header
        carried = () if op == "d" else tuple(change.values)
        return {
            "connector": "salesforce-pubsub",
            "name": self._service_name,
            "version": self._version,
            "db": self._org_id,
            "table": header.entity,
            "snapshot": "false",
            "ts_ms": header.commit_ms,
            "id": "",
            "org_id": self._org_id,
            "record_id": "",
            "record_version": None,
            "topic": received.topic,
            "event_id": received.event_id,
            "record_index": 0,
            "replay_id": b2a_base64(received.replay_id, newline=False).decode("ascii"),
            "schema_id": received.schema_id,
            "change_type": change.change_type,
            "change_origin": header.change_origin,
            "commit_number": str(header.commit_number),
            "commit_user": header.commit_user,
            "transaction_key": header.transaction_key,
            "sequence_number": header.sequence_number,
            "changed_fields": change.changed_fields,
            "nulled_fields": change.nulled_fields,
            "diff_fields": change.diff_fields,
            "before_image": "none",
            "after_image": "none" if op == "d" else "partial",
            "unknown_fields": _unknown_fields(change.schema_fields, carried),
            "repaired": received.window_id is not None,
            "window_id": received.window_id,
        }

    def _shrunk(self, change: ChangeEvent, envelope: Mapping[str, Json], source: Mapping[str, Json]) -> bytes:
        """Encode again: with the changed fields only, then the id only, then header texts cut too."""
        changed = {name.partition(".")[0] for name in change.changed_fields}
        kept = {name: value for name, value in change.values.items() if name in changed}
        value = b""
        for fields, texts_cut in ((kept, False), ({}, False), ({}, True)):
            small: dict[str, Json] = {**source, "truncated": True}
            slim: dict[str, Json] = {**envelope, "source": small}
            if envelope["after"] is not None:
                slim["after"] = {"Id": source["record_id"], **fields}
                small["unknown_fields"] = _unknown_fields(change.schema_fields, tuple(fields))
            if texts_cut:
                for name in ("change_origin", "transaction_key", "commit_user"):
                    small[name] = small[name][:_CUT_CHARS]
                slim["transaction"] = {**envelope["transaction"], "id": small["transaction_key"]}
            value = orjson.dumps(slim)
            if len(value) <= self._max_record_bytes:
                break
        return value


@lru_cache(maxsize=4096)
def _unknown_fields(schema_fields: tuple[str, ...], carried: tuple[str, ...]) -> orjson.Fragment:
    """Return the JSON list of fields the record does not tell; the same combinations come often."""
    present = frozenset(carried)
    return orjson.Fragment(orjson.dumps([name for name in schema_fields if name not in present]))
