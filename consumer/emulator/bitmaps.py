"""Field bitmaps of a change event header: names to hex (Pub/Sub API guide, "Event Deserialization").

Written apart from the service's own decoder, so that each is a check on the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TypeAlias

from consumer.emulator.event_schemas import WriterSchema
from consumer.errors import EmulatorError

Paths: TypeAlias = frozenset[tuple[str, str]]
"""Changed places: field name and part name; the part is empty for a plain field."""


@lru_cache(maxsize=65536)
def hex_bits(bits: int) -> str:
    """Return ``0x`` and the bits as an unsigned big-endian number in whole bytes, upper case."""
    return "0x" + bits.to_bytes((bits.bit_length() + 7) // 8, "big").hex().upper()


def encode(schema: WriterSchema, paths: Iterable[tuple[str, str]]) -> list[str]:
    """Return the bitmap strings that name ``paths``: top level first, then compounds by position.

    Raises:
        EmulatorError: the schema has no such field or part.
    """
    top = 0
    nested: dict[int, int] = {}
    for name, part in paths:
        position = schema.index.get(name)
        if position is None:
            raise EmulatorError(f"{schema.entity} has no field {name}", "Name a field of its current schema")
        if not part:
            top |= 1 << position
            continue
        names = [known for known, _ in schema.by_name[name].parts]
        if part not in names:
            raise EmulatorError(f"{schema.entity}.{name} has no part {part}", "Name a part of the compound")
        nested[position] = nested.get(position, 0) | 1 << names.index(part)
    found = [hex_bits(top)] if top else []
    found.extend(f"{position}-{hex_bits(nested[position])}" for position in sorted(nested))
    return found


def decode(schema: WriterSchema, bitmaps: Iterable[str]) -> Paths:
    """Return the places that ``bitmaps`` name; the inverse of :func:`encode`.

    Raises:
        EmulatorError: a bit stands for no field.
    """
    places: set[tuple[str, str]] = set()
    for text in bitmaps:
        position, _, digits = text.rpartition("-")
        names: Mapping[int, str]
        if position:
            field = schema.fields[int(position) - 1]
            names = {place: name for place, (name, _) in enumerate(field.parts)}
        else:
            names = {place: name for name, place in schema.index.items()}
        bits = int(digits, 16)
        for place in range(bits.bit_length()):
            if bits >> place & 1:
                if place not in names:
                    raise EmulatorError(f"Bit {place} of {text} names no field of {schema.name}")
                places.add((field.name, names[place]) if position else (names[place], ""))
    return frozenset(places)
