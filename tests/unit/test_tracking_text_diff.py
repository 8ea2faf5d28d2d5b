"""Diffs of long texts: applied to the text they were made of, and to no other."""

from __future__ import annotations

from difflib import unified_diff
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.emulator.event_encode import text_diff
from consumer.tracking.text_diff import apply_diff

LINES = [f"line {number:02d} abcdefghijklmnopqrstuvwxyz" for number in range(1, 41)]
OLD = "\n".join(LINES)
NEW = "\n".join([LINES[0], "line 02 CHANGED", *LINES[2:]])
DIFF = (
    "--- \n+++ c0365f3283537c094a11f3158b6f985bb881b16fef4cc6dd667f3b25e7816a7c\n"
    "@@ -2,1 +2,1 @@\n-line 02 abcdefghijklmnopqrstuvwxyz\n+line 02 CHANGED"
)
CRLF_HASH = "9681adfbb9f260efd25aa4de68f66cd05e6dab08463509430c1cde440887937f"


def made(old: list[str], new: list[str], newline: str = "\n", context: int = 3) -> str:
    """Return a diff by another maker, with the header that the platform writes."""
    wanted = sha256(newline.join(new).encode()).hexdigest()
    hunks = list(unified_diff(old, new, lineterm="", n=context))[2:]
    return "\n".join(["--- ", f"+++ {wanted}", *hunks])


def test_the_reference_example_in_both_newline_styles() -> None:
    assert apply_diff(OLD, DIFF) == NEW
    crlf = DIFF.replace("c0365f3283537c094a11f3158b6f985bb881b16fef4cc6dd667f3b25e7816a7c", CRLF_HASH)
    assert apply_diff(OLD.replace("\n", "\r\n"), crlf) == NEW.replace("\n", "\r\n")
    assert apply_diff(OLD.replace("\n", "\r\n"), crlf.replace("CHANGED", "CHANGED\r")) == NEW.replace("\n", "\r\n")


def test_a_text_that_is_the_new_one_already_stays() -> None:
    assert apply_diff(NEW, DIFF) == NEW


@pytest.mark.parametrize(
    "diff",
    [
        DIFF.replace("-line 02 a", "-line 03 a"),
        DIFF.replace("@@ -2,1", "@@ -3,1"),
        DIFF.replace("CHANGED", "changed"),
        DIFF.replace("c0365f", "c0365e"),
        DIFF.replace("@@ -2,1 +2,1 @@", "no hunk"),
        DIFF.replace("@@ -2,1", "@@ -2,2"),
        DIFF.replace("@@ -2,1", "@@ -99,1"),
        DIFF.replace("--- \n", ""),
        "--- ",
        "",
        "a new text in full",
    ],
)
def test_what_does_not_lead_to_the_hash_is_not_applied(diff: str) -> None:
    assert apply_diff(OLD, diff) is None


@pytest.mark.parametrize(
    "diff",
    [
        DIFF + "\n",
        DIFF + "\n\\ No newline at end of file",
        DIFF.replace("\n+line", "\n\\ No newline at end of file\n+line"),
        DIFF.replace("-2,1 +2,1", "-2 +2"),
    ],
)
def test_harmless_variants_are_tolerated(diff: str) -> None:
    assert apply_diff(OLD, diff) == NEW


TEXTS = st.lists(st.sampled_from(["", "a", "b", " c", "-d", "+e", "@@ f", "\\ g", "--- "]), min_size=1, max_size=12)


@given(TEXTS, TEXTS, st.sampled_from(["\n", "\r\n"]), st.integers(0, 3))
def test_any_diff_leads_from_the_old_text_to_the_new_one(
    old: list[str], new: list[str], newline: str, context: int
) -> None:
    diff = made(old, new, newline, context)
    found = apply_diff(newline.join(old), diff)
    if newline in newline.join(old) or newline == "\n" or len(new) < 2:
        assert found == newline.join(new)
    else:  # one line has no newline style of its own
        assert found in {None, newline.join(new)}


@given(st.integers(0, 39), st.integers(0, 39), st.integers(0, 2), st.sampled_from(["\n", "\r\n"]))
def test_what_the_org_makes_is_understood(first: int, second: int, context: int, newline: str) -> None:
    lines = list(LINES)
    lines[first] = "an edit"
    lines.insert(second, "an addition")
    old, new = OLD.replace("\n", newline), newline.join(lines)
    diff = text_diff(old, new, context)
    assert diff is not None
    assert apply_diff(old, diff) == new
