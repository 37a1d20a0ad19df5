"""Ending a server by a signal."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Set by the first SIGINT or SIGTERM, also while author code holds the main thread in a call that does not return.

    Python runs handlers between the instructions of the main thread alone: a call into C that takes hours keeps them
    waiting, and so does a sleep entered just before the signal. So the loop that waits is told by the signal's wake-up
    descriptor, and the handler, once it runs, counts: a second signal ends the process.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wakeups: socket.socket | None = None
        self._handled = False
        self.asked: bool = False
        """Whether a signal has come."""

    async def wait(self) -> None:
        """Return once asked to stop; a signal that came before counts."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop and self._wakeups is not None:
            loop.add_reader(self._wakeups, self._woken)
        self._loop = loop
        if self.asked:
            return
        await self._event.wait()

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Cancel what the context awaits once asked to stop; that cancellation ends with the context."""
        task = asyncio.current_task()
        assert task is not None
        asked = asyncio.ensure_future(self.wait())
        ours = False

        def interrupt(_: asyncio.Future[None]) -> None:
            nonlocal ours
            ours = True
            task.cancel()

        asked.add_done_callback(interrupt)
        try:
            yield
        except asyncio.CancelledError:
            if not ours or task.uncancel() > 0:
                raise
        finally:
            asked.remove_done_callback(interrupt)
            asked.cancel()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM within the context; enter it on the main thread."""
        self._wakeups, written = socket.socketpair()
        with self._wakeups, written:
            self._wakeups.setblocking(False)
            written.setblocking(False)
            descriptor = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
            before = {number: signal.signal(number, self._arrived) for number in SIGNALS}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
                signal.set_wakeup_fd(descriptor)

    def _woken(self) -> None:
        assert self._wakeups is not None
        if any(number in SIGNALS for number in self._wakeups.recv(4096)):
            self.asked = True
            self._event.set()

    def _arrived(self, number: int, frame: object) -> None:  # noqa: ARG002 - the signature of a handler
        if self._handled:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._handled = self.asked = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._event.set)
