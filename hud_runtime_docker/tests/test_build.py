"""`hud build` on a real engine, and what it decides without one."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hud.errors import ConfigError, SourceError, SourceNotFoundError, UnsupportedConfigError
from hud.types import Task
from hud.wire.client import connect
from hud_runtime_docker import dockerfile, manifest, requirements
from hud_runtime_docker.build import SCRATCH, BuildError, BuildRequest, BuiltImage, build, plan
from hud_runtime_docker.buildkit import check_secret
from hud_runtime_docker.context import BuildContext
from hud_runtime_docker.engine import Engine, EngineUnreachableError
from hud_runtime_docker.runtime import DockerRuntime

on_an_engine = [
    pytest.mark.docker,
    pytest.mark.anyio,
    pytest.mark.timeout(300, func_only=True),
    pytest.mark.xdist_group("docker"),
]

ENV = """
from pathlib import Path

from hud.environment import Environment

env = Environment(name="built", version="1.2.3")


@env.template(description="Say the word.")
async def say(word: str = "moon"):
    answer = yield (Path(__file__).parent / "prompt.txt").read_text().strip()
    yield 1.0 if answer == word else 0.0
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "env.py").write_text(ENV, encoding="utf-8")
    (folder / "prompt.txt").write_text("Say it.\n", encoding="utf-8")
    (folder / "solutions.py").write_text("from env import say\n", encoding="utf-8")
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("a", encoding="utf-8")
    (folder / ".dockerignore").write_text("notes\n# a comment\n", encoding="utf-8")
    return folder


def ignore(_: str) -> None:
    pass


async def built(engine: Engine, project: Path, **options: Any) -> BuiltImage:
    return await build(engine, BuildRequest(project, base=SCRATCH, **options), ignore)


class TestOnAnEngine:
    pytestmark = on_an_engine

    async def test_an_image_serves_and_says_what(self, engine: Engine, project: Path) -> None:
        said: list[str] = []
        image = await build(engine, BuildRequest(project, base=SCRATCH), said.append)
        assert image.tags == ("built:latest",)
        assert not image.reused
        assert any(line.startswith("Step ") for line in said)
        labels = (await engine.call("inspect_image", "built"))["Config"]["Labels"]
        told = json.loads(labels[manifest.MANIFEST])
        assert told["env"] == {"name": "built", "version": "1.2.3"}
        assert [entry["id"] for entry in told["tasks"]] == ["say"]
        assert told["tasks"][0]["args"]["properties"]["word"]["default"] == "moon"
        async with (
            DockerRuntime("built", engine=engine)(Task("built", "say")) as runtime,
            connect(runtime) as client,
        ):
            assert (await client.start_task("say"))["prompt"] == "Say it."

    async def test_the_same_content_is_built_once_and_a_change_again(
        self, engine: Engine, project: Path, foreign_image: str
    ) -> None:
        (project / "Dockerfile.hud").write_text(f"FROM {foreign_image}\nCOPY . /app/\n", encoding="utf-8")

        async def made(tag: str) -> BuiltImage:
            return await build(engine, BuildRequest(project, check=False, tags=(tag,)), ignore)

        first = await made("same:1")
        os.utime(project / "prompt.txt", (1, 1))
        again = await made("same:2")
        assert again.reused
        assert again.id == first.id
        (project / "prompt.txt").write_text("Say something else.\n", encoding="utf-8")
        changed = await made("same:2")
        assert not changed.reused
        assert changed.id != first.id

    async def test_the_image_holds_no_answers_and_nothing_ignored_but_bytecode(
        self, engine: Engine, project: Path
    ) -> None:
        image = await built(engine, project)
        listed = files_of(engine, image.id)
        assert {"app/env.py", "app/prompt.txt"} <= listed
        assert any(name.startswith("app/__pycache__/env.") for name in listed)
        assert not [name for name in listed if "solutions" in name or "notes" in name]

    async def test_a_row_the_image_does_not_serve_is_refused_before_anything_is_made(
        self, engine: Engine, project: Path
    ) -> None:
        image = await built(engine, project)
        for row, words in (
            (Task("built", "sing"), r"has no task 'sing'; it has say"),
            (Task("other", "say"), r"serves environment 'built', not 'other'"),
        ):
            with pytest.raises(UnsupportedConfigError, match=words):
                async with DockerRuntime(image.id, engine=engine)(row):
                    pass

    async def test_a_row_without_an_image_is_built_and_again_when_its_source_is_newer(
        self, engine: Engine, project: Path
    ) -> None:
        place = DockerRuntime(engine=engine, base=SCRATCH)
        task = Task("built", "say", source=project / "env.py")

        async def prompt() -> str:
            async with place:
                await place.prepare(task)
                async with place(task) as runtime, connect(runtime) as client:
                    return str((await client.start_task("say"))["prompt"])

        assert await prompt() == "Say it."
        (project / "prompt.txt").write_text("Newer.\n", encoding="utf-8")
        assert await prompt() == "Newer."

    async def test_an_image_that_does_not_serve_is_an_error_with_its_output(
        self, engine: Engine, project: Path
    ) -> None:
        (project / "env.py").write_text(ENV + "\nraise RuntimeError('no such engine')\n", encoding="utf-8")
        with pytest.raises(BuildError, match=r"does not serve(.|\n)*no such engine"):
            await built(engine, project)
        unchecked = await built(engine, project, check=False)
        assert unchecked.manifest is None

    async def test_its_own_dockerfile_is_used_with_its_arguments(
        self, engine: Engine, project: Path, foreign_image: str
    ) -> None:
        (project / "Dockerfile.hud").write_text(
            f"FROM {foreign_image}\nARG WORD\nRUN echo said $WORD && echo $WORD > /word\nCOPY . /app/\n",
            encoding="utf-8",
        )
        said: list[str] = []
        request = BuildRequest(project, build_args={"WORD": "moon"}, check=False, tags=("own:1",))
        image = await build(engine, request, said.append)
        assert "said moon" in said
        listed = files_of(engine, image.id)
        assert {"word", "app/env.py"} <= listed
        assert "app/solutions.py" not in listed

    async def test_a_step_that_fails_is_told_with_its_output(
        self, engine: Engine, project: Path, foreign_image: str
    ) -> None:
        (project / "Dockerfile.hud").write_text(
            f"FROM {foreign_image}\nRUN echo half way; exit 3\n", encoding="utf-8"
        )
        with pytest.raises(BuildError, match=r"code: 3(.|\n)*half way"):
            await build(engine, BuildRequest(project), ignore)

    async def test_a_base_that_cannot_be_had_names_what_can(self, engine: Engine, project: Path) -> None:
        with pytest.raises(BuildError, match="--base scratch"):
            await build(engine, BuildRequest(project, base="localhost:1/none"), ignore)


