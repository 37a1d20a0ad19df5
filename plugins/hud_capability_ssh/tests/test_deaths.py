"""A server or an orchestrator that is killed leaves nothing: no process, control group, key or folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from hud.runtime.ledger import LedgerEntry, read_ledgers

pytestmark = [pytest.mark.sandbox, pytest.mark.slow]

ENVIRONMENT = """
from hud.environment import Environment

env = Environment("mortal")
workspace = env.workspace("ws", engine={engine!r})

@env.initialize
async def up():
    await workspace.launch("sleep {mark}")

@env.template()
async def wait():
    yield "wait"
    yield 1.0
"""

ORCHESTRATOR = """
import asyncio, sys
from hud.environment import load_environment
from hud.eval import LocalRuntime, Taskset

async def agent(run):
    client = await run.client.open("ssh")
    await client.run("echo here > seen; setsid sleep {mark} & sleep {mark}", timeout_s=600)

async def main():
    task = load_environment("env.py").templates["wait"]()
    await Taskset("mortal", [task]).run(agent, runtime=LocalRuntime("env.py"), group=2)

asyncio.run(main())
"""


@pytest.fixture
def place(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, with temporary files and the ledger beside it."""
    for name in ("project", "tmp", "state"):
        (open_folder / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(open_folder / "tmp"))
    monkeypatch.setenv("XDG_STATE_HOME", str(open_folder / "state"))
    return open_folder / "project"


def entries() -> list[LedgerEntry]:
    return [entry for _, found in read_ledgers() for entry in found]


def processes(mark: str) -> list[str]:
    """Return the processes that have `mark` on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if mark.encode() in words:
            found.append(path.parent.name)
    return found


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.05)


def check_nothing_is_left(mark: str, place: Path, made: list[LedgerEntry]) -> None:
    def gone() -> bool:
        left = [entry.name for entry in made if os.path.lexists(entry.name)]
        return not (left or processes(mark) or entries() or list((place.parent / "tmp").glob("hud-*")))

    until(gone)


@pytest.mark.parametrize("engine", ["bubblewrap", "landlock"])
def test_a_killed_server_leaves_nothing(place: Path, engine: str) -> None:
    mark = str(uuid.uuid4().int)[:9]
    (place / "env.py").write_text(ENVIRONMENT.format(engine=engine, mark=mark))
    hud = Path(sys.executable).with_name("hud")
    server = subprocess.Popen(
        [hud, "serve", "env.py", "--port", "0", "--no-auth"],
        cwd=place,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stderr is not None
        assert any("ssh -i" in line for line in server.stderr)
        until(lambda: bool(processes(mark)))
        made = entries()
        kinds = {entry.kind for entry in made}
        assert "folder" in kinds, "the key's folder is in the ledger"
        assert all(os.path.lexists(entry.name) for entry in made)
    finally:
        server.kill()
        server.communicate()
    check_nothing_is_left(mark, place, made)


@pytest.mark.parametrize("engine", ["bubblewrap", "landlock"])
def test_a_killed_orchestrator_leaves_nothing_of_its_rollouts(place: Path, engine: str) -> None:
    mark = str(uuid.uuid4().int)[:9]
    (place / "env.py").write_text(ENVIRONMENT.format(engine=engine, mark=mark))
    words = [sys.executable, "-c", ORCHESTRATOR.format(mark=mark)]
    orchestrator = subprocess.Popen(words, cwd=place)
    try:
        until(lambda: len(processes(mark)) >= 6 or orchestrator.poll() is not None, 120)
        assert orchestrator.poll() is None
        made = entries()
        if os.geteuid() == 0 or engine == "landlock":
            assert len({entry.owner for entry in made}) >= 2, "each rollout's process is an owner"
    finally:
        orchestrator.send_signal(signal.SIGKILL)
        orchestrator.wait()
    check_nothing_is_left(mark, place, made)
