"""Comparing what events and rows say, and the names of fields on either side."""

from __future__ import annotations

from typing import Any

import pytest

from consumer.tracking.history_fields import event_field, history_name, is_tracked
from consumer.tracking.history_match import assign, same
from consumer.tracking.values import EntityFacts

FACTS = EntityFacts(
    "Account",
    visible=frozenset({"OwnerId", "BillingAddress", "Name", "SessionKeyId", "Loc__c"}),
    lookups=frozenset({"OwnerId", "CaseId", "EndUserAccountId", "Boss__c", "ParentId"}),
)


@pytest.mark.parametrize(
    ("value", "of_row"),
    [
        (True, "true"),
        (1, 1.0),
        (1.0, "1"),
        (0, "0.0"),
        (12.5, "12.50"),
        ("", None),
        ("2026-11-22T10:00:03.000Z", "2026-11-22T10:00:03.000+0000"),
        ("2026-11-22T10:00:03.250Z", "2026-11-22T12:00:03.000+0200"),
        ("2026-11-22", "2026-11-22"),
        ("x" * 300, "x" * 255),
        ("\U0001f600" * 200, "\U0001f600" * 128),
    ],
)
def test_equal_values_in_other_spellings(value: Any, of_row: Any) -> None:
    assert same(value, of_row)


@pytest.mark.parametrize(
    ("value", "of_row"),
    [
        ("007", "7"),
        ("a", "A"),
        ("ab", "a"),
        (None, 0),
        ("x" * 300, "y" * 255),
        (False, None),
        ("2026-99-99T10:00:03Z", 1),
    ],
)
def test_values_that_differ(value: Any, of_row: Any) -> None:
    assert not same(value, of_row)


def test_as_many_rows_as_possible_are_served() -> None:
    assert assign([[((0,), 0), ((1,), 1)], [((0,), 0)]]) == [1, 0]
    assert assign([[((0,), 0)], [((0,), 0)], []]) == [0, None, None]


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("OwnerId", "Owner"),
        ("EndUserAccountId", "Account"),
        ("CaseId", "Case"),
        ("Boss__c", "Boss__c"),
        ("SessionKeyId", "SessionKeyId"),
        ("BillingAddress.PostalCode", "BillingPostalCode"),
        ("Name.FirstName", "FirstName"),
        ("Loc__c.Latitude", "Loc__Latitude__s"),
        ("created", "created"),
        ("Status", "Status"),
    ],
)
def test_names_there_and_back(field: str, name: str) -> None:
    assert history_name(field, FACTS) == name
    assert event_field(name, FACTS) == field


def test_names_without_facts() -> None:
    assert history_name("CaseId", None) == "Case"
    assert event_field("Case", None, ids=True) == "CaseId"
    assert event_field("Contact", None) == "EndUserContactId"
    assert event_field("ownerAccepted", FACTS) == "ownerAccepted"


def test_whether_a_field_is_tracked() -> None:
    assert is_tracked("OwnerId", "Owner", None) is None
    assert is_tracked("OwnerId", "Owner", EntityFacts("X")) is None
    assert is_tracked("OwnerId", "Owner", EntityFacts("X", visible=frozenset(), has_history=False)) is False
    tracked = EntityFacts("X", tracked=frozenset({"Owner", "BillingAddress", "Boss__c"}))
    assert is_tracked("OwnerId", "Owner", tracked) is True
    assert is_tracked("BillingAddress.City", "BillingCity", tracked) is True
    assert is_tracked("Status", "Status", tracked) is False
