"""Diff values of long texts (CDC guide, "Send Data Differences for Fields of Updated Records").

A diff is a unified diff whose second line holds the SHA-256 of the new text. Its lines end in LF; those of the text
may end in CRLF. Nothing is believed that does not lead to that hash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_HASH = re.compile(r"\+\+\+ ([0-9a-fA-F]{64})\s*")
_NO_NEWLINE = "\\"
"""First character of the remark "\\ No newline at end of file"."""


def apply_diff(old: str, diff: str) -> str | None:
    """Return the text that the diff makes of ``old``, None when it does not lead to the text it was made for.

    A text that is the new one already stays as it is.
    """
    lines = diff.split("\n")
    if lines[-1] == "":
        lines.pop()
    found = _HASH.fullmatch(lines[1]) if len(lines) > 1 and lines[0].startswith("---") else None
    if found is None:
        return None
    wanted = found[1].lower()
    if _digest(old) == wanted:
        return old
    # A text with CRLF and lone LF can be meant either way; the hash tells which.
    for newline in ("\r\n", "\n") if "\r\n" in old else ("\n",):
        new = _patched(old.split(newline), lines[2:], newline)
        if new is not None and _digest(new) == wanted:
            return new
    return None


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _patched(old: list[str], diff: list[str], newline: str) -> str | None:
    out: list[str] = []
    at = 0
    rest = iter(diff)
    for line in rest:
        if line.startswith(_NO_NEWLINE):
            continue
        hunk = _HUNK.match(line)
        if hunk is None:
            return None
        removed, added = (1 if count is None else int(count) for count in hunk.group(2, 3))
        begin = int(hunk[1]) - 1 if removed else int(hunk[1])
        if not at <= begin <= len(old):
            return None
        out += old[at:begin]
        end = _hunk(rest, old, begin, (removed, added), out, strip=newline == "\r\n")
        if end is None:
            return None
        at = end
    return newline.join(out + old[at:])


def _hunk(
    diff: Iterator[str], old: list[str], at: int, counts: tuple[int, int], out: list[str], *, strip: bool
) -> int | None:
    """Apply one hunk and return where the old text goes on, None when it does not fit."""
    removed, added = counts
    while removed > 0 or added > 0:
        line = next(diff, None)
        if line is None:
            return None
        if line.startswith(_NO_NEWLINE):
            continue
        text = line[1:].removesuffix("\r") if strip else line[1:]
        if line.startswith("+"):
            out.append(text)
            added -= 1
            continue
        if line[:1] not in {" ", "-", ""} or old[at : at + 1] != [text]:
            return None
        at += 1
        removed -= 1
        if not line.startswith("-"):
            out.append(text)
            added -= 1
    return at
