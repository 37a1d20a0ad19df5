"""A cancellation at any moment releases everything, and is told exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hud.eval import Job, Run, Taskset
from hud.plugins.events import JobFinished, JobStarted, RolloutFinished, RolloutStarted
from hud.plugins.hookspecs import hookimpl
from hud.runtime.contract import Runtime
from hud.testing import isolated_host
from hud.types import Task


class World:
    """A place, its client and an agent that stop at the point named, until the test cancels them.

    `held` names what is acquired and not given back.
    """

    def __init__(self, stop_at: str | None = None, yields: int = 0, then: str | None = None) -> None:
        self.stop_at = stop_at
        self.then = then
        self.yields = yields
        self.held: list[str] = []
        self.reached = asyncio.Event()
        self.free = asyncio.Event()
        self.graded = 0

    async def at(self, point: str) -> None:
        for _ in range(self.yields):
            await asyncio.sleep(0)
        if point in (self.stop_at, self.then):
            self.reached.set()
            await self.free.wait()

    @asynccontextmanager
    async def provider(self, task: Task) -> AsyncIterator[Runtime]:
        self.held.append("placement")
        try:
            await self.at("place")
            yield Runtime("local:")
        finally:
            await self.at("leave place")
            self.held.remove("placement")

    @asynccontextmanager
    async def connector(self, runtime: Runtime, task: Task, run: Run) -> AsyncIterator[World]:
        self.held.append("connection")
        try:
            await self.at("connect")
            yield self
        finally:
            await asyncio.sleep(0)
            self.held.remove("connection")

    async def start_task(self, task_id: str, args: Any) -> dict[str, Any]:
        self.held.append("task")
        await self.at("start")
        return {"prompt": "say anything"}

    async def grade(self, answer: Any, key: str | None = None) -> dict[str, Any]:
        await self.at("grade")
        self.graded += 1
        self.held.remove("task")
        return {"score": 1.0}

    async def cancel(self) -> None:
        await self.at("cancel")
        self.held.remove("task")

    async def agent(self, run: Run) -> str:
        self.held.append("agent")
        try:
            await self.at("act")
            return "anything"
        finally:
            self.held.remove("agent")


class Listener:
    """Counts events."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    @hookimpl
    async def hud_job_started(self, event: JobStarted) -> None:
        self.told.append(("job started", event.job_id))

    @hookimpl
    async def hud_job_finished(self, event: JobFinished) -> None:
        self.told.append(("job finished", event.job_id))

    @hookimpl
    async def hud_rollout_started(self, event: RolloutStarted) -> None:
        self.told.append(("started", event.run_id))

    @hookimpl
    async def hud_rollout_finished(self, event: RolloutFinished) -> None:
        await asyncio.sleep(0)
        self.told.append(("finished", event.run_id))


async def run_and_cancel(world: World, *, after: int | None, rows: int = 1) -> tuple[Job, list[Any]]:
    listener = Listener()
    with isolated_host(listener):
        job = Job()
        tasks = [Task(env="desk", id="add", slug=f"row-{i}") for i in range(rows)]
        running = asyncio.ensure_future(
            Taskset("t", tasks).run(
                world.agent, runtime=world.provider, connector=world.connector, job=job, max_concurrent=2
            )
        )
        if after is None:
            await world.reached.wait()
        else:
            for _ in range(after):
                await asyncio.sleep(0)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    return job, listener.told


@pytest.mark.parametrize("point", ["place", "connect", "start", "act", "grade"])
def test_releases_when_cancelled_in(point: str) -> None:
    async def main() -> None:
        world = World(point)
        job, told = await run_and_cancel(world, after=None)
        assert world.held == []
        assert [run.trace.status for run in job.runs] == ["cancelled"]
        assert [run.reward for run in job.runs] == [None]
        assert Job.load(job.id).cancelled
        (run,) = job.runs
        assert told == [
            ("job started", job.id),
            ("started", run.trace_id),
            ("finished", run.trace_id),
            ("job finished", job.id),
        ]

    asyncio.run(main())


def test_a_cancellation_while_the_place_is_given_back_waits_for_it() -> None:
    async def main() -> None:
        world = World("leave place")
        running = asyncio.ensure_future(run_and_cancel(world, after=None))
        await world.reached.wait()
        await asyncio.sleep(0)
        assert not running.done()
        world.free.set()
        job, told = await running
        assert world.held == []
        assert [run.reward for run in job.runs] == [1.0], "it was graded before"
        assert [name for name, _ in told].count("finished") == 1

    asyncio.run(main())


def test_a_peer_that_never_acknowledges_a_cancel_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hud.eval.phases.FAREWELL_S", 0.05)

    async def main() -> None:
        world = World("act", then="cancel")
        job, _ = await run_and_cancel(world, after=None)
        assert world.held == ["task"]
        assert [run.trace.status for run in job.runs] == ["cancelled"]

    asyncio.run(main())


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(after=st.integers(0, 120), yields=st.integers(0, 4), rows=st.integers(1, 5))
def test_a_cancellation_after_any_number_of_steps_leaves_nothing(after: int, yields: int, rows: int) -> None:
    async def main() -> None:
        world = World(yields=yields)
        job, told = await run_and_cancel(world, after=after, rows=rows)
        assert world.held == []
        started = [run_id for name, run_id in told if name == "started"]
        finished = [run_id for name, run_id in told if name == "finished"]
        assert sorted(finished) == sorted(set(finished)), "told once each"
        assert set(finished) >= set(started)
        assert {run.trace_id for run in job.runs} == set(finished)
        assert [name for name, _ in told].count("job started") == [name for name, _ in told].count(
            "job finished"
        )
        assert sum(run.reward == 1.0 for run in job.runs) == world.graded
        assert all(run.trace.status in ("completed", "cancelled") for run in job.runs)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, "no task is left behind"

    asyncio.run(main())
