"""Grading again what was kept, and repeating what was recorded: through the program, with real workspaces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hud.store.reader import JobFile

pytestmark = [pytest.mark.sandbox, pytest.mark.slow]

HUD = Path(sys.executable).with_name("hud")
ENV = """
import os
from hud.environment import Environment
from hud.graders import BashGrader

env = Environment(name="desk")
ws = env.workspace("ws")

@env.template()
async def fix(name: str = "a"):
    (ws.root / "start.txt").write_text("begin\\n")
    (ws.root / "gone.txt").write_text("remove me\\n")
    answer = yield f"Write {name} into out.txt"
    graded = await BashGrader.grade(weight=1.0, command="grep -q a d/out.txt && test ! -e gone.txt && test -x d/run")
    yield graded.value if answer == "done" else 0.0
"""
TASKS = """
from env import fix
from hud.eval import Taskset

TASKS = Taskset("fixes", [fix(name=n).model_copy(update={"slug": n}) for n in ("a", "b")])
"""
AGENT = """
from hud.agents.toolset import Toolset, capability_tools
from hud.types import AgentStep, MCPToolCall, ToolStep

COMMANDS = [
    "mkdir -p d; echo {name} > d/out.txt; rm gone.txt",
    "head -c 9000 /dev/urandom > d/bin; printf '#!/bin/sh' > d/run; chmod +x d/run; ln -s out.txt d/link",
    "echo $SECRET > d/secret; echo at $(date +%s); ls d",
]

async def act(run):
    toolset = Toolset((await capability_tools(run.client)).tools)
    for number, command in enumerate(COMMANDS):
        text = command.replace("{name}", run.args["name"]).replace("$SECRET", "sk-ant-" + "Zz9" * 30)
        call = MCPToolCall("bash", {"command": text}, f"c{number}")
        run.record(ToolStep(call=call, result=await toolset.call(call)))
    await toolset.close()
    run.record(AgentStep(content="done", done=True))
    return "done"

async def large(run):
    shell = await run.client.open("ssh")
    await shell.run("mkdir d; echo a > d/out.txt; rm gone.txt; touch d/run; chmod +x d/run")
    await shell.run("head -c 70000000 /dev/zero > big")
    return "done"
