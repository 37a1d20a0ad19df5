"""The owner's side of its watchdog process: started with the first job, told how long each may take, let go at the end.

`hud.runtime.watchdog_program` is what runs there.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import sys
import threading
import time
from pathlib import Path

from hud.runtime.folders import start_time

_PROGRAM = str(Path(__file__).with_name("watchdog_program.py"))
GONE_WITHIN_S = 1.0
MOST_STARTS = 3
"""Watchdogs of one process; more have been killed by somebody who wants none."""


class WatchdogProcess:
    """The watchdog of this process, shared by its jobs. Safe to use from any thread.

    `after` is the command it becomes once this process is gone: it gets `died` or `wedged`, and the job files.
    """

    def __init__(self, after: list[str]) -> None:
        self._after = after
        self._lock = threading.Lock()
        self._jobs: dict[str, bytes] = {}
        self._pipe = -1
        self._starts = 0
        self.pid: int = 0

    def watch(self, job_id: str, file: Path | None, by: float | None) -> None:
        """Say that the job must say something newer, or be over, by `by` (`time.monotonic()`); None: no bound now.

        Never blocks, and never raises: without a watchdog the next start cleans up.
        """
        path = "-" if file is None else os.fsencode(file.absolute()).hex()
        line = f"by {job_id} {'-' if by is None else f'{by:.3f}'} {path}\n".encode()
        with self._lock:
            self._jobs[job_id] = line
            if self._pipe < 0:
                self._start()
            else:
                self._tell(line)

    def over(self, job_id: str) -> bool:
        """Say that a job has ended; return whether none is left."""
        with self._lock:
            if self._jobs.pop(job_id, None) is not None and self._pipe >= 0:
                self._tell(f"over {job_id}\n".encode())
            return not self._jobs

    def dismiss(self) -> int:
        """Let it go unless a job runs; return its process number, 0 where there is none to wait for."""
        with self._lock:
            if self._pipe < 0 or self._jobs:
                return 0
            self._tell(b"bye\n")
            self.let_go()
            pid, self.pid = self.pid, 0
            self._starts = 0
            return pid

    def let_go(self) -> None:
        """Close the pipe alone."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def _start(self) -> None:
        if self._starts >= MOST_STARTS:
            return
        self._starts += 1
        _collect()
        reading, writing = os.pipe()
        owner = os.getpid()
        argv = [sys.executable, "-I", "-S", _PROGRAM, str(owner), start_time(owner) or "-"]
        actions = [
            (os.POSIX_SPAWN_DUP2, reading, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ]
        try:
            self.pid = os.posix_spawn(sys.executable, argv, os.environ, file_actions=actions, setsid=True)
        except OSError:
            os.close(writing)
            return
        finally:
            os.close(reading)
        collect_later(self.pid)
        os.set_blocking(writing, False)
        self._pipe = writing
        words = b"\0".join(os.fsencode(word) for word in self._after)
        self._tell(f"after {words.hex()}\n".encode())
        for line in self._jobs.values():
            self._tell(line)

    def _tell(self, line: bytes) -> None:
        try:
            os.write(self._pipe, line)
        except BlockingIOError:
            return  # it is stopped: it will have the next one, or none
        except OSError:
            self.let_go()
            self._start()


_started: list[int] = []
"""Children that have not been waited for."""


def collect_later(pid: int) -> None:
    """Have a child that ends by itself waited for some time after."""
    _started.append(pid)


def _collect() -> None:
    for pid in list(_started):
        with contextlib.suppress(ChildProcessError):
            if not os.waitpid(pid, os.WNOHANG)[0]:
                continue
        _started.remove(pid)


_own: WatchdogProcess | None = None
_making = threading.Lock()


def watchdog(after: list[str]) -> WatchdogProcess:
    """Return the watchdog of this process, which starts with its first job."""
    global _own
    with _making:
        if _own is None:
            _own = WatchdogProcess(after)
            atexit.register(_at_exit)
        return _own


async def dismissed() -> None:
    """Let the watchdog go if no job runs and nothing is left that it should see to; returns when it is gone."""
    from hud.runtime.ledger import ledger

    if _own is None or ledger().has_open:
        return
    pid = _own.dismiss()
    if not pid:
        return
    deadline = time.monotonic() + GONE_WITHIN_S
    with contextlib.suppress(OSError, AttributeError):
        ended = asyncio.Event()
        process = os.pidfd_open(pid)
        loop = asyncio.get_running_loop()
        loop.add_reader(process, ended.set)
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0.0)):
                await ended.wait()
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(process)
            os.close(process)
    _collect()


def _at_exit() -> None:
    from hud.runtime.ledger import ledger

    if _own is not None and not ledger().has_open:
        _own.dismiss()


def _forget() -> None:
    """In a process forked from this one: the watchdog is not its own."""
    global _own, _making
    _making = threading.Lock()
    if _own is not None:
        _own.let_go()
        _own = None
    _started.clear()


os.register_at_fork(after_in_child=_forget)
