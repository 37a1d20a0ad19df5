"""Jobs whose processes die, block or misbehave: each fails typed, everything else goes on, nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hud.eval import Deadlines, Job, LocalRuntime, Run, Task, Taskset

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform != "linux", reason="a process per rollout")]

ENV = """
import asyncio, os, signal, sys, threading, time
from hud.environment import Environment

env = Environment(name="desk")


@env.template()
async def dies_once(marker: str):
    if not os.path.exists(marker):
        open(marker, "w").close()
        yield "wait"
        os.kill(os.getpid(), signal.SIGKILL)
    yield "go on"
    yield 1.0


@env.template()
async def dies_under_the_agent(marker: str):
    if not os.path.exists(marker):
        open(marker, "w").close()
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGKILL)).start()
        yield "wait"
    yield "go on"
    yield 1.0


@env.template()
async def show_pid():
    answer = yield str(os.getpid())
    yield 1.0


@env.template()
async def leaves(how: str, when: str):
    def leave():
        if how == "exit": os._exit(7)
        if how == "sys.exit": sys.exit(7)
        if how == "interrupt": raise KeyboardInterrupt
        if how == "kill": os.kill(os.getpid(), signal.SIGKILL)
        if how == "segv": os.kill(os.getpid(), signal.SIGSEGV)
        if how == "block":
            while True: time.sleep(1)
        if how == "cancel": raise asyncio.CancelledError
    print("about to leave by", how, file=sys.stderr, flush=True)
    if when == "start":
        leave()
    yield "x"
    leave()
    yield 1.0
"""


@pytest.fixture(autouse=True)
def _working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "env.py").write_text(ENV)


def row(template: str, **args: Any) -> Task:
    return Task(env="desk", id=template, args=args, source=Path("env.py").resolve())


def family_of(root: int) -> set[int]:
    """Return the processes that descend from `root`."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {root}


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
@pytest.mark.parametrize("template", ["dies_once", "dies_under_the_agent"])
async def test_a_killed_environment_is_placed_anew(
    template: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    prompts: list[str] = []

    async def waits(run: Run) -> str:
        prompts.append(run.prompt_text)
        if template == "dies_under_the_agent" and run.prompt_text == "wait":
            await asyncio.Event().wait()  # nothing tells this agent but the placement's end
        return "fine"

    marker = tmp_path_factory.mktemp("outside") / "died"
    job = await Taskset("t", [row(template, marker=str(marker))]).run(waits)
    (run,) = job.runs
    assert run.failure is None
    assert run.reward == 1.0
    assert prompts == ["wait", "go on"]
    (lost,) = run.attempts
    assert (lost["failure"]["kind"], lost["failure"]["type"]) == ("infrastructure", "RuntimeDiedError")
    assert lost["failure"]["phase"] == ("grade" if template == "dies_once" else "act")
    assert "SIGKILL" in lost["failure"]["message"]


@pytest.mark.slow
@pytest.mark.parametrize("when", ["start", "grade"])
@pytest.mark.parametrize("how", ["exit", "sys.exit", "interrupt", "kill", "segv", "block", "cancel"])
async def test_author_code_that_leaves_takes_only_its_rollout(how: str, when: str) -> None:
    async def agent(run: Run) -> str:
        return "fine"

    rows = [row("show_pid"), row("leaves", how=how, when=when), row("leaves", how="", when="")]
    deadlines = Deadlines(start=2, grade=2, release=4)
    job = await Taskset("t", rows).run(agent, retries=0, deadlines=deadlines)
    first, broken, last = job.runs
    assert (first.reward, last.reward) == (1.0, 1.0)
    assert broken.reward is None
    assert broken.failure is not None
    assert broken.failure.phase == when, str(broken.failure)
    if how in ("exit", "kill", "segv"):
        ended = {"exit": "7", "kill": "SIGKILL", "segv": "SIGSEGV"}[how]
        assert broken.failure.type == "RuntimeDiedError"
        assert ended in broken.failure.message
        assert "about to leave" in broken.failure.message, "its last output"
    elif how == "block":
        assert (broken.failure.kind, broken.failure.type) == ("task", "PhaseTimeoutError")
    else:
        assert broken.failure.kind == "task"


ORCHESTRATOR = """
import asyncio, itertools
from pathlib import Path
from hud.eval import Task, Taskset

async def agent(run):
    print("acting", run.trace_id, flush=True)
    await asyncio.sleep(0.01)
    return "fine"

async def main():
    rows = (Task(env="desk", id="show_pid", slug=f"r{i}", source=Path("env.py").resolve()) for i in itertools.count())
    async for run in Taskset("t", rows).stream(agent, max_concurrent=4):
        print("done", run.trace_id, flush=True)

asyncio.run(main())
"""


def killed_orchestrator(folder: Path, lines: int) -> tuple[list[str], set[int]]:
    """Start a job in a process of its own and kill it after `lines` lines; return what it printed, and its family."""
    (folder / "main.py").write_text(ORCHESTRATOR)
    child = subprocess.Popen([sys.executable, "main.py"], cwd=folder, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = [child.stdout.readline() for _ in range(lines)]
    family = family_of(child.pid)
    child.kill()
    told += child.stdout.readlines()
    child.stdout.close()
    child.wait()
    return [line.strip() for line in told if line.endswith("\n")], family


@pytest.mark.slow
def test_a_killed_orchestrator_leaves_its_record_and_no_process(tmp_path: Path) -> None:
    told, family = killed_orchestrator(tmp_path, 60)
    assert family, "it had processes"
    reported = {line.split()[1] for line in told if line.startswith("done")}
    (path,) = (p for p in (tmp_path / ".hud" / "jobs").iterdir() if p.is_file() and p.suffix == ".db")
    job = Job.load(path)
    kept = [run.trace_id for run in job.runs]
    assert reported <= set(kept), "what was reported is on disk"
    assert len(kept) == len(set(kept)), "nothing twice"
    assert all(run.reward == 1.0 for run in job.runs)
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in family) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in family if alive(pid)]


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_job_killed_at_any_moment_keeps_what_it_reported(tmp_path: Path) -> None:
    chance = random.Random(7)
    for number in range(200):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "env.py").write_text(ENV)
        told, _ = killed_orchestrator(folder, chance.randrange(1, 400))
        reported = {line.split()[1] for line in told if line.startswith("done")}
        files = [p for p in (folder / ".hud" / "jobs").iterdir() if p.is_file() and p.suffix == ".db"]
        kept = [run.trace_id for run in Job.load(files[0]).runs]
        assert reported <= set(kept)
        assert len(kept) == len(set(kept))


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_five_hundred_at_once_all_finish() -> None:
    most = 0
    now = 0
    everyone = asyncio.Event()

    async def agent(run: Run) -> str:
        nonlocal most, now
        now += 1
        most = max(most, now)
        if now >= 300:
            everyone.set()
        try:
            async with asyncio.timeout(60):
                await everyone.wait()
        except TimeoutError:
            pass
        now -= 1
        return "fine"

    rows = (row("show_pid").model_copy(update={"slug": f"r{i}"}) for i in range(500))
    job = await Taskset("many", rows).run(agent, max_concurrent=500, runtime=LocalRuntime("env.py"))
    assert job.summary().runs == 500
    assert [str(run.failure) for run in job.errors] == []
    assert job.reward == 1.0
    assert most >= 100, "many were open at the same time"
