"""The field policy: what never leaves the room, what leaves only as a keyed hash, and what leaves masked.

It works between normalising and tracking, so that nothing it covers is stored or sent. Names are ``Field``,
``Field.Part``, ``Object:Field`` or ``Object:Field.Part``, spelt as in the event schema.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import orjson

from consumer.errors import ConfigError
from consumer.events import ChangeEvent, Json
from consumer.tracking.values import HistoryRow

MASK = "***"
_SCHEMAS_KEPT = 64

Conceal: TypeAlias = Callable[[Json], Json]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What to do with one entity's events: whole fields, and parts by field."""

    drop: frozenset[str]
    drop_parts: Mapping[str, frozenset[str]]
    conceal: Mapping[str, tuple[Conceal, bool]]
    conceal_parts: Mapping[str, Mapping[str, tuple[Conceal, bool]]]

    def drops(self, name: str) -> bool:
        field, _, part = name.partition(".")
        return field in self.drop or (bool(part) and part in self.drop_parts.get(field, ()))

    def touches(self, name: str) -> bool:
        field, _, part = name.partition(".")
        return self.drops(name) or field in self.conceal or (bool(part) and part in self.conceal_parts.get(field, ()))

    def action(self, name: str) -> Conceal | None:
        """Return what becomes of the values of a field or part, None if they stay."""
        field, _, part = name.partition(".")
        found = self.conceal.get(field) or self.conceal_parts.get(field, {}).get(part)
        return None if found is None else found[0]


class FieldPolicy:
    """Drops, hashes and masks fields of change events, and of rows read beside them.

    Where names overlap, drop wins over mask and mask over hash, and a whole field over its parts. Null stays
    null under hash and mask. A compound that is hashed or masked as a whole keeps its structure: each part is
    treated by itself, because events carry only the parts that changed.

    A concealed field leaves ``diff_fields``. A hashed one leaves ``values`` too in that event, because the
    hash of a diff would pass for the hash of the value; it stays in ``changed_fields``.

    Args:
        drop: names of fields that are removed from everything.
        hash: names of fields whose value becomes the HMAC-SHA-256, in hex, of its canonical JSON bytes.
        mask: names of fields whose value becomes ``***``.
        hash_key: the key of the HMAC; needed when ``hash`` names fields.

    Raises:
        ConfigError: there are fields to hash but no key, or a name is not of one of the four forms.
    """

    def __init__(
        self,
        drop: Iterable[str] = (),
        hash: Iterable[str] = (),  # noqa: A002 - the configuration key's own name
        mask: Iterable[str] = (),
        hash_key: bytes | None = None,
    ) -> None:
        self._rules = {"drop": tuple(drop), "hash": tuple(hash), "mask": tuple(mask)}
        faults = [
            f"fields.{kind}: {name!r} is not a field name"
            for kind, names in self._rules.items()
            for name in names
            if not _well_formed(name)
        ]
        if self._rules["hash"] and not hash_key:
            faults.append("fields.hash needs a key")
        if faults:
            raise ConfigError(faults, "Name fields as Field, Field.Part, Object:Field; set fields.hash_key_file.")
        self._hash_key = hash_key or b""
        self._plans: dict[str, _Plan | None] = {}
        self._schema_fields: dict[int, tuple[tuple[str, ...], _Plan, tuple[str, ...]]] = {}
        self.active = any(self._rules.values())

    def apply(self, change: ChangeEvent) -> ChangeEvent:
        """Return the change with the policy applied; the same object when no rule is about its entity."""
        if not self.active:
            return change
        plan = self._plan_of(change.header.entity)
        if plan is None:
            return change
        return ChangeEvent(
            received=change.received,
            header=change.header,
            change_type=change.change_type,
            record_ids=change.record_ids,
            wildcard_ids=change.wildcard_ids,
            schema_fields=self._kept_schema_fields(change.schema_fields, plan),
            values=_kept_values(change.values, plan, change.diff_fields),
            changed_fields=tuple(name for name in change.changed_fields if not plan.drops(name)),
            nulled_fields=tuple(name for name in change.nulled_fields if not plan.drops(name)),
            diff_fields=tuple(name for name in change.diff_fields if not plan.touches(name)),
        )

    def apply_values(self, entity: str, values: Mapping[str, Json]) -> Mapping[str, Json]:
        """Return a row's canonical values with the policy applied, equal to what :meth:`apply` makes of an event's.

        Args:
            entity: object API name.
            values: by field of the event schema; compounds as objects of their parts.
        """
        plan = self._plan_of(entity) if self.active else None
        return values if plan is None else _kept_values(values, plan)

    def apply_history(self, entity: str, row: HistoryRow, field_of: Callable[[str], str]) -> HistoryRow | None:
        """Return a row of the history object with the policy applied to both values, None for a dropped field.

        A lookup's row of names is treated as the one of ids: a name tells as much.

        Args:
            entity: the tracked object's API name.
            row: values in canonical form.
            field_of: gives the event's field or path (``BillingAddress.City``) of a ``history_field``.
        """
        plan = self._plan_of(entity) if self.active else None
        if plan is None:
            return row
        path = field_of(row.history_field)
        if plan.drops(path):
            return None
        action = plan.action(path)
        if action is None:
            return row
        old, new = (None if value is None else action(value) for value in (row.old, row.new))
        return replace(row, old=old, new=new)

    def _kept_schema_fields(self, fields: tuple[str, ...], plan: _Plan) -> tuple[str, ...]:
        """Return the schema's fields without the dropped ones, one tuple per schema as before."""
        known = self._schema_fields.get(id(fields))
        if known is not None and known[0] is fields and known[1] is plan:
            return known[2]
        if len(self._schema_fields) >= _SCHEMAS_KEPT:
            self._schema_fields.clear()
        kept = tuple(name for name in fields if name not in plan.drop)
        self._schema_fields[id(fields)] = (fields, plan, kept)
        return kept

    def _plan_of(self, entity: str) -> _Plan | None:
        if entity not in self._plans:
            if len(self._plans) >= _SCHEMAS_KEPT * 16:
                self._plans.clear()
            self._plans[entity] = self._make_plan(entity)
        return self._plans[entity]

    def _make_plan(self, entity: str) -> _Plan | None:
        drop, drop_parts = _split(self._rules["drop"], entity)
        conceal: dict[str, tuple[Conceal, bool]] = {}
        conceal_parts: dict[str, dict[str, tuple[Conceal, bool]]] = {}
        for kind, action in (("hash", (self._hash, True)), ("mask", (_mask, False))):
            whole, parts = _split(self._rules[kind], entity)
            conceal.update(dict.fromkeys(whole, action))
            for field, names in parts.items():
                conceal_parts.setdefault(field, {}).update(dict.fromkeys(names, action))
        if not (drop or drop_parts or conceal or conceal_parts):
            return None
        return _Plan(
            frozenset(drop),
            {field: frozenset(names) for field, names in drop_parts.items()},
            conceal,
            conceal_parts,
        )

    def _hash(self, value: Json) -> str:
        return hmac.digest(self._hash_key, orjson.dumps(value, option=orjson.OPT_SORT_KEYS), "sha256").hex()


