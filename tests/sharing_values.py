"""States with accesses, and builders of share reads, for the tests of sharing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from consumer.tracking.access import AccessState, Grantee, ShareCause, ShareFact, ShareRow, SharesDue
from consumer.tracking.arrivals import RecordShares, SharesRead
from consumer.tracking.sharing import SharingTracker
from consumer.tracking.values import Key, LedgerEntry, RecordState
from tests.tracking_values import ENTITY, KEY, RECORD, S0

SETTLE = 30_000
OVERLAP = 300_000
QUEUE = "00G000000000001AAA"
REP = "005000000000001AAA"
OTHER_REP = "005000000000002AAA"
TEAM = "00G000000000009AAA"


class SharingStates:
    """Record states, ledger entries and accesses in memory."""

    def __init__(self) -> None:
        self.states: dict[Key, RecordState] = {}
        self.entries: dict[Key, LedgerEntry] = {}
        self.accesses: dict[Key, AccessState] = {}
        self.puts = 0

    def get(self, key: Key) -> RecordState | None:
        return self.states.get(key)

    def put(self, state: RecordState) -> None:
        self.states[state.entity, state.record_id] = state

    def remove(self, key: Key) -> None:
        self.states.pop(key, None)

    def ledger(self, key: Key) -> LedgerEntry | None:
        return self.entries.get(key)

    def put_ledger(self, entry: LedgerEntry) -> None:
        key = (entry.entity, entry.record_id)
        if entry.empty:
            self.entries.pop(key, None)
        else:
            self.entries[key] = entry

    def access(self, key: Key) -> AccessState | None:
        return self.accesses.get(key)

    def put_access(self, access: AccessState) -> None:
        self.accesses[access.entity, access.record_id] = access
        self.puts += 1

    def remove_access(self, key: Key) -> None:
        self.accesses.pop(key, None)


def owned_by(owner: str, *, deleted: bool = False) -> RecordState:
    """Return the state of the record, as events tell its owner."""
    image = {} if deleted else {"OwnerId": owner}
    return RecordState(ENTITY, RECORD, image, b"", deleted=deleted)


def row(
    grantee: str,
    cause: str = "Rule",
    level: str = "Read",
    *,
    share: int = 1,
    at: int = 0,
    record_id: str = RECORD,
    by: str | None = "005000000000008AAA",
) -> ShareRow:
    """Return a share row, modified ``at`` seconds after S0."""
    return ShareRow(record_id, f"02c{share:012}AAA", grantee, cause, level, S0 + at * 1000, by)


def owner_row(grantee: str, *, share: int = 100, at: int = 0) -> ShareRow:
    """Return the row of an owner."""
    return row(grantee, "Owner", "All", share=share, at=at)


def whole(
    *rows: ShareRow,
    at: int,
    cause: ShareCause | None = ShareCause.SWEEP,
    record_id: str = RECORD,
    swept_from: int | None = None,
    grantees: Mapping[str, Grantee] | None = None,
) -> SharesRead:
    """Return a read of all rows of the record, asked ``at`` seconds after S0 and answered two seconds later."""
    return SharesRead(
        ENTITY,
        (RecordShares(record_id, rows),),
        whole=True,
        cause=cause,
        asked_ms=S0 + at * 1000,
        answered_ms=S0 + (at + 2) * 1000,
        grantees=grantees or {},
        swept_from_ms=None if swept_from is None else S0 + swept_from * 1000,
    )


def modified(*rows: ShareRow, at: int, polled: int | None = None) -> SharesRead:
    """Return what an incremental poll brought."""
    return SharesRead(
        ENTITY,
        (RecordShares(RECORD, rows),) if rows else (),
        whole=False,
        cause=ShareCause.INCREMENTAL,
        asked_ms=S0 + at * 1000,
        answered_ms=S0 + (at + 2) * 1000,
        polled_ms=None if polled is None else S0 + polled * 1000,
    )


def owe(states: SharingStates, due: SharesDue) -> None:
    """Make a read of the record's share rows owed."""
    states.put_ledger(LedgerEntry(ENTITY, RECORD, shares=due))


def changed_owner(*at: int, created: bool = False, by: str | None = REP) -> SharesDue:
    """Return what owner changes at these seconds make due."""
    times = [S0 + each * 1000 for each in at]
    return SharesDue(times[-1] + 3_000, ShareCause.OWNER_CHANGE, times[0], times[-1], len(times), created, by)


def tracker(states: SharingStates) -> SharingTracker:
    """Return a tracker over these states."""
    return SharingTracker(states, settle_ms=SETTLE, overlap_ms=OVERLAP)


def brief(facts: Sequence[ShareFact]) -> list[tuple[str, str | None, str | None, float | None, float]]:
    """Return kind, grantee, level and interval (seconds after S0) of facts."""
    return [
        (
            fact.kind,
            fact.user_or_group_id,
            fact.access_level,
            None if fact.not_before_ms is None else (fact.not_before_ms - S0) / 1000,
            (fact.not_after_ms - S0) / 1000,
        )
        for fact in facts
    ]


def due_of(states: SharingStates) -> SharesDue | None:
    """Return the read that is owed to the record."""
    entry = states.ledger(KEY)
    return None if entry is None else entry.shares


def known(states: SharingStates) -> AccessState:
    """Return what is known of the record's shares."""
    access = states.access(KEY)
    assert access is not None
    return access
