"""Field bitmaps of a change event header: to field names and back (Pub/Sub API fact sheet, section 6).

An element is top-level, ``0x0920``, or nested, ``15-0x0209`` with the position of a compound field in
front. The hex digits are one big-endian number; bit *n*, counted from the least significant, is the field at
position *n*. Parts of a compound are always named one by one, ``Ship__c.Street``, also when every bit of the
compound is set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from consumer.changes.shapes import FieldShape, RecordShape
from consumer.errors import BitmapError

_ELEMENT = re.compile(r"(?:([0-9]{1,6})-)?0[xX]((?:[0-9A-Fa-f]{2})+)")
_CACHED_COMBINATIONS = 1024
_ADVICE = "The event goes to quarantine; its schema and its header do not belong together."


class Bitmaps:
    """The bitmaps of one schema; combinations seen before are answered from a bounded cache.

    Args:
        record: the whole event record.
        header_index: position of the header, which no bitmap may name; None when there is no header.
    """

    def __init__(self, record: RecordShape, header_index: int | None) -> None:
        self._fields = record.fields
        self._positions = record.positions
        self._header_index = header_index
        self._cached = lru_cache(maxsize=_CACHED_COMBINATIONS)(self._decode)

    def names(self, bitmaps: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names that a bitmap list stands for.

        Top-level fields come first in schema order, then parts, by compound and in the compound's order,
        whatever order the list has.

        Raises:
            BitmapError: an element is malformed, is repeated, names the header or a position beyond the
                schema, or names parts of a field that has none.
        """
        return self._cached(bitmaps) if bitmaps else ()

    def cached_combinations(self) -> int:
        """Return how many different lists the cache holds now."""
        return self._cached.cache_info().currsize

    def encode(self, names: Iterable[str]) -> list[str]:
        """Return the bitmap list for names: ``Field``, or ``Field.Part`` for a part of a compound.

        Raises:
            BitmapError: the schema has no such field or part.
        """
        top = 0
        nested: dict[int, int] = {}
        for name in names:
            field_name, _, part_name = name.partition(".")
            field = self._field(self._positions.get(field_name, len(self._fields)))
            if not part_name:
                top |= 1 << field.index
                continue
            positions = field.record.positions if field.record else {}
            if part_name not in positions:
                raise BitmapError("A field has no such part", _ADVICE)
            nested[field.index] = nested.get(field.index, 0) | 1 << positions[part_name]
        head = [_hex(top)] if top else []
        return head + [f"{position}-{_hex(nested[position])}" for position in sorted(nested)]

    def _decode(self, bitmaps: tuple[str, ...]) -> tuple[str, ...]:
        masks: dict[int, int] = {}
        for element in bitmaps:
            match = _ELEMENT.fullmatch(element)
            if match is None:
                raise BitmapError("A field bitmap is malformed", _ADVICE)
            position = -1 if match[1] is None else int(match[1])
            if position in masks:
                raise BitmapError("A field bitmap occurs twice in one list", _ADVICE)
            masks[position] = int(match[2], 16)
        names: list[str] = []
        for position in sorted(masks):
            names.extend(self._names_of(position, masks[position]))
        return tuple(names)

    def _names_of(self, position: int, mask: int) -> list[str]:
        if position < 0:
            return [self._field(bit).name for bit in _set_bits(mask, len(self._fields))]
        field = self._field(position)
        if field.record is None:
            raise BitmapError("A nested field bitmap belongs to a field without parts", _ADVICE)
        parts = field.record.fields
        return [f"{field.name}.{parts[bit].name}" for bit in _set_bits(mask, len(parts))]

    def _field(self, position: int) -> FieldShape:
        if position == self._header_index or position >= len(self._fields):
            raise BitmapError("A field bitmap names the header, or a field that the schema does not have", _ADVICE)
        return self._fields[position]


def _set_bits(mask: int, limit: int) -> list[int]:
    if mask >> limit:
        raise BitmapError("A field bitmap names a field that the schema does not have", _ADVICE)
    return [bit for bit in range(mask.bit_length()) if mask >> bit & 1]


def _hex(mask: int) -> str:
    return "0x" + mask.to_bytes((mask.bit_length() + 7) // 8, "big").hex().upper()
