"""Images: the known fields of a record, how a change or a row moves them, and their one encoding.

A compound in an image is a dict. If all of its parts are known, its null parts are left out, and it is None when
none is left: events and rows then give the same value. If only some are known, its known nulls stay in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

import orjson

from consumer.events import ChangeEvent, Json, json_bytes
from consumer.tracking.text_diff import apply_diff
from consumer.tracking.values import FieldChange, RecordState

MISSING: Final = object()
"""Stands for a field that an image has no value for; None is a known null."""

SINCE_FIELDS: Final = ("Status", "OwnerId")
"""Fields whose time of change is kept in the state."""

NO_HISTORY: Final = frozenset({"LastModifiedDate", "LastModifiedById", "SystemModstamp"})
"""Fields whose changes are no facts of history."""

NONE: Final[frozenset[str]] = frozenset()


def bare_image(record_id: str) -> bytes:
    """Return the canonical JSON of an image that has nothing but the id."""
    return json_bytes({"Id": record_id})


def encode_image(record_id: str, image: Mapping[str, Json], without: frozenset[str] = NONE) -> bytes:
    """Return the canonical JSON of an image: the id, then the fields but those in ``without``."""
    if without:
        image = {name: value for name, value in image.items() if name not in without}
    if not image:
        return bare_image(record_id)
    # The id is put in front of the encoded fields: a new dict of all of them costs more than encoding it.
    fields = memoryview(orjson.dumps(image))[1:]
    return b"".join((b'{"Id":', orjson.dumps(record_id), b",", fields))


def whole(value: Json) -> Json:
    """Return a value all of whose parts are known, in the form images hold it."""
    if type(value) is dict:
        return {part: item for part, item in value.items() if item is not None} or None
    return value


def same(old: Json, new: Json) -> bool:
    """Return whether an image's value and a row's are the same: queries tell an empty text as null."""
    return old == new or (old == "" and new is None)


def differences(name: str, old: Json, new: Json) -> Iterator[FieldChange]:
    """Yield what differs between two known values of a field; compounds part by part."""
    if (type(old) is dict and (new is None or type(new) is dict)) or (old is None and type(new) is dict):
        before, after = old or {}, new or {}
        for part in {**before, **after}:
            if before.get(part) != after.get(part):
                yield FieldChange(f"{name}.{part}", before.get(part), after.get(part))
    else:
        yield FieldChange(name, old, new)


def untold(state: RecordState, fields: tuple[str, ...]) -> tuple[str, ...]:
    """Return what an image does not tell, in schema order; ``Field.*`` stands for some parts of a compound."""
    suspect, incomplete = state.suspect, state.incomplete
    if not suspect and not incomplete:
        return state.unknown
    hidden = suspect.union(state.unknown)
    return tuple(name if name in hidden else f"{name}.*" for name in fields if name in hidden or name in incomplete)


Places: TypeAlias = tuple[frozenset[str], Mapping[str, frozenset[str]], frozenset[str]]


@lru_cache(maxsize=4096)
def changed_places(paths: tuple[str, ...]) -> Places:
    """Return the plain fields of a list of paths, the parts by compound, and the names of both."""
    plain: set[str] = set()
    parts: dict[str, set[str]] = {}
    for path in paths:
        name, _, part = path.partition(".")
        if part:
            parts.setdefault(name, set()).add(part)
        else:
            plain.add(name)
    return frozenset(plain), {name: frozenset(found) for name, found in parts.items()}, frozenset(plain | parts.keys())


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is to be known of the records of an object, as one event schema sees it.

    Attributes:
        fields: body fields of the newest event schema.
        names: the same.
        known_nulls: fields that are null when a CREATE with that event schema is silent about them.
    """

    fields: tuple[str, ...]
    names: frozenset[str]
    known_nulls: frozenset[str] = NONE

    def fits(self, state: RecordState) -> bool:
        """Return whether the state knows of exactly these fields."""
        if state.made_for is self.fields:
            return True
        image, unknown = state.image, state.unknown
        return (
            len(image) + len(unknown) == len(self.fields)
            and image.keys() <= self.names
            and (not unknown or self.names.issuperset(unknown))
        )

    def unknown(self, image: Mapping[str, Json]) -> tuple[str, ...]:
        """Return the fields that an image has no value for, in schema order."""
        if len(image) == len(self.fields):
            return ()
        return tuple([name for name in self.fields if name not in image])


