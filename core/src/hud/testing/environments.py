"""Running a template in a test, in this process and without an agent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from hud.environment import Environment, serving
from hud.environment.session import EnvironmentSession


@asynccontextmanager
async def session_of(env: Environment, **options: Any) -> AsyncIterator[EnvironmentSession]:
    """Serve `env` in this process and yield one open session."""
    async with serving(env, **options) as service:
        session = service.open_session("test-session")
        try:
            yield session
        finally:
            await session.close()


async def play(env: Environment, task_id: str, answer: Any = "", **args: Any) -> dict[str, Any]:
    """Start and grade one task; return the grade's reply."""
    async with session_of(env) as session:
        await session.start(task_id, args)
        return await session.grade(answer)
