"""Every error the service raises, arranged by what the operator or the service has to do about it.

The tree::

    ServiceError
    ├── UsageError                     wrong command line (exit 2)
    ├── ConfigError                    wrong configuration, all faults at once (exit 2)
    ├── LoginError
    │   ├── LoginRejectedError         Salesforce said no; stays so until someone acts
    │   └── LoginUnavailableError      could not be asked; try again
    ├── PubSubError                    carries gRPC status, error code and rpc id
    │   ├── StreamEndedError           any end that a new Subscribe mends
    │   ├── TokenRefusedError          the access token is not accepted
    │   ├── PositionLostError          the replay id is expired, corrupted or refused
    │   ├── TopicRefusedError          unknown topic, no permission, no licence
    │   ├── DeliveryAllowanceError     the org's 24 h event allowance is used up
    │   ├── ServerProtectionError      too many connections, clients or requests
    │   ├── SchemaUnavailableError     a schema can't be fetched now
    │   ├── SchemaRefusedError         a schema will not be given
    │   └── ProtocolError              we or the server broke the protocol
    ├── EventError                     one event can't be processed (quarantine)
    │   ├── SchemaParseError           the schema is not one we can read
    │   ├── PayloadError               the bytes contradict the schema
    │   ├── BitmapError                a field bitmap contradicts the schema
    │   └── NotAChangeEventError       decodes, but is no change event
    ├── KafkaError
    │   ├── KafkaUnavailableError      no broker answered in time
    │   ├── TransactionFailedError     the transaction's outcome is no or unknown
    │   ├── ProducerFencedError        another worker has taken over
    │   └── KafkaRefusedError          credentials, ACL or topic settings
    ├── ForeignStateError              topics belong to another org, cluster or newer version
    ├── FloodError                     too many events in quarantine
    ├── RecordingError                 a recording can't be read
    └── EmulatorError                  the emulated org was asked for something it can't do
"""

from __future__ import annotations

from collections.abc import Sequence


class ServiceError(Exception):
    """Root of all errors of this package: one sentence, and one sentence of advice.

    Args:
        message: what happened, one sentence without a final full stop; never holds a secret.
        advice: what to do about it, one sentence; empty when the message says it all.
    """

    exit_code = 1

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.message}. {self.advice}".rstrip() if self.advice else self.message


class UsageError(ServiceError):
    """The command line is wrong."""

    exit_code = 2


class ConfigError(ServiceError):
    """The configuration is wrong; ``faults`` lists every fault found, not only the first."""

    exit_code = 2

    def __init__(self, faults: Sequence[str], advice: str = "") -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(self.faults), advice)


class LoginError(ServiceError):
    """No access token could be had."""


class LoginRejectedError(LoginError):
    """Salesforce refused the login; ``code`` is the OAuth error code or SOAP fault code."""

    def __init__(self, message: str, advice: str = "", *, code: str = "") -> None:
        super().__init__(message, advice)
        self.code = code


class LoginUnavailableError(LoginError):
    """The login host could not be asked, or asked us to wait ``retry_after_s`` seconds (0: it did not say)."""

    def __init__(self, message: str, advice: str = "", *, retry_after_s: float = 0.0) -> None:
        super().__init__(message, advice)
        self.retry_after_s = retry_after_s


class PubSubError(ServiceError):
    """A Pub/Sub API call failed.

    Args:
        message: what happened.
        advice: what to do about it.
        status: gRPC status name such as ``UNAVAILABLE``; empty when no call was made.
        code: the ``error-code`` trailer without its common prefix; empty when absent.
        rpc_id: the server's trace id for support cases.
    """

    def __init__(self, message: str, advice: str = "", *, status: str = "", code: str = "", rpc_id: str = "") -> None:
        super().__init__(message, advice)
        self.status = status
        self.code = code
        self.rpc_id = rpc_id


class StreamEndedError(PubSubError):
    """The stream ended in a way that a new Subscribe from the last position mends."""


class TokenRefusedError(PubSubError):
    """The access token is not accepted."""


class PositionLostError(PubSubError):
    """The stored replay id is expired, corrupted or refused; only the policy can go on."""


class TopicRefusedError(PubSubError):
    """The topic does not exist, or this user may not read it."""


class DeliveryAllowanceError(PubSubError):
    """The org's rolling 24 h event delivery allowance is used up."""


class ServerProtectionError(PubSubError):
    """The server protects itself from too many connections, clients or requests."""


class SchemaUnavailableError(PubSubError):
    """The schema can't be fetched now; the event waits."""


class SchemaRefusedError(PubSubError):
    """The schema will not be given to this user; the event goes to quarantine."""


class ProtocolError(PubSubError):
    """The protocol was broken, by us or by the server; repeating does not help."""


class EventError(ServiceError):
    """One event can't be processed.

    ``record_ids`` holds the ids the header named, if it could be read.
    """

    reason = "event"

    def __init__(self, message: str, advice: str = "", *, record_ids: tuple[str, ...] = ()) -> None:
        super().__init__(message, advice)
        self.record_ids = record_ids


class SchemaParseError(EventError):
    """The writer schema is not valid Avro, or not of a shape we can read."""

    reason = "schema_unreadable"


class PayloadError(EventError):
    """The payload does not decode with its own schema."""

    reason = "payload_undecodable"


class BitmapError(EventError):
    """A bitmap names a field that the schema does not have."""

    reason = "bitmap_invalid"


class NotAChangeEventError(EventError):
    """The payload decodes, but has no change event header."""

    reason = "not_a_change_event"


class KafkaError(ServiceError):
    """Kafka did not do what was asked."""


class KafkaUnavailableError(KafkaError):
    """No broker answered in time."""


class TransactionFailedError(KafkaError):
    """A transaction failed, or its outcome is unknown: position and state must be read again."""


class ProducerFencedError(KafkaError):
    """Another worker with the same transactional id has taken over."""


class KafkaRefusedError(KafkaError):
    """Kafka refused for good: credentials, ACL, or a topic that is not as it must be."""


class ForeignStateError(ServiceError):
    """The topics belong to another org, another cluster, or a newer version of this service."""


class FloodError(ServiceError):
    """Too many events could not be processed: something is wrong with more than one event."""


class RecordingError(ServiceError):
    """A recording is broken or not a recording."""


class EmulatorError(ServiceError):
    """The emulated org can't do what the scenario or control call asked."""


class SalesforceApiError(ServiceError):
    """A call of the REST or Bulk API failed; ``code`` is Salesforce's errorCode, empty when there was none."""

    def __init__(self, message: str, advice: str = "", *, code: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(message, advice)
        self.code = code
        self.retry_after_s = retry_after_s


class SessionRefusedError(SalesforceApiError):
    """The access token is not accepted; a new one may be."""


class SalesforceUnavailableError(SalesforceApiError):
    """No usable answer came; ask again later."""


class QuotaError(SalesforceApiError):
    """The org's daily API calls are used up, or only the reserve for repairs is left."""


class QueryRefusedError(SalesforceApiError):
    """The org will not answer this question: an object or field is unknown or not permitted, or a cursor is gone."""


class RowError(SalesforceApiError):
    """A row holds a value that its schema and describe do not allow."""


class StoreError(ServiceError):
    """The local state store can't be used: its path can't be written, or the disk is full."""
