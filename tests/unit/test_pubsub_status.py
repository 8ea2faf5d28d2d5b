"""What each error code and status of the Pub/Sub API means, row by row."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from consumer.salesforce.status import CODE_PREFIX, CODES, STATUSES, Call, failure, rule_for, translate

Status = grpc.StatusCode

# Code, then what it is to: a Subscribe with a replay id, GetTopic, GetSchema.
ROWS: list[tuple[str, type[PubSubError], type[PubSubError], type[PubSubError]]] = [
    ("service.unavailable", StreamEndedError, StreamEndedError, SchemaUnavailableError),
    ("service.auth.error", TokenRefusedError, TokenRefusedError, TokenRefusedError),
    ("service.auth.headers.invalid", TokenRefusedError, TokenRefusedError, TokenRefusedError),
    ("service.auth.refresh.invalid", TokenRefusedError, TokenRefusedError, TokenRefusedError),
    ("service.protection.triggered", ServerProtectionError, ServerProtectionError, SchemaUnavailableError),
    (
        "service.protection.stream.limit.triggered",
        ServerProtectionError,
        ServerProtectionError,
        SchemaUnavailableError,
    ),
    ("service.tenant.license", TopicRefusedError, TopicRefusedError, SchemaUnavailableError),
    ("concurrent.client.limit.exceeded", ServerProtectionError, ServerProtectionError, SchemaUnavailableError),
    ("topic.not.found", TopicRefusedError, TopicRefusedError, SchemaUnavailableError),
    ("topic.meta.permission", TopicRefusedError, TopicRefusedError, SchemaUnavailableError),
    ("topic.api.unavailable", StreamEndedError, StreamEndedError, SchemaUnavailableError),
    ("topic.validation.empty", ProtocolError, ProtocolError, SchemaUnavailableError),
    ("schema.meta.permission", TopicRefusedError, TopicRefusedError, SchemaRefusedError),
    ("schema.api.unavailable", StreamEndedError, StreamEndedError, SchemaUnavailableError),
    ("schema.validation.failed", TopicRefusedError, TopicRefusedError, SchemaRefusedError),
    ("subscription.fetch.replayid.corrupted", PositionLostError, ProtocolError, SchemaUnavailableError),
    ("subscription.fetch.replayid.validation.failed", PositionLostError, ProtocolError, SchemaUnavailableError),
    ("subscription.fetch.replay.repeated", StreamEndedError, StreamEndedError, SchemaUnavailableError),
    ("subscription.limit.exceeded", DeliveryAllowanceError, DeliveryAllowanceError, SchemaUnavailableError),
    ("subscription.fetch.overflow", StreamEndedError, StreamEndedError, SchemaUnavailableError),
    ("subscription.fetch.requested.events.invalid", ProtocolError, ProtocolError, SchemaUnavailableError),
    ("subscription.fetch.topic.mismatch", ProtocolError, ProtocolError, SchemaUnavailableError),
    ("subscription.fetch.request.invalid", ProtocolError, ProtocolError, SchemaUnavailableError),
    ("subscription.topic.cannot.subscribe", TopicRefusedError, TopicRefusedError, SchemaUnavailableError),
    ("subscription.internal.error", StreamEndedError, StreamEndedError, SchemaUnavailableError),
    ("publish.stream.sweeper.timeout", StreamEndedError, StreamEndedError, SchemaUnavailableError),
    ("publish.auth.refresh.invalid", ProtocolError, ProtocolError, SchemaUnavailableError),
    ("publish.event.count.invalid", ProtocolError, ProtocolError, SchemaUnavailableError),
    ("publish.topic.mismatch", ProtocolError, ProtocolError, SchemaUnavailableError),
    ("publish.topic.validation.empty", ProtocolError, ProtocolError, SchemaUnavailableError),
    ("managed.subscription.already.active", ServerProtectionError, ServerProtectionError, SchemaUnavailableError),
    ("managed.subscription.config.stopped", TopicRefusedError, TopicRefusedError, SchemaUnavailableError),
    ("managed.subscription.config.deleted", TopicRefusedError, TopicRefusedError, SchemaUnavailableError),
    (
        "managed.subscription.developer.name.not.found",
        TopicRefusedError,
        TopicRefusedError,
        SchemaUnavailableError,
    ),
    (
        "managed.subscription.subscription.id.not.found",
        TopicRefusedError,
        TopicRefusedError,
        SchemaUnavailableError,
    ),
    (
        "managed.subscription.subscription.id.invalid",
        TopicRefusedError,
        TopicRefusedError,
        SchemaUnavailableError,
    ),
    ("managed.subscription.id.or.developer.name.empty", ProtocolError, ProtocolError, SchemaUnavailableError),
    ("managed.subscription.fetch.request.events.invalid", ProtocolError, ProtocolError, SchemaUnavailableError),
    ("managed.subscription.fetch.request.invalid", ProtocolError, ProtocolError, SchemaUnavailableError),
    (
        "managed.subscription.fetch.request.commit.request.restricted",
        ProtocolError,
        ProtocolError,
        SchemaUnavailableError,
    ),
    (
        "managed.subscription.fetch.request.auth.request.restricted",
        ProtocolError,
        ProtocolError,
        SchemaUnavailableError,
    ),
]

STATUS_ROWS: list[tuple[grpc.StatusCode, type[PubSubError], type[PubSubError]]] = [
    (Status.OK, StreamEndedError, SchemaUnavailableError),
    (Status.CANCELLED, StreamEndedError, SchemaUnavailableError),
    (Status.UNKNOWN, StreamEndedError, SchemaUnavailableError),
    (Status.INVALID_ARGUMENT, ProtocolError, SchemaRefusedError),
    (Status.DEADLINE_EXCEEDED, StreamEndedError, SchemaUnavailableError),
    (Status.NOT_FOUND, TopicRefusedError, SchemaRefusedError),
    (Status.ALREADY_EXISTS, ServerProtectionError, SchemaUnavailableError),
    (Status.PERMISSION_DENIED, TopicRefusedError, SchemaUnavailableError),
    (Status.RESOURCE_EXHAUSTED, ServerProtectionError, SchemaUnavailableError),
    (Status.FAILED_PRECONDITION, StreamEndedError, SchemaUnavailableError),
    (Status.ABORTED, StreamEndedError, SchemaUnavailableError),
    (Status.OUT_OF_RANGE, StreamEndedError, SchemaUnavailableError),
    (Status.UNIMPLEMENTED, StreamEndedError, SchemaUnavailableError),
    (Status.INTERNAL, StreamEndedError, SchemaUnavailableError),
    (Status.UNAVAILABLE, StreamEndedError, SchemaUnavailableError),
    (Status.DATA_LOSS, StreamEndedError, SchemaUnavailableError),
    (Status.UNAUTHENTICATED, TokenRefusedError, TokenRefusedError),
]


def rpc_error(
    status: grpc.StatusCode, *trailers: tuple[str, str | bytes], details: str = "details"
) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(status, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), details=details)


def test_the_rows_cover_every_code_and_every_status() -> None:
    assert {row[0] for row in ROWS} == set(CODES)
    assert {row[0] for row in STATUS_ROWS} == set(Status)


@pytest.mark.parametrize(("code", "resume", "topic", "schema"), ROWS, ids=str)
@pytest.mark.parametrize("status", [Status.INTERNAL, Status.INVALID_ARGUMENT, Status.UNAUTHENTICATED])
def test_the_code_decides_whatever_the_status(
    code: str,
    resume: type[PubSubError],
    topic: type[PubSubError],
    schema: type[PubSubError],
    status: grpc.StatusCode,
) -> None:
    expected = {Call.RESUME: resume, Call.SUBSCRIBE: topic, Call.GET_TOPIC: topic, Call.GET_SCHEMA: schema}
    for call, error_class in expected.items():
        error = translate(rpc_error(status, ("error-code", CODE_PREFIX + code), ("rpc-id", "r1")), call)
        assert type(error) is error_class, call
        assert (error.status, error.code, error.rpc_id) == (status.name, code, "r1")


@pytest.mark.parametrize(("status", "stream", "schema"), STATUS_ROWS, ids=str)
@pytest.mark.parametrize("code", ["", "something.new"])
def test_without_a_known_code_the_status_decides(
    status: grpc.StatusCode, stream: type[PubSubError], schema: type[PubSubError], code: str
) -> None:
    for call in Call:
        error = failure(call, status, {"error-code": CODE_PREFIX + code} if code else {})
        assert type(error) is (schema if call is Call.GET_SCHEMA else stream)
        assert error.code == code


@pytest.mark.parametrize("call", Call)
def test_every_rule_gives_one_sentence_of_advice(call: Call) -> None:
    rules = [rule_for(call, status, "") for status in Status]
    rules += [rule_for(call, None, code) for code in CODES]
    rules.append(rule_for(call, None, ""))
    for rule in rules:
        assert rule.advice.endswith(".")
        assert rule.advice.count(". ") == 0
        assert rule.advice[0].isupper()


@given(code=st.text(max_size=40), status=st.sampled_from(list(Status)), call=st.sampled_from(list(Call)))
def test_the_translation_is_total(code: str, status: grpc.StatusCode, call: Call) -> None:
    error = failure(call, status, {"error-code": code})
    assert isinstance(error, PubSubError)
    assert error.advice


@given(
    code=st.sampled_from(["", *CODES]),
    status=st.sampled_from(list(Status)),
    call=st.sampled_from([Call.GET_SCHEMA, Call.GET_TOPIC, Call.SUBSCRIBE]),
)
def test_only_a_subscribe_that_sent_a_replay_id_can_lose_its_position(
    code: str, status: grpc.StatusCode, call: Call
) -> None:
    assert rule_for(call, status, code).error is not PositionLostError


@given(code=st.sampled_from(["", "x", *CODES]), status=st.sampled_from([None, *STATUSES]))
def test_a_stream_never_ends_with_a_schema_error_nor_a_schema_call_with_another(
    code: str, status: grpc.StatusCode | None
) -> None:
    schema_errors = {SchemaRefusedError, SchemaUnavailableError}
    assert rule_for(Call.RESUME, status, code).error not in schema_errors
    assert rule_for(Call.GET_SCHEMA, status, code).error in schema_errors | {TokenRefusedError}


def test_the_servers_text_is_shown_only_when_no_code_says_more() -> None:
    coded = translate(rpc_error(Status.INTERNAL, ("error-code", CODE_PREFIX + "service.unavailable")), Call.RESUME)
    assert coded.message == "Subscribe from a replay id failed with service.unavailable (INTERNAL)"
    plain = translate(rpc_error(Status.UNAVAILABLE, details="Connection\nrefused."), Call.GET_TOPIC)
    assert plain.message == "GetTopic failed with UNAVAILABLE: Connection refused"


def test_no_word_long_enough_to_be_a_token_is_shown() -> None:
    token = "00Dxx0000000001!" + "A" * 96
    shown = str(translate(rpc_error(Status.UNKNOWN, details=f"bad token {token} here"), Call.SUBSCRIBE))
    assert token not in shown
    assert "bad token [...] here" in shown
    assert len(str(translate(rpc_error(Status.UNKNOWN, details="word " * 500), Call.SUBSCRIBE))) < 500


def test_binary_and_repeated_trailers_do_not_break_the_translation() -> None:
    error = translate(
        rpc_error(
            Status.INVALID_ARGUMENT,
            ("grpc-status-details-bin", b"\xff\x00"),
            ("error-code", CODE_PREFIX + "subscription.fetch.replayid.corrupted"),
            ("error-code", CODE_PREFIX + "service.unavailable"),
        ),
        Call.RESUME,
    )
    assert isinstance(error, PositionLostError)


def test_errors_that_are_no_rpc_errors_are_translated_too() -> None:
    class ExecuteBatchError(Exception):  # named like gRPC's private class
        pass

    for call in Call:
        assert isinstance(translate(ExecuteBatchError("secret"), call), TokenRefusedError)
        assert "secret" not in str(translate(ExecuteBatchError("secret"), call))
    assert isinstance(translate(grpc.aio.UsageError("Channel is closed."), Call.RESUME), StreamEndedError)
    assert isinstance(translate(ValueError("x"), Call.GET_SCHEMA), SchemaUnavailableError)
