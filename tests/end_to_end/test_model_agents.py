"""Agents of models on the coding example: each SDK against its simulator, natively, with trouble on the way."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hud.agents import create_agent
from hud.agents.context import ContextPolicy
from hud.eval import LocalRuntime, Taskset
from hud.testing.llm import Ask, Call, Dialect, Fault, ModelServer, RateLimit, Turn, share
from hud.types import AgentStep, MCPToolResult, Step, Task, ToolStep

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.sandbox]

CODING = Path(__file__).parents[2] / "docs" / "examples" / "coding"
SOLVED = CODING / "solved"
PICTURE = {"type": "image", "data": "QUJD", "mimeType": "image/png"}
FAULTS = [
    Fault.of_status(429, retry_after_s=0.05),
    Fault.of_status(500),
    Fault.of_status(503),
    Fault("cut", after=2),
]
WINDOW = 9000


def bugs() -> dict[str, str]:
    """The example's bugs and their descriptions, without running it."""
    for node in ast.parse((CODING / "env.py").read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "BUGS":
            found: dict[str, str] = ast.literal_eval(node.value)
            return found
    raise AssertionError("the coding example has no BUGS")


def look() -> MCPToolResult:
    """Look at the screen."""
    return MCPToolResult([{"type": "text", "text": "a screen"}, PICTURE])


def shell(dialect: Dialect, *commands: str) -> list[Call]:
    if dialect == "openai-responses":
        return [Call("shell", {"commands": list(commands)})]
    return [Call("bash", {"command": command}) for command in commands]


def write(dialect: Dialect, path: str, text: str) -> list[Call]:
    if dialect == "anthropic":
        return [Call("str_replace_based_edit_tool", {"command": "create", "path": path, "file_text": text})]
    if dialect == "openai-responses":
        diff = "\n".join(f"+{line}" for line in text.splitlines())
        return [
            Call("apply_patch", {"type": "delete_file", "path": path}),
            Call("apply_patch", {"type": "create_file", "path": path, "diff": diff}),
        ]
    return [Call("write", {"path": path, "content": text})]


def coder(dialect: Dialect) -> Callable[[Ask], Turn]:
    """A model that knows the answers: looks around in parallel, floods itself, mends, tests, says so."""
    descriptions = bugs()

    def respond(ask: Ask) -> Turn:
        if "about to be cut" in ask.last.text:
            return Turn("Summary: the files are known; what is left is to mend the bug.")
        bug = next(name for name, text in descriptions.items() if text in ask.prompt)
        said = " ".join(result.text for result in ask.results)
        if not ask.results:
            calls = [*shell(dialect, "ls shelf", "pwd"), Call("look"), Call("glob", {"pattern": "**/*.py"})]
            return Turn("I look around.", calls, reasoning="First the files.")
        if "flood" not in said and ask.turns_so_far < 4:
            return Turn(calls=shell(dialect, *["echo flood; head -c 15000 /dev/zero | tr '\\0' x"] * 2))
        if "Ran " not in said:
            modules = [bug, *(["money"] if bug == "shares" else [])]
            calls = [
                c for m in modules for c in write(dialect, f"shelf/{m}.py", (SOLVED / f"{m}.py").read_text())
            ]
            return Turn(
                "I mend it.",
                [*calls, *shell(dialect, "python3 -m unittest discover -s tests -t . 2>&1 | grep Ran")],
            )
        return Turn(f"Mended {bug}.")

    return respond


@pytest.mark.parametrize(
    ("model", "dialect"),
    [
        ("claude-sonnet-4-5", "anthropic"),
        ("gpt-5.4", "openai-responses"),
        ("gemini-3.1-pro-preview", "gemini"),
        ("some-local-model", "openai-chat"),
    ],
)
@pytest.mark.timeout(400)
async def test_every_coding_task_is_solved_through_native_tools_with_trouble_on_the_way(
    model: str, dialect: Dialect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tasks = Taskset(
        "coding", [Task(env="coding", id="fix_bug", args={"bug": bug}, slug=bug) for bug in bugs()]
    )
    async with ModelServer(
        coder(dialect), faults=share(0.15, FAULTS, seed=3), context_tokens=WINDOW
    ) as server:
        agent = create_agent(
            model,
            base_url=server.base_url(dialect),
            tools=[look],
            context_window=WINDOW,
            context=ContextPolicy(keep_results=2),
        )
        job = await tasks.run(agent, runtime=LocalRuntime(CODING / "env.py"), max_concurrent=4)
        assert [run.error for run in job.runs] == [None] * len(job.runs)
        assert job.reward == 1.0
        assert any(status != 200 for status in server.statuses)
        native = {
            "anthropic": ["bash_20250124", "text_editor_20250728"],
            "openai-responses": ["shell", "apply_patch"],
        }.get(dialect, [])
        declared = [tool.get("type") for tool in server.asks[0].tools.values()]
        assert set(native) <= set(declared)
        assert max(ask.images for ask in server.asks) >= 1
        assert max(ask.cached_tokens for ask in server.asks) > 0
        for run in job.runs:
            steps = run.trace.steps
            assert any(isinstance(s, AgentStep) and len(s.tool_calls) >= 3 for s in steps)
            assert any(isinstance(s, ToolStep) and s.call.name == "look" for s in steps)
            assert any(type(s) is Step and "context_cut" in s.extra for s in steps), run.slug
            assert run.trace.usage.prompt_tokens > 0


TRIES = 3
"""A machine that is busy elsewhere lowers the rate that is used, and nothing raises it: the best one counts."""


@pytest.mark.timeout(300)
async def test_64_rollouts_under_20_requests_a_second_use_the_rate_and_none_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "env.py"
    source.write_text(
        "from hud.environment import Environment\nenv = Environment('many')\n\n"
        "@env.template()\nasync def task(n: int):\n"
        "    answer = yield 'Count.'\n    yield 1.0 if answer == 'done' else 0.0\n"
    )
    monkeypatch.chdir(tmp_path)

    used = 0.0
    for _ in range(TRIES):
        used = max(used, await rate_used(source))
        if used >= 0.9:
            break
    assert used >= 0.9


async def rate_used(source: Path) -> float:
    """Run 64 rollouts of five calls under 20 requests a second; return which part of that rate they used."""

    def respond(ask: Ask) -> Turn:
        return Turn(calls=[Call("look")]) if ask.turns_so_far < 4 else Turn("done")

    limit = RateLimit(20.0)
    tasks = Taskset("many", [Task(env="many", id="task", args={"n": n}) for n in range(64)])
    async with ModelServer(respond, limit=limit, latency_s=0.1) as server:
        agent = create_agent("claude-sonnet-4-5", base_url=server.url, tools=[look])
        # The placements are not what is measured: they are made before the first call, the rate counts from there.
        job = await tasks.run(agent, runtime=LocalRuntime(source), max_concurrent=64)
        assert [run.error for run in job.runs] == [None] * 64
        assert job.reward == 1.0
        assert server.statuses[200] == 64 * 5
        assert sum(server.statuses.values()) <= 1.3 * server.statuses[200], server.statuses
        turns = [s for run in job.runs for s in run.trace.steps if isinstance(s, AgentStep)]
        begun = min(s.started_at or time.time() for s in turns)
        ended = max(s.ended_at or 0.0 for s in turns)
        used = server.statuses[200] / (limit.burst + limit.per_second * (ended - begun))
        print(f"{used:.0%} of the rate, {server.statuses}")
        assert len(turns) == server.statuses[200]
        return used
