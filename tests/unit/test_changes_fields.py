"""The field policy: nothing it covers gets past it."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest

from consumer.changes.fields import FieldPolicy
from consumer.changes.normalise import normalise
from consumer.changes.schema import compile_schema
from consumer.errors import ConfigError
from consumer.events import ChangeEvent, Json
from tests.change_schemas import WIDGET, account, event_payload, received

KEY = b"a key of the tests"
BODY = {
    "Name": "n",
    "CreatedDate": 0,
    "Weight__c": 1.5,
    "Place__c": {"Latitude": 1.0, "Longitude": 2.0},
    "Notes__c": "--- \n+++ 12\n-old secret\n+new secret",
    "Ship__c": {"Street": "s", "City": "c"},
}


def keyed(value: Json) -> str:
    return hmac.new(KEY, json.dumps(value).encode(), hashlib.sha256).hexdigest()


@pytest.fixture
def change() -> ChangeEvent:
    payload = event_payload(
        WIDGET,
        BODY,
        changedFields=["0x4304", "13-0x03", "15-0x07"],
        nulledFields=["0x0100", "15-0x04"],
        diffFields=["0x4000"],
    )
    return normalise(received(payload), compile_schema("s1", WIDGET))


def test_no_rule_means_no_work(change: ChangeEvent) -> None:
    policy = FieldPolicy()
    assert not policy.active
    assert policy.apply(change) is change


def test_rules_of_other_entities_leave_the_change_alone(change: ChangeEvent) -> None:
    policy = FieldPolicy(drop=["Account:Name"], mask=["Contact:Ship__c.City"])
    assert policy.active
    assert policy.apply(change) is change


@pytest.mark.parametrize("rule", ["Name", "Widget__c:Name"])
def test_a_dropped_field_is_nowhere(change: ChangeEvent, rule: str) -> None:
    result = FieldPolicy(drop=[rule]).apply(change)
    assert "Name" in change.values
    assert "Name" not in result.values
    assert "Name" not in result.changed_fields
    assert "Name" not in result.schema_fields
    assert result.schema_fields == tuple(name for name in change.schema_fields if name != "Name")


def test_dropped_nulls_diffs_and_compounds_are_nowhere(change: ChangeEvent) -> None:
    result = FieldPolicy(drop=["Tags__c", "Notes__c", "Ship__c"]).apply(change)
    assert list(result.values) == ["Name", "CreatedDate", "Weight__c", "Place__c"]
    assert result.changed_fields == ("Name", "Weight__c", "Place__c.Latitude", "Place__c.Longitude")
    assert result.nulled_fields == ()
    assert result.diff_fields == ()


def test_a_dropped_part_leaves_the_rest_of_its_compound(change: ChangeEvent) -> None:
    result = FieldPolicy(drop=["Ship__c.Street", "Widget__c:Ship__c.State"]).apply(change)
    assert result.values["Ship__c"] == {"City": "c"}
    assert "Ship__c.Street" not in result.changed_fields
    assert "Ship__c.City" in result.changed_fields
    assert result.nulled_fields == ("Tags__c",)
    assert result.schema_fields == change.schema_fields


def test_a_compound_without_parts_left_is_not_carried(change: ChangeEvent) -> None:
    result = FieldPolicy(drop=["Place__c.Latitude", "Place__c.Longitude"]).apply(change)
    assert "Place__c" not in result.values


def test_a_hash_is_keyed_and_over_the_canonical_json(change: ChangeEvent) -> None:
    result = FieldPolicy(hash=["Name", "CreatedDate", "Weight__c", "Tags__c"], hash_key=KEY).apply(change)
    assert result.values["Name"] == keyed("n")
    assert result.values["CreatedDate"] == keyed("1970-01-01T00:00:00.000Z")
    assert result.values["Weight__c"] == keyed(1.5)
    assert result.values["Tags__c"] is None
    assert result.changed_fields == change.changed_fields
    assert result.nulled_fields == change.nulled_fields
    other = FieldPolicy(hash=["Name"], hash_key=b"another").apply(change)
    assert other.values["Name"] != result.values["Name"]


def test_compounds_are_concealed_part_by_part(change: ChangeEvent) -> None:
    result = FieldPolicy(hash=["Place__c"], mask=["Ship__c", "Ship__c.City"], hash_key=KEY).apply(change)
    assert result.values["Place__c"] == {"Latitude": keyed(1.0), "Longitude": keyed(2.0)}
    assert result.values["Ship__c"] == {"Street": "***", "City": "***", "State": None}


def test_one_part_can_be_concealed(change: ChangeEvent) -> None:
    result = FieldPolicy(mask=["Ship__c.City"], hash=["Ship__c.Street"], hash_key=KEY).apply(change)
    assert result.values["Ship__c"] == {"Street": keyed("s"), "City": "***", "State": None}


def test_a_mask_hides_everything_but_null(change: ChangeEvent) -> None:
    result = FieldPolicy(mask=["Name", "Weight__c", "Tags__c"]).apply(change)
    assert (result.values["Name"], result.values["Weight__c"], result.values["Tags__c"]) == ("***", "***", None)


@pytest.mark.parametrize("kind", ["drop", "hash", "mask"])
def test_no_diff_text_survives(change: ChangeEvent, kind: str) -> None:
    rules: dict[str, Any] = {kind: ["Notes__c"], "hash_key": KEY}
    result = FieldPolicy(**rules).apply(change)
    assert result.diff_fields == ()
    assert "secret" not in str(dict(result.values))
    assert ("Notes__c" in result.changed_fields) == (kind != "drop")
    assert result.values.get("Notes__c") == ("***" if kind == "mask" else None)


def test_drop_wins_over_mask_and_mask_over_hash(change: ChangeEvent) -> None:
    every = ["Name", "Weight__c"]
    result = FieldPolicy(drop=["Name"], mask=every, hash=every, hash_key=KEY).apply(change)
    assert "Name" not in result.values
    assert result.values["Weight__c"] == "***"


def test_a_switchable_name_is_concealed_in_both_forms() -> None:
    schema = compile_schema("a", account())
    policy = FieldPolicy(mask=["Name"])
    for name, expected in (("Acme", "***"), ({"LastName": "x"}, {"LastName": "***"})):
        payload = event_payload(account(), {"Name": name}, entityName="Account")
        assert policy.apply(normalise(received(payload), schema)).values["Name"] == expected


def test_what_a_policy_keeps_of_a_schema_is_one_shared_tuple(change: ChangeEvent) -> None:
    policy = FieldPolicy(drop=["Name"])
    assert policy.apply(change).schema_fields is policy.apply(change).schema_fields


def test_everything_else_of_the_change_stays(change: ChangeEvent) -> None:
    result = FieldPolicy(drop=["Name"]).apply(change)
    for name in ("received", "header", "change_type", "record_ids", "wildcard_ids"):
        assert getattr(result, name) == getattr(change, name)


def test_hashing_needs_a_key() -> None:
    for key in (None, b""):
        with pytest.raises(ConfigError, match="key"):
            FieldPolicy(hash=["Name"], hash_key=key)


@pytest.mark.parametrize("name", ["", ".", "A.", ".A", "A.B.C", ":A", "X:", "X:Y:A", "X:A."])
def test_a_name_of_no_known_form_is_a_configuration_fault(name: str) -> None:
    with pytest.raises(ConfigError):
        FieldPolicy(drop=[name])
