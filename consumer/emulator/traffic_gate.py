"""When the traffic generator runs, and how much of it: rate, total and pause can change at any time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from consumer.clock import now_ms as wall_ms
from consumer.emulator.bus import EventBus, Publishable

TICK_S = 0.02
"""Traffic comes in steps this far apart, which is near enough to steady."""

PRELOAD_STEP = 500
"""Events made in one go before anyone reads."""

LIVE_STEP = 50
"""Events made in one go while streams are served: about 2 ms, so that a rate beyond the machine's strength slows the
traffic down and not the streams."""


class Generator(Protocol):
    """What makes the traffic; ``Traffic`` of the org model fits."""

    def step(self, now_ms: int, events: int) -> Sequence[Publishable]:
        """Return about this many events."""
        ...


@dataclass
class TrafficGate:
    """Publishes generated events at a rate until a total is reached.

    Attributes:
        rate: events per second; 0 makes none.
        total: events after which the traffic stops; 0 means never.
        paused: whether it rests.
        emitted: events published so far, preloaded ones included. A transaction is never cut, so it can exceed
            the total by a few.
        now_ms: the org's clock, epoch milliseconds; the rate is per real second all the same.
    """

    generator: Generator
    bus: EventBus
    rate: float = 0.0
    total: int = 0
    paused: bool = False
    emitted: int = 0
    now_ms: Callable[[], int] = wall_ms
    _changed: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def done(self) -> bool:
        """Whether the total is reached."""
        return bool(self.total) and self.emitted >= self.total

    @property
    def _flowing(self) -> bool:
        return not self.paused and self.rate > 0 and not self.done

    def change(self, *, rate: float | None, total: int | None, paused: bool | None) -> None:
        """Change what is given, and leave what is None."""
        self.rate = self.rate if rate is None else rate
        self.total = self.total if total is None else total
        self.paused = self.paused if paused is None else paused
        self._changed.set()

    def emit(self, events: int) -> int:
        """Generate and publish about this many events at once; return how many it were."""
        wanted = min(events, self.total - self.emitted) if self.total else events
        if wanted <= 0:
            return 0
        return self._publish(wanted)

    def emit_extra(self, events: int) -> int:
        """Generate and publish about this many events on top of the total, even while paused; return how many."""
        made = self._publish(events) if events > 0 else 0
        self.total += made if self.total else 0
        return made

    def _publish(self, events: int) -> int:
        made = self.generator.step(self.now_ms(), events)
        self.bus.append(made)
        self.emitted += len(made)
        return len(made)

    async def preload(self, events: int) -> None:
        """Publish events before anyone reads, giving way to the event loop in between."""
        target = self.emitted + events
        while self.emitted < target and not self.done:
            if not self.emit(min(PRELOAD_STEP, target - self.emitted)):
                return
            await asyncio.sleep(0)

    async def run(self) -> None:
        """Publish traffic for ever; a change of the settings takes effect at once."""
        owed, before = 0.0, time.monotonic()
        while True:
            self._changed.clear()
            if not self._flowing:
                await self._changed.wait()
                before = time.monotonic()
                continue
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            # What a slow machine can't make is let go: catching up would come as one great burst.
            owed = min(owed + (now - before) * self.rate, max(1.0, self.rate / 4))
            before = now
            while owed >= 1.0 and self._flowing:
                made = self.emit(min(LIVE_STEP, int(owed)))
                if not made:
                    break
                owed -= made
                await asyncio.sleep(0)
