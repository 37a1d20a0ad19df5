"""How a failed command says so: an exit code, and a message for people or for programs."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from typing import Any

import click

from hud.errors import (
    HudError,
    HudProtocolError,
    JobNotFoundError,
    LimitReachedError,
    NotAuthorizedError,
    PhaseTimeoutError,
    PluginBrokenError,
    PluginConflictError,
    PluginNotInstalledError,
    UsageError,
    WireError,
)

FAILED = 1
USAGE = 2
INTERRUPTED = 130
PIPE_CLOSED = 141
"""128 + SIGPIPE, what a program killed by a closed pipe ends with."""

MISTAKES = (
    click.UsageError,
    UsageError,
    JobNotFoundError,
    PluginNotInstalledError,
    PluginBrokenError,
    PluginConflictError,
)
"""Nothing was started: what was asked for is wrong, or is not installed as it should be."""


def finish(exc: BaseException, *, as_json: bool = False) -> int:
    """Print what ended the command and return its exit code.

    Mistakes of the user are printed without a traceback; anything unexpected keeps its own.
    """
    if isinstance(exc, click.exceptions.Exit):
        return exc.exit_code
    if isinstance(exc, SystemExit):
        return exc.code if isinstance(exc.code, int) else (0 if exc.code is None else FAILED)
    if isinstance(exc, (KeyboardInterrupt, click.Abort)):
        _say("interrupted")
        return INTERRUPTED
    if isinstance(exc, click.exceptions.NoArgsIsHelpError) and not as_json:
        _say(message_of(exc))
        return USAGE
    if isinstance(exc, BaseExceptionGroup):
        exc = _first(exc)
        return finish(exc, as_json=as_json)
    code = USAGE if isinstance(exc, MISTAKES) else FAILED
    if as_json:
        _print_json(exc)
    else:
        _print_text(exc)
    return code


def described(exc: BaseException) -> dict[str, Any]:
    """Return the JSON form of an error: `error` (its kind), `message`, and where known `input` and `suggestion`."""
    out: dict[str, Any] = {"error": kind_of(exc), "message": message_of(exc)}
    if isinstance(exc, click.BadParameter) and exc.param is not None:
        out["input"] = exc.param.opts[-1]
    elif isinstance(exc, OSError) and exc.filename is not None:
        out["input"] = str(exc.filename)
    if hints := hints_of(exc):
        out["suggestion"] = " ".join(hints)
    return out


def kind_of(exc: BaseException) -> str:
    """Return one of usage, not_found, permission_denied, conflict, rate_limited, server_error, timeout, failure."""
    kinds: tuple[tuple[str, tuple[type[BaseException], ...]], ...] = (
        ("usage", (click.UsageError, UsageError)),
        ("not_found", (FileNotFoundError, PluginNotInstalledError)),
        ("permission_denied", (PermissionError, NotAuthorizedError)),
        ("conflict", (PluginConflictError, FileExistsError)),
        ("rate_limited", (LimitReachedError,)),
        ("timeout", (PhaseTimeoutError, TimeoutError)),
        ("server_error", (HudProtocolError, WireError)),
    )
    return next((kind for kind, classes in kinds if isinstance(exc, classes)), "failure")


def message_of(exc: BaseException) -> str:
    """Return the error's text, never empty."""
    if isinstance(exc, click.ClickException):
        return exc.format_message()
    if isinstance(exc, OSError) and exc.strerror and not isinstance(exc, HudError):
        return f"{exc.filename}: {exc.strerror}" if exc.filename else exc.strerror
    return str(exc) or type(exc).__name__


def hints_of(exc: BaseException) -> list[str]:
    """Return what to do next."""
    if isinstance(exc, HudError):
        return list(exc.hints)
    if isinstance(exc, click.UsageError) and exc.ctx is not None:
        return [f"{exc.ctx.command_path} --help lists what it takes."]
    return []


def close_stdout() -> None:
    """Point stdout to nowhere, so that the interpreter's last flush finds no closed pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _print_text(exc: BaseException) -> None:
    if not isinstance(exc, (click.ClickException, HudError, OSError)):
        traceback.print_exception(exc)
        _say("this is a fault of hud or of a plugin; the traceback above shows where")
        return
    if isinstance(exc, click.UsageError) and exc.ctx is not None:
        _say(exc.ctx.get_usage())
    _say(f"Error: {message_of(exc)}")
    for note in getattr(exc, "__notes__", ()):
        _say(str(note))
    for hint in hints_of(exc):
        _say(f"Hint: {hint}")


def _print_json(exc: BaseException) -> None:
    try:
        print(json.dumps(described(exc), ensure_ascii=False), flush=True)
    except BrokenPipeError:
        close_stdout()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error that matters most of several: an interruption, then a user's mistake, then any."""
    leaves: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        item = pending.pop(0)
        if isinstance(item, BaseExceptionGroup):
            pending.extend(item.exceptions)
        else:
            leaves.append(item)
    for wanted in (KeyboardInterrupt, UsageError, HudError):
        for leaf in leaves:
            if isinstance(leaf, wanted):
                return leaf
    return leaves[0]


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
