"""Change events as Avro binary, fast: most of a change event is null, so only what is set is encoded.

The encoder is compiled once per writer schema; ``avro`` and ``fastavro`` read its output in the tests. The
header is written apart from the body, so that equal bodies can be found (merged events) and headers broken.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Final, TypeAlias

from consumer.emulator.event_schemas import CHANGE_TYPES, BodyField, WriterSchema
from consumer.errors import EmulatorError

DIFF_MIN_CHARS: Final = 1_000
"""Shortest text that is sent as a diff (CDC guide, "Send Data Differences for Fields of Updated Records")."""

_Encode: TypeAlias = Callable[[Any], bytes]
_NULL: Final = b"\x00"
_EMPTY: Final = b"\x00"
_DOUBLE: Final = struct.Struct("<d")
_SMALL: Final = tuple(bytes([number << 1]) for number in range(64))


def encode_long(number: int) -> bytes:
    """Return an Avro int or long: zigzag, then seven bits a byte."""
    if 0 <= number < 64:
        return _SMALL[number]
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def encode_string(text: str) -> bytes:
    """Return an Avro string: its length in bytes, then UTF-8."""
    data = text.encode()
    return encode_long(len(data)) + data


def _encode_double(number: float) -> bytes:
    return _DOUBLE.pack(number)


def _encode_boolean(value: object) -> bytes:
    if value is True:
        return b"\x01"
    if value is False:
        return b"\x00"
    raise TypeError(f"{value!r} is no boolean")


_PRIMITIVE: Final[Mapping[str, _Encode]] = {
    "string": encode_string,
    "int": encode_long,
    "long": encode_long,
    "double": _encode_double,
    "boolean": _encode_boolean,
}


@dataclass(slots=True)
class EventHeader:
    """A ``ChangeEventHeader``; the three field lists hold bitmaps.

    ``change_type`` is a symbol of the enum, or a bare index when a broken header is wanted;
    ``commit_timestamp`` is in epoch milliseconds.
    """

    entity: str
    record_ids: tuple[str, ...]
    change_type: str | int
    change_origin: str
    transaction_key: str
    sequence_number: int
    commit_timestamp: int
    commit_number: int
    commit_user: str
    nulled_fields: Sequence[str] = ()
    diff_fields: Sequence[str] = ()
    changed_fields: Sequence[str] = ()


def _strings(items: Sequence[str]) -> bytes:
    if not items:
        return _EMPTY
    return encode_long(len(items)) + b"".join([encode_string(item) for item in items]) + b"\x00"


def encode_header(header: EventHeader) -> bytes:
    """Return the header's Avro binary form."""
    kind = header.change_type
    return b"".join(
        (
            encode_string(header.entity),
            _strings(header.record_ids),
            encode_long(CHANGE_TYPES.index(kind) if isinstance(kind, str) else kind),
            encode_string(header.change_origin),
            encode_string(header.transaction_key),
            encode_long(header.sequence_number),
            encode_long(header.commit_timestamp),
            encode_long(header.commit_number),
            encode_string(header.commit_user),
            _strings(header.nulled_fields),
            _strings(header.diff_fields),
            _strings(header.changed_fields),
        )
    )


class BodyEncoder:
    """Encodes event bodies of one writer schema.

    Args:
        schema: the writer schema.
    """

    def __init__(self, schema: WriterSchema) -> None:
        self.schema = schema
        self._fields = {field.name: (place, _field_encoder(field)) for place, field in enumerate(schema.fields)}
        self._template = [_NULL] * len(schema.fields)
        self.empty = b"".join(self._template)

    def encode(self, values: Mapping[str, Any]) -> bytes:
        """Return the body's Avro binary form; fields that are absent or None are null.

        Args:
            values: field name to plain value, or to a mapping of parts for a compound.

        Raises:
            EmulatorError: the schema has no such field, or the value is of another type.
        """
        out = self._template.copy()
        name = ""
        try:
            for name, value in values.items():
                if value is not None:
                    place, encode = self._fields[name]
                    out[place] = encode(value)
        except (KeyError, TypeError, AttributeError, struct.error) as error:
            raise EmulatorError(
                f"{self.schema.name} can't hold this value of {name}", "Give a value of the field's type"
            ) from error
        return b"".join(out)


def _field_encoder(field: BodyField) -> _Encode:
    if field.compound is None:
        return _nullable(_PRIMITIVE[field.avro_type or "string"])
    compound = _compound_encoder(field, branch=_SMALL[1 if field.avro_type is None else 2])
    if field.avro_type is None:
        return compound
    plain = _nullable(_PRIMITIVE[field.avro_type])
    return lambda value: plain(value) if isinstance(value, str) else compound(value)


def _nullable(encode: _Encode) -> _Encode:
    return lambda value: b"\x02" + encode(value)


def _compound_encoder(field: BodyField, branch: bytes) -> _Encode:
    parts = [(name, _nullable(_PRIMITIVE[kind])) for name, kind in field.parts]
    known = {name for name, _ in field.parts}

    def encode(value: Mapping[str, Any]) -> bytes:
        if not known.issuperset(value):
            raise TypeError(f"{field.name} has parts the schema does not know")
        return branch + b"".join([_NULL if value.get(name) is None else part(value[name]) for name, part in parts])

    return encode


def text_diff(old: str, new: str, context: int = 0) -> str | None:
    """Return the unified diff that an update carries for ``new``, or None when the whole text is sent.

    The rules are the CDC guide's: texts of 1,000 characters and more, at most 25 % of the lines changed, and
    a diff of at most half the value's length. The diff's own lines end in LF, whatever ends the text's.
    """
    if len(old) < DIFF_MIN_CHARS or len(new) < DIFF_MIN_CHARS:
        return None
    newline = "\r\n" if "\r\n" in new else "\n"
    if ("\r\n" in old) != (newline == "\r\n"):
        return None
    if newline == "\r\n" and ("\n" in old.replace(newline, "") or "\n" in new.replace(newline, "")):
        return None  # a lone LF would look like the end of a diff line
    before, after = old.split(newline), new.split(newline)
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    lines = ["--- ", f"+++ {hashlib.sha256(new.encode()).hexdigest()}"]
    touched = 0
    for group in matcher.get_grouped_opcodes(context):
        (_, first_i, _, first_j, _), (_, _, last_i, _, last_j) = group[0], group[-1]
        lines.append(f"@@ -{_span(first_i, last_i)} +{_span(first_j, last_j)} @@")
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                lines.extend(" " + line for line in before[i1:i2])
                continue
            touched += max(i2 - i1, j2 - j1)
            lines.extend("-" + line for line in before[i1:i2])
            lines.extend("+" + line for line in after[j1:j2])
    diff = "\n".join(lines)
    if touched * 4 > max(len(before), len(after)) or len(diff) * 2 > len(new):
        return None
    return diff


def _span(start: int, end: int) -> str:
    """Return ``line,count``; an empty span names the line before it, as unified diffs do."""
    count = end - start
    return f"{start + 1 if count else start},{count}"
