"""Generated lives of a record's shares, read at random times: every answer about a past moment is true, or unknown.

The life is the truth; polls, sweeps and reads after owner changes go through the tracker that the service has; what it
tells, and the newest ``access``, is all that the answers are made of.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.delivery.access import encode_access
from consumer.delivery.sharing import Sharing
from consumer.tracking.access import ShareCause, ShareRow, SharesDue
from consumer.tracking.arrivals import RecordShares, SharesRead
from consumer.tracking.sharing import READ_AFTER_MS
from consumer.tracking.timeline_access import access_at, access_of, read_access, read_share_fact
from tests.delivery_values import ORG, TOPICS
from tests.sharing_values import OVERLAP, SETTLE, SharingStates, due_of, owe, owned_by, tracker
from tests.tracking_values import ENTITY, KEY, RECORD, S0

OWNERS = ("005000000000001AAA", "005000000000002AAA", "00G000000000001AAA")
TEAMS = ("00G000000000008AAA", "00G000000000009AAA")
HAND = ("005000000000007AAA", "005000000000008AAA")
_SECOND = 1000
_THERE_MS = 45_000
"""A poll, or a read after an owner change, comes at least so often here."""
_AWAY_MS = 220_000
"""A row that is missed is only gone when two further readings miss it too."""


@dataclass
class Life:
    """The rows of one record, as the platform keeps them.

    Attributes:
        rows: by grantee and cause, with what a reader sees.
        log: by grantee and cause, times and levels (None: gone).
    """

    rows: dict[tuple[str, str], ShareRow] = field(default_factory=dict)
    log: dict[tuple[str, str], list[tuple[int, str | None]]] = field(default_factory=dict)
    owner: str = OWNERS[0]
    number: int = 0

    def put(self, grantee: str, cause: str, level: str, at_ms: int, *, anew: bool = True) -> None:
        """Make or change a row."""
        key = (grantee, cause)
        before = self.rows.get(key)
        self.number += 1
        share_id = f"02c{self.number:012}AAA" if anew or before is None else before.share_id
        self.rows[key] = ShareRow(RECORD, share_id, grantee, cause, level, at_ms // _SECOND * _SECOND, "005x")
        if before is None or before.access_level != level:
            self.log.setdefault(key, []).append((at_ms, level))

    def drop(self, key: tuple[str, str], at_ms: int) -> None:
        """Delete a row."""
        if self.rows.pop(key, None) is not None:
            self.log[key].append((at_ms, None))

    def transfer(self, owner: str, at_ms: int) -> None:
        """Change the owner: its row, rule rows by its kind, and all manual rows go."""
        if owner == self.owner and self.rows:
            return
        for key in [key for key in self.rows if key[1] != "Rule"]:
            self.drop(key, at_ms)
        self.owner = owner
        self.put(owner, "Owner", "All", at_ms)
        for index, team in enumerate(TEAMS):
            if (owner.startswith("00G")) == (index == 0):
                self.put(team, "Rule", "Read", at_ms)
            else:
                self.drop((team, "Rule"), at_ms)

    def level_at(self, key: tuple[str, str], at_ms: int) -> str | None:
        """Return what was true."""
        level = None
        for when, what in self.log.get(key, ()):
            if when <= at_ms:
                level = what
        return level


class World:
    """A record, its reader, and a clock that only goes forward."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.now_ms = S0
        self.life = Life()
        self.states = SharingStates()
        self.tracker = tracker(self.states)
        self.told: list[bytes] = []
        self.life.transfer(OWNERS[2], self.now_ms)
        self.states.put(owned_by(OWNERS[2]))
        self.swept_ms = 0

    def pass_time(self, least_ms: int, most_ms: int) -> None:
        self.now_ms += self.chance.randint(least_ms, most_ms)

    def act(self) -> None:
        """Let something happen to the record."""
        life, chance = self.life, self.chance
        match chance.choice(("transfer", "transfer", "share", "unshare", "level", "recalculate", "rule")):
            case "transfer":
                self._transfer(chance.choice([each for each in OWNERS if each != life.owner]))
            case "share":
                life.put(chance.choice(HAND), "Manual", chance.choice(("Read", "Edit")), self.now_ms, anew=False)
            case "unshare":
                life.drop((chance.choice(HAND), "Manual"), self.now_ms)
            case "level":
                for key in [key for key in life.rows if key[1] == "Manual"][:1]:
                    life.put(*key, chance.choice(("Read", "Edit")), self.now_ms, anew=False)
            case "recalculate":
                for key in [key for key in life.rows if key[1] == "Rule"]:
                    life.put(*key, life.rows[key].access_level, self.now_ms)
            case "rule":
                self._turn_rule(chance.choice(TEAMS))

    def _turn_rule(self, team: str) -> None:
        if (team, "Rule") in self.life.rows:
            self.life.drop((team, "Rule"), self.now_ms)
        else:
            self.life.put(team, "Rule", "Edit", self.now_ms)

    def _transfer(self, owner: str) -> None:
        self.life.transfer(owner, self.now_ms)
        self.states.put(owned_by(owner))
        commit_ms = self.now_ms // _SECOND * _SECOND
        due = due_of(self.states) or SharesDue(0, ShareCause.OWNER_CHANGE)
        first = commit_ms if due.first_ms is None else due.first_ms
        owe(
            self.states,
            SharesDue(commit_ms + READ_AFTER_MS, ShareCause.OWNER_CHANGE, first, commit_ms, due.changes + 1, by="005x"),
        )

    # Reading

    def _read(self, rows: Sequence[ShareRow], *, whole: bool, cause: ShareCause | None, **more: int | None) -> None:
        asked_ms = self.now_ms - _SECOND
        answered_ms = self.now_ms // _SECOND * _SECOND + 2 * _SECOND
        records = (RecordShares(RECORD, tuple(rows)),) if rows or whole else ()
        read = SharesRead(ENTITY, records, whole, cause, asked_ms, answered_ms, **more)  # type: ignore[arg-type]
        facts = self.tracker.on_read(read)
        self.told += [record.value or b"" for record in Sharing(ORG, TOPICS).records(ENTITY, facts, answered_ms)]

    def read_whole(self, cause: ShareCause | None) -> None:
        self._read(list(self.life.rows.values()), whole=True, cause=cause)

    def sweep(self) -> None:
        begun_ms = self.now_ms
        self.pass_time(1, 20_000)
        self.read_whole(ShareCause.SWEEP)
        self.pass_time(1, 20_000)
        end = SharesRead(ENTITY, (), True, ShareCause.SWEEP, self.now_ms, self.now_ms, swept_from_ms=begun_ms)
        self.tracker.on_read(end)
        self.swept_ms = begun_ms

    def poll(self) -> None:
        since_ms = self.now_ms - OVERLAP
        rows = [row for row in self.life.rows.values() if (row.modified_ms or 0) >= since_ms]
        self._read(rows, whole=False, cause=ShareCause.INCREMENTAL, polled_ms=self.now_ms - _SECOND)

    def owed(self) -> None:
        due = due_of(self.states)
        if due is not None and due.due_ms <= self.now_ms:
            self.read_whole(None)


