"""A trace as a judge can read it."""

from __future__ import annotations

import json

from hud.types.trace import AgentStep, Step, SubagentStep, ToolStep, Trace
from hud_grader_llm.material import images_in

RESULT_CHARS = 4_000
REASONING_CHARS = 2_000


def transcript(trace: Trace, before: int = 0) -> tuple[str, list[dict[str, str]]]:
    """Return what was said and done, step by step, with long results cut, and the images that were seen.

    Those are numbered from `before` + 1.
    """
    lines: list[str] = []
    images: list[dict[str, str]] = []
    for step in trace.steps:
        lines += _step(step, images, before)
    if trace.content is not None:
        lines.append(f"[answer] {trace.content}")
    return "\n".join(lines), images


def _step(step: Step, images: list[dict[str, str]], before: int, depth: str = "") -> list[str]:
    head = f"{depth}[{step.step_id}]"
    if isinstance(step, AgentStep):
        lines = [f"{head} agent: {step.content}"] if step.content else []
        if step.reasoning:
            lines.insert(0, f"{head} agent thinks: {_cut(step.reasoning, REASONING_CHARS)}")
        lines += [f"{head} agent calls {call.name} {_arguments(call.arguments)}" for call in step.tool_calls]
        return lines or [f"{head} agent says nothing"]
    if isinstance(step, ToolStep):
        seen = images_in(step.result.content)
        shown = "".join(f" [image {before + len(images) + n}]" for n in range(1, len(seen) + 1))
        images += seen
        failed = " (failed)" if step.result.isError else ""
        return [f"{head} {step.call.name} returned{failed}{shown}: {_cut(step.result.text, RESULT_CHARS)}"]
    if isinstance(step, SubagentStep):
        inner = [line for sub in step.subagent.steps for line in _step(sub, images, before, depth + "  ")]
        return [f"{head} a subagent worked:", *inner, f"{head} it answered: {step.subagent.content}"]
    if step.error:
        return [f"{head} error: {step.error}"]
    if step.task_call is not None and step.task_call.phase == "setup":
        result = step.task_call.result
        prompt = result.get("prompt") if isinstance(result, dict) else result
        return [f"{head} task: {prompt if isinstance(prompt, str) else json.dumps(prompt, default=str)}"]
    return []


def _arguments(arguments: object) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False, default=str)


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} [... {len(text) - limit:,} characters left out ...] {text[-half:]}"
