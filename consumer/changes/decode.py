"""The fast decoder: one Python function per schema, written and compiled when the schema is first met.

The ``avro`` library is the oracle: for every valid schema and payload the result equals that of its
``DatumReader``. Where the library is lenient this decoder is not: booleans other than 0 and 1, ints beyond 32
bits, enum indexes beyond the writer's symbols and array blocks whose size is a lie are errors.

What bounds the work on hostile bytes:

* each read moves forward, and each item of an array or map is counted against the bytes that are left;
* items that take no bytes (nulls) are counted against :data:`MAX_EMPTY_ITEMS` per payload;
* records nest at most :data:`MAX_DEPTH` deep;
* a length that points behind the end is noticed at the next byte read, or by the final check of the position,
  so a slice can at most copy what is there.

No text of a schema becomes code: names reach the generated source through ``repr``, symbols as constants.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from consumer.changes.logical import logical_converter
from consumer.changes.shapes import (
    NULL,
    ArrayShape,
    EnumShape,
    FieldShape,
    MapShape,
    PrimitiveShape,
    RecordShape,
    Shape,
    UnionShape,
    takes_no_bytes,
    walk,
)
from consumer.events import ChangeHeader, DecodedEvent

MAX_DEPTH = 100
"""How deep containers may nest in a payload; the JSON encoder's own limit is 254."""

MAX_EMPTY_ITEMS = 1_000_000
"""How many items without bytes the arrays of one payload may hold."""

_NULL_RUN = 8
_INT_LIMIT = 0xFFFF_FFFF


class MalformedError(Exception):
    """The bytes contradict the schema; raised inside this room only."""


BROKEN_PAYLOAD = (MalformedError, IndexError, ValueError, ArithmeticError, struct.error, RecursionError)
"""What a decoder function lets out for a payload that is not of its schema."""


@dataclass(frozen=True, slots=True)
class Decoders:
    """The functions compiled for one schema.

    Attributes:
        full: payload to a dict with every field.
        body: payload to header and non-null fields; None when the record has no change event header.
        header: payload to header alone, whatever follows it; None likewise.
    """

    full: Callable[[bytes], dict[str, Any]]
    body: Callable[[bytes], DecodedEvent] | None
    header: Callable[[bytes], ChangeHeader] | None


def build_decoders(record: RecordShape, header_name: str) -> Decoders:
    """Compile the decoder functions of a record.

    Args:
        record: a record that ``compile_schema`` has accepted.
        header_name: name of the field that holds the change event header.
    """
    writer = _Writer(budget=_has_empty_items(record))
    writer.entry("full", record.fields, None)
    header = next((field for field in record.fields if field.name == header_name), None)
    if header is None or not _is_change_header(header):
        functions = writer.compile()
        return Decoders(functions["full"], None, None)
    writer.entry("body", record.fields, header)
    writer.entry("header", record.fields[: header.index + 1], header)
    functions = writer.compile()
    return Decoders(functions["full"], functions["body"], functions["header"])


_TEXT = PrimitiveShape("string")
_HEADER_PARTS = (
    ("entityName", "entity", "text", True),
    ("recordIds", "record_ids", "texts", True),
    ("changeType", "change_type", "symbol", True),
    ("changeOrigin", "change_origin", "text", False),
    ("transactionKey", "transaction_key", "text", False),
    ("sequenceNumber", "sequence_number", "number", False),
    ("commitTimestamp", "commit_ms", "number", True),
    ("commitNumber", "commit_number", "number", False),
    ("commitUser", "commit_user", "text", False),
    ("nulledFields", "nulled_bitmaps", "texts", False),
    ("diffFields", "diff_bitmaps", "texts", False),
    ("changedFields", "changed_bitmaps", "texts", False),
)
"""Name in the schema, name in ChangeHeader, kind, and whether an event means nothing without it."""
_EMPTY = {"text": "''", "texts": "()", "number": "0"}


def _fits(kind: str, shape: Shape) -> bool:
    if kind == "texts":
        return isinstance(shape, ArrayShape) and shape.items == _TEXT
    if kind == "number":
        return shape in (PrimitiveShape("int"), PrimitiveShape("long"))
    return shape == _TEXT or (kind == "symbol" and isinstance(shape, EnumShape))


