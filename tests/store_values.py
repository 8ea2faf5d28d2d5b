"""States, ledger entries and an encoding for tests of the stores, which know no shape of their own."""

from __future__ import annotations

import json
from collections.abc import Callable

import orjson

from consumer.delivery.names import Topics
from consumer.events import OutboundRecord
from consumer.ports import Delta, Store
from consumer.store.codec import Codec, LedgerIndex, StateIndex
from consumer.tracking.access import AccessState, KnownShare, ShareCause, SharesDue
from consumer.tracking.feed_values import FeedSeen
from consumer.tracking.values import HistoryFact, Key, LedgerEntry, Match, RecordState, Refresh

ENTITY = "MessagingSession"
CHANNEL = "/data/MessagingSessionChangeEvent"
ORG = "00D000000000001AAA"
TOPICS = Topics("t.", [CHANNEL])


def record_id(number: int) -> str:
    """Return the id of a record."""
    return f"0Mw{number:015d}"


def key(number: int, entity: str = ENTITY) -> Key:
    """Return the key of a record."""
    return entity, record_id(number)


def state(
    number: int, *, version: int = 1, deleted_ms: int | None = None, entity: str = ENTITY, filling: int = 0
) -> RecordState:
    """Return a state; ``filling`` bytes make the image larger."""
    image = {"Status": f"s{version}"} | ({"Filling": "x" * filling} if filling else {})
    return RecordState(
        entity=entity,
        record_id=record_id(number),
        image={} if deleted_ms is not None else image,
        image_json=b"" if deleted_ms is not None else orjson.dumps({"Id": record_id(number), **image}),
        version=version,
        deleted=deleted_ms is not None,
        deleted_ms=deleted_ms,
    )


def entry(
    number: int,
    *,
    due_ms: int | None = None,
    facts: int = 0,
    shares_due_ms: int | None = None,
    feed: int = 0,
    entity: str = ENTITY,
) -> LedgerEntry:
    """Return a ledger entry with so many facts and feed items."""
    refresh = None if due_ms is None else Refresh(due_ms, 0, "ended")
    shares = None if shares_due_ms is None else SharesDue(shares_due_ms, ShareCause.SWEEP)
    items = tuple(FeedSeen(f"0D5{each:015d}", each) for each in range(feed))
    told = tuple(_fact(number, each) for each in range(facts))
    return LedgerEntry(entity, record_id(number), told, refresh, shares, items)


def access(number: int, *, shares: int = 1, as_of_ms: int = 0, entity: str = ENTITY) -> AccessState:
    """Return what is known of a record's shares."""
    known = tuple(KnownShare(f"005{each:015d}", "Rule", "Read", f"02c{each:015d}") for each in range(shares))
    return AccessState(entity, record_id(number), known, complete=True, as_of_ms=as_of_ms)


def _fact(number: int, index: int) -> HistoryFact:
    return HistoryFact(
        change_id=f"c{index}",
        revision=1,
        final=False,
        record_id=record_id(number),
        field="Status",
        history_field="Status",
        old="a",
        new="b",
        value_type=None,
        values="known",
        old_label=None,
        new_label=None,
        changed_ms=index,
        precision="ms",
        changed_by=None,
        origin="change_event",
        match=Match.PENDING,
    )


def codec_of(topics: Topics = TOPICS, on_decode: Callable[[str], None] = lambda _record_id: None) -> Codec:
    """Return an encoding of what :func:`state` and :func:`entry` make.

    Args:
        topics: where the records go.
        on_decode: is told the id of each decoded state.
    """

    def encode_state(of: Key, value: RecordState | None) -> OutboundRecord:
        fields = value and {
            "entity": value.entity,
            "image": dict(value.image),
            "version": value.version,
            "deleted_ms": value.deleted_ms,
        }
        return OutboundRecord(topics.of(of[0], "state"), of[1].encode(), orjson.dumps(fields) if fields else None)

    def decode_state(record: str, value: bytes) -> RecordState:
        on_decode(record)
        fields = json.loads(value)
        gone = fields["deleted_ms"] is not None
        return RecordState(
            entity=fields["entity"],
            record_id=record,
            image=fields["image"],
            image_json=b"" if gone else orjson.dumps({"Id": record, **fields["image"]}),
            version=fields["version"],
            deleted=gone,
            deleted_ms=fields["deleted_ms"],
        )

    def index_state(record: str, value: bytes) -> StateIndex:
        fields = orjson.loads(value)
        return StateIndex(fields["entity"], fields["deleted_ms"])

    def encode_ledger(of: Key, value: LedgerEntry | None) -> OutboundRecord:
        due_ms = value.refresh.due_ms if value and value.refresh else None
        shares_due_ms = value.shares.due_ms if value and value.shares else None
        fields = value and {
            "entity": value.entity,
            "due_ms": due_ms,
            "facts": len(value.facts),
            "shares_due_ms": shares_due_ms,
            "feed": len(value.feed),
        }
        return OutboundRecord(topics.ledger, of[1].encode(), orjson.dumps(fields) if fields else None)

    def decode_ledger(record: str, value: bytes) -> LedgerEntry:
        fields = json.loads(value)
        return entry(
            int(record[3:]),
            due_ms=fields["due_ms"],
            facts=fields["facts"],
            shares_due_ms=fields["shares_due_ms"],
            feed=fields["feed"],
            entity=fields["entity"],
        )

    def index_ledger(record: str, value: bytes) -> LedgerIndex:
        fields = orjson.loads(value)
        to_settle = bool(fields["facts"] or fields["feed"])
        return LedgerIndex(fields["entity"], fields["due_ms"], to_settle, fields["shares_due_ms"])

    def encode_access(of: Key, value: AccessState | None) -> OutboundRecord:
        fields = value and {"entity": value.entity, "shares": len(value.shares), "as_of_ms": value.as_of_ms}
        name = topics.of(of[0], "access")
        return OutboundRecord(name, of[1].encode(), orjson.dumps(fields) if fields else None)

    def decode_access(record: str, value: bytes) -> AccessState:
        fields = json.loads(value)
        return access(int(record[3:]), shares=fields["shares"], as_of_ms=fields["as_of_ms"], entity=fields["entity"])

    def index_access(_record: str, value: bytes) -> str:
        return str(orjson.loads(value)["entity"])

    return Codec(
        encode_state,
        decode_state,
        index_state,
        encode_ledger,
        decode_ledger,
        index_ledger,
        encode_access,
        decode_access,
        index_access,
    )


def contents(store: Store, numbers: int, entity: str = ENTITY) -> dict[int, tuple[int | None, int | None]]:
    """Return version and due time of the records below a number that have any."""
    found: dict[int, tuple[int | None, int | None]] = {}
    for number in range(numbers):
        kept, owed = store.get((entity, record_id(number))), store.ledger((entity, record_id(number)))
        if kept is not None or owed is not None:
            due_ms = owed.refresh.due_ms if owed is not None and owed.refresh is not None else None
            found[number] = (None if kept is None else kept.version, due_ms)
    return found


def committed(store: Store, *values: RecordState | LedgerEntry | AccessState | Key, offset: int = 0) -> Delta:
    """Put values (a key removes its state), and commit them."""
    for value in values:
        if isinstance(value, RecordState):
            store.put(value)
        elif isinstance(value, LedgerEntry):
            store.put_ledger(value)
        elif isinstance(value, AccessState):
            store.put_access(value)
        else:
            store.remove(value)
    delta = store.cut()
    store.merge(delta, {(TOPICS.of(ENTITY, "state"), 0): offset} if offset else {})
    return delta
