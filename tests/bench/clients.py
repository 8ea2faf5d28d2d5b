"""What both baseline clients share: a login, a Subscribe call with the simplest credit there is, a result line."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

import aiohttp
import grpc.aio

from consumer._proto import pubsub_api_pb2 as pb
from consumer._proto import pubsub_api_pb2_grpc

WINDOW = 100
"""The server's limit of outstanding events."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a baseline client is asked to do; travels as JSON on its command line.

    Attributes:
        pubsub: host:port of the Pub/Sub API.
        login_url: where to log in.
        source: topic to read, from its beginning.
        bootstrap: Kafka's address.
        target: topic to write, which exists.
        partitions: how many it has.
        events: how many events to move.
        batch: events per transaction.
    """

    pubsub: str
    login_url: str
    source: str
    bootstrap: str
    target: str
    partitions: int
    events: int
    batch: int


def read_task() -> Task:
    """Return the task of this process."""
    return Task(**json.loads(sys.argv[1]))


def task_argument(task: Task) -> str:
    """Return the task as a command line argument."""
    return json.dumps(asdict(task))


class Usage:
    """Counts what the work cost, from the first event on."""

    def __init__(self) -> None:
        self._cpu_s = -1.0

    def begin(self) -> None:
        """Start counting; only the first call counts."""
        if self._cpu_s < 0:
            self._cpu_s = time.process_time()

    def tell(self, events: int) -> None:
        """Print the result line; peak memory is in KiB on Linux, bytes on macOS."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        cpu_us = (time.process_time() - self._cpu_s) / events * 1e6
        print(json.dumps({"cpu_us": cpu_us, "peak_bytes": peak}), flush=True)  # noqa: T201  # the starter reads it


@asynccontextmanager
async def pubsub(task: Task) -> AsyncIterator[tuple[Any, tuple[tuple[str, str], ...]]]:
    """Log in and hold a stub and the metadata of its calls open."""
    form = {"grant_type": "client_credentials", "client_id": "emulated", "client_secret": "emulated"}
    url = f"{task.login_url}/services/oauth2/token"
    async with aiohttp.ClientSession() as http, http.post(url, data=form) as answer:
        token = await answer.json(content_type=None)
    org_id = token["id"].rstrip("/").split("/")[-2]
    metadata = (
        ("accesstoken", token["access_token"]),
        ("instanceurl", token["instance_url"]),
        ("tenantid", org_id),
    )
    options = [("grpc.max_receive_message_length", 16 << 20), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(task.pubsub, options=options) as channel:
        yield pubsub_api_pb2_grpc.PubSubStub(channel), metadata


async def responses(stub: Any, metadata: tuple[tuple[str, str], ...], task: Task) -> AsyncIterator[Any]:
    """Yield the events of each response until the task's number was reached; asks again at half the window."""
    call = stub.Subscribe(metadata=metadata)
    await call.write(pb.FetchRequest(topic_name=task.source, replay_preset=pb.EARLIEST, num_requested=WINDOW))
    left, used = task.events, 0
    async for response in call:
        events = response.events[:left]
        left -= len(events)
        used += len(events)
        yield events
        if not left:
            break
        if used >= WINDOW // 2:
            await call.write(pb.FetchRequest(num_requested=used))
            used = 0
    call.cancel()
