"""Notices what deadlines cannot: an event loop that a blocking call has stopped."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Self

logger = logging.getLogger("hud.eval")

BLOCKED_S = 2.0
"""A loop that answers nothing for so long is reported, with the stack that holds it."""

Wedged = Callable[[str], None]
"""Is told, on the watchdog's thread, the stack that holds a loop for longer than any rollout may take."""


class Watchdog:
    """Watches the running loop from a thread, for the length of a job.

    A block over 2 s is logged once, with the stack. Once `overdue()` is true while the loop is blocked, deadlines
    have passed that nothing on the loop can enforce any more: `on_wedged` is called, once, with the stack. It can
    write what is known and end the process; nothing less ends a thread that is stuck in a call.
    """

    def __init__(
        self, overdue: Callable[[], bool], on_wedged: Wedged, *, blocked_s: float = BLOCKED_S
    ) -> None:
        self._overdue = overdue
        self._on_wedged = on_wedged
        self._blocked_s = blocked_s
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        loop, watched = asyncio.get_running_loop(), threading.get_ident()
        self._thread = threading.Thread(
            target=self._watch, args=(loop, watched), name="hud-watchdog", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._ended.set()

    def _watch(self, loop: asyncio.AbstractEventLoop, watched: int) -> None:
        while not self._ended.wait(self._blocked_s):
            answered = threading.Event()
            try:
                loop.call_soon_threadsafe(answered.set)
            except RuntimeError:
                return  # the loop is closed
            if not answered.wait(self._blocked_s):
                self._blocked(answered, watched)

    def _blocked(self, answered: threading.Event, watched: int) -> None:
        """Report the block, and wait for its end or for the moment when nothing else is left."""
        begun = time.monotonic() - self._blocked_s
        logger.warning(
            "the event loop has been blocked for %.0f s; every rollout of this process waits. It is held by:\n%s",
            self._blocked_s,
            stack_of(watched),
        )
        while not answered.wait(self._blocked_s) and not self._ended.is_set():
            if self._overdue():
                self._on_wedged(stack_of(watched))
                return
        logger.warning("the event loop goes on after %.1f s", time.monotonic() - begun)


def stack_of(thread: int) -> str:
    """Return the stack of a thread as text; empty where it has ended."""
    frame = sys._current_frames().get(thread)
    return "" if frame is None else "".join(traceback.format_stack(frame))
