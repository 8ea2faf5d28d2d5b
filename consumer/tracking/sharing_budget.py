"""What reading shares, rules and feeds costs in API calls, and how often a sweep can be afforded."""

from __future__ import annotations

from typing import Final

PAGE_ROWS: Final = 2_000
"""Rows of one page of a sweep: a query returns no more at once (REST API guide)."""

DAY_MS: Final = 86_400_000
_READ_TOGETHER: Final = 200
"""Records whose share rows one call reads."""

_SWEEPS_AT_LEAST: Final = 0.1
"""Part of the calls that sweeps keep, whatever the rest uses: without sweeps no revocation is found."""


def calls_of_sweep(rows: int, page_rows: int = PAGE_ROWS) -> int:
    """Return how many calls one sweep takes: its pages, where it ends, the count, the org-wide default."""
    return -(-max(rows, 1) // page_rows) + 3


def left_for_sweeps(api_calls_per_day: int, other_calls_per_day: int) -> int:
    """Return how many calls a day sweeps may use: what the rest leaves, and never less than a tenth of all."""
    return max(api_calls_per_day - other_calls_per_day, _kept_for_sweeps(api_calls_per_day))


def is_crowded(api_calls_per_day: int, other_calls_per_day: int) -> bool:
    """Return whether the rest leaves sweeps less than they keep in any case, so that all together can be too much."""
    return api_calls_per_day - other_calls_per_day < _kept_for_sweeps(api_calls_per_day)


def _kept_for_sweeps(api_calls_per_day: int) -> int:
    return max(round(api_calls_per_day * _SWEEPS_AT_LEAST), 1)


def affordable_sweep_ms(
    rows: int, sweep_ms: int, api_calls_per_day: int, other_calls_per_day: int, page_rows: int = PAGE_ROWS
) -> int:
    """Return how far apart sweeps can begin, milliseconds: as wanted, or as far as the calls allow.

    Args:
        rows: share rows of the object.
        sweep_ms: the interval that is wanted.
        api_calls_per_day: most calls a day for everything that reads shares, rules and feeds.
        other_calls_per_day: what all but sweeps uses of them.
        page_rows: rows of one page of the sweep (``tracking.chunk_rows``).
    """
    left = left_for_sweeps(api_calls_per_day, other_calls_per_day)
    return max(sweep_ms, -(-calls_of_sweep(rows, page_rows) * DAY_MS // left))


def polling_calls_per_day(poll_ms: int | None, feed_poll_ms: int | None) -> int:
    """Return the calls of polls that find nothing: modified shares and rules, feed items and their delete log.

    Args:
        poll_ms: interval of polls of shares and rules, None for neither.
        feed_poll_ms: interval of feed polls, None for no feed.
    """
    return sum(2 * DAY_MS // max(each, 1) for each in (poll_ms, feed_poll_ms) if each is not None)


def owner_change_calls_per_day(changes_per_day: int, cycle_ms: int) -> int:
    """Return the calls that owner changes make due: two readings of each record, many together.

    Args:
        changes_per_day: owner changes, creations and deletions a day.
        cycle_ms: how often records are read together.
    """
    cycles = DAY_MS // max(cycle_ms, 1)
    readings = 2 * changes_per_day
    return min(readings, cycles) + readings // _READ_TOGETHER


def worst_revocation_ms(sweep_ms: int, settle_ms: int) -> int:
    """Return how long after a revocation that no owner change goes with it is told at the latest, milliseconds.

    Args:
        sweep_ms: how far apart sweeps begin.
        settle_ms: how long after a row was missed a second reading follows, and after that a third.
    """
    return sweep_ms + sweep_ms // 20 + 2 * settle_ms
