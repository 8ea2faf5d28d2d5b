"""Recordings: what is written is read again, by any Avro tool too, and damage never becomes something else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.errors import RecordingError
from consumer.events import Keepalive, ReceivedEvent, ReceivedSchema, StreamFault, TapItem
from consumer.recording.format import ITEM_SCHEMA, checksum, from_datum, to_datum
from consumer.recording.reader import Recording
from consumer.recording.writer import RecordingWriter, require_new
from tests.change_schemas import WIDGET, WIDGET_PAYLOAD

TOPIC = "/data/Widget__ChangeEvent"
ITEMS: tuple[TapItem, ...] = (
    ReceivedSchema(TOPIC, "s1", WIDGET, 1_000),
    ReceivedEvent(TOPIC, "e1", "s1", WIDGET_PAYLOAD, b"\0" * 9 + b"\1", 1_001, (("k", b"v"), ("k", b"\xff"))),
    Keepalive(TOPIC, b"\0" * 9 + b"\2", 121_000),
    StreamFault(TOPIC, "PositionLostError", "subscription.fetch.replayid.corrupted", "It is gone", 122_000),
    StreamFault(TOPIC, "StreamEndedError", "", "", 122_001),
    ReceivedEvent(TOPIC, "e2", "s1", b"", b"", -1),
)


def written(path: Path, items: Sequence[TapItem] = ITEMS) -> Path:
    with RecordingWriter(path, "00D5g00000AbCdEEAV") as writer:
        for item in items:
            writer.write(item)
    return path


def read(path: Path) -> tuple[list[TapItem], bool]:
    """The items up to the end or the damage, and whether there was any."""
    items: list[TapItem] = []
    try:
        for item in Recording(path):
            items.append(item)  # noqa: PERF402 - what came before an error is wanted
    except RecordingError:
        return items, True
    return items, False


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = written(tmp_path / "a.avro")
    assert read(path) == (list(ITEMS), False)
    with contextlib.closing(Recording(path)) as recording:
        assert recording.org_id == "00D5g00000AbCdEEAV"


def test_another_avro_tool_reads_it(tmp_path: Path) -> None:
    with written(tmp_path / "a.avro").open("rb") as file:
        data = list(fastavro.reader(file))
    assert [from_datum(datum) for datum in data] == list(ITEMS)
    assert [datum["kind"] for datum in data] == ["SCHEMA", "EVENT", "KEEPALIVE", "FAULT", "FAULT", "EVENT"]


def test_the_published_schema_is_the_one_that_is_written() -> None:
    stored = Path(__file__).parents[2] / "schemas" / "recording.avsc"
    assert json.loads(stored.read_text(encoding="utf-8")) == ITEM_SCHEMA


def test_a_recording_is_never_overwritten(tmp_path: Path) -> None:
    path = written(tmp_path / "a.avro")
    before = path.read_bytes()
    for refusal in (lambda: RecordingWriter(path, ""), lambda: require_new(path)):
        with pytest.raises(RecordingError, match="exists already"):
            refusal()
    assert path.read_bytes() == before


def test_a_missing_directory_is_told_before_anything_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no such directory"):
        require_new(tmp_path / "nowhere" / "a.avro")


def test_a_recorder_that_is_killed_leaves_what_it_wrote(tmp_path: Path) -> None:
    """Blocks end by count and, on a quiet channel, by time; the head is there from the start."""
    path = tmp_path / "a.avro"
    writer = RecordingWriter(path, "")
    assert read(path) == ([], False)
    for item in ITEMS[:3]:
        writer.write(item)
    assert read(path) == (list(ITEMS[:3]), False)
    writer.close()


@pytest.mark.parametrize("keep", [0, 1, 3, 4, 40, 400])
def test_a_head_that_is_cut_off_is_an_error(keep: int, tmp_path: Path) -> None:
    path = written(tmp_path / "a.avro")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RecordingError, match=r"empty|not a recording|head of"):
        Recording(path)


def test_items_before_the_damage_are_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.avro")
    path.write_bytes(path.read_bytes()[:-20])
    items, damaged = read(path)
    assert damaged
    assert items == list(ITEMS[: len(items)])
    assert len(items) >= 3


@pytest.mark.parametrize("cut", [1, 15, 16, 17])
def test_a_file_that_ends_inside_of_its_last_marker_is_noticed(cut: int, tmp_path: Path) -> None:
    path = written(tmp_path / "a.avro")
    path.write_bytes(path.read_bytes()[:-cut])
    items, damaged = read(path)
    assert damaged
    assert items == list(ITEMS[: len(items)])


def test_blocks_that_are_left_out_or_change_places_are_noticed(tmp_path: Path) -> None:
    """The container alone would not notice: each block is whole."""
    path = written(tmp_path / "a.avro")
    content = path.read_bytes()
    marker = content[-16:]
    head, first, *others = content.split(marker)
    for order in ([head, *others], [head, others[0], first, *others[1:]], [head, first, first, *others]):
        path.write_bytes(marker.join(order))
        items, damaged = read(path)
        assert damaged
        assert items == list(ITEMS[: len(items)])


@pytest.mark.parametrize("says", [1, 3])
def test_a_block_with_another_number_of_items_than_it_says_is_noticed(says: int, tmp_path: Path) -> None:
    """The last items of the last block have nothing behind them that would miss them."""
    path = written(tmp_path / "a.avro", ITEMS[:2])
    content = path.read_bytes()
    marker = content[-16:]
    head, block, _ = content.split(marker)
    assert block[0] == 2 << 1
    path.write_bytes(marker.join([head, bytes([says << 1]) + block[1:], b""]))
    items, damaged = read(path)
    assert damaged
    assert items == list(ITEMS[: len(items)])


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_changed_byte_gives_an_error_or_the_same_items(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Never another item, and never another exception."""
    path = tmp_path_factory.mktemp("damage") / "a.avro"
    content = bytearray(written(path).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        how = data.draw(st.sampled_from(["set", "remove", "insert"]))
        value = data.draw(st.integers(0, 255))
        content[place : place + (how != "insert")] = b"" if how == "remove" else bytes([value])
    path.write_bytes(content)
    items, damaged = read(path)
    assert items == list(ITEMS[: len(items)])
    assert damaged or len(items) == len(ITEMS)


@given(content=st.binary(max_size=300), looks_right=st.booleans())
@settings(max_examples=100, deadline=None)
def test_random_bytes_are_an_error(content: bytes, looks_right: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("random") / "a.avro"
    path.write_bytes(b"Obj\x01" + content if looks_right else content)
    assert read(path) == ([], True)


def test_the_checksum_covers_every_field_of_every_kind() -> None:
    for item in ITEMS:
        datum = to_datum(item)
        for name, value in datum.items():
            if name == "check" or value in (None, []):
                continue
            changed: object = (
                (value + "x") if isinstance(value, str) else (value + b"x" if isinstance(value, bytes) else 7)
            )
            if name == "headers":
                changed = [{"key": "other", "value": b""}]
            assert checksum(datum | {name: changed}, 0) != checksum(datum, 0), name
        assert checksum(datum, 1) != checksum(datum, 0)
