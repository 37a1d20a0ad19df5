"""An environment in this process: life of a session without a socket, and what a parked one holds."""

from __future__ import annotations

import asyncio
import gc
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Any

from hud.environment import Environment, serving
from hud.environment.service import EnvironmentService
from tests.benchmarks.row import Row

ROLLOUTS = 20_000
PARKED = 5_000
ROUNDS = 3

env = Environment("bench")


@env.template()
async def ask(word: str = "yes") -> AsyncGenerator[Any, Any]:
    answer = yield f"Say {word}."
    yield 1.0 if answer == word else 0.0


def measure() -> list[Row]:
    """Return sessions a second at several widths, the bytes of a parked one, and the cost of declaring."""
    return [*asyncio.run(_measure()), *_declaring()]


async def _measure() -> list[Row]:
    floor = await _best(_bare)
    rows = []
    async with serving(env) as service:
        for width in (1, 32, 1000):
            count = ROLLOUTS // 4 if width == 1 else ROLLOUTS
            ours = await _best(partial(_served, service, width, count))
            rows.append(
                Row(
                    f"start + grade in process, {width} at once",
                    ours,
                    floor,
                    "1/s",
                    "the generator on one loop",
                    more_is_better=True,
                    target="5,000/s with a job file",
                )
            )
        rows.append(await _parked(service))
    return rows


async def _best(work: Callable[[], Awaitable[float]]) -> float:
    return max([await work() for _ in range(ROUNDS)])


async def _bare() -> float:
    function = ask.function
    begun = time.perf_counter()
    for _ in range(ROLLOUTS):
        generator = function(word="yes")
        await generator.__anext__()
        await generator.asend("yes")
        await generator.aclose()
    return ROLLOUTS / (time.perf_counter() - begun)


async def _served(service: EnvironmentService, width: int, count: int) -> float:
    async def some() -> None:
        for _ in range(count // width):
            session = service.open_session("bench")
            await session.start("ask", {"word": "yes"})
            await session.grade("yes")
            await session.close()

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(width):
            group.create_task(some())
    return count / (time.perf_counter() - begun)


async def _parked(service: EnvironmentService) -> Row:
    gc.collect()
    before = _resident_bytes()
    sessions = [service.open_session(str(i)) for i in range(PARKED)]
    for session in sessions:
        await session.start("ask", {})
    gc.collect()
    ours = (_resident_bytes() - before) / PARKED
    async with asyncio.TaskGroup() as group:
        for session in sessions:
            group.create_task(session.close())
    return Row("a parked task, environment's side", ours, None, "bytes", target="5 kB with its connection")


def _resident_bytes() -> int:
    with open("/proc/self/statm") as statm:  # noqa: PTH123 - one read
        return int(statm.read().split()[1]) * 4096


def _declaring() -> list[Row]:
    declared = "from hud import Environment; Environment('one')"
    ours, floor = (statistics.median(_seconds(code) for _ in range(7)) * 1000 for code in (declared, "pass"))
    bare_import = statistics.median(_seconds("import hud") for _ in range(7)) * 1000
    return [
        Row("import hud", bare_import, floor, "ms", "python -c pass", target="+15 ms"),
        Row("import and declare an Environment", ours, floor, "ms", "python -c pass", target="+65 ms"),
    ]


def _seconds(code: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - begun


if __name__ == "__main__":
    for row in measure():
        print(row)
