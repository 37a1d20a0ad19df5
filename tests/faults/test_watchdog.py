"""Jobs whose parts wedge, or whose orchestrator is killed or stopped: each ends in time, typed, and leaves nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hud.eval import Job
from hud.store.reader import JobFile
from hud.testing.processes import naming, still_naming

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a process per rollout")

HUD = Path(sys.executable).with_name("hud")

ENV = """
import asyncio, os, signal
from pathlib import Path
from hud.environment import Environment

env = Environment(name="desk")

@env.template()
async def easy(n: int = 0):
    yield "go on"
    yield 1.0

@env.template()
async def stops(when: str = "grade"):
    if when == "start":
        os.kill(os.getpid(), signal.SIGSTOP)
    yield "go on"
    os.kill(os.getpid(), signal.SIGSTOP)
    yield 1.0

@env.template()
async def scatters(n: int = 0):
    Path("left").write_text("over")
    os.system("sleep 600 &")
    yield "go on"
    await asyncio.sleep(600)
    yield 1.0
"""

AGENTS = """
import asyncio, ctypes, os, signal

async def holds_the_interpreter(run):
    if run.args.get("n") == 1:
        await asyncio.sleep(1)  # a beginning is on disk half a second later
        ctypes.PyDLL(None).sleep(3600)  # a C call that keeps the GIL: no thread of this process runs again

async def never_ends(run):
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

async def stops_us(run):
    os.kill(os.getpid(), signal.SIGSTOP)

async def waits(run):
    print("acting", flush=True)
    await asyncio.sleep(3600)
"""

Words = tuple[str, ...]
QUICK: Words = ("--timeout", "4", "--deadline", "release=1")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "env.py").write_text(ENV + "\nTASKS = [easy(n=0), easy(n=1), easy(n=2)]\n")
    (folder / "agents.py").write_text(AGENTS)
    return folder


def environ(project: Path) -> dict[str, str]:
    own = {"PYTHONPATH": str(project), "XDG_STATE_HOME": str(project.parent / "state")}
    return {**os.environ, **own, "XDG_RUNTIME_DIR": str(sockets(project))}


def sockets(project: Path) -> Path:
    """Return a folder for this test's sockets alone, with a short name (unix(7))."""
    folder = Path("/tmp") / f"w{abs(hash(project)):x}"[:12]
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def start(project: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(HUD), "eval", "env.py", *words],
        cwd=project,
        env=environ(project),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def records(project: Path) -> list[dict[str, Any]]:
    (path,) = (project / ".hud" / "jobs").glob("*.db")
    with JobFile(path) as file:
        return list(file.records())


@pytest.fixture(autouse=True)
def _nothing_is_left(project: Path) -> Iterator[None]:
    yield
    assert still_naming(str(project), 15) == []
    assert str(project) not in Path("/proc/self/mountinfo").read_text()
    left = list((sockets(project) / "hud").iterdir())
    shutil.rmtree(sockets(project))
    assert left == []


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_process_whose_interpreter_is_held_is_ended_and_its_records_written(project: Path) -> None:
    with start(project, "agents:holds_the_interpreter", "--max-concurrent", "1", *QUICK) as process:
        _, told = process.communicate(timeout=150)
    assert process.returncode == -signal.SIGKILL, told
    assert "does not answer: it is killed" in told
    deadline = time.monotonic() + 10
    while not (job := Job.load(next((project / ".hud" / "jobs").glob("*.db")))).ended_at:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert job.ended_because is not None
    assert "its watchdog ended it" in job.ended_because
    by_row = {run.args["n"]: run for run in job.runs}
    assert by_row[0].reward == 1.0
    wedged = by_row[1].failure
    assert wedged is not None
    assert (wedged.kind, wedged.type) == ("infrastructure", "PhaseTimeoutError")
    assert wedged.message.startswith("not over 25 s after its start")
    assert all(run.reward is not None or run.failure is not None for run in job.runs)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_stopped_orchestrator_is_ended_at_the_deadline_of_its_job(project: Path) -> None:
    with start(project, "agents:stops_us", "--deadline", "job=1") as process:
        begun = time.monotonic()
        process.communicate(timeout=150)
    assert process.returncode == -signal.SIGKILL
    assert time.monotonic() - begun < 60, "a deadline of 1 s, and 30 s"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_what_will_not_be_cancelled_is_left_behind_and_the_command_ends(project: Path) -> None:
    with start(project, "agents:never_ends", "--deadline", "job=1") as process:
        out, told = process.communicate(timeout=120)
    assert process.returncode == 1, told
    assert "ended early: its deadline of 1 s passed" in told
    assert "all (3 tasks)" in out
    failures = [record["failure"] for record in records(project)]
    assert failures
    assert {failure["kind"] for failure in failures} <= {"infrastructure", "cancelled"}


