"""A verifier in a container of its own judges what was made in another."""

from __future__ import annotations

from pathlib import Path

import pytest

from hud.eval import Run, Task
from hud.eval.rollout import rollout
from hud.types import RuntimeConfig
from hud_runtime_docker.build import SCRATCH, BuildRequest, build
from hud_runtime_docker.engine import Engine
from hud_runtime_docker.runtime import DockerRuntime

pytestmark = [
    pytest.mark.docker,
    pytest.mark.anyio,
    pytest.mark.timeout(300, func_only=True),
    pytest.mark.xdist_group("docker"),
]

DESK = """
from pathlib import Path

from hud.environment import Environment

env = Environment(name="desk")
workspace = env.workspace(Path(__file__).parent / "ws")


@env.template(artifacts=["out"])
async def write():
    yield "Write out/report.txt."
    yield 0.0
"""

COURT = """
from pathlib import Path

from hud.environment import Environment

env = Environment(name="court")
workspace = env.workspace(Path(__file__).parent / "ws")


@env.template()
async def judge():
    yield "(nobody reads this)"
    told = await workspace.run("cat out/report.txt")
    yield 1.0 if told.stdout == "good" else 0.0
"""


async def agent(run: Run) -> None:
    shell = await run.client.open("ssh")
    await shell.write_text("out/report.txt", "good")


async def test_artefacts_go_from_one_container_to_another(engine: Engine, tmp_path: Path) -> None:
    images = {}
    for name, text in (("desk", DESK), ("court", COURT)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "env.py").write_text(text, encoding="utf-8")
        images[name] = (await build(engine, BuildRequest(folder, base=SCRATCH), lambda _: None)).id
    verifier = Task("court", "judge", runtime_config=RuntimeConfig(image=images["court"]))
    task = Task("desk", "write", runtime_config=RuntimeConfig(image=images["desk"]), verifier=verifier)
    run = await rollout(task, agent, runtime=DockerRuntime(engine=engine))
    assert run.error is None
    assert run.reward == 1.0
    assert run.trace.extra["artifacts"]["files"] == 1
    assert await engine.call("containers", all=True, filters={"label": "hud.owner"}) == []
