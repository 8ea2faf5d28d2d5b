"""A store that lives as long as the process: for replays, retries of quarantined events, and tests."""

from __future__ import annotations

import uuid
from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from consumer.ports import Delta, Offsets, Piece
from consumer.store.codec import Codec, index_of_ledger, index_of_state, mirrored
from consumer.store.overlay import OverlayStore
from consumer.tracking.access import AccessState
from consumer.tracking.values import Key, LedgerEntry, RecordState


class MemoryStore(OverlayStore):
    """Implements :class:`consumer.ports.Store` and :class:`consumer.ports.Mirror` in memory, without a bound.

    Args:
        codec: encodes cuts, and decodes what is loaded.
    """

    def __init__(self, codec: Codec) -> None:
        super().__init__(codec)
        self._empty()

    def _empty(self) -> None:
        self._generation = uuid.uuid4().hex
        self._cluster_id: str | None = None
        self._newest_ms = 0
        self._offsets: dict[tuple[str, int], int] = {}
        self._ids: dict[str, list[str]] = {}
        self._committed: dict[Key, RecordState] = {}
        self._remembered: dict[Key, LedgerEntry] = {}
        self._known: dict[Key, AccessState] = {}
        self._seen: dict[tuple[str, str], set[str]] = {}

    @property
    def generation(self) -> str:
        """Changes when the store was emptied."""
        return self._generation

    def expect(self, keys: Iterable[Key]) -> None:
        """Do nothing: everything is in memory."""

    def _committed_state(self, key: Key) -> RecordState | None:
        return self._committed.get(key)

    def _committed_entry(self, key: Key) -> LedgerEntry | None:
        return self._remembered.get(key)

    def _committed_access(self, key: Key) -> AccessState | None:
        return self._known.get(key)

    def _write(self, delta: Delta, offsets: Offsets) -> None:
        for key, state in delta.states.items():
            self._set_state(key, state)
        for key, entry in delta.ledger.items():
            self._set_entry(key, entry)
        for key, access in delta.access.items():
            self._set_access(key, access)
        self._offsets |= {pair: offset for pair, offset in offsets.items() if mirrored(pair[0])}

    def _set_state(self, key: Key, state: RecordState | None) -> None:
        entity, record_id = key
        if state is None:
            if self._committed.pop(key, None) is not None:
                self._ids[entity].remove(record_id)
            return
        if key not in self._committed:
            insort(self._ids.setdefault(entity, []), record_id)
        self._committed[key] = state

    def _set_entry(self, key: Key, entry: LedgerEntry | None) -> None:
        # Taken out first: the order of the mapping is the order of writing.
        self._remembered.pop(key, None)
        if entry is not None:
            self._remembered[key] = entry

    def _set_access(self, key: Key, access: AccessState | None) -> None:
        if access is None:
            self._known.pop(key, None)
        else:
            self._known[key] = access

    def due_refreshes(self, entity: str, now_ms: int, limit: int) -> Sequence[Key]:
        """Return records whose refresh is due, longest due first; committed ones only."""
        due = [
            (entry.refresh.due_ms, key)
            for key, entry in self._remembered.items()
            if key[0] == entity and entry.refresh is not None and entry.refresh.due_ms <= now_ms
        ]
        return [key for _, key in sorted(due)[:limit]]

    def unsettled(self, entity: str, limit: int) -> Sequence[Key]:
        """Return records whose ledger entry has facts or feed items, least recently written first; committed ones."""
        found = (key for key, entry in self._remembered.items() if key[0] == entity and (entry.facts or entry.feed))
        return list(islice(found, limit))

    def due_shares(self, entity: str, now_ms: int, limit: int) -> Sequence[Key]:
        """Return records whose share rows are to be read, longest due first; committed ones only."""
        due = [
            (entry.shares.due_ms, key)
            for key, entry in self._remembered.items()
            if key[0] == entity and entry.shares is not None and entry.shares.due_ms <= now_ms
        ]
        return [key for _, key in sorted(due)[:limit]]

    def expired(self, entity: str, deleted_before_ms: int, limit: int) -> Sequence[str]:
        """Return ids of records found gone before a time, whose state is still kept."""
        gone = [(index_of_state(self._committed[entity, each]).deleted_ms, each) for each in self._ids.get(entity, ())]
        return [
            each for ms, each in sorted((ms, each) for ms, each in gone if ms is not None and ms < deleted_before_ms)
        ][:limit]

    def see(self, entity: str, record_ids: Iterable[str], job_id: str) -> None:
        """Remember that a scan saw these records."""
        self._seen.setdefault((entity, job_id), set()).update(record_ids)

    def unseen(self, entity: str, job_id: str, after_id: str, limit: int) -> Sequence[str]:
        """Return ids, in text order after ``after_id``, of live records that the scan did not see."""
        ids = self._ids.get(entity, [])
        seen = self._seen.get((entity, job_id), set())
        found: list[str] = []
        for each in ids[bisect_right(ids, after_id) :]:
            if len(found) == limit:
                break
            if each not in seen and not self._committed[entity, each].deleted:
                found.append(each)
        return found

    def unseen_access(self, entity: str, job_id: str, after_id: str, limit: int) -> Sequence[str]:
        """Return ids, in text order after ``after_id``, of records with known shares that the scan did not see."""
        seen = self._seen.get((entity, job_id), set())
        return sorted(each for of, each in self._known if of == entity and each > after_id and each not in seen)[:limit]

    def entities(self) -> Sequence[str]:
        """Return the objects that have states."""
        return sorted(entity for entity, ids in self._ids.items() if ids)

    def records(self, entity: str) -> int:
        """Return how many states of an object are kept, deleted ones included."""
        return len(self._ids.get(entity, ()))

    def attach(self, cluster_id: str, *, stale_after_ms: int) -> None:  # noqa: ARG002  # no replay lives that long
        """Empty the store if it was filled from another cluster."""
        if self._cluster_id not in {None, cluster_id}:
            self.rebuild("it was filled from another Kafka cluster")
        self._cluster_id = cluster_id

    def offsets(self) -> Offsets:
        """Return how far each mirrored partition is stored."""
        return dict(self._offsets)

    @property
    def newest_ms(self) -> int:
        """Newest timestamp among the loaded records, epoch milliseconds."""
        return self._newest_ms

    def load(self, piece: Piece, owns: Callable[[str], bool]) -> None:
        """Take in what was read from Kafka."""
        for record_id, value in piece.states:
            if value is None:
                for entity in self._ids:
                    self._set_state((entity, record_id), None)
            else:
                state = self._codec.decode_state(record_id, value)
                self._set_state((state.entity, record_id), state)
        for record_id, value in piece.ledger:
            if value is None:
                for key in [key for key in self._remembered if key[1] == record_id]:
                    self._set_entry(key, None)
                continue
            entry = self._codec.decode_ledger(record_id, value)
            if owns(index_of_ledger(entry).entity):
                self._set_entry((entry.entity, record_id), entry)
        for record_id, value in piece.access:
            self._load_access(record_id, value)
        self._offsets |= piece.offsets
        self._newest_ms = max(self._newest_ms, piece.newest_ms)

    def _load_access(self, record_id: str, value: bytes | None) -> None:
        if value is None:
            for key in [key for key in self._known if key[1] == record_id]:
                self._set_access(key, None)
        else:
            access = self._codec.decode_access(record_id, value)
            self._set_access((access.entity, record_id), access)

    def rebuild(self, reason: str) -> None:  # noqa: ARG002  # there is no file to tell of
        """Throw everything away."""
        self.drop()
        cluster_id = self._cluster_id
        self._empty()
        self._cluster_id = cluster_id
