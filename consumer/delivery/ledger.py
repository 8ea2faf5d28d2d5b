"""Records of the ``ledger`` topic: what the pollers remember of one record (``schemas/ledger.json``).

It is written for every changed record, so what has its usual value is left out, and what follows from the rest.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from consumer.delivery.envelope import MAX_RECORD_BYTES
from consumer.delivery.internal import VERSION, InternalFields, InternalRecord, key_text
from consumer.delivery.names import Topics
from consumer.events import Json, OutboundRecord, json_bytes
from consumer.tracking.access import ShareCause, SharesDue
from consumer.tracking.feed_values import FeedSeen
from consumer.tracking.history_match import CUT_AT
from consumer.tracking.values import HistoryFact, LedgerEntry, Match, Refresh

_VALUES = ("known", "old_unknown", "truncated_255", "not_stored")
_ORIGINS = ("change_event", "history_row", "resync")
_PRECISIONS = ("ms", "s")
_MATCHES = tuple(Match)
_REASONS = ("ended", "unknown")
_CAUSES = tuple(ShareCause)
_LATER = (
    *("values", "match", "revision", "final", "rows", "row_at", "type", "old_label", "new_label", "precision"),
    "origin",
)
_FIRST_WORD = ("known", Match.PENDING, 1, False, (), None, None, None, None, "ms", "change_event")
"""Names of what :func:`_later` returns, and its usual values."""

_ENCODED_KEPT = 20_000
_ENCODED: dict[int, tuple[HistoryFact, orjson.Fragment]] = {}
"""Encoded facts by identity; each holds its fact, so that an identity is not given away while it stands here."""


def encode_ledger(topics: Topics, entry: LedgerEntry) -> OutboundRecord:
    """Return the record of an entry, a tombstone if there is nothing to remember."""
    key = entry.record_id.encode()
    if entry.empty:
        return OutboundRecord(topics.ledger, key, None)
    value: dict[str, Json] = {"v": VERSION, "entity": entry.entity}
    if entry.facts:
        value["facts"] = [_encoded(fact) for fact in entry.facts]
    if entry.refresh is not None:
        refresh = entry.refresh
        value["refresh"] = {"due_ms": refresh.due_ms, "tries": refresh.tries, "reason": refresh.reason}
    if entry.shares is not None:
        value["shares"] = _due_fields(entry.shares)
    if entry.feed:
        value["feed"] = [_seen_fields(each) for each in entry.feed]
    encoded = json_bytes(value)
    if len(encoded) > MAX_RECORD_BYTES:
        value["facts"] = [_cut(_fact_fields(fact)) for fact in entry.facts]
        encoded = json_bytes(value)
    return OutboundRecord(topics.ledger, key, encoded)


def decode_ledger(key: bytes, value: bytes | None) -> LedgerEntry | None:
    """Return the entry of a record as read; None for a tombstone.

    Raises:
        ForeignStateError: it is of a newer version, or not one of this service.
    """
    record_id = key_text(key)
    if value is None:
        return None
    record = InternalRecord(record_id, value)
    facts = tuple(_fact(record, record_id, fields) for fields in record.objects("facts"))
    refresh = None
    if record.has("refresh"):
        read = InternalFields(record, record.mapping("refresh"))
        refresh = Refresh(read.number("due_ms"), read.number("tries"), read.one_of("reason", _REASONS))
    shares = _due(InternalFields(record, record.mapping("shares"))) if record.has("shares") else None
    feed = tuple(_seen(InternalFields(record, each)) for each in record.objects("feed"))
    return LedgerEntry(record.text("entity"), record_id, facts, refresh, shares, feed)


def _due_fields(due: SharesDue) -> dict[str, Json]:
    named = (
        ("due_ms", due.due_ms, None),
        ("cause", due.cause.value, None),
        ("first_ms", due.first_ms, None),
        ("last_ms", due.last_ms, None),
        ("changes", due.changes, 0),
        ("created", due.created, False),
        ("by", due.by, None),
    )
    return {name: value for name, value, usual in named if value != usual}


def _due(fields: InternalFields) -> SharesDue:
    return SharesDue(
        fields.number("due_ms"),
        ShareCause(fields.one_of("cause", _CAUSES)),
        fields.optional_number("first_ms"),
        fields.optional_number("last_ms"),
        fields.number("changes", 0),
        fields.flag("created"),
        fields.optional_text("by"),
    )


def _seen_fields(seen: FeedSeen) -> dict[str, Json]:
    fields: dict[str, Json] = {"item": seen.item_id, "at": seen.stamp_ms}
    return {**fields, "removed": True} if seen.removed else fields


def _seen(fields: InternalFields) -> FeedSeen:
    return FeedSeen(fields.text("item"), fields.number("at"), fields.flag("removed"))


def _encoded(fact: HistoryFact) -> orjson.Fragment:
    """Return a fact's JSON; a waiting fact is written again with every change of its record."""
    known = _ENCODED.get(id(fact))
    if known is not None:
        return known[1]
    if len(_ENCODED) >= _ENCODED_KEPT:
        _ENCODED.clear()
    encoded = orjson.Fragment(json_bytes(_fact_fields(fact)))
    _ENCODED[id(fact)] = (fact, encoded)
    return encoded


