"""Calls to the org's REST API: token, limits, errors and retries in one place; answers come in bounded pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Generic, Protocol, TypeVar
from urllib.parse import quote_plus, urlsplit

import aiohttp
import orjson
from yarl import URL

from consumer.backoff import Backoff
from consumer.errors import (
    LoginRejectedError,
    QueryRefusedError,
    QuotaError,
    SalesforceUnavailableError,
    SessionRefusedError,
)
from consumer.events import Json
from consumer.org_clock import OrgClock
from consumer.salesforce.governor import Governor
from consumer.salesforce.http import transport_fault
from consumer.salesforce.rest_errors import api_error
from consumer.salesforce.session import Session
from consumer.salesforce.tokens import TokenSource

CLIENT = "messaging-session-consumer"
"""Stands in ``changeOrigin`` of events that our own calls cause, so that they can be told apart."""

MAX_REQUEST_BYTES = 16_384
"""Of URI and headers together; more is answered 414 or 431 (REST API guide)."""

MAX_ANSWER_BYTES = 64 << 20
"""2,000 rows of 32 KiB; more than this is not an answer to our questions."""

DATE_MARGIN_MS = 1_000
"""``Date`` has whole seconds: the answer was made at most this much later."""

_MAX_ERROR_BYTES = 64 << 10
_OWN_HEADERS_BYTES = 512
"""What the HTTP library adds: request line, Host, User-Agent, Accept-Encoding."""

_RETRY_FOR_S = 60.0
_RETRIES = 5
_TIMEOUT = aiohttp.ClientTimeout(total=600.0, sock_connect=10.0, sock_read=150.0)
"""Salesforce gives a query two minutes before its first byte."""

_SANE_MS = range(1_420_070_400_000, 4_102_444_800_000)
"""2015 to 2100: a ``Date`` outside of it is no clock's."""

_REFUSED_ADVICE = (
    'Look for "Lock sessions to the IP address" in Setup > Session Settings, and whether the user is active.'
)

T_co = TypeVar("T_co", covariant=True)


class Body(Protocol[T_co]):
    """Takes an answer's body piece by piece."""

    def feed(self, piece: bytes) -> None:
        """Take the next piece.

        Raises:
            ValueError: it can't be part of such an answer.
        """
        ...

    def end(self) -> T_co:
        """Return what the whole body says.

        Raises:
            ValueError: it is no such answer.
        """
        ...


class JsonBody:
    """A body of JSON; an empty one is None."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        if len(self._bytes) + len(piece) > MAX_ANSWER_BYTES:
            raise ValueError("too large")
        self._bytes += piece

    def end(self) -> Json:
        """Return the parsed value."""
        return orjson.loads(self._bytes) if self._bytes else None


@dataclass(frozen=True, slots=True)
class Call:
    """One question to the REST API.

    Attributes:
        method: HTTP method.
        path: below ``/services/data/vXX.0``, or a whole path as in ``nextRecordsUrl``.
        params: query parameters, not encoded.
        json: body to send.
        headers: beside those of every call.
        repair: whether the reserve of calls may be used.
        repeatable: whether it does no harm to send it again when no answer came.
    """

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    json: Json = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repair: bool = False
    repeatable: bool = True


@dataclass(frozen=True, slots=True)
class Answer(Generic[T_co]):
    """One answer.

    Attributes:
        status: HTTP status, 2xx or 304.
        headers: by any case.
        body: as the body reader returned it; None for 204 and 304.
        answered_ms: its ``Date`` + 1 s, epoch milliseconds.
    """

    status: int
    headers: Mapping[str, str]
    body: T_co
    answered_ms: int


class Asks(Protocol):
    """Asks the org's REST API for JSON: :class:`RestClient`, or one that looks on."""

    @property
    def clock(self) -> OrgClock:
        """The org's time."""
        ...

    async def json(self, call: Call) -> Answer[Json]:
        """Ask; errors as of :meth:`RestClient.ask`."""
        ...


