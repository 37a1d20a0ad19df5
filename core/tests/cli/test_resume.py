"""`hud eval --resume`: the words a job keeps, what may be said anew, and what is refused."""

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

Hud = Callable[..., subprocess.CompletedProcess[str]]

TASKS = """
import asyncio, os
from hud.environment import Environment

env = Environment(name="desk")

@env.template()
async def easy(n: int = 0):
    yield "go on"
    if n == 1 and os.path.exists("../broken"):
        raise RuntimeError("broken today")
    yield 1.0

TASKS = [easy(n=n) for n in range(3)]

class Agent:
    def __init__(self, pause=0.0, api_key=""):
        self.pause = pause

    async def __call__(self, run):
        if run.args["n"] == 2:
            await asyncio.sleep(self.pause)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "tasks.py").write_text(TASKS)
    return folder


def job_of(project: Path) -> tuple[str, dict[str, Any]]:
    (path,) = (project / ".hud" / "jobs").glob("*.db")
    with JobFile(path) as file:
        return path.stem, file.job()


def cut_off(hud: Hud, project: Path, *words: str) -> str:
    """Begin a job that its deadline cuts off, and return its id."""
    agent = ("tasks.py:Agent", "--config", "pause=60")
    done = hud(
        "eval", "tasks.py", *agent, "--deadline", "job=3", "--max-concurrent", "1", *words, cwd=project
    )
    assert done.returncode == 1, done.stderr
    job_id, _ = job_of(project)
    assert f"go on with it: hud eval --resume {job_id[:8]}" in done.stderr
    return job_id


@pytest.mark.slow
def test_a_job_goes_on_from_another_folder_with_what_is_said_anew(
    hud: Hud, project: Path, tmp_path: Path
) -> None:
    job_id = cut_off(hud, project, "--name", "nightly", "--tag", "a")
    path = project / ".hud" / "jobs" / f"{job_id}.db"
    done = hud(
        "eval", "--resume", str(path), "--config", "pause=0", "--force", "--deadline", "job=60", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert f"in {project}, where the job was begun" in done.stderr
    told = json.loads(done.stdout)
    assert (told["job_id"], told["name"], told["run_count"], told["mean_reward"]) == (
        job_id,
        "nightly",
        3,
        1.0,
    )
    assert [run["attempts"] for run in told["runs"]] == [1, 1, 2]
    assert not (tmp_path / ".hud").exists(), "no second job"
    again = hud("eval", "--resume", job_id[:6], "--config", "pause=0", cwd=project)
    assert again.returncode == 0, "there was nothing left, and all of it was graded"


@pytest.mark.slow
def test_only_errors_are_run_again(hud: Hud, project: Path) -> None:
    (project.parent / "broken").touch()
    done = hud("eval", "tasks.py", "noop", cwd=project)
    assert done.returncode == 1
    job_id, _ = job_of(project)
    plain = hud("eval", "--resume", job_id[:8], cwd=project)
    assert plain.returncode == 1, "an error stays one"
    (project.parent / "broken").unlink()
    fixed = hud("eval", "--resume", job_id[:8], "--only", "errors", "--json", cwd=project)
    assert fixed.returncode == 0, fixed.stderr
    assert [run["attempts"] for run in json.loads(fixed.stdout)["runs"]] == [1, 2, 1]


@pytest.mark.slow
def test_a_changed_source_is_named(hud: Hud, project: Path) -> None:
    job_id = cut_off(hud, project)
    (project / "tasks.py").write_text(TASKS.replace('"go on"', '"carry on"'))
    refused = hud("eval", "--resume", job_id[:8], cwd=project)
    assert refused.returncode == 2
    assert "files of the source changed: tasks.py" in refused.stderr
    assert "--force" in refused.stderr


@pytest.mark.slow
def test_secrets_are_not_kept_and_asked_for_again(hud: Hud, project: Path) -> None:
    job_id = cut_off(hud, project, "--config", "api_key=sk-ant-api03-abcdefghijklmnopqrstuvwxyz0123456789")
    assert b"abcdefghijklmnop" not in (project / ".hud" / "jobs" / f"{job_id}.db").read_bytes()
    refused = hud("eval", "--resume", job_id[:8], cwd=project)
    assert refused.returncode == 2
    assert "add --config api_key=VALUE" in refused.stderr
    given = ("--config", "api_key=new", "--config", "pause=0", "--force")
    assert hud("eval", "--resume", job_id[:8], *given, cwd=project).returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--only", "errors"), "--only and --force go with --resume"),
        (("--resume", "nosuch"), "no job 'nosuch'"),
        (("--resume", "nosuch", "tasks.py"), "--resume takes source from the job"),
        (("--resume", "nosuch", "--group", "3"), "--resume takes group from the job"),
        (("tasks.py", "noop", "--retry-on", "weather"), "classes are infrastructure, agent, task, limit"),
        (("tasks.py", "noop", "--retry-on", "agent=often"), "--retry-on agent=often"),
    ],
)
def test_what_cannot_be_is_said(hud: Hud, project: Path, words: tuple[str, ...], said: str) -> None:
    done = hud("eval", *words, cwd=project)
    assert done.returncode == 2
    assert said in done.stderr
    assert not list(project.rglob("*.db"))


@pytest.mark.slow
def test_a_job_of_a_program_is_gone_on_with_by_one(hud: Hud, project: Path) -> None:
    program = (
        "import asyncio\nfrom hud.eval import Taskset\nfrom tasks import TASKS, Agent\n"
        "asyncio.run(Taskset('t', TASKS).run(Agent()))"
    )
    (project / "main.py").write_text(program)
    subprocess.run(
        [sys.executable, "main.py"], cwd=project, check=True, env={**os.environ, "PYTHONPATH": str(project)}
    )
    job_id, record = job_of(project)
    assert "request" not in record["options"]
    refused = hud("eval", "--resume", job_id[:8], cwd=project)
    assert "Taskset.run(agent, job=Job.load(" in refused.stderr


def test_a_try_that_was_lost_in_no_phase_is_told_without_one() -> None:
    from hud.cli.transcript import Transcript

    lost = {"attempt": 1, "failure": {"phase": "", "type": "OrchestratorLostError", "message": "gone"}}
    failed = {"attempt": 2, "failure": {"phase": "act", "type": "ValueError", "message": "no"}}
    lines = list(Transcript(colours=False, full=False).begin({"attempts_before": [lost, failed]}))
    assert "  attempt 1 was lost: OrchestratorLostError: gone" in lines
    assert "  attempt 2 was lost in act: ValueError: no" in lines
