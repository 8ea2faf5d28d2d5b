"""Strategies for Avro: change event schemas in Salesforce's style, schemas of any kind, records and payloads.

``payloads`` writes bytes itself instead of through a library, so that it can use what Avro allows and libraries
don't write: several blocks, blocks with sizes, numbers with needless bytes, every branch of a union.
"""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from tests.change_schemas import ADDRESS, HEADER, HEADER_FIELD, LOCATION, PERSON_NAME

PRIMITIVES = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]
INTS = st.integers(-(2**31), 2**31 - 1)
LONGS = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.integers(-70, 70), st.sampled_from([2**53, 2**53 + 1, -(2**63), 2**63 - 1])
)
TEXTS = st.one_of(st.text(max_size=8), st.text("az\u00e9\u20ac\U0001f600", min_size=60, max_size=70))
DOUBLES = st.floats(width=64)

# -- change events in the real style

_SCALARS: dict[str, str] = {
    "Data:Text": "string",
    "Data:StringPlusClob": "string",
    "ForeignKey:EntityId": "string",
    "Data:DynamicEnum:00Nxx0000000001": "string",
    "Data:Boolean": "boolean",
    "Data:Integer": "int",
    "Data:Double:00Nxx0000000002": "double",
    "Data:Currency": "double",
    "Data:DateTime": "long",
    "Data:DateOnly": "long",
    "Data:TimeOnly": "long",
    "Data:Novelty": "long",
}
_COMPOUNDS: dict[str, Any] = {
    "Data:Address": ADDRESS,
    "Data:Location": LOCATION,
    "Data:Switchable_PersonName": PERSON_NAME,
}
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": TEXTS,
    "boolean": st.booleans(),
    "int": INTS,
    "long": LONGS,
    "double": DOUBLES,
}


def _branches(draw: st.DrawFn, doc: str, avro_type: Any) -> list[Any]:
    branches = ["null", avro_type]
    if doc.endswith("Switchable_PersonName"):
        branches = draw(st.sampled_from([["null", "string", avro_type], ["string", avro_type, "null"]]))
    return draw(st.permutations(branches)) if draw(st.integers(0, 5)) == 0 else branches


@st.composite
def change_schemas(draw: st.DrawFn) -> dict[str, Any]:
    """A change event schema: header, then nullable fields; a compound is defined once and then named."""
    defined: set[str] = set()
    fields: list[dict[str, Any]] = []
    for index in range(draw(st.integers(0, 30))):
        doc = draw(st.sampled_from([*_SCALARS, *_COMPOUNDS]))
        avro_type: Any = _SCALARS.get(doc)
        if avro_type is None:
            compound = _COMPOUNDS[doc]
            name = str(compound["name"])
            avro_type = draw(st.sampled_from([name, f"com.sforce.eventbus.{name}"])) if name in defined else compound
            defined.add(name)
        fields.append(
            {"name": f"Field{index}__c", "type": _branches(draw, doc, avro_type), "doc": doc, "default": None}
        )
    header = json.loads(json.dumps(HEADER_FIELD))
    if draw(st.booleans()):
        header["type"]["fields"][2]["type"]["symbols"].pop()
    extra = {"uuid": "x"} if draw(st.booleans()) else {}
    names = {"type": "record", "name": "XChangeEvent", "namespace": "com.sforce.eventbus"}
    return {**extra, **names, "fields": [header, *fields]}


def _part_values(draw: st.DrawFn, compound: Mapping[str, Any]) -> dict[str, Any]:
    return {
        part["name"]: draw(st.none() | _VALUES[part["type"][1]])
        for part in compound["fields"]
        if draw(st.integers(0, 2)) > 0
    }


