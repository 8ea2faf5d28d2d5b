"""Faults and the control API of the emulated org: each kind does what its line says."""

from __future__ import annotations

import asyncio
import base64
import sys
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from consumer._proto import pubsub_api_pb2 as pb
from consumer.emulator import fault_kinds
from consumer.emulator.refusals import STATUS_OF_CODE
from consumer.emulator.scenario import Scenario
from consumer.emulator.server import emulated_org
from consumer.errors import EmulatorError
from tests.certificates import write_certificates
from tests.unit.emulator_client import TOPIC, Client, code_of, connected, publish, until


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("unavailable", "UNAVAILABLE"),
        ("internal", "INTERNAL"),
        ("cancelled", "CANCELLED"),
        ("unknown", "UNKNOWN"),
    ],
)
async def test_streams_end_as_ordered_without_a_code(how: str, status: str) -> None:
    async with connected() as client:
        stream = await client.subscribe()
        await stream.call.initial_metadata()
        await client.org.fault("end_streams", how=how)
        error = await stream.ends()
        assert error is not None
        assert error.code().name == status
        assert code_of(error) == ""


async def test_streams_end_with_ok_or_with_any_code_and_only_those_of_the_topic() -> None:
    async with connected() as client:
        plain, coded, other = (
            await client.subscribe(),
            await client.subscribe(topic_name="/data/ChangeEvents"),
            await client.subscribe(topic_name="/data/AccountChangeEvent"),
        )
        await until(lambda: len(client.org.state.calls) == 3)
        await client.org.fault("end_streams", how="ok", topic=TOPIC)
        assert await plain.ends() is None
        await client.org.fault(
            "end_streams",
            how="code",
            code="service.protection.triggered",
            topic="/data/ChangeEvents",
        )
        error = await coded.ends()
        assert code_of(error) == "service.protection.triggered"
        assert [call.topic_name for call in client.org.state.calls] == ["/data/AccountChangeEvent"]
        other.call.cancel()


async def test_a_service_that_is_down_ends_streams_and_refuses_calls_until_it_is_back() -> None:
    async with connected() as client:
        stream = await client.subscribe()
        await stream.call.initial_metadata()
        await client.org.fault("service_down", seconds=0.2)
        error = await stream.ends()
        assert code_of(error) == "service.unavailable"
        assert error is not None
        assert error.code() is grpc.StatusCode.INTERNAL
        assert code_of(await (await client.subscribe()).ends()) == "service.unavailable"
        await until(lambda: client.org.state.now() > client.org.state.conditions.down_until)
        assert (await client.get_topic(TOPIC)).schema_id


async def test_silence_holds_events_and_keepalives_back_and_ends_nothing() -> None:
    async with connected(time_scale=2000) as client:
        stream = await client.subscribe()
        await stream.call.initial_metadata()
        await client.org.fault("silence", seconds=0.4)
        begun = client.org.state.now()
        (entry,) = await publish(client.org, 1)
        sent = client.org.stats.keepalives_sent
        await stream.read_events(1)
        assert client.org.state.now() - begun >= 0.35
        assert stream.event_ids == [entry.event_id]
        assert sent <= client.org.stats.keepalives_sent <= sent + 5


async def test_latency_delays_responses_without_serialising_them() -> None:
    async with connected() as client:
        stream = await client.subscribe()
        await stream.call.initial_metadata()
        (call,) = client.org.state.calls
        await client.org.fault("latency", ms=200)
        begun, expected = client.org.state.now(), []
        for number in range(1, 6):
            expected += [entry.event_id for entry in await publish(client.org, 1)]
            await until(lambda sent=number: call.describe()["events_sent"] == sent)  # type: ignore[misc]
        assert await stream.read_events(5) == expected
        took = client.org.state.now() - begun
        assert len(stream.responses) == 5
        assert 0.2 <= took < 0.2 * 5


async def test_slow_headers() -> None:
    async with connected() as client:
        await client.org.fault("slow_headers", ms=200)
        begun = client.org.state.now()
        stream = await client.subscribe()
        await stream.call.initial_metadata()
        assert client.org.state.now() - begun >= 0.2


