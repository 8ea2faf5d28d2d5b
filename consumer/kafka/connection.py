"""How the cluster is reached, and what its errors mean to us: no aiokafka exception leaves this package."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from aiokafka import errors as kafka
from aiokafka.conn import collect_hosts, create_conn

from consumer.errors import (
    ConfigError,
    KafkaError,
    KafkaRefusedError,
    KafkaUnavailableError,
    ProducerFencedError,
    UsageError,
)
from consumer.settings import KafkaSettings

REQUEST_TIMEOUT_MS = 20_000
"""Longest wait for one answer of a broker, milliseconds."""

CONNECT_LIMIT_S = 30.0
"""Longest start of a client, seconds; the client itself sets no limit."""

_DIAGNOSIS_LIMIT_MS = 5_000
_CLOSE_LIMIT_S = 5.0

_log = structlog.get_logger(__name__)

CLIENT_ERRORS: tuple[type[Exception], ...] = (OSError, RuntimeError)
"""What a call of the client can end with: aiokafka's own errors are RuntimeErrors, and so is what uvloop raises when
the client writes to a connection that was reset a moment ago."""


class TopicMaker(Protocol):
    """A broker in this process that makes topics by a call, because it serves no admin requests."""

    def create_topic(self, name: str, partitions: int) -> None:
        """Create the topic; one that exists is left as it is."""
        ...


@dataclass(frozen=True, slots=True)
class Cluster:
    """One Kafka cluster as all adapters of this package see it.

    Attributes:
        settings: the configured values.
        client_id: how the broker's logs and quotas call us.
        embedded: the embedded broker, None for a real cluster.
    """

    settings: KafkaSettings
    client_id: str = "messaging-session-consumer"
    embedded: TopicMaker | None = None

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments that every aiokafka client takes.

        Raises:
            ConfigError: the CA file can't be used, or SASL lacks its user or password.
        """
        settings = self.settings
        options: dict[str, Any] = {
            "bootstrap_servers": settings.bootstrap_servers,
            "client_id": self.client_id,
            "request_timeout_ms": REQUEST_TIMEOUT_MS,
            "security_protocol": settings.security_protocol,
        }
        if settings.security_protocol.endswith("SSL"):
            options["ssl_context"] = _ssl_context(settings)
        if settings.security_protocol.startswith("SASL"):
            if settings.sasl_username is None or settings.sasl_password is None:
                raise ConfigError(
                    ["kafka.sasl_username and kafka.sasl_password are needed with SASL"],
                    "Set both; the password may come from kafka.sasl_password_file.",
                )
            options |= {
                "sasl_mechanism": settings.sasl_mechanism,
                "sasl_plain_username": settings.sasl_username,
                "sasl_plain_password": settings.sasl_password.get_secret_value(),
            }
        return options

    def reader_options(self) -> dict[str, Any]:
        """Return the keyword arguments of consumers: read-committed, from the beginning, without commits."""
        return self.options() | {
            "isolation_level": "read_committed",
            "auto_offset_reset": "earliest",
            "enable_auto_commit": False,
            "fetch_max_wait_ms": 100,
            # The embedded broker writes control batches without a checksum from librdkafka 2.15 on.
            "check_crcs": self.embedded is None,
        }


def require_checks() -> None:
    """Refuse to run under ``python -O``: aiokafka's own state checks are ``assert`` statements.

    Raises:
        UsageError: assertions are off.
    """
    if not __debug__:
        raise UsageError(
            "Python runs with assertions off (-O or PYTHONOPTIMIZE), and the Kafka client relies on them",
            "Start without -O and unset PYTHONOPTIMIZE.",
        )


def _ssl_context(settings: KafkaSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            [f"kafka.ca_file {settings.ca_file} can't be used: {error.strerror or type(error).__name__}"],
            "Name a file of PEM certificates.",
        ) from error


@asynccontextmanager
async def asking(cluster: Cluster, doing: str, limit_s: float = CONNECT_LIMIT_S) -> AsyncIterator[None]:
    """Bound what is done inside in time, and translate its errors.

    Args:
        cluster: for the advice, and to find out why a connection failed.
        doing: what is being done, as in "creating topics".
        limit_s: longest duration, seconds.

    Raises:
        KafkaUnavailableError: no answer in time.
        KafkaRefusedError: Kafka refused for good.
        ProducerFencedError: another worker has taken over.
    """
    try:
        async with asyncio.timeout(limit_s):
            yield
    except kafka.KafkaConnectionError as error:
        # "Unable to bootstrap" hides whether it was the name, the port, the certificate or the password.
        raise translate(await _diagnose(cluster) or error, doing, cluster) from error
    except CLIENT_ERRORS as error:
        raise translate(error, doing, cluster) from error


