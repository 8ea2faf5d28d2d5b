"""Headers, unary calls, publishing and managed subscriptions of the emulated org."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

import fastavro
import grpc
import pytest

from consumer._proto import pubsub_api_pb2 as pb
from consumer.emulator.publishing import DEMO_SCHEMA, DEMO_SCHEMA_ID
from tests.unit.emulator_client import TOPIC, Client, Stream, code_of, connected, publish, until

DEMO = "/event/Demo__e"


async def refused(awaitable: Any) -> tuple[str, grpc.StatusCode]:
    """Return code and status of a unary call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    return code_of(caught.value), caught.value.code()


def changed(client: Client, **values: str) -> tuple[tuple[str, str], ...]:
    """Return the call's headers with some of them changed; an empty text removes one."""
    return tuple(pair for pair in {**dict(client.metadata), **values}.items() if pair[1])


async def test_get_topic_names_the_schema_of_an_object_and_none_for_channels() -> None:
    async with connected() as client:
        info = await client.get_topic(TOPIC)
        assert info.schema_id == client.org.model.current_schema_id("MessagingSession")
        assert info.topic_name == TOPIC
        assert (info.can_publish, info.can_subscribe) == (False, True)
        for channel in ("/data/ChangeEvents", "/data/Support__chn"):
            assert (await client.get_topic(channel)).schema_id == ""
        assert (await client.get_topic(DEMO)).can_publish
        assert await refused(client.get_topic("/data/Nothing")) == (
            "topic.not.found",
            grpc.StatusCode.NOT_FOUND,
        )


async def test_get_schema_gives_the_writer_schema_and_refuses_blank_and_unknown_ids() -> None:
    async with connected() as client:
        schema_id = (await client.get_topic(TOPIC)).schema_id
        schema = json.loads((await client.get_schema(schema_id)).schema_json)
        assert schema["name"] == "MessagingSessionChangeEvent"
        for wrong in ("", " ", "x" * 22):
            code, status = await refused(client.get_schema(wrong))
            assert (code, status) == ("schema.validation.failed", grpc.StatusCode.INVALID_ARGUMENT)


@pytest.mark.parametrize(
    ("header", "value", "code"),
    [
        ("accesstoken", "", "service.auth.headers.invalid"),
        ("accesstoken", " ", "service.auth.headers.invalid"),
        ("instanceurl", "", "service.auth.headers.invalid"),
        ("tenantid", "", "service.auth.headers.invalid"),
        ("instanceurl", "mydomain.example.com", "service.auth.headers.invalid"),
        ("tenantid", "00Dem0000000001", "service.auth.headers.invalid"),
        ("accesstoken", "wrong", "service.auth.error"),
        ("tenantid", "00Dxx0000000001EAA", "service.auth.error"),
        ("instanceurl", "https://other.example.com", "service.auth.error"),
    ],
)
async def test_every_call_checks_the_three_headers(header: str, value: str, code: str) -> None:
    async with connected() as client:
        metadata = changed(client, **{header: value})
        assert await refused(client.get_topic(TOPIC, metadata)) == (code, grpc.StatusCode.UNAUTHENTICATED)
        assert code_of(await (await client.subscribe(metadata=metadata)).ends()) == code


async def test_a_trailing_slash_or_a_bearer_prefix_is_not_forgiven() -> None:
    async with connected() as client:
        token = dict(client.metadata)["accesstoken"]
        for wrong in ({"instanceurl": client.org.rest + "/"}, {"accesstoken": f"Bearer {token}"}):
            code, _ = await refused(client.get_topic(TOPIC, changed(client, **wrong)))
            assert code == "service.auth.error"


async def test_revoking_leaves_open_streams_alone_and_refuses_new_ones_late() -> None:
    async with connected(revoked_stream_s=10, time_scale=50) as client:
        stream = await client.subscribe()
        await stream.call.initial_metadata()
        await client.org.fault("revoke_tokens")
        (entry,) = await publish(client.org, 1)
        assert await stream.read_events(1) == [entry.event_id]
        code, _ = await refused(client.get_schema(entry.schema_id))
        assert code == "service.auth.error"
        begun = client.org.state.now()
        late = await client.subscribe()
        assert code_of(await late.ends()) == "service.auth.error"
        assert client.org.state.now() - begun >= 0.2
        assert not late.responses


def demo(**values: Any) -> pb.ProducerEvent:
    """Return a Demo__e event."""
    body = {"CreatedDate": 1_750_000_000_000, "CreatedById": "005000000000001AAA", "Msg__c": "hi", **values}
    out = io.BytesIO()
    fastavro.schemaless_writer(out, DEMO_SCHEMA, {"Qty__c": 1.5, "Ok__c": None, **body})
    return pb.ProducerEvent(id="c1", schema_id=DEMO_SCHEMA_ID, payload=out.getvalue())


async def publish_demo(client: Client, *events: pb.ProducerEvent, topic: str = DEMO) -> pb.PublishResponse:
    """Call Publish."""
    request = pb.PublishRequest(topic_name=topic, events=events)
    response: pb.PublishResponse = await client.unary("Publish", request, pb.PublishResponse)
    return response


