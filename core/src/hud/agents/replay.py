"""The agent that repeats what was recorded."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hud.agents.base import PlainAgent
from hud.agents.sameness import Sameness
from hud.agents.toolset import Toolset, capability_tools
from hud.errors import UsageError
from hud.types.messages import MCPToolCall, MCPToolResult
from hud.types.trace import AgentStep, ToolStep

if TYPE_CHECKING:
    from hud.eval.run import Run

TOOL_S = 600.0
"""How long a call may take that brings no bound of its own."""


@dataclass(slots=True)
class Difference:
    """A call whose result is not what was recorded. `step` is its number in the recorded trace, from 0."""

    step: int
    tool: str
    arguments: Any
    diff: str
    recorded: str
    now: str


class ReplayAgent(PlainAgent):
    """Make a recorded rollout's tool calls again, in order, and give its answer.

    `job` is a job file, an id or the beginning of one. Of several recorded rollouts of a row, the best graded is
    repeated; `run_id` (or its beginning) chooses another. Results may differ from the recorded ones: where they
    do, the step's `extra["differs"]` tells how, and the trace's `extra["replay"]` counts them and has the first.
    `ignore` names what is not compared: `times`, `paths`, `ids`, or regular expressions. With `until_difference` the
    first one ends the replay. Calls of tools that no capability offers (the agent's own functions, other agents)
    cannot be made again and differ, unless `skip` names them.
    """

    name: ClassVar[str] = "replay"

    def __init__(
        self,
        job: str | Path | None = None,
        *,
        run_id: str | None = None,
        ignore: Iterable[str] | str = (),
        skip: Iterable[str] | str = (),
        until_difference: bool = False,
    ) -> None:
        super().__init__()
        self.job = job
        self.run_id = run_id
        self.until_difference = until_difference
        self.skip: frozenset[str] = frozenset([skip] if isinstance(skip, str) else skip)
        self._is_same = Sameness([ignore] if isinstance(ignore, str) else ignore)

    async def __call__(self, run: Run) -> Any:
        """Repeat the recorded rollout of the row."""
        record = self.record_for(run.slug)
        toolset: Toolset | None = None
        told = run.trace.extra["replay"] = {
            "of": record["run_id"],
            "calls": 0,
            "differences": 0,
            "skipped": 0,
            "first": None,
        }
        try:
            for number, step in enumerate(record.get("steps", ())):
                if step.get("kind") == "agent":
                    run.record(AgentStep(content=step.get("content"), model="replay"))
                if step.get("kind") != "tool":
                    continue
                if toolset is None:
                    toolset = Toolset((await capability_tools(run.client)).tools, timeout_s=TOOL_S)
                found = await self._repeat(run, toolset, step, number)
                told["calls"] += 1
                if found is None:
                    continue
                told["differences"] += 1
                told["first"] = told["first"] or asdict(found)
                if self.until_difference:
                    break
        finally:
            if toolset is not None:
                await toolset.close()
        return record.get("content")

    async def _repeat(
        self, run: Run, toolset: Toolset, step: Mapping[str, Any], number: int
    ) -> Difference | None:
        call = MCPToolCall(**step["call"])
        recorded = MCPToolResult(**step["result"])
        if call.name in self.skip:
            run.trace.extra["replay"]["skipped"] += 1
            run.record(ToolStep(call=call, result=recorded, extra={"repeated": False}))
            return None
        begun = time.time()
        result = await toolset.call(call)
        same = self._is_same(recorded, result)
        extra = {} if same else {"differs": self._is_same.difference(recorded, result)}
        run.record(ToolStep(call=call, result=result, started_at=begun, extra=extra))
        if same:
            return None
        return Difference(number, call.name, call.arguments, extra["differs"], recorded.text, result.text)

    def plain(self, text: str) -> str:
        """Return a text as it is compared."""
        return self._is_same.plain(text)

    def record_for(self, slug: str) -> dict[str, Any]:
        """Return the recorded rollout to repeat for a row.

        Raises:
            UsageError: no job was named, or it has no such rollout.
            StoreError: there is no such job.
        """
        if self.job is None:
            raise UsageError("replay needs the job to repeat: ReplayAgent('JOB'), or `-c job=JOB`")
        from hud.store.finding import find_job
        from hud.store.reader import JobFile

        with JobFile(find_job(self.job)) as file:
            rows = file.runs(state="finished")
            if self.run_id is not None:
                found = [row for row in rows if row["run_id"].startswith(self.run_id)]
            else:
                found = [row for row in rows if row["slug"] == slug]
            if not found:
                wanted = f"run {self.run_id!r}" if self.run_id else f"rollout of row {slug!r}"
                known = sorted({row["slug"] for row in rows})
                raise UsageError(f"job {self.job} has no {wanted}; it has {known[:10]}")
            best = max(found, key=lambda row: (row["reward"] is not None, row["reward"] or 0.0))
            return file.record(best["run_id"])
