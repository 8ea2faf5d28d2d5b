"""Every login flow against a scripted login host."""

from __future__ import annotations

import html
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from consumer.errors import ConfigError, LoginRejectedError, LoginUnavailableError
from consumer.salesforce.http import open_http
from consumer.salesforce.identity import fetch_userinfo
from consumer.salesforce.login import Login, build_login, login_faults
from consumer.salesforce.login_oauth import jwt_audience
from consumer.salesforce.session import Session
from consumer.settings import SalesforceSettings
from tests.unit.login_server import ORG, ORG_15, TOKEN, USER, LoginHost, login_host

NOW_S = 1_790_000_000.7
USERINFO = {
    "sub": "x",
    "user_id": USER,
    "organization_id": ORG,
    "preferred_username": "bot@example.com",
    "urls": {"rest": "https://acme.my.salesforce.com/services/data/v{version}/"},
}
SOAP_OK = f"""<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns="urn:partner.soap.sforce.com">
<soapenv:Body><loginResponse><result><metadataServerUrl>https://m.example.com/services/Soap/m/59.0/x</metadataServerUrl>
<passwordExpired>false</passwordExpired><sandbox>false</sandbox>
<serverUrl>https://acme.my.salesforce.com:8443/services/Soap/u/59.0/{ORG_15}</serverUrl>
<sessionId>{TOKEN}</sessionId><userId>{USER}</userId>
<userInfo><organizationId>{ORG_15}</organizationId><userId>{USER}</userId></userInfo>
</result></loginResponse></soapenv:Body></soapenv:Envelope>"""


@pytest.fixture
async def host() -> AsyncIterator[LoginHost]:
    async with login_host() as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_http(total_timeout_s=5) as session:
        yield session


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: Any) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def build(http: aiohttp.ClientSession, host: LoginHost, **settings: Any) -> Login:
    return build_login(SalesforceSettings(login_url=host.url, **settings), http, lambda: NOW_S)


async def test_client_credentials(host: LoginHost, http: aiohttp.ClientSession) -> None:
    """Form fields as documented; org and user come from the answer's id; secrets lose their line break."""
    host.grant()
    session = await build(http, host, client_id=" key ", client_secret="s3cret\n").login()
    assert session == Session(TOKEN, host.url, ORG, USER)
    (seen,) = host.seen
    assert (seen.method, seen.path) == ("POST", "/services/oauth2/token")
    assert seen.form == {"grant_type": "client_credentials", "client_id": "key", "client_secret": "s3cret"}
    assert seen.headers["Content-Type"].startswith("application/x-www-form-urlencoded")
    assert seen.headers["User-Agent"].startswith("messaging-session-consumer/")


async def test_instance_url_loses_path_and_token_its_white_space(host: LoginHost, http: aiohttp.ClientSession) -> None:
    """The headers take scheme and host only, and a clean token."""
    host.grant(instance_url="https://Acme.my.salesforce.com/x?y=1", access_token=f" {TOKEN}\n")
    session = await build(http, host, client_id="key", client_secret="s").login()
    assert session.metadata() == (
        ("accesstoken", TOKEN),
        ("instanceurl", "https://acme.my.salesforce.com"),
        ("tenantid", ORG),
    )


@pytest.mark.parametrize("token", ["", "  ", None, 7, "a\nb", "tokén", "a\x00b", "a b", ["x"]])
async def test_unusable_token_is_rejected(host: LoginHost, http: aiohttp.ClientSession, token: object) -> None:
    """A token that no header can carry never becomes a session."""
    host.answer(
        {"access_token": token, "instance_url": host.url, "id": f"https://login.salesforce.com/id/{ORG}/{USER}"}
    )
    with pytest.raises(LoginRejectedError):
        await build(http, host, client_id="key", client_secret="s").login()


@pytest.mark.parametrize("url", ["", None, "acme.my.salesforce.com", "ftp://x", "https://", "https://[::1", 5])
async def test_unusable_instance_url_is_rejected(host: LoginHost, http: aiohttp.ClientSession, url: object) -> None:
    """Without scheme and host no call can be made."""
    host.answer({"access_token": TOKEN, "instance_url": url, "id": f"https://x/id/{ORG}/{USER}"})
    with pytest.raises(LoginRejectedError, match="instance URL"):
        await build(http, host, client_id="key", client_secret="s").login()


