"""What also wants a job's events, besides its file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Sink(Protocol):
    """Receives redacted records as the job file keeps them. Made by a plugin's `hud_open_sink`, closed once.

    A method that raises is reported and counted; it never disturbs the job. Each call has 5 s.
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