def _fact_fields(fact: HistoryFact) -> dict[str, Json]:
    """Return what is not usual of a fact; branches, because a table of all the names costs three times as much."""
    fields: dict[str, Json] = {"field": fact.field}
    if fact.old is not None:
        fields["old"] = fact.old
    if fact.new is not None:
        fields["new"] = fact.new
    fields["at"] = fact.changed_ms
    if fact.changed_by is not None:
        fields["by"] = fact.changed_by
    if fact.event_id is not None:
        fields["event"] = fact.event_id
    fields["seen"] = fact.seen_ms
    if fact.history_field != fact.field:
        fields["history_field"] = fact.history_field
    if fact.change_id != _usual_change_id(fact.event_id, fact.record_id, fact.field, fact.history_ids):
        fields["change_id"] = fact.change_id
    later = _later(fact)
    if later != _FIRST_WORD:
        row_ms = fact.changed_ms if fact.history_ids else None
        named = zip(_LATER, later, _FIRST_WORD, strict=True)
        fields.update((name, value) for name, value, usual in named if value != (row_ms if name == "row_at" else usual))
    if fact.window_id is not None:
        fields["window"] = fact.window_id
    return fields


def _later(fact: HistoryFact) -> tuple[Json, ...]:
    """Return what an event's first word of a change mostly has in common, and rows and revisions change."""
    return (
        fact.values,
        fact.match,
        fact.revision,
        fact.final,
        fact.history_ids,
        fact.row_ms,
        fact.value_type,
        fact.old_label,
        fact.new_label,
        fact.precision,
        fact.origin,
    )


def _usual_change_id(event_id: str | None, record_id: str, field: str, history_ids: tuple[str, ...]) -> str | None:
    if event_id is not None:
        return f"{event_id}:{record_id}:{field}"
    return f"row:{history_ids[0]}" if history_ids else None


def _fact(record: InternalRecord, record_id: str, given: Mapping[str, Json]) -> HistoryFact:
    fields = InternalFields(record, given)
    field = fields.text("field")
    event_id = fields.optional_text("event")
    history_ids = fields.texts("rows")
    change_id = fields.optional_text("change_id") or _usual_change_id(event_id, record_id, field, history_ids)
    if change_id is None:
        record.refuse("a fact has no change_id")
    at = fields.number("at")
    row_ms = fields.number("row_at", at) if history_ids else None
    return HistoryFact(
        change_id=change_id,
        revision=fields.number("revision", 1),
        final=fields.flag("final"),
        record_id=record_id,
        field=field,
        history_field=fields.optional_text("history_field") or field,
        old=given.get("old"),
        new=given.get("new"),
        value_type=fields.optional_text("type"),
        values=fields.one_of("values", _VALUES, "known"),
        old_label=fields.optional_text("old_label"),
        new_label=fields.optional_text("new_label"),
        changed_ms=at,
        precision=fields.one_of("precision", _PRECISIONS, "ms"),
        changed_by=fields.optional_text("by"),
        origin=fields.one_of("origin", _ORIGINS, "change_event"),
        match=Match(fields.one_of("match", _MATCHES, "pending")),
        history_ids=history_ids,
        event_id=event_id,
        window_id=fields.optional_text("window"),
        seen_ms=fields.number("seen"),
        row_ms=row_ms,
    )


def _cut(fields: dict[str, Json]) -> dict[str, Json]:
    """Return a fact whose texts are no longer than what a row can be compared with."""
    long = [name for name in ("old", "new") if isinstance(fields.get(name), str) and len(fields[name]) > CUT_AT]
    if not long:
        return fields
    return {**fields, **{name: fields[name][:CUT_AT] for name in long}, "values": "truncated_255"}
