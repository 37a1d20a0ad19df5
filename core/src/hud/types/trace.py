"""What happened in a rollout, step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar
from uuid import uuid4

from hud.types.messages import Citation, MCPToolCall, MCPToolResult, Sample, Usage
from hud.values import Value

AnyStep: TypeAlias = "Step | AgentStep | ToolStep | SubagentStep"
"""Any kind of step; the order lets validation tell a plain step from an agent's."""

Source = Literal["user", "agent", "tool", "task", "subagent", "system"]
TraceStatus = Literal["completed", "error", "cancelled"]
T = TypeVar("T")
StepT = TypeVar("StepT", bound="Step")


@dataclass(slots=True)
class TaskCall(Value):
    """A call of the environment's task: `phase` is setup (the first yield) or evaluate (the second)."""

    phase: Literal["setup", "evaluate"]
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    result: Any = None


@dataclass(slots=True, kw_only=True)
class Step(Value):
    """One thing that happened. Times are seconds since the epoch; the trace fills in what is None."""

    step_id: int | None = None
    source: Source = "agent"
    messages: list[dict[str, Any]] = field(default_factory=list)
    task_call: TaskCall | None = None
    error: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    schema_tag: ClassVar[str] = "hud.step.v1"
    kind: ClassVar[str] = "step"


@dataclass(slots=True, kw_only=True)
class AgentStep(Step):
    """One turn of a model."""

    content: str | None = None
    reasoning: str | None = None
    tool_calls: list[MCPToolCall] = field(default_factory=list)
    done: bool = False
    finish_reason: str | None = None
    stop_reason: str | None = None
    refusal: str | None = None
    citations: list[Citation] = field(default_factory=list)
    raw: Any = None
    model: str | None = None
    usage: Usage | None = None
    sample: Sample | None = None

    kind: ClassVar[str] = "agent"


@dataclass(slots=True, kw_only=True)
class ToolStep(Step):
    """One call of a tool and its result."""

    source: Source = "tool"
    call: MCPToolCall
    result: MCPToolResult

    kind: ClassVar[str] = "tool"


@dataclass(slots=True, kw_only=True)
class SubagentStep(Step):
    """A nested rollout, whole."""

    source: Source = "subagent"
    subagent: Trace

    kind: ClassVar[str] = "subagent"


STEP_KINDS: dict[str, type[Step]] = {cls.kind: cls for cls in (Step, AgentStep, ToolStep, SubagentStep)}


@dataclass(slots=True)
class Trace(Value):
    """The steps of a rollout, how it ended, and the agent's answer (`content`)."""

    steps: list[AnyStep] = field(default_factory=list)
    status: TraceStatus = "completed"
    stop_reason: str | None = None
    content: Any = None
    extra: dict[str, Any] = field(default_factory=dict)
    trace_id: str = field(default_factory=lambda: uuid4().hex)
    listener: Callable[[Step], None] | None = field(
        default=None, repr=False, compare=False, metadata={"private": True}
    )
    """Is told of each step as it is recorded; the engine sets it to write the job file."""

    def record(self, step: StepT) -> StepT:
        """Append `step`, number it from 0, and give it the current time where it has none."""
        step.step_id = len(self.steps)
        now = time.time()
        if step.ended_at is None:
            step.ended_at = now
        if step.started_at is None:
            step.started_at = step.ended_at
        self.steps.append(step)
        if self.listener is not None:
            self.listener(step)
        return step

    def final(self, get: Callable[[Step], T | None]) -> T | None:
        """Return what `get` finds in the latest step that has it."""
        return next((found for step in reversed(self.steps) if (found := get(step)) is not None), None)

    def collect(self, get: Callable[[Step], T | None]) -> list[T]:
        """Return what `get` finds, of all steps in order."""
        return [found for step in self.steps if (found := get(step)) is not None]

    @property
    def error(self) -> str | None:
        """What ended the rollout early, else the latest error of a step."""
        ended: str | None = self.extra.get("error")
        return ended or self.final(lambda step: step.error)

    @property
    def is_error(self) -> bool:
        """Whether the rollout's agent ended in an error."""
        return self.status == "error"

    @property
    def is_truncated(self) -> bool:
        """Whether a limit cut the agent short."""
        return self.stop_reason in ("max_steps", "length", "timeout", "max_tokens", "max_cost_usd")

    @property
    def usage(self) -> Usage:
        """The sum over all model calls, those of subagents included."""
        total = Usage(llm_call_count=0, cost_usd=0.0)
        for step in self.steps:
            if isinstance(step, AgentStep) and step.usage is not None:
                total = total.plus(step.usage)
            elif isinstance(step, SubagentStep):
                total = total.plus(step.subagent.usage)
        return total

    def __len__(self) -> int:
        return len(self.steps)

    def __bool__(self) -> bool:
        return True

    def walk(self) -> Iterator[Step]:
        """Yield every step, those of subagents after their own step."""
        for step in self.steps:
            yield step
            if isinstance(step, SubagentStep):
                yield from step.subagent.walk()
