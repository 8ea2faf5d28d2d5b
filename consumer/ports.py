"""What the pipeline needs from the world, without saying how it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NoReturn, Protocol, TypeAlias

from consumer.buffer import EventBuffer
from consumer.changes.rows import FieldInfo, RowPlan
from consumer.events import Json, LossWindow, OutboundRecord
from consumer.pages import DeletedIds, FeedPage, HistoryPage, OrgDefault, RowsPage, RulesPage, SharesPage
from consumer.position import Position
from consumer.tracking.access import AccessState, Grantee
from consumer.tracking.states import States
from consumer.tracking.values import Key, LedgerEntry, RecordState

Companion: TypeAlias = Literal["shares", "rules", "feed"]
"""An object that stands beside another: its share rows, its owner sharing rules, its feed."""

Offsets: TypeAlias = Mapping[tuple[str, int], int]
"""Topic and partition to the next offset to be read."""


class SchemaSource(Protocol):
    """Gives writer schemas by id; a schema id never changes its meaning."""

    async def fetch(self, schema_id: str) -> str:
        """Return the schema's Avro JSON.

        Raises:
            SchemaUnavailableError: it can't be had now; try again.
            SchemaRefusedError: it will not be given.
        """
        ...


class EventStream(Protocol):
    """One channel of the Pub/Sub API."""

    async def run(self, start: Position, buffer: EventBuffer) -> NoReturn:
        """Subscribe at ``start`` and put what arrives into ``buffer``, for ever.

        Ends of the call that a new Subscribe mends are mended inside, from the last item put into the buffer;
        refused logins and a used-up delivery allowance are tried again slowly.

        Raises:
            PositionLostError: the replay id of the position is expired or refused.
            TopicRefusedError: the topic can't be read by this user.
            ProtocolError: the protocol was broken.
        """
        ...


@dataclass(frozen=True, slots=True)
class Restored:
    """What Kafka knows about one subscription.

    Attributes:
        position: the committed position, None before the first commit.
        windows: open loss windows by id.
        recent_event_ids: ids of events committed lately, or in the whole retention if redelivery is possible.
        last_event_ms: commit time of the last committed event, epoch milliseconds, None if there was none.
        committed_ms: when the position was committed, epoch milliseconds, None before the first commit.
        progress: how far jobs and polls got, by name; see :class:`consumer.tracking.arrivals.Progress`.
    """

    position: Position | None
    windows: Mapping[str, LossWindow] = field(default_factory=dict)
    recent_event_ids: frozenset[str] = frozenset()
    last_event_ms: int | None = None
    committed_ms: int | None = None
    progress: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Delta:
    """What a batch changes in the tracked state; merged into the local store once the batch is committed.

    Attributes:
        states: newest state of every record the batch touched, None for one whose state is removed.
        ledger: likewise of ledger entries.
        records: what Kafka is given of them, encoded once: one record for each of ``states``, then one for each of
            ``ledger``, then one for each of ``access``, in their order.
        access: likewise of the known shares of records.
    """

    states: Mapping[Key, RecordState | None] = field(default_factory=dict)
    ledger: Mapping[Key, LedgerEntry | None] = field(default_factory=dict)
    records: Sequence[OutboundRecord] = ()
    access: Mapping[Key, AccessState | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one Kafka transaction holds.

    Attributes:
        records: records of every topic, internal ones included, in order per key.
        events: source events that are in it.
        position: where the subscription stands once it is committed.
    """

    records: Sequence[OutboundRecord]
    events: int
    position: Position


class Sink(Protocol):
    """The only durable act: records and position in one transaction."""

    async def open(self) -> Restored:
        """Take over the subscription (fencing any predecessor), then read what is committed.

        Raises:
            KafkaUnavailableError: no broker answered in time.
            KafkaRefusedError: credentials, ACL or topics are not as they must be.
            ForeignStateError: the topics belong to another org, cluster or newer version.
            ProducerFencedError: a newer worker took over meanwhile.
        """
        ...

    async def commit(self, batch: Batch) -> Offsets:
        """Commit a batch in one transaction.

        Returns:
            The offset after the last record of each partition that the batch wrote to.

        Raises:
            TransactionFailedError: it failed or its outcome is unknown; ``open`` again before anything else.
            ProducerFencedError: another worker has taken over; do not open again unasked.
            KafkaRefusedError: Kafka will not take this batch, however often it is sent.
        """
        ...

    async def close(self) -> None:
        """Let go of the producer, bounded in time; an open transaction is aborted."""
        ...