class Draft:
    """An image in the making.

    Args:
        state: what is known of the record, None for nothing.
        plan: what is to be known.
        blind: whether old values can't be told, because a row may have brought the new ones already.

    Attributes:
        image, suspect, incomplete, ahead: as in ``RecordState``.
        facts: what changed.
        doubtful: whether a field became suspect, because its new value could not be told.
        fitted: whether the state knew of exactly the plan's fields.
    """

    __slots__ = ("_blind", "_names", "ahead", "doubtful", "facts", "fitted", "image", "incomplete", "suspect")

    def __init__(self, state: RecordState | None, plan: Plan, *, blind: bool = False) -> None:
        self._names = plan.names
        self._blind = blind
        self.facts: list[FieldChange] = []
        self.doubtful = self.fitted = False
        if state is None:
            self.image: dict[str, Json] = {}
            self.suspect = self.incomplete = self.ahead = NONE
            return
        self.image = dict(state.image)
        self.suspect = state.suspect
        self.incomplete = state.incomplete
        self.ahead = state.ahead
        self.fitted = plan.fits(state)
        if not self.fitted:
            for name in [name for name in self.image if name not in plan.names]:
                del self.image[name]
            self.suspect &= plan.names
            self.incomplete &= plan.names
            self.ahead &= plan.names

    def fill(self, change: ChangeEvent, plan: Plan) -> None:
        """Take in a CREATE or UNDELETE: every field it can tell is known now."""
        values = change.values
        told = {
            name: whole(values[name]) if name in values else None
            for name in plan.fields
            if name in values or name in plan.known_nulls
        }
        if self.image:  # what the event can't tell stays as it was
            kept = {name: value for name, value in self.image.items() if name not in told}
            self.suspect = self.suspect.difference(told)
            self.incomplete = self.incomplete.difference(told)
            self.ahead = self.ahead.difference(told)
            told.update(kept)
        self.image = told

    def update(self, change: ChangeEvent, places: Places) -> None:
        """Take in an UPDATE: what it says changed, and what it tells besides (enrichment)."""
        plain, compounds, _ = places
        diffs = change.diff_fields
        names = self._names
        values = change.values
        for name, value in values.items():
            if name not in names:
                continue
            if name in plain:
                if diffs and name in diffs:
                    self._patch(name, value)
                else:
                    self._set(name, value)
            elif name in compounds and type(value) is dict:
                self._set_parts(name, value, compounds[name], diffs)
            else:
                self._enrich(name, value)
        if not plain <= values.keys():
            for name in plain - values.keys():
                if name in names:  # its value was held back: a hashed diff is not the hash of the value
                    self._lose(name)

    def _set(self, name: str, value: Json) -> None:
        if type(value) is dict:
            value = whole(value)
        if name not in NO_HISTORY:
            old = self.image.get(name, MISSING)
            if old is MISSING or self._blind or name in self.suspect or name in self.incomplete:
                self.facts.append(FieldChange(name, None, value, old_known=False))
            elif old != value:
                if type(value) is dict or type(old) is dict:
                    self.facts += differences(name, old, value)
                else:
                    self.facts.append(FieldChange(name, old, value))
            else:  # it changed, so the value before was another one, which nobody told (or the policy hides both)
                self.facts.append(FieldChange(name, None, value, old_known=False))
        self.image[name] = value
        self._settle(name)
        if self.incomplete:
            self.incomplete -= {name}

    def _settle(self, name: str) -> None:
        if self.suspect:
            self.suspect -= {name}
        if self.ahead:
            self.ahead -= {name}

    def _set_parts(self, name: str, value: Mapping[str, Json], changed: frozenset[str], diffs: tuple[str, ...]) -> None:
        if diffs and any(f"{name}.{part}" in diffs for part in changed):
            self._lose(name)
            return
        old = self.image.get(name, MISSING)
        if name in self.suspect or isinstance(old, str):
            old = MISSING
        partial = old is MISSING or name in self.incomplete
        known: Mapping[str, Json] = old if type(old) is dict else {}
        for part in value:
            if part not in changed:
                continue
            if self._blind or (partial and part not in known):
                self.facts.append(FieldChange(f"{name}.{part}", None, value[part], old_known=False))
            elif known.get(part) != value[part]:
                self.facts.append(FieldChange(f"{name}.{part}", known.get(part), value[part]))
            else:
                self.facts.append(FieldChange(f"{name}.{part}", None, value[part], old_known=False))
        merged = {**known, **value}
        self.image[name] = merged if partial else whole(merged)
        self._settle(name)
        if partial:
            self.incomplete |= {name}

    def _enrich(self, name: str, value: Json) -> None:
        """Take in a value that is no change: it was read when the event was delivered, and may run ahead."""
        old = self.image.get(name, MISSING)
        if type(value) is dict:
            known: Mapping[str, Json] = old if type(old) is dict and name not in self.suspect else {}
            merged = {**known, **value}
            if old is None or (type(old) is dict and name not in self.incomplete | self.suspect):
                value = whole(merged)
            else:
                value = merged
                self.incomplete |= {name}
        if old == value and name not in self.suspect:
            return
        if old is not MISSING:
            self.ahead |= {name}
        self.image[name] = value
        if self.suspect:
            self.suspect -= {name}

    def _patch(self, name: str, diff: Json) -> None:
        old = self.image.get(name, MISSING)
        usable = isinstance(old, str) and isinstance(diff, str) and name not in self.suspect
        new = apply_diff(old, diff) if usable else None
        if new is None:
            self._lose(name)
        else:
            self._set(name, new)

    def _lose(self, name: str) -> None:
        """A field changed to what can't be told: its last value is kept as suspect until it is read."""
        self.doubtful = True
        known = name in self.image and name not in self.suspect and not self._blind
        old = self.image.get(name)
        self.facts.append(FieldChange(name, old if known else None, None, old_known=known, new_known=False))
        if name in self.image:
            self.suspect |= {name}
