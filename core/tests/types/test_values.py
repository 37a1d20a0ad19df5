"""Values answer to pydantic's verbs with pydantic's results."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from hud.types import (
    AgentStep,
    Capability,
    Citation,
    ComposeProject,
    EvaluationResult,
    Grade,
    MCPToolCall,
    MCPToolResult,
    PromptMessage,
    RuntimeConfig,
    RuntimeGPU,
    RuntimeLimits,
    RuntimeResources,
    Sample,
    Step,
    SubagentStep,
    SubScore,
    Task,
    TaskCall,
    ToolStep,
    Trace,
    Usage,
)
from hud.values import Value, plain

EXAMPLES: list[Value] = [
    Capability.ssh(url="ssh://127.0.0.1", host_pubkey="k"),
    Task("env", "count", {"word": "x", "n": 2}, columns={"level": 1}),
    Task("env", "t", runtime_config=RuntimeConfig(resources=RuntimeResources(gpu=RuntimeGPU(["A", "B"], 2)))),
    Task("env", "t", verifier=Task("other", "check")),
    RuntimeConfig(compose=ComposeProject(Path("compose.yaml")), limits=RuntimeLimits(10.0)),
    Grade(reward=0.5, subscores=[SubScore("a", 1.0, children=[SubScore("b", 0.0)], info={"k": [1]})]),
    EvaluationResult(reward=1.0, content="well done", subscores=[SubScore("a", 1.0)]),
    PromptMessage("user", [{"type": "text", "text": "hello"}]),
    Trace(
        steps=[
            Step(source="task", task_call=TaskCall("setup", "count", {"n": 1})),
            AgentStep(
                content="hi",
                tool_calls=[MCPToolCall("bash", {"command": "ls"}, "c1")],
                usage=Usage(10, 2),
                citations=[Citation("url", "t")],
                sample=Sample([1], None, [2], [-0.5]),
            ),
            ToolStep(call=MCPToolCall("bash", "{broken"), result=MCPToolResult.of_text("no", error=True)),
            SubagentStep(subagent=Trace(steps=[AgentStep(content="deep")])),
        ],
        content="done",
    ),
]
NAMES = [f"{type(value).__name__}-{index}" for index, value in enumerate(EXAMPLES)]


def _without_private(dumped: Any) -> Any:
    """Leave out what only lives in this process; pydantic knows no private fields of a dataclass."""
    if isinstance(dumped, dict):
        private = {"source"} if "slug" in dumped else {"listener"}
        return {key: _without_private(item) for key, item in dumped.items() if key not in private}
    return [_without_private(item) for item in dumped] if isinstance(dumped, list) else dumped


@pytest.mark.parametrize("value", EXAMPLES, ids=NAMES)
def test_dumps_what_pydantic_dumps(value: Value) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(type(value))
    for mode in ("python", "json"):
        theirs = _without_private(adapter.dump_python(value, mode=mode))
        assert value.model_dump(mode=mode) == theirs


@pytest.mark.parametrize("value", EXAMPLES, ids=NAMES)
def test_reads_back_what_it_dumped(value: Value) -> None:
    assert type(value).model_validate(value.model_dump()) == value
    assert type(value).model_validate_json(value.model_dump_json()) == value


@pytest.mark.parametrize("value", EXAMPLES, ids=NAMES)
def test_rejects_an_unknown_field_by_name(value: Value) -> None:
    with pytest.raises(ValidationError, match="colour"):
        type(value).model_validate(value.model_dump() | {"colour": "red"})


@pytest.mark.parametrize("value", EXAMPLES, ids=NAMES)
def test_copies_with_updates(value: Value) -> None:
    first = fields(value)[0].name  # type: ignore[arg-type]
    copied = value.model_copy(update={first: getattr(value, first)}, deep=True)
    assert copied == value
    assert copied is not value


def test_private_fields_are_never_dumped() -> None:
    task = Task("env", "t", source=object())
    assert "source" not in task.model_dump()
    trace = Trace(listener=print)
    assert "listener" not in trace.model_dump()
    assert "listener" not in repr(trace)


def test_dump_leaves_out_what_is_asked() -> None:
    task = Task("env", "t")
    assert task.model_dump(exclude_none=True) == {"env": "env", "id": "t", "args": {}, "slug": "t"}
    assert task.model_dump(include={"env"}) == {"env": "env"}
    assert "args" not in task.model_dump(exclude={"args"})
    assert Usage(prompt_tokens=3).model_dump(exclude_defaults=True) == {"prompt_tokens": 3}


def test_a_nan_never_becomes_json() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        Grade(info={"loss": float("nan")}).model_dump_json()


@pytest.mark.slow
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.tuples(x, x)
    )
)
def test_plain_is_json_and_settles(value: Any) -> None:
    once = plain(value)
    assert json.loads(json.dumps(once)) == once
    assert plain(once) == once


def test_a_subscore_takes_its_older_names() -> None:
    assert SubScore.model_validate({"name": "a", "score": 1, "metadata": {"k": 1}}).info == {"k": 1}


def test_making_and_dumping_values_imports_neither_pydantic_nor_asyncio() -> None:
    program = (
        "import sys; from hud.types import Task, Trace, AgentStep\n"
        "Task('e', 't', {'a': 1}).model_dump_json(); t = Trace(); t.record(AgentStep(content='x')); t.model_dump()\n"
        "print([m for m in ('pydantic', 'asyncio', 'pluggy', 'anyio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
