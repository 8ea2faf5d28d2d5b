"""Subscribe on the emulated org enforces what the Pub/Sub API guide says."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from consumer._proto import pubsub_api_pb2 as pb
from consumer.emulator.calls import MAX_RESPONSE_BYTES
from tests.unit.emulator_client import TOPIC, Client, Stream, code_of, connected, publish, until


async def test_events_come_in_bus_order_and_only_as_many_as_asked_for() -> None:
    async with connected() as client:
        entries = await publish(client.org, 7)
        stream = await client.subscribe(num=5)
        assert await stream.read_events(5) == [entry.event_id for entry in entries[:5]]
        assert stream.responses[-1].pending_num_requested == 0
        await stream.more(5)
        assert await stream.read_events(7) == [entry.event_id for entry in entries]
        assert stream.responses[-1].pending_num_requested == 3


async def test_outstanding_credit_is_cut_off_at_100() -> None:
    async with connected() as client:
        stream = await client.subscribe(num=80)
        await stream.more(80)
        await until(lambda: client.org.stats.overshoots == 1)
        await publish(client.org, 120)
        await stream.read_events(100)
        assert stream.responses[-1].pending_num_requested == 0
        assert client.org.stats.max_outstanding == 100
        await stream.more(50)
        await stream.read_events(120)


@pytest.mark.parametrize("num", [0, -1])
async def test_a_first_request_without_credit_is_refused(num: int) -> None:
    async with connected() as client:
        error = await (await client.subscribe(num=num)).ends()
        assert code_of(error) == "subscription.fetch.requested.events.invalid"
        assert error is not None
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_later_request_must_ask_for_something_and_keep_the_topic() -> None:
    wrong: list[tuple[dict[str, object], str]] = [
        ({"num_requested": 0}, "subscription.fetch.request.invalid"),
        ({"num_requested": -3}, "subscription.fetch.requested.events.invalid"),
        ({"num_requested": 1, "topic_name": "/data/AccountChangeEvent"}, "subscription.fetch.topic.mismatch"),
        ({"auth_refresh": "x"}, "service.auth.refresh.invalid"),
    ]
    async with connected() as client:
        for fields, code in wrong:
            stream = await client.subscribe()
            await stream.call.write(pb.FetchRequest(**fields))  # type: ignore[arg-type] # wrong on purpose
            assert code_of(await stream.ends()) == code


async def test_later_requests_may_repeat_the_topic_and_their_replay_fields_are_ignored() -> None:
    async with connected() as client:
        entries = await publish(client.org, 3)
        stream = await client.subscribe(num=1)
        await stream.more(1, topic_name=TOPIC, replay_preset=pb.CUSTOM, replay_id=b"nonsense")
        await stream.more(1, replay_preset=pb.EARLIEST)
        assert await stream.read_events(3) == [entry.event_id for entry in entries]


async def test_a_request_without_preset_means_latest() -> None:
    async with connected() as client:
        await publish(client.org, 2)
        stream = Stream(client.stream("Subscribe", pb.FetchResponse))
        await stream.call.write(pb.FetchRequest(topic_name=TOPIC, num_requested=10))
        await until(lambda: _armed(client))
        (entry,) = await publish(client.org, 1)
        assert await stream.read_events(1) == [entry.event_id]


def _armed(client: Client) -> bool:
    return any(call.describe()["events_behind"] == 0 for call in client.org.state.calls)


async def test_latest_arms_late_and_misses_what_comes_before() -> None:
    async with connected(latest_arming_s=5, time_scale=20) as client:
        stream = await client.subscribe(preset=pb.LATEST)
        await stream.call.initial_metadata()
        missed = await publish(client.org, 2)
        await until(lambda: _armed(client))
        (entry,) = await publish(client.org, 1)
        assert await stream.read_events(1) == [entry.event_id]
        assert not {entry.event_id for entry in missed} & set(stream.event_ids)


async def test_custom_resumes_strictly_after_and_refuses_what_it_never_gave() -> None:
    async with connected() as client:
        entries = await publish(client.org, 3)
        stream = await client.subscribe(preset=pb.CUSTOM, replay_id=entries[0].replay_id)
        assert await stream.read_events(2) == [entry.event_id for entry in entries[1:]]
        error = await (await client.subscribe(preset=pb.CUSTOM, replay_id=b"x" * 10)).ends()
        assert code_of(error) == "subscription.fetch.replayid.corrupted"
        error = await (await client.subscribe(preset=pb.CUSTOM)).ends()
        assert code_of(error) == "subscription.fetch.replayid.validation.failed"
        error = await (await client.subscribe(preset=9)).ends()
        assert code_of(error) == "subscription.fetch.replayid.validation.failed"


async def test_unknown_and_blank_topics_are_refused() -> None:
    async with connected() as client:
        for name, code in (
            ("", "topic.validation.empty"),
            ("/data/NothingChangeEvent", "topic.not.found"),
            ("/data/messagingsessionchangeevent", "topic.not.found"),
        ):
            assert code_of(await (await client.subscribe(topic_name=name)).ends()) == code


async def test_a_channel_carries_its_members_with_their_own_schema_ids() -> None:
    async with connected(channels={"/data/Desk__chn": ["MessagingSession", "AgentWork"]}) as client:
        changes = [{"op": "create", "entity": entity} for entity in ("MessagingSession", "AgentWork", "Account")]
        for change in changes:
            await client.org.fault("commit", changes=[change])
        entries = client.org.ledger
        stream = await client.subscribe(topic_name="/data/Desk__chn")
        await stream.read_events(2)
        got = [event.event for response in stream.responses for event in response.events]
        assert [event.id for event in got] == [entry.event_id for entry in entries[:2]]
        assert len({event.schema_id for event in got}) == 2


async def test_keepalives_carry_a_moving_position_and_the_credit_and_do_not_top_it_up() -> None:
    async with connected(keepalive_s=120, time_scale=2000) as client:
        stream = await client.subscribe(num=42)
        first, second = await stream.read(), await stream.read()
        assert first is not None
        assert second is not None
        assert not first.events
        assert first.pending_num_requested == second.pending_num_requested == 42
        assert first.latest_replay_id < second.latest_replay_id
        (entry,) = await publish(client.org, 1)
        resumed = await client.subscribe(preset=pb.CUSTOM, replay_id=second.latest_replay_id)
        assert await resumed.read_events(1) == [entry.event_id]


async def test_a_request_on_a_keepalive_is_noticed() -> None:
    async with connected(keepalive_s=120, time_scale=2000) as client:
        stream = await client.subscribe(num=10)
        await stream.read()
        await stream.more(10)
        await until(lambda: client.org.stats.fetch_requests == 2)
        assert client.org.stats.requests_after_keepalive == 1


async def test_sixty_seconds_at_zero_credit_end_the_stream_without_a_keepalive() -> None:
    async with connected(credit_timeout_s=60, keepalive_s=30, time_scale=200) as client:
        await publish(client.org, 1)
        stream = await client.subscribe(num=1)
        await stream.read_events(1)
        assert await stream.read() is None
        assert client.org.stats.keepalives_sent == 0


async def test_half_closing_ends_the_stream_with_ok_and_is_noticed() -> None:
    async with connected() as client:
        stream = await client.subscribe()
        await stream.call.done_writing()
        assert await stream.read() is None
        assert client.org.stats.half_closes == 1


async def test_a_response_is_at_most_three_megabytes() -> None:
    async with connected() as client:
        for _ in range(5):
            await client.org.fault("commit", changes=[{"op": "create", "fields": {"Notes__c": "x" * 900_000}}])
        stream = await client.subscribe()
        await stream.read_events(5)
        sizes = [response.ByteSize() for response in stream.responses]
        assert len(sizes) > 1
        assert max(sizes) <= MAX_RESPONSE_BYTES + 100


async def test_random_splitting_loses_nothing_and_keeps_the_order() -> None:
    async with connected(split="random") as client:
        entries = await publish(client.org, 60)
        stream = await client.subscribe()
        assert await stream.read_events(60) == [entry.event_id for entry in entries]
        assert len(stream.responses) > 1


async def test_all_responses_of_a_call_carry_its_rpc_id_and_resumable_positions() -> None:
    async with connected(split="random") as client:
        entries = await publish(client.org, 40)
        stream = await client.subscribe()
        await stream.read_events(40)
        assert len({response.rpc_id for response in stream.responses}) == 1
        at = 0
        for response in stream.responses:
            at += len(response.events)
            resumed = await client.subscribe(preset=pb.CUSTOM, replay_id=response.latest_replay_id, num=40 - at or 1)
            if at < 40:
                assert (
                    await resumed.read_events(1)
                    == [entry.event_id for entry in entries[at:40]][: len(resumed.event_ids)]
                )
            resumed.call.cancel()


async def test_hand_made_responses_are_byte_for_byte_what_protobuf_writes() -> None:
    async with connected(keepalive_s=120, time_scale=500) as client:
        await publish(client.org, 3)
        raw: Any = client.channel.stream_stream(
            "/eventbus.v1.PubSub/Subscribe", pb.FetchRequest.SerializeToString, None
        )
        call = raw(metadata=client.metadata)
        await call.write(pb.FetchRequest(topic_name=TOPIC, replay_preset=pb.EARLIEST, num_requested=3))
        full = await call.read()
        await call.write(pb.FetchRequest(num_requested=5))
        keepalive = await call.read()
        for data, events in ((full, 3), (keepalive, 0)):
            response = pb.FetchResponse.FromString(data)
            assert len(response.events) == events
            assert response.SerializeToString(deterministic=True) == data


async def test_new_events_are_delivered_at_once() -> None:
    async with connected() as client:
        stream = await client.subscribe()
        await stream.call.initial_metadata()
        loop = asyncio.get_running_loop()
        for _ in range(5):
            (entry,) = await publish(client.org, 1)
            begun = loop.time()
            await stream.read()
            assert stream.event_ids[-1] == entry.event_id
            assert loop.time() - begun < 0.5


async def test_a_cancelled_call_is_forgotten() -> None:
    async with connected() as client:
        stream = await client.subscribe()
        await until(lambda: len(client.org.state.calls) == 1)
        stream.call.cancel()
        await until(lambda: not client.org.state.calls)
        assert not client.org.bus.topics[TOPIC].listeners


async def test_the_delivery_allowance_ends_streams_and_refuses_new_ones() -> None:
    async with connected(delivery_allowance=5) as client:
        await publish(client.org, 8)
        stream = await client.subscribe()
        error = await stream.ends()
        assert code_of(error) == "subscription.limit.exceeded"
        assert len(stream.event_ids) == 5
        assert code_of(await (await client.subscribe()).ends()) == "subscription.limit.exceeded"
