"""Ending a server by a signal."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Stop:
    """Set by the first SIGINT or SIGTERM, which Python delivers to the main thread, author code or not.

    A second one ends the process.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.asked: bool = False
        """Whether a signal has come."""

    async def wait(self) -> None:
        """Return once asked to stop; a signal that came before counts."""
        self._loop = asyncio.get_running_loop()
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
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._arrived) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _arrived(self, number: int, frame: object) -> None:  # noqa: ARG002 - the signature of a handler
        if self.asked:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.asked = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._event.set)