async def test_jwt(host: LoginHost, http: aiohttp.ClientSession, rsa_key: rsa.RSAPrivateKey, tmp_path: Path) -> None:
    """RS256 over iss, sub, aud and exp in seconds, three minutes from now; nothing else is sent."""
    key_file = tmp_path / "server.key"
    key_file.write_bytes(pem(rsa_key))
    host.grant()
    login = build(http, host, auth="jwt", client_id="key", username="bot@example.com", private_key_file=key_file)
    assert (await login.login()).org_id == ORG
    form = host.seen[0].form
    assertion = form.pop("assertion")
    assert form == {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer"}
    assert jwt.get_unverified_header(assertion)["alg"] == "RS256"
    claims = jwt.decode(assertion, rsa_key.public_key(), ["RS256"], audience=host.url, options={"verify_exp": False})
    assert claims == {"iss": "key", "sub": "bot@example.com", "aud": host.url, "exp": 1_790_000_180}


@pytest.mark.parametrize(
    ("login_url", "audience"),
    [
        ("https://login.salesforce.com", "https://login.salesforce.com"),
        ("https://test.salesforce.com", "https://test.salesforce.com"),
        ("https://acme.my.salesforce.com", "https://login.salesforce.com"),
        ("https://acme--uat.sandbox.my.salesforce.com", "https://test.salesforce.com"),
        ("https://acme--uat.my.salesforce.com", "https://test.salesforce.com"),
        ("https://x.scratch.my.salesforce.com", "https://test.salesforce.com"),
        ("https://x.develop.my.salesforce.com", "https://login.salesforce.com"),
        ("https://help.acme.com", "https://help.acme.com"),
    ],
)
def test_jwt_audience(login_url: str, audience: str) -> None:
    """A My Domain host is no audience itself; a site's URL is."""
    assert jwt_audience(login_url) == audience


async def test_jwt_key_that_vanished_is_rejected(
    host: LoginHost, http: aiohttp.ClientSession, rsa_key: rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    """The key file is read at each login, and its loss is told by name."""
    key_file = tmp_path / "server.key"
    key_file.write_bytes(pem(rsa_key))
    login = build(http, host, auth="jwt", client_id="key", username="u", private_key_file=key_file)
    key_file.unlink()
    with pytest.raises(LoginRejectedError, match=r"server\.key can't be read"):
        await login.login()
    assert host.seen == []


async def test_password_over_oauth(host: LoginHost, http: aiohttp.ClientSession) -> None:
    """With a client_id the password flow is OAuth."""
    host.grant()
    login = build(http, host, auth="password", client_id="k", client_secret="s", username="u", password="pwTOKEN")
    assert (await login.login()).user_id == USER
    assert host.seen[0].form == {
        "grant_type": "password",
        "client_id": "k",
        "client_secret": "s",
        "username": "u",
        "password": "pwTOKEN",
    }


async def test_password_over_soap(host: LoginHost, http: aiohttp.ClientSession) -> None:
    """Without a client_id it is SOAP: values escaped, answers matched by local name, org id brought to 18."""
    host.answer(SOAP_OK)
    login = build(http, host, auth="password", username="a&b", password="<pw>", api_version="66.0")
    assert await login.login() == Session(TOKEN, "https://acme.my.salesforce.com:8443", ORG, USER)
    (seen,) = host.seen
    assert seen.path == "/services/Soap/u/64.0/"
    assert seen.headers["Content-Type"].startswith("text/xml")
    assert f"<urn:username>{html.escape('a&b')}</urn:username>" in seen.body
    assert "<urn:password>&lt;pw&gt;</urn:password>" in seen.body


def soap_fault(code: str, text: str) -> str:
    return (
        '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" '
        'xmlns:sf="urn:fault.partner.soap.sforce.com"><soapenv:Body><soapenv:Fault>'
        f"<faultcode>sf:{code}</faultcode><faultstring>{code}: {text}</faultstring>"
        "</soapenv:Fault></soapenv:Body></soapenv:Envelope>"
    )


async def test_soap_refusal(host: LoginHost, http: aiohttp.ClientSession) -> None:
    """A fault decides by its code although the status is 500; an echoed password is hidden."""
    host.answer(soap_fault("INVALID_LOGIN", "Invalid password hunter22"), status=500)
    login = build(http, host, auth="password", username="u", password="hunter22")
    with pytest.raises(LoginRejectedError, match=r"INVALID_LOGIN: Invalid password \*\*\*") as caught:
        await login.login()
    assert caught.value.code == "INVALID_LOGIN"
    assert "security token" in caught.value.advice


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (soap_fault("SERVER_UNAVAILABLE", "later"), 500, LoginUnavailableError),
        (soap_fault("NEW_CODE", "no"), 500, LoginRejectedError),
        ("<html>proxy</html>", 503, LoginUnavailableError),
        ("<html>proxy</html>", 200, LoginUnavailableError),
        ("", 200, LoginUnavailableError),
        ("", 403, LoginRejectedError),
        (SOAP_OK.replace("<passwordExpired>false", "<passwordExpired>true"), 200, LoginRejectedError),
        (SOAP_OK.replace(TOKEN, ""), 200, LoginRejectedError),
        ('<!DOCTYPE x [<!ENTITY a "b">]>' + SOAP_OK.partition("?>")[2], 200, LoginUnavailableError),
    ],
)
async def test_soap_answers_without_a_session(
    host: LoginHost, http: aiohttp.ClientSession, body: str, status: int, error: type[Exception]
) -> None:
    """Whatever comes instead of a session is one of the two login errors; document types are not parsed."""
    host.answer(body, status)
    with pytest.raises(error):
        await build(http, host, auth="password", username="u", password="p").login()