async def close_admin(admin: Any) -> None:
    """Close an admin client, bounded in time, whatever became of its connections."""
    try:
        async with asyncio.timeout(_CLOSE_LIMIT_S):
            await admin.close()
    except CLIENT_ERRORS as error:
        _log.debug("kafka.close_not_clean", reason=type(error).__name__)


async def _diagnose(cluster: Cluster) -> Exception | None:
    """Return why the last of the bootstrap servers can't be used; None if it now can."""
    options = cluster.options() | {"request_timeout_ms": _DIAGNOSIS_LIMIT_MS}
    reason: Exception | None = None
    for host, port, _family in collect_hosts(options.pop("bootstrap_servers")):
        try:
            connection = await create_conn(host, port, **options)
        except CLIENT_ERRORS as error:
            reason = error
        else:
            connection.close()
            return None
    return reason


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes: aiokafka wraps what it did not expect."""
    seen = 0
    while error is not None and seen < 10:
        yield error
        error = error.__cause__ or error.__context__
        seen += 1


def is_fenced(error: BaseException) -> bool:
    """Return whether an error says that the producer's epoch is over.

    That means one of two things: a newer worker with the same transactional id, or this transaction outlived
    its timeout. Only the group membership can tell which, so the caller asks that before it opens again.
    """
    return any(isinstance(each, kafka.ProducerFenced | kafka.InvalidProducerEpoch) for each in chain(error))


_ADVICE: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    (
        (kafka.SaslAuthenticationFailed, kafka.AuthenticationFailedError),
        "Check kafka.sasl_username, kafka.sasl_password and kafka.sasl_mechanism.",
    ),
    (
        (kafka.UnsupportedSaslMechanismError, kafka.IllegalSaslStateError),
        "Check kafka.sasl_mechanism and kafka.security_protocol: this listener does not offer them.",
    ),
    (
        (kafka.TopicAuthorizationFailedError,),
        (
            "Grant the principal Read, Write, Describe and DescribeConfigs on topics with kafka.topic_prefix, "
            "and Create with kafka.create_topics."
        ),
    ),
    ((kafka.GroupAuthorizationFailedError,), "Grant the principal Read and Describe on the service's group."),
    (
        (kafka.ClusterAuthorizationFailedError,),
        (
            "Grant the principal Create and Describe on the cluster, or set kafka.create_topics = false and "
            "create the topics yourself."
        ),
    ),
    (
        (kafka.TransactionalIdAuthorizationFailed,),
        "Grant the principal Write and Describe on transactional ids that begin with service.name.",
    ),
    (
        (kafka.InvalidTransactionTimeout,),
        "Lower kafka.transaction_timeout to the broker's transaction.max.timeout.ms or less.",
    ),
    (
        (kafka.InvalidReplicationFactorError,),
        "Set kafka.replication_factor to at most the number of brokers, or to -1 for the cluster's default.",
    ),
    ((kafka.PolicyViolationError, kafka.InvalidConfigurationError), "Ask who runs the cluster."),
    (
        (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError, kafka.RecordTooLargeError),
        "Raise max.message.bytes of the topic.",
    ),
    ((kafka.InvalidSessionTimeoutError,), "Keep kafka.session_timeout within the broker's group limits."),
    ((kafka.IncompatibleBrokerVersion, kafka.UnsupportedVersionError), "Use Apache Kafka 2.5 or later."),
)


def translate(error: BaseException, doing: str, cluster: Cluster) -> KafkaError:
    """Return our error for one of aiokafka or the operating system.

    Args:
        error: what was caught.
        doing: what was being done, as in "creating topics".
        cluster: for its address.
    """
    where = cluster.settings.bootstrap_servers
    if is_fenced(error):
        return ProducerFencedError(
            f"Another worker took over, or a transaction outlived its timeout, while {doing}",
            "Nothing to do if a standby took over; otherwise look for a second deployment with this service.name.",
        )
    for each in chain(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            return KafkaRefusedError(
                f"The certificate of {where} is not trusted ({each.verify_message}) while {doing}",
                "Set kafka.ca_file to the authority that signed it, and use the host name it was made for.",
            )
        if isinstance(each, ssl.SSLError):
            return KafkaRefusedError(
                f"{where} did not agree on TLS ({each.reason or 'no reason given'}) while {doing}",
                "Check kafka.security_protocol against the listener behind this port.",
            )
        for classes, advice in _ADVICE:
            if isinstance(each, classes):
                return KafkaRefusedError(f"Kafka refused with {type(each).__name__} while {doing}", advice)
    return KafkaUnavailableError(
        f"Kafka at {where} did not answer while {doing} ({_in_short(error)})",
        "Check kafka.bootstrap_servers, kafka.security_protocol and the network path to the brokers.",
    )


def _in_short(error: BaseException) -> str:
    """Return a few words about an error; never its whole text, which may hold what was sent."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    names = [type(each).__name__ for each in chain(error)]
    return ", caused by ".join(dict.fromkeys(names))
