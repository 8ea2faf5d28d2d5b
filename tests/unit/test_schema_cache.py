"""Schemas and topics by unary calls against a scripted gRPC server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from consumer._proto import pubsub_api_pb2 as pb
from consumer.errors import (
    LoginRejectedError,
    LoginUnavailableError,
    SchemaRefusedError,
    SchemaUnavailableError,
    TokenRefusedError,
    TopicRefusedError,
)
from consumer.events import ReceivedSchema, TapItem
from consumer.ports import SchemaSource
from consumer.position import Position
from consumer.salesforce.schemas import SchemaCache
from consumer.salesforce.status import CODE_PREFIX
from consumer.salesforce.topics import TopicInfo, get_topic
from tests.unit.pubsub_script import (
    LIMIT_S,
    TOPIC,
    FakeSession,
    FakeTokens,
    ScriptedPubSub,
    ServerCall,
    bench,
    collect,
    connected,
    event_ids,
)

Status = grpc.StatusCode
Answer = Callable[[pb.SchemaRequest, Any], Awaitable[pb.SchemaInfo]]


@dataclass
class Asked:
    """A cache, and what its server was asked."""

    cache: SchemaCache[FakeSession]
    tokens: FakeTokens
    requests: list[tuple[str, str]] = field(default_factory=list)
    tapped: list[TapItem] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        return [schema_id for schema_id, _ in self.requests]


async def give(request: pb.SchemaRequest, context: Any) -> pb.SchemaInfo:
    return pb.SchemaInfo(schema_json=f'"{request.schema_id}"', schema_id=request.schema_id, rpc_id="r1")


def refuse(status: grpc.StatusCode, code: str = "") -> Answer:
    async def answer(request: pb.SchemaRequest, context: Any) -> pb.SchemaInfo:
        trailers = (("error-code", CODE_PREFIX + code), ("rpc-id", "r9")) if code else ()
        await context.abort(status, "scripted", trailers)
        raise AssertionError

    return answer


@contextlib.asynccontextmanager
async def asking(answer: Answer, tokens: FakeTokens | None = None, **options: Any) -> AsyncIterator[Asked]:
    service, tokens = ScriptedPubSub(), tokens or FakeTokens()
    tapped: list[TapItem] = []
    async with connected(service) as channel:
        cache = SchemaCache(channel, TOPIC, tokens, tap=tapped.append, now_ms=lambda: 7, **options)
        asked = Asked(cache, tokens, tapped=tapped)

        async def remember(request: pb.SchemaRequest, context: Any) -> pb.SchemaInfo:
            metadata = dict(context.invocation_metadata())
            asked.requests.append((request.schema_id, metadata["accesstoken"]))
            return await answer(request, context)

        service.schemas = remember
        yield asked


async def test_a_schema_is_fetched_once_and_told_to_the_tap_once() -> None:
    async with asking(give) as asked:
        source: SchemaSource = asked.cache
        assert [await source.fetch("s1") for _ in range(3)] == ['"s1"'] * 3
        assert asked.requests == [("s1", "token-1")]
        assert asked.tapped == [ReceivedSchema(TOPIC, "s1", '"s1"', 7)]


async def test_many_who_want_the_same_schema_cause_one_call() -> None:
    async with asking(give) as asked:
        results = await asyncio.gather(*(asked.cache.fetch(f"s{i % 2}") for i in range(20)))
        assert results == [f'"s{i % 2}"' for i in range(20)]
        assert sorted(asked.ids) == ["s0", "s1"]


async def test_many_who_want_the_same_schema_share_its_failure_but_later_ones_ask_anew() -> None:
    async with asking(refuse(Status.UNAVAILABLE)) as asked:
        results = await asyncio.gather(*(asked.cache.fetch("s1") for _ in range(5)), return_exceptions=True)
        assert [type(result) for result in results] == [SchemaUnavailableError] * 5
        assert len(asked.ids) == 1
        with pytest.raises(SchemaUnavailableError):
            await asked.cache.fetch("s1")
        assert len(asked.ids) == 2


@pytest.mark.parametrize("victim", [0, 1], ids=["who asks", "who waits"])
async def test_a_cancelled_caller_takes_nobody_along(victim: int) -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def slow(request: pb.SchemaRequest, context: Any) -> pb.SchemaInfo:
        arrived.set()
        await go.wait()
        return await give(request, context)

    async with asking(slow) as asked:
        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
            callers = [tasks.create_task(asked.cache.fetch("s1")) for _ in range(3)]
            await arrived.wait()
            callers[victim].cancel()
            await asyncio.wait([callers[victim]])
            go.set()
        assert callers[victim].cancelled()
        assert [caller.result() for caller in callers if caller is not callers[victim]] == ['"s1"'] * 2
        assert len(asked.ids) == (2 if victim == 0 else 1)


async def test_a_refused_token_is_replaced_once_and_the_schema_asked_for_again() -> None:
    async def answer(request: pb.SchemaRequest, context: Any) -> pb.SchemaInfo:
        if ("accesstoken", "token-1") in context.invocation_metadata():
            return await refuse(Status.UNAUTHENTICATED, "service.auth.error")(request, context)
        return await give(request, context)

    async with asking(answer) as asked:
        assert await asked.cache.fetch("s1") == '"s1"'
        assert asked.requests == [("s1", "token-1"), ("s1", "token-2")]
        assert asked.tokens.invalidated == [1]


async def test_a_fresh_token_refused_too_leaves_the_schema_unavailable() -> None:
    async with asking(refuse(Status.UNAUTHENTICATED, "service.auth.error")) as asked:
        with pytest.raises(SchemaUnavailableError) as caught:
            await asked.cache.fetch("s1")
        assert caught.value.code == "service.auth.error"
        assert asked.tokens.invalidated == [1, 2]
        assert len(asked.ids) == 2


async def test_a_token_that_cannot_be_sent_is_replaced_like_a_refused_one() -> None:
    async with asking(give, FakeTokens(odd_tokens=["a\nb"])) as asked:
        assert await asked.cache.fetch("s1") == '"s1"'
        assert asked.requests == [("s1", "token-2")]


@pytest.mark.parametrize("error", [LoginUnavailableError("no answer"), LoginRejectedError("no")])
async def test_without_a_login_the_schema_is_unavailable(error: Any) -> None:
    async with asking(give, FakeTokens(error)) as asked:
        with pytest.raises(SchemaUnavailableError):
            await asked.cache.fetch("s1")
        assert await asked.cache.fetch("s1") == '"s1"'


@pytest.mark.parametrize("blank", ["", " "])
async def test_a_blank_id_is_never_sent(blank: str) -> None:
    async with asking(give) as asked:
        with pytest.raises(SchemaRefusedError):
            await asked.cache.fetch(blank)
        assert asked.ids == []
        assert asked.tokens.logins == 0


@pytest.mark.parametrize(
    ("status", "code", "raised"),
    [
        (Status.INVALID_ARGUMENT, "schema.validation.failed", SchemaRefusedError),
        (Status.INVALID_ARGUMENT, "", SchemaRefusedError),
        (Status.INVALID_ARGUMENT, "subscription.fetch.replayid.corrupted", SchemaUnavailableError),
        (Status.PERMISSION_DENIED, "schema.meta.permission", SchemaRefusedError),
        (Status.UNAVAILABLE, "schema.api.unavailable", SchemaUnavailableError),
        (Status.RESOURCE_EXHAUSTED, "", SchemaUnavailableError),
    ],
)
async def test_refusals_are_schema_errors_and_nothing_else(
    status: grpc.StatusCode, code: str, raised: type[Exception]
) -> None:
    async with asking(refuse(status, code)) as asked:
        with pytest.raises(raised) as caught:
            await asked.cache.fetch("s1")
        assert type(caught.value) is raised


async def test_no_answer_within_the_deadline_is_unavailable() -> None:
    async def never(request: pb.SchemaRequest, context: Any) -> pb.SchemaInfo:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async with asking(never, deadline_s=0.05) as asked:
        with pytest.raises(SchemaUnavailableError) as caught:
            await asked.cache.fetch("s1")
        assert caught.value.status == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("wrong", [pb.SchemaInfo(), pb.SchemaInfo(schema_json="{}", schema_id="other")])
async def test_an_empty_or_foreign_schema_is_not_kept(wrong: pb.SchemaInfo) -> None:
    async def answer(request: pb.SchemaRequest, context: Any) -> pb.SchemaInfo:
        return wrong

    async with asking(answer) as asked:
        for _ in range(2):
            with pytest.raises(SchemaUnavailableError):
                await asked.cache.fetch("s1")
        assert len(asked.ids) == 2
        assert asked.tapped == []


async def test_the_least_recently_used_schema_makes_room() -> None:
    async with asking(give, max_schemas=2) as asked:
        for schema_id in ("a", "b", "a", "c", "a", "b"):
            await asked.cache.fetch(schema_id)
        assert asked.ids == ["a", "b", "c", "b"]


async def test_a_schema_above_grpcs_usual_limit_passes() -> None:
    async def large(request: pb.SchemaRequest, context: Any) -> pb.SchemaInfo:
        return pb.SchemaInfo(schema_json="x" * (5 << 20), schema_id=request.schema_id)

    async with asking(large) as asked:
        assert len(await asked.cache.fetch("s1")) == 5 << 20


async def test_a_token_refused_for_a_schema_leaves_the_running_stream_alone() -> None:
    """A revoked token does not end an open stream; its first victim is the next new schema."""
    go = asyncio.Event()

    async def script(call: ServerCall) -> None:
        await call.send([("e1", b"A")])
        await go.wait()
        await call.send([("e2", b"B")])
        await call.hold()

    async def answer(request: pb.SchemaRequest, context: Any) -> pb.SchemaInfo:
        if ("accesstoken", "token-1") in context.invocation_metadata():
            return await refuse(Status.UNAUTHENTICATED, "service.auth.error")(request, context)
        return await give(request, context)

    service, tokens = ScriptedPubSub(script), FakeTokens()
    service.schemas = answer
    async with bench(service, Position(), tokens=tokens) as on:
        await collect(on.buffer, 1)
        cache = SchemaCache(on.channel, TOPIC, tokens)
        assert await cache.fetch("schema") == '"schema"'
        go.set()
        assert event_ids(await collect(on.buffer, 1)) == ["e2"]
        assert len(service.calls) == 1
        assert on.witness.ends == []


async def test_a_topic_is_described() -> None:
    async def answer(request: pb.TopicRequest, context: Any) -> pb.TopicInfo:
        return pb.TopicInfo(
            topic_name=request.topic_name, tenant_guid="g", can_subscribe=True, schema_id="s1", rpc_id="r1"
        )

    service = ScriptedPubSub()
    service.topics = answer
    async with connected(service) as channel:
        info = await get_topic(channel, TOPIC, FakeTokens())
    assert info == TopicInfo(TOPIC, "g", can_publish=False, can_subscribe=True, schema_id="s1", rpc_id="r1")


@pytest.mark.parametrize(
    ("status", "code", "raised", "calls"),
    [
        (Status.NOT_FOUND, "topic.not.found", TopicRefusedError, 1),
        (Status.UNAUTHENTICATED, "service.auth.error", TokenRefusedError, 2),
    ],
)
async def test_a_refused_topic_says_why(
    status: grpc.StatusCode, code: str, raised: type[Exception], calls: int
) -> None:
    asked: list[str] = []

    async def answer(request: pb.TopicRequest, context: Any) -> pb.TopicInfo:
        asked.append(request.topic_name)
        await context.abort(status, "scripted", (("error-code", CODE_PREFIX + code),))
        raise AssertionError

    service = ScriptedPubSub()
    service.topics = answer
    async with connected(service) as channel:
        with pytest.raises(raised):
            await get_topic(channel, TOPIC, FakeTokens())
    assert asked == [TOPIC] * calls
