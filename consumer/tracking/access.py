"""The values of sharing: explicit share rows, who they are for, what is known of one record, what came to pass.

A share is identified by record, grantee and row cause, never by its Id: a recalculation makes rows anew under other
Ids (sharing guide, "Sharing Recalculation").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypeAlias

from consumer.frozen import frozen

ShareKey: TypeAlias = tuple[str, str]
"""Grantee and row cause: with the record, what a share is identified by."""

OWNER: str = "Owner"
"""Row cause of the row that goes with OwnerId."""


class ShareCause(StrEnum):
    """What made us read the rows that told of a fact (``schemas/sharing.json``)."""

    BASELINE = "baseline"
    OWNER_CHANGE = "owner_change"
    INCREMENTAL = "incremental"
    SWEEP = "sweep"
    RULE_CHANGE = "rule_change"
    RECORD_DELETED = "record_deleted"


@dataclass(frozen=True, slots=True)
class Grantee:
    """Whom an id of a share row stands for.

    Attributes:
        kind: ``User``, or the group's Type: ``Queue``, ``Regular``, ``Role``, ``RoleAndSubordinates`` …
        name: its name, None if it has none or may not be read.
    """

    kind: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ShareRow:
    """One row of an object's share object.

    Attributes:
        record_id: the shared record, 18 characters.
        share_id: the row's own id.
        user_or_group_id: the grantee.
        row_cause: ``Owner``, ``Rule``, ``Manual`` …; empty where it was null.
        access_level: ``Read``, ``Edit`` or ``All``.
        modified_ms: LastModifiedDate, epoch milliseconds, whole seconds; None if it may not be read.
        modified_by: user id, None if it may not be read.
    """

    record_id: str
    share_id: str
    user_or_group_id: str
    row_cause: str
    access_level: str
    modified_ms: int | None = None
    modified_by: str | None = None

    @property
    def key(self) -> ShareKey:
        """What it is identified by within its record."""
        return self.user_or_group_id, self.row_cause


@frozen()
class KnownShare:
    """A share that a record has, as far as anybody knows.

    Attributes:
        user_or_group_id, row_cause: its identity within the record.
        access_level: as read last.
        share_id: of the row read last.
        grantee: whom it is for, None if that could not be resolved.
        since: not_before and not_after of when it came to have this level, epoch milliseconds; a None start: nobody
            knows, it may have been so before we first looked.
        modified_ms: LastModifiedDate of the row read last.
        seen_ms: it was there at this time for certain, epoch milliseconds of the org's time; the record's own
            ``as_of_ms`` and a sweep can say more.
        missing_ms: answer time of the first complete read that did not have it, None while it was not missed; then
            ``seen_ms`` alone says until when it was there.
        missed_again_ms: answer time of the second one that did not have it, a settle time later; that of the first
            where an owner change explains the loss (:attr:`loss_explained`), so that no third is needed.
    """

    user_or_group_id: str
    row_cause: str
    access_level: str
    share_id: str
    grantee: Grantee | None = None
    since: tuple[int | None, int] = (None, 0)
    modified_ms: int | None = None
    seen_ms: int = 0
    missing_ms: int | None = None
    missed_again_ms: int | None = None

    @property
    def key(self) -> ShareKey:
        """What it is identified by within its record."""
        return self.user_or_group_id, self.row_cause

    @property
    def loss_explained(self) -> bool:
        """Whether it was missed after an owner change, which takes rows for good."""
        return self.missing_ms is not None and self.missed_again_ms == self.missing_ms


@frozen(eq=False)
class AccessState:
    """The share rows of one record now; one record of the ``access`` topic, one row of the local store.

    Attributes:
        entity: object API name.
        record_id: 18-character id.
        shares: in the order they were first seen.
        complete: whether all rows of the record were read together; False while only single rows are known.
        as_of_ms: these were all its rows at this time, epoch milliseconds of the org's time; of an incomplete one,
            when the last row was read.
    """

    entity: str
    record_id: str
    shares: tuple[KnownShare, ...] = ()
    complete: bool = False
    as_of_ms: int = 0


@frozen()
class SharesDue:
    """A read of all share rows of a record that is owed.

    Attributes:
        due_ms: not before, epoch milliseconds of the org's time.
        cause: what the facts it brings will be said to come from.
        first_ms: commit time of the first owner change since the rows were last read, None if none made it due.
        last_ms: of the last one.
        changes: how many there were.
        created: whether the first of them created the record: it had no share before.
        by: user of the last one.
    """

    due_ms: int
    cause: ShareCause
    first_ms: int | None = None
    last_ms: int | None = None
    changes: int = 0
    created: bool = False
    by: str | None = None


@frozen()
class ShareFact:
    """Something that happened to a share, ready to be told (``schemas/sharing.json``).

    Attributes:
        fact_id: stable: the same fact has the same.
        kind: ``unseen`` says that between the two times shares may have come and gone: the owner changed faster than
            rows were read, or a row was away beside an owner change, as it also is in a recalculation.
        share_id, user_or_group_id, row_cause: of the row; None for ``unseen``.
        access_level: since the fact; of a revoked share, what it was. None for ``unseen``.
        previous_access_level: of ``level_changed``.
        not_before_ms, not_after_ms: the interval in which it happened, epoch milliseconds of the org's time; a None
            start: nobody knows, it may have been so before we first looked.
        modified_ms: LastModifiedDate of the row, None for a revoked one.
        changed_by: user id, as far as it is known.
        observed_ms: the answer that told it, epoch milliseconds.
    """

    fact_id: str
    kind: Literal["granted", "revoked", "level_changed", "unseen"]
    record_id: str
    share_id: str | None
    user_or_group_id: str | None
    grantee: Grantee | None
    access_level: str | None
    previous_access_level: str | None
    row_cause: str | None
    not_before_ms: int | None
    not_after_ms: int
    modified_ms: int | None
    changed_by: str | None
    observed_ms: int
    cause: ShareCause


@dataclass(frozen=True, slots=True)
class SharingRule:
    """One owner sharing rule: records owned by members of one group are shared with another.

    Attributes:
        rule_id: 18-character id.
        values: its fields by API name (Name, DeveloperName, Description, AccessLevel, GroupId: whose records,
            UserOrGroupId: who gains access), those the user may read.
        modified_ms: SystemModstamp, epoch milliseconds; None if it may not be read.
        modified_by: user id, None if it may not be read.
    """

    rule_id: str
    values: Mapping[str, str | None]
    modified_ms: int | None = None
    modified_by: str | None = None


@dataclass(frozen=True, slots=True)
class RuleFact:
    """Something that happened to a sharing rule (``schemas/sharing-rules.json``).

    Attributes:
        fact_id: stable.
        rule: as it is now; of a deleted one, as it was.
        changed: field to old and new value, of ``changed``.
        not_before_ms, not_after_ms: as in :class:`ShareFact`.
        changed_ms: when it happened, if Salesforce says so: SystemModstamp, or the delete log's time.
        observed_ms: the answer that told it.
        baseline: whether it was there before we first looked.
        grantees: of the rule's two ids, as far as they are resolved.
    """

    fact_id: str
    kind: Literal["created", "changed", "deleted"]
    rule: SharingRule
    changed: Mapping[str, tuple[str | None, str | None]]
    not_before_ms: int | None
    not_after_ms: int
    changed_ms: int | None
    observed_ms: int
    baseline: bool = False
    grantees: Mapping[str, Grantee] = field(default_factory=dict)
