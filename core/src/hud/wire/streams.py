"""Capability streams on the client: opened through the control address, or dialled where the backing is near."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar, cast

from hud.errors import ConnectionLostError, HudProtocolError
from hud.wire import frames
from hud.wire.address import ControlUrl, Target, dial
from hud.wire.faults import raised_from
from hud.wire.splice import SPLICE_BYTES, TransportSplice
from hud.wire.transports import Opener, ProtocolFactory

T = TypeVar("T")
_OPEN_S = 30.0


class SocketStream:
    """A `ByteStream` over a connected socket."""

    __slots__ = ("_loop", "_sock")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def read(self, max_bytes: int = 65536) -> bytes:
        """Return at least one byte, or b"" at the peer's end of stream."""
        return await self._loop.sock_recv(self._sock, max_bytes)

    async def read_into(self, buffer: memoryview) -> int:
        """Read into `buffer`, without a copy; return how many bytes, 0 at the end of stream."""
        return await self._loop.sock_recv_into(self._sock, buffer)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data`, waiting while the peer does not read."""
        await self._loop.sock_sendall(self._sock, data)

    async def write_eof(self) -> None:
        """End our direction; the peer may still write."""
        self._sock.shutdown(socket.SHUT_WR)

    async def close(self) -> None:
        """End both directions."""
        self._sock.close()


class DirectOpener:
    """A `StreamOpener` that dials the backing itself: for environments served in this process."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def __call__(self) -> SocketStream:
        """Open one stream."""
        return SocketStream(await self.open_socket())

    async def create_connection(self, protocol_factory: ProtocolFactory) -> tuple[Any, Any]:
        """Open one stream as asyncio's (transport, protocol)."""
        return await _adopted(await self.open_socket(), protocol_factory)

    async def open_socket(self) -> socket.socket:
        """Open one stream as a connected, non-blocking socket."""
        return await _within(dial(self._target))


class TunnelOpener:
    """A `StreamOpener` through the control address: each stream is a connection of its own."""

    def __init__(
        self, url: str, params: Mapping[str, Any], opener: Opener, name: str, session_id: str | None = None
    ) -> None:
        request = {"capability": name}
        if session_id is not None:
            request["session_id"] = session_id
        if params.get("token"):
            request["token"] = params["token"]
        self._request = frames.request(1, "tunnel.open", request)
        self._opener = opener
        self._name = name
        address = ControlUrl.parse(url)
        self._near: Target | None = address.target if address.scheme in ("tcp", "unix") else None

    async def __call__(self) -> SocketStream:
        """Open one stream."""
        return SocketStream(await self.open_socket())

    async def create_connection(self, protocol_factory: ProtocolFactory) -> tuple[Any, Any]:
        """Open one stream as asyncio's (transport, protocol)."""
        if self._near is not None:
            return await _adopted(await self.open_socket(), protocol_factory)
        return await _within(self._handed_over(protocol_factory))

    async def open_socket(self) -> socket.socket:
        """Open one stream as a connected, non-blocking socket that carries only the stream's bytes."""
        if self._near is not None:
            return await _within(self._greeted(self._near))
        return await _within(self._bridged())

    async def _greeted(self, near: Target) -> socket.socket:
        """Dial, ask, and read the answer without a byte of what follows it."""
        sock = await dial(near)
        try:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(sock, self._request)
            line = await _line_of(loop, sock)
            _accepted(line, self._name)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _handed_over(self, protocol_factory: ProtocolFactory) -> tuple[Any, Any]:
        """Ask over the opener's transport, then give it to the caller's protocol with what came after the answer."""
        transport, greeting = await self._opener(lambda: _Greeting(self._request))
        try:
            line, early = await greeting.answer
            _accepted(line, self._name)
        except BaseException:
            transport.abort()
            raise
        protocol: Any = protocol_factory()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if early:
            if isinstance(protocol, asyncio.BufferedProtocol):
                _feed(protocol, early)
            else:
                protocol.data_received(early)
        transport.resume_reading()
        return transport, protocol

    async def _bridged(self) -> socket.socket:
        """Give a plain socket for a stream over TLS or a plugin's transport, through a pair of sockets."""
        near, far = socket.socketpair()
        try:
            near.setblocking(False)
            splice = TransportSplice()
            bridge, _ = await asyncio.get_running_loop().create_connection(lambda: splice.right, sock=far)
            bridge.pause_reading()
            await self._handed_over(lambda: splice.left)
            bridge.resume_reading()
        except BaseException:
            near.close()
            far.close()
            raise
        return near


async def _line_of(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
    """Return the first line and leave what follows in the socket."""
    taken = b""
    while True:
        await _readable(loop, sock)
        try:
            seen = sock.recv(4096, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            continue
        if not seen:
            raise ConnectionLostError("the environment closed the connection while a stream was opened")
        end = seen.find(b"\n")
        count = len(seen) if end < 0 else end + 1
        taken += sock.recv(count)
        if end >= 0:
            return taken[:-1]
        if len(taken) > 65536:
            raise HudProtocolError(-32603, "the answer to tunnel.open is longer than 64 kB")


async def _readable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    ready: asyncio.Future[None] = loop.create_future()

    def readable() -> None:
        if not ready.done():
            ready.set_result(None)

    fd = sock.fileno()
    loop.add_reader(fd, readable)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


def _accepted(line: bytes, name: str) -> None:
    """Check the answer to `tunnel.open`; `HudProtocolError` where the server refused."""
    try:
        message = frames.decode(line)
    except frames.NotJsonError as exc:
        raise HudProtocolError(
            -32603, f"opening capability {name!r}: the peer does not speak the protocol"
        ) from exc
    if not isinstance(message, dict) or "error" in message or "result" not in message:
        raise raised_from(message.get("error") if isinstance(message, dict) else None)


def _feed(protocol: asyncio.BufferedProtocol, data: bytes) -> None:
    view = memoryview(data)
    while view:
        buffer = memoryview(protocol.get_buffer(len(view)))
        count = min(len(buffer), len(view))
        buffer[:count] = view[:count]
        protocol.buffer_updated(count)
        view = view[count:]


async def _adopted(
    sock: socket.socket, protocol_factory: Callable[[], asyncio.BaseProtocol]
) -> tuple[Any, Any]:
    loop = asyncio.get_running_loop()
    connect = loop.create_unix_connection if sock.family == socket.AF_UNIX else loop.create_connection
    try:
        return await connect(protocol_factory, sock=sock)
    except BaseException:
        sock.close()
        raise


async def _within(opening: Coroutine[Any, Any, T]) -> T:
    try:
        async with asyncio.timeout(_OPEN_S):
            return await opening
    except TimeoutError as exc:
        raise ConnectionLostError(f"opening a stream took longer than {_OPEN_S:g} s") from exc


class _Greeting(asyncio.Protocol):
    """Sends a request and splits the answer's line from the bytes after it."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._seen = b""
        self._transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's transports are so in kind, not in class
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        line, newline, early = self._seen.partition(b"\n")
        if newline and not self.answer.done():
            assert self._transport is not None
            self._transport.pause_reading()
            self.answer.set_result((line, early))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(
                ConnectionLostError(
                    f"the connection ended while a stream was opened: {exc or 'end of stream'}"
                )
            )


STREAM_BYTES = SPLICE_BYTES
