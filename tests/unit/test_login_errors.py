"""Refused logins: every row of the table, odd bodies, transport errors, and no secret anywhere."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import socket
import ssl
import traceback
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from consumer.errors import ConfigError, LoginError, LoginRejectedError, LoginUnavailableError
from consumer.salesforce.http import MAX_ANSWER_BYTES, open_http
from consumer.salesforce.login_oauth import ClientCredentialsLogin, TokenEndpoint
from consumer.salesforce.oauth_errors import OAUTH_REFUSALS, SOAP_REFUSALS, printable
from tests.unit.login_server import LoginHost, hanging, login_host

SECRET = "s3cret value+/="


@pytest.fixture
async def host() -> AsyncIterator[LoginHost]:
    async with login_host() as running:
        yield running


async def refused(url: str, *, total_timeout_s: float = 5, ca_file: Path | None = None) -> LoginError:
    async with open_http(ca_file, total_timeout_s=total_timeout_s) as http:
        with pytest.raises(LoginError) as caught:
            await ClientCredentialsLogin(TokenEndpoint(http, url), "key", SECRET).login()
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert SECRET not in shown
    assert caught.value.message
    assert not caught.value.message.endswith(".")
    assert caught.value.advice.endswith(".")
    return caught.value


@pytest.mark.parametrize(
    ("code", "description", "advice"),
    [
        ("invalid_grant", "audience validation failed", "salesforce.login_url"),
        ("invalid_grant", "Audience validation failed", "salesforce.login_url"),
        ("invalid_grant", "user hasn't approved this consumer", "Pre-authorise"),
        ("invalid_grant", "expired authorization code", "clock"),
        ("invalid_grant", "expired access/refresh token", "refresh token"),
        ("invalid_grant", "no client credentials user enabled", "run-as user"),
        ("invalid_grant", "authentication failure", "locked out"),
        ("invalid_grant", "worded in a new way", "Login History"),
        ("invalid_client_id", "client identifier invalid", "salesforce.client_id"),
        ("invalid_client", "invalid client credentials", "salesforce.client_secret"),
        ("invalid_app_access", "user is not admin approved to access this app", "Pre-authorise"),
        ("oauth_flow_disabled", "The external client app or the OAuth plugin is disabled.", "Enable the app"),
        ("inactive_user", "", "Activate the user"),
        ("inactive_org", "", "deactivated"),
        ("unsupported_grant_type", "grant type not supported", "Enable this flow"),
        ("invalid_request", "request not supported on this domain", "My Domain"),
        ("invalid_request", "missing required field", "enabled in the app"),
        ("code_of_next_release", "something", "Login History"),
    ],
)
async def test_permanent_codes(host: LoginHost, code: str, description: str, advice: str) -> None:
    """A code stays refused until someone acts, and the advice says what to do; the description is shown."""
    host.answer({"error": code, "error_description": description}, 400)
    error = await refused(host.url)
    assert isinstance(error, LoginRejectedError)
    assert error.code == code
    assert advice in error.advice
    assert description in error.message


@pytest.mark.parametrize("status", [400, 401, 403, 418])
async def test_any_4xx_status_may_carry_a_code(host: LoginHost, status: int) -> None:
    """The code decides, not the 4xx status."""
    host.answer({"error": "invalid_client"}, status)
    assert isinstance(await refused(host.url), LoginRejectedError)


async def test_description_does_not_decide(host: LoginHost) -> None:
    """A description that speaks of rates or servers does not make a permanent code transient."""
    host.answer({"error": "invalid_grant", "error_description": "rate_limit_exceeded server_error"}, 400)
    assert isinstance(await refused(host.url), LoginRejectedError)


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "server_error", "temporarily_unavailable"])
async def test_transient_codes(host: LoginHost, code: str) -> None:
    """A code that waiting mends is not a rejection; a rate limit asks for at least a minute."""
    host.answer({"error": code, "error_description": "login rate exceeded"}, 400)
    error = await refused(host.url)
    assert isinstance(error, LoginUnavailableError)
    assert error.retry_after_s == (60 if code == "rate_limit_exceeded" else 0)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("body", [{"error": "invalid_client"}, "<html>", ""])
async def test_transient_statuses(host: LoginHost, status: int, body: object) -> None:
    """429 and 5xx are transient, whatever the body says."""
    host.answer(body, status, Retry_After="90")
    error = await refused(host.url)
    assert isinstance(error, LoginUnavailableError)
    assert error.retry_after_s == 90


@pytest.mark.parametrize(("header", "wait_s"), [("", 60), ("5", 60), ("999999", 3600), ("soon", 60), ("-1", 60)])
async def test_retry_after_is_bounded(host: LoginHost, header: str, wait_s: float) -> None:
    """A rate limit waits at least a minute and never longer than an hour."""
    host.answer("", 429, Retry_After=header)
    error = await refused(host.url)
    assert isinstance(error, LoginUnavailableError)
    assert error.retry_after_s == wait_s


@pytest.mark.parametrize("body", ["<html>Proxy</html>", "", "[]", "null", '"x"', "{", "[" * 100_000, {"error": 5}])
@pytest.mark.parametrize("status", [200, 400, 403])
async def test_bodies_that_are_no_oauth_answer(host: LoginHost, body: object, status: int) -> None:
    """HTML, nothing, or JSON of another shape: transient with 200, else refused, with a hint at proxies."""
    host.answer(body, status)
    error = await refused(host.url)
    assert isinstance(error, LoginUnavailableError if status == 200 else LoginRejectedError)
    assert "proxy" in error.advice


async def test_oversize_body(host: LoginHost) -> None:
    """An endless answer is not read into memory."""
    host.answer("x" * (MAX_ANSWER_BYTES + 1))
    assert "larger than 256 KiB" in (await refused(host.url)).message


async def test_redirect_is_not_followed(host: LoginHost) -> None:
    """Secrets stay with the configured host; the advice names where it wanted to go."""
    host.answer("", 302, Location="https://elsewhere.example.com/x?secret=1")
    error = await refused(host.url)
    assert isinstance(error, LoginRejectedError)
    assert "elsewhere.example.com" in error.message
    assert "secret=1" not in error.message
    assert len(host.seen) == 1


@pytest.mark.parametrize("echo", [SECRET, "s3cret%20value%2B%2F%3D", "s3cret+value%2B%2F%3D"])
async def test_echoed_secret_is_hidden(host: LoginHost, echo: str) -> None:
    """A server that repeats the secret, plain or encoded, does not get it into our logs."""
    host.answer({"error": f"odd {echo}", "error_description": f"bad secret {echo}!"}, 400)
    error = await refused(host.url)
    assert "bad secret ***!" in error.message
    assert echo not in str(error)
    assert isinstance(error, LoginRejectedError)
    assert echo not in error.code


def test_printable() -> None:
    """Control characters drop the text whole; long text is shortened after secrets are hidden."""
    assert printable("a\x1b[31m", 10) == ""
    assert printable(None, 10) == ""
    assert printable("x" * 20, 10) == "x" * 9 + "…"
    assert printable("12345678secret", 10, ["secret"]) == "12345678*…"
    assert printable("1234567secret", 10, ["secret"]) == "1234567***"


async def test_no_answer_in_time(host: LoginHost) -> None:
    """A silent host is given up after the total timeout."""
    started, release = asyncio.Event(), asyncio.Event()
    host.script.append(hanging(started, release))
    error = await refused(host.url, total_timeout_s=0.2)
    release.set()
    assert started.is_set()
    assert isinstance(error, LoginUnavailableError)
    assert "in time" in error.message


async def test_connection_refused() -> None:
    """A closed port says so, without the port of our own side or library names."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        error = await refused(f"http://127.0.0.1:{port}")
    assert isinstance(error, LoginUnavailableError)
    assert error.message == f"127.0.0.1:{port} can't be reached (Connection refused)"


