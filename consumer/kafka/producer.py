"""The transactional producer's life: made, used for one run of good transactions, thrown away after a bad one.

aiokafka keeps a gap in its sequence numbers after a failed batch and never mends it (aio-libs/aiokafka#1017), and
several of its calls have no time limit; both are dealt with here.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import ProducerClosed

from consumer.kafka.connection import CONNECT_LIMIT_S, REQUEST_TIMEOUT_MS, Cluster, asking

BATCH_BYTES = 900_000
"""Most bytes of one record batch; the brokers' default ``max.message.bytes`` is 1,048,588."""

_ABORT_LIMIT_S = 5.0
_STOP_LIMIT_S = 5.0
_CLOSE_LIMIT_S = 3.0

_log = structlog.get_logger(__name__)


def new_producer(cluster: Cluster, transactional_id: str) -> Any:
    """Return a producer that is not started yet."""
    settings = cluster.settings
    return AIOKafkaProducer(
        **cluster.options()
        | {"request_timeout_ms": min(REQUEST_TIMEOUT_MS, max(1_000, settings.transaction_timeout // 3))},
        transactional_id=transactional_id,
        transaction_timeout_ms=settings.transaction_timeout,
        acks="all",
        compression_type=None if settings.compression == "none" else settings.compression,
        max_batch_size=BATCH_BYTES,
        max_request_size=BATCH_BYTES,
    )


async def try_transaction(cluster: Cluster, transactional_id: str, topic: str | None) -> None:
    """Commit a transaction that changes nothing, to see whether it would be allowed.

    Args:
        cluster: the cluster.
        transactional_id: an id nobody else uses.
        topic: a compacted topic that is given a tombstone of a key nobody uses; None tries the id alone, because
            an empty transaction never reaches the broker's commit.

    Raises:
        KafkaUnavailableError: no answer in time.
        KafkaRefusedError: the transactional id or the topic may not be written.
    """
    producer = new_producer(cluster, transactional_id)
    limit_s = cluster.settings.transaction_timeout / 1000
    committed = False
    try:
        async with asking(cluster, "trying a transaction", min(limit_s, CONNECT_LIMIT_S)):
            await producer.start()
            await producer.begin_transaction()
            if topic is not None:
                await producer.send_and_wait(topic, None, key=f"check:{transactional_id}".encode(), partition=0)
            await producer.commit_transaction()
            committed = True
    finally:
        await let_go(producer, abort=not committed)


async def let_go(producer: Any, *, abort: bool) -> None:
    """End a producer in a bounded time, whatever state it is in and whether or not a broker answers.

    Args:
        producer: it must not be used afterwards.
        abort: whether a transaction may be open; aborting it lets readers of its partitions go on at once
            instead of after the transaction timeout.
    """
    if abort:
        try:
            async with asyncio.timeout(_ABORT_LIMIT_S):
                await producer.abort_transaction()
        except Exception as error:  # noqa: BLE001  # also AssertionError: a state from which there is no abort
            _log.debug("kafka.abort_not_possible", reason=type(error).__name__)
    try:
        async with asyncio.timeout(_STOP_LIMIT_S):
            await producer.stop()
    except Exception as error:  # noqa: BLE001  # a dead sender raises its own end here, of any class
        _log.debug("kafka.stop_not_clean", reason=type(error).__name__)
        await _tear_down(producer)
    _look_at_failures(producer)


async def _tear_down(producer: Any) -> None:
    """Do by hand what ``stop()`` did not do in time; a broker that is down makes it wait for ever.

    These are aiokafka's private parts (0.14); a test holds them to it.
    """
    accumulator, sender = producer._message_accumulator, producer._sender._sender_task  # noqa: SLF001
    accumulator.fail_all(ProducerClosed())
    if sender is not None:
        sender.cancel()
    try:
        async with asyncio.timeout(_CLOSE_LIMIT_S):
            await producer.client.close()
    except Exception as error:  # noqa: BLE001  # the connections are dropped either way
        _log.debug("kafka.close_not_clean", reason=type(error).__name__)
    if sender is not None and not sender.done():
        # The first cancellation makes it wait for its own requests; the second ends those waits.
        sender.cancel()
        await asyncio.wait([sender], timeout=_CLOSE_LIMIT_S)


def _look_at_failures(producer: Any) -> None:
    """Take note of failures nobody waits for any more, which asyncio would otherwise report as forgotten."""
    accumulator, transactions = producer._message_accumulator, producer._txn_manager  # noqa: SLF001  # as above
    batches = [batch for several in accumulator._batches.values() for batch in several]  # noqa: SLF001
    batches += accumulator._pending_batches  # noqa: SLF001
    waiters = [waiter for batch in batches for waiter in (batch.future, batch._drain_waiter)]  # noqa: SLF001
    if transactions._transaction_waiter is not None:  # noqa: SLF001
        waiters.append(transactions._transaction_waiter)  # noqa: SLF001
    for waiter in waiters:
        if waiter.done() and not waiter.cancelled():
            waiter.exception()
