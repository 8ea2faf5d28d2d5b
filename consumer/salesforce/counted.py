"""Counts REST calls of one purpose, so that it can keep to a budget of its own."""

from __future__ import annotations

from consumer.errors import LoginError, QuotaError
from consumer.events import Json
from consumer.org_clock import OrgClock
from consumer.salesforce.rest import Answer, Asks, Call


class CountedRest:
    """Passes questions on, and counts them.

    Args:
        rest: the org's REST API.

    Attributes:
        calls: questions asked so far, answered or refused. What was held back for want of calls or of a session is
            none; one that was asked again within its minute counts once.
    """

    def __init__(self, rest: Asks) -> None:
        self._rest = rest
        self.calls = 0

    @property
    def clock(self) -> OrgClock:
        """The org's time."""
        return self._rest.clock

    async def json(self, call: Call) -> Answer[Json]:
        """Ask; errors as of :meth:`consumer.salesforce.rest.RestClient.ask`."""
        self.calls += 1
        try:
            return await self._rest.json(call)
        except (QuotaError, LoginError):
            self.calls -= 1
            raise
