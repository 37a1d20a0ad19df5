"""Calls handed to the loop of another thread, one wake-up a batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


class Mailbox:
    """Runs calls on `loop` in the order they were posted, from whichever thread.

    `loop.call_soon_threadsafe` writes to a pipe each time; here only the first call of a batch does.
    """

    __slots__ = ("_armed", "_calls", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._armed = False

    def post(self, call: Callable[..., object], *args: Any) -> bool:
        """Have `call(*args)` run on the loop; False where the loop is closed and nothing will run."""
        self._calls.append((call, args))
        if not self._armed:
            self._armed = True
            try:
                self.loop.call_soon_threadsafe(self._drain)
            except RuntimeError:
                self._armed = False
                self._calls.clear()
                return False
        return True

    def _drain(self) -> None:
        # Disarmed first: a call appended from now on either is drained below or wakes the loop again.
        self._armed = False
        calls = self._calls
        try:
            for _ in range(len(calls)):
                call, args = calls.popleft()
                call(*args)
        finally:
            if calls and not self._armed:
                self._armed = True
                self.loop.call_soon(self._drain)
