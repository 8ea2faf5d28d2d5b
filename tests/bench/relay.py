"""A TCP relay that makes the way longer: each direction delays every byte by half the round trip.

``python -m tests.bench.relay HOST:PORT RTT_MS`` prints its own port, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque

import uvloop

_CHUNK = 1 << 18


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Pass bytes on, each chunk ``delay_s`` after it came; what is under way is not bounded, as in a long wire."""
    loop = asyncio.get_running_loop()
    wire: deque[tuple[float, bytes]] = deque()

    def deliver() -> None:
        now = loop.time()
        while wire and wire[0][0] <= now + 0.000_05:
            writer.write(wire.popleft()[1])

    while data := await reader.read(_CHUNK):
        due = loop.time() + delay_s
        wire.append((due, data))
        loop.call_at(due, deliver)
    await asyncio.sleep(delay_s)
    writer.close()


async def _main() -> None:
    target, rtt_ms = sys.argv[1], float(sys.argv[2])
    host, _, port = target.rpartition(":")

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(host, int(port))
        half_s = rtt_ms / 2000
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pass_on(reader, there_writer, half_s))
                group.create_task(_pass_on(there_reader, writer, half_s))
        except* OSError:
            pass  # a side that went away ends the connection, as on a real wire

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main())