@st.composite
def change_events(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A change event schema and an event of it, mostly nulls as in an UPDATE."""
    schema = draw(change_schemas())
    event: dict[str, Any] = {"ChangeEventHeader": draw(_headers(schema))}
    share = draw(st.sampled_from([0, 1, 9]))
    for field in schema["fields"][1:]:
        if draw(st.integers(0, 9)) > share:
            event[field["name"]] = None
        elif field["doc"] not in _COMPOUNDS:
            event[field["name"]] = draw(_VALUES[_SCALARS[field["doc"]]])
        elif "string" in field["type"] and draw(st.booleans()):
            event[field["name"]] = draw(TEXTS)
        else:
            event[field["name"]] = _part_values(draw, _COMPOUNDS[field["doc"]])
    return schema, event


@st.composite
def _headers(draw: st.DrawFn, schema: Mapping[str, Any]) -> dict[str, Any]:
    symbols = schema["fields"][0]["type"]["fields"][2]["type"]["symbols"]
    bitmaps = st.lists(st.sampled_from(["0x02", "13-0x03", "0x0920"]), max_size=3)
    return HEADER | {
        "recordIds": draw(st.lists(TEXTS, max_size=3)),
        "changeType": draw(st.sampled_from(symbols)),
        "changeOrigin": draw(TEXTS),
        "sequenceNumber": draw(INTS),
        "commitTimestamp": draw(LONGS),
        "commitNumber": draw(LONGS),
        "nulledFields": draw(bitmaps),
        "changedFields": draw(bitmaps),
    }


# -- schemas of any kind


class _Names:
    """Names given so far in one schema; closed ones can be used where a type is wanted."""

    def __init__(self) -> None:
        self.count = 0
        self.closed: list[str] = []
        self.open_records: list[str] = []

    def fresh(self) -> str:
        self.count += 1
        return f"T{self.count}"


def _any_type(  # noqa: PLR0911 - one return for each kind of type
    draw: st.DrawFn, names: _Names, depth: int, *, union: bool = True, behind: bool = False
) -> Any:
    """Any type; ``behind`` says that a union, array or map stands between it and the records that are open."""
    kinds = ["primitive", "primitive", "enum", "fixed", "name"]
    if depth > 0:
        kinds += ["record", "array", "map"] + (["union"] * 3 if union else [])
    kind = draw(st.sampled_from(kinds))
    if kind == "name":
        known = names.closed + (names.open_records if behind else [])
        if known:
            return draw(st.sampled_from(known))
        kind = "primitive"
    if kind == "primitive":
        name = draw(st.sampled_from(PRIMITIVES))
        return draw(st.sampled_from([name, {"type": name}]))
    if kind == "enum":
        symbols = draw(st.lists(st.sampled_from("ABCDE"), min_size=1, unique=True))
        return _named(names, {"type": "enum", "symbols": symbols})
    if kind == "fixed":
        return _named(names, {"type": "fixed", "size": draw(st.integers(0, 5))})
    if kind == "array":
        return {"type": "array", "items": _any_type(draw, names, depth - 1, behind=True)}
    if kind == "map":
        return {"type": "map", "values": _any_type(draw, names, depth - 1, behind=True)}
    if kind == "union":
        return _union(draw, names, depth)
    return _record(draw, names, depth, behind=behind)


def _named(names: _Names, definition: dict[str, Any]) -> dict[str, Any]:
    name = names.fresh()
    names.closed.append(name)
    return {"name": name, **definition}


def _union(draw: st.DrawFn, names: _Names, depth: int) -> list[Any]:
    branches: list[Any] = []
    seen: set[str] = set()
    # A way out, so that records which hold themselves can end.
    null = "null" if names.open_records else draw(st.sampled_from(["null", ""]))
    seen.add("null")
    for _ in range(draw(st.integers(1, 3))):
        known = list(names.closed)
        branch = _any_type(draw, names, depth - 1, union=False, behind=True)
        kind = branch if isinstance(branch, str) else branch.get("name", branch["type"])
        if kind not in seen:
            seen.add(kind)
            branches.append(branch)
        else:
            names.closed = known  # what a rejected branch defines is not defined
    if null or not branches:
        branches.insert(draw(st.sampled_from([0, len(branches)])), "null")
    return branches


def _record(draw: st.DrawFn, names: _Names, depth: int, *, behind: bool) -> dict[str, Any]:
    name = names.fresh()
    names.open_records.append(name)
    fields = [
        {"name": f"f{index}", "type": _any_type(draw, names, depth - 1)} for index in range(draw(st.integers(0, 4)))
    ]
    names.open_records.remove(name)
    names.closed.append(name)
    return {"type": "record", "name": name, "fields": fields}


@st.composite
def any_schemas(draw: st.DrawFn) -> dict[str, Any]:
    """Any Avro record schema, recursive ones included."""
    names = _Names()
    fields = [
        {"name": f"top{index}", "type": _any_type(draw, names, 3), "doc": draw(st.sampled_from([*_SCALARS, "x"]))}
        for index in range(draw(st.integers(0, 6)))
    ]
    return {"type": "record", "name": "Top", "namespace": "a.b", "fields": fields}


# -- payloads, byte by byte


def varint(value: int, pad: int = 0) -> bytes:
    """A zigzag number with ``pad`` needless bytes, as far as ten bytes allow."""
    raw = (value << 1) ^ (value >> 63)
    out = [raw & 127]
    while raw := raw >> 7:
        out.append(raw & 127)
    out += [0] * min(pad, 10 - len(out))
    return bytes([byte | 128 for byte in out[:-1]] + [out[-1]])


def _definitions(schema: Any, found: dict[str, Any]) -> dict[str, Any]:
    if isinstance(schema, list):
        for branch in schema:
            _definitions(branch, found)
    elif isinstance(schema, dict):
        if "name" in schema:
            found[schema["name"]] = found[f"com.sforce.eventbus.{schema['name']}"] = schema
        for field in schema.get("fields", ()):
            _definitions(field["type"], found)
        _definitions(schema.get("items"), found)
        _definitions(schema.get("values"), found)
    return found


class _Bytes:
    """Writes a random value of a schema; from one seed, because a draw per byte would be too slow."""

    def __init__(self, seed: int, schema: Any) -> None:
        self.random = random.Random(seed)
        self.names = _definitions(schema, {})
        self.room = 60  # containers and branches still allowed, so that recursive schemas end

    def number(self, value: int) -> bytes:
        return varint(value, self.random.choice([0, 0, 0, 0, 0, 0, 1, 9]))

    def value(self, schema: Any) -> bytes:
        if isinstance(schema, str) and schema in self.names:
            schema = self.names[schema]
        if isinstance(schema, list):
            return self.branch(schema)
        kind = schema if isinstance(schema, str) else schema["type"]
        if kind in PRIMITIVES:
            return self.primitive(kind)
        if kind == "enum":
            return self.number(self.random.randrange(len(schema["symbols"])))
        if kind == "fixed":
            return self.random.randbytes(schema["size"])
        if kind == "record":
            return b"".join(self.value(field["type"]) for field in schema["fields"])
        return self.blocks(schema, is_map=kind == "map")

    def branch(self, branches: list[Any]) -> bytes:
        self.room -= 1
        places = list(range(len(branches)))
        if self.room < 0:
            places = [place for place in places if not self.is_record(branches[place])] or places
        place = self.random.choice(places)
        return self.number(place) + self.value(branches[place])

    def is_record(self, schema: Any) -> bool:
        schema = self.names.get(schema, schema) if isinstance(schema, str) else schema
        return isinstance(schema, dict) and schema["type"] == "record"

    def blocks(self, schema: Mapping[str, Any], *, is_map: bool) -> bytes:
        self.room -= 1
        out = b""
        for _ in range(self.random.randrange(3) if self.room > 0 else 0):
            count = self.random.randrange(1, 4)
            items = b""
            for _ in range(count):
                items += self.primitive("string") if is_map else b""
                items += self.value(schema["values" if is_map else "items"])
            sized = self.random.random() < 0.5
            out += self.number(-count) + self.number(len(items)) if sized else self.number(count)
            out += items
        return out + self.number(0)

    def primitive(self, kind: str) -> bytes:
        if kind == "null":
            return b""
        if kind == "boolean":
            return self.random.choice([b"\0", b"\1"])
        if kind in {"int", "long"}:
            bits = self.random.choice([1, 6, 7, 13, 31] if kind == "int" else [1, 6, 7, 31, 53, 62, 63])
            return self.number(self.random.randrange(-(2**bits), 2**bits))
        if kind in {"float", "double"}:
            size = 4 if kind == "float" else 8
            special = struct.pack("<f" if size == 4 else "<d", self.random.choice([0.0, -0.0, 1.5, math.inf, math.nan]))
            return self.random.choice([special, self.random.randbytes(size)])
        if kind == "bytes":
            data = self.random.randbytes(self.random.randrange(6))
        else:
            length = self.random.choice([0, 1, 5, 70])
            data = "".join(self.random.choices("az\u00e9\u20ac\U0001f600", k=length)).encode()
        return self.number(len(data)) + data


def payloads(schema: Mapping[str, Any]) -> st.SearchStrategy[bytes]:
    """The bytes of some value of a schema."""
    return st.integers(0, 2**32).map(lambda seed: _Bytes(seed, schema).value(schema))


@st.composite
def any_payloads(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """Any schema, and the bytes of some value of it; a third are change events."""
    schema = draw(st.one_of(any_schemas(), any_schemas(), change_schemas()))
    return schema, draw(payloads(schema))


@st.composite
def broken_payloads(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """Any schema, and bytes that may well contradict it: cut, grown, changed or random."""
    schema, payload = draw(any_payloads())
    kind = draw(st.sampled_from(["cut", "grown", "changed", "changed", "changed", "random"]))
    if kind == "cut":
        return schema, payload[: draw(st.integers(0, len(payload)))]
    if kind == "grown":
        return schema, payload + draw(st.binary(min_size=1, max_size=20))
    if kind == "random":
        return schema, draw(st.binary(max_size=200))
    changed = bytearray(payload or b"\0")
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(changed) - 1))
        changed[place] = draw(st.sampled_from([0, 1, 2, 3, 127, 128, 254, 255]) | st.integers(0, 255))
    return schema, bytes(changed)
