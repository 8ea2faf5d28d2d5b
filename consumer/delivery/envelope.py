"""Change records: one Debezium-shaped record per change of a record (``schemas/changes.json``).

Images arrive encoded and are put in as they are, so that ``after``, the state and the next ``before`` are the same
bytes.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import orjson

from consumer.delivery.headers import HeaderTemplate
from consumer.delivery.names import Topics
from consumer.errors import ConfigError, PayloadError
from consumer.events import ChangeEvent, Json, OutboundRecord, json_bytes
from consumer.tracking.arrivals import RowsRead
from consumer.tracking.changes import TrackedChange

MAX_RECORD_BYTES = 900 << 10
"""Default limit of a value: room for key, headers and batch below Kafka's default of about 1 MiB."""

_CUT_CHARS = 512
"""What is left of header texts in a record that is too large even without fields."""

_NULL: Final = orjson.Fragment(b"null")
_HEADER_TEXTS: Final = ("change_origin", "transaction_key", "commit_user")


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
        self._sources: dict[tuple[str, str], dict[str, Json]] = {}

    def require_topics(self, change: ChangeEvent) -> None:
        """Make sure that the object's name can be part of topic names.

        Raises:
            PayloadError: it can't.
        """
        entity = change.header.entity
        if entity in self._routes:
            return
        try:
            self._route(entity)
        except ConfigError as error:
            raise PayloadError(
                "the event's object name can't be part of a Kafka topic name",
                "Look at the quarantined event; if the name is right, shorten kafka.topic_prefix.",
                record_ids=change.record_ids,
            ) from error

    def changes(self, change: ChangeEvent, tracked: Sequence[TrackedChange]) -> list[OutboundRecord]:
        """Return one record per tracked change of an event, in the same order.

        Args:
            change: the event.
            tracked: what became of its records.

        Raises:
            PayloadError: the object's name is not one that a topic can have.
        """
        if not tracked:
            return []
        self.require_topics(change)
        header, received = change.header, change.received
        source = self._source(header.entity, received.topic)
        source["event_id"] = received.event_id
        source["replay_id"] = b2a_base64(received.replay_id, newline=False).decode("ascii")
        source["schema_id"] = received.schema_id
        source["change_origin"] = header.change_origin
        source["commit_number"] = str(header.commit_number)
        source["commit_user"] = header.commit_user
        source["transaction_key"] = header.transaction_key
        source["sequence_number"] = header.sequence_number
        source["changed_fields"] = change.changed_fields
        source["nulled_fields"] = change.nulled_fields
        source["diff_fields"] = change.diff_fields
        # The only order an event states. Records of one merged event share it and go by record_index; adding that
        # index here would put them behind the events that follow.
        transaction = {
            "id": header.transaction_key,
            "total_order": header.sequence_number,
            "data_collection_order": header.sequence_number,
        }
        envelope: dict[str, Json] = {
            "op": "",
            "ts_ms": received.received_ms,
            "before": None,
            "after": None,
            "source": source,
            "transaction": transaction,
        }
        return [
            self._record(envelope, each, received.received_ms, change.schema_fields, received.window_id)
            for each in tracked
        ]

    def rows(
        self,
        entity: str,
        channel: str,
        read: RowsRead,  # noqa: ARG002 - what was read, beside what became of it, as in `changes`
        tracked: Sequence[TrackedChange],
        received_ms: int,
    ) -> list[OutboundRecord]:
        """Return one record per tracked change of a read, in the same order.

        Args:
            entity: object API name.
            channel: the subscription's channel.
            read: the read.
            tracked: what became of its records.
            received_ms: when its answer came, epoch milliseconds.

        Raises:
            ConfigError: the object's name is not one that a topic can have.
        """
        if tracked and entity not in self._routes:
            self._route(entity)
        source = self._source(entity, channel)
        envelope: dict[str, Json] = {
            "op": "",
            "ts_ms": received_ms,
            "before": None,
            "after": None,
            "source": source,
            "transaction": None,
        }
        records = []
        for each in tracked:
            source["changed_fields"] = each.changed_fields or ()
            source["nulled_fields"] = [
                fact.field for fact in each.fields if fact.new is None and fact.new_known and fact.old is not None
            ]
            records.append(self._record(envelope, each, received_ms, (), None))
        return records

    def _route(self, entity: str) -> _Route:
        topic = self._topics.changes(entity)
        route = self._routes[entity] = _Route(topic, HeaderTemplate(self._org_id, entity, "changes"))
        return route

    def _source(self, entity: str, channel: str) -> dict[str, Json]:
        """Return a new source of any change: null where only an event has a value."""
        key = (entity, channel)
        source = self._sources.get(key)
        if source is None:
            source = self._sources[key] = self._new_source(entity, channel)
        return source.copy()

    def _new_source(self, entity: str, channel: str) -> dict[str, Json]:
        return {
            "connector": "salesforce-pubsub",
            "name": self._service_name,
            "version": self._version,
            "db": self._org_id,
            "table": entity,
            "snapshot": "false",
            "ts_ms": 0,
            "id": "",
            "org_id": self._org_id,
            "record_id": "",
            "record_version": 0,
            "topic": channel,
            "event_id": None,
            "record_index": None,
            "replay_id": None,
            "schema_id": None,
            "change_type": None,
            "change_origin": None,
            "commit_number": None,
            "commit_user": None,
            "transaction_key": None,
            "sequence_number": None,
            "changed_fields": (),
            "nulled_fields": (),
            "diff_fields": (),
            "before_image": "none",
            "after_image": "none",
            "unknown_fields": (),
            "repaired": False,
            "window_id": None,
        }

    def _record(
        self,
        envelope: dict[str, Json],
        tracked: TrackedChange,
        received_ms: int,
        schema_fields: tuple[str, ...],
        retried_for: str | None,
    ) -> OutboundRecord:
        source = envelope["source"]
        source["snapshot"] = tracked.snapshot
        source["ts_ms"] = tracked.stamp_ms
        source["id"] = tracked.change_id
        source["record_id"] = tracked.record_id
        source["record_version"] = tracked.version
        source["record_index"] = tracked.record_index
        source["change_type"] = tracked.change_type
        source["before_image"] = tracked.before_kind
        source["after_image"] = tracked.after_kind
        source["unknown_fields"] = _names(tracked.unknown_fields)
        window_id = source["window_id"] = tracked.window_id or retried_for
        source["repaired"] = window_id is not None
        if tracked.late:
            source["late"] = True
            source["late_values"] = tracked.late_values
        elif "late" in source:
            del source["late"], source["late_values"]
        envelope["op"] = tracked.op
        envelope["before"] = _NULL if tracked.before is None else orjson.Fragment(tracked.before)
        envelope["after"] = _NULL if tracked.after is None else orjson.Fragment(tracked.after)
        value = json_bytes(envelope)
        if len(value) > self._max_record_bytes:
            value = self._shrunk(envelope, tracked, schema_fields)
        route = self._routes[source["table"]]
        key = tracked.record_id.encode()
        headers = route.headers.build(tracked.change_id, key, tracked.stamp_ms, received_ms)
        return OutboundRecord(route.topic, key, value, headers)

    def _shrunk(self, envelope: Mapping[str, Json], tracked: TrackedChange, schema_fields: tuple[str, ...]) -> bytes:
        """Encode again: with the changed fields only, then the id only, then header texts cut too."""
        source: Mapping[str, Json] = envelope["source"]
        changed = {name.partition(".")[0] for name in source["changed_fields"]}
        images = {side: orjson.loads(image) for side in ("before", "after") if (image := getattr(tracked, side))}
        value = b""
        for kept, texts_cut in ((changed, False), (set[str](), False), (set[str](), True)):
            small: dict[str, Json] = {**source, "truncated": True}
            slim: dict[str, Json] = {**envelope, "source": small}
            for side, image in images.items():
                slim[side] = {name: item for name, item in image.items() if name == "Id" or name in kept}
                if len(slim[side]) < len(image):
                    small[f"{side}_image"] = "partial" if len(slim[side]) > 1 else "none"
            told = slim["after"] if tracked.after is not None else slim["before"]
            whole = images.get("after") or images.get("before") or {}
            listed = (name.removesuffix(".*") for name in tracked.unknown_fields)
            small["unknown_fields"] = [
                f"{name}.*" if name in told else name
                for name in schema_fields or dict.fromkeys((*whole, *listed))
                if name != "Id" and (name not in told or f"{name}.*" in tracked.unknown_fields)
            ]
            if tracked.late:
                small["late_values"] = {name: item for name, item in tracked.late_values.items() if name in kept}
            if texts_cut:
                for name in _HEADER_TEXTS:
                    small[name] = small[name] and small[name][:_CUT_CHARS]
                if envelope["transaction"] is not None:
                    slim["transaction"] = {**envelope["transaction"], "id": small["transaction_key"]}
            value = orjson.dumps(slim)
            if len(value) <= self._max_record_bytes:
                break
        return value


@lru_cache(maxsize=4096)
def _names(names: tuple[str, ...]) -> orjson.Fragment:
    """Return the JSON of a list of names; the same lists come often."""
    return orjson.Fragment(orjson.dumps(names))
