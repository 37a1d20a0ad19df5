"""What `env.workspace(...)` and its like return: backings as authors use them, whichever plugin serves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from hud.capability.backing import Backing, GradingShell
from hud.capability.interfaces import CommandResult
from hud.types.capability import Capability


class WorkspaceBacking(GradingShell, Protocol):
    """A folder the agent works in by shell. `root` is the folder here, `guest_root` the same inside."""

    async def start(self) -> Sequence[Capability]:
        """Begin to serve; the environment calls it."""
        ...

    async def stop(self) -> None:
        """End everything; the environment calls it."""
        ...

    async def run(
        self,
        command: str | Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> CommandResult:
        """Run a command in the sandbox, as the author; it ends when the command ends."""
        ...

    async def launch(
        self,
        command: str | Sequence[str],
        *,
        service: bool = False,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Any:
        """Start a process in the sandbox; with `service=True` it outlives the agent's own processes."""
        ...


class DesktopBacking(Backing, Protocol):
    """A desktop the agent sees and drives."""

    name: str


class BrowserBacking(Backing, Protocol):
    """A browser the agent drives."""

    name: str


class ToolsBacking(Backing, Protocol):
    """Tools the agent calls."""

    name: str
