"""The envelopes of the legacy SOAP ``login()``; the order of the elements is part of the contract."""

from __future__ import annotations

from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from aiohttp import web

from consumer.emulator.auth import Sessions

_PARTNER = "urn:partner.soap.sforce.com"
_ENVELOPE = (
    '<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope '
    'xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"{default} '
    'xmlns:sf="urn:fault.partner.soap.sforce.com" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
    "<soapenv:Body>{body}</soapenv:Body></soapenv:Envelope>"
)


def credentials(body: bytes) -> tuple[str, str] | None:
    """Return user name and password of a login envelope, None when it is not one."""
    if b"<!DOCTYPE" in body:
        return None
    try:
        root = ET.fromstring(body)  # noqa: S314 - no DTD, so no entities to expand
    except ET.ParseError:
        return None
    login = root.find(f".//{{{_PARTNER}}}login")
    if login is None:
        return None
    return (
        login.findtext(f"{{{_PARTNER}}}username", ""),
        login.findtext(f"{{{_PARTNER}}}password", ""),
    )


def success(sessions: Sessions, token: str, version: str) -> web.Response:
    """Return the loginResponse; samples read ``result`` by position, ``organizationId`` as child 8 of userInfo."""
    server_url = f"{sessions.instance_url}/services/Soap/u/{version}/{sessions.credentials.org_id}"
    user = (
        ("accessibilityMode", "false"),
        ("chatterExternal", "false"),
        ("currencySymbol", "EUR"),
        ("orgAttachmentFileSizeLimit", "26214400"),
        ("orgDefaultCurrencyIsoCode", "EUR"),
        ("orgDisallowHtmlAttachments", "false"),
        ("orgHasPersonAccounts", "true"),
        ("orgIsMultiCurrency", "false"),
        ("organizationId", sessions.org_id),
        ("organizationName", "Emulated"),
        ("profileId", "00eem0000000001AAA"),
        ("userId", sessions.user_id),
        ("userName", sessions.credentials.username),
    )
    result = (
        ("metadataServerUrl", server_url.replace("/Soap/u/", "/Soap/m/")),
        ("passwordExpired", "false"),
        ("sandbox", "false"),
        ("serverUrl", server_url),
        ("sessionId", token),
        ("userId", sessions.user_id),
    )
    inner = _elements(result) + f"<userInfo>{_elements(user)}</userInfo>"
    return _answer(f"<loginResponse><result>{inner}</result></loginResponse>", 200, f' xmlns="{_PARTNER}"')


def fault(code: str, text: str) -> web.Response:
    """Return a SOAP fault."""
    body = (
        f"<soapenv:Fault><faultcode>sf:{escape(code)}</faultcode><faultstring>{escape(text)}</faultstring>"
        f"</soapenv:Fault>"
    )
    return _answer(body, 500)


def _elements(pairs: tuple[tuple[str, str], ...]) -> str:
    return "".join(f"<{name}>{escape(value)}</{name}>" for name, value in pairs)


def _answer(body: str, status: int, default: str = "") -> web.Response:
    # SOAP 1.1 has the children of Fault in no namespace, so only a success declares a default one.
    text = _ENVELOPE.format(body=body, default=default)
    return web.Response(status=status, text=text, content_type="text/xml")
