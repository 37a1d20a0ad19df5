"""A provider whose rows get a configuration from somewhere else, as a route of hud.toml."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hud.runtime.contract import Runtime
    from hud.types import RuntimeConfig, Task


class Rerouted:
    """Hand rows to `inner` with `config` under what they ask for themselves."""

    def __init__(self, inner: Any, config: RuntimeConfig) -> None:
        self.inner = inner
        self.config = config

    def __call__(self, task: Task) -> AbstractAsyncContextManager[Runtime]:
        """Place `task` with the merged configuration."""
        placed: AbstractAsyncContextManager[Runtime] = self.inner(self._configured(task))
        return placed

    def __getattr__(self, name: str) -> Any:
        # A delegate's `run` is offered only where the inner runtime is one.
        if name == "run":
            inner = self.inner.run

            async def run(task: Task, agent: Any, **options: Any) -> Any:
                return await inner(self._configured(task), agent, **options)

            return run
        raise AttributeError(name)

    def _configured(self, task: Task) -> Task:
        return task.model_copy(update={"runtime_config": self.config.with_overrides(task.runtime_config)})
