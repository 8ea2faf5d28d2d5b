"""What people do to the sharing of the emulated org: rules, memberships, manual shares, defaults, recalculations.

Facts (sharing guide; Help 005103630): rules, memberships and defaults change at once, the rows of the records
concerned only in a recalculation later; what is saved meanwhile already follows the new rules. Pure and deterministic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from consumer.emulator.org_groups import ADMIN
from consumer.emulator.org_metrics import SESSION
from consumer.emulator.org_recalculation import Recalculation
from consumer.emulator.org_records import Store
from consumer.emulator.org_share_rows import MANUAL, OWNER, ShareRow
from consumer.emulator.org_shares import LEVELS, RANK, RULES, SHARE, Shares, SharingRule
from consumer.emulator.record_ids import PREFIXES, numbered_id
from consumer.emulator.traffic_data import AUTOMATED_USER
from consumer.errors import EmulatorError

__all__ = ["RULES", "SHARE", "Sharing", "SharingRule"]

MAX_RULES: Final = 300
"""Rules an object can have (Salesforce Help, "Sharing Rules Limits")."""
MODELS: Final = ("Private", "Read", "ReadWrite")
"""Org-wide defaults of an object."""

_AT_ONCE: Final = 1_000
_BY_PLATFORM: Final = 0.3


class Sharing(Shares):
    """The sharing of all sessions, with what can be done to it; see the base for its attributes.

    Every act begins with :meth:`settle`, so that what is due comes first.
    """

    def __init__(self, store: Store, seed: int) -> None:
        super().__init__(store, seed)
        self._rule_number = 0

    # Rules

    def create_rule(
        self, name: str, group: str, target: str, level: str, now_ms: int, *, by: str = ADMIN, description: str = ""
    ) -> SharingRule:
        """Create an owner sharing rule.

        Args:
            name: its Name; the DeveloperName is made of it.
            group: whose records; id or name, see ``Directory.find``.
            target: who gains access; id or name.
            level: ``Read`` or ``Edit``.
            now_ms: when, epoch milliseconds.
            by: user who does it.
            description: free text.

        Raises:
            EmulatorError: unknown group or level, a name that is taken, or too many rules.
        """
        developer_name = name.replace(" ", "_")
        if any(each.developer_name == developer_name for each in self.rules.values()):
            raise EmulatorError(f"there is a sharing rule {name} already", "Give it another name")
        if len(self.rules) >= MAX_RULES:
            raise EmulatorError(f"an object has {MAX_RULES} sharing rules at most", "Delete one first")
        self._rule_number += 1
        rule = SharingRule(
            numbered_id(PREFIXES[RULES], self._rule_number),
            name,
            developer_name,
            description or None,
            _level(level),
            self._group(group),
            self.directory.find(target),
            by,
            now_ms,
            by,
            now_ms,
        )
        self._change_rules(None, rule, now_ms, by)
        if self.truth is not None:
            self.truth.rule("created", now_ms, rule.values(), {})
        return rule

    def change_rule(
        self,
        rule: str,
        now_ms: int,
        *,
        group: str = "",
        target: str = "",
        level: str = "",
        name: str = "",
        by: str = ADMIN,
    ) -> SharingRule:
        """Change a rule; what is empty stays. A rule that is not truly changed keeps its stamps.

        Raises:
            EmulatorError: unknown rule, group or level.
        """
        old = self.rule(rule)
        new = replace(
            old,
            group_id=self._group(group) if group else old.group_id,
            target_id=self.directory.find(target) if target else old.target_id,
            level=_level(level) if level else old.level,
            name=name or old.name,
        )
        if new == old:
            return old
        before = old.values()
        changed = {field: before[field] for field, value in new.values().items() if before[field] != value}
        new = replace(new, modified_by=by, modified_ms=now_ms)
        self._change_rules(old, new, now_ms, by)
        if self.truth is not None:
            self.truth.rule("changed", now_ms, new.values(), changed)
        return new

    def delete_rule(self, rule: str, now_ms: int, *, by: str = ADMIN) -> SharingRule:
        """Delete a rule for good, and return it as it was.

        Raises:
            EmulatorError: there is no such rule.
        """
        old = self.rule(rule)
        self._change_rules(old, None, now_ms, by)
        self.deleted_rules[old.rule_id] = now_ms // 1000 * 1000
        if self.truth is not None:
            self.truth.rule("deleted", now_ms, old.values(), {})
        return old

    def rule(self, text: str) -> SharingRule:
        """Return a rule by id or name.

        Raises:
            EmulatorError: there is none.
        """
        for each in self.rules.values():
            if text in {each.rule_id, each.developer_name, each.name}:
                return each
        raise EmulatorError(f"there is no sharing rule {text!r}", "Give a rule's id or name")

    def _group(self, text: str) -> str:
        found = self.directory.find(text)
        if found not in self.directory.groups:
            raise EmulatorError(f"{text} is no group", "A rule is about the records of a group's or queue's members")
        return found

    def _change_rules(self, old: SharingRule | None, new: SharingRule | None, now_ms: int, by: str) -> None:
        self.settle(now_ms)
        if old is not None:
            del self.rules[old.rule_id]
        if new is not None:
            self.rules[new.rule_id] = new
        self._grants.clear()
        groups = {rule.group_id for rule in (old, new) if rule is not None}
        owners = [owner for owner in self.directory.owners() if groups & self.directory.groups_of(owner)]
        self._order(frozenset(owners), now_ms, by)

    # Memberships

    def add_member(self, group: str, member: str, now_ms: int, *, by: str = ADMIN) -> None:
        """Put somebody into a queue or public group, or give a user a role (``UserRole:`` and its name, or its id).

        Raises:
            EmulatorError: unknown group, role or member.
        """
        group_id, member_id = self.directory.find(group), self.directory.find(member)
        if group_id in self.directory.roles:
            self._change_members(lambda: self.directory.set_role(member_id, group_id), group_id, now_ms, by)
        else:
            self._change_members(lambda: self.directory.add_member(group_id, member_id), group_id, now_ms, by)

    def remove_member(self, group: str, member: str, now_ms: int, *, by: str = ADMIN) -> None:
        """Take somebody out of a queue or public group, or take a user's role away.

        Raises:
            EmulatorError: unknown group, role or member.
        """
        group_id, member_id = self.directory.find(group), self.directory.find(member)
        if group_id not in self.directory.roles:
            self._change_members(lambda: self.directory.remove_member(group_id, member_id), group_id, now_ms, by)
            return
        user = self.directory.users.get(member_id)
        if user is not None and user.role_id == group_id:
            self._change_members(lambda: self.directory.set_role(member_id, ""), group_id, now_ms, by)

    def _change_members(self, change: Callable[[], None], group_id: str, now_ms: int, by: str) -> None:
        self.settle(now_ms)
        before = {owner: self.directory.groups_of(owner) for owner in self.directory.owners()}
        change()
        self._grants.clear()
        concerned = {rule.group_id for rule in self.rules.values() if rule.target_id == group_id}
        moved = [owner for owner, groups in before.items() if groups != self.directory.groups_of(owner)]
        # Rows for the group itself stay as they are, but are recalculated too.
        shared = [owner for owner, groups in before.items() if concerned & groups]
        self._order(frozenset((*moved, *shared)), now_ms, by)

    # Defaults

    def set_defaults(self, internal: str, external: str, now_ms: int, *, by: str = ADMIN) -> None:
        """Change the org-wide defaults; rows that give no more than the internal one go in the recalculation.

        Raises:
            EmulatorError: unknown default.
        """
        if internal not in MODELS or external not in MODELS:
            raise EmulatorError(f"{internal}, {external} are no defaults", f"Give two of {', '.join(MODELS)}")
        self.settle(now_ms)
        self.defaults = (internal, external)
        self._grants.clear()
        self._order(None, now_ms, by)

    # Manual shares

    def share(self, record_id: str, grantee: str, level: str, now_ms: int, *, by: str = ADMIN) -> bool:
        """Share a record by hand; a row that is there is changed and keeps its Id.

        Returns:
            Whether anything is different now; nothing is for the owner, or where the default gives as much.

        Raises:
            EmulatorError: unknown grantee or level.
        """
        self.settle(now_ms)
        grantee_id, level = self.directory.find(grantee), _level(level)
        rows = {(row.grantee, row.cause): row for row in self.rows.of(record_id)}
        trivial = RANK[level] <= RANK[self.defaults[0]]
        if not rows or (grantee_id, OWNER) in rows or trivial:
            return False
        known = rows.get((grantee_id, MANUAL))
        if known is None:
            self._add(record_id, grantee_id, MANUAL, level, now_ms, by)
        elif known.level == level:
            return False
        else:
            self._level(known, level, now_ms, by)
        return True

    def unshare(self, record_id: str, grantee: str, now_ms: int) -> bool:
        """Take back what was shared by hand; return whether there was anything.

        Args:
            record_id: the session.
            grantee: id or name; empty for all of the record's manual shares.
            now_ms: when, epoch milliseconds.

        Raises:
            EmulatorError: unknown grantee.
        """
        self.settle(now_ms)
        grantee_id = self.directory.find(grantee) if grantee else ""
        rows = [row for row in self.manual_rows(record_id) if grantee_id in {"", row.grantee}]
        for row in rows:
            self._remove(row, now_ms)
        return bool(rows)

    def manual_rows(self, record_id: str) -> list[ShareRow]:
        """Return a record's manual shares."""
        return [row for row in self.rows.of(record_id) if row.cause == MANUAL]

    # Recalculations

    def recalculate(
        self, now_ms: int, *, owners: frozenset[str] | None = None, recreate: float = 1.0, by: str = ADMIN
    ) -> None:
        """Order a recalculation that makes rows anew; None for the records of all owners."""
        self.settle(now_ms)
        self._order(owners, now_ms, by, recreate)

    def _order(self, owners: frozenset[str] | None, now_ms: int, by: str, recreate: float | None = None) -> None:
        if not self.active or (owners is not None and not owners):
            return
        settings = self.settings
        start_ms = now_ms + round(self._random.uniform(*settings.delay_s) * 1000)
        end_ms = start_ms + max(1, round(self._random.uniform(*settings.duration_s) * 1000))
        share = settings.recreate if recreate is None else recreate
        # Whose rows they are is not documented: whoever set it off, or the platform.
        by = AUTOMATED_USER if self._random.random() < _BY_PLATFORM else by
        self._pending.jobs.append(Recalculation(start_ms, end_ms, owners, by, share))
        self._note_settled(now_ms)

    def is_due(self, now_ms: int) -> bool:
        """Return whether :meth:`settle` may have anything to do."""
        return bool(self._pending) and self._pending.is_due(now_ms)

    def settle(self, now_ms: int) -> None:
        """Carry out what recalculations have come to; at most a thousand records at a call, so nobody waits long."""
        if not self.is_due(now_ms):
            return
        table = self._store.table(SESSION)
        while record_id := self._pending.take_return(now_ms):
            row = table.get(record_id)
            if record_id in self._away and row is not None:
                self._follow(record_id, row.values["OwnerId"], now_ms, ADMIN)
        left = _AT_ONCE
        for job in tuple(self._pending.jobs):
            left -= self._slice(job, now_ms, left)
            if job.done(now_ms):
                self._pending.jobs.remove(job)
        self._note_settled(now_ms)

    def _slice(self, job: Recalculation, now_ms: int, most: int) -> int:
        if now_ms < job.start_ms:
            return 0
        table = self._store.table(SESSION)
        if job.records is None:
            owners = job.owners
            job.records = [
                record_id
                for record_id, row in table.items()
                if not row.deleted and (owners is None or row.values.get("OwnerId") in owners)
            ]
        begin = job.place
        job.place = min(job.target(now_ms), begin + most)
        for record_id in job.records[begin : job.place]:
            row = table.get(record_id)
            if row is None or row.deleted or not self.rows.has(record_id):
                continue
            if job.owners is None:
                self._drop_trivial(record_id, now_ms)
            self._follow(record_id, row.values["OwnerId"], now_ms, job.by, job.recreate, self.settings.gap_s)
        return job.place - begin

    def _drop_trivial(self, record_id: str, now_ms: int) -> None:
        """Remove manual shares that give no more than everybody has."""
        for row in self.manual_rows(record_id):
            if RANK[row.level] <= RANK[self.defaults[0]]:
                self._remove(row, now_ms)

    def _note_settled(self, now_ms: int) -> None:
        if self.truth is not None:
            self.truth.settled(now_ms, is_settled=self.settled)


def _level(text: str) -> str:
    if text not in LEVELS:
        raise EmulatorError(f"{text!r} is no access level", f"Give one of {', '.join(LEVELS)}")
    return text
