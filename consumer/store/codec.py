"""How states and ledger entries become records of Kafka, and come back; the stores themselves know no shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from consumer.events import OutboundRecord
from consumer.tracking.access import AccessState
from consumer.tracking.values import Key, LedgerEntry, RecordState


class StateIndex(NamedTuple):
    """What the store looks states up by.

    Attributes:
        entity: object API name.
        deleted_ms: when the record was found gone, epoch milliseconds, None for a live one.
    """

    entity: str
    deleted_ms: int | None


class LedgerIndex(NamedTuple):
    """What the store looks ledger entries up by.

    Attributes:
        entity: object API name.
        due_ms: when the owed read is due, epoch milliseconds, None if none is owed.
        facts: whether it has facts of history or feed items, which are to be settled.
        shares_due_ms: when the owed read of share rows is due, likewise.
    """

    entity: str
    due_ms: int | None
    facts: bool
    shares_due_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Codec:
    """The encoders of the deployment.

    Attributes:
        encode_state: the record of a state; None gives its tombstone.
        decode_state: the state of a record id and a value.
        index_state: only what it is looked up by; much cheaper than decoding.
        encode_ledger: likewise for ledger entries.
        decode_ledger: likewise.
        index_ledger: likewise.
        encode_access: likewise for the known shares of records.
        decode_access: likewise.
        index_access: the object's API name only.
    """

    encode_state: Callable[[Key, RecordState | None], OutboundRecord]
    decode_state: Callable[[str, bytes], RecordState]
    index_state: Callable[[str, bytes], StateIndex]
    encode_ledger: Callable[[Key, LedgerEntry | None], OutboundRecord]
    decode_ledger: Callable[[str, bytes], LedgerEntry]
    index_ledger: Callable[[str, bytes], LedgerIndex]
    encode_access: Callable[[Key, AccessState | None], OutboundRecord]
    decode_access: Callable[[str, bytes], AccessState]
    index_access: Callable[[str, bytes], str]


def index_of_state(state: RecordState) -> StateIndex:
    """Return what a state is looked up by."""
    return StateIndex(state.entity, (state.deleted_ms or 0) if state.deleted else None)


def index_of_ledger(entry: LedgerEntry) -> LedgerIndex:
    """Return what a ledger entry is looked up by."""
    return LedgerIndex(
        entry.entity,
        None if entry.refresh is None else entry.refresh.due_ms,
        bool(entry.facts or entry.feed),
        None if entry.shares is None else entry.shares.due_ms,
    )


def mirrored(topic: str) -> bool:
    """Return whether a topic is one that the store holds a copy of."""
    return topic.endswith((".state", ".ledger", ".access"))