async def test_a_published_event_reaches_subscribers_with_a_uuid_and_its_replay_id() -> None:
    async with connected() as client:
        stream = await client.subscribe(topic_name=DEMO)
        response = await publish_demo(client, demo())
        (result,) = response.results
        assert result.correlation_key == "c1"
        received = await stream.read()
        assert received is not None
        event = received.events[0]
        assert event.replay_id == result.replay_id
        assert event.event.payload == demo().payload
        assert event.event.id != "c1"


async def test_the_reference_payload_of_the_demo_event_is_accepted() -> None:
    payload = bytes.fromhex("80f086c2ee65243030353030303030303030303030314141410204686902000000000000f83f00")
    assert payload == demo().payload


async def test_wrong_events_fail_alone_and_in_order() -> None:
    async with connected() as client:
        events = [
            demo(),
            pb.ProducerEvent(id="c2", schema_id=DEMO_SCHEMA_ID, payload=demo().payload[:-3]),
            pb.ProducerEvent(id="c3", schema_id=DEMO_SCHEMA_ID, payload=demo().payload + b"x"),
            pb.ProducerEvent(id="c4", schema_id="other", payload=demo().payload),
            pb.ProducerEvent(id="c5", schema_id=DEMO_SCHEMA_ID, payload=demo(Msg__c="x" * 1_100_000).payload),
            demo(),
        ]
        response = await publish_demo(client, *events)
        assert [result.HasField("error") for result in response.results] == [
            False,
            True,
            True,
            True,
            True,
            False,
        ]
        assert [result.correlation_key for result in response.results][:3] == ["c1", "c2", "c3"]
        assert len(client.org.ledger) == 2


async def test_change_events_cannot_be_published_and_requests_fail_as_a_whole() -> None:
    async with connected() as client:
        assert (await refused(publish_demo(client, demo(), topic=TOPIC)))[0] == "topic.meta.permission"
        assert (await refused(publish_demo(client)))[0] == "publish.event.count.invalid"
        big = [demo(Msg__c="x" * 900_000) for _ in range(5)]
        assert await refused(publish_demo(client, *big)) == ("", grpc.StatusCode.UNAVAILABLE)
        assert not client.org.ledger


async def test_a_burst_of_unary_publishing_is_stopped() -> None:
    async with connected(publish_burst=3) as client:
        for _ in range(3):
            await publish_demo(client, demo())
        assert await refused(publish_demo(client, demo())) == ("", grpc.StatusCode.RESOURCE_EXHAUSTED)


async def test_publish_stream_answers_every_request_in_order_and_keeps_its_topic() -> None:
    async with connected() as client:
        call = client.stream("PublishStream", pb.PublishResponse)
        await call.write(pb.PublishRequest(topic_name=DEMO, events=[demo()]))
        await call.write(pb.PublishRequest(events=[demo(), demo()]))
        assert [len((await call.read()).results) for _ in range(2)] == [1, 2]
        await call.write(pb.PublishRequest(topic_name=TOPIC, events=[demo()]))
        assert code_of(await Stream(call).ends()) == "publish.topic.mismatch"


async def test_an_idle_publish_stream_is_swept() -> None:
    async with connected(publish_idle_s=70, time_scale=500) as client:
        error = await Stream(client.stream("PublishStream", pb.PublishResponse)).ends()
        assert code_of(error) == "publish.stream.sweeper.timeout"


NAME = "Emulated_Managed"
MANAGED = {
    "developer_name": NAME,
    "subscription_id": "18xem0000000001AAA",
    "topic": TOPIC,
    "default_replay": "EARLIEST",
    "error_recovery_replay": "EARLIEST",
}


async def managed(client: Client, **fields: Any) -> Stream:
    """Open a ManagedSubscribe call."""
    stream = Stream(client.stream("ManagedSubscribe", pb.ManagedFetchResponse))
    fields.setdefault("num_requested", 100)
    if "subscription_id" not in fields:
        fields.setdefault("developer_name", NAME)
    # A refused call can be over before the write; reading tells how it ended.
    with contextlib.suppress(grpc.aio.AioRpcError):
        await stream.call.write(pb.ManagedFetchRequest(**fields))
    return stream


async def commit(stream: Stream, key: str, replay_id: bytes) -> pb.CommitReplayResponse:
    """Commit and wait for the acknowledgement."""
    request = pb.CommitReplayRequest(commit_request_id=key, replay_id=replay_id)
    await stream.call.write(pb.ManagedFetchRequest(commit_replay_id_request=request))
    while True:
        response: Any = await stream.read()
        if response.HasField("commit_response"):
            return response.commit_response  # type: ignore[no-any-return] # the stubs of two responses differ


