"""A plain gRPC client for the emulated org, with none of the service's own code in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from consumer._proto import pubsub_api_pb2 as pb
from consumer.emulator.bus import Entry
from consumer.emulator.scenario import Scenario
from consumer.emulator.server import EmulatedOrg, emulated_org

TOPIC = "/data/MessagingSessionChangeEvent"
PREFIX = "sfdc.platform.eventbus.grpc."
PATIENCE_S = 10.0


@dataclass
class Client:
    """One gRPC channel to one org."""

    org: EmulatedOrg
    channel: grpc.aio.Channel
    metadata: tuple[tuple[str, str], ...]

    async def unary(self, method: str, request: Any, reply: Any, metadata: Any = None) -> Any:
        """Call a unary RPC."""
        rpc: Any = self.channel.unary_unary(
            f"/eventbus.v1.PubSub/{method}", lambda message: message.SerializeToString(), reply.FromString
        )
        return await rpc(request, metadata=metadata or self.metadata, timeout=PATIENCE_S)

    def stream(self, method: str, reply: Any, metadata: Any = None) -> Any:
        """Open a streaming RPC."""
        rpc: Any = self.channel.stream_stream(
            f"/eventbus.v1.PubSub/{method}", lambda message: message.SerializeToString(), reply.FromString
        )
        return rpc(metadata=metadata or self.metadata)

    async def subscribe(self, num: int = 100, preset: int = pb.EARLIEST, **fields: Any) -> Stream:
        """Open a Subscribe call with its first request."""
        metadata = fields.pop("metadata", None)
        stream = Stream(self.stream("Subscribe", pb.FetchResponse, metadata))
        fields.setdefault("topic_name", TOPIC)
        request = pb.FetchRequest(num_requested=num, **fields)
        request.replay_preset = preset  # type: ignore[assignment] # also values that do not exist
        # A call that is refused by its headers can be over before the write; reading tells how it ended.
        with contextlib.suppress(grpc.aio.AioRpcError):
            await stream.call.write(request)
        return stream

    async def get_topic(self, name: str, metadata: Any = None) -> pb.TopicInfo:
        """Call GetTopic."""
        request = pb.TopicRequest(topic_name=name)
        info: pb.TopicInfo = await self.unary("GetTopic", request, pb.TopicInfo, metadata)
        return info

    async def get_schema(self, schema_id: str, metadata: Any = None) -> pb.SchemaInfo:
        """Call GetSchema."""
        request = pb.SchemaRequest(schema_id=schema_id)
        info: pb.SchemaInfo = await self.unary("GetSchema", request, pb.SchemaInfo, metadata)
        return info


@dataclass
class Stream:
    """An open Subscribe call and what came on it."""

    call: Any
    responses: list[pb.FetchResponse] = field(default_factory=list)

    @property
    def event_ids(self) -> list[str]:
        """Ids of all events so far."""
        return [event.event.id for response in self.responses for event in response.events]

    async def more(self, num: int, **fields: Any) -> None:
        """Ask for more events."""
        await self.call.write(pb.FetchRequest(num_requested=num, **fields))

    async def read(self) -> pb.FetchResponse | None:
        """Read one response; None when the stream ended with OK."""
        async with asyncio.timeout(PATIENCE_S):
            answer = await self.call.read()
        if answer is grpc.aio.EOF:
            return None
        response: pb.FetchResponse = answer
        self.responses.append(response)
        return response

    async def read_events(self, count: int) -> list[str]:
        """Read until this many events came on the stream in all."""
        while len(self.event_ids) < count:
            assert await self.read() is not None, "the stream ended"
        return self.event_ids

    async def ends(self) -> grpc.aio.AioRpcError | None:
        """Read on until the stream ends; None for OK."""
        try:
            while await self.read() is not None:
                pass
        except grpc.aio.AioRpcError as error:
            return error
        return None


def code_of(error: grpc.aio.AioRpcError | None) -> str:
    """Return the error-code trailer without prefix; empty when there is none."""
    assert error is not None, "the call did not fail"
    trailers = dict(error.trailing_metadata() or ())
    code = str(trailers.get("error-code", ""))
    if code:
        assert code.startswith(PREFIX)
        assert str(error.details()).endswith(f"rpcId: {trailers['rpc-id']}")
        assert trailers["type"]
    return code.removeprefix(PREFIX)


@asynccontextmanager
async def connected(**settings: Any) -> AsyncIterator[Client]:
    """Run an org with these scenario settings and connect to it."""
    settings.setdefault("latest_arming_s", 0)
    async with (
        emulated_org(Scenario.model_validate(settings)) as org,
        grpc.aio.insecure_channel(org.pubsub) as channel,
    ):
        yield Client(org, channel, org.metadata())


async def publish(org: EmulatedOrg, count: int) -> list[Entry]:
    """Create sessions, one transaction each, and return the ledger's lines."""
    entries: list[Entry] = []
    for number in range(count):
        entries += await org.fault(
            "commit", changes=[{"op": "create", "fields": {"Status": "New", "Notes__c": f"note {number}"}}]
        )
    return entries


async def until(condition: Callable[[], bool]) -> None:
    """Give way to the loop until a condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - the server under test offers no event for every condition
            await asyncio.sleep(0.005)
