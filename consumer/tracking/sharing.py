"""Who has explicit access to a record: share rows as read become grants, revocations and level changes.

Every fact has an interval in which it happened. It begins when the share is known to have been otherwise (all rows of
the record were read, a sweep or poll passed it), and ends with the answer that told it; that of an owner's row begins
with the commit that changed the owner. A recalculation deletes rows and makes them anew (sharing guide), so
that one reading that does not have a row proves little. Gone is what a second one, some time later, misses too, if an
owner change explains it, and else what a third one misses: recalculations can follow one another, and two readings
can each meet one. Not yet there is what three readings so far apart did not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from consumer.events import ChangeType
from consumer.tracking.access import (
    OWNER,
    AccessState,
    Grantee,
    KnownShare,
    ShareCause,
    ShareFact,
    ShareKey,
    ShareRow,
    SharesDue,
)
from consumer.tracking.arrivals import RecordShares, SharesRead
from consumer.tracking.changes import TrackedChange
from consumer.tracking.sharing_bounds import SECOND_MS, Bounds, Known, Reading, Readings, contains, kept
from consumer.tracking.states import States
from consumer.tracking.timeline_values import time_of
from consumer.tracking.values import Key, LedgerEntry

READ_AFTER_MS: Final = 3_000
"""How long after an owner change its rows are read: commit times have whole seconds, and rows come with the commit."""

READ_BY_MS: Final = 15_000
"""Further owner changes put a read off, so that one read serves several, but not for longer than this."""

SHARES_POLL: Final = "poll:shares:"
"""Name of how far incremental polls got, before the object; state: ``complete_to_ms`` (rows with an earlier
LastModifiedDate are read and settled), ``judged_to_ms`` (earlier ones were looked at for recalculations) and ``polls``
(when the last ones began and ended)."""

SWEPT: Final = "swept:"
"""Name of what the last complete sweep was like, before the object; state: ``begun_ms``, ``ended_ms``,
``rows``, and in ``sweeps`` when the last ones began and ended."""

SWEEP_WANTED: Final = "sweep-wanted:"
"""Name of a wish for a sweep before its time, before the object; state: ``since_ms``, ``last_ms``."""

_OWNER_FIELD: Final = "OwnerId"


class SharingTracker:
    """Keeps the known shares of records; pure and synchronous.

    Args:
        states: where accesses and ledger entries are found and put.
        settle_ms: how long after a row was missed another read can confirm that it is gone.
        overlap_ms: how far each incremental poll reaches back.
    """

    def __init__(self, states: States, *, settle_ms: int, overlap_ms: int) -> None:
        self._states = states
        self._settle_ms = settle_ms
        self._overlap_ms = overlap_ms
        self._sweeps: dict[str, tuple[Reading, ...]] = {}
        self._polls: dict[str, tuple[Reading, ...]] = {}

    def restore(
        self, entity: str, *, sweeps: Iterable[Sequence[int]] = (), polls: Iterable[Sequence[int]] = ()
    ) -> None:
        """Take in how far sweeps and polls of an object had got.

        Args:
            entity: the shared object.
            sweeps: when the last complete ones began and ended, see :meth:`swept`.
            polls: when the last ones began and ended, see :meth:`polled`.
        """
        self._sweeps[entity] = self._sweeps.get(entity) or tuple(Reading(*each) for each in sweeps)
        self._polls[entity] = self._polls.get(entity) or tuple(Reading(*each) for each in polls)

    def polled(self, entity: str, poll: Reading) -> tuple[Reading, ...]:
        """Return the polls to remember, once one is taken in: the newest one last."""
        return kept(self._polls.get(entity, ()), poll, self._settle_ms)

    def swept(self, entity: str, sweep: Reading) -> tuple[Reading, ...]:
        """Return the complete sweeps to remember, once one is taken in: the newest one last."""
        return kept(self._sweeps.get(entity, ()), sweep, self._settle_ms)

    @staticmethod
    def owed(change: TrackedChange, due: SharesDue | None, by: str | None, *, event: bool) -> SharesDue | None:
        """Return the read of share rows that a change makes due, None if it leaves things as they are.

        Args:
            change: what became of the record.
            due: what is owed already.
            by: who made the change.
            event: whether an event told it; a row does not tell when the owner changed.
        """
        cause = cause_of(change)
        if cause is None:
            return None
        at_ms = change.stamp_ms
        created = event and change.change_type == ChangeType.CREATE
        due_ms = at_ms + READ_AFTER_MS
        if due is None:
            return SharesDue(due_ms, cause, at_ms, at_ms, 1, created, by) if event else SharesDue(due_ms, cause, by=by)
        first_ms, last_ms = due.first_ms, due.last_ms
        if first_ms is not None:
            due_ms = min(max(due.due_ms, due_ms), first_ms + READ_BY_MS)
        if event:
            first_ms = at_ms if first_ms is None else min(first_ms, at_ms)
            last_ms = at_ms if last_ms is None else max(last_ms, at_ms)
        return SharesDue(due_ms, cause, first_ms, last_ms, due.changes + event, due.created or created, by)

    def on_read(self, read: SharesRead) -> list[ShareFact]:
        """Take in share rows and return what they tell that was not known."""
        told: list[ShareFact] = []
        for record in read.records:
            told += self._on_record(read, record)
        if read.polled_ms is not None:
            self._polls[read.entity] = self.polled(read.entity, Reading(read.polled_ms, read.answered_ms))
        if read.swept_from_ms is not None:
            self._sweeps[read.entity] = self.swept(read.entity, Reading(read.swept_from_ms, read.answered_ms))
        return told

    def _on_record(self, read: SharesRead, record: RecordShares) -> list[ShareFact]:
        key = (read.entity, record.record_id)
        before = self._states.access(key)
        if not read.whole and before is not None and before.complete and has_no_news(before, record, read.grantees):
            return []  # as most of what polls read again
        entry = self._states.ledger(key) or LedgerEntry(*key)
        sweeps = self._sweeps.get(read.entity, ())
        readings = Readings(sweeps, self._polls.get(read.entity, ()), self._overlap_ms, self._settle_ms)
        bounds = Bounds(before, entry.shares, readings, partial(self._known, key))
        comparison = Comparison(read, record, before, bounds, self._settle_ms)
        comparison.compare()
        # A sweep that finds everything as it was writes nothing: when it is through, it speaks for all records.
        news = before is None or comparison.changed or comparison.known_whole != before.complete
        if news or (read.whole and entry.shares is not None):
            self._put(key, comparison.after())
        due = self._still_due(read, entry.shares, comparison)
        if due != entry.shares:
            self._states.put_ledger(replace(entry, shares=due))
        return comparison.told

    def _known(self, key: Key) -> Known:
        state = self._states.get(key)
        if state is None or state.deleted:
            return Known()
        owner = None if _OWNER_FIELD in state.suspect else state.image.get(_OWNER_FIELD)
        return Known(owner if isinstance(owner, str) else None, time_of(state.image.get("CreatedDate")))

    def _put(self, key: Key, after: AccessState) -> None:
        if not after.shares and after.complete:
            state = self._states.get(key)
            if state is None or state.deleted:
                if self._states.access(key) is not None:
                    self._states.remove_access(key)
                return
        self._states.put_access(after)

    def _still_due(self, read: SharesRead, due: SharesDue | None, comparison: Comparison) -> SharesDue | None:
        """Return what is owed after a read: changes it may not have seen, rows it missed, those beside a single row."""
        if not read.whole:
            if due is not None or comparison.known_whole:
                return due
            return SharesDue(read.answered_ms, comparison.cause)
        left = None if due is None or due.last_ms is None or contains(read, due.last_ms) else replace(due, changes=1)
        if not comparison.missing:
            return left
        again_ms = read.answered_ms + self._settle_ms
        if left is not None:
            return replace(left, due_ms=min(left.due_ms, again_ms))
        return SharesDue(again_ms, comparison.cause, by=None if due is None else due.by)


class Comparison:
    """One record's rows against what was known of its shares.

    Args:
        read: what the rows came with.
        record: the rows.
        before: what was known.
        bounds: between which times things happened.
        settle_ms: how long a share must have been missed before another read confirms that it is gone.

    Attributes:
        told: what is to be told.
        changed: whether anything that is kept changed.
        missing: whether a share waits for another read.
        cause: what facts are said to come from.
    """

    __slots__ = (
        "_before",
        "_bounds",
        "_read",
        "_record",
        "_settle_ms",
        "_shares",
        "_unsure_ms",
        "cause",
        "changed",
        "missing",
        "told",
    )

    def __init__(
        self, read: SharesRead, record: RecordShares, before: AccessState | None, bounds: Bounds, settle_ms: int
    ) -> None:
        self._settle_ms = settle_ms
        self._read = read
        self._record = record
        self._before = before
        self._bounds = bounds
        self._shares: dict[ShareKey, KnownShare] = {} if before is None else {each.key: each for each in before.shares}
        self._unsure_ms: int | None = None
        self.cause = self._told_cause()
        self.told: list[ShareFact] = []
        self.changed = False
        self.missing = False

    @property
    def known_whole(self) -> bool:
        """Whether all shares of the record are known after this."""
        return self._read.whole or (self._before is not None and self._before.complete)

    def _told_cause(self) -> ShareCause:
        read, due = self._read, self._bounds.due
        if due is not None and read.whole:
            return due.cause
        if read.cause in {None, ShareCause.INCREMENTAL}:
            # What is met before the first sweep was through may have been there all along.
            first = self._before is None and self._bounds.whole_ms is None
            return ShareCause.BASELINE if first else ShareCause.INCREMENTAL
        if read.cause is ShareCause.BASELINE and self._before is not None and self._before.complete:
            return ShareCause.SWEEP
        return read.cause

    def compare(self) -> None:
        """Find what is new, what changed, and what is missing."""
        if self._read.whole:
            self._tell_unseen()
        rows = strongest(self._record.rows)
        for key, row in rows.items():
            known = self._shares.get(key)
            if known is None:
                self._granted(row, self._bounds.of_grant(row, self._read.answered_ms))
            else:
                self._seen(known, row)
        if self._read.whole:
            for key in [key for key in self._shares if key not in rows]:
                self._missed(self._shares[key])
        if self._unsure_ms is not None:
            self._unseen(self._unsure_ms, self._read.answered_ms)

    def after(self) -> AccessState:
        """Return what is known of the record's shares now."""
        before, read = self._before, self._read
        as_of_ms = read.asked_ms if read.whole or before is None else before.as_of_ms
        if before is not None:
            as_of_ms = max(as_of_ms, before.as_of_ms)
        complete = self.known_whole
        return AccessState(read.entity, self._record.record_id, tuple(self._shares.values()), complete, as_of_ms)

    # What a row tells

    def _granted(self, row: ShareRow, when: tuple[int | None, int]) -> None:
        known = self._known(row, when)
        self._shares[known.key] = known
        self.changed = True
        self._tell("granted", row.share_id, known, when, row=row)

    def _seen(self, known: KnownShare, row: ShareRow) -> None:
        bounds, answered_ms = self._bounds, self._read.answered_ms
        if known.missing_ms is not None and self._came_back(known, row):
            if known.row_cause == OWNER:
                self._tell("revoked", known.share_id, known, self._gone(known, known.missing_ms))
                self._granted(row, bounds.of_grant(row, answered_ms))
                return
            # It went and came back with the owner, or a recalculation had it away just then: nothing tells which.
            self._unsure_ms = min(self._unsure_ms or known.seen_ms, known.seen_ms)
        if row.access_level != known.access_level:
            when = bounds.of_level(known, row, answered_ms)
            moved = self._known(row, when)
            self._shares[known.key] = moved
            self.changed = True
            self._tell("level_changed", row.share_id, moved, when, row=row, previous=known.access_level)
            return
        if not is_as_known(known, row, self._read.grantees):
            self._shares[known.key] = self._known(row, known.since)
            self.changed = True

    def _owner_changed(self, known: KnownShare) -> bool:
        due = self._bounds.due
        return due is not None and due.last_ms is not None and due.last_ms >= known.seen_ms - SECOND_MS

    def _came_back(self, known: KnownShare, row: ShareRow) -> bool:
        """Return whether a share that was missed may have gone with an owner and have come back with the next.

        What is older than the change, or was gone without one, a recalculation had away.
        """
        due = self._bounds.due
        if due is None or due.first_ms is None or not self._owner_changed(known):
            return False
        if known.row_cause == OWNER:
            return True
        return known.loss_explained and (row.modified_ms is None or row.modified_ms >= due.first_ms - SECOND_MS)

    def _missed(self, known: KnownShare) -> None:
        answered_ms = self._read.answered_ms
        if known.missing_ms is None:
            explained = known.row_cause == OWNER or self._owner_changed(known)
            seen_ms, missing_ms = self._bounds.of_loss(known, answered_ms)
            again_ms = missing_ms if explained else None
            self._shares[known.key] = replace(known, seen_ms=seen_ms, missing_ms=missing_ms, missed_again_ms=again_ms)
            self.changed = self.missing = True
            return
        again_ms = known.missed_again_ms
        if again_ms is None and self._owner_changed(known):
            again_ms = known.missing_ms  # the event came after the reading that missed it first
        if self._read.asked_ms < (again_ms or known.missing_ms) + self._settle_ms:
            self.missing = True
            if again_ms != known.missed_again_ms:
                self._shares[known.key] = replace(known, missed_again_ms=again_ms)
                self.changed = True
            return
        if again_ms is None:
            self._shares[known.key] = replace(known, missed_again_ms=answered_ms)
            self.changed = self.missing = True
            return
        del self._shares[known.key]
        self.changed = True
        self._tell("revoked", known.share_id, known, self._gone(known, known.missing_ms))

    def _gone(self, known: KnownShare, missing_ms: int) -> tuple[int, int]:
        """Return the interval in which a share went.

        The first reading that missed it may have met a recalculation, but those leave owners' rows alone.
        """
        if known.row_cause == OWNER:
            return known.seen_ms, missing_ms
        return known.seen_ms, max(self._read.answered_ms, missing_ms)

    def _known(self, row: ShareRow, since: tuple[int | None, int]) -> KnownShare:
        before = self._shares.get(row.key)
        grantee = self._read.grantees.get(row.user_or_group_id)
        if grantee is None and before is not None:
            grantee = before.grantee
        return KnownShare(
            row.user_or_group_id,
            row.row_cause,
            row.access_level,
            row.share_id,
            grantee,
            since,
            row.modified_ms,
            self._read.asked_ms,
        )

    # Telling

    def _tell_unseen(self) -> None:
        """Say so if the owner changed several times since the rows were last read: what was in between nobody saw.

        An earlier read proves nothing of it: its rows can be later than all of these changes, whose events came late.
        """
        due, read = self._bounds.due, self._read
        if due is None or due.changes < 2 or due.first_ms is None or due.last_ms is None:
            return
        # A read that may not have the last change is followed by another, which may tell of the same span once more.
        early = "" if contains(read, due.last_ms) else f":{read.asked_ms}"
        self._unseen(due.first_ms, due.last_ms + SECOND_MS, early)

    def _unseen(self, first_ms: int, last_ms: int, id_suffix: str = "") -> None:
        record_id, due = self._record.record_id, self._bounds.due
        self.told.append(
            ShareFact(
                fact_id=f"unseen:{record_id}:{first_ms}:{last_ms}{id_suffix}",
                kind="unseen",
                record_id=record_id,
                share_id=None,
                user_or_group_id=None,
                grantee=None,
                access_level=None,
                previous_access_level=None,
                row_cause=None,
                not_before_ms=first_ms,
                not_after_ms=last_ms,
                modified_ms=None,
                changed_by=None if due is None else due.by,
                observed_ms=self._read.answered_ms,
                cause=self.cause,
            )
        )

    def _tell(
        self,
        kind: str,
        share_id: str,
        share: KnownShare,
        when: tuple[int | None, int],
        *,
        row: ShareRow | None = None,
        previous: str | None = None,
    ) -> None:
        record_id = self._record.record_id
        stamp = share.modified_ms if share.modified_ms is not None else when[1]
        level = share.access_level
        due = self._bounds.due
        by = row.modified_by if row is not None else None if due is None else due.by
        self.told.append(
            ShareFact(
                fact_id=f"{kind}:{record_id}:{share_id}:{level}:{stamp}",
                kind=kind,  # type: ignore[arg-type]  # one of three, given above
                record_id=record_id,
                share_id=share_id,
                user_or_group_id=share.user_or_group_id,
                grantee=share.grantee,
                access_level=level,
                previous_access_level=previous,
                row_cause=share.row_cause,
                not_before_ms=when[0],
                not_after_ms=when[1],
                modified_ms=None if row is None else row.modified_ms,
                changed_by=by,
                observed_ms=self._read.answered_ms,
                cause=self.cause,
            )
        )


