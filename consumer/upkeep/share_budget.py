"""How many calls reading shares may use, and how far apart sweeps are because of it."""

from __future__ import annotations

from typing import Final

from consumer.tracking.sharing import SWEPT
from consumer.tracking.sharing_budget import affordable_sweep_ms
from consumer.upkeep.context import Context, SharingPace
from consumer.upkeep.scope import count
from consumer.upkeep.sweep_state import Sweep

DAY_MS: Final = 86_400_000
_SWEEP_SHARE: Final = 20
"""A sweep shall take a twentieth of the time between two: its rows come in beside the stream."""

_REST_FOR_WORK: Final = 4.0
"""A sweep rests so many times as long as it works: the stream waits while a page is taken in."""

_MOST_REST_FOR_WORK_MS: Final = 2_500.0
"""But not longer than this, and not when it looks for what it has not seen: it must be faster than new records come."""

_LEAST_REST_MS: Final = 100.0
_MOST_REST_MS: Final = 5_000.0
_MEASURED_FROM_MS: Final = 600_000


class ShareBudget:
    """Divides the daily calls for sharing among its readings; sweeps give way first.

    Args:
        context: what the job works with.
        pace: the settings.
    """

    def __init__(self, context: Context, pace: SharingPace) -> None:
        self._context = context
        self._pace = pace
        self._began_ms = context.now_ms()
        self._swept_calls = 0
        self._began_calls = context.source.sharing_calls

    @property
    def stretch(self) -> float:
        """By how much owed reads and polls are stretched: only once they alone use more than all there is."""
        return max(1.0, self.other_calls_per_day / max(1, self._pace.api_calls_per_day))

    @property
    def other_calls_per_day(self) -> float:
        """Calls a day of everything but sweeps, as measured since the start; what the polls alone need at first."""
        passed_ms = self._context.now_ms() - self._began_ms
        least = 2 * DAY_MS / self._pace.poll
        if passed_ms < _MEASURED_FROM_MS:
            return least
        made = self._context.source.sharing_calls - self._began_calls - self._swept_calls
        return max(made, 0) * DAY_MS / passed_ms

    def swept(self, calls: int) -> None:
        """Take note of calls that a sweep made."""
        self._swept_calls += calls

    def between_ms(self) -> float:
        """Return how far apart the beginnings of two sweeps of an object are, milliseconds."""
        wanted_ms = self._pace.sweep * max(1.0, self._context.source.pace_factor)
        return max(wanted_ms, self._affordable_ms())

    def least_between_ms(self) -> float:
        """Return how soon a sweep may follow that a recalculation asks for, milliseconds."""
        return max(2.0 * self._pace.poll, self._affordable_ms()) * max(1.0, self._context.source.pace_factor)

    def chunk_rest_ms(self, sweep: Sweep, worked_ms: float) -> float:
        """Return how long a sweep rests after a page, milliseconds of the org's time.

        Args:
            sweep: as it stands.
            worked_ms: how long it took to read the page and to take it in.
        """
        chunks = max(1, (sweep.total or 0) // self._context.pace.chunk_rows)
        rest_ms = self._pace.sweep / _SWEEP_SHARE / chunks
        spread_ms = min(max(rest_ms, _LEAST_REST_MS), _MOST_REST_MS) * max(1.0, self._context.source.pace_factor)
        if sweep.phase == "unseen":
            return spread_ms
        return max(spread_ms, min(_REST_FOR_WORK * worked_ms, _MOST_REST_FOR_WORK_MS))

    def _affordable_ms(self) -> int:
        """Return how far apart sweeps are if those of all objects share what the calls leave for them."""
        others, page_rows = round(self.other_calls_per_day), self._context.pace.chunk_rows
        last = [self._context.progress.get(SWEPT + entity) for entity in self._pace.objects]
        rows = sum(count(state, "rows") for state in last if state is not None)
        return affordable_sweep_ms(rows, 0, self._pace.api_calls_per_day, others, page_rows)
