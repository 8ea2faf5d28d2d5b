"""Baseline (a): moves payload bytes from gRPC to Kafka, whole batches in transactions, and looks at nothing.

The transactions hold as many records as the service's, and are compressed like the service's; reading goes on while
one commits, and each is one record batch in one partition. No position, no headers, no key.
"""

from __future__ import annotations

import asyncio
import time
import uuid

import uvloop
from aiokafka import AIOKafkaProducer

from tests.bench.clients import Task, Usage, pubsub, read_task, responses


async def _commit_all(producer: AIOKafkaProducer, handoff: asyncio.Queue[list[bytes] | None], task: Task) -> None:
    number = 0
    while (payloads := await handoff.get()) is not None:
        now_ms = time.time_ns() // 1_000_000
        await producer.begin_transaction()
        batch = producer.create_batch()
        for payload in payloads:
            assert batch.append(timestamp=now_ms, key=None, value=payload) is not None
        await (await producer.send_batch(batch, task.target, partition=number % task.partitions))
        await producer.commit_transaction()
        number += 1


async def _main() -> None:
    task, usage = read_task(), Usage()
    producer = AIOKafkaProducer(
        bootstrap_servers=task.bootstrap,
        transactional_id=f"passthrough-{uuid.uuid4()}",
        compression_type="zstd",
        acks="all",
        max_batch_size=900_000,
        max_request_size=900_000,
    )
    async with producer, pubsub(task) as (stub, metadata), asyncio.TaskGroup() as group:
        handoff: asyncio.Queue[list[bytes] | None] = asyncio.Queue(1)
        group.create_task(_commit_all(producer, handoff, task))
        payloads: list[bytes] = []
        async for events in responses(stub, metadata, task):
            usage.begin()
            payloads += [each.event.payload for each in events]
            if len(payloads) >= task.batch:
                await handoff.put(payloads[: task.batch])
                payloads = payloads[task.batch :]
        await handoff.put(payloads or None)
        if payloads:
            await handoff.put(None)
    usage.tell(task.events)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main())
