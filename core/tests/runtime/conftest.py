"""Projects on disk, rollouts on them, and a look at what they leave behind."""

from __future__ import annotations

import asyncio
import os
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hud.runtime import folders, zygote_table
from hud.runtime.contract import Provider
from hud.types import Task
from hud.wire.client import connect

ADDER = """
from hud.environment import Environment

env = Environment(name="demo")


@env.template()
async def add(a: int, b: int):
    answer = yield f"{a} + {b}?"
    yield 1.0 if str(answer) == str(a + b) else 0.0
"""

TELLER = """
import os
from pathlib import Path
from hud.environment import Environment

env = Environment(name="demo")


@env.template()
async def tell(what: str = ""):
    answer = yield str(eval(what))
    yield 1.0
"""
"""Its task answers with the value of an expression, in the rollout's own process."""


class Project:
    """A folder with an `env.py`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "env.py"

    def write(self, text: str, name: str = "env.py") -> Path:
        """Write a file of the project."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    folder = tmp_path / "project"
    folder.mkdir()
    made = Project(folder)
    made.write(TELLER)
    yield made
    zygote_table.end_all()


@pytest.fixture
def adder(project: Project) -> Project:
    project.write(ADDER)
    return project


def row(task_id: str = "tell", **args: Any) -> Task:
    """Return a row of the projects above."""
    return Task(env="demo", id=task_id, args=args)


async def told(provider: Provider, expression: str) -> str:
    """Place a `TELLER` and return what `expression` is in the rollout's process."""
    async with provider(row()) as runtime, connect(runtime) as client:
        started = await client.start_task("tell", {"what": expression})
        await client.grade("")
        return str(started["prompt"])


async def eventually(holds: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Wait until `holds()` is true."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"never happened: {what}"
        await asyncio.sleep(0.01)


def descendants(pid: int | None = None) -> list[int]:
    """Return the numbers of all processes below `pid`, which is this one by default; zombies left out."""
    pid = pid or os.getpid()
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            try:
                state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
                found += [int(child)] * (state != "Z") + descendants(int(child))
            except OSError:
                continue
    return found


def running_with(marker: str) -> list[int]:
    """Return the processes of the machine with `marker` on their command line, zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if marker.encode() in line:
                found.append(int(entry.name))
    return found


def owned_folders(pid: int | None = None) -> list[Path]:
    """Return the runtime folders of process `pid`."""
    prefix = f"{pid or os.getpid():x}-"
    roots = (folders.runtime_root(), folders.upper_root())
    return [path for root in roots for path in root.iterdir() if path.name.startswith(prefix)]


@pytest.fixture
async def nothing_left(anyio_backend: str) -> AsyncIterator[None]:
    """Afterwards: no process, no folder of this test is there any more."""
    before = set(descendants())
    yield
    zygote_table.end_all()
    from hud.runtime.zygotes import reap

    def gone() -> bool:
        reap()
        return not owned_folders() and not (set(descendants()) - before)

    await eventually(gone, "nothing of the test is left")
