"""What `timeline` answers about a past moment, against the truth, when nothing comes at once.

A record lives: owners change, rows are granted, revoked, recalculated, it is created or there from the start, and
deleted in the end. Events come late; a read takes seconds, and shows the rows of one moment in between; things happen
meanwhile. What is read goes through the service's own tracker, and the answers are made of its records alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import orjson
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from consumer.delivery.access import encode_access
from consumer.delivery.sharing import Sharing
from consumer.tracking.access import ShareCause, ShareKey, ShareRow
from consumer.tracking.arrivals import RecordShares, SharesRead
from consumer.tracking.changes import TrackedChange
from consumer.tracking.sharing import SharingTracker
from consumer.tracking.timeline_access import Access, AccessFact, access_of, grantee_at, read_access, read_share_fact
from consumer.tracking.values import FieldChange, LedgerEntry
from tests.delivery_values import ORG, TOPICS, checked
from tests.sharing_values import OVERLAP, SETTLE, SharingStates, due_of, owned_by, tracker
from tests.tracking_values import ENTITY, KEY, RECORD, S0

OWNERS = ("005000000000001AAA", "005000000000002AAA", "00G000000000001AAA")
TEAMS = ("00G000000000008AAA", "00G000000000009AAA")
NOBODY = "005000000000099AAA"
LEVELS = ("Read", "Edit")
USER = "005000000000003AAA"


class Step(NamedTuple):
    """Something that happens, some time after what happened before; what the numbers mean depends on it."""

    what: str
    wait_ms: int
    one: int
    two: int
    three: int


class Seen(NamedTuple):
    """A read that was taken in: which moment its rows are of, and for when it vouches."""

    moment_ms: int
    asked_ms: int
    answered_ms: int
    whole: bool
    keys: frozenset[ShareKey]
    away: frozenset[ShareKey]
    taken_ms: int


@dataclass
class Truth:
    """The rows of the record.

    Attributes:
        rows: what a reader sees.
        away: levels of rows that a recalculation is about to make anew; who has access knows nothing of it.
        log: times and levels by identity, None for no access.
    """

    rows: dict[ShareKey, ShareRow] = field(default_factory=dict)
    away: dict[ShareKey, str] = field(default_factory=dict)
    log: dict[ShareKey, list[tuple[int, str | None]]] = field(default_factory=dict)
    shares: int = 0

    def put(self, key: ShareKey, level: str, at_ms: int) -> None:
        self.shares += 1
        before = self.rows[key].access_level if key in self.rows else self.away.pop(key, None)
        self.rows[key] = ShareRow(RECORD, f"02c{self.shares:012}AAA", *key, level, at_ms // 1000 * 1000, USER)
        if before != level:
            self.log.setdefault(key, []).append((at_ms, level))

    def drop(self, key: ShareKey, at_ms: int) -> None:
        row, level = self.rows.pop(key, None), self.away.pop(key, None)
        if row is not None or level is not None:
            self.log[key].append((at_ms, None))

    def hide(self, key: ShareKey) -> None:
        self.away[key] = self.rows.pop(key).access_level

    def level(self, key: ShareKey, at_ms: int) -> str | None:
        log = self.log.get(key, [])
        place = bisect_right(log, at_ms, key=lambda each: each[0])
        return log[place - 1][1] if place else None


class World:
    """The org and the service: whatever is under way is delivered in the order of its time."""

    def __init__(self, *, created: bool) -> None:
        self.now_ms = S0
        self.truth = Truth()
        self.states = SharingStates()
        self.tracker = tracker(self.states)
        self.told: list[AccessFact] = []
        self.reads: list[Seen] = []
        self.events: list[tuple[int, int]] = []
        self.created_ms: int | None = None
        self.deleted_ms: int | None = None
        self.owner = OWNERS[2]
        self.begun_ms: int | None = None
        self.paged = False
        self.sweeps: list[tuple[int, int]] = []
        self.swept_ms: int | None = None
        self.gaps = 0
        self._waiting: list[tuple[int, int, Callable[[], object]]] = []
        self._number = 0
        self._sent_ms = self._read_ms = S0
        if not created:
            self.truth.put((self.owner, "Owner"), "All", S0 - 60_000)
            self.truth.put((TEAMS[0], "Rule"), "Read", S0 - 60_000)
            self.states.put(owned_by(self.owner))

    # Time

    def pass_to(self, ms: int) -> None:
        """Deliver what is due by then, and let it be that late."""
        while self._waiting:
            first = min(self._waiting, key=lambda each: each[:2])
            if first[0] > ms:
                break
            self._waiting.remove(first)
            self.now_ms = max(self.now_ms, first[0])
            first[2]()
        self.now_ms = max(self.now_ms, ms)

    def settle(self) -> None:
        """Let everything come that is under way."""
        while self._waiting:
            self.pass_to(max(each[0] for each in self._waiting))

    def _later(self, ms: int, what: Callable[[], object]) -> None:
        self._number += 1
        self._waiting.append((ms, self._number, what))

    # The org

    @property
    def there(self) -> bool:
        return bool(self.truth.rows) and self.deleted_ms is None

    def act(self, step: Step) -> None:
        self.pass_to(self.now_ms + step.wait_ms)
        getattr(self, f"_{step.what}")(step)

    def _create(self, step: Step) -> None:
        if self.created_ms is None and not self.truth.log:
            self.created_ms = self.now_ms
            self.truth.put((self.owner, "Owner"), "All", self.now_ms)
            self.truth.put((TEAMS[0], "Rule"), "Read", self.now_ms)
            self._event("c", "CREATE", self.owner, step.one)

    def _transfer(self, step: Step) -> None:
        owner = OWNERS[step.two % len(OWNERS)]
        if not self.there or owner == self.owner:
            return
        for key in [key for key in self.truth.rows if key[1] in {"Owner", "Manual"}]:
            self.truth.drop(key, self.now_ms)
        self.owner = owner
        self.truth.put((owner, "Owner"), "All", self.now_ms)
        self._event("u", "UPDATE", owner, step.one)

    def _delete(self, step: Step) -> None:
        if self.there:
            self.deleted_ms = self.now_ms
            for key in [*self.truth.rows, *self.truth.away]:
                self.truth.drop(key, self.now_ms)
            self._event("d", "DELETE", None, step.one)

    def _grant(self, step: Step) -> None:
        if self.there:
            team, cause = TEAMS[step.one % 2], ("Manual", "Rule")[step.two % 2]
            self.truth.put((team, cause), LEVELS[step.three % 2], self.now_ms)

    def _revoke(self, step: Step) -> None:
        if self.there:
            self.truth.drop((TEAMS[step.one % 2], ("Manual", "Rule")[step.two % 2]), self.now_ms)

    def _recalculate(self, step: Step) -> None:
        """Delete rule rows and make them anew, at once or later.

        The latter only twice, or once beside owner changes: it takes one more to mislead a reader.
        """
        if not self.there:
            return
        rows = [(key, row.access_level) for key, row in self.truth.rows.items() if key[1] == "Rule"]
        later = step.one % 2 == 1 and self.gaps < (1 if self.events else 2)
        self.gaps += later and bool(rows)
        for key, level in rows:
            if not later:
                self.truth.put(key, level, self.now_ms)
                continue
            self.truth.hide(key)
            self._later(self.now_ms + 1 + step.two % (SETTLE // 2), partial(self._come_back, key))

    def _come_back(self, key: ShareKey) -> None:
        if key in self.truth.away:
            self.truth.put(key, self.truth.away[key], self.now_ms)

    def _event(self, op: Any, kind: str, owner: str | None, delay: int) -> None:
        commit_ms = self.now_ms // 1000 * 1000
        arrives_ms = self._sent_ms = max(self.now_ms + delay % 12_000, self._sent_ms)
        self.events.append((self.now_ms, arrives_ms))

        def arrive() -> None:
            fields = (FieldChange("OwnerId", "", owner or ""),) if op == "u" else ()
            change = TrackedChange(
                RECORD, 0, "id", op, kind, b"{}", b"{}", "full", "full", (), 1, commit_ms, fields=fields
            )
            self.states.put(owned_by(owner or "", deleted=op == "d"))
            due = due_of(self.states)
            owed = SharingTracker.owed(change, due, USER, event=True) or due
            self.states.put_ledger(LedgerEntry(ENTITY, RECORD, shares=owed))

        self._later(arrives_ms, arrive)

    # The service's reads: one at a time

    def _read(self, step: Step, *, cause: ShareCause | None = ShareCause.SWEEP, poll: bool = False) -> None:
        """Ask, and be answered later; the rows are of this moment."""
        self.pass_to(max(self.now_ms, self._read_ms))
        moment_ms = self.now_ms
        sent_ms = max(moment_ms - step.one % 5_000, self._read_ms)
        back_ms = self._read_ms = moment_ms + step.two % 5_000
        asked_ms = sent_ms - 1 - step.three % 1_500
        answered_ms = back_ms // 1000 * 1000 + 1000
        since_ms = asked_ms - OVERLAP
        rows = [row for row in self.truth.rows.values() if not poll or (row.modified_ms or 0) >= since_ms]
        first = self.states.access(KEY) is None
        if first and not rows and not poll and cause is ShareCause.SWEEP:
            return  # a page of a sweep does not name a record that has no row
        records = (RecordShares(RECORD, tuple(rows)),) if rows or not poll else ()
        if poll:
            read = SharesRead(ENTITY, records, False, ShareCause.INCREMENTAL, asked_ms, answered_ms, polled_ms=asked_ms)
        else:
            read = SharesRead(ENTITY, records, True, cause, asked_ms, answered_ms)
        keys, away = frozenset(row.key for row in rows), frozenset(self.truth.away)

        def take_in() -> None:
            self.reads.append(Seen(moment_ms, asked_ms, answered_ms, not poll, keys, away, self.now_ms))
            self._take_in(read)

        self._later(back_ms, take_in)

    def _poll(self, step: Step) -> None:
        self._read(step, poll=True)

    def _owed(self, step: Step) -> None:
        self.pass_to(max(self.now_ms, self._read_ms))
        due = due_of(self.states)
        if due is not None and due.due_ms <= self.now_ms:
            self._read(step, cause=None)

    def _begin(self, _step: Step) -> None:
        """Begin a sweep; much can happen before its page with this record, and before its end."""
        self.pass_to(max(self.now_ms, self._read_ms))
        if self.begun_ms is None:
            self.begun_ms, self.paged = max(self.now_ms - 1, self.swept_ms or 0), False

    def _page(self, step: Step) -> None:
        if self.begun_ms is not None and not self.paged:
            self._read(step, cause=ShareCause.BASELINE if self.swept_ms is None else ShareCause.SWEEP)
            self.paged = True

    def _end(self, _step: Step) -> None:
        if self.begun_ms is None or not self.paged:
            return
        self.pass_to(max(self.now_ms, self._read_ms))
        self._take_in(
            SharesRead(ENTITY, (), True, ShareCause.SWEEP, self.now_ms, self.now_ms, swept_from_ms=self.begun_ms)
        )
        self.sweeps.append((self.begun_ms, self.now_ms))
        self.swept_ms, self.begun_ms = self.begun_ms, None

    def _sweep(self, step: Step) -> None:
        """Go through a sweep, or the rest of one."""
        self._begin(step)
        self._page(step)
        self._end(step)

    def _take_in(self, read: SharesRead) -> None:
        facts = self.tracker.on_read(read)
        records = Sharing(ORG, TOPICS).records(ENTITY, facts, read.answered_ms)
        self.told += [read_share_fact(checked(record)) for record in records]

    # What Kafka has

    def access(self) -> Access:
        known = self.states.access(KEY)
        now = None if known is None else read_access(orjson.loads(encode_access(TOPICS, ORG, known).value or b""))
        created_ms = None if self.created_ms is None else self.created_ms // 1000 * 1000
        deleted = (state := self.states.get(KEY)) is not None and state.deleted
        return access_of(self.told, now, self.swept_ms, None, created_ms=created_ms, deleted=deleted)


# What must hold


def segments(world: World, key: ShareKey) -> Iterator[tuple[int, int | None, str | None]]:
    """Yield the stretches of one level, but for the first, in which it was not there."""
    log = world.truth.log.get(key, [])
    yield from ((start, end, level) for (start, level), (end, _) in pairwise(log))
    if log:
        yield (*log[-1][:1], None, log[-1][1])


def hidden(world: World, key: ShareKey, at_ms: int) -> bool:
    """Return whether a moment lies in a stretch that no reading can tell: of a share that came and went, or the like.

    A level is told by one reading that has it; that a row is gone for good by three that miss it, some time apart, for
    recalculations delete rows and make them anew, but by two if it is the owner's or goes with an owner change. An
    owner's rows come with events, which tell of them what no reading saw: unless they come after the reading that has
    what they tell of.
    """
    for start, end, level in segments(world, key):
        if end is None and level is not None and start <= at_ms:
            whole = [each for each in world.reads if each.whole and start <= each.moment_ms]
            return bool(whole) and all(key in each.away for each in whole)
        if end is None or not start <= at_ms < end:
            continue
        inside = [each for each in world.reads if start <= each.moment_ms < end]
        if level is not None:
            seen = any(key in each.keys for each in inside)
        else:
            whole = [each for each in inside if each.whole]
            seen = apart(whole) >= (2 if key[1] == "Owner" else 3)
        return not seen and (key[1] != "Owner" or late_event(world, start, end))
    return False


def apart(reads: list[Any]) -> int:
    """Return how many readings can be picked, each a settle time after the one before."""
    count, after = 0, float("-inf")
    for each in sorted(reads, key=lambda read: read.answered_ms):
        if each.asked_ms >= after + SETTLE:
            count, after = count + 1, each.answered_ms
    return count


def late_event(world: World, start: int, end: int) -> bool:
    """Return whether an owner's event in a stretch came after a reading that had what it tells of."""
    return any(
        start <= commit <= end and any(commit <= read.moment_ms and read.taken_ms <= arrives for read in world.reads)
        for commit, arrives in world.events
    )


