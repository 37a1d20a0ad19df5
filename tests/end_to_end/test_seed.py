"""The seed document's code, typed in with only `...` and `<...>` filled."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from hud.testing.llm.background import serving
from hud_grader_llm.testing import verdict

pytestmark = pytest.mark.slow

HUD = Path(sys.executable).with_name("hud")
HAS_CLAUDE = importlib.util.find_spec("hud_agent_claude") is not None

ENV = """
from hud.environment import Environment
from hud.capabilities import Capability
from hud.graders import LLMJudgeGrader

# VITAL: an env with at least one capability - this is what the agent connects to and drives
env = Environment(name="...", capabilities=[
    Capability.ssh(name="shell", url="<url>", host_pubkey="<key>"),  # a real shell over ssh
])

# OPTIONAL: lifecycle hooks - only if the task needs setup/teardown (fixtures, services, seed state)
@env.initialize               # runs once before serving
async def _up():
    ...                       # write fixtures, stand up services, etc.

@env.shutdown                 # runs on env.stop()
async def _down():
    ...

# VITAL: at least one task definition - prompts the agent and returns a reward
@env.template()               # one definition = a whole space of tasks
async def some_task_1(topic: str = "the sky"):
    answer = yield "<prompt>"      # the prompt handed to the agent; the agent's answer comes back
    # ── everything the agent does happens here: it drives the capability until it's done ──
    result = await LLMJudgeGrader.grade(answer=answer, criteria=["is an answer"])   # score the result → reward
    yield result.value           # VITAL: the final yield is the reward
"""

SECOND = """
@env.template()
async def some_task_2(level: int = 1):
    answer = yield "<prompt>"
    yield 1.0


@some_task_1.solution
async def _(run):
    return "an answer"


@some_task_2.solution
async def _(run):
    return "another"
"""

TASKS = """
from hud.eval import Taskset
from env import some_task_1, some_task_2

# VITAL: a named taskset of concrete tasks to evaluate (parametrize one definition into many)
TASKS = Taskset("my-taskset", [some_task_1("the sea"), some_task_1("the sky"), some_task_2(3)])
"""

RUNTIMES = """
from hud.eval import LocalRuntime, DockerRuntime, ModalRuntime, HUDRuntime

LocalRuntime("env.py")     # local child process - fastest iteration
"""

EVALUATE = """
from hud.agents import create_agent
from hud.eval import LocalRuntime
from tasks import TASKS

agent = create_agent("MODEL")               # routed through the HUD gateway

job = await TASKS.run(agent, runtime=LocalRuntime("env.py"))   # start the run
print(job.reward)
"""


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    """The seed's files in a folder."""
    (tmp_path / "env.py").write_text(ENV + SECOND, encoding="utf-8")
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")
    return tmp_path


@pytest.fixture
def model() -> Iterator[dict[str, str]]:
    """Variables under which a simulated provider answers agents, and judges with MET."""
    with serving(verdict("MET")) as server:
        yield {"ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": "sk-test"}


@pytest.fixture
def shell() -> Iterator[tuple[str, str]]:
    """The url and host key of a shell over ssh that lets anybody in, for `<url>` and `<key>`."""

    class Open(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return False

    found: list[tuple[str, str]] = []
    ready, ending = threading.Event(), []

    async def serve() -> None:
        key = asyncssh.generate_private_key("ssh-ed25519")
        async with await asyncssh.create_server(Open, "127.0.0.1", 0, server_host_keys=[key]) as server:
            over = asyncio.Event()
            ending.append((asyncio.get_running_loop(), over))
            public = key.export_public_key().decode().strip()
            found.append((f"ssh://127.0.0.1:{server.sockets[0].getsockname()[1]}", public))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(30)
    yield found[0]
    for loop, over in ending:
        loop.call_soon_threadsafe(over.set)
    thread.join(30)


@pytest.fixture
def filled(seed: Path, shell: tuple[str, str]) -> Path:
    """The seed's files, with an address in place of `<url>` and `<key>`: a model opens the shell."""
    url, key = shell
    env = seed / "env.py"
    text = env.read_text(encoding="utf-8").replace("<url>", url).replace("<key>", key)
    env.write_text(text, encoding="utf-8")
    return seed


def _run(folder: Path, command: list[str], model: dict[str, str], stdin: str | None = None) -> str:
    done = subprocess.run(
        command,
        check=False,
        cwd=folder,
        env={**os.environ, **model, "IPYTHONDIR": str(folder / ".ipython")},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_scaffold_runs_from_the_command_line(seed: Path, model: dict[str, str]) -> None:
    told = json.loads(_run(seed, [str(HUD), "eval", "env.py", "oracle", "--group", "3", "--json"], model))
    assert told["run_count"] == 6
    assert told["mean_reward"] == 1.0
    assert told["error_count"] == 0


def test_the_taskset_runs_from_the_command_line(seed: Path, model: dict[str, str]) -> None:
    told = json.loads(_run(seed, [str(HUD), "eval", "tasks.py", "oracle", "--json"], model))
    assert told["name"] == "my-taskset"
    assert [run["args"] for run in told["runs"]] == [{"topic": "the sea"}, {"topic": "the sky"}, {"level": 3}]


def test_the_names_of_every_runtime_can_be_imported(seed: Path) -> None:
    _run(seed, [sys.executable, "-c", RUNTIMES], {})


def test_an_absent_runtime_says_how_to_install_it_when_it_is_used(seed: Path) -> None:
    if importlib.util.find_spec("hud_runtime_modal") is not None:
        pytest.skip("the plugin is installed")
    code = f"{RUNTIMES}\ntry:\n    ModalRuntime('my-env')\nexcept ImportError as exc:\n    print(exc)"
    assert "needs hud-runtime-modal, which has no release yet" in _run(seed, [sys.executable, "-c", code], {})


def _evaluation() -> str:
    return EVALUATE.replace("MODEL", "claude-sonnet-4-5" if HAS_CLAUDE else "oracle")


def test_the_evaluation_runs_within_a_loop(filled: Path, model: dict[str, str]) -> None:
    body = "".join(f"    {line}\n" for line in _evaluation().strip().splitlines())
    program = filled / "evaluate.py"
    program.write_text(
        f"import asyncio\n\nasync def main():\n{body}\nif __name__ == '__main__':\n    asyncio.run(main())\n",
        encoding="utf-8",
    )
    # A program's own folder is first on its path, as for whoever types it in.
    assert _run(filled, ["env", "-u", "PYTHONSAFEPATH", sys.executable, "evaluate.py"], model).split() == [
        "1.0"
    ]


def test_the_evaluation_runs_at_the_top_level_of_a_notebook(filled: Path, model: dict[str, str]) -> None:
    cells = filled / "cells.ipy"
    cells.write_text(_evaluation(), encoding="utf-8")
    ipython = str(Path(sys.executable).with_name("ipython"))
    command = ["env", "-u", "PYTHONSAFEPATH", ipython, "--no-banner", "--colors=NoColor", "cells.ipy"]
    assert _run(filled, command, model).split() == ["1.0"]


@pytest.mark.skipif(not HAS_CLAUDE, reason="the plugin that drives the model is not installed")
def test_a_model_is_named_by_its_kind_on_the_command_line(filled: Path, model: dict[str, str]) -> None:
    told = json.loads(_run(filled, [str(HUD), "eval", "env.py", "claude", "--group", "3", "--json"], model))
    assert told["run_count"] == 6
    assert told["mean_reward"] == 1.0
