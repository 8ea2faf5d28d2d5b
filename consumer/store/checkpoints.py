"""Moves what was committed from the write-ahead log into the database file, beside the event loop.

A checkpoint waits for the disk, twice, which can take as long as many batches do. It is one statement, during which
Python's lock is free, so it can run in a thread; commits could not, because they need that lock once per row.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from pathlib import Path

_STOP_LIMIT_S = 30.0


class Checkpoints:
    """A thread with a connection of its own.

    Args:
        path: the database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wanted: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.failure: sqlite3.Error | None = None
        self._thread = threading.Thread(target=self._run, name="store-checkpoints", daemon=True)
        self._thread.start()

    def ask(self) -> None:
        """Have a checkpoint made soon; commits go on meanwhile."""
        self._wanted.put("checkpoint")

    def close(self) -> None:
        """End the thread after the checkpoints asked for."""
        self._wanted.put("")
        self._thread.join(_STOP_LIMIT_S)

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        try:
            while self._wanted.get():
                if connection is None:
                    connection = sqlite3.connect(self._path, isolation_level=None)
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            self.failure = error
        finally:
            if connection is not None:
                connection.close()
