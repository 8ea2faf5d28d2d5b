"""Rows of REST and Bulk answers in the same canonical form as events, so that the two can be compared.

Compounds, which events carry as records, come in three shapes (Object Reference, "Compound Fields"):

==================  ==============================  ======================================  =================
event               REST                            Bulk                                    canonical
==================  ==============================  ======================================  =================
Address, Location   one object, ``postalCode``      ``BillingPostalCode``, ``X__City__s``   object of parts
person's ``Name``   ``FirstName``, ``LastName`` …   the same                                object of parts
``Account.Name``    ``Name`` and the parts          the same                                text, or object
==================  ==============================  ======================================  =================

A row shows every part, so the object holds each part the schema has, null ones as None; a compound whose parts
are all null is None as a whole. A part that REST does not have (``Xyz`` of old schemas) is left out: unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from consumer.changes.record_ids import to_18
from consumer.changes.row_values import MISFIT, Read, epoch_ms, from_text, plain_reader
from consumer.changes.schema import EventSchema
from consumer.changes.shapes import NULL, FieldShape
from consumer.errors import RowError
from consumer.events import Json
from consumer.tracking.values import Row

_ADVICE = "Compare the field's type in Setup > Object Manager with the event schema, or hide the field from the user."
_JSON_COMPOUNDS = frozenset({"address", "location"})
_OPAQUE = _JSON_COMPOUNDS | {"base64"}
"""Of a field that events carry as plain text, REST would show an object, or a link to the content."""

_JSON_PARTS = frozenset(
    (
        *("Street", "City", "State", "PostalCode", "Country", "StateCode", "CountryCode"),
        *("Latitude", "Longitude", "GeocodeAccuracy"),
    )
)
"""What REST shows of addresses and locations, each with a small first letter."""

_STAMPS = ("SystemModstamp", "LastModifiedDate")


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """One field of a describe.

    Attributes:
        name: API name.
        type: describe's type, such as ``reference``, ``textarea``, ``multipicklist``.
        length: characters, 0 where it does not apply.
        compound: name of the compound field it is a part of, None if of none.
        filterable: whether it may stand in a WHERE.
        calculated: whether it is a formula; events never carry those (CDC developer guide).
    """

    name: str
    type: str
    length: int = 0
    compound: str | None = None
    filterable: bool = True
    calculated: bool = False


@dataclass(frozen=True, slots=True)
class _Column:
    """How one field of the event schema is read.

    Attributes:
        name: its name there.
        select: what REST is asked for.
        bulk_select: what Bulk is asked for.
        row, csv_row: take the answer's record, return the canonical value; raise KeyError when the answer has not
            what was asked for, one of MISFIT when a value does not fit.
    """

    name: str
    select: tuple[str, ...]
    bulk_select: tuple[str, ...]
    row: Callable[[Mapping[str, Json]], Json]
    csv_row: Callable[[Mapping[str, str]], Json]


class RowPlan:
    """Which fields of an object are read, and how their values become canonical.

    The fields are those of the event schema that the user may see; a compound is asked for by its own name in
    REST and by its parts in Bulk. Fields whose content no row shows (base64, arrays) are left out.

    Args:
        entity: object API name.
        schema: the object's newest event schema.
        fields: its describe.

    Attributes:
        entity: as given.
        fields: names of the event schema's fields that rows have, in schema order; a row of REST or Bulk has all.
        select: field list of a REST query, ``Id``, ``IsDeleted`` and ``SystemModstamp`` included.
        bulk_select: field list of a Bulk query, without compounds.
    """

    def __init__(self, entity: str, schema: EventSchema, fields: Mapping[str, FieldInfo]) -> None:
        self.entity = entity
        found = (_column(shape, fields) for shape in schema.fields if shape.name in fields)
        self._columns = tuple(column for column in found if column is not None)
        self.fields = tuple(column.name for column in self._columns)
        own = system_fields(fields)
        self.select = _unique(own, *(column.select for column in self._columns))
        self.bulk_select = _unique(own, *(column.bulk_select for column in self._columns))

    def row(self, record: Mapping[str, Json]) -> Row:
        """Return one record of a REST answer.

        A key that was not asked for is ignored, and one that is missing is left out.

        Raises:
            RowError: a value is not what describe and schema say.
        """
        values = {}
        for column in self._columns:
            try:
                values[column.name] = column.row(record)
            except KeyError:
                continue
            except MISFIT as error:
                raise misfit(self.entity, column.name) from error
        return row_of(self.entity, record, values, deleted=record.get("IsDeleted") is True)

    def csv_row(self, columns: Mapping[str, str]) -> Row:
        """Return one line of a Bulk answer; empty text is null.

        Raises:
            RowError: as above.
        """
        values = {}
        for column in self._columns:
            try:
                values[column.name] = column.csv_row(columns)
            except KeyError:
                continue
            except MISFIT as error:
                raise misfit(self.entity, column.name) from error
        return row_of(self.entity, columns, values, deleted=columns.get("IsDeleted") == "true")


def system_fields(fields: Mapping[str, FieldInfo]) -> tuple[str, ...]:
    """Return the fields every question asks for: few objects (User) have no ``IsDeleted``."""
    deleted = ("IsDeleted",) if "IsDeleted" in fields else ()
    return ("Id", *deleted, next((name for name in _STAMPS if name in fields), _STAMPS[0]))


def row_of(entity: str, record: Mapping[str, Json], values: Mapping[str, Json], *, deleted: bool) -> Row:
    """Return a row of canonical values with the record's own id and stamp.

    Raises:
        RowError: the record has no id or no SystemModstamp.
    """
    try:
        record_id = to_18(str(record.get("Id")))
    except MISFIT as error:
        raise misfit(entity, "Id") from error
    try:
        stamp = next(text for name in _STAMPS if isinstance(text := record.get(name), str) and text)
        return Row(record_id, values, epoch_ms(stamp), deleted)
    except (StopIteration, ValueError) as error:
        raise misfit(entity, _STAMPS[0]) from error


def misfit(entity: str, field: str) -> RowError:
    """Return the error of a value that does not fit its type; the value is not repeated."""
    return RowError(f"A row's {entity}.{field} does not fit the type its event schema gives it", _ADVICE)


def _unique(*groups: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in groups for name in group))


def _column(shape: FieldShape, fields: Mapping[str, FieldInfo]) -> _Column | None:
    if shape.record is None:
        read = plain_reader(shape)
        return None if read is None or fields[shape.name].type in _OPAQUE else _plain(shape.name, read)
    parts = _part_readers(shape)
    components = _components(shape.name, parts, fields)
    if fields[shape.name].type in _JSON_COMPOUNDS:
        return _json_compound(shape.name, parts, components)
    if any(branch not in {NULL, shape.record} for branch in shape.branches):
        return _switchable(shape, parts, components)
    return _parted(shape.name, parts, components) if components else None


def _plain(name: str, read: Read) -> _Column:
    read_text = from_text(read)

    def row(record: Mapping[str, Json]) -> Json:
        value = record[name]
        return None if value is None else read(value)

    def csv_row(columns: Mapping[str, str]) -> Json:
        text = columns[name]
        return read_text(text) if text else None

    return _Column(name, (name,), (name,), row, csv_row)


def _json_compound(name: str, parts: Mapping[str, Read], components: Mapping[str, str]) -> _Column:
    shown = {part: read for part, read in parts.items() if part in _JSON_PARTS}
    keys = {part: part[0].lower() + part[1:] for part in shown}

    def row(record: Mapping[str, Json]) -> Json:
        value = record[name]
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise TypeError("no compound")
        return _object({part: _maybe(read, value.get(keys[part])) for part, read in shown.items()})

    return _Column(name, (name,), tuple(components.values()), row, _csv_object(shown, components))


def _parted(name: str, parts: Mapping[str, Read], components: Mapping[str, str]) -> _Column:
    shown = {part: parts[part] for part in parts if part in components}

    def row(record: Mapping[str, Json]) -> Json:
        return _object({part: _maybe(read, record[components[part]]) for part, read in shown.items()})

    asked = tuple(components.values())
    return _Column(name, asked, asked, row, _csv_object(shown, components))


def _switchable(shape: FieldShape, parts: Mapping[str, Read], components: Mapping[str, str]) -> _Column | None:
    """Return the column of a name that is text for a business and an object for a person.

    A person always has a last name, and a business has none of the parts.
    """
    read = plain_reader(shape)
    if read is None:
        return None
    text, person = _plain(shape.name, read), _parted(shape.name, parts, components)
    if not components:
        return text

    def row(record: Mapping[str, Json]) -> Json:
        value = person.row(record)
        return text.row(record) if value is None else value

    def csv_row(columns: Mapping[str, str]) -> Json:
        value = person.csv_row(columns)
        return text.csv_row(columns) if value is None else value

    asked = (shape.name, *person.select)
    return _Column(shape.name, asked, asked, row, csv_row)


def _csv_object(parts: Mapping[str, Read], components: Mapping[str, str]) -> Callable[[Mapping[str, str]], Json]:
    """Return the reader of a compound's columns; a part without a column is null, as in REST's object."""
    readers = {part: from_text(read) for part, read in parts.items()}

    def csv_row(columns: Mapping[str, str]) -> Json:
        if not components:
            raise KeyError
        return _object(
            {
                part: _maybe(read, columns[components[part]] or None) if part in components else None
                for part, read in readers.items()
            }
        )

    return csv_row


def _maybe(read: Read, value: Json) -> Json:
    return None if value is None else read(value)


def _object(parts: dict[str, Json]) -> dict[str, Json] | None:
    return None if all(value is None for value in parts.values()) else parts


def _part_readers(shape: FieldShape) -> dict[str, Read]:
    record = shape.record
    readers = {part.name: plain_reader(part) for part in record.fields} if record else {}
    return {name: read for name, read in readers.items() if read is not None}


def _components(name: str, parts: Mapping[str, Read], fields: Mapping[str, FieldInfo]) -> dict[str, str]:
    """Return the field that holds each part: ``BillingPostalCode``, ``Place__Latitude__s``, ``FirstName``."""
    found: dict[str, str] = {}
    for field in fields.values():
        if field.compound == name:
            ending = field.name.removesuffix("__s")
            found.update((part, field.name) for part in parts if ending.endswith(part))
    return {part: found[part] for part in parts if part in found}
