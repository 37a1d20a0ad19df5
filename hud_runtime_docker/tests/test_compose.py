"""Compose projects on a real engine: services beside `main`, private to a rollout, gone with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import anyio
import pytest

from hud.errors import ConfigError, RuntimeStartError, UnsupportedConfigError
from hud.testing.runtime import MakeProvider, RuntimeContract
from hud.types import ComposeProject, RuntimeConfig, RuntimeLimits, RuntimeResources, Task
from hud.wire.client import connect
from hud_runtime_docker import compose_file
from hud_runtime_docker.compose import PROJECT
from hud_runtime_docker.engine import Engine
from hud_runtime_docker.runtime import DockerRuntime

pytestmark = [
    pytest.mark.docker,
    pytest.mark.anyio,
    pytest.mark.timeout(300, func_only=True),
    pytest.mark.xdist_group("docker"),
    pytest.mark.needs("docker"),
]

ENV = """
import os
import urllib.request

from hud.environment import Environment

env = Environment(name="front")


@env.template()
async def ask(path: str = "word"):
    with urllib.request.urlopen(f"http://side:8000/{path}", timeout=10) as reply:
        said = reply.read().decode().strip()
    yield said
    yield 1.0


@env.template()
async def variable(name: str):
    yield os.environ.get(name, "unset")
    yield 1.0
"""

COMPOSE = """
services:
  main:
    image: {image}
    environment:
      GREETING: "${{GREETING:-hello}} $$5"
    depends_on:
      side:
        condition: service_healthy
  side:
    image: {image}
    container_name: always-the-same
    ports: ["8000:8000"]
    command: ["/bin/sh", "-c", "mkdir /www; echo moon > /www/word; httpd -f -p 8000 -h /www"]
    volumes: ["kept:/data"]
    healthcheck:
      test: ["CMD", "/bin/wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8000/word"]
      interval: 1s
      retries: 20
volumes:
  kept: {{}}
