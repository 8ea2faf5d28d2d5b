"""One open Subscribe call: credit, delivery, keep-alives, and the ways it ends.

Every decision is made in plain functions (:meth:`FetchCall.step`); the loop around them only writes and waits.
Facts: Pub/Sub API guide, "Subscribe RPC Method", "Pull Subscription and Flow Control", "Allocations".
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from consumer._proto import pubsub_api_pb2 as pb
from consumer.emulator.bus import Entry, PositionRefusedError, Topic, varint
from consumer.emulator.refusals import (
    CORRUPTED,
    CREDIT_TIMEOUT,
    LIMIT_EXCEEDED,
    OK,
    RST_NO_ERROR,
    CallEnd,
    CallRefusedError,
    refuse,
)
from consumer.emulator.state import ServerState

MAX_OUTSTANDING = 100
"""More credit than this is cut off, not refused."""

MAX_RESPONSE_BYTES = 3_000_000
"""A FetchResponse is at most 3 MB."""

Request = TypeVar("Request")


class FetchCall:
    """What Subscribe and ManagedSubscribe have in common.

    Attributes:
        kind: name of the RPC.
        topic_name: the topic, empty before the first request.
        rpc_id: the same in all responses of the call.
    """

    kind = "Subscribe"

    def __init__(self, state: ServerState) -> None:
        self.state = state
        self.rpc_id = str(uuid.uuid4())
        self.topic_name = ""
        self.topic: Topic | None = None
        self.cursor: int | None = None
        self.credit = 0
        self.end: CallEnd | None = None
        self._wake = asyncio.Event()
        self._outbox: deque[tuple[float, bytes]] = deque()
        self._arm_at = 0.0
        self._last_sent = 0.0
        self._after_keepalive = False
        self._events_sent = 0
        self._rpc_field = b"\x1a" + varint(len(self.rpc_id)) + self.rpc_id.encode()

    def finish(self, end: CallEnd) -> None:
        """End the call; only the first end counts."""
        if self.end is None:
            self.end = end
        self._wake.set()

    def wake_up(self) -> None:
        """Make the call look at the conditions again."""
        self._wake.set()

    def rewind(self, events: int) -> None:
        """Send the last events of the topic again, as far as they are retained."""
        if self.topic is not None and self.cursor is not None:
            self.cursor = max(self.topic.first, self.cursor - events)
            self._wake.set()

    def describe(self) -> dict[str, object]:
        """Return the call's state for the control API."""
        lag = self.topic.end - self.cursor if self.topic is not None and self.cursor is not None else None
        return {
            "rpc": self.kind,
            "rpc_id": self.rpc_id,
            "topic": self.topic_name,
            "credit": self.credit,
            "events_sent": self._events_sent,
            "events_behind": lag,
        }

    def close(self) -> None:
        """Stop listening to the topic."""
        if self.topic is not None:
            self.topic.listeners.discard(self._wake)

    def start(self, topic: Topic, preset: int, replay_id: bytes) -> None:
        """Place the call in the topic and start its clocks.

        Raises:
            CallRefusedError: the position is missing or refused.
        """
        bus = self.state.bus
        now = self.state.now()
        if preset == pb.LATEST:
            self._arm_at = now + self.state.timing.latest_arming_s
        elif preset == pb.EARLIEST:
            self.cursor = bus.earliest(topic)
        elif preset == pb.CUSTOM and replay_id:
            self.cursor = self._resume(topic, replay_id)
        else:
            raise refuse(
                "subscription.fetch.replayid.validation.failed",
                "The Replay ID validation failed. Ensure that a Replay ID is given with the CUSTOM preset.",
            )
        self.topic, self.topic_name, self._last_sent = topic, topic.name, now
        topic.listeners.add(self._wake)

    def grant(self, requested: int) -> None:
        """Add credit, at most up to 100."""
        stats = self.state.stats
        if self.credit + requested > MAX_OUTSTANDING:
            stats.overshoots += 1
        self.credit = min(MAX_OUTSTANDING, self.credit + requested)
        stats.max_outstanding = max(stats.max_outstanding, self.credit)
        self._wake.set()

    def note_request(self) -> None:
        """Count a request, and whether it came on a keep-alive without need."""
        self.state.stats.fetch_requests += 1
        if self._after_keepalive and self.credit > 0:
            self.state.stats.requests_after_keepalive += 1
        self._after_keepalive = False

    async def read(self, requests: AsyncIterator[Request], on_request: Callable[[Request], None]) -> None:
        """Take the later requests until one is refused or the client closes its side, which ends the call."""
        try:
            async for request in requests:
                on_request(request)
        except CallRefusedError as error:
            self.finish(error.end)
            return
        if self.end is None:
            self.state.stats.half_closes += 1
        self.finish(OK)

    async def deliver(self, write: Callable[[bytes], Awaitable[None]]) -> CallEnd:
        """Send responses until the call ends, and return how."""
        while self.end is None:
            self._wake.clear()
            todo = self.step(self.state.now())
            if isinstance(todo, bytes):
                await write(todo)
            elif todo > 0:
                await self._pause(todo)
        return self.end

    def step(self, now: float) -> bytes | float:
        """Return the response to send now, or how many seconds there is nothing to do."""
        conditions = self.state.conditions
        if conditions.silent_until > now:
            return conditions.silent_until - now
        if self._outbox and self._outbox[0][0] <= now:
            return self._outbox.popleft()[1]
        response = self._produce(now)
        if response is None:
            return self._idle_s(now)
        if conditions.latency_s > 0 or self._outbox:
            self._outbox.append((now + conditions.latency_s, response))
            return 0.0
        return response

    def extra_response(self, now: float) -> bytes | None:  # noqa: ARG002 - for ManagedSubscribe's acknowledgements
        """Return a response that is neither events nor keep-alive, None if none is due."""
        return None

    def extra_deadline(self) -> float | None:
        """Return when :meth:`extra_response` has to be asked next, monotonic seconds."""
        return None

    def response(self, parts: list[bytes], latest: bytes) -> bytes:
        """Serialise a FetchResponse (a ManagedFetchResponse has the same first four fields)."""
        parts.append(b"\x12" + varint(len(latest)) + latest)
        parts.append(self._rpc_field)
        if self.credit:
            parts.append(b"\x20" + varint(self.credit))
        return b"".join(parts)

    def _resume(self, topic: Topic, replay_id: bytes) -> int:
        try:
            cursor = self.state.bus.after(topic, replay_id)
        except PositionRefusedError as error:
            raise CallRefusedError(CORRUPTED) from error
        rewind, self.state.conditions.rewind_next = self.state.conditions.rewind_next, 0
        return max(topic.first, cursor - rewind)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    def _produce(self, now: float) -> bytes | None:
        extra = self.extra_response(now)
        if extra is not None:
            return extra
        topic = self.topic
        if topic is None:
            return None
        if self.cursor is None:
            if now >= self._arm_at:
                self.cursor = topic.end
        elif self.cursor < topic.first:
            # What it has not read yet is gone; a new Subscribe will be told so.
            self.finish(RST_NO_ERROR)
            return None
        elif self.credit > 0 and self.cursor < topic.end:
            return self._events(topic, self.cursor, now)
        idle = now - self._last_sent
        if self.credit == 0 and idle >= self.state.timing.credit_timeout_s:
            self.finish(CREDIT_TIMEOUT)
        elif self.credit > 0 and idle >= self.state.timing.keepalive_s:
            return self._keepalive(now)
        return None

    def _events(self, topic: Topic, cursor: int, now: float) -> bytes | None:
        limit = min(self.credit, self.state.allowance_left)
        if limit == 0:
            self.finish(LIMIT_EXCEEDED)
            return None
        if self.state.split == "random":
            limit = self.state.random.randint(1, limit)
        elif self.state.split == "single":
            limit = 1
        parts, last = self._take(topic.slice(cursor, limit), limit)
        self.cursor = last[0]
        sent = len(parts)
        self.credit -= sent
        self._events_sent += sent
        self._last_sent = now
        self._after_keepalive = False
        stats = self.state.stats
        stats.events_sent += sent
        stats.responses += 1
        caught_up = self.cursor == topic.end
        return self.response(parts, self.state.bus.give_head() if caught_up else last[1].replay_id)

    def _take(self, entries: list[Entry], limit: int) -> tuple[list[bytes], tuple[int, Entry]]:
        """Return the serialised events of one response, the cursor behind them, and the last of them."""
        conditions = self.state.conditions
        parts: list[bytes] = []
        size = taken = 0
        for entry in entries:
            size += len(entry.wire)
            if parts and (size > MAX_RESPONSE_BYTES or len(parts) >= limit):
                break
            parts.append(entry.wire)
            entry.sent = True
            taken += 1
            if conditions.duplicate_next and len(parts) < limit:
                conditions.duplicate_next -= 1
                parts.append(entry.wire)
        return parts, ((self.cursor or 0) + taken, entries[taken - 1])

    def _keepalive(self, now: float) -> bytes:
        self._last_sent = now
        self._after_keepalive = True
        self.state.stats.keepalives_sent += 1
        self.state.stats.responses += 1
        self.state.bus.advance()
        return self.response([], self.state.bus.give_head())

    def _idle_s(self, now: float) -> float:
        timing = self.state.timing
        patience = timing.keepalive_s if self.credit > 0 else timing.credit_timeout_s
        deadlines = [self._last_sent + patience]
        if self.cursor is None:
            deadlines.append(self._arm_at)
        if self._outbox:
            deadlines.append(self._outbox[0][0])
        extra = self.extra_deadline()
        if extra is not None:
            deadlines.append(extra)
        return max(0.0, min(deadlines) - now)


