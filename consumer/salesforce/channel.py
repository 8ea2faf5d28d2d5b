"""The gRPC channel to the Pub/Sub API, and the values every call needs."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import grpc
import grpc.aio

from consumer._proto import pubsub_api_pb2_grpc
from consumer.errors import ConfigError, TokenRefusedError

Metadata: TypeAlias = tuple[tuple[str, str], ...]

Channel: TypeAlias = grpc.aio.Channel
"""What other rooms hold without importing gRPC themselves."""

MAX_RECEIVE_BYTES = 16 << 20
"""A response is at most 3 MB (Pub/Sub API guide "Allocations"), but a schema can be larger than gRPC's 4 MB."""

_CLOSE_GRACE_S = 1.0

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    # Finds connections that a NAT or load balancer has dropped without a word.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 15_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # While the channel backs off every call fails at once, so its own back-off must stay below the stream's.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 10_000),
    # A hidden second attempt would use up credits that nobody counts.
    ("grpc.enable_retries", 0),
)


class CallSession(Protocol):
    """A login as calls need it."""

    def metadata(self) -> Metadata:
        """Return the headers of a call: ``accesstoken``, ``instanceurl`` and ``tenantid``."""
        ...


S = TypeVar("S", bound=CallSession)


class Tokens(Protocol[S]):
    """Where sessions come from; :class:`consumer.salesforce.tokens.TokenSource` is the real one."""

    async def get(self) -> S:
        """Return the current session, after logging in if there is none.

        Raises:
            LoginRejectedError: Salesforce refused the login.
            LoginUnavailableError: the login host could not be asked.
        """
        ...

    def invalidate(self, session: S) -> None:
        """Forget this session, if it is still the current one."""
        ...


@asynccontextmanager
async def pubsub_channel(
    endpoint: str, *, tls: bool = True, ca_file: Path | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    """Hold a channel to the Pub/Sub API open; it connects with the first call and reconnects by itself.

    Args:
        endpoint: ``host:port``.
        tls: False only for an emulated org.
        ca_file: root certificates (PEM) in place of the system's.

    Raises:
        ConfigError: the root certificates can't be read.
    """
    options = [*_OPTIONS, *([("grpc.enable_http_proxy", 0)] if _is_loopback(endpoint) else [])]
    if tls:
        credentials = grpc.ssl_channel_credentials(root_certificates=_root_certificates(ca_file))
        channel = grpc.aio.secure_channel(endpoint, credentials, options=options)
    else:
        channel = grpc.aio.insecure_channel(endpoint, options=options)
    try:
        yield channel
    finally:
        await channel.close(grace=_CLOSE_GRACE_S)


def pubsub_stub(channel: grpc.aio.Channel) -> Any:
    """Return the generated stub of the channel; it has no types, its messages do."""
    return pubsub_api_pb2_grpc.PubSubStub(channel)  # type: ignore[no-untyped-call]  # protoc writes none


def call_metadata(session: CallSession) -> Metadata:
    """Return the session's headers, after making sure that they can be sent.

    gRPC sends a missing value as an empty one and fails an unprintable one with an error that is not about
    authentication; either way the bad token would be kept for ever.

    Raises:
        TokenRefusedError: a header is empty or not printable ASCII.
    """
    metadata = session.metadata()
    values: tuple[tuple[str, object], ...] = metadata
    for key, value in values:
        if not isinstance(value, str) or not value or not (value.isascii() and value.isprintable()):
            raise TokenRefusedError(
                f"The header {key} is empty or holds characters that can't be sent",
                "Check the login's answer and salesforce.instance_url, org_id and access_token.",
            )
    return metadata


def _is_loopback(endpoint: str) -> bool:
    host = endpoint.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _root_certificates(ca_file: Path | None) -> bytes | None:
    """Return root certificates in PEM; None lets gRPC use the ones it brings along."""
    if ca_file is None:
        ca_file = _system_roots()
        if ca_file is None:
            return None
    try:
        return ca_file.read_bytes()
    except OSError as error:
        raise ConfigError(
            [f"The root certificates {ca_file} can't be read: {error.strerror}"],
            "Check salesforce.ca_file and the file's permissions.",
        ) from error


def _system_roots() -> Path | None:
    """Return the system's bundle, where it has one: gRPC's own list ages with the library."""
    paths = ssl.get_default_verify_paths()
    candidates = [paths.cafile, f"{paths.capath}/ca-certificates.crt" if paths.capath else None]
    return next((Path(name) for name in candidates if name and Path(name).is_file()), None)
