"""Programs run inside the workspace: a small stand-in always, the real ones from the npm registry."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hud.agents import create_agent
from hud.environment import Environment, Mount
from hud.errors import ConfigError
from hud.eval import LocalRuntime, Taskset
from hud.eval.job import Job
from hud.testing.agent import AgentContract
from hud.testing.llm import Ask, Call, Fault, ModelServer, Turn, first
from hud.testing.llm.background import serving
from hud.types import AgentStep, Task, ToolStep

pytestmark = pytest.mark.sandbox

ENV = """
from hud.environment import Environment
from hud.environment import Mount

env = Environment("work")
workspace = env.workspace("ws", mounts=[Mount("ro", {programs!r}, "/opt/agents")])

@env.template()
async def write_note():
    yield "Write the word done into note.txt."
    note = workspace.root / "note.txt"
    yield 1.0 if note.exists() and "done" in note.read_text() else 0.0
"""

# Speaks Claude Code's event stream, asks its model once, and runs what it says: what the agent relies on, and no more.
CLAUDE = """#!/usr/bin/python3
import json, os, subprocess, sys, urllib.request
prompt = sys.stdin.read()
say = lambda **event: print(json.dumps(event), flush=True)
messages = [{"role": "user", "content": prompt}]
for turn in range(4):
    body = {"model": sys.argv[sys.argv.index("--model") + 1], "max_tokens": 100, "messages": messages,
            "tools": [{"name": "Bash", "input_schema": {"type": "object"}}]}
    request = urllib.request.Request(os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages", json.dumps(body).encode(),
        {"x-api-key": os.environ["ANTHROPIC_API_KEY"], "content-type": "application/json"})
    message = json.load(urllib.request.urlopen(request))
    for block in message["content"]:
        say(type="assistant", message={**message, "content": [block]})
    messages.append({"role": "assistant", "content": message["content"]})
    calls = [b for b in message["content"] if b["type"] == "tool_use"]
    if not calls:
        say(type="result", subtype="success", is_error=False, result=message["content"][-1]["text"])
        break
    results = []
    for call in calls:
        done = subprocess.run(call["input"]["command"], shell=True, capture_output=True, text=True)
        results.append({"type": "tool_result", "tool_use_id": call["id"], "content": done.stdout + done.stderr})
    messages.append({"role": "user", "content": results})
    say(type="user", message={"role": "user", "content": results})
"""


# One more capability than a shell, and a picture in the prompt.
RICH = """
from hud.environment import Environment, Mount

env = Environment("work")
workspace = env.workspace("ws", mounts=[Mount("ro", {programs!r}, "/opt/agents")])

def lucky(times: int) -> str:
    "Return the lucky number, so many times over."
    return "4711 " * times

env.tools(lucky)
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

@env.template()
async def write_note():
    answer = yield [{{"role": "user", "content": [
        {{"type": "text", "text": "Which number is lucky? The picture says why."}},
        {{"type": "image", "data": PICTURE, "mimeType": "image/png"}},
    ]}}]
    yield 1.0 if "4711" in answer else 0.0
"""


def says_the_word(ask: Ask) -> Turn:
    found = re.findall(r"Reply with the word (\w+)", "\n".join(m.text for m in ask.messages))
    return Turn(found[-1] if found else "Nothing to do.")


@pytest.mark.slow
class TestAProgramIsAnAgent(AgentContract):
    folder: Path

    def equip(self, env: Environment) -> None:
        root = tempfile.mkdtemp(dir=self.folder)
        env.workspace(root, mounts=[Mount("ro", str(self.folder / "programs"), "/opt/agents")])

    @pytest.fixture
    def agent(self, stand_in: Path) -> Iterator[Any]:
        self.folder = stand_in.parent
        with serving(says_the_word) as server:
            yield create_agent("claude_cli", base_url=server.url, program="/opt/agents/claude")


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A folder with the stand-in as `claude`."""
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "claude").write_text(CLAUDE)
    (folder / "claude").chmod(0o755)
    folder.chmod(0o755)
    return folder


async def run_with(
    programs: Path, tmp_path: Path, agent: Any, *, count: int = 1, env: str = ENV, **options: Any
) -> Job:
    source = tmp_path / "env.py"
    source.write_text(env.format(programs=str(programs)))
    (tmp_path / "ws").mkdir(exist_ok=True)
    tasks = [Task(env="work", id="write_note", slug=f"note-{n}") for n in range(count)]
    return await Taskset("work", tasks).run(agent, runtime=LocalRuntime(source), **options)


