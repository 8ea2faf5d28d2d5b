"""The stream of one topic against a scripted gRPC server on loopback: flow, position, keep-alives."""

from __future__ import annotations

import asyncio

import grpc

from consumer._proto import pubsub_api_pb2 as pb
from consumer.events import Keepalive, ReceivedEvent, StreamFault
from consumer.position import Position, Preset
from tests.unit.pubsub_script import TOPIC, Event, ScriptedPubSub, ServerCall, bench, collect, event_ids


async def test_many_events_flow_with_never_more_than_100_outstanding() -> None:
    total = 1500

    async def script(call: ServerCall) -> None:
        await call.accept()
        sent = 0
        while sent < total:
            await call.until(lambda: call.credit > 0)
            size = min(call.credit, 7, total - sent)
            await call.send([(f"e{sent + i}", b"r%d" % (sent + i)) for i in range(size)])
            sent += size
        await call.hold()

    async with bench(ScriptedPubSub(script)) as on:
        items = await collect(on.buffer, total)
        call = on.service.calls[0]
        assert event_ids(items) == [f"e{i}" for i in range(total)]
        assert call.highest_credit <= 100
        assert max(on.witness.outstanding) <= 100
        assert sum(on.witness.event_counts) == total
        assert call.first.topic_name == TOPIC
        assert call.first.replay_preset == pb.EARLIEST
        assert call.first.num_requested == 100
        for later in call.requests[1:]:
            assert later == pb.FetchRequest(num_requested=later.num_requested)
            assert later.num_requested >= 25, "many small requests make the server protect itself"
        assert not call.requests_ended, "the client must never half-close"
        event = items[0]
        assert isinstance(event, ReceivedEvent)
        assert event == ReceivedEvent(TOPIC, "e0", "schema", b"e0", b"r0", event.received_ms, (("k", b"v"),))
        assert event.received_ms == on.time.now_ms()


async def test_calls_carry_the_three_headers_of_the_session() -> None:
    async with bench(ScriptedPubSub()) as on:
        call = await on.service.call(0)
        assert call.metadata["accesstoken"] == "token-1"
        assert call.metadata["instanceurl"] == "https://org.my.salesforce.com"
        assert call.metadata["tenantid"] == "00Dxx0000000001EAA"


async def test_a_slow_consumer_stops_the_credits_and_taking_starts_them_again() -> None:
    sent = asyncio.Event()

    async def script(call: ServerCall) -> None:
        await call.accept()
        for first in (0, 100):
            await call.until(lambda: call.credit > 0)
            await call.send([(f"e{i}", b"r%d" % i) for i in range(first, first + call.credit)])
        sent.set()
        await call.hold()

    async with bench(ScriptedPubSub(script), max_events=150) as on:
        call = await on.service.call(0)
        async with asyncio.timeout(20):
            await sent.wait()
        await on.witness.until(lambda: sum(on.witness.event_counts) == 150)
        assert [request.num_requested for request in call.requests] == [100, 50]
        assert on.buffer.room == 0
        assert on.witness.outstanding[-1] == 0
        on.buffer.take(20)
        await call.until(lambda: len(call.requests) == 3)
        assert call.requests[2].num_requested == 20
        assert not call.requests_ended


async def test_a_call_is_not_opened_before_there_is_room_for_an_event() -> None:
    async def fill_and_end(call: ServerCall) -> None:
        await call.send([(f"e{i}", b"r%d" % i) for i in range(100)])

    async with bench(ScriptedPubSub(fill_and_end), max_events=100) as on:
        await on.retry()
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(on.service.calls) == 1
        on.buffer.take(30)
        call = await on.service.call(1)
        await call.until(lambda: bool(call.requests))
        assert call.first.num_requested == 30
        assert call.first.replay_id == b"r98"


async def test_a_keepalive_is_an_item_but_never_causes_a_request() -> None:
    async def script(call: ServerCall) -> None:
        await call.accept()
        for number in range(5):
            await call.keepalive(b"k%d" % number)
        await call.send([("e0", b"r0")])
        await call.keepalive(b"k9")
        await call.hold()

    async with bench(ScriptedPubSub(script)) as on:
        await on.witness.until(lambda: on.witness.keepalives == 6)
        assert on.buffer.take(10) == [
            Keepalive(TOPIC, b"k4", on.time.now_ms()),
            ReceivedEvent(TOPIC, "e0", "schema", b"e0", b"r0", on.time.now_ms(), (("k", b"v"),)),
            Keepalive(TOPIC, b"k9", on.time.now_ms()),
        ]
        await on.witness.until(lambda: on.witness.up)
        assert [request.num_requested for request in on.service.calls[0].requests] == [100]
        assert on.witness.outstanding[-1] == 99


