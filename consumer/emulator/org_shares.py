"""Share rows of sessions in the emulated org, as they follow from owners and owner sharing rules.

Facts (Object Reference on share and rule objects; sharing guide): an owner change makes a new Owner row, recomputes
Rule rows and deletes Manual ones in its own transaction; several rules for one grantee make one row with the highest
level; a deleted record has no rows, and comes back with those of owner and rules. Pure and deterministic, with random
choices of its own.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from consumer.emulator.org_groups import ADMIN, Directory
from consumer.emulator.org_metrics import SESSION
from consumer.emulator.org_recalculation import Pending, RecalculationSettings
from consumer.emulator.org_records import OrgRecord, Store
from consumer.emulator.org_share_rows import OWNER, RULE, ShareRow, ShareRows
from consumer.emulator.org_share_truth import ShareTruth

SHARE: Final = "MessagingSessionShare"
RULES: Final = "MessagingSessionOwnerSharingRule"
LEVELS: Final = ("Read", "Edit")
"""What rules and manual shares can give."""

RANK: Final[Mapping[str, int]] = {"": 0, "Private": 0, "Read": 1, "Edit": 2, "ReadWrite": 2, "All": 3}
"""How much a level or default gives."""
_LATE_MS: Final = (3_000, 120_000)


@dataclass(frozen=True, slots=True)
class SharingRule:
    """One row of MessagingSessionOwnerSharingRule.

    Attributes:
        rule_id: 18 characters.
        group_id: whose records: those owned by members of this group, or by this queue.
        target_id: who gains access.
        level: ``Read`` or ``Edit``.
        created_ms, modified_ms: epoch milliseconds.
    """

    rule_id: str
    name: str
    developer_name: str
    description: str | None
    level: str
    group_id: str
    target_id: str
    created_by: str
    created_ms: int
    modified_by: str
    modified_ms: int

    def values(self) -> dict[str, object]:
        """Return its fields by API name."""
        return {
            "Id": self.rule_id,
            "Name": self.name,
            "DeveloperName": self.developer_name,
            "Description": self.description,
            "AccessLevel": self.level,
            "GroupId": self.group_id,
            "UserOrGroupId": self.target_id,
            "CreatedById": self.created_by,
            "CreatedDate": self.created_ms,
            "LastModifiedById": self.modified_by,
            "LastModifiedDate": self.modified_ms,
            "SystemModstamp": self.modified_ms,
        }


class Shares:
    """The share rows of all sessions, following owners and rules.

    Args:
        store: the org's records.
        seed: decides when and what recalculations do.

    Attributes:
        directory: users, roles and groups.
        rules: by id.
        rows: the share rows; empty until :meth:`begin`.
        active: whether rows are kept; until somebody asks for them, they cost nothing.
        settings: how recalculations go.
        defaults: org-wide defaults of sessions, internal and external.
        truth: the log of what happened, None unless a test wants it (set it before :meth:`begin`).
        deleted_rules: when rules were deleted, by id: epoch milliseconds in whole seconds.
        latest_ms: the latest time anything was done at, epoch milliseconds.
    """

    def __init__(self, store: Store, seed: int) -> None:
        self.directory = Directory()
        self.rules: dict[str, SharingRule] = {}
        self.rows = ShareRows()
        self.active = False
        self.settings = RecalculationSettings()
        self.defaults = ("Private", "Private")
        self.truth: ShareTruth | None = None
        self.deleted_rules: dict[str, int] = {}
        self.latest_ms = 0
        self._store = store
        self._random = random.Random(f"sharing:{seed}")  # noqa: S311 - reproducible, no secret
        self._grants: dict[str, dict[str, str]] = {}
        self._pending = Pending()
        self._late: list[tuple[int, str]] = []
        self._away: dict[str, frozenset[str]] = {}

    @property
    def settled(self) -> bool:
        """Whether all rows are as rules, groups and owners say: no recalculation is ordered or under way."""
        return not self._pending

    @property
    def recalculations(self) -> int:
        """How many recalculations are ordered or under way."""
        return len(self._pending.jobs)

    def hidden_rows(self, now_ms: int) -> int:
        """Return how many rows queries don't find yet."""
        while self._late and self._late[0][0] <= now_ms:
            heapq.heappop(self._late)
        return sum(1 for _, share_id in self._late if self._is_hidden(share_id, now_ms))

    def _is_hidden(self, share_id: str, now_ms: int) -> bool:
        rows = self.rows.by_id(share_id, share_id)
        return bool(rows) and not rows[0].gone and rows[0].hidden_until_ms > now_ms

    def begin(self, now_ms: int) -> None:
        """Keep share rows from now on; records that are there get those of owner and rules."""
        if self.active:
            return
        self.active = True
        if self.truth is not None:
            self.truth.settled(now_ms, is_settled=True)
        for record_id, row in self._store.table(SESSION).items():
            if not row.deleted:
                user = row.values.get("LastModifiedById") or ADMIN
                self._appear(record_id, row, row.system_modstamp_ms, user, at_once=True)

    # Owners

    def note(self, record_ids: Iterable[str], now_ms: int, user: str) -> None:
        """Let the rows of records follow what one transaction did to them.

        Args:
            record_ids: sessions that were created, deleted or recovered, or given another owner.
            now_ms: when, epoch milliseconds.
            user: who did it.
        """
        table = self._store.table(SESSION)
        self.latest_ms = max(self.latest_ms, now_ms)
        for record_id in record_ids:
            row = table.get(record_id)
            if row is None or row.deleted:
                self.forget(record_id, now_ms)
            elif not self.rows.has(record_id):
                self._appear(record_id, row, now_ms, user)
            else:
                self._move(record_id, row, now_ms, user)

    def _appear(self, record_id: str, row: OrgRecord, now_ms: int, user: str, *, at_once: bool = False) -> None:
        owner = row.values.get("OwnerId")
        if owner is None:
            return
        self._add(record_id, owner, OWNER, "All", now_ms, user, at_once=at_once)
        for grantee, level in self.grants(owner).items():
            self._add(record_id, grantee, RULE, level, now_ms, user, at_once=at_once)

    def _move(self, record_id: str, row: OrgRecord, now_ms: int, user: str) -> None:
        rows = self.rows.of(record_id)
        owner = row.values.get("OwnerId")
        if any(each.cause == OWNER and each.grantee == owner for each in rows):
            return
        if owner is None:
            self.forget(record_id, now_ms)
            return
        for each in rows:
            if each.cause != RULE:
                self._remove(each, now_ms)
        self._add(record_id, owner, OWNER, "All", now_ms, user)
        self._follow(record_id, owner, now_ms, user, self.settings.recreate)

    def forget(self, record_id: str, now_ms: int) -> None:
        """Remove all rows of a record, as its delete does."""
        for each in self.rows.of(record_id):
            self._remove(each, now_ms)
        self._come_back(record_id, ())

    # Rules

    def grants(self, owner: str) -> Mapping[str, str]:
        """Return what rules give on this owner's records: level by grantee."""
        known = self._grants.get(owner)
        if known is None:
            known = self._grants[owner] = {}
            groups = self.directory.groups_of(owner)
            for rule in self.rules.values():
                given = max(RANK[self.defaults[0]], RANK[known.get(rule.target_id, "")])
                if rule.group_id in groups and RANK[rule.level] > given:
                    known[rule.target_id] = rule.level
        return known

    def _follow(
        self, record_id: str, owner: str, now_ms: int, user: str, recreate: float = 0.0, gap_s: float = 0.0
    ) -> None:
        """Make a record's Rule rows those that the rules give."""
        wanted = self.grants(owner)
        back = self._come_back(record_id, wanted)
        have = {row.grantee: row for row in self.rows.of(record_id) if row.cause == RULE}
        anew = bool(have) and recreate > 0 and self._random.random() < recreate
        away = set()
        for grantee, row in have.items():
            level = wanted.get(grantee)
            if level is None:
                self._remove(row, now_ms)
            elif level != row.level:
                self._level(row, level, now_ms, user, anew=anew)
            elif anew and row.hidden_until_ms <= now_ms:
                self._renew(row, now_ms, user, gap=gap_s > 0)
                if gap_s > 0:
                    away.add(grantee)
        for grantee, level in wanted.items():
            if grantee not in have:
                self._add(record_id, grantee, RULE, level, now_ms, user, at_once=grantee in back)
        if away:
            self._away[record_id] = frozenset(away)
            gap_ms = 1 + int(gap_s * 1000 * (0.2 + 0.8 * self._random.random()))
            self._pending.returns_at(now_ms + gap_ms, record_id)

    def _come_back(self, record_id: str, wanted: Iterable[str]) -> frozenset[str]:
        """Return for whom a record's rows were away; those that are not wanted any more ended when they went."""
        away = self._away.pop(record_id, None)
        if away is None:
            return frozenset()
        if self.truth is not None:
            for grantee in away.difference(wanted):
                self.truth.lost((record_id, grantee, RULE))
        return away

    # Rows

    def _add(
        self,
        record_id: str,
        grantee: str,
        cause: str,
        level: str,
        now_ms: int,
        user: str,
        *,
        at_once: bool = False,
    ) -> None:
        late_ms = 0
        if self.settings.late and not at_once and self._random.random() < self.settings.late:
            late_ms = self._random.randint(*_LATE_MS)
        row = self.rows.add(record_id, grantee, cause, level, now_ms, user, late_ms)
        if late_ms:
            heapq.heappush(self._late, (row.hidden_until_ms, row.share_id))
        if self.truth is not None:
            self.truth.granted(row.key, level, now_ms + late_ms)

    def _remove(self, row: ShareRow, now_ms: int) -> None:
        self.rows.remove(row)
        if self.truth is not None:
            self.truth.revoked(row.key, now_ms)

    def _level(self, row: ShareRow, level: str, now_ms: int, user: str, *, anew: bool = False) -> None:
        """Give a row another level, under another Id if it is made anew."""
        if anew:
            self.rows.remove(row)
            self.rows.add(*row.key, level, now_ms, user)
            if self.truth is not None:
                self.truth.renewed(row.key, now_ms)
        else:
            self.rows.change(row, level, now_ms, user)
        if self.truth is not None:
            self.truth.changed(row.key, level, now_ms)

    def _renew(self, row: ShareRow, now_ms: int, user: str, *, gap: bool) -> None:
        """Make a row anew under another Id; with a gap it is only removed, to come back later."""
        self.rows.remove(row)
        if not gap:
            self.rows.add(*row.key, row.level, now_ms, user)
        elif self.truth is not None:
            self.truth.absent(row.key, now_ms)
