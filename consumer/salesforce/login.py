"""How the service logs in: one flow of Salesforce, chosen by ``salesforce.auth``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import aiohttp
from pydantic import SecretStr

from consumer.errors import ConfigError, LoginRejectedError
from consumer.salesforce.identity import fetch_userinfo, identified
from consumer.salesforce.login_oauth import (
    ClientCredentialsLogin,
    JwtLogin,
    PasswordLogin,
    TokenEndpoint,
    jwt_audience,
    read_private_key,
)
from consumer.salesforce.login_refresh import RefreshTokenFile, RefreshTokenLogin
from consumer.salesforce.login_soap import SoapLogin
from consumer.salesforce.session import Session, clean_token, org_id_18
from consumer.settings import SalesforceSettings

_SHARED_HOSTS = ("://login.salesforce.com", "://test.salesforce.com")

_NEEDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "client_credentials": (("client_id",), ("client_secret",)),
    "jwt": (("client_id",), ("username",), ("private_key_file",)),
    "refresh_token": (("client_id",), ("refresh_token", "refresh_token_file")),
    "password": (("username",), ("password",)),
    "session": (("access_token",),),
}
"""Per flow: groups of settings of which one must be there."""


class Login(Protocol):
    """One way to get an access token."""

    flow: str
    """Name of the flow, for logs and metrics."""
    renewable: bool
    """Whether another login can bring a token that works when the last one no longer does."""

    async def login(self) -> Session:
        """Get a session; nothing is cached here.

        Raises:
            LoginRejectedError: Salesforce refused, or its answer can't be used; stays so until someone acts.
            LoginUnavailableError: the host could not be asked, or asked us to wait.
        """
        ...


class ReadySession:
    """A session somebody else logged in; works until it ends.

    Args:
        http: client session.
        login_url: where UserInfo is asked when ``instance_url`` is not given.
        access_token: the session's token.
        instance_url: scheme and host of the org, or empty.
        org_id: configured org id, 18 characters, or empty.
    """

    flow = "session"
    renewable = False

    def __init__(
        self,
        http: aiohttp.ClientSession,
        login_url: str,
        access_token: str,
        instance_url: str = "",
        org_id: str = "",
    ) -> None:
        self._http = http
        self._login_url = login_url
        self._access_token = access_token
        self._instance_url = instance_url
        self._org_id = org_id

    async def login(self) -> Session:
        """Return the session, completed by UserInfo where the configuration says less."""
        token = clean_token(self._access_token)
        if self._instance_url:
            # With the org id configured there is nothing to ask; UserInfo may be out of the token's scope.
            session = Session(token, self._instance_url, self._org_id)
            return await identified(self._http, session, self._org_id)
        info = await fetch_userinfo(self._http, Session(token, self._login_url, ""))
        if not info.instance_url:
            raise LoginRejectedError(
                "UserInfo does not tell the org's host",
                "Set salesforce.instance_url to the org's My Domain URL.",
            )
        session = Session(token, info.instance_url, info.org_id, info.user_id)
        return await identified(self._http, session, self._org_id)


def build_login(settings: SalesforceSettings, http: aiohttp.ClientSession, now_s: Callable[[], float]) -> Login:
    """Return the configured login.

    Args:
        settings: the section ``salesforce``.
        http: client session, see :func:`consumer.salesforce.http.open_http`.
        now_s: wall clock, epoch seconds; signs the JWT.

    Raises:
        ConfigError: :func:`login_faults` found something.
    """
    faults = login_faults(settings)
    if faults:
        raise ConfigError(faults)
    org_id = org_id_18(settings.org_id)
    client_id, username = _plain(settings.client_id), _plain(settings.username)
    client_secret, password = _plain(settings.client_secret), _plain(settings.password)
    endpoint = TokenEndpoint(http, settings.login_url, org_id)
    match settings.auth:
        case "client_credentials":
            return ClientCredentialsLogin(endpoint, client_id, client_secret)
        case "jwt":
            return JwtLogin(
                endpoint,
                client_id=client_id,
                username=username,
                audience=jwt_audience(settings.login_url),
                key_file=settings.private_key_file or Path(),
                now_s=now_s,
            )
        case "refresh_token":
            path = settings.refresh_token_file
            return RefreshTokenLogin(
                endpoint,
                client_id=client_id,
                client_secret=client_secret,
                refresh_token=_plain(settings.refresh_token),
                file=RefreshTokenFile(path) if path else None,
            )
        case "password" if client_id:
            return PasswordLogin(endpoint, client_id, client_secret, username, password)
        case "password":
            return SoapLogin(
                http,
                settings.login_url,
                api_version=settings.api_version,
                username=username,
                password=password,
                org_id=org_id,
            )
        case "session":
            token, instance_url = _plain(settings.access_token), settings.instance_url or ""
            return ReadySession(http, settings.login_url, token, instance_url, org_id)


def login_faults(settings: SalesforceSettings) -> list[str]:
    """Return everything that keeps the configured flow from working, without asking anyone.

    Reads the private key and looks at the refresh token's directory, because a wrong path is a fault of the
    configuration; never returns a secret.
    """
    return [*_missing(settings), *_unusable(settings)]


def _missing(settings: SalesforceSettings) -> Iterator[str]:
    for options in _NEEDS[settings.auth]:
        if any(_plain(getattr(settings, option)) for option in options):
            continue
        keys = " or ".join(f"salesforce.{option}" for option in options)
        secret = SalesforceSettings.model_fields[options[0]].annotation == (SecretStr | None)
        where = f"; set SESSION_CONSUMER__SALESFORCE__{options[0].upper()}" if secret else ""
        yield f'{keys} is missing, auth = "{settings.auth}" needs it{where}'


def _unusable(settings: SalesforceSettings) -> Iterator[str]:
    if settings.org_id is not None and not org_id_18(settings.org_id):
        yield "salesforce.org_id is not an id of 15 or 18 characters; see Setup > Company Information"
    match settings.auth:
        case "client_credentials" if settings.login_url.endswith(_SHARED_HOSTS):
            yield (
                'salesforce.login_url: auth = "client_credentials" works only at the org\'s own host, '
                "such as https://mydomain.my.salesforce.com"
            )
        case "jwt" if settings.private_key_file is not None:
            try:
                read_private_key(settings.private_key_file)
            except ConfigError as error:
                yield f"{error.message}; {error.advice[:1].lower()}{error.advice[1:].rstrip('.')}"
        case "refresh_token" if settings.refresh_token_file is not None:
            yield from _token_file_faults(settings.refresh_token_file, _plain(settings.refresh_token))
        case "session" if settings.access_token is not None and _plain(settings.access_token):
            try:
                clean_token(settings.access_token.get_secret_value())
            except LoginRejectedError as error:
                yield f"salesforce.access_token: {error.message[:1].lower()}{error.message[1:]}"
        case _:
            pass


def _token_file_faults(path: Path, refresh_token: str) -> Iterator[str]:
    if not os.access(path.parent, os.W_OK | os.X_OK):
        # Found only at the first rotation, the new token would be lost with the process.
        yield f"salesforce.refresh_token_file: the directory {path.parent} does not exist or can't be written"
    elif not refresh_token and not path.exists() and not path.with_name(path.name + ".new").exists():
        yield f"salesforce.refresh_token_file: {path} does not exist, and salesforce.refresh_token is missing"


def _plain(value: str | SecretStr | Path | None) -> str:
    """Return a setting's text without the white space that files and variables pick up."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return "" if value is None else str(value).strip()
