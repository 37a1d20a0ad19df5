"""The loop that author code runs on: the main thread's, or one in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from hud.environment.mailbox import Mailbox
from hud.environment.tracebacks import stack_of_thread

log = logging.getLogger("hud.environment")

T = TypeVar("T")

STOP_GRACE_S = 2.0
"""How long tasks that author code left behind may take to end once the loop is stopped."""


class AuthorLoop:
    """An event loop that outlives what author code raises in it.

    `SystemExit` and `KeyboardInterrupt` raised in a task end `run_forever`; here it is entered again and the
    exception reported. Calls come in through `mailbox`. `run` blocks the calling thread until `stop`.
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.new_event_loop()
        self.loop.set_exception_handler(_report_unhandled)
        self.mailbox: Mailbox = Mailbox(self.loop)
        self.thread_id: int | None = None
        self.ended: Future[None] = Future()
        self._stopping = False
        self._thread: threading.Thread | None = None

    @classmethod
    def in_thread(cls, name: str = "hud-author") -> AuthorLoop:
        """Start one in a thread of its own. A daemon: author code that blocks for ever cannot hold the process."""
        author = cls()
        author._thread = threading.Thread(target=author.run, name=name, daemon=True)
        author._thread.start()
        return author

    @property
    def own_thread(self) -> bool:
        """Whether the loop has a thread of its own, so that the process goes on when author code blocks it."""
        return self._thread is not None

    def run(self) -> None:
        """Run author code until `stop` was called, then end what it left behind."""
        self.thread_id = threading.get_ident()
        asyncio.set_event_loop(self.loop)
        try:
            while not self._stopping:
                try:
                    self.loop.run_forever()
                except BaseException:
                    log.exception("author code left its own task with")
            self._end_tasks()
        finally:
            asyncio.set_event_loop(None)
            self.ended.set_result(None)

    def stop(self) -> None:
        """Have `run` return; from any thread, safe to call twice. `ended` is done once it did."""
        self._stopping = True
        self.mailbox.post(self.loop.stop)

    def stack(self) -> str:
        """What the author's thread executes right now, without our frames."""
        frame = sys._current_frames().get(self.thread_id or -1)
        return stack_of_thread(frame) if frame is not None else ""

    def _end_tasks(self) -> None:
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        if left:
            self._run_bounded(asyncio.wait(left, timeout=STOP_GRACE_S))
        self._run_bounded(asyncio.wait_for(self.loop.shutdown_asyncgens(), STOP_GRACE_S))
        for task in asyncio.all_tasks(self.loop):
            log.error("author code left a task that does not end: %r", task)
            task._log_destroy_pending = False  # type: ignore[attr-defined] # said in the line above
        self.loop.close()

    def _run_bounded(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run `work`, which ends by itself, to its end, also where a task beside it raises what ends a loop's run."""
        task = self.loop.create_task(work)
        while not task.done():
            try:
                self.loop.run_until_complete(task)
            except BaseException:
                log.exception("author code raised while its loop was closed")


def run_beside(main: Callable[[AuthorLoop], Coroutine[Any, Any, T]], *, wedged_after_s: float = 2.0) -> T:
    """Run author code on this thread and `main(author)` on a second thread's loop; return what `main` returns.

    For a process that serves one environment. `main` gets the loop to hand to `serving(env, author=author)`.
    Its loop is uvloop's or asyncio's as the policy says. Where `main` has ended and author code still blocks this
    thread `wedged_after_s` seconds later, its stack is logged and the process ended by `os._exit`.
    """
    author = AuthorLoop()
    outcome: list[T] = []
    raised: list[BaseException] = []

    def serve() -> None:
        try:
            outcome.append(asyncio.run(main(author)))
        except BaseException as error:  # noqa: BLE001 - carried to the calling thread
            raised.append(error)
        finally:
            author.stop()
            if not wait([author.ended], timeout=wedged_after_s + STOP_GRACE_S).done:
                _exit_wedged(author, failed=bool(raised))

    thread = threading.Thread(target=serve, name="hud-service", daemon=True)
    thread.start()
    author.run()
    thread.join()
    if raised:
        raise raised[0]
    return outcome[0]


def _exit_wedged(author: AuthorLoop, *, failed: bool) -> None:
    import os

    log.error("author code blocks its thread and the service has ended; leaving it:\n%s", author.stack())
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(1 if failed else 0)


def _report_unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # noqa: ARG001
    error = context.get("exception")
    log.error("author code: %s", context.get("message", "unhandled error"), exc_info=error)
