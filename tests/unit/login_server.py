"""A login host on loopback that answers from a script, for the login tests."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

ORG_15 = "00Dxx0000000001"
ORG = "00Dxx0000000001EAA"
USER = "005xx0000000001AAA"
TOKEN = "00Dxx0000000001!AQtoken.of.the_test"
IDENTITY = f"https://login.salesforce.com/id/{ORG}/{USER}"

Answer = web.Response | Callable[[web.Request], Awaitable[web.Response]]


@dataclass
class Seen:
    """One request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: str

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body, keep_blank_values=True))


@dataclass
class LoginHost:
    """Answers each request with the next scripted answer; the last one is repeated."""

    url: str = ""
    script: list[Callable[[web.Request], Awaitable[web.StreamResponse]]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)

    def answer(self, body: object = None, status: int = 200, **headers: str) -> LoginHost:
        """Add an answer: JSON for dicts and lists, else text as it is."""
        text = json.dumps(body) if isinstance(body, dict | list) else str(body or "")
        fixed = {name.replace("_", "-"): value for name, value in headers.items()}

        async def respond(_: web.Request) -> web.StreamResponse:
            return web.Response(text=text, status=status, headers=fixed)

        self.script.append(respond)
        return self

    def grant(self, **changes: Any) -> LoginHost:
        """Add a good token answer; a value of None leaves the key out."""
        return self.answer(token_answer(**({"instance_url": self.url} | changes)))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(Seen(request.method, request.path, dict(request.headers), (await request.read()).decode()))
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return await step(request)


def token_answer(**changes: Any) -> dict[str, Any]:
    """Return a token answer in Salesforce's form."""
    body: dict[str, Any] = {
        "access_token": TOKEN,
        "id": IDENTITY,
        "token_type": "Bearer",
        "issued_at": "1750000000000",
        "signature": "c2lnbmF0dXJl",
        "scope": "api",
    }
    body.update(changes)
    return {key: value for key, value in body.items() if value is not None}


@asynccontextmanager
async def login_host(tls: ssl.SSLContext | None = None) -> AsyncIterator[LoginHost]:
    """Run a scripted login host on an ephemeral loopback port."""
    host = LoginHost()
    runner = web.ServerRunner(web.Server(host.handle), shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        port = runner.addresses[0][1]
        host.url = f"{'https' if tls else 'http'}://{'localhost' if tls else '127.0.0.1'}:{port}"
        yield host
    finally:
        await runner.cleanup()


def hanging(started: asyncio.Event, release: asyncio.Event) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return an answer that waits for ``release`` and then fails with 500."""

    async def respond(_: web.Request) -> web.StreamResponse:
        started.set()
        await release.wait()
        return web.Response(status=500)

    return respond
