"""The n-th write, sync, truncation and removal of a job of 20 rollouts fails, or is its last: nothing told is lost."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from hud.store.reader import JobFile
from hud.store.writer import JobWriter

pytestmark = pytest.mark.needs("strace")

JOB = """
import asyncio, sys
from pathlib import Path
from hud.errors import StoreError
from hud.store.writer import JobWriter

async def rollout(writer, n):
    begins = {"run_id": f"run-{n}", "index": n, "slug": "s", "task": {"env": "e", "id": "t"}}
    step = {"kind": "agent", "content": "x" * 5000}
    writer.started(begins)
    writer.step(f"run-{n}", step)
    await writer.finished({**begins, "reward": 1.0, "content": "y" * 500, "steps": [step] * 3})
    print(f"run-{n}", flush=True)

async def main():
    writer = JobWriter(Path(sys.argv[1]), "abc")
    try:
        writer.job({"job_id": "abc", "name": "n"})
        for n in range(0, 20, 2):
            await asyncio.gather(rollout(writer, n), rollout(writer, n + 1))
        writer.job({"ended_at": 2.0})
    except StoreError as exc:
        print("refused", exc, flush=True)
    await writer.close()
    print("closed", flush=True)

asyncio.run(main())
"""

CALLS = {"pwrite64": "ENOSPC", "fdatasync": "EIO", "fsync": "EIO", "ftruncate": "EIO", "unlink": "EIO"}


def traced(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "job.py").write_text(JOB)
    (folder / "jobs").mkdir()
    command = ("strace", "-f", "-qq", "-o", str(folder / "calls"), *options, sys.executable, "job.py", "jobs")
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


def count_calls(folder: Path) -> dict[str, int]:
    """Return how often an undisturbed job makes each call on its thread that makes it most."""
    folder.mkdir()
    done = traced(folder, "-e", f"trace={','.join(CALLS)}")
    if "closed" not in done.stdout:
        pytest.skip(f"strace cannot trace here: {done.stderr[-300:]}")
    per_thread: dict[tuple[str, str], int] = {}
    for line in (folder / "calls").read_text().splitlines():
        if (found := re.match(r"(\d+) +(\w+)\(", line)) is not None:
            key = (found[1], found[2])
            per_thread[key] = per_thread.get(key, 0) + 1
    return {
        name: max((n for (_, call), n in per_thread.items() if call == name), default=0) for name in CALLS
    }


def check_point(folder: Path, call: str, fault: str, when: str) -> None:
    """Run the job with one fault, and hold its file to what the job was told."""
    folder.mkdir()
    done = traced(folder, "-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={when}")
    where = f"{call} {fault} {when}: {done.stdout[-300:]} {done.stderr[-300:]}"
    told = set(re.findall(r"run-\d+\n", done.stdout))
    told = {line.strip() for line in told}
    path = folder / "jobs" / "abc.db"
    if told:
        with JobFile(path) as file:
            assert told <= file.finished(), where
            assert file.damage is None, where
            assert all(len(list(file.steps(run_id))) == 3 for run_id in told), where
            assert file.summary()["runs"] == len(file.finished()), where
    asyncio.run(goes_on(folder / "jobs"))
    with JobFile(path) as file:
        assert told | {"later"} <= file.finished(), where
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)], where
    db.close()
    assert not [left for left in (folder / "jobs").iterdir() if left.name != "abc.db"], where
    shutil.rmtree(folder)


async def goes_on(folder: Path) -> None:
    writer = JobWriter(folder, "abc")
    await writer.finished({"run_id": "later", "index": 99, "slug": "s", "task": {"env": "e", "id": "t"}})
    await writer.close()


def points(counts: dict[str, int], every: int) -> list[tuple[str, int]]:
    """Return calls and their numbers: each of the rare ones, every so many of the writes."""
    found = []
    for call, count in counts.items():
        step = every if count > 20 else max(every // 4, 1)
        found += [(call, number) for number in range(1, count + 2, step)]
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_fault_at_some_points_loses_nothing_that_was_told(tmp_path: Path) -> None:
    for call, number in points(count_calls(tmp_path / "counted"), 24):
        check_point(tmp_path / "one", call, f"error={CALLS[call]}", f"{number}")
        check_point(tmp_path / "two", call, "signal=KILL", f"{number}")


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("fault", ["once", "from then on", "killed"])
def test_a_fault_at_every_point_loses_nothing_that_was_told(tmp_path: Path, fault: str) -> None:
    counts = count_calls(tmp_path / "counted")
    for call, number in points(counts, 1):
        kind = "signal=KILL" if fault == "killed" else f"error={CALLS[call]}"
        check_point(tmp_path / "one", call, kind, f"{number}+" if fault == "from then on" else f"{number}")
    assert counts["pwrite64"] > 50, os.uname()