"""


@pytest.fixture
def front(tmp_path: Path) -> Path:
    (tmp_path / "env.py").write_text(ENV, encoding="utf-8")
    return tmp_path / "env.py"


@pytest.fixture
def project(tmp_path: Path, foreign_image: str) -> Path:
    path = tmp_path / "compose.yaml"
    path.write_text(COMPOSE.format(image=foreign_image), encoding="utf-8")
    return path


async def left_over(engine: Engine) -> list[Any]:
    label = {"label": PROJECT}
    containers = await engine.call("containers", all=True, filters=label)
    networks = await engine.call("networks", filters=label)
    volumes = (await engine.call("volumes", filters=label))["Volumes"] or []
    return [*containers, *networks, *volumes]


def row(project: Path | dict[str, Any], **config: Any) -> Task:
    return Task("front", "ask", runtime_config=RuntimeConfig(compose=ComposeProject(project), **config))


async def test_services_are_reached_by_name_and_all_is_gone_afterwards(
    engine: Engine, front: Path, project: Path
) -> None:
    place = DockerRuntime(source=front, engine=engine)
    async with place(row(project)) as runtime, connect(runtime) as client:
        assert (await client.start_task("ask"))["prompt"] == "moon"
        assert (await client.grade(""))["score"] == 1.0
        assert (await client.start_task("variable", {"name": "GREETING"}))["prompt"] == "hello $5"
        assert (await client.start_task("variable", {"name": "HUD_TOKEN_FILE"}))["prompt"] == "unset"
        found = await engine.call("containers", all=True, filters={"label": "hud.owner"})
        assert {c["Labels"]["com.docker.compose.service"] for c in found} == {"main", "side"}
        assert len(await left_over(engine)) == 4, "two containers, a network and a volume"
    assert await left_over(engine) == []


async def test_two_rollouts_share_no_name_and_no_port(engine: Engine, front: Path, project: Path) -> None:
    place = DockerRuntime(source=front, engine=engine)
    prompts: list[str] = []

    async def one() -> None:
        async with place(row(project)) as runtime, connect(runtime) as client:
            prompts.append((await client.start_task("ask"))["prompt"])

    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(one)
    assert prompts == ["moon", "moon"]
    assert await left_over(engine) == []


async def test_main_is_held_and_its_port_is_on_loopback_alone(
    engine: Engine, front: Path, project: Path
) -> None:
    place = DockerRuntime(source=front, engine=engine)
    limits = RuntimeResources(cpu=0.5, memory_mb=256)
    async with place(row(project, resources=limits)) as runtime:
        host = (await engine.call("inspect_container", runtime.params["container"]))["HostConfig"]
        listed = await engine.call("containers", filters={"label": "hud.owner"})
    assert host["CapDrop"] == ["ALL"]
    assert any("no-new-privileges" in option for option in host["SecurityOpt"])
    assert (host["NanoCpus"], host["Memory"], host["PidsLimit"]) == (500_000_000, 256 << 20, 4096)
    published = [port for container in listed for port in container["Ports"] if port.get("PublicPort")]
    assert {port["IP"] for port in published} == {"127.0.0.1"}
    assert len(published) == 1


async def test_an_internal_network_still_lets_the_controller_in(
    engine: Engine, front: Path, foreign_image: str
) -> None:
    document = {
        "services": {"main": {"image": foreign_image}},
        "networks": {"default": {"internal": True}},
    }
    async with DockerRuntime(source=front, engine=engine)(row(document)) as runtime:
        assert not runtime.url.startswith("tcp://127.")
        async with connect(runtime) as client:
            assert (await client.start_task("variable", {"name": "nothing"}))["prompt"] == "unset"
    assert await left_over(engine) == []


async def test_a_service_that_fails_is_named_with_its_output(engine: Engine, foreign_image: str) -> None:
    failing = {"image": foreign_image, "command": ["/bin/sh", "-c", "echo no disk; exit 4"]}
    waiting = {"image": foreign_image, "depends_on": ["side"], "command": ["/bin/sh", "-c", "sleep 100"]}
    document = {"services": {"main": waiting, "side": failing}}
    slow = RuntimeLimits(startup_timeout_s=60)
    place = DockerRuntime(engine=engine)
    with pytest.raises(RuntimeStartError, match=r"'side': exit status 4(.|\n)*no disk"):
        async with place(row(document, limits=slow)):
            pass
    assert await left_over(engine) == []


async def test_an_unhealthy_service_is_named_with_what_its_check_said(
    engine: Engine, front: Path, foreign_image: str
) -> None:
    check = {"test": ["CMD-SHELL", "echo not yet; exit 1"], "interval": "1s", "retries": 1}
    side = {"image": foreign_image, "command": ["/bin/sh", "-c", "sleep 100"], "healthcheck": check}
    document = {"services": {"main": {"image": foreign_image}, "side": side}}
    with pytest.raises(RuntimeStartError, match=r"'side': unhealthy; its check said: not yet"):
        async with DockerRuntime(source=front, engine=engine)(row(document)):
            pass
    assert await left_over(engine) == []


async def test_images_of_services_are_built(engine: Engine, front: Path, foreign_image: str) -> None:
    folder = front.parent / "side"
    folder.mkdir()
    (folder / "Dockerfile").write_text(
        f"FROM {foreign_image}\nRUN mkdir /www && echo built > /www/word\n"
        'CMD ["httpd", "-f", "-p", "8000", "-h", "/www"]\n',
        encoding="utf-8",
    )
    document = {
        "services": {
            "main": {"image": foreign_image, "depends_on": ["side"]},
            "side": {"build": {"context": "./side"}},
        }
    }
    config = RuntimeConfig(compose=ComposeProject(document, root=front.parent))
    place = DockerRuntime(source=front, engine=engine)
    async with place(Task("front", "ask", runtime_config=config)) as runtime, connect(runtime) as client:
        assert (await client.start_task("ask"))["prompt"] == "built"
    assert await left_over(engine) == []


@pytest.mark.parametrize("after_s", [0.3, 1.0, 2.0])
async def test_cancelling_at_any_moment_leaves_nothing(
    engine: Engine, front: Path, project: Path, after_s: float
) -> None:
    place = DockerRuntime(source=front, engine=engine)
    await place.prepare(row(project))
    with anyio.move_on_after(after_s):
        async with place(row(project)):
            await asyncio.sleep(60)
    assert await left_over(engine) == []


@pytest.mark.slow
class TestComposeProjects(RuntimeContract):
    """A project per rollout keeps the public contract of a runtime."""

    features = DockerRuntime.features
    ready_timeout = 240.0
    deadline_s = 280.0
    at_once = 4  # each has a network, and an engine has addresses for about 30

    @pytest.fixture
    def make_provider(self, engine: Engine, foreign_image: str) -> MakeProvider:
        self.engine = engine
        compose = ComposeProject({"services": {"main": {"image": foreign_image}}})
        config = RuntimeConfig(compose=compose)
        return lambda source: DockerRuntime(source=source, engine=engine, runtime_config=config)

    def leftovers(self) -> Collection[str]:
        label = {"label": PROJECT}
        api = self.engine.api
        parts = [*api.containers(all=True, filters=label), *api.networks(filters=label)]
        return [str(part["Id"]) for part in parts]


async def refused(engine: Engine, document: Path | dict[str, Any]) -> None:
    async with DockerRuntime(engine=engine)(row(document)):
        pass


async def test_what_cannot_be_a_project_is_refused_before_anything_is_made(
    engine: Engine, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        await refused(engine, tmp_path / "compose.yaml")
    with pytest.raises(ConfigError, match="no service 'main'"):
        await refused(engine, {"services": {"web": {"image": "acme"}}})
    socket = "/var/run/docker.sock:/var/run/docker.sock"
    with pytest.raises(ConfigError, match="engine's socket"):
        await refused(engine, {"services": {"main": {"image": "acme", "volumes": [socket]}}})
    with pytest.raises(ConfigError, match="engine's socket"):
        await refused(engine, {"services": {"main": {"image": "acme", "volumes": ["/var/run:/host"]}}})
    with pytest.raises(ConfigError, match="'main' is privileged"):
        await refused(engine, {"services": {"main": {"image": "acme", "privileged": True}}})
    with pytest.raises(ConfigError, match=r"(?i)unsupported|additional propert"):
        await refused(engine, {"services": {"main": {"image": "acme", "imagee": "acme"}}})
    config = RuntimeConfig(compose=ComposeProject({"services": {}}, service_access=True))
    with pytest.raises(UnsupportedConfigError, match="service_access"):
        async with DockerRuntime(engine=engine)(Task("front", "ask", runtime_config=config)):
            pass
    assert await left_over(engine) == []


def test_a_missing_tool_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compose_file.tool.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedConfigError, match="install docker-compose"):
        compose_file.tool()
    compose_file.tool.cache_clear()


def test_the_plugin_of_the_docker_command_is_preferred(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    program.chmod(0o755)
    compose_file.tool.cache_clear()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert compose_file.tool() == (str(program), "compose")
    compose_file.tool.cache_clear()


def test_what_two_rollouts_cannot_share_is_taken_out() -> None:
    content = {
        "version": "3.9",
        "name": "fixed",
        "services": {
            "main": {"image": "a", "environment": ["A=1"], "labels": ["x=y"]},
            "side": {"build": ".", "container_name": "fixed", "ports": ["8000:80/tcp"], "restart": "always"},
        },
        "volumes": {"kept": {"name": "fixed"}, "shared": {"external": True, "name": "theirs"}},
    }
    document = compose_file.Document(content, Path(), "0" * 64)
    made = compose_file.private(document, {"hud.owner": "me"}, {"environment": {"B": "2"}, "ports": ["p"]})
    side, main = made["services"]["side"], made["services"]["main"]
    assert "container_name" not in side
    assert "ports" not in side
    assert side["expose"] == ["80"]
    assert side["image"] == "hud-compose/000000000000:side"
    assert main["environment"] == {"A": "1", "B": "2"}
    assert main["labels"] == {"x": "y", "hud.owner": "me"}
    assert made["volumes"] == {
        "kept": {"labels": {"hud.owner": "me"}},
        "shared": {"external": True, "name": "theirs"},
    }
    assert "version" not in made
    assert json.dumps(content).count("fixed") == 3, "the document itself stays as it was"
