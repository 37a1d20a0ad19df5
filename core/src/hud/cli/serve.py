"""`hud serve`: an environment on an address."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hud.errors import UsageError

if TYPE_CHECKING:
    from hud.environment.announce import Announcer
    from hud.environment.serve import Listening
    from hud.wire.server import Server


@click.command()
@click.argument("module", default="env")
@click.option("--name", help="Which environment, where the module declares several.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", "-p", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0: any free port."
)
@click.option("--unix", type=click.Path(path_type=Path), help="Listen on this unix socket instead.")
@click.option(
    "--tls-cert",
    type=click.Path(path_type=Path),
    metavar="PEM",
    help="Speak TLS with this certificate; clients check it, or its pin.",
)
@click.option(
    "--tls-key",
    type=click.Path(path_type=Path),
    metavar="PEM",
    help="The certificate's key, where that is a file of its own.",
)
@click.option("--arg", "args", multiple=True, metavar="K=V", help="Argument of a factory; repeatable.")
@click.option(
    "--isolate", is_flag=True, help="Give each session a process, and a view of the project, of its own."
)
@click.option("--no-auth", is_flag=True, help="Let in whoever reaches the address, without a token.")
@click.option("--debug", is_flag=True, help="Send tracebacks of author code to clients.")
@click.option("--verbose", "-v", count=True, help="Log what happens; -vv everything.")
def serve(
    module: str,
    name: str | None,
    host: str,
    port: int,
    unix: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    args: tuple[str, ...],
    isolate: bool,
    no_auth: bool,
    debug: bool,
    verbose: int,
) -> None:
    """Serve the environment of MODULE until Ctrl-C.

    MODULE is a file (env.py), a folder, env:attribute, or pkg.module:factory. HUD_SERVE_PORT=PORT is printed
    on stdout once it accepts connections; what MODULE prints goes to stderr. On a terminal a fresh token is
    made and printed once in the url.

    With --isolate, author code that blocks, crashes or exits ends its own session and no other.
    """
    from hud.environment.announce import Announcer
    from hud.environment.serve import Listening, decide_token
    from hud.wire.auth import take_delivered_token

    _log(verbose)
    announcer = Announcer(alone=True)
    # The token leaves the environment before author code is imported.
    token = decide_token(
        take_delivered_token(),
        no_auth=no_auth,
        on_terminal=announcer.on_terminal,
        host=host,
        unix_path=unix,
    )
    listening = Listening(
        host=host,
        port=port,
        unix_path=unix,
        token=token,
        tls_cert=tls_cert,
        tls_key=tls_key,
        debug=debug,
    )
    listening.tls()  # a wrong certificate is told before anything is started
    from hud.eval.watchdog import cleaned_up_after
    from hud.plugins.hudfile import load_hudfile

    load_hudfile()
    if isolate and args:
        raise UsageError(
            "--isolate serves what a file declares: --arg, for a factory, cannot be given with it"
        )
    with cleaned_up_after("serve"):
        if isolate:
            _serve_isolated(module, name, listening, announcer)
        else:
            _serve_here(module, name, args, listening, announcer)
    click.echo("stopped", err=True)


def _serve_here(
    module: str, name: str | None, args: tuple[str, ...], listening: Listening, announcer: Announcer
) -> None:
    """Serve with the author's code in this process, on this thread."""
    from hud.cli.eval_request import pairs
    from hud.environment.loading import load_environment
    from hud.environment.serve import serve_until_stopped

    env = load_environment(module, name=name, args=pairs(args, "--arg"))

    def announced(server: Server) -> None:
        _say(env.name, len(env.templates), server, listening, announcer)
        for backing in env.backings:
            enter = getattr(backing, "how_to_enter", None)  # a shell's command line, say
            if enter is not None:
                click.echo(f"{backing.name}: {enter()}", err=True)

    serve_until_stopped(env, listening, announcer, announced)


def _serve_isolated(module: str, name: str | None, listening: Listening, announcer: Announcer) -> None:
    """Serve with the author's code in a process for each session."""
    import asyncio

    from hud.environment.serve import serve_started
    from hud.environment.stopping import Stop
    from hud.runtime.isolated import isolated

    stop = Stop()

    async def main() -> None:
        def announced(server: Server) -> None:
            service = server.service
            _say(service.name, len(service.task_entries()), server, listening, announcer)

        await serve_started(isolated(module, env=name), listening, announcer, stop, announced)

    with stop.on_signals():
        asyncio.run(main())


def _say(name: str, templates: int, server: Server, listening: Listening, announcer: Announcer) -> None:
    shown = server.url
    if listening.token is not None and announcer.on_terminal:
        shown = f"{server.url}?token={listening.token}"
    counted = "1 template" if templates == 1 else f"{templates} templates"
    click.echo(f"serving {name} ({counted}) at {shown}; Ctrl-C ends it", err=True)


def _log(verbose: int) -> None:
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