class SubscribeCall(FetchCall):
    """A Subscribe call."""

    def first(self, request: pb.FetchRequest, topic: Topic) -> None:
        """Take the first request, which fixes topic and position.

        Raises:
            CallRefusedError: it breaks the rules for first requests.
        """
        self._check_credit(request)
        self.start(topic, request.replay_preset, request.replay_id)
        self.note_request()
        self.grant(request.num_requested)

    def later(self, request: pb.FetchRequest) -> None:
        """Take a later request; its replay fields are ignored.

        Raises:
            CallRefusedError: another topic, or no credit.
        """
        if request.topic_name and request.topic_name != self.topic_name:
            raise refuse("subscription.fetch.topic.mismatch", "The topic name can't be changed within a subscription.")
        if request.num_requested == 0 and not request.auth_refresh:
            raise refuse(
                "subscription.fetch.request.invalid",
                "The fetch request must have either requested events or an auth refresh.",
            )
        self._check_credit(request)
        self.note_request()
        self.grant(request.num_requested)

    @staticmethod
    def _check_credit(request: pb.FetchRequest) -> None:
        if request.auth_refresh:
            raise refuse("service.auth.refresh.invalid", "The auth refresh token isn't valid.")
        if request.num_requested <= 0:
            raise refuse(
                "subscription.fetch.requested.events.invalid",
                "The number of requested events must be greater than zero.",
            )
