"""A process that a template started and lets run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hud_capability_ssh.inside import Streams, outcome
from hud_capability_ssh.loops import on_loop
from hud_capability_ssh.output import HeadAndTail

if TYPE_CHECKING:
    from hud.capability.interfaces import CommandResult
    from hud_capability_ssh.sandbox import Child


class Launched:
    """Its output is kept, head and tail; it ends with the workspace at the latest."""

    def __init__(self, child: Child, command: str) -> None:
        self._child = child
        self._command = command
        limit = child.sandbox.spec.limits.output_bytes // 4
        self._out, self._err = HeadAndTail(limit), HeadAndTail(limit)
        self._streams = Streams(child, self._out, self._err, b"")

    @property
    def pid(self) -> int:
        """Its process id inside."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return not self._child.ended.done()

    @property
    def stdout(self) -> str:
        """What it printed so far."""
        return self._out.text()

    @property
    def stderr(self) -> str:
        """What it printed so far as errors."""
        return self._err.text()

    async def wait(self, timeout_s: float | None = None) -> CommandResult:
        """Return how it ended; `TimeoutError` where it runs on."""
        return await on_loop(self._child.sandbox.link.loop, self._wait(timeout_s))

    async def _wait(self, timeout_s: float | None) -> CommandResult:
        async with asyncio.timeout(timeout_s):
            status, number = await self._child.wait()
        self._streams.finish()
        return outcome(self._command, self._child, status, number, False, self._out, self._err, 0.0)

    async def terminate(self) -> None:
        """End it and all it started."""
        await on_loop(self._child.sandbox.link.loop, self._child.kill())

    def close(self) -> None:
        """Let go of its pipes."""
        self._streams.finish()
