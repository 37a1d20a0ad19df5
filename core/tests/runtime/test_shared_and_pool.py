"""One placement for many rollouts, and placements that are ready before they are needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from hud.errors import RuntimeStartError, UsageError
from hud.runtime.contract import Runtime
from hud.runtime.local import LocalRuntime
from hud.runtime.pool import Pool
from hud.runtime.shared import Shared
from hud.types import RuntimeConfig, RuntimeLimits, Task

from .conftest import Project, eventually, row, told

pytestmark = pytest.mark.anyio


class Death:
    """A placement's process, ended by a test."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def died(self) -> str:
        await self.event.wait()
        return "it ended"


class Counting:
    """A provider that says what it did, and fails when told to."""

    def __init__(self) -> None:
        self.placed = 0
        self.released = 0
        self.most = 0
        self.deaths: list[Death] = []
        self.failing = False
        self.gate: asyncio.Event | None = None

    @property
    def now(self) -> int:
        return self.placed - self.released

    @asynccontextmanager
    async def __call__(self, task: Task) -> AsyncIterator[Runtime]:
        # A cancel scope must be left by the task that entered it.
        with anyio.CancelScope():
            if self.gate is not None:
                await self.gate.wait()
            if self.failing:
                raise RuntimeStartError("out of machines")
            self.placed += 1
            number = self.placed
            self.most = max(self.most, self.now)
            death = Death()
            self.deaths.append(death)
            try:
                yield Runtime(f"tcp://127.0.0.1:{number}", {"process": death}, task.runtime_config)
            finally:
                self.released += 1


async def test_one_placement_serves_up_to_width_rollouts() -> None:
    inner = Counting()
    urls: set[str] = set()
    inside = most = 0

    async def rollout() -> None:
        nonlocal inside, most
        async with shared(row()) as placed:
            urls.add(placed.url)
            inside += 1
            most = max(most, inside)
            for _ in range(5):
                await asyncio.sleep(0)
            inside -= 1

    async with Shared(inner, width=3) as shared:
        await asyncio.gather(*(rollout() for _ in range(10)))
        assert len(urls) == 1
        assert most == 3
        assert inner.now == 1
    assert inner.placed == inner.released == 1


async def test_rows_of_other_environments_or_needs_have_other_placements() -> None:
    inner = Counting()
    rows = [
        row(),
        Task(env="other", id="x"),
        Task(env="demo", id="x", runtime_config=RuntimeConfig(image="acme")),
        Task(env="demo", id="y"),
    ]
    async with Shared(inner, width=1) as shared:
        for task in rows:
            async with shared(task):
                pass
        assert inner.placed == 3


async def test_a_placement_that_died_or_is_too_old_is_made_anew() -> None:
    inner = Counting()
    async with Shared(inner, width=2) as shared:
        async with shared(row()) as first:
            inner.deaths[0].event.set()
            for _ in range(3):
                await asyncio.sleep(0)
            async with shared(row()) as second:
                assert second.url != first.url
        assert inner.now == 1
        short = RuntimeConfig(limits=RuntimeLimits(run_timeout_s=0.001))
        old = Task(env="demo", id="x", runtime_config=short)
        async with shared(old) as first:
            pass
        await asyncio.sleep(0.002)
        async with shared(old) as second:
            assert second.url != first.url
    assert inner.now == 0


async def test_a_placement_that_fails_fails_its_rollout_and_is_tried_again() -> None:
    inner = Counting()
    async with Shared(inner, width=2) as shared:
        inner.failing = True
        with pytest.raises(RuntimeStartError, match="out of machines"):
            async with shared(row()):
                pass
        inner.failing = False
        async with shared(row()) as placed:
            assert placed.url


async def test_shared_and_pool_must_be_entered() -> None:
    for wrapped in (Shared(Counting(), width=1), Pool(Counting(), size=1)):
        with pytest.raises(UsageError, match="must be entered"):
            async with wrapped(row()):
                pass
    with pytest.raises(UsageError, match="at least 1"):
        Shared(Counting(), width=0)
    with pytest.raises(UsageError, match="at least 1"):
        Pool(Counting(), size=0)


async def test_a_pool_gives_each_rollout_a_fresh_placement_that_was_ready() -> None:
    inner = Counting()
    async with Pool(inner, size=3) as pool:
        await pool.fill(row())
        assert pool.warm == 3
        inner.gate = asyncio.Event()
        urls = []
        for _ in range(3):
            async with pool(row()) as placed:
                urls.append(placed.url)
        assert len(set(urls)) == 3
        inner.gate.set()
        await eventually(lambda: pool.warm == 3, "those taken are replaced")
        assert inner.now == 3
    assert inner.now == 0


async def test_a_pool_is_bounded_over_all_environments() -> None:
    inner = Counting()
    async with Pool(inner, size=2) as pool:
        for name in "abc":
            async with pool(Task(env=name, id="x")):
                pass
        await eventually(lambda: pool.warm == 2 and inner.now == 2, "two are warm, the others are gone")
    assert inner.now == 0


async def test_a_warm_placement_that_died_is_not_given_out() -> None:
    inner = Counting()
    async with Pool(inner, size=1) as pool:
        await pool.fill(row())
        inner.deaths[0].event.set()
        await eventually(lambda: pool.warm == 0, "its death is seen")
        async with pool(row()) as placed:
            assert placed.url != "tcp://127.0.0.1:1"


async def test_a_pool_that_cannot_place_fails_the_rollout_that_asks() -> None:
    inner = Counting()
    async with Pool(inner, size=2) as pool:
        inner.failing = True
        with pytest.raises(RuntimeStartError, match="out of machines"):
            async with pool(row()):
                pass
        inner.failing = False
        async with pool(row()) as placed:
            assert placed.url


async def test_leaving_a_pool_while_it_places_releases_all() -> None:
    inner = Counting()
    inner.gate = asyncio.Event()
    pool = Pool(inner, size=2)
    async with pool:
        filling = asyncio.ensure_future(pool.fill(row()))
        await asyncio.sleep(0)
        filling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await filling
    assert inner.now == 0
    assert inner.placed == 0


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_left")
async def test_real_processes_wait_warm(project: Project) -> None:
    async with Pool(LocalRuntime(project.file), size=2) as pool:
        await pool.fill(row())
        numbers = [await told(pool, "os.getpid()") for _ in range(4)]
        assert len(set(numbers)) == 4
