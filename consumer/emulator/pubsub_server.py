"""The emulated Pub/Sub API: a gRPC server with all six RPCs that refuses what the real one refuses.

Responses of the streams are handed to gRPC as bytes: the events inside were serialised when they were published,
so that one process can deliver far more than the service under test can take.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from consumer._proto import pubsub_api_pb2 as pb
from consumer.emulator.bus import Topic
from consumer.emulator.calls import FetchCall, SubscribeCall
from consumer.emulator.managed import ManagedCall, ManagedSubscriptions
from consumer.emulator.publishing import Publisher
from consumer.emulator.refusals import (
    AUTH_ERROR,
    CODE_PREFIX,
    OK,
    SERVICE_UNAVAILABLE,
    STATUS_OF_CODE,
    TOO_LARGE,
    CallEnd,
    CallRefusedError,
    refuse,
)
from consumer.emulator.state import ServerState
from consumer.errors import EmulatorError

MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""A larger request fails as a whole, as behind the real service's proxy (Pub/Sub API guide, "Allocations")."""

_RECEIVE_LIMIT = 16 * 1024 * 1024
_SERVICE = "eventbus.v1.PubSub"

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Requests: TypeAlias = AsyncIterator[Any]
Reply = TypeVar("Reply", bound=Message)


class PubSubServer:
    """The gRPC side of the emulated org.

    Args:
        state: bus, schemas, sessions and conditions, shared with the other servers.
        managed: the org's managed subscriptions.
        publisher: takes what clients publish.
        tenant_guid: opaque guid that GetTopic names.
        tls: private key and certificate chain (PEM); None serves plaintext.
    """

    def __init__(
        self,
        state: ServerState,
        managed: ManagedSubscriptions,
        publisher: Publisher,
        tenant_guid: str,
        tls: tuple[bytes, bytes] | None = None,
    ) -> None:
        self._state = state
        self._managed = managed
        self._publisher = publisher
        self._tenant_guid = tenant_guid
        self._tls = tls
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port.

        Args:
            host: address to listen on.
            port: 0 takes a free one.

        Raises:
            EmulatorError: the port is taken.
        """
        options = [("grpc.max_receive_message_length", _RECEIVE_LIMIT), ("grpc.so_reuseport", 0)]
        # Clients are allowed HTTP/2 pings without limit, as the real endpoint tolerates them.
        options += [("grpc.http2.min_ping_interval_without_data_ms", 1000), ("grpc.http2.max_ping_strikes", 0)]
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers((self._handlers(),))
        address = f"{host}:{port}"
        try:
            if self._tls is None:
                self.port = server.add_insecure_port(address)
            else:
                self.port = server.add_secure_port(address, grpc.ssl_server_credentials([self._tls]))
        except RuntimeError as error:
            raise EmulatorError(f"{address} can't be listened on", "Give another --port-pubsub or --host") from error
        await server.start()
        self._server = server
        return self.port

    async def stop(self, grace_s: float = 0.0) -> None:
        """Stop listening; clients get a GOAWAY, and open calls end after the grace."""
        for call in tuple(self._state.calls):
            call.finish(OK)
        if self._server is not None:
            await self._server.stop(grace_s)
            self._server = None

    async def restart(self, host: str) -> None:
        """Send GOAWAY to every client, end their calls, and listen again on the same port."""
        await self.stop(0.0)
        await self.start(host, self.port)

    def _handlers(self) -> grpc.GenericRpcHandler:
        def unary(behaviour: Any, request: type[Message]) -> grpc.RpcMethodHandler[Any, Any]:
            return grpc.unary_unary_rpc_method_handler(
                behaviour, request.FromString, lambda reply: reply.SerializeToString()
            )

        def stream(behaviour: Any, request: type[Message]) -> grpc.RpcMethodHandler[Any, Any]:
            return grpc.stream_stream_rpc_method_handler(behaviour, request.FromString, None)

        return grpc.method_handlers_generic_handler(
            _SERVICE,
            {
                "Subscribe": stream(self.subscribe, pb.FetchRequest),
                "ManagedSubscribe": stream(self.managed_subscribe, pb.ManagedFetchRequest),
                "PublishStream": stream(self.publish_stream, pb.PublishRequest),
                "Publish": unary(self.publish, pb.PublishRequest),
                "GetSchema": unary(self.get_schema, pb.SchemaRequest),
                "GetTopic": unary(self.get_topic, pb.TopicRequest),
            },
        )

    async def get_topic(self, request: pb.TopicRequest, context: Context) -> pb.TopicInfo:
        """Answer GetTopic; a channel has no schema of its own."""

        def answer(rpc_id: str) -> pb.TopicInfo:
            self._state.stats.topic_lookups[request.topic_name] += 1
            topic = self._topic(request.topic_name)
            return pb.TopicInfo(
                topic_name=topic.name,
                tenant_guid=self._tenant_guid,
                can_publish=topic.name.startswith("/event/"),
                can_subscribe=True,
                schema_id=self._state.schemas.current_schema_id(topic.entity) if topic.entity else "",
                rpc_id=rpc_id,
            )

        return await self._unary("GetTopic", context, answer)

    async def get_schema(self, request: pb.SchemaRequest, context: Context) -> pb.SchemaInfo:
        """Answer GetSchema."""

        def answer(rpc_id: str) -> pb.SchemaInfo:
            schema_id = request.schema_id
            self._state.stats.schema_fetches[schema_id] += 1
            conditions = self._state.conditions
            if not schema_id.strip():
                raise refuse("schema.validation.failed", "Schema validation failed. The schema ID can't be blank.")
            if conditions.schema_down_until > self._state.now():
                raise refuse("schema.api.unavailable", "The schema service is unavailable. Try again later.")
            if conditions.refused_schemas & {schema_id, "*"}:
                raise refuse("schema.meta.permission", "You don't have permission to access the schema.")
            schema_json = self._state.schemas.schema_json(schema_id)
            if schema_json is None:
                raise refuse("schema.validation.failed", "Schema validation failed. The schema ID isn't valid.")
            return pb.SchemaInfo(schema_json=schema_json, schema_id=schema_id, rpc_id=rpc_id)

        return await self._unary("GetSchema", context, answer)

    async def publish(self, request: pb.PublishRequest, context: Context) -> pb.PublishResponse:
        """Answer Publish; events fail one by one."""

        def answer(rpc_id: str) -> pb.PublishResponse:
            self._publisher.check_burst()
            _check_size(request)
            return self._publisher.publish(request, rpc_id)

        return await self._unary("Publish", context, answer)

    async def publish_stream(self, requests: Requests, context: Context) -> None:
        """Serve PublishStream: one response per request, in order."""
        rpc_id = str(uuid.uuid4())
        try:
            _require(alive=self._admit(context))
            await self._send_headers(context)
            await self._publisher.stream(requests, context.write, rpc_id, _check_size)
        except CallRefusedError as error:
            await self._finish("PublishStream", context, rpc_id, error.end)

    async def subscribe(self, requests: Requests, context: Context) -> None:
        """Serve Subscribe."""
        call = SubscribeCall(self._state)

        def first(request: pb.FetchRequest) -> None:
            if not request.topic_name:
                raise refuse("topic.validation.empty", "The topic name can't be blank.")
            call.first(request, self._topic(request.topic_name))

        await self._serve(call, requests, context, first, call.later)

    async def managed_subscribe(self, requests: Requests, context: Context) -> None:
        """Serve ManagedSubscribe."""
        call = ManagedCall(self._state)

        def first(request: pb.ManagedFetchRequest) -> None:
            subscription = self._managed.find(request)
            call.first(request, subscription, self._topic(subscription.topic))

        await self._serve(call, requests, context, first, call.later)

    async def _serve(
        self,
        call: FetchCall,
        requests: Requests,
        context: Context,
        first: Callable[[Any], None],
        later: Callable[[Any], None],
    ) -> None:
        try:
            alive = self._admit(context)
            request = await anext(requests, None)
            if request is None:
                self._state.stats.half_closes += 1
                return
            if not alive:
                await asyncio.sleep(self._state.timing.revoked_stream_s)
            _require(alive=alive)
            if self._state.allowance_left == 0:
                raise refuse("subscription.limit.exceeded", "You have exceeded the event delivery limit for your org.")
            first(request)
            end = await self._deliver(call, requests, context, later)
        except CallRefusedError as error:
            end = error.end
        finally:
            call.close()
        await self._finish(call.kind, context, call.rpc_id, end)

    async def _deliver(
        self, call: FetchCall, requests: Requests, context: Context, later: Callable[[Any], None]
    ) -> CallEnd:
        self._state.stats.streams_opened += 1
        self._state.calls.add(call)
        try:
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(call.read(requests, later))
                await self._send_headers(context)
                end = await call.deliver(context.write)
                reader.cancel()
        finally:
            self._state.calls.discard(call)
        return end

    async def _unary(self, kind: str, context: Context, answer: Callable[[str], Reply]) -> Reply:
        rpc_id = str(uuid.uuid4())
        try:
            _require(alive=self._admit(context))
            if self._state.conditions.latency_s:
                await asyncio.sleep(self._state.conditions.latency_s)
            return answer(rpc_id)
        except CallRefusedError as error:
            await self._finish(kind, context, rpc_id, error.end)
            raise AssertionError("abort does not return") from error

    def _admit(self, context: Context) -> bool:
        """Check service and headers; False when the token is a revoked one.

        Raises:
            CallRefusedError: the call may not go on.
        """
        if self._state.conditions.down_until > self._state.now():
            raise CallRefusedError(SERVICE_UNAVAILABLE)
        metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
        try:
            alive = self._state.sessions.check_call(metadata)
        except CallRefusedError:
            self._state.stats.bad_tokens += 1
            raise
        if not alive:
            self._state.stats.bad_tokens += 1
        return alive

    def _topic(self, name: str) -> Topic:
        code = self._state.conditions.refused_topics.get(name)
        if code is not None:
            raise CallRefusedError(CallEnd(STATUS_OF_CODE[code], code, f"The topic {name} can't be used."))
        topic = self._state.bus.topics.get(name)
        if topic is None:
            raise refuse(
                "topic.not.found",
                f"The topic {name} doesn't exist or you don't have permission to access it.",
            )
        return topic

    async def _send_headers(self, context: Context) -> None:
        if self._state.conditions.headers_s:
            await asyncio.sleep(self._state.conditions.headers_s)
        await context.send_initial_metadata(())

    async def _finish(self, kind: str, context: Context, rpc_id: str, end: CallEnd) -> None:
        if end.status is grpc.StatusCode.OK:
            return
        self._state.stats.refused[end.code or end.status.name] += 1
        if not end.code:
            await context.abort(end.status, end.text)
        await context.abort(
            end.status,
            f"{end.text} rpcId: {rpc_id}",
            (("error-code", CODE_PREFIX + end.code), ("rpc-id", rpc_id), ("type", kind)),
        )


def _require(*, alive: bool) -> None:
    """Refuse a call whose token is revoked."""
    if not alive:
        raise CallRefusedError(AUTH_ERROR)


def _check_size(request: pb.PublishRequest) -> None:
    if request.ByteSize() > MAX_REQUEST_BYTES:
        raise CallRefusedError(TOO_LARGE)
