"""What the wire serves: the seam between frames and an environment.

`hud.wire.server` and the in-process client call a `Service`; `hud.environment` implements it. The wire owns
connections, session ids, tokens, parking, expiry, idempotent keys; a `ServiceSession` owns one suspended task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import socket

    from hud.types import Capability


class HostCalls(Protocol):
    """Lets an environment's grader ask the orchestrator for what needs its keys (wire.md, host calls)."""

    async def model(
        self, *, dialect: str, model: str, body: Mapping[str, Any], deadline_s: float
    ) -> dict[str, Any]:
        """Return the provider's reply; raises `HudProtocolError` where the host refuses or fails."""
        ...


class ServiceSession(Protocol):
    """One session's task: at most one suspended generator. Called by one caller at a time, except `cancel`.

    One method is optional: `async cleaned(seconds) -> list[str]` waits for cleanups that go on behind a reply, so long
    at most, and returns what failed or still runs.

    Errors of `start` and `grade` are `HudError`s: `AuthoringError`, `PromptError`, `RewardError`,
    `TemplateRaisedError`, `GraderError` (code -32000), or `BadParamsError` (-32602), `WrongStateError` (-32600).
    """

    async def start(self, task_id: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """Cancel the task before, run the template to its first yield, and return the reply (`prompt`, extras)."""
        ...

    async def grade(self, answer: Any) -> dict[str, Any]:
        """Send the answer in, return the reply (`score`, ...); waits at most 2 s for the template's own cleanup."""
        ...

    async def cancel(self) -> None:
        """Interrupt a start or grade that runs, close the generator; returns within 2 s, cleanup may go on."""
        ...

    async def close(self) -> None:
        """End the session: cancel, and release what belongs to it."""
        ...

    @property
    def has_task(self) -> bool:
        """Whether a task is started and not yet graded or cancelled."""
        ...


class PlacedSession(ServiceSession, Protocol):
    """A session with an environment of its own: other sessions have other capabilities, behind the same names."""

    async def place(self, egress: Mapping[str, Any]) -> None:
        """Make the environment, before `hello` is answered; `egress` are the ways out that it asked for.

        Raises:
            BadParamsError: a way out is not allowed.
            HudError: there is no environment to be had.
        """
        ...

    def bindings(self) -> list[Capability]:
        """Return the manifest's capabilities of this session."""
        ...

    async def open_stream(self, name: str) -> socket.socket:
        """Return a non-blocking socket connected to the capability `name`; `BadParamsError` for one not there."""
        ...


class Service(Protocol):
    """A served environment, started: its initialize hooks have finished.

    Four attributes are optional. `stream_address(name) -> (host, port) | path | None` says where a capability really
    listens. `allow_egress(session_id, field, wanted)` grants what a `hello` asks for in `workspace_routes` or
    `connections`, or raises `BadParamsError`; `release_egress(session_id)` takes it back. `places_sessions` is true
    where sessions are `PlacedSession`s; `bindings` then shows what theirs are like.
    """

    name: str
    version: str

    def bindings(self) -> list[Capability]:
        """Return the manifest's capabilities; the result may change between calls."""
        ...

    def task_entries(self) -> list[dict[str, Any]]:
        """Return `{id, description, args, input?, returns?}` for each template; the same list while nothing changes."""
        ...

    def open_session(self, session_id: str, host: HostCalls | None) -> ServiceSession:
        """Make the task side of a new session; called once for each."""
        ...
