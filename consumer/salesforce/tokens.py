"""The one place that holds the access token: cached, fetched once for all callers, never hammered for."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import structlog

from consumer.backoff import Backoff
from consumer.errors import LoginRejectedError, LoginUnavailableError, ServiceError
from consumer.salesforce.login import Login
from consumer.salesforce.session import Session

LOGIN_BUDGET = 60
"""Logins within :data:`LOGIN_BUDGET_S`: a tenth of Salesforce's limit of about 3,600 per hour and user."""
LOGIN_BUDGET_S = 600.0

_REJECTED_FIRST_S = 15.0
_REJECTED_CAP_S = 600.0
"""A rejection stays until someone acts; ten minutes is also how long a new app takes to be known."""

_log = structlog.get_logger(__name__)


class TokenSource:
    """Gives the current session; logs in when there is none.

    A login runs as a task of ``tasks``, not of its caller: a caller that is cancelled neither cancels it for the
    others nor loses a rotated refresh token with it. Leave the group after everything that uses the source.

    Args:
        login: the configured flow.
        tasks: task group that outlives all callers.
        monotonic_s: monotonic clock, seconds.
        random: returns a number in [0, 1); spreads the back-off.
        on_login: is told of each login whether it succeeded.

    Attributes:
        logins: logins that brought a session.
        failures: logins that failed; calls answered from the back-off are not counted.
    """

    def __init__(
        self,
        login: Login,
        tasks: asyncio.TaskGroup,
        *,
        monotonic_s: Callable[[], float],
        random: Callable[[], float],
        on_login: Callable[[bool], None] | None = None,
    ) -> None:
        self._login = login
        self._on_login = on_login
        self._tasks = tasks
        self._monotonic_s = monotonic_s
        self._backoff = Backoff(random, _REJECTED_FIRST_S, _REJECTED_CAP_S)
        self._session: Session | None = None
        self._flight: asyncio.Future[Session] | None = None
        self._refused_token = ""
        self._error: ServiceError | None = None
        self._held_until_s = 0.0
        self._started_s: deque[float] = deque(maxlen=LOGIN_BUDGET)
        self.logins = 0
        self.failures = 0

    @property
    def last_error(self) -> ServiceError | None:
        """Why there is no session, None when the last login went well."""
        return self._error

    async def get(self) -> Session:
        """Return the current session, logging in if there is none.

        Raises:
            LoginRejectedError: Salesforce refused; the same error is raised again, without asking, for a while.
            LoginUnavailableError: the host could not be asked, or asked us to wait.
        """
        if self._session is not None:
            return self._session
        if self._flight is None:
            self._raise_if_held()
            self._flight = asyncio.get_running_loop().create_future()
            self._start(self._flight)
        return await asyncio.shield(self._flight)

    def invalidate(self, session: Session) -> None:
        """Forget a session whose token was refused, if it is still the current one.

        Compared by identity: a late refusal of an older session must not throw away a newer one, even one that
        Salesforce gave the same token.
        """
        if session is self._session:
            self._session = None
            self._refused_token = session.access_token

    def _raise_if_held(self) -> None:
        now_s = self._monotonic_s()
        if self._error is not None and now_s < self._held_until_s:
            # The traceback would otherwise grow by every raise of the one instance.
            raise self._error.with_traceback(None)
        if len(self._started_s) == LOGIN_BUDGET:
            wait_s = self._started_s[0] + LOGIN_BUDGET_S - now_s
            if wait_s > 0:
                raise LoginUnavailableError(
                    f"Tokens were refused again and again: {LOGIN_BUDGET} logins within {LOGIN_BUDGET_S:.0f} s",
                    'Look for "Lock sessions to the IP address" in Setup > Session Settings, and whether the '
                    "Pub/Sub endpoint belongs to this org.",
                    retry_after_s=wait_s,
                )
        self._started_s.append(now_s)

    def _start(self, flight: asyncio.Future[Session]) -> None:
        work = self._fly(flight)
        try:
            self._tasks.create_task(work, name="login")
        except RuntimeError as error:
            work.close()
            self._flight = None
            raise LoginUnavailableError("The service is stopping, and logs in no more") from error

    async def _fly(self, flight: asyncio.Future[Session]) -> None:
        try:
            session = await self._new_session()
        except ServiceError as error:
            self._failed(error)
            flight.set_exception(error)
        else:
            self._succeeded(session)
            flight.set_result(session)
        finally:
            self._flight = None
            if not flight.done():
                # Cancelling it would look to the waiters as if they themselves had been cancelled.
                flight.set_exception(LoginUnavailableError("The login was stopped before it ended"))
            flight.exception()  # marks it as seen: all waiters may have been cancelled

    async def _new_session(self) -> Session:
        session = await self._login.login()
        if not self._login.renewable and session.access_token == self._refused_token:
            self._refused_token = ""  # asked for again after the back-off, the refusal may have been a passing one
            raise LoginRejectedError(
                "The configured access token is no longer accepted",
                'Configure a new salesforce.access_token, or a flow that can log in again, such as auth = "jwt".',
            )
        return session

    def _succeeded(self, session: Session) -> None:
        self.logins += 1
        if self._on_login is not None:
            self._on_login(True)  # noqa: FBT003 - the one thing there is to tell
        self._session, self._error = session, None
        self._backoff.healthy()
        _log.info("logged in", flow=self._login.flow, org_id=session.org_id, instance_url=session.instance_url)

    def _failed(self, error: ServiceError) -> None:
        self.failures += 1
        if self._on_login is not None:
            self._on_login(False)  # noqa: FBT003 - the one thing there is to tell
        self._error = error
        wait_s = error.retry_after_s if isinstance(error, LoginUnavailableError) else self._rejected_wait_s()
        self._held_until_s = self._monotonic_s() + wait_s
        _log.warning(
            "login failed",
            flow=self._login.flow,
            error=type(error).__name__,
            transient=isinstance(error, LoginUnavailableError),
            reason=error.message,
            advice=error.advice,
            asked_again_after_s=round(wait_s, 1),
        )

    def _rejected_wait_s(self) -> float:
        return self._backoff.next_delay(at_least_s=_REJECTED_FIRST_S)
