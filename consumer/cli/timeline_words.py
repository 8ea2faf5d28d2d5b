"""How the timeline puts things into words."""

from __future__ import annotations

from typing import Final

import orjson

from consumer.cli.common import write_line
from consumer.delivery.headers import iso_utc
from consumer.events import Json

_TEXT_CHARS: Final = 60


def section(title: str) -> None:
    """Print a heading."""
    write_line()
    write_line(title)


def by_words(user: str | None) -> str:
    """Return who did it, for the end of a line."""
    return "" if user is None else f" by {user}"


def shown(value: Json, label: str | None, *, whole: bool = False) -> str:
    """Return a value for one line; a long text is cut unless ``whole``."""
    text = plain(value) if isinstance(value, str) else orjson.dumps(value).decode()
    if len(text) > _TEXT_CHARS and not whole:
        text = f"{text[:_TEXT_CHARS]}…"
    return f"{text} ({plain(label)})" if label else text


def plain(text: str) -> str:
    """Return a text for one line: a line break or a terminal's escape sequence must not reach it as such."""
    return text if text and text.isprintable() else f'"{text.encode("unicode_escape").decode()}"'


def duration(ms: int) -> str:
    """Return a duration in its two greatest units: ``3m 20s``, ``2d 4h``."""
    seconds = max(ms, 0) // 1000
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count or parts:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


def time_json(ms: int | None) -> str | None:
    """Return a time as JSON has it."""
    return None if ms is None else iso_utc(ms)
