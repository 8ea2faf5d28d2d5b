"""The test broker itself: it answers, and it ends with its starter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.broker import ROOT, Broker
from tests.kafka_reader import read_committed_all

pytestmark = pytest.mark.kafka


async def test_committed_records_are_read_back_with_headers(kafka_broker: Broker, topic_prefix: str) -> None:
    topic = f"{topic_prefix}a"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_broker.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 2, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=kafka_broker.bootstrap, transactional_id=topic) as producer:
        for commit, value in ((True, b"kept"), (False, b"aborted"), (True, b"kept too")):
            await producer.begin_transaction()
            await (await producer.send(topic, value, key=b"k", partition=1, headers=[("h", b"1")]))
            await (producer.commit_transaction() if commit else producer.abort_transaction())
    records = await read_committed_all(kafka_broker.bootstrap, topic)
    assert [(each.value, each.headers) for each in records] == [(b"kept", {"h": b"1"}), (b"kept too", {"h": b"1"})]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_the_broker_ends_with_its_starter(kafka_broker: Broker, signal_number: int) -> None:
    """Even if the starter is killed: no broker may be left behind."""
    if kafka_broker.pid is None:
        pytest.skip("the broker of this run was not started here")
    environment = {key: value for key, value in os.environ.items() if key != "KAFKA_BOOTSTRAP"}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.broker"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        port = starter.stdout.readline().strip().rpartition(":")[2]
        assert _brokers_on(port)
        starter.send_signal(signal_number)
        starter.wait(20)
    deadline = time.monotonic() + 20
    while _brokers_on(port):
        assert time.monotonic() < deadline, "the broker outlived its starter"
        time.sleep(0.05)


def _brokers_on(port: str) -> bool:
    """Whether anything listens on the port of 127.0.0.1 (state 0A of the kernel's table)."""
    wanted = f":{int(port):04X}"
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return any(fields[1].endswith(wanted) and fields[3] == "0A" for fields in lines)
