"""A model that says what a test wants, and a place to run it in."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from hud.agents.conversation import Reply, Request
from hud.agents.loop import ToolAgent, ToolAgentConfig
from hud.environment import Environment
from hud.eval.rollout import rollout
from hud.eval.run import Run
from hud.runtime.inprocess import served_here
from hud.types import AgentStep, MCPToolCall, Task, ToolStep, Usage

Said = AgentStep | Callable[[Request], Any]


def said(
    content: str | None = None, *calls: tuple[str, Any], usage: Usage | None = None, **more: Any
) -> AgentStep:
    """Return a turn with calls of (tool, arguments)."""
    made = [MCPToolCall(name, arguments, f"call-{i}") for i, (name, arguments) in enumerate(calls)]
    return AgentStep(
        content=content, tool_calls=made, model="scripted", usage=usage or Usage(10, 5, cost_usd=0.01), **more
    )


class Scripted(ToolAgent[ToolAgentConfig]):
    """Says `turns`, one after the other, the last one again and again; keeps the requests it got."""

    def __init__(self, *turns: Said, window: int | None = None, **config: Any) -> None:
        super().__init__({"model": "scripted", **config})
        self.turns: list[Said] = list(turns)
        self.requests: list[Request] = []
        self.window = window

    def window_tokens(self) -> int | None:
        """Return the window it was made with."""
        return self.window

    async def respond(self, request: Request) -> Reply:
        """Say the next turn."""
        turn = self.turns[min(len(self.requests), len(self.turns) - 1)]
        self.requests.append(request)
        step = turn(request) if callable(turn) else turn.model_copy()
        if inspect.isawaitable(step):
            step = await step
        return Reply(step)


async def run_here(agent: Any, prompt: Any = "Do it.", **options: Any) -> Run:
    """Run one rollout of a template that yields `prompt` and gives 1.0."""
    env = Environment("here")

    @env.template()
    async def task() -> Any:
        yield prompt
        yield 1.0

    class Here:
        def __call__(self, row: Task) -> Any:
            return served_here(lambda _: env, row)

    return await rollout(Task(env="here", id="task"), agent, runtime=Here(), **options)


def results(run: Run) -> Sequence[tuple[str, bool, str]]:
    """Return (tool, failed, text) of every tool step."""
    return [
        (step.call.name, step.result.isError, step.result.text)
        for step in run.trace.steps
        if isinstance(step, ToolStep)
    ]
