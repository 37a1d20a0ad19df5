"""Ctrl-C and SIGTERM while a job runs: once to finish, twice to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hud.cli.failure import INTERRUPTED

TWICE_WITHIN_S = 3.0
SAME_PRESS_S = 0.05
"""Signals closer than this are one: `timeout` and shells send to the process and to its group."""
FINISH_WITHIN_S = 15.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Takes the signals of the main thread: the first cancels `task`, a second within three seconds ends all.

    These are the interpreter's own handlers, not the loop's: a loop that is stuck cannot keep them from
    running. `on_first` is called on the loop, and may answer True where it ends the task by itself; `on_stop`
    wherever the signal found the main thread, so it may only write.
    """

    def __init__(
        self, task: asyncio.Task[object], *, on_first: Callable[[], bool], on_stop: Callable[[], None]
    ) -> None:
        self.task = task
        self.count = 0
        self._on_first = on_first
        self._on_stop = on_stop
        self._loop = asyncio.get_running_loop()
        self._last = 0.0
        self._bound: threading.Timer | None = None

    def arrived(self, number: int, frame: object) -> None:  # noqa: ARG002 - the signature of a handler
        """Take one signal."""
        now = time.monotonic()
        since = now - self._last
        if self.count and since < SAME_PRESS_S:
            return
        self.count += 1
        self._last = now
        if self.count == 1:
            self._bound = threading.Timer(FINISH_WITHIN_S, self.stop_now)
            self._bound.daemon = True
            self._bound.start()
            self._loop.call_soon_threadsafe(self._first)
        elif since <= TWICE_WITHIN_S:
            self.stop_now()

    def stop_now(self) -> None:
        """End the process at once. What it started notices: zygotes and the watchdog hold a pipe of it."""
        try:
            self._on_stop()
        finally:
            os._exit(INTERRUPTED)

    def finished(self) -> None:
        """Drop the bound: the job returned in time."""
        if self._bound is not None:
            self._bound.cancel()

    def _first(self) -> None:
        if not self._on_first():
            self.task.cancel()


@contextmanager
def handled(interrupts: Interrupts) -> Iterator[None]:
    """Let `interrupts` have SIGINT and SIGTERM of this process, and give them back at the end.

    After an interruption they are ignored from then on: all that is left is to print what was done and exit.
    """
    before = {number: signal.signal(number, interrupts.arrived) for number in SIGNALS}
    try:
        yield
    finally:
        interrupts.finished()
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if interrupts.count else handler)


def terminate_like_ctrl_c() -> None:
    """Make SIGTERM raise `KeyboardInterrupt` too, for the time in which no loop runs yet."""

    def raise_interrupted(number: int, frame: object) -> None:  # noqa: ARG001 - the signature of a handler
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, raise_interrupted)
