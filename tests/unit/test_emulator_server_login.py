"""The emulated org's logins: every flow, its checks, and its answers."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from xml.etree import ElementTree as ET

import aiohttp
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from consumer.clock import now_ms
from consumer.emulator.auth import Credentials, eighteen
from consumer.emulator.login_server import JWT_GRANT
from consumer.emulator.scenario import Scenario
from consumer.emulator.server import EmulatedOrg, emulated_org

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CLIENT = {"client_id": "emulated", "client_secret": "emulated"}


@asynccontextmanager
async def login_host(**auth: Any) -> AsyncIterator[tuple[EmulatedOrg, aiohttp.ClientSession]]:
    """Run an org and an HTTP client for it."""
    async with emulated_org(Scenario(auth=Credentials(**auth))) as org, aiohttp.ClientSession(org.rest) as http:
        yield org, http


async def ask(http: aiohttp.ClientSession, **form: str) -> tuple[int, dict[str, Any]]:
    """Post to the token endpoint."""
    async with http.post("/services/oauth2/token", data=form) as response:
        assert response.headers["Cache-Control"] == "no-store"
        return response.status, await response.json()


async def test_client_credentials_give_a_token_without_expiry_and_the_org_in_the_id() -> None:
    async with login_host() as (org, http):
        status, answer = await ask(http, grant_type="client_credentials", **CLIENT)
        assert status == 200
        assert set(answer) == {
            "access_token",
            "signature",
            "scope",
            "instance_url",
            "id",
            "token_type",
            "issued_at",
        }
        assert answer["instance_url"] == org.rest
        assert answer["id"].split("/")[-2] == org.org_id
        assert len(org.org_id) == 18
        assert answer["access_token"].startswith("00Dem0000000001!")
        assert answer["issued_at"].isdigit()


async def test_client_credentials_may_come_as_basic_authorisation() -> None:
    async with login_host() as (_, http):
        form = {"grant_type": "client_credentials"}
        for secret, status in (("emulated", 200), ("wrong", 400)):
            headers = {"Authorization": "Basic " + b64encode(f"emulated:{secret}".encode()).decode()}
            async with http.post("/services/oauth2/token", data=form, headers=headers) as response:
                assert response.status == status


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "invalid_request"),
        ({"grant_type": "magic", **CLIENT}, "unsupported_grant_type"),
        ({"grant_type": "client_credentials"}, "invalid_request"),
        ({"grant_type": "client_credentials", **CLIENT, "client_id": "x"}, "invalid_client_id"),
        ({"grant_type": "client_credentials", **CLIENT, "client_secret": "x"}, "invalid_client"),
        ({"grant_type": "client_credentials", "client_id": "emulated"}, "invalid_client"),
        ({"grant_type": "password", **CLIENT, "username": "emulated", "password": "x"}, "invalid_grant"),
        ({"grant_type": "password", **CLIENT}, "invalid_grant"),
        ({"grant_type": "refresh_token", **CLIENT, "refresh_token": "x"}, "invalid_grant"),
        ({"grant_type": JWT_GRANT}, "invalid_request"),
        ({"grant_type": JWT_GRANT, "assertion": "a.b.c"}, "invalid_grant"),
    ],
)
async def test_wrong_requests_are_refused_with_salesforces_codes(form: dict[str, str], error: str) -> None:
    async with login_host() as (org, http):
        status, answer = await ask(http, **form)
        assert (status, answer["error"]) == (400, error)
        assert answer["error_description"]
        assert org.stats.login_failures == {error: 1}


async def test_the_form_must_be_a_form_without_repeated_fields() -> None:
    async with login_host() as (_, http):
        async with http.post("/services/oauth2/token", json={"grant_type": "password"}) as response:
            assert (await response.json())["error"] == "invalid_request"
        twice = [("grant_type", "client_credentials"), ("grant_type", "password")]
        async with http.post("/services/oauth2/token", data=twice) as response:
            assert (await response.json())["error"] == "invalid_request"


async def test_password_and_refresh_flows_give_tokens() -> None:
    async with login_host() as (_, http):
        user = {"username": "emulated", "password": "emulated"}
        assert (await ask(http, grant_type="password", **CLIENT, **user))[0] == 200
        for _ in range(2):
            status, answer = await ask(http, grant_type="refresh_token", **CLIENT, refresh_token="emulated")
            assert status == 200
            assert "refresh_token" not in answer


async def test_a_rotated_refresh_token_is_dead() -> None:
    async with login_host(rotate_refresh_tokens=True) as (_, http):
        form = {"grant_type": "refresh_token", **CLIENT}
        _, answer = await ask(http, **form, refresh_token="emulated")
        assert (await ask(http, **form, refresh_token="emulated"))[1]["error"] == "invalid_grant"
        assert (await ask(http, **form, refresh_token=answer["refresh_token"]))[0] == 200


def assertion(key: rsa.RSAPrivateKey = KEY, **claims: Any) -> str:
    """Return a signed assertion that is right but for the given claims."""
    right = {"iss": "emulated", "sub": "emulated", "aud": "https://login.salesforce.com"}
    right["exp"] = now_ms() // 1000 + 180  # type: ignore[assignment] # a number among texts
    return jwt.encode({**right, **claims}, key, "RS256")


def public_key() -> str:
    """Return the PEM of the key assertions are checked with."""
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return KEY.public_key().public_bytes(encoding, form).decode()


async def test_a_jwt_assertion_is_taken_and_its_signature_checked_when_a_key_is_known() -> None:
    for auth, other_accepted in (({}, True), ({"jwt_public_key": public_key()}, False)):
        async with login_host(**auth) as (org, http):
            for right in (assertion(), assertion(aud=org.rest)):
                assert (await ask(http, grant_type=JWT_GRANT, assertion=right))[0] == 200
            status, _ = await ask(http, grant_type=JWT_GRANT, assertion=assertion(OTHER_KEY))
            assert (status == 200) is other_accepted


@pytest.mark.parametrize(
    ("claims", "error", "description"),
    [
        ({"iss": "x"}, "invalid_client_id", "client identifier invalid"),
        ({"sub": "x"}, "invalid_grant", "user hasn't approved this consumer"),
        ({"aud": "https://example.com"}, "invalid_grant", "audience validation failed"),
        ({"exp": now_ms() // 1000 - 5}, "invalid_grant", "expired authorization code"),
        ({"exp": now_ms() // 1000 + 3600}, "invalid_grant", "expired authorization code"),
        ({"exp": now_ms() + 180_000}, "invalid_grant", "expired authorization code"),
    ],
)
async def test_wrong_claims_are_refused(claims: dict[str, Any], error: str, description: str) -> None:
    async with login_host() as (_, http):
        status, answer = await ask(http, grant_type=JWT_GRANT, assertion=assertion(**claims))
        assert (status, answer) == (400, {"error": error, "error_description": description})


async def test_an_assertion_with_another_algorithm_is_refused() -> None:
    async with login_host() as (_, http):
        weak = jwt.encode({"iss": "emulated"}, "k" * 32, "HS256")
        assert (await ask(http, grant_type=JWT_GRANT, assertion=weak))[1]["error"] == "invalid_grant"


async def test_userinfo_limits_and_versions() -> None:
    async with login_host() as (org, http):
        headers = {"Authorization": f"Bearer {org.state.sessions.issue()}"}
        async with http.get("/services/oauth2/userinfo", headers=headers) as response:
            info = await response.json()
            assert (info["organization_id"], info["preferred_username"]) == (org.org_id, "emulated")
        async with http.get("/services/oauth2/userinfo", headers={"Authorization": "Bearer x"}) as response:
            assert (response.status, await response.text()) == (403, "Bad_OAuth_Token")
        async with http.get("/services/data/") as response:
            assert "62.0" in {each["version"] for each in await response.json()}
        async with http.get("/services/data/v62.0/limits", headers=headers) as response:
            assert (await response.json())["DailyDeliveredPlatformEvents"]["Remaining"] == 10_000_000
            assert response.headers["Sforce-Limit-Info"].startswith("api-usage=")
        async with http.get("/services/data/v12.0/limits", headers=headers) as response:
            assert response.status == 404
        await org.fault("revoke_tokens")
        async with http.get("/services/data/v62.0/limits", headers=headers) as response:
            assert response.status == 401
            assert (await response.json())[0]["errorCode"] == "INVALID_SESSION_ID"


SOAP = (
    '<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body>'
    '<login xmlns="urn:partner.soap.sforce.com"><username>{}</username><password>{}</password></login>'
    "</e:Body></e:Envelope>"
)


async def test_soap_login_keeps_the_order_of_its_elements() -> None:
    async with login_host() as (org, http):
        body = SOAP.format("emulated", "emulated")
        async with http.post("/services/Soap/u/59.0/", data=body) as response:
            result = ET.fromstring(await response.text())[0][0][0]
        names = [child.tag.rpartition("}")[2] for child in result]
        assert names == [
            "metadataServerUrl",
            "passwordExpired",
            "sandbox",
            "serverUrl",
            "sessionId",
            "userId",
            "userInfo",
        ]
        assert result[6][8].text == org.org_id
        assert org.state.sessions.accepts(str(result[4].text))
        assert str(result[3].text).startswith(f"{org.rest}/services/Soap/u/59.0/")


@pytest.mark.parametrize(
    ("version", "body", "code"),
    [
        ("59.0", SOAP.format("emulated", "x"), "INVALID_LOGIN"),
        ("59.0", "no xml", "INVALID_LOGIN"),
        ("59.0", "<!DOCTYPE a [<!ENTITY b 'emulated'>]>" + SOAP.format("&b;", "emulated"), "INVALID_LOGIN"),
        ("65.0", SOAP.format("emulated", "emulated"), "UNSUPPORTED_API_VERSION"),
    ],
)
async def test_a_refused_soap_login_is_a_fault(version: str, body: str, code: str) -> None:
    async with login_host() as (_, http), http.post(f"/services/Soap/u/{version}/", data=body) as response:
        assert response.status == 500
        assert str(ET.fromstring(await response.text()).findtext(".//faultcode")).endswith(code)


async def test_login_faults_come_as_often_as_ordered() -> None:
    async with login_host() as (org, http):
        form = {"grant_type": "client_credentials", **CLIENT}
        await org.fault("login_error", error="oauth_flow_disabled", times=2)
        for _ in range(2):
            assert (await ask(http, **form))[1]["error"] == "oauth_flow_disabled"
        assert (await ask(http, **form))[0] == 200
        await org.fault("login_error", status=502, html=True)
        async with http.post("/services/oauth2/token", data=form) as response:
            assert (response.status, response.content_type) == (502, "text/html")
        await org.fault("login_down", seconds=30)
        async with http.post("/services/oauth2/token", data=form) as response:
            assert (response.status, response.content_type) == (503, "text/html")
        await org.fault("clear")
        assert (await ask(http, **form))[0] == 200


def test_the_eighteen_character_form_follows_the_upper_case_letters() -> None:
    assert eighteen("005000000000001") == "005000000000001AAA"
    assert eighteen("00Dxx0000000001") == "00Dxx0000000001EAA"
