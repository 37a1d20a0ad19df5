"""The same runtime through Podman's API: an optional engine, passed over where it is absent but in CI."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hud.errors import HudError, RuntimeDiedError
from hud.types import Task
from hud.wire.client import connect
from hud_runtime_docker.engine import Engine
from hud_runtime_docker.labels import OWNER
from hud_runtime_docker.runtime import DockerRuntime
from hud_runtime_docker.testing import python_image

pytestmark = [
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.anyio,
    pytest.mark.timeout(300, func_only=True),
    pytest.mark.xdist_group("docker"),
    pytest.mark.needs("podman", "runc"),
]

# Podman asks for more than its own limits unless told otherwise.
LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]


@pytest.fixture(scope="module")
def podman() -> Iterator[Engine]:
    if os.geteuid() != 0:
        pytest.skip("Podman is started by root here")
    with tempfile.TemporaryDirectory(prefix="hud-pod-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        at = Path(folder)
        socket = at / "podman.sock"
        settings = at / "containers.conf"
        settings.write_text(
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        )
        words = ["--root", f"{at}/root", "--runroot", f"{at}/run", "--runtime", "runc"]
        with (at / "log").open("wb") as log:
            service = subprocess.Popen(
                ["podman", *words, "system", "service", "--time=0", f"unix://{socket}"],
                env={**os.environ, "CONTAINERS_CONF": str(settings)},
                stdout=log,
                stderr=log,
            )
        engine = Engine(f"unix://{socket}")
        try:
            asyncio.run(_answers(engine))
            yield engine
        finally:
            engine.close()
            service.terminate()
            service.wait(30)
            # It leaves a mount of its storage, under which the folder could not be removed.
            subprocess.run(["umount", "--lazy", f"{at}/root/overlay"], check=False, capture_output=True)
    assert not at.exists()


async def _answers(engine: Engine) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await engine.call("ping")
            except HudError:
                await asyncio.sleep(0.1)  # it announces nothing
            else:
                return


async def test_podman_places_watches_and_leaves_nothing(podman: Engine, source: Path) -> None:
    image = await asyncio.to_thread(python_image, podman, "hud-test-boxed", source.parent)
    place = DockerRuntime(image, engine=podman, run_args=LIMITS)
    async with place(Task("boxed", "where")) as runtime, connect(runtime) as client:
        assert await podman.is_podman()
        await client.start_task("where")
        assert (await client.grade("right"))["score"] == 1.0
    async with place(Task("boxed", "dies")) as runtime, connect(runtime) as client:
        await client.start_task("dies", {})
        with pytest.raises(RuntimeDiedError, match=r"exit status 3(.|\n)*last words"):
            await client.grade("x")
    assert await podman.call("containers", all=True, filters={"label": OWNER}) == []
