"""Containers on a real engine: placed, watched, gone."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import anyio
import pytest

from hud.errors import ConfigError, HudError, RuntimeDiedError, RuntimeStartError, UnsupportedConfigError
from hud.runtime.contract import Runtime
from hud.types import RuntimeConfig, RuntimeGPU, RuntimeLimits, RuntimeResources, Task
from hud.wire.client import connect
from hud_runtime_docker.engine import Engine
from hud_runtime_docker.options import DockerBindMount
from hud_runtime_docker.runtime import DockerRuntime

pytestmark = [
    pytest.mark.docker,
    pytest.mark.anyio,
    pytest.mark.timeout(300, func_only=True),
    pytest.mark.xdist_group("docker"),
]


SHELL_ENV = """
from hud.environment import Environment
from hud.graders import BashGrader

env = Environment("shelled")
workspace = env.workspace("ws")


@env.template()
async def work():
    yield "Write good into verdict."
    result = await BashGrader.grade(weight=1.0, command='[[ "$(cat verdict)" == good ]]')
    yield result.value
"""


async def left_over(engine: Engine) -> list[Any]:
    found: list[Any] = await engine.call("containers", all=True, filters={"label": "hud.owner"})
    return found


async def graded(runtime: Runtime, task: Task, answer: str) -> float:
    async with connect(runtime) as client:
        await client.start_task(task.id, task.args)
        return float((await client.grade(answer))["score"])


async def test_an_image_that_serves_is_placed_and_gone(engine: Engine, serving_image: str) -> None:
    task = Task("boxed", "where")
    async with DockerRuntime(serving_image, engine=engine)(task) as runtime:
        assert runtime.url.startswith("tcp://127.0.0.1:")
        assert await graded(runtime, task, "right") == 1.0
        assert len(await left_over(engine)) == 1
    assert await left_over(engine) == []


async def test_an_image_without_python_runs_an_environment(
    engine: Engine, foreign_image: str, source: Path
) -> None:
    task = Task("boxed", "where")
    async with DockerRuntime(foreign_image, source=source, engine=engine)(task) as runtime:
        assert await graded(runtime, task, "wrong") == 0.0
    assert await left_over(engine) == []


async def test_answers_and_keys_stay_out_of_a_copied_source(
    engine: Engine, foreign_image: str, tmp_path: Path
) -> None:
    (tmp_path / "env.py").write_text(
        "import os\nfrom hud.environment import Environment\n\nenv = Environment('boxed')\n\n\n"
        "@env.template()\nasync def where():\n    yield ' '.join(sorted(os.listdir('/hud-env')))\n    yield 1.0\n"
    )
    for name in (".env", "solutions.py", "notes.txt", "data.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".dockerignore").write_text("notes.txt\n")
    (tmp_path / "same.txt").hardlink_to(tmp_path / "data.txt")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "sock"))
    place = DockerRuntime(foreign_image, source=tmp_path, engine=engine)
    async with place(Task("boxed", "where")) as runtime, connect(runtime) as client:
        assert (await client.start_task("where"))["prompt"] == ".dockerignore data.txt env.py same.txt"


async def test_an_image_without_bash_has_a_shell_that_an_agent_knows(
    engine: Engine, foreign_image: str, tmp_path: Path
) -> None:
    (tmp_path / "env.py").write_text(SHELL_ENV)
    task = Task("shelled", "work")
    place = DockerRuntime(foreign_image, source=tmp_path, engine=engine)
    async with place(task) as runtime, connect(runtime) as client:
        await client.start_task("work")
        shell = await client.open("ssh")
        assert (await shell.run("[[ -n $BASH_VERSION ]] && busybox echo good > verdict")).exit_status == 0
        session = await shell.session()
        assert (await session.run("cd / && words=(a b); echo ${words[1]} $PWD")).stdout == "b /\n"
        assert (await client.grade("done"))["score"] == 1.0


async def test_runs_as_the_image_s_user_or_the_one_asked_for(
    engine: Engine, foreign_image: str, source: Path
) -> None:
    place = DockerRuntime(foreign_image, source=source, engine=engine, run_args=["--user", "agent"])
    async with place(Task("boxed", "where")) as runtime, connect(runtime) as client:
        assert (await client.start_task("where", {"question": "uid"}))["prompt"] == "uid: 1000"


async def test_the_control_port_asks_for_the_token(engine: Engine, serving_image: str) -> None:
    async with DockerRuntime(serving_image, engine=engine)(Task("boxed", "where")) as runtime:
        with pytest.raises(HudError, match="-32001"):
            async with connect(Runtime(runtime.url)):
                pass
        told = await engine.call("inspect_container", runtime.params["container"])
        assert runtime.params["token"] not in str(told)


async def test_a_container_that_dies_is_noticed_with_its_last_words(
    engine: Engine, serving_image: str
) -> None:
    place = DockerRuntime(serving_image, engine=engine)
    async with place(Task("boxed", "dies")) as runtime, connect(runtime) as client:
        await client.start_task("dies", {})
        with pytest.raises(RuntimeDiedError, match=r"exit status 3(.|\n)*last words"):
            await client.grade("x")
    assert await left_over(engine) == []


async def test_out_of_memory_is_said_so(engine: Engine, serving_image: str) -> None:
    config = RuntimeConfig(resources=RuntimeResources(memory_mb=128))
    task = Task("boxed", "eats", runtime_config=config)
    async with DockerRuntime(serving_image, engine=engine)(task) as runtime, connect(runtime) as client:
        await client.start_task("eats", {})
        with pytest.raises(RuntimeDiedError, match=r"out of memory.*memory_mb"):
            await client.grade("x")


async def test_a_container_lives_no_longer_than_it_may(engine: Engine, serving_image: str) -> None:
    config = RuntimeConfig(limits=RuntimeLimits(run_timeout_s=1.0))
    task = Task("boxed", "where", runtime_config=config)
    async with DockerRuntime(serving_image, engine=engine)(task) as runtime:
        assert "killed after 1 s; raise limits.run_timeout_s" in await runtime.params["process"].died()
    assert await left_over(engine) == []


async def test_a_container_that_never_serves_ends_with_its_output(engine: Engine, foreign_image: str) -> None:
    place = DockerRuntime(foreign_image, engine=engine, run_args=["--entrypoint", "/bin/hostname"])
    with pytest.raises(
        RuntimeStartError, match=r"ended before it served: exit status 0(.|\n)*env(.|\n)*source='env.py'"
    ):
        async with place(Task("boxed", "where")):
            pass
    assert await left_over(engine) == []


async def test_a_container_that_hangs_meets_its_deadline(engine: Engine, foreign_image: str) -> None:
    config = RuntimeConfig(limits=RuntimeLimits(startup_timeout_s=1.0))
    place = DockerRuntime(
        foreign_image, engine=engine, runtime_config=config, run_args=["--entrypoint", "/bin/top"]
    )
    with pytest.raises(RuntimeStartError, match="did not serve within 1 s"):
        async with place(Task("boxed", "where")):
            pass
    assert await left_over(engine) == []


async def test_a_missing_image_is_named(engine: Engine) -> None:
    with pytest.raises(RuntimeStartError, match=r"no-such-image.*docker build"):
        async with DockerRuntime("no-such-image", engine=engine)(Task("boxed", "where")):
            pass


async def test_an_absent_engine_is_named(tmp_path: Path) -> None:
    nowhere = f"unix://{tmp_path}/docker.sock"
    with pytest.raises(RuntimeStartError, match=r"no Docker engine answers at unix://.*DOCKER_HOST"):
        async with DockerRuntime("image", engine=nowhere)(Task("boxed", "where")):
            pass


async def test_asking_for_too_much_creates_nothing(engine: Engine, serving_image: str) -> None:
    place = DockerRuntime(serving_image, engine=engine)
    gpu = RuntimeConfig(resources=RuntimeResources(gpu=RuntimeGPU("H100")))
    with pytest.raises(UnsupportedConfigError, match=r"resources.gpu|gpu.type|by type"):
        async with place(Task("boxed", "where", runtime_config=gpu)):
            pass
    with pytest.raises(UnsupportedConfigError, match="names no image"):
        async with DockerRuntime(engine=engine)(Task("boxed", "where")):
            pass
    assert await left_over(engine) == []


def test_options_it_does_not_know_are_named() -> None:
    with pytest.raises(ConfigError, match=r"--privileged.*supported: --add-host"):
        DockerRuntime("image", run_args=["--privileged"])


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (["--gpus", "many"], "--gpus 'many'; write all, a count, or device=0,1"),
        (["--add-host", "side"], "--add-host 'side'; write it as NAME:ADDRESS"),
        (["--ulimit", "nofile"], "--ulimit 'nofile'; write it as nofile=1024:4096"),
    ],
)
async def test_an_option_that_cannot_be_read_says_how_to_write_it(
    engine: Engine, serving_image: str, written: list[str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        async with DockerRuntime(serving_image, engine=engine, run_args=written)(Task("boxed", "where")):
            pass


def test_no_mount_holds_the_engine_s_socket(tmp_path: Path) -> None:
    (tmp_path / "docker.sock").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "beside").mkdir()
    here = f"unix://{tmp_path}/docker.sock"
    for source in (
        "/var/run",
        "/",
        "/run/docker.sock",
        tmp_path,
        tmp_path / "link",
        tmp_path / "docker.sock",
    ):
        with pytest.raises(ConfigError, match="engine's socket is never given"):
            DockerRuntime("image", engine=here, run_args=["--volume", f"{source}:/mnt"])
        with pytest.raises(ConfigError, match="engine's socket is never given"):
            DockerRuntime("image", engine=here, bind_mounts=[DockerBindMount(str(source), "/mnt")])
    DockerRuntime("image", engine=here, run_args=["--volume", f"{tmp_path}/beside:/mnt", "-v", "named:/data"])


async def test_a_read_only_container_serves_behind_its_token(
    engine: Engine, serving_image: str, source: Path
) -> None:
    task = Task("boxed", "where")
    words = ["--read-only", "--tmpfs", "/tmp"]
    async with DockerRuntime(serving_image, engine=engine, run_args=words)(task) as runtime:
        assert (await engine.call("inspect_container", runtime.params["container"]))["HostConfig"][
            "ReadonlyRootfs"
        ]
        assert await graded(runtime, task, "right") == 1.0
        with pytest.raises(HudError, match="-32001"):
            async with connect(Runtime(runtime.url)):
                pass
    with pytest.raises(ConfigError, match=r"--read-only.*hud build"):
        async with DockerRuntime(serving_image, engine=engine, source=source, run_args=words)(task):
            pass
    assert await left_over(engine) == []


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.15, 0.3, 0.6])
async def test_cancelling_at_any_moment_leaves_nothing(
    engine: Engine, serving_image: str, after_s: float
) -> None:
    with anyio.move_on_after(after_s):
        async with DockerRuntime(serving_image, engine=engine)(Task("boxed", "where")):
            await asyncio.sleep(60)
    assert await left_over(engine) == []


async def test_is_hardened_by_default(engine: Engine, serving_image: str) -> None:
    async with DockerRuntime(serving_image, engine=engine)(Task("boxed", "where")) as runtime:
        host = (await engine.call("inspect_container", runtime.params["container"]))["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert not host["Privileged"]
    assert host["PidsLimit"] == 4096
    assert all(binding["HostIp"] == "127.0.0.1" for port in host["PortBindings"].values() for binding in port)
    assert not any("docker.sock" in bind for bind in host["Binds"] or ())


@pytest.mark.slow
async def test_thirty_two_at_once(engine: Engine, serving_image: str) -> None:
    place = DockerRuntime(serving_image, engine=engine)
    scores: list[float] = []

    async def one() -> None:
        task = Task("boxed", "where")
        async with place(task) as runtime:
            scores.append(await graded(runtime, task, "right"))

    async with anyio.create_task_group() as group:
        for _ in range(32):
            group.start_soon(one)
    assert scores == [1.0] * 32
    assert await left_over(engine) == []
