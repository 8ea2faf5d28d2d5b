"""One channel from the Pub/Sub API into recorded items, for `record` and for `verify` of a live org."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from consumer.buffer import EventBuffer
from consumer.connections import Salesforce
from consumer.errors import PositionLostError, SchemaRefusedError, SchemaUnavailableError, ServiceError
from consumer.events import ReceivedEvent, TapItem
from consumer.position import Position, Preset
from consumer.recording.tap import Tap
from consumer.salesforce.schemas import SchemaCache
from consumer.salesforce.stream import PubSubStream, SilentObserver, Timing
from consumer.tasks import cancel, task_group

_BUFFER_EVENTS = 1000
_BUFFER_BYTES = 64 << 20
_SCHEMA_PAUSE_S = 2.0


class Capture:
    """Reads one channel and gives each item to ``write``, every schema before the events that need it.

    Args:
        org: the connected org.
        topic: the channel.
        write: is given each item, in order.
        notice: is told in one sentence what went wrong and is being mended.
        most: events after which to stop; None for no end.
        watchdog_s: silence after which the stream is taken for dead, seconds.
    """

    def __init__(
        self,
        org: Salesforce,
        topic: str,
        write: Callable[[TapItem], None],
        notice: Callable[[str], None],
        *,
        most: int | None = None,
        watchdog_s: float = 300.0,
    ) -> None:
        self._write = write
        self._notice = notice
        self._most = most
        self._events = 0
        self._topic = topic
        self._full = asyncio.Event()
        self._tap = Tap(self._counted)
        self._stream = PubSubStream(
            org.channel, topic, org.tokens, timing=Timing(watchdog_s=watchdog_s), observer=_Told(notice), tap=self._tap
        )
        self._schemas = SchemaCache(org.channel, topic, org.tokens, tap=self._tap)

    async def run(self, preset: Preset) -> None:
        """Read until ``most`` events were written; cancel it to stop earlier.

        A lost position is written as the fault it is; reading goes on with the oldest retained event.

        Args:
            preset: where to begin.

        Raises:
            TopicRefusedError: the topic can't be read by this user.
            ServiceError: what can't be mended by trying again.
        """
        try:
            while not self._full.is_set():
                try:
                    await self._read(preset)
                except PositionLostError as error:
                    self._notice(f"{error.message}; going on with the oldest retained event")
                    preset = Preset.EARLIEST
        finally:
            self._tap.flush()

    async def _read(self, preset: Preset) -> None:
        # No more events are asked for than are wanted: each one counts against the org's allowance.
        wanted = _BUFFER_EVENTS if self._most is None else min(self._most - self._events, _BUFFER_EVENTS)
        buffer = EventBuffer(wanted, _BUFFER_BYTES)
        async with task_group() as group:
            stream = group.create_task(self._stream.run(Position(preset=preset), buffer))
            schemas = group.create_task(self._fetch_schemas(buffer))
            await self._full.wait()
            await cancel(stream)
            await cancel(schemas)

    async def _fetch_schemas(self, buffer: EventBuffer) -> None:
        seen: set[str] = set()
        while True:
            await buffer.wait_filled()
            for item in buffer.take(_BUFFER_EVENTS):
                if isinstance(item, ReceivedEvent) and item.schema_id not in seen:
                    seen.add(item.schema_id)
                    await self._fetch(item.schema_id)

    async def _fetch(self, schema_id: str) -> None:
        """Have a schema recorded; events whose schema is refused are recorded without."""
        while True:
            try:
                await self._schemas.fetch(schema_id)
            except SchemaUnavailableError as error:
                self._notice(f"{error.message}; asking again")
                await asyncio.sleep(_SCHEMA_PAUSE_S)
            except SchemaRefusedError as error:
                self._notice(f"{error.message}; its events are recorded without it")
                return
            else:
                return

    def _counted(self, item: TapItem) -> None:
        if self._full.is_set():
            return
        self._write(item)
        self._events += isinstance(item, ReceivedEvent)
        if self._most is not None and self._events >= self._most:
            self._full.set()


class _Told(SilentObserver):
    """Passes on why a stream ended; everything else of a stream can be seen in what is recorded."""

    def __init__(self, notice: Callable[[str], None]) -> None:
        self._notice = notice

    def disconnected(self, error: ServiceError, delay_s: float) -> None:
        """Tell of an end that is being mended."""
        if delay_s > 0:
            self._notice(f"{error.message}; trying again in {delay_s:.0f} s")
