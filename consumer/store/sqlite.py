"""The store of a working service: an SQLite file that mirrors what is committed in Kafka, behind a bounded cache."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import orjson

from consumer import clock
from consumer.ports import Delta, Offsets, Piece
from consumer.store import tables
from consumer.store.codec import Codec, LedgerIndex, index_of_ledger, index_of_state, mirrored
from consumer.store.database import Database
from consumer.store.file import Owner, StoreFile
from consumer.store.lru import Lru
from consumer.store.overlay import OverlayStore
from consumer.tracking.access import AccessState
from consumer.tracking.values import Key, LedgerEntry, RecordState

CACHE_BYTES = 96 << 20
"""Most bytes of decoded states that are kept, estimated."""

_DECODED = 12
"""Bytes of memory for one byte of a value: a decoded image of 1.6 KB takes 20 KB."""
_ENTRY_BYTES = 500

_JOBS_KEPT = 4
_FORGET_ROWS = 5_000

_StateRow: TypeAlias = tuple[Key, int | None, bytes | None]
_AccessRow: TypeAlias = tuple[Key, bytes | None]
_LedgerRow: TypeAlias = tuple[Key, LedgerIndex | None, bytes | None]


class SqliteStore(OverlayStore):
    """Implements :class:`consumer.ports.Store` and :class:`consumer.ports.Mirror`.

    Everything happens in the caller's thread: a batch of 500 records takes a few milliseconds, and no disk is waited
    for (see :mod:`consumer.store.checkpoints`). Every call that touches the file can raise ``StoreError``.

    Args:
        directory: where the file lies.
        owner: whose state it is; a file of somebody else is thrown away.
        codec: encodes and decodes values.
        cache_records: most decoded states, and most decoded ledger entries, kept in memory.
        cache_bytes: most bytes of decoded states, estimated; a quarter of it for ledger entries.
        now_ms: wall clock, epoch milliseconds.

    Raises:
        StoreError: the directory can't be written, or its disk is full.
    """

    def __init__(
        self,
        directory: Path,
        owner: Owner,
        codec: Codec,
        *,
        cache_records: int = 20_000,
        cache_bytes: int = CACHE_BYTES,
        now_ms: Callable[[], int] = clock.now_ms,
    ) -> None:
        super().__init__(codec)
        self._now_ms = now_ms
        self._state_cache: Lru[RecordState] = Lru(cache_records, cache_bytes)
        self._entry_cache: Lru[LedgerEntry] = Lru(cache_records, cache_bytes // 4)
        self._access_cache: Lru[AccessState] = Lru(cache_records, cache_bytes // 8)
        self._file = StoreFile(directory, owner)
        try:
            self._database = Database(self._file, owner, self._forget)
            self._written = int(self._database.identity["written"])
        except BaseException:
            self._file.release()
            raise

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def generation(self) -> str:
        """Changes when the store was rebuilt: what ``see`` remembered is gone then."""
        return self._database.identity["generation"]

    @property
    def newest_ms(self) -> int:
        """No stored record has a later timestamp than this, epoch milliseconds; 0 for an empty store."""
        return int(self._database.identity["newest_ms"])

    def close(self) -> None:
        """Write everything to the file and let another worker have it."""
        self._database.close()
        self._file.release()

    def _forget(self) -> None:
        self._state_cache.clear()
        self._entry_cache.clear()
        self._access_cache.clear()

    def rebuild(self, reason: str) -> None:
        """Throw everything away."""
        self.drop()
        self._database.rebuild(reason)

    def attach(self, cluster_id: str, *, stale_after_ms: int) -> None:
        """Make sure that what is stored may be caught up; what may not is thrown away, and the reason logged.

        A file that failed is opened again here: each generation of the pipeline begins with this.
        """
        database = self._database
        database.mend()
        identity = database.identity
        age_ms = self._now_ms() - int(identity["written_ms"])
        if identity.get("cluster_id", cluster_id) != cluster_id:
            self.rebuild("it was filled from another Kafka cluster")
        elif identity["written_ms"] != "0" and age_ms > stale_after_ms:
            self.rebuild(f"it is {age_ms // 3_600_000} h old, and deletions may have left Kafka since")
        with database.writing() as connection:
            database.remember(connection, {"cluster_id": cluster_id})

    # Reading.

    def _committed_state(self, key: Key) -> RecordState | None:
        cache = self._state_cache
        try:
            return cache[key]
        except KeyError:
            pass
        value = self._value(tables.GET_STATE, key)
        state = None if value is None else self._codec.decode_state(key[1], value)
        cache.put(key, state, _size(value))
        return state

    def _committed_entry(self, key: Key) -> LedgerEntry | None:
        cache = self._entry_cache
        try:
            return cache[key]
        except KeyError:
            pass
        value = self._value(tables.GET_LEDGER, key)
        entry = None if value is None else self._codec.decode_ledger(key[1], value)
        cache.put(key, entry, _size(value))
        return entry

    def _committed_access(self, key: Key) -> AccessState | None:
        cache = self._access_cache
        try:
            return cache[key]
        except KeyError:
            pass
        value = self._value(tables.GET_ACCESS, key)
        access = None if value is None else self._codec.decode_access(key[1], value)
        cache.put(key, access, _size(value))
        return access

    def expect(self, keys: Iterable[Key]) -> None:
        """Read what is not in memory of these records, many at a time: a read of its own costs as much as ten rows."""
        wanted: dict[str, list[str]] = {}
        for key in dict.fromkeys(keys):
            if not (self._holds(key) or (key in self._state_cache and key in self._entry_cache)):
                wanted.setdefault(key[0], []).append(key[1])
        for entity, ids in wanted.items():
            number = self._database.objects.get(entity)
            for start in range(0, 0 if number is None else len(ids), tables.MANY):
                self._read_many(entity, number or 0, ids[start : start + tables.MANY])

    def _read_many(self, entity: str, number: int, ids: Sequence[str]) -> None:
        rows, values = self._database.rows, (number, orjson.dumps(ids).decode())
        states, entries = dict(rows(tables.GET_STATES, values)), dict(rows(tables.GET_LEDGERS, values))
        decode_state, decode_ledger = self._codec.decode_state, self._codec.decode_ledger
        for each in ids:
            key, value, entry = (entity, each), states.get(each), entries.get(each)
            if key not in self._state_cache:
                self._state_cache.put(key, None if value is None else decode_state(each, value), _size(value))
            if key not in self._entry_cache:
                self._entry_cache.put(key, None if entry is None else decode_ledger(each, entry), _size(entry))

    def _value(self, statement: str, key: Key) -> bytes | None:
        number = self._database.objects.get(key[0])
        if number is None:
            return None
        found = self._database.rows(statement, (number, key[1]))
        return found[0][0] if found else None

    def _ids(self, statement: str, entity: str, *values: object) -> list[str]:
        number = self._database.objects.get(entity)
        if number is None:
            return []
        return [row[0] for row in self._database.rows(statement, (number, *values))]

    def due_refreshes(self, entity: str, now_ms: int, limit: int) -> Sequence[Key]:
        """Return records whose refresh is due, longest due first; committed ones only."""
        return [(entity, each) for each in self._ids(tables.DUE, entity, now_ms, limit)]

    def unsettled(self, entity: str, limit: int) -> Sequence[Key]:
        """Return records whose ledger entry has facts or feed items, least recently written first; committed ones."""
        return [(entity, each) for each in self._ids(tables.UNSETTLED, entity, limit)]

    def due_shares(self, entity: str, now_ms: int, limit: int) -> Sequence[Key]:
        """Return records whose share rows are to be read, longest due first; committed ones only."""
        return [(entity, each) for each in self._ids(tables.SHARES_DUE, entity, now_ms, limit)]

    def expired(self, entity: str, deleted_before_ms: int, limit: int) -> Sequence[str]:
        """Return ids of records found gone before a time, whose state is still kept."""
        return self._ids(tables.EXPIRED, entity, deleted_before_ms, limit)

    def entities(self) -> Sequence[str]:
        """Return the objects that have states."""
        return [row[0] for row in self._database.rows(tables.ENTITIES)]

    def records(self, entity: str) -> int:
        """Return how many states of an object are kept, deleted ones included."""
        found = self._database.rows(tables.RECORDS, (entity,))
        return found[0][0] if found else 0

    def offsets(self) -> Offsets:
        """Return how far each mirrored partition is stored."""
        return {(topic, number): offset for topic, number, offset in self._database.rows(tables.OFFSETS)}

    # Scans.

    def see(self, entity: str, record_ids: Iterable[str], job_id: str) -> None:
        """Remember locally that a scan saw these records; the latest few scans of an object are remembered."""
        database = self._database
        with database.writing() as connection:
            number = database.number(connection, entity)
            connection.execute(tables.ADD_JOB, (number, job_id))
            job = self._job(number, job_id)
            connection.executemany(tables.SEE, [(job, each) for each in record_ids])
            # Bit by bit: a million rows at once would hold up the events.
            for (old,) in connection.execute(tables.OLD_JOBS, (number, _JOBS_KEPT)).fetchall():
                if connection.execute(tables.FORGET_SEEN, (old, _FORGET_ROWS)).rowcount < _FORGET_ROWS:
                    connection.execute(tables.FORGET_JOB, (old,))

    def unseen(self, entity: str, job_id: str, after_id: str, limit: int) -> Sequence[str]:
        """Return ids, in text order after ``after_id``, of live records that the scan did not see."""
        number = self._database.objects.get(entity)
        if number is None:
            return []
        values = {"object": number, "after": after_id, "job": self._job(number, job_id), "limit": limit}
        return [row[0] for row in self._database.rows(tables.UNSEEN, values)]

    def unseen_access(self, entity: str, job_id: str, after_id: str, limit: int) -> Sequence[str]:
        """Return ids, in text order after ``after_id``, of records with known shares that the scan did not see."""
        number = self._database.objects.get(entity)
        if number is None:
            return []
        values = {"object": number, "after": after_id, "job": self._job(number, job_id), "limit": limit}
        return [row[0] for row in self._database.rows(tables.UNSEEN_ACCESS, values)]

    def _job(self, number: int, job_id: str) -> int:
        found = self._database.rows(tables.JOB, (number, job_id))
        return found[0][0] if found else 0

    # Writing.

    def _write(self, delta: Delta, offsets: Offsets) -> None:
        values = [record.value for record in delta.records]
        count, counted = len(delta.states), len(delta.states) + len(delta.ledger)
        states = list(zip(delta.states.items(), values[:count], strict=True))
        ledger = list(zip(delta.ledger.items(), values[count:counted], strict=True))
        accesses = list(zip(delta.access.items(), values[counted:], strict=True))
        self._store(
            [
                (key, None if state is None else index_of_state(state).deleted_ms, value)
                for (key, state), value in states
            ],
            [(key, None if entry is None else index_of_ledger(entry), value) for (key, entry), value in ledger],
            [(key, value) for (key, _), value in accesses],
            {pair: offset for pair, offset in offsets.items() if mirrored(pair[0])},
            # Whatever was committed so far has an earlier timestamp.
            self._now_ms(),
        )
        for (key, state), value in states:
            self._state_cache.put(key, state, _size(value))
        for (key, entry), value in ledger:
            self._entry_cache.put(key, entry, _size(value))
        for (key, access), value in accesses:
            self._access_cache.put(key, access, _size(value))

    def load(self, piece: Piece, owns: Callable[[str], bool]) -> None:
        """Store what was read from Kafka, in one local transaction.

        Raises:
            ForeignStateError: a value is not one of this service, or a newer version's.
        """
        known = tuple(self._database.objects)
        states: list[_StateRow] = []
        ledger: list[_LedgerRow] = []
        # Only the newest of a key matters; a tombstone does not tell its object, and record ids are unique in an org.
        for record_id, value in dict(piece.states).items():
            if value is None:
                states += [((entity, record_id), None, None) for entity in known]
            else:
                entity, deleted_ms = self._codec.index_state(record_id, value)
                states.append(((entity, record_id), deleted_ms, value))
        for record_id, value in dict(piece.ledger).items():
            if value is None:
                ledger += [((entity, record_id), None, None) for entity in known]
            elif owns((index := self._codec.index_ledger(record_id, value)).entity):
                ledger.append(((index.entity, record_id), index, value))
        accesses: list[_AccessRow] = []
        for record_id, value in dict(piece.access).items():
            entities = known if value is None else (self._codec.index_access(record_id, value),)
            accesses += [((entity, record_id), value) for entity in entities]
        self._store(states, ledger, accesses, piece.offsets, piece.newest_ms)
        for key, *_ in states:
            self._state_cache.forget(key)
        for key, *_ in ledger:
            self._entry_cache.forget(key)
        for key, _ in accesses:
            self._access_cache.forget(key)

    def _store(
        self,
        states: Sequence[_StateRow],
        ledger: Sequence[_LedgerRow],
        accesses: Sequence[_AccessRow],
        offsets: Offsets,
        newest_ms: int,
    ) -> None:
        database = self._database
        with database.writing() as connection:
            self._store_states(connection, states)
            self._store_ledger(connection, ledger)
            if accesses:
                self._store_accesses(connection, accesses)
            connection.executemany(tables.SET_OFFSET, [(*pair, offset) for pair, offset in offsets.items()])
            values = {
                "newest_ms": max(newest_ms, self.newest_ms),
                "written_ms": self._now_ms(),
                "written": self._written,
            }
            database.remember(connection, {name: str(value) for name, value in values.items()})
        database.tidy(len(states) + len(ledger) + len(accesses))

    def _store_states(self, connection: sqlite3.Connection, rows: Iterable[_StateRow]) -> None:
        kept: list[tuple[object, ...]] = []
        gone: list[tuple[object, ...]] = []
        for (entity, record_id), deleted_ms, value in rows:
            number = self._database.number(connection, entity)
            if value is None:
                gone.append((number, record_id))
            else:
                kept.append((number, record_id, deleted_ms, value))
        connection.executemany(tables.SET_STATE, kept)
        connection.executemany(tables.REMOVE_STATE, gone)

    def _store_ledger(self, connection: sqlite3.Connection, rows: Iterable[_LedgerRow]) -> None:
        kept: list[tuple[object, ...]] = []
        gone: list[tuple[object, ...]] = []
        for (entity, record_id), index, value in rows:
            number = self._database.number(connection, entity)
            if value is None or index is None:
                gone.append((number, record_id))
            else:
                self._written += 1
                kept.append((number, record_id, index.due_ms, index.facts, index.shares_due_ms, self._written, value))
        connection.executemany(tables.SET_LEDGER, kept)
        connection.executemany(tables.REMOVE_LEDGER, gone)

    def _store_accesses(self, connection: sqlite3.Connection, rows: Iterable[_AccessRow]) -> None:
        numbered = [((self._database.number(connection, entity), each), value) for (entity, each), value in rows]
        connection.executemany(tables.SET_ACCESS, [(*key, value) for key, value in numbered if value is not None])
        connection.executemany(tables.REMOVE_ACCESS, [key for key, value in numbered if value is None])


def _size(value: bytes | None) -> int:
    return _ENTRY_BYTES if value is None else _ENTRY_BYTES + _DECODED * len(value)
