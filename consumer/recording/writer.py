"""Writing recordings."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import avro.datafile
import avro.io
import avro.schema

from consumer import __version__
from consumer.errors import RecordingError
from consumer.events import TapItem
from consumer.recording.format import ITEM_SCHEMA_JSON, ORG_ID_META, VERSION, checksum, to_datum

_FLUSH_EVERY = 100
"""Most items per block: what a crash can cost."""

_FLUSH_EVERY_MS = 1000
"""Items received further apart than this are not kept waiting for a block to fill."""


class RecordingWriter:
    """Writes items to one file; use it as a context manager.

    Args:
        path: the file; it must not exist, so that a recording is never overwritten by mistake.
        org_id: 18-character id of the org it is recorded from.

    Raises:
        RecordingError: the file exists or can't be written.
    """

    def __init__(self, path: Path, org_id: str) -> None:
        self._path = path
        try:
            self._file = path.open("xb")
        except FileExistsError as error:
            raise _exists_already(path) from error
        except OSError as error:
            raise RecordingError(f"{path} can't be written: {error.strerror}", "Choose another place.") from error
        schema = avro.schema.parse(ITEM_SCHEMA_JSON)
        self._writer: Any = avro.datafile.DataFileWriter(self._file, avro.io.DatumWriter(), schema, codec="deflate")
        self._writer.set_meta("consumer.recording.version", str(VERSION).encode())
        self._writer.set_meta("consumer.version", __version__.encode())
        self._writer.set_meta(ORG_ID_META, org_id.encode())
        self._check = 0
        self._waiting = 0
        self._flushed_ms: int | None = None
        self.flush()

    def write(self, item: TapItem) -> None:
        """Append one item.

        Raises:
            RecordingError: the disk did not take it.
        """
        datum = to_datum(item)
        self._check = datum["check"] = checksum(datum, self._check)
        try:
            self._writer.append(datum)
        except OSError as error:
            raise self._refused(error) from error
        self._waiting += 1
        if self._flushed_ms is None:
            self._flushed_ms = item.received_ms
        if self._waiting >= _FLUSH_EVERY or item.received_ms - self._flushed_ms >= _FLUSH_EVERY_MS:
            self._flushed_ms = item.received_ms
            self.flush()

    def flush(self) -> None:
        """End the block, so that everything so far can be read.

        Raises:
            RecordingError: the disk did not take it.
        """
        self._waiting = 0
        try:
            self._writer.flush()
        except OSError as error:
            raise self._refused(error) from error

    def close(self) -> None:
        """Finish the file; it can be read from now on whatever happens to this process.

        Raises:
            RecordingError: the disk did not take the rest.
        """
        if self._file.closed:
            return
        try:
            self.flush()
        finally:
            self._file.close()

    def _refused(self, error: OSError) -> RecordingError:
        return RecordingError(f"{self._path} can't be written: {error.strerror}", "Make room on the disk.")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def require_new(path: Path) -> None:
    """Refuse a path that no recording can be written to, before anything else is done.

    Raises:
        RecordingError: the file exists, or its directory doesn't.
    """
    if path.exists():
        raise _exists_already(path)
    if not path.absolute().parent.is_dir():
        raise RecordingError(f"{path} can't be written: there is no such directory", "Choose another place.")


def _exists_already(path: Path) -> RecordingError:
    return RecordingError(f"{path} exists already", "Choose another name; recordings are never overwritten.")
