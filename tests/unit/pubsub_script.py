"""A Pub/Sub server on loopback that does what a test's script says, and what a stream under test needs around it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
import grpc.aio

from consumer._proto import pubsub_api_pb2 as pb
from consumer._proto import pubsub_api_pb2_grpc as pb_grpc
from consumer.buffer import EventBuffer
from consumer.errors import LoginError, ServiceError
from consumer.events import ReceivedEvent, StreamItem, TapItem
from consumer.position import Position
from consumer.salesforce.channel import pubsub_channel
from consumer.salesforce.status import CODE_PREFIX
from consumer.salesforce.stream import PubSubStream, Timing

LIMIT_S = 20.0
"""Longest real wait of a test; none waits this long unless it fails."""

TOPIC = "/data/MessagingSessionChangeEvent"
Event = tuple[str, bytes]


def consumer_event(event: Event) -> pb.ConsumerEvent:
    event_id, replay_id = event
    return pb.ConsumerEvent(
        event=pb.ProducerEvent(
            id=event_id,
            schema_id="schema",
            payload=event_id.encode(),
            headers=[pb.EventHeader(key="k", value=b"v")],
        ),
        replay_id=replay_id,
    )


class ScriptedEndError(Exception):
    """The script ends its call with a status."""


class ServerCall:
    """One Subscribe call, seen from the server."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.metadata = dict(context.invocation_metadata())
        self.requests: list[pb.FetchRequest] = []
        self.credit = 0
        self.highest_credit = 0
        self.requests_ended = False
        self.cancelled = False
        self._changed = asyncio.Condition()

    async def read_requests(self, requests: Any) -> None:
        async for request in requests:
            async with self._changed:
                self.requests.append(request)
                self.credit += request.num_requested
                self.highest_credit = max(self.highest_credit, self.credit)
                self._changed.notify_all()
        self.requests_ended = True

    @property
    def first(self) -> pb.FetchRequest:
        return self.requests[0]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until requests have made the condition true."""
        async with asyncio.timeout(LIMIT_S), self._changed:
            await self._changed.wait_for(condition)

    async def accept(self) -> None:
        await self.context.send_initial_metadata(())

    async def send(self, events: Iterable[Event], latest: bytes = b"", rpc_id: str = "rpc-1") -> None:
        """Send one response with these events, using up credit."""
        response = pb.FetchResponse(events=map(consumer_event, events), rpc_id=rpc_id)
        self.credit -= len(response.events)
        assert self.credit >= 0, "the script sends more than was asked for"
        response.latest_replay_id = latest or response.events[-1].replay_id
        response.pending_num_requested = self.credit
        await self.context.write(response)

    async def keepalive(self, latest: bytes, pending: int | None = None) -> None:
        await self.context.write(
            pb.FetchResponse(
                latest_replay_id=latest,
                rpc_id="rpc-1",
                pending_num_requested=self.credit if pending is None else pending,
            )
        )

    def fail(self, status: grpc.StatusCode, code: str = "", details: str = "scripted") -> NoReturn:
        """End the script and the call with this status and error code."""
        trailers = (("error-code", CODE_PREFIX + code), ("rpc-id", "rpc-9")) if code else ()
        raise ScriptedEndError(status, details, trailers)

    async def hold(self) -> None:
        """Keep the call open until the client ends it."""
        await asyncio.get_running_loop().create_future()


Script = Callable[[ServerCall], Awaitable[None]]


async def hold(call: ServerCall) -> None:
    await call.accept()
    await call.hold()


class ScriptedPubSub(pb_grpc.PubSubServicer):
    """Gives the n-th Subscribe call to the n-th script; further calls are accepted and held."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = deque(scripts)
        self.calls: list[ServerCall] = []
        self.schemas: Callable[[pb.SchemaRequest, Any], Awaitable[pb.SchemaInfo]] | None = None
        self.topics: Callable[[pb.TopicRequest, Any], Awaitable[pb.TopicInfo]] | None = None
        self.failures: list[BaseException] = []
        self._changed = asyncio.Condition()

    async def Subscribe(self, requests: Any, context: Any) -> None:  # noqa: N802  # the service's name
        call = ServerCall(context)
        script = self.scripts.popleft() if self.scripts else hold
        async with self._changed:
            self.calls.append(call)
            self._changed.notify_all()
        end: ScriptedEndError | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(call.read_requests(requests))
                await call.until(lambda: bool(call.requests))
                try:
                    await script(call)
                except ScriptedEndError as error:
                    end = error
                reader.cancel()
        except asyncio.CancelledError:
            call.cancelled = True
            async with self._changed:
                self._changed.notify_all()
            raise
        except BaseExceptionGroup as group:
            self.failures.extend(group.exceptions)
            raise
        if end is not None:
            await context.abort(*end.args)

    async def GetSchema(self, request: pb.SchemaRequest, context: Any) -> pb.SchemaInfo:  # noqa: N802  # as above
        assert self.schemas is not None
        return await self.schemas(request, context)

    async def GetTopic(self, request: pb.TopicRequest, context: Any) -> pb.TopicInfo:  # noqa: N802  # as above
        assert self.topics is not None
        return await self.topics(request, context)

    async def call(self, number: int) -> ServerCall:
        """Wait for the n-th Subscribe call, counted from 0."""
        await self.until(lambda: len(self.calls) > number)
        return self.calls[number]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_S), self._changed:
            await self._changed.wait_for(condition)


