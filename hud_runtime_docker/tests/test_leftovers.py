"""What a killed or interrupted orchestrator leaves of containers: nothing, and nobody else's is touched."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import docker.errors
import pytest

from hud.runtime.ledger import Ledger, ledger_folder
from hud.runtime.reaper import reap
from hud.types import Task
from hud_runtime_docker.engine import Engine
from hud_runtime_docker.labels import OWNER
from hud_runtime_docker.runtime import DockerRuntime

pytestmark = [
    pytest.mark.docker,
    pytest.mark.anyio,
    pytest.mark.timeout(300, func_only=True),
    pytest.mark.xdist_group("docker"),
]

ENV = """
import asyncio
from hud.environment import Environment

env = Environment("boxed")


@env.template()
async def hangs():
    await asyncio.sleep(600)
    yield "never"
    yield 1.0
"""
GONE_WITHIN_S = 120


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose rows hang, and a ledger of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "env.py").write_text(ENV)
    return tmp_path


Orchestrate = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def orchestrate(project: Path, engine: Engine, foreign_image: str) -> Iterator[Orchestrate]:
    """Return what starts a job in a process of its own, with its log beside the project; none outlives the test."""
    program = (
        "import asyncio, sys\n"
        "from hud.agents import create_agent\n"
        "from hud.eval import DockerRuntime, Task, Taskset\n"
        "image, source, engine = sys.argv[1:]\n"
        "place = DockerRuntime(image, source=source, engine=engine, distributions=())\n"
        "rows = Taskset('hanging', [Task('boxed', 'hangs', slug=f'left-{n}') for n in range(2)])\n"
        "asyncio.run(rows.run(create_agent('noop'), runtime=place))\n"
    )
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        with (project / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", program, foreign_image, str(project / "env.py"), engine.base_url],
                cwd=project,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


class Events:
    """The engine's own account of containers that start and are removed, none missed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._told: set[tuple[str, str, int]] = set()

    async def next(self, action: str, count: int) -> list[dict[str, Any]]:
        """Return the labels and names of the next `count` events of one action, of the job's containers alone."""
        assert self._process.stdout is not None
        found: list[dict[str, Any]] = []
        with anyio.fail_after(GONE_WITHIN_S):
            while len(found) < count:
                event = json.loads(await self._process.stdout.readline())
                told = (event["Action"], event["Actor"]["ID"], event["timeNano"])
                if told in self._told:
                    continue  # what happens while `--since` is replayed is told twice
                self._told.add(told)
                ours = event["Actor"]["Attributes"].get("hud.task", "").startswith("left-")
                if ours and event["Action"] == action:
                    found.append(event["Actor"]["Attributes"])
        return found


@pytest.fixture
async def events(engine: Engine) -> AsyncIterator[Events]:
    words = ["--since", str(int(time.time())), "--filter", f"label={OWNER}", "--format", "{{json .}}"]
    process = await asyncio.create_subprocess_exec(
        "docker", "-H", engine.base_url, "events", *words, stdout=asyncio.subprocess.PIPE
    )
    yield Events(process)
    process.terminate()
    await process.communicate()


async def ours(engine: Engine) -> list[Any]:
    found: list[Any] = await engine.call("containers", all=True, filters={"label": OWNER})
    return found


async def test_the_watchdog_removes_what_a_killed_orchestrator_left(
    engine: Engine, foreign_image: str, project: Path, events: Events, orchestrate: Orchestrate
) -> None:
    beside = DockerRuntime(foreign_image, source=project / "env.py", engine=engine, distributions=())
    async with beside(Task("boxed", "hangs")) as at:
        process = orchestrate()
        started = await events.next("start", 2)
        assert {labels["hud.task"] for labels in started} == {"left-0", "left-1"}
        assert len({labels["hud.job"] for labels in started}) == 1
        assert len({labels["hud.run"] for labels in started}) == 2
        process.kill()
        process.wait()
        gone = await events.next("destroy", 2)
        assert {labels["name"] for labels in gone} == {labels["name"] for labels in started}
        left = await ours(engine)
        assert [container["Names"] for container in left] == [[f"/{at.params['container']}"]]
    assert await ours(engine) == []


@pytest.mark.slow
async def test_an_interrupted_orchestrator_leaves_nothing(
    engine: Engine, events: Events, orchestrate: Orchestrate
) -> None:
    process = orchestrate()
    await events.next("start", 2)
    os.kill(process.pid, signal.SIGINT)
    await events.next("destroy", 2)
    assert await anyio.to_thread.run_sync(process.wait, 60) != 0
    assert await ours(engine) == []