async def test_ready_session_needs_nobody(host: LoginHost, http: aiohttp.ClientSession) -> None:
    """With instance URL and org id configured nothing is asked; the org id is brought to 18."""
    login = build(http, host, auth="session", access_token=TOKEN, instance_url=host.url, org_id=ORG_15)
    assert await login.login() == Session(TOKEN, host.url, ORG)
    assert not login.renewable
    assert host.seen == []


async def test_ready_session_completed_by_userinfo(host: LoginHost, http: aiohttp.ClientSession) -> None:
    """UserInfo tells host and org when the configuration does not."""
    host.answer(USERINFO)
    login = build(http, host, auth="session", access_token=TOKEN)
    assert await login.login() == Session(TOKEN, "https://acme.my.salesforce.com", ORG, USER)
    assert host.seen[0].path == "/services/oauth2/userinfo"
    assert host.seen[0].headers["Authorization"] == f"Bearer {TOKEN}"


async def test_ready_session_without_a_host(host: LoginHost, http: aiohttp.ClientSession) -> None:
    """A UserInfo without templates asks for salesforce.instance_url."""
    host.answer({**USERINFO, "urls": {"rest": 5}})
    with pytest.raises(LoginRejectedError, match=r"salesforce\.instance_url"):
        await build(http, host, auth="session", access_token=TOKEN).login()


@pytest.mark.parametrize("identity", [None, "nonsense", "https://x/id/short/005", 5, f"https://x/id/{USER}/{ORG}"])
async def test_org_id_from_userinfo(host: LoginHost, http: aiohttp.ClientSession, identity: object) -> None:
    """Without a usable id in the token answer, UserInfo on the org's own host tells the org."""
    host.grant(id=identity).answer(USERINFO)
    session = await build(http, host, client_id="k", client_secret="s").login()
    assert (session.org_id, session.user_id) == (ORG, USER)


async def test_org_id_from_configuration(host: LoginHost, http: aiohttp.ClientSession) -> None:
    """The configuration stands in when UserInfo is out of scope."""
    host.grant(id=None).answer("Bad_OAuth_Token", 403)
    session = await build(http, host, client_id="k", client_secret="s", org_id=ORG_15).login()
    assert session.org_id == ORG


async def test_no_org_id_at_all(host: LoginHost, http: aiohttp.ClientSession) -> None:
    """Without any org id the login fails and names the setting."""
    host.grant(id=None).answer({"sub": "x"})
    with pytest.raises(LoginRejectedError, match=r"Set salesforce\.org_id"):
        await build(http, host, client_id="k", client_secret="s").login()


