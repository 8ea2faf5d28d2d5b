"""ManagedSubscribe: subscriptions whose position the org keeps, one active client each.

Facts: Pub/Sub API guide, "Managed Event Subscriptions" and the comments of the proto. A failed commit is answered
on the stream and does not end it; several commits may be answered by one acknowledgement.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from consumer._proto import pubsub_api_pb2 as pb
from consumer.emulator.bus import PositionRefusedError, Topic
from consumer.emulator.calls import FetchCall
from consumer.emulator.refusals import ALREADY_ACTIVE, COMMIT_TIMEOUT, CallRefusedError, refuse
from consumer.emulator.state import ServerState


class ManagedSettings(BaseModel):
    """One ManagedEventSubscription of the org."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    developer_name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    subscription_id: str = Field(pattern=r"^18x[0-9A-Za-z]{12}([0-9A-Za-z]{3})?$")
    topic: str
    default_replay: Literal["LATEST", "EARLIEST"] = "LATEST"
    error_recovery_replay: Literal["LATEST", "EARLIEST"] = "LATEST"
    state: Literal["RUN", "STOP"] = "RUN"


@dataclass(eq=False, slots=True)
class Subscription:
    """A managed subscription as it stands.

    Attributes:
        committed: replay id that was committed last; None before the first commit.
        active: whether a client holds it.
        free_at: until then a slot that was given up still counts as held, monotonic seconds.
    """

    settings: ManagedSettings
    committed: bytes | None = None
    active: bool = False
    free_at: float = 0.0

    @property
    def topic(self) -> str:
        """The subscription's topic."""
        return self.settings.topic


@dataclass
class ManagedSubscriptions:
    """All managed subscriptions of the org."""

    all: list[Subscription] = field(default_factory=list)

    def find(self, request: pb.ManagedFetchRequest) -> Subscription:
        """Return the subscription the first request names.

        Raises:
            CallRefusedError: not exactly one name, unknown, or stopped.
        """
        by_id, by_name = request.subscription_id, request.developer_name
        if bool(by_id) == bool(by_name):
            raise refuse(
                "managed.subscription.id.or.developer.name.empty",
                "Specify either the subscription ID or the developer name.",
            )
        if by_id and len(by_id) not in {15, 18}:
            raise refuse("managed.subscription.subscription.id.invalid", "The subscription ID isn't valid.")
        for subscription in self.all:
            settings = subscription.settings
            if by_name == settings.developer_name or (by_id and by_id[:15] == settings.subscription_id[:15]):
                if settings.state == "STOP":
                    raise refuse("managed.subscription.config.stopped", "The managed subscription is stopped.")
                return subscription
        if by_id:
            raise refuse("managed.subscription.subscription.id.not.found", "The subscription ID wasn't found.")
        raise refuse("managed.subscription.developer.name.not.found", "The developer name wasn't found.")


