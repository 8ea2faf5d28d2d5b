"""What batches under way changed, laid over what is committed: the same for every store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from consumer.events import OutboundRecord
from consumer.ports import Delta, Offsets
from consumer.store.codec import Codec
from consumer.tracking.access import AccessState
from consumer.tracking.values import Key, LedgerEntry, RecordState

T = TypeVar("T")


class _Layer(Generic[T]):
    """Newest values that are not committed; None where the committed one is removed.

    Attributes:
        newest: by key, whichever cut they belong to.
        open: those put since the last cut.
    """

    __slots__ = ("_cut_of", "_number", "newest", "open")

    def __init__(self) -> None:
        self.newest: dict[Key, T | None] = {}
        self.open: dict[Key, T | None] = {}
        self._cut_of: dict[Key, int] = {}
        self._number = 0

    def put(self, key: Key, value: T | None) -> None:
        self.newest[key] = self.open[key] = value
        self._cut_of[key] = self._number

    def cut(self) -> tuple[int, dict[Key, T | None]]:
        number, cut = self._number, self.open
        self._number, self.open = number + 1, {}
        return number, cut

    def settle(self, number: int, keys: Mapping[Key, T | None]) -> None:
        """Let go of what is committed now, unless a later cut has put another value."""
        cut_of, newest = self._cut_of, self.newest
        for key in keys:
            if cut_of[key] == number:
                del cut_of[key], newest[key]

    def drop(self) -> None:
        self.newest.clear()
        self.open.clear()
        self._cut_of.clear()


class OverlayStore(ABC):
    """States, ledger entries and accesses of batches under way, over the committed ones of a subclass.

    Batches are cut, and merged, in order; several can be under way.

    Args:
        codec: makes the records of a cut.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._states: _Layer[RecordState] = _Layer()
        self._entries: _Layer[LedgerEntry] = _Layer()
        self._accesses: _Layer[AccessState] = _Layer()
        self._cuts: deque[tuple[Delta, int, int, int]] = deque()

    @abstractmethod
    def _committed_state(self, key: Key) -> RecordState | None: ...

    @abstractmethod
    def _committed_entry(self, key: Key) -> LedgerEntry | None: ...

    @abstractmethod
    def _committed_access(self, key: Key) -> AccessState | None: ...

    @abstractmethod
    def _write(self, delta: Delta, offsets: Offsets) -> None:
        """Make a delta the committed state."""

    def get(self, key: Key) -> RecordState | None:
        """Return the newest state of a record, None if nothing is known of it."""
        newest = self._states.newest
        return newest[key] if key in newest else self._committed_state(key)

    def _holds(self, key: Key) -> bool:
        """Whether both values of a record are those of batches under way."""
        return key in self._states.newest and key in self._entries.newest

    def put(self, state: RecordState) -> None:
        """Replace a record's state."""
        self._states.put((state.entity, state.record_id), state)

    def remove(self, key: Key) -> None:
        """Remove a record's state: a tombstone is written."""
        self._states.put(key, None)

    def ledger(self, key: Key) -> LedgerEntry | None:
        """Return what the pollers remember of a record, None for nothing."""
        newest = self._entries.newest
        return newest[key] if key in newest else self._committed_entry(key)

    def put_ledger(self, entry: LedgerEntry) -> None:
        """Replace it; an empty one is removed, and one that was not there leaves no tombstone."""
        key = (entry.entity, entry.record_id)
        if not entry.empty:
            self._entries.put(key, entry)
        elif self.ledger(key) is not None:
            self._entries.put(key, None)

    def access(self, key: Key) -> AccessState | None:
        """Return the known shares of a record, None if nothing is known of them."""
        newest = self._accesses.newest
        return newest[key] if key in newest else self._committed_access(key)

    def put_access(self, access: AccessState) -> None:
        """Replace them."""
        self._accesses.put((access.entity, access.record_id), access)

    def remove_access(self, key: Key) -> None:
        """Forget them: a tombstone is written."""
        self._accesses.put(key, None)

    def cut(self) -> Delta:
        """Return what was put since the last cut, and keep it as under way until it is merged."""
        state_cut, states = self._states.cut()
        ledger_cut, ledger = self._entries.cut()
        access_cut, access = self._accesses.cut()
        delta = Delta(states, ledger, tuple(self._encode(states, ledger, access)), access)
        self._cuts.append((delta, state_cut, ledger_cut, access_cut))
        return delta

    def _encode(
        self,
        states: Mapping[Key, RecordState | None],
        ledger: Mapping[Key, LedgerEntry | None],
        accesses: Mapping[Key, AccessState | None],
    ) -> Iterator[OutboundRecord]:
        encode_state, encode_ledger = self._codec.encode_state, self._codec.encode_ledger
        for key, state in states.items():
            yield encode_state(key, state)
        for key, entry in ledger.items():
            yield encode_ledger(key, entry)
        for key, access in accesses.items():
            yield self._codec.encode_access(key, access)

    def merge(self, delta: Delta, offsets: Offsets) -> None:
        """Make a committed delta durable locally, with the offsets it brought the topics to.

        Raises:
            ValueError: it is not the oldest cut under way.
            StoreError: it can't be written.
        """
        if not self._cuts or self._cuts[0][0] is not delta:
            raise ValueError("cuts are merged in their order, once")
        self._write(delta, offsets)
        _, state_cut, ledger_cut, access_cut = self._cuts.popleft()
        self._states.settle(state_cut, delta.states)
        self._entries.settle(ledger_cut, delta.ledger)
        self._accesses.settle(access_cut, delta.access)

    def drop(self) -> None:
        """Forget everything that is not committed."""
        self._states.drop()
        self._entries.drop()
        self._accesses.drop()
        self._cuts.clear()
