"""Records of owner sharing rules: created, changed with what, deleted (``schemas/sharing-rules.json``)."""

from __future__ import annotations

from collections.abc import Sequence

from consumer.delivery.facts import Routes, time_text
from consumer.delivery.names import Topics
from consumer.events import Json, OutboundRecord, json_bytes
from consumer.tracking.access import RuleFact


class SharingRules:
    """Makes the records of the ``sharing-rules`` topics; their key is the rule's id.

    Args:
        org_id: 18-character org id.
        topics: the deployment's topic names.
    """

    def __init__(self, org_id: str, topics: Topics) -> None:
        self._routes = Routes(org_id, topics, "sharing-rules")

    def records(self, entity: str, facts: Sequence[RuleFact], received_ms: int) -> list[OutboundRecord]:
        """Return one record per fact, in the same order.

        Args:
            entity: the shared object's API name.
            facts: what happened.
            received_ms: when what they come from was received, epoch milliseconds.

        Raises:
            ConfigError: the object's name is not one that a topic can have.
        """
        if not facts:
            return []
        route = self._routes.of(entity)
        records = []
        for fact in facts:
            key = fact.rule.rule_id.encode()
            at_ms = fact.not_after_ms if fact.changed_ms is None else fact.changed_ms
            headers = route.headers.build(fact.fact_id, key, at_ms, received_ms)
            records.append(OutboundRecord(route.topic, key, json_bytes(_value(entity, fact)), headers))
        return records


def _value(entity: str, fact: RuleFact) -> dict[str, Json]:
    values = fact.rule.values
    source, target = values.get("GroupId"), values.get("UserOrGroupId")
    whose, who = fact.grantees.get(source or ""), fact.grantees.get(target or "")
    return {
        "id": fact.fact_id,
        "kind": fact.kind,
        "rule_id": fact.rule.rule_id,
        "entity": entity,
        "name": values.get("Name"),
        "developer_name": values.get("DeveloperName"),
        "description": values.get("Description"),
        "access_level": values.get("AccessLevel"),
        "group_id": source,
        "group_type": None if whose is None else whose.kind,
        "group_name": None if whose is None else whose.name,
        "user_or_group_id": target,
        "grantee_type": None if who is None else who.kind,
        "grantee_name": None if who is None else who.name,
        "changed": [
            {"field": name, "old_value": old, "new_value": new} for name, (old, new) in sorted(fact.changed.items())
        ],
        "not_before": time_text(fact.not_before_ms),
        "not_after": time_text(fact.not_after_ms),
        "changed_at": time_text(fact.changed_ms),
        "changed_by": None if fact.kind == "deleted" else fact.rule.modified_by,
        "observed_at": time_text(fact.observed_ms),
        "baseline": fact.baseline,
    }