class Store(States, Protocol):
    """The local store, as the pipeline and the upkeep use it."""

    def expect(self, keys: Iterable[Key]) -> None:
        """Be told whose states and entries are asked for next: what is not in memory is read at once."""
        ...

    def cut(self) -> Delta:
        """Return what was put since the last cut, and keep it as under way until it is merged."""
        ...

    def merge(self, delta: Delta, offsets: Offsets) -> None:
        """Make a committed delta durable locally, with the offsets it brought the topics to.

        Cuts are merged in their order; offsets of topics that are not mirrored are ignored.

        Raises:
            StoreError: it can't be written; the next generation catches up from Kafka.
        """
        ...

    def drop(self) -> None:
        """Forget everything that is not committed."""
        ...

    def due_refreshes(self, entity: str, now_ms: int, limit: int) -> Sequence[Key]:
        """Return records whose refresh is due, longest due first; committed ones only."""
        ...

    def unsettled(self, entity: str, limit: int) -> Sequence[Key]:
        """Return records whose ledger entry has facts or feed items, least recently written first; committed ones."""
        ...

    def due_shares(self, entity: str, now_ms: int, limit: int) -> Sequence[Key]:
        """Return records whose share rows are to be read, longest due first; committed ones only."""
        ...

    def expired(self, entity: str, deleted_before_ms: int, limit: int) -> Sequence[str]:
        """Return ids of records found gone before a time, whose state is still kept."""
        ...

    def see(self, entity: str, record_ids: Iterable[str], job_id: str) -> None:
        """Remember locally that a scan saw these records."""
        ...

    def unseen(self, entity: str, job_id: str, after_id: str, limit: int) -> Sequence[str]:
        """Return ids, in text order after ``after_id``, of live records that the scan did not see."""
        ...

    def unseen_access(self, entity: str, job_id: str, after_id: str, limit: int) -> Sequence[str]:
        """Return ids, in text order after ``after_id``, of records with known shares that the scan did not see."""
        ...

    def entities(self) -> Sequence[str]:
        """Return the objects that have states."""
        ...

    def records(self, entity: str) -> int:
        """Return how many states of an object are kept, deleted ones included."""
        ...

    @property
    def generation(self) -> str:
        """Changes when the store was rebuilt: what ``see`` remembered is gone then."""
        ...


@dataclass(frozen=True, slots=True)
class Piece:
    """Committed records of the mirrored topics, in order per key.

    Attributes:
        states: record id and value (None: a tombstone) from ``state`` topics.
        ledger: likewise from ``ledger``.
        offsets: where the partitions stand once the piece is loaded.
        newest_ms: newest timestamp among the records read so far, epoch milliseconds, 0 for none.
        access: likewise from ``access`` topics.
    """

    states: Sequence[tuple[str, bytes | None]]
    ledger: Sequence[tuple[str, bytes | None]]
    offsets: Offsets
    newest_ms: int
    access: Sequence[tuple[str, bytes | None]] = ()


class Mirror(Protocol):
    """The local store, as the one who restores it from Kafka uses it; everything can raise ``StoreError``."""

    def attach(self, cluster_id: str, *, stale_after_ms: int) -> None:
        """Make sure that what is stored may be caught up; what may not is thrown away, and the reason logged.

        Args:
            cluster_id: the Kafka cluster; offsets of another one mean nothing.
            stale_after_ms: age after which tombstones may have been missed.
        """
        ...

    def offsets(self) -> Offsets:
        """Return how far each mirrored partition is stored."""
        ...

    @property
    def newest_ms(self) -> int:
        """No stored record has a later timestamp than this, epoch milliseconds; 0 for an empty store."""
        ...

    def load(self, piece: Piece, owns: Callable[[str], bool]) -> None:
        """Store what was read, in one local transaction; ledger entries of objects that are not owned are left out.

        Raises:
            ForeignStateError: a value is not one of this service, or a newer version's.
        """
        ...

    def rebuild(self, reason: str) -> None:
        """Throw everything away."""
        ...


