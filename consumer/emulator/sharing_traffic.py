"""Acts on sharing and feed that come by themselves, at random, so that a long run has all of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from consumer.emulator.fault_base import Fault
from consumer.emulator.fault_kinds import parse_fault
from consumer.emulator.org_shares import SharingRule
from consumer.errors import EmulatorError

_TICK_S: Final = 0.05
_MOST_RULES: Final = 12
_SHARING: Final[tuple[tuple[str, dict[str, Any], int], ...]] = (
    ("transfer", {}, 40),
    ("share", {}, 12),
    ("share", {"level": "Edit"}, 8),
    ("level_change", {}, 8),
    ("unshare", {}, 9),
    ("rule_create", {}, 3),
    ("rule_create", {"level": "Edit"}, 2),
    ("rule_change", {}, 4),
    ("rule_delete", {}, 3),
    ("membership", {}, 9),
    ("recalculate", {"recreate": 0.5}, 2),
)
"""Kind, parameters and weight."""
_FEED: Final[tuple[tuple[str, dict[str, Any], int], ...]] = (
    ("feed_post", {}, 45),
    ("feed_post", {"type": "LinkPost"}, 8),
    ("feed_post", {"type": "ContentPost"}, 7),
    ("feed_edit", {"what": "body"}, 12),
    ("feed_edit", {"what": "like"}, 10),
    ("feed_edit", {"what": "comment"}, 8),
    ("feed_delete", {}, 10),
)


@dataclass
class SharingRates:
    """How many random acts a real minute brings.

    Attributes:
        sharing, feed: acts a minute; 0 for none.
    """

    sharing: float = 0.0
    feed: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def change(self, *, sharing: float | None, feed: float | None) -> None:
        """Change what is given, and leave what is None."""
        self.sharing = self.sharing if sharing is None else sharing
        self.feed = self.feed if feed is None else feed
        self.changed.set()


class SharingTraffic:
    """Chooses acts.

    Args:
        seed: the same seed and rules give the same acts.
        rules: the sharing rules there are; their number is kept within bounds.
    """

    def __init__(self, seed: int, rules: dict[str, SharingRule]) -> None:
        self._random = random.Random(f"sharing-traffic:{seed}")  # noqa: S311 - reproducible acts, no secret
        self._rules = rules

    def sharing(self) -> Fault:
        """Return an act on sharing."""
        kind, parameters, _ = self._one(_SHARING)
        if kind == "rule_create" and len(self._rules) >= _MOST_RULES:
            kind, parameters = "rule_delete", {}
        elif kind in {"rule_change", "rule_delete"} and not self._rules:
            kind, parameters = "rule_create", {}
        return parse_fault(kind, parameters)

    def feed(self) -> Fault:
        """Return an act on feeds."""
        kind, parameters, _ = self._one(_FEED)
        return parse_fault(kind, parameters)

    def _one(self, acts: tuple[tuple[str, dict[str, Any], int], ...]) -> tuple[str, dict[str, Any], int]:
        return self._random.choices(acts, weights=[weight for _, _, weight in acts])[0]


async def run(
    traffic: SharingTraffic, rates: SharingRates, apply: Callable[[Fault], Awaitable[object]], now: Callable[[], float]
) -> None:
    """Carry out acts for ever, as many as the rates say; an act the org can't do just now is left out.

    Args:
        traffic: chooses them.
        rates: how many.
        apply: carries one out.
        now: monotonic seconds.
    """
    owed, before = {"sharing": 0.0, "feed": 0.0}, now()
    while True:
        rates.changed.clear()
        if not rates.sharing and not rates.feed:
            await rates.changed.wait()
            before = now()
            continue
        await asyncio.sleep(_TICK_S)
        passed, before = now() - before, now()
        for what, rate, choose in (
            ("sharing", rates.sharing, traffic.sharing),
            ("feed", rates.feed, traffic.feed),
        ):
            # What a slow machine can't make is let go.
            owed[what] = min(owed[what] + passed * rate / 60, max(1.0, rate / 60))
            while owed[what] >= 1.0:
                owed[what] -= 1.0
                try:
                    await apply(choose())
                except EmulatorError:
                    continue
