"""The HTTP pages ``/healthz``, ``/readyz``, ``/metrics`` and ``/status``."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import orjson
import structlog
from aiohttp import web

from consumer.clock import now_ms as wall_clock_ms
from consumer.errors import ConfigError
from consumer.health.state import HealthState
from consumer.telemetry import Metrics

_log = structlog.get_logger(__name__)

_SHUTDOWN_S = 2.0
"""Longest wait for open requests when the service stops; every page answers in milliseconds."""


@asynccontextmanager
async def serve_health(
    listen: str, state: HealthState, metrics: Metrics, now_ms: Callable[[], int] = wall_clock_ms
) -> AsyncIterator[str]:
    """Serve the pages while the block runs, and give their base URL.

    Args:
        listen: ``service.listen``, host:port; port 0 takes a free one, which the log line shows.
        state: what ``/readyz`` and ``/status`` show.
        metrics: what ``/metrics`` shows.
        now_ms: wall clock, epoch milliseconds.

    Raises:
        ConfigError: the address can't be used.
    """
    host, _, port = listen.rpartition(":")
    runner = web.AppRunner(_app(state, metrics, now_ms), access_log=None, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host.strip("[]"), int(port)).start()
        except OSError as error:
            raise _address_error(listen, error) from error
        url = f"http://{host}:{runner.addresses[0][1]}"
        _log.info("health pages are served", url=url)
        yield url
    finally:
        await runner.cleanup()


def _address_error(listen: str, error: OSError) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            [f"service.listen: the address {listen} is already in use"],
            "Stop the other process, or choose another port with SESSION_CONSUMER__SERVICE__LISTEN",
        )
    return ConfigError(
        [f"service.listen: can't listen on {listen}: {error.strerror or type(error).__name__}"],
        "Use an address of this machine, such as 127.0.0.1:8080 or 0.0.0.0:8080",
    )


def _app(state: HealthState, metrics: Metrics, now_ms: Callable[[], int]) -> web.Application:
    async def healthz(_: web.Request) -> web.Response:
        # Answering at all is the proof: the loop that answers is the loop that works.
        return _json({"alive": True})

    async def readyz(_: web.Request) -> web.Response:
        problems = state.problems()
        return _json({"ready": not problems, "problems": problems}, 503 if problems else 200)

    async def status(_: web.Request) -> web.Response:
        return _json(state.document(now_ms()))

    async def metrics_page(_: web.Request) -> web.Response:
        body, content_type = metrics.exposition()
        return web.Response(body=body, headers={"Content-Type": content_type})

    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/status", status),
            web.get("/metrics", metrics_page),
        ]
    )
    return app


def _json(document: dict[str, object], status: int = 200) -> web.Response:
    return web.Response(
        body=orjson.dumps(document) + b"\n", status=status, headers={"Content-Type": "application/json"}
    )
