"""Sharing records: a grant, a revocation or a level change of one explicit share row (``schemas/sharing.json``)."""

from __future__ import annotations

from collections.abc import Sequence

from consumer.delivery.facts import Routes, time_text
from consumer.delivery.names import Topics
from consumer.events import Json, OutboundRecord, json_bytes
from consumer.tracking.access import ShareFact


class Sharing:
    """Makes the records of the ``sharing`` topics; their key is the record id.

    Args:
        org_id: 18-character org id.
        topics: the deployment's topic names.
    """

    def __init__(self, org_id: str, topics: Topics) -> None:
        self._routes = Routes(org_id, topics, "sharing")

    def records(self, entity: str, facts: Sequence[ShareFact], received_ms: int) -> list[OutboundRecord]:
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
            key = fact.record_id.encode()
            headers = route.headers.build(fact.fact_id, key, fact.not_after_ms, received_ms)
            records.append(OutboundRecord(route.topic, key, json_bytes(_value(fact)), headers))
        return records


def _value(fact: ShareFact) -> dict[str, Json]:
    grantee = fact.grantee
    return {
        "id": fact.fact_id,
        "kind": fact.kind,
        "record_id": fact.record_id,
        "share_id": fact.share_id,
        "user_or_group_id": fact.user_or_group_id,
        "grantee_type": None if grantee is None else grantee.kind,
        "grantee_name": None if grantee is None else grantee.name,
        "access_level": fact.access_level,
        "previous_access_level": fact.previous_access_level,
        "row_cause": fact.row_cause or None,
        "not_before": time_text(fact.not_before_ms),
        "not_after": time_text(fact.not_after_ms),
        "modified_at": time_text(fact.modified_ms),
        "changed_by": fact.changed_by,
        "observed_at": time_text(fact.observed_ms),
        "cause": fact.cause,
    }
