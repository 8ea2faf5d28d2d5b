"""The emulated org's HTTP side: OAuth token endpoint, UserInfo, the SOAP login, API versions and limits.

Field checks, answers and error codes follow the OAuth pages of Salesforce Help; the token answer has no
``expires_in``, as the real one has none.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import jwt
from aiohttp import web

from consumer.clock import now_ms
from consumer.emulator import soap
from consumer.emulator.auth import Sessions
from consumer.emulator.state import LoginFault, ServerState

JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
JWT_LIFETIME_S = 300
"""``exp`` may be at most five minutes ahead."""

_AUDIENCES = ("https://login.salesforce.com", "https://test.salesforce.com")
API_VERSIONS = range(60, 69)
"""API versions the org speaks."""
_SOAP_LOGIN_GONE = 65
"""``login()`` is absent from this API version on."""

HTML_FAULT = "<html><head><title>Error</title></head><body><h1>{status}</h1><p>Down for maintenance.</p></body></html>"


class _DeniedError(Exception):
    """A token request is denied; becomes the JSON error answer."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(error)
        self.error = error
        self.description = description


class LoginServer:
    """Routes of the HTTP side.

    Args:
        state: sessions, conditions and counters, shared with the other servers.
    """

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._sessions: Sessions = state.sessions

    def routes(self) -> list[web.RouteDef]:
        """Return the routes for the application."""
        return [
            web.post("/services/oauth2/token", self.token),
            web.get("/services/oauth2/userinfo", self.userinfo),
            web.post("/services/oauth2/userinfo", self.userinfo),
            web.post("/services/Soap/u/{version}", self.soap_login),
            web.post("/services/Soap/u/{version}/", self.soap_login),
            web.get("/services/data", self.versions),
            web.get("/services/data/", self.versions),
            web.get("/services/data/{version}/limits", self.limits),
            web.get("/services/data/{version}/limits/", self.limits),
        ]

    async def token(self, request: web.Request) -> web.Response:
        """Answer ``POST /services/oauth2/token``."""
        fault = self._fault()
        if fault is not None:
            return fault
        grant = ""
        try:
            form = await _form(request)
            grant = form.get("grant_type", "")
            refreshed = self._grant(grant, form, request.headers.get("Authorization", ""))
        except _DeniedError as denied:
            self._state.stats.login_failures[denied.error] += 1
            return _oauth_error(denied.error, denied.description, 400)
        self._state.stats.logins[grant.rpartition(":")[2]] += 1
        return _json(self._success(grant, refreshed))

    async def userinfo(self, request: web.Request) -> web.Response:
        """Answer ``GET /services/oauth2/userinfo``."""
        if not self._authorised(request):
            return web.Response(status=403, text="Bad_OAuth_Token")
        sessions = self._sessions
        url = sessions.instance_url
        return _json(
            {
                "sub": f"{url}/id/{sessions.org_id}/{sessions.user_id}",
                "user_id": sessions.user_id,
                "organization_id": sessions.org_id,
                "preferred_username": sessions.credentials.username,
                "nickname": "emulated",
                "name": "Emulated User",
                "email": "emulated@example.com",
                "email_verified": True,
                "zoneinfo": "Europe/Berlin",
                "profile": f"{url}/{sessions.user_id}",
                "urls": {
                    "rest": f"{url}/services/data/v{{version}}/",
                    "partner": f"{url}/services/Soap/u/{{version}}/{sessions.credentials.org_id}",
                },
                "active": True,
                "user_type": "STANDARD",
                "language": "en_US",
                "locale": "en_US",
                "utcOffset": 3600000,
                "updated_at": "2026-01-01T00:00:00Z",
            }
        )

    async def soap_login(self, request: web.Request) -> web.Response:
        """Answer the legacy SOAP ``login()``."""
        fault = self._fault()
        if fault is not None:
            return fault
        version = request.match_info["version"]
        major = version.partition(".")[0]
        if not major.isdigit() or int(major) >= _SOAP_LOGIN_GONE:
            self._state.stats.login_failures["soap"] += 1
            return soap.fault("UNSUPPORTED_API_VERSION", "login() isn't available in this API version")
        given = soap.credentials(await request.read())
        known = self._sessions.credentials
        if given is None or given != (known.username, known.password):
            self._state.stats.login_failures["soap"] += 1
            return soap.fault(
                "INVALID_LOGIN",
                "INVALID_LOGIN: Invalid username, password, security token; or user locked out.",
            )
        self._state.stats.logins["soap"] += 1
        return soap.success(self._sessions, self._sessions.issue(), version)

    async def versions(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's handler shape
        """Answer ``GET /services/data/``, which needs no session."""
        listed = [
            {"label": f"API {major}", "url": f"/services/data/v{major}.0", "version": f"{major}.0"}
            for major in API_VERSIONS
        ]
        return web.json_response(listed)

    async def limits(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's handler shape
        """Answer ``GET /services/data/vXX.0/limits``; version and session are checked before, as for all of REST."""
        allowance = self._state.delivery_allowance
        api = self._state.api
        body = {
            "DailyApiRequests": {"Max": api.limit, "Remaining": api.left(self._state.now_ms())},
            "DailyDeliveredPlatformEvents": {"Max": allowance, "Remaining": self._state.allowance_left},
            "HourlyPublishedPlatformEvents": {
                "Max": 250_000,
                "Remaining": max(0, 250_000 - self._state.stats.published),
            },
        }
        return web.json_response(body)

    def _grant(self, grant: str, form: Mapping[str, str], authorization: str) -> str | None:
        """Check a token request; return the rotated refresh token if there is one.

        Raises:
            _DeniedError: it is denied.
        """
        if not grant:
            raise _DeniedError("invalid_request", "missing required parameter: grant_type")
        if grant == JWT_GRANT:
            self._check_assertion(form.get("assertion", ""))
            return None
        if grant not in {"client_credentials", "refresh_token", "password"}:
            raise _DeniedError("unsupported_grant_type", "grant type not supported")
        self._check_client(form, authorization, basic=grant == "client_credentials")
        if grant == "refresh_token":
            try:
                return self._sessions.rotate(form.get("refresh_token", ""))
            except KeyError:
                raise _DeniedError("invalid_grant", "expired access/refresh token") from None
        known = self._sessions.credentials
        user = (form.get("username"), form.get("password"))
        if grant == "password" and user != (known.username, known.password):
            raise _DeniedError("invalid_grant", "authentication failure")
        return None

    def _check_client(self, form: Mapping[str, str], authorization: str, *, basic: bool) -> None:
        known = self._sessions.credentials
        client_id, secret = form.get("client_id", ""), form.get("client_secret", "")
        if basic and not client_id and authorization.startswith("Basic "):
            client_id, secret = _basic(authorization)
        if not client_id:
            raise _DeniedError("invalid_request", "missing required parameter: client_id")
        if client_id != known.client_id:
            raise _DeniedError("invalid_client_id", "client identifier invalid")
        if not hmac.compare_digest(secret.encode(), known.client_secret.encode()):
            raise _DeniedError("invalid_client", "invalid client credentials")

    def _check_assertion(self, assertion: str) -> None:
        """Check a JWT bearer assertion: algorithm, signature when a key is known, and claims."""
        known = self._sessions.credentials
        if not assertion:
            raise _DeniedError("invalid_request", "missing required parameter: assertion")
        try:
            if jwt.get_unverified_header(assertion).get("alg") != "RS256":
                raise _DeniedError("invalid_grant", "invalid assertion")
            # The claims are checked below, in Salesforce's order and with its answers.
            claims: dict[str, Any] = jwt.decode(
                assertion,
                known.jwt_public_key,
                algorithms=["RS256"],
                options={
                    "verify_signature": bool(known.jwt_public_key),
                    "verify_exp": False,
                    "verify_aud": False,
                },
            )
        except jwt.PyJWTError:
            raise _DeniedError("invalid_grant", "invalid assertion") from None
        if claims.get("iss") != known.client_id:
            raise _DeniedError("invalid_client_id", "client identifier invalid")
        if claims.get("aud") not in {*_AUDIENCES, self._sessions.instance_url}:
            raise _DeniedError("invalid_grant", "audience validation failed")
        expires = claims.get("exp")
        # By the machine's clock: a client on the same machine can't know that the org's was set ahead.
        now = now_ms() / 1000
        if not isinstance(expires, (int, float)) or not now < expires <= now + JWT_LIFETIME_S + 1:
            raise _DeniedError("invalid_grant", "expired authorization code")
        if claims.get("sub") != known.username:
            raise _DeniedError("invalid_grant", "user hasn't approved this consumer")

    def _success(self, grant: str, refresh_token: str | None) -> dict[str, str]:
        sessions = self._sessions
        identity = f"{sessions.instance_url}/id/{sessions.org_id}/{sessions.user_id}"
        issued_at = str(self._state.now_ms())
        digest = hmac.new(b"emulated", (identity + issued_at).encode(), hashlib.sha256).digest()
        answer = {
            "access_token": sessions.issue(),
            "signature": base64.b64encode(digest).decode(),
            "instance_url": sessions.instance_url,
            "id": identity,
            "token_type": "Bearer",
            "issued_at": issued_at,
        }
        if grant != "password":
            answer["scope"] = "api"
        if refresh_token is not None:
            answer["refresh_token"] = refresh_token
        return answer

    def _authorised(self, request: web.Request) -> bool:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        good = scheme in {"Bearer", "OAuth"} and self._sessions.accepts(token)
        if not good:
            self._state.stats.bad_tokens += 1
        return good

    def _fault(self) -> web.Response | None:
        """Return the wrong answer a fault has ordered, None if there is none."""
        conditions = self._state.conditions
        if conditions.login_down_until > time.monotonic():
            self._state.stats.login_failures["503"] += 1
            return web.Response(status=503, text=HTML_FAULT.format(status=503), content_type="text/html")
        if not conditions.login_faults:
            return None
        fault: LoginFault = conditions.login_faults.popleft()
        self._state.stats.login_failures[fault.error] += 1
        if fault.html:
            page = HTML_FAULT.format(status=fault.status)
            return web.Response(status=fault.status, text=page, content_type="text/html")
        return _oauth_error(fault.error, fault.description, fault.status)


async def _form(request: web.Request) -> dict[str, str]:
    if request.content_type != "application/x-www-form-urlencoded":
        raise _DeniedError("invalid_request", "content type must be application/x-www-form-urlencoded")
    try:
        fields = parse_qs((await request.read()).decode(), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        raise _DeniedError("invalid_request", "the form can't be read") from None
    if any(len(values) > 1 for values in fields.values()):
        raise _DeniedError("invalid_request", "repeated parameter")
    return {name: values[0] for name, values in fields.items()}


def _basic(authorization: str) -> tuple[str, str]:
    try:
        client_id, _, secret = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise _DeniedError("invalid_client", "invalid client credentials") from None
    return client_id, secret


def _json(body: Mapping[str, Any]) -> web.Response:
    return web.json_response(body, headers={"Cache-Control": "no-store"})


def _oauth_error(error: str, description: str, status: int) -> web.Response:
    return web.json_response(
        {"error": error, "error_description": description},
        status=status,
        headers={"Cache-Control": "no-store"},
    )
