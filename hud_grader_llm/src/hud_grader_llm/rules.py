"""Rules over the steps of a trace: which tools were used, which commands were not, how many steps it took."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hud.errors import GraderError
from hud.graders.base import Grader
from hud.types.grade import SubScore
from hud.types.trace import AgentStep, ToolStep, Trace


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call of a trace, with whether its result was an error."""

    step: int | None
    tool: str
    arguments: Mapping[str, Any] | str
    failed: bool

    @property
    def text(self) -> str:
        """Every text among the arguments, one a line."""
        return "\n".join(_texts(self.arguments))


def calls_of(trace: Trace) -> list[Call]:
    """Return the calls that were made, subagents' included."""
    return [
        Call(step.step_id, step.call.name, step.call.arguments, step.result.isError)
        for step in trace.walk()
        if isinstance(step, ToolStep)
    ]


class TrajectoryGrader(Grader):
    """Scores the share of rules a trace keeps; each is a child of the result. Asks no model."""

    name: ClassVar[str] = "trajectory"
    deterministic: ClassVar[bool] = True

    @classmethod
    async def compute_score(
        cls,
        *,
        trace: Trace | Mapping[str, Any],
        required_tools: Sequence[str] = (),
        forbidden_tools: Sequence[str] = (),
        allowed_tools: Sequence[str] | None = None,
        required_commands: Sequence[str] = (),
        forbidden_commands: Sequence[str] = (),
        tool_order: Sequence[str] = (),
        max_steps: int | None = None,
        max_calls: int | None = None,
        max_failed_calls: int | None = None,
        max_tokens: int | None = None,
    ) -> SubScore:
        """Check the rules that are given.

        Commands are regular expressions, searched in every text among a call's arguments. `tool_order` must occur in
        this order, others between them. `max_steps` counts the model's turns, `max_tokens` prompt and completion.

        Raises:
            GraderError: no rule is given, an expression is wrong, or there is no trace.
        """
        if not isinstance(trace, (Trace, Mapping)):
            raise GraderError(f"TrajectoryGrader needs a trace, not {type(trace).__name__}")
        seen = trace if isinstance(trace, Trace) else Trace.model_validate(trace)
        calls = calls_of(seen)
        tools = [call.tool for call in calls]
        children: list[SubScore] = []
        for parameter, given in (
            ("required_tools", required_tools),
            ("forbidden_tools", forbidden_tools),
            ("allowed_tools", allowed_tools),
            ("required_commands", required_commands),
            ("forbidden_commands", forbidden_commands),
            ("tool_order", tool_order),
        ):
            if isinstance(given, str):
                raise GraderError(f"TrajectoryGrader: {parameter} takes a list, not the text {given!r}")

        def rule(name: str, kept: bool, **info: Any) -> None:
            children.append(SubScore(name, float(kept), info=info))

        for tool in required_tools:
            rule(f"uses {tool}", tool in tools)
        for tool in forbidden_tools:
            rule(f"never uses {tool}", tool not in tools, steps=[c.step for c in calls if c.tool == tool])
        if allowed_tools is not None:
            others = sorted(set(tools) - set(allowed_tools))
            rule(f"uses only {', '.join(allowed_tools) or 'no tools'}", not others, others=others)
        for pattern in required_commands:
            rule(f"runs /{pattern}/", bool(_matching(calls, pattern)))
        for pattern in forbidden_commands:
            found = _matching(calls, pattern)
            rule(f"never runs /{pattern}/", not found, steps=[call.step for call in found])
        if tool_order:
            rule(f"uses {' before '.join(tool_order)}", _in_order(tool_order, tools))
        turns = sum(isinstance(step, AgentStep) for step in seen.walk())
        failed = sum(call.failed for call in calls)
        for name, bound, count in (
            ("steps", max_steps, turns),
            ("calls", max_calls, len(calls)),
            ("failed calls", max_failed_calls, failed),
            ("tokens", max_tokens, seen.usage.total_tokens),
        ):
            if bound is not None:
                rule(f"at most {bound} {name}", count <= bound, count=count)
        if not children:
            raise GraderError("TrajectoryGrader was given no rule")
        return SubScore(
            cls.name, sum(child.value for child in children) / len(children), children=_named(children)
        )


def _matching(calls: Sequence[Call], pattern: str) -> list[Call]:
    try:
        compiled = re.compile(pattern, re.MULTILINE)
    except re.error as error:
        raise GraderError(f"{pattern!r} is no regular expression: {error}") from error
    return [call for call in calls if compiled.search(call.text)]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        yield from (_texts_of_list(value))
    elif value is not None:
        yield json.dumps(value, default=str)


def _texts_of_list(value: Sequence[Any]) -> Iterator[str]:
    if value and all(isinstance(item, str) for item in value):
        yield " ".join(value)  # a command given as its words
    else:
        for item in value:
            yield from _texts(item)


def _in_order(wanted: Sequence[str], tools: Sequence[str]) -> bool:
    left = iter(tools)
    return all(tool in left for tool in wanted)


def _named(children: list[SubScore]) -> list[SubScore]:
    seen: dict[str, int] = {}
    for child in children:
        seen[child.name] = seen.get(child.name, 0) + 1
        if seen[child.name] > 1:
            child.name = f"{child.name}-{seen[child.name]}"
    return children