class ManagedCall(FetchCall):
    """A ManagedSubscribe call."""

    kind = "ManagedSubscribe"

    def __init__(self, state: ServerState) -> None:
        super().__init__(state)
        self._subscription: Subscription | None = None
        self._answers: deque[pb.CommitReplayResponse] = deque()
        self._answer_at = 0.0
        self._commit_by = 0.0
        self._given = b""

    def first(self, request: pb.ManagedFetchRequest, subscription: Subscription, topic: Topic) -> None:
        """Take the first request and the subscription's only slot.

        Raises:
            CallRefusedError: it breaks the rules for first requests, or the slot is held.
        """
        if request.HasField("commit_replay_id_request"):
            raise refuse(
                "managed.subscription.fetch.request.commit.request.restricted",
                "A commit request isn't allowed in the initial fetch request.",
            )
        if request.auth_refresh:
            raise refuse(
                "managed.subscription.fetch.request.auth.request.restricted",
                "An auth refresh isn't allowed in the initial fetch request.",
            )
        self._check_credit(request)
        now = self.state.now()
        if subscription.active or subscription.free_at > now:
            raise CallRefusedError(ALREADY_ACTIVE)
        self._place(subscription, topic)
        subscription.active = True
        self._subscription = subscription
        self._commit_by = now + self.state.timing.commit_timeout_s
        self.note_request()
        self.grant(request.num_requested)

    def later(self, request: pb.ManagedFetchRequest) -> None:
        """Take a later request: credit, a commit, or both.

        Raises:
            CallRefusedError: it asks for nothing, or for a negative number.
        """
        if request.auth_refresh:
            raise refuse("service.auth.refresh.invalid", "The auth refresh token isn't valid.")
        self._check_credit(request)
        commits = request.HasField("commit_replay_id_request")
        if request.num_requested == 0 and not commits:
            raise refuse(
                "managed.subscription.fetch.request.invalid",
                "The fetch request must have requested events, a commit request or an auth refresh.",
            )
        if commits:
            self._commit(request.commit_replay_id_request)
        if request.num_requested:
            self.note_request()
            self.grant(request.num_requested)

    def close(self) -> None:
        """Give the slot up; it becomes free a while later."""
        super().close()
        if self._subscription is not None:
            self._subscription.active = False
            self._subscription.free_at = self.state.now() + self.state.timing.slot_release_s

    def response(self, parts: list[bytes], latest: bytes) -> bytes:
        """Serialise a response and remember which position the client now knows."""
        self._given = latest
        return super().response(parts, latest)

    def extra_response(self, now: float) -> bytes | None:
        """Return the acknowledgement of the commits so far, once it is due."""
        if now >= self._commit_by:
            self.finish(COMMIT_TIMEOUT)
            return None
        if not self._answers or now < self._answer_at:
            return None
        response = pb.ManagedFetchResponse(
            commit_response=self._answers.popleft(),
            latest_replay_id=self._given,
            rpc_id=self.rpc_id,
            pending_num_requested=self.credit,
        )
        return response.SerializeToString()

    def extra_deadline(self) -> float | None:
        """Return when an acknowledgement or the commit timeout is due."""
        return min(self._commit_by, self._answer_at) if self._answers else self._commit_by

    def _place(self, subscription: Subscription, topic: Topic) -> None:
        settings = subscription.settings
        if subscription.committed is None:
            self.start(topic, pb.ReplayPreset.Value(settings.default_replay), b"")
            return
        try:
            self.start(topic, pb.CUSTOM, subscription.committed)
        except CallRefusedError:
            self.start(topic, pb.ReplayPreset.Value(settings.error_recovery_replay), b"")

    def _commit(self, request: pb.CommitReplayRequest) -> None:
        now = self.state.now()
        answer = pb.CommitReplayResponse(
            commit_request_id=request.commit_request_id,
            replay_id=request.replay_id,
            process_time=self.state.now_ms(),
        )
        self._commit_by = now + self.state.timing.commit_timeout_s
        fault = self._commit_fault(request.replay_id)
        if fault:
            answer.error.code = pb.COMMIT
            answer.error.msg = fault
        elif self._subscription is not None:
            self._subscription.committed = request.replay_id
        if not self._answers:
            self._answer_at = now + self.state.timing.commit_ack_s
        elif not fault and not self._answers[-1].HasField("error"):
            self._answers.pop()
        self._answers.append(answer)
        self.wake_up()

    def _commit_fault(self, replay_id: bytes) -> str:
        if not replay_id:
            return "The commit request doesn't have a Replay ID."
        bus = self.state.bus
        try:
            counter = bus.counter_of(replay_id)
        except PositionRefusedError:
            return "The Replay ID isn't valid or is outside the retention window."
        if counter > int.from_bytes(self._given[:8], "big"):
            return "The Replay ID hasn't been delivered yet."
        committed = self._subscription.committed if self._subscription is not None else None
        if committed is not None and counter < int.from_bytes(committed[:8], "big"):
            return "The Replay ID is older than the committed one."
        return ""

    @staticmethod
    def _check_credit(request: pb.ManagedFetchRequest) -> None:
        if request.num_requested < 0:
            raise refuse(
                "managed.subscription.fetch.request.events.invalid",
                "The number of requested events can't be negative.",
            )
