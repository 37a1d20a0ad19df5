"""Processes: the start of a child, rollouts each in a process of its own, and what they hold in memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from hud.runtime import zygote_table
from hud.runtime.local import LocalRuntime
from hud.runtime.pool import Pool
from hud.types import Task
from hud.wire.client import connect
from tests.benchmarks.row import Row

ENV = """
from hud.environment import Environment

env = Environment(name="one")


@env.template()
async def ask(word: str = "yes"):
    answer = yield f"Say {word}."
    yield 1.0 if answer == word else 0.0
"""

# What the zygote has imported, forked on request over a pipe, by a child that answers one byte and ends.
FLOOR = """
import gc, os, sys, time
import asyncio, ssl, json, hud.wire.server, hud.environment.service
gc.collect(); gc.freeze()
count, width = int(sys.argv[1]), int(sys.argv[2])
def fork():
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(write, b".")
        os._exit(0)
    os.close(write)
    return pid, read
begun, running = time.perf_counter(), []
for _ in range(count):
    running.append(fork())
    if len(running) >= width:
        pid, read = running.pop(0)
        os.read(read, 1); os.close(read); os.waitpid(pid, 0)
for pid, read in running:
    os.read(read, 1); os.close(read); os.waitpid(pid, 0)
print((time.perf_counter() - begun) / count)
"""

ROW = Task(env="one", id="ask")
STARTS = 40
ROLLOUTS = 192
ROUNDS = 3
WIDTH = 32


def measure() -> list[Row]:
    """Return milliseconds, rollouts a second, and MB."""
    with tempfile.TemporaryDirectory(prefix="hud-bench-") as name:
        file = Path(name) / "env.py"
        file.write_text(ENV, encoding="utf-8")
        fork_s = _floor(STARTS, 1)
        burst_s = _floor(ROLLOUTS, WIDTH)
        start_s, private_mb = asyncio.run(_start(file))
        noticed_s = asyncio.run(_noticed(file))
        warm_s = asyncio.run(_warm(file))
        rates, bursts = [], [burst_s]
        for _ in range(ROUNDS):
            rate, pss_mb = asyncio.run(_rate(file))
            rates.append(rate)
            bursts.append(_floor(ROLLOUTS, WIDTH))
        rate, burst_s = statistics.median(rates), statistics.median(bursts)
        zygote_table.end_all()
    return [
        Row("start of a child to first `hello`", start_s * 1e3, fork_s * 1e3, "ms", "fork", target="15 ms"),
        Row("the same: memory of its own", private_mb, 2.4, "MB", "a forked asyncio server", target="4 MB"),
        Row("from a pool: placed and first `hello`", warm_s * 1e3, fork_s * 1e3, "ms", "fork"),
        Row("death of a child until it is noticed", noticed_s * 1e3, None, "ms", target="100 ms"),
        Row(
            f"trivial rollouts/s, a process each, {WIDTH} in flight",
            rate,
            1 / burst_s,
            "1/s",
            "fork on request",
            more_is_better=True,
            target="150/s",
        ),
        Row(f"the same: PSS of every process, {WIDTH} in flight", pss_mb, None, "MB", target="200 MB"),
    ]


def _floor(count: int, width: int) -> float:
    command = [sys.executable, "-c", FLOOR, str(count), str(width)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


async def _start(file: Path) -> tuple[float, float]:
    """Return the median seconds of a start, and the MB that one child adds."""
    runtime = LocalRuntime(file)
    await _rollout(runtime)
    times = [await _timed(_hello, runtime) for _ in range(STARTS)]
    async with runtime(ROW) as placed, connect(placed):
        init = placed.params["process"].pid
        private = sum(_memory_mb(pid, "Private_Clean", "Private_Dirty") for pid in _family(init))
    return statistics.median(times), private


async def _hello(runtime: LocalRuntime | Pool) -> float:
    begun = time.perf_counter()
    async with runtime(ROW) as placed, connect(placed):
        return time.perf_counter() - begun


async def _timed(call: Callable[[LocalRuntime], Awaitable[float]], runtime: LocalRuntime) -> float:
    return await call(runtime)


async def _warm(file: Path) -> float:
    times = []
    async with Pool(LocalRuntime(file), size=1) as pool:
        for _ in range(STARTS):
            await pool.fill(ROW)
            times.append(await _hello(pool))
    return statistics.median(times)


async def _noticed(file: Path) -> float:
    times = []
    for _ in range(STARTS // 4):
        async with LocalRuntime(file)(ROW) as placed:
            process = placed.params["process"]
            server = _family(process.pid)[-1]
            begun = time.perf_counter()
            os.kill(server, 9)
            await process.died()
            times.append(time.perf_counter() - begun)
    return statistics.median(times)


async def _rate(file: Path) -> tuple[float, float]:
    runtime = LocalRuntime(file)
    await _rollout(runtime)
    todo = iter(range(ROLLOUTS))

    async def worker() -> None:
        for _ in todo:
            await _rollout(runtime)

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(WIDTH):
            group.create_task(worker())
    rate = ROLLOUTS / (time.perf_counter() - begun)
    async with contextlib.AsyncExitStack() as stack:
        placed = [stack.enter_async_context(runtime(ROW)) for _ in range(WIDTH)]
        for placing in placed:
            await stack.enter_async_context(connect(await placing))
        pss = sum(_memory_mb(pid, "Pss") for pid in _family(os.getpid()))
    return rate, pss


async def _rollout(runtime: LocalRuntime) -> None:
    async with runtime(ROW) as placed, connect(placed, prestart=("ask", {})) as client:
        await client.start_task("ask", {})
        assert (await client.grade("yes"))["score"] == 1.0


def _family(pid: int) -> list[int]:
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _family(int(child))
    return found


def _memory_mb(pid: int, *names: str) -> float:
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.partition(":")[0] in names) / 1024
    return 0.0


if __name__ == "__main__":
    for row in measure():
        print(row)
