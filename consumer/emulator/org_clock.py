"""The emulated org's own wall clock: it can run fast, and be set ahead, so that days of an org fit into a test."""

from __future__ import annotations

from collections.abc import Callable

from consumer.clock import now_ms as wall_ms
from consumer.errors import EmulatorError


class EmulatedClock:
    """Tells the org's time: commit times, retention, ``Date`` headers.

    Args:
        speed: seconds of the org in one real second.
        wall: the machine's wall clock, epoch milliseconds.

    Attributes:
        speed: as given.
    """

    def __init__(self, speed: float = 1.0, *, wall: Callable[[], int] = wall_ms) -> None:
        self.speed = speed
        self._wall = wall
        self._begun_ms = wall()
        self._ahead_ms = 0

    def now_ms(self) -> int:
        """Return the org's time, epoch milliseconds."""
        wall = self._wall()
        if self.speed == 1.0:
            return wall + self._ahead_ms
        return self._begun_ms + round((wall - self._begun_ms) * self.speed) + self._ahead_ms

    def advance(self, seconds: float) -> None:
        """Set the clock ahead.

        Raises:
            EmulatorError: the clock would go back.
        """
        if seconds < 0:
            raise EmulatorError("the org's clock never goes back", "Give a positive number of seconds")
        self._ahead_ms += round(seconds * 1000)

    def as_json(self) -> dict[str, object]:
        """Return what ``GET /control/clock`` answers; ``ahead_ms`` is how far the org is ahead of the machine."""
        now = self.now_ms()
        return {"now_ms": now, "speed": self.speed, "ahead_ms": now - self._wall()}
