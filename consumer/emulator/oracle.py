"""What a subscriber ought to have learnt: the changes of every record, read back from the published payloads.

Reads with ``fastavro`` and its own bitmap decoder, so that it shares no code with the service it judges.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import fastavro

from consumer.emulator import bitmaps
from consumer.emulator.bitmaps import Paths
from consumer.emulator.event_schemas import HEADER, WriterSchema
from consumer.emulator.org import OrgEvent, OrgModel
from consumer.errors import EmulatorError


@dataclass(frozen=True, slots=True)
class RecordedChange:
    """One event's say on one record.

    Attributes:
        event_id: the event.
        change_type, change_origin, sequence_number: the header's.
        values: the body's non-null fields; compounds as dicts of their non-null parts; a diff as its text.
        changed: places named by changedFields; likewise ``nulled`` and ``diffs``.
    """

    event_id: str
    change_type: str
    change_origin: str
    sequence_number: int
    values: Mapping[str, Any]
    changed: Paths
    nulled: Paths
    diffs: Paths


class Oracle:
    """Collects published events and tells each record's changes and image.

    Args:
        org: the org that made the events; gives their schemas, and says which events are poison.
    """

    def __init__(self, org: OrgModel) -> None:
        self._org = org
        self._events: dict[str, dict[str, list[OrgEvent]]] = {}
        self._readers: dict[str, Any] = {}

    def observe(self, events: Iterable[OrgEvent]) -> None:
        """Take note of events in the order of their publication; poison says nothing of any record."""
        for event in events:
            if event.event_id in self._org.poison_ids:
                continue
            records = self._events.setdefault(event.entity, {})
            for record_id in event.record_ids:
                records.setdefault(record_id, []).append(event)

    def record_ids(self, entity: str) -> tuple[str, ...]:
        """Return every id that an event named, in order of first mention; wildcards included."""
        return tuple(self._events.get(entity, {}))

    def event_ids(self, entity: str, record_id: str) -> tuple[str, ...]:
        """Return the ids of the record's events in order: what a reader of its topic must see, each once."""
        return tuple(event.event_id for event in self._events.get(entity, {}).get(record_id, ()))

    def changes(self, entity: str, record_id: str) -> list[RecordedChange]:
        """Return the record's changes in order of publication."""
        return [self.read(event) for event in self._events.get(entity, {}).get(record_id, ())]

    def read(self, event: OrgEvent) -> RecordedChange:
        """Return what one event says.

        Raises:
            EmulatorError: the org does not know the event's schema.
        """
        schema = self._org.schema(event.schema_id)
        if schema is None:
            raise EmulatorError(f"Schema {event.schema_id} is unknown", "Ask only for sound events")
        decoded = fastavro.schemaless_reader(io.BytesIO(event.payload), self._reader(schema), None)
        header = decoded.pop(HEADER)
        values = {name: _non_null(value) for name, value in decoded.items() if value is not None}
        return RecordedChange(
            event.event_id,
            header["changeType"],
            header["changeOrigin"],
            header["sequenceNumber"],
            values,
            bitmaps.decode(schema, header["changedFields"]),
            bitmaps.decode(schema, header["nulledFields"]),
            bitmaps.decode(schema, header["diffFields"]),
        )

    def image(self, entity: str, record_id: str) -> dict[str, Any] | None:
        """Return the record as its events tell it: non-null fields, None once it is deleted or unheard of."""
        image: dict[str, Any] | None = None
        for change in self.changes(entity, record_id):
            image = fold(image, change)
        return image

    def _reader(self, schema: WriterSchema) -> Any:
        reader = self._readers.get(schema.schema_id)
        if reader is None:
            reader = self._readers[schema.schema_id] = fastavro.parse_schema(json.loads(schema.json))
        return reader


def fold(image: Mapping[str, Any] | None, change: RecordedChange) -> dict[str, Any] | None:
    """Return a record's image after one more change."""
    if change.change_type == "DELETE":
        return None
    if change.change_type in {"CREATE", "UNDELETE"}:
        return dict(change.values)
    after = dict(image or {})
    for name, part in sorted(change.changed):
        if not part:
            _fold_plain(after, name, change)
            continue
        old = after.get(name)
        parts = dict(old) if isinstance(old, dict) else {}
        parts.pop(part, None)
        if (name, part) not in change.nulled:
            parts[part] = change.values[name][part]
        after[name] = parts
        if not parts:
            del after[name]
    return after


def _fold_plain(after: dict[str, Any], name: str, change: RecordedChange) -> None:
    if (name, "") in change.nulled:
        after.pop(name, None)
    elif (name, "") in change.diffs:
        after[name] = patch(str(after.get(name, "")), change.values[name])
    else:
        after[name] = change.values[name]


def patch(old: str, diff: str) -> str:
    """Return the text that a diff value makes of ``old``.

    Raises:
        EmulatorError: the diff does not belong to this text.
    """
    newline = "\r\n" if "\r\n" in old else "\n"
    lines, out, at = old.split(newline), list[str](), 0
    head, *hunks = diff.split("\n")[1:]
    for line in hunks:
        if line.startswith("@@"):
            start, count = (int(number) for number in line.split()[1][1:].split(","))
            begin = start - 1 if count else start
            out += lines[at:begin]
            at = begin
        elif line.startswith("+"):
            out.append(line[1:])
        else:
            if lines[at : at + 1] != [line[1:]]:
                raise EmulatorError("The diff does not fit the text", "Apply it to the text it was made of")
            out += [line[1:]] if line.startswith(" ") else []
            at += 1
    new = newline.join(out + lines[at:])
    if hashlib.sha256(new.encode()).hexdigest() != head.removeprefix("+++ "):
        raise EmulatorError("The diff's checksum does not fit", "Apply it to the text it was made of")
    return new


def _non_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {part: item for part, item in value.items() if item is not None}
    return value
