"""Writer schemas by id, each fetched once however many ask for it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic

import grpc.aio

from consumer import clock
from consumer._proto import pubsub_api_pb2 as pb
from consumer.errors import LoginError, PubSubError, SchemaRefusedError, SchemaUnavailableError, TokenRefusedError
from consumer.events import ReceivedSchema, StreamFault, TapItem
from consumer.salesforce.channel import S, Tokens, pubsub_stub
from consumer.salesforce.status import Call
from consumer.salesforce.unary import DEADLINE_S, ask

MAX_SCHEMAS = 256
"""An org has a handful of schemas in use; an old one comes back only with old events."""


class SchemaCache(Generic[S]):
    """Implements :class:`consumer.ports.SchemaSource` over ``GetSchema``.

    A schema id never changes its meaning, so what was fetched stays good; the least recently used one makes room.

    Args:
        channel: open channel to the Pub/Sub API.
        topic: channel whose events need the schemas; only written into recordings.
        tokens: where the session comes from.
        tap: is told each schema as it was fetched, and each that was refused, for recordings.
        deadline_s: longest wait for one answer, seconds.
        max_schemas: how many are kept.
        now_ms: wall clock, epoch milliseconds.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        topic: str,
        tokens: Tokens[S],
        *,
        tap: Callable[[TapItem], None] | None = None,
        deadline_s: float = DEADLINE_S,
        max_schemas: int = MAX_SCHEMAS,
        now_ms: Callable[[], int] = clock.now_ms,
    ) -> None:
        self._get_schema = pubsub_stub(channel).GetSchema
        self._topic = topic
        self._tokens = tokens
        self._tap = tap
        self._deadline_s = deadline_s
        self._max_schemas = max_schemas
        self._now_ms = now_ms
        self._schemas: OrderedDict[str, str] = OrderedDict()
        # A flight ends with the schema, with the error all who wait share, or with None when it was cancelled.
        self._flights: dict[str, asyncio.Future[str | PubSubError | None]] = {}

    async def fetch(self, schema_id: str) -> str:
        """Return the schema's Avro JSON.

        Raises:
            SchemaUnavailableError: it can't be had now, for want of an answer or of a session; try again.
            SchemaRefusedError: the id is blank or unknown, or this user may not read it.
        """
        if not schema_id.strip():
            raise SchemaRefusedError(
                "The event names no schema", "Its bytes are kept in quarantine; report it to Salesforce."
            )
        while True:
            known = self._schemas.get(schema_id)
            if known is not None:
                self._schemas.move_to_end(schema_id)
                return known
            flight = self._flights.get(schema_id)
            if flight is None:
                return await self._lead(schema_id)
            # Shielded: one of those who wait may be cancelled without taking the others along.
            outcome = await asyncio.shield(flight)
            if isinstance(outcome, PubSubError):
                raise outcome
            if outcome is not None:
                return outcome

    async def _lead(self, schema_id: str) -> str:
        """Ask on behalf of all who want this schema; when cancelled, one of them takes over."""
        flight = asyncio.get_running_loop().create_future()
        self._flights[schema_id] = flight
        outcome: str | PubSubError | None = None
        try:
            outcome = await self._ask(schema_id)
        except PubSubError as error:
            outcome = error
            if self._tap is not None and isinstance(error, SchemaRefusedError):
                fault = StreamFault(self._topic, type(error).__name__, error.code, error.message, self._now_ms())
                self._tap(fault)
            raise
        else:
            self._keep(schema_id, outcome)
            return outcome
        finally:
            del self._flights[schema_id]
            flight.set_result(outcome)

    async def _ask(self, schema_id: str) -> str:
        request = pb.SchemaRequest(schema_id=schema_id)
        try:
            answer: pb.SchemaInfo = await ask(
                self._get_schema, request, self._tokens, Call.GET_SCHEMA, self._deadline_s
            )
        except TokenRefusedError as error:
            raise SchemaUnavailableError(
                error.message, error.advice, status=error.status, code=error.code, rpc_id=error.rpc_id
            ) from error
        except LoginError as error:
            raise SchemaUnavailableError(
                f"The schema {schema_id} can't be asked for without a login: {error.message}", error.advice
            ) from error
        if not answer.schema_json or answer.schema_id not in {"", schema_id}:
            raise SchemaUnavailableError(
                f"The answer for the schema {schema_id} is empty or for another schema",
                "It is asked for again; report it to Salesforce if it lasts.",
                rpc_id=answer.rpc_id,
            )
        return answer.schema_json

    def _keep(self, schema_id: str, schema_json: str) -> None:
        self._schemas[schema_id] = schema_json
        if len(self._schemas) > self._max_schemas:
            self._schemas.popitem(last=False)
        if self._tap is not None:
            self._tap(ReceivedSchema(self._topic, schema_id, schema_json, self._now_ms()))
