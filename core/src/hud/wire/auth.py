"""The control token: made for one placement, delivered once, compared in constant time."""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Any

from hud.errors import ConfigError

TOKEN_FILE_VARIABLE = "HUD_TOKEN_FILE"  # noqa: S105 - a variable's name
TOKEN_VARIABLE = "HUD_TOKEN"  # noqa: S105


def new_token() -> str:
    """Return a fresh token of 256 bits."""
    return secrets.token_hex(32)


def matches(expected: bytes, given: Any) -> bool:
    """Tell whether `given` is the token, in a time that does not depend on where it differs."""
    if not isinstance(given, str):
        return False
    return hmac.compare_digest(expected, given.encode("utf-8", "surrogatepass"))


def take_delivered_token() -> str | None:
    """Return the token a runtime delivered, and remove every trace of it from this process's environment.

    `HUD_TOKEN_FILE` names a 0400 file, which is deleted where this process may; `HUD_TOKEN` is the token itself.
    Call it before author code is imported.

    Raises:
        ConfigError: the file cannot be read or is empty.
    """
    name = os.environ.pop(TOKEN_FILE_VARIABLE, None)
    value = os.environ.pop(TOKEN_VARIABLE, None)
    if not name:
        return value or None
    path = Path(name)
    try:
        token = path.read_text().strip()
    except OSError as exc:
        raise ConfigError(f"{TOKEN_FILE_VARIABLE}={name}: cannot be read ({exc.strerror})") from exc
    with contextlib.suppress(OSError):  # a read-only mount of the runtime's; the sandbox does not show it
        path.unlink()
    if not token:
        raise ConfigError(f"{TOKEN_FILE_VARIABLE}={name}: the file is empty")
    return token
