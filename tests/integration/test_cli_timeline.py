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
from consumer.delivery.access import access_tombstone, encode_access
from consumer.delivery.feed import Feed
from consumer.delivery.headers import HeaderTemplate, iso_utc
from consumer.delivery.history import History
from consumer.delivery.positions import ProgressEntry, encode_entry
from consumer.delivery.sharing import Sharing
from consumer.delivery.state import encode_state
from consumer.errors import KafkaRefusedError, ServiceError, UsageError
from consumer.events import LossWindow, OutboundRecord
from consumer.kafka.topics import ensure_topics, planned_specs, spec_of
from consumer.tracking.access import AccessState, Grantee, KnownShare, ShareCause, ShareFact
from consumer.tracking.feed_values import FeedFact, FeedItem
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
    for kind in ("history", "state", "sharing", "access", "feed"):
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


def share_fact(kind: Any, grantee: str, level: str, start: int, end: int, cause: ShareCause) -> ShareFact:
    """Return a fact of an owner's row, between two times."""
    name = Grantee("Queue", "Support") if grantee == QUEUE else Grantee("User", "Bob")
    fact_id, modified_ms = f"{kind}:{grantee}:{end}", None if kind == "revoked" else end
    return ShareFact(
        fact_id, kind, RECORD, "02c000000000001AAA", grantee, name, level, None, "Owner", start, end, modified_ms, BOB,
        end, cause,
    )  # fmt: skip


def access(*shares: KnownShare, at_ms: int) -> AccessState:
    return AccessState(ENTITY, RECORD, shares, complete=True, as_of_ms=at_ms)


async def write_access(place: Place, *facts: ShareFact, tombstone: bool = False) -> None:
    """Write who had access to the session, with another's in between, and a sweep of a quarter of an hour later."""
    created = [
        share_fact("granted", QUEUE, "All", T, T + 1000, ShareCause.OWNER_CHANGE),
        share_fact("granted", BOB, "All", T + 200_000, T + 201_000, ShareCause.OWNER_CHANGE),
        share_fact("revoked", QUEUE, "All", T + 200_000, T + 201_000, ShareCause.OWNER_CHANGE),
        *facts,
    ]
    item = FeedItem("0D5000000000001AAA", RECORD, "TextPost", T, T, deleted=False, values={"Body": "Hello"})
    bob = KnownShare(BOB, "Owner", "All", "02c000000000002AAA", Grantee("User", "Bob"), (T + 200_000, T + 201_000))
    now = access(bob, at_ms=T + 210_000)
    gone = [access_tombstone(place.topics, ENTITY, RECORD)] if tombstone else []
    progress: dict[str, dict[str, Any]] = {
        f"swept:{ENTITY}": {"begun_ms": T + 900_000, "ended_ms": T + 910_000, "rows": 1},
        f"org-default:{ENTITY}": {"internal": "Private", "external": "Private", "as_of_ms": T},
    }
    await place.write(
        [
            *map(checked, Sharing(ORG, place.topics).records(ENTITY, created, T)),
            *map(checked, Feed(ORG, place.topics).records(ENTITY, [FeedFact("feed:1", "created", item, T)], T)),
            checked(encode_access(place.topics, ORG, now)),
            *gone,
            *(encode_entry(place.topics, ProgressEntry(CHANNEL, name, state), 0) for name, state in progress.items()),
        ]
    )


async def test_who_had_access_is_told_beside_the_history(place: Place) -> None:
    await write_life(place)
    await write_access(place)
    code, out = await type_(place, RECORD, "--at", iso_utc(T + 100_000) or "")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    start, then, swept = (f"{iso_utc(ms)}".replace(".000Z", "Z") for ms in (T, T + 200_000, T + 900_000))
    assert f"{start} Queue Support ({QUEUE}) gained All by Owner with the owner change changed by {BOB}" in lines
    assert f"{then} Queue Support ({QUEUE}) lost All by Owner with the owner change changed by {BOB}" in lines
    assert f"User Bob ({BOB}) All by Owner" in lines
    assert f"Queue Support ({QUEUE}) by Owner yes, All" in lines
    assert f"User Bob ({BOB}) by Owner no" in lines
    assert any(f"checked to {swept}" in line for line in lines)
    assert f"org-wide default: Private internally, Private externally, as of {start}" in lines
    assert "not in share rows: org-wide default, role hierarchy, View All and Modify All permissions" in lines
    assert f"{start} TextPost created Hello" in lines
    assert any(line.startswith("sharing: everything is kept, since") for line in lines)


async def test_json_answers_for_everybody_and_for_one_who_is_asked_for(place: Place) -> None:
    await write_life(place)
    await write_access(place)
    _, out = await type_(place, RECORD, "--json", "--at", iso_utc(T - 1) or "", "--grantee", ADA[:15])
    told = json.loads(out)
    assert {each["answer"] for each in told["at"]["access"]} == {"no"}, "the record was not there"
    (asked,) = told["grantee"]["access"]
    assert (asked["user_or_group_id"], asked["row_cause"], asked["answer"]) == (ADA, None, "no")
    assert told["access"]["checked_to"] == iso_utc(T + 900_000)
    _, out = await type_(place, RECORD, "--json", "--at", iso_utc(T + 901_000) or "")
    told = json.loads(out)
    assert {(each["answer"], each["from"], each["to"]) for each in told["at"]["access"]} == {
        ("unknown", iso_utc(T + 900_000), None)
    }
    assert (told["at"]["known"], told["grantee"]) == (False, None)
    _, out = await type_(place, RECORD, "--json", "--grantee", BOB)
    (asked,) = json.loads(out)["grantee"]["access"]
    assert (asked["answer"], asked["access_level"]) == ("yes", "All")
    with pytest.raises(UsageError, match="no id of a user or group"):
        await type_(place, RECORD, "--grantee", "005")


async def test_of_a_deleted_record_nobody_has_access_any_more(place: Place) -> None:
    await write_life(place)
    await place.write([change(place, 3, "d", T + 700_000, ACTIVE, None)])
    await write_access(
        place,
        share_fact("revoked", BOB, "All", T + 700_000, T + 701_000, ShareCause.RECORD_DELETED),
        tombstone=True,
    )
    _, out = await type_(place, RECORD, "--json", "--at", iso_utc(NOW) or "")
    told = json.loads(out)
    assert {each["answer"] for each in told["at"]["access"]} == {"no"}
    assert (told["access"]["now"], told["access"]["checked_to"]) == (None, None)
    assert told["retention"]["access"]["dropped"] is False


async def test_a_record_of_which_only_access_is_kept_is_found(place: Place) -> None:
    await write_access(place)
    _, out = await type_(place, RECORD, "--json")
    told = json.loads(out)
    assert (told["entity"], told["access"]["checked_to"]) == (ENTITY, iso_utc(T + 900_000))
