"""A fresh Python process for each rollout."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from hud.environment import Environment
from hud.errors import RuntimeDiedError, RuntimeStartError, SourceError
from hud.runtime.local import LocalRuntime
from hud.runtime.subprocess import ServerProcess, SubprocessRuntime
from hud.wire.client import connect

from .conftest import Project, eventually, row, running_with, told

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left")]


async def test_a_rollout_runs_in_a_process_started_for_it(project: Project) -> None:
    runtime = SubprocessRuntime(project.file)
    first = await told(runtime, "(os.getpid(), os.getcwd(), os.environ.get('HUD_TOKEN'))")
    assert str(project.folder) in first
    assert first.endswith("None)")


@pytest.mark.slow
async def test_provider_keys_stay_outside_unless_named(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    look = "os.environ.get('OPENAI_API_KEY')"
    assert await told(SubprocessRuntime(project.file), look) == "None"
    assert await told(SubprocessRuntime(project.file, env_vars=["OPENAI_API_KEY"]), look) == "secret"


async def test_a_module_that_cannot_be_imported_says_why(project: Project) -> None:
    project.write("raise ValueError('of the author')\n")
    with pytest.raises(RuntimeStartError, match="exited with status 2") as caught:
        async with SubprocessRuntime(project.file)(row()):
            pass
    assert "of the author" in str(caught.value)


@pytest.mark.slow
async def test_an_import_that_blocks_meets_the_deadline(project: Project) -> None:
    project.write("import time\nprint('asleep')\ntime.sleep(600)\n")
    with pytest.raises(RuntimeStartError, match="did not serve within 5 s"):
        async with SubprocessRuntime(project.file, ready_timeout=5)(row()):
            pass


async def test_its_death_is_told_with_the_last_output(project: Project) -> None:
    async with SubprocessRuntime(project.file)(row()) as placed:
        with pytest.raises(RuntimeDiedError, match=r"killed by signal 9 \(SIGKILL\)") as caught:
            async with connect(placed) as client:
                await client.start_task("tell", {"what": "(print('last words'), os.kill(os.getpid(), 9))"})
        assert "last words" in str(caught.value)
        assert isinstance(placed.params["process"], ServerProcess)


async def test_output_without_line_ends_is_no_trouble(project: Project) -> None:
    look = "(__import__('sys').stdout.write('x' * 1_000_000), 1)[1]"
    assert await told(SubprocessRuntime(project.file), look) == "1"


@pytest.mark.skipif(sys.platform != "linux", reason="kept by namespaces or a subreaper")
async def test_what_it_starts_ends_with_it(project: Project, tmp_path: Path) -> None:
    marker = f"marker-{tmp_path.name}-{os.getpid()}"
    daemon = f"__import__('subprocess').Popen(['setsid', 'sh', '-c', 'sleep 600; : {marker}']).pid"
    async with SubprocessRuntime(project.file)(row()) as placed, connect(placed) as client:
        await client.start_task("tell", {"what": daemon})
        await eventually(lambda: running_with(marker), "it runs")
    assert not running_with(marker)


async def test_systems_without_zygotes_start_a_process_instead(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hud.runtime.linux.available", lambda: False)
    async with LocalRuntime(project.file)(row()) as placed, connect(placed) as client:
        assert isinstance(placed.params["process"], ServerProcess)
        look = "open('/proc/self/cmdline').read()"
        assert "hud.environment.server" in (await client.start_task("tell", {"what": look}))["prompt"]


def test_an_environment_without_a_file_is_refused() -> None:
    env = Environment(name="live")
    env.source_file = None
    with pytest.raises(SourceError, match="declared in no file"):
        SubprocessRuntime(env)
