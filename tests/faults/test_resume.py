"""A job whose orchestrator is killed at any moment and resumed, until it is done: nothing lost, doubled or left."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from hud.errors import StoreError
from hud.eval import Job
from hud.store.reader import JobFile
from hud.testing.processes import still_naming

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a process per rollout")

HUD = Path(sys.executable).with_name("hud")

ENV = """
import os
from hud.environment import Environment

env = Environment(name="desk")

@env.template()
async def count(n: int):
    answer = yield f"count to {n}"
    with open(os.environ["GRADES"], "a") as file:
        file.write(f"{n}\\n")
    yield int(answer) % 10 / 10

TASKS = [count(n=n) for n in range(ROWS)]
"""

AGENT = """
import asyncio

async def works(run):
    n = run.args["n"]
    await asyncio.sleep(0.1 + n * 7919 % 100 / 200)  # in all more than four lives of 2.5 s, six at once
    return str(n)
"""


AT_ONCE = 6


class Orchestrator:
    """Runs one job by the command line, in as many lives as it takes."""

    def __init__(self, folder: Path, rows: int, seed: int) -> None:
        self.project = folder / "project"
        self.project.mkdir(parents=True)
        (self.project / "env.py").write_text(ENV.replace("ROWS", str(rows)))
        (self.project / "agents.py").write_text(AGENT)
        self.side = folder / "grades"
        self.side.touch()
        # The limit of a socket's path is 107 bytes (unix(7)).
        self.sockets = Path("/tmp") / f"r{os.getpid():x}{seed:x}"
        self.sockets.mkdir(mode=0o700)
        self.environ = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(self.project), os.environ.get("PYTHONPATH", ""))),
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_RUNTIME_DIR": str(self.sockets),
            "GRADES": str(self.side),
        }
        self.rows = rows
        self.kills = 0
        self.recorded: dict[int, int] = {}
        """How often each finished row had been graded when it was first seen to be finished."""

    @property
    def file(self) -> Path | None:
        return next((self.project / ".hud" / "jobs").glob("*.db"), None)

    def live(self, seconds: float | None) -> int | None:
        """Begin the job or go on with it; killed after `seconds`, unless it has ended before."""
        words = ["env.py", "agents:works", "--max-concurrent", str(AT_ONCE)]
        if self.has_begun():
            assert self.file is not None
            words = ["--resume", self.file.stem[:8]]
        elif self.file is not None:
            # Killed before its first record: nothing is lost, and nothing can be resumed.
            for path in self.file.parent.glob(f"{self.file.stem}.*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        with subprocess.Popen(
            [str(HUD), "eval", *words],
            cwd=self.project,
            env=self.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                _, told = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                self.kills += 1
                process.communicate()
                self.look()
                return None
        assert process.returncode == 0, f"{told}\nafter {self.kills} kills, with {words}"
        return process.returncode

    def has_begun(self) -> bool:
        if self.file is None:
            return False
        try:
            with JobFile(self.file) as file:
                return "options" in file.job()
        except StoreError:
            return False

    def grades(self) -> Counter[int]:
        return Counter(int(line) for line in self.side.read_text().split())

    def look(self) -> None:
        """Note what is finished, and hold that nothing finished was graded again."""
        if not self.has_begun():
            return
        assert self.file is not None
        with JobFile(self.file) as file:
            finished = [file.record(run_id, steps=False)["task"]["args"]["n"] for run_id in file.finished()]
        assert len(finished) == len(set(finished)), "one record for each"
        # A grader of a life that has just ended may still be writing: only what is settled is compared.
        assert still_naming(str(self.project), 10) == [], "10 s after a kill nothing runs"
        graded = self.grades()
        for n in finished:
            assert self.recorded.setdefault(n, graded[n]) == graded[n], (
                f"{n} was graded again after it was recorded"
            )

    def check(self) -> None:
        """Hold the finished job to what an undisturbed run gives."""
        self.look()
        assert self.file is not None
        job = Job.load(self.file)
        assert [run.args["n"] for run in job.runs] == list(range(self.rows))
        assert [run.reward for run in job.runs] == [n % 10 / 10 for n in range(self.rows)]
        assert [run for run in job.runs if run.failure is not None] == []
        assert job.summary().runs == self.rows
        assert job.reward == pytest.approx(sum(n % 10 / 10 for n in range(self.rows)) / self.rows)
        graded = self.grades()
        for run in job.runs:
            # A try whose verdict was never recorded, or that began in the last half second, is made again.
            assert 1 <= graded[run.args["n"]] <= self.kills + 1, "no try graded twice"
            lost = [attempt["failure"]["type"] for attempt in run.attempts]
            assert lost == ["OrchestratorLostError"] * len(lost)
        assert sum(graded.values()) - self.rows <= AT_ONCE * self.kills
        assert still_naming(str(self.project), 10) == []
        assert str(self.project) not in Path("/proc/self/mountinfo").read_text()
        deadline = time.monotonic() + 10
        while (left := list((self.sockets / "hud").iterdir())) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left == []
        entries = list((self.side.parent / "state" / "hud" / "ledger").iterdir())
        assert entries == [], "nothing is on record as left"
        assert {path.suffix for path in self.file.parent.iterdir()} <= {".db", ".logs"}


def run_with_kills(folder: Path, *, rows: int, kills: int, seed: int, most_s: float) -> Orchestrator:
    """Run a job to its end, with the first `kills` lives cut short at random moments."""
    chance = random.Random(seed)
    job = Orchestrator(folder, rows, seed)
    try:
        while job.live(chance.uniform(0.1, most_s) if job.kills < kills else None) is None:
            pass
        job.check()
    finally:
        shutil.rmtree(job.sockets)
    return job


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_an_undisturbed_job_grades_each_rollout_once(tmp_path: Path) -> None:
    job = run_with_kills(tmp_path, rows=20, kills=0, seed=1, most_s=1)
    assert set(job.grades().values()) == {1}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_killed_at_random_moments_is_resumed_until_it_is_done(tmp_path: Path) -> None:
    job = run_with_kills(tmp_path, rows=200, kills=8, seed=2, most_s=2.5)
    assert job.kills >= 4


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_two_hundred_kills_over_jobs_of_two_hundred_rollouts(tmp_path: Path) -> None:
    kills = number = 0
    while kills < 200:
        number += 1
        job = run_with_kills(tmp_path / str(number), rows=200, kills=200 - kills, seed=number, most_s=2.0)
        kills += job.kills
        shutil.rmtree(tmp_path / str(number))
