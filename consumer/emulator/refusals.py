"""How calls end: gRPC status, error code and text of everything the emulated server refuses.

Codes and texts are those of the Pub/Sub API guide, "Handle Errors". Statuses the guide does not give are the
likeliest ones; a client must decide by the code.
"""

from __future__ import annotations

from dataclasses import dataclass

from grpc import StatusCode

from consumer.errors import EmulatorError

CODE_PREFIX = "sfdc.platform.eventbus.grpc."


@dataclass(frozen=True, slots=True)
class CallEnd:
    """How one call ends.

    Attributes:
        status: gRPC status.
        code: error code without its common prefix; empty for ends that carry no trailers, as those of proxies
            and of the transport do.
        text: details, without the rpc id.
    """

    status: StatusCode
    code: str = ""
    text: str = ""


class CallRefusedError(EmulatorError):
    """A call is refused; ``end`` says how. The server's own errors, never shown to a person."""

    def __init__(self, end: CallEnd) -> None:
        super().__init__(end.text)
        self.end = end


OK = CallEnd(StatusCode.OK)
CREDIT_TIMEOUT = CallEnd(StatusCode.OK)
"""The guide only says that the server ends the stream; a client can't rely on a reason."""

SERVICE_UNAVAILABLE = CallEnd(
    StatusCode.INTERNAL, "service.unavailable", "The service is unavailable. Try again later."
)
AUTH_ERROR = CallEnd(
    StatusCode.UNAUTHENTICATED,
    "service.auth.error",
    "An authentication exception occurred. Provide valid authentication via metadata headers.",
)
COMMIT_TIMEOUT = CallEnd(
    StatusCode.DEADLINE_EXCEEDED,
    "",
    "No CommitReplayRequests sent in the last 1800 seconds. Closing managed subscription.",
)
ALREADY_ACTIVE = CallEnd(
    StatusCode.ALREADY_EXISTS,
    "managed.subscription.already.active",
    "An active managed subscription with the same ID already exists. If a previous subscription with the same "
    "ID was stopped, there can be a delay before it expires. Try subscribing again later.",
)
LIMIT_EXCEEDED = CallEnd(
    StatusCode.RESOURCE_EXHAUSTED,
    "subscription.limit.exceeded",
    "You have exceeded the event delivery limit for your org.",
)
CORRUPTED = CallEnd(
    StatusCode.INVALID_ARGUMENT,
    "subscription.fetch.replayid.corrupted",
    "The Replay ID validation failed. Ensure that the Replay ID is valid.",
)
TOO_MANY_CONNECTIONS = CallEnd(
    StatusCode.RESOURCE_EXHAUSTED,
    "",
    "The service received too many connections and doesn't have the resources to accept new connections.",
)
TOO_LARGE = CallEnd(
    StatusCode.UNAVAILABLE,
    "",
    "upstream connect error or disconnect/reset before headers. reset reason: remote reset",
)
RST_NO_ERROR = CallEnd(StatusCode.UNAVAILABLE, "", "RST_STREAM closed stream. HTTP/2 error code: NO_ERROR")
INTERNAL_RESET = CallEnd(StatusCode.INTERNAL, "", "Received RST_STREAM with code 0 (Call ended without gRPC status)")

STATUS_OF_CODE: dict[str, StatusCode] = {
    "service.unavailable": StatusCode.INTERNAL,
    "service.auth.error": StatusCode.UNAUTHENTICATED,
    "service.auth.headers.invalid": StatusCode.UNAUTHENTICATED,
    "service.auth.refresh.invalid": StatusCode.UNAUTHENTICATED,
    "service.protection.triggered": StatusCode.RESOURCE_EXHAUSTED,
    "service.protection.stream.limit.triggered": StatusCode.RESOURCE_EXHAUSTED,
    "service.tenant.license": StatusCode.PERMISSION_DENIED,
    "concurrent.client.limit.exceeded": StatusCode.RESOURCE_EXHAUSTED,
    "topic.not.found": StatusCode.NOT_FOUND,
    "topic.meta.permission": StatusCode.PERMISSION_DENIED,
    "topic.api.unavailable": StatusCode.UNAVAILABLE,
    "topic.validation.empty": StatusCode.INVALID_ARGUMENT,
    "schema.meta.permission": StatusCode.PERMISSION_DENIED,
    "schema.api.unavailable": StatusCode.UNAVAILABLE,
    "schema.validation.failed": StatusCode.INVALID_ARGUMENT,
    "subscription.fetch.replayid.corrupted": StatusCode.INVALID_ARGUMENT,
    "subscription.fetch.replayid.validation.failed": StatusCode.INVALID_ARGUMENT,
    "subscription.fetch.replay.repeated": StatusCode.INTERNAL,
    "subscription.limit.exceeded": StatusCode.RESOURCE_EXHAUSTED,
    "subscription.fetch.overflow": StatusCode.RESOURCE_EXHAUSTED,
    "subscription.fetch.requested.events.invalid": StatusCode.INVALID_ARGUMENT,
    "subscription.fetch.topic.mismatch": StatusCode.INVALID_ARGUMENT,
    "subscription.fetch.request.invalid": StatusCode.INVALID_ARGUMENT,
    "subscription.topic.cannot.subscribe": StatusCode.PERMISSION_DENIED,
    "subscription.internal.error": StatusCode.INTERNAL,
    "publish.stream.sweeper.timeout": StatusCode.DEADLINE_EXCEEDED,
    "publish.auth.refresh.invalid": StatusCode.INVALID_ARGUMENT,
    "publish.event.count.invalid": StatusCode.INVALID_ARGUMENT,
    "publish.topic.mismatch": StatusCode.INVALID_ARGUMENT,
    "publish.topic.validation.empty": StatusCode.INVALID_ARGUMENT,
    "managed.subscription.already.active": StatusCode.ALREADY_EXISTS,
    "managed.subscription.config.stopped": StatusCode.FAILED_PRECONDITION,
    "managed.subscription.config.deleted": StatusCode.NOT_FOUND,
    "managed.subscription.developer.name.not.found": StatusCode.NOT_FOUND,
    "managed.subscription.subscription.id.not.found": StatusCode.NOT_FOUND,
    "managed.subscription.subscription.id.invalid": StatusCode.INVALID_ARGUMENT,
    "managed.subscription.id.or.developer.name.empty": StatusCode.INVALID_ARGUMENT,
    "managed.subscription.fetch.request.events.invalid": StatusCode.INVALID_ARGUMENT,
    "managed.subscription.fetch.request.invalid": StatusCode.INVALID_ARGUMENT,
    "managed.subscription.fetch.request.commit.request.restricted": StatusCode.INVALID_ARGUMENT,
    "managed.subscription.fetch.request.auth.request.restricted": StatusCode.INVALID_ARGUMENT,
}
"""Every code of the guide with its status."""


def refuse(code: str, text: str) -> CallRefusedError:
    """Build the error for a code of the guide.

    Args:
        code: a key of :data:`STATUS_OF_CODE`.
        text: details, without the rpc id.
    """
    return CallRefusedError(CallEnd(STATUS_OF_CODE[code], code, text))
