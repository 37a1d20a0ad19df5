"""Containers: cold beside a bare `docker run` of the same image, 32 at once, and from a warm pool."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hud.runtime.pool import Pool
from hud.types import Task
from hud.wire.client import connect
from hud_runtime_docker.engine import Engine
from hud_runtime_docker.runtime import DockerRuntime
from hud_runtime_docker.testing import docker_engine, python_image
from tests.benchmarks.row import Row

ENV = """
from hud.environment import Environment

env = Environment("boxed")


@env.template()
async def one():
    yield "prompt"
    yield 1.0
"""
TIMES = 6
AT_ONCE = 32
POOL = 4
TASK = Task("boxed", "one")


def measure() -> list[Row]:
    """Return the rows; needs root and dockerd, or DOCKER_HOST."""
    with tempfile.TemporaryDirectory(prefix="hud-dk-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        source = Path(folder) / "source"
        source.mkdir()
        (source / "env.py").write_text(ENV)
        with docker_engine(Path(folder)) as engine:
            image = python_image(engine, "hud-bench", source)
            return asyncio.run(_rows(engine, image))


async def _rows(engine: Engine, image: str) -> list[Row]:
    place = DockerRuntime(image, engine=engine)
    await _ours(place)
    await asyncio.to_thread(_bare, engine, image)
    ours, bare = [], []
    for _ in range(TIMES):
        ours.append(await _ours(place))
        bare.append(await asyncio.to_thread(_bare, engine, image))
    many = await _at_once([_ours(place) for _ in range(AT_ONCE)])
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        many_bare = await _at_once(
            [loop.run_in_executor(threads, _bare, engine, image) for _ in range(AT_ONCE)]
        )
    warm = []
    async with Pool(place, size=POOL) as pool:
        for _ in range(TIMES):
            await pool.fill(TASK)
            warm.append(await _ours(pool))
    cold = statistics.median(ours)
    return [
        Row(
            "container, cold, to hello",
            cold,
            statistics.median(bare),
            "s",
            "docker run -d, until it announces its port",
            target="1.15 : 1",
        ),
        Row(
            f"{AT_ONCE} containers at once, placed and removed",
            many,
            many_bare,
            "s",
            "as many docker run -d, rm -f",
        ),
        Row(
            "container from a warm pool, to hello",
            1000 * statistics.median(warm),
            1000 * cold,
            "ms",
            "a cold one",
            target="50 ms",
        ),
    ]


async def _ours(place: DockerRuntime | Pool) -> float:
    """Return the seconds from asking for a placement to its hello; it is released afterwards."""
    began = time.perf_counter()
    async with place(TASK) as runtime, connect(runtime):
        return time.perf_counter() - began


async def _at_once(work: Sequence[Awaitable[float]]) -> float:
    """Return the seconds until all is placed and removed again."""
    began = time.perf_counter()
    await asyncio.gather(*work)
    return time.perf_counter() - began


def _bare(engine: Engine, image: str) -> float:
    """Return the seconds of `docker run -d` until the server in it announces its port; it is removed afterwards."""
    docker = ["docker", "-H", engine.base_url]
    began = time.perf_counter()
    run = [*docker, "run", "-d", "--init", "-p", "127.0.0.1::8765", "-e", "HUD_TOKEN=0123456789abcdef", image]
    name = subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()
    with subprocess.Popen(
        [*docker, "logs", "-f", name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as log:
        assert log.stdout is not None
        for line in log.stdout:
            if line.startswith(b"HUD_SERVE_PORT="):
                break
        took = time.perf_counter() - began
        log.kill()
    subprocess.run([*docker, "rm", "-f", name], capture_output=True, check=True)
    return took