@pytest.mark.slow
@pytest.mark.parametrize("when", ["start", "grade"])
@pytest.mark.timeout(120)
def test_a_stopped_environment_fails_its_own_rollout_alone(project: Path, when: str) -> None:
    (project / "env.py").write_text(ENV + f"\nTASKS = [easy(n=0), stops(when={when!r}), easy(n=2)]\n")
    bounds = ("--deadline", "start=1", "--deadline", "grade=1", "--deadline", "release=2", "--retries", "0")
    with start(project, "noop", *bounds) as process:
        _, told = process.communicate(timeout=100)
    assert process.returncode == 1, told
    stopped, *others = sorted(records(project), key=lambda record: record["reward"] is not None)
    assert [record["reward"] for record in others] == [1.0, 1.0]
    assert (stopped["failure"]["type"], stopped["failure"]["phase"]) == ("PhaseTimeoutError", when)


@pytest.mark.slow
@pytest.mark.parametrize("also_keepers", [False, True])
@pytest.mark.timeout(120)
def test_ten_seconds_after_a_kill_nothing_is_left(project: Path, also_keepers: bool) -> None:
    (project / "env.py").write_text(ENV + "\nTASKS = [scatters(n=i) for i in range(4)]\n")
    with start(project, "agents:waits", "--max-concurrent", "4") as process:
        assert process.stderr is not None
        for _ in range(4):
            assert "acting" in process.stderr.readline()
        assert len(naming(str(project))) > 5
        if also_keepers:
            for pid in naming(str(project)):
                if Path(f"/proc/{pid}/comm").read_text().strip() == "hud-keeper":
                    os.kill(pid, signal.SIGSTOP)
        process.kill()
        process.communicate()
    assert still_naming(str(project), 10) == []


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_killed_watchdog_is_replaced_while_the_job_runs(project: Path) -> None:
    with start(project, "agents:waits", "--max-concurrent", "1") as process:
        assert process.stderr is not None
        assert "acting" in process.stderr.readline()
        (first,) = watchdogs(process.pid)
        os.kill(first, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while not [pid for pid in watchdogs(process.pid) if pid != first]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.kill()
        process.communicate()
    assert still_naming(str(project), 10) == []
    assert watchdogs(process.pid) == []


def watchdogs(owner: int) -> list[int]:
    """Return the living watchdogs of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")  # empty once it has ended
                if (
                    any(word.endswith(b"watchdog_program.py") for word in words)
                    and str(owner).encode() in words
                ):
                    found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_next_start_removes_what_no_watchdog_lived_to_remove(project: Path) -> None:
    folder = project.parent / "hud-box-left"
    folder.mkdir()
    script = "import os, sys\nfrom hud.runtime.ledger import ledger\n"
    script += "ledger().intend('folder', sys.argv[1])\nos.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script, str(folder)], env=environ(project), check=False)
    with start(project, "noop") as process:
        process.communicate(timeout=100)
    deadline = time.monotonic() + 30
    while folder.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


PROGRAM = """
import asyncio, json, sys
from contextlib import asynccontextmanager
from hud.eval import Deadlines, LocalRuntime, Taskset
from env import TASKS


async def for_good():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass


@asynccontextmanager
async def wedges(task):
    if task.args["n"] == 0:
        await for_good()
    async with LocalRuntime("env.py")(task) as runtime:
        yield runtime
    if task.args["n"] == 1:
        await for_good()


async def agent(run):
    return "fine"


async def main():
    bounds = Deadlines(**dict.fromkeys(("place", "connect", "start", "act", "grade", "release"), 2))
    job = await Taskset("t", TASKS).run(agent, runtime=wedges, retries=0, deadlines=bounds, max_concurrent=3)
    print(json.dumps([(run.args["n"], run.reward, run.failure and run.failure.type) for run in job.runs]), flush=True)

loop = asyncio.new_event_loop()
loop.run_until_complete(main())
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_placement_that_wedges_coming_or_going_ends_its_rollout_typed(project: Path) -> None:
    (project / "main.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "main.py"],
        cwd=project,
        env=environ(project),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.stdout, done.stderr
    coming, going, well = json.loads(done.stdout)
    assert coming == [0, None, "PhaseTimeoutError"]
    assert (going[0], well) == (1, [2, 1.0, None])
    assert going[1] == 1.0 or going[2] == "PhaseTimeoutError", "graded before it wedged, or typed"
