"""A small org with sharing, and a look at it from outside: who may what, from scratch and as the rows say."""

from __future__ import annotations

from typing import Any

from consumer.emulator.org import Change, OrgModel
from consumer.emulator.org_groups import REGULAR, ROLE, ROLE_AND_SUBORDINATES
from consumer.emulator.org_recalculation import RecalculationSettings
from consumer.emulator.org_share_truth import ShareTruth
from tests.unit.emulator_rest import SESSION

NOW = 1_790_000_000_123
RANKS = {"Private": 0, "Read": 1, "Edit": 2, "ReadWrite": 2}
Key = tuple[str, str, str]


def sharing_org(seed: int = 1, *, truth: bool = True, begin: bool = True, **settings: Any) -> OrgModel:
    """Return an org that keeps share rows."""
    org = OrgModel(seed)
    settings = {"delay_s": (1.0, 2.0), "duration_s": (1.0, 3.0), "recreate": 0.5, **settings}
    org.sharing.settings = RecalculationSettings(**settings)
    org.sharing.truth = ShareTruth() if truth else None
    if begin:
        org.sharing.begin(NOW)
    return org


def session(org: OrgModel, owner: str, now_ms: int = NOW) -> str:
    """Create a session of this owner."""
    record_id = org.new_id(SESSION)
    org.commit([Change("create", SESSION, record_id, {"OwnerId": owner})], now_ms)
    return record_id


def give(org: OrgModel, record_id: str, owner: str, now_ms: int) -> None:
    """Give a session another owner."""
    org.commit([Change("update", SESSION, record_id, {"OwnerId": owner})], now_ms)


def rows(org: OrgModel, record_id: str) -> set[tuple[str, str, str]]:
    """Return cause, grantee and level of a record's rows."""
    return {(row.cause, row.grantee, row.level) for row in org.sharing.rows.of(record_id)}


def ids(org: OrgModel, record_id: str) -> dict[tuple[str, str], str]:
    """Return the Ids of a record's rows by cause and grantee."""
    return {(row.cause, row.grantee): row.share_id for row in org.sharing.rows.of(record_id)}


def settle(org: OrgModel, now_ms: int, step_ms: int = 200) -> int:
    """Let recalculations come to their end, and return the time they needed."""
    while not org.sharing.settled:
        now_ms += step_ms
        org.settle(now_ms)
    return now_ms


def members(org: OrgModel, group_id: str, seen: frozenset[str] = frozenset()) -> set[str]:
    """Return who is in a group, worked out from the top down, as the model does not."""
    directory = org.sharing.directory
    group = directory.groups[group_id]
    if group.kind == "Organization":
        return {each for each, user in directory.users.items() if user.user_type == "Standard"}
    if group.kind in {ROLE, ROLE_AND_SUBORDINATES}:
        roles = {group.related_id}
        while group.kind == ROLE_AND_SUBORDINATES:
            below = {each for each, role in directory.roles.items() if role.parent_id in roles} - roles
            if not below:
                break
            roles |= below
        return {each for each, user in directory.users.items() if user.role_id in roles}
    found = set()
    for member in directory.members.get(group_id, {}):
        if member in directory.groups and member not in seen:
            found |= members(org, member, seen | {group_id})
        elif member in directory.users:
            found.add(member)
    return found


def owners_of(org: OrgModel, group_id: str) -> set[str]:
    """Return the owners whose records a rule over this group concerns."""
    if org.sharing.directory.groups[group_id].kind == "Queue":
        return {group_id}
    assert org.sharing.directory.groups[group_id].kind in {REGULAR, ROLE, ROLE_AND_SUBORDINATES, "Organization"}
    return members(org, group_id)


def from_scratch(org: OrgModel) -> dict[Key, str]:
    """Return the level of every Owner and Rule row there has to be."""
    wanted: dict[Key, str] = {}
    covered = {rule.rule_id: owners_of(org, rule.group_id) for rule in org.sharing.rules.values()}
    for record_id, record in org.records(SESSION).items():
        owner = record["OwnerId"]
        if owner is None:
            continue
        wanted[record_id, owner, "Owner"] = "All"
        for rule in org.sharing.rules.values():
            key = (record_id, rule.target_id, "Rule")
            level = max(wanted.get(key, "Private"), rule.level, key=RANKS.__getitem__)
            if owner in covered[rule.rule_id] and RANKS[level] > RANKS[org.sharing.defaults[0]]:
                wanted[key] = level
    return wanted


def as_kept(org: OrgModel, *, manual: bool = False) -> dict[Key, str]:
    """Return the level of every row, manual ones on demand; no key can have two."""
    kept = [row for row in org.sharing.rows.by_id() if not row.gone and (manual or row.cause != "Manual")]
    found = {row.key: row.level for row in kept}
    assert len(found) == len(kept)
    return found


def visible(org: OrgModel, now_ms: int) -> dict[Key, str]:
    """Return the level of every row that a query would find."""
    kept = [row for row in org.sharing.rows.by_id() if not row.gone and row.hidden_until_ms <= now_ms]
    return {row.key: row.level for row in kept}


def told(org: OrgModel, now_ms: int) -> dict[Key, str]:
    """Return what the oracle says a query would find at a time."""
    truth = org.sharing.truth
    assert truth is not None

    def holds(line: dict[str, Any]) -> bool:
        return line["from_ms"] <= now_ms and (line["to_ms"] is None or now_ms < line["to_ms"])

    def key(line: dict[str, Any]) -> Key:
        return line["parent_id"], line["user_or_group_id"], line["row_cause"]

    lines = [line for line in truth.share_lines() if holds(line)]
    found = {key(line): str(line["access_level"]) for line in lines}
    assert len(found) == len(lines)
    for line in truth.gap_lines():
        if holds(line):
            del found[key(line)]
    return found
