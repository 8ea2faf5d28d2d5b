"""How internal records are read: JSON objects with a version ``v``; anything else is somebody else's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, TypeVar

import orjson

from consumer.errors import ForeignStateError
from consumer.events import Json

VERSION = 1
"""The ``v`` this version writes, and the newest it reads."""

_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class InternalRecord:
    """One decoded internal record; every getter checks the type.

    Args:
        key: the record's key.
        value: its value.

    Raises:
        ForeignStateError: it is not a JSON object with a version this service knows.
    """

    __slots__ = ("_fields", "_key")

    def __init__(self, key: str, value: bytes) -> None:
        self._key = key
        try:
            fields = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise broken(key, "it is not JSON") from error
        if not isinstance(fields, dict):
            self.refuse("it is not a JSON object")
        self._fields: Mapping[str, Json] = fields
        version = fields.get("v")
        if type(version) is not int or version < 1:
            self.refuse("it has no version")
        if version > VERSION:
            raise ForeignStateError(
                f"the record {key[:80]!r} has version {version}, and this service reads up to {VERSION}",
                "Start the newer version of the service that wrote it, or use another kafka.topic_prefix.",
            )

    def refuse(self, what: str) -> NoReturn:
        """Raise the error for a record that can't be ours."""
        raise broken(self._key, what)

    def text(self, name: str) -> str:
        """Return a text field."""
        value = self._fields.get(name)
        if not isinstance(value, str):
            self.refuse(f"{name} is not text")
        return value

    def optional_text(self, name: str) -> str | None:
        """Return a text field, None when it is null or absent."""
        return None if self._fields.get(name) is None else self.text(name)

    def number(self, name: str) -> int:
        """Return an integer field."""
        value = self._fields.get(name)
        if type(value) is not int:
            self.refuse(f"{name} is not an integer")
        return value

    def optional_number(self, name: str) -> int | None:
        """Return an integer field, None when it is null or absent."""
        return None if self._fields.get(name) is None else self.number(name)

    def flag(self, name: str) -> bool:
        """Return a boolean field, false when it is absent."""
        value = self._fields.get(name, False)
        if not isinstance(value, bool):
            self.refuse(f"{name} is not true or false")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts."""
        value = self._fields.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.refuse(f"{name} is not a list of texts")
        return tuple(value)

    def optional_texts(self, name: str) -> tuple[str, ...] | None:
        """Return a list of texts, None when it is null or absent."""
        return None if self._fields.get(name) is None else self.texts(name)

    def mapping(self, name: str) -> Mapping[str, Json]:
        """Return an object field."""
        value = self._fields.get(name)
        if not isinstance(value, dict):
            self.refuse(f"{name} is not an object")
        return value

    def has(self, name: str) -> bool:
        """Whether a field is there and not null."""
        return self._fields.get(name) is not None

    def objects(self, name: str) -> Sequence[Mapping[str, Json]]:
        """Return a list of objects, empty when it is absent."""
        value = self._fields.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.refuse(f"{name} is not a list of objects")
        return value


_T = TypeVar("_T")


class InternalFields:
    """One object inside of an internal record; every getter checks the type.

    Args:
        record: what it stands in.
        fields: the object.

    Attributes:
        whole: as given.
    """

    __slots__ = ("_fields", "whole")

    def __init__(self, record: InternalRecord, fields: Mapping[str, Json]) -> None:
        self.whole = record
        self._fields = fields

    def text(self, name: str) -> str:
        """Return a text field."""
        return self._checked(name, self._fields.get(name), str)

    def optional_text(self, name: str) -> str | None:
        """Return a text field, None when it is null or absent."""
        return None if self._fields.get(name) is None else self.text(name)

    def number(self, name: str, usual: int | None = None) -> int:
        """Return an integer field, ``usual`` when it is absent."""
        return self._checked(name, self._fields.get(name, usual), int)

    def optional_number(self, name: str) -> int | None:
        """Return an integer field, None when it is null or absent."""
        return None if self._fields.get(name) is None else self.number(name)

    def flag(self, name: str) -> bool:
        """Return a boolean field, false when it is absent."""
        return self._checked(name, self._fields.get(name, False), bool)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts, empty when it is absent."""
        found = self._fields.get(name)
        if found is None and name not in self._fields:
            return ()
        return tuple([self._checked(name, item, str) for item in self._checked(name, found, list)])

    def one_of(self, name: str, known: tuple[str, ...], usual: str | None = None) -> Any:
        """Return a field that has one of some values, ``usual`` when it is absent."""
        value = self._fields.get(name, usual)
        if value not in known:
            self.whole.refuse(f"{name} has a value this service does not write")
        return value

    def has(self, name: str) -> bool:
        """Whether a field is there and not null."""
        return self._fields.get(name) is not None

    def moment(self, name: str) -> int:
        """Return a time that is written as ISO 8601 UTC text, epoch milliseconds."""
        text = self.text(name)
        if not _MOMENT.fullmatch(text):
            self.whole.refuse(f"{name} is not a time in UTC with milliseconds")
        try:
            return (datetime.fromisoformat(text) - _EPOCH) // _MILLISECOND
        except ValueError:
            self.whole.refuse(f"{name} is not a time")

    def interval(self, name: str) -> tuple[int | None, int]:
        """Return a list of two times, the first of which may be null."""
        times = self._checked(name, self._fields.get(name), list)
        if len(times) != 2 or type(times[1]) is not int or not (times[0] is None or type(times[0]) is int):
            self.whole.refuse(f"{name} is not an interval")
        return times[0], times[1]

    def _checked(self, name: str, value: Json, kind: type[_T]) -> _T:
        if type(value) is not kind:
            self.whole.refuse(f"{name} is not of type {kind.__name__}")
        checked: _T = value
        return checked


def broken(key: str, what: str) -> ForeignStateError:
    """Return the error for a record that this service can't have written."""
    return ForeignStateError(
        f"the record {key[:80]!r} is not one of this service: {what}",
        "Make sure that nothing else writes to this topic, and give each deployment its own topic_prefix.",
    )


def key_text(key: bytes) -> str:
    """Return a key as text.

    Raises:
        ForeignStateError: it is not UTF-8.
    """
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise broken(repr(key[:40]), "its key is not text") from error