def _mask(_value: Json) -> str:
    return MASK


def _well_formed(name: str) -> bool:
    entity, colon, path = name.rpartition(":")
    return all(path.split(".")) and path.count(".") <= 1 and ":" not in entity and bool(entity) == bool(colon)


def _split(names: Iterable[str], entity: str) -> tuple[set[str], dict[str, set[str]]]:
    """Return the whole fields, and the parts by field, that rules name for an entity."""
    whole: set[str] = set()
    parts: dict[str, set[str]] = {}
    for name in names:
        rule_entity, _, path = name.rpartition(":")
        if rule_entity not in {"", entity}:
            continue
        field, _, part = path.partition(".")
        if part:
            parts.setdefault(field, set()).add(part)
        else:
            whole.add(field)
    return whole, parts


def _kept_values(values: Mapping[str, Json], plan: _Plan, diff_fields: Collection[str] = ()) -> dict[str, Json]:
    kept: dict[str, Json] = {}
    for name, value in values.items():
        if name in plan.drop:
            continue
        action = plan.conceal.get(name)
        if action is not None and action[1] and name in diff_fields:
            continue
        if isinstance(value, dict):
            parts = _kept_parts(name, value, plan)
            if parts or not value:
                kept[name] = parts
        else:
            kept[name] = value if action is None or value is None else action[0](value)
    return kept


def _kept_parts(name: str, value: Mapping[str, Json], plan: _Plan) -> dict[str, Json]:
    dropped = plan.drop_parts.get(name, frozenset())
    whole = plan.conceal.get(name)
    by_part = plan.conceal_parts.get(name, {})
    kept: dict[str, Json] = {}
    for part, item in value.items():
        if part in dropped:
            continue
        action = whole or by_part.get(part)
        kept[part] = item if action is None or item is None else action[0](item)
    return kept
