"""Any order of puts, cuts, merges, drops, loads and restarts against a model of three dictionaries."""

from __future__ import annotations

import tempfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from consumer.ports import Delta, Piece
from consumer.store.file import Owner
from consumer.store.sqlite import SqliteStore
from consumer.tracking.values import LedgerEntry
from tests.store_values import CHANNEL, ENTITY, ORG, TOPICS, access, codec_of, entry, key, record_id, state

NUMBERS = st.integers(0, 3)
CODEC = codec_of()
STATE = TOPICS.of(ENTITY, "state")
DUE_MS = st.integers(1, 9)


@dataclass(frozen=True, slots=True)
class Owed:
    """What the model knows of a ledger entry."""

    due_ms: int | None = None
    shares_due_ms: int | None = None
    feed: int = 0

    def entry(self, number: int) -> LedgerEntry:
        """Return the entry; an empty one if nothing is owed."""
        return entry(number, due_ms=self.due_ms, shares_due_ms=self.shares_due_ms, feed=self.feed)

    @classmethod
    def of(cls, found: LedgerEntry | None) -> Owed | None:
        """Return what an entry says."""
        if found is None:
            return None
        due_ms = None if found.refresh is None else found.refresh.due_ms
        return cls(due_ms, None if found.shares is None else found.shares.due_ms, len(found.feed))


NOTHING = Owed()


@dataclass(slots=True)
class Values:
    """Versions of states, ledger entries and times of known shares by number; of changes, None for what is removed."""

    states: dict[int, int | None] = field(default_factory=dict)
    owed: dict[int, Owed | None] = field(default_factory=dict)
    access: dict[int, int | None] = field(default_factory=dict)

    def over(self, older: Values) -> Values:
        """Return the values with these changes made to older ones."""
        pairs = ((older.states, self.states), (older.owed, self.owed), (older.access, self.access))
        states, owed, known = ({k: v for k, v in {**was, **now}.items() if v is not None} for was, now in pairs)
        return Values(states, owed, known)  # type: ignore[arg-type]  # the generator has one type for all three


