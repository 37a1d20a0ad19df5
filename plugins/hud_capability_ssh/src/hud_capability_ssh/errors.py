"""What can go wrong on the client's side.

ConnectionLostError
└── SSHConnectionError     the server cannot be reached, is not who it should be, or the connection broke
HudError
└── CommandFailedError     a command run with check=True did not exit with 0; has `result`
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hud.errors import ConnectionLostError, HudError

if TYPE_CHECKING:
    from hud.capability.interfaces import CommandResult


class SSHConnectionError(ConnectionLostError):
    """Raised when the ssh server cannot be reached, does not hold the published host key, or hung up."""


class CommandFailedError(HudError):
    """Raised by `run(..., check=True)`; `result` is the command's."""

    failed_part = "agent"

    def __init__(self, result: CommandResult) -> None:
        ended = (
            f"exited with {result.exit_status}"
            if result.exit_status is not None
            else f"ended by {result.how}"
        )
        last = (result.stderr or result.stdout).strip().splitlines()[-3:]
        super().__init__("\n".join([f"command {result.command[:200]!r} {ended}", *last]))
        self.result = result