def files_of(engine: Engine, image: str) -> set[str]:
    container = engine.api.create_container(image, command=["none"])["Id"]
    try:
        content = io.BytesIO(b"".join(engine.api.export(container)))
    finally:
        engine.api.remove_container(container)
    with tarfile.open(fileobj=content) as tar:
        return {entry.name.removeprefix("./") for entry in tar.getmembers()}


def test_the_generated_dockerfile_puts_what_changes_least_first(project: Path) -> None:
    (project / "requirements.txt").write_text("hud-core\n", encoding="utf-8")
    planned = plan(BuildRequest(project))
    steps = [line.split(" ")[0] for line in planned.text.splitlines()]
    text = planned.text
    assert steps[0] == "FROM"
    assert (
        text.index("pip install") < text.index("COPY --chown") < text.index("compileall") < text.index("USER")
    )
    assert "bubblewrap" not in text
    assert planned.generated


def test_a_shell_and_packages_txt_bring_system_packages(project: Path) -> None:
    (project / "requirements.txt").write_text("hud-core[ssh]\n", encoding="utf-8")
    (project / "packages.txt").write_text("ffmpeg\ngit\n", encoding="utf-8")
    assert "ffmpeg git bash bubblewrap" in plan(BuildRequest(project)).text


@pytest.mark.slow
def test_a_runtime_serves_one_event_loop_after_another(tmp_path: Path) -> None:
    (tmp_path / "env.py").write_text("nothing = 1\n", encoding="utf-8")
    place = DockerRuntime(source=tmp_path, engine=f"unix://{tmp_path}/nowhere.sock")

    async def prepared() -> set[type]:
        async with place:
            asked = (place.prepare(Task("boxed", "where")) for _ in range(3))
            return {type(error) for error in await asyncio.gather(*asked, return_exceptions=True)}

    assert [asyncio.run(prepared()) for _ in range(2)] == [{EngineUnreachableError}] * 2


@pytest.mark.slow
def test_the_digest_tells_content_base_and_arguments_apart(project: Path) -> None:
    def digest(**options: Any) -> str:
        return plan(BuildRequest(project, **options)).digest

    first = digest()
    assert digest() == first
    assert digest(base="debian:12") != first
    assert digest(build_args={"A": "1"}) != first
    assert plan(BuildRequest(project, base="debian:12")).project == plan(BuildRequest(project)).project
    (project / "notes" / "a.txt").write_text("ignored", encoding="utf-8")
    assert digest() == first
    (project / "env.py").write_text(ENV + "\n", encoding="utf-8")
    assert digest() != first


def test_what_dockerignore_says_is_left_out_and_can_bring_back(project: Path) -> None:
    assert BuildContext.of(project).files == [".dockerignore", "env.py", "prompt.txt"]
    (project / ".dockerignore").write_text("!solutions.py\n*.txt\n!prompt.txt\n", encoding="utf-8")
    found = BuildContext.of(project).files
    assert "solutions.py" in found
    assert "prompt.txt" in found
    (project / "Dockerfile.hud.dockerignore").write_text("env.py\n", encoding="utf-8")
    assert "env.py" not in BuildContext.of(project, ignore="Dockerfile.hud").files


