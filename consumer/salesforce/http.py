"""HTTPS to Salesforce: one client session, bounded answers, and transport errors in our own words."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from consumer import __version__
from consumer.errors import ConfigError, LoginUnavailableError

MAX_ANSWER_BYTES = 256 * 1024
"""Token answers have 1 KiB, UserInfo about 4 KiB; more than this is not an answer to our question."""

_TOTAL_TIMEOUT_S = 30.0
_CONNECT_TIMEOUT_S = 10.0
_MAX_RETRY_AFTER_S = 3600.0

_ADVICE_NETWORK = "Check salesforce.login_url, DNS and the firewall between here and Salesforce."
_ADVICE_TLS = "If a proxy inspects TLS, or the system's root certificates are old, name a bundle in salesforce.ca_file."


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """One answer; body and headers can hold secrets and are never printed.

    Attributes:
        status: HTTP status code.
        headers: answer headers, by any case.
        body: at most :data:`MAX_ANSWER_BYTES`.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The body as text; bytes that are not UTF-8 are replaced."""
        return self.body.decode("utf-8", "replace")

    @property
    def retry_after_s(self) -> float:
        """Seconds of the ``Retry-After`` header, at most an hour; 0 when absent or a date."""
        value = self.headers.get("Retry-After", "").strip()
        return min(float(value), _MAX_RETRY_AFTER_S) if value.isdecimal() and value.isascii() else 0.0

    def json_object(self) -> dict[str, Any] | None:
        """Return the body as a JSON object, None when it is anything else (HTML of a proxy, nothing)."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None


def open_http(
    ca_file: Path | None = None,
    *,
    total_timeout_s: float = _TOTAL_TIMEOUT_S,
    connect_timeout_s: float = _CONNECT_TIMEOUT_S,
    on_date: Callable[[int], None] | None = None,
) -> aiohttp.ClientSession:
    """Open the client session of one process; the caller closes it.

    Args:
        ca_file: PEM root certificates in place of the system's.
        total_timeout_s: longest one request may take, seconds.
        connect_timeout_s: longest a connection may take to open, seconds.
        on_date: is told the ``Date`` of every answer, epoch milliseconds, a login's too.

    Raises:
        ConfigError: ``ca_file`` can't be read or holds no certificate.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls_context(ca_file)),
        # A login answers with session cookies; kept, they would be a second, unmanaged login.
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": f"messaging-session-consumer/{__version__}"},
        timeout=aiohttp.ClientTimeout(total=total_timeout_s, sock_connect=connect_timeout_s),
        trace_configs=[] if on_date is None else [_dates_told(on_date)],
    )


def _dates_told(on_date: Callable[[int], None]) -> aiohttp.TraceConfig:
    async def ended(_http: aiohttp.ClientSession, _context: object, end: aiohttp.TraceRequestEndParams) -> None:
        try:
            date = parsedate_to_datetime(end.response.headers["Date"])
            # A date without a zone would be taken for local time.
            date_ms = round((date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp() * 1000)
        except (KeyError, ValueError, OverflowError):
            return  # an answer without a readable date says nothing about the time
        on_date(date_ms)

    config = aiohttp.TraceConfig()
    config.on_request_end.append(ended)
    return config


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a verifying TLS context with the system's roots, or those of ``ca_file`` only.

    Raises:
        ConfigError: ``ca_file`` can't be read or holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        raise ConfigError(
            [f"salesforce.ca_file: {ca_file} can't be read as PEM certificates"],
            "Name a file of PEM certificates, or leave it out to use the system's.",
        ) from error


async def request(
    http: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    form: Mapping[str, str] | None = None,
    data: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> HttpAnswer:
    """Send one request and read its whole answer.

    Redirects are not followed: they would carry secrets to a host nobody configured.

    Raises:
        LoginUnavailableError: no whole answer came.
    """
    host = urlsplit(url).netloc.rpartition("@")[2]
    try:
        async with http.request(
            method, url, data=form if form is not None else data, headers=headers, allow_redirects=False
        ) as answer:
            body = await _read_bounded(answer, host)
            return HttpAnswer(answer.status, answer.headers.copy(), body)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise _unavailable(host, error) from error


async def _read_bounded(answer: aiohttp.ClientResponse, host: str) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise LoginUnavailableError(
                f"{host} sent an answer larger than {MAX_ANSWER_BYTES // 1024} KiB",
                "Check that salesforce.login_url is a Salesforce host and no proxy answers in its place.",
            )
    return bytes(body)


def _unavailable(host: str, error: Exception) -> LoginUnavailableError:
    return LoginUnavailableError(*transport_fault(host, error))


def transport_fault(host: str, error: Exception) -> tuple[str, str]:
    """Return what happened and the advice for a request that brought no whole answer.

    Args:
        host: the host that was asked, without user name.
        error: what aiohttp or the system raised.
    """
    match error:
        case TimeoutError():
            what, advice = "{host} did not answer in time", _ADVICE_NETWORK
        case aiohttp.ClientConnectorCertificateError():
            what, advice = "The certificate of {host} is not trusted", _ADVICE_TLS
        case aiohttp.ClientSSLError():
            what, advice = "No TLS connection to {host} could be made", _ADVICE_TLS
        case aiohttp.ClientConnectorDNSError():
            what, advice = "The host name {host} does not resolve", _ADVICE_NETWORK
        case aiohttp.ClientConnectorError():
            reason = os.strerror(error.errno) if error.errno else "connection failed"
            what, advice = f"{{host}} can't be reached ({reason})", _ADVICE_NETWORK
        case aiohttp.ClientConnectionError() | aiohttp.ClientPayloadError() | ConnectionError():
            what, advice = "{host} closed the connection before its answer ended", _ADVICE_NETWORK
        case _:
            what, advice = f"{{host}} could not be asked ({type(error).__name__})", _ADVICE_NETWORK
    return what.replace("{host}", host), advice
