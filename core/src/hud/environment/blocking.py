"""Notices author code that blocks its loop, and says where."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hud.environment.author import AuthorLoop

log = logging.getLogger("hud.environment")

BLOCK_S = 2.0
"""A block longer than this is reported."""

_EVERY_S = 0.5


class BlockWatch:
    """While a start or grade runs, asks the author's loop every half second whether it still turns.

    `reports` keeps the latest stacks, newest last; each block is reported once.
    """

    def __init__(self, author: AuthorLoop, loop: asyncio.AbstractEventLoop) -> None:
        self.reports: list[str] = []
        self._author = author
        self._loop = loop
        self._busy = 0
        self._timer: asyncio.TimerHandle | None = None
        self._asked_at: float | None = None
        self._reported = False

    def begin(self) -> None:
        """Author code is at work."""
        self._busy += 1
        if self._timer is None:
            self._timer = self._loop.call_later(_EVERY_S, self._tick)

    def end(self) -> None:
        """One piece of work is done; the timer ends by itself when none is left."""
        self._busy -= 1

    def close(self) -> None:
        """Stop asking."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        if not self._busy:
            self._timer = None
            return
        self._timer = self._loop.call_later(_EVERY_S, self._tick)
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            self._reported = False
            self._author.mailbox.post(self._turns)
        elif not self._reported and time.monotonic() - self._asked_at >= BLOCK_S:
            self._reported = True
            stack = self._author.stack()
            self.reports = [*self.reports[-9:], stack]
            log.error(
                "author code has blocked its event loop for %.1f s (use `await asyncio.to_thread(...)` for blocking "
                "work); it is at\n%s",
                time.monotonic() - self._asked_at,
                stack,
            )

    def _turns(self) -> None:
        self._asked_at = None
