"""The service's decoder against ``fastavro`` and ``avro``, on the same payloads in turn."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import avro.io
import avro.schema
import fastavro

from consumer.changes.schema import compile_schema
from consumer.emulator.org import OrgModel
from consumer.emulator.traffic import Traffic

_EVENTS = 2_000
_ROUNDS = 5
_START_MS = 1_790_000_000_000


@dataclass(frozen=True, slots=True)
class Decoding:
    """Microseconds per payload of one change type, the best of several rounds."""

    change_type: str
    payload_bytes: int
    ours_us: float
    fastavro_us: float
    avro_us: float


def compare() -> list[Decoding]:
    """Decode the same CREATE and UPDATE payloads with all three."""
    org = OrgModel(seed=1)
    made = Traffic(org, 1, companions=False).bulk(3 * _EVENTS, _START_MS)
    schema_id = made[0].schema_id
    schema_json = org.schema_json(schema_id)
    assert schema_json is not None
    ours = compile_schema(schema_id, schema_json)
    parsed = fastavro.parse_schema(json.loads(schema_json))
    reader = avro.io.DatumReader(avro.schema.parse(schema_json))
    decoders: dict[str, Callable[[bytes], object]] = {
        "ours": ours.decode,
        "fastavro": lambda payload: fastavro.schemaless_reader(io.BytesIO(payload), parsed, None),
        "avro": lambda payload: reader.read(avro.io.BinaryDecoder(io.BytesIO(payload))),
    }
    found: list[Decoding] = []
    for change_type in ("CREATE", "UPDATE"):
        payloads = [
            event.payload for event in made if event.change_type == change_type and event.schema_id == schema_id
        ][:_EVENTS]
        best = dict.fromkeys(decoders, float("inf"))
        for _ in range(_ROUNDS):
            for name, decode in decoders.items():
                some = payloads[: 200 if name == "avro" else None]
                best[name] = min(best[name], _us_each(decode, some))
        size = sum(map(len, payloads)) // len(payloads)
        found.append(Decoding(change_type, size, best["ours"], best["fastavro"], best["avro"]))
    return found


def _us_each(decode: Callable[[bytes], object], payloads: list[bytes]) -> float:
    began = time.process_time()
    for payload in payloads:
        decode(payload)
    return (time.process_time() - began) / len(payloads) * 1e6
