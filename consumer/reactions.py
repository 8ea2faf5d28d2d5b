"""One total function from an error to what the service does about it, with advice for the operator.

A narrow list mends itself; everything else waits for a person. A test walks all subclasses of
:class:`~consumer.errors.ServiceError` and fails on one that is not in the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from consumer import errors


class Reaction(StrEnum):
    """What the supervisor of a subscription does."""

    RETRY = "retry"
    """Try again after a back-off; nothing was lost."""
    REAUTHENTICATE = "reauthenticate"
    """Drop the token, log in again, go on."""
    RESUBSCRIBE = "resubscribe"
    """Open a new Subscribe call from the last position."""
    RECOVER_POSITION = "recover_position"
    """Open a loss window and go on as ``pubsub.on_lost_position`` says."""
    RESTART = "restart"
    """Drop everything in memory, read position and state from Kafka again, go on."""
    STEP_DOWN = "step_down"
    """Stop, leave the group, and run only after a new assignment."""
    QUARANTINE = "quarantine"
    """Put the event aside with a loss window, go on with the next."""
    HALT = "halt"
    """Stay up, take no credits, wait for ``resume`` or a restart."""
    STOP = "stop"
    """End the process with the error's exit code."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What to do about one class of errors.

    Attributes:
        reaction: what the service does.
        advice: what the operator does, when the error itself brings no advice.
        at_least_s: shortest wait before the next attempt, seconds.
    """

    reaction: Reaction
    advice: str
    at_least_s: float = 0.0


_FIFTEEN_MINUTES_S = 900.0
_ONE_MINUTE_S = 60.0

_POLICIES: dict[type[errors.ServiceError], Policy] = {
    errors.ServiceError: Policy(Reaction.HALT, "Report this with the log; it is not an expected error."),
    errors.UsageError: Policy(Reaction.STOP, "Run the command with --help."),
    errors.ConfigError: Policy(Reaction.STOP, "Mend the configuration; `session-consumer config show` prints it."),
    errors.LoginError: Policy(Reaction.RETRY, "Run `session-consumer check`.", _ONE_MINUTE_S),
    errors.LoginRejectedError: Policy(
        Reaction.RETRY, "Run `session-consumer check`; it names the setting to mend.", _ONE_MINUTE_S
    ),
    errors.LoginUnavailableError: Policy(Reaction.RETRY, "Check the network path to the login host."),
    errors.PubSubError: Policy(Reaction.RESUBSCRIBE, "Quote the rpc id to Salesforce support if it persists."),
    errors.StreamEndedError: Policy(Reaction.RESUBSCRIBE, "Nothing to do: streams end and are opened again."),
    errors.TokenRefusedError: Policy(Reaction.REAUTHENTICATE, "Run `session-consumer check` if it persists."),
    errors.PositionLostError: Policy(
        Reaction.RECOVER_POSITION, "See the loss window on the coverage topic; events before it may be missing."
    ),
    errors.TopicRefusedError: Policy(
        Reaction.RETRY,
        "Select the object in Setup > Change Data Capture and give the user View All on it.",
        _ONE_MINUTE_S,
    ),
    errors.DeliveryAllowanceError: Policy(
        Reaction.RETRY, "Wait for the rolling 24 h window, or buy the event delivery add-on.", _FIFTEEN_MINUTES_S
    ),
    errors.ServerProtectionError: Policy(
        Reaction.RESUBSCRIBE, "Run fewer Pub/Sub clients against this org.", _ONE_MINUTE_S
    ),
    errors.SchemaUnavailableError: Policy(Reaction.RETRY, "Nothing to do: the event waits for its schema."),
    errors.SchemaRefusedError: Policy(Reaction.QUARANTINE, "Give the user access to the event's schema."),
    errors.ProtocolError: Policy(Reaction.HALT, "Update the service, or report this with the rpc id."),
    errors.EventError: Policy(Reaction.QUARANTINE, "Look at it with `session-consumer quarantine list`."),
    errors.SchemaParseError: Policy(Reaction.QUARANTINE, "Look at it with `session-consumer quarantine list`."),
    errors.PayloadError: Policy(Reaction.QUARANTINE, "Look at it with `session-consumer quarantine list`."),
    errors.BitmapError: Policy(Reaction.QUARANTINE, "Look at it with `session-consumer quarantine list`."),
    errors.NotAChangeEventError: Policy(Reaction.QUARANTINE, "Take channels of platform events out of pubsub.topics."),
    errors.KafkaError: Policy(Reaction.RESTART, "Look at the broker's log."),
    errors.KafkaUnavailableError: Policy(Reaction.RESTART, "Check kafka.bootstrap_servers and the network."),
    errors.TransactionFailedError: Policy(Reaction.RESTART, "Nothing to do: the batch is sent again."),
    errors.ProducerFencedError: Policy(Reaction.STEP_DOWN, "Nothing to do: another worker has taken over."),
    errors.KafkaRefusedError: Policy(Reaction.HALT, "Mend the credentials, ACLs or topics, then `resume`."),
    errors.ForeignStateError: Policy(
        Reaction.HALT, "Give this deployment its own service.name and kafka.topic_prefix."
    ),
    errors.FloodError: Policy(
        Reaction.HALT, "Look at the payloads with `verify`, then `resume`, with --accept-flood to quarantine them."
    ),
    errors.RecordingError: Policy(Reaction.STOP, "Record again."),
    errors.SalesforceApiError: Policy(Reaction.RETRY, "Run `session-consumer check`.", _ONE_MINUTE_S),
    errors.SessionRefusedError: Policy(Reaction.REAUTHENTICATE, "Run `session-consumer check` if it persists."),
    errors.SalesforceUnavailableError: Policy(Reaction.RETRY, "Nothing to do: the question is asked again."),
    errors.QuotaError: Policy(
        Reaction.RETRY, "Raise the org's API limit, or lower the pace of polls in [rest].", _FIFTEEN_MINUTES_S
    ),
    errors.QueryRefusedError: Policy(
        Reaction.RETRY, "Give the user read access to the object and its fields.", _ONE_MINUTE_S
    ),
    errors.RowError: Policy(Reaction.RETRY, "Report this with the log; the record is read again.", _ONE_MINUTE_S),
    errors.StoreError: Policy(Reaction.RETRY, "Name a writable directory with room in state.path.", _ONE_MINUTE_S),
    errors.EmulatorError: Policy(Reaction.STOP, "Mend the scenario."),
}


def policy_for(error: errors.ServiceError) -> Policy:
    """Return the policy of an error's class."""
    return _POLICIES[type(error)]


def covered_classes() -> frozenset[type[errors.ServiceError]]:
    """Return the classes that have a policy of their own."""
    return frozenset(_POLICIES)


def advice_for(error: errors.ServiceError) -> str:
    """Return the error's own advice, or that of its class."""
    return error.advice or policy_for(error).advice