class StoreMachine(RuleBasedStateMachine):
    """The store beside the model: what is committed, and what each cut and the open batch changed."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self._version = 0
        self._committed = Values()
        self._open = Values()
        self._cuts: deque[tuple[Delta, Values]] = deque()
        self._seen: set[int] = set()
        self._cache_records = 2
        self._store = self._opened()

    def _opened(self) -> SqliteStore:
        owner = Owner("svc", ORG, CHANNEL, "t.", (CHANNEL,))
        return SqliteStore(Path(self._directory.name), owner, CODEC, cache_records=self._cache_records)

    @initialize(records=st.sampled_from([2, 8]))
    def choose_cache(self, records: int) -> None:
        """Of two, each look at all four drives out all; of eight, what was looked at stays through a commit."""
        self._cache_records = records
        self.restart()

    def teardown(self) -> None:
        self._store.close()
        self._directory.cleanup()

    def _newest(self) -> Values:
        newest = self._committed
        for _, changed in self._cuts:
            newest = changed.over(newest)
        return self._open.over(newest)

    def _next(self) -> int:
        self._version += 1
        return self._version

    @rule(number=NUMBERS)
    def put(self, number: int) -> None:
        version = self._open.states[number] = self._next()
        self._store.put(state(number, version=version))

    @rule(number=NUMBERS)
    def remove(self, number: int) -> None:
        self._store.remove(key(number))
        self._open.states[number] = None

    @rule(number=NUMBERS, owed=st.builds(Owed, st.none() | DUE_MS, st.none() | DUE_MS, st.integers(0, 1)))
    def owe(self, number: int, owed: Owed) -> None:
        known = number in self._newest().owed
        self._store.put_ledger(owed.entry(number))
        if owed != NOTHING:
            self._open.owed[number] = owed
        elif known:
            self._open.owed[number] = None

    @rule(number=NUMBERS)
    def put_access(self, number: int) -> None:
        as_of_ms = self._open.access[number] = self._next()
        self._store.put_access(access(number, as_of_ms=as_of_ms))

    @rule(number=NUMBERS)
    def remove_access(self, number: int) -> None:
        self._store.remove_access(key(number))
        self._open.access[number] = None

    @rule(number=NUMBERS)
    def see(self, number: int) -> None:
        self._store.see(ENTITY, [record_id(number)], "job")
        self._seen.add(number)

    @rule()
    def cut(self) -> None:
        delta = self._store.cut()
        assert {int(k[1][3:]): v and v.version for k, v in delta.states.items()} == self._open.states
        assert {int(k[1][3:]): Owed.of(v) for k, v in delta.ledger.items()} == self._open.owed
        assert {int(k[1][3:]): v and v.as_of_ms for k, v in delta.access.items()} == self._open.access
        kinds = (len(delta.states) * ["state"]) + (len(delta.ledger) * ["ledger"]) + (len(delta.access) * ["access"])
        assert [each.topic.rpartition(".")[2] for each in delta.records] == kinds
        keys = [*delta.states, *delta.ledger, *delta.access]
        assert [each.key for each in delta.records] == [record.encode() for _, record in keys]
        self._cuts.append((delta, self._open))
        self._open = Values()

    @precondition(lambda self: self._cuts)
    @rule()
    def merge(self) -> None:
        delta, changed = self._cuts.popleft()
        self._store.merge(delta, {(STATE, 0): self._next()})
        self._committed = changed.over(self._committed)
        assert dict(self._store.offsets()) == {(STATE, 0): self._version}

    @rule()
    def commit(self) -> None:
        self.cut()
        while self._cuts:
            self.merge()

    @precondition(lambda self: not self._cuts and self._open == Values())
    @rule(number=NUMBERS, gone=st.booleans())
    def load_access(self, number: int, gone: bool) -> None:
        """Another worker wrote it."""
        as_of_ms = None if gone else self._next()
        value = None if as_of_ms is None else access(number, as_of_ms=as_of_ms)
        read = [(record_id(number), CODEC.encode_access(key(number), value).value)]
        self._store.load(Piece((), (), {}, 0, read), lambda _entity: True)
        self._committed = Values(access={number: as_of_ms}).over(self._committed)

    @rule()
    def drop(self) -> None:
        self._store.drop()
        self._cuts.clear()
        self._open = Values()

    @rule()
    def restart(self) -> None:
        self._store.close()
        self._store = self._opened()
        self._cuts.clear()
        self._open = Values()

    @invariant()
    def the_newest_is_seen(self) -> None:
        newest = self._newest()
        for number in range(4):
            found, known = self._store.get(key(number)), self._store.access(key(number))
            assert (found and found.version) == newest.states.get(number)
            assert Owed.of(self._store.ledger(key(number))) == newest.owed.get(number)
            assert (known and known.as_of_ms) == newest.access.get(number)

    @invariant()
    def queries_tell_what_is_committed(self) -> None:
        states, access_of = sorted(self._committed.states), sorted(self._committed.access)
        owed = {number: each for number, each in self._committed.owed.items() if each is not None}
        refreshes = sorted((each.due_ms, n) for n, each in owed.items() if each.due_ms is not None)
        shares = sorted((each.shares_due_ms, n) for n, each in owed.items() if each.shares_due_ms is not None)
        assert list(self._store.due_refreshes(ENTITY, 5, 9)) == [key(n) for ms, n in refreshes if ms <= 5]
        assert list(self._store.due_shares(ENTITY, 5, 9)) == [key(n) for ms, n in shares if ms <= 5]
        assert set(self._store.unsettled(ENTITY, 9)) == {key(n) for n, each in owed.items() if each.feed}
        assert self._store.records(ENTITY) == len(states)
        assert list(self._store.unseen_access(ENTITY, "none", "", 9)) == [record_id(n) for n in access_of]
        assert list(self._store.unseen(ENTITY, "none", "", 9)) == [record_id(n) for n in states]
        unseen = [record_id(n) for n in access_of if n not in self._seen]
        assert list(self._store.unseen_access(ENTITY, "job", "", 9)) == unseen
        assert (
            list(self._store.unseen_access(ENTITY, "job", record_id(1), 1))
            == [each for each in unseen if each > record_id(1)][:1]
        )


StoreMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestStore = StoreMachine.TestCase
