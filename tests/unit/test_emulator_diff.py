"""Diff values of long texts: the reference example, and the guide's rules on when none is sent."""

from __future__ import annotations

import pytest

from consumer.emulator.event_encode import text_diff
from consumer.emulator.oracle import patch
from consumer.errors import EmulatorError


def test_diff_of_the_reference_example() -> None:
    lines = [f"line {number:02d} abcdefghijklmnopqrstuvwxyz" for number in range(1, 41)]
    old, new = "\n".join(lines), "\n".join([lines[0], "line 02 CHANGED", *lines[2:]])
    expected = (
        "--- \n+++ c0365f3283537c094a11f3158b6f985bb881b16fef4cc6dd667f3b25e7816a7c\n"
        "@@ -2,1 +2,1 @@\n-line 02 abcdefghijklmnopqrstuvwxyz\n+line 02 CHANGED"
    )
    assert text_diff(old, new) == expected
    assert patch(old, expected) == new
    windows = text_diff(old.replace("\n", "\r\n"), new.replace("\n", "\r\n"))
    assert windows is not None
    assert "9681adfbb9f260efd25aa4de68f66cd05e6dab08463509430c1cde440887937f" in windows
    with pytest.raises(EmulatorError, match="does not fit"):
        patch(old.replace("line 02", "line 2"), expected)


def test_diff_is_not_used_where_the_guide_says_so() -> None:
    lines = [f"line {number:02d} abcdefghijklmnopqrstuvwxyz" for number in range(1, 41)]
    old = "\n".join(lines)
    cut = old[:1_000]
    assert text_diff(cut, f"{cut[:-1]}?") is not None
    assert text_diff(cut[:-1], cut) is None, "short old text"
    assert text_diff(cut, cut[:-1]) is None, "short new text"
    terse = [str(number) for number in range(11)]
    assert text_diff("\n".join([*terse[:10], *lines[10:]]), "\n".join(["x"] * 10 + lines[10:])) is not None
    assert text_diff("\n".join([*terse, *lines[11:]]), "\n".join(["x"] * 11 + lines[11:])) is None, "over 25 %"
    long_line = "x" * 900
    assert text_diff(old, "\n".join([*lines, long_line])) is not None
    assert text_diff(old, "\n".join([*lines, long_line * 2])) is None, "diff over half of the value"
    windows = old.replace("\n", "\r\n")
    assert text_diff(old, windows) is None, "other line ends"
    assert text_diff(old.replace("\n", "\r\n", 1), old) is None, "a single other line end"
    assert text_diff(f"{windows}\nx", f"{windows}\ny") is None, "mixed line ends"