async def test_redelivery_and_duplicates_repeat_events_with_the_same_id() -> None:
    async with connected() as client:
        ids = [entry.event_id for entry in await publish(client.org, 4)]
        stream = await client.subscribe()
        await stream.read_events(4)
        await client.org.fault("redeliver", events=2)
        assert await stream.read_events(6) == [*ids, *ids[2:]]
        await client.org.fault("redeliver", events=3, when="resume")
        again = await client.subscribe(preset=pb.CUSTOM, replay_id=client.org.ledger[3].replay_id)
        assert await again.read_events(3) == ids[1:]
        await client.org.fault("duplicate", events=1)
        twice = await client.subscribe()
        assert await twice.read_events(5) == [ids[0], *ids]


async def test_expired_and_moved_positions_are_refused_by_code() -> None:
    async with connected() as client:
        entries = await publish(client.org, 5)
        await client.org.fault("expire_positions", keep_last=2)
        error = await (await client.subscribe(preset=pb.CUSTOM, replay_id=entries[0].replay_id)).ends()
        assert code_of(error) == "subscription.fetch.replayid.corrupted"
        old = entries[-1].replay_id
        stream = await client.subscribe()
        assert len(await stream.read_events(2)) == 2
        await client.org.fault("corrupt_positions", keep_events=True)
        assert code_of(await stream.ends()) == ""
        error = await (await client.subscribe(preset=pb.CUSTOM, replay_id=old)).ends()
        assert code_of(error) == "subscription.fetch.replayid.corrupted"
        assert await (await client.subscribe()).read_events(2) == [entry.event_id for entry in entries[3:]]


async def test_a_stream_whose_unread_events_expire_is_ended_not_skipped() -> None:
    async with connected() as client:
        await publish(client.org, 5)
        stream = await client.subscribe(num=1)
        await stream.read_events(1)
        await client.org.fault("expire_positions", keep_last=1)
        error = await stream.ends()
        assert error is not None
        assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_schema_faults_touch_only_get_schema() -> None:
    async with connected() as client:
        schema_id = (await client.get_topic(TOPIC)).schema_id
        for kind, parameters, code in (
            ("schema_down", {"seconds": 30}, "schema.api.unavailable"),
            ("schema_refused", {"schema_id": schema_id}, "schema.meta.permission"),
        ):
            await client.org.fault(kind, **parameters)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.get_schema(schema_id)
            assert code_of(caught.value) == code
            assert (await client.get_topic(TOPIC)).schema_id == schema_id
            await client.org.fault("clear")
        assert (await client.get_schema(schema_id)).schema_json


async def test_a_schema_change_gives_later_events_a_new_schema_id() -> None:
    async with connected() as client:
        (before,) = await publish(client.org, 1)
        await client.org.fault("schema_change", add=[{"name": "Mood__c"}])
        (after,) = await publish(client.org, 1)
        assert before.schema_id != after.schema_id
        assert (await client.get_topic(TOPIC)).schema_id == after.schema_id
        for entry in (before, after):
            assert ("Mood__c" in (await client.get_schema(entry.schema_id)).schema_json) is (entry is after)


async def test_a_refused_topic_and_a_used_up_allowance() -> None:
    async with connected() as client:
        stream = await client.subscribe()
        await stream.call.initial_metadata()
        await client.org.fault("topic_refused", topic=TOPIC)
        assert code_of(await stream.ends()) == ""
        assert code_of(await (await client.subscribe()).ends()) == "subscription.topic.cannot.subscribe"
        await client.org.fault("clear")
        await client.org.fault("delivery_limit")
        assert code_of(await (await client.subscribe()).ends()) == "subscription.limit.exceeded"
        await client.org.fault("delivery_limit", exceeded=False)
        await publish(client.org, 1)
        await (await client.subscribe()).read_events(1)


async def test_goaway_ends_the_connection_and_the_port_answers_again() -> None:
    async with connected() as client:
        stream = await client.subscribe()
        await stream.call.initial_metadata()
        await client.org.fault("goaway")
        await stream.ends()
        assert not client.org.state.calls
        async with asyncio.timeout(10):
            assert (await client.get_topic(TOPIC, client.org.metadata())).schema_id


async def test_a_reset_connection_fails_and_a_frozen_one_hangs_and_comes_back() -> None:
    async with connected(relay=True) as client:
        stream = await client.subscribe()
        await stream.call.initial_metadata()
        await client.org.fault("tcp_reset")
        error = await stream.ends()
        assert error is not None
        assert error.code() is grpc.StatusCode.UNAVAILABLE
    async with connected(relay=True) as client:
        stream = await client.subscribe()
        await stream.call.initial_metadata()
        begun = client.org.state.now()
        await client.org.fault("freeze", seconds=0.3)
        (entry,) = await publish(client.org, 1)
        assert await stream.read_events(1) == [entry.event_id]
        assert client.org.state.now() - begun >= 0.3


