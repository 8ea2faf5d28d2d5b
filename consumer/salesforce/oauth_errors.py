"""From a refused login to an error that says who has to do what.

The class is decided by the ``error`` code and the HTTP status alone; the description, whose wording is no
contract, only picks better advice (Salesforce Help, "OAuth Authorization Errors").
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, quote_plus, urlsplit

from consumer.errors import LoginError, LoginRejectedError, LoginUnavailableError
from consumer.salesforce.http import HttpAnswer

RATE_LIMIT_WAIT_S = 60.0
"""Shortest wait after a rate limit, about 3,600 logins per hour and user: the budget of a whole minute."""

_MAX_DESCRIPTION = 200
_MAX_CODE = 64


@dataclass(frozen=True, slots=True)
class Refusal:
    """One row of the table.

    Attributes:
        code: OAuth ``error`` or SOAP fault code.
        hint: lower-case part of the description; empty matches any.
        advice: what to do.
        transient: whether waiting alone can mend it.
    """

    code: str
    hint: str
    advice: str
    transient: bool = False


_CLIENT_CREDENTIALS_USER = (
    "Set the run-as user of the client credentials flow: Setup > External Client App Manager > Policies."
)
_APPROVE = (
    "Pre-authorise the user: set the app's permitted users to admin approved, and give the user a "
    "permission set or profile of the app."
)
_WAIT = "Nothing to do unless it persists; the login is tried again."

OAUTH_REFUSALS: tuple[Refusal, ...] = (
    Refusal(
        "invalid_grant",
        "audience",
        "Set salesforce.login_url to https://login.salesforce.com, https://test.salesforce.com for a "
        "sandbox, or the site's URL.",
    ),
    Refusal("invalid_grant", "approved this consumer", _APPROVE),
    Refusal(
        "invalid_grant",
        "expired authorization code",
        "Set this machine's clock right (NTP); the assertion is valid for three minutes.",
    ),
    Refusal(
        "invalid_grant",
        "refresh token",
        "Authorise the app again and configure the new refresh token; with rotation on, set "
        "salesforce.refresh_token_file so that the newest one survives a restart.",
    ),
    Refusal("invalid_grant", "credentials user", _CLIENT_CREDENTIALS_USER),
    Refusal(
        "invalid_grant",
        "authentication failure",
        "Check username, password with security token appended, and in Setup > Login History whether the user "
        "is locked out; the username-password flow is off by default in newer orgs.",
    ),
    Refusal(
        "invalid_grant",
        "",
        "See Setup > Login History for the reason, and check the app's policies and the user's access to it.",
    ),
    Refusal(
        "invalid_client_id",
        "",
        "Check salesforce.client_id and that the app belongs to this login host; a new app works after about "
        "ten minutes.",
    ),
    Refusal("invalid_client", "", "Check salesforce.client_secret; it may have been rotated in the app."),
    Refusal("invalid_app_access", "", _APPROVE),
    Refusal(
        "oauth_flow_disabled",
        "",
        "Enable the app and its OAuth flow: Setup > External Client App Manager > the app > Policies.",
    ),
    Refusal("inactive_user", "", "Activate the user: Setup > Users."),
    Refusal("inactive_org", "", "The org is deactivated or suspended; ask Salesforce."),
    Refusal(
        "unsupported_grant_type",
        "",
        "Enable this flow in the app's OAuth settings, or choose another salesforce.auth.",
    ),
    Refusal(
        "invalid_request",
        "domain",
        "Set salesforce.login_url to the org's My Domain URL; client credentials do not work on "
        "login.salesforce.com or test.salesforce.com.",
    ),
    Refusal(
        "invalid_request",
        "",
        "Check that the flow of salesforce.auth is enabled in the app, and that salesforce.login_url is the "
        "org's My Domain URL.",
    ),
    Refusal(
        "rate_limit_exceeded",
        "",
        "Find what else logs in as this user (Setup > Login History); the login is tried again slowly.",
        transient=True,
    ),
    Refusal("server_error", "", _WAIT, transient=True),
    Refusal("temporarily_unavailable", "", _WAIT, transient=True),
)
"""First match wins. The last two codes are RFC 6749's own for a server that can't answer now."""

SOAP_REFUSALS: tuple[Refusal, ...] = (
    Refusal(
        "INVALID_LOGIN",
        "",
        "Check salesforce.username and salesforce.password with the security token appended, and whether the "
        "user is locked out; https://test.salesforce.com is for sandboxes only.",
    ),
    Refusal(
        "LOGIN_MUST_USE_SECURITY_TOKEN",
        "",
        "Append the user's security token to salesforce.password, or allow this network in the profile.",
    ),
    Refusal("PASSWORD_LOCKOUT", "", "Unlock the user: Setup > Users."),
    Refusal("INVALID_OPERATION", "", "SOAP login is off in this org or being retired; use an OAuth flow."),
    Refusal("UNSUPPORTED_API_VERSION", "", "SOAP login is being retired; use an OAuth flow."),
    Refusal("SERVER_UNAVAILABLE", "", _WAIT, transient=True),
    Refusal("UNKNOWN_EXCEPTION", "", _WAIT, transient=True),
    Refusal("REQUEST_LIMIT_EXCEEDED", "", "Find what uses up the org's API requests.", transient=True),
    Refusal("LOGIN_RATE_EXCEEDED", "", "Find what else logs in as this user.", transient=True),
)
"""SOAP is retired step by step: an OAuth flow is the lasting cure of any row."""

_ADVICE_UNKNOWN = "See Setup > Login History for the reason, or run `session-consumer check`."
_ADVICE_NO_CODE = (
    "Check that salesforce.login_url is a Salesforce login host, and whether a proxy answers in its place."
)


def login_refused(answer: HttpAnswer, secrets: Iterable[str] = ()) -> LoginError:
    """Return the error for a token endpoint's answer that is no token.

    Args:
        answer: any answer that brought no token.
        secrets: values that must not be shown, should the server echo them.
    """
    if 300 <= answer.status < 400:
        return _redirected(answer)
    if transient_status(answer.status):
        return unavailable(answer)
    body = answer.json_object()
    code = printable((body or {}).get("error"), _MAX_CODE, secrets)
    if code:
        return refusal(
            OAUTH_REFUSALS,
            code,
            printable((body or {}).get("error_description"), _MAX_DESCRIPTION, secrets),
            retry_after_s=answer.retry_after_s,
        )
    if answer.status == 200:
        return LoginUnavailableError("The login host's answer is no token and no OAuth error", _ADVICE_NO_CODE)
    return LoginRejectedError(f"The login host refused with HTTP {answer.status} and no OAuth error", _ADVICE_NO_CODE)


def refusal(table: tuple[Refusal, ...], code: str, description: str, *, retry_after_s: float = 0.0) -> LoginError:
    """Return the error for an error code; a code that is not in the table stays so until someone acts.

    Args:
        table: :data:`OAUTH_REFUSALS` or :data:`SOAP_REFUSALS`.
        code: the error code, fit to be shown.
        description: fit to be shown, or empty.
        retry_after_s: what the server asked for, seconds.
    """
    shown = f"{code}: {description}" if description else code
    lowered = description.lower()
    row = next((row for row in table if row.code == code and row.hint in lowered), None)
    if row is not None and row.transient:
        wait_s = max(retry_after_s, RATE_LIMIT_WAIT_S) if "RATE" in code.upper() else retry_after_s
        return LoginUnavailableError(f"Salesforce asked to log in later ({shown})", row.advice, retry_after_s=wait_s)
    advice = row.advice if row is not None else _ADVICE_UNKNOWN
    return LoginRejectedError(f"Salesforce refused the login ({shown})", advice, code=code)


def transient_status(status: int) -> bool:
    """Tell whether an HTTP status means that waiting can help, whatever the body says."""
    return status in {408, 429} or status >= 500


def unavailable(answer: HttpAnswer) -> LoginUnavailableError:
    """Return the error for a transient HTTP status."""
    if answer.status == 429:
        return LoginUnavailableError(
            "The login host asked to wait (HTTP 429)",
            "Find what else logs in as this user; the login is tried again slowly.",
            retry_after_s=max(answer.retry_after_s, RATE_LIMIT_WAIT_S),
        )
    return LoginUnavailableError(
        f"The login host is not available (HTTP {answer.status})",
        "Look at status.salesforce.com; the login is tried again.",
        retry_after_s=answer.retry_after_s,
    )


def _redirected(answer: HttpAnswer) -> LoginRejectedError:
    try:
        host = urlsplit(answer.headers.get("Location", "")).hostname or ""
    except ValueError:
        host = ""
    target = f" to {host}" if printable(host, _MAX_DESCRIPTION) else ""
    return LoginRejectedError(
        f"The login host redirects{target} (HTTP {answer.status}), and secrets are not sent after a redirect",
        "Set salesforce.login_url to the final host, usually the org's My Domain URL.",
    )


def printable(value: object, limit: int, secrets: Iterable[str] = ()) -> str:
    """Return a server's text fit for logs: printable, at most ``limit`` characters, without our secrets.

    Text that is not printable is dropped whole: what it would do to a terminal is not ours to guess.
    """
    if not isinstance(value, str) or not value.isprintable():
        return ""
    for secret in secrets:
        for form in {secret, quote(secret, safe=""), quote_plus(secret), html.escape(secret)}:
            if form:
                value = value.replace(form, "***")
    return value if len(value) <= limit else value[: limit - 1] + "…"
