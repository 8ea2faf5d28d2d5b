"""Every stored recording through the command line: to stdout, to a real Kafka, and through ``verify``."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from consumer import __version__
from consumer.errors import PositionLostError
from consumer.events import Keepalive, StreamFault
from consumer.recording.reader import Recording
from tests.broker import Broker
from tests.contract.topic_schemas import kind_of, validate_record
from tests.kafka_reader import ReadRecord, read_committed_all
from tests.recordings.regenerate import HERE, made, names

PREFIX = "salesforce."
WITHOUT_FAULT = [name for name in names() if name != "poison"]


def run(*arguments: object, **extra: str) -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SESSION_CONSUMER__")}
    command = [sys.executable, "-m", "consumer", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False, env=environment | extra)


def path_of(name: str) -> Path:
    return HERE / f"{name}.avro"


def golden_bytes(name: str) -> bytes:
    """The golden output; only the version, which every record names, is this build's."""
    stored = (HERE / f"{name}.golden.jsonl").read_bytes()
    return stored.replace(b'"version":"0.1.0"', f'"version":"{__version__}"'.encode())


def golden(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in golden_bytes(name).splitlines()]


def as_bytes(line: dict[str, Any]) -> bytes | None:
    if "value_base64" in line:
        return base64.b64decode(line["value_base64"])
    return None if line["value"] is None else json.dumps(line["value"]).encode()


def test_there_are_enough_and_each_has_its_golden_output() -> None:
    assert len(names()) >= 8
    stored = {path.name for path in HERE.iterdir() if path.suffix in {".avro", ".jsonl"}}
    assert stored == {f"{name}{suffix}" for name in names() for suffix in (".avro", ".golden.jsonl")}
    assert all(path_of(name).stat().st_size < 20_000 for name in names())


@pytest.mark.parametrize("name", names())
def test_replay_prints_the_golden_lines_byte_for_byte(name: str) -> None:
    ran = run("replay", path_of(name), "--to", "stdout")
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout == golden_bytes(name)


@pytest.mark.parametrize("name", names())
def test_every_golden_record_is_of_its_topics_shape(name: str) -> None:
    lines = golden(name)
    assert lines
    for line in lines:
        headers = [(key, value.encode()) for key, value in line["headers"].items()]
        validate_record(kind_of(line["topic"]), line["key"].encode(), as_bytes(line), headers)


@pytest.mark.parametrize("name", names())
async def test_the_scenario_still_makes_the_same_recording(name: str, tmp_path: Path) -> None:
    """Same items; the container's bytes depend on the zlib that packed them."""
    fresh = tmp_path / f"{name}.avro"
    await made(name, fresh)
    assert list(Recording(fresh)) == list(Recording(path_of(name)))


@pytest.mark.parametrize("name", WITHOUT_FAULT)
def test_verify_finds_no_contradiction(name: str) -> None:
    ran = run("verify", "--json", path_of(name))
    report = json.loads(ran.stdout)
    assert (ran.returncode, report["ok"], ran.stderr) == (0, True, b"")


def test_verify_finds_what_is_broken_in_poison() -> None:
    ran = run("verify", "--json", path_of("poison"))
    failed = {check["check"]: check["failed"] for check in json.loads(ran.stdout)["checks"] if check["failed"]}
    assert ran.returncode == 1
    assert failed == {"every event's schema is there": 1, "payloads decode": 4, "field bitmaps fit their schema": 1}


def ops(name: str, kind: str = "changes") -> list[dict[str, Any]]:
    return [line["value"] for line in golden(name) if kind_of(line["topic"]) == kind]


def test_merged_events_fan_out_and_transactions_keep_their_order() -> None:
    by_event: dict[str, list[int]] = defaultdict(list)
    for change in ops("merged-and-transactions"):
        by_event[change["source"]["event_id"]].append(change["source"]["record_index"])
    assert [0, 1, 2] in by_event.values()
    sequences = [change["source"]["sequence_number"] for change in ops("merged-and-transactions")]
    assert max(sequences) >= 3


