"""What a failed Pub/Sub call means: from gRPC status and ``error-code`` trailer to our error classes.

Decided by the code first, by the status second, never by text: texts vary, and one status stands for several
remedies (Pub/Sub API guide "Handle Errors"). The translation is total: what is unknown is worth another try.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

import grpc
import grpc.aio

from consumer.errors import (
    DeliveryAllowanceError,
    PositionLostError,
    ProtocolError,
    PubSubError,
    SchemaRefusedError,
    SchemaUnavailableError,
    ServerProtectionError,
    StreamEndedError,
    TokenRefusedError,
    TopicRefusedError,
)

CODE_PREFIX = "sfdc.platform.eventbus.grpc."


class Call(Enum):
    """Which call failed; the same code can mean different things to different calls."""

    SUBSCRIBE = "Subscribe"
    """From a preset: no replay id was sent."""
    RESUME = "Subscribe from a replay id"
    GET_SCHEMA = "GetSchema"
    GET_TOPIC = "GetTopic"


class Rule(NamedTuple):
    """What an error code or status means, and what to do about it."""

    error: type[PubSubError]
    advice: str


_WAIT = "It is tried again by itself; see Salesforce's status page if it lasts."
_LOGIN = "The service logs in again by itself; if it lasts, check the user, its IP restrictions and the org's domain."
_HEADERS = "Check salesforce.instance_url and salesforce.org_id; the service logs in again by itself."
_SLOW_DOWN = "The service waits a minute or more; close other Pub/Sub clients of this org if it lasts."
_TOPIC = "Check the topic's name (case counts) and that Change Data Capture is on for the object."
_PERMISSION = "Give the integration user View All on the object; a new permission takes up to ten minutes."
_LICENSE = "The org has no licence for this; ask its Salesforce administrator."
_ALLOWANCE = "The 24 hour event allowance is used up; wait, drop other subscribers, or buy the add-on."
_POSITION = "Events may be gone; pubsub.on_lost_position decides how the service goes on."
_BUG = "This is a fault of this program; please report it with the rpc id."
_PUBLISH = "This service publishes nothing; please report it with the rpc id."
_MANAGED = "This service uses no managed subscriptions; check what runs at pubsub.endpoint."
_SCHEMA_WAIT = "The event waits and the schema is asked for again."
_SCHEMA_PERMISSION = "Let the integration user read the object; the event's bytes are kept in quarantine."
_SCHEMA_ID = "The event names no schema that the server knows; its bytes are kept in quarantine."
_ENDPOINT = "Check that pubsub.endpoint names the Pub/Sub API; it is tried again by itself."

CODES: dict[str, Rule] = {
    "service.unavailable": Rule(StreamEndedError, _WAIT),
    "service.auth.error": Rule(TokenRefusedError, _LOGIN),
    "service.auth.headers.invalid": Rule(TokenRefusedError, _HEADERS),
    "service.auth.refresh.invalid": Rule(TokenRefusedError, _LOGIN),
    "service.protection.triggered": Rule(ServerProtectionError, _SLOW_DOWN),
    "service.protection.stream.limit.triggered": Rule(ServerProtectionError, _SLOW_DOWN),
    "service.tenant.license": Rule(TopicRefusedError, _LICENSE),
    "concurrent.client.limit.exceeded": Rule(ServerProtectionError, _SLOW_DOWN),
    "topic.not.found": Rule(TopicRefusedError, _TOPIC),
    "topic.meta.permission": Rule(TopicRefusedError, _PERMISSION),
    "topic.api.unavailable": Rule(StreamEndedError, _WAIT),
    "topic.validation.empty": Rule(ProtocolError, _BUG),
    "schema.meta.permission": Rule(SchemaRefusedError, _SCHEMA_PERMISSION),
    "schema.api.unavailable": Rule(SchemaUnavailableError, _SCHEMA_WAIT),
    "schema.validation.failed": Rule(SchemaRefusedError, _SCHEMA_ID),
    "subscription.fetch.replayid.corrupted": Rule(PositionLostError, _POSITION),
    "subscription.fetch.replayid.validation.failed": Rule(PositionLostError, _POSITION),
    "subscription.fetch.replay.repeated": Rule(StreamEndedError, _WAIT),
    "subscription.limit.exceeded": Rule(DeliveryAllowanceError, _ALLOWANCE),
    "subscription.fetch.overflow": Rule(StreamEndedError, _WAIT),
    "subscription.fetch.requested.events.invalid": Rule(ProtocolError, _BUG),
    "subscription.fetch.topic.mismatch": Rule(ProtocolError, _BUG),
    "subscription.fetch.request.invalid": Rule(ProtocolError, _BUG),
    "subscription.topic.cannot.subscribe": Rule(TopicRefusedError, _PERMISSION),
    "subscription.internal.error": Rule(StreamEndedError, _WAIT),
    "publish.stream.sweeper.timeout": Rule(StreamEndedError, _PUBLISH),
    "publish.auth.refresh.invalid": Rule(ProtocolError, _PUBLISH),
    "publish.event.count.invalid": Rule(ProtocolError, _PUBLISH),
    "publish.topic.mismatch": Rule(ProtocolError, _PUBLISH),
    "publish.topic.validation.empty": Rule(ProtocolError, _PUBLISH),
    "managed.subscription.already.active": Rule(ServerProtectionError, _MANAGED),
    "managed.subscription.config.stopped": Rule(TopicRefusedError, _MANAGED),
    "managed.subscription.config.deleted": Rule(TopicRefusedError, _MANAGED),
    "managed.subscription.developer.name.not.found": Rule(TopicRefusedError, _MANAGED),
    "managed.subscription.subscription.id.not.found": Rule(TopicRefusedError, _MANAGED),
    "managed.subscription.subscription.id.invalid": Rule(TopicRefusedError, _MANAGED),
    "managed.subscription.id.or.developer.name.empty": Rule(ProtocolError, _MANAGED),
    "managed.subscription.fetch.request.events.invalid": Rule(ProtocolError, _MANAGED),
    "managed.subscription.fetch.request.invalid": Rule(ProtocolError, _MANAGED),
    "managed.subscription.fetch.request.commit.request.restricted": Rule(ProtocolError, _MANAGED),
    "managed.subscription.fetch.request.auth.request.restricted": Rule(ProtocolError, _MANAGED),
}
"""Every published error code without its prefix (Pub/Sub API guide "Handle Errors")."""

STATUSES: dict[grpc.StatusCode, Rule] = {
    grpc.StatusCode.UNAUTHENTICATED: Rule(TokenRefusedError, _LOGIN),
    grpc.StatusCode.PERMISSION_DENIED: Rule(TopicRefusedError, _PERMISSION),
    grpc.StatusCode.NOT_FOUND: Rule(TopicRefusedError, _TOPIC),
    grpc.StatusCode.INVALID_ARGUMENT: Rule(ProtocolError, _BUG),
    grpc.StatusCode.RESOURCE_EXHAUSTED: Rule(ServerProtectionError, _SLOW_DOWN),
    grpc.StatusCode.ALREADY_EXISTS: Rule(ServerProtectionError, _SLOW_DOWN),
    grpc.StatusCode.UNIMPLEMENTED: Rule(StreamEndedError, _ENDPOINT),
}
"""What a status means when no known code came with it; every other status means to try again."""

_RETRY = Rule(StreamEndedError, _WAIT)

# A stream has no schema of its own to be refused, and only a replay id that was sent can be lost.
_ON_STREAM: dict[type[PubSubError], Rule] = {
    SchemaRefusedError: Rule(TopicRefusedError, _PERMISSION),
    SchemaUnavailableError: Rule(StreamEndedError, _WAIT),
}
_WITHOUT_REPLAY_ID = {**_ON_STREAM, PositionLostError: Rule(ProtocolError, _BUG)}
_SCHEMA_KEEPS = {TokenRefusedError, SchemaRefusedError, SchemaUnavailableError}
_SCHEMA_STATUSES = {
    grpc.StatusCode.UNAUTHENTICATED: Rule(TokenRefusedError, _LOGIN),
    grpc.StatusCode.NOT_FOUND: Rule(SchemaRefusedError, _SCHEMA_ID),
    grpc.StatusCode.INVALID_ARGUMENT: Rule(SchemaRefusedError, _SCHEMA_ID),
}
# PERMISSION_DENIED without a code is what a proxy's 403 becomes, so the event waits for a better answer.
_SCHEMA_RETRY = Rule(SchemaUnavailableError, _SCHEMA_WAIT)

_LONG_WORD = re.compile(r"\S{48,}")
_DETAILS_LIMIT = 200


def rule_for(call: Call, status: grpc.StatusCode | None, code: str) -> Rule:
    """Return what a failure means.

    Args:
        call: the call that failed.
        status: its gRPC status, None when there was none.
        code: the ``error-code`` trailer without prefix, empty when absent.
    """
    coded = CODES.get(code)
    if call is Call.GET_SCHEMA:
        if coded is None:
            return _SCHEMA_RETRY if status is None else _SCHEMA_STATUSES.get(status, _SCHEMA_RETRY)
        return coded if coded.error in _SCHEMA_KEEPS else _SCHEMA_RETRY
    rule = coded or (_RETRY if status is None else STATUSES.get(status, _RETRY))
    return (_ON_STREAM if call is Call.RESUME else _WITHOUT_REPLAY_ID).get(rule.error, rule)


def translate(error: BaseException, call: Call) -> PubSubError:
    """Turn what gRPC raised into one of our errors.

    Args:
        error: an ``AioRpcError``, or anything else a gRPC call can raise.
        call: the call that raised it.
    """
    if isinstance(error, grpc.aio.AioRpcError):
        trailers = trailer_texts(error.trailing_metadata())
        return failure(call, error.code(), trailers, error.details() or "")
    # A header that can't be sent fails a unary call like this. The token is the only header that ever changes,
    # so keeping it would fail every later call too.
    if type(error).__name__ == "ExecuteBatchError":
        return TokenRefusedError(f"{call.value} could not be sent", _HEADERS)
    rule = rule_for(call, None, "")
    return rule.error(f"{call.value} failed with {type(error).__name__}", rule.advice)


def failure(
    call: Call, status: grpc.StatusCode, trailers: dict[str, str], details: str = "", rpc_id: str = ""
) -> PubSubError:
    """Return the error for a status and its trailers.

    Args:
        call: the call that failed.
        status: its gRPC status.
        trailers: trailing metadata as text.
        details: the status message; only shown when no code says more.
        rpc_id: trace id to name when the trailers have none.
    """
    code = trailers.get("error-code", "").removeprefix(CODE_PREFIX)
    rpc_id = trailers.get("rpc-id", "") or rpc_id
    rule = rule_for(call, status, code)
    message = f"{call.value} failed with {code} ({status.name})" if code else f"{call.value} failed with {status.name}"
    if rpc_id:
        message = f"{message}, rpc id {rpc_id}"
    if details and not code:
        message = f"{message}: {_shown(details)}"
    return rule.error(message, rule.advice, status=status.name, code=code, rpc_id=rpc_id)


def trailer_texts(metadata: grpc.aio.Metadata | None) -> dict[str, str]:
    """Return metadata as a dict of texts; of a repeated key the first value counts."""
    texts: dict[str, str] = {}
    for key, value in metadata or ():
        texts.setdefault(key, value if isinstance(value, str) else value.decode("utf-8", "replace"))
    return texts


def _shown(details: str) -> str:
    """Return the status message on one line, without words long enough to hold a token."""
    line = _LONG_WORD.sub("[...]", " ".join(details.split())).rstrip(". ")
    return line if len(line) <= _DETAILS_LIMIT else line[:_DETAILS_LIMIT] + "..."
