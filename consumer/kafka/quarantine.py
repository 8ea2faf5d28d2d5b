"""Reading the quarantine topic, for `quarantine list` and for a retry."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from typing import Any

import structlog

from consumer.delivery.quarantine import read_quarantine
from consumer.errors import EventError
from consumer.events import ReceivedEvent
from consumer.kafka.connection import Cluster
from consumer.kafka.reading import CommittedReader

_log = structlog.get_logger(__name__)


class QuarantineTopic:
    """The quarantined events that Kafka still retains.

    Args:
        cluster: the cluster.
        topic: the ``quarantine`` topic.
    """

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._cluster = cluster
        self._topic = topic

    async def records(self) -> AsyncGenerator[Any, None]:
        """Yield the records as the client gives them, in order within each partition.

        Raises:
            KafkaUnavailableError: no broker answered in time.
        """
        async with CommittedReader(self._cluster) as reader:
            spans = await reader.spans(await reader.partitions([self._topic]))
            async for piece in reader.read(spans):
                for record in piece:
                    yield record

    async def events(self, window_ids: Collection[str]) -> AsyncGenerator[ReceivedEvent, None]:
        """Yield the events whose loss window is one of these; those kept without payload are left out.

        Raises:
            KafkaUnavailableError: no broker answered in time.
            ForeignStateError: something else writes to the topic.
        """
        async with aclosing(self.records()) as records:
            async for record in records:
                try:
                    event = read_quarantine(record.key or b"", record.value, record.headers)
                except EventError as error:
                    _log.warning("quarantine.no_payload", reason=error.message)
                    continue
                if event.window_id in window_ids:
                    yield event
