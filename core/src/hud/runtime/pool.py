"""`Pool`: fresh placements kept warm ahead of need."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from hud.errors import UsageError
from hud.runtime.contract import Prepares
from hud.runtime.held import HeldPlacement, placement_key
from hud.runtime.shared import close_all, enter_inner

if TYPE_CHECKING:
    from hud.runtime.contract import Features, Provider, Runtime
    from hud.types import Task


class Pool:
    """Keep up to `size` placements warm, so that a rollout starts on one that is ready.

    Each placement is used by one rollout and then released; another is made in its place, in the background.
    Rows share warm placements when they have the same environment and `runtime_config`; with several, those of
    the one used longest ago make room. Where none is warm a rollout places its own. Those that died while they
    waited are thrown away. `async with Pool(LocalRuntime("env.py"), size=8) as runtime`; the end of the block
    releases all.
    """

    def __init__(self, inner: Provider, *, size: int) -> None:
        if size < 1:
            raise UsageError(f"Pool needs a size of at least 1, not {size}")
        self.inner = inner
        self.size = size
        self._warm: OrderedDict[Any, deque[HeldPlacement]] | None = None
        self._entered = 0
        self._stack = AsyncExitStack()
        self._closing: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []

    @property
    def features(self) -> Features | None:
        """What the inner runtime can give, where it says so."""
        found: Features | None = getattr(self.inner, "features", None)
        return found

    @property
    def warm(self) -> int:
        """How many placements are ready and waiting."""
        return sum(held.usable for line in (self._warm or {}).values() for held in line)

    async def __aenter__(self) -> Self:
        self._entered += 1
        if self._entered == 1:
            await enter_inner(self._stack, self.inner)
            self._warm = OrderedDict()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._entered -= 1
        if self._entered:
            return
        warm, self._warm = self._warm or OrderedDict(), None
        try:
            await close_all([held for line in warm.values() for held in line])
        finally:
            if self._closing:
                await asyncio.wait(self._closing)
            await self._stack.aclose()

    async def fill(self, task: Task) -> None:
        """Wait until `size` placements for rows like `task` are warm; raises what placing one raised."""
        line = self._line(task)
        self._refill(line, task)
        for held in list(line):
            await held.ready()

    async def prepare(self, task: Task) -> None:
        """Have the inner provider prepare for `task`, where it prepares at all."""
        if isinstance(self.inner, Prepares):
            await self.inner.prepare(task)

    @asynccontextmanager
    async def __call__(self, task: Task) -> AsyncIterator[Runtime]:
        """Take a warm placement for `task`, or place one."""
        line = self._line(task)
        held = self._take(line) or HeldPlacement(self.inner, task)
        try:
            runtime = await held.ready()
            self._refill(line, task)
            yield runtime
        finally:
            await held.close()

    def _line(self, task: Task) -> deque[HeldPlacement]:
        if self._warm is None:
            raise UsageError("Pool must be entered: async with Pool(runtime, size=8) as pool: ...")
        key = placement_key(task)
        line = self._warm.setdefault(key, deque())
        self._warm.move_to_end(key)
        return line

    def _take(self, line: deque[HeldPlacement]) -> HeldPlacement | None:
        """Return the placement that is ready, else the one being placed the longest."""
        for held in list(line):
            if held.ended or held.failed:
                line.remove(held)
                self._close_later(held)
        best = next((held for held in line if held.usable), line[0] if line else None)
        if best is not None:
            line.remove(best)
        return best

    def _refill(self, line: deque[HeldPlacement], task: Task) -> None:
        if self._warm is None:
            return
        while (total := sum(map(len, self._warm.values()))) < self.size or len(line) < self.size:
            if total >= self.size:
                oldest = next((other for other in self._warm.values() if other and other is not line), None)
                if oldest is None:
                    return
                self._close_later(oldest.popleft())
            line.append(HeldPlacement(self.inner, task))

    def _close_later(self, held: HeldPlacement) -> None:
        async def close() -> None:
            try:
                await held.close()
            except Exception as error:  # noqa: BLE001 - nobody used it: told by `errors`, harms no rollout
                self._errors.append(error)

        closing = asyncio.get_running_loop().create_task(close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