class RestClient:
    """The REST API of the org that the session belongs to.

    Args:
        http: client session; its redirects are not followed, because they would carry the token along.
        tokens: where the session comes from, shared with the stream.
        api_version: such as ``62.0``.
        governor: is asked before each call and told of each answer.
        clock: is told the ``Date`` of each answer, and gives the time when there is none.
        random: returns a number in [0, 1).
        monotonic_s: monotonic clock, seconds.
        sleep: waits some seconds.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        tokens: TokenSource,
        api_version: str,
        *,
        governor: Governor,
        clock: OrgClock,
        random: Callable[[], float],
        monotonic_s: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._http = http
        self._tokens = tokens
        self._base = f"/services/data/v{api_version}"
        self._random = random
        self._monotonic_s = monotonic_s
        self.sleep = sleep
        self.governor = governor
        self.clock = clock

    async def json(self, call: Call) -> Answer[Json]:
        """Ask for JSON; see :meth:`ask`."""
        return await self.ask(call, JsonBody)

    async def ask(self, call: Call, body: Callable[[], Body[T_co]]) -> Answer[T_co]:
        """Ask, and ask again within a minute when no usable answer comes.

        Args:
            call: the question.
            body: makes a reader of the body, for each attempt anew.

        Raises:
            QuotaError: the call may not be made, or the org's calls are used up.
            QueryRefusedError: Salesforce will not answer it.
            SalesforceUnavailableError: no usable answer came.
            LoginError: there is no session, or a new one is refused as well.
        """
        backoff = Backoff(self._random, first_s=0.5, cap_s=10.0)
        until_s = self._monotonic_s() + _RETRY_FOR_S
        renewed = False
        while True:
            self.governor.admit(repair=call.repair)
            session = await self._tokens.get()
            try:
                return await self._attempt(call, session, body())
            except SessionRefusedError as error:
                if renewed:
                    raise LoginRejectedError(
                        f"{error.message}, though it is new", _REFUSED_ADVICE, code=error.code
                    ) from error
                renewed = True
                self._tokens.invalidate(session)
            except QuotaError:
                self.governor.exhausted()
                raise
            except SalesforceUnavailableError as error:
                delay_s = backoff.next_delay(at_least_s=error.retry_after_s)
                late = self._monotonic_s() + delay_s > until_s
                if late or backoff.attempts > _RETRIES or not (call.repeatable or error.code):
                    raise
                await self.sleep(delay_s)

    async def _attempt(self, call: Call, session: Session, body: Body[T_co]) -> Answer[T_co]:
        url, headers = self._request(call, session)
        host = urlsplit(session.instance_url).netloc
        try:
            async with self._http.request(
                call.method,
                URL(url, encoded=True),
                data=None if call.json is None else orjson.dumps(call.json),
                headers=headers,
                allow_redirects=False,
                timeout=_TIMEOUT,
            ) as response:
                answered_ms = self._note(response.headers)
                if response.status == 304 or 200 <= response.status < 300:
                    value = await _read(response, body, host)
                    return Answer(response.status, response.headers.copy(), value, answered_ms)
                text = await _start_of(response)
                raise api_error(response.status, response.headers, text, (session.access_token,))
        except (aiohttp.ClientError, OSError) as error:
            raise SalesforceUnavailableError(*transport_fault(host, error)) from error

    def _request(self, call: Call, session: Session) -> tuple[str, dict[str, str]]:
        path = call.path if call.path.startswith("/services/") else self._base + call.path
        query = "&".join(f"{name}={encoded(value)}" for name, value in call.params.items())
        uri = f"{path}?{query}" if query else path
        headers = {
            "Authorization": f"Bearer {session.access_token}",
            "Sforce-Call-Options": f"client={CLIENT}",
            "Accept": "application/json",
            **({"Content-Type": "application/json"} if call.json is not None else {}),
            **call.headers,
        }
        size = len(uri) + sum(len(name) + len(value) + 4 for name, value in headers.items())
        if size + _OWN_HEADERS_BYTES > MAX_REQUEST_BYTES:
            raise QueryRefusedError(
                f"A question of {size} bytes is longer than Salesforce takes",
                "Take fields the service need not read from the integration user, or shorten the condition.",
                code="URI_TOO_LONG",
            )
        return session.instance_url + uri, headers

    def _note(self, headers: Mapping[str, str]) -> int:
        self.governor.observe(headers.get("Sforce-Limit-Info", ""))
        date_ms = _date_ms(headers.get("Date", ""))
        if date_ms is None:
            return self.clock.now_ms() + DATE_MARGIN_MS
        self.clock.observe(date_ms)
        return date_ms + DATE_MARGIN_MS


def encoded(text: str) -> str:
    """Return a query parameter's value as it travels; the length that counts is that of this."""
    return quote_plus(text, safe="(),")


def _date_ms(text: str) -> int | None:
    """Return a ``Date`` header as epoch milliseconds, None when it is missing or no clock's."""
    try:
        date = parsedate_to_datetime(text)
        date_ms = int(date.timestamp() * 1000)
    except (ValueError, OverflowError, TypeError):
        return None
    return date_ms if date.tzinfo is not None and date_ms in _SANE_MS else None


async def _read(response: aiohttp.ClientResponse, body: Body[T_co], host: str) -> T_co:
    async for piece in response.content.iter_any():
        _feed(body, piece, host)
    try:
        return body.end()
    except ValueError as error:
        raise _no_answer(host) from error


def _feed(body: Body[object], piece: bytes, host: str) -> None:
    try:
        body.feed(piece)
    except ValueError as error:
        raise _no_answer(host) from error


def _no_answer(host: str) -> SalesforceUnavailableError:
    return SalesforceUnavailableError(
        f"{host} sent something else than the answer asked for", "Check that no proxy answers in Salesforce's place."
    )


async def _start_of(response: aiohttp.ClientResponse) -> bytes:
    """Return an error's body; a longer one than any of Salesforce's is cut, and then no JSON."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > _MAX_ERROR_BYTES:
            break
    return bytes(body)
