"""What keeping an agent's files costs a rollout, beside the same rollouts that keep nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from pathlib import Path

from hud.eval import LocalRuntime, Taskset
from hud.eval.run import Run
from hud.types import Task
from hud_capability_ssh.state import StateKeeper
from tests.benchmarks.row import Row

MIB = 1 << 20
FILES = 20_000
ENV = """
from hud.environment import Environment

env = Environment("bench")
ws = env.workspace("ws", track_files=False)

@env.template()
async def touch():
    yield "Change a file."
    yield 1.0
"""


def measure() -> list[Row]:
    """Return the figures of small and large changes, and of a large tree that hardly changes."""
    before = Path.cwd()
    folder = Path(tempfile.mkdtemp(prefix="hud-bench-"))
    try:
        os.chdir(folder)
        (folder / "env.py").write_text(ENV, encoding="utf-8")
        rows = [
            asyncio.run(_rollouts("a few changed files", "echo changed > note.txt", 24)),
            asyncio.run(_rollouts("32 MiB of changed files", "head -c 33554432 /dev/urandom > large", 4)),
        ]
        return [*rows, _tree(folder)]
    finally:
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)


async def _rollouts(what: str, command: str, count: int) -> Row:
    async def change(run: Run) -> str:
        shell = await run.client.open("ssh")
        await shell.run(command)
        return "done"

    taken: dict[bool, float] = {}
    for keeps in (False, True, False, True):
        taskset = Taskset("bench", [Task(env="bench", id="touch", slug=f"r{n}") for n in range(count)])
        began = time.perf_counter()
        job = await taskset.run(
            change, runtime=LocalRuntime("env.py"), max_concurrent=2, keep_state=keeps, jobs_dir="jobs"
        )
        assert job.reward == 1.0
        spent = (time.perf_counter() - began) * 1000 / count
        taken[keeps] = min(spent, taken.get(keeps, spent))
    return Row(f"rollout with {what}", taken[True], taken[False], "ms", "the same, nothing kept")


def _tree(folder: Path) -> Row:
    """Look twice at a tree, as a rollout does, beside a bare walk of it."""
    root = folder / "tree"
    for number in range(FILES):
        path = root / str(number // 200) / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    keeper = StateKeeper(root)
    began = time.perf_counter()
    keeper.begin()
    (root / "0" / "0.txt").write_bytes(b"changed")
    state = keeper.take(64 * MIB)
    ours = (time.perf_counter() - began) * 1000
    assert state is not None
    assert len(state["files"]) == 1
    began = time.perf_counter()
    for _ in range(2):
        for _, _, names, fd in os.fwalk(root):
            for name in names:
                os.stat(name, dir_fd=fd, follow_symlinks=False)
    floor = (time.perf_counter() - began) * 1000
    return Row(f"one change among {FILES:,} files, both looks", ours, floor, "ms", "two walks with stat")
