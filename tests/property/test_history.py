"""Whatever comes when, and however often the service starts anew: each change stands once in ``history``, and right.

A true timeline of field changes becomes events (delayed, some lost) and history rows (late ones, pages that end
inside a second, polls that overlap, no order within a second). In between the ledger goes through its encoding.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from consumer.delivery.history import History
from consumer.delivery.ledger import decode_ledger, encode_ledger
from consumer.tracking.arrivals import HistoryRead
from consumer.tracking.changes import TrackedChange
from consumer.tracking.history import HistoryTracker
from consumer.tracking.values import EntityFacts, FieldChange, HistoryFact, HistoryRow, Key, LedgerEntry, Match
from tests.delivery_values import ORG, RECORD, TOPICS, checked

ENTITY = "MessagingSession"
T0 = 1_790_000_000_000
OVERLAP, CONFIRM, SETTLE = 60_000, 90_000, 5_000
LATEST_ROW, LATEST_EVENT = 30, 50
FACTS = EntityFacts(
    ENTITY,
    visible=frozenset({"Status", "OwnerId", "Notes__c", "Count__c", "Hidden__c", "Free__c"}),
    tracked=frozenset({"Status", "Owner", "Notes__c", "Count__c", "Hidden__c"}),
    no_values=frozenset({"Notes__c"}),
    lookups=frozenset({"OwnerId"}),
    has_history=True,
)
LONG = "x" * 255
VALUES: dict[str, tuple[Any, ...]] = {
    "Status": (None, "Waiting", "Active", "007", LONG + "more"),
    "OwnerId": (None, "005000000000001AAA", "00G000000000002AAA", "005000000000003AAA"),
    "Notes__c": (None, "long text", "other long text"),
    "Count__c": (None, 0, 1.0, 2.5),
    "Hidden__c": (None, "rows hidden", "by field permission"),
    "Free__c": (None, True, False),
}
FIELDS = tuple(VALUES)
USERS = ("005000000000008AAA", "005000000000009AAA")


class Change(NamedTuple):
    """One true change."""

    field: str
    old: Any
    new: Any
    at: int
    event: int


class Step(NamedTuple):
    """A transaction of the org, and what becomes of its event and rows."""

    pause_s: int
    sets: tuple[tuple[int, int], ...]
    user: int
    lost: bool
    loss_noticed: bool
    event_delay: int
    row_delays: tuple[int, int]
    row_skew: int
    row_order: int


STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from([0, 0, 0, 1, 2, 30, 200]),
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=2, unique_by=lambda s: s[0]).map(
            tuple
        ),
        st.integers(0, 1),
        st.sampled_from([False, False, False, True]),
        st.booleans(),
        st.integers(0, LATEST_EVENT),
        st.tuples(st.sampled_from([0, 0, 0, LATEST_ROW]), st.sampled_from([0, 0, 0, LATEST_ROW])),
        st.sampled_from([0, 0, 0, 1]),
        st.integers(0, 9),
    ),
    min_size=1,
    max_size=9,
)


class Ledger:
    """The ledger part of the store."""

    def __init__(self) -> None:
        self.entries: dict[Key, LedgerEntry] = {}

    def ledger(self, key: Key) -> LedgerEntry | None:
        return self.entries.get(key)

    def put_ledger(self, entry: LedgerEntry) -> None:
        key = (entry.entity, entry.record_id)
        if entry.empty:
            self.entries.pop(key, None)
        else:
            self.entries[key] = entry

    def restart(self) -> None:
        """Forget everything but what was written to Kafka."""
        read: dict[Key, LedgerEntry] = {}
        for key, entry in self.entries.items():
            record = encode_ledger(TOPICS, entry)
            checked(record)
            back = decode_ledger(record.key, record.value)
            assert back is not None
            read[key] = back
        self.entries = read


@dataclass
class World:
    """The org, the service, and what a reader of the topic knows."""

    ledger: Ledger = field(default_factory=Ledger)
    truth: list[Change] = field(default_factory=list)
    events: list[tuple[int, int, str, str, list[FieldChange], bool]] = field(default_factory=list)
    rows: list[tuple[int, HistoryRow]] = field(default_factory=list)
    told: dict[str, HistoryFact] = field(default_factory=dict)
    expected_free: list[FieldChange] = field(default_factory=list)
    seen_events: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.tracker: Any = HistoryTracker(self.ledger, confirm_within_ms=CONFIRM, overlap_ms=OVERLAP)  # type: ignore[arg-type]
        self.history = History(ORG, TOPICS)

    def tell(self, facts: list[HistoryFact]) -> None:
        """Read what was told as a reader does: the highest revision holds, and nothing follows a final one."""
        for record in self.history.records(ENTITY, facts, T0):
            checked(record)
        for fact in facts:
            before = self.told.get(fact.change_id)
            assert fact.revision == (1 if before is None else before.revision + 1)
            assert before is None or not before.final
            self.told[fact.change_id] = fact


def make_world(steps: list[Step]) -> World:
    """Let the org live, and lay out what will arrive when."""
    world = World()
    now = T0
    true: dict[str, Any] = dict.fromkeys(FIELDS)
    image: dict[str, Any] = dict.fromkeys(FIELDS)
    suspect: set[str] = set()
    arrives = 0
    for number, step in enumerate(steps):
        now += step.pause_s * 1000
        changes = []
        for which, value in step.sets:
            name = FIELDS[which]
            new = VALUES[name][value % len(VALUES[name])]
            if new == true[name]:
                continue
            world.truth.append(Change(name, true[name], new, now, number))
            add_rows(world, world.truth[-1], step, len(world.truth))
            changes.append(FieldChange(name, None if name in suspect else image[name], new, name not in suspect))
            true[name] = new
        if step.lost:
            suspect |= {change.field for change in changes} if step.loss_noticed else set()
            continue
        for change in changes:
            image[change.field] = change.new
            suspect.discard(change.field)
        arrives = max(arrives, now + step.event_delay * 1000)
        world.events.append((arrives, now, f"e{number}", USERS[step.user], changes, False))
        world.seen_events.add(number)
    return world


def add_rows(world: World, change: Change, step: Step, number: int) -> None:
    if change.field in {"Hidden__c", "Free__c"}:
        return
    created = change.at // 1000 * 1000 + step.row_skew * 1000
    values = (change.old, change.new)
    kind = "Text"
    if change.field == "Notes__c":
        values, kind = (None, None), "StringPlusClob"
    elif change.field == "Count__c":
        values, kind = tuple(v if v is None else (int(v) if v == int(v) else str(v)) for v in values), "Double"  # type: ignore[assignment]
    elif change.field == "Status":
        values = tuple(v if v is None else v[:255] for v in values)  # type: ignore[assignment]
    user = USERS[step.user]
    order = step.row_order
    if change.field == "OwnerId":
        names = [v if v is None else f"Name of {v}" for v in values]
        row = HistoryRow(f"017{9 - order}{number:013d}T", RECORD, "Owner", "Text", *names, created, user)
        world.rows.append((created + step.row_delays[1] * 1000, row))
        kind = "EntityId"
    name = "Owner" if change.field == "OwnerId" else change.field
    row = HistoryRow(f"017{order}{number:013d}V", RECORD, name, kind, *values, created, user)
    world.rows.append((created + step.row_delays[0] * 1000, row))


def run(world: World, poll_s: int, page: int, restart_every: int) -> None:
    """Let time pass: events and polls in the order of their times."""
    last = max([at for at, *_ in world.events] + [at for at, _ in world.rows] + [T0])
    complete_to = T0 - OVERLAP
    events = sorted(world.events, key=lambda event: event[0])
    now, turn = T0, 0
    while now < last + 2 * CONFIRM + 3 * OVERLAP:
        now += poll_s * 1000 if now < last + CONFIRM else CONFIRM
        turn += 1
        while events and events[0][0] <= now:
            deliver(world, events.pop(0))
        complete_to = poll(world, complete_to, now, page)
        stream_to = min([event[1] for event in events], default=now)
        keys = list(world.ledger.entries)
        world.tell(
            world.tracker.settle(
                ENTITY, keys, complete_to_ms=complete_to, stream_to_ms=stream_to, now_ms=now, facts=FACTS
            )
        )
        if turn % restart_every == 0:
            world.ledger.restart()


def deliver(world: World, event: tuple[int, int, str, str, list[FieldChange], bool]) -> None:
    arrives, commit, event_id, user, changes, _ = event
    tracked = TrackedChange(
        RECORD,
        0,
        f"{event_id}:{RECORD}",
        "u",
        "UPDATE",
        b"{}",
        b"{}",
        "full",
        "full",
        (),
        1,
        commit,
        fields=tuple(changes),
    )
    given: dict[str, Any] = {"event_id": event_id, "commit_ms": commit, "user": user, "seen_ms": arrives}
    world.tell(world.tracker.on_change(ENTITY, tracked, FACTS, **given))
    world.expected_free += [change for change in changes if change.field == "Free__c"]


def poll(world: World, complete_to: int, now: int, page: int) -> int:
    until = now - SETTLE
    rows = [row for visible, row in world.rows if visible <= now and complete_to - OVERLAP <= row.created_ms < until]
    rows.sort(key=lambda row: (row.created_ms, row.history_id))
    for start in range(0, len(rows), page):
        world.tell(world.tracker.on_rows(HistoryRead(ENTITY, tuple(rows[start : start + page]), None, now), FACTS))
    return until


def norm(value: Any) -> str | None:
    """Return a value without its JSON kind, and cut as history cuts it."""
    if value is None or isinstance(value, bool):
        return None if value is None else str(value)
    try:
        return (
            str(float(value))
            if not isinstance(value, str) or (value[0] in "0123456789" and value != "007")
            else value[:255]
        )
    except ValueError:
        return str(value)[:255]


@settings(max_examples=150, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink))
@given(STEPS, st.sampled_from([7, 20]), st.sampled_from([1, 2, 3, 50]), st.sampled_from([1, 2, 1000]))
def test_each_change_stands_once(steps: list[Step], poll_s: int, page: int, restart_every: int) -> None:
    world = make_world(steps)
    run(world, poll_s, page, restart_every)
    facts = list(world.told.values())
    assert all(fact.final for fact in facts)
    assert world.ledger.entries == {}
    for name in ("Status", "OwnerId", "Count__c"):
        check_values(world, name)
    check_long_text(world)
    check_events_alone(world)
    check_single_changes(world)


def of_field(world: World, name: str) -> list[HistoryFact]:
    return [fact for fact in world.told.values() if fact.field == name]


def check_values(world: World, name: str) -> None:
    truth = Counter((norm(change.old), norm(change.new)) for change in world.truth if change.field == name)
    facts = of_field(world, name)
    assert Counter((norm(fact.old), norm(fact.new)) for fact in facts) == truth
    assert {fact.match for fact in facts} <= {Match.CONFIRMED, Match.ROW_ONLY}
    assert all(fact.values in {"known", "truncated_255"} for fact in facts)


def check_long_text(world: World) -> None:
    facts = of_field(world, "Notes__c")
    truth = [change for change in world.truth if change.field == "Notes__c"]
    assert len(facts) == len(truth)
    by_event = {f"e{change.event}": change for change in truth}
    for fact in facts:
        if fact.event_id is None:
            assert (fact.values, fact.old, fact.new, fact.match) == ("not_stored", None, None, Match.ROW_ONLY)
        else:
            assert fact.new == by_event[fact.event_id].new


def check_events_alone(world: World) -> None:
    hidden = of_field(world, "Hidden__c")
    assert {fact.match for fact in hidden} <= {Match.EVENT_ONLY}
    seen = [change for change in world.truth if change.field == "Hidden__c" and change.event in world.seen_events]
    assert sorted(str(fact.new) for fact in hidden) == sorted(str(change.new) for change in seen)
    free = of_field(world, "Free__c")
    assert {(fact.match, fact.revision) for fact in free} <= {(Match.NOT_TRACKED, 1)}
    assert [(fact.old, fact.new) for fact in free] == [(change.old, change.new) for change in world.expected_free]


def check_single_changes(world: World) -> None:
    """A change with no other of its field near has the right partners, time and names."""
    for change in world.truth:
        near = [c for c in world.truth if c.field == change.field and abs(c.at - change.at) <= 3000]
        if len(near) > 1 or change.field in {"Hidden__c", "Free__c"}:
            continue
        facts = [fact for fact in of_field(world, change.field) if abs(fact.changed_ms - change.at) <= 1000]
        assert len(facts) == 1
        fact = facts[0]
        seen = change.event in world.seen_events
        assert fact.match is (Match.CONFIRMED if seen else Match.ROW_ONLY)
        assert fact.event_id == (f"e{change.event}" if seen else None)
        if change.field == "OwnerId":
            labels = tuple(v if v is None else f"Name of {v}" for v in (change.old, change.new))
            assert (fact.old_label, fact.new_label) == labels
            assert len(fact.history_ids) == 2
            assert fact.history_ids[0].endswith("V")
