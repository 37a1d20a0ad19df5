"""Trivial rollouts per second: in process, over the wire to one shared server, at 10 and 1,000 in flight."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from hud.environment import Environment, serving
from hud.eval import LocalRuntime, Run, Runtime, Task, Taskset
from hud.wire.server import start_server
from tests.benchmarks.row import Row

COUNT = 3000
WARM_UP = 200


def environment() -> Environment:
    """Return an environment of one task that any answer solves."""
    env = Environment(name="bench")

    @env.template()
    async def say() -> AsyncIterator[Any]:
        yield "say anything"
        yield 1.0

    env.source_file = None
    return env


async def agent(run: Run) -> str:
    """Say anything."""
    return "anything"


async def rollouts_per_s(runtime: Any, count: int, in_flight: int, folder: Path) -> float:
    """Run `count` rollouts with the job file on, and return how many a second were reported."""
    await _run(runtime, WARM_UP, in_flight, folder)
    begun = time.perf_counter()
    await _run(runtime, count, in_flight, folder)
    return count / (time.perf_counter() - begun)


async def _run(runtime: Any, count: int, in_flight: int, folder: Path) -> None:
    rows = (Task(env="bench", id="say", slug="say") for _ in range(count))
    stream = Taskset("bench", rows).stream(agent, runtime=runtime, max_concurrent=in_flight, jobs_dir=folder)
    graded = 0
    async for run in stream:
        graded += run.reward == 1.0
    if graded != count:
        raise RuntimeError(f"{count - graded} of {count} rollouts were not graded")


async def generators_per_s(env: Environment, count: int, folder: Path) -> float:
    """The floor in process: drive the bare generator and write a line of JSON for each."""
    function = env.templates["say"].function
    begun = time.perf_counter()
    with (folder / "floor.jsonl").open("w") as file:
        for number in range(count):
            generator = function()
            prompt = await anext(generator)
            reward = await generator.asend("anything")
            await generator.aclose()
            file.write(json.dumps({"run": number, "prompt": prompt, "reward": reward}) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return count / (time.perf_counter() - begun)


async def bare_sessions_per_s(url: str, count: int, in_flight: int) -> float:
    """The floor over the wire: a connection on asyncio's streams and three calls, no checks, nothing kept."""
    parts = url.removeprefix("tcp://").rpartition(":")
    left = iter(range(count))
    calls: tuple[tuple[str, dict[str, Any]], ...] = (
        ("hello", {}),
        ("tasks.start", {"id": "say", "args": {}}),
        ("tasks.grade", {"answer": "x"}),
    )

    async def worker() -> None:
        for _ in left:
            reader, writer = await asyncio.open_connection(parts[0], int(parts[2]))
            for number, (method, params) in enumerate(calls):
                frame = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
                writer.write(json.dumps(frame).encode() + b"\n")
                reply = json.loads(await reader.readline())
                if "result" not in reply:
                    raise RuntimeError(f"{method}: {reply}")
            writer.close()
            await writer.wait_closed()

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(worker())
    return count / (time.perf_counter() - begun)


async def _measure(folder: Path) -> list[Row]:
    env = environment()
    floor = await generators_per_s(env, COUNT * 5, folder)
    inside = {n: await rollouts_per_s(LocalRuntime(env), COUNT, n, folder) for n in (10, 1000)}
    async with serving(env) as service:
        server = await start_server(service, host="127.0.0.1", port=0)
        try:
            bare = await bare_sessions_per_s(server.url, COUNT, 32)
            wire = {n: await rollouts_per_s(Runtime(server.url), COUNT, n, folder) for n in (32, 1000)}
        finally:
            await server.close()
    per_s = "1/s"
    in_process, over_wire = "bare generator + a line of JSON", "streams, connect + 3 calls"
    return [
        Row(
            "rollouts in process, job file on, 10 in flight",
            inside[10],
            floor,
            per_s,
            in_process,
            more_is_better=True,
            target="5,000",
        ),
        Row(
            "the same, 1,000 in flight",
            inside[1000],
            inside[10],
            per_s,
            "10 in flight",
            more_is_better=True,
            target="1.0 x",
        ),
        Row(
            "rollouts over the wire, one shared server, 32 in flight",
            wire[32],
            bare,
            per_s,
            over_wire,
            more_is_better=True,
            target="2,500",
        ),
        Row(
            "the same, 1,000 in flight",
            wire[1000],
            wire[32],
            per_s,
            "32 in flight",
            more_is_better=True,
            target="1.0 x",
        ),
    ]


def measure() -> list[Row]:
    """Return rollouts per second."""
    with tempfile.TemporaryDirectory(prefix="hud-bench-") as name:
        return asyncio.run(_measure(Path(name)))