"""

Hud = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hud(tmp_path: Path) -> Hud:
    """Run `hud` in a project with two tasks."""
    for name, text in (("env.py", ENV), ("tasks.py", TASKS), ("agent.py", AGENT)):
        (tmp_path / name).write_text(text, encoding="utf-8")

    def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(HUD), *words],
            check=False,
            cwd=tmp_path,
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), **env},
            capture_output=True,
            text=True,
            timeout=200,
        )

    return run


def evaluated(hud: Hud, *words: str) -> dict[str, Any]:
    done = hud("eval", "tasks.py", "agent:act", "--json", *words)
    found: dict[str, Any] = json.loads(done.stdout)
    assert [run["error"] for run in found["runs"]] == [None] * len(found["runs"]), done.stderr
    return found


def test_a_job_is_graded_again_by_todays_grader(hud: Hud, tmp_path: Path) -> None:
    job = evaluated(hud)
    assert [run["reward"] for run in job["runs"]] == [1.0, 0.0]
    again = hud("regrade", job["job_id"][:8], "--json")
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    assert (told["graded"], told["differ"], told["mean_before"], told["mean_after"]) == (2, 0, 0.5, 0.5)
    (tmp_path / "env.py").write_text(ENV.replace("grep -q a", "grep -q b"), encoding="utf-8")
    told = json.loads(hud("regrade", job["job_id"], "--json").stdout)
    assert [(run["slug"], run["old"], run["new"], run["differs"]) for run in told["runs"]] == [
        ("a", 1.0, 0.0, True),
        ("b", 0.0, 1.0, True),
    ]
    assert all(run["note"] == "1 links were not kept" for run in told["runs"])
    with JobFile(told["path"]) as file:
        assert file.job()["options"]["regrade_of"] == job["job_id"]
        assert [run["reward"] for run in file.runs()] == [0.0, 1.0]
        assert [record["extra"]["regrade_of"]["run_id"] for record in file.records()] == [
            run["run_id"] for run in told["runs"]
        ]
    table = hud("regrade", told["job_id"], "--only", "b")
    assert table.returncode == 0, table.stderr
    assert "1 of 1 graded again, 0 differ; mean 1.000 -> 1.000" in table.stdout


def test_what_an_agent_left_is_in_the_file_without_secrets(hud: Hud, tmp_path: Path) -> None:
    job = evaluated(hud, "--task-ids", "a")
    path = Path(job["path"])
    with JobFile(path) as file:
        state = file.state(job["runs"][0]["trace_id"])
    assert state is not None
    files = {one["path"]: one for one in state["shell"]["files"]}
    assert files["d/out.txt"]["content"] == b"a\n"
    assert files["d/run"]["mode"] == 0o755
    assert len(files["d/bin"]["content"]) == 9000
    assert b"Zz9Zz9" not in files["d/secret"]["content"]
    assert b"Zz9Zz9" not in path.read_bytes()
    assert state["shell"]["deleted"] == ["gone.txt"]
    nothing = json.loads(hud("eval", "tasks.py", "agent:act", "--json", "--no-state").stdout)
    with JobFile(nothing["path"]) as file:
        assert file.state(nothing["runs"][0]["trace_id"]) is None
    refused = hud("regrade", nothing["job_id"])
    assert refused.returncode == 1
    assert "what its agent did to the files was not kept" in refused.stdout


def test_a_state_that_was_cut_is_graded_only_when_asked_for(hud: Hud) -> None:
    job = json.loads(hud("eval", "tasks.py", "agent:large", "--json", "--task-ids", "a").stdout)
    assert job["runs"][0]["reward"] == 1.0
    refused = hud("regrade", job["job_id"])
    assert refused.returncode == 1
    assert (
        "1 files were not kept (over the bound, or unreadable); grade it all the same with --incomplete"
        in (refused.stdout)
    )
    told = json.loads(hud("regrade", job["job_id"], "--incomplete", "--json").stdout)
    assert (told["runs"][0]["new"], told["differ"]) == (1.0, 0)


def test_rows_that_are_gone_and_jobs_that_are_none_are_told(hud: Hud, tmp_path: Path) -> None:
    job = evaluated(hud)
    (tmp_path / "tasks.py").write_text(TASKS.replace('("a", "b")', '("a", "c")'), encoding="utf-8")
    left = hud("regrade", job["job_id"], "--json")
    assert left.returncode == 1
    assert json.loads(left.stdout)["runs"][1]["left_out"] == "there is no row 'b' today"
    assert hud("regrade", "nosuchjob").returncode != 0
    none = hud("regrade", job["job_id"], "--only", "zzz")
    assert none.returncode == 2
    assert "no finished rollout of zzz" in none.stderr


def test_a_rollout_is_repeated_and_the_first_difference_told(hud: Hud, tmp_path: Path) -> None:
    run_id = evaluated(hud, "--task-ids", "a")["runs"][0]["trace_id"]
    differs = hud("replay", run_id[:10], "--json")
    assert differs.returncode == 1, differs.stderr
    told = json.loads(differs.stdout)
    assert (told["same"], told["differences"], told["calls"], told["recorded_calls"]) == (False, 1, 3, 3)
    assert told["first"]["tool"] == "bash"
    assert "at 1" in told["first"]["diff"]
    (tmp_path / "hud.toml").write_text('[replay]\nignore = ["times"]\n', encoding="utf-8")
    same = hud("replay", run_id, "--json")
    assert same.returncode == 0, same.stdout
    assert json.loads(same.stdout)["same"]
    (tmp_path / "env.py").write_text(
        ENV.replace("remove me", "x").replace("gone.txt", "lost.txt"), encoding="utf-8"
    )
    shown = hud("replay", run_id)
    assert shown.returncode == 1
    assert "bash" in shown.stdout
    assert "gone.txt" in shown.stdout
    assert hud("replay", "zzzz").returncode == 2
