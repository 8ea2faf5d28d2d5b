"""From a refused REST call to an error that says who has to do what.

Salesforce's errorCode decides; where there is none (HTML of an edge server, an empty body), the HTTP status does
(REST API guide, "Status Codes and Error Responses"). A message never decides, but for the one code that two limits
share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from consumer.errors import (
    QueryRefusedError,
    QuotaError,
    SalesforceApiError,
    SalesforceUnavailableError,
    SessionRefusedError,
)
from consumer.salesforce.oauth_errors import printable

QUOTA_WAIT_S = 300.0
"""The limit is of a rolling day: asking again within seconds only uses up more of it."""

CONCURRENT_WAIT_S = 5.0
"""Long-running calls at the same time are limited too; one ends within seconds."""

_MAX_MESSAGE = 200
_MAX_CODE = 64
_MAX_RETRY_AFTER_S = 3600.0
_LIMIT = "REQUEST_LIMIT_EXCEEDED"
_PASSING_STATUS = frozenset({408, 420, 425, 429})
_PASSING_CODES = frozenset(
    {
        "API_CURRENTLY_DISABLED",
        "QUERY_TIMEOUT",
        "REQUEST_RUNNING_TOO_LONG",
        "SERVER_UNAVAILABLE",
        "SERVICE_UNAVAILABLE",
        "UNABLE_TO_LOCK_ROW",
        "UNKNOWN_EXCEPTION",
    }
)
_WAIT = "Nothing to do unless it persists; it is asked again."
_EDGE = "Look at status.salesforce.com, and whether a proxy answers in Salesforce's place; it is asked again."
_READ = "Give the integration user read access to the object and its fields (View All on the object)."
_ADVICE: dict[str, str] = {
    "API_DISABLED_FOR_ORG": "Give the integration user the permission API Enabled, in an edition that has the API.",
    "EXCEEDED_ID_LIMIT": "Ask for a shorter span.",
    "INSUFFICIENT_ACCESS": _READ,
    "INVALID_FIELD": f"{_READ[:-1]}, or raise salesforce.api_version.",
    "INVALID_QUERY_LOCATOR": "The query is asked again from the last row read.",
    "INVALID_TYPE": f"{_READ[:-1]}, or raise salesforce.api_version.",
    "NOT_FOUND": "Check that the object or job exists and the API user may see it, and salesforce.api_version.",
}
_UNKNOWN = "Look the code up in the REST API guide, or run `session-consumer check`."


def api_error(status: int, headers: Mapping[str, str], body: bytes, secrets: Iterable[str] = ()) -> SalesforceApiError:
    """Return the error for an answer that is not what was asked for.

    Args:
        status: HTTP status.
        headers: the answer's, by any case.
        body: as much of it as was read.
        secrets: values that must not be shown, should the server echo them.
    """
    code, text = _fault(body, tuple(secrets))
    shown = f"{code}: {text}" if text else code
    wait_s = retry_after_s(headers)
    if status == 401 or code == "INVALID_SESSION_ID":
        return SessionRefusedError(f"Salesforce does not accept the session ({shown or 'HTTP 401'})", code=code)
    if code == _LIMIT:
        return _limit(text, shown, wait_s)
    if status >= 500 or status in _PASSING_STATUS or code in _PASSING_CODES:
        what = f"Salesforce could not answer ({shown})" if code else f"Salesforce could not answer (HTTP {status})"
        return SalesforceUnavailableError(what, _WAIT if code else _EDGE, code=code, retry_after_s=wait_s)
    if not code:
        what = "redirects" if 300 <= status < 400 else "answers without saying why"
        return SalesforceUnavailableError(f"Salesforce's address {what} (HTTP {status})", _EDGE, retry_after_s=wait_s)
    return QueryRefusedError(f"Salesforce refused the question ({shown})", _advice(code), code=code)


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Return the seconds of ``Retry-After``, at most an hour; 0 when absent or a date."""
    value = headers.get("Retry-After", "").strip()
    return min(float(value), _MAX_RETRY_AFTER_S) if value.isdecimal() and value.isascii() else 0.0


def _limit(text: str, shown: str, wait_s: float) -> SalesforceApiError:
    """One code serves the daily limit and that of long calls at the same time; only the message tells them apart."""
    if "concurrent" in text.lower():
        return SalesforceUnavailableError(
            f"Too many long calls to Salesforce run at the same time ({shown})",
            _WAIT,
            code=_LIMIT,
            retry_after_s=max(wait_s, CONCURRENT_WAIT_S),
        )
    return QuotaError(
        f"The org's daily API calls are used up ({shown})",
        "Find what uses them up (Setup > System Overview), or raise the limit; work goes on by itself.",
        code=_LIMIT,
        retry_after_s=max(wait_s, QUOTA_WAIT_S),
    )


def _advice(code: str) -> str:
    found = _ADVICE.get(code)
    if found is not None:
        return found
    return _READ if code.startswith("INSUFFICIENT_ACCESS") else _UNKNOWN


def _fault(body: bytes, secrets: tuple[str, ...]) -> tuple[str, str]:
    """Return errorCode and message of an error array, or an OAuth error; empty where the body is something else."""
    try:
        value: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", ""
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        return "", ""
    code, text = value.get("errorCode") or value.get("error"), value.get("message") or value.get("error_description")
    words = " ".join(text.split()) if isinstance(text, str) else ""
    return printable(code, _MAX_CODE, secrets), printable(words, _MAX_MESSAGE, secrets)
