"""Reading recordings, whole or broken."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import avro.datafile
import avro.errors
import avro.io

from consumer.errors import RecordingError
from consumer.events import TapItem
from consumer.recording.format import ITEM_SCHEMA, ORG_ID_META, checksum, from_datum

_MAGIC = b"Obj\x01"
_MOST_BLOCK_BYTES = 256 << 20
"""A block has at most a hundred items of about 1 MB; more comes out of a hostile file."""

_MOST_TRAILER_BYTES = 4
_RECORD_AGAIN = "Copy it again from where it was written, or record again."
_FROM_RECORD = "Give a file that `session-consumer record` wrote."

_BROKEN = (
    avro.errors.AvroException,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
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
            raise self._unreadable(error) from error
        try:
            self._reader = self._open()
        except OSError as error:
            self._file.close()
            raise self._unreadable(error) from error
        except RecordingError:
            self._file.close()
            raise
        self.org_id: str = (self._reader.get_meta(ORG_ID_META) or b"").decode("utf-8", "replace")

    def close(self) -> None:
        """Let go of the file; iterating to the end does it too."""
        self._file.close()

    def _unreadable(self, error: OSError) -> RecordingError:
        return RecordingError(f"{self._path} can't be read: {error.strerror}", "Check the path.")

    def _open(self) -> Any:
        magic = self._file.read(len(_MAGIC))
        if not magic:
            raise RecordingError(f"{self._path} is empty, so it is not a recording", _FROM_RECORD)
        if magic != _MAGIC:
            raise RecordingError(f"{self._path} is not a recording", _FROM_RECORD)
        self._file.seek(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", avro.errors.AvroWarning)
                reader: Any = avro.datafile.DataFileReader(self._file, avro.io.DatumReader())
            schema = json.loads(reader.schema)
        except _BROKEN as error:
            raise RecordingError(f"The head of {self._path} is damaged", _RECORD_AGAIN) from error
        if not isinstance(schema, dict) or schema.get("name") != ITEM_SCHEMA["name"]:
            raise RecordingError(f"{self._path} is an Avro file, but not a recording", _FROM_RECORD)
        return reader

    def __iter__(self) -> Iterator[TapItem]:
        count = check = 0
        with self._file:
            data = self._data()
            while True:
                try:
                    datum = next(data, None)
                    if datum is None:
                        return
                    check = checksum(datum, check)
                    intact = datum["check"] == check
                    item = from_datum(datum)
                except OSError as error:
                    raise self._unreadable(error) from error
                except (*_BROKEN, RecordingError) as error:
                    raise self._damaged(count) from error
                if not intact:
                    raise self._damaged(count)
                yield item
                count += 1

    def _data(self) -> Iterator[dict[str, Any]]:
        """Yield the data of all blocks.

        The blocks are taken apart here and not by the library, which lets pass a wrong count or length, a missing
        marker, and bytes behind the end of the compressed data.
        """
        reader, file = self._reader, self._file
        unpack = _UNPACK[reader.codec]
        raw = avro.io.BinaryDecoder(file)
        while file.tell() < reader.file_length:
            count, length = raw.read_long(), raw.read_long()
            block = io.BytesIO(unpack(raw.read(length)))
            _require(count > 0 and file.read(len(reader.sync_marker)) == reader.sync_marker)
            decoder = avro.io.BinaryDecoder(block)
            for _ in range(count):
                yield reader.datum_reader.read(decoder)
            _require(not block.read(1))

    def _damaged(self, count: int) -> RecordingError:
        before = {0: "no item", 1: "one item"}.get(count, f"{count} items")
        return RecordingError(f"{self._path} is damaged: {before} could be read before the damage", _RECORD_AGAIN)


def _require(fact: bool) -> None:  # noqa: FBT001 - a fact, not an option
    if not fact:
        message = "the blocks are not as they were written"
        raise ValueError(message)


def _inflated(data: bytes) -> bytes:
    """Return the content of a deflated block, whole and with nothing behind it."""
    inflater = zlib.decompressobj(-15)
    content = inflater.decompress(data, _MOST_BLOCK_BYTES)
    # The library leaves three bytes of zlib's own checksum behind the deflated data.
    _require(inflater.eof and len(inflater.unused_data) <= _MOST_TRAILER_BYTES)
    return content


_UNPACK: dict[str, Callable[[bytes], bytes]] = {"deflate": _inflated, "null": bytes}
"""The two codecs that every Avro tool has; we write the first."""
