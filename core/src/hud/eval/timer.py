"""One timer for all phases of a rollout."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class PhaseTimer:
    """Calls back when the current deadline passes; moving the deadline costs no more than remembering it.

    `asyncio.timeout` makes a timer per use, six and more a rollout, of which none ever fires. This one is armed for the
    shortest deadline, and armed again where it fires before the current one.
    """

    __slots__ = ("_at", "_expired", "_handle", "_loop", "_shortest")

    def __init__(self, shortest: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._shortest = shortest
        self._handle: asyncio.TimerHandle | None = None
        self._at = 0.0
        self._expired: Callable[[], None] | None = None

    def set(self, seconds: float, expired: Callable[[], None]) -> None:
        """Call `expired` after `seconds`, in place of what was set before."""
        now = self._loop.time()
        self._at = now + seconds
        self._expired = expired
        if self._handle is None:
            self._handle = self._loop.call_at(now + min(seconds, self._shortest), self._fire)
        elif self._handle.when() > self._at:
            self._handle.cancel()
            self._handle = self._loop.call_at(self._at, self._fire)

    def clear(self) -> None:
        """Call nothing."""
        self._expired = None

    def close(self) -> None:
        """Call nothing any more; safe to call twice."""
        self._expired = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = None
        expired = self._expired
        if expired is None:
            return
        if self._loop.time() < self._at:
            self._handle = self._loop.call_at(self._at, self._fire)
            return
        self._expired = None
        expired()
