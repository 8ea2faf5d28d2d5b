"""Properties of the delivery room: round trips, agreement with the Java partitioner, the same bytes every time."""

from __future__ import annotations

import re
from typing import Any

from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as reference_murmur2
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.batching import BatchCutter
from consumer.delivery.control import Command, Pause, Resume, RetryQuarantine, decode_command, encode_command
from consumer.delivery.envelope import Envelope
from consumer.delivery.names import kebab
from consumer.delivery.partition import murmur2, partition_for
from consumer.delivery.positions import CommittedPosition, Meta, decode_entry, encode_entry
from consumer.delivery.quarantine import Quarantine, read_quarantine
from consumer.delivery.windows import window_for_change, window_for_quarantine
from consumer.errors import ForeignStateError, PayloadError
from consumer.events import ChangeEvent, ChangeType, LossWindow, ReceivedEvent
from consumer.position import Position, Preset
from tests.delivery_values import CHANNEL, ORG, TOPICS, change, checked, received
from tests.tracking_values import untracked

PARTITIONER = DefaultPartitioner()
RECORD_IDS = st.from_regex(r"[1-9a-zA-Z][0-9a-zA-Z]{17}", fullmatch=True)
NAMES = st.from_regex(r"[A-Z][A-Za-z0-9]{0,12}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
MS = st.integers(0, 4_000_000_000_000)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
)
VALUES = SCALARS | st.dictionaries(NAMES, SCALARS, max_size=3)


@given(st.binary(max_size=64) | st.binary(min_size=18, max_size=18))
def test_murmur2_agrees_with_aiokafka(data: bytes) -> None:
    assert murmur2(data) == reference_murmur2(data)


@given(st.binary(max_size=40), st.integers(1, 1000))
def test_partitions_agree_with_aiokafka(key: bytes, partitions: int) -> None:
    every = list(range(partitions))
    assert partition_for(key, partitions) == PARTITIONER(key, every, every)


@given(NAMES)
def test_two_objects_never_share_a_topic_name(name: str) -> None:
    """API names are unique regardless of case, and kebab case loses nothing else."""
    assert kebab(name).replace("-", "") == name.lower()
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", kebab(name))


@st.composite
def events(draw: st.DrawFn) -> ReceivedEvent:
    return received(
        event_id=str(draw(st.uuids())),
        payload=draw(st.binary(max_size=50)),
        replay_id=draw(st.binary(max_size=12)),
        received_ms=draw(MS),
        headers=tuple(draw(st.lists(st.tuples(TEXTS, st.binary(max_size=8)), max_size=3))),
        window_id=draw(st.none() | st.just("quarantine:x")),
    )


@st.composite
def changes(draw: st.DrawFn) -> ChangeEvent:
    fields = tuple(draw(st.lists(NAMES.filter(lambda name: name != "Id"), unique=True, max_size=8)))
    carried: dict[str, Any] = {name: draw(VALUES) for name in fields if draw(st.booleans())}
    return change(
        draw(st.sampled_from([*ChangeType, "FUTURE"])),
        tuple(draw(st.lists(RECORD_IDS, unique=True, max_size=4))),
        carried,
        wildcard_ids=tuple(draw(st.lists(st.just("0Mw*"), max_size=1))),
        changed_fields=tuple(name for name in carried if draw(st.booleans())),
        event=draw(events()),
        schema_fields=fields,
        commit_ms=draw(MS),
        commit_number=draw(st.integers(-(2**63), 2**63 - 1)),
        sequence_number=draw(st.integers(0, 2**31 - 1)),
        change_origin=draw(TEXTS),
    )


@given(changes())
def test_the_same_event_gives_the_same_bytes_in_any_process(event: ChangeEvent) -> None:
    """Two envelopes share nothing, so equal records come from the event alone; and each is as promised."""
    first = untracked(Envelope(ORG, "s", "1", TOPICS), event)
    assert first == untracked(Envelope(ORG, "s", "1", TOPICS), event)
    for record in first:
        checked(record)
    assert len({dict(record.headers)["ce_id"] for record in first}) == len(first)


@given(changes())
def test_every_record_id_gets_a_record_or_is_in_the_scope_of_a_window(event: ChangeEvent) -> None:
    """No silent loss: nothing that an event names is passed over."""
    told = {record.key.decode() for record in untracked(Envelope(ORG, "s", "1", TOPICS), event)}
    window = window_for_change(event)
    if window is None:
        assert told == set(event.record_ids) != set()
        assert not event.wildcard_ids
    elif window.record_ids:
        assert told | set(window.record_ids) >= set(event.record_ids)
        assert not event.wildcard_ids


