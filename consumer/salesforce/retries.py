"""How long to wait before the next Subscribe: a delay for every way in which a call can end."""

from __future__ import annotations

from collections.abc import Callable

from consumer.backoff import Backoff
from consumer.errors import (
    DeliveryAllowanceError,
    LoginRejectedError,
    ServerProtectionError,
    ServiceError,
    TokenRefusedError,
)

PROTECTION_S = 60.0
"""Least wait after the server protected itself; coming back sooner prolongs it."""

LOGIN_REJECTED_S = 30.0
"""Least wait after a refused login: someone has to act first, and too many logins lock a user out."""

ALLOWANCE_FROM_S = 900.0
ALLOWANCE_TO_S = 3600.0
"""The 24 hour allowance is rolling, so a probe now and then is enough (Platform Event Allocations)."""

TOKEN_CALM_S = 120.0
"""A refused token is replaced without delay only if none was refused for this long."""


class Retries:
    """Delays between the calls of one stream; grows until health was seen.

    Args:
        random: returns a number in [0, 1).
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._ends = Backoff(random)
        self._slow = Backoff(random, first_s=15.0, cap_s=240.0)
        self._allowance = Backoff(random, first_s=ALLOWANCE_FROM_S, cap_s=ALLOWANCE_TO_S - ALLOWANCE_FROM_S)
        self._refused_at_s: float | None = None

    def healthy(self) -> None:
        """Start over: a message was received or the call lived for a while; an open alone proves nothing."""
        self._ends.healthy()
        self._slow.healthy()
        self._allowance.healthy()

    def delay_s(self, error: ServiceError, now_s: float) -> float:
        """Return the seconds to wait after this error.

        Args:
            error: why the call ended or was not made.
            now_s: monotonic time, seconds.
        """
        if isinstance(error, TokenRefusedError):
            last, self._refused_at_s = self._refused_at_s, now_s
            calm = last is None or now_s - last > TOKEN_CALM_S
            return 0.0 if calm else self._ends.next_delay()
        if isinstance(error, LoginRejectedError):
            return self._slow.next_delay(LOGIN_REJECTED_S)
        if isinstance(error, ServerProtectionError):
            return self._slow.next_delay(PROTECTION_S)
        if isinstance(error, DeliveryAllowanceError):
            return self._allowance.next_delay(ALLOWANCE_FROM_S)
        return self._ends.next_delay()
