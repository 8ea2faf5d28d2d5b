"""Changes that a fault makes to records when nobody says which: small ones, such as people make."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from consumer.emulator import traffic_data as data
from consumer.emulator.org import Change, OrgModel
from consumer.emulator.record_ids import PREFIXES, numbered_id

_Choice = Callable[[random.Random], Any]


def _one_of(items: Sequence[Any]) -> _Choice:
    return lambda rng: rng.choice(items)


def _id_of(entity: str) -> _Choice:
    return lambda rng: numbered_id(PREFIXES[entity], rng.getrandbits(24))


_FIELDS: Final[Mapping[str, Mapping[str, _Choice]]] = {
    "MessagingSession": {
        "Priority__c": _one_of(data.PRIORITIES),
        "CaseId": _id_of("Case"),
        "CSAT_Score__c": lambda rng: rng.randrange(2, 21) / 2,
        "ChannelLocale": _one_of(data.LANGUAGES),
        "EndUserLanguage": _one_of(data.LANGUAGES),
        "OwnerId": _one_of(data.REPS),
    },
    "AgentWork": {
        "HandleTime": lambda rng: rng.randrange(1, 7_200),
        "DeclineReason": _one_of(("Busy", "Away", "Break")),
    },
    "MessagingEndUser": {"Locale": _one_of(data.LANGUAGES), "ContactId": _id_of("Contact")},
    "PendingServiceRouting": {"RoutingPriority": lambda rng: rng.randrange(1, 100)},
    "Account": {
        "Phone": lambda rng: f"+4755{rng.randrange(10**6):06d}",
        "Industry": _one_of(("Retail", "Energy", "Media")),
    },
    "Widget__c": {"Colour__c": _one_of(("red", "green", "blue")), "Weight__c": lambda rng: rng.randrange(1, 800) / 8},
}


class Plausible:
    """Makes changes up.

    Args:
        model: the org; its records say what would truly be a change.
    """

    def __init__(self, model: OrgModel) -> None:
        self._model = model
        self._rng = random.Random(f"plausible:{model.org_id}")  # noqa: S311  reproducible acts, no secret

    def updates(self, entity: str, record_ids: Sequence[str], fields: Mapping[str, Any]) -> list[Change]:
        """Return an update of each record: with ``fields``, or with another value in one plausible field."""
        return [Change("update", entity, one, fields or self._other(entity, one)) for one in record_ids]

    def creates(self, entity: str, count: int, now_ms: int, fields: Mapping[str, Any]) -> list[Change]:
        """Return so many creations, with ``fields`` over what such a record begins with."""
        begun = {**(self._session(now_ms) if entity == "MessagingSession" else {}), **fields}
        return [Change("create", entity, self._model.new_id(entity), begun) for _ in range(count)]

    def _other(self, entity: str, record_id: str) -> Mapping[str, Any]:
        row = self._model.row(entity, record_id)
        unseen = self._model.invisible_fields(entity)
        known = self._model.store.schemas[entity].index if entity in self._model.entities() else {}
        choices = {name: choice for name, choice in _FIELDS[entity].items() if name in known and name not in unseen}
        if not choices or row is None:
            return {}
        name = self._rng.choice(sorted(choices))
        while True:
            value = choices[name](self._rng)
            if value != row.values.get(name):
                return {name: value}

    def _session(self, now_ms: int) -> dict[str, Any]:
        channel = self._rng.choice(data.CHANNELS)
        return {
            "Status": "Waiting",
            "OwnerId": self._rng.choice(data.QUEUES),
            "MessagingChannelId": channel.channel_id,
            "MessagingEndUserId": numbered_id(PREFIXES["MessagingEndUser"], self._rng.getrandbits(24)),
            "ChannelType": channel.kind,
            "ChannelName": channel.name,
            "ChannelKey": channel.key,
            "Origin": "InboundInitiated",
            "AgentType": "Agent",
            "StartTime": now_ms // 1000 * 1000,
        }
