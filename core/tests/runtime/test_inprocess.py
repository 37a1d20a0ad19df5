"""Live environments and constructors, served here without a socket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hud.environment import Environment
from hud.errors import SourceError
from hud.runtime.local import LocalRuntime
from hud.types import Task
from hud.wire.client import connect

pytestmark = pytest.mark.anyio


def live() -> tuple[Environment, list[str]]:
    env = Environment(name="live")
    hooks: list[str] = []

    @env.initialize
    async def up() -> None:
        hooks.append("up")

    @env.shutdown
    async def down() -> None:
        hooks.append("down")

    @env.template()
    async def number() -> AsyncIterator[Any]:
        answer = yield str(os.getpid())
        yield float(str(answer) == "right")

    return env, hooks


async def graded(runtime: LocalRuntime, answer: str) -> Any:
    async with runtime(Task(env="live", id="number")) as placed, connect(placed) as client:
        assert placed.url == "local:"
        started = await client.start_task("number", {})
        assert started["prompt"] == str(os.getpid())
        return (await client.grade(answer))["score"]


async def test_a_live_environment_is_served_in_this_process() -> None:
    env, hooks = live()
    assert await graded(LocalRuntime(env), "right") == 1.0
    assert hooks == ["up", "down"]


async def test_rollouts_at_once_share_it_and_entering_keeps_it_up() -> None:
    env, hooks = live()
    async with LocalRuntime(env) as runtime:
        assert await asyncio.gather(*(graded(runtime, "right") for _ in range(20))) == [1.0] * 20
        assert await graded(runtime, "wrong") == 0.0
        assert hooks == ["up"]
    assert hooks == ["up", "down"]


@pytest.mark.parametrize("awaitable", [False, True])
async def test_a_constructor_makes_one_for_each_row(awaitable: bool) -> None:
    made: list[str] = []

    def construct(task: Task) -> Environment:
        made.append(task.slug)
        return live()[0]

    async def construct_later(task: Task) -> Environment:
        return construct(task)

    runtime = LocalRuntime(construct_later if awaitable else construct)
    assert [await graded(runtime, "right") for _ in range(2)] == [1.0, 1.0]
    assert made == ["number", "number"]


async def test_what_is_no_environment_is_named() -> None:
    with pytest.raises(SourceError, match="must return an Environment"):
        await graded(LocalRuntime(lambda task: None), "right")
    with pytest.raises(SourceError, match="give a path"):
        await graded(LocalRuntime(7), "right")  # type: ignore[arg-type]
