"""One writer schema as the ``avro`` library reads and writes it: slow, and the judge of every fast path."""

from __future__ import annotations

import io
import struct
import warnings
from typing import Any

import avro.errors
import avro.io
import avro.schema

FAILURES = (
    avro.errors.AvroException,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
"""What the library lets out for values or bytes that are not of the schema; it does not wrap all of it."""


class Oracle:
    """Reads and writes payloads of one writer schema.

    Args:
        schema_json: a schema that ``compile_schema`` has accepted.
    """

    def __init__(self, schema_json: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", avro.errors.AvroWarning)
            schema = avro.schema.parse(schema_json, validate_enum_symbols=False, validate_names=False)
        self._reader: Any = avro.io.DatumReader(schema)
        self._writer: Any = avro.io.DatumWriter(schema)

    def read(self, payload: bytes) -> dict[str, Any]:
        """Decode a payload that our own decoder has accepted; the library is not safe with any other.

        Raises:
            Exception: one of :data:`FAILURES`.
        """
        values: dict[str, Any] = self._reader.read(avro.io.BinaryDecoder(io.BytesIO(payload)))
        return values

    def write(self, values: dict[str, Any]) -> bytes:
        """Encode values as ``read`` returns them.

        Raises:
            Exception: one of :data:`FAILURES`.
        """
        out = io.BytesIO()
        self._writer.write(values, avro.io.BinaryEncoder(out))
        return out.getvalue()
