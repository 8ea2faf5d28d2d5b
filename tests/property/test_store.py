"""Any order of puts, cuts, merges, drops and restarts against a model of two dictionaries."""

from __future__ import annotations

import tempfile
from collections import deque
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumer.ports import Delta
from consumer.store.file import Owner
from consumer.store.sqlite import SqliteStore
from consumer.tracking.values import LedgerEntry
from tests.store_values import CHANNEL, ENTITY, ORG, TOPICS, codec_of, entry, key, record_id, state

NUMBERS = st.integers(0, 3)
STATE = TOPICS.of(ENTITY, "state")


class StoreMachine(RuleBasedStateMachine):
    """The store beside the model: what is committed, and what each cut and the open batch changed."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self._version = 0
        self._states: dict[int, int] = {}
        self._due: dict[int, int] = {}
        self._open: tuple[dict[int, int | None], dict[int, int | None]] = ({}, {})
        self._cuts: deque[tuple[Delta, dict[int, int | None], dict[int, int | None]]] = deque()
        self._store = self._opened()

    def _opened(self) -> SqliteStore:
        owner = Owner("svc", ORG, CHANNEL, "t.", (CHANNEL,))
        return SqliteStore(Path(self._directory.name), owner, codec_of(), cache_records=2)

    def teardown(self) -> None:
        self._store.close()
        self._directory.cleanup()

    def _newest(self) -> tuple[dict[int, int], dict[int, int]]:
        states: dict[int, int | None] = dict(self._states)
        due: dict[int, int | None] = dict(self._due)
        for _, changed, owed in self._cuts:
            states |= changed
            due |= owed
        states |= self._open[0]
        due |= self._open[1]
        return {k: v for k, v in states.items() if v is not None}, {k: v for k, v in due.items() if v is not None}

    @rule(number=NUMBERS)
    def put(self, number: int) -> None:
        self._version += 1
        self._store.put(state(number, version=self._version))
        self._open[0][number] = self._version

    @rule(number=NUMBERS)
    def remove(self, number: int) -> None:
        self._store.remove(key(number))
        self._open[0][number] = None

    @rule(number=NUMBERS, due_ms=st.none() | st.integers(1, 9))
    def owe(self, number: int, due_ms: int | None) -> None:
        known = number in self._newest()[1]
        if due_ms is None:
            self._store.put_ledger(LedgerEntry(ENTITY, record_id(number)))
            if known:
                self._open[1][number] = None
        else:
            self._store.put_ledger(entry(number, due_ms=due_ms))
            self._open[1][number] = due_ms

    @rule()
    def cut(self) -> None:
        delta = self._store.cut()
        assert {int(k[1][3:]): v and v.version for k, v in delta.states.items()} == self._open[0]
        assert {int(k[1][3:]) for k in delta.ledger} == set(self._open[1])
        assert len(delta.records) == len(delta.states) + len(delta.ledger)
        self._cuts.append((delta, *self._open))
        self._open = ({}, {})

    @precondition(lambda self: self._cuts)
    @rule()
    def merge(self) -> None:
        delta, states, due = self._cuts.popleft()
        self._version += 1
        self._store.merge(delta, {(STATE, 0): self._version})
        for kept, changed in ((self._states, states), (self._due, due)):
            for number, value in changed.items():
                kept.pop(number, None)
                if value is not None:
                    kept[number] = value
        assert dict(self._store.offsets()) == {(STATE, 0): self._version}

    @rule()
    def commit(self) -> None:
        self.cut()
        while self._cuts:
            self.merge()

    @rule()
    def drop(self) -> None:
        self._store.drop()
        self._cuts.clear()
        self._open = ({}, {})

    @rule()
    def restart(self) -> None:
        self._store.close()
        self._store = self._opened()
        self._cuts.clear()
        self._open = ({}, {})

    @invariant()
    def the_newest_is_seen(self) -> None:
        states, due = self._newest()
        for number in range(4):
            found, owed = self._store.get(key(number)), self._store.ledger(key(number))
            assert (found and found.version) == states.get(number)
            assert (owed and owed.refresh and owed.refresh.due_ms) == due.get(number)

    @invariant()
    def queries_tell_what_is_committed(self) -> None:
        assert self._store.records(ENTITY) == len(self._states)
        expected = [key(number) for _, number in sorted((ms, number) for number, ms in self._due.items() if ms <= 5)]
        assert list(self._store.due_refreshes(ENTITY, 5, 9)) == expected
        assert list(self._store.unseen(ENTITY, "none", "", 9)) == [record_id(number) for number in sorted(self._states)]


StoreMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestStore = StoreMachine.TestCase
