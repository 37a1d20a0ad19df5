"""Capability streams: bytes a second, time to open one, time of one byte there and back.

Source, server and sink are processes of their own. Floors of the same run: the backing dialled directly, and a bare
splice of two sockets (one hop) where the server stands.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from hud.clients import connect
from tests.benchmarks.control_channel import served
from tests.benchmarks.row import Row

MIB = 1024 * 1024
AMOUNT = 512 * MIB
TIMES = 3
PINGS = 2_000
OPENINGS = 400

Dial = Callable[[], Awaitable[socket.socket]]


def drain(sock: socket.socket) -> float:
    """Ask for `AMOUNT` bytes and return MiB a second."""
    sock.setblocking(True)
    buffer = memoryview(bytearray(1 << 18))
    begun = time.perf_counter()
    sock.sendall(b"d" + AMOUNT.to_bytes(8, "big"))
    left = AMOUNT
    while left:
        count = sock.recv_into(buffer)
        assert count, "the stream ended early"
        left -= count
    return AMOUNT / MIB / (time.perf_counter() - begun)


def fill(sock: socket.socket) -> float:
    """Send `AMOUNT` bytes, wait for the receipt, and return MiB a second."""
    sock.setblocking(True)
    chunk = bytes(1 << 18)
    begun = time.perf_counter()
    sock.sendall(b"u" + AMOUNT.to_bytes(8, "big"))
    for _ in range(AMOUNT // len(chunk)):
        sock.sendall(chunk)
    assert sock.recv(1) == b"k"
    return AMOUNT / MIB / (time.perf_counter() - begun)


def echo(sock: socket.socket) -> float:
    """Return milliseconds of one byte there and back, the median."""
    sock.setblocking(True)
    sock.sendall(b"e" + bytes(8))
    took = []
    for _ in range(PINGS):
        begun = time.perf_counter()
        sock.sendall(b"x")
        sock.recv(1)
        took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1000


async def measured(dial: Dial, what: Callable[[socket.socket], float]) -> float:
    """Open a stream and measure it in a thread, so that a forwarder of this process goes on."""
    sock = await dial()
    try:
        return await asyncio.to_thread(what, sock)
    finally:
        sock.close()


async def opening(dial: Dial) -> float:
    """Return milliseconds to open a stream, the median."""
    took = []
    for _ in range(OPENINGS):
        begun = time.perf_counter()
        (await dial()).close()
        took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1000


async def compare(control_port: int, direct_port: int, spliced_port: int) -> list[Row]:
    async def direct() -> socket.socket:
        return await _connected("127.0.0.1", direct_port)

    async def spliced() -> socket.socket:
        return await _connected("127.0.0.1", spliced_port)

    async with connect(f"tcp://127.0.0.1:{control_port}") as client:
        bindings = client._capabilities()
        opened: Dial = bindings._opener(bindings.find("raw")).open_socket  # type: ignore[union-attr]
        url = urlsplit(client.binding("raw").url)

        async def listened() -> socket.socket:
            assert url.hostname is not None
            assert url.port is not None
            return await _connected(url.hostname, url.port)

        rows = []
        for what, name in ((drain, "down"), (fill, "up")):
            best: dict[Any, float] = {}
            for _ in range(TIMES):
                for dial in (direct, spliced, opened, listened):
                    best[dial] = max(best.get(dial, 0.0), await measured(dial, what))
            note = f"direct {best[direct]:,.0f}"
            for dial, through, target in ((opened, "open()", "1,000"), (listened, "a listener", "700")):
                work = f"tunnel throughput {name}, through {through}"
                rows.append(
                    Row(
                        work,
                        best[dial],
                        best[spliced],
                        "MiB/s",
                        "a bare splice of sockets, one hop",
                        True,
                        target,
                        note,
                    )
                )
        ours, floor = [min([await opening(dial) for _ in range(TIMES)]) for dial in (opened, direct)]
        rows.append(Row("tunnel: opening", ours, floor, "ms", "direct", target="0.7 ms"))
        ours, floor = [min([await measured(dial, echo) for _ in range(TIMES)]) for dial in (opened, direct)]
        rows.append(Row("tunnel: echo of 1 byte", ours, floor, "ms", "direct", target="0.09 ms"))
    return rows


async def _connected(host: str, port: int) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (host, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def measure() -> list[Row]:
    """Return the rows of the tunnel."""
    with (
        served("source") as (direct_port, _),
        served("splice", str(direct_port)) as (spliced_port, _),
        served("wire", str(direct_port)) as (control_port, _),
    ):
        return asyncio.run(compare(control_port, direct_port, spliced_port))


def serve_source() -> None:
    """Be the backing: blocking sockets, a thread each."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)

    def handle(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with sock:
            head = sock.recv(9)
            if not head:
                return
            count = int.from_bytes(head[1:9], "big")
            buffer = memoryview(bytearray(1 << 18))
            if head[:1] == b"d":
                while count:
                    count -= sock.send(buffer[: min(count, len(buffer))])
            elif head[:1] == b"u":
                while count:
                    count -= sock.recv_into(buffer)
                sock.sendall(b"k")
            else:
                while data := sock.recv(100):
                    sock.sendall(data)

    def accept() -> None:
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=handle, args=(sock,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()


class BareSplice(asyncio.BufferedProtocol):
    """The floor of a hop: what one transport receives, the other writes."""

    def __init__(self, port: int, other: BareSplice | None = None) -> None:
        self.port = port
        self.other = other
        self.buffer = memoryview(bytearray(1 << 18))
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self.other is None:
            transport.pause_reading()
            self.dialling = asyncio.ensure_future(self.dial())

    async def dial(self) -> None:
        loop = asyncio.get_running_loop()
        _, other = await loop.create_connection(lambda: BareSplice(self.port, self), "127.0.0.1", self.port)
        self.other = other
        self.transport.resume_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, count: int) -> None:
        assert self.other is not None
        self.other.transport.write(self.buffer[:count])
        if self.other.transport.get_write_buffer_size():
            self.buffer = memoryview(bytearray(1 << 18))  # a transport may hold on to what it could not send

    def pause_writing(self) -> None:
        assert self.other is not None
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        assert self.other is not None
        self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()
