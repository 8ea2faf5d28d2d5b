"""What every job of the upkeep works with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from consumer.changes.rows import RowPlan
from consumer.changes.schema import EventSchema
from consumer.errors import ServiceError
from consumer.events import LossWindow
from consumer.ports import RecordSource, Store
from consumer.tracking.arrivals import Arrival
from consumer.tracking.values import EntityFacts


class Inbox(Protocol):
    """Where arrivals enter the pipeline; they are taken in in order, each in one transaction."""

    async def put(self, arrival: Arrival) -> None:
        """Hand an arrival over; waits for room."""
        ...

    async def settled(self) -> None:
        """Wait until everything handed over so far is committed."""
        ...


class Reads(Protocol):
    """The tracker, as far as a reader needs it."""

    def begin_read(self) -> int:
        """Return the mark of a request that is about to be sent: what events set after it, its rows don't overwrite.

        Every mark ends: by the :class:`RowsRead` that carries it, or by :meth:`end_read`.
        """
        ...

    def end_read(self, mark: int) -> None:
        """Forget the mark of a request that brought no rows."""
        ...


class UpkeepObserver(Protocol):
    """What the upkeep tells the world; no call may fail or wait."""

    def api_call_failed(self, job: str, error: ServiceError, delay_s: float) -> None:
        """A read failed and is tried again."""

    def scanning(self, job: str, entity: str, rows: int, total: int | None) -> None:
        """A snapshot or resync got on."""

    def scanned(self, job: str, entity: str, rows: int, seconds: float) -> None:
        """A snapshot or resync is complete."""

    def sweeping(self, entity: str, rows: int, total: int | None, more: int) -> None:
        """A sweep of share rows got on by so many rows."""

    def swept(self, entity: str, rows: int, begun_ms: int, ended_ms: int) -> None:
        """A sweep of share rows is complete; times in epoch milliseconds of the org's time."""

    def not_available(self, what: str, entity: str, error: ServiceError) -> None:
        """Something can't be read in this org; reported once, lived with."""


@dataclass(frozen=True, slots=True)
class SharingPace:
    """How often and how far sharing is read, in milliseconds; from the settings.

    Attributes:
        objects: API names of the objects whose sharing is read.
        poll: interval of incremental polls of share rows and rules.
        overlap: how far each reaches back.
        settle: how old rows must be, and how long after a row was missed it is read again, until a third read decides.
        sweep: interval of full sweeps.
        api_calls_per_day: most calls for all of this.
    """

    objects: tuple[str, ...]
    poll: int
    overlap: int
    settle: int
    sweep: int
    api_calls_per_day: int


@dataclass(frozen=True, slots=True)
class FeedPace:
    """How often and how far feeds are read, in milliseconds; from the settings.

    Attributes:
        objects: API names of the objects whose feed is read.
        poll, overlap, settle: as of :class:`SharingPace`.
        backfill: how far back items are read at a first start.
    """

    objects: tuple[str, ...]
    poll: int
    overlap: int
    settle: int
    backfill: int


@dataclass(frozen=True, slots=True)
class Pace:
    """How often and how far, all in milliseconds; from the settings; sharing and feed None if not wanted."""

    history_poll: int
    history_overlap: int
    history_settle: int
    confirm_within: int
    backfill: int
    refresh_after: int
    reconcile: bool
    reconcile_after: int
    chunk_rows: int
    bulk_above: int
    delete_grace: int
    sharing: SharingPace | None = None
    feed: FeedPace | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What a job works with; lives for one generation of the pipeline.

    Attributes:
        channel: the subscription's channel.
        entity: the one object of the channel, None for a channel of several.
        source: REST and Bulk.
        store: the local store; jobs only read it, but for ``see``.
        inbox: where arrivals go.
        reads: marks of requests.
        now_ms: the org's time.
        progress: newest progress by name, as handed over (not necessarily committed yet).
        entities: objects whose events were seen or that are tracked already, with the channel's own.
        schema: an object's newest event schema; None until it is known.
        plan: how rows of an object are read; None until its schema and describe are known.
        facts: what is known of an object; None until it was read.
        windows: open loss windows by id, those just opened included.
        caught_up: waits until the stream has given what it retained: at once, unless the position was lost or this
            is a first start and neither a first position nor 10 s have passed.
        delivered_to: up to when the stream has delivered everything, epoch milliseconds of the org's time; 0 while that
            is not known.
        changed: set whenever a window opens, an object or a schema appears or a command comes; a job that waits
            clears it, then looks, and awaits nothing between its look and its wait.
        sleep: waits some seconds of real time.
        pace: how often and how far.
        random: a number in [0, 1).
        observer: is told.
    """

    channel: str
    entity: str | None
    source: RecordSource
    store: Store
    inbox: Inbox
    reads: Reads
    now_ms: Callable[[], int]
    progress: Mapping[str, Mapping[str, object]]
    entities: Callable[[], tuple[str, ...]]
    schema: Callable[[str], EventSchema | None]
    plan: Callable[[str], RowPlan | None]
    facts: Callable[[str], EntityFacts | None]
    windows: Callable[[], Mapping[str, LossWindow]]
    caught_up: Callable[[], Awaitable[None]]
    delivered_to: Callable[[], int]
    changed: asyncio.Event
    sleep: Callable[[float], Awaitable[None]]
    pace: Pace
    random: Callable[[], float]
    observer: UpkeepObserver