def test_bitmaps_of_every_kind_are_named() -> None:
    changes = [change["source"] for change in ops("bitmaps")]
    fields = [tuple(change["changed_fields"]) for change in changes]
    assert ("VisitAddress__c.Latitude", "VisitAddress__c.Longitude") in fields
    assert any("VisitAddress__c.City" in change["nulled_fields"] for change in changes)
    assert any(change["diff_fields"] == ["Notes__c"] for change in changes)


def test_diffs_are_applied_parts_merged_and_nulls_told() -> None:
    """Each change begins where the last one ended, and the state holds what the last one ended with."""
    changes = ops("bitmaps")
    assert [each["source"]["record_version"] for each in changes] == list(range(1, len(changes) + 1))
    for before, after in pairwise(changes):
        assert after["before"] == before["after"]
    (diffed,) = [each for each in changes if each["source"]["diff_fields"]]
    assert diffed["after"]["Notes__c"] == diffed["before"]["Notes__c"].replace("line 02 abc", "line 02 CHANGED abc")
    moved, located, nulled = (each["after"]["VisitAddress__c"] for each in changes[1:4])
    assert moved == {"Street": "2 Side St", "City": "Graz", "PostalCode": "8010", "Country": "Austria"}
    assert located == {**moved, "Latitude": 47.07, "Longitude": 15.44}
    assert nulled.get("City") is None
    assert nulled["Latitude"] == 47.07
    assert changes[3]["after"]["Priority__c"] is None
    assert [each["image"] for each in ops("bitmaps", "state")] == [each["after"] for each in changes]
    (step,) = [each for each in ops("bitmaps", "history") if each["field"] == "VisitAddress__c.Street"]
    assert (step["old_value"], step["new_value"]) == ("1 Main St", "2 Side St")


def test_a_record_that_comes_back_goes_on_counting() -> None:
    back = ops("merged-and-transactions")[-1]
    assert (back["op"], back["source"]["change_type"], back["before"]) == ("c", "UNDELETE", None)
    earlier = [
        each for each in ops("merged-and-transactions")[:-1] if each["source"]["record_id"] == back["after"]["Id"]
    ]
    assert back["source"]["record_version"] == len(earlier) + 1
    assert [each["op"] for each in earlier][-1] == "d"
    assert back["after"] == {**earlier[-1]["before"], "LastModifiedDate": back["after"]["LastModifiedDate"]}


def test_a_schema_change_in_mid_stream_moves_no_field() -> None:
    changes = ops("schema-change")
    assert len({change["source"]["schema_id"] for change in changes}) == 3
    scores = [change["after"]["CSAT_Score__c"] for change in changes if "CSAT_Score__c" in change["after"]]
    assert scores == [3.0, 4.0], "a field that was removed leaves the image"
    assert changes[-1]["after"]["Novel__c"] == "passes through"
    told = [each["detail"] for each in ops("schema-change", "coverage")]
    assert [(each["added"], each["removed"]) for each in told] == [
        (["Region__c"], []),
        (["Novel__c"], ["CSAT_Score__c"]),
    ]
    # The first value of a new field replaces one that nobody knows, not a null.
    steps = [(each["field"], each["old_value"], each["values"]) for each in ops("schema-change", "history")]
    assert [step for step in steps if step[0] == "Region__c"] == [
        ("Region__c", None, "old_unknown"),
        ("Region__c", "EMEA", "known"),
    ]


def test_events_that_share_a_replay_id_are_all_there_and_go_to_their_objects_topics() -> None:
    lines = golden("channel-enriched")
    assert {line["topic"] for line in lines} == {
        f"{PREFIX}{entity}.{kind}"
        for entity in ("messaging-session", "agent-work")
        for kind in ("changes", "history", "state")
    }
    by_replay_id: dict[str, set[str]] = defaultdict(set)
    for change in ops("channel-enriched"):
        by_replay_id[change["source"]["replay_id"]].add(change["source"]["event_id"])
    assert max(len(events) for events in by_replay_id.values()) == 3
    enriched = [change for change in ops("channel-enriched") if change["op"] == "u" and "SessionKey" in change["after"]]
    assert enriched
    assert all("SessionKey" not in change["source"]["changed_fields"] for change in enriched)