async def test_refused_connections_come_back_after_a_while() -> None:
    async with connected(relay=True) as client:
        stream = await client.subscribe()
        await stream.call.initial_metadata()
        await client.org.fault("refuse_connections", seconds=0.2)
        error = await stream.ends()
        assert error is not None
        with pytest.raises(grpc.aio.AioRpcError):
            await client.get_topic(TOPIC)
        async with asyncio.timeout(10):
            async with grpc.aio.insecure_channel(client.org.pubsub) as channel:
                client.channel = channel
                call = channel.unary_unary(
                    "/eventbus.v1.PubSub/GetTopic",
                    pb.TopicRequest.SerializeToString,
                    pb.TopicInfo.FromString,
                )
                request = pb.TopicRequest(topic_name=TOPIC)
                info = await call(request, metadata=client.metadata, wait_for_ready=True)
                assert info.schema_id


async def test_the_org_stops_at_once_while_connections_are_frozen() -> None:
    async with asyncio.timeout(8):
        async with connected(relay=True) as client:
            stream = await client.subscribe()
            await stream.call.initial_metadata()
            await client.org.fault("freeze", seconds=3600)
            await client.org.fault("refuse_connections", seconds=3600)


async def test_the_pubsub_port_can_speak_tls(tmp_path: Path) -> None:
    authority, server = write_certificates(tmp_path)
    tls = {"cert_file": str(server), "key_file": str(server)}
    async with emulated_org(Scenario.model_validate({"tls": tls})) as org:
        credentials = grpc.ssl_channel_credentials(authority.read_bytes())
        async with grpc.aio.secure_channel(org.pubsub, credentials) as channel:
            client = Client(org, channel, org.metadata())
            assert (await client.get_topic(TOPIC)).topic_name == TOPIC


async def test_network_faults_say_that_they_need_the_relay() -> None:
    async with connected() as client:
        for kind, parameters in (("tcp_reset", {}), ("freeze", {"seconds": 1}), ("refuse_connections", {"seconds": 1})):
            with pytest.raises(EmulatorError, match="relay"):
                await client.org.fault(kind, **parameters)


async def test_special_events_are_published_and_marked() -> None:
    async with connected() as client:
        (session,) = await publish(client.org, 1)
        record_id = session.record_ids[0]
        (gap,) = await client.org.fault("gap", op="UPDATE", fields={"Status": "Active"})
        (overflow,) = await client.org.fault("overflow")
        (wildcard,) = await client.org.fault("wildcard")
        poison = await client.org.fault("poison", how="truncated", events=2)
        assert (gap.change_type, gap.record_ids) == ("GAP_UPDATE", (record_id,))
        assert (overflow.change_type, overflow.record_ids) == ("GAP_OVERFLOW", ("000000000000000AAA",))
        assert wildcard.record_ids[0].endswith("*")
        assert [entry.poison for entry in poison] == [True, True]
        with pytest.raises(EmulatorError):
            await client.org.fault("gap", entity="AgentWork")


async def post(http: aiohttp.ClientSession, path: str, body: Any) -> tuple[int, dict[str, Any]]:
    async with http.post(path, json=body) as response:
        return response.status, await response.json()


async def get(http: aiohttp.ClientSession, path: str) -> dict[str, Any]:
    async with http.get(path) as response:
        assert response.status == 200
        body: dict[str, Any] = await response.json()
        return body


async def test_the_control_api_publishes_and_shows_the_ledger_in_pages() -> None:
    async with connected() as client, aiohttp.ClientSession(client.org.rest) as http:
        for _ in range(3):
            status, answer = await post(http, "/control/publish", {"kind": "commit", "changes": [{"op": "create"}]})
            assert (status, len(answer["events"])) == (200, 1)
        page = await get(http, "/control/ledger?after=0&limit=1")
        assert page["total"] == 3
        (line,) = page["events"]
        entry = client.org.ledger[1]
        assert line["index"] == 1
        assert line["event_id"] == entry.event_id
        assert base64.b64decode(line["replay_id"]) == entry.replay_id
        assert line["record_ids"] == list(entry.record_ids)
        assert (line["entity"], line["change_type"]) == ("MessagingSession", "CREATE")
        assert len((await get(http, "/control/ledger"))["events"]) == 3