def check(world: World, moments: list[int]) -> None:
    access = world.access()
    published: set[tuple[int | None, int | None]] = {(fact.from_ms, fact.to_ms) for fact in world.told}
    checked_ms = None if access.checked_ms is None else int(min(access.checked_ms, 1 << 60))
    published |= {(None, access.looked_ms), (checked_ms, None)}
    published |= {(share.seen_ms, None) for share in (access.now.shares if access.now else ())}
    for at_ms in moments:
        for grantee in (*OWNERS, *TEAMS, NOBODY):
            for answer in grantee_at(access, grantee, at_ms):
                told = (at_ms - S0, answer)
                if answer.answer == "unknown":
                    assert answer.from_ms is None or answer.from_ms <= at_ms, told
                    assert answer.to_ms is None or at_ms < answer.to_ms, told
                    assert (answer.from_ms, answer.to_ms) in published, told
                    continue
                causes = ("Owner", "Manual", "Rule") if answer.row_cause is None else (answer.row_cause,)
                for cause in causes:
                    key = (grantee, cause)
                    if not hidden(world, key, at_ms):
                        true = world.truth.level(key, at_ms)
                        assert answer.level == true, (*told, true, shown(world, key))


def check_facts(world: World) -> None:
    """Each is told once, and says when something happened that did happen."""
    assert len({fact.fact_id for fact in world.told}) == len(world.told)
    known: set[ShareKey] = set()
    for fact in world.told:
        if fact.kind == "unseen":
            assert any((fact.from_ms or 0) - 1_000 <= commit <= fact.to_ms for commit, _ in world.events), fact
            continue
        key = (fact.user_or_group_id or "", fact.row_cause or "")
        after = None if fact.kind == "revoked" else fact.level
        stretches = [each for each in segments(world, key) if each[2] == after and each[0] <= fact.to_ms]
        if fact.from_ms is not None:
            stretches = [each for each in stretches if each[0] >= fact.from_ms]
        assert stretches, (fact, shown(world, key))
        if key not in known and fact.from_ms is None:
            # One of them can be what the record is known from.
            assert sweeps_apart(world.sweeps, fact.to_ms - 10_000) < 4, ("unknown for no reason", shown(world, key))
        known.add(key)


