"""Many lives of a workspace leave nothing behind in the process that serves them."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest

from hud_capability_ssh.client import SSHClient
from hud_capability_ssh.workspace import Workspace

pytestmark = [pytest.mark.anyio, pytest.mark.sandbox, pytest.mark.slow]


async def live(root: Path, *, graded: bool, kept: bool) -> None:
    """Do a bit of everything, end some of it midway, and stop."""
    workspace = Workspace(root)
    (capability,) = await workspace.start()
    client = await SSHClient.connect(capability)
    session = await client.session()
    await session.run("sleep 100 & echo hi")
    await client.write_text("a", "b")
    await client.run("sleep 50 & true")
    await workspace.launch("sleep 1000", service=True)
    cancelled = asyncio.ensure_future(client.run("sleep 1000"))
    await client.run("until pgrep -x sleep > /dev/null; do :; done")
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    async with workspace.shell() as shell:
        await (await shell.session()).run("echo 1")
    if graded:
        await workspace.seal(keep_agent_processes=kept)
        await workspace.grading_run("true")
    await client.close()
    await workspace.stop()


def children() -> set[str]:
    """Return the ids of this process's children, ended ones that nobody waited for included."""
    return {
        pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()
    }


async def test_no_descriptor_task_or_process_is_left(tmp_path: Path) -> None:
    async def once(number: int) -> tuple[int, int]:
        await live(tmp_path / f"ws{number % 3}", graded=number % 2 == 1, kept=number % 4 == 1)
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir())), len(asyncio.all_tasks())

    before = children()
    first = await once(0)
    for number in range(1, 9):
        assert await once(number) == first
    assert children() <= before
