"""Takes in what is read of an object's companions, its share rows, sharing rules and feed, and encodes what follows.

Pure, like :mod:`consumer.intake`, which it works for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from consumer.delivery.feed import Feed
from consumer.delivery.sharing import Sharing
from consumer.delivery.sharing_rules import SharingRules
from consumer.events import Json, OutboundRecord
from consumer.tracking.arrivals import FeedRead, Progress, RulesRead, SharesRead
from consumer.tracking.changes import TrackedChange
from consumer.tracking.feed import FEED_POLL, FeedTracker
from consumer.tracking.sharing import SHARES_POLL, SWEEP_WANTED, SWEPT, SharingTracker, cause_of
from consumer.tracking.sharing_bounds import Reading
from consumer.tracking.sharing_rules import RULES, KnownRules, compare
from consumer.tracking.states import States
from consumer.tracking.values import EntityFacts, LedgerEntry

_REMEMBER_MS: Final = 3_600_000
"""How old the durable state of rules may get: after a restart a change is said to lie behind it."""


@dataclass(frozen=True, slots=True)
class CompanionTimes:
    """What the trackers of companions must know of the settings.

    Attributes:
        shared: objects whose sharing is read; a change of owner makes a read of their share rows due.
        share_settle, share_overlap: of share rows, milliseconds.
        feed_overlap: of feed polls, milliseconds.
    """

    shared: frozenset[str] = frozenset()
    share_settle: int = 0
    share_overlap: int = 0
    feed_overlap: int = 0


@dataclass(frozen=True, slots=True)
class CompanionEncoders:
    """What turns facts of companions into records."""

    sharing: Sharing
    rules: SharingRules
    feed: Feed


class Companions:
    """Tracks the companions of a channel's objects.

    Args:
        states: what is known of records.
        times: from the settings.
        encoders: make records.
        progress: newest progress by name.
    """

    def __init__(
        self,
        states: States,
        times: CompanionTimes,
        encoders: CompanionEncoders,
        progress: Mapping[str, Mapping[str, Json]],
    ) -> None:
        self._shared = times.shared
        self._sharing = SharingTracker(states, settle_ms=times.share_settle, overlap_ms=times.share_overlap)
        self._feed = FeedTracker(states, overlap_ms=times.feed_overlap)
        self._encoders = encoders
        self._progress = progress
        self._rules: dict[str, KnownRules] = {}
        for name, state in progress.items():
            self._restore(name, state)

    def _restore(self, name: str, state: Mapping[str, Json]) -> None:
        if name.startswith(SWEPT):
            self._sharing.restore(name.removeprefix(SWEPT), sweeps=state.get("sweeps", ()))
        elif name.startswith(SHARES_POLL):
            self._sharing.restore(name.removeprefix(SHARES_POLL), polls=state.get("polls", ()))
        elif name.startswith(FEED_POLL):
            self._feed.restore(name.removeprefix(FEED_POLL), state["complete_to_ms"])

    def concerned(self, entity: str, change: TrackedChange, facts: EntityFacts) -> bool:
        """Return whether a change makes a read of the record's share rows due.

        Args:
            entity: object API name.
            change: what became of the record.
            facts: what is known of the object; until that was read, share rows are taken to be readable.
        """
        if entity not in self._shared or (facts.visible is not None and not facts.has_shares):
            return False
        return cause_of(change) is not None

    def settled(self, entry: LedgerEntry) -> LedgerEntry:
        """Return a ledger entry without the feed items that no poll can bring again."""
        return self._feed.settled(entry)

    def shares(self, read: SharesRead) -> tuple[list[OutboundRecord], Sequence[Progress]]:
        """Take in share rows; returns records of the ``sharing`` topic, and what must be durable with them."""
        entity = read.entity
        lately: dict[str, dict[str, Json]] = {}
        if read.polled_ms is not None:
            polls = self._sharing.polled(entity, Reading(read.polled_ms, read.answered_ms))
            lately[SHARES_POLL + entity] = {"polls": [list(each) for each in polls]}
        if read.swept_from_ms is not None:
            sweeps = self._sharing.swept(entity, Reading(read.swept_from_ms, read.answered_ms))
            lately[SWEPT + entity] = {"sweeps": [list(each) for each in sweeps]}
        progress = [replace(each, state={**each.state, **lately.get(each.name, {})}) for each in read.progress]
        facts = self._sharing.on_read(read)
        return self._encoders.sharing.records(entity, facts, read.answered_ms), progress

    def rules(self, read: RulesRead) -> tuple[list[OutboundRecord], Sequence[Progress]]:
        """Take in sharing rules; returns records of the ``sharing-rules`` topic, and what must be durable with them.

        A rule that came, went or changed asks for a sweep: its rows are recalculated in the background.
        """
        entity = read.entity
        durable = self._progress.get(RULES + entity)
        known = self._rules.get(entity) or KnownRules.read(durable)
        now, facts = compare(known, read)
        self._rules[entity] = now
        progress: list[Progress] = []
        as_of_ms = None if durable is None else durable["as_of_ms"]
        if facts or as_of_ms is None or read.asked_ms - as_of_ms >= _REMEMBER_MS:
            progress.append(Progress(RULES + entity, now.state()))
        if any(not fact.baseline for fact in facts):
            progress.append(self._sweep_wanted(entity, read.answered_ms))
        return self._encoders.rules.records(entity, facts, read.answered_ms), progress

    def _sweep_wanted(self, entity: str, at_ms: int) -> Progress:
        before = self._progress.get(SWEEP_WANTED + entity)
        since_ms = at_ms if before is None else before["since_ms"]
        return Progress(SWEEP_WANTED + entity, {"since_ms": since_ms, "last_ms": at_ms})

    def feed(self, read: FeedRead) -> list[OutboundRecord]:
        """Take in feed items; returns records of the ``feed`` topic."""
        return self._encoders.feed.records(read.entity, self._feed.on_read(read), read.answered_ms)
