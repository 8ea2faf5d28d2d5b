"""The file of one store as a database: opened, judged, written in transactions, begun anew."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog

from consumer.errors import StoreError
from consumer.store import tables
from consumer.store.checkpoints import Checkpoints
from consumer.store.file import Owner, StoreFile

_CHECKPOINT_ROWS = 1_000
"""Rows written between two checkpoints; each is about a page of 4 KiB in the write-ahead log."""

_LOG_BYTES = 128 << 20
"""Size of the write-ahead log above which a commit waits for a checkpoint."""

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})

_log = structlog.get_logger(__name__)


class Database:
    """One file that is ours, in our format, whatever was there before.

    Args:
        file: where it lies, locked.
        owner: whose state it must hold; a file of somebody else is thrown away.
        on_empty: is called whenever an empty database takes the place of another one.

    Attributes:
        identity: whose it is, in which format, and how far it got; as texts by name.
        objects: the number of each object, by API name.

    Raises:
        StoreError: the file can't be written, or its disk is full.
    """

    def __init__(self, file: StoreFile, owner: Owner, on_empty: Callable[[], None]) -> None:
        self._file = file
        self._owner = owner
        self._on_empty = on_empty
        self._connection: sqlite3.Connection | None = None
        self._failure: Exception | None = None
        self._damaged = False
        self.identity: dict[str, str] = {}
        self.objects: dict[str, int] = {}
        self._open()

    def close(self) -> None:
        """Write everything to the file."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._checkpoints.close()
        try:
            connection.close()
        except sqlite3.Error as error:
            _log.warning("store.close_not_clean", reason=str(error))

    def _open(self) -> None:
        if not self._file.path.exists():
            self._begin_anew()
            return
        try:
            self._connect()
            reason = self._unfit()
        except (sqlite3.Error, OSError) as error:
            if not _is_damage(error):
                raise self._file.unusable(error) from error
            reason = f"it is damaged ({error})"
        if reason is not None:
            self.rebuild(reason)

    def _connect(self) -> None:
        self.close()
        self._connection = connection = self._file.connect()
        self._checkpoints = Checkpoints(self._file.path)
        self._failure = None
        self._rows = 0
        self.identity, self.objects = {}, {}
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'identity'").fetchone():
            self.identity = dict(connection.execute("SELECT name, value FROM identity"))
        if self._unfit() is None:
            self.objects = dict(connection.execute("SELECT entity, number FROM objects"))

    def _unfit(self) -> str | None:
        """Return why the file can't be used, None if it can."""
        version = self.identity.get("format", "")
        if version != str(tables.FORMAT):
            newer = version.isdigit() and int(version) > tables.FORMAT
            return "it was written by a newer version" if newer else "it is of another format"
        for name, value in self._owner.fields().items():
            if self.identity.get(name) != value:
                return f"it was written for another value of {name}"
        return None

    def rebuild(self, reason: str) -> None:
        """Throw everything away.

        Raises:
            StoreError: the new file can't be written.
        """
        _log.warning("store.rebuilt", path=str(self._file.path), reason=reason)
        self.close()
        self._file.remove()
        self._begin_anew()

    def _begin_anew(self) -> None:
        identity = self._owner.fields() | {
            "format": str(tables.FORMAT),
            "generation": uuid.uuid4().hex,
            "newest_ms": "0",
            "written": "0",
            "written_ms": "0",
        }
        try:
            self._connect()
            self._must().executescript(f"BEGIN IMMEDIATE; {tables.CREATE}")
            self.remember(self._must(), identity)
            self._must().execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise self._file.unusable(error) from error
        self._damaged = False
        self._on_empty()

    def mend(self) -> None:
        """After a failure: connect again, and begin anew if the file is damaged.

        Raises:
            StoreError: the file still can't be written.
        """
        if self._damaged:
            self.rebuild("it is damaged")
        elif self._failure is not None or self._connection is None or self._checkpoints.failure is not None:
            self.close()
            self._open()

    def _must(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError("The local state is closed", "Nothing to do: it is opened again with the subscription.")
        return self._connection

    def rows(self, statement: str, values: Sequence[object] | dict[str, object] = ()) -> list[tuple[Any, ...]]:
        """Return what a query finds.

        Raises:
            StoreError: the file can't be read.
        """
        try:
            return self._must().execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Hold a transaction: all of it is written, or nothing of it.

        Raises:
            StoreError: the file can't be written.
        """
        connection = self._must()
        if self._checkpoints.failure is not None:
            raise self._failed(self._checkpoints.failure) from self._checkpoints.failure
        objects, identity = dict(self.objects), dict(self.identity)
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except BaseException as error:
            self.objects, self.identity = objects, identity
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise self._failed(error) from error
            raise

    def remember(self, connection: sqlite3.Connection, values: dict[str, str]) -> None:
        """Change the identity, within a transaction."""
        connection.executemany(tables.SET_IDENTITY, list(values.items()))
        self.identity |= values

    def number(self, connection: sqlite3.Connection, entity: str) -> int:
        """Return an object's number, within a transaction; a new one gets the next."""
        number = self.objects.get(entity)
        if number is None:
            number = connection.execute("INSERT INTO objects (entity) VALUES (?)", (entity,)).lastrowid or 0
            self.objects[entity] = number
        return number

    def tidy(self, rows: int) -> None:
        """Have the write-ahead log emptied now and then; it is waited for only when it is far behind.

        Args:
            rows: rows written since the last call.

        Raises:
            StoreError: the file can't be written.
        """
        self._rows += rows
        if self._rows < _CHECKPOINT_ROWS:
            return
        self._rows = 0
        path = self._file.path
        try:
            if path.with_name(path.name + "-wal").stat().st_size > _LOG_BYTES:
                self._must().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            else:
                self._checkpoints.ask()
        except (OSError, sqlite3.Error) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> StoreError:
        """Return what a failure at work means."""
        self._failure = error
        if not _is_damage(error):
            return self._file.unusable(error)
        self._damaged = True
        return StoreError(
            f"The local state {self._file.path} is damaged: {error}",
            "Nothing to do: it is built again from Kafka; look at the disk if it happens again.",
        )


def _is_damage(error: Exception) -> bool:
    # The extended codes of SQLite have the primary one in their lowest byte.
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED
