"""What serves a capability inside an environment: attached with `env.use(...)`, started before serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    from hud.capability.interfaces import CommandResult
    from hud.types import Capability


class Backing(Protocol):
    """Serves one capability, or several. Its methods run on the loop that serves the wire, never on the author's.

    A public method that author code may call (a workspace's `run`, say) moves itself there with
    `hud.environment.on_service_loop`.
    """

    name: str

    async def start(self) -> Sequence[Capability]:
        """Begin to serve; return what goes into the manifest. Called once, in order of declaration."""
        ...

    async def stop(self) -> None:
        """End everything; safe when `start` failed midway, and safe to call twice."""
        ...


@runtime_checkable
class ListensElsewhere(Protocol):
    """A backing whose capabilities listen somewhere else than their manifest urls say: on a unix socket, say."""

    def stream_address(self, name: str) -> tuple[str, int] | str | None:
        """Return (host, port) or a unix socket's path for the capability `name`; None where its url holds."""
        ...


@runtime_checkable
class ContainsAgent(Protocol):
    """A backing in which the agent runs processes."""

    async def seal(self, *, keep_agent_processes: bool) -> None:
        """Before grading: close the agent's channel and end its processes, or keep them confined."""
        ...

    async def unseal(self) -> None:
        """Before the next start on the same placement: open the channel again."""
        ...


@runtime_checkable
class StatesFacts(Protocol):
    """A backing that has something to say of each rollout: which engine confined it, what changed."""

    async def facts(self) -> dict[str, Any]:
        """Return JSON's types for the `info` of the grade; asked once the agent is sealed off, before grading."""
        ...


@runtime_checkable
class KeepsState(Protocol):
    """A backing that can tell what the agent left in it, and put that back into a fresh start of the same task."""

    @property
    def name(self) -> str:
        """What the capability is called."""
        ...

    async def take_state(self, limit_bytes: int) -> dict[str, Any] | None:
        """Return what changed since the agent came in; None where nobody did.

        JSON's types, and in `files` each with `path` and `content` as bytes.

        At most `limit_bytes` of content; `left_out` says what is missing. Asked once the agent is sealed off.
        """
        ...

    async def restore_state(self, state: Mapping[str, Any]) -> None:
        """Put back what `take_state` returned; raises `SandboxError` where that cannot be done."""
        ...


@runtime_checkable
class GradingShell(Protocol):
    """A backing that runs grading commands in a fresh sandbox of the same kind, on the agent's files."""

    @property
    def name(self) -> str:
        """What the capability is called."""
        ...

    @property
    def root(self) -> Path:
        """The workspace's folder as the environment's process sees it."""
        ...

    @property
    def guest_root(self) -> str:
        """The same folder as commands inside see it."""
        ...

    async def grading_run(
        self,
        command: str | Sequence[str],
        *,
        cwd: str | None = None,
        timeout_s: float = 600.0,
        env: Mapping[str, str] | None = None,
        files: Mapping[str, str | bytes | Path] | None = None,
    ) -> CommandResult:
        """Run a grading command where the agent's processes are gone (or out of reach).

        `files` maps a path in the sandbox to content or to a file or folder of the host; they exist only for this
        command and cannot be written. Raises `SandboxError` where the sandbox itself failed.
        """
        ...
