"""The values of tracking: what is known of a record, what a read row says, what a fact of history is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypeAlias

from consumer.events import Json
from consumer.frozen import frozen
from consumer.tracking.access import SharesDue
from consumer.tracking.feed_values import FeedSeen

Key: TypeAlias = tuple[str, str]
"""Object API name and 18-character record id."""

ImageKind: TypeAlias = Literal["full", "completed", "partial", "none"]


@frozen()
class SourceVersion:
    """The event that moved an image last.

    Attributes:
        epoch: counts lost positions; commit numbers are comparable within one epoch only.
        commit_number: diagnostic.
        sequence_number: place in its transaction.
        commit_ms: commit time, epoch milliseconds, whole seconds.
    """

    epoch: int
    commit_number: int
    sequence_number: int
    commit_ms: int


@frozen(eq=False)
class RecordState:
    """What is known of one record now; one record of the ``state`` topic, one row of the local store.

    Attributes:
        entity: object API name.
        record_id: 18-character id.
        image: the fields whose values are known (without ``Id``), None for known nulls; compounds as dicts of
            their known parts. Never changed in place.
        image_json: canonical JSON of the image with ``Id`` first; these very bytes are ``changes.after``, the
            next ``before`` and ``state.image``. Empty for a deleted record.
        unknown: names of schema fields the image has no value for, in schema order.
        suspect: fields whose known value may be out of date, because a gap or loss touched the record; they are
            left out of ``before`` and ``after`` until an event or a row sets them again.
        version: emitted changes so far (``record_version``).
        source: the event that moved the image last, None before the first.
        row_stamp_ms: SystemModstamp of the row read last (S), epoch milliseconds, None if none was.
        row_read_ms: server's time of that answer + 1 s (D), epoch milliseconds, None if none was.
        since: field name to the time (ISO text) since when it has its value, for ``Status`` and ``OwnerId``.
        deleted: whether the record is gone; the image is empty then, versions are kept.
        deleted_ms: when it was found gone, epoch milliseconds; the tombstone follows after the grace.
        completed: whether missing fields were filled by a read by id.
        metrics: MessagingSessionMetrics by type, None until read.
        gap: change type of the gap event (or other cause) that put the record in doubt, None if none is pending.
        incomplete: compounds in the image of which only some parts are known: an absent part of these is unknown,
            an absent part of any other compound is null.
        ahead: fields that enrichment told before the event that may have changed them has come.
        made_for: the list of fields that image and unknown were made for, so that the next event need not compare;
            no part of what is known, and None when read back.
    """

    entity: str
    record_id: str
    image: Mapping[str, Json]
    image_json: bytes
    unknown: tuple[str, ...] = ()
    suspect: frozenset[str] = frozenset()
    version: int = 0
    source: SourceVersion | None = None
    row_stamp_ms: int | None = None
    row_read_ms: int | None = None
    since: Mapping[str, str] = field(default_factory=dict)
    deleted: bool = False
    deleted_ms: int | None = None
    completed: bool = False
    metrics: Mapping[str, Json] | None = None
    gap: str | None = None
    incomplete: frozenset[str] = frozenset()
    ahead: frozenset[str] = frozenset()
    made_for: tuple[str, ...] | None = None

    @property
    def stale(self) -> bool:
        """Whether a repair is pending for some of it."""
        return self.gap is not None or bool(self.suspect)

    @property
    def image_kind(self) -> ImageKind:
        """How complete the image is, in the words of ``schemas/changes.json``."""
        if self.deleted or len(self.image) == len(self.suspect):
            return "none"
        if self.unknown or self.suspect or self.incomplete:
            return "partial"
        return "completed" if self.completed else "full"


@dataclass(frozen=True, slots=True)
class EntityFacts:
    """What is known of an object from describe and FieldDefinition; everything None before they were read.

    Attributes:
        entity: object API name.
        visible: API names of fields the user may read (compounds by their own name), None if not known.
        not_in_events: fields that events never carry although the schema has them; null in a CREATE says
            nothing about them. Derived fields (CDC guide), the message counts and the like.
        tracked: fields with history tracking on, as ``history_field`` names; None if not known; empty when
            tracking is off.
        no_values: event field names whose history rows hold no values: long text, rich text, encrypted text,
            multi-select picklists.
        lookups: event field names that are references: Salesforce writes two history rows for them.
        has_history: whether the object has a history object to poll.
        has_metrics: whether MessagingSessionMetrics can be read (MessagingSession only).
        has_shares: whether its share rows are wanted and can be read.
        has_rules: likewise its owner sharing rules.
        has_feed: likewise its feed.
    """

    entity: str
    visible: frozenset[str] | None = None
    not_in_events: frozenset[str] = frozenset()
    tracked: frozenset[str] | None = None
    no_values: frozenset[str] = frozenset()
    lookups: frozenset[str] = frozenset()
    has_history: bool = False
    has_metrics: bool = False
    has_shares: bool = False
    has_rules: bool = False
    has_feed: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One row read by REST or Bulk, in canonical form.

    Attributes:
        record_id: 18-character id.
        values: the fields that were read and the schema has, None where null, without ``Id``. From Bulk an empty
            text is None.
        stamp_ms: SystemModstamp (S), epoch milliseconds, whole seconds.
        deleted: IsDeleted of a queryAll.
    """

    record_id: str
    values: Mapping[str, Json]
    stamp_ms: int
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One row of the object's history object (MessagingSessionHistory and the like).

    Attributes:
        history_id: its own id.
        record_id: the record it tells of, 18 characters.
        history_field: Salesforce's name, such as ``Status``, ``Owner``, ``created``.
        data_type: Salesforce's, None if it was null.
        old, new: canonical values, None where null.
        created_ms: CreatedDate, epoch milliseconds, whole seconds.
        created_by: user id.
    """

    history_id: str
    record_id: str
    history_field: str
    data_type: str | None
    old: Json
    new: Json
    created_ms: int
    created_by: str


class Match(StrEnum):
    """How far a fact of history is confirmed (``schemas/history.json``)."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    EVENT_ONLY = "event_only"
    ROW_ONLY = "row_only"
    NOT_TRACKED = "not_tracked"
    BACKFILL = "backfill"