@contextlib.asynccontextmanager
async def served(service: ScriptedPubSub) -> AsyncIterator[int]:
    """Serve on a free loopback port."""
    # The client's pings would be too many for a gRPC server's defaults.
    server = grpc.aio.server(options=[("grpc.http2.min_ping_interval_without_data_ms", 1000)])
    pb_grpc.add_PubSubServicer_to_server(service, server)  # type: ignore[no-untyped-call]  # generated
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@contextlib.asynccontextmanager
async def connected(service: ScriptedPubSub) -> AsyncIterator[grpc.aio.Channel]:
    """Serve, and hold a channel to it open."""
    async with served(service) as port, pubsub_channel(f"127.0.0.1:{port}", tls=False) as channel:
        yield channel


class VirtualTime:
    """Time that moves only when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.sleeping: list[tuple[float, asyncio.Future[None]]] = []
        self._changed = asyncio.Event()

    def monotonic(self) -> float:
        return self.now_s

    def now_ms(self) -> int:
        return 1_790_000_000_000 + int(self.now_s * 1000)

    async def sleep(self, delay_s: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (self.now_s + delay_s, future)
        self.sleeping.append(entry)
        self._changed.set()
        try:
            await future
        finally:
            self.sleeping.remove(entry)

    async def until_sleeping(self, delay_s: float) -> None:
        """Wait until something sleeps for exactly this long from now on."""
        async with asyncio.timeout(LIMIT_S):
            while all(abs(due_s - self.now_s - delay_s) > 1e-6 for due_s, _ in self.sleeping):
                self._changed.clear()
                await self._changed.wait()

    def advance(self, by_s: float) -> None:
        self.now_s += by_s
        for due_s, future in self.sleeping:
            if due_s <= self.now_s and not future.done():
                future.set_result(None)


class FakeSession:
    """A login whose token is its number."""

    def __init__(self, number: int, token: str = "") -> None:
        self.number = number
        self.token = token or f"token-{number}"

    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (
            ("accesstoken", self.token),
            ("instanceurl", "https://org.my.salesforce.com"),
            ("tenantid", "00Dxx0000000001EAA"),
        )


class FakeTokens:
    """Logs in by counting; ``failures`` are raised first, one by one, and ``odd_tokens`` given first."""

    def __init__(self, *failures: LoginError, odd_tokens: Iterable[str] = ()) -> None:
        self.failures = deque(failures)
        self.odd_tokens = deque(odd_tokens)
        self.invalidated: list[int] = []
        self.current: FakeSession | None = None
        self.logins = 0

    async def get(self) -> FakeSession:
        if self.failures:
            raise self.failures.popleft()
        if self.current is None:
            self.logins += 1
            token = self.odd_tokens.popleft() if self.odd_tokens else ""
            self.current = FakeSession(self.logins, token)
        return self.current

    def invalidate(self, session: FakeSession) -> None:
        self.invalidated.append(session.number)
        if session is self.current:
            self.current = None


class Witness:
    """An observer that remembers everything, and lets a test wait for it."""

    def __init__(self) -> None:
        self.up = False
        self.event_counts: list[int] = []
        self.keepalives = 0
        self.last_message_ms = 0
        self.outstanding: list[int] = []
        self.ends: list[tuple[ServiceError, float]] = []
        self._changed = asyncio.Event()

    def connected(self) -> None:
        self.up = True
        self._changed.set()

    def events(self, count: int, received_ms: int) -> None:
        self.event_counts.append(count)
        self.last_message_ms = received_ms
        self._changed.set()

    def keepalive(self, received_ms: int) -> None:
        self.keepalives += 1
        self.last_message_ms = received_ms
        self._changed.set()

    def credits(self, outstanding: int) -> None:
        self.outstanding.append(outstanding)

    def disconnected(self, error: ServiceError, delay_s: float) -> None:
        self.up = False
        self.ends.append((error, delay_s))
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


async def collect(buffer: EventBuffer, events: int) -> list[StreamItem]:
    """Take items until there are this many events among them, and no more than that."""
    items: list[StreamItem] = []
    async with asyncio.timeout(LIMIT_S):
        while sum(isinstance(item, ReceivedEvent) for item in items) < events:
            await buffer.wait_filled()
            items += buffer.take(100)
    return items


def event_ids(items: Iterable[StreamItem]) -> list[str]:
    return [item.event_id for item in items if isinstance(item, ReceivedEvent)]


@contextlib.asynccontextmanager
async def running(
    stream: PubSubStream[FakeSession], start: Position, buffer: EventBuffer
) -> AsyncIterator[asyncio.Future[None]]:
    """Run the stream meanwhile and cancel it at the end; the future given gets the error it raises."""
    outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run() -> None:
        try:
            await stream.run(start, buffer)
        except ServiceError as error:
            outcome.set_exception(error)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(run())
        try:
            yield outcome
        finally:
            task.cancel()
    if not outcome.cancel():
        outcome.exception()  # a test that expects it has seen it, any other fails on what did not happen


@dataclass
class Bench:
    """A running stream and everything around it."""

    service: ScriptedPubSub
    channel: grpc.aio.Channel
    outcome: asyncio.Future[None]
    buffer: EventBuffer
    tokens: FakeTokens
    time: VirtualTime
    witness: Witness
    tapped: list[TapItem]

    async def retry(self, number: int = 1) -> None:
        """Let the back-off after the n-th end pass."""
        await self.witness.until(lambda: len(self.witness.ends) >= number)
        delay_s = self.witness.ends[number - 1][1]
        if delay_s:
            await self.time.until_sleeping(delay_s)
            self.time.advance(delay_s)


@contextlib.asynccontextmanager
async def bench(
    service: ScriptedPubSub,
    start: Position | None = None,
    *,
    max_events: int = 2000,
    tokens: FakeTokens | None = None,
    random: float = 0.5,
) -> AsyncIterator[Bench]:
    """Run a stream against the service, in virtual time; at the end no script may have failed."""
    time, witness, tokens = VirtualTime(), Witness(), tokens or FakeTokens()
    buffer = EventBuffer(max_events, 1 << 20)
    tapped: list[TapItem] = []
    timing = Timing(sleep=time.sleep, monotonic=time.monotonic, now_ms=time.now_ms, random=lambda: random)
    async with connected(service) as channel:
        stream: PubSubStream[FakeSession] = PubSubStream(
            channel, TOPIC, tokens, timing=timing, observer=witness, tap=tapped.append
        )
        async with running(stream, start or Position(), buffer) as outcome:
            yield Bench(service, channel, outcome, buffer, tokens, time, witness, tapped)
    assert service.failures == []