async def test_a_keepalive_settles_credits_only_when_no_request_can_be_under_way() -> None:
    go = asyncio.Event()

    async def script(call: ServerCall) -> None:
        await call.accept()
        await call.keepalive(b"k1", pending=40)
        await go.wait()
        await call.keepalive(b"k2", pending=40)
        await call.hold()

    async with bench(ScriptedPubSub(script)) as on:
        await on.witness.until(lambda: on.witness.keepalives == 1)
        assert on.witness.outstanding[-1] == 100
        on.time.advance(10)
        go.set()
        call = on.service.calls[0]
        await call.until(lambda: len(call.requests) == 2)
        assert call.requests[1].num_requested == 60


async def test_an_empty_response_without_pending_credit_is_no_keepalive_item() -> None:
    async def script(call: ServerCall) -> None:
        await call.keepalive(b"k1", pending=0)
        await call.hold()

    async with bench(ScriptedPubSub(script)) as on:
        await on.witness.until(lambda: on.witness.keepalives == 1)
        assert on.buffer.take(10) == []


async def test_resumes_after_the_last_id_known_complete_and_drops_what_it_has() -> None:
    """Events 2 to 4 share a replay id; the call ends between them, so 2 and 3 come again."""
    first: list[Event] = [("e1", b"A"), ("e2", b"B"), ("e3", b"B")]
    again: list[Event] = [("e2", b"B"), ("e3", b"B"), ("e4", b"B"), ("e5", b"C")]

    async def begin(call: ServerCall) -> None:
        await call.send(first, latest=b"Z")

    async def resume(call: ServerCall) -> None:
        await call.send(again)
        await call.hold()

    async with bench(ScriptedPubSub(begin, resume)) as on:
        await on.retry()
        items = await collect(on.buffer, 5)
        assert event_ids(items) == ["e1", "e2", "e3", "e4", "e5"]
        request = on.service.calls[1].first
        assert (request.topic_name, request.replay_preset, request.replay_id) == (TOPIC, pb.CUSTOM, b"A")
        # Dropped events have used up credit all the same.
        assert on.witness.outstanding[-1] == 96


async def test_a_stored_position_drops_the_events_committed_beyond_it() -> None:
    start = Position(b"A", beyond_replay_id=b"B", beyond=("e2",))

    async def script(call: ServerCall) -> None:
        await call.send([("e2", b"B"), ("e3", b"B")])
        await call.hold()

    async with bench(ScriptedPubSub(script), start) as on:
        assert event_ids(await collect(on.buffer, 1)) == ["e3"]
        assert on.service.calls[0].first.replay_id == b"A"


async def test_resumes_after_the_keepalive_when_that_came_last() -> None:
    async def begin(call: ServerCall) -> None:
        await call.send([("e1", b"A")])
        await call.keepalive(b"K")

    async with bench(ScriptedPubSub(begin)) as on:
        await on.retry()
        call = await on.service.call(1)
        await call.until(lambda: bool(call.requests))
        assert (call.first.replay_preset, call.first.replay_id) == (pb.CUSTOM, b"K")


async def test_latest_resumes_at_latest_until_something_was_heard_then_after_it() -> None:
    async def nothing(call: ServerCall) -> None:
        await call.accept()

    async def one_event(call: ServerCall) -> None:
        await call.send([("e1", b"A")])

    async with bench(ScriptedPubSub(nothing, one_event), Position(preset=Preset.LATEST)) as on:
        await on.retry(1)
        await on.retry(2)
        last = await on.service.call(2)
        await last.until(lambda: bool(last.requests))
        firsts = [(call.first.replay_preset, call.first.replay_id) for call in on.service.calls]
        assert firsts == [(pb.LATEST, b""), (pb.LATEST, b""), (pb.CUSTOM, b"A")]


async def test_earliest_resumes_at_earliest_until_an_id_is_complete_and_drops_repeats() -> None:
    async def begin(call: ServerCall) -> None:
        await call.send([("e1", b"A")])

    async def again(call: ServerCall) -> None:
        await call.send([("e1", b"A"), ("e2", b"B")])
        await call.hold()

    async with bench(ScriptedPubSub(begin, again)) as on:
        await on.retry()
        assert event_ids(await collect(on.buffer, 2)) == ["e1", "e2"]
        assert on.service.calls[1].first.replay_preset == pb.EARLIEST


async def test_the_tap_is_given_everything_in_order() -> None:
    async def script(call: ServerCall) -> None:
        await call.send([("e1", b"A")])
        await call.keepalive(b"K")
        call.fail(grpc.StatusCode.INTERNAL, "service.unavailable")

    async with bench(ScriptedPubSub(script)) as on:
        await on.witness.until(lambda: bool(on.witness.ends))
        assert [type(item) for item in on.tapped] == [ReceivedEvent, Keepalive, StreamFault]
        fault = on.tapped[2]
        assert isinstance(fault, StreamFault)
        assert (fault.topic, fault.error, fault.code) == (TOPIC, "StreamEndedError", "service.unavailable")


async def test_stopping_cancels_the_call_and_never_half_closes_it() -> None:
    service = ScriptedPubSub()
    async with bench(service) as on:
        call = await on.service.call(0)
        await on.witness.until(lambda: on.witness.up)
        assert not call.requests_ended
    assert call.cancelled
