"""The token source: one login for all, cancellation kept apart, no hammering."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from consumer.errors import LoginError, LoginRejectedError, LoginUnavailableError
from consumer.salesforce.http import open_http
from consumer.salesforce.login import build_login
from consumer.salesforce.session import Session
from consumer.salesforce.tokens import LOGIN_BUDGET, LOGIN_BUDGET_S, TokenSource
from consumer.settings import SalesforceSettings
from tests.unit.login_server import ORG, TOKEN, USER, login_host, token_answer

URL = "https://acme.my.salesforce.com"


class ScriptedLogin:
    """A login that yields sessions or raises errors from a list; the last entry is repeated."""

    flow = "scripted"

    def __init__(self, *results: Session | Exception, renewable: bool = True) -> None:
        self.renewable = renewable
        self.results = list(results)
        self.calls = 0
        self.started = asyncio.Event()
        self.release = asyncio.Event()
        self.release.set()

    async def login(self) -> Session:
        self.calls += 1
        self.started.set()
        await self.release.wait()
        result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        if isinstance(result, Exception):
            raise result
        return result


class Clock:
    """A monotonic clock moved by hand."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def session(name: str = "a") -> Session:
    return Session(f"{TOKEN}{name}", URL, ORG, USER)


def source(login: ScriptedLogin, tasks: asyncio.TaskGroup, clock: Clock | None = None) -> TokenSource:
    return TokenSource(login, tasks, monotonic_s=clock or Clock(), random=lambda: 0.5)


async def test_fifty_callers_one_request() -> None:
    """Single flight over the real client: fifty concurrent calls cause one request, later ones none."""
    arrived, release = asyncio.Event(), asyncio.Event()
    async with login_host() as host, open_http() as http, asyncio.TaskGroup() as tasks:

        async def respond(_: web.Request) -> web.StreamResponse:
            arrived.set()
            await release.wait()
            return web.json_response(token_answer(instance_url=host.url))

        host.script.append(respond)
        settings = SalesforceSettings(login_url=host.url, client_id="k", client_secret="s")
        tokens = TokenSource(build_login(settings, http, lambda: 0.0), tasks, monotonic_s=Clock(), random=lambda: 0.5)
        callers = [tasks.create_task(tokens.get()) for _ in range(50)]
        await arrived.wait()
        release.set()
        sessions = await asyncio.gather(*callers)
        assert len({id(one) for one in sessions}) == 1
        assert await tokens.get() is sessions[0]
        assert len(host.seen) == 1
        assert (tokens.logins, tokens.failures, tokens.last_error) == (1, 0, None)


async def test_a_cancelled_caller_does_not_cancel_the_login() -> None:
    """Neither the first caller nor any other takes the login down with it."""
    login = ScriptedLogin(session())
    login.release.clear()
    async with asyncio.TaskGroup() as tasks:
        tokens = source(login, tasks)
        first, second = tasks.create_task(tokens.get()), tasks.create_task(tokens.get())
        await login.started.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        login.release.set()
        assert await second == session()
        assert login.calls == 1


async def test_a_login_outlives_all_its_callers() -> None:
    """With every caller gone the login still ends well: a rotated token would be lost otherwise."""
    login = ScriptedLogin(session())
    login.release.clear()
    async with asyncio.TaskGroup() as tasks:
        tokens = source(login, tasks)
        only = tasks.create_task(tokens.get())
        await login.started.wait()
        only.cancel()
        with pytest.raises(asyncio.CancelledError):
            await only
        login.release.set()
    assert tokens.logins == 1


