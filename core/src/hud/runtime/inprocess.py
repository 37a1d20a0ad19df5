"""An environment served in this process, without a socket: what `LocalRuntime` does for one that has no file."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from hud.errors import SourceError
from hud.runtime.contract import Runtime

if TYPE_CHECKING:
    from hud.types import Task


@asynccontextmanager
async def served_here(source: Any, task: Task) -> AsyncIterator[Runtime]:
    """Serve a live environment, or the one that a constructor makes of `task`, while the context lasts.

    Rollouts of one live environment share its service; author code runs on a thread of its own.

    Raises:
        SourceError: the constructor made no environment.
    """
    from hud.environment.service import serving

    async with serving(await environment_of(source, task)) as service:
        yield Runtime("local:", params={"service": service}, config=task.runtime_config)


def held_here(source: Any) -> AbstractAsyncContextManager[Any]:
    """Keep a live environment served, so that its hooks run once however few rollouts overlap."""
    from hud.environment.env import Environment
    from hud.environment.service import serving

    return serving(source) if isinstance(source, Environment) else nullcontext()


async def environment_of(source: Any, task: Task) -> Any:
    """Return the live environment, or what the constructor, plain or async, makes of `task`."""
    from hud.environment.env import Environment

    if isinstance(source, Environment):
        return source
    if not callable(source):
        raise SourceError(
            f"{source!r} is no environment; give a path, an Environment, or a (task) -> Environment constructor"
        )
    made = source(task)
    if inspect.isawaitable(made):
        made = await made
    if not isinstance(made, Environment):
        raise SourceError(f"{source!r} made {made!r} of task {task.slug!r}; it must return an Environment")
    return made