def test_requirements_come_from_a_file_a_project_or_the_imports(tmp_path: Path) -> None:
    (tmp_path / "env.py").write_text(
        "import click\nimport json\nimport beside\nfrom hud.environment import Environment\n",
        encoding="utf-8",
    )
    (tmp_path / "beside.py").write_text("import docker\n", encoding="utf-8")
    found = {line.partition("==")[0] for line in requirements.requirements_of(tmp_path)}
    assert {"click", "docker", "hud-core"} <= found
    assert "json" not in found
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\ndependencies = ["hud-core[ssh]", "rich>=13"]\n', encoding="utf-8"
    )
    assert requirements.requirements_of(tmp_path)[:2] == ["hud-core[ssh]", "rich>=13"]
    (tmp_path / "requirements.txt").write_text("# what\nclick>=8\n-f wheels\n", encoding="utf-8")
    assert requirements.requirements_of(tmp_path)[:2] == ["click>=8", "-f wheels"]


def test_a_folder_without_an_environment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="declares no Environment"):
        plan(BuildRequest(tmp_path))
    with pytest.raises(SourceNotFoundError, match=r"has no Dockerfile\.other"):
        plan(BuildRequest(tmp_path, dockerfile="Dockerfile.other"))


def test_secrets_are_checked_before_anything_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOKEN", "x")
    (tmp_path / "file").touch()
    check_secret("id=token,env=TOKEN")
    check_secret(f"id=token,src={tmp_path}/file")
    for words, complaint in (
        ("token", "write id=NAME"),
        ("id=token,env=ABSENT_HERE", "ABSENT_HERE is not set"),
        (f"id=token,src={tmp_path}/none", "there is no file"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            check_secret(words)


def test_what_only_buildkit_can_do_is_seen() -> None:
    assert dockerfile.wants_buildkit("FROM a\nRUN --mount=type=secret,id=x cat /run/secrets/x\n") is not None
    assert dockerfile.wants_buildkit("# syntax=docker/dockerfile:1\nFROM a\n") is not None
    assert dockerfile.wants_buildkit("FROM a\nRUN echo\n") is None


@pytest.fixture
def docker_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a `docker` that runs `script` first on the path; what it was called with is in the file returned."""

    def install(script: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        calls = tmp_path / "calls"
        program = folder / "docker"
        program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n{script}\n', encoding="utf-8")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return calls

    return install


@pytest.mark.anyio
async def test_a_secret_goes_to_buildx_and_never_on_a_command_line(
    project: Path, docker_command: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "Dockerfile.hud").write_text("FROM scratch\n", encoding="utf-8")
    monkeypatch.setenv("TOKEN", "very-secret")
    calls = docker_command('case "$*" in *--iidfile*) cat > /dev/null; echo "#1 said"; exit 7;; esac; exit 0')
    said: list[str] = []
    request = BuildRequest(project, secrets=("id=token,env=TOKEN",), no_cache=True)
    with pytest.raises(BuildError, match=r"status 7(.|\n)*#1 said"):
        await build(Engine("unix:///nowhere"), request, said.append)
    called = calls.read_text(encoding="utf-8")
    assert "--secret id=token,env=TOKEN" in called
    assert "very-secret" not in called
    assert "#1 said" in said


@pytest.mark.anyio
async def test_without_buildkit_a_secret_is_refused_with_what_to_do(
    project: Path, docker_command: Callable[[str], Path]
) -> None:
    (project / "Dockerfile.hud").write_text("FROM scratch\n", encoding="utf-8")
    docker_command("exit 1")
    request = BuildRequest(project, secrets=("id=token,env=PATH",), no_cache=True)
    with pytest.raises(UnsupportedConfigError, match="docker-buildx-plugin"):
        await build(Engine("unix:///nowhere"), request, ignore)


def hud(*words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hud.cli.main", *words],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.slow
def test_the_command_prints_what_it_would_build(project: Path) -> None:
    done = hud("build", "--print", ".", cwd=project)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("FROM python:3.12-slim\n")
    told = json.loads(hud("build", "--print", "--json", "--base", "scratch", cwd=project).stdout)
    assert told["files"] == [".dockerignore", "env.py", "prompt.txt"]
    assert told["generated"]


@pytest.mark.slow
def test_the_command_says_in_one_line_that_no_engine_answers(project: Path) -> None:
    done = hud("build", ".", cwd=project, DOCKER_HOST=f"unix://{project}/none.sock")
    assert done.returncode == 1
    assert "no Docker engine answers" in done.stderr
    assert "Traceback" not in done.stderr
    wrong = hud("build", "--build-arg", "WORD", cwd=project)
    assert wrong.returncode == 2
    assert "write NAME=VALUE" in wrong.stderr
