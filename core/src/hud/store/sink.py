"""What also wants a job's events, besides its file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable


class Sink(Protocol):
    """Receives redacted records as the job file keeps them. Made by a plugin's `hud_open_sink`, closed once.

    Its methods are called one after the other on a thread and event loop of its own, so that even one that blocks
    holds up no rollout. What it does not take in time is dropped, and counted: 256 rollouts may wait, a call has 5 s,
    and the end of the job 5 s for all that is left. An optional `name` is how the user is told of it.
    """

    async def job(self, record: Mapping[str, Any]) -> None:
        """Take what the job was asked to do, or, at its end, how it ended."""
        ...

    async def rollout(self, record: Mapping[str, Any]) -> None:
        """Take a finished rollout, steps and all; durable in the job file by now."""
        ...

    async def close(self) -> None:
        """Send what is left."""
        ...


@runtime_checkable
class CountsLosses(Protocol):
    """A sink that knows what of what it took did not arrive."""

    def lost(self) -> str | None:
        """Return that as a sentence for the user; None where nothing was lost. Asked once `close` has ended."""
        ...