def test_poison_goes_to_quarantine_with_a_loss_window_and_nothing_else_does() -> None:
    reasons = [line["headers"]["reason"] for line in golden("poison") if kind_of(line["topic"]) == "quarantine"]
    assert sorted(reasons) == ["bitmap_invalid"] + ["payload_undecodable"] * 4 + ["schema_refused"]
    assert len(ops("poison", "coverage")) == 6
    assert len(ops("poison")) == 7


def test_gaps_open_windows_and_name_no_placeholder() -> None:
    reasons = [window["reason"] for window in ops("gaps", "coverage")]
    assert reasons == ["gap_update", "gap_create", "gap_update", "gap_overflow", "gap_undelete"]
    assert all("*" not in line["key"] and not line["key"].startswith("000000") for line in golden("gaps"))


def test_what_a_gap_hid_is_no_before_and_no_old_value() -> None:
    """Changes go on behind a gap, without what it may have changed; the state says that it is out of date."""
    changes = [each for each in ops("gaps") if each["op"] != "c"]
    only_id = {"Id": changes[0]["source"]["record_id"]}
    assert [(each["source"]["change_type"], each["before"]) for each in changes] == [
        ("UPDATE", only_id),
        ("GAP_DELETE", only_id),
        ("UPDATE", only_id),
    ]
    assert all(each["source"]["unknown_fields"] for each in changes)
    steps = [(each["field"], each["old_value"], each["new_value"], each["values"]) for each in ops("gaps", "history")]
    assert steps == [
        ("created", None, None, "known"),
        ("Status", None, "Active", "old_unknown"),
        ("Status", None, "Ended", "old_unknown"),
    ]
    states = [each for each in ops("gaps", "state") if each["record_id"] == only_id["Id"]]
    assert [each["stale"] for each in states] == [False, True, True, False, True, True]
    assert [each["deleted"] for each in states] == [False, False, False, True, True, False]
    assert states[1]["image"] == only_id
    assert states[1]["suspect"]["Status"] == "New"


def test_a_lost_position_opens_a_window_where_it_happened() -> None:
    items = list(Recording(path_of("position-lost")))
    assert sum(isinstance(item, Keepalive) for item in items) == 2
    assert [item.error for item in items if isinstance(item, StreamFault)][-1] == PositionLostError.__name__
    kinds = [kind_of(line["topic"]) for line in golden("position-lost")]
    assert [kind for kind in kinds if kind not in {"history", "state"}] == ["changes"] * 2 + ["coverage"] + [
        "changes"
    ] * 2
    before_it, behind_it, *_ = (change["before"] for change in ops("position-lost")[1:])
    assert before_it["Status"] == "New"
    assert behind_it == {"Id": before_it["Id"]}, "what was known before the loss is no before"
    epochs = [each["source_version"]["epoch"] for each in ops("position-lost", "state")]
    assert epochs == [0, 0, 1, 1]


def test_names_that_are_texts_or_people_and_addresses_keep_their_form() -> None:
    names_seen = [
        change["after"]["Name"] for change in ops("accounts") if change["after"] and "Name" in change["after"]
    ]
    assert names_seen[0] == "Acme Ltd"
    assert names_seen[1] == {"Salutation": "Ms", "FirstName": "Ada", "LastName": "Müller"}
    assert names_seen[3] == {"Salutation": "Ms", "FirstName": "Ada", "LastName": "Meier"}, "parts are merged"


def test_the_worked_payload_of_the_reference_is_a_change_record() -> None:
    (change,) = ops("widget")
    assert change["source"]["changed_fields"] == ["LastModifiedDate", "Tags__c", "Due__c"]
    assert change["source"]["commit_number"] == "1709306004367179779"
    assert change["after"] == {
        "Id": "a00000000000001AAA",
        "LastModifiedDate": "2025-06-15T15:06:40.000Z",
        "Tags__c": None,
        "Due__c": "2025-06-16",
    }


def write_config(path: Path, bootstrap: str) -> Path:
    path.write_text(
        "[salesforce]\n"
        'login_url = "http://127.0.0.1:9"\n'
        'client_id = "unused"\n'
        "[kafka]\n"
        f'bootstrap_servers = "{bootstrap}"\n'
        "replication_factor = 1\n"
    )
    return path


