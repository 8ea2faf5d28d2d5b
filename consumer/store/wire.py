"""The encoding of the deployment's own topics, as the stores take it."""

from __future__ import annotations

from consumer.delivery.access import access_tombstone, decode_access, encode_access
from consumer.delivery.internal import InternalRecord
from consumer.delivery.ledger import decode_ledger, encode_ledger
from consumer.delivery.names import Topics
from consumer.delivery.state import decode_state, encode_state, state_tombstone
from consumer.events import OutboundRecord
from consumer.store.codec import Codec, LedgerIndex, StateIndex
from consumer.tracking.access import AccessState
from consumer.tracking.values import Key, LedgerEntry, RecordState


def codec_of(topics: Topics, org_id: str) -> Codec:
    """Return the encoding of the ``state``, ``ledger`` and ``access`` topics.

    Args:
        topics: the deployment's topic names.
        org_id: 18-character org id.
    """

    def to_state(key: Key, state: RecordState | None) -> OutboundRecord:
        return state_tombstone(topics, *key) if state is None else encode_state(topics, org_id, state)

    def to_ledger(key: Key, entry: LedgerEntry | None) -> OutboundRecord:
        return encode_ledger(topics, LedgerEntry(*key) if entry is None else entry)

    def to_access(key: Key, access: AccessState | None) -> OutboundRecord:
        return access_tombstone(topics, *key) if access is None else encode_access(topics, org_id, access)

    return Codec(to_state, _state, _state_index, to_ledger, _entry, _ledger_index, to_access, _access, _access_index)


def _state(record_id: str, value: bytes) -> RecordState:
    return decode_state(record_id.encode(), value)


def _entry(record_id: str, value: bytes) -> LedgerEntry:
    entry = decode_ledger(record_id.encode(), value)
    return LedgerEntry(InternalRecord(record_id, value).text("entity"), record_id) if entry is None else entry


def _state_index(record_id: str, value: bytes) -> StateIndex:
    record = InternalRecord(record_id, value)
    deleted_ms = (record.optional_number("deleted_ms") or 0) if record.flag("deleted") else None
    return StateIndex(record.text("entity"), deleted_ms)


def _ledger_index(record_id: str, value: bytes) -> LedgerIndex:
    record = InternalRecord(record_id, value)
    due_ms = record.mapping("refresh")["due_ms"] if record.has("refresh") else None
    if due_ms is not None and type(due_ms) is not int:
        record.refuse("its refresh has no due_ms")
    shares_due_ms = record.mapping("shares").get("due_ms") if record.has("shares") else None
    if shares_due_ms is not None and type(shares_due_ms) is not int:
        record.refuse("its shares have no due_ms")
    return LedgerIndex(record.text("entity"), due_ms, record.has("facts") or record.has("feed"), shares_due_ms)


def _access(record_id: str, value: bytes) -> AccessState:
    return decode_access(record_id.encode(), value)


def _access_index(record_id: str, value: bytes) -> str:
    return InternalRecord(record_id, value).text("entity")
