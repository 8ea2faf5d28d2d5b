"""SOAP ``login()`` (legacy: retired in Summer '27, off in new orgs); kept for orgs that have no app yet."""

from __future__ import annotations

import html
from xml.etree import ElementTree as ET

import aiohttp

from consumer.errors import LoginError, LoginRejectedError, LoginUnavailableError
from consumer.salesforce.http import HttpAnswer, request
from consumer.salesforce.identity import identified
from consumer.salesforce.oauth_errors import (
    SOAP_REFUSALS,
    login_refused,
    printable,
    refusal,
    transient_status,
    unavailable,
)
from consumer.salesforce.session import Session, clean_token, org_id_18, origin_of

LAST_VERSION = 64.0
"""``login()`` is absent from API version 65 on (Salesforce release notes)."""

_ENVELOPE = (
    '<?xml version="1.0" encoding="utf-8"?>'
    '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"'
    ' xmlns:urn="urn:partner.soap.sforce.com"><soapenv:Body><urn:login>'
    "<urn:username>{username}</urn:username><urn:password>{password}</urn:password>"
    "</urn:login></soapenv:Body></soapenv:Envelope>"
)


class SoapLogin:
    """Username and password over SOAP; the session id serves as access token.

    Args:
        http: client session.
        login_url: scheme and host.
        api_version: such as ``62.0``; capped at the last version that has ``login()``.
        username: login name.
        password: password and security token, joined.
        org_id: configured org id, 18 characters, or empty.
    """

    flow = "soap"
    renewable = True

    def __init__(
        self,
        http: aiohttp.ClientSession,
        login_url: str,
        *,
        api_version: str,
        username: str,
        password: str,
        org_id: str = "",
    ) -> None:
        self._http = http
        self._url = f"{login_url}/services/Soap/u/{min(float(api_version), LAST_VERSION):.1f}/"
        self._password = password
        self._org_id = org_id
        self._envelope = _ENVELOPE.format(username=html.escape(username), password=html.escape(password)).encode()

    async def login(self) -> Session:
        """Log in; see :class:`~consumer.salesforce.login.Login`."""
        headers = {"Content-Type": "text/xml; charset=utf-8", "SOAPAction": "login", "Accept": "text/xml"}
        answer = await request(self._http, "POST", self._url, data=self._envelope, headers=headers)
        session = self._session(answer)
        return await identified(self._http, session, self._org_id)

    def _session(self, answer: HttpAnswer) -> Session:
        values = _values(answer.text)
        if "faultcode" in values:
            raise self._fault(answer, values)
        if transient_status(answer.status):
            raise unavailable(answer)
        if answer.status != 200:
            raise login_refused(answer, [self._password])
        if "sessionId" not in values:
            raise LoginUnavailableError(
                "The login host's answer to SOAP login() is no session",
                "Check that salesforce.login_url is a Salesforce login host, not a proxy's page.",
            )
        if values.get("passwordExpired") == "true":
            raise LoginRejectedError(
                "The password of the user has expired",
                "Set a new password, or give the integration user a profile whose passwords do not expire.",
                code="PASSWORD_EXPIRED",
            )
        return Session(
            access_token=clean_token(values["sessionId"]),
            instance_url=origin_of(values.get("serverUrl")),
            org_id=org_id_18(values.get("organizationId")),
            user_id=org_id_18(values.get("userId")),
        )

    def _fault(self, answer: HttpAnswer, values: dict[str, str]) -> LoginError:
        secrets = (self._password,)
        code = printable(values["faultcode"].rpartition(":")[2], 64, secrets)
        text = printable(values.get("faultstring", ""), 200, secrets).removeprefix(f"{code}: ")
        return refusal(SOAP_REFUSALS, code or "fault", text, retry_after_s=answer.retry_after_s)


def _values(text: str) -> dict[str, str]:
    """Return every element's text by local name, the first of a name; empty when it is not plain XML."""
    if "<!" in text.replace("<![CDATA[", ""):
        return {}  # a SOAP message has no document type, and without one no entity can expand
    values: dict[str, str] = {}
    try:
        root = ET.fromstring(text)  # noqa: S314 - bounded in size, and document types are refused above
    except ET.ParseError:
        return {}
    for element in root.iter():
        name = element.tag.rpartition("}")[2]
        values.setdefault(name, (element.text or "").strip())
    return values
