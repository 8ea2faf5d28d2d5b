"""The OAuth token endpoint and its plain flows (Salesforce Help, "OAuth Authorization Flows")."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from consumer.errors import ConfigError, LoginRejectedError
from consumer.salesforce.http import request
from consumer.salesforce.identity import identified
from consumer.salesforce.oauth_errors import login_refused
from consumer.salesforce.session import Session, clean_token, org_id_18, origin_of

TOKEN_PATH = "/services/oauth2/token"  # noqa: S105 - a path, no secret
JWT_LIFETIME_S = 180
"""Salesforce takes at most 300; the rest is for clocks that differ."""

_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_SHOWABLE = frozenset({"grant_type", "client_id", "username", "format"})
_MIN_RSA_BITS = 2048


@dataclass(frozen=True, slots=True)
class Granted:
    """A token answer.

    Attributes:
        session: complete session.
        refresh_token: the new refresh token when the old one was rotated away, else empty.
    """

    session: Session
    refresh_token: str = field(repr=False)


class TokenEndpoint:
    """``/services/oauth2/token`` of one login host.

    Args:
        http: client session.
        login_url: scheme and host.
        org_id: configured org id, 18 characters, or empty.
    """

    def __init__(self, http: aiohttp.ClientSession, login_url: str, org_id: str = "") -> None:
        self._http = http
        self._url = login_url + TOKEN_PATH
        self._org_id = org_id

    async def grant(self, form: Mapping[str, str]) -> Granted:
        """Ask for a token.

        Raises:
            LoginRejectedError: refused, or the answer can't be used.
            LoginUnavailableError: the host could not be asked, or asked us to wait.
        """
        answer = await request(self._http, "POST", self._url, form=form, headers={"Accept": "application/json"})
        body = answer.json_object() if answer.status == 200 else None
        if body is None or "access_token" not in body:
            raise login_refused(answer, [value for key, value in form.items() if key not in _SHOWABLE])
        org_id, user_id = _identity(body.get("id"))
        session = Session(
            access_token=clean_token(body["access_token"]),
            instance_url=origin_of(body.get("instance_url")),
            org_id=org_id,
            user_id=user_id,
        )
        rotated = body.get("refresh_token")
        return Granted(session, rotated.strip() if isinstance(rotated, str) else "")

    async def finish(self, granted: Granted) -> Session:
        """Return the granted session with its org id, asking UserInfo when the answer did not tell.

        Apart from :meth:`grant`, because a rotated refresh token must be safe before anything else can fail.

        Raises:
            LoginError: the org id can't be had.
        """
        return await identified(self._http, granted.session, self._org_id)


class ClientCredentialsLogin:
    """The app's own login as its run-as user; works on the org's My Domain host only."""

    flow = "client_credentials"
    renewable = True

    def __init__(self, endpoint: TokenEndpoint, client_id: str, client_secret: str) -> None:
        self._endpoint = endpoint
        self._form = {
            "grant_type": "client_credentials",
            "client_id": client_id,
            "client_secret": client_secret,
        }

    async def login(self) -> Session:
        """Log in; see :class:`~consumer.salesforce.login.Login`."""
        return await self._endpoint.finish(await self._endpoint.grant(self._form))


class PasswordLogin:
    """Username-password flow (legacy; off by default in newer orgs)."""

    flow = "password"
    renewable = True

    def __init__(
        self, endpoint: TokenEndpoint, client_id: str, client_secret: str, username: str, password: str
    ) -> None:
        self._endpoint = endpoint
        self._form = {
            "grant_type": "password",
            "client_id": client_id,
            "username": username,
            "password": password,
        }
        if client_secret:
            self._form["client_secret"] = client_secret

    async def login(self) -> Session:
        """Log in; see :class:`~consumer.salesforce.login.Login`."""
        return await self._endpoint.finish(await self._endpoint.grant(self._form))


class JwtLogin:
    """JWT bearer flow: a short assertion signed with the app's private key, no secret on the wire.

    Args:
        endpoint: token endpoint.
        client_id: consumer key of the app (``iss``).
        username: user to act as (``sub``).
        audience: ``aud``, see :func:`jwt_audience`.
        key_file: PEM private key, read at every login, so that a replaced key needs no restart.
        now_s: wall clock, epoch seconds.
    """

    flow = "jwt"
    renewable = True

    def __init__(
        self,
        endpoint: TokenEndpoint,
        *,
        client_id: str,
        username: str,
        audience: str,
        key_file: Path,
        now_s: Callable[[], float],
    ) -> None:
        self._endpoint = endpoint
        self._claims: dict[str, Any] = {"iss": client_id, "sub": username, "aud": audience}
        self._key_file = key_file
        self._now_s = now_s

    async def login(self) -> Session:
        """Log in; see :class:`~consumer.salesforce.login.Login`."""
        assertion = await asyncio.to_thread(self._assertion)
        granted = await self._endpoint.grant({"grant_type": _JWT_GRANT, "assertion": assertion})
        return await self._endpoint.finish(granted)

    def _assertion(self) -> str:
        try:
            key = read_private_key(self._key_file)
        except ConfigError as error:
            raise LoginRejectedError(error.message, error.advice) from error
        expires_s = int(self._now_s()) + JWT_LIFETIME_S
        return jwt.encode({**self._claims, "exp": expires_s}, key, algorithm="RS256")


def jwt_audience(login_url: str) -> str:
    """Return the ``aud`` claim for a login host.

    Salesforce names three: production, sandbox, or the URL of an Experience Cloud site. A My Domain host is
    none of them and stands for production or, by its name, for sandbox (Salesforce Help, "OAuth 2.0 JWT
    Bearer Flow").
    """
    host = urlsplit(login_url).hostname or ""
    if not host.endswith(".my.salesforce.com"):
        return login_url
    own_name, _, partition = host.removesuffix(".my.salesforce.com").partition(".")
    test = partition in {"sandbox", "scratch"} or "--" in own_name
    return "https://test.salesforce.com" if test else "https://login.salesforce.com"


def read_private_key(path: Path) -> RSAPrivateKey:
    """Read the RSA key of the JWT flow.

    Raises:
        ConfigError: the file can't be read or holds no usable key.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ConfigError(
            [f"salesforce.private_key_file: {path} can't be read ({error.strerror})"],
            "Make the PEM file readable for the service's user.",
        ) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            [f"salesforce.private_key_file: {path} is not an unencrypted PEM private key"],
            "Make one with `openssl genrsa -out server.key 2048`, and upload its certificate to the app.",
        ) from error
    if not isinstance(key, RSAPrivateKey) or key.key_size < _MIN_RSA_BITS:
        raise ConfigError(
            [f"salesforce.private_key_file: {path} is not an RSA key of at least {_MIN_RSA_BITS} bits"],
            "Make one with `openssl genrsa -out server.key 2048`, and upload its certificate to the app.",
        )
    return key


def _identity(url: object) -> tuple[str, str]:
    """Take org and user id from the identity URL, ``https://host/id/<org>/<user>``."""
    parts = url.rstrip("/").split("/") if isinstance(url, str) else []
    if len(parts) < 3 or not org_id_18(parts[-2]).startswith("00D"):
        return "", ""
    return org_id_18(parts[-2]), org_id_18(parts[-1])
