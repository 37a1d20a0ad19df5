"""Where placements wait until this machine has room for one more."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from hud.errors import RuntimeStartError
from hud.runtime.admission import Capacity, local_capacity

LOOK_AGAIN_S = 0.5
"""How often a full machine is measured again: others may have given something back."""

REMEDIES = {
    errno.EMFILE: "too many open files: raise `ulimit -n`, or lower max_concurrent",
    errno.ENFILE: "the system has too many open files: raise fs.file-max, or lower max_concurrent",
    errno.EAGAIN: "too many processes: raise pids.max of the cgroup or `ulimit -u`, or lower max_concurrent",
    errno.ENOMEM: "out of memory: give the machine or container more, or lower max_concurrent",
    errno.ENOSPC: "no space left: free some in /var/tmp, or raise user.max_pid_namespaces and its sisters",
    errno.EDQUOT: "the disk quota is used up: free some in /var/tmp",
}


def with_remedy(text: str, number: int | None) -> str:
    """Return `text` with what to do about the error `number`, where that is a limit that can be raised."""
    remedy = REMEDIES.get(number or 0)
    return f"{text} ({remedy})" if remedy else text


class Gate:
    """Lets in as many as fit; the others wait in order. One for the process: all local placements share a machine."""

    def __init__(self, measure: Callable[[], Capacity] = local_capacity) -> None:
        self._measure = measure
        self._room = 0
        self._measured_at = float("-inf")
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._found: Capacity | None = None

    @asynccontextmanager
    async def admitted(self, timeout_s: float) -> AsyncIterator[None]:
        """Hold room for one environment.

        Raises:
            RuntimeStartError: there was none for `timeout_s` seconds; names the limit and how to raise it.
        """
        await self._enter(timeout_s)
        try:
            yield
        finally:
            self._room += 1
            self._wake()

    async def _enter(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not self._has_room():
            left = deadline - time.monotonic()
            if left <= 0:
                assert self._found is not None
                raise RuntimeStartError(
                    f"no room for one more environment within {timeout_s:g} s: {self._found.limiting} is the limit; "
                    f"{self._found.raise_it}"
                )
            await self._wait(min(left, LOOK_AGAIN_S))
        self._room -= 1

    def _has_room(self) -> bool:
        if self._room <= 0 and time.monotonic() - self._measured_at >= LOOK_AGAIN_S:
            self._found = self._measure()
            self._room = self._found.children
            self._measured_at = time.monotonic()
        return self._room > 0

    async def _wait(self, seconds: float) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await asyncio.wait((turn,), timeout=seconds)
        finally:
            if turn.done():
                # Woken, perhaps to be cancelled: whoever is next looks too.
                self._wake()
            else:
                turn.cancel()
                self._waiting.remove(turn)

    def _wake(self) -> None:
        while self._waiting and self._room > 0:
            turn = self._waiting.popleft()
            # The loop of a waiter may be another thread's, or closed.
            with contextlib.suppress(RuntimeError):
                turn.get_loop().call_soon_threadsafe(_settle, turn)
                return


def _settle(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


gate = Gate()
