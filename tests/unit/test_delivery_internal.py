"""Records of ``positions`` and ``control``."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from consumer.delivery.control import (
    Pause,
    Resume,
    RetryQuarantine,
    Withdrawn,
    decode_command,
    encode_command,
    is_paused,
)
from consumer.delivery.positions import (
    CommittedPosition,
    Meta,
    PositionsEntry,
    ProgressEntry,
    Removed,
    decode_entry,
    encode_entry,
    progress_entry,
    require_same,
    window_closed,
)
from consumer.delivery.windows import window_for_first_start
from consumer.errors import ForeignStateError
from consumer.position import Position, Preset
from consumer.tracking.arrivals import Progress
from tests.delivery_values import CHANNEL, ORG, TOPICS, checked

META = Meta("cluster", ORG)
COMMITTED = CommittedPosition(
    CHANNEL, Position(b"\x01", Preset.LATEST, b"\x02", ("e1", "e2"), 7), 1_790_000_000_000, 1_790_000_000_500, "host-1"
)
WINDOW = window_for_first_start(CHANNEL, 10)
PROGRESS = ProgressEntry(CHANNEL, "scan:7", {"cursor": "0Mw1", "rows": 7})


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        (META, "meta"),
        (COMMITTED, f"position:{CHANNEL}"),
        (replace(COMMITTED, position=Position(), last_event_ms=None), f"position:{CHANNEL}"),
        (WINDOW, f"window:{WINDOW.window_id}"),
        (window_closed(WINDOW.window_id), f"window:{WINDOW.window_id}"),
        (PROGRESS, f"progress:{CHANNEL}:scan:7"),
        (progress_entry(CHANNEL, Progress("scan:7", {"cursor": "a"})), f"progress:{CHANNEL}:scan:7"),
        (progress_entry(CHANNEL, Progress("scan:7", done=True)), f"progress:{CHANNEL}:scan:7"),
    ],
)
def test_what_is_written_to_positions_is_read_back(entry: PositionsEntry, key: str) -> None:
    record = encode_entry(TOPICS, entry, partition=2)
    checked(record)
    assert (record.topic, record.key.decode(), record.partition) == (TOPICS.positions, key, 2)
    assert decode_entry(record.key, record.value) == entry


def test_a_newer_version_halts_with_advice() -> None:
    record = encode_entry(TOPICS, COMMITTED)
    newer = orjson.dumps({**orjson.loads(record.value or b""), "v": 2})
    with pytest.raises(ForeignStateError, match="version 2") as caught:
        decode_entry(record.key, newer)
    assert "newer version" in caught.value.advice


def test_fields_added_inside_the_version_are_ignored() -> None:
    record = encode_entry(TOPICS, COMMITTED)
    more = orjson.dumps({**orjson.loads(record.value or b""), "later": {"x": 1}})
    assert decode_entry(record.key, more) == COMMITTED


@pytest.mark.parametrize(
    "value", [b"", b"{", b"null", b"[]", b"{}", b'{"v":"1"}', b'{"v":0}', b'{"v":true}', b'{"v":1}', b"\xff"]
)
@pytest.mark.parametrize("key", [b"meta", b"position:/data/X", b"window:w", b"other", b"\xff"])
def test_bytes_of_somebody_else_are_a_foreign_state(key: bytes, value: bytes) -> None:
    with pytest.raises(ForeignStateError) as caught:
        decode_entry(key, value)
    assert caught.value.advice


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("channel", "/data/Other"),
        ("replay_id", "%%"),
        ("replay_id", 5),
        ("preset", "middle"),
        ("beyond", None),
        ("beyond", [1]),
        ("beyond", []),
        ("beyond_replay_id", None),
        ("last_event_ms", "soon"),
        ("committed_ms", 1.5),
        ("committed_ms", True),
        ("worker", None),
    ],
)
def test_a_position_with_a_wrong_field_is_refused(name: str, wrong: object) -> None:
    record = encode_entry(TOPICS, COMMITTED)
    broken = orjson.dumps({**orjson.loads(record.value or b""), name: wrong})
    with pytest.raises(ForeignStateError):
        decode_entry(record.key, broken)


@pytest.mark.parametrize(("name", "wrong"), [("window_id", "x"), ("detail", []), ("record_ids", "x"), ("from_ms", "x")])
def test_a_window_with_a_wrong_field_is_refused(name: str, wrong: object) -> None:
    record = encode_entry(TOPICS, WINDOW)
    broken = orjson.dumps({**orjson.loads(record.value or b""), name: wrong})
    with pytest.raises(ForeignStateError):
        decode_entry(record.key, broken)


@pytest.mark.parametrize(
    ("name", "wrong"), [("channel", "/data/Other"), ("name", "scan:8"), ("name", None), ("state", []), ("state", None)]
)
def test_progress_with_a_wrong_field_is_refused(name: str, wrong: object) -> None:
    record = encode_entry(TOPICS, PROGRESS)
    broken = orjson.dumps({**orjson.loads(record.value or b""), name: wrong})
    with pytest.raises(ForeignStateError):
        decode_entry(record.key, broken)


def test_topics_of_the_same_deployment_or_without_meta_are_accepted() -> None:
    require_same(None, META)
    require_same(META, META)
    require_same(META, replace(META, contract=2))


@pytest.mark.parametrize(
    "stored", [Meta("other", ORG), Meta("cluster", "00D000000000009AAA"), Meta("cluster", ORG, contract=2)]
)
def test_topics_of_another_cluster_org_or_newer_contract_are_refused(stored: Meta) -> None:
    with pytest.raises(ForeignStateError) as caught:
        require_same(stored, META)
    assert caught.value.advice


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (Pause(None, 5, "ada"), "pause:*"),
        (Pause(CHANNEL, 5, "ada"), f"pause:{CHANNEL}"),
        (Resume(None, 5, "ada"), "resume:*"),
        (Resume(CHANNEL, 5, "ada"), f"resume:{CHANNEL}"),
        (Resume(CHANNEL, 5, "ada", accept_flood=True), f"resume:{CHANNEL}"),
        (RetryQuarantine("r1", None, 5, "ada"), "retry:r1"),
        (RetryQuarantine("r1", ("quarantine:a",), 5, "ada"), "retry:r1"),
        (Withdrawn("retry:r1"), "retry:r1"),
    ],
)
def test_commands_are_read_back(command: Pause | Resume | RetryQuarantine | Withdrawn, key: str) -> None:
    record = encode_command(TOPICS, command)
    checked(record)
    assert (record.topic, record.key.decode()) == (TOPICS.control, key)
    assert decode_command(record.key, record.value) == command


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"pause:*", b'{"v":1,"command":"resume","channel":null,"issued_ms":1,"who":"a"}'),
        (b"pause:/data/X", b'{"v":1,"command":"pause","channel":null,"issued_ms":1,"who":"a"}'),
        (b"stop:*", b'{"v":1,"command":"stop","channel":null,"issued_ms":1,"who":"a"}'),
        (b"pause:*", b'{"v":2,"command":"pause","channel":null,"issued_ms":1,"who":"a"}'),
        (b"retry:x", b'{"v":1,"command":"retry","retry_id":"x","window_ids":[1],"issued_ms":1,"who":"a"}'),
        (b"pause:*", b"nonsense"),
    ],
)
def test_commands_of_somebody_else_or_newer_are_refused(key: bytes, value: bytes) -> None:
    with pytest.raises(ForeignStateError) as caught:
        decode_command(key, value)
    assert caught.value.advice


def test_the_log_decides_between_pause_and_resume_not_the_clock() -> None:
    pause, resume = Pause(CHANNEL, 100, "a"), Resume(None, 50, "b")
    retry = RetryQuarantine("r", None, 1, "a")
    assert not is_paused([], CHANNEL)
    assert is_paused([pause, retry], CHANNEL)
    assert not is_paused([pause, resume], CHANNEL)
    assert is_paused([resume, pause], CHANNEL)
    assert not is_paused([pause], "/data/Other")
    assert is_paused([Pause(None, 1, "a")], "/data/Other")
    assert not is_paused([Withdrawn("pause:*")], CHANNEL)


def test_removed_keeps_the_whole_key() -> None:
    assert decode_entry(b"window:w", None) == Removed("window:w")
