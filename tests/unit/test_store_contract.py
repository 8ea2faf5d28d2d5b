"""One suite for both stores: what tests on the memory store rely on is true of the file as well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from consumer.ports import Delta, Mirror, Piece, Store
from consumer.store.file import Owner
from consumer.store.memory import MemoryStore
from consumer.store.sqlite import SqliteStore
from consumer.tracking.values import LedgerEntry
from tests.store_values import (
    CHANNEL,
    ENTITY,
    ORG,
    TOPICS,
    access,
    codec_of,
    committed,
    contents,
    entry,
    key,
    record_id,
    state,
)

CLUSTER = "cluster-1"
STALE_MS = 302_400_000
OTHER = "Case"
CODEC = codec_of()
STATE, LEDGER, ACCESS = TOPICS.of(ENTITY, "state"), TOPICS.ledger, TOPICS.of(ENTITY, "access")


class MirrorStore(Store, Mirror, Protocol):
    """Both sides of a store."""


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MirrorStore]:
    if request.param == "memory":
        yield MemoryStore(CODEC)
        return
    made = SqliteStore(tmp_path, Owner("svc", ORG, CHANNEL, "t.", (CHANNEL,)), CODEC, cache_records=4)
    yield made
    made.close()


def test_the_newest_put_is_what_is_seen_before_and_after_it_is_committed(store: MirrorStore) -> None:
    assert store.get(key(1)) is None
    first, second = state(1, version=1), state(1, version=2)
    store.put(first)
    assert store.get(key(1)) is first
    store.put(second)
    delta = store.cut()
    assert dict(delta.states) == {key(1): second}, "once per key and transaction"
    assert store.get(key(1)) is second, "under way"
    store.merge(delta, {})
    found = store.get(key(1))
    assert found is not None
    assert (found.version, found.image) == (2, {"Status": "s2"})


def test_a_cut_holds_what_was_put_since_the_last_one_encoded_in_its_order(store: MirrorStore) -> None:
    committed(store, state(9), entry(9, due_ms=1))
    store.put(state(2))
    store.put_ledger(entry(2, due_ms=5))
    store.remove(key(9))
    store.put_ledger(LedgerEntry(ENTITY, record_id(9)))
    delta = store.cut()
    expected = [CODEC.encode_state(each, value) for each, value in delta.states.items()]
    expected += [CODEC.encode_ledger(each, value) for each, value in delta.ledger.items()]
    assert list(delta.records) == expected
    assert [(each.topic, each.key, each.value is None) for each in delta.records] == [
        (STATE, record_id(2).encode(), False),
        (STATE, record_id(9).encode(), True),
        (LEDGER, record_id(2).encode(), False),
        (LEDGER, record_id(9).encode(), True),
    ]
    assert store.cut().records == ()


def test_several_cuts_are_under_way_and_each_hides_what_is_older(store: MirrorStore) -> None:
    same = state(1, version=1)
    store.put(same)
    cuts = [store.cut()]
    store.put(state(1, version=2))
    cuts.append(store.cut())
    store.put(same)
    cuts.append(store.cut())
    store.remove(key(1))
    cuts.append(store.cut())
    store.put(state(1, version=5))
    for delta in cuts:
        store.merge(delta, {})
        assert contents(store, 2) == {1: (5, None)}, "the newest put is always the one that is seen"
    store.merge(store.cut(), {})
    assert contents(store, 2) == {1: (5, None)}


def test_a_removal_under_way_hides_what_earlier_cuts_commit(store: MirrorStore) -> None:
    store.remove(key(1))
    first = store.cut()
    store.put(state(1))
    second = store.cut()
    store.remove(key(1))
    third = store.cut()
    for delta in (first, second, third):
        store.merge(delta, {})
        assert store.get(key(1)) is None


def test_what_is_expected_is_seen_as_if_it_were_not(store: MirrorStore) -> None:
    committed(store, *(state(number, version=number + 1) for number in range(9)), entry(2, due_ms=5))
    store.put(state(3, version=30))
    store.put_ledger(entry(4, due_ms=7))
    store.remove(key(5))
    keys = [*map(key, range(12)), key(1), (OTHER, record_id(1))]
    before = contents(store, 12)
    for _ in range(2):
        store.expect(keys)
        assert contents(store, 12) == before
    store.merge(store.cut(), {})
    store.expect(keys)
    assert contents(store, 12) == before
    assert store.get((OTHER, record_id(1))) is None


def test_after_a_drop_only_what_is_committed_is_seen(store: MirrorStore) -> None:
    committed(store, state(1), entry(1, due_ms=7))
    store.put(state(1, version=2))
    store.put_ledger(LedgerEntry(ENTITY, record_id(1)))
    lost = store.cut()
    store.put(state(2))
    store.drop()
    assert contents(store, 3) == {1: (1, 7)}
    assert store.cut().records == ()
    with pytest.raises(ValueError, match="order"):
        store.merge(lost, {})


def test_cuts_are_merged_in_their_order_and_once(store: MirrorStore) -> None:
    store.put(state(1))
    first = store.cut()
    store.put(state(1, version=2))
    second = store.cut()
    for wrong in (second, Delta()):
        with pytest.raises(ValueError, match="order"):
            store.merge(wrong, {})
    store.merge(first, {})
    with pytest.raises(ValueError, match="order"):
        store.merge(first, {})
    store.merge(second, {})


def test_an_empty_ledger_entry_is_none_and_leaves_no_tombstone_of_what_was_not_there(store: MirrorStore) -> None:
    store.put_ledger(LedgerEntry(ENTITY, record_id(1)))
    assert store.cut().records == ()
    store.drop()
    committed(store, entry(1, due_ms=7))
    store.put_ledger(LedgerEntry(ENTITY, record_id(1)))
    assert store.ledger(key(1)) is None
    delta = store.cut()
    assert [each.value for each in delta.records] == [None]
    store.merge(delta, {})
    assert store.ledger(key(1)) is None


def test_only_offsets_of_mirrored_topics_are_kept_and_each_is_replaced(store: MirrorStore) -> None:
    store.merge(store.cut(), {(STATE, 0): 5, (LEDGER, 1): 7, (TOPICS.positions, 0): 9})
    store.merge(store.cut(), {(STATE, 0): 6})
    assert dict(store.offsets()) == {(STATE, 0): 6, (LEDGER, 1): 7}


def test_due_refreshes_come_longest_due_first_and_only_committed_ones(store: MirrorStore) -> None:
    committed(store, entry(1, due_ms=30), entry(2, due_ms=10), entry(3, due_ms=20), entry(4), entry(5, due_ms=10))
    committed(store, entry(3, due_ms=5, entity=OTHER))
    store.put_ledger(entry(6, due_ms=1))
    assert store.due_refreshes(ENTITY, 20, 10) == [key(2), key(5), key(3)]
    assert store.due_refreshes(ENTITY, 20, 1) == [key(2)]
    assert store.due_refreshes(OTHER, 20, 10) == [key(3, OTHER)]
    assert list(store.due_refreshes("Nothing", 20, 10)) == []
    store.drop()
    committed(store, entry(2, due_ms=40), LedgerEntry(ENTITY, record_id(5)))
    assert store.due_refreshes(ENTITY, 20, 10) == [key(3)]


def test_unsettled_come_least_recently_written_first(store: MirrorStore) -> None:
    committed(store, entry(1, facts=1), entry(2, facts=2), entry(3, due_ms=1))
    committed(store, entry(4, facts=1), entry(5, facts=1, entity=OTHER))
    committed(store, entry(1, facts=3))
    assert store.unsettled(ENTITY, 10) == [key(2), key(4), key(1)]
    assert store.unsettled(ENTITY, 2) == [key(2), key(4)]
    committed(store, entry(2, due_ms=1))
    assert store.unsettled(ENTITY, 10) == [key(4), key(1)]


def test_expired_are_the_deleted_ones_from_before_a_time_oldest_first(store: MirrorStore) -> None:
    gone = [state(number, deleted_ms=ms) for number, ms in ((1, 30), (2, 10), (3, 20))]
    committed(store, *gone, state(4), state(5, deleted_ms=1, entity=OTHER))
    assert store.expired(ENTITY, 30, 10) == [record_id(2), record_id(3)]
    assert store.expired(ENTITY, 30, 1) == [record_id(2)]
    committed(store, key(2), state(3))
    assert list(store.expired(ENTITY, 99, 10)) == [record_id(1)]


def test_unseen_are_the_live_ones_that_this_scan_did_not_see(store: MirrorStore) -> None:
    committed(store, *(state(number) for number in range(1, 7)), state(7, deleted_ms=1), state(8, entity=OTHER))
    store.see(ENTITY, [record_id(2), record_id(3), record_id(99)], "job")
    store.see(ENTITY, [record_id(3), record_id(5)], "job")
    store.see(ENTITY, [record_id(1), record_id(4)], "another")
    store.see(OTHER, [record_id(6)], "job")
    assert store.unseen(ENTITY, "job", "", 10) == [record_id(1), record_id(4), record_id(6)]
    assert store.unseen(ENTITY, "job", "", 1) == [record_id(1)]
    assert store.unseen(ENTITY, "job", record_id(1), 10) == [record_id(4), record_id(6)]
    assert len(store.unseen(ENTITY, "never begun", "", 10)) == 6
    assert list(store.unseen("Nothing", "job", "", 10)) == []


def test_objects_and_records_are_counted(store: MirrorStore) -> None:
    committed(store, state(1), state(2, deleted_ms=1), state(3, entity=OTHER), entry(4, facts=1, entity="Lead"))
    committed(store, state(1, version=2))
    assert list(store.entities()) == [OTHER, ENTITY]
    assert [store.records(each) for each in (ENTITY, OTHER, "Lead", "Nothing")] == [2, 1, 0, 0]
    committed(store, key(1), key(3, OTHER), key(3, OTHER))
    assert list(store.entities()) == [ENTITY]
    assert store.records(ENTITY) == 1


def piece(states: dict[int, int | None], ledger: dict[int, int | None], offset: int = 1, newest_ms: int = 0) -> Piece:
    """Return a piece with versions of states and due times of entries, None for tombstones."""

    def value(number: int, version: int | None) -> tuple[str, bytes | None]:
        return record_id(number), CODEC.encode_state(key(number), version and state(number, version=version)).value

    def owed(number: int, due_ms: int | None) -> tuple[str, bytes | None]:
        return record_id(number), CODEC.encode_ledger(key(number), due_ms and entry(number, due_ms=due_ms)).value

    return Piece(
        [value(*each) for each in states.items()],
        [owed(*each) for each in ledger.items()],
        {(STATE, 0): offset},
        newest_ms,
    )


def test_what_is_loaded_replaces_what_was_stored_and_cached(store: MirrorStore) -> None:
    store.attach(CLUSTER, stale_after_ms=STALE_MS)
    committed(store, state(1), state(2), entry(1, due_ms=1), entry(2, due_ms=2))
    assert contents(store, 3) == {1: (1, 1), 2: (1, 2)}
    store.load(piece({1: 7, 2: None, 3: 3, 4: None}, {1: 9, 2: None, 4: None}, offset=50, newest_ms=5), lambda _: True)
    assert contents(store, 5) == {1: (7, 9), 3: (3, None)}
    assert dict(store.offsets()) == {(STATE, 0): 50}
    assert store.newest_ms >= 5
    assert store.records(ENTITY) == 2


def test_a_piece_with_several_values_of_a_key_leaves_the_last(store: MirrorStore) -> None:
    values = [(record_id(1), CODEC.encode_state(key(1), state(1, version=each)).value) for each in (1, 2, 3)]
    gone = [(record_id(2), CODEC.encode_state(key(2), state(2)).value), (record_id(2), None)]
    back = [(record_id(3), None), (record_id(3), CODEC.encode_state(key(3), state(3)).value)]
    store.load(Piece([*values, *gone, *back], [], {}, 0), lambda _: True)
    assert contents(store, 5) == {1: (3, None), 3: (1, None)}


def test_ledger_entries_of_objects_of_another_channel_are_left_out(store: MirrorStore) -> None:
    values = [
        (record_id(each), CODEC.encode_ledger(key(each, of), entry(each, facts=1, entity=of)).value)
        for each, of in ((1, ENTITY), (2, OTHER))
    ]
    store.load(Piece([], values, {}, 0), lambda entity: entity == ENTITY)
    assert list(store.unsettled(ENTITY, 9)) == [key(1)]
    assert list(store.unsettled(OTHER, 9)) == []


def test_a_store_of_another_cluster_is_emptied(store: MirrorStore) -> None:
    store.attach(CLUSTER, stale_after_ms=STALE_MS)
    committed(store, state(1), offset=3)
    before = store.generation
    store.attach(CLUSTER, stale_after_ms=STALE_MS)
    assert (contents(store, 2), store.generation) == ({1: (1, None)}, before)
    store.attach("cluster-2", stale_after_ms=STALE_MS)
    assert contents(store, 2) == {}
    assert not store.offsets()
    assert store.generation != before


def test_a_rebuilt_store_is_empty_and_says_so_by_its_generation(store: MirrorStore) -> None:
    committed(store, state(1), entry(1, facts=1), offset=3)
    store.see(ENTITY, [record_id(1)], "job")
    store.put(state(2))
    before = store.generation
    store.rebuild("the test says so")
    assert store.generation != before
    assert contents(store, 3) == {}
    assert not store.offsets()
    assert list(store.unsettled(ENTITY, 9)) == []
    committed(store, state(1))
    assert list(store.unseen(ENTITY, "job", "", 9)) == [record_id(1)], "what scans saw is forgotten too"


def test_known_shares_are_kept_like_states(store: MirrorStore) -> None:
    assert store.access(key(1)) is None
    first = access(1, shares=2)
    store.put_access(first)
    assert store.access(key(1)) is first, "what is under way is seen"
    delta = store.cut()
    assert dict(delta.access) == {key(1): first}
    assert [record.topic for record in delta.records] == [ACCESS]
    store.merge(delta, {(ACCESS, 0): 5, (STATE, 0): 7})
    found = store.access(key(1))
    assert found is not None
    assert len(found.shares) == 2
    assert store.offsets() == {(ACCESS, 0): 5, (STATE, 0): 7}
    assert len(store.unseen_access(ENTITY, "none", "", 9)) == 1
    store.remove_access(key(1))
    assert store.access(key(1)) is None
    delta = store.cut()
    assert [record.value for record in delta.records] == [None], "a tombstone"
    store.merge(delta, {})
    assert store.access(key(1)) is None
    assert not store.unseen_access(ENTITY, "none", "", 9)


def test_a_cut_keeps_states_ledger_and_shares_apart(store: MirrorStore) -> None:
    store.put_access(access(3))
    store.put_ledger(entry(2, due_ms=5))
    store.put(state(1))
    delta = store.cut()
    assert [record.topic for record in delta.records] == [STATE, LEDGER, ACCESS]
    store.merge(delta, {})
    assert contents(store, 5) == {1: (1, None), 2: (None, 5)}
    assert store.access(key(3)) is not None


def test_what_is_not_committed_of_shares_is_dropped(store: MirrorStore) -> None:
    committed(store, access(1, as_of_ms=1))
    store.put_access(access(1, as_of_ms=2))
    store.put_access(access(2))
    store.cut()
    store.drop()
    found = store.access(key(1))
    assert found is not None
    assert found.as_of_ms == 1
    assert store.access(key(2)) is None


def test_records_whose_share_rows_are_due_come_longest_due_first(store: MirrorStore) -> None:
    committed(store, entry(1, shares_due_ms=30), entry(2, shares_due_ms=10), entry(3, shares_due_ms=99), entry(4))
    committed(store, entry(5, due_ms=1), entry(6, shares_due_ms=20, entity=OTHER))
    assert store.due_shares(ENTITY, 50, 10) == [key(2), key(1)]
    assert store.due_shares(ENTITY, 50, 1) == [key(2)]
    committed(store, entry(2, shares_due_ms=40))
    assert store.due_shares(ENTITY, 50, 10) == [key(1), key(2)]
    committed(store, LedgerEntry(ENTITY, record_id(2)))
    assert store.due_shares(ENTITY, 50, 10) == [key(1)]


def test_feed_items_are_to_be_settled_like_facts(store: MirrorStore) -> None:
    committed(store, entry(1, feed=1))
    committed(store, entry(2, facts=1), entry(3, shares_due_ms=5))
    assert store.unsettled(ENTITY, 10) == [key(1), key(2)]


def test_records_that_a_sweep_did_not_see_are_found(store: MirrorStore) -> None:
    committed(store, *(access(number) for number in range(6)), access(7, entity=OTHER), state(9))
    store.see(ENTITY, [record_id(1), record_id(4)], "sweep")
    assert store.unseen_access(ENTITY, "sweep", "", 3) == [record_id(0), record_id(2), record_id(3)]
    assert store.unseen_access(ENTITY, "sweep", record_id(3), 3) == [record_id(5)]
    assert store.unseen_access("Nobody", "sweep", "", 3) == []


def test_known_shares_come_back_from_kafka(store: MirrorStore) -> None:
    store.attach(CLUSTER, stale_after_ms=STALE_MS)
    values = [
        (record_id(number), CODEC.encode_access(key(number), access(number, shares=number)).value) for number in (1, 2)
    ]
    store.load(Piece((), (), {(ACCESS, 0): 2}, 1_000, values), lambda _entity: True)
    found = store.access(key(2))
    assert found is not None
    assert len(found.shares) == 2
    store.load(Piece((), (), {(ACCESS, 0): 3}, 1_001, [(record_id(2), None)]), lambda _entity: True)
    assert store.access(key(2)) is None
    assert store.access(key(1)) is not None
    store.rebuild("a test says so")
    assert store.access(key(1)) is None
