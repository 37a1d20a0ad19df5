"""A provider whose rows get a configuration from somewhere else, as a route of hud.toml."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hud.eval.run import Run
    from hud.runtime.contract import Runtime
    from hud.types import RuntimeConfig, Task


class Rerouted:
    """Hand rows to the provider `inner` with `config` under what they ask for themselves."""

    def __init__(self, inner: Any, config: RuntimeConfig) -> None:
        self.inner = inner
        self.config = config

    def __call__(self, task: Task) -> AbstractAsyncContextManager[Runtime]:
        """Place `task` with the merged configuration."""
        placed: AbstractAsyncContextManager[Runtime] = self.inner(configured(task, self.config))
        return placed

    async def prepare(self, task: Task) -> None:
        """Have the provider prepare for `task` as it will be placed, where it prepares at all."""
        prepare = getattr(self.inner, "prepare", None)
        if prepare is not None:
            await prepare(configured(task, self.config))


class ReroutedDelegate:
    """The same for a placement that drives rollouts itself."""

    def __init__(self, inner: Any, config: RuntimeConfig) -> None:
        self.inner = inner
        self.config = config

    async def run(self, task: Task, agent: Any, **options: Any) -> Run:
        """Run `task` with the merged configuration."""
        done: Run = await self.inner.run(configured(task, self.config), agent, **options)
        return done


def rerouted(inner: Any, config: RuntimeConfig) -> Rerouted | ReroutedDelegate:
    """Return `inner` with `config`; what it satisfies, the result satisfies."""
    return Rerouted(inner, config) if callable(inner) else ReroutedDelegate(inner, config)


def configured(task: Task, config: RuntimeConfig) -> Task:
    """Return the row with `config`, in which what the row itself asks for wins."""
    return task.model_copy(update={"runtime_config": config.with_overrides(task.runtime_config)})