@given(changes(), st.integers(1, 4000))
def test_no_size_limit_makes_an_event_fail(event: ChangeEvent, limit: int) -> None:
    generous = untracked(Envelope(ORG, "s", "1", TOPICS), event)
    tight = untracked(Envelope(ORG, "s", "1", TOPICS, max_record_bytes=limit), event)
    assert [record.key for record in tight] == [record.key for record in generous]
    for record, whole in zip(tight, generous, strict=True):
        value = checked(record)
        assert ("truncated" in value["source"]) == (len(whole.value or b"") > limit)


@given(events(), st.lists(RECORD_IDS | st.just("0Mw*"), max_size=3), TEXTS.filter(bool))
def test_a_quarantined_event_comes_back_as_it_was(event: ReceivedEvent, ids: list[str], message: str) -> None:
    error = PayloadError(message, record_ids=tuple(dict.fromkeys(ids)))
    window = window_for_quarantine(event, error)
    record = Quarantine(ORG, TOPICS, allow_raw=True).record(event, error, window)
    checked(record)
    again = read_quarantine(record.key, record.value, record.headers)
    assert again == received(
        event_id=event.event_id,
        payload=event.payload,
        replay_id=event.replay_id,
        received_ms=event.received_ms,
        headers=event.headers,
        window_id=window.window_id,
    )


@st.composite
def positions(draw: st.DrawFn) -> Position:
    position = Position(
        draw(st.none() | st.binary(max_size=10)), draw(st.sampled_from(Preset)), redelivery_ms=draw(st.none() | MS)
    )
    for event_id, replay_id in draw(st.lists(st.tuples(TEXTS, st.binary(max_size=2)), max_size=4)):
        position = position.after_event(event_id, replay_id)
    return position


@given(positions(), st.none() | MS, MS, TEXTS)
def test_positions_come_back_as_they_were(
    position: Position, last_event_ms: int | None, committed_ms: int, worker: str
) -> None:
    entry = CommittedPosition(CHANNEL, position, last_event_ms, committed_ms, worker)
    record = encode_entry(TOPICS, entry)
    checked(record)
    assert decode_entry(record.key, record.value) == entry


@given(
    st.builds(
        LossWindow,
        window_id=TEXTS.filter(bool).filter(str.isprintable),
        stream=st.just(f"changes:{CHANNEL}"),
        reason=st.just("gap_update"),
        from_ms=st.none() | MS,
        to_ms=st.none() | MS,
        record_ids=st.lists(RECORD_IDS, unique=True, max_size=3).map(tuple),
        entity=st.none() | NAMES,
        event_id=st.none() | st.uuids().map(str),
        detail=st.dictionaries(NAMES, SCALARS, max_size=3),
    )
)
def test_windows_come_back_as_they_were(window: LossWindow) -> None:
    record = encode_entry(TOPICS, window)
    checked(record)
    assert decode_entry(record.key, record.value) == window


@given(TEXTS)
def test_meta_comes_back_as_it_was(cluster_id: str) -> None:
    record = encode_entry(TOPICS, Meta(cluster_id, ORG))
    checked(record)
    assert decode_entry(record.key, record.value) == Meta(cluster_id, ORG)


CHANNELS = st.none() | st.just(CHANNEL)
COMMANDS = (
    st.builds(Pause, CHANNELS, MS, TEXTS)
    | st.builds(Resume, CHANNELS, MS, TEXTS)
    | st.builds(
        RetryQuarantine,
        st.uuids().map(str),
        st.none() | st.lists(TEXTS.filter(bool), max_size=3).map(tuple),
        MS,
        TEXTS,
    )
)


@given(COMMANDS)
def test_commands_come_back_as_they_were(command: Command) -> None:
    record = encode_command(TOPICS, command)
    checked(record)
    assert decode_command(record.key, record.value) == command


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_random_bytes_in_internal_topics_are_a_typed_error(key: bytes, value: bytes) -> None:
    for decode in (decode_entry, decode_command):
        try:
            decode(key, value)
        except ForeignStateError as error:
            assert error.advice  # noqa: PT017 - a parsed record would be fine too


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), max_size=40))
def test_a_batch_exceeds_its_limits_only_by_one_item_that_is_larger_itself(items: list[tuple[int, int]]) -> None:
    cutter = BatchCutter(4, 20, None)
    batches: list[list[tuple[int, int]]] = [[]]
    for records, size in items:
        if not cutter.fits(records, size):
            cutter.restart()
            batches.append([])
        cutter.add(records, size, 0)
        batches[-1].append((records, size))
        if cutter.due(0):
            cutter.restart()
            batches.append([])
    assert [item for batch in batches for item in batch] == items
    for batch in batches:
        if len(batch) > 1:
            assert sum(records for records, _ in batch) <= 4
            assert sum(size for _, size in batch) <= 20
