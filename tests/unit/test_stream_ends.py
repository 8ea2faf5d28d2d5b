"""How a stream ends and goes on: every end of a call, silence, refused tokens, lost positions."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from consumer._proto import pubsub_api_pb2 as pb
from consumer.buffer import EventBuffer
from consumer.errors import (
    DeliveryAllowanceError,
    LoginRejectedError,
    LoginUnavailableError,
    PositionLostError,
    ProtocolError,
    ServerProtectionError,
    StreamEndedError,
    TokenRefusedError,
    TopicRefusedError,
)
from consumer.position import Position
from consumer.salesforce.channel import pubsub_channel
from consumer.salesforce.stream import PubSubStream, Timing
from tests.unit.pubsub_script import (
    LIMIT_S,
    TOPIC,
    FakeSession,
    FakeTokens,
    Script,
    ScriptedPubSub,
    ServerCall,
    Witness,
    bench,
    collect,
    event_ids,
    hold,
    running,
    served,
)

STORED = Position(b"A")
Status = grpc.StatusCode


def failing(status: grpc.StatusCode, code: str = "") -> Script:
    async def script(call: ServerCall) -> None:
        call.fail(status, code)

    return script


def sending(*events: tuple[str, bytes], then: Callable[[ServerCall], object] | None = None) -> Script:
    async def script(call: ServerCall) -> None:
        await call.send(events)
        if then is None:
            await call.hold()
        else:
            then(call)

    return script


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (None, ""),
        (Status.CANCELLED, ""),
        (Status.UNKNOWN, ""),
        (Status.UNAVAILABLE, ""),
        (Status.INTERNAL, ""),
        (Status.INTERNAL, "service.unavailable"),
        (Status.DEADLINE_EXCEEDED, ""),
        (Status.ABORTED, ""),
        (Status.DATA_LOSS, "something.new"),
        (Status.INTERNAL, "subscription.internal.error"),
        (Status.INTERNAL, "subscription.fetch.replay.repeated"),
        (Status.RESOURCE_EXHAUSTED, "subscription.fetch.overflow"),
        (Status.UNAVAILABLE, "topic.api.unavailable"),
    ],
)
async def test_every_passing_end_is_mended_from_the_last_event(status: grpc.StatusCode | None, code: str) -> None:
    def end(call: ServerCall) -> None:
        if status is not None:
            call.fail(status, code)

    first = sending(("e1", b"A"), ("e2", b"B"), then=end)
    async with bench(ScriptedPubSub(first, sending(("e2", b"B"), ("e3", b"C")))) as on:
        await on.retry()
        assert event_ids(await collect(on.buffer, 3)) == ["e1", "e2", "e3"]
        request = on.service.calls[1].first
        assert (request.replay_preset, request.replay_id) == (pb.CUSTOM, b"A")
        error = on.witness.ends[0][0]
        assert type(error) is StreamEndedError
        assert (error.status, error.code) == (status.name if status else "OK", code)
        assert error.rpc_id == ("rpc-9" if code else "rpc-1" if status is None else "")
        assert on.witness.outstanding[-1] == 98, "credits belong to one call"


async def test_back_off_grows_and_a_mere_open_does_not_reset_it() -> None:
    async def opened(call: ServerCall) -> None:
        await call.accept()
        call.fail(Status.UNAVAILABLE)

    async with bench(ScriptedPubSub(*[opened] * 4)) as on:
        for number in range(1, 5):
            await on.retry(number)
        assert [delay_s for _, delay_s in on.witness.ends] == [0.25, 0.5, 1.0, 2.0]


async def test_back_off_starts_over_after_a_message() -> None:
    end = failing(Status.UNAVAILABLE)
    heard = sending(("e1", b"A"), then=lambda call: call.fail(Status.UNAVAILABLE))
    async with bench(ScriptedPubSub(end, end, end, heard)) as on:
        for number in range(1, 5):
            await on.retry(number)
        assert [delay_s for _, delay_s in on.witness.ends] == [0.25, 0.5, 1.0, 0.25]


async def test_back_off_starts_over_after_a_minute_of_life() -> None:
    go = asyncio.Event()

    async def lived(call: ServerCall) -> None:
        await call.accept()
        await go.wait()
        call.fail(Status.UNAVAILABLE)

    end = failing(Status.UNAVAILABLE)
    async with bench(ScriptedPubSub(end, end, lived)) as on:
        await on.retry(1)
        await on.retry(2)
        await on.witness.until(lambda: on.witness.up)
        on.time.advance(60)
        go.set()
        await on.retry(3)
        assert [delay_s for _, delay_s in on.witness.ends] == [0.25, 0.5, 0.25]


async def test_silence_is_no_health_however_long_the_call_lived() -> None:
    async with bench(ScriptedPubSub(failing(Status.UNAVAILABLE), hold)) as on:
        await on.retry(1)
        await on.witness.until(lambda: on.witness.up)
        on.time.advance(300)
        await on.retry(2)
        assert [delay_s for _, delay_s in on.witness.ends] == [0.25, 0.5]


async def test_silence_ends_the_call_and_the_stream_subscribes_again() -> None:
    async with bench(ScriptedPubSub(sending(("e1", b"A")), sending(("e1", b"A"), ("e2", b"B")))) as on:
        await collect(on.buffer, 1)
        await on.witness.until(lambda: on.witness.up)
        on.time.advance(200)
        assert on.witness.ends == []
        on.time.advance(100)
        await on.retry()
        error = on.witness.ends[0][0]
        assert isinstance(error, StreamEndedError)
        assert "300 seconds" in error.message
        assert error.rpc_id == "rpc-1"
        assert event_ids(await collect(on.buffer, 1)) == ["e2"]
        async with asyncio.timeout(LIMIT_S):
            await on.service.until(lambda: on.service.calls[0].cancelled)


async def test_every_message_feeds_the_watchdog() -> None:
    steps: asyncio.Queue[None] = asyncio.Queue()

    async def script(call: ServerCall) -> None:
        for number in range(1, 4):
            await steps.get()
            await call.keepalive(b"k%d" % number)
        await call.hold()

    async with bench(ScriptedPubSub(script)) as on:
        for number in range(1, 4):
            steps.put_nowait(None)
            await on.witness.until(lambda heard=number: on.witness.keepalives == heard)  # type: ignore[misc]  # default
            on.time.advance(299)
        await asyncio.sleep(0)
        assert on.witness.ends == []
        on.time.advance(1)
        await on.witness.until(lambda: len(on.witness.ends) == 1)


async def test_headers_that_never_come_end_the_call_earlier() -> None:
    async def mute(call: ServerCall) -> None:
        await call.hold()

    async with bench(ScriptedPubSub(mute, hold)) as on:
        first = await on.service.call(0)
        await first.until(lambda: bool(first.requests))
        await on.time.until_sleeping(150)
        on.time.advance(150)
        await on.retry()
        await on.witness.until(lambda: on.witness.up)
        assert "150 seconds" in str(on.witness.ends[0][0])


async def test_nothing_of_an_old_call_comes_after_the_new_one_began() -> None:
    old_wrote = asyncio.Event()

    async def stubborn(call: ServerCall) -> None:
        await call.send([("e1", b"A")])
        try:
            await call.hold()
        finally:
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await call.context.write(pb.FetchResponse(latest_replay_id=b"old", pending_num_requested=5))
            old_wrote.set()

    async def fresh(call: ServerCall) -> None:
        await old_wrote.wait()
        await call.send([("e1", b"A"), ("e2", b"B")])
        await call.hold()

    async with bench(ScriptedPubSub(stubborn, fresh)) as on:
        await collect(on.buffer, 1)
        await on.witness.until(lambda: on.witness.up)
        on.time.advance(300)
        await on.retry()
        assert event_ids(await collect(on.buffer, 1)) == ["e2"]
        assert on.buffer.take(5) == []
        assert on.witness.keepalives == 0


async def test_a_refused_token_is_replaced_at_once_and_only_that_token() -> None:
    refused = failing(Status.UNAUTHENTICATED, "service.auth.error")
    async with bench(ScriptedPubSub(refused, sending(("e1", b"B"))), STORED) as on:
        assert event_ids(await collect(on.buffer, 1)) == ["e1"]
        error, delay_s = on.witness.ends[0]
        assert isinstance(error, TokenRefusedError)
        assert delay_s == 0
        assert on.tokens.invalidated == [1]
        assert [call.metadata["accesstoken"] for call in on.service.calls] == ["token-1", "token-2"]
        assert on.service.calls[1].first.replay_id == b"A"


async def test_tokens_refused_again_and_again_are_tried_ever_slower() -> None:
    refused = failing(Status.UNAUTHENTICATED)
    async with bench(ScriptedPubSub(*[refused] * 4)) as on:
        for number in range(1, 5):
            await on.retry(number)
        assert [delay_s for _, delay_s in on.witness.ends] == [0.0, 0.25, 0.5, 1.0]
        assert on.tokens.invalidated == [1, 2, 3, 4]


async def test_a_token_that_cannot_be_sent_is_given_up_like_a_refused_one() -> None:
    tokens = FakeTokens(odd_tokens=["line\nbreak"])
    async with bench(ScriptedPubSub(), tokens=tokens) as on:
        call = await on.service.call(0)
        assert call.metadata["accesstoken"] == "token-2"
        assert isinstance(on.witness.ends[0][0], TokenRefusedError)
        assert "break" not in str(on.witness.ends[0][0])
        assert tokens.invalidated == [1]


async def test_logins_that_fail_are_tried_again_and_reported() -> None:
    tokens = FakeTokens(LoginUnavailableError("no answer"), LoginRejectedError("no", code="invalid_grant"))
    async with bench(ScriptedPubSub(), tokens=tokens) as on:
        await on.retry(1)
        await on.retry(2)
        await on.service.call(0)
        assert [type(error) for error, _ in on.witness.ends] == [LoginUnavailableError, LoginRejectedError]
        assert on.witness.ends[0][1] == 0.25
        assert on.witness.ends[1][1] >= 30


@pytest.mark.parametrize(
    "code",
    [
        "service.protection.triggered",
        "service.protection.stream.limit.triggered",
        "concurrent.client.limit.exceeded",
        "",
    ],
)
async def test_a_server_that_protects_itself_is_left_alone_for_a_minute(code: str) -> None:
    refused = failing(Status.RESOURCE_EXHAUSTED, code)
    async with bench(ScriptedPubSub(refused, refused), random=0.0) as on:
        await on.retry(1)
        await on.retry(2)
        await on.service.call(2)
        assert all(isinstance(error, ServerProtectionError) for error, _ in on.witness.ends)
        assert all(delay_s >= 60 for _, delay_s in on.witness.ends)


@pytest.mark.parametrize(("random", "first_s"), [(0.0, 900.0), (0.999, 900.0 + 0.999 * 900.0)])
async def test_a_used_up_allowance_is_probed_every_15_to_60_minutes(random: float, first_s: float) -> None:
    refused = failing(Status.RESOURCE_EXHAUSTED, "subscription.limit.exceeded")
    async with bench(ScriptedPubSub(*[refused] * 4), STORED, random=random) as on:
        for number in range(1, 5):
            await on.retry(number)
        call = await on.service.call(4)
        await call.until(lambda: bool(call.requests))
        assert all(isinstance(error, DeliveryAllowanceError) for error, _ in on.witness.ends)
        assert on.witness.ends[0][1] == pytest.approx(first_s)
        assert all(900 <= delay_s <= 3600 for _, delay_s in on.witness.ends)
        assert call.first.replay_id == b"A"


@pytest.mark.parametrize(
    "code", ["subscription.fetch.replayid.corrupted", "subscription.fetch.replayid.validation.failed"]
)
async def test_a_refused_replay_id_is_a_lost_position(code: str) -> None:
    async with bench(ScriptedPubSub(failing(Status.INVALID_ARGUMENT, code)), STORED) as on:
        with pytest.raises(PositionLostError) as caught:
            async with asyncio.timeout(LIMIT_S):
                await on.outcome
        assert (caught.value.code, caught.value.status, caught.value.rpc_id) == (
            code,
            "INVALID_ARGUMENT",
            "rpc-9",
        )
        assert len(on.service.calls) == 1
        assert [(type(error), delay_s) for error, delay_s in on.witness.ends] == [(PositionLostError, 0.0)]


@pytest.mark.parametrize(
    ("start", "status", "code", "raised"),
    [
        # No replay id was sent, so none can be lost.
        (
            Position(),
            Status.INVALID_ARGUMENT,
            "subscription.fetch.replayid.validation.failed",
            ProtocolError,
        ),
        # Only the code tells that a position is lost, never the status.
        (STORED, Status.INVALID_ARGUMENT, "", ProtocolError),
        (STORED, Status.NOT_FOUND, "topic.not.found", TopicRefusedError),
        (STORED, Status.PERMISSION_DENIED, "topic.not.found", TopicRefusedError),
        (STORED, Status.PERMISSION_DENIED, "subscription.topic.cannot.subscribe", TopicRefusedError),
        (STORED, Status.INVALID_ARGUMENT, "subscription.fetch.topic.mismatch", ProtocolError),
    ],
)
async def test_ends_that_a_new_call_does_not_mend_are_raised(
    start: Position, status: grpc.StatusCode, code: str, raised: type[Exception]
) -> None:
    async with bench(ScriptedPubSub(failing(status, code)), start) as on:
        with pytest.raises(raised):
            async with asyncio.timeout(LIMIT_S):
                await on.outcome


async def test_a_position_can_be_lost_after_a_reconnect_too() -> None:
    first = sending(("e1", b"A"), ("e2", b"B"), then=lambda call: call.fail(Status.UNAVAILABLE))
    lost = failing(Status.INVALID_ARGUMENT, "subscription.fetch.replayid.corrupted")
    async with bench(ScriptedPubSub(first, lost)) as on:
        await on.retry()
        with pytest.raises(PositionLostError):
            async with asyncio.timeout(LIMIT_S):
                await on.outcome
        assert event_ids(await collect(on.buffer, 2)) == ["e1", "e2"]


async def test_a_response_that_cannot_be_read_breaks_the_protocol_and_ends_the_call() -> None:
    ended = asyncio.Event()

    async def garbage(requests: Any, context: Any) -> None:
        try:
            await context.write(b"\xff\xff")
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    server = grpc.aio.server()
    handler: Any = grpc.stream_stream_rpc_method_handler(garbage)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("eventbus.v1.PubSub", {"Subscribe": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with pubsub_channel(f"127.0.0.1:{port}", tls=False) as channel:
            stream: PubSubStream[FakeSession] = PubSubStream(channel, TOPIC, FakeTokens())
            async with asyncio.timeout(LIMIT_S):
                with pytest.raises(ProtocolError):
                    await stream.run(Position(), EventBuffer(100, 1 << 20))
                await ended.wait()
    finally:
        await server.stop(None)


class ResettingProxy:
    """Passes TCP through, and can reset every connection as a load balancer does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[ResettingProxy]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self.reset()
            server.close()
            await server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, upstream_writer]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pass_on(reader, upstream_writer))
            tasks.create_task(self._pass_on(upstream_reader, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    def reset(self) -> None:
        for writer in self._writers:
            connection = writer.get_extra_info("socket")
            if connection is not None and connection.fileno() >= 0:
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        self._writers.clear()


async def test_a_reset_connection_is_mended_without_loss_or_repeat() -> None:
    """Real time: the channel itself has to connect again."""
    service = ScriptedPubSub(sending(("e1", b"A"), ("e2", b"B")), sending(("e2", b"B"), ("e3", b"C"), ("e4", b"D")))
    witness, buffer = Witness(), EventBuffer(200, 1 << 20)
    async with (
        served(service) as port,
        ResettingProxy(port).serving() as proxy,
        pubsub_channel(f"127.0.0.1:{proxy.port}", tls=False) as channel,
    ):
        stream: PubSubStream[FakeSession] = PubSubStream(
            channel, TOPIC, FakeTokens(), timing=Timing(random=lambda: 0.1), observer=witness
        )
        async with running(stream, Position(), buffer):
            items = await collect(buffer, 2)
            proxy.reset()
            items += await collect(buffer, 2)
            assert event_ids(items) == ["e1", "e2", "e3", "e4"]
            assert all(isinstance(error, StreamEndedError) for error, _ in witness.ends)
            assert witness.ends[0][0].message.startswith("Subscribe failed with")
            assert service.calls[1].first.replay_id == b"A"