async def test_unknown_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that does not resolve says so."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = await refused("http://login.invalid")
    assert error.message == "The host name login.invalid does not resolve"


@pytest.mark.parametrize("whole_head", [False, True])
async def test_connection_lost(host: LoginHost, whole_head: bool) -> None:
    """A connection that closes before or within the body is transient."""

    async def cut(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        if whole_head:
            request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        request.transport.close()
        return web.Response()

    host.script.append(cut)
    error = await refused(host.url)
    assert isinstance(error, LoginUnavailableError)
    assert "closed the connection" in error.message


def certificate(directory: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate for localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=36_500))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    crt, pem = directory / "ca.pem", directory / "key.pem"
    crt.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return crt, pem


async def test_ca_file_is_trusted_and_nothing_else(tmp_path: Path) -> None:
    """A private root works through ca_file; without it the certificate is refused before any secret leaves."""
    crt, pem = certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(crt, pem)
    async with login_host(tls) as host:
        host.grant()
        async with open_http(crt) as http:
            assert await ClientCredentialsLogin(TokenEndpoint(http, host.url), "key", SECRET).login()
        error = await refused(host.url)
        assert "is not trusted" in error.message
        assert "salesforce.ca_file" in error.advice
        assert len(host.seen) == 1


async def test_tls_to_a_plain_port(host: LoginHost) -> None:
    """TLS against a port that speaks none is a TLS error with advice."""
    error = await refused(host.url.replace("http:", "https:"))
    assert isinstance(error, LoginUnavailableError)


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_bad_ca_file(tmp_path: Path, content: str | None) -> None:
    """A ca_file that can't be read or holds no certificate is a fault of the configuration."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"salesforce\.ca_file"):
        open_http(path)


async def test_cookies_are_not_kept(host: LoginHost) -> None:
    """Session cookies of the login host would be a second login nobody manages."""
    host.answer({"error": "invalid_client"}, 400, Set_Cookie="sid=abc; Path=/")
    async with open_http() as http:
        for _ in range(2):
            with pytest.raises(LoginRejectedError):
                await ClientCredentialsLogin(TokenEndpoint(http, host.url), "key", SECRET).login()
        assert isinstance(http.cookie_jar, aiohttp.DummyCookieJar)
    assert "Cookie" not in host.seen[1].headers


def test_every_row_of_the_table_has_advice_and_can_be_reached() -> None:
    """No row is hidden behind an earlier one; each advises in one sentence."""
    for table in (OAUTH_REFUSALS, SOAP_REFUSALS):
        for place, row in enumerate(table):
            assert row.advice.endswith(".")
            assert not any(earlier.code == row.code and earlier.hint in row.hint for earlier in table[:place]), row
