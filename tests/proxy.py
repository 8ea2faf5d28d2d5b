"""A TCP proxy that can be cut, stalled and slowed: the network between a worker and what it talks to."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_CHUNK = 256 * 1024
HOST = "127.0.0.1"


class Proxy:
    """Passes bytes to ``target`` until told otherwise.

    Attributes:
        address: host:port it listens on.
        connections: how many were accepted so far.
        to_server_s: delay of what clients send, seconds.
        to_client_s: delay of what they are sent, seconds.
    """

    def __init__(self, target: str, tasks: asyncio.TaskGroup) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._tasks = tasks
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._connected = asyncio.Event()
        self.address = ""
        self.connections = 0
        self.to_server_s = 0.0
        self.to_client_s = 0.0

    async def start(self, port: int = 0) -> None:
        """Listen; port 0 takes a free one."""
        self._listener = await asyncio.start_server(self._accept, HOST, port)
        self.address = f"{HOST}:{self._listener.sockets[0].getsockname()[1]}"

    def stop(self) -> None:
        """Stop listening and reset every connection."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.cut()
        for task in tuple(self._running):
            task.cancel()

    def cut(self) -> int:
        """Reset every connection, both sides; new ones are accepted. Returns how many sockets it were."""
        writers = tuple(self._writers)
        self._writers.clear()
        self._connected.clear()
        for writer in writers:
            _reset(writer)
        return len(writers)

    async def connected(self) -> None:
        """Wait until something is connected, again after a cut: records that were received go on without."""
        await self._connected.wait()

    def stall(self) -> None:
        """Pass no byte and close nothing, as behind a firewall that forgot the connection; new ones are accepted."""
        self._flowing.clear()

    def resume(self) -> None:
        """Pass bytes again, first those held back."""
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The group's task, so that stop() can end it whatever it waits for.
        task = self._tasks.create_task(self._serve(reader, writer))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        server: asyncio.StreamWriter | None = None
        try:
            from_server, server = await asyncio.open_connection(*self._target)
            self._writers.add(server)
            self._connected.set()
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, server, to_server=True))
                both.create_task(self._pass(from_server, writer, to_server=False))
        except OSError:
            _reset(writer)
        finally:
            for each in (writer, server):
                if each is not None:
                    self._writers.discard(each)
                    each.close()
            if not self._writers:
                self._connected.clear()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_server: bool) -> None:
        """Copy one direction until either side ends."""
        try:
            while data := await reader.read(_CHUNK):
                await self._flowing.wait()
                delay_s = self.to_server_s if to_server else self.to_client_s
                if delay_s:
                    await asyncio.sleep(delay_s)
                writer.write(data)
                await writer.drain()
            await self._flowing.wait()
        except OSError:
            _reset(writer)
        writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST in place of FIN."""
    raw = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def running_proxy(target: str, port: int = 0) -> AsyncIterator[Proxy]:
    """Run a proxy before ``target`` while the block runs.

    Args:
        target: host:port.
        port: where to listen, 0 for a free port.
    """
    failure: BaseException | None = None
    async with asyncio.TaskGroup() as tasks:
        proxy = Proxy(target, tasks)
        await proxy.start(port)
        try:
            yield proxy
        except BaseException as error:  # noqa: BLE001  # raised below, outside the group that would wrap it
            failure = error
        finally:
            proxy.stop()
    if failure is not None:
        raise failure
