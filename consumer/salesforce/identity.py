"""UserInfo: whose token it is, and which org's (Salesforce Help, "User Info Request")."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from consumer.errors import LoginError, LoginRejectedError, LoginUnavailableError
from consumer.salesforce.http import HttpAnswer, request
from consumer.salesforce.session import Session, org_id_18, origin_of

PATH = "/services/oauth2/userinfo"


@dataclass(frozen=True, slots=True)
class UserInfo:
    """What UserInfo says about a token; a value it leaves out is empty.

    Attributes:
        org_id: 18-character organisation id.
        user_id: 18-character user id.
        username: login name of the user.
        instance_url: scheme and host of the org.
    """

    org_id: str
    user_id: str
    username: str
    instance_url: str


async def fetch_userinfo(http: aiohttp.ClientSession, session: Session) -> UserInfo:
    """Ask the org who the session belongs to.

    Args:
        http: client session.
        session: only ``access_token`` and ``instance_url`` are used.

    Raises:
        LoginRejectedError: the token is not accepted, or its app lacks the scope.
        LoginUnavailableError: no usable answer came.
    """
    headers = {"Authorization": f"Bearer {session.access_token}", "Accept": "application/json"}
    answer = await request(http, "GET", session.instance_url + PATH, headers=headers)
    body = answer.json_object() if answer.status == 200 else None
    if body is None:
        raise _refusal(answer)
    return UserInfo(
        org_id=org_id_18(body.get("organization_id")),
        user_id=org_id_18(body.get("user_id")),
        username=_text(body.get("preferred_username")),
        instance_url=_instance_url(body.get("urls")),
    )


def _refusal(answer: HttpAnswer) -> LoginError:
    if answer.status in {401, 403}:
        return LoginRejectedError(
            f"UserInfo does not accept the access token (HTTP {answer.status})",
            "Log in again; if it stays so, give the app the scope openid or id, or set salesforce.org_id.",
            code="Bad_OAuth_Token",
        )
    if answer.status in {200, 429} or answer.status >= 500:
        return LoginUnavailableError(
            f"UserInfo gave no usable answer (HTTP {answer.status})",
            "Look at status.salesforce.com, and whether a proxy answers in Salesforce's place.",
            retry_after_s=answer.retry_after_s,
        )
    return LoginRejectedError(
        f"UserInfo refused the request (HTTP {answer.status})",
        "Check that salesforce.login_url and salesforce.instance_url are hosts of the org.",
    )


def _text(value: object) -> str:
    return value[:200] if isinstance(value, str) and value.isprintable() else ""


def _instance_url(urls: Any) -> str:
    """Take the host from one of the API templates, which all stand on the org's own host."""
    if not isinstance(urls, dict):
        return ""
    for name in ("custom_domain", "rest", "partner", "enterprise"):
        try:
            return origin_of(urls.get(name))
        except LoginRejectedError:
            continue  # not given by this org; the next one may be
    return ""


async def identified(http: aiohttp.ClientSession, session: Session, configured_org_id: str) -> Session:
    """Return the session with its org id: its own, else UserInfo's, else the configured one.

    Args:
        http: client session.
        session: a fresh session; its ``org_id`` may be empty.
        configured_org_id: 18 characters, or empty.

    Raises:
        LoginRejectedError: the org is unknown, or is not the configured one: its events must not be mixed.
        LoginUnavailableError: the org could not be asked.
    """
    found = session if session.org_id else await _asked(http, session, configured_org_id)
    if not found.org_id:
        raise LoginRejectedError("The login does not tell the org's id", "Set salesforce.org_id.")
    if configured_org_id and configured_org_id != found.org_id:
        raise LoginRejectedError(
            f"The login leads to org {found.org_id}, but salesforce.org_id is {configured_org_id}",
            "Correct salesforce.org_id, or salesforce.login_url and the credentials.",
        )
    return found


async def _asked(http: aiohttp.ClientSession, session: Session, configured_org_id: str) -> Session:
    try:
        info = await fetch_userinfo(http, session)
    except LoginError:
        if not configured_org_id:
            raise
        # UserInfo needs a scope that the API itself does not: the configuration stands in for it.
        return replace(session, org_id=configured_org_id)
    return replace(session, org_id=info.org_id or configured_org_id, user_id=session.user_id or info.user_id)