async def test_wrong_org_is_refused(host: LoginHost, http: aiohttp.ClientSession) -> None:
    """A login that leads to another org than configured must not mix two orgs' events."""
    host.grant()
    with pytest.raises(LoginRejectedError, match="The login leads to org"):
        await build(http, host, client_id="k", client_secret="s", org_id="00Dxx0000000002").login()


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (403, "Bad_OAuth_Token", LoginRejectedError),
        (401, '[{"errorCode":"INVALID_SESSION_ID"}]', LoginRejectedError),
        (404, "", LoginRejectedError),
        (302, "", LoginRejectedError),
        (200, "<html>", LoginUnavailableError),
        (429, "", LoginUnavailableError),
        (503, "", LoginUnavailableError),
    ],
)
async def test_userinfo_refusals(
    host: LoginHost, http: aiohttp.ClientSession, status: int, body: str, error: type[Exception]
) -> None:
    """UserInfo's refusals are login errors without the token in them."""
    host.answer(body, status)
    with pytest.raises(error) as caught:
        await fetch_userinfo(http, Session(TOKEN, host.url, ORG))
    assert TOKEN not in str(caught.value) + repr(caught.value)


def test_faults_list_all_that_is_missing(tmp_path: Path) -> None:
    """Each flow names everything it misses at once, and no secret."""

    def faults(**settings: Any) -> list[str]:
        return login_faults(SalesforceSettings(**{"login_url": "https://acme.my.salesforce.com"} | settings))

    client = faults(login_url="https://login.salesforce.com", org_id="0Mw")
    assert len(client) == 4
    assert any("SESSION_CONSUMER__SALESFORCE__CLIENT_SECRET" in fault for fault in client)
    assert len(faults(auth="jwt")) == 3
    assert len(faults(auth="refresh_token")) == 2
    assert len(faults(auth="password", password=" \n")) == 2
    assert len(faults(auth="session")) == 1
    assert "TOKÉN" not in faults(auth="session", access_token="TOKÉN")[0]
    missing = tmp_path / "nowhere" / "token"
    assert "does not exist" in faults(auth="refresh_token", client_id="k", refresh_token_file=missing)[0]
    assert "does not exist" in faults(auth="refresh_token", client_id="k", refresh_token_file=tmp_path / "t")[0]
    assert faults(auth="refresh_token", client_id="k", refresh_token="x") == []


def test_faults_name_unusable_keys(tmp_path: Path) -> None:
    """A key that can't sign RS256 is a fault of the configuration, found before the first login."""
    unreadable, elliptic, garbage, small, locked = (
        tmp_path / name for name in ("none", "ec", "garbage", "small", "locked")
    )
    elliptic.write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    garbage.write_text("not a key")
    small.write_bytes(pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)))
    locked.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"pw"),
        )
    )
    for path in (unreadable, elliptic, garbage, small, locked):
        settings = SalesforceSettings(
            login_url="https://x.my.salesforce.com",
            auth="jwt",
            client_id="k",
            username="u",
            private_key_file=path,
        )
        (fault,) = login_faults(settings)
        assert str(path) in fault


async def test_build_login_raises_all_faults(http: aiohttp.ClientSession) -> None:
    """The login can't be built with faults, and tells all of them."""
    with pytest.raises(ConfigError) as caught:
        build_login(SalesforceSettings(login_url="https://test.salesforce.com"), http, lambda: NOW_S)
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize(
    ("token", "url", "org"),
    [
        ("", "https://a.b", ORG),
        (" t", "https://a.b", ORG),
        ("t\n", "https://a.b", ORG),
        ("t", "https://a.b/", ORG),
        ("t", "https://u:p@a.b", ORG),
        ("t", "a.b", ORG),
        ("t", "https://a.b", ORG_15),
        ("t", "https://a.b", "org"),
    ],
)
def test_session_refuses_what_headers_cannot_carry(token: str, url: str, org: str) -> None:
    """A session that exists can be sent."""
    with pytest.raises(LoginRejectedError):
        Session(token, url, org)


def test_session_hides_its_token() -> None:
    """Neither repr nor str nor format shows the token."""
    session = Session(TOKEN, "https://a.b", ORG, USER)
    assert TOKEN not in f"{session} {session!r} {[session]}"
    assert ORG in repr(session)
