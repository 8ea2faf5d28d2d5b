"""From what a transaction did to records to the change events the event bus stores."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias

from consumer.emulator import bitmaps
from consumer.emulator.event_encode import BodyEncoder, EventHeader, encode_header
from consumer.emulator.event_schemas import CHANGE_TYPES, WriterSchema
from consumer.emulator.org_records import Delta, Place, Store
from consumer.emulator.record_ids import PLACEHOLDER_ID
from consumer.errors import EmulatorError

Poison: TypeAlias = Literal["truncated", "trailing", "random", "bad_bitmap", "bad_enum", "unknown_schema"]
"""Ways to break an event; the model's records are not touched by any."""

DEFAULT_ORIGIN: Final = "com/salesforce/api/soap/66.0;client=SfdcInternalAPI/"
MAX_EVENT_BYTES: Final = 1_000_000
"""Above this an event becomes a gap event (CDC guide, "Gap Events")."""
MAX_TRANSACTION: Final = 100_000
"""Above this many changes a transaction becomes overflow events (CDC guide, "Overflow Events")."""

_FIRST_COMMIT_NUMBER: Final = 1_709_306_004_000_000_000  # past 2^53, as newer orgs are
_MODIFIED: Final[Place] = ("LastModifiedDate", "")
_SPLIT_SINGLE: Final = 0.02
_SPLIT_SEVERAL: Final = 0.3


@dataclass(frozen=True, slots=True)
class OrgEvent:
    """One change event as the event bus stores it, still without a replay id.

    Attributes:
        event_id: UUID text.
        entity: object API name.
        schema_id: writer schema of the payload.
        payload: Avro binary body.
        change_type: the header's, or the one a poisoned header pretends.
        record_ids: the header's; empty where a poisoned payload has none to read.
        commit_ms: commitTimestamp, epoch milliseconds in whole seconds.
        transaction_key: groups one transaction's events.
        sequence_number: 1-based within the transaction.
        shares_replay_id: True means: same replay id as the event before it.
    """

    event_id: str
    entity: str
    schema_id: str
    payload: bytes
    change_type: str
    record_ids: tuple[str, ...]
    commit_ms: int
    transaction_key: str
    sequence_number: int
    shares_replay_id: bool = False


@dataclass(slots=True)
class _Draft:
    """An event before it has a sequence number.

    Attributes:
        key: entity, change type, body, and the bitmaps of changed, nulled and diff fields; drafts with equal keys
            merge.
        record_ids: one or, merged, several.
        own_bodies: by record, where enrichment makes them differ from the key's.
    """

    key: tuple[Any, ...]
    record_ids: list[str]
    own_bodies: dict[str, bytes] = field(default_factory=dict)


