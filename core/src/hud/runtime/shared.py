"""`Shared`: one placement for many rollouts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from hud.errors import UsageError
from hud.runtime.contract import Prepares
from hud.runtime.held import HeldPlacement, placement_key

if TYPE_CHECKING:
    from hud.runtime.contract import Features, Provider, Runtime
    from hud.types import Task


class Shared:
    """Lease one placement to up to `width` rollouts at once, each with a session of its own.

    Rows share a placement when they have the same environment and `runtime_config`. It is made at the first
    lease, made anew when it has died or its `run_timeout_s` has passed, and released at the end of the block:
    `async with Shared(DockerRuntime("sim"), width=8) as runtime`. `Taskset.run` enters it by itself.
    """

    def __init__(self, inner: Provider, *, width: int) -> None:
        if width < 1:
            raise UsageError(f"Shared needs a width of at least 1, not {width}")
        self.inner = inner
        self.width = width
        self._slots: dict[Any, _Slot] | None = None
        self._entered = 0
        self._stack = AsyncExitStack()

    @property
    def features(self) -> Features | None:
        """What the inner runtime can give, where it says so."""
        found: Features | None = getattr(self.inner, "features", None)
        return found

    async def __aenter__(self) -> Self:
        self._entered += 1
        if self._entered == 1:
            await enter_inner(self._stack, self.inner)
            self._slots = {}
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._entered -= 1
        if self._entered:
            return
        slots, self._slots = self._slots or {}, None
        placements = [placement for slot in slots.values() for placement in slot.placements()]
        try:
            await close_all(placements)
        finally:
            await self._stack.aclose()

    async def prepare(self, task: Task) -> None:
        """Have the inner provider prepare for `task`, where it prepares at all."""
        if isinstance(self.inner, Prepares):
            await self.inner.prepare(task)

    @asynccontextmanager
    async def __call__(self, task: Task) -> AsyncIterator[Runtime]:
        """Lease the placement of `task`'s environment; waits while `width` others use it."""
        if self._slots is None:
            raise UsageError("Shared must be entered: async with Shared(runtime, width=8) as shared: ...")
        slot = self._slots.setdefault(placement_key(task), _Slot(self.width))
        async with slot.places:
            held = await slot.current(self.inner, task)
            slot.users[held] = slot.users.get(held, 0) + 1
            try:
                yield await held.ready()
            finally:
                slot.users[held] -= 1
                await slot.close_unused()


class _Slot:
    """The placement of one key, and those before it that are still in use."""

    def __init__(self, width: int) -> None:
        self.places = asyncio.Semaphore(width)
        self.users: dict[HeldPlacement, int] = {}
        self._current: HeldPlacement | None = None
        self._until = float("inf")
        self._turn = asyncio.Lock()

    async def current(self, inner: Provider, task: Task) -> HeldPlacement:
        """Return a placement that is ready; made if there is none that lives."""
        async with self._turn:
            loop = asyncio.get_running_loop()
            if self._current is None or not self._current.usable or loop.time() >= self._until:
                self._retire()
                self._current = held = HeldPlacement(inner, task)
                self.users[held] = 0
                try:
                    runtime = await held.ready()
                except BaseException:
                    self._retire()
                    del self.users[held]
                    await held.close()
                    raise
                config = runtime.config or task.runtime_config
                seconds = config.limits.run_timeout_s if config and config.limits else None
                self._until = loop.time() + seconds if seconds else float("inf")
        assert self._current is not None
        return self._current

    def _retire(self) -> None:
        self._current = None

    async def close_unused(self) -> None:
        """Close those that are no longer current and that nobody uses."""
        for held in [held for held, users in self.users.items() if not users and held is not self._current]:
            del self.users[held]
            await held.close()

    def placements(self) -> list[HeldPlacement]:
        """Return every placement there is."""
        return list(self.users)


async def enter_inner(stack: AsyncExitStack, inner: Any) -> None:
    """Enter a wrapped runtime that is a context itself, as `LocalRuntime` is."""
    if hasattr(type(inner), "__aenter__"):
        await stack.enter_async_context(inner)


async def close_all(placements: list[HeldPlacement]) -> None:
    """Close placements together; raises the first of what they raised."""
    closing = [asyncio.ensure_future(placement.close()) for placement in placements]
    if not closing:
        return
    try:
        await asyncio.wait(closing)
    except asyncio.CancelledError:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait(closing)
        raise
    finally:
        errors = [error for done in closing if done.done() and (error := done.exception())]
    if errors:
        raise errors[0]
