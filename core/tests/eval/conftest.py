"""An environment with every kind of task, served in this process; job files go into a temporary folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hud.environment import Environment
from hud.environment.service import serving
from hud.runtime.contract import Runtime
from hud.types import Task


@pytest.fixture(autouse=True)
def _working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def env() -> Environment:
    made = Environment(name="desk")

    @made.template()
    async def add(a: int = 1, b: int = 2) -> AsyncIterator[Any]:
        answer = yield f"What is {a} + {b}?"
        yield 1.0 if str(answer).strip() == str(a + b) else 0.0

    @made.template()
    async def raises_first() -> AsyncIterator[Any]:
        if made.name:
            raise KeyError("no fixture")
        yield ""

    @made.template()
    async def raises_second() -> AsyncIterator[Any]:
        yield "say anything"
        raise ZeroDivisionError("the grader divided by zero")

    @made.template()
    async def hangs_first() -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield ""

    @made.template()
    async def hangs_second() -> AsyncIterator[Any]:
        yield "say anything"
        await asyncio.Event().wait()

    @made.template()
    async def no_number() -> AsyncIterator[Any]:
        yield "say anything"
        yield float("nan")

    return made


class Place:
    """A provider of `env` that counts what it gives out and takes back, and fails as told.

    `fail` is called with the number of the placement, from 1, and raises to make it fail.
    """

    def __init__(self, env: Environment) -> None:
        self.env = env
        self.placed = 0
        self.open = 0
        self.most_open = 0
        self.fail: Any = None
        self.on_release: Any = None

    @asynccontextmanager
    async def __call__(self, task: Task) -> AsyncIterator[Runtime]:
        self.placed += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            if self.fail is not None:
                await self.fail(self.placed)
            async with serving(self.env) as service:
                yield Runtime("local:", params={"service": service})
        finally:
            if self.on_release is not None:
                await self.on_release()
            self.open -= 1


@pytest.fixture
def place(env: Environment) -> Place:
    return Place(env)
