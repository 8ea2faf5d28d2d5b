"""Columns of the emulated org's objects: what describe says of each, and how REST and Bulk write its values.

REST writes times as ``…T10:00:00.000+0000`` and compounds as objects; Bulk writes all as text, times with ``Z``,
and has no compounds. Sources: REST API guide, Bulk API 2.0 guide, Object Reference (field properties).
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from consumer.emulator.event_schemas import BodyField

TYPES: Final[Mapping[str, str]] = {
    "Boolean": "boolean",
    "Integer": "int",
    "Double": "double",
    "Currency": "currency",
    "Percent": "percent",
    "DateTime": "datetime",
    "DateOnly": "date",
    "Birthday": "date",
    "TimeOnly": "time",
    "EntityId": "reference",
    "StaticEnum": "picklist",
    "DynamicEnum": "picklist",
    "MultiEnum": "multipicklist",
    "StringPlusClob": "textarea",
    "HtmlStringPlusClob": "textarea",
    "Phone": "phone",
    "Email": "email",
    "Url": "url",
    "Address": "address",
    "Location": "location",
}
"""Describe's type by the ``doc`` type of the event schema; any other is a string."""

_DAY_MS: Final = 86_400_000

COMPOUND: Final = frozenset({"address", "location"})
NUMBERS: Final = frozenset({"int", "double", "currency", "percent"})
IDS: Final = frozenset({"id", "reference"})

_LENGTHS: Final[Mapping[str, int]] = {
    "id": 18,
    "reference": 18,
    "picklist": 255,
    "multipicklist": 4099,
    "textarea": 32_768,
    "phone": 40,
    "email": 80,
    "url": 255,
    "string": 255,
}


def as_stored(value: Any) -> Any:
    """Return a stored value that is a column's own value already."""
    return value


@dataclass(frozen=True, slots=True)
class Column:
    """One field of an object.

    Attributes:
        name: API name.
        type: describe's type.
        source: name of the stored value it is made of.
        part: which part of a stored compound it is, None for the whole.
        filterable: may stand in WHERE.
        sortable: may stand in ORDER BY.
        groupable: as describe says it; there is no GROUP BY here.
        compound: describe's compoundFieldName.
        refers_to: objects a lookup points to.
        relationship: name of the lookup's relationship, None for other fields.
        read: stored value to this column's own value, as events hold it.
    """

    name: str
    type: str
    source: str
    part: str | None = None
    length: int = 0
    nillable: bool = True
    filterable: bool = True
    sortable: bool = True
    groupable: bool = True
    calculated: bool = False
    compound: str | None = None
    refers_to: tuple[str, ...] = ()
    relationship: str | None = None
    read: Callable[[Any], Any] = field(default=as_stored)

    def json(self, value: Any) -> Any:
        """Return a value as a REST answer writes it."""
        if value is None:
            return None
        write = _JSON.get(self.type)
        return value if write is None else write(value)

    @property
    def writer(self) -> Callable[[Any], Any] | None:
        """What makes a non-null stored value what a REST answer writes; None if it is that already."""
        read, write = self.read, _JSON.get(self.type)
        if read is as_stored:
            return write
        return read if write is None else lambda stored: self.json(read(stored))

    def csv(self, value: Any) -> str:
        """Return a value as a Bulk result writes it; null and empty text look alike."""
        if value is None:
            return ""
        write = _CSV.get(self.type)
        return str(value) if write is None else write(value)

    def describe(self) -> dict[str, Any]:
        """Return what a describe says of it."""
        return {
            "name": self.name,
            "label": re.sub(r"(?<=[a-z])(?=[A-Z])", " ", self.name.removesuffix("__c").replace("_", " ")),
            "type": self.type,
            "length": self.length,
            "nillable": self.nillable,
            "filterable": self.filterable,
            "sortable": self.sortable,
            "groupable": self.groupable,
            "calculated": self.calculated,
            "custom": self.name.endswith(("__c", "__s")),
            "compoundFieldName": self.compound,
            "referenceTo": list(self.refers_to),
            "relationshipName": self.relationship,
        }


@lru_cache(maxsize=4096)
def _day(number: int) -> str:
    return (dt.date(1970, 1, 1) + dt.timedelta(days=number)).isoformat()


