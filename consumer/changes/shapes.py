"""Our own typed description of a writer schema; decoder, bitmaps and canonical form are built from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class PrimitiveShape:
    """A primitive, or a fixed when ``size`` is set.

    Attributes:
        name: Avro's, such as ``null``, ``long`` or ``fixed``.
        logical: the Avro logical type, empty when none applies; change events use none.
        size: bytes of a fixed.
        precision: digits of a decimal.
        scale: digits of a decimal behind the point.
    """

    name: str
    logical: str = ""
    size: int = 0
    precision: int = 0
    scale: int = 0


@dataclass(frozen=True, slots=True)
class EnumShape:
    """An enum; its values are the symbols' text."""

    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ArrayShape:
    """An array."""

    items: Shape


@dataclass(frozen=True, slots=True, eq=False)
class MapShape:
    """A map with text keys."""

    values: Shape


@dataclass(frozen=True, slots=True, eq=False)
class UnionShape:
    """A union; a value's branch is its position here."""

    branches: tuple[Shape, ...]


@dataclass(eq=False)
class RecordShape:
    """A record; equal only to itself, because records may refer to themselves.

    Attributes:
        name: full name.
        fields: in Avro order; set once, after the record's name is known to its own fields.
    """

    name: str
    fields: tuple[FieldShape, ...] = ()

    @cached_property
    def positions(self) -> dict[str, int]:
        """Avro position of each field by name."""
        return {field.name: field.index for field in self.fields}


Shape: TypeAlias = PrimitiveShape | EnumShape | ArrayShape | MapShape | UnionShape | RecordShape


@dataclass(frozen=True, slots=True)
class FieldShape:
    """One field of a record.

    Attributes:
        name: API name.
        index: position in the Avro record, the number that bitmaps use.
        shape: its type.
        role: first part of Salesforce's ``doc``, such as ``Data`` or ``ForeignKey``; empty without one.
        doc_type: second part, such as ``DateTime``; empty when there is none.
        field_id: third part, the id of a custom field; empty when there is none.
    """

    name: str
    index: int
    shape: Shape
    role: str = ""
    doc_type: str = ""
    field_id: str = ""

    @property
    def branches(self) -> tuple[Shape, ...]:
        """The types a value can have: the branches of a union, else the type itself."""
        return self.shape.branches if isinstance(self.shape, UnionShape) else (self.shape,)

    @property
    def nullable(self) -> bool:
        """Whether the value can be null."""
        return NULL in self.branches

    @property
    def record(self) -> RecordShape | None:
        """The record of a compound field, whichever branch it is; None for a field that is no compound."""
        return next((branch for branch in self.branches if isinstance(branch, RecordShape)), None)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of a compound's parts, empty for a field that is no compound."""
        record = self.record
        return tuple(part.name for part in record.fields) if record else ()


NULL = PrimitiveShape("null")


def children(shape: Shape) -> tuple[Shape, ...]:
    """Return the types a type is directly made of."""
    if isinstance(shape, RecordShape):
        return tuple(field.shape for field in shape.fields)
    if isinstance(shape, UnionShape):
        return shape.branches
    if isinstance(shape, ArrayShape):
        return (shape.items,)
    return (shape.values,) if isinstance(shape, MapShape) else ()


def walk(shape: Shape) -> Iterator[Shape]:
    """Yield every type that ``shape`` is made of, itself first, each once, also when it refers to itself."""
    seen: set[int] = set()
    waiting = [shape]
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting.extend(children(current))


def takes_no_bytes(shape: Shape) -> bool:
    """Return True when every value of ``shape`` is written with zero bytes, so no input bounds their number.

    Only for shapes that :func:`consumer.changes.schema.compile_schema` has accepted: those nest without end
    only behind a union, an array or a map.
    """
    if isinstance(shape, PrimitiveShape):
        return shape == NULL or (shape.name == "fixed" and shape.size == 0)
    return isinstance(shape, RecordShape) and all(takes_no_bytes(field.shape) for field in shape.fields)
