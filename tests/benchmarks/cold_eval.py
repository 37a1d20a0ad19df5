"""A cold `hud eval` of one text rollout: the whole process, from the shell to the written job file."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.row import Row

ENV = """
import os

from hud.environment import Environment

env = Environment(name="one")


@env.template()
async def ask(word: str = "yes"):
    if gate := os.environ.get("BENCH_GATE"):
        with open(gate + ".up", "w") as up:
            up.write("up")
        with open(gate + ".go") as go:
            go.read()
    answer = yield f"Say {word}."
    yield 1.0 if answer == word else 0.0


@ask.solution
async def _(run, word="yes"):
    return word
"""

FLOOR = "import asyncio; asyncio.run(asyncio.sleep(0))"
TIMES = 7


def measure() -> list[Row]:
    """Return seconds, and the memory of all its processes together."""
    hud = Path(sys.executable).with_name("hud")
    with tempfile.TemporaryDirectory(prefix="hud-bench-") as name:
        folder = Path(name) / "project"
        folder.mkdir()
        (folder / "env.py").write_text(ENV, encoding="utf-8")
        command = [str(hud), "eval", "env.py", "oracle"]
        _seconds(command, folder)  # bytecode and page cache, as on any day but the first
        ours = _median(command, folder)
        floor = _median([sys.executable, "-c", FLOOR], folder)
        start = _median([str(hud), "--version"], folder)
        page = _median([str(hud), "--help"], folder)
        bare = _median([sys.executable, "-c", "pass"], folder)
        pss, parts = _memory(command, folder)
        asyncio_pss = _floor_memory(folder)
    shown = ", ".join(f"{part:.0f}" for part in parts)
    return [
        Row("cold `hud eval` of one text rollout", ours, floor, "s", "python + asyncio", target="0.3 s"),
        Row(
            "the same: PSS of every process",
            pss,
            asyncio_pss,
            "MB",
            "python + asyncio",
            target="60 MB",
            note=shown,
        ),
        Row("`hud --version`", start, bare, "s", "python -c pass", target="0.1 s"),
        Row("`hud --help`", page, bare, "s", "python -c pass", target="0.1 s"),
    ]


def _median(command: list[str], folder: Path) -> float:
    return statistics.median(_seconds(command, folder) for _ in range(TIMES))


def _seconds(command: list[str], folder: Path) -> float:
    begun = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - begun


def _memory(command: list[str], folder: Path) -> tuple[float, list[float]]:
    """Return the PSS of `command` and its descendants in MB while its one rollout is open, and each part."""
    # Beside the project: within it the rollout's view would have pipes of its own.
    gate = folder.with_name("gate")
    for end in ("up", "go"):
        os.mkfifo(f"{gate}.{end}")
    variables = {**os.environ, "BENCH_GATE": str(gate)}
    with subprocess.Popen(
        command, cwd=folder, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as job:
        Path(f"{gate}.up").read_text(encoding="utf-8")
        parts = sorted((_pss_mb(pid) for pid in _family(job.pid)), reverse=True)
        Path(f"{gate}.go").write_text("go", encoding="utf-8")
    if job.returncode != 0:
        raise RuntimeError(f"{command} ended with {job.returncode}")
    return sum(parts), parts


def _floor_memory(folder: Path) -> float:
    with subprocess.Popen(
        [sys.executable, "-c", "import asyncio, sys; print('up', flush=True); sys.stdin.read()"],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = _pss_mb(process.pid)
        process.communicate()
    return found


def _family(root: int) -> list[int]:
    """Return `root` and what descends from it, those whose parent has ended included where they share its group."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(encoding="utf-8")
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return sorted(found)
        found |= more


def _pss_mb(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0.0
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1000


if __name__ == "__main__":
    for row in measure():
        print(row)