def writes_the_note(tool: str, argument: str, finish: str | None = None) -> ModelServer:
    """Return a model that runs one command with `tool`, then says it is done (by another command, `finish`)."""

    def respond(ask: Ask) -> Turn:
        if tool in ask.tools and not ask.results:
            command = "echo done > note.txt; env | sort; cat note.txt"
            return Turn("I write it.", [Call(tool, {argument: command, "description": "Write the note"})])
        if finish is not None:
            return Turn("Written.", [Call(tool, {argument: finish})])
        return Turn("Written.")

    return ModelServer(respond, key="the-real-key")


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_program_works_inside_and_its_events_become_steps(stand_in: Path, tmp_path: Path) -> None:
    async with writes_the_note("Bash", "command") as server:
        agent = create_agent(
            "claude_cli",
            base_url=server.url,
            api_key="the-real-key",
            program="/opt/agents/claude",
            model="claude-sonnet-5",
        )
        job = await run_with(stand_in, tmp_path, agent, count=2)
        assert [run.error for run in job.runs] == [None, None]
        assert job.reward == 1.0
        run = job.runs[0]
        assert (run.answer, run.trace.stop_reason) == ("Written.", "done")
        turns = [step for step in run.trace.steps if isinstance(step, AgentStep)]
        assert [turn.content for turn in turns] == ["I write it.", "Written."]
        assert turns[0].usage is not None
        assert turns[0].usage.prompt_tokens == server.asks[0].prompt_tokens
        assert run.trace.usage.cost_usd is not None
        [tool] = [step for step in run.trace.steps if isinstance(step, ToolStep)]
        assert (tool.call.name, tool.result.text.endswith("done\n")) == ("Bash", True)
        # What the program saw: the proxy's token, never the key.
        assert "ANTHROPIC_API_KEY=" in tool.result.text
        assert "the-real-key" not in run.trace.model_dump_json()


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_program_spends_from_the_jobs_budget_and_is_ended_by_it(
    stand_in: Path, tmp_path: Path
) -> None:
    def respond(ask: Ask) -> Turn:
        return Turn("More.", [Call("Bash", {"command": "echo done > note.txt; seq 300"})])

    async with ModelServer(respond) as server:
        agent = create_agent(
            "claude_cli", base_url=server.url, program="/opt/agents/claude", model="claude-sonnet-5"
        )
        job = await run_with(stand_in, tmp_path, agent, count=4, max_concurrent=1, budget="1000 tokens")
        assert job.budget is not None
        [run] = job.runs
        assert (run.trace.stop_reason, run.reward) == ("budget", 1.0)
        assert job.budget["spent"]["tokens"] == run.trace.usage.total_tokens <= 1000
        assert (job.budget["cut_short"], job.budget["not_started"]) == (1, 3)
        assert len(server.asks) < 4


@pytest.mark.slow
@pytest.mark.anyio
async def test_rate_limits_are_waited_for_on_this_side(stand_in: Path, tmp_path: Path) -> None:
    trouble = first(Fault.of_status(429, retry_after_s=0.2), Fault.of_status(529), Fault.of_status(429))
    async with ModelServer(Turn("Nothing to do."), faults=trouble) as server:
        # The stand-in gives up at the first error.
        agent = create_agent("claude_cli", base_url=server.url, program="/opt/agents/claude")
        job = await run_with(stand_in, tmp_path, agent, count=3)
        assert [(run.error, run.answer) for run in job.runs] == [(None, "Nothing to do.")] * 3
        assert server.statuses == {200: 3, 429: 2, 529: 1}


