"""A small disk is a file system of that size where the files are thrown away anyway, and a watched folder elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import pytest

from hud.environment import load_environment
from hud.eval import LocalRuntime, Taskset

pytestmark = [pytest.mark.anyio, pytest.mark.sandbox]

ENVIRONMENT = """
from pathlib import Path
from hud.environment import Environment
from hud.graders import BashGrader

env = Environment("small")
workspace = env.workspace("ws", limits={"disk": "8m"})

@env.template()
async def fill():
    Path("ws/given").write_text("by the template")
    yield "fill"
    graded = await BashGrader.grade(command="test -s left && grep -q template given && grep -q kept kept")
    yield {"score": graded.value, "info": {"seen": Path("ws/left").stat().st_size}}
"""


@pytest.mark.slow
async def test_a_full_disk_is_an_error_of_the_program_that_writes(tmp_path: Path) -> None:
    assert await filled(tmp_path, keep=None) == ("sized" if os.geteuid() == 0 else "watched")


@pytest.mark.slow
async def test_files_that_will_be_kept_stay_where_they_are(tmp_path: Path) -> None:
    assert await filled(tmp_path, keep="all") == "watched"


async def filled(folder: Path, *, keep: Literal["all"] | None) -> str:
    """Run one rollout whose agent writes more than there is; return how the disk was held."""
    (folder / "env.py").write_text(ENVIRONMENT)
    (folder / "hud.toml").touch()
    (folder / "ws").mkdir()
    (folder / "ws" / "kept").write_text("kept since before")
    task = load_environment(str(folder / "env.py")).templates["fill"]()
    ends: list[Any] = []

    async def agent(run: Any) -> None:
        client = await run.client.open("ssh")
        if keep is None:
            ends.append(await client.run("head -c 20000000 /dev/zero > large; echo $?; rm large"))
        await client.write_text("left", "x" * 1000)

    job = await Taskset("disk", [task]).run(agent, runtime=LocalRuntime(folder / "env.py", keep=keep))
    (run,) = job.runs
    assert run.error is None
    assert run.reward == 1.0
    assert not (folder / "ws" / "left").exists(), "the project itself is as it was"
    info = run.grade.info
    assert info["seen"] == 1000
    held = str(info["workspace:shell"]["disk"])
    if held == "sized":
        assert "No space left on device" in ends[0].stderr
        assert ends[0].stdout == "1\n", "nothing was ended for it"
    return held
