"""Sharing rules as read become facts."""

from __future__ import annotations

from dataclasses import replace

import orjson

from consumer.tracking.access import SharingRule
from consumer.tracking.arrivals import RulesRead
from consumer.tracking.sharing_rules import KnownRules, compare
from tests.tracking_values import ENTITY, S0

RULE = SharingRule("0Bm000000000001AAA", {"Name": "Team", "AccessLevel": "Read", "GroupId": "00G1"}, S0, "005A")


def read(*rules: SharingRule, at: int = 10, deleted: dict[str, int] | None = None) -> RulesRead:
    asked_ms = S0 + at * 1000
    return RulesRead(ENTITY, rules, deleted or {}, asked_ms, asked_ms + 2000)


def test_a_first_reading_tells_of_every_rule_as_baseline() -> None:
    known, (fact,) = compare(KnownRules({}), read(RULE))
    assert (fact.kind, fact.baseline, fact.not_before_ms, fact.not_after_ms) == ("created", True, None, S0 + 12_000)
    assert fact.changed_ms == S0
    assert known.as_of_ms == S0 + 10_000


def test_an_empty_first_reading_is_remembered_so_that_a_later_rule_is_new() -> None:
    known, told = compare(KnownRules({}), read())
    assert told == []
    _, (fact,) = compare(known, read(RULE, at=300))
    assert (fact.kind, fact.baseline, fact.not_before_ms) == ("created", False, S0 + 10_000)


def test_a_changed_rule_says_what_changed() -> None:
    known, _ = compare(KnownRules({}), read(RULE))
    moved = replace(RULE, values={**RULE.values, "AccessLevel": "Edit", "Description": "x"}, modified_ms=S0 + 100_000)
    known, (fact,) = compare(known, read(moved, at=300))
    assert fact.kind == "changed"
    assert fact.changed == {"AccessLevel": ("Read", "Edit"), "Description": (None, "x")}
    assert fact.changed_ms == S0 + 100_000
    assert compare(known, read(moved, at=600))[1] == []


def test_a_rule_that_was_saved_without_a_change_tells_nothing() -> None:
    known, _ = compare(KnownRules({}), read(RULE))
    assert compare(known, read(replace(RULE, modified_ms=S0 + 100_000), at=300))[1] == []


def test_a_deleted_rule_is_told_once_with_the_time_of_the_delete_log() -> None:
    known, _ = compare(KnownRules({}), read(RULE))
    known, (fact,) = compare(known, read(at=300, deleted={RULE.rule_id: S0 + 200_000}))
    assert (fact.kind, fact.rule, fact.changed_ms) == ("deleted", RULE, S0 + 200_000)
    assert compare(known, read(at=600))[1] == []
    _, (fact,) = compare(compare(KnownRules({}), read(RULE))[0], read(at=300))
    assert fact.changed_ms is None, "the log does not reach so far, or may not be read"


def test_what_is_remembered_survives_as_json_and_long_texts_are_cut_on_both_sides() -> None:
    long = replace(RULE, values={**RULE.values, "Description": "d" * 1000})
    known, (fact,) = compare(KnownRules({}), read(long))
    assert fact.rule.values["Description"] == "d" * 1000
    again = KnownRules.read(orjson.loads(orjson.dumps(known.state())))
    assert again == known
    assert compare(again, read(long, at=300))[1] == [], "the cut text is compared with the cut text"
    assert KnownRules.read(None) == KnownRules({})


def test_the_id_of_a_fact_does_not_depend_on_when_it_was_read() -> None:
    known, _ = compare(KnownRules({}), read(RULE))
    moved = replace(RULE, values={**RULE.values, "AccessLevel": "Edit"}, modified_ms=S0 + 100_000)
    assert compare(known, read(moved, at=300))[1][0].fact_id == compare(known, read(moved, at=400))[1][0].fact_id