@pytest.mark.slow
@pytest.mark.anyio
async def test_an_account_without_money_is_told_at_once(stand_in: Path, tmp_path: Path) -> None:
    def broke(_: Ask) -> Fault:
        return Fault.of_status(429, message="You exceeded your current quota: insufficient_quota")

    async with ModelServer(Turn("x"), faults=broke) as server:
        agent = create_agent("claude_cli", base_url=server.url, program="/opt/agents/claude")
        job = await run_with(stand_in, tmp_path, agent)
        assert "429" in (job.runs[0].error or "")
        assert server.statuses == {429: 1}


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_program_that_is_missing_is_an_error_that_says_what_to_do(
    stand_in: Path, tmp_path: Path
) -> None:
    async with writes_the_note("Bash", "command") as server:
        agent = create_agent("codex_cli", base_url=server.openai_url, install=False)
        job = await run_with(stand_in, tmp_path, agent)
        assert "codex is not in the workspace" in (job.runs[0].error or "")
        assert "mounts=" in (job.runs[0].error or "")
        assert job.runs[0].reward is None  # it never began: a 0 would be read as what it is worth


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_key_that_is_refused_is_no_score(stand_in: Path, tmp_path: Path) -> None:
    async with writes_the_note("Bash", "command") as server:
        agent = create_agent(
            "claude_cli", base_url=server.url, api_key="another-key", program="/opt/agents/claude"
        )
        run = (await run_with(stand_in, tmp_path, agent)).runs[0]
        assert "HTTP 401" in (run.error or "")
        assert run.reward is None
        assert "another-key" not in (run.error or "")


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_program_that_fails_is_told_with_its_last_words(stand_in: Path, tmp_path: Path) -> None:
    (stand_in / "claude").write_text("#!/bin/sh\necho 'no such model' >&2\nexit 3\n")
    async with writes_the_note("Bash", "command") as server:
        agent = create_agent("claude_cli", base_url=server.url, program="/opt/agents/claude")
        job = await run_with(stand_in, tmp_path, agent)
        assert "ended with status 3: no such model" in (job.runs[0].error or "")