async def test_a_managed_subscription_resumes_after_the_committed_position() -> None:
    async with connected(managed=[MANAGED], slot_release_s=0, time_scale=20) as client:
        entries = await publish(client.org, 3)
        stream = await managed(client)
        await stream.read_events(3)
        answer = await commit(stream, "k1", entries[1].replay_id)
        assert (answer.commit_request_id, answer.replay_id) == ("k1", entries[1].replay_id)
        assert not answer.HasField("error")
        stream.call.cancel()
        await until(lambda: not client.org.state.calls)
        again = await managed(client, subscription_id="18xem0000000001AAA", developer_name="")
        assert await again.read_events(1) == [entries[2].event_id]


async def test_a_wrong_commit_is_answered_on_the_stream_and_does_not_end_it() -> None:
    async with connected(managed=[MANAGED], time_scale=50) as client:
        entries = await publish(client.org, 4)
        stream = await managed(client, num_requested=2)
        await stream.read_events(2)
        for key, replay_id in (
            ("missing", b""),
            ("garbage", b"x" * 10),
            ("not delivered", entries[3].replay_id),
        ):
            answer = await commit(stream, key, replay_id)
            assert answer.commit_request_id == key
            assert answer.error.code == pb.COMMIT
        assert not (await commit(stream, "good", entries[1].replay_id)).HasField("error")
        assert (await commit(stream, "older", entries[0].replay_id)).error.code == pb.COMMIT
        assert not (await commit(stream, "again", entries[1].replay_id)).HasField("error")


async def test_commits_in_quick_succession_are_answered_once() -> None:
    async with connected(managed=[MANAGED]) as client:
        entries = await publish(client.org, 3)
        stream = await managed(client)
        await stream.read_events(3)
        for entry in entries:
            request = pb.CommitReplayRequest(commit_request_id=entry.event_id, replay_id=entry.replay_id)
            await stream.call.write(pb.ManagedFetchRequest(commit_replay_id_request=request))
        response: Any = await stream.read()
        assert response.commit_response.commit_request_id == entries[-1].event_id


async def test_a_managed_subscription_has_one_client_and_its_slot_frees_slowly() -> None:
    async with connected(managed=[MANAGED], slot_release_s=15, time_scale=50) as client:
        first = await managed(client)
        await first.call.initial_metadata()
        error = await (await managed(client)).ends()
        assert code_of(error) == "managed.subscription.already.active"
        assert error is not None
        assert error.code() is grpc.StatusCode.ALREADY_EXISTS
        first.call.cancel()
        await until(lambda: not client.org.state.calls)
        assert code_of(await (await managed(client)).ends()) == "managed.subscription.already.active"
        await until(lambda: client.org.managed.all[0].free_at <= client.org.state.now())
        third = await managed(client)
        await third.call.initial_metadata()
        await until(lambda: len(client.org.state.calls) == 1)


async def test_a_managed_stream_without_commits_is_closed() -> None:
    async with connected(managed=[MANAGED], time_scale=10_000) as client:
        error = await (await managed(client)).ends()
        assert error is not None
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert code_of(error) == ""


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"developer_name": "Nobody"}, "managed.subscription.developer.name.not.found"),
        ({"developer_name": "", "subscription_id": "18x0000"}, "managed.subscription.subscription.id.invalid"),
        (
            {"developer_name": "", "subscription_id": "18x000000000000"},
            "managed.subscription.subscription.id.not.found",
        ),
        (
            {"developer_name": NAME, "subscription_id": "18xem0000000001AAA"},
            "managed.subscription.id.or.developer.name.empty",
        ),
        ({"developer_name": ""}, "managed.subscription.id.or.developer.name.empty"),
        ({"num_requested": -1}, "managed.subscription.fetch.request.events.invalid"),
        (
            {"commit_replay_id_request": pb.CommitReplayRequest(commit_request_id="k")},
            "managed.subscription.fetch.request.commit.request.restricted",
        ),
        ({"auth_refresh": "x"}, "managed.subscription.fetch.request.auth.request.restricted"),
    ],
)
async def test_first_managed_requests_that_break_the_rules(fields: dict[str, Any], code: str) -> None:
    async with connected(managed=[MANAGED]) as client:
        assert code_of(await (await managed(client, **fields)).ends()) == code


async def test_a_later_managed_request_must_ask_for_something_and_a_stopped_one_is_refused() -> None:
    async with connected(managed=[MANAGED]) as client:
        stream = await managed(client)
        await stream.call.write(pb.ManagedFetchRequest())
        assert code_of(await stream.ends()) == "managed.subscription.fetch.request.invalid"
    async with connected(managed=[{**MANAGED, "state": "STOP"}]) as client:
        assert code_of(await (await managed(client)).ends()) == "managed.subscription.config.stopped"


async def test_an_expired_managed_position_uses_the_recovery_preset() -> None:
    async with connected(managed=[MANAGED], slot_release_s=0, time_scale=20) as client:
        entries = await publish(client.org, 3)
        stream = await managed(client)
        await stream.read_events(3)
        await commit(stream, "k", entries[0].replay_id)
        stream.call.cancel()
        await until(lambda: not client.org.state.calls)
        await client.org.fault("expire_positions", keep_last=1)
        again = await managed(client)
        assert await again.read_events(1) == [entries[2].event_id]
