"""`hud eval --keep`: placements as they would be, but what local rollouts wrote is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, Self

from hud.errors import UsageError
from hud.runtime.contract import Provider
from hud.runtime.local import LocalRuntime
from hud.runtime.select import Placements

if TYPE_CHECKING:
    from hud.runtime.contract import Runtime
    from hud.types import Task


class Keeping:
    """A provider that finds each row's own, and asks a `LocalRuntime` to keep its rollouts' files."""

    features = LocalRuntime.features

    def __init__(self, runtime: Any, keep: Literal["failed", "all"]) -> None:
        self.keep = keep
        self._placements = Placements(runtime)

    async def __aenter__(self) -> Self:
        await self._placements.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._placements.__aexit__(*exc)

    @asynccontextmanager
    async def __call__(self, task: Task) -> AsyncIterator[Runtime]:
        """Place `task`'s environment."""
        provider = await self._placements.provider_for(task)
        if not isinstance(provider, Provider):
            raise UsageError(f"--keep keeps what local rollouts wrote; {task.slug!r} runs in {provider!r}")
        local = getattr(provider, "inner", provider)
        if isinstance(local, LocalRuntime):
            local.keep = self.keep
        async with provider(task) as runtime:
            yield runtime

    def __repr__(self) -> str:
        return f"Keeping({self._placements.runtime!r}, {self.keep!r})"
