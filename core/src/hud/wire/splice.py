"""Splices: two byte streams joined, both ways, with half-close and back-pressure, copying as little as may be."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import cast

SPLICE_BYTES = 256 * 1024
"""What one turn moves. Reading and writing happen in the same turn, so splices of one loop share a buffer."""


class SocketSplice:
    """Joins two connected, non-blocking sockets on the running loop and owns them until both ways have ended.

    A turn receives into the shared buffer and sends from it; only what the other side would not take is copied,
    and then its source is not read until that is gone.
    """

    __slots__ = ("_loop", "_on_end", "_pumps")

    def __init__(
        self,
        left: socket.socket,
        right: socket.socket,
        buffer: memoryview,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._pumps: tuple[_Pump, ...] = (_Pump(self, left, right, buffer), _Pump(self, right, left, buffer))

    def start(self, early: bytes = b"") -> None:
        """Begin; `early` is what was already read from the left side."""
        left, right = self._pumps
        if early:
            left.rest = memoryview(early)
            left.drain()
        else:
            left.listen()
        right.listen()

    def ended(self) -> None:
        """Close both sockets once both directions are through."""
        if self._pumps and all(pump.done for pump in self._pumps):
            self.close()

    def close(self) -> None:
        """End both directions now."""
        pumps, self._pumps = self._pumps, ()
        for pump in pumps:
            pump.stop()
        for pump in pumps:
            pump.source.close()
        if pumps and self._on_end is not None:
            self._on_end()


class _Pump:
    """One direction of a splice."""

    __slots__ = (
        "_buffer",
        "_loop",
        "_source_fd",
        "_splice",
        "_target_fd",
        "done",
        "rest",
        "source",
        "target",
    )

    def __init__(
        self, splice: SocketSplice, source: socket.socket, target: socket.socket, buffer: memoryview
    ) -> None:
        self._splice = splice
        self._loop = splice._loop
        self._buffer = buffer
        self.source = source
        self.target = target
        self._source_fd = source.fileno()
        self._target_fd = target.fileno()
        self.rest: memoryview | None = None
        self.done = False

    def listen(self) -> None:
        self._loop.add_reader(self._source_fd, self.read)

    def stop(self) -> None:
        self._loop.remove_reader(self._source_fd)
        self._loop.remove_writer(self._target_fd)

    def read(self) -> None:
        buffer = self._buffer
        try:
            count = self.source.recv_into(buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._splice.close()
            return
        if not count:
            self._loop.remove_reader(self._source_fd)
            self._finish()
            return
        try:
            sent = self.target.send(buffer[:count])
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._splice.close()
            return
        if sent < count:
            self.rest = memoryview(bytes(buffer[sent:count]))
            self._loop.remove_reader(self._source_fd)
            self._loop.add_writer(self._target_fd, self.drain)

    def drain(self) -> None:
        rest = self.rest
        assert rest is not None
        try:
            sent = self.target.send(rest)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._splice.close()
            return
        if sent < len(rest):
            self.rest = rest[sent:]
            self._loop.add_writer(self._target_fd, self.drain)
            return
        self.rest = None
        self._loop.remove_writer(self._target_fd)
        self.listen()

    def _finish(self) -> None:
        self.done = True
        with contextlib.suppress(OSError):  # the other side has gone; its own direction will say so
            self.target.shutdown(socket.SHUT_WR)
        self._splice.ended()


class TransportSplice:
    """Joins two asyncio transports, where one of them is no plain socket (TLS, a plugin's transport)."""

    def __init__(self, on_end: Callable[[], None] | None = None) -> None:
        self.left: _Relay = _Relay(self)
        self.right: _Relay = _Relay(self)
        self.left.other, self.right.other = self.right, self.left
        self._on_end = on_end
        self._open = True

    def ended(self) -> None:
        """Close both transports once both directions are through."""
        if self.left.done and self.right.done:
            self.close()

    def close(self) -> None:
        """End both directions, sending what is already buffered."""
        if not self._open:
            return
        self._open = False
        for relay in (self.left, self.right):
            if relay.transport is not None:
                relay.transport.close()
        if self._on_end is not None:
            self._on_end()


class _Relay(asyncio.BufferedProtocol):
    """Receives from one transport and writes to the other's."""

    other: _Relay

    def __init__(self, splice: TransportSplice) -> None:
        self._splice = splice
        # A view, since asyncio's TLS slices what it is given, and a slice of a bytearray is a copy.
        self._buffer = memoryview(bytearray(SPLICE_BYTES // 4))
        self.transport: asyncio.Transport | None = None
        self.done: bool = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's transports are so in kind, not in class
        self.transport = transport
        transport.set_write_buffer_limits(high=SPLICE_BYTES)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return self._buffer

    def buffer_updated(self, count: int) -> None:
        target = self.other.transport
        if target is None:
            return
        # A transport may keep what it could not send at once; a copy keeps our buffer free for the next read.
        target.write(bytes(self._buffer[:count]))

    def pause_writing(self) -> None:
        if self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other.transport is not None:
            self.other.transport.resume_reading()

    def eof_received(self) -> bool:
        self.done = True
        target = self.other.transport
        halves = self.transport is not None and self.transport.can_write_eof()
        if halves and target is not None and target.can_write_eof():
            with contextlib.suppress(OSError):  # it was reset meanwhile; its own connection_lost will say so
                target.write_eof()
            self._splice.ended()
            return True
        self._splice.close()  # asyncio's TLS cannot end one direction alone
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.transport = None
        self._splice.close()


def tune(sock: socket.socket) -> None:
    """Set what every stream of ours wants: no delay, keep-alive, non-blocking."""
    sock.setblocking(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
