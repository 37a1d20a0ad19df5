"""An engine that is killed, slow, or out of something: named with a remedy, or waited for; nothing is left."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from hud.errors import HudError, RuntimeDiedError, RuntimeStartError
from hud.eval import Taskset
from hud.types import RuntimeConfig, RuntimeLimits, RuntimeResources, Task
from hud.wire.client import connect
from hud_runtime_docker.engine import Engine, EngineSlowError, EngineUnreachableError
from hud_runtime_docker.labels import OWNER
from hud_runtime_docker.runtime import DockerRuntime
from hud_runtime_docker.testing import Daemon

pytestmark = [
    pytest.mark.docker,
    pytest.mark.anyio,
    pytest.mark.timeout(600, func_only=True),
    pytest.mark.xdist_group("docker"),
    # An engine that is killed under a call leaves the SDK's connection to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
]


@pytest.fixture
def daemon(engine: Engine) -> Daemon:
    found = Daemon.behind(engine)
    if found is None:
        assert not os.environ.get("CI"), "in CI the tests start the engine themselves"
        pytest.skip("DOCKER_HOST names an engine that is not ours to kill")
    return found


async def ours(engine: Engine) -> list[Any]:
    found: list[Any] = await engine.call("containers", all=True, filters={"label": OWNER})
    return found


async def restarted(daemon: Daemon, away_s: float = 0.5) -> None:
    with anyio.CancelScope(shield=True):  # whatever fails meanwhile, other tests need it
        await anyio.to_thread.run_sync(daemon.kill)
        await anyio.sleep(away_s)
        await anyio.to_thread.run_sync(daemon.start)


@pytest.mark.slow
async def test_a_killed_engine_is_named_at_once_and_waited_for_by_the_next(
    daemon: Daemon, engine: Engine, serving_image: str
) -> None:
    place = DockerRuntime(serving_image, engine=engine)
    task = Task("boxed", "where")
    async with anyio.create_task_group() as group, place(task) as runtime, connect(runtime) as client:
        await client.start_task("where")
        group.start_soon(restarted, daemon)
        assert "went away" in await runtime.params["process"].died()
        async with place(task) as next_one, connect(next_one) as other:
            await other.start_task("where")
            assert (await other.grade("right"))["score"] == 1.0
        with pytest.raises(HudError):
            await client.grade("right")
    assert await ours(engine) == []


@pytest.mark.slow
async def test_an_engine_that_does_not_come_back_is_given_up_at_the_deadline(
    daemon: Daemon, engine: Engine, serving_image: str
) -> None:
    config = RuntimeConfig(limits=RuntimeLimits(startup_timeout_s=1.0))
    place = DockerRuntime(serving_image, engine=engine, runtime_config=config)
    await engine.call("ping")
    await anyio.to_thread.run_sync(daemon.kill)
    try:
        with pytest.raises(EngineUnreachableError, match="DOCKER_HOST"):
            await engine.call("ping")
        with pytest.raises(EngineUnreachableError, match=r"not back within 1 s"):
            async with place(Task("boxed", "where")):
                pass
    finally:
        await anyio.to_thread.run_sync(daemon.start)


@pytest.mark.slow
async def test_a_job_of_fifty_survives_its_engine_being_killed(
    daemon: Daemon, engine: Engine, serving_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = DockerRuntime(serving_image, engine=engine)
    rows = [Task("boxed", "where", {"question": str(n)}, slug=f"row-{n}") for n in range(50)]
    done = asyncio.Event()
    finished = 0

    async def agent(run: Any) -> str:
        nonlocal finished
        finished += 1
        if finished == 15:
            done.set()
        return "right"

    async def kill() -> None:
        await done.wait()
        await restarted(daemon)

    async with anyio.create_task_group() as group:
        group.start_soon(kill)
        job = await Taskset("fifty", rows).run(agent, runtime=place, max_concurrent=6)
    assert [(run.reward, run.error) for run in job.runs] == [(1.0, None)] * 50
    assert await ours(engine) == []


async def test_an_engine_that_does_not_answer_is_slow_not_absent(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        accepted: list[socket.socket] = []
        ended = threading.Event()

        def accept() -> None:
            listening.settimeout(0.05)
            while not ended.is_set():
                try:
                    accepted.append(listening.accept()[0])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            engine = Engine(f"unix://{path}", timeout_s=1)
            with pytest.raises(EngineSlowError, match=r"has not answered.*overloaded"):
                async with DockerRuntime("image", engine=engine)(Task("boxed", "where")):
                    pass
        finally:
            ended.set()
            thread.join()
            for each in accepted:
                each.close()


async def test_an_engine_out_of_addresses_says_what_to_do(engine: Engine, serving_image: str) -> None:
    pool = {"Driver": "default", "Config": [{"Subnet": "10.213.7.0/30"}]}
    await engine.call("create_network", "hud-test-tiny", ipam=pool)
    place = DockerRuntime(serving_image, engine=engine, run_args=["--network", "hud-test-tiny"])
    try:
        async with place(Task("boxed", "where")):
            with pytest.raises(RuntimeStartError, match=r"addresses.*lower max_concurrent"):
                async with place(Task("boxed", "where")):
                    pass
            assert len(await ours(engine)) == 1
    finally:
        await engine.call("remove_network", "hud-test-tiny")
    assert await ours(engine) == []


async def test_a_container_that_is_removed_from_outside_is_said_so(
    engine: Engine, serving_image: str
) -> None:
    place = DockerRuntime(serving_image, engine=engine)
    async with place(Task("boxed", "where")) as runtime, connect(runtime) as client:
        await client.start_task("where")
        await engine.call("remove_container", runtime.params["container"], force=True)
        with pytest.raises(RuntimeDiedError, match=r"removed by somebody else|signal 9"):
            await client.grade("right")


async def test_no_gpu_is_said_before_anything_is_created(engine: Engine, serving_image: str) -> None:
    config = RuntimeConfig(resources=RuntimeResources(storage_mb=64))
    place = DockerRuntime(serving_image, engine=engine, runtime_config=config)
    with pytest.raises(HudError, match="storage"):
        async with place(Task("boxed", "where")):
            pass
    assert await ours(engine) == []
