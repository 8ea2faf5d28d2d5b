"""How many events to ask for, and when: the flow control of one Subscribe call.

Facts (Pub/Sub API guide "Pull Subscription and Flow Control"): ``num_requested`` adds to what is outstanding;
at most 100 may be outstanding; with nothing outstanding a request must follow within 60 seconds.
"""

from __future__ import annotations

MAX_OUTSTANDING = 100
"""The server treats more as 100 (Pub/Sub API guide "Allocations")."""

REFILL_AT_LEAST = 10
"""Asking for fewer at a time floods the server with requests; asking later leaves the window half empty."""


class CreditWindow:
    """Credits of one call: granted by us, used up by the server's events."""

    def __init__(self) -> None:
        self._outstanding = 0

    @property
    def outstanding(self) -> int:
        """Events asked for and not received yet."""
        return self._outstanding

    def received(self, events: int) -> None:
        """Count a response with this many events."""
        self._outstanding = max(0, self._outstanding - events)

    def settle(self, pending: int) -> None:
        """Adopt the server's own count, given while no request of ours can be under way.

        Without it a credit lost on either side would shrink the window for the life of the call.
        """
        self._outstanding = min(pending, MAX_OUTSTANDING)

    def grant(self, room: int) -> int:
        """Return how many to ask for now, 0 for none, and count them as outstanding.

        Args:
            room: free places of the buffer, not counting what is outstanding already.
        """
        wanted = min(MAX_OUTSTANDING, room) - self._outstanding
        if wanted <= 0 or (wanted < REFILL_AT_LEAST and self._outstanding > 0):
            return 0
        self._outstanding += wanted
        return wanted
