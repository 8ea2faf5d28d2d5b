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
from consumer.recording.format import ITEM_SCHEMA_JSON, ORG_ID_META, VERSION, to_datum

_FLUSH_EVERY = 100
"""Items per block: what a crash can cost."""


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
            raise RecordingError(f"{path} exists already", "Choose another name; recordings are kept.") from error
        except OSError as error:
            raise RecordingError(f"{path} can't be written: {error.strerror}", "Choose another place.") from error
        schema = avro.schema.parse(ITEM_SCHEMA_JSON)
        self._writer: Any = avro.datafile.DataFileWriter(
            self._file, avro.io.DatumWriter(), schema, codec="deflate"
        )
        self._writer.set_meta("consumer.recording.version", str(VERSION).encode())
        self._writer.set_meta("consumer.version", __version__.encode())
        self._writer.set_meta(ORG_ID_META, org_id.encode())
        self._since_flush = 0

    def write(self, item: TapItem) -> None:
        """Append one item.

        Raises:
            RecordingError: the disk did not take it.
        """
        try:
            self._writer.append(to_datum(item))
            self._since_flush += 1
            if self._since_flush >= _FLUSH_EVERY:
                self.flush()
        except OSError as error:
            raise RecordingError(
                f"{self._path} can't be written: {error.strerror}", "Make room on the disk."
            ) from error

    def flush(self) -> None:
        """End the block, so that everything so far can be read."""
        self._since_flush = 0
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
