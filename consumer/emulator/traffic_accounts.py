"""Accounts beside the sessions: businesses and persons, moved addresses, geocoding passes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

from consumer.emulator import traffic_data as data
from consumer.emulator.org import Change, OrgModel
from consumer.emulator.record_ids import PREFIXES, numbered_id
from consumer.emulator.traffic_values import Save

_ACCOUNT: Final = "Account"
_MOST: Final = 60


class AccountTraffic:
    """Creates a few accounts and keeps changing them.

    Args:
        org: the org whose records change.
        rng: the traffic's only source of choice.
    """

    def __init__(self, org: OrgModel, rng: random.Random) -> None:
        self._org = org
        self._rng = rng
        self._ids: list[str] = []
        self._to_geocode: list[tuple[str, int]] = []

    def step(self) -> Save:
        """Return the next change of an account."""
        if self._to_geocode:
            return self._geocode(*self._to_geocode.pop())
        dice = self._rng.random()
        if not self._ids or (len(self._ids) < _MOST and dice < 0.3):
            return self._create(person=dice < 0.1)
        record_id = self._pick(self._ids)
        if dice < 0.6:
            return self._move(record_id)
        if dice < 0.8:
            return self._save(record_id, self._renamed(record_id))
        return self._save(record_id, {"Tier__c": self._pick(("Gold", "Silver", None)), "AnnualRevenue": 1.5e6})

    def _create(self, *, person: bool) -> Save:
        record_id = self._org.new_id(_ACCOUNT)
        self._ids.append(record_id)
        kind = numbered_id(PREFIXES["RecordType"], 2 if person else 1)
        fields: dict[str, Any] = {"OwnerId": self._pick(data.REPS), "RecordTypeId": kind}
        if person:
            given, family = self._pick(data.GIVEN_NAMES), self._pick(data.FAMILY_NAMES)
            fields["Name"] = {"FirstName": given, "LastName": family}
            fields["PersonBirthdate"] = -self._rng.getrandbits(13) * 86_400_000
        else:
            fields["Name"] = self._pick(data.COMPANIES)
            fields["NumberOfEmployees"] = self._rng.getrandbits(10)
        return Save([Change("create", _ACCOUNT, record_id, fields)], data.REPS[0], data.UI_ORIGIN)

    def _renamed(self, record_id: str) -> dict[str, Any]:
        row = self._org.row(_ACCOUNT, record_id)
        if row is not None and isinstance(row.values.get("Name"), dict):
            return {"Name": {"LastName": self._pick(data.FAMILY_NAMES)}}
        return {"Name": self._pick(data.COMPANIES)}

    def _move(self, record_id: str) -> Save:
        index = int(self._rng.random() * len(data.PLACES))
        self._to_geocode.append((record_id, index))
        street, city, code, country, country_code, _, _ = data.PLACES[index]
        address = {"Street": street, "City": city, "PostalCode": code, "Country": country}
        return self._save(record_id, {"ShippingAddress": {**address, "CountryCode": country_code}})

    def _geocode(self, record_id: str, index: int) -> Save:
        parts = {"Latitude": data.PLACES[index][5], "Longitude": data.PLACES[index][6]}
        change = Change("update", _ACCOUNT, record_id, {"ShippingAddress": parts}, system=True)
        return Save([change], data.AUTOMATED_USER, data.SYSTEM_ORIGIN)

    def _save(self, record_id: str, fields: dict[str, Any]) -> Save:
        return Save([Change("update", _ACCOUNT, record_id, fields)], self._pick(data.REPS), data.UI_ORIGIN)

    def _pick(self, items: Sequence[Any]) -> Any:
        return items[int(self._rng.random() * len(items))]