def replay_to_kafka(config: Path, name: str, prefix: str) -> subprocess.CompletedProcess[bytes]:
    secret = {"SESSION_CONSUMER__SALESFORCE__CLIENT_SECRET": "unused"}
    return run("--config", config, "replay", path_of(name), "--to", "kafka", "--topic-prefix", prefix, **secret)


def by_key(records: Sequence[tuple[str, str, bytes | None, dict[str, str]]]) -> dict[tuple[str, str], list[Any]]:
    """Values and headers of each topic's keys, in order."""
    found: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for topic, key, value, headers in records:
        parsed: Any = value if kind_of(topic) == "quarantine" or value is None else json.loads(value)
        found[topic, key].append((parsed, headers))
    return found


def read_back(record: ReadRecord, prefix: str) -> tuple[str, str, bytes | None, dict[str, str]]:
    topic = PREFIX + record.topic.removeprefix(prefix)
    return topic, record.key.decode(), record.value, {name: value.decode() for name, value in record.headers.items()}


@pytest.mark.kafka
@pytest.mark.parametrize("name", names())
async def test_replay_to_kafka_commits_the_golden_records(
    name: str, kafka_broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    """Each record once, in order per key, and not one more."""
    ran = replay_to_kafka(write_config(tmp_path / "c.toml", kafka_broker.bootstrap), name, topic_prefix)
    lines = golden(name)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == f"{len(lines)} records committed under {topic_prefix}*\n".encode()
    topics = {topic_prefix + line["topic"].removeprefix(PREFIX) for line in lines}
    records = await read_committed_all(kafka_broker.bootstrap, *topics)
    for record in records:
        validate_record(kind_of(record.topic), record.key, record.value, list(record.headers.items()))
    got = by_key([read_back(record, topic_prefix) for record in records])
    assert got == by_key([(line["topic"], line["key"], as_bytes(line), line["headers"]) for line in lines])


@pytest.mark.kafka
async def test_replay_commits_no_position(kafka_broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """A service that ran under the prefix later would start where it is told to, not where a recording ended."""
    config = write_config(tmp_path / "c.toml", kafka_broker.bootstrap)
    assert replay_to_kafka(config, "poison", topic_prefix).returncode == 0
    records = await read_committed_all(kafka_broker.bootstrap, f"{topic_prefix}messaging-session.positions")
    assert all(record.key == b"meta" for record in records)


def test_the_live_prefix_is_refused(tmp_path: Path) -> None:
    ran = replay_to_kafka(write_config(tmp_path / "c.toml", "127.0.0.1:9"), "widget", PREFIX)
    assert ran.returncode == 2
    assert b"'salesforce.' is the configured prefix" in ran.stderr


def test_kafka_needs_a_prefix() -> None:
    ran = run("replay", path_of("widget"), "--to", "kafka")
    assert ran.returncode == 2
    assert ran.stderr.startswith(b"session-consumer: --to kafka needs --topic-prefix.")


@pytest.mark.parametrize("command", ["replay", "verify"])
@pytest.mark.parametrize("damage", ["missing", "directory", "empty", "random", "foreign", "cut"])
def test_a_broken_file_is_one_sentence(command: str, damage: str, tmp_path: Path) -> None:
    """Exit 1, no traceback; what was before the damage is still put out."""
    whole = path_of("plain-traffic").read_bytes()
    path = tmp_path / "broken.avro"
    if damage == "directory":
        path.mkdir()
    elif damage != "missing":
        foreign = bytes.fromhex(
            "4f626a0104166176726f2e736368656d610c22696e7422146176726f2e636f646563086e756c6c00"
        ) + bytes(16)
        path.write_bytes({"empty": b"", "random": b"\x93NUMPY" * 99, "foreign": foreign, "cut": whole[:-700]}[damage])
    ran = run(command, path)
    assert ran.returncode == 1
    assert ran.stderr.startswith(b"session-consumer: ")
    assert ran.stderr.count(b"\n") == 1
    if damage == "cut":
        assert ran.stdout
        assert command == "verify" or golden_bytes("plain-traffic").startswith(ran.stdout)


def test_a_reader_that_leaves_ends_replay_quietly() -> None:
    command = [sys.executable, "-m", "consumer", "replay", str(path_of("plain-traffic"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        process.wait(30)
    assert process.returncode in {0, 141}
