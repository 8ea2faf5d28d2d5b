"""Baseline (b): the client one writes first. The ``avro`` library decodes, and every event is sent and waited for."""

from __future__ import annotations

import asyncio
import io
import json

import avro.io
import avro.schema
from aiokafka import AIOKafkaProducer

from consumer._proto import pubsub_api_pb2 as pb
from tests.bench.clients import Usage, pubsub, read_task, responses


async def _main() -> None:
    task, usage = read_task(), Usage()
    readers: dict[str, avro.io.DatumReader] = {}
    async with AIOKafkaProducer(bootstrap_servers=task.bootstrap, acks="all") as producer, pubsub(task) as (stub, meta):
        async for events in responses(stub, meta, task):
            usage.begin()
            for each in events:
                event = each.event
                if event.schema_id not in readers:
                    answer = await stub.GetSchema(pb.SchemaRequest(schema_id=event.schema_id), metadata=meta)
                    readers[event.schema_id] = avro.io.DatumReader(avro.schema.parse(answer.schema_json))
                change = readers[event.schema_id].read(avro.io.BinaryDecoder(io.BytesIO(event.payload)))
                key = change["ChangeEventHeader"]["recordIds"][0].encode()
                await producer.send_and_wait(task.target, json.dumps(change).encode(), key=key)
    usage.tell(task.events)


if __name__ == "__main__":
    asyncio.run(_main())
