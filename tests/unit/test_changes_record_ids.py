"""Record ids: 15 to 18 characters, wildcards, placeholders."""

from __future__ import annotations

import pytest

from consumer.changes.record_ids import scope_of, split_ids, to_18


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("000000000000000", "000000000000000AAA"),
        ("00D000000000001", "00D000000000001EAA"),
        ("001A0000006Vm9r", "001A0000006Vm9rIAC"),
        ("00Dxx0000000001", "00Dxx0000000001EAA"),
        ("AAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAA555"),
        ("aaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaAAA"),
        ("AaaaaaAaaaaaAaa", "AaaaaaAaaaaaAaaBCE"),
    ],
)
def test_the_check_characters_follow_the_upper_case_letters(short: str, long: str) -> None:
    assert to_18(short) == long
    assert to_18(long) == long


@pytest.mark.parametrize(
    "bad", ["", "001", "0" * 16, "0" * 17, "0" * 19, "001A0000006Vm9!", "\u0661" * 15, "\xe9" * 18]
)
def test_what_is_no_id_is_refused_and_not_repeated(bad: str) -> None:
    with pytest.raises(ValueError, match="A record id") as caught:
        to_18(bad)
    assert not bad or bad not in str(caught.value)


def test_wildcards_and_placeholders_are_told_from_records() -> None:
    ids = ["001*", "001A0000006Vm9r", "000000000000000AAA", "001A0000006Vm9rIAC", "001*", "00D000000000001"]
    assert split_ids(ids) == (("001A0000006Vm9rIAC", "00D000000000001EAA"), ("001*", "000000000000000AAA"))


def test_the_scope_of_a_broken_event_is_never_understated() -> None:
    assert scope_of(["00D000000000001"]) == ("00D000000000001EAA",)
    assert scope_of(["00D000000000001", "00D*"]) == ()
    assert scope_of(["00D000000000001", "?"]) == ()