def test_without_a_key_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HUD_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        create_agent("codex_cli")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs of the npm registry."""
    folder = tmp_path_factory.mktemp("npm")
    packages = ["@anthropic-ai/claude-code", "@openai/codex", "@google/gemini-cli", "opencode-ai"]
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", *packages]
    subprocess.run(command, cwd=folder, check=True, timeout=300)
    for at in (folder, *folder.parents):
        if at.stat().st_uid == os.getuid() and at != Path("/"):
            at.chmod(at.stat().st_mode | 0o055)
    return folder


@pytest.mark.registry
@pytest.mark.needs("npm")
@pytest.mark.slow
@pytest.mark.timeout(500)
@pytest.mark.parametrize(
    ("kind", "model", "tool", "argument", "binary"),
    [
        ("claude_cli", "claude-sonnet-5", "Bash", "command", "claude"),
        ("codex_cli", "gpt-5.4", "exec_command", "cmd", "codex"),
        ("gemini_cli", "gemini-3.1-pro-preview", "run_shell_command", "command", "gemini"),
        ("opencode_cli", "some-local-model", "bash", "command", "opencode"),
        ("opencode_cli", "claude-sonnet-5", "bash", "command", "opencode"),
        ("opencode_cli", "gemini-3.1-pro-preview", "bash", "command", "opencode"),
    ],
)
@pytest.mark.anyio
async def test_the_real_programs_do_a_task(
    kind: str, model: str, tool: str, argument: str, binary: str, real: Path, tmp_path: Path
) -> None:
    async with writes_the_note(tool, argument) as server:
        local = kind == "codex_cli" or model == "some-local-model"
        url = server.openai_url if local else server.url
        program = f"/opt/agents/node_modules/.bin/{binary}"
        agent = create_agent(kind, model=model, base_url=url, api_key="the-real-key", program=program)
        job = await run_with(real, tmp_path, agent)
        run = job.runs[0]
        assert run.error is None
        assert run.reward == 1.0
        assert run.answer == "Written."
        assert any(isinstance(step, ToolStep) for step in run.trace.steps)
        assert run.trace.usage.prompt_tokens > 0
        assert "the-real-key" not in json.dumps(run.trace.model_dump(mode="json"))


@pytest.mark.registry
@pytest.mark.needs("npm")
@pytest.mark.slow
@pytest.mark.timeout(500)
@pytest.mark.parametrize(
    ("kind", "model", "binary"),
    [
        ("claude_cli", "claude-sonnet-5", "claude"),
        ("codex_cli", "gpt-5.4", "codex"),
        ("gemini_cli", "gemini-3.1-pro-preview", "gemini"),
        ("opencode_cli", "some-local-model", "opencode"),
    ],
)
@pytest.mark.anyio
async def test_a_real_program_whose_key_is_refused_has_no_score(
    kind: str, model: str, binary: str, real: Path, tmp_path: Path
) -> None:
    async with writes_the_note("Bash", "command") as server:
        url = server.openai_url if kind in ("codex_cli", "opencode_cli") else server.url
        program = f"/opt/agents/node_modules/.bin/{binary}"
        agent = create_agent(kind, model=model, base_url=url, api_key="another-key", program=program)
        run = (await run_with(real, tmp_path, agent)).runs[0]
        assert "HTTP 401" in (run.error or "")
        assert run.reward is None
        assert server.statuses[401] < 5  # no program tries a refused key for minutes


@pytest.mark.registry
@pytest.mark.slow
@pytest.mark.timeout(500)
@pytest.mark.parametrize(
    ("kind", "model", "binary"),
    [
        ("claude_cli", "claude-sonnet-5", "claude"),
        ("codex_cli", "gpt-5.4", "codex"),
        ("gemini_cli", "gemini-3.1-pro-preview", "gemini"),
        ("opencode_cli", "some-local-model", "opencode"),
    ],
)
@pytest.mark.anyio
async def test_pictures_and_other_capabilities_reach_the_program(
    kind: str, model: str, binary: str, real: Path, tmp_path: Path
) -> None:
    def respond(ask: Ask) -> Turn:
        if ask.results:
            return Turn(f"It is {ask.results[-1].text}")
        names = [name for name in ask.tools if name.endswith("lucky")]
        return Turn("I ask.", [Call(names[0], {"times": 2})]) if names else Turn("There is no tool.")

    async with ModelServer(respond, key="the-real-key") as server:
        url = server.openai_url if kind in ("codex_cli", "opencode_cli") else server.url
        program = f"/opt/agents/node_modules/.bin/{binary}"
        agent = create_agent(kind, model=model, base_url=url, api_key="the-real-key", program=program)
        run = (await run_with(real, tmp_path, agent, env=RICH)).runs[0]
        assert (run.error, run.reward) == (None, 1.0)
        [tool] = [step for step in run.trace.steps if isinstance(step, ToolStep)]
        assert tool.call.name.endswith("lucky")
        assert "4711 4711" in tool.result.text
        sent = [ask for ask in server.asks if any(name.endswith("lucky") for name in ask.tools)]
        shown = any(message.images for ask in sent for message in ask.messages)
        named = any("image-1.png" in message.text for ask in sent for message in ask.messages)
        assert named if kind == "claude_cli" else shown


FINISH = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with mini-swe-agent, for the system's own Python: the sandbox has no other."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent))
    python = Path("/usr/bin/python3")
    assert uv is not None
    folder = tmp_path_factory.mktemp("mini") / "venv"
    subprocess.run([uv, "venv", "-q", "--relocatable", "--python", python, folder], check=True, timeout=60)
    packages = ["mini-swe-agent", "mcp"]
    command = [uv, "pip", "install", "-q", "--python", str(folder / "bin/python"), *packages]
    subprocess.run(command, check=True, timeout=300)
    folder.parent.chmod(0o755)
    return folder


@pytest.mark.registry
@pytest.mark.needs("/usr/bin/python3")
@pytest.mark.slow
@pytest.mark.timeout(500)
@pytest.mark.parametrize("model", ["some-local-model", "claude-sonnet-5", "gemini-3.1-pro-preview"])
@pytest.mark.anyio
async def test_mini_swe_agent_does_a_task(model: str, mini: Path, tmp_path: Path) -> None:
    async with writes_the_note("bash", "command", FINISH) as server:
        url = server.openai_url if model == "some-local-model" else server.url
        agent = create_agent(
            "mini_swe", model=model, base_url=url, api_key="the-real-key", program="/opt/agents/bin/mini"
        )
        job = await run_with(mini, tmp_path, agent)
        run = job.runs[0]
        assert (run.error, run.reward, run.trace.stop_reason) == (None, 1.0, "done")
        turns = [step.content for step in run.trace.steps if isinstance(step, AgentStep)]
        assert turns == ["I write it.", "Written."]
        [tool] = [step for step in run.trace.steps if isinstance(step, ToolStep)][:1]
        assert tool.result.text.endswith("done\n")
        assert run.trace.usage.prompt_tokens > 0
        assert "the-real-key" not in json.dumps(run.trace.model_dump(mode="json"))


@pytest.mark.registry
@pytest.mark.needs("/usr/bin/python3")
@pytest.mark.slow
@pytest.mark.timeout(500)
@pytest.mark.anyio
async def test_a_program_stops_at_its_number_of_steps(mini: Path, tmp_path: Path) -> None:
    async with ModelServer(lambda ask: Turn("On.", [Call("bash", {"command": "true"})])) as server:
        agent = create_agent(
            "mini_swe",
            model="some-local-model",
            base_url=server.openai_url,
            program="/opt/agents/bin/mini",
            max_steps=3,
        )
        run = (await run_with(mini, tmp_path, agent)).runs[0]
        assert (run.error, run.reward, run.trace.stop_reason) == (None, 0.0, "max_steps")
        assert len(server.asks) == 3