async def intended_by_a_dead_owner(engine: Engine, name: str) -> str:
    """Write an intent as a process would that is gone now; return its owner's record."""
    program = (
        "import sys\n"
        "from hud.runtime.ledger import ledger\n"
        "ledger().intend('docker', sys.argv[1], detail={'engine': sys.argv[2]})\n"
        "print(ledger().owner, flush=True)\n"
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = await anyio.run_process([sys.executable, "-c", program, name, engine.base_url], check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.stdout.decode().strip()


async def made(engine: Engine, image: str, name: str, owner: str) -> None:
    await engine.call("create_container", image, ["/bin/true"], name=name, labels={OWNER: owner})


async def test_the_next_start_removes_what_no_watchdog_did(
    engine: Engine, foreign_image: str, project: Path
) -> None:
    owner = await intended_by_a_dead_owner(engine, "hud-test-left")
    await made(engine, foreign_image, "hud-test-left", owner)
    told = await reap()
    assert [(r.entry.name, r.outcome) for r in told if r.entry.kind == "docker"] == [
        ("hud-test-left", "removed")
    ]
    with pytest.raises(docker.errors.NotFound):
        await engine.call("inspect_container", "hud-test-left")


async def test_a_container_of_that_name_that_is_another_s_stays(
    engine: Engine, foreign_image: str, project: Path
) -> None:
    await intended_by_a_dead_owner(engine, "hud-test-other")
    await made(engine, foreign_image, "hud-test-other", "somebody else")
    try:
        (result,) = await reap()
        assert (result.outcome, "another's" in result.note) == ("gone", True)
        await engine.call("inspect_container", "hud-test-other")
    finally:
        await engine.call("remove_container", "hud-test-other", force=True)


async def test_networks_and_volumes_go_with_the_containers(
    engine: Engine, foreign_image: str, project: Path
) -> None:
    owner = await intended_by_a_dead_owner(engine, "hud-test-whole")
    await made(engine, foreign_image, "hud-test-whole", owner)
    await engine.call("create_network", "hud-test-net", labels={OWNER: owner})
    await engine.call("create_volume", "hud-test-vol", labels={OWNER: owner})
    await reap()
    chosen = {"label": OWNER}
    assert await engine.call("networks", filters=chosen) == []
    assert not (await engine.call("volumes", filters=chosen))["Volumes"]
    assert await ours(engine) == []


async def test_an_engine_that_is_away_keeps_the_entry_and_one_that_is_gone_does_not(project: Path) -> None:
    here = Engine(f"unix://{project}/docker.sock")
    await intended_by_a_dead_owner(here, "hud-test-away")
    (result,) = await reap()
    assert result.outcome == "failed"
    assert "no Docker engine answers" in result.note
    nowhere = Engine(f"unix://{project}/gone/docker.sock")
    await intended_by_a_dead_owner(nowhere, "hud-test-gone")
    told = {result.entry.name: result.outcome for result in await reap()}
    assert told == {"hud-test-away": "failed", "hud-test-gone": "gone"}


async def test_what_a_live_owner_made_is_never_touched(
    engine: Engine, foreign_image: str, project: Path
) -> None:
    own = Ledger(ledger_folder())
    own.intend("docker", "hud-test-mine", detail={"engine": engine.base_url})
    assert [
        line
        for line in own.path.read_text().splitlines()
        if line and json.loads(line)["name"] == "hud-test-mine"
    ]
    await made(engine, foreign_image, "hud-test-mine", own.owner)
    try:
        assert await reap() == []
        await engine.call("inspect_container", "hud-test-mine")
    finally:
        await engine.call("remove_container", "hud-test-mine", force=True)
        own._let_go()


@pytest.mark.slow
async def test_cancelling_a_task_at_any_step_leaves_nothing(engine: Engine, serving_image: str) -> None:
    """With `Task.cancel`, which no scope shields from, at many points of a placement."""
    place = DockerRuntime(serving_image, engine=engine)

    async def placed() -> None:
        async with place(Task("boxed", "where")):
            await asyncio.Event().wait()

    for step in range(16):
        task = asyncio.create_task(placed())
        await asyncio.wait([task], timeout=0.05 * step)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task.exception()
        assert await ours(engine) == [], f"at {0.05 * step:g} s"
