"""Connections cut and stalled under load, at either end: nothing is lost and nothing repeated."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.broker import Broker
from tests.deployment import Deployment, deployment
from tests.kill_loop import scenario
from tests.processes import Worker
from tests.proxy import Proxy, running_proxy

pytestmark = pytest.mark.kafka

RATE = 150.0
KAFKA = {"transaction_timeout": "3s", "session_timeout": "2s"}
"""Half of the transaction time-out is for sending, a third for committing: outages are noticed within seconds."""
CUTS = 4


async def cut(proxy: Proxy) -> None:
    """Cut what is connected, once something is."""
    async with asyncio.timeout(60.0):
        await proxy.connected()
    assert proxy.cut() > 0


async def goes_on(place: Deployment, worker: Worker, records: int = 40) -> None:
    """Wait until more is committed than before."""
    before = sum(each.topic.endswith(".changes") for each in await place.reader.read())
    await place.has_committed(before + records, limit_s=60.0)
    assert worker.returncode is None, worker.tail()


async def finish(place: Deployment, worker: Worker) -> None:
    """Compare, and see that the worker is sound."""
    found = await place.check()
    found.require_clean()
    assert found.covered == []
    await worker.has_role("active")
    assert await worker.stop() == 0, worker.tail()
    (await place.check()).require_clean()


async def test_kafka_connections_are_cut(proxied_kafka_broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """A reset in the middle of a transaction: its outcome is read from Kafka, never guessed."""
    broker = proxied_kafka_broker
    async with (
        running_proxy(broker.proxied, broker.proxy_port) as proxy,
        deployment(
            tmp_path, broker.bootstrap, topic_prefix, scenario(RATE, 5), workers_bootstrap=proxy.address
        ) as place,
    ):
        worker = await place.worker(kafka=KAFKA)
        await goes_on(place, worker)
        for _ in range(CUTS):
            await cut(proxy)
            await goes_on(place, worker)
        await finish(place, worker)


@pytest.mark.parametrize("ended_by", ["resume", "cut"])
async def test_kafka_stalls(proxied_kafka_broker: Broker, topic_prefix: str, tmp_path: Path, ended_by: str) -> None:
    """What was held back arrives late, after the worker gave up on it, or never."""
    broker = proxied_kafka_broker
    async with (
        running_proxy(broker.proxied, broker.proxy_port) as proxy,
        deployment(
            tmp_path, broker.bootstrap, topic_prefix, scenario(RATE, 6), workers_bootstrap=proxy.address
        ) as place,
    ):
        worker = await place.worker(kafka=KAFKA)
        await goes_on(place, worker)
        proxy.stall()
        await worker.said(event="generation.failed")
        if ended_by == "cut":
            await cut(proxy)
        proxy.resume()
        await goes_on(place, worker)
        await finish(place, worker)


async def test_salesforce_connections_are_cut(kafka_broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """A reset of the stream: the next one begins behind the last event received, not behind the last one sent."""
    async with (
        deployment(tmp_path, kafka_broker.bootstrap, topic_prefix, scenario(RATE, 7)) as place,
        running_proxy(place.org.addresses["pubsub"]) as proxy,
    ):
        worker = await place.worker(pubsub={"endpoint": proxy.address})
        await goes_on(place, worker)
        for _ in range(CUTS):
            await cut(proxy)
            await goes_on(place, worker)
        await finish(place, worker)


async def salesforce_stalls(place: Deployment, proxy: Proxy) -> None:
    worker = await place.worker(pubsub={"endpoint": proxy.address, "watchdog_s": 1.5})
    await goes_on(place, worker)
    proxy.stall()
    await worker.said(event="stream.ended")
    # A new connection must be made: nothing ever comes on the old one.
    proxy.cut()
    proxy.resume()
    await goes_on(place, worker)
    worker.forget()
    proxy.stall()
    await worker.said(event="stream.ended")
    # The old connection comes back to life, with events of the call that was given up.
    proxy.resume()
    await goes_on(place, worker)
    await finish(place, worker)


async def test_salesforce_stalls(kafka_broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """A half-open connection gives no error: the watchdog ends the stream."""
    org = scenario(RATE, 8) | {"keepalive_s": 30.0}
    async with (
        deployment(tmp_path, kafka_broker.bootstrap, topic_prefix, org) as place,
        running_proxy(place.org.addresses["pubsub"]) as proxy,
    ):
        await salesforce_stalls(place, proxy)


async def test_slow_lines(proxied_kafka_broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """A worker far from both ends, where cuts hit more that is under way."""
    broker = proxied_kafka_broker
    async with (
        running_proxy(broker.proxied, broker.proxy_port) as kafka,
        deployment(
            tmp_path, broker.bootstrap, topic_prefix, scenario(RATE, 9), workers_bootstrap=kafka.address
        ) as place,
        running_proxy(place.org.addresses["pubsub"]) as salesforce,
    ):
        kafka.to_server_s = kafka.to_client_s = salesforce.to_server_s = salesforce.to_client_s = 0.03
        worker = await place.worker(pubsub={"endpoint": salesforce.address}, kafka=KAFKA)
        await goes_on(place, worker)
        await cut(kafka)
        await goes_on(place, worker)
        await cut(salesforce)
        await goes_on(place, worker)
        kafka.to_server_s = kafka.to_client_s = salesforce.to_server_s = salesforce.to_client_s = 0.0
        await finish(place, worker)
