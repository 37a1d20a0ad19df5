"""The agent that repeats what was recorded."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hud.agents.base import PlainAgent
from hud.capability.tool import Tool
from hud.errors import UsageError
from hud.types.messages import MCPToolCall, MCPToolResult
from hud.types.trace import AgentStep, ToolStep

if TYPE_CHECKING:
    from hud.eval.run import Run


class ReplayAgent(PlainAgent):
    """Make a recorded rollout's tool calls again, in order, and give its answer.

    `job` is a job file, an id or the beginning of one. Of several recorded rollouts of a row, the best graded is
    repeated; `run_id` (or its beginning) chooses another. Results may differ from the recorded ones: where they
    do, the step's `extra["differs"]` is true.
    """

    name: ClassVar[str] = "replay"

    def __init__(self, job: str | Path | None = None, *, run_id: str | None = None) -> None:
        super().__init__()
        self.job = job
        self.run_id = run_id
        self._records: dict[str, list[dict[str, Any]]] | None = None

    async def __call__(self, run: Run) -> Any:
        """Repeat the recorded rollout of the row."""
        record = self.record_for(run.slug)
        toolbox = _Toolbox(run)
        try:
            for step in record.get("steps", ()):
                if step.get("kind") == "tool":
                    await self._repeat(run, toolbox, step)
                elif step.get("kind") == "agent":
                    run.record(AgentStep(content=step.get("content"), model="replay"))
        finally:
            await toolbox.close()
        return record.get("content")

    def record_for(self, slug: str) -> dict[str, Any]:
        """Return the recorded rollout to repeat for a row.

        Raises:
            UsageError: no job was named, or it has no such rollout.
        """
        records = self._read()
        if self.run_id is not None:
            found = [r for rs in records.values() for r in rs if r["run_id"].startswith(self.run_id)]
        else:
            found = records.get(slug, [])
        if not found:
            wanted = f"run {self.run_id!r}" if self.run_id else f"rollout of row {slug!r}"
            raise UsageError(f"job {self.job} has no {wanted}; it has {sorted(records)[:10]}")
        return max(found, key=lambda record: (record["reward"] is not None, record["reward"] or 0.0))

    def _read(self) -> dict[str, list[dict[str, Any]]]:
        if self._records is None:
            if self.job is None:
                raise UsageError("replay needs the job to repeat: ReplayAgent('JOB'), or `-c job=JOB`")
            from hud.store.finding import find_job
            from hud.store.reader import JobFile

            self._records = {}
            with JobFile(find_job(self.job)) as file:
                for record in file.records():
                    self._records.setdefault(record["slug"], []).append(record)
        return self._records

    async def _repeat(self, run: Run, toolbox: _Toolbox, step: Mapping[str, Any]) -> None:
        call = MCPToolCall(**step["call"])
        begun = time.time()
        result = await toolbox.call(call)
        recorded = MCPToolResult(**step["result"]).text
        differs = {} if result.text == recorded else {"differs": True}
        run.record(ToolStep(call=call, result=result, started_at=begun, extra=differs))


class _Toolbox:
    """The tools of every capability of a run, opened when the first is called."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._tools: dict[str, Tool] | None = None

    async def call(self, call: MCPToolCall) -> MCPToolResult:
        if self._tools is None:
            self._tools = await self._open()
        tool = self._tools.get(call.name)
        if tool is None:
            known = ", ".join(sorted(self._tools)) or "none"
            return MCPToolResult.of_text(f"no tool {call.name!r} here; there is: {known}", error=True)
        if not isinstance(call.arguments, Mapping):
            return MCPToolResult.of_text(f"arguments are no object: {call.arguments!r}", error=True)
        try:
            async with asyncio.timeout(tool.timeout_s):
                return await tool(call.arguments)
        except TimeoutError:
            return MCPToolResult.of_text(f"{call.name} took longer than {tool.timeout_s} s", error=True)

    async def _open(self) -> dict[str, Tool]:
        from hud.plugins.host import current_host

        registry = current_host().registry
        found: dict[str, Tool] = {}
        for capability in self._run.client.manifest.bindings:
            make = registry.load(registry.capability_for(capability.protocol), "tools")
            made = make(await self._run.client.open(capability.name), capability)
            tools: Sequence[Tool] = await made if inspect.isawaitable(made) else made
            found.update((tool.name, tool) for tool in tools)
        return found

    async def close(self) -> None:
        for tool in (self._tools or {}).values():
            if tool.close is not None:
                await tool.close()
