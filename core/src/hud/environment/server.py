# ruff: noqa: PLC0414 - the form that type checkers take for a re-export
"""`python -m hud.environment.server PATH`: one environment in a process of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hud.plugins.lazy import lazy_names

if TYPE_CHECKING:
    from hud.environment.runner import TaskRunner as TaskRunner
    from hud.environment.serve import bind as bind
    from hud.environment.serve import serve as serve

_CORE = {
    "TaskRunner": "hud.environment.runner:TaskRunner",
    "bind": "hud.environment.serve:bind",
    "serve": "hud.environment.serve:serve",
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _CORE)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve what the command line names; return the exit status (2: usage, 1: it could not be served)."""
    from hud.environment.announce import Announcer
    from hud.environment.loading import load_environment
    from hud.environment.serve import Listening, decide_token, serve_until_stopped
    from hud.errors import HudError, UsageError
    from hud.wire.auth import take_delivered_token

    options = _parser().parse_args(argv)
    announcer = Announcer()
    try:
        # Before author code is imported, which must not find the token.
        delivered = take_delivered_token()
        token = decide_token(
            delivered,
            no_auth=options.no_auth,
            on_terminal=announcer.on_terminal,
            host=options.host,
            unix_path=options.unix,
        )
        env = load_environment(options.path, name=options.env)
        listening = Listening(
            host=options.host,
            port=options.port,
            unix_path=options.unix,
            token=token,
            tls_cert=options.tls_cert,
            tls_key=options.tls_key,
            debug=options.debug,
        )
        serve_until_stopped(env, listening, announcer)
    except HudError as error:
        print(f"error: {error}", file=sys.stderr)
        text = getattr(error, "author_traceback", "")
        if text:
            print(text, file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hud.environment.server",
        description="Serve an environment. Prints HUD_SERVE_PORT=<port> once it accepts connections.",
    )
    parser.add_argument("path", help="env.py, a folder, a module, or one of these with :attribute")
    parser.add_argument("--env", help="which environment, where there are several")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--unix", type=Path, metavar="PATH", help="listen on this unix socket instead")
    parser.add_argument("--tls-cert", type=Path, metavar="PEM", help="speak TLS with this certificate")
    parser.add_argument(
        "--tls-key", type=Path, metavar="PEM", help="its key, where that is a file of its own"
    )
    parser.add_argument("--no-auth", action="store_true", help="require no token")
    parser.add_argument("--debug", action="store_true", help="send tracebacks of author code to clients")
    return parser


if __name__ == "__main__":
    sys.exit(main())
