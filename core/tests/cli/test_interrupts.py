"""Ctrl-C once, twice, SIGTERM, at any moment; nothing is left running."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hud.errors import StoreError
from hud.store.reader import JobFile

pytestmark = pytest.mark.slow

HUD = Path(sys.executable).with_name("hud")

SLOW = """
import os
import time

from hud.environment import Environment
from hud.eval import Taskset

env = Environment(name="slow")


@env.template()
async def quick(n: int):
    answer = yield "?"
    yield 1.0


@env.template()
async def endless():
    answer = yield "?"
    yield 1.0


@quick.solution
async def _(run, n):
    return ""


@endless.solution
async def _(run):
    import asyncio
    while True:
        try:
            open(os.environ["MARK"], "a").close()
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            if "STUBBORN" not in os.environ:
                raise


TASKS = Taskset("slow", [*[quick(n=n) for n in range(8)], endless()])
"""


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A project with eight quick tasks and one that never ends, which leaves a mark beside the project."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "slow.py").write_text(SLOW, encoding="utf-8")
    return folder


def _start(folder: Path, *words: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(HUD), "eval", "slow.py", "oracle", *words],
        cwd=folder,
        env={**os.environ, "MARK": str(_mark(folder)), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _mark(folder: Path) -> Path:
    return folder.with_name("mark")  # outside the project, of which each rollout has a view of its own


def _family(folder: Path) -> list[int]:
    """Return the processes that inherited this test's variable."""
    wanted = f"MARK={_mark(folder)}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _await_quick_ones(folder: Path) -> None:
    """Wait until the endless task runs and the quick ones are recorded."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if _mark(folder).exists() and _finished(folder) >= 8:
            return
        time.sleep(0.02)
    raise AssertionError("the job did not come so far in 60 s")


def _finished(folder: Path) -> int:
    for path in (folder / ".hud" / "jobs").glob("*.db"):
        with contextlib.suppress(StoreError), JobFile(path) as file:  # it is there before its tables are
            return len(file.finished())
    return 0


def _nobody_left(folder: Path, within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while _family(folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_finishes_cleanly_and_keeps_what_is_done(slow: Path, number: signal.Signals) -> None:
    job = _start(slow, "--json")
    _await_quick_ones(slow)
    begun = time.monotonic()
    job.send_signal(number)
    out, err = job.communicate(timeout=60)
    took = time.monotonic() - begun
    assert job.returncode == 130, err
    assert took < 16
    told = json.loads(out)
    assert told["interrupted"] is True
    assert sum(run["reward"] == 1.0 for run in told["runs"]) == 8
    assert "press Ctrl-C again" in err
    assert "Traceback" not in err
    assert _nobody_left(slow)
    with JobFile(next((slow / ".hud" / "jobs").glob("*.db"))) as file:
        assert file.job()["cancelled"] is True


def test_a_second_signal_stops_at_once_and_leaves_nobody(slow: Path) -> None:
    job = _start(slow, STUBBORN="1")
    _await_quick_ones(slow)
    job.send_signal(signal.SIGINT)
    assert job.stderr is not None
    while "press Ctrl-C again" not in job.stderr.readline():
        pass
    time.sleep(0.1)  # two presses, not one that was doubled
    job.send_signal(signal.SIGINT)
    _, err = job.communicate(timeout=10)
    assert job.returncode == 130
    assert "stopped; finished rollouts are in" in err
    assert "Traceback" not in err
    assert _nobody_left(slow)
    assert _finished(slow) >= 8


def test_a_doubled_signal_is_one(slow: Path) -> None:
    job = _start(slow, "--json")
    _await_quick_ones(slow)
    job.send_signal(signal.SIGINT)
    job.send_signal(signal.SIGINT)
    out, err = job.communicate(timeout=60)
    assert job.returncode == 130
    assert json.loads(out)["interrupted"] is True, err


@pytest.mark.parametrize("seed", range(8))
def test_a_signal_at_any_moment_ends_without_a_traceback(slow: Path, seed: int) -> None:
    chance = random.Random(seed)
    job = _start(slow, "--group", "3")
    time.sleep(chance.uniform(0.0, 2.0))
    job.send_signal(chance.choice([signal.SIGINT, signal.SIGTERM]))
    _, err = job.communicate(timeout=60)
    assert job.returncode in (130, -signal.SIGINT, -signal.SIGTERM), err
    assert "Traceback" not in err
    assert _nobody_left(slow)


def test_a_killed_job_leaves_nobody(slow: Path) -> None:
    job = _start(slow)
    _await_quick_ones(slow)
    job.kill()
    job.communicate(timeout=10)
    assert _nobody_left(slow)
    assert _finished(slow) == 8


def test_ctrl_c_ends_a_debugged_rollout(slow: Path) -> None:
    job = _start(slow, "--debug", "--task-ids", "endless")
    deadline = time.monotonic() + 60
    while not _mark(slow).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    job.send_signal(signal.SIGINT)
    _, err = job.communicate(timeout=60)
    assert job.returncode == 130, err
    assert "Traceback" not in err
    assert _nobody_left(slow)
