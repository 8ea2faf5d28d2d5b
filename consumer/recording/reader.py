"""Reading recordings, whole or broken."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import avro.datafile
import avro.errors
import avro.io

from consumer.errors import RecordingError
from consumer.events import TapItem
from consumer.recording.format import ITEM_SCHEMA, ORG_ID_META, from_datum

_MAGIC = b"Obj\x01"

_BROKEN = (
    avro.errors.AvroException,
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What ``avro`` lets out for a damaged file; it does not wrap all of it."""


class Recording:
    """A recording opened for reading; iterate over it once.

    Args:
        path: the file.

    Attributes:
        org_id: 18-character id of the org it was recorded from, empty when the file does not say.

    Raises:
        RecordingError: there is no such file, or it is no recording. While iterating: it is damaged; the items
            before the damage have been yielded by then.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise RecordingError(f"{path} can't be read: {error.strerror}", "Check the path.") from error
        try:
            self._reader = self._open()
        except RecordingError:
            self._file.close()
            raise
        self.org_id: str = (self._reader.get_meta(ORG_ID_META) or b"").decode("utf-8", "replace")

    def _open(self) -> Any:
        if self._file.read(len(_MAGIC)) != _MAGIC:
            raise RecordingError(
                f"{self._path} is not a recording", "Give a file that `session-consumer record` wrote."
            )
        self._file.seek(0)
        try:
            reader: Any = avro.datafile.DataFileReader(self._file, avro.io.DatumReader())
            schema = json.loads(reader.schema)
        except _BROKEN as error:
            raise RecordingError(f"The head of {self._path} is damaged", "Record again.") from error
        if schema.get("name") != ITEM_SCHEMA["name"]:
            raise RecordingError(
                f"{self._path} is an Avro file, but not a recording",
                "Give a file that `session-consumer record` wrote.",
            )
        return reader

    def __iter__(self) -> Iterator[TapItem]:
        count = 0
        with self._file:
            while True:
                try:
                    datum = next(self._reader)
                except StopIteration:
                    return
                except _BROKEN as error:
                    raise RecordingError(
                        f"{self._path} is damaged after {count} items",
                        "What was before the damage has been read; record again.",
                    ) from error
                yield self._item(datum, count)
                count += 1

    def _item(self, datum: dict[str, Any], count: int) -> TapItem:
        try:
            return from_datum(datum)
        except (KeyError, TypeError) as error:
            raise RecordingError(
                f"{self._path} was written by another version: item {count + 1} has other fields", "Record again."
            ) from error
