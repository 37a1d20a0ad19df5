"""Agents as tools of other agents; what the inner one did is kept within the outer one's trace."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from hud.agents.toolset import RunTool
from hud.capability.tool import Tool, safe_name
from hud.errors import ConfigError, LimitError, WireError
from hud.types.messages import MCPToolResult, PromptMessage
from hud.types.trace import Step, SubagentStep, Trace

if TYPE_CHECKING:
    from hud.agents.reserving import Reservation
    from hud.eval.run import Run
    from hud.types.task import Task

AgentCall = Callable[[Any], Awaitable[Any]]
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "prompt": {"type": "string", "description": "What it shall do, with all it needs to know."}
    },
    "required": ["prompt"],
    "additionalProperties": False,
}


class SubRun:
    """What an inner agent sees as its run: the outer run's connection, a prompt and a trace of its own.

    It is not graded. What it spends counts for the outer run: while it works against the limits, when it is done
    as one step.
    """

    def __init__(self, outer: Run, prompt: str) -> None:
        self.outer = outer
        self.prompt: Any = prompt
        self.trace: Trace = Trace()
        self.task: Task = outer.task
        self.job_id: str = outer.job_id
        self.group_id: str = outer.group_id

    @property
    def client(self) -> Any:
        """The outer run's connection to the environment."""
        return self.outer.client

    @property
    def prompt_messages(self) -> list[PromptMessage]:
        """The prompt as one message."""
        return [PromptMessage("user", self.prompt)]

    @property
    def prompt_text(self) -> str:
        """The prompt."""
        return str(self.prompt)

    @property
    def slug(self) -> str:
        """The outer row's name."""
        return self.outer.slug

    @property
    def trace_id(self) -> str:
        """The id of the inner trace."""
        return self.trace.trace_id

    def record(self, step: Any) -> Any:
        """Add a step to the inner trace; raises `LimitError` where the outer run's limits are passed."""
        recorded: Step = self.trace.record(step)
        self.check_limits()
        return recorded

    @property
    def has_budget(self) -> bool:
        """Whether the outer job has a budget to reserve from."""
        return bool(getattr(self.outer, "has_budget", False))

    async def reserve(self, **call: Any) -> Reservation:
        """Hold what a call may cost in the outer job's budget; see `Run.reserve`."""
        return await self.outer.reserve(**call)

    def check_limits(self, *, tokens: int = 0, cost_usd: float = 0.0) -> None:
        """Raise `LimitError` where what was spent here, and so much more, would pass the outer run's limits."""
        usage = self.trace.usage
        self.outer.check_limits(
            tokens=tokens + usage.total_tokens, cost_usd=cost_usd + (usage.cost_usd or 0.0)
        )


class AgentTool(RunTool):
    """Offers `agent` as a tool: the outer model writes a prompt, the inner agent works in the same environment.

    ```python
    create_agent("claude-sonnet-4-5", tools=[AgentTool(create_agent("gpt-5-mini"), name="researcher",
                                                       description="Finds facts.")])
    ```
    """

    def __init__(
        self, agent: AgentCall, *, name: str, description: str, timeout_s: float | None = None
    ) -> None:
        if not callable(agent):
            raise ConfigError(f"AgentTool {name!r}: {agent!r} is no agent")
        self.agent = agent
        self.name: str = safe_name(name)
        self.description = description
        self.timeout_s = timeout_s

    def bind(self, run: Any) -> Tool:
        """Return the tool for one run."""

        async def handler(arguments: Mapping[str, Any]) -> MCPToolResult:
            inner = SubRun(run, str(arguments["prompt"]))
            try:
                answer = await self.agent(inner)
            except (LimitError, WireError):
                inner.trace.status = "error"
                raise
            except Exception as error:  # noqa: BLE001 - the inner agent's failure is told to the outer one, and kept
                inner.trace.status = "error"
                inner.trace.record(Step(error=f"{type(error).__name__}: {error}"))
                return MCPToolResult.of_text(f"{self.name} failed: {error}", error=True)
            finally:
                run.record(
                    SubagentStep(subagent=inner.trace, extra={"tool": self.name, "prompt": inner.prompt})
                )
            text = answer if answer is not None else inner.trace.content
            return MCPToolResult.of_text("(no answer)" if text is None else str(text))

        # An agent takes its time: without a bound of its own it has the outer rollout's.
        bound = self.timeout_s if self.timeout_s is not None else 24 * 3600.0
        return Tool(self.name, self.description, PARAMETERS, handler, timeout_s=bound)


class TaskTool(RunTool):
    """Offers whole tasks as a tool: each call runs one rollout of `task`, in a placement of its own.

    `arguments` maps what the outer model may set to its JSON Schema; they replace the task's own arguments.
    """

    def __init__(
        self,
        task: Task,
        agent: AgentCall,
        *,
        name: str,
        description: str,
        arguments: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.task = task
        self.agent = agent
        self.name: str = safe_name(name)
        self.description = description
        self.arguments: dict[str, Any] = dict(arguments or {})
        self.options = options

    def bind(self, run: Any) -> Tool:
        """Return the tool for one run."""

        async def handler(arguments: Mapping[str, Any]) -> MCPToolResult:
            task = self.task.model_copy(update={"args": {**self.task.args, **arguments}})
            job = await task.run(self.agent, **self.options)
            inner = job.runs[0]
            run.record(SubagentStep(subagent=inner.trace, extra={"tool": self.name, "reward": inner.reward}))
            if inner.error:
                return MCPToolResult.of_text(f"{self.name} failed: {inner.error}", error=True)
            return MCPToolResult.of_text(f"{inner.answer}\n(reward: {inner.reward})")

        schema = {
            "type": "object",
            "properties": self.arguments,
            "required": list(self.arguments),
            "additionalProperties": False,
        }
        return Tool(self.name, self.description, schema, handler, timeout_s=24 * 3600.0)
