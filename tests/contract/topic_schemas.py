"""Checks records against ``schemas/``: every record a test reads goes through :func:`validate_record`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from consumer.delivery.headers import iso_utc

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"


class RecordShapeError(AssertionError):
    """A record is not of the shape that ``schemas/`` promises; lists every fault."""

    def __init__(self, kind: str, key: bytes | None, faults: Sequence[str]) -> None:
        super().__init__(f"{kind} record with key {key!r}: " + "; ".join(faults))
        self.faults = tuple(faults)


def kind_of(topic: str) -> str:
    """Return the kind of a topic, by the last part of its name."""
    return topic.rpartition(".")[2]


@cache
def load_schema(name: str) -> Mapping[str, Any]:
    """Return a file of ``schemas/``, checked to be valid JSON Schema itself."""
    schema: Mapping[str, Any] = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return schema


@cache
def _validator(name: str, pointer: str) -> Draft202012Validator:
    schema = load_schema(name)
    if pointer == "#":
        return Draft202012Validator(schema)
    return Draft202012Validator({"$schema": schema["$schema"], "$ref": pointer, "$defs": schema["$defs"]})


def validate_record(
    topic_kind: str,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes]] = (),
) -> Any:
    """Check one record and return its JSON value (None for a tombstone, the bytes for ``quarantine``).

    Args:
        topic_kind: last part of the topic's name, such as ``changes``.
        key: key bytes as read.
        value: value bytes as read.
        headers: Kafka headers as read.

    Raises:
        RecordShapeError: with every fault found.
    """
    schema = load_schema(topic_kind)
    faults: list[str] = []
    pointer = _definition(schema, key, faults)
    # A tombstone says all with its key.
    texts = _check_headers(schema, headers, faults) if value is not None or headers else {}
    parsed: Any = None
    if value is None:
        if schema["x-cleanup"] != "compact":
            faults.append("a tombstone in a topic that is not compacted")
    elif schema.get("x-describes") == "headers":
        parsed = value
        faults += _faults(_validator(topic_kind, "#"), texts, "headers")
    else:
        parsed = _json(value, faults)
        if pointer is not None and not faults:
            faults += _faults(_validator(topic_kind, pointer), parsed, "value")
    if not faults and value is not None and key is not None:
        faults += _CROSS_CHECKS[topic_kind](key.decode(), parsed, texts)
        if texts:
            faults += _check_agreement(topic_kind, schema, key, texts)
    if faults:
        raise RecordShapeError(topic_kind, key, faults)
    return parsed


def _check_headers(
    schema: Mapping[str, Any], headers: Sequence[tuple[str, bytes]], faults: list[str]
) -> Mapping[str, str]:
    if "x-headers" not in schema:
        if headers:
            faults.append("an internal record has headers")
        return {}
    texts = _header_texts(headers, faults)
    faults += _faults(_validator(schema["x-headers"], "#"), texts, "headers")
    return texts


def _check_agreement(kind: str, schema: Mapping[str, Any], key: bytes, texts: Mapping[str, str]) -> list[str]:
    facts = {
        "ce_type is of another topic": texts["ce_type"].endswith(f".{kind}.v{schema['x-version']}"),
        "ce_dataschema is not the schema's $id": texts["ce_dataschema"] == schema["$id"],
        "ce_subject is not the key": texts["ce_subject"] == key.decode(),
    }
    return [fault for fault, holds in facts.items() if not holds]


def _definition(schema: Mapping[str, Any], key: bytes | None, faults: list[str]) -> str | None:
    try:
        text = (key or b"").decode()
    except UnicodeDecodeError:
        text = ""
    for pattern, pointer in schema["x-keys"].items():
        if re.search(pattern, text):
            return str(pointer)
    faults.append("the key has none of the known forms")
    return None


def _header_texts(headers: Sequence[tuple[str, bytes]], faults: list[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for name, raw in headers:
        if name in texts and not name.startswith("event_header:"):
            faults.append(f"header {name} is there twice")
        try:
            texts[name] = raw.decode()
        except UnicodeDecodeError:
            faults.append(f"header {name} is not UTF-8")
    return texts


def _json(value: bytes, faults: list[str]) -> Any:
    try:
        return json.loads(value, object_pairs_hook=_no_repeats, parse_constant=_refuse)
    except ValueError as error:
        faults.append(f"the value is not JSON: {error}")
        return None


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field is there twice")
    return fields


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _faults(validator: Draft202012Validator, instance: Any, where: str) -> list[str]:
    return [
        f"{where}{error.json_path.removeprefix('$')}: {error.message[:200]}"
        for error in validator.iter_errors(instance)
    ]


def _check_change(key: str, value: Mapping[str, Any], texts: Mapping[str, str]) -> list[str]:
    source = value["source"]
    facts = {
        "key is not source.record_id": key == source["record_id"],
        "ce_id is not source.id": texts["ce_id"] == source["id"],
        "db is not org_id": source["db"] == source["org_id"],
        "ce_source does not name org and object": texts["ce_source"]
        == f"//salesforce/{source['org_id']}/{source['table']}",
        "id is not <event_id>:<record_id>": source["event_id"] is None
        or source["id"] == f"{source['event_id']}:{source['record_id']}",
        "an image has another id": all(
            image is None or image["Id"] == key for image in (value["before"], value["after"])
        ),
        "an integer beyond 2^53": not any(map(_has_long, (value["before"], value["after"]))),
        "a field is both known and unknown": not set(source["unknown_fields"]) & set(value["after"] or ()),
    }
    return [fault for fault, holds in facts.items() if not holds]


def _has_long(value: Any) -> bool:
    """Return whether an integer is in there that a reader with doubles would change (a float is one already)."""
    if isinstance(value, dict):
        return any(map(_has_long, value.values()))
    return isinstance(value, int) and abs(value) > 2**53


def _check_coverage(key: str, value: Mapping[str, Any], texts: Mapping[str, str]) -> list[str]:
    facts = {
        "key is not the stream's channel": value["stream"] == f"changes:{key}"
        or value["stream"] in {"history", "sharing", "feed"},
        "ce_id is not id": texts["ce_id"] == value["id"],
        "id does not belong to the window": value["window_id"] is None
        or value["id"] == f"{value['window_id']}:{value['kind'].removeprefix('loss_')}",
        "the span ends before it starts": None in {value["from"], value["to"]} or value["from"] <= value["to"],
    }
    return [fault for fault, holds in facts.items() if not holds]


def _check_quarantine(key: str, value: bytes, texts: Mapping[str, str]) -> list[str]:
    first = texts.get("record_ids", texts["event_id"]).partition(",")[0]
    facts = {
        "key is neither the first record id nor the event id": key == first,
        "a payload although raw is false": texts["raw"] == "true" or value == b"",
        "ce_id is not the event's": texts["ce_id"] == f"{texts['event_id']}:quarantine",
    }
    return [fault for fault, holds in facts.items() if not holds]


def _check_positions(key: str, value: Mapping[str, Any], texts: Mapping[str, str]) -> list[str]:
    named = value.get("channel", value.get("window_id"))
    if key.startswith("progress:"):
        named = f"{value['channel']}:{value['name']}"
    return [] if key == "meta" or key.partition(":")[2] == named else ["key and value name different things"]


def _check_control(key: str, value: Mapping[str, Any], texts: Mapping[str, str]) -> list[str]:
    named = value["retry_id"] if value["command"] == "retry" else value["channel"] or "*"
    return [] if key == f"{value['command']}:{named}" else ["key and command differ"]


def _check_history(key: str, value: Mapping[str, Any], texts: Mapping[str, str]) -> list[str]:
    facts = {
        "key is not record_id": key == value["record_id"],
        "ce_id is not id": texts["ce_id"] == value["id"],
        "id is not <change_id>:<revision>": value["id"] == f"{value['change_id']}:{value['revision']}",
        "ce_time is not changed_at": value["changed_at"] in {None, texts["ce_time"]},
        "an integer beyond 2^53": not _has_long({"old": value["old_value"], "new": value["new_value"]}),
    }
    return [fault for fault, holds in facts.items() if not holds]


def _check_state(key: str, value: Mapping[str, Any], texts: Mapping[str, str]) -> list[str]:
    image = value["image"] or {"Id": key}
    facts = {
        "key is not record_id": key == value["record_id"],
        "the image has another id": image["Id"] == key,
        "a field is both known and unknown": not set(value["unknown_fields"]) & set(image),
        "a field in doubt is not unknown": set(value.get("suspect", ())) <= set(value["unknown_fields"]),
        "an integer beyond 2^53": not _has_long(image),
        "ce_source does not name the object": not texts or texts["ce_source"].endswith(f"/{value['entity']}"),
    }
    return [fault for fault, holds in facts.items() if not holds]


def _check_sharing(key: str, value: Mapping[str, Any], texts: Mapping[str, str]) -> list[str]:
    facts = {
        "key is not record_id": key == value["record_id"],
        "ce_id is not id": texts["ce_id"] == value["id"],
        "ce_time is not not_after": value["not_after"] == texts["ce_time"],
        "the interval ends before it starts": value["not_before"] is None or value["not_before"] <= value["not_after"],
        "it was observed before it happened": value["not_before"] is None
        or value["not_before"] <= value["observed_at"],
    }
    return [fault for fault, holds in facts.items() if not holds]


def _check_access(key: str, value: Mapping[str, Any], texts: Mapping[str, str]) -> list[str]:
    shares = value["shares"]
    identities = {(share["user_or_group_id"], share["row_cause"]) for share in shares}
    facts = {
        "key is not record_id": key == value["record_id"],
        "a share stands there twice": len(identities) == len(shares),
        "as_of and as_of_ms differ": value["as_of"] == iso_utc(value["as_of_ms"]),
        "ce_time is not as_of": value["as_of"] == texts["ce_time"],
        "ce_source does not name the object": texts["ce_source"].endswith(f"/{value['entity']}"),
    }
    return [fault for fault, holds in facts.items() if not holds]


def _check_rule(key: str, value: Mapping[str, Any], texts: Mapping[str, str]) -> list[str]:
    facts = {"key is not rule_id": key == value["rule_id"], "ce_id is not id": texts["ce_id"] == value["id"]}
    return [fault for fault, holds in facts.items() if not holds]


def _check_feed(key: str, value: Mapping[str, Any], texts: Mapping[str, str]) -> list[str]:
    facts = {
        "key is neither record_id nor the item's": key == (value["record_id"] or value["feed_item_id"]),
        "ce_id is not id": texts["ce_id"] == value["id"],
    }
    return [fault for fault, holds in facts.items() if not holds]


_CROSS_CHECKS: Mapping[str, Callable[[str, Any, Mapping[str, str]], list[str]]] = {
    "changes": _check_change,
    "coverage": _check_coverage,
    "quarantine": _check_quarantine,
    "positions": _check_positions,
    "control": _check_control,
    "history": _check_history,
    "state": _check_state,
    "ledger": lambda key, value, texts: [],
    "sharing": _check_sharing,
    "access": _check_access,
    "sharing-rules": _check_rule,
    "feed": _check_feed,
}
