"""The change event stream: one Subscribe call after the other, from wherever the last one got to.

Three loops, one inside the other: a call is read until it ends; calls follow each other through every end that a
new Subscribe mends; what it can't mend goes to the caller. Facts are from the Pub/Sub API guide ("Subscribe RPC
Method", "Pull Subscription and Flow Control", "Handle Errors").
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, NoReturn, Protocol

import grpc
import grpc.aio

from consumer import clock
from consumer._proto import pubsub_api_pb2 as pb
from consumer.buffer import EventBuffer
from consumer.credits import MAX_OUTSTANDING, CreditWindow
from consumer.errors import (
    LoginError,
    PositionLostError,
    ProtocolError,
    PubSubError,
    ServiceError,
    StreamEndedError,
    TokenRefusedError,
    TopicRefusedError,
)
from consumer.events import Keepalive, ReceivedEvent, StreamFault, TapItem
from consumer.position import Position, Preset
from consumer.salesforce.channel import S, Tokens, call_metadata, pubsub_stub
from consumer.salesforce.retries import Retries
from consumer.salesforce.status import Call, failure, trailer_texts, translate

HEADERS_S = 150.0
"""Headers come within a second; even a server that sends none before its first message sends that at 120 s."""

HEALTHY_S = 60.0
"""A call that lived this long was not merely opened, even if nothing came."""

SETTLED_S = 5.0
"""A request written longer ago than this has reached the server before it wrote its keep-alive."""

REFILL_AT = MAX_OUTSTANDING - 25
"""Outstanding credits at which more are asked for. A server that sends events one by one waits for half of what is
asked for at a time, so that this is small; it is not smaller, so that there is one request for 25 events at most."""

_PRESETS = {Preset.LATEST: pb.LATEST, Preset.EARLIEST: pb.EARLIEST}
_FATAL = (PositionLostError, TopicRefusedError, ProtocolError)


@dataclass(frozen=True, slots=True)
class Timing:
    """Limits and clocks of a stream.

    Attributes:
        watchdog_s: silence after which a call is taken for dead, seconds; keep-alives come within 270 s.
        headers_s: longest wait for the response headers, seconds.
        sleep: waits for some seconds.
        monotonic: monotonic time, seconds.
        now_ms: wall clock, epoch milliseconds.
        random: returns a number in [0, 1), for jitter.
    """

    watchdog_s: float = 300.0
    headers_s: float = HEADERS_S
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic: Callable[[], float] = time.monotonic
    now_ms: Callable[[], int] = clock.now_ms
    random: Callable[[], float] = random.random


class StreamObserver(Protocol):
    """Is told what happens on a stream, for metrics and logs; every method returns at once."""

    def connected(self) -> None:
        """Headers came, so the server has taken the call; a refused one can look like that for an instant."""
        ...

    def events(self, count: int, received_ms: int) -> None:
        """A response with this many events came."""
        ...

    def keepalive(self, received_ms: int) -> None:
        """A response without events came."""
        ...

    def credits(self, outstanding: int) -> None:
        """So many events are asked for and not received."""
        ...

    def disconnected(self, error: ServiceError, delay_s: float) -> None:
        """The call ended, or could not be made; the next one follows after ``delay_s`` seconds."""
        ...


class SilentObserver:
    """Observes nothing."""

    def connected(self) -> None:
        """Do nothing."""

    def events(self, count: int, received_ms: int) -> None:
        """Do nothing."""

    def keepalive(self, received_ms: int) -> None:
        """Do nothing."""

    def credits(self, outstanding: int) -> None:
        """Do nothing."""

    def disconnected(self, error: ServiceError, delay_s: float) -> None:
        """Do nothing."""


@dataclass(slots=True)
class _CallState:
    """What is known about the call under way.

    Attributes:
        window: credits of this call.
        repeats: ids of events that were put into the buffer before and may come again.
        started_s: when it began, monotonic seconds.
        heard_s: when the last message came, or the call began, monotonic seconds.
        asked_s: when the last request was written, monotonic seconds.
        accepted: whether headers or a message came.
        messages: how many responses came.
        silent: whether the watchdog ended it.
        rpc_id: the server's trace id, as soon as a response told it.
        credit: set when more credit may be asked for.
    """

    window: CreditWindow
    repeats: set[str]
    started_s: float
    heard_s: float
    asked_s: float
    accepted: bool = False
    messages: int = 0
    silent: bool = False
    rpc_id: str = ""
    credit: asyncio.Event = field(default_factory=asyncio.Event)


class PubSubStream(Generic[S]):
    """Implements :class:`consumer.ports.EventStream` for one topic.

    Args:
        channel: open channel to the Pub/Sub API.
        topic: the topic to subscribe to.
        tokens: where the session comes from.
        timing: limits and clocks.
        observer: is told what happens.
        tap: is given everything as it was received, for recordings.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        topic: str,
        tokens: Tokens[S],
        *,
        timing: Timing | None = None,
        observer: StreamObserver | None = None,
        tap: Callable[[TapItem], None] | None = None,
    ) -> None:
        self._subscribe = pubsub_stub(channel).Subscribe
        self._topic = topic
        self._tokens = tokens
        self._timing = timing or Timing()
        self._observer: StreamObserver = observer or SilentObserver()
        self._tap = tap
        self._cursor = Position()

    async def run(self, start: Position, buffer: EventBuffer) -> NoReturn:
        """Subscribe at ``start`` and put what arrives into ``buffer``, for ever.

        Ends of the call are mended inside, from the last item put into the buffer. Refused logins and a used-up
        delivery allowance are tried again slowly; the observer is told.

        Raises:
            PositionLostError: the replay id of the position is expired or refused.
            TopicRefusedError: the topic can't be read by this user.
            ProtocolError: the protocol was broken.
        """
        self._cursor = start
        retries = Retries(self._timing.random)
        while True:
            error = await self._one_call(buffer, retries)
            if self._tap is not None:
                code = error.code if isinstance(error, PubSubError) else ""
                fault = StreamFault(self._topic, type(error).__name__, code, error.message, self._timing.now_ms())
                self._tap(fault)
            fatal = isinstance(error, _FATAL)
            delay_s = 0.0 if fatal else retries.delay_s(error, self._timing.monotonic())
            self._observer.credits(0)
            self._observer.disconnected(error, delay_s)
            if fatal:
                raise error
            if delay_s > 0:
                await self._timing.sleep(delay_s)

    async def _one_call(self, buffer: EventBuffer, retries: Retries) -> ServiceError:
        """Make one call and return why it ended; every item it will ever give is in the buffer by then."""
        window = CreditWindow()
        # The first request has to ask for at least one event, so a full buffer has to be waited for.
        while (wanted := window.grant(buffer.room)) == 0:
            await buffer.wait_drained()
        try:
            session = await self._tokens.get()
        except LoginError as error:
            return error
        request = self._first_request(wanted)
        kind = Call.RESUME if request.replay_preset == pb.CUSTOM else Call.SUBSCRIBE
        now_s = self._timing.monotonic()
        state = _CallState(window, set(self._cursor.beyond), now_s, now_s, now_s)
        try:
            call = self._subscribe(metadata=call_metadata(session))
            ended = await self._drive(call, kind, request, state, buffer)
        except TokenRefusedError as refused:
            ended = refused
        except grpc.aio.BaseError as broken:
            ended = translate(broken, kind)
        if isinstance(ended, TokenRefusedError):
            self._tokens.invalidate(session)
        lived_s = self._timing.monotonic() - state.started_s
        if state.messages or (lived_s >= HEALTHY_S and state.accepted and not state.silent):
            retries.healthy()
        return ended

    def _first_request(self, wanted: int) -> pb.FetchRequest:
        request = pb.FetchRequest(topic_name=self._topic, num_requested=wanted)
        replay_id = self._cursor.replay_id
        if not self._cursor.resumable:
            # Nothing is known before the first event of LATEST. Resuming after it can skip events that share its
            # replay id; LATEST again would skip everything sent meanwhile.
            replay_id = self._cursor.beyond_replay_id
        if replay_id is None:
            request.replay_preset = _PRESETS[self._cursor.preset]
        else:
            request.replay_preset = pb.CUSTOM
            request.replay_id = replay_id
        return request

    async def _drive(
        self, call: Any, kind: Call, request: pb.FetchRequest, state: _CallState, buffer: EventBuffer
    ) -> PubSubError:
        """Run the call's tasks until it ends.

        Nothing but cancelling closes our side of the call: a half-close would make the server finish it.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                helpers = [
                    tasks.create_task(self._ask(call, request, state, buffer)),
                    tasks.create_task(self._notice_room(state, buffer)),
                    tasks.create_task(self._notice_headers(call, state)),
                    tasks.create_task(self._watch(call, state)),
                ]
                try:
                    return await self._read_to_end(call, kind, state, buffer)
                finally:
                    for helper in helpers:
                        helper.cancel()
        finally:
            call.cancel()

    async def _read_to_end(self, call: Any, kind: Call, state: _CallState, buffer: EventBuffer) -> PubSubError:
        try:
            error = await self._read(call, state, buffer)
            if error is not None:
                return error
            return failure(kind, await call.code(), trailer_texts(await call.trailing_metadata()), "", state.rpc_id)
        except grpc.aio.AioRpcError as ended:
            return translate(ended, kind)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not state.silent or (task is not None and task.cancelling()):
                raise
            limit_s = self._silence_limit_s(state)
            return StreamEndedError(
                f"Nothing came on {self._topic} for {limit_s:g} seconds",
                "The service subscribes again by itself; check firewalls and proxies if it happens often.",
                status="CANCELLED",
                rpc_id=state.rpc_id,
            )

    async def _read(self, call: Any, state: _CallState, buffer: EventBuffer) -> PubSubError | None:
        """Put what comes into the buffer until the server ends the call in order."""
        monotonic, observer, window = self._timing.monotonic, self._observer, state.window
        async for response in call:
            if response is None:  # gRPC's way to say that the bytes were not the message
                return ProtocolError(
                    f"A response on {self._topic} could not be read",
                    "Check that pubsub.endpoint names the Pub/Sub API.",
                    rpc_id=state.rpc_id,
                )
            state.heard_s = monotonic()
            state.messages += 1
            count = len(response.events)
            received_ms = self._timing.now_ms()
            if count:
                window.received(count)
                if window.outstanding <= REFILL_AT:
                    # First, so that the request is under way while these events are processed.
                    state.credit.set()
                self._accept(response.events, received_ms, state, buffer)
                observer.events(count, received_ms)
            else:
                self._accept_empty(response, received_ms, state, buffer)
                state.credit.set()
                observer.keepalive(received_ms)
            if state.messages == 1:
                state.rpc_id = response.rpc_id
            observer.credits(window.outstanding)
        return None

    def _accept(self, events: Any, received_ms: int, state: _CallState, buffer: EventBuffer) -> None:
        topic, tap, put, repeats, cursor = self._topic, self._tap, buffer.put, state.repeats, self._cursor
        for consumer_event in events:
            event, replay_id = consumer_event.event, consumer_event.replay_id
            event_id = event.id
            if event_id in repeats:
                repeats.discard(event_id)
                continue
            headers = tuple((header.key, header.value) for header in event.headers) if event.headers else ()
            item = ReceivedEvent(topic, event_id, event.schema_id, event.payload, replay_id, received_ms, headers)
            put(item)
            cursor = cursor.after_event(event_id, replay_id)
            if tap is not None:
                tap(item)
        self._cursor = cursor

    def _accept_empty(
        self, response: pb.FetchResponse, received_ms: int, state: _CallState, buffer: EventBuffer
    ) -> None:
        """Take over what an empty response says about position and credits.

        Only here is ``latest_replay_id`` a position: behind events that share a replay id with events still to
        come it would skip those.
        """
        pending = response.pending_num_requested
        if self._timing.monotonic() - state.asked_s >= SETTLED_S:
            state.window.settle(pending)
        if pending > 0 and response.latest_replay_id:
            item = Keepalive(self._topic, response.latest_replay_id, received_ms)
            buffer.put(item)
            self._cursor = self._cursor.after_keepalive(response.latest_replay_id)
            if self._tap is not None:
                self._tap(item)

    async def _ask(self, call: Any, request: pb.FetchRequest, state: _CallState, buffer: EventBuffer) -> None:
        """Write the first request, then one whenever there is room for more events."""
        window = state.window
        try:
            while True:
                state.asked_s = self._timing.monotonic()
                self._observer.credits(window.outstanding)
                await call.write(request)
                state.asked_s = self._timing.monotonic()
                while window.outstanding > REFILL_AT or (wanted := window.grant(buffer.room)) == 0:
                    state.credit.clear()
                    await state.credit.wait()
                request = pb.FetchRequest(num_requested=wanted)
        except (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError):
            # The call is over. Why is what its reader is told: it alone also sees the messages before the end.
            return

    async def _notice_room(self, state: _CallState, buffer: EventBuffer) -> None:
        while True:
            await buffer.wait_drained()
            state.credit.set()

    async def _notice_headers(self, call: Any, state: _CallState) -> None:
        await call.initial_metadata()
        if not call.done():
            state.accepted = True
            self._observer.connected()

    async def _watch(self, call: Any, state: _CallState) -> None:
        """Cancel the call when nothing comes for too long: a dropped connection gives no error."""
        while True:
            left_s = self._silence_limit_s(state) - (self._timing.monotonic() - state.heard_s)
            if left_s <= 0:
                state.silent = True
                call.cancel()
                return
            await self._timing.sleep(left_s)

    def _silence_limit_s(self, state: _CallState) -> float:
        if state.accepted or state.messages:
            return self._timing.watchdog_s
        return min(self._timing.headers_s, self._timing.watchdog_s)
