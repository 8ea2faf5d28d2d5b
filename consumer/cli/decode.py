"""``decode``: one raw payload to JSON, with its schema."""

from __future__ import annotations

import argparse
import base64
import binascii
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from consumer.changes.schema import HEADER_FIELD, EventSchema, compile_schema
from consumer.cli.common import Subparsers, write_json
from consumer.errors import UsageError

NAME = "decode"

_MAX_PAYLOAD = 16 << 20
"""Events hold at most 1 MB (Pub/Sub API guide "Allocations"); what is larger is the wrong file."""


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        NAME,
        help="decode one raw payload with its schema",
        description=(
            "Decode one raw Avro payload with its writer schema and print one JSON object: the header as written,\n"
            "the non-null fields with their raw Avro values, and the names behind the header's bitmaps."
        ),
        epilog=(
            "examples:\n"
            "  session-consumer decode --schema Account.avsc payload.bin\n"
            "  session-consumer decode --schema Account.avsc --base64 gPCGws7uZYb...\n"
            "  cat payload.bin | session-consumer decode --schema Account.avsc -"
        ),
    )
    parser.add_argument("--schema", required=True, type=Path, metavar="S.avsc", help="the event's writer schema")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("payload", nargs="?", metavar="PAYLOAD", help="file with the raw bytes, - for standard input")
    source.add_argument("--base64", metavar="TEXT", help="the payload as base64 text")


def run(args: argparse.Namespace) -> int:
    """Decode and print."""
    schema = compile_schema(args.schema.stem, _read_text(args.schema))
    write_json(describe(schema, _payload(args)))
    return 0


def describe(schema: EventSchema, payload: bytes) -> dict[str, Any]:
    """Return what ``decode`` prints.

    Raises:
        PayloadError: the bytes contradict the schema.
        BitmapError: a bitmap of the header contradicts the schema.
    """
    values = schema.decode_full(payload)
    header = values.pop(HEADER_FIELD, None)
    bitmaps = header if isinstance(header, Mapping) else {}

    def names(field: str) -> Sequence[str]:
        return schema.bitmaps.names(tuple(bitmaps.get(field, ())))

    return {
        "name": schema.name,
        "header": printable(header),
        "fields": {name: printable(value) for name, value in values.items() if value is not None},
        "changed_fields": names("changedFields"),
        "nulled_fields": names("nulledFields"),
        "diff_fields": names("diffFields"),
    }


def printable(value: Any) -> Any:
    """Return an Avro value as JSON can show it: bytes as base64, non-finite numbers as text."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {name: printable(part) for name, part in value.items() if part is not None}
    if isinstance(value, list | tuple):
        return [printable(part) for part in value]
    return value if isinstance(value, str | int | float | None) else str(value)


def _payload(args: argparse.Namespace) -> bytes:
    if args.base64 is not None:
        return _from_base64(args.base64)
    if args.payload == "-":
        return sys.stdin.buffer.read(_MAX_PAYLOAD)
    return _read(Path(args.payload))


def _from_base64(text: str) -> bytes:
    """Take base64 as logs and tools print it: wrapped, unpadded or in the URL-safe alphabet."""
    packed = "".join(text.split()).rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UsageError("--base64 is not base64 text", "Copy the whole text") from error


def _read_text(path: Path) -> str:
    try:
        return _read(path).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a schema: it is not UTF-8 text", "Give the Avro schema's JSON.") from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_PAYLOAD)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}", "Check the path.") from error