def sweeps_apart(sweeps: list[tuple[int, int]], by_ms: int) -> int:
    """Return how many sweeps, each a settle time after the one before, were through by then."""
    count, after_ms = 0, float("-inf")
    for begun_ms, ended_ms in sweeps:
        if ended_ms <= by_ms and begun_ms >= after_ms + SETTLE:
            count, after_ms = count + 1, ended_ms
    return count


def shown(world: World, key: ShareKey) -> dict[str, Any]:
    """Return what a failure needs to be understood; times count from S0."""
    return {
        "log": [(at - S0, level) for at, level in world.truth.log.get(key, [])],
        "facts": [
            (
                f.kind,
                f.user_or_group_id,
                f.row_cause,
                f.level,
                None if f.from_ms is None else f.from_ms - S0,
                f.to_ms - S0,
            )
            for f in world.told
        ],
        "reads": [
            (r.moment_ms - S0, r.asked_ms - S0, r.answered_ms - S0, r.taken_ms - S0, r.whole, sorted(r.keys))
            for r in world.reads
        ],
        "events": [(commit - S0, arrives - S0) for commit, arrives in world.events],
        "swept": world.swept_ms and world.swept_ms - S0,
    }


def moments_of(world: World) -> list[int]:
    """Return the moments at which something happened or is said to have, those beside them, and some in between."""
    edges = {S0 - 1, S0, world.now_ms, world.now_ms + 60_000}
    for log in world.truth.log.values():
        edges |= {at for at, _ in log}
    for fact in world.told:
        edges |= {fact.to_ms, fact.from_ms or S0}
    edges |= {each.asked_ms for each in world.reads}
    ordered = sorted(edges)
    between = [(one + two) // 2 for one, two in pairwise(ordered)]
    return sorted({each + by for each in ordered for by in (-1, 0, 1)} | set(between))


NUMBER = st.integers(0, 30_000)
STEP = st.builds(
    Step,
    st.sampled_from(
        (
            "create",
            "transfer",
            "transfer",
            "grant",
            "revoke",
            "recalculate",
            "read",
            "poll",
            "owed",
            "sweep",
            "sweep",
            "begin",
            "page",
            "end",
        )
    ),
    st.one_of(st.integers(0, 3_000), st.integers(0, 60_000)),
    NUMBER,
    NUMBER,
    NUMBER,
)


@settings(max_examples=400, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink))
@given(st.booleans(), st.lists(STEP, min_size=2, max_size=25), st.booleans())
def test_every_answer_is_true_or_unknown(created: bool, steps: list[Step], deleted: bool) -> None:
    world = World(created=created)
    for step in steps:
        world.act(step)
    check(world, moments_of(world))
    if deleted:
        world.act(Step("delete", 5_000, 1_000, 0, 0))
    world.settle()
    for _ in range(4):  # whatever waits for another reading gets it
        world.act(Step("owed", SETTLE + 20_000, 100, 100, 100))
        world.settle()
    world.act(Step("sweep", 20_000, 100, 100, 100))
    world.settle()
    check(world, moments_of(world))
    check_facts(world)