async def test_the_control_api_shows_streams_and_violations() -> None:
    async with connected() as client, aiohttp.ClientSession(client.org.rest) as http:
        stream = await client.subscribe(num=30)
        await stream.call.initial_metadata()
        stats = await get(http, "/control/stats")
        assert [(each["topic"], each["credit"]) for each in stats["streams"]] == [(TOPIC, 30)]
        await stream.call.done_writing()
        await stream.ends()
        stats = await get(http, "/control/stats")
        assert (stats["half_closes"], stats["streams"], stats["max_outstanding"]) == (1, [], 30)
        assert stats["refused"] == {}


async def test_the_control_api_refuses_nonsense_with_a_sentence() -> None:
    async with connected() as client, aiohttp.ClientSession(client.org.rest) as http:
        for path, body in (
            ("/control/fault", {"kind": "magic"}),
            ("/control/fault", {"kind": "latency", "ms": -1}),
            ("/control/fault", {"kind": "latency", "ms": 1, "more": 2}),
            ("/control/fault", {"kind": "gap"}),
            ("/control/fault", [1]),
            ("/control/publish", {"kind": "revoke_tokens"}),
            ("/control/publish", {"kind": "commit", "changes": []}),
            ("/control/traffic", {"rate": -5}),
        ):
            status, answer = await post(http, path, body)
            assert status == 400
            assert answer["error"]
        async with http.get("/control/ledger?after=x") as response:
            assert response.status == 400


async def test_the_control_api_lists_every_kind_with_one_line() -> None:
    async with connected() as client, aiohttp.ClientSession(client.org.rest) as http:
        listed = await get(http, "/control/faults")
        assert listed["fault"].keys() | listed["publish"].keys() == fault_kinds.ALL.keys()
        assert all("\n" not in line and len(line) > 20 for line in listed["fault"].values())


async def test_traffic_runs_at_its_rate_to_its_total_and_can_be_paused() -> None:
    scenario = Scenario.model_validate({"traffic": {"rate": 500, "total": 60, "preload": 20, "paused": True}})
    async with emulated_org(scenario) as org, aiohttp.ClientSession(org.rest) as http:
        assert 20 <= org.traffic.emitted < 60
        before = org.traffic.emitted
        await post(http, "/control/traffic", {"paused": False})
        await until(lambda: org.traffic.done)
        assert 60 <= org.traffic.emitted == len(org.ledger) < 100
        assert before < org.traffic.emitted
        await post(http, "/control/traffic", {"total": 90})
        await until(lambda: org.traffic.emitted >= 90)


async def test_the_timeline_is_carried_out() -> None:
    at = [
        {"s": 0.05, "kind": "commit", "changes": [{"op": "create"}]},
        {"s": 0.1, "kind": "poison", "how": "random"},
    ]
    async with emulated_org(Scenario.model_validate({"at": at})) as org:
        await until(lambda: len(org.ledger) == 2)
        assert [entry.poison for entry in org.ledger] == [False, True]


async def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with emulated_org():
            raise ZeroDivisionError


async def test_a_taken_port_is_one_sentence() -> None:
    async with emulated_org() as org:
        port = int(org.pubsub.rpartition(":")[2])
        with pytest.raises(EmulatorError, match="can't be listened on"):
            async with emulated_org(port_pubsub=port):
                pass
        port = int(org.rest.rpartition(":")[2])
        with pytest.raises(EmulatorError, match="can't be listened on"):
            async with emulated_org(port_rest=port):
                pass


async def test_it_listens_on_the_host_it_is_told_and_logins_give_that_host() -> None:
    # Only Linux has all of 127.0.0.0/8 without being asked; elsewhere a name has to do.
    host = "127.0.0.2" if sys.platform == "linux" else "localhost"
    async with emulated_org(host=host) as org:
        assert org.state.sessions.instance_url == org.rest == org.login_url
        for address in (org.pubsub, org.rest.removeprefix("http://")):
            name, port = address.split(":")
            assert name == host
            (await asyncio.open_connection(host, int(port)))[1].close()
    with pytest.raises(EmulatorError, match="can't be listened on"):
        async with emulated_org(host="203.0.113.9"):  # an address of RFC 5737, never this machine's
            pass


def test_every_code_the_server_uses_is_one_of_the_guide() -> None:
    assert len(STATUS_OF_CODE) == 41
