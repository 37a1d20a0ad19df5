"""The server: one address on which an environment answers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from hud.cleanup import close_listener, turns
from hud.errors import ConfigError
from hud.wire.address import free_unix_path
from hud.wire.connection import ControlConnection
from hud.wire.manifest import ManifestBytes
from hud.wire.sessions import SessionTable
from hud.wire.settings import ServerSettings
from hud.wire.tunnel import Tunnels

if TYPE_CHECKING:
    from hud.wire.framing import FramedConnection
    from hud.wire.service import Service

_BACKLOG = 4096
_ACCEPTED_AT_ONCE = 32
"""How many connections asyncio takes in one turn. Without a free descriptor it makes all tries of a turn and reports
each with a traceback (CPython 3.11, `BaseSelectorEventLoop._accept_connection`): 4,096 of them stall a server."""


class Server:
    """Serves one environment. Made by `start_server`; `close` ends it, its sessions and its tunnels."""

    def __init__(self, service: Service, settings: ServerSettings, token: str | None) -> None:
        self.service = service
        self.settings = settings
        self.token: bytes | None = token.encode() if token is not None else None
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.manifest: ManifestBytes = ManifestBytes(service, settings, needs_token=token is not None)
        adopts = settings.adopt if settings.adopt is not None else token is None
        self.sessions: SessionTable = SessionTable(service, settings, adopts=adopts)
        self.tunnels: Tunnels = Tunnels(self)
        self.partial_bytes = 0
        self.places_sessions: bool = getattr(service, "places_sessions", False)
        """Whether each session has an environment of its own; see `hud.wire.service.PlacedSession`."""
        self.url: str = ""
        self.port = 0
        self._connections: set[ControlConnection] = set()
        self._listener: asyncio.Server | None = None
        self._socket_file: tuple[Path, int] | None = None

    def admit(self, connection: FramedConnection) -> bool:
        """Count a new connection; False where there are too many."""
        if len(self._connections) >= self.settings.connections:
            return False
        self._connections.add(cast("ControlConnection", connection))
        return True

    def dismiss(self, connection: FramedConnection) -> None:
        """Count a connection no more."""
        self._connections.discard(cast("ControlConnection", connection))

    @property
    def connections(self) -> int:
        """How many connections are open, tunnels not counted."""
        return len(self._connections)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets."""
        return tuple(self._listener.sockets) if self._listener is not None else ()

    def open_tunnel(
        self, connection: ControlConnection, request_id: Any, name: str, session_id: str | None
    ) -> None:
        """Make `connection` a stream to the capability `name`, of that session where each has its own."""
        self.tunnels.open(connection, request_id, name, session_id)

    def bind_unix(self, path: Path) -> socket.socket:
        """Bind a socket file for its owner alone; `close` removes it."""
        sock = _bind_unix(path)
        self.url = f"unix://{path.absolute()}"
        self._socket_file = (path.absolute(), path.stat().st_ino)
        return sock

    async def listen(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Accept connections on a bound socket."""
        options: dict[str, Any] = {}
        if tls is not None:
            options = {
                "ssl_handshake_timeout": self.settings.handshake_s,
                "ssl_shutdown_timeout": 2.0,
            }
        if sock.family == socket.AF_UNIX:
            self._listener = await self.loop.create_unix_server(
                lambda: ControlConnection(self), sock=sock, ssl=tls, backlog=_ACCEPTED_AT_ONCE, **options
            )
        else:
            self._listener = await self.loop.create_server(
                lambda: ControlConnection(self), sock=sock, ssl=tls, backlog=_ACCEPTED_AT_ONCE, **options
            )
        sock.listen(_BACKLOG)  # asyncio takes one number for both

    async def close(self) -> None:
        """Stop listening, end every session within the settings' deadline, then every connection and tunnel."""
        if self._listener is not None:
            close_listener(self._listener)
            await turns()
        if self._socket_file is not None:
            path, inode = self._socket_file
            with contextlib.suppress(OSError):
                if path.stat().st_ino == inode:  # not a successor's
                    path.unlink()
        await self.sessions.close()
        self.tunnels.close()
        for connection in list(self._connections):
            connection.drop()
        if self._listener is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2.0):
                    await self._listener.wait_closed()
        await asyncio.sleep(0)  # closed transports say so to their protocols

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


async def start_server(
    service: Service,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    unix_path: str | Path | None = None,
    tls: ssl.SSLContext | None = None,
    token: str | None = None,
    settings: ServerSettings | None = None,
) -> Server:
    """Serve `service` on the running loop and return once connections are accepted.

    With `unix_path` it listens there alone, for its owner only; otherwise on `host` and `port` (0: any free one),
    over TLS with a context of `hud.wire.tls.server_context`. With `token` nothing is answered without it.

    Raises:
        ConfigError: the address cannot be listened on; says why.
    """
    server = Server(service, settings or ServerSettings(), token)
    if unix_path is not None:
        sock = server.bind_unix(Path(unix_path))
    else:
        sock = await _bind_tcp(host, port)
        server.port = sock.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        server.url = f"{'tls' if tls is not None else 'tcp'}://{shown}:{server.port}"
    try:
        await server.listen(sock, tls)
    except BaseException:
        sock.close()
        raise
    return server


def _bind_unix(path: Path) -> socket.socket:
    """Bind with owner-only permissions: they are set before anybody can connect, since nobody listens yet."""
    if len(os.fsencode(path)) > 107:
        raise ConfigError(f"unix socket path {path} is longer than 107 bytes; use a shorter folder")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        free_unix_path(path)
        sock.bind(os.fspath(path))
        path.chmod(0o600)
    except OSError as exc:
        sock.close()
        raise ConfigError(f"cannot listen on {path}: {exc.strerror or exc}") from exc
    return sock


async def _bind_tcp(host: str, port: int) -> socket.socket:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as exc:
        raise ConfigError(f"cannot listen on {host}: {exc.strerror or exc}") from exc
    family, kind, proto, _, address = found[0]
    sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as exc:
        sock.close()
        why = "the port is in use" if exc.errno == errno.EADDRINUSE else exc.strerror
        raise ConfigError(
            f"cannot listen on {host}:{port}: {why}; choose another port, or 0 for any"
        ) from exc
    return sock
