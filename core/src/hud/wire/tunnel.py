"""Capability streams on the server: a name of the manifest dialled, and bytes both ways."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from hud.errors import HudError, HudProtocolError, LimitReachedError
from hud.wire import frames
from hud.wire.address import Target, dial, stream_target
from hud.wire.faults import bad_params
from hud.wire.splice import SPLICE_BYTES, SocketSplice, TransportSplice

log = logging.getLogger("hud.wire")

if TYPE_CHECKING:
    from hud.wire.connection import ControlConnection
    from hud.wire.server import Server
    from hud.wire.service import PlacedSession, Service


def target_of(service: Service, name: str) -> Target:
    """Return where the capability `name` is served; only names in the manifest have one.

    Raises:
        BadParamsError: the manifest has no such name, or its url cannot be dialled.
    """
    for capability in service.bindings():
        if capability.name == name:
            break
    else:
        known = ", ".join(repr(entry.name) for entry in service.bindings()) or "none"
        raise bad_params(f"no capability {name[:80]!r}; the manifest has {known}")
    given = getattr(service, "stream_address", None)
    address: Target | None = given(name) if given is not None else None
    if address is not None:
        return address
    try:
        return stream_target(capability.url)
    except ValueError as exc:
        raise bad_params(f"capability {name!r} cannot be opened: {exc}") from exc


class Tunnels:
    """The streams of one server, bounded in number."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._live: set[SocketSplice | TransportSplice] = set()
        self._opening = 0
        self._buffer: memoryview | None = None

    def __len__(self) -> int:
        return len(self._live) + self._opening

    def open(
        self, connection: ControlConnection, request_id: Any, name: str, session_id: str | None = None
    ) -> None:
        """Join `connection` to the capability, answering first; refuse it with an error frame."""
        dialled = self._dialled(name, session_id)
        limit = self._server.settings.tunnels_per_session * max(1, len(self._server.sessions))
        if len(self) >= limit:
            raise LimitReachedError(
                frames.OVER_LIMIT,
                f"{limit} streams are open, the limit; close some first",
                {"retryable": True},
            )
        self._opening += 1
        self._server.sessions.spawn(self._open(connection, request_id, name, dialled))

    def _dialled(self, name: str, session_id: str | None) -> Callable[[], Awaitable[socket.socket]]:
        """Return what connects to the capability: the environment's, or the session's where each has its own."""
        if not self._server.places_sessions:
            target = target_of(self._server.service, name)
            return lambda: dial(target)
        sessions = self._server.sessions
        session = sessions.only() if session_id is None else sessions.find(session_id)
        side = cast("PlacedSession", session.opened())
        return lambda: side.open_stream(name)

    async def _open(
        self,
        connection: ControlConnection,
        request_id: Any,
        name: str,
        dialled: Callable[[], Awaitable[socket.socket]],
    ) -> None:
        try:
            try:
                async with asyncio.timeout(self._server.settings.dial_s):
                    backing = await dialled()
            finally:
                self._opening -= 1
        except HudError as exc:
            connection.refuse_tunnel(request_id, exc)
            return
        except (OSError, TimeoutError) as exc:
            why = str(exc) or f"no answer within {self._server.settings.dial_s:g} s"
            data = {"type": type(exc).__name__, "retryable": True}
            failure = HudProtocolError(
                frames.TASK_FAILED, f"capability {name!r} does not accept connections: {why}", data
            )
            connection.refuse_tunnel(request_id, failure)
            return
        taken = connection.surrender()
        if taken is None:
            backing.close()
            return
        transport, early = taken
        reply = frames.framed(request_id, frames.result_fragment({"capability": name}))
        if transport.get_extra_info("sslcontext") is None:
            self._splice_sockets(transport, backing, reply, early)
        else:
            await self._splice_transports(transport, backing, reply, early)

    def _splice_sockets(
        self, transport: asyncio.Transport, backing: socket.socket, reply: bytes, early: bytes
    ) -> None:
        """Take the socket away from its transport: a duplicate lives on when the transport closes its own."""
        try:
            client = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        except OSError as exc:  # no descriptor left; the client sees a closed connection
            log.warning("a stream could not be opened: %s", exc)
            transport.abort()
            backing.close()
            return
        client.setblocking(False)
        transport.abort()
        try:
            sent = client.send(reply)
        except OSError:
            sent = 0
        if sent < len(reply):  # a fresh connection takes a short line whole, or is gone
            client.close()
            backing.close()
            return
        if self._buffer is None:
            self._buffer = memoryview(bytearray(SPLICE_BYTES))
        splice = SocketSplice(client, backing, self._buffer, lambda: self._live.discard(splice))
        self._live.add(splice)
        splice.start(early)

    async def _splice_transports(
        self, transport: asyncio.Transport, backing: socket.socket, reply: bytes, early: bytes
    ) -> None:
        splice = TransportSplice(lambda: self._live.discard(splice))
        self._live.add(splice)
        splice.left.connection_made(transport)
        transport.set_protocol(splice.left)
        transport.write(reply)
        far, _ = await self._server.loop.create_connection(lambda: splice.right, sock=backing)
        if early:
            far.write(early)
        if transport.is_closing():
            splice.close()
        else:
            transport.resume_reading()

    def close(self) -> None:
        """End every stream."""
        for splice in list(self._live):
            splice.close()
