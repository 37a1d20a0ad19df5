"""`hud serve`: an environment on an address."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hud.errors import UsageError

if TYPE_CHECKING:
    from hud.environment.author import AuthorLoop
    from hud.environment.env import Environment
    from hud.wire.server import Server

LOOPBACK = ("127.", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: `unix` alone, or host and port (0: any free one). `token` None lets everybody in."""

    host: str
    port: int
    unix: Path | None
    token: str | None
    debug: bool


@click.command()
@click.argument("module", default="env")
@click.option("--name", help="Which environment, where the module declares several.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", "-p", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0: any free port."
)
@click.option("--unix", type=click.Path(path_type=Path), help="Listen on this unix socket instead.")
@click.option("--arg", "args", multiple=True, metavar="K=V", help="Argument of a factory; repeatable.")
@click.option("--no-auth", is_flag=True, help="Let in whoever reaches the address, without a token.")
@click.option("--debug", is_flag=True, help="Send tracebacks of author code to clients.")
@click.option("--verbose", "-v", count=True, help="Log what happens; -vv everything.")
def serve(
    module: str,
    name: str | None,
    host: str,
    port: int,
    unix: Path | None,
    args: tuple[str, ...],
    no_auth: bool,
    debug: bool,
    verbose: int,
) -> None:
    """Serve the environment of MODULE until Ctrl-C.

    MODULE is a file (env.py), a folder, env:attribute, or pkg.module:factory. HUD_SERVE_PORT=PORT is printed
    on stdout once it accepts connections. On a terminal a fresh token is made and printed once in the url.
    """
    from hud.cli.eval_request import pairs
    from hud.wire.auth import take_delivered_token

    _log(verbose)
    # The token leaves the environment before author code is imported.
    token = _token(take_delivered_token(), no_auth=no_auth, host=host, unix=unix)
    from hud.environment.loading import load_environment
    from hud.plugins.hudfile import load_hudfile

    load_hudfile()
    env = load_environment(module, name=name, args=pairs(args, "--arg"))
    run(env, Address(host=host, port=port, unix=unix, token=token, debug=debug))


def run(env: Environment, address: Address) -> None:
    """Serve `env` with its code on this thread, until SIGINT or SIGTERM."""
    from hud.environment.author import run_beside

    stop = Stop()
    with stop.on_signals():

        async def main(author: AuthorLoop) -> None:
            from hud.environment.service import serving
            from hud.wire.server import start_server
            from hud.wire.settings import ServerSettings

            stop.attach(asyncio.get_running_loop())
            async with serving(env, author=author) as service:
                server = await start_server(
                    service,
                    host=address.host,
                    port=address.port,
                    unix_path=address.unix,
                    token=address.token,
                    settings=ServerSettings(debug=address.debug),
                )
                try:
                    _announce(env, server, address)
                    await stop.wait()
                finally:
                    await server.close()

        run_beside(main)
    click.echo("stopped", err=True)


class Stop:
    """Ends serving at the first SIGINT or SIGTERM; a second ends the process."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked = False

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say which loop waits; a signal that came before counts."""
        self._loop = loop
        if self._asked:
            self._event.set()

    async def wait(self) -> None:
        """Return once asked to stop."""
        await self._event.wait()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM within the context."""
        before = {number: signal.signal(number, self._arrived) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _arrived(self, number: int, frame: object) -> None:  # noqa: ARG002 - the signature of a handler
        if self._asked:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._asked = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._event.set)


def _token(delivered: str | None, *, no_auth: bool, host: str, unix: Path | None) -> str | None:
    """Return the token that is required: the one delivered, none with --no-auth, a fresh one on a terminal."""
    from hud.wire.auth import new_token

    if no_auth:
        if delivered:
            raise UsageError("a token was delivered to this process, and --no-auth given: choose one")
        return None
    if delivered:
        return delivered
    if sys.stdout is not None and sys.stdout.isatty():
        return new_token()
    if unix is None and not host.startswith(LOOPBACK):
        click.echo(f"warning: {host} is served without a token: whoever reaches it can grade", err=True)
    return None


def _announce(env: Environment, server: Server, address: Address) -> None:
    print(f"HUD_SERVE_PORT={server.port}", flush=True)
    shown = server.url
    if address.token is not None and sys.stdout.isatty():
        shown = f"{server.url}?token={address.token}"
    templates = "1 template" if len(env.templates) == 1 else f"{len(env.templates)} templates"
    click.echo(f"serving {env.name} ({templates}) at {shown}; Ctrl-C ends it", err=True)
    for backing in env.backings:
        enter = getattr(backing, "how_to_enter", None)  # a shell's command line, say
        if enter is not None:
            click.echo(f"{backing.name}: {enter()}", err=True)


def _log(verbose: int) -> None:
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