_LEVELS: Final[Mapping[str, int]] = {"Read": 1, "Edit": 2, "All": 3}


def strongest(rows: Iterable[ShareRow]) -> dict[ShareKey, ShareRow]:
    """Return one row for each identity: the platform keeps one, and during a recalculation two can be read."""
    found: dict[ShareKey, ShareRow] = {}
    for row in rows:
        other = found.get(row.key)
        if other is None or (_LEVELS.get(row.access_level, 0), row.modified_ms or 0) > (
            _LEVELS.get(other.access_level, 0),
            other.modified_ms or 0,
        ):
            found[row.key] = row
    return found


def is_as_known(share: KnownShare, row: ShareRow, grantees: Mapping[str, Grantee]) -> bool:
    """Return whether a row tells nothing of a share, nor of whom it is for."""
    same = (row.share_id, row.modified_ms, row.access_level) == (share.share_id, share.modified_ms, share.access_level)
    named = share.grantee is not None or grantees.get(row.user_or_group_id) is None
    return same and named and share.missing_ms is None


def has_no_news(access: AccessState, record: RecordShares, grantees: Mapping[str, Grantee]) -> bool:
    """Return whether all of some rows of a record are as known."""
    known = {share.key: share for share in access.shares}
    return all(row.key in known and is_as_known(known[row.key], row, grantees) for row in record.rows)


def cause_of(change: TrackedChange) -> ShareCause | None:
    """Return why a change makes share rows due: a record that came, went, or has another owner."""
    if change.op == "d":
        return ShareCause.RECORD_DELETED
    if change.op == "c":
        return ShareCause.OWNER_CHANGE
    if change.op == "r" and change.before is None:
        return None  # a first sight says nothing of the owner; the sweep reads its rows
    named = any(each.field == _OWNER_FIELD for each in change.fields)
    return ShareCause.OWNER_CHANGE if named or _OWNER_FIELD in (change.changed_fields or ()) else None


def unresolved(rows: Iterable[ShareRow], known: Mapping[str, Grantee]) -> list[str]:
    """Return the grantees of rows that are not resolved yet, each once."""
    return [each for each in dict.fromkeys(row.user_or_group_id for row in rows) if each not in known]
