"""Publish and PublishStream: platform events that clients send to the emulated org.

Facts (Pub/Sub API guide, "PublishStream RPC Method", "Allocations"): a wrong event fails alone, a wrong request fails
as a whole; change events can't be published.
"""

from __future__ import annotations

import asyncio
import io
import json
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import fastavro

from consumer._proto import pubsub_api_pb2 as pb
from consumer.emulator.refusals import TOO_MANY_CONNECTIONS, CallRefusedError, refuse
from consumer.emulator.state import Schemas, ServerState

MAX_EVENT_BYTES = 1024 * 1024
"""A larger event fails alone (Pub/Sub API guide, "Allocations")."""

BURST_S = 10.0
"""Time in which the burst of unary Publish calls is counted; the real window is not known."""

DEMO_EVENT = "Demo__e"
DEMO_SCHEMA_ID = "Zm9yRGVtb19fZUV2ZW50MQ"
DEMO_SCHEMA: dict[str, Any] = {
    "name": DEMO_EVENT,
    "namespace": "com.sforce.eventbus",
    "type": "record",
    "fields": [
        {"name": "CreatedDate", "type": "long", "doc": "CreatedDate:DateTime"},
        {"name": "CreatedById", "type": "string", "doc": "CreatedBy:EntityId"},
        {"name": "Msg__c", "type": ["null", "string"], "doc": "Data:Text:00Nem0000000001", "default": None},
        {"name": "Qty__c", "type": ["null", "double"], "doc": "Data:Double:00Nem0000000002", "default": None},
        {"name": "Ok__c", "type": ["null", "boolean"], "doc": "Data:Boolean:00Nem0000000003", "default": None},
    ],
}


@dataclass(frozen=True)
class AllSchemas:
    """The org model's schemas and those of its platform events."""

    model: Schemas

    def schema_json(self, schema_id: str) -> str | None:
        """Return a schema's Avro JSON, None when the id is unknown."""
        return json.dumps(DEMO_SCHEMA) if schema_id == DEMO_SCHEMA_ID else self.model.schema_json(schema_id)

    def current_schema_id(self, entity: str) -> str:
        """Return the schema id new events of an object are written with."""
        return DEMO_SCHEMA_ID if entity == DEMO_EVENT else self.model.current_schema_id(entity)


@dataclass(frozen=True, slots=True)
class PublishedEvent:
    """A platform event as the bus takes it."""

    event_id: str
    entity: str
    schema_id: str
    payload: bytes
    commit_ms: int
    change_type: str = ""
    record_ids: tuple[str, ...] = ()
    transaction_key: str = ""
    sequence_number: int = 0
    shares_replay_id: bool = False


class Publisher:
    """Puts published events on the bus.

    Args:
        state: bus, schemas and conditions.
    """

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._schema = fastavro.parse_schema(DEMO_SCHEMA)
        self._calls: deque[float] = deque()

    def check_burst(self) -> None:
        """Count a unary Publish call.

        Raises:
            CallRefusedError: too many within a short time; PublishStream is meant for that.
        """
        now = self._state.now()
        while self._calls and self._calls[0] < now - BURST_S:
            self._calls.popleft()
        if len(self._calls) >= self._state.publish_burst:
            raise CallRefusedError(TOO_MANY_CONNECTIONS)
        self._calls.append(now)

    def publish(self, request: pb.PublishRequest, rpc_id: str) -> pb.PublishResponse:
        """Publish the events of one request and say of each whether it is stored.

        Raises:
            CallRefusedError: the request is wrong as a whole.
        """
        entity = self._entity(request.topic_name)
        if not request.events:
            raise refuse("publish.event.count.invalid", "The publish request doesn't have events.")
        if request.auth_refresh:
            raise refuse("publish.auth.refresh.invalid", "An auth refresh isn't allowed in the initial request.")
        response = pb.PublishResponse(schema_id=self._state.schemas.current_schema_id(entity), rpc_id=rpc_id)
        for event in request.events:
            result = response.results.add()
            result.correlation_key = event.id or str(uuid.uuid4())
            fault = self._fault(event, response.schema_id)
            if fault:
                result.error.code = pb.PUBLISH
                result.error.msg = fault
                continue
            stored = PublishedEvent(str(uuid.uuid4()), entity, event.schema_id, event.payload, self._state.now_ms())
            result.replay_id = self._state.bus.append([stored])[0].replay_id
            self._state.stats.published += 1
        return response

    async def stream(
        self,
        requests: AsyncIterator[Any],
        write: Callable[[bytes], Awaitable[None]],
        rpc_id: str,
        check: Callable[[pb.PublishRequest], None],
    ) -> None:
        """Answer the requests of one PublishStream in order.

        Raises:
            CallRefusedError: a request is wrong as a whole, or the stream was idle too long.
        """
        topic = ""
        while True:
            try:
                async with asyncio.timeout(self._state.timing.publish_idle_s):
                    request = await anext(requests, None)
            except TimeoutError:
                raise refuse("publish.stream.sweeper.timeout", "The publish stream was idle for too long.") from None
            if request is None:
                return
            check(request)
            if not topic and not request.topic_name:
                raise refuse("publish.topic.validation.empty", "The topic name can't be blank.")
            if topic and request.topic_name not in {"", topic}:
                raise refuse("publish.topic.mismatch", "The topic name can't be changed within a stream.")
            topic = topic or request.topic_name
            request.topic_name = topic
            await write(self.publish(request, rpc_id).SerializeToString())

    def _entity(self, topic_name: str) -> str:
        if not topic_name:
            raise refuse("topic.validation.empty", "The topic name can't be blank.")
        topic = self._state.bus.topics.get(topic_name)
        if topic is None:
            raise refuse("topic.not.found", f"The topic {topic_name} doesn't exist or can't be accessed.")
        if topic.entity is None or not topic_name.startswith("/event/"):
            raise refuse("topic.meta.permission", f"Events can't be published to the topic {topic_name}.")
        return topic.entity

    def _fault(self, event: pb.ProducerEvent, schema_id: str) -> str:
        if event.schema_id != schema_id:
            return "The schema ID of the event isn't the topic's."
        if len(event.payload) > MAX_EVENT_BYTES:
            return "The event is larger than 1 MB."
        body = io.BytesIO(event.payload)
        try:
            fastavro.schemaless_reader(body, self._schema, None)
        except (EOFError, ValueError, IndexError, TypeError, OverflowError):
            return "The event's payload can't be read with its schema."
        return "" if body.tell() == len(event.payload) else "The event's payload has trailing data."
