"""What became of an object's fields when its events began to use another writer schema."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import avro.compatibility
import avro.errors
import avro.schema

from consumer.changes.schema import HEADER_FIELD, compile_schema

Compatibility: TypeAlias = Literal["full", "backward", "forward", "none"]
"""Whether a reader with the new schema reads old data (backward), one with the old schema new data (forward)."""


@dataclass(frozen=True, slots=True)
class Retyped:
    """A field whose Avro type is another one now; the types are as :func:`compare` describes them."""

    field: str
    old_type: str
    new_type: str


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """The difference of two writer schemas of one object.

    Attributes:
        entity: object API name.
        added, removed: field names; parts of a compound that stays as ``BillingAddress.City``.
        retyped: fields with another type.
        reordered: whether fields that stayed stand in another order: bitmaps of one schema mean nothing in the other.
        compatible: judged by ``avro``'s compatibility check, over the whole schemas.
    """

    entity: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    retyped: tuple[Retyped, ...]
    reordered: bool
    compatible: Compatibility


def compare(entity: str, old_schema_json: str, new_schema_json: str) -> SchemaChange | None:
    """Return what changed for the object's fields, None when nothing did.

    Documentation, defaults and the change event header are no fields of the object. A type is told in words:
    ``null or string``, ``null or long (timestamp-millis)``, ``array of string``, ``enum of A, B``.

    Args:
        entity: object API name.
        old_schema_json: the writer schema so far, as ``GetSchema`` returned it.
        new_schema_json: the one that events use now.

    Raises:
        SchemaParseError: one of them is not a writer schema.
    """
    for text in (old_schema_json, new_schema_json):
        compile_schema("", text)  # refuses what avro itself would choke on or recurse into
    old, new = _parse(old_schema_json), _parse(new_schema_json)
    old_types, new_types = _types(old), _types(new)
    common = [name for name in new_types if name in old_types]
    retyped = tuple(
        Retyped(name, old_types[name], new_types[name]) for name in common if old_types[name] != new_types[name]
    )
    added = _without_parts([name for name in new_types if name not in old_types])
    removed = _without_parts([name for name in old_types if name not in new_types])
    reordered = common != [name for name in old_types if name in new_types]
    if not (added or removed or retyped or reordered):
        return None
    return SchemaChange(entity, added, removed, retyped, reordered, _compatibility(old, new))


def _parse(schema_json: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", avro.errors.AvroWarning)
        return avro.schema.parse(schema_json, validate_enum_symbols=False, validate_names=False)


def _compatibility(old: Any, new: Any) -> Compatibility:
    backward, forward = _reads(reader=new, writer=old), _reads(reader=old, writer=new)
    if backward:
        return "full" if forward else "backward"
    return "forward" if forward else "none"


def _reads(*, reader: Any, writer: Any) -> bool:
    checker = avro.compatibility.ReaderWriterCompatibilityChecker()
    verdict = checker.get_compatibility(reader, writer).compatibility
    return bool(verdict is avro.compatibility.SchemaCompatibilityType.compatible)


def _types(record: Any) -> dict[str, str]:
    """Return the type of every body field and of every part of a compound, in the schema's order."""
    types: dict[str, str] = {}
    for field in record.fields:
        if field.name == HEADER_FIELD:
            continue
        parts = _parts(field.type)
        types[field.name] = "compound" if parts else _told(field.type)
        for part in parts:
            types[f"{field.name}.{part.name}"] = _told(part.type)
    return types


def _without_parts(names: list[str]) -> tuple[str, ...]:
    """Leave out the parts of compounds that came or went as a whole."""
    return tuple(name for name in names if name.partition(".")[0] not in names or "." not in name)


def _parts(schema: Any) -> list[Any]:
    branches = schema.schemas if schema.type == "union" else [schema]
    return [part for branch in branches if branch.type == "record" for part in branch.fields]


def _told(schema: Any, inside: frozenset[str] = frozenset()) -> str:
    kind: str = schema.type
    if kind == "union":
        return " or ".join(_told(branch, inside) for branch in schema.schemas)
    if kind in {"array", "map"}:
        return f"{kind} of {_told(schema.items if kind == 'array' else schema.values, inside)}"
    if kind == "enum":
        return "enum of " + ", ".join(schema.symbols)
    if kind in {"record", "error"}:
        if schema.fullname in inside:
            return str(schema.fullname)
        inner = inside | {schema.fullname}
        return "record of " + ", ".join(f"{part.name}: {_told(part.type, inner)}" for part in schema.fields)
    if kind == "fixed":
        kind = f"fixed of {schema.size} bytes"
    logical = getattr(schema, "logical_type", None)
    if logical == "decimal":
        logical = f"decimal of {schema.precision} digits, {schema.scale} behind the point"
    return f"{kind} ({logical})" if logical else kind
