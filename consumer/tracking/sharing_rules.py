"""Owner sharing rules as read become facts: created, changed with what, deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from consumer.events import Json
from consumer.tracking.access import RuleFact, SharingRule
from consumer.tracking.arrivals import RulesRead

RULES: Final = "rules:"
"""Name of the rules as they were read last, before the object; state: see :meth:`KnownRules.state`."""

_KEPT_CHARS: Final = 255
"""Characters of a text that are remembered and compared: 300 rules must fit into one record of ours."""


@dataclass(frozen=True, slots=True)
class KnownRules:
    """The rules of an object as they were read last.

    Attributes:
        rules: by id, texts cut.
        as_of_ms: these were all there were, epoch milliseconds of the org's time; None before the first reading.
    """

    rules: Mapping[str, SharingRule]
    as_of_ms: int | None = None

    def state(self) -> dict[str, Json]:
        """Return it as plain JSON."""
        rules = {
            each.rule_id: {
                "values": dict(each.values),
                "modified_ms": each.modified_ms,
                "modified_by": each.modified_by,
            }
            for each in self.rules.values()
        }
        return {"rules": rules, "as_of_ms": self.as_of_ms}

    @classmethod
    def read(cls, state: Mapping[str, Json] | None) -> KnownRules:
        """Return what :meth:`state` gave; None is nothing known."""
        if state is None:
            return cls({})
        rules = {
            rule_id: SharingRule(rule_id, each["values"], each["modified_ms"], each["modified_by"])
            for rule_id, each in state["rules"].items()
        }
        return cls(rules, state["as_of_ms"])


def compare(known: KnownRules, read: RulesRead) -> tuple[KnownRules, list[RuleFact]]:
    """Return what is known after a reading, and what it tells; a first reading tells of every rule as ``baseline``.

    Args:
        known: what was known.
        read: all rules there are now.
    """
    now = {each.rule_id: _cut(each) for each in read.rules}
    told: list[RuleFact] = []
    for full in read.rules:
        before = known.rules.get(full.rule_id)
        if before is None:
            told.append(_fact("created", full, known, read))
            continue
        after = now[full.rule_id]
        names = dict.fromkeys((*before.values, *after.values))
        changed = {
            name: (before.values.get(name), after.values.get(name))
            for name in names
            if before.values.get(name) != after.values.get(name)
        }
        if changed:
            told.append(_fact("changed", full, known, read, changed))
    told += [_fact("deleted", rule, known, read) for rule_id, rule in known.rules.items() if rule_id not in now]
    return KnownRules(now, max(read.asked_ms, known.as_of_ms or 0)), told


def _fact(
    kind: str,
    rule: SharingRule,
    known: KnownRules,
    read: RulesRead,
    changed: Mapping[str, tuple[str | None, str | None]] | None = None,
) -> RuleFact:
    if kind == "deleted":
        changed_ms = read.deleted.get(rule.rule_id)
        stamp = rule.modified_ms
    else:
        changed_ms = stamp = rule.modified_ms
    start_ms = known.as_of_ms
    return RuleFact(
        fact_id=f"rule:{kind}:{rule.rule_id}:{read.answered_ms if stamp is None else stamp}",
        kind=kind,  # type: ignore[arg-type]  # one of three, given above
        rule=rule,
        changed=changed or {},
        not_before_ms=start_ms,
        not_after_ms=read.answered_ms if start_ms is None else max(read.answered_ms, start_ms),
        changed_ms=changed_ms,
        observed_ms=read.answered_ms,
        baseline=start_ms is None,
        grantees=read.grantees,
    )


def _cut(rule: SharingRule) -> SharingRule:
    values = {name: None if value is None else value[:_KEPT_CHARS] for name, value in rule.values.items()}
    return SharingRule(rule.rule_id, values, rule.modified_ms, rule.modified_by)
