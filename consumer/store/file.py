"""Where the local store lies on the disk, and who may use it."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from consumer.delivery.headers import CONTRACT
from consumer.errors import StoreError

_MOST_WORKERS = 16
_PAGE_CACHE_KIB = 16 << 10
_BUSY_S = 5.0


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose state a file holds; a file with anything else in one of these is thrown away.

    Attributes:
        service: ``service.name``.
        org_id: 18-character org id.
        channel: the subscription's channel.
        topic_prefix: ``kafka.topic_prefix``.
        channels: all channels of the deployment, which decide whose objects a channel of several carries.
        contract: version of the record shapes.
    """

    service: str
    org_id: str
    channel: str
    topic_prefix: str
    channels: tuple[str, ...]
    contract: int = CONTRACT

    @property
    def file_stem(self) -> str:
        """``<service>.<org id>.<channel>``."""
        channel = re.sub(r"[^A-Za-z0-9._-]", "-", self.channel.rpartition("/")[2])
        return f"{self.service}.{self.org_id}.{channel}"

    def fields(self) -> dict[str, str]:
        """Return the attributes as text, by name."""
        fields = asdict(self) | {"channels": " ".join(sorted(self.channels))}
        return {name: str(value) for name, value in fields.items()}


def store_directory(path: Path | None, environment: Mapping[str, str]) -> Path:
    """Return the directory of the local store.

    Args:
        path: ``state.path``, None when it is not set.
        environment: the process's environment; systemd sets ``STATE_DIRECTORY`` (systemd.exec).
    """
    if path is not None:
        return path.expanduser()
    given = environment.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(given) if given else Path("~/.local/state/session-consumer").expanduser()


class StoreFile:
    """One file of one worker, held until ``release``: a second worker on the machine takes the next name.

    The lock is an exclusive transaction on a file beside it, so it ends with the process, however that ends.

    Args:
        directory: made when it is missing, readable for this user only.
        owner: whose file it is.

    Attributes:
        path: ``<service>.<org id>.<channel>.sqlite3``; with ``.1`` and so on before the suffix for further workers.

    Raises:
        StoreError: the directory can't be written, or too many workers hold files there.
    """

    def __init__(self, directory: Path, owner: Owner) -> None:
        self._directory = directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for number in range(_MOST_WORKERS):
                path = directory / f"{owner.file_stem}{f'.{number}' if number else ''}.sqlite3"
                lock = _locked(path.with_suffix(".lock"))
                if lock is not None:
                    self.path, self._lock = path, lock
                    return
        except (OSError, sqlite3.Error) as error:
            raise self.unusable(error) from error
        raise StoreError(
            f"{_MOST_WORKERS} workers hold the local state of {owner.channel} in {directory}",
            "Give further workers a state.path of their own.",
        )

    def connect(self) -> sqlite3.Connection:
        """Return a connection, in write-ahead mode: readers and checkpoints do not wait for each other.

        Raises:
            sqlite3.Error: it is not a database, or can't be written.
            OSError: it can't be made.
        """
        if not self.path.exists():
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))  # the images are personal data
        connection = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # Not FULL: a commit lost with the machine is caught up from Kafka. Not OFF: that could leave a torn file.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA cache_size = -{_PAGE_CACHE_KIB}")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute("PRAGMA wal_autocheckpoint = 0")  # see Checkpoints
        except BaseException:
            connection.close()
            raise
        return connection

    def remove(self) -> None:
        """Remove the file and what SQLite keeps beside it.

        Raises:
            StoreError: it can't be removed.
        """
        try:
            for suffix in ("-wal", "-shm", ""):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        except OSError as error:
            raise self.unusable(error) from error

    def release(self) -> None:
        """Let another worker have the file."""
        self._lock.close()

    def unusable(self, error: Exception) -> StoreError:
        """Return what a failure to read or write here means."""
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return StoreError(
            f"The local state in {self._directory} can't be read or written: {reason}",
            "Make state.path a directory that this user may write to, on a disk that has room.",
        )


def _locked(path: Path) -> sqlite3.Connection | None:
    """Return the connection that holds the lock, None while somebody else holds it."""
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        connection.close()
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            return None
        raise
    return connection
