"""A TCP relay that makes the way longer: each direction delays every byte by half the round trip.

``python -m tests.bench.relay HOST:PORT RTT_MS`` prints its own port, and ends when its standard input does.
Threads, not an event loop, because the timers of event loops are only good to a millisecond.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import sys
import threading
import time

_CHUNK = 1 << 18


def _receive(source: socket.socket, wire: queue.SimpleQueue[tuple[float, bytes]], delay_s: float) -> None:
    """Put what comes on the wire, with the time at which it comes out; a long wire holds any number of bytes."""
    data = b"-"
    while data:
        try:
            data = source.recv(_CHUNK)
        except OSError:
            data = b""
        wire.put((time.monotonic() + delay_s, data))


def _deliver(target: socket.socket, wire: queue.SimpleQueue[tuple[float, bytes]]) -> None:
    while True:
        due, data = wire.get()
        time.sleep(max(0.0, due - time.monotonic()))
        with contextlib.suppress(OSError):  # a side that went away ends the connection, as on a real wire
            if not data:
                target.shutdown(socket.SHUT_RDWR)
                return
            target.sendall(data)


def _pass_on(source: socket.socket, target: socket.socket, delay_s: float) -> None:
    wire: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
    for work, arguments in ((_receive, (source, wire, delay_s)), (_deliver, (target, wire))):
        threading.Thread(target=work, args=arguments, daemon=True).start()


def _accept(listener: socket.socket, target: str, delay_s: float) -> None:
    host, _, port = target.rpartition(":")
    while True:
        near, _ = listener.accept()
        far = socket.create_connection((host, int(port)))
        for each in (near, far):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _pass_on(near, far, delay_s)
        _pass_on(far, near, delay_s)


def main() -> None:
    """Relay until standard input ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    delay_s = float(sys.argv[2]) / 2000
    threading.Thread(target=_accept, args=(listener, sys.argv[1], delay_s), daemon=True).start()
    print(listener.getsockname()[1], flush=True)  # noqa: T201  # the starter reads it
    while os.read(0, 4096):
        pass


if __name__ == "__main__":
    main()