class EventMaker:
    """Makes events of deltas: bitmaps, merging, splitting, numbering, encoding.

    Args:
        store: the org's records and current schemas.
        rng: the org's only source of choice.

    Attributes:
        ungroup_merged, enrichment: see :class:`consumer.emulator.org.OrgModel`.
        known: every writer schema ever in use, by id.
    """

    def __init__(self, store: Store, rng: random.Random) -> None:
        self.ungroup_merged = False
        self.enrichment: dict[str, tuple[str, ...]] = {}
        self.known: dict[str, WriterSchema] = {}
        self._store = store
        self._rng = rng
        self._encoders: dict[str, BodyEncoder] = {}
        self._bitmaps: dict[tuple[str, frozenset[Place]], tuple[str, ...]] = {}
        self._commit_number = _FIRST_COMMIT_NUMBER

    def learn(self, schema: WriterSchema) -> None:
        """Use this writer schema for its entity from now on."""
        self.known[schema.schema_id] = schema
        self._encoders[schema.entity] = BodyEncoder(schema)

    def header(self, commit_ms: int, user: str, origin: str) -> EventHeader:
        """Return the header that all events of a new transaction share, but for entity, ids and fields."""
        self._commit_number += self._rng.randrange(1, 40)
        return EventHeader("", (), "UPDATE", origin, self._uuid(), 1, commit_ms, self._commit_number, user)

    def restart_commit_numbers(self, rng: random.Random) -> None:
        """Go on with lower commit numbers, still past 2^53."""
        self._commit_number = rng.randrange(2**54, _FIRST_COMMIT_NUMBER // 2)

    def events(self, deltas: Sequence[Delta], header: EventHeader, *, split: bool | None = None) -> list[OrgEvent]:
        """Return the events of one transaction.

        Args:
            deltas: what it did to the records.
            header: from :meth:`header`.
            split: see :meth:`consumer.emulator.org.OrgModel.commit`.

        Raises:
            EmulatorError: a value does not fit its field.
        """
        if len(deltas) > MAX_TRANSACTION:
            entities = dict.fromkeys(delta.entity for delta in deltas)
            drafts = [self._bare(entity, "GAP_OVERFLOW", [PLACEHOLDER_ID]) for entity in entities]
        else:
            drafts = self._merged(self._draft(delta) for delta in self._split(deltas, choice=split))
        return list(self._numbered(drafts, header))

    def check(self, delta: Delta) -> None:
        """Make sure that an event could carry this; nothing is made.

        Raises:
            EmulatorError: a value does not fit its field.
        """
        self._encoders[delta.entity].encode(delta.body)

    def detail_free(
        self, entity: str, change_type: str, record_ids: Sequence[str], header: EventHeader
    ) -> list[OrgEvent]:
        """Return one event with nothing but its header: gap, overflow, wildcard."""
        return list(self._numbered([self._bare(entity, change_type, record_ids)], header))

    def _uuid(self) -> str:
        text = f"{self._rng.getrandbits(128):032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def _split(self, deltas: Sequence[Delta], *, choice: bool | None) -> Sequence[Delta]:
        """Move LastModifiedDate into events of their own, which merge into one; seen in live captures."""
        wide = [delta for delta in deltas if _MODIFIED in delta.changed and len(delta.changed) > 1]
        if not wide:
            return deltas
        if choice is None:
            choice = self._rng.random() < (_SPLIT_SINGLE if len(wide) == 1 else _SPLIT_SEVERAL)
        if not choice:
            return deltas
        first = []
        for delta in wide:
            value = delta.body.pop("LastModifiedDate")
            delta.changed.discard(_MODIFIED)
            body = {"LastModifiedDate": value}
            first.append(Delta(delta.entity, delta.record_id, "UPDATE", body, {_MODIFIED}))
        return [*first, *deltas]

    def _draft(self, delta: Delta) -> _Draft:
        changed, nulled = self._bits(delta.entity, delta.changed), self._bits(delta.entity, delta.nulled)
        diffs = self._bits(delta.entity, delta.diffs)
        body = self._encoders[delta.entity].encode(delta.body)
        key = (delta.entity, delta.change_type, body, changed, nulled, diffs)
        return _Draft(key, [delta.record_id], self._enriched(delta))

    def _bare(self, entity: str, change_type: str, record_ids: Sequence[str]) -> _Draft:
        body = self._encoders[entity].empty
        return _Draft((entity, change_type, body, (), (), ()), list(record_ids))

    def _enriched(self, delta: Delta) -> dict[str, bytes]:
        names = self.enrichment.get(delta.entity, ())
        if not names:
            return {}
        invisible = self._store.invisible.get(delta.entity, frozenset())
        row = self._store.table(delta.entity).get(delta.record_id)
        if row is None or delta.change_type not in {"UPDATE", "DELETE"}:
            return {}
        values = {**{name: row.values.get(name) for name in names if name not in invisible}, **delta.body}
        return {delta.record_id: self._encoders[delta.entity].encode(values)}

    def _bits(self, entity: str, places: set[Place]) -> tuple[str, ...]:
        if not places:
            return ()
        schema = self._store.schemas[entity]
        key = (schema.schema_id, frozenset(places))
        found = self._bitmaps.get(key)
        if found is None:
            found = self._bitmaps[key] = tuple(bitmaps.encode(schema, places))
        return found

    @staticmethod
    def _merged(drafts: Iterable[_Draft]) -> list[_Draft]:
        merged: dict[tuple[Any, ...], _Draft] = {}
        for draft in drafts:
            first = merged.setdefault(draft.key, draft)
            if first is not draft:
                first.record_ids += draft.record_ids
                first.own_bodies.update(draft.own_bodies)
        return list(merged.values())

    def _numbered(self, drafts: Sequence[_Draft], header: EventHeader) -> Iterator[OrgEvent]:
        for number, draft in enumerate(drafts, start=1):
            groups: list[tuple[str, ...]] = [tuple(draft.record_ids)]
            if self.ungroup_merged or draft.own_bodies:
                groups = [(record_id,) for record_id in draft.record_ids]
            for place, record_ids in enumerate(groups):
                yield self._event(draft, header, number, record_ids, shares_replay_id=place > 0)

    def _event(
        self,
        draft: _Draft,
        header: EventHeader,
        number: int,
        record_ids: tuple[str, ...],
        *,
        shares_replay_id: bool = False,
    ) -> OrgEvent:
        entity, change_type, body, changed, nulled, diffs = draft.key
        body = draft.own_bodies.get(record_ids[0], body)
        if len(body) > MAX_EVENT_BYTES:
            gap = self._bare(entity, f"GAP_{change_type}", record_ids)
            return self._event(gap, header, number, record_ids, shares_replay_id=shares_replay_id)
        full = EventHeader(
            entity,
            record_ids,
            change_type,
            header.change_origin,
            header.transaction_key,
            number,
            header.commit_timestamp,
            header.commit_number,
            header.commit_user,
            nulled,
            diffs,
            changed,
        )
        return OrgEvent(
            self._uuid(),
            entity,
            self._store.schemas[entity].schema_id,
            encode_header(full) + body,
            change_type,
            record_ids,
            header.commit_timestamp,
            header.transaction_key,
            number,
            shares_replay_id,
        )

    def poison(self, entity: str, record_id: str, header: EventHeader, kind: Poison) -> OrgEvent:
        """Return one broken event that claims an update of a record; the records stay as they are.

        Raises:
            EmulatorError: unknown entity or kind.
        """
        schema = self._store.schemas[entity]
        commit_ms = header.commit_timestamp
        bits: tuple[str, ...] = (bitmaps.hex_bits(1 << (len(schema.fields) + 3)),)
        change_type: str | int = len(CHANGE_TYPES) + 89 if kind == "bad_enum" else "UPDATE"
        if kind != "bad_bitmap":
            bits = self._bits(entity, {_MODIFIED})
        full = replace(header, entity=entity, record_ids=(record_id,), change_type=change_type, changed_fields=bits)
        sound = encode_header(full) + self._encoders[entity].encode({"LastModifiedDate": commit_ms})
        payload = self._broken(sound, kind)
        event_id = self._uuid()
        schema_id = schema.schema_id if kind != "unknown_schema" else self._uuid().replace("-", "")[:22]
        ids: tuple[str, ...] = () if kind == "random" else (record_id,)
        return OrgEvent(event_id, entity, schema_id, payload, "UPDATE", ids, commit_ms, header.transaction_key, 1)

    def _broken(self, sound: bytes, kind: Poison) -> bytes:
        if kind == "truncated":
            return sound[: self._rng.randrange(1, len(sound))]
        if kind == "trailing":
            return sound + self._rng.randbytes(self._rng.randrange(1, 40))
        if kind == "random":
            return self._rng.randbytes(len(sound))
        if kind in {"bad_bitmap", "bad_enum", "unknown_schema"}:
            return sound
        raise EmulatorError(f"{kind!r} is no kind of poison", "Use one of the kinds the scenario reference lists")
