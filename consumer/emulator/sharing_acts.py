"""Carries out what is ordered of sharing and feed; see :mod:`consumer.emulator.fault_kinds_sharing` for the kinds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from consumer.emulator import fault_kinds_sharing as kinds
from consumer.emulator.bus import Entry
from consumer.emulator.fault_base import Fault
from consumer.emulator.org import Change, OrgModel
from consumer.emulator.org_groups import ADMIN, QUEUE, REGULAR, ROLE, ROLE_AND_SUBORDINATES
from consumer.emulator.org_metrics import SESSION
from consumer.emulator.org_shares import SHARE
from consumer.emulator.sharing_traffic import SharingRates
from consumer.emulator.state import ServerState
from consumer.emulator.traffic_data import REPS, UI_ORIGIN
from consumer.errors import EmulatorError

_OTHER: Final = {"Read": "Edit", "Edit": "Read"}


class SharingActs:
    """The hand that shares.

    Args:
        state: clock, bus and seed.
        model: the org.
        rates: how much happens by itself.
    """

    def __init__(self, state: ServerState, model: OrgModel, rates: SharingRates) -> None:
        self._state = state
        self._model = model
        self._rates = rates
        self._sharing = model.sharing
        self._feed = model.feed
        self._random = random.Random(f"sharing-acts:{state.seed}")  # noqa: S311 - reproducible acts, no secret
        self._named = 0
        self.handlers: dict[type[Fault], Callable[[Any], Any]] = {
            kinds.Transfer: self._transfer,
            kinds.RuleCreate: self._rule_create,
            kinds.RuleChange: self._rule_change,
            kinds.RuleDelete: self._rule_delete,
            kinds.Membership: self._membership,
            kinds.Share: self._share,
            kinds.Unshare: self._unshare,
            kinds.LevelChange: self._level_change,
            kinds.Recalculate: self._recalculate,
            kinds.OrgDefault: self._org_default,
            kinds.FeedPost: self._feed_post,
            kinds.FeedEdit: self._feed_edit,
            kinds.FeedDelete: self._feed_delete,
            kinds.ObjectAccess: self._object_access,
            kinds.SharingTraffic: self._sharing_traffic,
        }

    def _now(self) -> int:
        """Return the org's time; from the first act on, share rows are kept.

        Raises:
            EmulatorError: the scenario's org has no sharing.
        """
        if self._model.closed.get(SHARE) == "invalid_type" and not self._sharing.active:
            raise EmulatorError("the org has no sharing", "Set sharing.enabled = true in the scenario")
        now_ms = self._state.now_ms()
        self._sharing.begin(now_ms)
        return now_ms

    def _chosen(self, record_ids: Sequence[str], records: int) -> Sequence[str]:
        for record_id in record_ids:
            row = self._model.row(SESSION, record_id)
            if row is None or row.deleted:
                raise EmulatorError(f"there is no live {SESSION} {record_id}", "Give ids of live ones")
        table = self._model.store.table(SESSION)
        chosen = record_ids or self._sample([each for each, row in table.items() if not row.deleted], records)
        if not chosen:
            raise EmulatorError(f"there is no {SESSION} record yet", "Commit a create first")
        return chosen

    def _sample(self, among: Sequence[str], count: int) -> list[str]:
        return self._random.sample(among, min(count, len(among)))

    # Sharing

    def _transfer(self, fault: kinds.Transfer) -> list[Entry]:
        now_ms, entries = self._now(), list[Entry]()
        wanted = self._sharing.directory.find(fault.to) if fault.to else ""
        for record_id in self._chosen(fault.record_ids, fault.records):
            row = self._model.row(SESSION, record_id)
            owner = None if row is None else row.values.get("OwnerId")
            to = wanted or self._random.choice([each for each in self._owners() if each != owner])
            change = Change("update", SESSION, record_id, {"OwnerId": to})
            user = fault.user or self._random.choice(REPS)
            entries += self._state.bus.append(self._model.commit([change], now_ms, user=user, origin=UI_ORIGIN))
        return entries

    def _owners(self) -> list[str]:
        return [*REPS, *self._groups(QUEUE)]

    def _groups(self, *wanted: str) -> list[str]:
        return [group_id for group_id, group in self._sharing.directory.groups.items() if group.kind in wanted]

    def _rule_create(self, fault: kinds.RuleCreate) -> None:
        now_ms = self._now()
        name = fault.name
        while not name:
            self._named += 1
            name = f"Emulated rule {self._named}"
            if any(each.name == name for each in self._sharing.rules.values()):
                name = ""
        source = fault.source or self._random.choice(self._groups(QUEUE, REGULAR, ROLE, ROLE_AND_SUBORDINATES))
        target = fault.target or self._random.choice(self._groups(REGULAR, ROLE, ROLE_AND_SUBORDINATES))
        self._sharing.create_rule(name, source, target, fault.level, now_ms, description=fault.description)

    def _rule(self, text: str) -> str:
        if text:
            return text
        if not self._sharing.rules:
            raise EmulatorError("there is no sharing rule yet", "Create one with rule_create")
        return self._random.choice(sorted(self._sharing.rules))

    def _rule_change(self, fault: kinds.RuleChange) -> None:
        now_ms, rule = self._now(), self._sharing.rule(self._rule(fault.rule))
        level = fault.level
        if not (fault.source or fault.target or fault.level or fault.name):
            self._sharing.change_rule(rule.rule_id, now_ms, level=_OTHER[rule.level])
            return
        self._sharing.change_rule(
            rule.rule_id, now_ms, group=fault.source, target=fault.target, level=level, name=fault.name
        )

    def _rule_delete(self, fault: kinds.RuleDelete) -> None:
        now_ms = self._now()
        self._sharing.delete_rule(self._rule(fault.rule), now_ms)

    def _membership(self, fault: kinds.Membership) -> None:
        now_ms, directory = self._now(), self._sharing.directory
        group = directory.find(fault.group or self._random.choice(self._groups(QUEUE, REGULAR)))
        members = directory.members.get(group, {})
        add = fault.add
        if add is None:
            add = not members or self._random.random() < 0.5
        outside = [user_id for user_id in REPS if user_id not in members]
        among = outside if add else sorted(members)
        if group in directory.roles:
            among = [each for each in REPS if (directory.users[each].role_id == group) != add]
        member = fault.member or (self._random.choice(among) if among else "")
        if member and add:
            self._sharing.add_member(group, member, now_ms)
        elif member:
            self._sharing.remove_member(group, member, now_ms)

    def _share(self, fault: kinds.Share) -> None:
        now_ms, user = self._now(), fault.user or ADMIN
        for record_id in self._chosen(fault.record_ids, fault.records):
            to = fault.to or self._random.choice([*REPS, *self._groups(REGULAR, ROLE)])
            self._sharing.share(record_id, to, fault.level, now_ms, by=user)

    def _with_manual(self, record_ids: Sequence[str], records: int) -> Iterable[str]:
        return record_ids or self._sample(self._sharing.rows.parents_with_manual(), records)

    def _unshare(self, fault: kinds.Unshare) -> None:
        now_ms = self._now()
        for record_id in self._with_manual(fault.record_ids, fault.records):
            self._sharing.unshare(record_id, fault.to, now_ms)

    def _level_change(self, fault: kinds.LevelChange) -> None:
        now_ms = self._now()
        grantee = self._sharing.directory.find(fault.to) if fault.to else ""
        for record_id in self._with_manual(fault.record_ids, fault.records):
            for row in self._sharing.manual_rows(record_id):
                if grantee in {"", row.grantee}:
                    level = fault.level or _OTHER[row.level]
                    self._sharing.share(record_id, row.grantee, level, now_ms)

    def _recalculate(self, fault: kinds.Recalculate) -> None:
        self._sharing.recalculate(self._now(), recreate=fault.recreate)

    def _org_default(self, fault: kinds.OrgDefault) -> None:
        self._sharing.set_defaults(fault.internal, fault.external, self._now())

    # Feed

    def _feed_post(self, fault: kinds.FeedPost) -> None:
        now_ms = self._state.now_ms()
        for record_id in self._chosen(fault.record_ids, fault.records):
            user = fault.user or self._random.choice(REPS)
            self._feed.post(record_id, fault.type, fault.body, now_ms, user)

    def _feed_edit(self, fault: kinds.FeedEdit) -> None:
        for item_id in fault.item_ids or self._feed.pick(fault.items, posts=fault.what == "body"):
            self._feed.edit(item_id, fault.what, fault.body, self._state.now_ms())

    def _feed_delete(self, fault: kinds.FeedDelete) -> None:
        for item_id in fault.item_ids or self._feed.pick(fault.items):
            self._feed.delete(item_id, self._state.now_ms())

    # The rest

    def _object_access(self, fault: kinds.ObjectAccess) -> None:
        if fault.access == "open":
            self._model.closed.pop(fault.entity, None)
        else:
            self._model.closed[fault.entity] = fault.access

    def _sharing_traffic(self, fault: kinds.SharingTraffic) -> None:
        self._rates.change(sharing=fault.sharing, feed=fault.feed)
