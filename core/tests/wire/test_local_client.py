"""The client without a socket keeps the promises of the one with."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from hud.clients import ClientSettings, LocalClient, connect
from hud.errors import (
    BadParamsError,
    ConnectionLostError,
    PhaseTimeoutError,
    TemplateRaisedError,
    WrongStateError,
)
from hud.runtime.contract import Runtime

if TYPE_CHECKING:
    from .conftest import World

pytestmark = pytest.mark.anyio


def near(world: World) -> Runtime:
    return Runtime("local:", {"service": world.service})


async def test_drives_a_task(world: World) -> None:
    async with connect(near(world), prestart=("echo", {"word": "x"})) as client:
        assert isinstance(client, LocalClient)
        assert client.manifest.server_info.name == "fake"
        assert client.session_id == client.manifest.session_id
        assert "echo" in [task["id"] for task in await client.list_tasks()]
        assert (await client.start_task("echo", {"word": "x"}))["prompt"] == "say x"
        assert (await client.grade("x", key="k"))["score"] == 1.0
        assert (await client.grade("other", key="k"))["score"] == 1.0
        with pytest.raises(WrongStateError):
            await client.grade("x", key="other")
        await client.bye()
        await client.close()
        with pytest.raises(ConnectionLostError):
            await client.start_task("echo")
    assert world.service.sessions == {}


async def test_leaving_ends_what_is_suspended(world: World) -> None:
    async with connect(near(world)) as client:
        await client.start_task("echo", {"word": "left"})
    assert world.events[-1] == "end left"


async def test_errors_are_typed_and_kept_for_their_key(world: World) -> None:
    async with connect(near(world)) as client:
        with pytest.raises(BadParamsError):
            await client.start_task("nope")
        with pytest.raises(WrongStateError):
            await client.grade("x")
        await client.start_task("fails")
        for _ in range(2):
            with pytest.raises(TemplateRaisedError, match="the grader is broken"):
                await client.grade("x", key="k")


async def test_cancel_interrupts_what_runs(world: World) -> None:
    async with connect(near(world)) as client:
        running = asyncio.create_task(client.start_task("gated_start"))
        await world.noted("starting start")
        with pytest.raises(WrongStateError):
            await client.grade("x")
        await client.cancel()
        await asyncio.wait({running})
        assert "end start" in world.events
        await client.start_task("echo")
        assert (await client.grade("x"))["score"] == 1.0


async def test_a_grade_that_is_interrupted_is_not_run_again(world: World) -> None:
    async with connect(near(world)) as client:
        await client.start_task("gated_grade")
        grading = asyncio.create_task(client.grade("x", key="k"))
        await world.noted("grading grade")
        grading.cancel()
        await asyncio.wait({grading})
        with pytest.raises(WrongStateError):
            await client.grade("x", key="k")
        assert "graded grade" not in world.events


async def test_waits_have_deadlines(world: World) -> None:
    async with connect(near(world), settings=ClientSettings(start_s=0.1, grade_s=0.1)) as client:
        with pytest.raises(PhaseTimeoutError, match="start"):
            await client.start_task("gated_start")
        await client.cancel()
        await client.start_task("gated_grade")
        with pytest.raises(PhaseTimeoutError, match="grade"):
            await client.grade("x")