def _is_change_header(field: FieldShape) -> bool:
    if not isinstance(field.shape, RecordShape):
        return False
    shapes = {part.name: part.shape for part in field.shape.fields}
    return all(_fits(kind, shapes[name]) if name in shapes else not needed for name, _, kind, needed in _HEADER_PARTS)


def _has_empty_items(record: RecordShape) -> bool:
    return any(isinstance(shape, ArrayShape) and takes_no_bytes(shape.items) for shape in walk(record))


def _wide_source() -> str:
    """Return the source of ``wide``: the rest of a number whose first byte, ``raw``, said that more follow.

    It takes the payload, the position and that byte, and returns the raw 64 bits and the new position. Every
    byte but the last carries its continuation bit into the sum; one less of the next byte takes it out again.
    """
    lines = ["def wide(buf, pos, raw):"]
    for byte in range(1, 10):
        lines += [f" b = buf[pos + {byte - 1}]; raw += (b - 1) << {7 * byte}"]
        lines += [f" if b < {128 if byte < 9 else 2}: return raw, pos + {byte}"]
    lines += [" raise Bad('a number is longer than 64 bits')"]
    return "\n".join(lines)


class _Writer:
    """Writes the source of one schema's decoder functions.

    Variables of the generated code: ``buf`` payload, ``n`` its length, ``pos`` next byte, ``b`` last number
    read (raw), ``d`` depth, ``z`` list of one number, the empty items still allowed, ``o`` record being built.
    """

    def __init__(self, *, budget: bool) -> None:
        self._lines: list[str] = [_wide_source()]
        self._names: dict[str, object] = {
            "Bad": MalformedError,
            "FLOAT": struct.Struct("<f").unpack_from,
            "DOUBLE": struct.Struct("<d").unpack_from,
            "RUN": bytes(_NULL_RUN),
            "Header": ChangeHeader,
            "Decoded": DecodedEvent,
        }
        self._budget = f"[{MAX_EMPTY_ITEMS}]" if budget else "None"
        self._outlined: dict[tuple[int, bool], str] = {}
        self._waiting: list[tuple[str, Shape, bool]] = []
        self._counter = 0

    # -- plumbing

    def _put(self, indent: int, *lines: str) -> None:
        self._lines.extend(" " * indent + line for line in lines)

    def _fresh(self, prefix: str) -> str:
        self._counter += 1
        return f"{prefix}{self._counter}"

    def _constant(self, value: object) -> str:
        name = self._fresh("C")
        self._names[name] = value
        return name

    def compile(self) -> dict[str, Callable[..., Any]]:
        """Write the functions that are still owed, compile all, and return them by name."""
        while self._waiting:
            name, shape, compact = self._waiting.pop()
            self._function(name, shape, compact=compact)
        namespace: dict[str, Any] = dict(self._names)
        source = "\n".join(self._lines)
        exec(compile(source, "<decoder>", "exec"), namespace)  # noqa: S102 - our own source, see the module's text
        return namespace

    # -- functions

    def entry(self, name: str, fields: Iterable[FieldShape], header: FieldShape | None) -> None:
        """Write an entry function; with ``header`` it builds a DecodedEvent, or for "header" a ChangeHeader."""
        self._put(0, f"def {name}(buf):")
        self._put(1, "n = len(buf); pos = 0; d = 0", f"z = {self._budget}", "o = {}")
        if header is None:
            self._fields(fields, 1, compact=False)
        else:
            before = [field for field in fields if field.index < header.index]
            after = [field for field in fields if field.index > header.index]
            self._fields(before, 1, compact=True)
            result = self._header(header)
            self._fields(after, 1, compact=True)
        if name == "header":
            self._put(1, "if pos > n: raise Bad('the header is cut off')", f"return {result}")
            return
        self._put(1, "if pos != n: raise Bad('the payload is shorter or longer than its values')")
        self._put(1, "return o" if header is None else f"return Decoded({result}, o)")

    def _header(self, header: FieldShape) -> str:
        record = header.shape
        assert isinstance(record, RecordShape)  # noqa: S101 - checked by _is_change_header; narrows the type
        targets = {}
        for part in record.fields:
            targets[part.name] = self._fresh("h")
            self._value(part.shape, targets[part.name], 1, compact=False)
        arguments = []
        for name, _, kind, _ in _HEADER_PARTS:
            target = targets.get(name, _EMPTY.get(kind, ""))
            arguments.append(f"tuple({target})" if kind == "texts" else target)
        return f"Header({', '.join(arguments)})"

    def _outline(self, shape: Shape, *, compact: bool) -> str:
        """Return the name of a function that reads ``shape``; it will be written once."""
        key = (id(shape), compact)
        if key not in self._outlined:
            self._outlined[key] = self._fresh("f")
            self._waiting.append((self._outlined[key], shape, compact))
        return self._outlined[key]

    def _function(self, name: str, shape: Shape, *, compact: bool) -> None:
        self._put(0, f"def {name}(buf, pos, n, d, z):")
        self._put(1, f"if d > {MAX_DEPTH}: raise Bad('values nest too deep')")
        if isinstance(shape, RecordShape):
            self._put(1, "o = {}")
            self._fields(shape.fields, 1, compact=compact)
            self._put(1, "return o, pos")
        else:
            self._value(shape, "v", 1, compact=compact)
            self._put(1, "return v, pos")

    # -- fields

    def _fields(self, fields: Iterable[FieldShape], indent: int, *, compact: bool) -> None:
        """Read fields into ``o``; when compact, nulls are left out and runs of nulls are skipped at once."""
        run: list[FieldShape] = []
        for field in fields:
            if compact and _null_first(field.shape):
                run.append(field)
                continue
            self._flush(run, indent)
            self._field(field, indent, compact=compact)
        self._flush(run, indent)

    def _flush(self, run: list[FieldShape], indent: int) -> None:
        while len(run) >= _NULL_RUN:
            self._put(indent, f"if buf.startswith(RUN, pos): pos += {_NULL_RUN}", "else:")
            for field in run[:_NULL_RUN]:
                self._field(field, indent + 1, compact=True)
            del run[:_NULL_RUN]
        for field in run:
            self._field(field, indent, compact=True)
        run.clear()

    def _field(self, field: FieldShape, indent: int, *, compact: bool) -> None:
        store = f"o[{field.name!r}] = v"
        shape = field.shape
        if not (compact and isinstance(shape, UnionShape)):
            self._value(shape, "v", indent, compact=compact)
            if not (compact and shape == NULL):
                self._put(indent, store)
            return
        self._put(indent, "b = buf[pos]; pos += 1")
        if _null_first(shape):
            self._put(indent, "if b:")
            indent += 1
        self._put(indent, "if b > 127: b, pos = wide(buf, pos, b)")
        self._branches(shape, indent, compact=True, store=store)

    def _branches(self, shape: UnionShape, indent: int, *, compact: bool, store: str | None) -> None:
        """Choose a union's branch by ``b`` and read it into ``v``; with ``store``, nulls are left out."""
        word = "if"
        order = sorted(enumerate(shape.branches), key=lambda branch: branch[1] == NULL)
        for place, branch in order:
            self._put(indent, f"{word} b == {2 * place}:")
            word = "elif"
            if branch == NULL and store:
                self._put(indent + 1, "pass")
                continue
            self._value(branch, "v", indent + 1, compact=compact)
            if store:
                self._put(indent + 1, store)
        self._put(
            indent,
            "else: raise Bad('a union branch is out of range')" if order else "raise Bad('empty union')",
        )

    # -- values

    def _value(self, shape: Shape, target: str, indent: int, *, compact: bool, nested: bool = False) -> None:
        """Read one value into ``target``."""
        if isinstance(shape, PrimitiveShape):
            self._primitive(shape, target, indent)
        elif isinstance(shape, EnumShape):
            self._enum(shape, target, indent)
        elif isinstance(shape, UnionShape):
            self._put(indent, "b = buf[pos]; pos += 1", "if b > 127: b, pos = wide(buf, pos, b)")
            self._branches(shape, indent, compact=compact, store=None)
            if target != "v":
                self._put(indent, f"{target} = v")
        elif isinstance(shape, RecordShape) or nested:
            function = self._outline(shape, compact=compact)
            self._put(indent, f"{target}, pos = {function}(buf, pos, n, d + 1, z)")
        else:
            self._blocks(shape, target, indent)

    def _number(self, indent: int) -> None:
        self._put(indent, "b = buf[pos]; pos += 1", "if b > 127: b, pos = wide(buf, pos, b)")

    def _primitive(self, shape: PrimitiveShape, target: str, indent: int) -> None:
        kind = shape.name
        if kind == "null":
            self._put(indent, f"{target} = None")
        elif kind == "boolean":
            self._put(indent, "b = buf[pos]; pos += 1", "if b > 1: raise Bad('a boolean is neither 0 nor 1')")
            self._put(indent, f"{target} = b == 1")
        elif kind in {"int", "long"}:
            self._number(indent)
            if kind == "int":
                self._put(indent, f"if b > {_INT_LIMIT}: raise Bad('an int is longer than 32 bits')")
            self._put(indent, f"{target} = (b >> 1) ^ -(b & 1)")
        elif kind in {"float", "double"}:
            self._put(indent, f"{target} = {kind.upper()}(buf, pos)[0]; pos += {4 if kind == 'float' else 8}")
        elif kind == "fixed":
            self._put(indent, f"{target} = buf[pos:pos + {shape.size}]; pos += {shape.size}")
        else:
            self._sized(target, indent, text=kind == "string")
        if shape.logical:
            converter = self._constant(logical_converter(shape))
            self._put(indent, f"{target} = {converter}({target})")

    def _sized(self, target: str, indent: int, *, text: bool) -> None:
        self._number(indent)
        self._put(indent, "if b & 1: raise Bad('a length is negative')", "e = pos + (b >> 1)")
        self._put(indent, f"{target} = buf[pos:e]{'.decode()' if text else ''}; pos = e")

    def _enum(self, shape: EnumShape, target: str, indent: int) -> None:
        self._number(indent)
        self._put(indent, f"if b & 1 or b >= {2 * len(shape.symbols)}: raise Bad('an enum index is out of range')")
        self._put(indent, f"{target} = {self._constant(shape.symbols)}[b >> 1]")

    def _blocks(self, shape: ArrayShape | MapShape, target: str, indent: int) -> None:
        """Read the blocks of an array or a map."""
        items = shape.items if isinstance(shape, ArrayShape) else shape.values
        is_map = isinstance(shape, MapShape)
        got, count, end, item, key = (self._fresh(prefix) for prefix in "aceik")
        self._put(indent, f"{got} = {'{}' if is_map else '[]'}", "b = buf[pos]; pos += 1", "while b:")
        inner = indent + 1
        self._put(inner, "if b > 127:")
        self._put(inner + 1, "b, pos = wide(buf, pos, b)", "if not b: break")
        self._put(inner, f"{count} = b + 1 >> 1; {end} = -1", "if b & 1:")
        self._number(inner + 1)
        self._put(inner + 1, "if b & 1: raise Bad('a block size is negative')", f"{end} = pos + (b >> 1)")
        if not is_map and takes_no_bytes(items):
            self._put(inner, f"z[0] -= {count}", "if z[0] < 0: raise Bad('too many items without bytes')")
        else:
            self._put(inner, f"if {count} > n - pos: raise Bad('more items than bytes')")
        self._put(inner, f"for _ in range({count}):")
        if is_map:
            self._sized(key, inner + 1, text=True)
        self._value(items, item, inner + 1, compact=False, nested=True)
        self._put(inner + 1, f"{got}[{key}] = {item}" if is_map else f"{got}.append({item})")
        self._put(inner, f"if {end} >= 0 and pos != {end}: raise Bad('a block size is a lie')")
        self._put(inner, "b = buf[pos]; pos += 1")
        self._put(indent, f"{target} = {got}")


def _null_first(shape: Shape) -> bool:
    return isinstance(shape, UnionShape) and shape.branches[:1] == (NULL,)
