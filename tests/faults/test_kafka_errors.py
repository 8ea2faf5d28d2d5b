"""KafkaSink under broker errors that only an injector gives: nothing is ever taken for committed that was not.

The mock cluster neither hides open transactions nor fences, so these tests judge what the sink reports, not what a
read-committed reader sees; the real broker's tests do that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from consumer.delivery.names import Topics
from consumer.delivery.positions import CommittedPosition, encode_entry
from consumer.errors import (
    KafkaRefusedError,
    KafkaUnavailableError,
    ProducerFencedError,
    ServiceError,
    TransactionFailedError,
)
from consumer.events import OutboundRecord
from consumer.kafka.connection import Cluster
from consumer.kafka.sink import KafkaSink, Subscription
from consumer.kafka.topics import ensure_topics, planned_specs
from consumer.ports import Batch
from consumer.position import Position
from consumer.settings import KafkaSettings
from tests.faults.mock_cluster import Api, MockCluster
from tests.kafka_reader import read_committed_all

pytest.importorskip("confluent_kafka", reason="the injector needs the package confluent-kafka")

CHANNEL = "/data/MessagingSessionChangeEvent"
TOPICS = Topics("", (CHANNEL,))
SUBSCRIPTION = Subscription("svc", "00D000000000001AAA", CHANNEL, TOPICS)
CHANGES = TOPICS.changes("MessagingSession")


@pytest.fixture
def mock() -> Iterator[MockCluster]:
    with MockCluster(brokers=3) as cluster:
        yield cluster


@asynccontextmanager
async def opened(mock: MockCluster, transaction_timeout: str = "6s") -> AsyncIterator[KafkaSink]:
    settings = KafkaSettings.model_validate(
        {"bootstrap_servers": mock.bootstrap, "partitions": 2, "transaction_timeout": transaction_timeout}
    )
    cluster = Cluster(settings, embedded=mock)
    await ensure_topics(cluster, planned_specs(TOPICS, settings))
    sink = KafkaSink(cluster, SUBSCRIPTION)
    try:
        await sink.open()
        yield sink
    finally:
        await sink.close()


def batch(number: int = 1) -> Batch:
    position = Position(replay_id=b"%d" % number)
    change = OutboundRecord(CHANGES, b"k", b"%d" % number, (("ce_id", b"e%d:k" % number),))
    entry = encode_entry(TOPICS, CommittedPosition(CHANNEL, position, 1, 2, "w"))
    return Batch([change, entry], 1, position)


async def values(mock: MockCluster) -> list[bytes | None]:
    return [each.value for each in await read_committed_all(mock.bootstrap, CHANGES, check_crcs=False)]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (10, KafkaRefusedError),
        (87, TransactionFailedError),
        (2, TransactionFailedError),
        (45, TransactionFailedError),
        (59, TransactionFailedError),
        (47, ProducerFencedError),
    ],
)
async def test_a_refused_batch_is_never_taken_for_committed(
    mock: MockCluster, code: int, expected: type[ServiceError]
) -> None:
    """The client would commit the transaction all the same, position and all: silent loss."""
    async with opened(mock) as sink:
        mock.fail_next(Api.PRODUCE, code, code)
        with pytest.raises(expected):
            await sink.commit(batch())
        assert await values(mock) == []
        mock.forget_failures(Api.PRODUCE)
        with pytest.raises(TransactionFailedError, match="no producer"):
            await sink.commit(batch())
        await sink.open()
        await sink.commit(batch(2))
        assert await values(mock) == [b"2"], "a new producer starts without the gap in sequence numbers"


@pytest.mark.parametrize("code", [6, 19])
async def test_retriable_produce_errors_are_retried_without_repeats(mock: MockCluster, code: int) -> None:
    async with opened(mock) as sink:
        mock.fail_next(Api.PRODUCE, code, code, code)
        await sink.commit(batch())
        assert await values(mock) == [b"1"]


@pytest.mark.parametrize(
    ("api", "code", "expected"),
    [
        (Api.ADD_PARTITIONS_TO_TXN, 29, KafkaRefusedError),
        (Api.ADD_PARTITIONS_TO_TXN, 47, ProducerFencedError),
        (Api.ADD_PARTITIONS_TO_TXN, 48, TransactionFailedError),
        (Api.ADD_PARTITIONS_TO_TXN, 49, TransactionFailedError),
        (Api.ADD_PARTITIONS_TO_TXN, 90, TransactionFailedError),
        (Api.ADD_PARTITIONS_TO_TXN, 120, TransactionFailedError),
        (Api.END_TXN, 47, ProducerFencedError),
        (Api.END_TXN, 53, KafkaRefusedError),
        (Api.END_TXN, 48, TransactionFailedError),
        (Api.END_TXN, -1, TransactionFailedError),
    ],
)
async def test_transaction_errors_are_told_by_what_they_mean(
    mock: MockCluster, api: Api, code: int, expected: type[ServiceError]
) -> None:
    async with opened(mock) as sink:
        mock.fail_next(api, code)
        with pytest.raises(expected):
            await sink.commit(batch())
        await sink.open()
        await sink.commit(batch(2))


@pytest.mark.parametrize("api", [Api.ADD_PARTITIONS_TO_TXN, Api.END_TXN, Api.INIT_PRODUCER_ID])
@pytest.mark.parametrize("code", [14, 15, 16, 51])
async def test_passing_coordinator_troubles_are_waited_out(mock: MockCluster, api: Api, code: int) -> None:
    async with opened(mock) as sink:
        mock.fail_next(api, code, code)
        if api is Api.INIT_PRODUCER_ID:
            await sink.open()
        await sink.commit(batch())
        assert await values(mock) == [b"1"]


@pytest.mark.parametrize(
    ("code", "expected"), [(47, ProducerFencedError), (50, KafkaRefusedError), (53, KafkaRefusedError)]
)
async def test_taking_over_can_be_refused(mock: MockCluster, code: int, expected: type[ServiceError]) -> None:
    async with opened(mock) as sink:
        mock.fail_next(Api.INIT_PRODUCER_ID, code)
        with pytest.raises(expected):
            await sink.open()
        with pytest.raises(TransactionFailedError, match="no producer"):
            await sink.commit(batch())


async def test_leader_and_coordinator_may_move_between_transactions(mock: MockCluster) -> None:
    async with opened(mock) as sink:
        await sink.commit(batch(1))
        for partition in range(2):
            mock.move_leader(CHANGES, partition, 2)
        mock.move_coordinator(SUBSCRIPTION.transactional_id, 3)
        await sink.commit(batch(2))
        assert await values(mock) == [b"1", b"2"]


async def test_with_all_brokers_down_commit_and_close_end_in_bounded_time(mock: MockCluster) -> None:
    """Both would wait for ever by themselves; afterwards nothing may be left running."""
    async with opened(mock, "3s") as sink:
        await sink.commit(batch(1))
        for broker in (1, 2, 3):
            mock.set_down(broker)
        before = time.monotonic()
        with pytest.raises(TransactionFailedError):
            await sink.commit(batch(2))
        assert time.monotonic() - before < 25
        with pytest.raises(KafkaUnavailableError, match="did not answer"):
            await sink.open()
        await sink.close()
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if left:
            await asyncio.wait(left, timeout=5)
        assert [task for task in left if not task.done()] == []
        for broker in (1, 2, 3):
            mock.set_up(broker)
        await sink.open()
        await sink.commit(batch(3))


async def test_an_endless_commit_is_given_up_as_unknown(mock: MockCluster) -> None:
    async with opened(mock, "3s") as sink:
        mock.fail_next(Api.END_TXN, *[14] * 1000)
        with pytest.raises(TransactionFailedError, match="outcome is unknown"):
            await sink.commit(batch())
        mock.forget_failures(Api.END_TXN)
        await sink.open()
        await sink.commit(batch(2))


async def test_a_cancelled_commit_lets_the_producer_go(mock: MockCluster) -> None:
    async with opened(mock) as sink:
        mock.fail_next(Api.END_TXN, *[14] * 1000)
        async with asyncio.TaskGroup() as group:
            committing = group.create_task(sink.commit(batch()))
            await asyncio.wait([committing], timeout=0.5)
            assert committing.cancel()
        assert committing.cancelled()
        mock.forget_failures(Api.END_TXN)
        with pytest.raises(TransactionFailedError, match="no producer"):
            await sink.commit(batch())
        await sink.open()
        await sink.commit(batch(2))
