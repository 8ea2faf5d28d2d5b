"""`timeline` against a real Kafka."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from consumer import clock
from consumer.changes.record_ids import to_18
from consumer.cli import timeline
from consumer.delivery.headers import HeaderTemplate, iso_utc
from consumer.delivery.history import History
from consumer.delivery.state import encode_state
from consumer.errors import KafkaRefusedError, ServiceError, UsageError
from consumer.events import LossWindow, OutboundRecord
from consumer.kafka.topics import ensure_topics, planned_specs, spec_of
from consumer.tracking.values import HistoryFact, Match, RecordState
from tests.broker import Broker
from tests.contract.topic_schemas import kind_of, validate_record
from tests.delivery_values import ORG
from tests.integration.test_cli_coverage import CHANNEL, ENTITY, STREAM, Place

pytestmark = pytest.mark.kafka

RECORD, OTHER = to_18("0Mw00000000XyZ1"), to_18("0Mw000000000002")
ADA, BOB, QUEUE = "005000000000001AAA", "005000000000002AAA", "00G000000000001AAA"
NOW = clock.now_ms() // 1000 * 1000
T = NOW - 3_600_000
WAITING = {"Id": RECORD, "Status": "Waiting", "OwnerId": QUEUE, "CreatedDate": iso_utc(T), "CreatedById": ADA}
ACTIVE = {**WAITING, "Status": "Active", "OwnerId": BOB}


@pytest.fixture
async def place(kafka_broker: Broker, topic_prefix: str, tmp_path: Path, capsys: Any) -> Place:
    made = Place(kafka_broker, topic_prefix, tmp_path, capsys)
    planned = {spec.name: spec for spec in planned_specs(made.topics, made.settings)}
    for kind in ("history", "state"):
        name = made.topics.of(ENTITY, kind)
        planned[name] = spec_of(name, made.settings)
    await ensure_topics(made.cluster, list(planned.values()))
    return made


def change(place: Place, version: int, op: str, at_ms: int, before: Any, after: Any, **source: Any) -> OutboundRecord:
    """Return a record of `changes`, written by hand and checked against its schema."""
    record_id = (after or before)["Id"]
    event_id = f"event-{record_id}-{version}"
    value = {
        "op": op,
        "ts_ms": at_ms + 300,
        "before": before,
        "after": after,
        "source": {
            "connector": "salesforce-pubsub",
            "name": "svc",
            "version": "0.1.0",
            "db": ORG,
            "table": ENTITY,
            "snapshot": "false",
            "ts_ms": at_ms,
            "id": f"{event_id}:{record_id}",
            "org_id": ORG,
            "record_id": record_id,
            "record_version": version,
            "topic": CHANNEL,
            "event_id": event_id,
            "record_index": 0,
            "replay_id": "AAE=",
            "schema_id": "s",
            "change_type": {"c": "CREATE", "u": "UPDATE", "d": "DELETE"}[op],
            "change_origin": "",
            "commit_number": "1",
            "commit_user": ADA,
            "transaction_key": "t",
            "sequence_number": 1,
            "changed_fields": [],
            "nulled_fields": [],
            "diff_fields": [],
            "before_image": "none" if before is None else "full",
            "after_image": "none" if after is None else "full",
            "unknown_fields": [],
            "repaired": False,
            "window_id": None,
            **source,
        },
        "transaction": None,
    }
    key = record_id.encode()
    headers = HeaderTemplate(ORG, ENTITY, "changes").build(f"{event_id}:{record_id}", key, at_ms, at_ms)
    return checked(OutboundRecord(place.topics.changes(ENTITY), key, orjson.dumps(value), headers))


def fact(field: str, old: Any, new: Any, at_ms: int, **values: Any) -> HistoryFact:
    given: dict[str, Any] = {
        "change_id": f"event-{RECORD}-2:{RECORD}:{field}",
        "revision": 1,
        "final": False,
        "record_id": RECORD,
        "field": field,
        "history_field": field.removesuffix("Id"),
        "old": old,
        "new": new,
        "value_type": None,
        "values": "known",
        "old_label": None,
        "new_label": None,
        "changed_ms": at_ms,
        "precision": "s",
        "changed_by": BOB,
        "origin": "change_event",
        "match": Match.PENDING,
        "event_id": f"event-{RECORD}-2",
    }
    return HistoryFact(**{**given, **values})


def checked(record: OutboundRecord) -> OutboundRecord:
    validate_record(kind_of(record.topic), record.key, record.value, record.headers)
    return record


async def write_life(place: Place) -> None:
    """Write one session's life, with another's between its records, and a gap that was repaired."""
    confirmed = {"revision": 2, "final": True, "match": Match.CONFIRMED, "history_ids": ("017000000000001AAA",)}
    facts = [
        fact("Status", "Waiting", "Active", T + 200_000),
        fact("OwnerId", QUEUE, BOB, T + 200_000, new_label="Bob"),
        fact("Status", "Waiting", "Active", T + 200_000, **confirmed),
    ]
    gap = LossWindow("gap:1", STREAM, "gap_update", T + 500_000, T + 500_999, (RECORD,), ENTITY)
    state = RecordState(ENTITY, RECORD, {k: v for k, v in ACTIVE.items() if k != "Id"}, orjson.dumps(ACTIVE), version=2)
    await place.write(
        [
            change(place, 1, "c", T, None, WAITING),
            change(place, 1, "c", T, None, {**WAITING, "Id": OTHER}),
            change(place, 2, "u", T + 200_000, WAITING, ACTIVE, changed_fields=["Status", "OwnerId"]),
            *map(checked, History(ORG, place.topics).records(ENTITY, facts, T)),
            checked(encode_state(place.topics, ORG, state)),
            place.span(T - 1000, T + 400_000),
            checked(place.coverage.opened(gap, T + 500_500)),
        ]
    )


async def type_(place: Place, *arguments: str) -> tuple[int, str]:
    return await place.type(*arguments, module=timeline)


async def test_a_life_is_told_to_people(place: Place) -> None:
    await write_life(place)
    code, out = await type_(place, RECORD)
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    start, then = (f"{iso_utc(ms)}".replace(".000Z", "Z") for ms in (T, T + 200_000))
    assert [f"{ENTITY}", RECORD] in lines
    assert ["created", start, "by", ADA] in lines
    assert [start, then, "Waiting", "3m", "20s", "by", ADA] in lines
    assert [then, "Status", "Waiting", "→", "Active", "by", BOB, "confirmed", "by", "Salesforce's", "history"] in lines
    assert [then, "OwnerId", QUEUE, "→", BOB, "(Bob)", "by", BOB, "not", "confirmed", "yet"] in lines
    assert "gap_update  open: what happened to the record in it is not known" in out
    assert "other values may be hidden in it" in out
    assert "changes: everything is kept, since" in out
    assert OTHER not in out


async def test_json_is_one_object_with_the_image_at_a_time(place: Place) -> None:
    await write_life(place)
    code, out = await type_(place, RECORD[:15], "--json", "--at", iso_utc(T + 100_000) or "")
    told = json.loads(out)
    assert code == 0
    assert (told["record_id"], told["entity"], told["created_at"]) == (RECORD, ENTITY, iso_utc(T))
    first, second = told["status"]
    assert (first["value"], first["seconds"], first["certain"]) == ("Waiting", 200.0, True)
    assert (second["value"], second["to"], second["certain"]) == ("Active", None, False)
    assert [(each["field"], each["match"], each["revision"]) for each in told["changes"]] == [
        ("Status", "confirmed", 2),
        ("OwnerId", "pending", 1),
    ]
    assert (told["at"]["known"], told["at"]["image"]) == (True, WAITING)
    assert told["state"]["image"] == ACTIVE
    assert told["retention"]["changes"]["dropped"] is False
    assert [each["window_id"] for each in told["loss_windows"]] == ["gap:1"]


async def test_inside_a_loss_window_the_image_is_unknown(place: Place) -> None:
    await write_life(place)
    _, out = await type_(place, RECORD, "--at", iso_utc(T + 600_000) or "")
    assert "unknown: the time lies in a loss window (gap:1)" in out
    _, out = await type_(place, RECORD, "--at", iso_utc(T - 1) or "")
    assert "the record was not there yet" in out


@pytest.mark.parametrize("typed", [RECORD.lower(), RECORD[:15] + "AAA"])
async def test_an_id_whose_case_or_check_was_lost_is_found(place: Place, typed: str) -> None:
    await write_life(place)
    code, out = await type_(place, typed)
    assert (code, out.splitlines()[0]) == (0, f"{ENTITY} {RECORD}")


async def test_an_unknown_record_is_one_sentence_and_a_failure(place: Place) -> None:
    await write_life(place)
    with pytest.raises(ServiceError, match="Kafka holds nothing of the record") as caught:
        await type_(place, to_18("0Mw000000000009"))
    assert caught.value.exit_code == 1
    with pytest.raises(KafkaRefusedError, match="none of the topics"):
        await type_(place, RECORD, "--entity", "Case")
    with pytest.raises(UsageError, match="15 or 18"):
        await type_(place, "0Mw")
