"""Serve a sandbox over ssh: connections and who may make them, forwarding in and out of its loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, cast

import asyncssh

from hud.cleanup import close_listener, turns
from hud.errors import SandboxError
from hud_capability_ssh.command_session import CommandSession
from hud_capability_ssh.loopback import connect_inside, join, listen_inside
from hud_capability_ssh.sftp import SandboxFiles

if TYPE_CHECKING:
    from hud_capability_ssh.sandbox import Sandbox

HANDSHAKE_S = 10
CLOSE_S = 3
KEEPALIVE_S = 30
MOST_CONNECTIONS = 64
LOOPBACK = ("localhost", "127.0.0.1", "::1", "")
ENCRYPTION = (
    "aes128-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
)


class Served(Protocol):
    """What the server asks of its workspace."""

    user: str

    @property
    def forward_ports(self) -> Collection[int] | None:
        """Ports of `ssh -R`; None allows any."""
        ...

    def own(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` until it is done or the workspace stops."""
        ...

    async def client_came_in(self) -> None:
        """Be told that a client may now send commands."""
        ...

    async def changes(self) -> list[dict[str, Any]]:
        """Return the files that changed since this was asked last."""
        ...

    async def running(self) -> Sandbox:
        """Return the live sandbox, started anew where it had ended."""
        ...

    def key_is_known(self, key: asyncssh.SSHKey) -> bool:
        """Whether this client's key may come in, now."""
        ...


class Server:
    """Listens for one workspace. `start` binds, `close` ends every connection."""

    def __init__(self, workspace: Served, host_key: asyncssh.SSHKey) -> None:
        self.workspace = workspace
        self.connections: set[asyncssh.SSHServerConnection] = set()
        self._host_key = host_key
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self.closed = False
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Begin to listen; `port` 0 chooses a free one."""
        self.closed = False
        self._acceptor = await asyncssh.listen(
            host,
            port,
            server_factory=lambda: Connection(self),
            server_host_keys=[self._host_key],
            encryption_algs=list(ENCRYPTION),
            kex_algs=["curve25519-sha256", "curve25519-sha256@libssh.org", "ecdh-sha2-nistp256"],
            compression_algs=None,
            config=None,
            gss_host=None,
            encoding=None,
            line_editor=False,
            agent_forwarding=False,
            allow_pty=True,
            login_timeout=HANDSHAKE_S,
            keepalive_interval=KEEPALIVE_S,
            keepalive_count_max=4,
            window=4 << 20,
            max_pktsize=256 << 10,
            tcp_keepalive=False,
        )
        self.port = self._acceptor.get_port()

    async def drop_connections(self) -> None:
        """End every connection; the server goes on listening."""
        for connection in list(self.connections):
            connection.abort()
        for connection in list(self.connections):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await connection.wait_closed()

    async def close(self) -> None:
        """End the server. Safe to call twice."""
        self.closed = True
        acceptor, self._acceptor = self._acceptor, None
        if acceptor is not None:
            close_listener(cast("asyncio.Server", acceptor))
            await turns()
        await self.drop_connections()
        if acceptor is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await acceptor.wait_closed()


class Connection(asyncssh.SSHServer):
    """One client: public keys only, one user name."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._workspace = server.workspace
        self._conn: asyncssh.SSHServerConnection | None = None
        self._lost = False

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._conn = conn
        if len(self._server.connections) >= MOST_CONNECTIONS or self._server.closed:
            conn.abort()
            return
        self._server.connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the library's signature
        self._lost = True
        if self._conn is not None:
            self._server.connections.discard(self._conn)

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return username == self._workspace.user and self._workspace.key_is_known(key)

    def session_requested(self) -> Any:
        return CommandSession(self._workspace, lambda chan: SandboxFiles(chan, self._workspace))

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Any:  # noqa: ARG002
        """`ssh -L`: to the sandbox's loopback, nowhere else."""
        if dest_host not in LOOPBACK:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "only the workspace's localhost"
            )

        async def connect(reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]) -> None:
            try:
                inner = await connect_inside(await self._workspace.running(), dest_port)
            except (OSError, SandboxError):
                writer.close()
                return
            await join(reader, writer, *inner)

        return connect

    async def server_requested(self, listen_host: str, listen_port: int) -> Any:
        """`ssh -R`: the listener is inside the sandbox."""
        allowed = self._workspace.forward_ports
        if listen_host not in LOOPBACK or (allowed is not None and listen_port not in allowed):
            return False
        sandbox = await self._workspace.running()
        connection = self._conn
        assert connection is not None

        async def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                outer = await connection.open_connection(listen_host, port, "127.0.0.1", 0)
            except (OSError, asyncssh.Error):
                writer.close()
                return
            await join(reader, writer, *outer)

        try:
            port, listener = await listen_inside(sandbox, listen_port, arrived)
        except (OSError, SandboxError):
            return False
        if self._lost:  # nobody is left to close it
            close_listener(listener)
            return False
        return _InsideListener(listener, port)


class _InsideListener(asyncssh.SSHListener):
    def __init__(self, server: asyncio.Server, port: int) -> None:
        self._server = server
        self._port = port

    def get_port(self) -> int:
        return self._port

    def close(self) -> None:
        close_listener(self._server)

    async def wait_closed(self) -> None:
        return