async def test_a_failure_without_callers_is_quiet() -> None:
    """No "exception was never retrieved" when everyone was cancelled meanwhile."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    login = ScriptedLogin(LoginRejectedError("No", "Act."))
    login.release.clear()
    async with asyncio.TaskGroup() as tasks:
        tokens = source(login, tasks)
        only = tasks.create_task(tokens.get())
        await login.started.wait()
        only.cancel()
        with pytest.raises(asyncio.CancelledError):
            await only
        login.release.set()
    assert tokens.failures == 1
    del tokens, only, login
    gc.collect()
    assert complaints == []


async def test_invalidate_only_the_current_session() -> None:
    """A late refusal of an old session keeps the new one, even when both hold the same token."""
    login = ScriptedLogin(session("a"), session("b"), session("b"), session("c"))
    async with asyncio.TaskGroup() as tasks:
        tokens = source(login, tasks)
        old = await tokens.get()
        tokens.invalidate(old)
        second = await tokens.get()
        tokens.invalidate(old)
        assert await tokens.get() is second
        tokens.invalidate(second)
        third = await tokens.get()
        if third is second:  # the script repeats a value, the source must compare by identity
            pytest.fail("expected a new session object")
        tokens.invalidate(second)
        assert await tokens.get() is third
        assert login.calls == 3


async def test_rejection_is_held() -> None:
    """After a rejection the same error answers without asking; the wait grows and starts over after success."""
    rejected = LoginRejectedError("Refused", "Act.", code="invalid_client")
    login = ScriptedLogin(rejected, rejected, rejected, session(), rejected)
    clock = Clock()
    async with asyncio.TaskGroup() as tasks:
        tokens = source(login, tasks, clock)

        async def fails() -> LoginError:
            with pytest.raises(LoginError) as caught:
                await tokens.get()
            return caught.value

        assert await fails() is rejected
        for _ in range(20):
            assert await fails() is rejected
        assert (login.calls, tokens.failures, tokens.last_error) == (1, 1, rejected)
        for calls, wait_s in ((1, 15 + 7.5), (2, 15 + 15.0)):
            clock.now_s += wait_s - 0.1
            await fails()
            assert login.calls == calls
            clock.now_s += 0.2
            await fails()
            assert login.calls == calls + 1
        clock.now_s += 1000
        tokens.invalidate(await tokens.get())
        await fails()
        clock.now_s += 15 + 7.6
        await fails()
        assert login.calls == 6


async def test_the_held_error_does_not_grow() -> None:
    """Raised a thousand times, the one error instance keeps a short traceback."""
    rejected = LoginRejectedError("Refused", "Act.")
    async with asyncio.TaskGroup() as tasks:
        tokens = source(ScriptedLogin(rejected), tasks)
        for _ in range(1000):
            with pytest.raises(LoginRejectedError):
                await tokens.get()
    depth, trace = 0, rejected.__traceback__
    while trace is not None:
        depth, trace = depth + 1, trace.tb_next
    assert depth < 10


@pytest.mark.parametrize(("retry_after_s", "calls"), [(0.0, 2), (60.0, 1)])
async def test_unavailable_is_held_only_when_asked_to_wait(retry_after_s: float, calls: int) -> None:
    """Callers back off by themselves; only a rate limit or Retry-After is enforced here."""
    login = ScriptedLogin(LoginUnavailableError("Later", "Wait.", retry_after_s=retry_after_s))
    clock = Clock()
    async with asyncio.TaskGroup() as tasks:
        tokens = source(login, tasks, clock)
        for _ in range(2):
            with pytest.raises(LoginUnavailableError):
                await tokens.get()
        assert login.calls == calls
        clock.now_s += retry_after_s + 0.1
        with pytest.raises(LoginUnavailableError):
            await tokens.get()
        assert login.calls == calls + 1


async def test_logins_in_a_row_are_limited() -> None:
    """A token that is refused right after every login does not use up the user's login allowance."""
    login = ScriptedLogin(session())
    clock = Clock()
    async with asyncio.TaskGroup() as tasks:
        tokens = source(login, tasks, clock)
        for _ in range(LOGIN_BUDGET):
            tokens.invalidate(await tokens.get())
        with pytest.raises(LoginUnavailableError, match="again and again") as caught:
            await tokens.get()
        assert caught.value.retry_after_s == LOGIN_BUDGET_S
        assert login.calls == LOGIN_BUDGET
        clock.now_s += LOGIN_BUDGET_S
        await tokens.get()


async def test_a_refused_ready_session_is_a_rejection() -> None:
    """A token that can't be renewed is not handed out again at once, but tried again after the back-off."""
    login = ScriptedLogin(session(), renewable=False)
    clock = Clock()
    async with asyncio.TaskGroup() as tasks:
        tokens = source(login, tasks, clock)
        tokens.invalidate(await tokens.get())
        with pytest.raises(LoginRejectedError, match="no longer accepted"):
            await tokens.get()
        clock.now_s += 60
        assert await tokens.get() == session()


@pytest.mark.parametrize("outcome", ["cancelled", "bug"])
async def test_waiters_get_an_error_when_the_login_is_stopped(outcome: str) -> None:
    """A login cancelled or broken by a bug ends as an error, not as a cancellation of those who wait."""
    login = ScriptedLogin(ZeroDivisionError() if outcome == "bug" else session())
    login.release.clear()
    answers: list[str] = []

    async def wait_for(get: Callable[[], Awaitable[Session]]) -> None:
        try:
            await get()
        except LoginUnavailableError as error:
            answers.append(error.message)

    async with asyncio.TaskGroup() as outer:
        begun = asyncio.Event()

        async def owner() -> None:
            async with asyncio.TaskGroup() as tasks:
                tokens = source(login, tasks)
                outer.create_task(wait_for(tokens.get))
                begun.set()
                await asyncio.Event().wait()

        async def guarded() -> None:
            try:
                await owner()
            except ExceptionGroup as group:
                assert group.subgroup(ZeroDivisionError) is not None  # noqa: PT017 - a group, raised in a task

        running = outer.create_task(guarded())
        await begun.wait()
        await login.started.wait()
        if outcome == "bug":
            login.release.set()
        else:
            running.cancel()
    assert answers == ["The login was stopped before it ended"]


async def test_no_login_once_the_service_has_stopped() -> None:
    """A source whose group has ended says so, instead of starting what nobody would wait for."""
    async with asyncio.TaskGroup() as tasks:
        tokens = source(ScriptedLogin(session()), tasks)
    for _ in range(2):
        with pytest.raises(LoginUnavailableError, match="stopping"):
            await tokens.get()


async def test_logs_tell_the_reason_and_no_token() -> None:
    """One line per login and per failure, with advice, without the token."""
    login = ScriptedLogin(LoginUnavailableError("Later", "Wait."), session())
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks:
            tokens = source(login, tasks)
            with pytest.raises(LoginUnavailableError):
                await tokens.get()
            await tokens.get()
    assert [entry["event"] for entry in logs] == ["login failed", "logged in"]
    assert logs[0]["advice"] == "Wait."
    assert logs[1]["org_id"] == ORG
    assert TOKEN not in str(logs)
