"""What is known of share rows, caught up from a real broker like states and the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumer.errors import ForeignStateError
from consumer.events import OutboundRecord
from consumer.ports import Store
from consumer.store.memory import MemoryStore
from consumer.store.sqlite import SqliteStore
from consumer.store.wire import codec_of
from tests.broker import Broker
from tests.restore_world import CHANNEL, EVERYTHING, NoAccess, Value, World, committed_raw, recreated, world_of
from tests.store_values import ENTITY, ORG, access, contents, entry, key, record_id, state

pytestmark = pytest.mark.kafka


@pytest.fixture
async def world(kafka_broker: Broker, topic_prefix: str, tmp_path: Path) -> World:
    return await world_of(kafka_broker, topic_prefix, tmp_path, CHANNEL, shared=(ENTITY,))


SHARED: list[Value] = [state(1), access(1, shares=2), access(2), access(3), entry(1, shares_due_ms=1), entry(2, feed=1)]
SHARED_LATER: list[Value] = [access(1, shares=3, as_of_ms=9), NoAccess(key(2)), access(4, as_of_ms=9)]
KNOWN = {1: (3, 9), 3: (1, 0), 4: (1, 9)}


def known_shares(store: Store, numbers: int = 9, entity: str = ENTITY) -> dict[int, tuple[int, int]]:
    """Return number of shares and time of the records below a number of which shares are known."""
    found = {number: store.access(key(number, entity)) for number in range(numbers)}
    return {number: (len(each.shares), each.as_of_ms) for number, each in found.items() if each is not None}


async def test_known_shares_are_filled_from_kafka_too(world: World) -> None:
    await world.write(MemoryStore(world.codec), SHARED, SHARED_LATER)
    store = world.file()
    assert await world.restored(store) == {"loaded": 9, "why": []}
    assert known_shares(store) == KNOWN
    assert len(store.unseen_access(ENTITY, "none", "", 9)) == 3
    assert (store.due_shares(ENTITY, 5, 9), store.unsettled(ENTITY, 9)) == ([key(1)], [key(2)])
    assert await world.restored(store) == {"loaded": 0, "why": []}
    memory = MemoryStore(world.codec)
    await world.restored(memory)
    assert known_shares(memory) == KNOWN
    store.close()


async def test_a_file_that_saw_half_of_the_known_shares_loads_the_rest_and_no_more(world: World) -> None:
    store = world.file()
    await world.write(store, SHARED)
    await world.write(store, SHARED_LATER, merge=False)
    assert known_shares(store) == {1: (2, 0), 2: (1, 0), 3: (1, 0)}, "what is not merged is not there"
    assert await world.restored(store) == {"loaded": 3, "why": []}
    assert known_shares(store) == KNOWN
    store.close()


async def test_sharing_that_is_switched_on_later_needs_no_new_file(
    kafka_broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    world = await world_of(kafka_broker, topic_prefix, tmp_path, CHANNEL)
    store = world.file()
    await world.write(store, [state(1), entry(1, due_ms=1)])
    assert await world.restored(store) == {"loaded": 0, "why": []}
    world.shared = (ENTITY,)
    await world.ensure()
    assert await world.restored(store) == {"loaded": 0, "why": []}
    await world.write(MemoryStore(world.codec), [access(1, shares=2)])
    assert await world.restored(store) == {"loaded": 1, "why": []}
    assert known_shares(store) == {1: (2, 0)}
    assert contents(store, 6) == {1: (1, 1)}
    store.close()


async def test_sharing_that_is_switched_off_keeps_what_is_known(world: World) -> None:
    store = world.file()
    await world.write(store, SHARED)
    world.shared = ()
    assert await world.restored(store) == {"loaded": 0, "why": []}
    assert set(known_shares(store)) == {1, 2, 3}
    store.close()


async def test_an_access_topic_that_was_made_anew_empties_the_file(world: World) -> None:
    store = world.file()
    await world.write(store, SHARED)
    await recreated(world, world.topics.of(ENTITY, "access"))
    before = store.generation
    restored = await world.restored(store)
    assert ["made anew" in each for each in restored["why"]] == [True]
    assert store.generation != before, "a sweep begins again: what it saw is forgotten"
    assert known_shares(store) == {}
    assert contents(store, 6) == {1: (1, None), 2: (None, None)}, "the others are read again from their beginning"
    store.close()


async def test_known_shares_reach_the_subscription_whose_object_it_is(
    kafka_broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    world = await world_of(kafka_broker, topic_prefix, tmp_path, CHANNEL, EVERYTHING, shared=(ENTITY, "Case"))
    writer = MemoryStore(world.codec)
    await world.write(writer, [access(1)])
    async with world.at_work(None, EVERYTHING) as sink:
        await world.commit(sink, writer, [access(2, entity="Case"), access(3, entity="Case")])
        await world.commit(sink, writer, [NoAccess(key(3, "Case"))])
    session, rest = world.file(), world.file(EVERYTHING)
    await world.restored(session)
    await world.restored(rest, EVERYTHING)
    assert (set(known_shares(session)), set(known_shares(session, entity="Case"))) == ({1}, set())
    assert (set(known_shares(rest)), set(known_shares(rest, entity="Case"))) == (set(), {2})
    session.close()
    rest.close()


@pytest.mark.parametrize(
    ("record_key", "value", "message"),
    [
        (record_id(1).encode(), b'{"v":2,"entity":"MessagingSession","shares":"in another way"}', "version 2"),
        (record_id(1).encode(), b"somebody's", "not JSON"),
        (record_id(1).encode(), b'{"v":1,"shares":[]}', "entity"),
        (b"\xff\xfe", b"x", "not text"),
    ],
)
@pytest.mark.parametrize("made", ["file", "memory"])
async def test_access_of_a_newer_version_or_of_somebody_else_halts_with_advice(
    world: World, record_key: bytes, value: bytes, message: str, made: str
) -> None:
    world.codec = codec_of(world.topics, ORG)
    await world.write(MemoryStore(world.codec), [access(2)])
    await committed_raw(world, OutboundRecord(world.topics.of(ENTITY, "access"), record_key, value))
    store = world.file() if made == "file" else MemoryStore(world.codec)
    with pytest.raises(ForeignStateError, match=message) as caught:
        await world.restored(store)
    assert caught.value.advice
    assert store.access(key(1)) is None
    if isinstance(store, SqliteStore):
        store.close()
