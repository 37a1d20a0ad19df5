"""Notices what deadlines cannot: a loop that a blocking call has stopped, a process that answers nothing any more.

Two hold a job to its bound. A thread reports a blocked loop with the stack that holds it and, once every deadline has
passed, writes what is known. A process (`hud.runtime.watchdog`) hears from the loop every few seconds when the job
must be over at the latest; where nothing newer comes it kills this process, whatever holds it, and `hud.eval.aftermath`
writes the last records. It also removes what this process leaves behind, however it ends.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from hud.runtime.watchdog import WatchdogProcess, watchdog

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


REFRESH_S = 2.0
"""How often the loop tells the process of its bound."""

LAST_S = 10.0
"""What the loop, then the thread, may take to end an overdue job by themselves before the process ends all."""

_AFTER = (
    "import sys; sys.path[:] = sys.argv[1].split('\\n'); "
    "from hud.eval.aftermath import main; main(sys.argv[2], *sys.argv[3:])"
)


class Heartbeat:
    """Tells the watchdog process when a job must be over, from the job's loop, while the block lasts.

    `bound` returns the `time.monotonic()` at which every part of the job must be over that runs now or begins within
    `REFRESH_S`. The process waits `LAST_S` longer.
    """

    def __init__(self, job_id: str, file: Path | None, bound: Callable[[], float]) -> None:
        self._job_id = job_id
        self._file = file
        self._bound = bound
        self._process: WatchdogProcess | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._process = _watchdog()
        self._beat()
        return self

    def _beat(self) -> None:
        assert self._process is not None
        self._process.watch(self._job_id, self._file, self._bound() + LAST_S)
        self._timer = asyncio.get_running_loop().call_later(REFRESH_S, self._beat)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._process is not None:
            self._process.over(self._job_id)


def _watchdog() -> WatchdogProcess:
    from hud.runtime.folders import owner_record

    return watchdog([sys.executable, "-P", "-c", _AFTER, "\n".join(sys.path), owner_record()])


@contextmanager
def cleaned_up_after(name: str) -> Iterator[None]:
    """Have what this process makes removed by another, should it be killed while the block lasts.

    `name` is of letters, digits and dashes, and of no job.
    """
    process = _watchdog()
    process.watch(name, None, None)
    try:
        yield
    finally:
        process.over(name)


def stack_of(thread: int) -> str:
    """Return the stack of a thread as text; empty where it has ended."""
    frame = sys._current_frames().get(thread)
    return "" if frame is None else "".join(traceback.format_stack(frame))
