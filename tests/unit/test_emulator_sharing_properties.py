"""Whatever people and recalculations do, share rows end as rules and owners say, and the oracle knew all along."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.emulator.org import Change, OrgModel
from consumer.emulator.org_recalculation import RecalculationSettings
from consumer.emulator.org_share_truth import ShareTruth
from consumer.emulator.record_ids import PREFIXES, is_id18, numbered_id
from consumer.emulator.traffic import Traffic
from consumer.emulator.traffic_data import QUEUES, REPS
from tests.unit.emulator_rest import SESSION
from tests.unit.emulator_sharing import NOW, as_kept, from_scratch, session, settle, sharing_org, told, visible

ACTS = (
    "create",
    "move",
    "move",
    "move_many",
    "delete",
    "undelete",
    "purge",
    "rule",
    "change",
    "drop_rule",
    "member",
    "leave",
    "role",
    "share",
    "share",
    "unshare",
    "recalculate",
    "default",
    "wait",
    "wait",
)
OWNERS = (*QUEUES[:3], *REPS[:14])


class Life:
    """Acts at random on one org, at rising times."""

    def __init__(self, org: OrgModel, seed: int) -> None:
        self.org = org
        self.rng = random.Random(seed)
        self.now = NOW
        self.sessions = [session(org, self.rng.choice(OWNERS), NOW) for _ in range(12)]
        self.groups = [
            org.sharing.directory.find(each)
            for each in (
                "Queue_1",
                "Queue_2",
                "Supervisors",
                "Quality",
                "Specialists",
                "Role:Team_Lyon",
                "Role:Team_Oslo",
                "RoleAndSubordinates:Region_South",
                "RoleAndSubordinates:Service_Director",
                "AllInternalUsers",
            )
        ]

    def step(self, act: str) -> None:
        self.now += self.rng.randrange(1, 1500)
        getattr(self, f"_{act}")()

    def _of(self, *, deleted: bool) -> list[str]:
        table = self.org.store.table(SESSION)
        return [each for each in self.sessions if each in table and table[each].deleted == deleted]

    def _commit(self, changes: list[Change]) -> None:
        if changes:
            self.org.commit(changes, self.now)

    def _create(self) -> None:
        self.sessions.append(session(self.org, self.rng.choice(OWNERS), self.now))

    def _move(self, count: int = 1) -> None:
        live = self._of(deleted=False)
        chosen = self.rng.sample(live, min(count, len(live)))
        self._commit([Change("update", SESSION, each, {"OwnerId": self.rng.choice(OWNERS)}) for each in chosen])

    def _move_many(self) -> None:
        self._move(5)

    def _one(self, op: Any, *, deleted: bool) -> None:
        some = self._of(deleted=deleted)
        if some:
            self._commit([Change(op, SESSION, self.rng.choice(some))])

    def _delete(self) -> None:
        self._one("delete", deleted=False)

    def _undelete(self) -> None:
        self._one("undelete", deleted=True)

    def _purge(self) -> None:
        self._one("purge", deleted=self.rng.random() < 0.5)

    def _rule(self) -> None:
        level = self.rng.choice(("Read", "Edit"))
        name = f"Rule {self.now}"
        self.org.sharing.create_rule(name, self.rng.choice(self.groups), self.rng.choice(self.groups), level, self.now)

    def _change(self) -> None:
        for rule in sorted(self.org.sharing.rules)[:1]:
            what = self.rng.choice(({"level": "Edit"}, {"level": "Read"}, {"group": "Quality"}, {"target": "Queue_3"}))
            self.org.sharing.change_rule(rule, self.now, **what)

    def _drop_rule(self) -> None:
        if self.org.sharing.rules:
            self.org.sharing.delete_rule(self.rng.choice(sorted(self.org.sharing.rules)), self.now)

    def _member(self) -> None:
        group, member = self.rng.choice(self.groups[:5]), self.rng.choice((*self.groups[2:], *REPS[:14]))
        self.org.sharing.add_member(group, member, self.now)

    def _leave(self) -> None:
        group = self.rng.choice(self.groups[:5])
        members = sorted(self.org.sharing.directory.members[group])
        if members:
            self.org.sharing.remove_member(group, self.rng.choice(members), self.now)

    def _role(self) -> None:
        role, user = self.rng.choice(list(self.org.sharing.directory.roles)), self.rng.choice(REPS[:14])
        if self.rng.random() < 0.7:
            self.org.sharing.add_member(role, user, self.now)
        else:
            self.org.sharing.remove_member(role, user, self.now)

    def _share(self) -> None:
        for record_id in self.rng.sample(self.sessions, 3):
            level, to = self.rng.choice(("Read", "Edit")), self.rng.choice((*REPS[:4], *self.groups[2:4]))
            self.org.sharing.share(record_id, to, level, self.now)

    def _unshare(self) -> None:
        self.org.sharing.unshare(self.rng.choice(self.sessions), "", self.now)

    def _recalculate(self) -> None:
        self.org.sharing.recalculate(self.now)

    def _default(self) -> None:
        self.org.sharing.set_defaults(self.rng.choice(("Private", "Private", "Read", "ReadWrite")), "Private", self.now)

    def _wait(self) -> None:
        self.now += self.rng.randrange(500, 4000)
        self.org.settle(self.now)


lives = st.tuples(
    st.integers(0, 2**32),
    st.lists(st.sampled_from(ACTS), max_size=60),
    st.sampled_from((0.0, 1.5)),
    st.sampled_from((0.0, 0.3)),
)


@given(lives)
@settings(max_examples=120, deadline=None)
def test_rows_end_as_rules_and_owners_say(life: tuple[int, list[str], float, float]) -> None:
    seed, acts, gap_s, late = life
    it = Life(sharing_org(seed % 7, gap_s=gap_s, late=late), seed)
    for act in acts:
        it.step(act)
    settle(it.org, it.now)
    assert as_kept(it.org) == from_scratch(it.org)
    given_by_default = it.org.sharing.defaults[0]
    for row in it.org.sharing.rows.by_id():
        if not row.gone and row.cause == "Manual":
            assert (given_by_default, row.level) not in {("Read", "Read"), ("ReadWrite", "Read"), ("ReadWrite", "Edit")}


@given(lives)
@settings(max_examples=80, deadline=None)
def test_the_oracle_knows_every_moment(life: tuple[int, list[str], float, float]) -> None:
    seed, acts, gap_s, late = life
    it = Life(sharing_org(seed % 7, gap_s=gap_s, late=late), seed)
    seen = []
    for act in acts:
        it.step(act)
        it.org.settle(it.now)
        seen.append((it.now, visible(it.org, it.now), it.org.sharing.settled))
        assert told(it.org, it.now) == seen[-1][1]
    truth = it.org.sharing.truth
    assert truth is not None
    for at_ms, found, is_settled in seen:
        assert told(it.org, at_ms) == found
        spans = truth.settled_spans()
        assert any(begin <= at_ms and (end is None or at_ms < end) for begin, end in spans) == is_settled
    lines = list(truth.share_lines())
    for line in lines:
        assert line["to_ms"] is None or line["from_ms"] < line["to_ms"]  # type: ignore[operator] # numbers


@given(lives)
@settings(max_examples=60, deadline=None)
def test_the_same_seed_gives_the_same_rows_with_and_without_an_oracle(
    life: tuple[int, list[str], float, float],
) -> None:
    seed, acts, gap_s, late = life
    made = []
    for truth in (True, False):
        it = Life(sharing_org(3, truth=truth, gap_s=gap_s, late=late), seed)
        for act in acts:
            it.step(act)
        now = settle(it.org, it.now)
        made.append([(row.share_id, row.key, row.level, row.stamp_ms, row.by) for row in live(it.org)])
        assert it.org.sharing.hidden_rows(now) == len(live(it.org)) - len(visible(it.org, now))
    assert made[0] == made[1]


@given(lives)
@settings(max_examples=60, deadline=None)
def test_every_order_has_the_same_rows(life: tuple[int, list[str], float, float]) -> None:
    seed, acts, gap_s, late = life
    it = Life(sharing_org(1, truth=False, gap_s=gap_s, late=late), seed)
    for act in acts:
        it.step(act)
    rows = live(it.org)
    kept = it.org.sharing.rows
    assert len(rows) == kept.count
    assert [row.share_id for row in rows] == sorted(row.share_id for row in rows)
    timed = [row for row in kept.by_time(0, float("inf")) if not row.gone]
    assert timed == sorted(rows, key=lambda row: (row.stamp_ms, row.share_id))
    by_parent = list(kept.by_parent())
    assert by_parent == sorted(rows, key=lambda row: (row.parent_id, row.share_id))
    assert not any(row.gone for row in by_parent)


@given(st.integers(0, 2**16))
@settings(max_examples=8, deadline=None)
def test_traffic_makes_the_same_events_with_sharing_and_feed_as_without(seed: int) -> None:
    made = []
    for shared in (False, True):
        org = OrgModel(seed)
        if shared:
            org.sharing.truth, org.feed.truth = ShareTruth(), []
            org.sharing.settings = RecalculationSettings((0.0, 9.0), (0.0, 9.0), 0.5, 3.0, 0.1)
            org.feed.track(["Status", "OwnerId"])
            org.sharing.begin(NOW)
            org.sharing.create_rule("A", "Queue_1", "Quality", "Read", NOW)
            org.sharing.create_rule("B", "RoleAndSubordinates:Region_North", "Supervisors", "Edit", NOW)
        traffic = Traffic(org, seed, live=40, keep=20)
        made.append(traffic.bulk(1_200, NOW, per_second=20))
        if shared:
            settle(org, NOW + 60_000)
            assert as_kept(org) == from_scratch(org)
            feeds = {item.parent_id for item in org.feed.items()}
            assert feeds <= set(org.store.table(SESSION))
    assert made[0] == made[1]


@given(st.sampled_from(sorted(PREFIXES.values())), st.integers(0, 62**6 - 1))
def test_numbered_ids_grow_with_their_number_and_check_out(prefix: str, number: int) -> None:
    made = numbered_id(prefix, number)
    assert is_id18(made)
    assert made.startswith(prefix)
    assert made < numbered_id(prefix, number + 1) or number + 1 == 62**6


def live(org: OrgModel) -> list[Any]:
    return [row for row in org.sharing.rows.by_id() if not row.gone]
