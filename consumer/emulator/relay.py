"""A TCP relay before the Pub/Sub port, for the faults that only the network can have.

gRPC answers HTTP/2 pings by itself, so a server can't play dead; a relay that passes no byte can.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Coroutine

from consumer.errors import EmulatorError

_CHUNK = 256 * 1024


class Relay:
    """Passes bytes between clients and the gRPC server until told otherwise.

    Args:
        host: address of both sides.
        group: owns the tasks of the connections.
    """

    def __init__(self, host: str, group: asyncio.TaskGroup) -> None:
        self._host = host
        self._group = group
        self._target = 0
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._later: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.port = 0

    async def start(self, port: int, target: int) -> int:
        """Listen, and return the port.

        Args:
            port: 0 takes a free one.
            target: the gRPC server's port.

        Raises:
            EmulatorError: the port is taken.
        """
        self._target = target
        try:
            self._listener = await asyncio.start_server(self._accept, self._host, port)
        except OSError as error:
            where = f"{self._host}:{port}"
            raise EmulatorError(f"{where} can't be listened on", "Give another --port-pubsub or --host") from error
        self.port = self._listener.sockets[0].getsockname()[1]
        return self.port

    def stop(self) -> None:
        """Stop listening for good and reset every connection."""
        for task in self._later:
            task.cancel()
        self._hang_up()

    def _hang_up(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._flowing.set()
        self.reset()

    def reset(self) -> None:
        """Reset every connection."""
        for writer in tuple(self._writers):
            _reset(writer)

    def freeze(self, seconds: float) -> None:
        """Pass no byte for a while and close nothing, not even what the other side closes."""
        self._flowing.clear()
        self._do_later(self._thaw(seconds))

    def refuse(self, seconds: float) -> None:
        """Reset every connection and accept none for a while."""
        self._hang_up()
        self._do_later(self._listen_again(seconds))

    def _do_later(self, work: Coroutine[None, None, None]) -> None:
        task = self._group.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _thaw(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._flowing.set()

    async def _listen_again(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.start(self.port, self._target)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flowing.wait()
        try:
            to_server = await asyncio.open_connection(self._host, self._target)
        except OSError:
            _reset(writer)
            return
        pair = {writer, to_server[1]}
        self._writers |= pair
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, to_server[1]))
                group.create_task(self._pass(to_server[0], writer))
        finally:
            self._writers -= pair
            for each in pair:
                each.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Copy one direction until either side ends."""
        try:
            while data := await reader.read(_CHUNK):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
            await self._flowing.wait()
        except OSError:
            _reset(writer)
        # The other direction has nobody to talk to any more.
        writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST in place of FIN."""
    raw = writer.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