@settings(max_examples=300, deadline=None)
@given(st.integers(min_value=0, max_value=1 << 32), st.integers(min_value=4, max_value=40))
def test_every_answer_is_true_or_unknown_inside_of_a_published_interval(seed: int, steps: int) -> None:
    chance = random.Random(seed)
    world = World(chance)
    world.pass_time(1, 50_000)
    world.sweep()
    for _ in range(steps):
        world.pass_time(1_500, 40_000)
        if chance.random() < 0.55:
            world.act()
        # Polls and owed reads come often enough that nothing but quick owner changes is missed between them.
        world.pass_time(1, 2_000)
        world.poll()
        world.pass_time(1, 4_000)
        world.owed()
        if chance.random() < 0.8:
            world.sweep()
    for _ in range(3):  # what waits for another reading gets it
        world.pass_time(SETTLE + 5_000, SETTLE + 9_000)
        world.owed()
        world.sweep()

    facts = [read_share_fact(orjson.loads(each)) for each in world.told]
    assert len({fact.fact_id for fact in facts}) == len(facts), "a fact is told once"
    known = world.states.access(KEY)
    assert known is not None
    now = read_access(orjson.loads(encode_access(TOPICS, ORG, known).value or b""))
    access = access_of(facts, now, world.swept_ms, None)

    current = {(share.user_or_group_id, share.row_cause): share.level for share in now.shares}
    assert current == {key: row.access_level for key, row in world.life.rows.items()}, "access is what there is"

    published = [(fact.from_ms, fact.to_ms) for fact in facts]
    for _ in range(60):
        at_ms = chance.randint(S0, world.now_ms)
        for answer in access_at(access, at_ms):
            key = (answer.user_or_group_id, answer.row_cause or "")
            if answer.answer == "unknown":
                inside = any((start is None or start <= at_ms) and at_ms < end for start, end in published)
                assert inside or at_ms > (access.checked_ms or 0), (answer, at_ms - S0)
                continue
            true = world.life.level_at(key, at_ms)
            if _unseen_life(world, key, at_ms):
                continue
            assert answer.level == true, (key, at_ms - S0, answer, world.life.log[key])


def _unseen_life(world: World, key: tuple[str, str], at_ms: int) -> bool:
    """Return whether a share came and went, or went and came back, around a moment without any reading in between."""
    log = world.life.log.get(key, [])
    for (first, level), (second, _) in pairwise(log):
        if first <= at_ms < second and second - first <= (_AWAY_MS if level is None else _THERE_MS):
            return True
    return False