@frozen()
class FieldChange:
    """One field's change, as an event or a compared row tells it; input of the history room.

    Attributes:
        field: API name or path, ``OwnerId`` or ``BillingAddress.City``; ``created`` for a CREATE as a whole.
        old, new: canonical values.
        old_known: False when there was no image to take ``old`` from.
        new_known: False for a diff that could not be applied.
    """

    field: str
    old: Json
    new: Json
    old_known: bool = True
    new_known: bool = True


@frozen()
class HistoryFact:
    """One field change of one record, in its newest revision.

    Attributes:
        change_id: same for all revisions of the fact.
        revision: counts from 1; the highest wins.
        final: no further revision will come.
        values: ``known``, ``old_unknown``, ``truncated_255`` or ``not_stored``.
        changed_ms: epoch milliseconds.
        precision: ``ms`` or ``s``.
        origin: ``change_event``, ``history_row`` or ``resync``.
        history_ids: ids of the rows that confirmed it (two for a lookup).
        event_id: the event that said it, None for rows.
        window_id: the loss window it was restored for.
        seen_ms: when it was first seen, epoch milliseconds; ``confirm_within`` counts from there.
        row_ms: CreatedDate of its rows, epoch milliseconds, None without rows; an event's commit time can differ.
    """

    change_id: str
    revision: int
    final: bool
    record_id: str
    field: str
    history_field: str
    old: Json
    new: Json
    value_type: str | None
    values: Literal["known", "old_unknown", "truncated_255", "not_stored"]
    old_label: str | None
    new_label: str | None
    changed_ms: int
    precision: Literal["ms", "s"]
    changed_by: str | None
    origin: Literal["change_event", "history_row", "resync"]
    match: Match
    history_ids: tuple[str, ...] = ()
    event_id: str | None = None
    window_id: str | None = None
    seen_ms: int = 0
    row_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Refresh:
    """A read by id that is owed to a record: after its end, or because nothing was known of it.

    Attributes:
        due_ms: not before, epoch milliseconds of the org's time.
        tries: reads made in vain so far (metrics rows come late).
        reason: ``ended`` or ``unknown``.
    """

    due_ms: int
    tries: int
    reason: Literal["ended", "unknown"]


@frozen(eq=False)
class LedgerEntry:
    """What the pollers must remember of one record; one record of the ``ledger`` topic, removed when empty.

    Attributes:
        entity: object API name.
        record_id: 18-character id.
        facts: facts that are not final, and final ones whose rows a poll's overlap can still bring again.
        refresh: the read that is owed, None if none is.
        shares: the read of its share rows that is owed, None if none is.
        feed: items of its feed that were told and that a poll's overlap can still bring again.
    """

    entity: str
    record_id: str
    facts: tuple[HistoryFact, ...] = ()
    refresh: Refresh | None = None
    shares: SharesDue | None = None
    feed: tuple[FeedSeen, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to remember."""
        return not self.facts and self.refresh is None and self.shares is None and not self.feed
