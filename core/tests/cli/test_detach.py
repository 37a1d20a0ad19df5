"""Jobs that outlive their terminal: begun with --detach, followed, stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

HUD = Path(sys.executable).with_name("hud")
Hud = Callable[..., subprocess.CompletedProcess[str]]

GATED = """
import os
import time

from hud.environment import Environment
from hud.eval import Taskset
from hud.types import AgentStep

env = Environment(name="gated")


@env.template()
async def row(n: int):
    answer = yield f"number {n}?"
    yield float(answer == str(n))


TASKS = Taskset("gated", [row(n=n).model_copy(update={"slug": f"row-{n}"}) for n in range(3)])


async def agent(run):
    import asyncio

    run.record(AgentStep(content="I have begun", model="m"))
    if run.args["n"] > 0:
        while not os.path.exists("gate"):
            await asyncio.sleep(0.02)
    run.record(AgentStep(content="I have ended", model="m"))
    return str(run.args["n"])
"""


@pytest.fixture
def gated(tmp_path: Path, hud: Hud) -> Iterator[Callable[..., dict[str, Any]]]:
    """Begin a detached job whose second and third rollout wait until the file `gate` is there."""
    (tmp_path / "tasks.py").write_text(GATED)
    begun: list[dict[str, Any]] = []

    def begin(*words: str) -> dict[str, Any]:
        done = hud("eval", "tasks.py", "tasks:agent", "--detach", "--json", *words)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        begun.append(found)
        return found

    yield begin
    for job in begun:
        try:
            os.kill(job["pid"], signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_a_detached_job_goes_on_by_itself_and_is_followed_to_its_end(
    gated: Callable[..., dict[str, Any]], hud: Hud, tmp_path: Path
) -> None:
    job = gated()
    assert os.getsid(job["pid"]) == job["pid"], "a session of its own: the terminal's end is none of its"
    [line] = json.loads(hud("jobs", "--json").stdout)["jobs"]
    assert (line["state"], line["expected"]) == ("running", 3)
    watching = subprocess.Popen(
        [str(HUD), "jobs", "watch"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    (tmp_path / "gate").touch()
    out, err = watching.communicate(timeout=100)
    assert watching.returncode == 0, err
    assert "all (3 tasks)" in out
    assert job["job_id"] in err
    assert json.loads(Path(job["output"]).read_text().splitlines()[0])["mean_reward"] == 1.0


def test_watching_ends_with_ctrl_c_and_the_job_does_not(
    gated: Callable[..., dict[str, Any]], hud: Hud, tmp_path: Path
) -> None:
    job = gated()
    watching = subprocess.Popen(
        [str(HUD), "jobs", "watch", job["job_id"]], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    assert watching.stderr is not None
    assert job["job_id"] in watching.stderr.readline()
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=60)
    assert watching.returncode == 130
    assert "the job goes on" in err
    (tmp_path / "gate").touch()
    assert hud("jobs", "watch", job["job_id"]).returncode == 0


def test_a_job_is_stopped_cleanly_and_can_be_gone_on_with(
    gated: Callable[..., dict[str, Any]], hud: Hud, tmp_path: Path
) -> None:
    job = gated()
    following = hud("trace", f"{job['job_id']}/row-0", "--follow")
    assert "I have ended" in following.stdout
    stopped = hud("jobs", "stop", job["job_id"][:8])
    assert stopped.returncode == 0, stopped.stderr
    assert "hud eval --resume" in stopped.stderr
    [line] = json.loads(hud("jobs", "--json").stdout)["jobs"]
    assert line["state"] == "ended early"
    assert hud("jobs", "stop", job["job_id"]).returncode == 2, "it does not run any more"
    (tmp_path / "gate").touch()
    again = hud("eval", "--resume", job["job_id"], "--json")
    assert json.loads(again.stdout)["mean_reward"] == 1.0


def test_a_running_job_is_never_pruned(gated: Callable[..., dict[str, Any]], hud: Hud) -> None:
    job = gated()
    assert json.loads(hud("jobs", "prune", "--keep", "0", "--json").stdout)["removed"] == []
    assert Path(job["path"]).exists()
    assert job["job_id"] in hud("jobs", "-q", "--state", "running").stdout


def test_a_rollout_is_followed_while_it_runs(gated: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    job = gated()
    seen = []
    event: dict[str, Any] = {}
    command = [str(HUD), "trace", f"{job['job_id']}/row-1", "--follow", "--json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        for line in following.stdout:
            event = json.loads(line)
            seen.append(event["event"])
            if event.get("content") == "I have begun":
                (tmp_path / "gate").touch()  # only now may it go on: what was shown was shown while it ran
    assert following.returncode == 0
    assert seen[0] == "start"
    assert seen[-1] == "end"
    assert event["reward"] == 1.0


def test_a_wrong_command_ends_as_it_does_without_detach(hud: Hud, letters: Path) -> None:
    refused = hud("eval", "nowhere.py", "oracle", "--detach")
    assert refused.returncode == hud("eval", "nowhere.py", "oracle").returncode
    assert "there is no such file" in refused.stderr
    assert list(letters.glob(".hud/jobs/*")) == []
    for word in ("--debug", "--dry-run"):
        refused = hud("eval", "tasks.py", "oracle", "--detach", word)
        assert refused.returncode == 2
        assert word in refused.stderr


def test_a_quick_job_is_announced_too(hud: Hud, letters: Path) -> None:
    done = hud("eval", "tasks.py", "oracle", "--detach")
    job = done.stdout.strip()
    assert len(job) == 32
    assert hud("jobs", "watch", job).returncode == 0


def test_fail_under_is_held_to_what_a_reward_can_be(hud: Hud, letters: Path) -> None:
    for value in ("1.5", "nan"):
        refused = hud("eval", "tasks.py", "oracle", "--fail-under", value)
        assert refused.returncode == 2
        assert "--fail-under" in refused.stderr
