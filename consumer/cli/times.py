"""Times on the command line: ISO 8601, dates, and how long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from consumer.errors import UsageError

HELP = "ISO 8601 (UTC without an offset), a date, or how long ago: 90s, 30m, 2h, 7d"

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])(?:\s+ago)?")
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}


def parse_time(text: str, now_ms: int) -> int:
    """Return a time as epoch milliseconds.

    Args:
        text: as :data:`HELP` says.
        now_ms: what ``ago`` counts from.

    Raises:
        UsageError: it is no time.
    """
    ago = _AGO.fullmatch(text.strip())
    if ago is not None:
        return now_ms - round(float(ago[1]) * _UNIT_MS[ago[2]])
    if text.strip() == "now":
        return now_ms
    try:
        moment = datetime.fromisoformat(text.strip())
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{text[:40]!r} is no time", f"Write {HELP}") from error


def show_time(ms: int | None) -> str:
    """Return a time for people: ISO 8601 UTC, with milliseconds only where there are some."""
    if ms is None:
        return "…"
    try:
        moment = datetime.fromtimestamp(ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return "…"
    return moment.isoformat(timespec="milliseconds" if ms % 1000 else "seconds").replace("+00:00", "Z")
