"""A placement that outlives the task that asked for it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from hud.runtime.contract import Watched

if TYPE_CHECKING:
    from hud.runtime.contract import Provider, Runtime
    from hud.types import Task


class HeldPlacement:
    """Enters a provider's context in a task of its own and leaves it there, on `close`.

    A context may hold cancel scopes, which must be left by the task that entered them; here that holds whoever
    uses the placement.
    """

    def __init__(self, provider: Provider, task: Task) -> None:
        self.runtime: Runtime | None = None
        self.ended: bool = False
        """Whether its process has died, or the placement was left."""
        self._provider = provider
        self._row = task
        self._ready = asyncio.Event()
        self._leave = asyncio.Event()
        self._failure: BaseException | None = None
        self._holder = asyncio.get_running_loop().create_task(self._hold(), name=f"placement of {task.env}")

    async def _hold(self) -> None:
        try:
            async with self._provider(self._row) as runtime:
                self.runtime = runtime
                self._ready.set()
                await self._until_left(runtime)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - raised where the placement is used or closed
            self._failure = error
        finally:
            self.ended = True
            self._ready.set()

    async def _until_left(self, runtime: Runtime) -> None:
        process = runtime.params.get("process")
        if not isinstance(process, Watched):
            await self._leave.wait()
            return
        left = asyncio.ensure_future(self._leave.wait())
        died = asyncio.ensure_future(process.died())
        try:
            await asyncio.wait((left, died), return_when=asyncio.FIRST_COMPLETED)
            self.ended = died.done()
            await left
        finally:
            for waiting in (left, died):
                waiting.cancel()
            await asyncio.wait((left, died))

    async def ready(self) -> Runtime:
        """Return the address once it is placed; raises what placing raised."""
        await self._ready.wait()
        if self.runtime is None:
            assert self._failure is not None
            raise self._failure
        return self.runtime

    @property
    def usable(self) -> bool:
        """Whether it is placed and alive."""
        return self.runtime is not None and not self.ended

    @property
    def failed(self) -> bool:
        """Whether it could not be placed."""
        return self._ready.is_set() and self.runtime is None

    async def close(self) -> None:
        """Leave the placement and wait until it is gone; one that is still being placed is cancelled.

        Raises what leaving raised.
        """
        if self.runtime is None:
            self._holder.cancel()
        self._leave.set()
        cancelled: asyncio.CancelledError | None = None
        while not self._holder.done():
            try:
                await asyncio.wait((self._holder,))
            except asyncio.CancelledError as error:
                cancelled = error
        with contextlib.suppress(asyncio.CancelledError):
            self._holder.result()
        if cancelled is not None:
            raise cancelled
        if self._failure is not None and self.runtime is not None:
            raise self._failure


def placement_key(task: Task) -> tuple[Any, ...]:
    """Return what two rows must share to be placed alike."""
    import json

    config = task.runtime_config
    source = task.source if isinstance(task.source, str) else id(task.source)
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True, default=str) if config else ""
    return task.env, text, source
