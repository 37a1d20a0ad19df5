"""Serving an environment on an address."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hud.environment.announce import Announcer
from hud.environment.author import AuthorLoop, run_beside
from hud.environment.service import serving
from hud.environment.stopping import Stop
from hud.errors import ConfigError

if TYPE_CHECKING:
    import socket
    import ssl

    from hud.environment.env import Environment
    from hud.wire.server import Server
    from hud.wire.service import Service

log = logging.getLogger("hud.environment")

_LOOPBACK = ("127.", "localhost", "::1")


@dataclass(slots=True, frozen=True, kw_only=True)
class Listening:
    """Where and how to listen. `unix_path` excludes host, port and TLS; port 0 is any free one.

    `token` None asks for none: see `decide_token` for what a server should require. With `tls_cert`, a PEM file that
    may hold its key, it speaks TLS.
    """

    host: str = "127.0.0.1"
    port: int = 0
    unix_path: Path | None = None
    token: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    debug: bool = False

    def tls(self) -> ssl.SSLContext | None:
        """Return the context to listen with; None for plain TCP.

        Raises:
            ConfigError: the certificate or key cannot be used, or one of these was given without what it needs.
        """
        if self.tls_cert is None and self.tls_key is None:
            return None
        if self.tls_cert is None:
            raise ConfigError(f"a TLS key {self.tls_key} was given without its certificate (--tls-cert)")
        if self.unix_path is not None:
            raise ConfigError(f"TLS is for TCP; {self.unix_path} is a unix socket, its owner's alone")
        from hud.wire.tls import server_context

        return server_context(self.tls_cert, self.tls_key)


def decide_token(
    delivered: str | None, *, no_auth: bool, on_terminal: bool, host: str = "", unix_path: Path | None = None
) -> str | None:
    """Return the token to require: the one delivered; none with `no_auth`; a fresh one on a terminal; else none.

    Raises:
        ConfigError: a token was delivered and `no_auth` asked for.
    """
    if delivered and no_auth:
        raise ConfigError(
            "a token was delivered (HUD_TOKEN_FILE or HUD_TOKEN) and --no-auth given; choose one"
        )
    if delivered or no_auth:
        return delivered
    if on_terminal:
        from hud.wire.auth import new_token

        return new_token()
    if unix_path is None and not host.startswith(_LOOPBACK):
        log.warning("%s is served without a token: whoever reaches it can grade", host)
    return None


def serve(env: Environment, host: str = "127.0.0.1", port: int = 0) -> None:
    """Serve `env` until SIGINT or SIGTERM. Blocks; prints `HUD_SERVE_PORT=<port>` once it accepts connections.

    A token delivered as wire.md says is required; on a terminal a fresh one is made and printed in the url.
    """
    from hud.wire.auth import take_delivered_token

    announcer = Announcer()
    token = decide_token(take_delivered_token(), no_auth=False, on_terminal=announcer.on_terminal, host=host)
    serve_until_stopped(env, Listening(host=host, port=port, token=token), announcer)


def serve_until_stopped(
    env: Environment,
    listening: Listening,
    announcer: Announcer,
    announced: Callable[[Server], None] | None = None,
) -> None:
    """Serve on a second thread, author code on this one, until SIGINT or SIGTERM; a second one ends the process.

    `announced` is called once the port has been; without it a token is printed where there is a terminal.
    """
    stop = Stop()

    def tell_url(server: Server) -> None:
        if announcer.on_terminal and listening.token is not None:
            announcer.line(f"{server.url}?token={listening.token}")

    async def main(author: AuthorLoop) -> None:
        await serve_started(serving(env, author=author), listening, announcer, stop, announced or tell_url)

    with stop.on_signals():
        run_beside(main)


async def serve_started(
    starting: AbstractAsyncContextManager[Service],
    listening: Listening,
    announcer: Announcer,
    stop: Stop,
    announced: Callable[[Server], None],
) -> None:
    """Serve what `starting` gives, on the running loop, until `stop`, which also ends a start that takes long."""
    async with AsyncExitStack() as stack:
        with stop.interrupting():
            service = await stack.enter_async_context(starting)
        if stop.asked:
            return
        server = await _listen(service, listening)
        try:
            announcer.ready(server.port)
            announced(server)
            await stop.wait()
        finally:
            await server.close()


async def bind(env: Environment, host: str = "127.0.0.1", port: int = 0, **options: Any) -> BoundServer:
    """Start `env` and serve it on the running loop; close the server to shut it down.

    `options` are those of `hud.wire.server.start_server` (`token`, `tls`, `unix_path`, `settings`).
    """
    from hud.wire.server import start_server

    stack = AsyncExitStack()
    service = await stack.enter_async_context(serving(env))
    try:
        server = await start_server(service, host=host, port=port, **options)
    except BaseException:
        await stack.aclose()
        raise
    return BoundServer(server, stack)


class BoundServer:
    """A server made by `bind`, with the verbs of `asyncio.Server`."""

    def __init__(self, server: Server, stack: AsyncExitStack) -> None:
        self.server = server
        self.url: str = server.url
        self.port: int = server.port
        self._stack = stack
        self._closing: asyncio.Task[None] | None = None

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets."""
        return tuple(self.server.sockets)

    def close(self) -> None:
        """Begin to close; `wait_closed` waits for the end."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())

    async def wait_closed(self) -> None:
        """Wait until the server is closed and the environment shut down."""
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def serve_forever(self) -> None:
        """Serve until cancelled, then close."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.close()
            await self.wait_closed()

    async def _close(self) -> None:
        try:
            await self.server.close()
        finally:
            await self._stack.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()
        await self.wait_closed()


async def _listen(service: Service, listening: Listening) -> Server:
    from hud.wire.server import start_server
    from hud.wire.settings import ServerSettings

    return await start_server(
        service,
        host=listening.host,
        port=listening.port,
        unix_path=listening.unix_path,
        token=listening.token,
        tls=listening.tls(),
        settings=ServerSettings(debug=listening.debug),
    )
