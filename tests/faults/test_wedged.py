"""An agent that blocks the whole process for good: the job ends all the same, with its records written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hud.store.reader import JobFile

ENV = """
from hud.environment import Environment

env = Environment(name="desk")

@env.template()
async def easy(n: int = 0):
    yield "go on"
    yield 1.0

TASKS = [easy(n=0), easy(n=1)]
"""
AGENT = """
import time

async def blocks(run):
    if run.args["n"] == 1:
        time.sleep(3600)  # no await: nothing else of this process runs again
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(sys.platform != "linux", reason="a process per rollout")
def test_a_job_whose_loop_is_blocked_for_good_ends_at_its_hard_bound(tmp_path: Path) -> None:
    (tmp_path / "env.py").write_text(ENV)
    (tmp_path / "agent.py").write_text(AGENT)
    hud = Path(sys.executable).with_name("hud")
    ended = subprocess.run(
        [
            *(hud, "eval", "env.py", "agent:blocks", "--max-concurrent", "1", "--timeout", "1"),
            *("--deadline", "release=1"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert "time.sleep(3600)" in ended.stderr
    (kept,) = (tmp_path / ".hud" / "jobs").glob("*.db")
    with JobFile(kept) as file:
        rollouts = {record["task"]["args"]["n"]: record for record in file.records()}
    assert rollouts[0]["reward"] == 1.0
    assert rollouts[1]["reward"] is None
    assert "the event loop is stuck" in rollouts[1]["failure"]["message"]