class RecordSource(Protocol):
    """Salesforce's REST and Bulk API, as the upkeep uses it.

    Every call can raise:
        QuotaError: the daily calls are used up, or only the reserve is left and the purpose may not touch it.
        QueryRefusedError: the org will not answer this question (object or field unknown or not permitted).
        SalesforceUnavailableError: no usable answer came; ask again later.
        LoginError: no session was to be had.
    """

    @property
    def pace_factor(self) -> float:
        """How much slower polls shall go to save daily calls: 1 with plenty left, more as they run out."""
        ...

    @property
    def sharing_calls(self) -> int:
        """How many REST calls were made so far for shares, rules, grantees and feeds."""
        ...

    async def hidden_columns(self, entity: str, what: Companion) -> tuple[str, ...]:
        """Return which columns of a companion object this user may not read, such as ``XShare.LastModifiedById``.

        Raises:
            QueryRefusedError: the companion object can't be read at all.
        """
        ...

    async def describe(self, entity: str) -> Mapping[str, FieldInfo]:
        """Return the fields this user may see, by API name."""
        ...

    async def tracked_fields(self, entity: str) -> frozenset[str]:
        """Return the API names of fields with history tracking on."""
        ...

    async def count(self, entity: str, where: str = "") -> int:
        """Return how many rows there are."""
        ...

    async def rows_by_id(self, plan: RowPlan, record_ids: Sequence[str], *, repair: bool) -> RowsPage:
        """Read records by id, deleted ones included; at most some 200 at a time.

        Args:
            plan: what to read and how to convert it.
            record_ids: 18-character ids.
            repair: whether the reserve of calls may be used.
        """
        ...

    async def scan(
        self, plan: RowPlan, cursor: str | None, *, where: str = "", limit: int = 2000, repair: bool
    ) -> RowsPage:
        """Read the next chunk of live rows in the order of their ids; each chunk is a query of its own.

        Args:
            plan: what to read.
            cursor: the last page's, None to begin.
            where: a SOQL condition, empty for all rows.
            limit: rows a chunk.
            repair: as above.
        """
        ...

    async def modified(
        self, plan: RowPlan, from_ms: int, to_ms: int, cursor: str | None, *, limit: int = 2000, repair: bool
    ) -> RowsPage:
        """Read rows with from <= SystemModstamp < to, deleted ones included, ordered by (SystemModstamp, Id)."""
        ...

    async def deleted_ids(self, entity: str, from_ms: int, to_ms: int) -> DeletedIds:
        """Return what was deleted in a span (getDeleted; 15 days back at most)."""
        ...

    async def history(
        self, entity: str, from_ms: int, to_ms: int, cursor: str | None, *, limit: int = 2000
    ) -> HistoryPage:
        """Read history rows with from <= CreatedDate < to."""
        ...

    async def metrics(self, record_ids: Sequence[str]) -> tuple[Mapping[str, Mapping[str, Json]], int]:
        """Return MessagingSessionMetrics by session and type, and the answer's ``Date`` + 1 s."""
        ...

    async def shares_of(self, entity: str, record_ids: Sequence[str], *, repair: bool) -> SharesPage:
        """Read all share rows of records; the page has all of them, and no cursor.

        Args:
            entity: the shared object.
            record_ids: 18-character ids, at most some 200.
            repair: whether the reserve of calls may be used.
        """
        ...

    async def shares_modified(
        self, entity: str, from_ms: int, to_ms: int, cursor: str | None, *, limit: int = 2000
    ) -> SharesPage:
        """Read share rows with from <= LastModifiedDate < to, ordered by (LastModifiedDate, Id)."""
        ...

    async def shares_scan(
        self, entity: str, cursor: str | None, through: str | None = None, *, limit: int = 2000
    ) -> SharesPage:
        """Read the next chunk of all share rows, ordered by (ParentId, Id): a record's rows stand together.

        A cursor is ``<record id>:<share id>`` of a row: the page goes on after it. ``through`` is the last record that
        is wanted, None for all.
        """
        ...

    async def last_shared(self, entity: str) -> str | None:
        """Return the last record that has a share row, in the order of :meth:`shares_scan`; None if there is none."""
        ...

    async def count_shares(self, entity: str) -> int:
        """Return how many share rows an object has."""
        ...

    async def sharing_rules(self, entity: str) -> RulesPage:
        """Read all owner sharing rules of an object (at most 300)."""
        ...

    async def deleted_rules(self, entity: str, from_ms: int, to_ms: int) -> DeletedIds:
        """Return which owner sharing rules were deleted in a span."""
        ...

    async def grantees(self, ids: Sequence[str]) -> Mapping[str, Grantee]:
        """Resolve users and groups; ids that are unknown or not to be seen are left out."""
        ...

    async def org_default(self, entity: str) -> OrgDefault:
        """Return the object's org-wide default access."""
        ...

    async def feed(self, entity: str, from_ms: int, to_ms: int, cursor: str | None, *, limit: int = 2000) -> FeedPage:
        """Read feed items with from <= SystemModstamp < to, removed ones included, with the changes they track."""
        ...

    async def deleted_feed_items(self, entity: str, from_ms: int, to_ms: int) -> DeletedIds:
        """Return which feed items were deleted in a span."""
        ...

    async def feed_items(self, entity: str, item_ids: Sequence[str]) -> FeedPage:
        """Read feed items by id, removed ones included, as far as they can still be had; no cursor."""
        ...

    async def bulk_start(self, plan: RowPlan, *, where: str = "") -> str:
        """Create a Bulk API 2.0 queryAll job and return its id."""
        ...

    async def bulk_page(self, plan: RowPlan, job_id: str, cursor: str | None, *, limit: int = 20_000) -> RowsPage:
        """Wait until the job is complete and return a page of its rows; the cursor is Salesforce's locator.

        Raises:
            QueryRefusedError: the job failed, was aborted, or its results are gone.
        """
        ...

    async def bulk_end(self, job_id: str) -> None:
        """Delete the job."""
        ...
