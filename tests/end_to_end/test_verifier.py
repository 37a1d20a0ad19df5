"""A verifier in another environment judges what the agent left behind, and nothing else of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from hud.eval import LocalRuntime, Run, Task, Taskset
from hud.eval.rollout import rollout

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(240),
    pytest.mark.skipif(sys.platform != "linux", reason="workspaces need Linux"),
]

DESK = """
from pathlib import Path

from hud.environment import Environment

env = Environment(name="desk")
workspace = env.workspace(Path(__file__).parent / "ws")


@env.template(artifacts=["report.txt", "out/**/*.csv", "linked", "pipe"])
async def write():
    yield "Write a report."
    yield 0.5


@env.template()
async def plain():
    yield "Write nothing."
    yield 0.5
"""

COURT = """
from pathlib import Path

from hud.environment import Environment
from hud.graders import BashGrader

env = Environment(name="court")
workspace = env.workspace(Path(__file__).parent / "ws")


@env.template()
async def judge():
    frame = yield "(nobody reads this)"
    listed = await workspace.run("find . ! -type d | sort; cat report.txt")
    result = await BashGrader.grade(weight=1.0, command="test -f report.txt && grep -q good report.txt")
    yield {"score": result.value, "content": listed.stdout, "info": {"first": frame["score"]}}


@env.template()
async def broken():
    yield "(nobody reads this)"
    raise RuntimeError("the court is closed")
"""

MUTE = """
from hud.environment import Environment

env = Environment(name="mute")


@env.template()
async def judge():
    frame = yield "(nobody reads this)"
    yield frame["score"]
"""


async def agent(run: Run) -> str:
    shell = await run.client.open("ssh")
    script = (
        "mkdir -p out/deep; echo good > report.txt; echo 1,2 > out/deep/a.csv; echo no > out/a.txt; "
        "ln -s /etc/passwd linked; mkfifo pipe; "
        "(sleep 0.2; while true; do echo bad > report.txt; sleep 0.05; done) > /dev/null 2>&1 &"
    )
    await shell.run(script, check=True)
    return "done"


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for name, text in (("desk", DESK), ("court", COURT), ("mute", MUTE)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "env.py").write_text(text, encoding="utf-8")
        found[name] = folder / "env.py"
    return found


def row(sources: dict[str, Path], verifier: Task, task_id: str = "write") -> Task:
    return Task(env="desk", id=task_id, verifier=verifier, source=sources["desk"])


def calls(run: Run) -> list[tuple[str, str]]:
    return [(s.task_call.phase, s.task_call.name) for s in run.trace.steps if s.task_call]


@pytest.mark.slow
@pytest.mark.parametrize("given", [True, False])
async def test_artefacts_are_judged_elsewhere_once_the_agent_is_gone(
    sources: dict[str, Path], given: bool
) -> None:
    task = row(sources, Task(env="court", id="judge", source=sources["court"]))
    run = await rollout(task, agent, runtime=LocalRuntime(sources["desk"]) if given else None)
    assert run.error is None
    assert run.reward in (0.0, 1.0)
    listed = str(run.evaluation["content"]).splitlines()
    assert listed[:2] == ["./out/deep/a.csv", "./report.txt"]
    assert len(listed) == 3, "nothing else was carried"
    assert run.evaluation["info"]["first"] == 0.5
    carried: Any = run.trace.extra["artifacts"]
    assert carried["files"] == 2
    assert set(carried["refused"]) == {"linked", "pipe"}
    assert calls(run) == [("setup", "write"), ("evaluate", "write"), ("evaluate", "judge")]
    told = [phase for phase in run.phases_s if phase.startswith("verifier.")]
    assert told == [
        "verifier.carry",
        "verifier.place",
        "verifier.connect",
        "verifier.start",
        "verifier.grade",
    ]
    assert list(run.phases_s)[-1] == "release"


@pytest.mark.slow
async def test_a_task_without_artefacts_needs_no_workspace_of_its_verifier(sources: dict[str, Path]) -> None:
    task = row(sources, Task(env="mute", id="judge", source=sources["mute"]), "plain")
    run = await rollout(task, agent)
    assert run.error is None
    assert run.reward == 0.5


@pytest.mark.slow
async def test_artefacts_that_cannot_be_put_anywhere_are_a_typed_error(sources: dict[str, Path]) -> None:
    run = await rollout(row(sources, Task(env="mute", id="judge", source=sources["mute"])), agent)
    assert run.reward is None
    assert run.failure is not None
    assert run.failure.type == "UnsupportedConfigError"
    assert "has no shell to carry artefacts into" in run.failure.message


@pytest.mark.slow
async def test_a_verifier_that_raises_leaves_no_reward_and_nothing_behind(sources: dict[str, Path]) -> None:
    run = await rollout(row(sources, Task(env="court", id="broken", source=sources["court"])), agent)
    assert run.reward is None
    assert run.failure is not None
    assert (run.failure.kind, run.failure.phase) == ("task", "grade")
    assert "the court is closed" in run.failure.message


async def test_a_circle_of_verifiers_is_refused_before_anything_starts(sources: dict[str, Path]) -> None:
    task = row(sources, Task(env="court", id="judge", source=sources["court"]))
    assert task.verifier is not None
    task.verifier.verifier = task
    with pytest.raises(ValueError, match="has a verifier of its own"):
        await Taskset("circle", [task]).run(agent, jobs_dir=False)