def _clock(day_ms: int) -> str:
    seconds, millis = divmod(day_ms, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{millis:03d}"


@lru_cache(maxsize=4096)
def rest_datetime(epoch_ms: int) -> str:
    """Return epoch milliseconds as REST writes a dateTime."""
    day, day_ms = divmod(epoch_ms, _DAY_MS)
    return f"{_day(day)}T{_clock(day_ms)}+0000"


def _bulk_datetime(epoch_ms: int) -> str:
    return f"{rest_datetime(epoch_ms)[:-5]}Z"


def _date(epoch_ms: int) -> str:
    return _day(epoch_ms // _DAY_MS)


def _time(day_ms: int) -> str:
    return f"{_clock(day_ms)}Z"


def _java_double(value: Any) -> str:
    number = float(value)
    if abs(number) < 1e7 or not math.isfinite(number):
        return repr(number)
    mantissa, _, exponent = f"{Decimal(repr(number)).normalize():E}".partition("E")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}E{int(exponent)}"


_ADDRESS: Final = (
    "city",
    "country",
    "countryCode",
    "geocodeAccuracy",
    "latitude",
    "longitude",
    "postalCode",
    "state",
    "stateCode",
    "street",
)
_LOCATION: Final = ("latitude", "longitude")


def _compound_json(names: tuple[str, ...]) -> Callable[[Any], Any]:
    def write(value: Any) -> Any:
        parts = {name[0].lower() + name[1:]: item for name, item in value.items()}
        return {name: parts.get(name) for name in names}

    return write


_JSON: Final[Mapping[str, Callable[[Any], Any]]] = {
    "datetime": rest_datetime,
    "date": _date,
    "time": _time,
    "address": _compound_json(_ADDRESS),
    "location": _compound_json(_LOCATION),
    "double": float,
    "currency": float,
    "percent": float,
}
_CSV: Final[Mapping[str, Callable[[Any], str]]] = {
    "datetime": _bulk_datetime,
    "date": _date,
    "time": _time,
    "boolean": lambda value: "true" if value else "false",
    "double": _java_double,
    "currency": _java_double,
    "percent": _java_double,
}


def _part(name: str) -> Callable[[Any], Any]:
    return lambda value: value.get(name) if isinstance(value, Mapping) else None


def _full_name(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return " ".join(value[part] for part in ("FirstName", "LastName") if value.get(part)) or None


_LOOKUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "OwnerId": ("Group", "User"),
    "CreatedById": ("User",),
    "LastModifiedById": ("User",),
    "TargetUserId": ("User",),
    "UserId": ("User",),
    "GroupId": ("Group",),
    "OriginalGroupId": ("Group",),
    "EndUserAccountId": ("Account",),
    "EndUserContactId": ("Contact",),
    "ParentId": ("Account",),
    "PersonContactId": ("Contact",),
    "WorkItemId": ("MessagingSession", "VoiceCall"),
    "BotId": ("BotDefinition",),
}
_REQUIRED: Final = frozenset(
    {
        "CreatedById",
        "CreatedDate",
        "LastModifiedById",
        "LastModifiedDate",
        "MessagingChannelId",
        "MessagingEndUserId",
        "Name",
        "Origin",
        "OwnerId",
        "Status",
    }
)
_BARE: Final = frozenset({"AgentMessageCount", "EndUserMessageCount", "PreviewDetails"})
"""Fields that can't be filtered, sorted or grouped (Object Reference: nillable is their only property)."""


def columns_of(info: BodyField, derived: frozenset[str]) -> list[Column]:
    """Return the columns a field of the event schema is, in REST: a compound is the whole and its parts."""
    name = info.name
    if info.compound in {"Switchable_PersonName", "PersonName"}:
        whole = Column(name, "string", name, None, 255, nillable=False, groupable=False, compound=name, read=_full_name)
        parts = [
            Column(part, "string", name, part, 80, compound=name, groupable=False, read=_part(part))
            for part, _ in info.parts
        ]
        return [whole, *parts]
    kind = TYPES.get(info.doc_type, "reference" if info.doc_type == "EntityId" else "string")
    if kind in COMPOUND:
        whole = Column(name, kind, name, filterable=False, sortable=False, groupable=False)
        return [whole, *(_part_column(name, part, avro) for part, avro in info.parts)]
    bare = name in _BARE
    flexible = kind not in {"textarea", "multipicklist"} and not bare
    return [
        Column(
            name,
            kind,
            name,
            length=_LENGTHS.get(kind, 0),
            nillable=name not in _REQUIRED and kind != "boolean",
            filterable=kind != "textarea" and not bare,
            sortable=flexible,
            groupable=flexible and kind not in {"datetime", "double", "currency", "percent"},
            calculated=name in derived,
            refers_to=_LOOKUPS.get(name, (name.removesuffix("Id"),)) if kind == "reference" else (),
            relationship=_relationship(name) if kind == "reference" else None,
        )
    ]


def _part_column(name: str, part: str, avro_type: str) -> Column:
    api_name = f"{name.removesuffix('__c')}__{part}__s" if name.endswith("__c") else name.removesuffix("Address") + part
    kind = "double" if avro_type == "double" else "string"
    length = 255 if kind == "string" else 0
    return Column(api_name, kind, name, part, length, compound=name, groupable=kind == "string", read=_part(part))


def _relationship(name: str) -> str:
    return name.replace("__c", "__r") if name.endswith("__c") else name.removesuffix("Id")
